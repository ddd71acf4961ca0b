"""pass@k and its error bars against closed forms, enumeration and simulation."""

from itertools import combinations, product
from math import comb, isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masa.evaluation.pass_at_k import (
    clustered_standard_error,
    macro_average,
    paired_difference,
    pass_at_k,
    std_over_samples,
)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(verdicts, data):
    k = data.draw(st.integers(1, len(verdicts)))
    chosen = [any(choice) for choice in combinations(verdicts, k)]
    assert pass_at_k([verdicts], k)[0] == pytest.approx(np.mean(chosen))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_pass_at_k_is_unbiased(p):
    n, k = 10, 4
    weights = [comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    tables = [[True] * c + [False] * (n - c) for c in range(n + 1)]
    assert weights @ pass_at_k(tables, k) == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize("k", [0, 5])
def test_k_beyond_n_is_refused(k):
    with pytest.raises(ValueError, match="there are 4"):
        pass_at_k(np.ones((2, 4), bool), k)


def test_std_over_samples():
    table = np.array([[1, 0, 1], [1, 0, 0]], bool)
    assert std_over_samples(table) == pytest.approx(np.std([1, 0, 0.5], ddof=1))
    assert isnan(std_over_samples(table[:, :1]))


def test_clusters_of_one_give_the_usual_standard_error():
    values = np.random.default_rng(0).random(50)
    error = clustered_standard_error(values, range(50))
    assert error == pytest.approx(values.std(ddof=1) / sqrt(50))


def test_repeating_every_question_adds_no_certainty():
    values = np.random.default_rng(0).random(50)
    once = clustered_standard_error(values, range(50))
    thrice = clustered_standard_error(np.tile(values, 3), np.tile(range(50), 3))
    assert thrice == pytest.approx(once)


def clustered(rng, clusters, size):
    """Values of mean 0.5 that share half of their variance within a cluster."""
    shared = rng.normal(size=(clusters, 1)) * 0.1
    values = 0.5 + shared + rng.normal(size=(clusters, size)) * 0.1
    return values.ravel(), np.repeat(np.arange(clusters), size)


def test_clustered_standard_error_is_the_spread_of_the_mean():
    rng = np.random.default_rng(1)
    runs = [clustered(rng, 40, 5) for _ in range(600)]
    spread = np.std([values.mean() for values, _ in runs])
    errors = [clustered_standard_error(values, names) for values, names in runs]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)
    assert clustered_standard_error(runs[0][0], range(200)) < 0.7 * errors[0]


def test_the_interval_of_a_macro_average_covers():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(120):
        interval = macro_average([clustered(rng, 30, 3), clustered(rng, 60, 2)])
        hits += interval.low <= 0.5 <= interval.high
    assert 0.88 <= hits / 120 <= 0.99


def test_a_macro_average_weighs_benchmarks_and_not_questions():
    parts = [(np.ones(3), range(3)), (np.zeros(300), range(300))]
    assert macro_average(parts).value == 0.5


def test_equal_benchmarks_are_resampled_independently():
    """Two independent halves have an interval narrower by sqrt(2); equal draws would keep it."""
    values = np.random.default_rng(3).random(100)
    one = macro_average([(values, range(100))])
    two = macro_average([(values, range(100))] * 2)
    assert (two.high - two.low) / (one.high - one.low) == pytest.approx(1 / sqrt(2), rel=0.05)


@pytest.mark.parametrize("k", [1, 4])
def test_constant_verdicts(k):
    values = pass_at_k(np.ones((5, 4), bool), k)
    assert (values == 1).all() and clustered_standard_error(values, range(5)) == 0


def test_whole_clusters_are_flipped():
    """Against all 2^C flips by hand."""
    rng = np.random.default_rng(4)
    names = np.repeat(range(8), 3)
    first, second = rng.random(24), rng.random(24) + 0.15
    difference, p = paired_difference(first, second, names)
    sums = [(second - first)[names == name].sum() for name in range(8)]
    flips = [abs(np.dot(signs, sums)) for signs in product([1, -1], repeat=8)]
    assert p == pytest.approx(np.mean(np.array(flips) >= abs(sum(sums)) - 1e-9))
    assert difference.value == pytest.approx((second - first).mean())
    assert difference.low < difference.value < difference.high


def test_p_values_are_honest_under_the_null():
    rng = np.random.default_rng(5)
    draws = [clustered(rng, 12, 4) for _ in range(300)]
    p_values = [paired_difference(np.full(48, 0.5), values, names)[1] for values, names in draws]
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.09
