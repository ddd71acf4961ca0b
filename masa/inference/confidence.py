"""How probable it is that an answer is right: the predicted pass rate is the prior, the samples
that gave each answer are the evidence.

A sample is right with probability p, which is Beta(a, b) before the first. Wrong samples agree with
each other as in a Chinese restaurant process (Aldous 1985): one more wrong sample, after w of them,
gives an answer that v of them gave with probability v / (w + c), and a new one with c / (w + c).
Which of the answers is the right one, if any, then follows from Bayes' rule in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy

Counts = tuple[int, ...]
"""Samples per answer."""


@dataclass(frozen=True)
class Prior:
    """What is believed of a problem before the first sample."""

    a: float
    b: float
    """Parameters of the Beta distribution of its pass rate."""
    scatter: float
    """c: 1 / (1 + c) is the probability that two wrong samples give the same answer."""

    @classmethod
    def of(cls, pass_rate: float | None, strength: float, scatter: float) -> Prior:
        """The prior of a predicted pass rate, worth `strength` samples; flat where it is None."""
        if pass_rate is None:
            return cls(1.0, 1.0, scatter)
        # a prediction of 0 or 1 is not certain
        rate = min(max(pass_rate, 0.02), 0.98)
        return cls(strength * rate, strength * (1 - rate), scatter)


@lru_cache(maxsize=100_000)
def right_answer(counts: Counts, silent: int, prior: Prior) -> tuple[float, ...]:
    """Probability that each answer is the right one.

    Args:
        counts: samples per answer, [S].
        silent: samples without an answer; they are wrong.
        prior: of the problem.

    Returns:
        [S + 1]; the last is the probability that the right answer has not come yet.
    """
    n = sum(counts) + silent
    seen = np.array(counts, float)
    right = np.append(seen, 0.0)
    # of the other answers under each hypothesis, all of which are wrong
    others = len(counts) - (right > 0)
    wrong = seen.sum() - right
    same = scipy.special.gammaln(seen).sum() - np.append(scipy.special.gammaln(seen), 0.0)
    process = others * np.log(prior.scatter) + same - scipy.special.gammaln(prior.scatter + wrong)
    pass_rate = scipy.special.betaln(prior.a + right, prior.b + n - right)
    return tuple(map(float, scipy.special.softmax(process + pass_rate)))


@lru_cache(maxsize=100_000)
def accuracy_in_the_end(counts: Counts, silent: int, prior: Prior, winning: float) -> float:
    """Probability that a vote over many more samples finds the right answer.

    Args:
        counts, silent, prior: as of `right_answer`.
        winning: pass rate above which it does.
    """
    n = sum(counts) + silent
    right = np.append(np.array(counts, float), 0.0)
    finds = 1 - scipy.special.betainc(prior.a + right, prior.b + n - right, winning)
    return float(finds @ right_answer(counts, silent, prior))


@lru_cache(maxsize=10_000)
def accuracy_of_votes(prior: Prior, n: int, draws: int = 4000) -> tuple[float, ...]:
    """Accuracy of the majority of 1, 2, ... n samples, by simulation of the prior, [n].

    Of answers with as many samples the one that came first is the majority's.
    """
    rng = np.random.default_rng(0)
    p = rng.beta(prior.a, prior.b, draws)
    # column 0 is the right answer; a wrong sample copies an earlier wrong one, or opens a column
    votes = np.zeros((draws, n + 1))
    first = np.full((draws, n + 1), np.inf)
    wrong_answers = np.zeros((draws, n), int)
    wrong = np.zeros(draws, int)
    opened = np.zeros(draws, int)
    rows = np.arange(draws)
    accuracy = []
    for k in range(n):
        is_right = rng.random(draws) < p
        is_new = rng.random(draws) * (wrong + prior.scatter) < prior.scatter
        copied = wrong_answers[rows, (rng.random(draws) * np.maximum(wrong, 1)).astype(int)]
        column = np.where(is_right, 0, np.where(is_new | (wrong == 0), opened + 1, copied))
        opened = np.maximum(opened, column)
        wrong_answers[rows[~is_right], wrong[~is_right]] = column[~is_right]
        wrong += ~is_right
        votes[rows, column] += 1
        first[rows, column] = np.minimum(first[rows, column], k)
        leads = votes == votes.max(axis=1, keepdims=True)
        accuracy.append(float((np.where(leads, first, np.inf).argmin(axis=1) == 0).mean()))
    return tuple(accuracy)


def gains(values: Sequence[float]) -> list[float]:
    """Increments of the smallest concave function above `values`, from 0: what each further step
    is worth where one may go several at once."""
    steps: list[tuple[float, int]] = []
    for value in np.diff([0.0, *values]):
        steps.append((float(value), 1))
        # a step that promises more than the one before it is taken together with it
        while len(steps) > 1 and steps[-1][0] > steps[-2][0]:
            (later, m), (earlier, k) = steps.pop(), steps.pop()
            steps.append(((later * m + earlier * k) / (m + k), m + k))
    return [value for value, count in steps for _ in range(count)]
