"""Intervals and tests over prompts, since rollouts of one prompt are not independent of each other,
and over training seeds (`t_mean`, `jackknife`, `paired_t_test`).

All intervals are 95 %, unless a level is given. Resampling is seeded, so the same data give the
same numbers. Sources: Wilson 1927; Miller
arXiv 2411.00640 (clustered errors, paired tests per question); Holm 1979; Tukey 1958 (jackknife).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor, inf, isnan, nan, sqrt
from statistics import NormalDist

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
_Z = NormalDist().inv_cdf(0.975)
_CHUNK = 4_000_000  # weights held in memory at once
_HUGE = 1e9  # from here on powers of ten are easier to read
_EXACT = 14  # sign-flips are enumerated up to this many non-zero differences

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN bounds where no interval exists."""

    value: float
    """Point estimate, NaN where there is nothing to estimate it from."""
    low: float = nan
    """Lower bound."""
    high: float = nan
    """Upper bound."""
    hits: int | None = None
    """Numerator of a share, None where the estimate is no share."""
    n: int | None = None
    """Number of observations (the denominator of a share)."""
    digits: int = 3
    """Decimals shown."""
    note: str = ""
    """A reservation shown behind it."""

    def __str__(self) -> str:
        style = ".3g" if abs(self.value) >= _HUGE else f",.{self.digits}f"
        text = "–" if isnan(self.value) else f"{self.value:{style}}"
        if not isnan(self.low):
            text += f" [{self.low:{style}}, {self.high:{style}}]"
        if self.hits is not None:
            text += f" ({self.hits:,} of {self.n:,})"
        return f"{text} ({self.note})" if self.note else text

    def rounded(self) -> dict[str, float | None] | None:
        """Mean, low and high to five digits, as JSON has them: null for NaN, and without a value
        for all of it."""
        if isnan(self.value):
            return None
        values = {"mean": self.value, "low": self.low, "high": self.high}
        return {name: None if isnan(x) else float(f"{x:.5g}") for name, x in values.items()}


def wilson(hits: int, n: int) -> Estimate:
    """Share `hits / n` with its Wilson score interval; NaN for n = 0.

    Raises:
        ValueError: unless 0 <= hits <= n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"{hits} hits of {n}")
    if n == 0:
        return Estimate(nan, hits=0, n=0)
    return Estimate(hits / n, *_wilson_bounds(hits / n, n, _Z), hits, n)


def clustered_wilson(hits: ArrayLike, n: ArrayLike, z: float = _Z) -> Estimate:
    """Share `sum(hits) / sum(n)` over clusters, with a Wilson interval at the effective size.

    The effective size is n over the design effect (linearised ratio variance over the binomial
    one), never more than n; where the share is exactly 0 or 1 the design effect is unknown and
    every cluster counts once.

    Args:
        hits: successes per cluster, [C].
        n: observations per cluster, [C].
        z: half the width of the interval in standard errors.
    """
    h, m = np.asarray(hits, float), np.asarray(n, float)
    h, m = h[m > 0], m[m > 0]
    total, hit, clusters = float(m.sum()), float(h.sum()), len(m)
    if total == 0:
        return Estimate(nan, hits=0, n=0)
    share = hit / total
    effective = min(float(clusters), total)
    if 0 < hit < total and clusters > 1:
        variance = clusters / (clusters - 1) * float(((h - share * m) ** 2).sum()) / total**2
        effective = min(total, share * (1 - share) / variance) if variance > 0 else total
    return Estimate(share, *_wilson_bounds(share, effective, z), round(hit), round(total))


def _wilson_bounds(share: float, n: float, z: float) -> tuple[float, float]:
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _cluster_sums(columns: Floats, clusters: ArrayLike) -> Floats:
    """Sums of `columns` [N, K] per cluster -> [C, K], in the order of the sorted cluster names."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((index.max(initial=-1) + 1, columns.shape[1]))
    np.add.at(sums, index, columns)
    return sums


