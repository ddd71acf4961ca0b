"""Group-relative advantages: GRPO (arXiv 2402.03300), Dr. GRPO (2503.20783), RLOO (2402.14740)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def group_advantages(rewards: Sequence[float], kind: str = "grpo") -> tuple[float, ...]:
    """How much better each rollout did than its group.

    grpo: (r_i - mean) / std, with the sample standard deviation. dr_grpo: r_i - mean. rloo: r_i -
    mean of the others' rewards, which is G / (G - 1) times dr_grpo's.

    A group whose rewards are exactly equal has advantage 0. The test is on the rewards and not on
    their standard deviation: the mean of equal floats may differ from them by rounding, and that
    noise over itself is an advantage of order one.

    Args:
        rewards: rewards of one group.
        kind: grpo, dr_grpo or rloo.

    Returns:
        One advantage per reward, of mean 0; grpo's of sample variance 1 (or all 0).
    """
    if len(set(rewards)) <= 1:
        return (0.0,) * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    if kind == "dr_grpo":
        return tuple(reward - mean for reward in rewards)
    if kind == "rloo":
        return tuple((reward - mean) * len(rewards) / (len(rewards) - 1) for reward in rewards)
    variance = math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)
    std = math.sqrt(variance)
    if std == 0.0:
        return (0.0,) * len(rewards)
    return tuple((reward - mean) / std for reward in rewards)
