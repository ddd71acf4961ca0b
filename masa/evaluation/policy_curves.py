"""Policies of `masa-solve` beside each other, on the samples that an evaluation has saved.

A policy is replayed: it takes a question's solutions one after the other, in several random orders,
until it has enough. All policies see the same samples, so differences are paired per question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masa.inference.policies import Attempts, CombinedPolicy, Policy
from masa.inference.predictions import PredictionSummary
from masa.plugins import build_plugin
from masa.seeding import derive_seed
from masa.statistics import RESAMPLES, Estimate, resampled_sums

Floats = NDArray[np.float64]

ORDERS = 8
"""Random orders of a question's samples over which everything is averaged."""
REFERENCE = 8
"""Samples per question of the uniform policy that the others are compared with."""


@dataclass(frozen=True)
class AnsweredQuestion:
    """What is saved of one question: n solutions, and predictions about them."""

    id: str
    cluster: str
    answers: Sequence[int | None]
    """Place of each solution's answer, [n]."""
    tokens: Sequence[int]
    """[n]"""
    correct: Sequence[bool]
    """[n]"""
    prediction: PredictionSummary | None

    @property
    def pass_rate(self) -> float:
        """Share of right solutions."""
        return sum(self.correct) / len(self.correct)


@dataclass(frozen=True)
class Outcome:
    """What a policy made of one question, the mean over the orders."""

    accuracy: float
    tokens: float
    confidences: tuple[float, ...]
    """Per order."""
    right: tuple[bool, ...]
    """Per order."""


def replay(policy: Policy, question: AnsweredQuestion, orders: int = ORDERS) -> Outcome:
    """A policy on the saved samples of a question.

    Args:
        policy: must want no more samples than there are.
        question: its samples.
        orders: in how many orders they come; the same for every policy.
    """
    spent, confidences, right = 0.0, [], []
    for number in range(orders):
        rng = np.random.default_rng(derive_seed("order", question.id, number))
        order = iter(rng.permutation(len(question.answers)).tolist())
        attempts = Attempts(question.prediction if policy.needs_predictions else None)
        first: list[int] = []
        limit = policy.limit(attempts)
        most = math.inf if limit is None else math.ceil(limit)
        if attempts.prediction is not None:
            spent += attempts.prediction.tokens
        while wanted := policy.wanted(attempts):
            for _ in wanted:
                sample = next(order)
                spent += min(question.tokens[sample], most)
                answer = question.answers[sample]
                if answer is None or question.tokens[sample] > most:
                    attempts.add(None)
                    continue
                places = [question.answers[one] for one in first]
                if answer not in places:
                    first.append(sample)
                    places.append(answer)
                attempts.add(places.index(answer))
        choice = policy.choice(attempts)
        right.append(choice is not None and bool(question.correct[first[choice]]))
        confidences.append(policy.confidence(attempts))
    return Outcome(float(np.mean(right)), spent / orders, tuple(confidences), tuple(right))


@dataclass(frozen=True)
class Curve:
    """A policy at several settings, each on all questions."""

    settings: Sequence[Mapping[str, Any]]
    """[K]"""
    accuracy: Floats
    """[Q, K]"""
    tokens: Floats
    """[Q, K]"""


def draw_curve(node: Mapping[str, Any], questions: Sequence[AnsweredQuestion], n: int) -> Curve:
    """A policy from little to much spending; `node` is its `_target_` and settings."""
    settings = build_plugin("solve", node, Policy).settings_to_compare(n)
    return _curve(
        [build_plugin("solve", {**node, **changed}, Policy) for changed in settings],
        settings,
        questions,
    )


def _curve(
    policies: Sequence[Policy],
    settings: Sequence[Mapping[str, Any]],
    questions: Sequence[AnsweredQuestion],
) -> Curve:
    outcomes = [[replay(policy, question) for policy in policies] for question in questions]
    accuracy = np.array([[outcome.accuracy for outcome in row] for row in outcomes])
    tokens = np.array([[outcome.tokens for outcome in row] for row in outcomes])
    return Curve(settings, accuracy, tokens)


def oracle_curve(questions: Sequence[AnsweredQuestion], n: int) -> Curve:
    """The bound: the policy `combined` that knows each question's pass rate, for no tokens."""
    knowing = [
        replace(q, prediction=PredictionSummary(q.pass_rate, 0.0, None, None, {}, 1, 1, 0))
        for q in questions
    ]
    settings = CombinedPolicy.settings_to_compare(n)
    policies = [CombinedPolicy(**{**changed, "strength": 100.0}) for changed in settings]
    return _curve(policies, settings, knowing)


def accuracy_at(tokens: Floats, accuracy: Floats, budget: float) -> float:
    """Accuracy of a curve [K] at a number of tokens per question, between two of its settings by
    tossing a coin between them; NaN where its cheapest setting costs more."""
    order = np.argsort(tokens, kind="stable")
    tokens, best = tokens[order], np.maximum.accumulate(accuracy[order])
    return math.nan if budget < tokens[0] else float(np.interp(budget, tokens, best))


