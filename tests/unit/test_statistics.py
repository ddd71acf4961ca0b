"""masa.statistics against closed forms and scipy."""

from __future__ import annotations

from math import comb, isnan

import numpy as np
import pytest
from scipy import stats

from masa.statistics import (
    Estimate,
    bootstrap_correlation,
    bootstrap_mean,
    bootstrap_quantile,
    bootstrap_ratio,
    clustered_wilson,
    holm,
    jackknife,
    paired_t_test,
    sign_flip_test,
    t_mean,
    wilson,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 10), (50, 50), (17, 400)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert [wilson(hits, n).low, wilson(hits, n).high] == pytest.approx(list(expected), abs=1e-9)


def test_wilson_of_nothing_and_of_nonsense() -> None:
    assert isnan(wilson(0, 0).value) and str(wilson(0, 0)) == "– (0 of 0)"
    assert str(Estimate(0.5, 0.4, 0.6, 5, 10)) == "0.500 [0.400, 0.600] (5 of 10)"
    with pytest.raises(ValueError, match="5 hits of 3"):
        wilson(5, 3)


def test_clustered_wilson_knows_that_copies_are_no_evidence() -> None:
    copies = clustered_wilson([8] * 5 + [0] * 5, [8] * 10)  # ten prompts, each all or nothing
    alone = wilson(5, 10)
    assert (copies.hits, copies.n) == (40, 80)
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.05)
    single = clustered_wilson([1] * 30 + [0] * 50, [1] * 80)
    assert single.low == pytest.approx(wilson(30, 80).low, abs=2e-3)
    none = clustered_wilson([0] * 10, [8] * 10)
    assert none.high == pytest.approx(wilson(0, 10).high)
    # forty questions with .02 expected observations each are less than one observation
    assert clustered_wilson([0] * 40, [0.02] * 40).high > wilson(0, 1).high


def test_bootstrap_mean_matches_the_standard_error_over_clusters() -> None:
    rng = np.random.default_rng(1)
    per_prompt = rng.normal(size=200)
    values, clusters = np.repeat(per_prompt, 4), np.repeat(np.arange(200), 4)
    got = bootstrap_mean(values, clusters)
    half = 1.96 * per_prompt.std() / np.sqrt(200)
    assert got.value == pytest.approx(per_prompt.mean())
    assert [got.low, got.high] == pytest.approx([got.value - half, got.value + half], abs=0.02)
    assert got == bootstrap_mean(values, clusters)  # seeded
    order = rng.permutation(len(values))
    assert bootstrap_mean(values[order], clusters[order]).low == pytest.approx(got.low)


def test_bootstrap_mean_covers() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for seed in range(200):
        rates = rng.beta(1, 2, size=80)  # mean 1 / 3
        draws = rng.random((80, 4)) < rates[:, None]
        got = bootstrap_mean(draws.ravel(), np.repeat(np.arange(80), 4), resamples=600, seed=seed)
        inside += got.low <= 1 / 3 <= got.high
    assert 178 <= inside <= 199


def test_bootstrap_over_many_clusters_goes_in_chunks() -> None:
    x = np.arange(3000.0)
    got = bootstrap_mean(x, np.arange(3000), resamples=3000)
    assert got.high - got.low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(3000), rel=0.06)


def test_correlation_is_scipys() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=300)
    y = 0.6 * x + 0.8 * rng.normal(size=300)
    got = bootstrap_correlation(x, y, np.arange(300))
    fisher = stats.pearsonr(x, y).confidence_interval()
    assert got.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert [got.low, got.high] == pytest.approx(list(fisher), abs=0.03)
    assert isnan(bootstrap_correlation(np.ones(9), np.arange(9), np.arange(9)).value)
    assert isnan(bootstrap_correlation([1, 2], [1, 2], [0, 1]).value)


