"""A gate by value: the probability of a mixed group over the tokens that its solutions cost."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np

from masa.algorithm.gates import Gate, parsed, require_shares
from masa.algorithm.past import Past, drop_oldest, require_half_life
from masa.errors import positive, require, window_of
from masa.types import Floats, MetaPrediction, Prompt, RolloutGroup

SMALLEST = 0.005
"""Predicted probabilities count as at least this, half of the unit they are written in, and as at
most one less it."""


@dataclass(frozen=True)
class Forecast:
    """What is known of a prompt before its solutions."""

    mixed: float
    """Predicted probability that its group is mixed."""
    pass_rate: float
    """Mean predicted pass rate, 1/2 where none could be read."""
    tokens: float
    """Predicted tokens of its solutions; NaN where no length could be read."""
    mixed_visits: float
    """Like prompts known to have been mixed: weighted, and faded with their age."""
    visit_tokens: float
    """Tokens of like prompts, likewise."""


@dataclass(frozen=True)
class KnownForecast:
    """A prompt whose outcome is known."""

    forecast: Forecast
    mixed: bool
    tokens: int
    """Of its solutions."""
    deciding: int
    """Tokens of the predictions that are sampled whether it is skipped or not."""
    further: int
    """Tokens of those that are sampled only where it is not."""
    weight: float
    """Prompts that it stands for: `RolloutGroup.evidence_weight`."""


@dataclass
class ValueGate(Gate):
    """Skips a prompt whose value is too low: P(mixed group) over the tokens of its solutions.

    P is what the predictions say, recalibrated: a logistic regression of the newest outcomes on the
    log-odds of the predicted probability and on the predicted pass rate. Where predictions name no
    probability it is 1 - p^G - (1 - p)^G of their mean pass rate p. Tokens are predicted lengths,
    recalibrated likewise. Outcomes of like prompts join in: predictions weigh as much as `prior` of
    them. The threshold is the one at which, on the newest outcomes, the share of mixed groups kept
    is largest over the tokens spent, predictions included, among those that keep at least
    `min_kept` of the mixed groups. The newest outcomes are weighted by the inverse of the chance to
    be seen, as audits see few of the skipped prompts.
    """

    group_size: int = 16
    """G, solutions per prompt."""
    key: list[str] = field(default_factory=lambda: ["id"])
    """What like prompts agree in: id (a prompt's own past), level, or columns of the task; [] has
    predictions alone decide."""
    past_window: int = 12
    """Newest outcomes of like prompts that count."""
    half_life: float | None = None
    """Rollouts after which an outcome of like prompts counts half, as the policy has changed; null:
    it never fades."""
    prior: float = 4.0
    """Outcomes of like prompts that the predictions weigh as much as."""
    min_kept: float = 0.75
    """Smallest share of mixed groups kept on the newest outcomes, less a standard error."""
    min_parsed: float = 0.5
    """Share of the M predictions that must have parsed."""
    window: int = 64
    """The newest 4 * window outcomes calibrate and choose the threshold, or as many more as hold
    `min_evidence` mixed groups."""
    min_evidence: int = 16
    """Mixed groups among them that must be known."""

    needs_audits = True

    def __post_init__(self) -> None:
        require(self.group_size >= 2, f"group_size is {self.group_size}, it must be >= 2")
        window_of("past_window", self.past_window)
        window_of("window", self.window)
        positive("prior", self.prior)
        require_half_life(self.half_life)
        require_shares(min_kept=self.min_kept, min_parsed=self.min_parsed)
        require(
            1 <= self.min_evidence <= 4 * self.window,
            f"min_evidence is {self.min_evidence}, it must lie in [1, 4 * window]",
        )
        self.past: Past = Past(self.key, self.past_window)
        self.known: deque[KnownForecast] = deque()
        self.calibration: Calibration | None = None
        self.threshold = 0.0
        """Mixed groups per token below which a prompt is skipped."""

    @property
    def lacks(self) -> str:
        mixed = sum(known.mixed for known in self.known)
        if mixed >= self.min_evidence:
            return ""
        return (
            f"{mixed} of the {len(self.known)} newest outcomes are of mixed groups and "
            f"algorithm.gate.min_evidence={self.min_evidence} are needed: lower that, raise "
            "algorithm.gate.window"
        )

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        forecast = self._forecast(prompt, predictions)
        if forecast is None or self.calibration is None:
            return False
        return bool(self.calibration.values([forecast])[0] < self.threshold)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            forecast = self._forecast(group.prompt, group.predictions)
            if group.evidence_weight and forecast is not None:
                meta, first = [len(c.token_ids) for c in group.meta], len(group.predictions)
                counts = sum(group.lengths), sum(meta[:first]), sum(meta[first:])
                self.known.append(
                    KnownForecast(forecast, group.mixed, *counts, group.evidence_weight)
                )
        drop_oldest(self.known, 4 * self.window, self.min_evidence)
        self.past.add(groups)
        self._learn()

    def _forecast(self, prompt: Prompt, predictions: Sequence[MetaPrediction]) -> Forecast | None:
        """None where too few predictions could be read."""
        rates = parsed([p.pass_rate for p in predictions], self.min_parsed)
        mixed = parsed([p.mixed for p in predictions], self.min_parsed)
        if not (mixed or rates):
            return None
        rate = statistics.fmean(rates) if rates else 0.5
        chance = 1 - rate**self.group_size - (1 - rate) ** self.group_size
        lengths = parsed([p.length for p in predictions], self.min_parsed)
        mixed_visits, visit_tokens = self._past_of(prompt)
        return Forecast(
            mixed=statistics.fmean(mixed) if mixed else chance,
            pass_rate=rate,
            tokens=self.group_size * statistics.fmean(lengths) if lengths else math.nan,
            mixed_visits=mixed_visits,
            visit_tokens=visit_tokens,
        )

    def _past_of(self, prompt: Prompt) -> tuple[float, float]:
        """Mixed groups among the outcomes of like prompts and their tokens, weighted with the
        prompts that they stand for, and faded with their age."""
        outcomes = self.past.of(prompt)
        if not outcomes:
            return 0.0, 0.0
        counts = as_counts(np.array([outcome.weight for outcome in outcomes]))
        counts = counts * np.array(self.past.fading(outcomes, self.half_life))
        mixed = np.array([outcome.mixed for outcome in outcomes], float)
        tokens = np.array([outcome.tokens for outcome in outcomes], float)
        return float(counts @ mixed), float(counts @ tokens)

    def _learn(self) -> None:
        """Calibration and threshold from the newest outcomes."""
        mixed = np.array([known.mixed for known in self.known], float)
        if mixed.sum() < self.min_evidence:
            self.calibration = None
            return
        forecasts = [known.forecast for known in self.known]
        tokens = np.array([known.tokens for known in self.known], float)
        deciding = np.array([known.deciding for known in self.known], float)
        cost = tokens + np.array([known.further for known in self.known], float)
        weights = np.array([known.weight for known in self.known])
        self.calibration = Calibration.of(forecasts, mixed, tokens, weights, self.prior)
        values = self.calibration.values(forecasts)
        overhead = float(weights @ deciding / (weights @ cost))
        self.threshold = best_threshold(
            values, weights * mixed, weights * cost, self.min_kept, overhead
        )

    def state_dict(self) -> dict[str, Any]:
        return {"known": [astuple(known) for known in self.known], "past": self.past.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.known.clear()
        self.known.extend(KnownForecast(Forecast(*k[0]), *k[1:]) for k in state["known"])
        self.past.load_state_dict(state["past"])
        self._learn()


@dataclass(frozen=True)
class Calibration:
    """What forecasts have come to mean."""

    of_mixed: Floats
    """Coefficients [3] of the log-odds of a mixed group."""
    of_tokens: Floats
    """Coefficients [2] of the logarithm of the tokens, in units of their mean."""
    mean_tokens: float
    smearing: float
    """What the exponential of a mean logarithm is multiplied by to be a mean (after Duan 1983)."""
    prior: float
    """Outcomes of like prompts that a forecast weighs as much as."""

    @classmethod
    def of(
        cls,
        forecasts: Sequence[Forecast],
        mixed: Floats,
        tokens: Floats,
        weights: Floats,
        prior: float,
    ) -> Calibration:
        """Fitted to outcomes [N], each of which stands for `weights` prompts, and without outcomes
        to the forecasts taken literally."""
        weights = as_counts(weights)
        mean = float(weights @ tokens / weights.sum())
        literally = np.array([0.0, 1.0, 0.0])
        x = _of_tokens(forecasts, mean)
        of_tokens = _linear(x, np.log(tokens / mean), weights, literally[:2])
        smearing = float(weights @ tokens / (weights @ (mean * np.exp(x @ of_tokens))))
        of_mixed = _logistic(_of_mixed(forecasts), mixed, weights, literally)
        return cls(of_mixed, of_tokens, mean, smearing, prior)

    def values(self, forecasts: Sequence[Forecast]) -> Floats:
        """P(mixed) over the tokens of the solutions [N], outcomes of like prompts joined."""
        chance = _sigmoid(_of_mixed(forecasts) @ self.of_mixed)
        logs = _of_tokens(forecasts, self.mean_tokens) @ self.of_tokens
        tokens = self.smearing * self.mean_tokens * np.exp(logs)
        past_mixed = np.array([f.mixed_visits for f in forecasts], float)
        past_tokens = np.array([f.visit_tokens for f in forecasts], float)
        value: Floats = (self.prior * chance + past_mixed) / (self.prior * tokens + past_tokens)
        return value


def as_counts(weights: Floats) -> Floats:
    """The weights [N] so scaled that they add up to the number of equally weighted outcomes that
    would be worth as much (Kish 1965)."""
    counts: Floats = weights * weights.sum() / (weights @ weights)
    return counts


def _of_mixed(forecasts: Sequence[Forecast]) -> Floats:
    """[N, 3]: 1, log-odds of the predicted probability, predicted pass rate."""
    q = np.clip([f.mixed for f in forecasts], SMALLEST, 1 - SMALLEST)
    rates = np.array([f.pass_rate - 0.5 for f in forecasts])
    return np.stack([np.ones_like(q), np.log(q / (1 - q)), rates], axis=1)


def _of_tokens(forecasts: Sequence[Forecast], mean: float) -> Floats:
    """[N, 2]: 1, logarithm of the predicted tokens over the mean."""
    tokens = np.array([f.tokens for f in forecasts])
    logs = np.log(np.where(np.isnan(tokens), mean, tokens) / mean)
    return np.stack([np.ones_like(logs), logs], axis=1)


def _sigmoid(x: Floats) -> Floats:
    value: Floats = 1 / (1 + np.exp(-np.clip(x, -30, 30)))
    return value


def _logistic(x: Floats, y: Floats, weights: Floats, expected: Floats) -> Floats:
    """Coefficients [K] of a weighted logistic regression of y [N] on x [N, K], by Newton's method,
    with a normal prior of variance 1 around the expected ones."""
    b = expected.astype(float)
    for _ in range(25):
        p = _sigmoid(x @ b)
        gradient = x.T @ (weights * (y - p)) - (b - expected)
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + np.eye(len(b))
        # a whole step may overshoot where the fit is far off
        b += np.clip(np.linalg.solve(hessian, gradient), -1, 1)
    return b


def _linear(x: Floats, y: Floats, weights: Floats, expected: Floats) -> Floats:
    """The same of a linear regression."""
    weighted = x.T * weights
    solved = np.linalg.solve(weighted @ x + np.eye(len(expected)), weighted @ (y - x @ expected))
    return expected + solved.astype(np.float64)


def best_threshold(
    values: Floats, signal: Floats, tokens: Floats, min_kept: float, overhead: float = 0.0
) -> float:
    """The value below which prompts are best skipped.

    Args:
        values: expected signal per token, [N].
        signal: what came of each prompt, [N], not all 0.
        tokens: what each cost, [N], > 0.
        min_kept: smallest share of the signal that is kept, less a standard error.
        overhead: tokens spent on every prompt whatever comes of it, over all of `tokens`.

    Returns:
        The one of the values with the largest share of signal kept over share of tokens spent.
    """
    order = np.argsort(-values, kind="stable")
    kept = np.minimum(np.cumsum(signal[order]) / signal.sum(), 1.0)
    cost = np.cumsum(tokens[order]) / tokens.sum()
    error = np.sqrt(kept * (1 - kept) * (signal**2).sum()) / signal.sum()
    last_of_equals = np.append(np.diff(values[order]) != 0, True)
    # all kept is always allowed
    allowed = last_of_equals & (kept - error >= min_kept)
    allowed[-1] = True
    return float(values[order][np.argmax(np.where(allowed, kept / (cost + overhead), 0.0))])
