"""Work split into parts of about equal load."""

from __future__ import annotations

from collections.abc import Sequence


def balanced(loads: Sequence[float], parts: int) -> list[list[int]]:
    """Split items over `parts` parts of about equal load.

    The largest item first, each to the part with the least load so far. The result depends on the
    arguments alone, so it is the same on every rank.

    Args:
        loads: load of each item.
        parts: number of parts.

    Returns:
        Per part the indices of its items, in rising order.
    """
    totals = [0.0] * parts
    split: list[list[int]] = [[] for _ in range(parts)]
    for i in sorted(range(len(loads)), key=lambda i: -loads[i]):
        # items without a load are spread as well
        lightest = min(range(parts), key=lambda part: (totals[part], len(split[part])))
        totals[lightest] += loads[i]
        split[lightest].append(i)
    return [sorted(part) for part in split]
