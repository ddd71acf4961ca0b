"""Predictive gating: skip prompts that are predicted to be trivial or hopeless.

A gate is one of several possible: it sees predictions before the solutions are sampled, outcomes
after, and may keep a state between the two.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Protocol

from masa.algorithm.history import CombinedGate, HistoryGate
from masa.algorithm.sliding_accuracy import SlidingAccuracy
from masa.config import ControlConfig, GateConfig
from masa.types import MetaPrediction, Prompt, RolloutGroup


class Gate(Protocol):
    """Decides which prompts are worth their solution rollouts."""

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], step: int) -> bool:
        """The verdict on one prompt at a rollout, whether or not it will be enforced."""
        ...

    @property
    def ready(self) -> bool:
        """True where the verdicts have proved good enough to be enforced."""
        ...

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Learn from the outcomes of a step, over all ranks."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        ...


class PredictiveGate:
    """Skips a prompt whose predicted pass rates agree on 0 or on 1.

    Skip where enough predictions parsed, their population standard deviation is below sigma and
    their mean lies within `tolerance` of 0 or 1.
    """

    def __init__(self, config: GateConfig, control: ControlConfig) -> None:
        self.config = config
        self.precision = SlidingAccuracy(control.window, control.min_evidence)

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], step: int) -> bool:
        """See `Gate.skips`."""
        rates = [p.pass_rate for p in predictions if p.pass_rate is not None]
        if not rates or len(rates) < self.config.min_parsed * len(predictions):
            return False
        mean = statistics.fmean(rates)
        extreme = min(mean, 1 - mean) <= self.config.tolerance
        return extreme and statistics.pstdev(rates) < self.config.sigma

    @property
    def ready(self) -> bool:
        """See `Gate.ready`: the measured precision reaches `min_precision`."""
        return self.precision.at_least(self.config.min_precision)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Score the skip verdicts on prompts that were nevertheless rolled out."""
        self.precision.add(g.zero_variance for g in groups if g.skip_evidence)

    def state_dict(self) -> dict[str, Any]:
        """See `Gate.state_dict`."""
        return {"precision": self.precision.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Gate.load_state_dict`."""
        self.precision.load_state_dict(state["precision"])


def build_gate(config: GateConfig, control: ControlConfig, seed: int) -> Gate:
    """The gate that `config.kind` names."""
    if config.kind == "history":
        return HistoryGate(config, control, seed)
    if config.kind == "combined":
        return CombinedGate(config, control)
    return PredictiveGate(config, control)
