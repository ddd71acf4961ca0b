"""How well predictions on held-out prompts agree with the outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from masa.analysis.lengths import length_pairs
from masa.analysis.load import Run, alignment, per_run
from masa.statistics import bootstrap_mean

_SHOWN = 5  # validations in a table over training


def meta_reward(run: Run, scores: pd.DataFrame) -> pd.Series:
    """Mean of the columns `r_<name>` under the weights of the run's meta reward; alike where its
    settings name none."""
    settings = run.config["algorithm"].get("meta", {}).get("rewards", {})
    weights = np.array([settings.get(name, {}).get("weight", 1.0) for name in run.rewards], float)
    return scores[run.reward_columns] @ (weights / weights.sum())


@per_run
def score_table(run: Run) -> Iterator[dict[str, Any]]:
    """At the last validation: the component scores, their weighted mean, and how far predicted
    lengths are from the mean of the correct solutions.

    Intervals: 95 % bootstrap over prompts.
    """
    if run.validations.empty or not run.rewards:
        return
    step = run.ends[1]
    rows = run.held_out(step).dropna(subset=run.reward_columns)
    if rows.empty:
        return
    lengths = alignment(length_pairs(run, step), "length")
    yield {
        "prompts": len(rows),
        **{f"{name} score": bootstrap_mean(rows[f"r_{name}"], rows.index) for name in run.rewards},
        "meta reward": bootstrap_mean(meta_reward(run, rows), rows.index),
        "length MAE (tokens)": replace(lengths["mae"], digits=1),
        "length corr": lengths["corr"],
    }


@per_run
def alignment_table(run: Run) -> Iterator[dict[str, Any]]:
    """Predicted and true pass rate on held-out prompts, at the first, the last and three
    validations between. Intervals: 95 % bootstrap over prompts."""
    rows = run.validations[[bool(e.n) for e in run.validations["mae"]]]
    places = np.linspace(0, len(rows) - 1, min(_SHOWN, len(rows))).round().astype(int)
    for _, row in rows.iloc[places].iterrows():
        yield {
            "rollout": row["step"],
            "predicted pass rate": row["predicted"],
            "true pass rate": row["actual"],
            "pass-rate MAE": row["mae"],
            "pass-rate corr": row["corr"],
        }
