"""Group-relative advantages (GRPO, arXiv 2402.03300, equation of section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def group_advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """A_i = (r_i - mean) / std within one group, with the sample standard deviation.

    A group whose rewards are exactly equal has advantage 0. The test is on the rewards and not on
    their standard deviation: the mean of equal floats may differ from them by rounding, and that
    noise over itself is an advantage of order one.

    Args:
        rewards: rewards of one group.

    Returns:
        One advantage per reward, of mean 0 and sample variance 1 (or all 0).
    """
    if len(set(rewards)) <= 1:
        return (0.0,) * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    variance = math.fsum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)
    std = math.sqrt(variance)
    if std == 0.0:
        return (0.0,) * len(rewards)
    return tuple((reward - mean) / std for reward in rewards)
