"""Which prompts a draw holds."""

from collections import Counter

import pytest
from builders import epochs
from hypothesis import assume, given
from hypothesis import strategies as st


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5), st.integers(1, 60))
def test_no_prompt_twice_in_a_step(count, per_step, seed, step):
    assume(per_step <= count)
    drawn = epochs(count, per_step, seed)(step)
    assert len(drawn) == len({prompt.id for prompt in drawn}) == per_step


@pytest.mark.parametrize("count", [12, 14])
def test_no_prompt_twice_in_an_epoch_and_each_once_where_it_divides(count):
    draw_of = epochs(count, 4, seed=3)
    orders = []
    for epoch in range(4):
        drawn = [p.id for step in range(3) for p in draw_of(3 * epoch + step + 1)]
        assert max(Counter(drawn).values()) == 1 and len(drawn) == 12
        orders.append(drawn)
    assert len({tuple(order) for order in orders}) == 4  # shuffled anew
    assert len({prompt for order in orders for prompt in order}) == count


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_a_step_is_a_function_of_seed_and_step(order):
    draw_of = epochs(11, 3, seed=5)
    for step in order:  # in whatever order it is asked
        assert draw_of(step) == epochs(11, 3, seed=5)(step)
    assert draw_of(1) != epochs(11, 3, seed=6)(1)
