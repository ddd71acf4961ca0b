"""Settings of the prediction gate that are chosen while it runs, from what audits say of it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from masa.algorithm.gates import PredictionGate
from masa.algorithm.past import drop_oldest
from masa.types import RolloutGroup

SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
TOLERANCES = (0.0, 1 / 32, 1 / 16, 3 / 32, 1 / 8, 3 / 16, 1 / 4)
"""Choices, careful ones first."""


class KnownSpread(NamedTuple):
    """A prompt whose outcome is known."""

    mean: float
    """Of its predicted pass rates."""
    deviation: float
    """Standard deviation of them."""
    mixed: bool
    tokens: int
    """Of its solutions."""
    weight: float
    """Prompts that it stands for: `RolloutGroup.evidence_weight`."""


class AdaptiveTolerance:
    """Sets sigma and tolerance of a gate to those with the largest saving at a bounded loss.

    On the newest outcomes that are known in full, each weighted with the prompts that it stands
    for: the saving is the share of the solution tokens that would be skipped, the loss the share of
    the mixed groups. The loss plus a standard error stays within the target. Where no choice does,
    the gate skips nothing.

    Args:
        gate: as configured while fewer than `minimum` mixed groups are known.
        target_loss: in [0, 1].
        window: outcomes that are kept, or as many more as hold `minimum` mixed groups.
        minimum: mixed groups needed.
    """

    def __init__(self, gate: PredictionGate, target_loss: float, window: int, minimum: int) -> None:
        self.gate = gate
        self._configured = gate.sigma, gate.tolerance
        self.target_loss = target_loss
        self.minimum = minimum
        self.window = window
        self._known: deque[KnownSpread] = deque()

    def add(self, groups: Iterable[RolloutGroup]) -> None:
        """Take note of a step's outcomes, and choose."""
        for group in groups:
            spread = self.gate.spread(group.predictions)
            if group.evidence_weight and spread is not None:
                tokens, weight = sum(group.lengths), group.evidence_weight
                self._known.append(KnownSpread(*spread, group.mixed, tokens, weight))
        drop_oldest(self._known, self.window, self.minimum)
        self._choose()

    def _choose(self) -> None:
        means, deviations, mixed, tokens, weights = np.array(self._known, float).reshape(-1, 5).T
        # what is chosen depends on the known outcomes alone, which is what a checkpoint has
        self.gate.sigma, self.gate.tolerance = self._configured
        if mixed.sum() < self.minimum:
            return
        signal, cost = weights * mixed / (weights @ mixed), weights * tokens / (weights @ tokens)
        error = float(np.sqrt((signal**2).sum()))
        best, self.gate.sigma = 0.0, 0.0
        for sigma, tolerance in itertools.product(SIGMAS, TOLERANCES):
            skips = self.gate.extreme(means, deviations, sigma, tolerance)
            lost, saved = float(signal[skips].sum()), float(cost[skips].sum())
            bound = lost + error * np.sqrt(max(lost * (1 - lost), 0.0))
            if bound <= self.target_loss and saved > best:
                best, self.gate.sigma, self.gate.tolerance = saved, sigma, tolerance

    def state_dict(self) -> dict[str, Any]:
        """Plain state for checkpoints."""
        return {"known": list(map(tuple, self._known))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._known.clear()
        self._known.extend(KnownSpread(*known) for known in state["known"])
        self._choose()
