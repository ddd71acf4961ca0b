"""Does accuracy rise where the meta reward does? Paired per held-out prompt and validation.

Gains and changes are against the first validation of the same run. Gain and difficulty score come
from the same solutions, so part of their relation is arithmetic, not cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import factorial, nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from masa.analysis.load import Run, per_run
from masa.analysis.scores import meta_reward
from masa.statistics import (
    Estimate,
    Floats,
    bootstrap_correlation,
    percentiles,
    resampled_moments,
)

_RESAMPLES = 2000


def gains(run: Run) -> pd.DataFrame:
    """One row per held-out prompt and validation after the first.

    `step`, `prompt_id`, `gain` (pass rate now minus at the first validation), the changes of the
    mean component scores `r_<name>`, and of `reward`, their mean under the run's weights.
    """
    rows = run.prompts[(run.prompts["split"] == "val") & (run.prompts["samples"] > 0)]
    rows = rows.dropna(subset=run.reward_columns) if run.rewards else rows.iloc[:0]
    columns = ["pass_rate", *run.reward_columns]
    first = rows[rows["step"] == rows["step"].min()].set_index("prompt_id")[columns]
    later = rows[rows["step"] > rows["step"].min()]
    later = later[later["prompt_id"].isin(first.index)]
    change = later[columns].to_numpy(float) - first.loc[later["prompt_id"]].to_numpy(float)
    table = pd.DataFrame(change, columns=["gain", *run.reward_columns])
    table.insert(0, "step", later["step"].to_numpy(float))
    table.insert(1, "prompt_id", later["prompt_id"].to_numpy())
    return table.assign(reward=meta_reward(run, table))


def shapley_r2(x: ArrayLike, y: ArrayLike) -> Floats:
    """Each feature's share of the R2 of a least-squares model with intercept, [K].

    The mean, over all K! orders in which the features may enter, of the R2 that a feature adds
    (Lindeman, Merenda & Gold 1980; Shapley 1953). The shares sum to the R2 of the full model.

    Args:
        x: features, [N, K].
        y: what they explain, [N].
    """
    rows = _centred(x, y)
    return _shapley((rows.T @ rows)[None])[0]


def _centred(x: ArrayLike, y: ArrayLike) -> Floats:
    """Rows (1, x, y) less the means of x and y, which keeps their moments precise, [N, K + 2]."""
    columns = np.column_stack([x, y]).astype(float)
    return np.column_stack([np.ones(len(columns)), columns - columns.mean(axis=0)])


def _shapley(moments: Floats) -> Floats:
    """Shares [B, K] from sums of outer products of (1, x, y) [B, K + 2, K + 2].

    NaN where y is constant. In closed form: an order matters only through the set of features
    that came before, so K! orders need 2^K models.
    """
    n = moments[:, :1, :1]
    covariance = moments / n - moments[:, :, :1] * moments[:, :1, :] / n**2
    covariance = covariance[:, 1:, 1:]
    count = covariance.shape[1] - 1
    scale = np.sqrt(np.clip(np.diagonal(covariance, axis1=1, axis2=2), 0, None))
    scale[scale**2 <= 1e-12] = np.inf  # a constant feature explains nothing
    correlation = covariance / (scale[:, :, None] * scale[:, None, :])
    explained = {
        subset: _explained(correlation, list(subset))
        for size in range(count + 1)
        for subset in combinations(range(count), size)
    }
    shares = np.zeros((len(moments), count))
    for before, r2 in explained.items():
        for feature in set(range(count)) - set(before):
            after = tuple(sorted((*before, feature)))
            orders = factorial(len(before)) * factorial(count - len(after)) / factorial(count)
            shares[:, feature] += orders * (explained[after] - r2)
    shares[np.isinf(scale[:, -1])] = nan
    return shares


def _explained(correlation: Floats, features: list[int]) -> Floats:
    """R2 of y, the last variable, on some features, [B]."""
    inner = correlation[:, features][:, :, features]
    target = correlation[:, features, -1]
    weights = np.linalg.pinv(inner, hermitian=True, rcond=1e-9) @ target[:, :, None]
    return (target * weights[:, :, 0]).sum(axis=1)


def shapley(run: Run) -> dict[str, Estimate]:
    """Shares of R2 of the accuracy gain, by feature (a score or the step), and their sum `R2`; 95 %
    bootstrap over prompts."""
    names = [*(f"{name} score" for name in run.rewards), "step", "R2"]
    table = gains(run)
    if table.empty:
        return dict.fromkeys(names, Estimate(nan))
    x, y = table[[*run.reward_columns, "step"]].to_numpy(), table["gain"].to_numpy()
    shares = shapley_r2(x, y)
    draws = _shapley(resampled_moments(_centred(x, y), table["prompt_id"], _RESAMPLES))
    shares, draws = (np.column_stack([a, a.sum(axis=1)]) for a in (shares[None], draws))
    return {
        name: Estimate(float(shares[0, i]), *percentiles(draws[:, i]), n=len(y))
        for i, name in enumerate(names)
    }


@per_run
def gain_table(run: Run) -> Iterator[dict[str, Any]]:
    """Correlation of the gain with the change of meta reward and with the step, and the Shapley
    shares of R2. Intervals: 95 % bootstrap over prompts."""
    table = gains(run)
    if table.empty:
        return
    gain, ids = table["gain"], table["prompt_id"]
    shares = shapley(run)
    yield {
        "pairs": len(table),
        "corr(gain, meta reward)": bootstrap_correlation(gain, table["reward"], ids),
        "corr(gain, step)": bootstrap_correlation(gain, table["step"], ids),
        "R2": shares.pop("R2"),
        **{f"R2 share, {name}": share for name, share in shares.items()},
    }
