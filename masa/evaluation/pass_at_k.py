"""pass@k and its error bars; a question is the unit, questions of one context are one cluster.

Sources: Chen et al. arXiv 2107.03374 (unbiased pass@k), Miller arXiv 2411.00640 (clustered standard
errors, paired comparison), Holm 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from masa.statistics import (
    Estimate,
    bootstrap_mean,
    percentiles,
    resampled_means,
    sign_flip_test,
)

Floats = NDArray[np.float64]


def pass_at_k(correct: ArrayLike, k: int) -> Floats:
    """Unbiased pass@k per question, 1 - C(n - c, k) / C(n, k).

    Args:
        correct: verdicts, [N questions, n samples].
        k: samples allowed.

    Returns:
        [N].

    Raises:
        ValueError: unless 1 <= k <= n.
    """
    verdicts = np.asarray(correct, bool)
    n = verdicts.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples per question, there are {n}")
    by_count = np.array([1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)])
    return by_count[verdicts.sum(axis=1)]


def std_over_samples(correct: ArrayLike) -> float:
    """Standard deviation of accuracy over the n columns of `correct` [N, n]; NaN for n = 1.

    How much one sample per question would vary from sampling seed to sampling seed.
    """
    columns = np.asarray(correct, float).mean(axis=0)
    return float(columns.std(ddof=1)) if len(columns) > 1 else nan


def clustered_standard_error(values: ArrayLike, clusters: ArrayLike) -> float:
    """Standard error of the mean of `values` [N] where values of one cluster are dependent.

    With C clusters: sqrt(C / (C - 1) * sum_c (sum_{i in c} (x_i - mean))^2) / N, which is
    s / sqrt(N) where every cluster holds one value; NaN for fewer than two clusters.
    """
    x = np.asarray(values, float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    count = len(names)
    if count < 2:
        return nan
    sums = np.bincount(index, weights=x - x.mean(), minlength=count)
    return sqrt(count / (count - 1) * float((sums**2).sum())) / len(x)


def macro_average(parts: Sequence[tuple[ArrayLike, ArrayLike]]) -> Estimate:
    """Mean of the benchmarks' means, each resampled by its own clusters.

    Args:
        parts: per benchmark its values [N] and clusters [N].
    """
    value = float(np.mean([np.mean(np.asarray(values, float)) for values, _ in parts]))
    if any(len(np.unique(np.asarray(clusters))) < 2 for _, clusters in parts):
        return Estimate(value, n=len(parts))
    # a seed per benchmark: equal draws of two benchmarks of one size would be dependent
    draws = [resampled_means(x, clusters, seed=1 + i) for i, (x, clusters) in enumerate(parts)]
    return Estimate(value, *percentiles(np.mean(draws, axis=0)), n=len(parts))


def paired_difference(
    first: ArrayLike, second: ArrayLike, clusters: ArrayLike
) -> tuple[Estimate, float]:
    """Mean of second - first [N] with its interval, and the p-value of a sign-flip test.

    Both resample and flip whole clusters.
    """
    difference = np.asarray(second, float) - np.asarray(first, float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(index, weights=difference, minlength=len(names))
    return bootstrap_mean(difference, clusters), sign_flip_test(sums)
