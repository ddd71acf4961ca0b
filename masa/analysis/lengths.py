"""How far predicted lengths are off, and what a cutoff by them costs and saves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from masa.analysis.load import Run, per_run
from masa.statistics import Estimate, bootstrap_quantile, clustered_wilson, wilson

VERDICTS = {"correct": 1.0, "wrong": 0.0}


def length_pairs(run: Run, step: int) -> pd.DataFrame:
    """Mean predicted length and mean length of the correct solutions, in tokens, per held-out
    prompt of one validation that has both: `prompt_id`, `predicted`, `length`."""
    rows = run.held_out_rollouts(step)
    predicted = rows.groupby("prompt_id")["predicted_length"].mean().rename("predicted")
    actual = rows[rows["correct"] == 1].groupby("prompt_id")["tokens"].mean().rename("length")
    return pd.concat([predicted, actual], axis=1).dropna().rename_axis("prompt_id").reset_index()


def length_errors(run: Run, step: int) -> pd.DataFrame:
    """Standardised length errors of one validation, one row per held-out prompt and verdict.

    `error` = (mean length of the prompt's solutions of that verdict - mean predicted length) over
    the standard deviation of the predicted lengths; NaN where the predictions do not vary.
    `prompt_id`, `verdict` (correct or wrong), `predictions` (their number).
    """
    rows = run.held_out_rollouts(step)
    predicted = rows.groupby("prompt_id")["predicted_length"].agg(["mean", "std", "count"])
    parts = []
    for verdict, value in VERDICTS.items():
        actual = rows[rows["correct"] == value].groupby("prompt_id")["tokens"].mean()
        table = predicted.join(actual, how="inner")
        error = (table["tokens"] - table["mean"]) / table["std"].where(table["std"] > 0)
        parts.append(
            pd.DataFrame({"verdict": verdict, "predictions": table["count"], "error": error})
        )
    return pd.concat(parts).rename_axis("prompt_id").reset_index()


def longer_than_cutoff(run: Run, step: int, verdict: str) -> Estimate:
    """Share of the solutions of a verdict that the cutoff would have stopped at a validation,
    over all held-out prompts. Wilson interval at the effective sample size."""
    rows = run.held_out_rollouts(step)
    rows = rows[(rows["correct"] == VERDICTS[verdict]) & rows["cutoff_tokens"].notna()]
    longer = (rows["tokens"] > rows["cutoff_tokens"]).groupby(rows["prompt_id"])
    return clustered_wilson(longer.sum(), longer.size())


@per_run
def length_table(run: Run) -> Iterator[dict[str, Any]]:
    """Per verdict, at the last validation: the median standardised error, its middle half, and the
    share of the solutions that the cutoff would stop."""
    if run.validations.empty:
        return
    step = run.ends[1]
    errors = length_errors(run, step)
    for verdict in VERDICTS if errors["predictions"].any() else ():
        part = errors[errors["verdict"] == verdict]
        known = part.dropna(subset=["error"])
        quarter, median, three = (
            bootstrap_quantile(known["error"], known["prompt_id"], share)
            for share in (0.25, 0.5, 0.75)
        )
        yield {
            "solutions": verdict,
            "kept prompts": wilson(len(known), len(part)),
            "median error": median,
            "25 %": quarter,
            "75 %": three,
            "longer than the cutoff": longer_than_cutoff(run, step, verdict),
        }
