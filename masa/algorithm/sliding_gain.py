"""Whether a gate pays: the share of the signal that it keeps over the share of the tokens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

from masa.algorithm.past import drop_oldest
from masa.types import RolloutGroup


@dataclass(frozen=True)
class GateVerdict:
    """A gate's decision on a prompt whose outcome is known."""

    kept: bool
    """The gate would not skip it."""
    mixed: bool
    """Its group is mixed: there is something to learn from it."""
    tokens: int
    """Of its solutions."""
    weight: float
    """Prompts that it stands for."""


@dataclass(frozen=True)
class Gain:
    """What a gate keeps, of all that it decided on; NaN where that is not known."""

    signal_kept: float
    """Share of the mixed groups."""
    tokens_kept: float
    """Share of the solution tokens."""
    error: float
    """Standard error of `gain`, by the delta method: each verdict is independent."""

    @property
    def gain(self) -> float:
        """Signal per token of the prompts kept, over that of all prompts."""
        return self.signal_kept / self.tokens_kept if self.tokens_kept else math.nan


def gain_of(verdicts: Iterable[GateVerdict]) -> Gain:
    """Estimated from verdicts, each weighted with the prompts that it stands for."""
    rows = [(v.weight * v.mixed, v.weight * v.tokens, v.kept) for v in verdicts]
    signal = math.fsum(s for s, _, _ in rows)
    tokens = math.fsum(t for _, t, _ in rows)
    signal_kept = math.fsum(s for s, _, kept in rows if kept)
    tokens_kept = math.fsum(t for _, t, kept in rows if kept)
    if not signal or not tokens:
        return Gain(math.nan, math.nan, math.nan)
    if not signal_kept or not tokens_kept:
        return Gain(signal_kept / signal, tokens_kept / tokens, math.nan)
    # of the logarithm of the gain
    influence = (
        kept * (s / signal_kept - t / tokens_kept) - s / signal + t / tokens for s, t, kept in rows
    )
    relative = math.sqrt(math.fsum(x * x for x in influence))
    gain = (signal_kept / signal) / (tokens_kept / tokens)
    return Gain(signal_kept / signal, tokens_kept / tokens, gain * relative)


def verdicts_on(groups: Iterable[RolloutGroup]) -> list[GateVerdict]:
    """Those on groups that were rolled out in full."""
    return [
        GateVerdict(not g.plan.would_skip, g.mixed, sum(g.lengths), g.evidence_weight)
        for g in groups
        if g.evidence_weight
    ]


class SlidingGain:
    """The newest verdicts of a gate and the gain estimated from them.

    Args:
        window: verdicts that are kept, or as many more as hold `minimum` on mixed groups.
        minimum: verdicts needed before the gain counts.
    """

    def __init__(self, window: int, minimum: int) -> None:
        self.window = window
        self.minimum = minimum
        self._verdicts: deque[GateVerdict] = deque()

    def add(self, groups: Iterable[RolloutGroup]) -> None:
        """Append the verdicts on a step's groups."""
        self._verdicts.extend(verdicts_on(groups))
        drop_oldest(self._verdicts, self.window, self.minimum)

    @property
    def evidence(self) -> tuple[int, int, int]:
        """Verdicts kept, those on mixed groups, and those to skip."""
        mixed = sum(verdict.mixed for verdict in self._verdicts)
        return len(self._verdicts), mixed, sum(not verdict.kept for verdict in self._verdicts)

    def above(self, level: float) -> bool:
        """True where the gain less its standard error is above `level`; 0 is always reached."""
        if level <= 0:
            return True
        estimate = gain_of(self._verdicts)
        return len(self._verdicts) >= self.minimum and estimate.gain - estimate.error > level

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {"verdicts": [astuple(verdict) for verdict in self._verdicts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._verdicts.clear()
        self._verdicts.extend(GateVerdict(*verdict) for verdict in state["verdicts"])
