"""Gates: which prompts are worth their solution rollouts.

A gate of your own is a subclass of `Gate` that a config names by `_target_`, here or in a module of
yours. Where its fields are a dataclass's, their types are checked.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from masa.algorithm.past import Past, require_half_life
from masa.errors import not_negative, require, window_of
from masa.plugins import Plugin
from masa.types import MetaPrediction, Prompt, RolloutGroup


class Gate(Plugin):
    """Decides which prompts are skipped. `skips` is all that a gate needs.

    Whether its decisions are enforced, and how precise they are, is the controller's business.
    """

    required = "skips"
    needs_predictions: ClassVar[bool] = True
    needs_mixed: ClassVar[bool] = False
    """True where they must have the field `mixed` of `algorithm.meta.predict_mixed`."""
    past: Past | None = None
    """Outcomes of like prompts, of a gate that goes by them."""

    @property
    def needs_audits(self) -> bool:
        """True where it learns from what it skips, which audits alone show it."""
        return False

    @property
    def lacks(self) -> str:
        """The evidence that it needs before it skips anything, and how to need less, for a console
        line; empty where it has enough."""
        return ""

    def expected_pass_rate(
        self, prompt: Prompt, predictions: Sequence[MetaPrediction]
    ) -> float | None:
        """Pass rate of a prompt by its past or that of like prompts, else by its predictions; None
        where nothing is known. It tells what is trivial from what is hopeless."""
        past = self.past.of(prompt) if self.past is not None else ()
        rates = [outcome.pass_rate for outcome in past]
        rates = rates or [p.pass_rate for p in predictions if p.pass_rate is not None]
        return statistics.fmean(rates) if rates else None

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        """The decision on one prompt.

        Args:
            prompt: the problem.
            predictions: M of them, or the first `meta.first`; fields that could not be read are
                None.
            draw: uniform in [0, 1), a function of run seed, step and prompt, for a gate that
                decides at random.

        Returns:
            True where its solutions are not worth sampling.
        """
        raise NotImplementedError


@dataclass
class PredictionGate(Gate):
    """Skips a prompt whose predicted pass rates agree on 0 or on 1."""

    sigma: float = 0.1
    """sigma_pg: they agree where their population standard deviation is below it."""
    tolerance: float = 1 / 16
    """How far from 0 or 1 their mean may lie: half a unit of the 0..8 scale."""
    min_parsed: float = 0.5
    """Share of the M predictions that must have parsed."""

    def __post_init__(self) -> None:
        not_negative("sigma", self.sigma)
        require_shares(tolerance=self.tolerance, min_parsed=self.min_parsed)

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        spread = self.spread(predictions)
        return spread is not None and bool(self.extreme(*spread, self.sigma, self.tolerance))

    def spread(self, predictions: Sequence[MetaPrediction]) -> tuple[float, float] | None:
        """Mean and standard deviation of the predicted pass rates, None where too few parsed."""
        rates = parsed([p.pass_rate for p in predictions], self.min_parsed)
        return (statistics.fmean(rates), statistics.pstdev(rates)) if rates else None

    @staticmethod
    def extreme(mean: Any, deviation: Any, sigma: float, tolerance: float) -> Any:
        """Whether predictions with this mean and deviation agree on 0 or 1: of numbers or arrays
        [N]."""
        return ((mean <= tolerance) | (1 - mean <= tolerance)) & (deviation < sigma)


@dataclass
class JudgedGate(Gate):
    """Skips a prompt whose group is judged not to be mixed: by the predicted probability, taken as
    it is (after METIS, arXiv 2605.11235). Where too few could be read it is not skipped."""

    threshold: float = 0.5
    """Skip where the mean predicted probability of a mixed group is below it."""
    min_parsed: float = 0.5
    """Share of the M predictions that must have parsed."""

    needs_mixed = True

    def __post_init__(self) -> None:
        require_shares(threshold=self.threshold, min_parsed=self.min_parsed)

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        judged = parsed([p.mixed for p in predictions], self.min_parsed)
        return bool(judged) and statistics.fmean(judged) < self.threshold


@dataclass
class GateWithMemory(Gate):
    """Remembers for each prompt how many of its latest visits in a row had zero variance."""

    def __post_init__(self) -> None:
        self.streaks: dict[str, int] = {}
        self.past: Past = Past(["id"], 1)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Note the outcomes of prompts whose solutions are uncensored."""
        for group in groups:
            if group.uncensored:
                before = self.streaks.get(group.prompt.id, 0)
                self.streaks[group.prompt.id] = before + 1 if group.zero_variance else 0
        self.past.add(groups)

    def state_dict(self) -> dict[str, Any]:
        return {"streaks": dict(self.streaks), "past": self.past.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.streaks = dict(state["streaks"])
        self.past.load_state_dict(state["past"])


@dataclass
class HistoryGate(GateWithMemory):
    """Skips a prompt whose last visits had zero variance, with random re-visits.

    After z such visits in a row it is skipped with probability 1 - r ** z (GRESO, arXiv 2506.02177,
    section 4; there r adapts to a target share, here it is a setting). It needs several epochs.
    """

    revisit: float = 0.5
    """r, chance of a visit after each zero-variance outcome in a row."""

    needs_predictions = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(revisit=self.revisit)

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        return draw >= self.revisit ** self.streaks.get(prompt.id, 0)


@dataclass
class CombinedGate(GateWithMemory):
    """Skips a prompt whose posterior probability of zero variance is high enough.

    The prediction is the prior: how often prompts of the same mean predicted pass rate (in eighths)
    had zero variance. The prompt's last visit is the evidence: how much more often such a visit
    came before zero variance than before a mixed group. Both are counted on the newest prompts that
    were rolled out whatever the gate decided, and joined as by naive Bayes. So a prediction need
    not be 0 or 1: where prompts predicted at 7/8 always come out as 1, they are skipped as well.
    """

    min_posterior: float = 0.9
    """Skip where zero variance is at least this probable."""
    min_parsed: float = 0.5
    """Share of the M predictions that must have parsed."""
    window: int = 64
    """The newest 4 * window outcomes are counted: those of one mean prediction are a part of
    them."""
    min_evidence: int = 16
    """Outcomes of one mean prediction that must be known."""

    needs_audits = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(min_posterior=self.min_posterior, min_parsed=self.min_parsed)
        window_of("window", self.window)
        require(
            1 <= self.min_evidence <= 4 * self.window,
            f"min_evidence is {self.min_evidence}, it must lie in [1, 4 * window]",
        )
        self.outcomes: deque[tuple[int, int | None, bool]] = deque(maxlen=4 * self.window)
        """(mean prediction in eighths, streak before the visit, zero variance)."""

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        eighths = self._mean_eighths(predictions)
        alike = [constant for cell, _, constant in self.outcomes if cell == eighths]
        if eighths is None or len(alike) < self.min_evidence:
            return False
        odds = (sum(alike) + 0.5) / (len(alike) - sum(alike) + 0.5)
        odds *= self._likelihood_ratio(self.streaks.get(prompt.id))
        return odds / (1 + odds) >= self.min_posterior

    def _mean_eighths(self, predictions: Sequence[MetaPrediction]) -> int | None:
        rates = parsed([p.pass_rate for p in predictions], self.min_parsed)
        return round(8 * statistics.fmean(rates)) if rates else None

    def _likelihood_ratio(self, streak: int | None) -> float:
        """P(last visit | zero variance) / P(last visit | mixed), 1 for a prompt without a past."""
        if streak is None:
            return 1.0

        def share(outcome: bool) -> float:
            past = [s for _, s, constant in self.outcomes if s is not None and constant == outcome]
            alike = sum((s > 0) == (streak > 0) for s in past)
            return (alike + 1) / (len(past) + 2)

        return share(True) / share(False)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            eighths = self._mean_eighths(group.predictions)
            if group.gate_evidence and eighths is not None:
                streak = self.streaks.get(group.prompt.id)
                self.outcomes.append((eighths, streak, group.zero_variance))
        super().observe(groups)

    def state_dict(self) -> dict[str, Any]:
        return {"outcomes": [list(o) for o in self.outcomes], **super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.outcomes.clear()
        self.outcomes.extend(map(tuple, state["outcomes"]))


@dataclass
class CountsGate(Gate):
    """Skips a prompt where few groups of like prompts were mixed. It needs no predictions.

    With s mixed ones among the newest n outcomes of like prompts, it skips where
    (s + 1/2) / (n + 2) is below `min_mixed`. What is skipped is seen again in audits alone, whose
    outcomes count like all others.
    """

    key: list[str] = field(default_factory=lambda: ["level"])
    """What like prompts agree in: level, id (a prompt's own past), or columns of the task."""
    window: int = 12
    """n, newest outcomes of like prompts that count."""
    min_evidence: int = 4
    """Outcomes of like prompts that must be known."""
    min_mixed: float = 0.12
    """Skip where the share of mixed groups is below it."""
    half_life: float | None = None
    """Rollouts after which an outcome counts half, as the policy has changed; null: it never
    fades."""

    needs_predictions = False

    @property
    def needs_audits(self) -> bool:
        # what fades is seen again by itself
        return self.half_life is None

    def __post_init__(self) -> None:
        require(len(self.key) > 0, "key is empty, it must name what like prompts agree in")
        require_shares(min_mixed=self.min_mixed)
        require_half_life(self.half_life)
        window_of("window", self.window)
        require(
            1 <= self.min_evidence <= self.window,
            f"min_evidence is {self.min_evidence}, it must lie in [1, window]",
        )
        self.past: Past = Past(self.key, self.window)

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        outcomes = self.past.of(prompt)
        counts = self.past.fading(outcomes, self.half_life)
        mixed = math.fsum(
            count for count, outcome in zip(counts, outcomes, strict=True) if outcome.mixed
        )
        known = math.fsum(counts)
        return known >= self.min_evidence and (mixed + 0.5) / (known + 2) < self.min_mixed

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        self.past.add(groups)

    def state_dict(self) -> dict[str, Any]:
        return {"past": self.past.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.past.load_state_dict(state["past"])


def parsed(values: Sequence[float | None], min_parsed: float) -> list[float]:
    """The values that could be read; none where fewer than the share `min_parsed` could."""
    read = [value for value in values if value is not None]
    return read if len(read) >= min_parsed * len(values) else []


def require_shares(**settings: float) -> None:
    """Raise ConfigError unless all lie in [0, 1]."""
    for name, value in settings.items():
        require(0 <= value <= 1, f"{name} is {value}, it must lie in [0, 1]")
