"""Whether what is skipped is still what it was judged to be."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from math import sqrt
from typing import Any

from masa.types import RolloutGroup

KINDS = {"trivial": 1.0, "hopeless": 0.0}
"""Kinds of prompts that a gate skips, and the pass rate that it takes them to have."""


def kind_of(pass_rate: float | None) -> str:
    """Kind of a prompt that is skipped, by its expected pass rate; none where that is unknown."""
    return "" if pass_rate is None else "trivial" if pass_rate >= 0.5 else "hopeless"


class Alarm:
    """Kinds whose mean pass rate, on skipped prompts that were rolled out all the same, is found to
    be further than `limit` from what the gate takes it to be: by a standard error, over the newest
    `window` outcomes of the kind. It is withdrawn once as many new outcomes are nearer by one.

    Args:
        limit: in [0, 1]; 1 never gives an alarm.
        window: outcomes.
    """

    def __init__(self, limit: float, window: int) -> None:
        self.limit = limit
        self.raised: set[str] = set()
        self._distances: dict[str, deque[float]] = {kind: deque(maxlen=window) for kind in KINDS}

    def add(self, groups: Iterable[RolloutGroup]) -> None:
        """Take note of a step's outcomes."""
        for group in groups:
            kind = group.plan.skip_kind
            if kind and group.evidence_weight:
                self._distances[kind].append(abs(group.pass_rate - KINDS[kind]))
        for kind, distances in self._distances.items():
            if len(distances) < (distances.maxlen or 0):
                continue
            mean = statistics.fmean(distances)
            error = (
                statistics.stdev(distances) / sqrt(len(distances)) if len(distances) > 1 else 0.0
            )
            raised = kind in self.raised
            crossed = mean + error <= self.limit if raised else mean - error > self.limit
            if crossed:
                self.raised ^= {kind}
                distances.clear()

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        distances = {kind: list(of_kind) for kind, of_kind in self._distances.items()}
        return {"raised": sorted(self.raised), "distances": distances}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.raised = set(state["raised"])
        for kind, distances in self._distances.items():
            distances.clear()
            distances.extend(state["distances"][kind])