def tokens_for(tokens: Floats, accuracy: Floats, goal: float) -> float:
    """Tokens per question at which a curve [K] reaches an accuracy; infinite where it does not."""
    order = np.argsort(tokens, kind="stable")
    tokens, best = tokens[order], np.maximum.accumulate(accuracy[order])
    if goal > best[-1]:
        return math.inf
    i = int(np.argmax(best >= goal))
    if i == 0:
        return float(tokens[0])
    share = (goal - best[i - 1]) / (best[i] - best[i - 1])
    return float(tokens[i - 1] + share * (tokens[i] - tokens[i - 1]))


def compare_curves(
    curve: Curve, other: Curve, at: int, clusters: Sequence[str]
) -> dict[str, Estimate]:
    """A curve beside another one, at the tokens and at the accuracy of one of its settings.

    Args:
        curve: of a policy.
        other: of the one that it is compared with.
        at: which of the other's settings [K].
        clusters: context of each question, [Q].

    Returns:
        accuracy_difference: curve less other, at equal tokens; NaN where the curve starts above
        them. tokens_ratio: tokens of the curve over those of the other at equal accuracy, infinite
        where it is not reached. Intervals by bootstrap over clusters.
    """

    def numbers(sums: Floats) -> tuple[float, float]:
        own = len(curve.settings)
        parts = np.split(sums, np.cumsum([own, own, 1]))
        accuracy, tokens, (reached,), (budget,) = parts
        difference = accuracy_at(tokens, accuracy, budget) - reached
        return difference, tokens_for(tokens, accuracy, reached) / budget

    columns = np.hstack(
        [curve.accuracy, curve.tokens, other.accuracy[:, [at]], other.tokens[:, [at]]]
    )
    counts = np.ones((len(columns), 1))
    drawn = resampled_sums(np.hstack([columns, counts]), clusters, RESAMPLES // 10)
    draws = np.array([numbers(sums[:-1] / sums[-1]) for sums in drawn])
    difference, ratio = numbers(columns.mean(axis=0))
    return {
        "accuracy_difference": Estimate(difference, *_bounds(draws[:, 0])),
        "tokens_ratio": Estimate(ratio, *_bounds(draws[:, 1])),
    }


def _bounds(draws: Floats) -> tuple[float, float]:
    """Of the middle 95 %, infinite ones included; NaN where some are NaN."""
    ordered = np.sort(draws)
    edge = int(0.025 * len(ordered))
    return float(ordered[edge]), float(ordered[-1 - edge])


def risk_coverage(
    confidence: Floats, wrong: Floats, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Share of wrong answers among the most confident ones, per share of questions answered.

    Args:
        confidence: [Q].
        wrong: 1 for a wrong answer, [Q].
        weights: of the questions, [Q].

    Returns:
        coverage and risk, one per different confidence from high to low: equal ones are answered
        together.
    """
    weights = np.ones(len(wrong)) if weights is None else weights
    levels, group = np.unique(-confidence, return_inverse=True)
    answered = np.bincount(group, weights, len(levels)).cumsum()
    errors = np.bincount(group, weights * wrong, len(levels)).cumsum()
    some = answered > 0
    return answered[some] / answered[-1], errors[some] / answered[some]


def area_under_risk_coverage(
    confidence: Floats, wrong: Floats, weights: Floats | None = None
) -> float:
    """Mean risk over all coverages (AURC: Geifman, Uziel and El-Yaniv, arXiv 1805.08206); within
    equal confidences the questions come in random order."""
    coverage, risk = risk_coverage(confidence, wrong, weights)
    errors = np.append(0.0, coverage * risk)
    coverage = np.append(0.0, coverage)
    fine = np.linspace(0, 1, 1001)[1:]
    return float((np.interp(fine, coverage, errors) / fine).mean())


def selective(
    policy: Policy, questions: Sequence[AnsweredQuestion]
) -> tuple[Estimate, list[dict[str, float]]]:
    """AURC of a policy's confidence with a bootstrap interval, and the curve of one order."""
    outcomes = [replay(policy, question) for question in questions]
    confidence = np.array([outcome.confidences for outcome in outcomes])
    wrong = 1.0 - np.array([outcome.right for outcome in outcomes])
    clusters = np.unique([q.cluster for q in questions], return_inverse=True)[1]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES // 50):
        picked = np.bincount(rng.integers(0, clusters.max() + 1, clusters.max() + 1),
                             minlength=clusters.max() + 1)[clusters].astype(float)  # fmt: skip
        order = int(rng.integers(ORDERS))
        draws.append(area_under_risk_coverage(confidence[:, order], wrong[:, order], picked))
    areas = [area_under_risk_coverage(confidence[:, i], wrong[:, i]) for i in range(ORDERS)]
    coverage, risk = risk_coverage(confidence.ravel(), wrong.ravel())
    curve = [{"coverage": float(c), "risk": float(r)} for c, r in zip(coverage, risk, strict=True)]
    return Estimate(float(np.mean(areas)), *_bounds(np.array(draws))), curve


def reference_setting(curve: Curve) -> int:
    """Which setting of the uniform policy's curve has `REFERENCE` samples, or the most below."""
    return max(i for i, changed in enumerate(curve.settings) if changed["n"] <= REFERENCE)
