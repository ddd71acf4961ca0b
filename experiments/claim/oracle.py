"""A gate that knows what no gate can know before the first rollout: what is trivial or hopeless.

For the profile `families` of the built-in task, whose levels 1 and 2 nearly all solutions get right
from the start, and 5 and 6 none ever does. Whether a family between them is not yet, or no longer,
worth its tokens is counted, as by `gate=counts`. It costs no prediction and no audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from masa.algorithm.gates import CountsGate

if TYPE_CHECKING:  # PyTorch comes with them
    from masa.types import MetaPrediction, Prompt

PASS_RATE_OF_LEVEL = {1: 1.0, 2: 1.0, 5: 0.0, 6: 0.0}


@dataclass
class OracleGate(CountsGate):
    """Skips what is trivial or hopeless, and by counted outcomes what lies between."""

    @property
    def needs_audits(self) -> bool:
        """See `Gate.needs_audits`."""
        return False

    def expected_pass_rate(
        self, prompt: Prompt, predictions: Sequence[MetaPrediction]
    ) -> float | None:
        """See `Gate.expected_pass_rate`."""
        known = PASS_RATE_OF_LEVEL.get(prompt.level)
        return super().expected_pass_rate(prompt, predictions) if known is None else known

    def skips(self, prompt: Prompt, predictions: Sequence[MetaPrediction], draw: float) -> bool:
        """See `Gate.skips`."""
        return prompt.level in PASS_RATE_OF_LEVEL or super().skips(prompt, predictions, draw)
