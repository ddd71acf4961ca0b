"""Runs of before `algorithm.meta.enabled` are compared as they were run."""

import pytest

from masa.old_settings import as_of_now

M, ENABLED = "algorithm.meta.group_size", "algorithm.meta.enabled"


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({M: 0}, {M: 8, ENABLED: False}),
        ({M: 4}, {M: 4, ENABLED: True}),
        ({"seed": 1}, {"seed": 1}),
    ],
)
def test_the_same_method_before_and_now(before, now):
    assert as_of_now(before) == as_of_now(now)


def test_a_baseline_that_predicted_is_another_method():
    assert as_of_now({M: 2}) != as_of_now({M: 8, ENABLED: False})
