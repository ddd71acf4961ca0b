"""How well held-out predictions agree with what came: the scores of the meta reward, and over
training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from masa.analysis.lengths import length_pairs
from masa.analysis.load import Run, alignment, run_labels
from masa.analysis.tables import held_out
from masa.statistics import Floats, bootstrap_mean

_SHOWN = 5  # validations in a table over training


def reward_weights(run: Run) -> Floats:
    """Weights of `run.rewards` in the run's meta reward, of sum 1; alike where it names none."""
    settings = run.config["algorithm"].get("meta", {}).get("rewards", {})
    weights = np.array([settings.get(name, {}).get("weight", 1.0) for name in run.rewards], float)
    return weights / weights.sum()


def score_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Per run with held-out predictions, at the last validation: the component scores, their
    weighted mean, and how far predicted lengths are from the mean of the correct solutions.

    Intervals: 95 % bootstrap over prompts.
    """
    table: list[dict[str, object]] = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        if run.validations.empty or not run.rewards:
            continue
        step = int(run.validations["step"].iloc[-1])
        rows = held_out(run, step).dropna(subset=run.reward_columns)
        if rows.empty:
            continue
        scores = rows[run.reward_columns]
        scores = scores.assign(reward=scores @ reward_weights(run))
        means = {name: bootstrap_mean(column, rows.index) for name, column in scores.items()}
        lengths = alignment(length_pairs(run, step), "length")
        table.append(
            {
                "run": label,
                "prompts": len(rows),
                **{f"{name} score": means[f"r_{name}"] for name in run.rewards},
                "meta reward": means["reward"],
                "length MAE (tokens)": replace(lengths["mae"], digits=1),
                "length corr": lengths["corr"],
            }
        )
    return pd.DataFrame(table)


def alignment_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Predicted and true pass rate on held-out prompts over training, of each run with predictions
    at the first, the last and three validations between. Intervals: 95 % bootstrap over prompts.
    """
    parts = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        known = run.validations[np.array([bool(e.n) for e in run.validations["mae"]], bool)]
        places = np.linspace(0, len(known) - 1, min(_SHOWN, len(known))).round().astype(int)
        names = {
            "step": "rollout", "predicted": "predicted pass rate", "actual": "true pass rate",
            "mae": "pass-rate MAE", "corr": "pass-rate corr",
        }  # fmt: skip
        part = known.iloc[places][list(names)].rename(columns=names)
        parts.append(part.assign(run=label)[["run", *names.values()]])
    return pd.concat(parts, ignore_index=True)