def test_a_ratio_of_sums_has_the_interval_of_its_clusters() -> None:
    rng = np.random.default_rng(5)
    under = rng.integers(20, 60, 300).astype(float)
    over = under * rng.uniform(0.1, 0.3, 300)
    got = bootstrap_ratio(over, under, np.arange(300))
    share = over.sum() / under.sum()
    half = 1.96 * np.sqrt(((over - share * under) ** 2).sum()) / under.sum()
    assert got.value == pytest.approx(share)
    assert [got.low, got.high] == pytest.approx([share - half, share + half], rel=0.02)
    twice = bootstrap_ratio(np.tile(over, 2), np.tile(under, 2), np.tile(np.arange(300), 2))
    assert twice.low == pytest.approx(got.low)
    assert isnan(bootstrap_ratio([0, 0], [0, 0], [0, 1]).value)
    assert isnan(bootstrap_ratio([1], [2], [0]).low)


def test_sign_flip_exact_and_monte_carlo() -> None:
    assert sign_flip_test([1.0] * 8) == pytest.approx(2 / 2**8)
    assert sign_flip_test([0.0] * 5) == 1.0
    rng = np.random.default_rng(4)
    few, many = rng.normal(0.4, 1, 10), rng.normal(0.25, 1, 60)
    for d, tolerance in ((few, 1e-12), (np.r_[few, np.zeros(50)], 1e-12), (many, 0.012)):
        kept = d[d != 0]
        theirs = stats.permutation_test(
            (kept, np.zeros_like(kept)), lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples", vectorized=True, n_resamples=9999, rng=0,
        ).pvalue  # fmt: skip
        assert sign_flip_test(d) == pytest.approx(theirs, abs=tolerance)
    ties = [0.25] * 9 + [-0.25] * 3  # binomial: 9 or more of 12 on one side
    assert sign_flip_test(ties) == pytest.approx(2 * sum(comb(12, k) for k in range(9, 13)) / 2**12)
    with pytest.raises(ValueError, match="finite"):
        sign_flip_test([])


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_t_mean_is_scipys() -> None:
    x = np.random.default_rng(0).normal(size=5)
    expected = stats.ttest_1samp(x, 0).confidence_interval()
    assert [t_mean(x).low, t_mean(x).high] == pytest.approx(list(expected))
    assert isnan(t_mean([0.5]).low) and t_mean([0.5, np.nan]).n == 1 and isnan(t_mean([]).value)


def test_jackknife_of_a_mean_is_the_t_interval() -> None:
    x = np.random.default_rng(1).normal(size=6)
    estimate = jackknife(lambda chosen: float(x[list(chosen)].mean()), len(x))
    assert [estimate.low, estimate.high] == pytest.approx([t_mean(x).low, t_mean(x).high])
    undefined = jackknife(lambda chosen: 1.0 if 0 in chosen else float("nan"), 3)
    assert undefined.value == 1 and isnan(undefined.low)


def test_paired_t_is_scipys() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, 5))
    assert paired_t_test(x - y) == pytest.approx(stats.ttest_rel(x, y).pvalue)
    assert paired_t_test([0, 0]) == 1 and isnan(paired_t_test([1, 1])) and isnan(paired_t_test([1]))
    # the same but for rounding
    assert isnan(paired_t_test([0.55 - 0.5, 0.45 - 0.4, 0.35 - 0.3]))
    assert paired_t_test([0.1 + 0.2 - 0.3, 0.0, 0.0]) == 1


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_bootstrap_quantile(share: float) -> None:
    x = np.random.default_rng(3).exponential(size=400)

    def quantile(sample: np.ndarray, axis: int) -> np.ndarray:
        return np.quantile(sample, share, axis=axis)

    estimate = bootstrap_quantile(x, np.arange(400), share)
    expected = stats.bootstrap((x,), quantile, method="percentile", rng=0).confidence_interval
    assert estimate.value == pytest.approx(np.quantile(x, share))
    assert [estimate.low, estimate.high] == pytest.approx(list(expected), abs=0.03)
