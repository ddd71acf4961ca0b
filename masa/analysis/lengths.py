"""How far predicted lengths are off, and what a cutoff by them costs and saves."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from masa.analysis.load import Run, run_labels
from masa.statistics import Estimate, bootstrap_quantile, clustered_wilson, wilson

VERDICTS = {"correct": 1.0, "wrong": 0.0}


def length_pairs(run: Run, step: int) -> pd.DataFrame:
    """Mean predicted length and mean length of the correct solutions, in tokens, per held-out
    prompt of one validation that has both: `prompt_id`, `predicted`, `length`."""
    rows = run.rollouts[(run.rollouts["split"] == "val") & (run.rollouts["step"] == step)]
    said = rows.groupby("prompt_id")["predicted_length"].mean().rename("predicted")
    actual = rows[rows["correct"] == 1].groupby("prompt_id")["tokens"].mean().rename("length")
    return pd.concat([said, actual], axis=1).dropna().rename_axis("prompt_id").reset_index()


def length_errors(run: Run, step: int) -> pd.DataFrame:
    """Standardised length errors of one validation, one row per held-out prompt and verdict.

    `error` = (mean length of the prompt's solutions of that verdict - mean predicted length) over
    the standard deviation of the predicted lengths; NaN where the predictions do not vary.
    `prompt_id`, `verdict` (correct or wrong), `solutions` and `predictions` (their numbers).
    """
    rows = run.rollouts[(run.rollouts["split"] == "val") & (run.rollouts["step"] == step)]
    said = rows.groupby("prompt_id")["predicted_length"].agg(["mean", "std", "count"])
    solved = rows[rows["kind"] == "solution"]
    parts = []
    for verdict, value in VERDICTS.items():
        lengths = solved[solved["correct"] == value].groupby("prompt_id")["tokens"]
        table = lengths.agg(["mean", "size"]).join(said, rsuffix=" said", how="inner")
        error = (table["mean"] - table["mean said"]) / table["std"].where(table["std"] > 0)
        counts = {"solutions": table["size"], "predictions": table["count"]}
        parts.append(pd.DataFrame({"verdict": verdict, **counts, "error": error}))
    return pd.concat(parts).rename_axis("prompt_id").reset_index()


def stopped(run: Run, step: int, verdict: str) -> Estimate:
    """Share of the solutions of a verdict that the cutoff would have stopped at a validation,
    over all held-out prompts. Wilson interval at the effective sample size."""
    rows = run.rollouts[
        (run.rollouts["split"] == "val")
        & (run.rollouts["step"] == step)
        & (run.rollouts["correct"] == VERDICTS[verdict])
        & run.rollouts["cutoff_tokens"].notna()
    ]
    counts = (
        (rows["tokens"] > rows["cutoff_tokens"]).groupby(rows["prompt_id"]).agg(["sum", "size"])
    )
    return clustered_wilson(counts["sum"], counts["size"])


def length_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Per run and verdict, at the last validation: the median standardised error, its middle half,
    and the share of the solutions that the cutoff would stop."""
    table: list[dict[str, object]] = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        if run.validations.empty:
            continue
        step = int(run.validations["step"].iloc[-1])
        errors = length_errors(run, step)
        for verdict in VERDICTS if errors["predictions"].any() else ():
            part = errors[errors["verdict"] == verdict]
            known = part.dropna(subset=["error"])
            quarter, median, three = (
                bootstrap_quantile(known["error"], known["prompt_id"], share)
                for share in (0.25, 0.5, 0.75)
            )
            table.append(
                {
                    "run": label,
                    "solutions": verdict,
                    "kept prompts": wilson(len(known), len(part)),
                    "median error": median,
                    "25 %": quarter,
                    "75 %": three,
                    "longer than the cutoff": stopped(run, step, verdict),
                }
            )
    return pd.DataFrame(table)
