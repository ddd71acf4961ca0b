"""Group-relative advantages: GRPO (arXiv 2402.03300), Dr. GRPO (2503.20783), RLOO (2402.14740)."""

from __future__ import annotations

import math
from collections.abc import Sequence

ROUNDING = 1e-14
"""Rewards that differ by less, relative to the largest of them or to 1, are equal."""


def group_advantages(rewards: Sequence[float], kind: str = "grpo") -> tuple[float, ...]:
    """How much better each rollout did than its group.

    grpo: (r_i - mean) / std, with the sample standard deviation. dr_grpo: r_i - mean. rloo: r_i -
    mean of the others' rewards, which is G / (G - 1) times dr_grpo's.

    A group whose rewards are equal but for rounding has advantage 0. Sums of several components may
    differ in the last digits where they are equal, and so may a mean from its floats: that noise
    over its own standard deviation would be an advantage of order one.

    Args:
        rewards: rewards of one group.
        kind: grpo, dr_grpo or rloo.

    Returns:
        One advantage per reward, of mean 0; grpo's of sample variance 1 (or all 0).
    """
    low, high = min(rewards, default=0.0), max(rewards, default=0.0)
    if high - low <= ROUNDING * max(1.0, abs(low), abs(high)):
        return (0.0,) * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    if kind == "dr_grpo":
        return tuple(reward - mean for reward in rewards)
    if kind == "rloo":
        return tuple((reward - mean) * len(rewards) / (len(rewards) - 1) for reward in rewards)
    variance = math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)
    std = math.sqrt(variance)
    return tuple((reward - mean) / std for reward in rewards)
