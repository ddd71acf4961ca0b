"""Gates that remember: by a prompt's own past, and by predictions and past together.

Both skip what is likely to have zero variance, and both need epochs: on a first visit a prompt has
no past.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

from masa.algorithm.sliding_accuracy import SlidingAccuracy
from masa.config import ControlConfig, GateConfig
from masa.seeding import uniform
from masa.types import MetaPrediction, Prompt, RolloutGroup


class Streaks:
    """How often in a row, up to its last visit, each prompt had zero variance."""

    def __init__(self) -> None:
        self._streaks: dict[str, int] = {}

    def __getitem__(self, prompt: Prompt) -> int | None:
        return self._streaks.get(prompt.id)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Note the outcomes of prompts that were rolled out in full."""
        for group in groups:
            if group.uncensored:
                known = self._streaks.get(group.prompt.id, 0)
                self._streaks[group.prompt.id] = known + 1 if group.zero_variance else 0

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {"streaks": dict(self._streaks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._streaks = dict(state["streaks"])


class HistoryGate:
    """Skips a prompt whose last visits had zero variance, with random re-visits.

    After z such visits in a row it is skipped with probability 1 - r ** z (GRESO, arXiv
    2506.02177, section 4; there r adapts to a target share, here it is a setting).

    Args:
        config: r is `revisit`.
        control: window of the measured precision.
        seed: run seed of the random re-visits.
    """

    def __init__(self, config: GateConfig, control: ControlConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.streaks = Streaks()
        self.precision = SlidingAccuracy(control.window, control.min_evidence)

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], step: int) -> bool:
        """See `Gate.skips`; predictions are not looked at."""
        revisited = self.config.revisit ** (self.streaks[prompt] or 0)
        return uniform(self.seed, step, prompt.id, "revisit") >= revisited

    @property
    def ready(self) -> bool:
        """See `Gate.ready`."""
        return self.precision.at_least(self.config.min_precision)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """See `Gate.observe`."""
        self.precision.add(g.zero_variance for g in groups if g.skip_evidence)
        self.streaks.observe(groups)

    def state_dict(self) -> dict[str, Any]:
        """See `Gate.state_dict`."""
        return {"precision": self.precision.state_dict(), **self.streaks.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Gate.load_state_dict`."""
        self.precision.load_state_dict(state["precision"])
        self.streaks.load_state_dict(state)


class CombinedGate:
    """Skips a prompt whose posterior probability of zero variance is high enough.

    The prediction is the prior: how often prompts of the same mean predicted pass rate (in eighths)
    had zero variance. The prompt's last visit is the evidence: how much more often such a visit
    came before zero variance than before a mixed group. Both are counted on the newest prompts that
    were rolled out whatever the gate said, and joined as by naive Bayes. So a prediction need not
    say 0 or 1: where prompts predicted at 7/8 always come out as 1, they are skipped as well.

    Args:
        config: skip from `min_posterior` on.
        control: window of the counts and verdicts that a prediction's rate needs.
    """

    def __init__(self, config: GateConfig, control: ControlConfig) -> None:
        self.config = config
        self.control = control
        self.streaks = Streaks()
        self.precision = SlidingAccuracy(control.window, control.min_evidence)
        self._known: deque[tuple[int, int | None, bool]] = deque(maxlen=4 * control.window)

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], step: int) -> bool:
        """See `Gate.skips`."""
        eighths = mean_eighths(predictions, self.config.min_parsed)
        alike = [constant for cell, _, constant in self._known if cell == eighths]
        if eighths is None or len(alike) < self.control.min_evidence:
            return False
        odds = (sum(alike) + 0.5) / (len(alike) - sum(alike) + 0.5)
        odds *= self._likelihood_ratio(self.streaks[prompt])
        return odds / (1 + odds) >= self.config.min_posterior

    def _likelihood_ratio(self, streak: int | None) -> float:
        """P(last visit | zero variance) / P(last visit | mixed), 1 for a prompt without a past."""
        if streak is None:
            return 1.0

        def share(verdict: bool) -> float:
            past = [s for _, s, constant in self._known if s is not None and constant == verdict]
            alike = sum((s > 0) == (streak > 0) for s in past)
            return (alike + 1) / (len(past) + 2)

        return share(True) / share(False)

    @property
    def ready(self) -> bool:
        """See `Gate.ready`."""
        return self.precision.at_least(self.config.min_precision)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """See `Gate.observe`."""
        self.precision.add(group.zero_variance for group in groups if group.skip_evidence)
        for group in (group for group in groups if group.gate_evidence):
            eighths = mean_eighths(group.predictions, self.config.min_parsed)
            if eighths is not None:
                streak = self.streaks[group.prompt]
                self._known.append((eighths, streak, group.zero_variance))
        self.streaks.observe(groups)

    def state_dict(self) -> dict[str, Any]:
        """See `Gate.state_dict`."""
        return {
            "precision": self.precision.state_dict(),
            "known": [list(verdict) for verdict in self._known],
            **self.streaks.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Gate.load_state_dict`."""
        self.precision.load_state_dict(state["precision"])
        self.streaks.load_state_dict(state)
        self._known.clear()
        self._known.extend((cell, streak, constant) for cell, streak, constant in state["known"])


def mean_eighths(predictions: Sequence[MetaPrediction], min_parsed: float) -> int | None:
    """Mean predicted pass rate on the 0..8 scale, None where too few predictions parsed."""
    rates = [p.pass_rate for p in predictions if p.pass_rate is not None]
    if not rates or len(rates) < min_parsed * len(predictions):
        return None
    return round(8 * statistics.fmean(rates))
