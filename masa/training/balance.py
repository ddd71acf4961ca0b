"""Work split so that nobody waits long for the others."""

from __future__ import annotations

from collections.abc import Sequence


def balanced(loads: Sequence[float], parts: int) -> list[list[int]]:
    """Split items over `parts` so that the parts have like loads.

    The longest first, each to the part with least so far. A function of the arguments alone, so
    every rank finds the same.

    Args:
        loads: of each item.
        parts: how many.

    Returns:
        Per part the indices of its items, in rising order.
    """
    totals = [0.0] * parts
    found: list[list[int]] = [[] for _ in range(parts)]
    for i in sorted(range(len(loads)), key=lambda i: -loads[i]):
        # items without a load are spread as well
        lightest = min(range(parts), key=lambda part: (totals[part], len(found[part])))
        totals[lightest] += loads[i]
        found[lightest].append(i)
    return [sorted(part) for part in found]
