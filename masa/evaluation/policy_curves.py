"""Policies of `masa-solve` beside each other, on the samples that an evaluation has saved.

A policy is replayed: it takes a question's solutions one after the other, in several random orders,
until it has enough. All policies see the same samples, so differences are paired per question.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from masa.errors import require
from masa.inference.policies import (
    Attempts,
    CombinedPolicy,
    Policy,
    choice_of,
    confidence_of,
    next_samples,
    sample_limit,
)
from masa.inference.predictions import PredictionSummary
from masa.inference.solving import Limits
from masa.plugins import build_plugin
from masa.seeding import derive_seed
from masa.statistics import RESAMPLES, Estimate, Floats, resampled_sums

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
class PolicyOutcome:
    """What a policy made of one question, the mean over the orders."""

    accuracy: float
    tokens: float
    confidences: tuple[float, ...]
    """Per order."""
    right: tuple[bool, ...]
    """Per order."""


def replay(
    policy: Policy, question: AnsweredQuestion, limits: Limits, orders: int = ORDERS
) -> PolicyOutcome:
    """A policy on the saved samples of a question, with the limits of `masa-solve`.

    Args:
        policy: of at most as many samples as there are.
        question: its samples.
        limits: tokens of a sample.
        orders: in how many orders they come; the same for every policy.

    Raises:
        TrainingError: the policy failed.
    """
    spent, confidences, right = 0.0, [], []
    for number in range(orders):
        rng = np.random.default_rng(derive_seed("order", question.id, number))
        order = iter(rng.permutation(len(question.answers)).tolist())
        attempts = Attempts(question.prediction if policy.needs_predictions else None)
        first: dict[int, int] = {}
        if attempts.prediction is not None:
            spent += attempts.prediction.tokens
        while wanted := next_samples(policy, attempts):
            most = sample_limit(policy, attempts, limits.min_length, limits.max_tokens)
            for _ in wanted:
                sample = next(order)
                spent += min(question.tokens[sample], most)
                answer = question.answers[sample]
                if answer is None or question.tokens[sample] > most:
                    attempts.add(None)
                    continue
                first.setdefault(answer, sample)
                attempts.add(list(first).index(answer))
        choice = choice_of(policy, attempts)
        right.append(choice is not None and bool(question.correct[list(first.values())[choice]]))
        confidences.append(confidence_of(policy, attempts))
    return PolicyOutcome(float(np.mean(right)), spent / orders, tuple(confidences), tuple(right))


@dataclass(frozen=True)
class Curve:
    """A policy at several settings, each on all questions."""

    settings: Sequence[Mapping[str, Any]]
    """[K]"""
    accuracy: Floats
    """[Q, K]"""
    tokens: Floats
    """[Q, K]"""


def draw_curve(
    node: Mapping[str, Any], questions: Sequence[AnsweredQuestion], n: int, limits: Limits
) -> Curve:
    """A policy from little to much spending; `node` is its `_target_` and settings."""
    settings = build_plugin("solve", node, Policy).settings_to_compare(n)
    policies = [build_plugin("solve", {**node, **changed}, Policy) for changed in settings]
    for policy in policies:
        require(
            policy.n <= n,
            f"solve: {type(policy).__name__}.settings_to_compare({n}) asks for {policy.n} samples",
        )
    return _curve(
        policies,
        settings,
        questions,
        limits,
    )


def _curve(
    policies: Sequence[Policy],
    settings: Sequence[Mapping[str, Any]],
    questions: Sequence[AnsweredQuestion],
    limits: Limits,
) -> Curve:
    outcomes = [[replay(policy, one, limits) for policy in policies] for one in questions]
    accuracy = np.array([[outcome.accuracy for outcome in row] for row in outcomes])
    tokens = np.array([[outcome.tokens for outcome in row] for row in outcomes])
    return Curve(settings, accuracy, tokens)


def oracle_curve(questions: Sequence[AnsweredQuestion], n: int, limits: Limits) -> Curve:
    """The bound: the policy `combined` that knows each question's pass rate, for no tokens."""
    knowing = [
        replace(q, prediction=PredictionSummary(q.pass_rate, 0.0, None, None, None, {}, 1, 1, 0))
        for q in questions
    ]
    settings = CombinedPolicy.settings_to_compare(n)
    policies = [CombinedPolicy(**{**changed, "strength": 100.0}) for changed in settings]
    return _curve(policies, settings, knowing, limits)


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
    """A curve beside another one, at the tokens that one of the other's settings takes.

    Of both curves the best of their settings counts, as of `accuracy_at`, so that a curve is no
    better than itself.

    Args:
        curve: of a policy.
        other: of the one that it is compared with.
        at: which of the other's settings [K].
        clusters: context of each question, [Q].

    Returns:
        accuracy_difference: curve less other; NaN where the curve starts above these tokens.
        tokens_ratio: tokens of the curve over those of the other until it is as accurate as the
        other at these tokens; infinite where it never is. Intervals by bootstrap over clusters.
    """

    def numbers(sums: Floats) -> tuple[float, float]:
        own, others = len(curve.settings), len(other.settings)
        parts = np.split(sums, np.cumsum([own, own, others]))
        accuracy, tokens, other_accuracy, other_tokens = parts
        reached = accuracy_at(other_tokens, other_accuracy, other_tokens[at])
        difference = accuracy_at(tokens, accuracy, other_tokens[at]) - reached
        needed = tokens_for(other_tokens, other_accuracy, reached)
        return difference, tokens_for(tokens, accuracy, reached) / needed

    columns = np.hstack([curve.accuracy, curve.tokens, other.accuracy, other.tokens])
    counts = np.ones((len(columns), 1))
    drawn = resampled_sums(np.hstack([columns, counts]), clusters, RESAMPLES // 10)
    # one context alone says nothing about others
    drawn = drawn if len(set(clusters)) > 1 else drawn[:0]
    draws = np.array([numbers(sums[:-1] / sums[-1]) for sums in drawn]).reshape(-1, 2)
    difference, ratio = numbers(columns.mean(axis=0))
    return {
        "accuracy_difference": Estimate(difference, *_bounds(draws[:, 0])),
        "tokens_ratio": Estimate(ratio, *_bounds(draws[:, 1])),
    }


def _bounds(draws: Floats) -> tuple[float, float]:
    """Of the middle 95 % of the draws, infinite ones included; NaN where more than 2.5 % are, or
    where there is none."""
    known = np.sort(draws[~np.isnan(draws)])
    if not len(known) or len(known) < 0.975 * len(draws):
        return math.nan, math.nan
    edge = int(0.025 * len(known))
    return float(known[edge]), float(known[-1 - edge])


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
    policy: Policy, questions: Sequence[AnsweredQuestion], limits: Limits
) -> tuple[Estimate, list[dict[str, float]]]:
    """AURC of a policy's confidence with a bootstrap interval, and the risk-coverage curve over
    all orders."""
    outcomes = [replay(policy, question, limits) for question in questions]
    confidence = np.array([outcome.confidences for outcome in outcomes])
    wrong = 1.0 - np.array([outcome.right for outcome in outcomes])
    clusters = np.unique([q.cluster for q in questions], return_inverse=True)[1]

    def area(weights: Floats | None) -> float:
        return statistics.fmean(
            area_under_risk_coverage(confidence[:, i], wrong[:, i], weights) for i in range(ORDERS)
        )

    rng = np.random.default_rng(0)
    draws = []
    for _ in range(RESAMPLES // 50 if clusters.max() else 0):
        picked = np.bincount(rng.integers(0, clusters.max() + 1, clusters.max() + 1),
                             minlength=clusters.max() + 1)[clusters].astype(float)  # fmt: skip
        draws.append(area(picked))
    coverage, risk = risk_coverage(confidence.ravel(), wrong.ravel())
    curve = [{"coverage": float(c), "risk": float(r)} for c, r in zip(coverage, risk, strict=True)]
    return Estimate(area(None), *_bounds(np.array(draws))), curve


def reference_setting(curve: Curve) -> int:
    """Which setting of the uniform policy's curve has `REFERENCE` samples, or the most below."""
    return max(i for i, changed in enumerate(curve.settings) if changed["n"] <= REFERENCE)
