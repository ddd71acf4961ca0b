"""Cutoffs: how long a prompt's solutions may run.

A cutoff of your own is a subclass of `Cutoff` that a config names by `_target_`, here or in a
module of yours. Where its fields are a dataclass's, their types are checked.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from masa.algorithm.gates import parsed
from masa.errors import positive, require, window_of
from masa.plugins import Plugin
from masa.types import MetaPrediction, Prompt, RolloutGroup


class Cutoff(Plugin):
    """Limits the solutions of a prompt. `tokens` is all that a cutoff needs.

    Whether its limits are enforced, and how many correct answers they lose, is the controller's
    business.
    """

    required = "tokens"
    needs_predictions: ClassVar[bool] = True
    needs_audits: ClassVar[bool] = False
    """True where it learns from solutions that it would stop, which audits alone show it."""

    def tokens(self, prompt: Prompt, predictions: Sequence[MetaPrediction]) -> float | None:
        """The limit of one prompt.

        Args:
            prompt: the problem.
            predictions: M of them; fields that could not be read are None.

        Returns:
            Tokens, rounded up and held within [meta.min_length, response_limit] by the controller;
            None for no other limit than response_limit.
        """
        raise NotImplementedError


@dataclass
class MeanLengthCutoff(Cutoff):
    """Mean predicted length times a margin."""

    margin: float = 2.0
    """l_LC."""
    min_parsed: float = 0.5
    """Share of the M predictions that must have parsed."""

    def __post_init__(self) -> None:
        positive("margin", self.margin)
        require(0 <= self.min_parsed <= 1, "min_parsed must lie in [0, 1]")

    def tokens(self, prompt: Prompt, predictions: Sequence[MetaPrediction]) -> float | None:
        lengths = parsed([p.length for p in predictions], self.min_parsed)
        return statistics.fmean(lengths) * self.margin if lengths else None


@dataclass
class QuantileCutoff(Cutoff):
    """Mean predicted length times the margin that would have lost a given share of right answers.

    The margin is chosen from the newest right answers of prompts that ran in full: how many times
    the predicted length each took.
    """

    lost: float = 0.01
    """Share of the right answers that may be lost."""
    window: int = 1024
    """Newest right answers that the margin is chosen from."""
    min_evidence: int = 256
    """Right answers that must be known; there is no limit before."""
    min_parsed: float = 0.5
    """Share of the M predictions that must have parsed."""

    needs_audits = True

    def __post_init__(self) -> None:
        require(0 < self.lost < 1, f"lost is {self.lost}, it must lie in (0, 1)")
        require(0 <= self.min_parsed <= 1, "min_parsed must lie in [0, 1]")
        window_of("window", self.window)
        require(
            1 <= self.min_evidence <= self.window,
            f"min_evidence is {self.min_evidence}, it must lie in [1, window]",
        )
        self.ratios: deque[float] = deque(maxlen=self.window)

    def tokens(self, prompt: Prompt, predictions: Sequence[MetaPrediction]) -> float | None:
        lengths = parsed([p.length for p in predictions], self.min_parsed)
        if not lengths or len(self.ratios) < self.min_evidence:
            return None
        longest_first = sorted(self.ratios, reverse=True)
        # the share of ratios above it is at most `lost`
        return statistics.fmean(lengths) * longest_first[int(self.lost * len(longest_first))]

    def observe(self, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            lengths = parsed([p.length for p in group.predictions], self.min_parsed)
            if group.cutoff_evidence and lengths:
                predicted = statistics.fmean(lengths)
                both = zip(group.lengths, group.correct, strict=True)
                self.ratios.extend(n / predicted for n, right in both if right)

    def state_dict(self) -> dict[str, Any]:
        return {"ratios": list(self.ratios)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ratios.clear()
        self.ratios.extend(state["ratios"])