def _resampled_sums(sums: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Floats]:
    """Bootstrap over clusters: chunks of [B, K] totals of resampled `sums` [C, K]."""
    chunk = max(1, _CHUNK // len(sums))
    for i, start in enumerate(range(0, resamples, chunk)):
        draw = _weights if chunk >= resamples else _weights.__wrapped__
        yield draw(len(sums), min(chunk, resamples - start), seed + 7919 * i) @ sums


@lru_cache(maxsize=4)
def _weights(clusters: int, size: int, seed: int) -> Floats:
    """How often each cluster is drawn in each resample, [B, C]; kept, since estimates share it."""
    picks = np.random.default_rng(seed).integers(0, clusters, size=(size, clusters))
    flat = (picks + clusters * np.arange(size)[:, None]).ravel()
    return np.bincount(flat, minlength=size * clusters).reshape(size, clusters).astype(float)


def resampled_moments(
    rows: Floats, clusters: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """Sums of the outer products of the rows [N, K] in each cluster resample, [B, K, K]."""
    products = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    sums = resampled_sums(products, clusters, resamples, seed)
    return sums.reshape(resamples, rows.shape[1], -1)


def resampled_sums(
    columns: Floats, clusters: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """Sums of the columns [N, K] in each cluster resample, [B, K]."""
    sums = _cluster_sums(columns, clusters)
    return np.concatenate(list(_resampled_sums(sums, resamples, seed)))


def percentiles(draws: Floats) -> tuple[float, float]:
    """Bounds of the middle 95 % of the draws; NaN where none is finite."""
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return nan, nan
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_mean(
    values: ArrayLike,
    clusters: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Mean of all values, with a percentile interval from resampling whole clusters.

    Args:
        values: observations, [N]; NaN are left out.
        clusters: the prompt each belongs to, [N].

    Returns:
        The estimate; its bounds are NaN for fewer than two clusters.
    """
    x, groups = np.asarray(values, float), np.asarray(clusters)
    keep = np.isfinite(x)
    x, groups = x[keep], groups[keep]
    if not len(x):
        return Estimate(nan, n=0)
    if len(np.unique(groups)) < 2:
        return Estimate(float(x.mean()), n=len(x))
    draws = resampled_means(x, groups, resamples, seed)
    return Estimate(float(x.mean()), *percentiles(draws), n=len(x))


def resampled_means(
    values: ArrayLike, clusters: ArrayLike, resamples: int = RESAMPLES, seed: int = 0
) -> Floats:
    """Means of finite `values` [N] over resampled clusters, [B]."""
    x = np.asarray(values, float)
    sums = _cluster_sums(np.stack([x, np.ones_like(x)], axis=1), clusters)
    return np.concatenate([s[:, 0] / s[:, 1] for s in _resampled_sums(sums, resamples, seed)])


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    clusters: ArrayLike,
) -> Estimate:
    """Sum of one over sum of the other [N], with a percentile interval from resampling clusters.

    NaN where the denominator sums to 0; resamples in which it does are left out of the interval.
    """
    pairs = np.stack([np.asarray(numerator, float), np.asarray(denominator, float)], axis=1)
    sums = _cluster_sums(pairs, clusters)
    over, under = sums.sum(axis=0)
    if not under:
        return Estimate(nan)
    if len(sums) < 2:
        return Estimate(float(over / under))
    totals = np.concatenate(list(_resampled_sums(sums)))
    draws = totals[:, 0] / np.where(totals[:, 1] > 0, totals[:, 1], nan)
    return Estimate(float(over / under), *percentiles(draws))


def bootstrap_gain(
    kept: tuple[ArrayLike, ArrayLike],
    total: tuple[ArrayLike, ArrayLike],
    clusters: ArrayLike,
) -> Estimate:
    """Share kept of one quantity over the share kept of another, from sums over [N], with a
    percentile interval from resampling clusters.

    NaN where a sum that divides is 0; resamples in which one is are left out of the interval.

    Args:
        kept: the part of both quantities that is kept, [N] each.
        total: both quantities, [N] each.
        clusters: [N].
    """
    sums = _cluster_sums(
        np.stack([np.asarray(x, float) for x in (*kept, *total)], axis=1), clusters
    )
    value = float(_gain(sums.sum(axis=0, keepdims=True))[0])
    if isnan(value) or len(sums) < 2:
        return Estimate(value)
    draws = np.concatenate([_gain(s) for s in _resampled_sums(sums)])
    return Estimate(value, *percentiles(draws))


def _gain(sums: Floats) -> Floats:
    """From the sums (first kept, second kept, first, second) [B, 4]."""
    first_kept, second_kept, first, second = sums.T
    divisor = first * second_kept
    return first_kept * second / np.where(divisor > 0, divisor, nan)


def bootstrap_correlation(
    x: ArrayLike,
    y: ArrayLike,
    clusters: ArrayLike,
) -> Estimate:
    """Pearson correlation of x and y [N], with a percentile interval from resampling clusters.

    NaN where either side is constant or fewer than three pairs are finite; resamples in which
    a side is constant are left out of the interval.
    """
    a, b, groups = np.asarray(x, float), np.asarray(y, float), np.asarray(clusters)
    keep = np.isfinite(a) & np.isfinite(b)
    a, b, groups = a[keep], b[keep], groups[keep]
    if len(a) < 3:
        return Estimate(nan, n=len(a))
    a, b = a - a.mean(), b - b.mean()
    sums = _cluster_sums(np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], axis=1), groups)
    value = float(_pearson(sums.sum(axis=0, keepdims=True))[0])
    if isnan(value) or len(sums) < 3:
        return Estimate(value, n=len(a))
    draws = np.concatenate([_pearson(s) for s in _resampled_sums(sums)])
    return Estimate(value, *percentiles(draws), n=len(a))


def _pearson(sums: Floats) -> Floats:
    """Correlations from the sums (1, x, y, xx, yy, xy) [B, 6]; NaN where a variance vanishes."""
    n, sx, sy, sxx, syy, sxy = sums.T
    vx, vy = sxx - sx**2 / n, syy - sy**2 / n
    vx[vx <= 1e-12 * n] = nan
    vy[vy <= 1e-12 * n] = nan
    return (sxy - sx * sy / n) / np.sqrt(vx * vy)


def sign_flip_test(differences: ArrayLike) -> float:
    """Two-sided p-value of a paired sign-flip test that the mean difference is zero.

    Exact (all 2^n flips) for up to 14 non-zero differences, else by seeded Monte Carlo with the
    observed arrangement counted in.

    Args:
        differences: one per question, [N].

    Raises:
        ValueError: no differences, or one that is not finite.
    """
    d = np.asarray(differences, float)
    if not len(d) or not np.isfinite(d).all():
        raise ValueError("sign_flip_test needs finite differences")
    d = d[d != 0]
    if not len(d):
        return 1.0
    observed = abs(d.sum()) - 1e-9 * float(np.abs(d).sum())
    if len(d) <= _EXACT:
        codes = np.arange(2 ** len(d))[:, None]
        signs = 1 - 2 * (codes >> np.arange(len(d)) & 1)  # [2^n, n]
        return float(np.mean(np.abs(signs @ d) >= observed))
    rng = np.random.default_rng(0)
    extreme, chunk = 0, max(1, _CHUNK // len(d))
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        signs = 1.0 - 2.0 * rng.integers(0, 2, size=(size, len(d)))
        extreme += int(np.count_nonzero(np.abs(signs @ d) >= observed))
    return (extreme + 1) / (RESAMPLES + 1)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values, in the order given, [N]."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def t_quantile(n: int) -> float:
    """Two-sided 95 % quantile of Student's t with n - 1 degrees of freedom."""
    return float(scipy.stats.t.ppf(0.975, n - 1))


def t_mean(values: ArrayLike, within: tuple[float, float] = (-inf, inf)) -> Estimate:
    """Mean of one value per seed [S] with Student's t interval; no bounds for a single seed.

    NaN are left out; `n` is the number of values that were not. The bounds are cut at `within`,
    between which the quantity must lie.
    """
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    if not len(x):
        return Estimate(nan, n=0)
    mean = float(x.mean())
    if len(x) < 2:
        return Estimate(mean, n=1)
    half = t_quantile(len(x)) * float(x.std(ddof=1)) / sqrt(len(x))
    return Estimate(mean, max(mean - half, within[0]), min(mean + half, within[1]), n=len(x))


def jackknife(statistic: Callable[[Sequence[int]], float], n: int) -> Estimate:
    """A statistic of n seeds with its leave-one-out standard error and Student's t interval.

    Args:
        statistic: of the seeds with the given indices; NaN where it is undefined.
        n: number of seeds.

    Returns:
        The estimate; without bounds for a single seed, or where leaving one out leaves the
        statistic undefined.
    """
    value = statistic(range(n))
    if n < 2 or isnan(value):
        return Estimate(value, n=n)
    left_out = np.array([statistic([j for j in range(n) if j != i]) for i in range(n)])
    error = sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    half = t_quantile(n) * error
    return Estimate(value, value - half, value + half, n=n)


def paired_t_test(differences: ArrayLike) -> float:
    """Two-sided p-value of Student's paired t test on one difference per seed [S].

    NaN for fewer than two, and where all are the same: accuracies are multiples of one over the
    prompts, so that this happens by chance. 1 where all are zero.
    """
    d = np.asarray(differences, float)
    if len(d) < 2:
        return nan
    # differences of shares are the same but for rounding
    if np.ptp(d) <= 1e-12 * max(1.0, float(np.abs(d).max())):
        return nan if np.abs(d).max() > 1e-12 else 1.0
    return float(scipy.stats.ttest_1samp(d, 0).pvalue)


def bootstrap_quantile(values: ArrayLike, clusters: ArrayLike, share: float) -> Estimate:
    """Quantile of values [N] below which `share` of them lie (0.5: the median), linear between
    values, with a percentile interval from resampling whole clusters [N]."""
    x, groups = np.asarray(values, float), np.asarray(clusters)
    keep = np.isfinite(x)
    x, groups = x[keep], groups[keep]
    if not len(x):
        return Estimate(nan, n=0)
    _, index = np.unique(groups, return_inverse=True)
    count = int(index.max()) + 1
    value = float(np.quantile(x, share))
    if count < 2:
        return Estimate(value, n=len(x))
    order = np.argsort(x, kind="stable")
    draws = []
    for weights in _weights.__wrapped__(count, 1000, 0):
        heavy = np.cumsum(weights[index[order]])
        place = share * (heavy[-1] - 1)  # among the resampled values, counted from 0
        below, above = np.searchsorted(heavy, [floor(place) + 1, ceil(place) + 1])
        draws.append(np.interp(place % 1, [0, 1], x[order[[below, above]]]))
    return Estimate(value, *percentiles(np.array(draws)), n=len(x))
