import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from masa.algorithm.advantages import group_advantages

# eighths: their sums and shifts are exact, so only the function itself can lose digits
eighths = st.lists(st.integers(-80, 80).map(lambda k: k / 8), min_size=2, max_size=16)
mixed = eighths.filter(lambda rewards: len(set(rewards)) > 1)


@given(mixed)
def test_mean_zero_and_sample_std_one(rewards):
    advantages = torch.tensor(group_advantages(rewards), dtype=torch.float64)
    assert float(advantages.mean()) == pytest.approx(0, abs=1e-12)
    assert float(advantages.std()) == pytest.approx(1, abs=1e-12)


@given(mixed)
def test_against_torch(rewards):
    tensor = torch.tensor(rewards, dtype=torch.float64)
    expected = (tensor - tensor.mean()) / tensor.std(unbiased=True)
    assert group_advantages(rewards) == pytest.approx(expected.tolist(), abs=1e-12)


@given(mixed, st.integers(-50, 50), st.sampled_from([0.25, 2.0, 64.0]))
def test_shift_and_scale_change_nothing(rewards, shift, scale):
    moved = [scale * reward + shift for reward in rewards]
    assert group_advantages(moved) == pytest.approx(group_advantages(rewards), abs=1e-10)


@given(mixed)
def test_order_of_rewards_is_order_of_advantages(rewards):
    pairs = list(zip(rewards, group_advantages(rewards), strict=True))
    for reward, advantage in pairs:
        for other, its in pairs:
            assert (reward < other) == (advantage < its)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 16))
def test_ties_are_exactly_zero(reward, count):
    assert group_advantages([reward] * count) == (0.0,) * count


def test_a_tie_whose_mean_differs_by_rounding():
    rewards = [0.1] * 8
    naive_mean = sum(rewards) / 8
    assert naive_mean != 0.1  # so that (r - mean) / std would be of order one
    assert group_advantages(rewards) == (0.0,) * 8
    assert group_advantages([1 / 3] * 7) == (0.0,) * 7


def test_a_tie_of_sums_that_differ_by_rounding():
    assert 0.1 + 0.2 != 0.3
    for kind in ("grpo", "dr_grpo", "rloo"):
        assert group_advantages([0.1 + 0.2, 0.3, 0.3], kind) == (0.0,) * 3
        assert group_advantages([1e6 * (0.1 + 0.2), 1e6 * 0.3], kind) == (0.0,) * 2


def test_a_real_difference_is_never_taken_for_a_tie():
    half = math.sqrt(0.5)
    assert group_advantages([0.1, 0.1 + 1e-12]) == pytest.approx((-half, half), rel=1e-3)


def test_by_hand():
    # one right of four: mean 1/4, sample variance (3 * 1/16 + 9/16) / 3 = 1/4
    assert group_advantages([1, 0, 0, 0]) == pytest.approx((1.5, -0.5, -0.5, -0.5))
