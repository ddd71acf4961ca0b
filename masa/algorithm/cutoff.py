"""Length cutoff: stop rollouts that run far past the predicted solution length."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from masa.algorithm.sliding_accuracy import SlidingAccuracy
from masa.config import AlgorithmConfig
from masa.types import MetaPrediction, RolloutGroup


class LengthCutoff:
    """Token limit per prompt: mean predicted length times a margin, within the allowed range."""

    def __init__(self, config: AlgorithmConfig) -> None:
        self.config = config.cutoff
        self.shortest = config.meta.min_length
        self.longest = config.response_limit
        self.min_parsed = config.gate.min_parsed
        self.kept = SlidingAccuracy(config.control.window, config.control.min_evidence)

    def limit(self, predictions: Sequence[MetaPrediction]) -> int:
        """max_tokens of a prompt's solutions; the response limit where too little parsed."""
        lengths = [p.length for p in predictions if p.length is not None]
        if not lengths or len(lengths) < self.min_parsed * len(predictions):
            return self.longest
        asked = math.ceil(statistics.fmean(lengths) * self.config.margin)
        return min(max(asked, self.shortest), self.longest)

    @property
    def ready(self) -> bool:
        """True where the measured share of correct answers that it would lose is small enough."""
        return self.kept.at_least(1 - self.config.max_lost)

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        """Score the limits on the correct solutions of prompts that ran in full."""
        for group in groups:
            if not group.cutoff_evidence:
                continue
            lengths = zip(group.lengths, group.correct, strict=True)
            kept = [length <= group.plan.cutoff_tokens for length, right in lengths if right]
            if kept:
                self.kept.add([statistics.fmean(kept)])

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {"kept": self.kept.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.kept.load_state_dict(state["kept"])
