"""Which outcomes are new enough to count: more of them while few are of mixed groups."""

from __future__ import annotations

from collections import deque
from typing import Protocol, TypeVar

LONGEST = 8
"""At most this many times as many as asked for are kept."""


class GroupOutcome(Protocol):
    """What became of a group."""

    @property
    def mixed(self) -> bool:
        """Some of its solutions are right and some wrong."""


T = TypeVar("T", bound=GroupOutcome)


def drop_oldest(outcomes: deque[T], size: int, mixed: int) -> None:
    """Keep the newest `size`, or as many as hold `mixed` of mixed groups.

    These become rare as a policy learns, and without them nothing can be learned from outcomes.
    """
    left = sum(outcome.mixed for outcome in outcomes)
    while len(outcomes) > size:
        left -= outcomes[0].mixed
        if left < mixed and len(outcomes) <= LONGEST * size:
            return
        outcomes.popleft()
