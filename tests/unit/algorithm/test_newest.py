"""Outcomes that count: the newest, and enough of mixed groups."""

from collections import deque
from dataclasses import dataclass

import pytest
from builders import group, plan

from masa.algorithm.past import LONGEST, drop_oldest
from masa.algorithm.sliding_gain import SlidingGain
from masa.algorithm.value_gate import ValueGate
from masa.types import MetaPrediction

SKIP, KEEP = plan(would_skip=True), plan()


@dataclass(frozen=True)
class Seen:
    mixed: bool
    number: int


def kept(flags, size, mixed):
    """Numbers of those that are left where they come one by one."""
    outcomes = deque()
    for number, flag in enumerate(flags):
        outcomes.append(Seen(flag, number))
        drop_oldest(outcomes, size, mixed)
    return [seen.number for seen in outcomes]


@pytest.mark.parametrize("flags, left", [
    ([True] * 9, [6, 7, 8]),
    # two of mixed groups, however old, and all that came since
    ([True, True, False, False, False, False], [0, 1, 2, 3, 4, 5]),
    ([True, True, False, True, False, False], [1, 2, 3, 4, 5]),
    # as few again, once there are new ones
    ([True, True, False, False, False, True, True], [4, 5, 6]),
    ([False] * 2, [0, 1]),
])  # fmt: skip
def test_the_newest_with_two_of_mixed_groups(flags, left):
    assert kept(flags, 3, 2) == left


def test_there_is_a_limit():
    assert kept([True, True] + [False] * 100, 3, 2) == list(range(102 - 3 * LONGEST, 102))


def test_a_gate_acts_on_when_few_groups_are_mixed():
    """As long as it was measured to pay, and knows what is worth its tokens."""
    sure = (MetaPrediction(0.0, 10, (), mixed=0.01),) * 4
    open_ = (MetaPrediction(0.5, 10, (), mixed=0.95),) * 4
    mixed = group((True, False), predictions=open_, decided=KEEP)
    wrong = group((False, False), predictions=sure, decided=SKIP)
    gate, gain = ValueGate(group_size=2, key=[], window=8, min_evidence=8), SlidingGain(32, 8)
    for groups in ([mixed, wrong] * 16, [wrong] * 100):
        gate.observe(groups)
        gain.add(groups)
        assert gate.skips(wrong.prompt, sure, 0.5) and not gate.skips(mixed.prompt, open_, 0.5)
        assert gate.lacks == "" and gain.above(1.0)
