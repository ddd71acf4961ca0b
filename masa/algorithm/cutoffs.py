"""Cutoffs: how long a prompt's solutions may run.

A cutoff of your own is a subclass of `Cutoff` that a config names by `_target_`, here or in a
module of yours. Where its fields are a dataclass's, their types are checked.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from masa.algorithm.gates import parsed
from masa.errors import require
from masa.plugins import Plugin

if TYPE_CHECKING:  # PyTorch comes with them
    from masa.types import MetaPrediction, Prompt


class Cutoff(Plugin):
    """Limits the solutions of a prompt. `tokens` is all that a cutoff needs.

    Whether its limits are enforced, and how many correct answers they lose, is the controller's
    business.
    """

    required = "tokens"
    needs_predictions: ClassVar[bool] = True

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
        require(self.margin > 0, f"margin is {self.margin}, it must be > 0")
        require(0 <= self.min_parsed <= 1, "min_parsed must lie in [0, 1]")

    def tokens(self, prompt: Prompt, predictions: Sequence[MetaPrediction]) -> float | None:
        """See `Cutoff.tokens`."""
        lengths = parsed([p.length for p in predictions], self.min_parsed)
        return statistics.fmean(lengths) * self.margin if lengths else None
