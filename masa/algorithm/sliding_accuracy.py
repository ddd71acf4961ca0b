"""How often a decision was right, measured on prompts whose truth is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any


class SlidingAccuracy:
    """The newest verdicts on a decision and their mean.

    Args:
        window: verdicts that are kept.
        minimum: verdicts needed before the mean counts.
    """

    def __init__(self, window: int, minimum: int) -> None:
        self.minimum = minimum
        self._verdicts: deque[float] = deque(maxlen=window)

    def add(self, verdicts: Iterable[float]) -> None:
        """Append verdicts in [0, 1], 1 for right."""
        self._verdicts.extend(float(verdict) for verdict in verdicts)

    def at_least(self, level: float) -> bool:
        """True where the mean is known and reaches `level`; a level of 0 is always reached."""
        if level <= 0:
            return True
        return len(self._verdicts) >= self.minimum and self.mean >= level

    def __len__(self) -> int:
        return len(self._verdicts)

    @property
    def mean(self) -> float:
        """Mean of the verdicts kept, NaN where there is none."""
        return sum(self._verdicts) / len(self._verdicts) if self._verdicts else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {"verdicts": list(self._verdicts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._verdicts.clear()
        self._verdicts.extend(state["verdicts"])
