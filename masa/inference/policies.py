"""Policies: how many samples a problem gets, and how long each may be.

A policy of your own is a subclass of `Policy` that a config names by `_target_`, here or in a
module of yours. Where its fields are a dataclass's, their types are checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar

import scipy

from masa.errors import not_negative, require
from masa.inference.confidence import (
    Prior,
    accuracy_in_the_end,
    accuracy_of_votes,
    gains,
    right_answer,
)
from masa.inference.predictions import PredictionSummary
from masa.plugins import Plugin, call


@dataclass
class Attempts:
    """What is known of one problem while it is worked on."""

    prediction: PredictionSummary | None = None
    """None where the policy needs none."""
    counts: list[int] = field(default_factory=list)
    """Samples per answer, in the order in which the answers came."""
    silent: int = 0
    """Samples without an answer."""

    @property
    def taken(self) -> int:
        """Samples so far."""
        return sum(self.counts) + self.silent

    @property
    def leader(self) -> int | None:
        """Place of the answer with the most samples, the earliest of several; None without any."""
        return self.counts.index(max(self.counts)) if self.counts else None

    def add(self, answer: int | None) -> None:
        """Count a sample.

        Args:
            answer: its answer's place, `len(counts)` for a new one; None where it has no answer.
        """
        if answer is None:
            self.silent += 1
        elif answer == len(self.counts):
            self.counts.append(1)
        else:
            self.counts[answer] += 1


class Policy(Plugin):
    """Decides how much is spent on a problem. `wanted` is all that a policy needs."""

    required = "wanted"
    needs_predictions: ClassVar[bool] = False
    n: int = 8
    """Most samples of a problem: a policy that wants more gets no more."""

    def wanted(self, attempts: Attempts) -> Sequence[float]:
        """The next samples of a problem.

        Args:
            attempts: what is known of it.

        Returns:
            For each sample that is wanted now how much it is worth; empty where the problem is
            done. Where a budget does not suffice for all, the most valuable come first.
        """
        raise NotImplementedError

    def limit(self, attempts: Attempts) -> float | None:
        """Tokens of its samples at most; None for no other limit than `max_tokens`."""
        return None

    def choice(self, attempts: Attempts) -> int | None:
        """Place of the answer that is given; None where there is none."""
        return attempts.leader

    def confidence(self, attempts: Attempts) -> float:
        """How probable it is that this answer is right; by default the share of its samples."""
        chosen = self.choice(attempts)
        return 0.0 if chosen is None else attempts.counts[chosen] / attempts.taken

    @classmethod
    def settings_to_compare(cls, n: int) -> list[dict[str, Any]]:
        """Settings from little to much spending, of at most n samples per problem, between which
        `masa-eval` draws a curve."""
        return [{}]


def next_samples(policy: Policy, attempts: Attempts) -> list[float]:
    """What each sample that a policy wants now is worth, at most `n` of them in all.

    Raises:
        TrainingError: the policy failed, or returned something else.
    """
    values = _ask(
        policy,
        "wanted",
        lambda: [float(value) for value in policy.wanted(attempts)],
        lambda values: not any(map(math.isnan, values)),
        "a sequence of numbers",
    )
    return list(values[: max(0, policy.n - attempts.taken)])


def sample_limit(policy: Policy, attempts: Attempts, shortest: int, longest: int) -> int:
    """Tokens of the next sample at most, within [shortest, longest]; errors as above."""
    asked = _ask(
        policy,
        "limit",
        lambda: policy.limit(attempts),
        lambda limit: limit is None or (isinstance(limit, Real) and not math.isnan(limit)),
        "a number or None",
    )
    if asked is None or asked >= longest:
        return longest
    return max(math.ceil(asked), min(shortest, longest))


def choice_of(policy: Policy, attempts: Attempts) -> int | None:
    """Place of the answer that a policy gives; errors as of `next_samples`."""
    places = range(len(attempts.counts))
    chosen: int | None = _ask(
        policy,
        "choice",
        lambda: policy.choice(attempts),
        lambda place: place is None or place in places,
        "the place of an answer, or None",
    )
    return chosen


def confidence_of(policy: Policy, attempts: Attempts) -> float:
    """How sure a policy is of its answer; errors as of `next_samples`."""
    return float(
        _ask(
            policy,
            "confidence",
            lambda: policy.confidence(attempts),
            lambda share: isinstance(share, Real) and 0 <= float(share) <= 1,
            "a number in [0, 1]",
        )
    )


def _ask(
    policy: Policy,
    method: str,
    function: Callable[[], Any],
    valid: Callable[[Any], bool],
    expected: str,
) -> Any:
    where = f"solve: {type(policy).__name__}.{method}"
    return call(where, "a problem", function, valid=valid, expected=expected)


def _counts_up_to(n: int) -> list[int]:
    return [k for k in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 128) if k <= n]


@dataclass
class UniformPolicy(Policy):
    """As many samples for every problem."""

    n: int = 8
    """Samples per problem."""

    def __post_init__(self) -> None:
        _check_n(self.n)

    def wanted(self, attempts: Attempts) -> Sequence[float]:
        """See `Policy.wanted`; whoever has the fewest comes first."""
        return [-float(k) for k in range(attempts.taken, self.n)]

    @classmethod
    def settings_to_compare(cls, n: int) -> list[dict[str, Any]]:
        return [{"n": k} for k in _counts_up_to(n)]


@dataclass
class AdaptiveConsistencyPolicy(Policy):
    """Stops when the vote is settled: Aggarwal et al., arXiv 2305.11860, with the criterion of the
    Beta distribution."""

    n: int = 8
    """Most samples of a problem."""
    threshold: float = 0.95
    """Settled: so probable is it that the first answer is ahead of the second for good."""

    def __post_init__(self) -> None:
        _check_n(self.n)
        require(0 < self.threshold < 1, f"threshold is {self.threshold}, it must lie in (0, 1)")

    def wanted(self, attempts: Attempts) -> Sequence[float]:
        """See `Policy.wanted`; whoever has the fewest comes first."""
        first, second, *_ = [*sorted(attempts.counts, reverse=True), 0, 0]
        ahead = 1 - scipy.special.betainc(first + 1, second + 1, 0.5)
        done = attempts.taken >= self.n or (first > 0 and ahead > self.threshold)
        return [] if done else [-float(attempts.taken)]

    @classmethod
    def settings_to_compare(cls, n: int) -> list[dict[str, Any]]:
        by_count = [{"n": k} for k in _counts_up_to(n)]
        return [*by_count, *({"n": n, "threshold": t} for t in (0.7, 0.8, 0.9, 0.99))]


@dataclass
class PredictedPolicy(Policy):
    """Number and length of the samples from the predictions alone."""

    needs_predictions = True

    n: int = 8
    """Most samples of a problem."""
    min_gain: float = 0.02
    """A sample is wanted where it is expected to add so much to the accuracy."""
    margin: float = 2.0
    """A sample may be so many times as long as was predicted."""
    strength: float = 1.0
    """Samples that the predicted pass rate is worth."""
    scatter: float = 6.0
    """Two wrong samples give the same answer with probability 1 / (1 + scatter)."""

    def __post_init__(self) -> None:
        _check_n(self.n)
        not_negative("min_gain", self.min_gain)
        require(self.margin > 0, f"margin is {self.margin}, it must be > 0")
        for name in ("strength", "scatter"):
            value = getattr(self, name)
            require(1e-3 <= value <= 1e6, f"{name} is {value}, it must lie in [0.001, 1e6]")

    def prior(self, attempts: Attempts) -> Prior:
        """What the predictions say of a problem."""
        prediction = attempts.prediction
        pass_rate = None if prediction is None else prediction.pass_rate
        return Prior.of(pass_rate, self.strength, self.scatter)

    def limit(self, attempts: Attempts) -> float | None:
        length = None if attempts.prediction is None else attempts.prediction.length
        return None if length is None else self.margin * length

    def wanted(self, attempts: Attempts) -> Sequence[float]:
        """See `Policy.wanted`; the first sample always is."""
        worth = gains(accuracy_of_votes(self.prior(attempts), self.n))
        samples = max(1, sum(gain > self.min_gain for gain in worth))
        return worth[attempts.taken : samples]

    def confidence(self, attempts: Attempts) -> float:
        """The predicted pass rate, where the policy goes by nothing else."""
        prior = self.prior(attempts)
        return 0.0 if attempts.leader is None else prior.a / (prior.a + prior.b)

    @classmethod
    def settings_to_compare(cls, n: int) -> list[dict[str, Any]]:
        grid = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.0)
        return [{"n": n, "min_gain": gain} for gain in grid]


@dataclass
class CombinedPolicy(PredictedPolicy):
    """The predicted pass rate is the prior and the vote is the evidence: stops where one more
    sample is not expected to help, since the answer is as good as certain or the problem
    hopeless."""

    min_gain: float = 0.01
    """A sample is wanted where a long vote is expected to be so much more accurate than the answer
    now."""
    winning: float = 0.3
    """Pass rate above which a long vote finds the right answer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.winning < 1, f"winning is {self.winning}, it must lie in (0, 1)")

    def wanted(self, attempts: Attempts) -> Sequence[float]:
        """See `Policy.wanted`; the first sample always is."""
        if attempts.taken >= self.n:
            return []
        counts, prior = tuple(attempts.counts), self.prior(attempts)
        in_the_end = accuracy_in_the_end(counts, attempts.silent, prior, self.winning)
        gain = in_the_end - self.confidence(attempts)
        return [gain] if gain > self.min_gain or not attempts.taken else []

    def choice(self, attempts: Attempts) -> int | None:
        """See `Policy.choice`: the most probable answer."""
        if not attempts.counts:
            return None
        probabilities = self._probabilities(attempts)
        return probabilities.index(max(probabilities))

    def confidence(self, attempts: Attempts) -> float:
        return max(self._probabilities(attempts), default=0.0)

    def _probabilities(self, attempts: Attempts) -> list[float]:
        counts = tuple(attempts.counts)
        return list(right_answer(counts, attempts.silent, self.prior(attempts))[:-1])

    @classmethod
    def settings_to_compare(cls, n: int) -> list[dict[str, Any]]:
        grid = (0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.015, 0.01, 0.007, 0.005, 0.002, 0.001, 0.0)
        by_gain = [{"n": n, "min_gain": gain} for gain in grid]
        return [*by_gain, *({"n": n, "min_gain": 0.0, "winning": p} for p in (0.2, 0.1, 0.03))]


def _check_n(n: int) -> None:
    require(n >= 1, f"n is {n}, it must be >= 1")
