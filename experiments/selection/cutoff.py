"""What a length cutoff could save: its margin against right answers lost and tokens saved.

    python experiments/selection/cutoff.py RUN_DIRECTORY [...] [--after 10]

Recorded solutions are cut at the mean predicted length of their prompt times a margin, after the
fact. Only prompts count that were rolled out in full. Margins are those at which a given share of
the right answers is lost. The bound is a cutoff that knows the longest right answer of each prompt.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from masa.analysis.load import Run, find_runs, load_run

LOSSES = (0.0, 0.01, 0.05, 0.1)


def solutions(run: Run, after: int) -> pd.DataFrame:
    """Rows (tokens, correct, predicted) of solutions that no limit but the response's stopped."""
    rows = run.rollouts[(run.rollouts["split"] == "train") & (run.rollouts["step"] > after)]
    key = ["step", "prompt_id"]
    lengths = rows[rows["kind"] == "meta"].groupby(key)["predicted_length"].mean()
    full = rows[(rows["kind"] == "solution") & (rows["evidence_weight"] > 0)]
    table = full[[*key, "tokens"]].assign(correct=full["correct"].astype(bool))
    table["predicted"] = pd.MultiIndex.from_frame(table[key]).map(lengths)
    longest = table[table["correct"]].groupby(key)["tokens"].max()
    # where no answer is right, nothing is lost by any limit
    table["longest"] = pd.MultiIndex.from_frame(table[key]).map(longest)
    return table.dropna(subset=["predicted"])


def saving(table: pd.DataFrame, limits: pd.Series) -> float:
    """Share of the tokens that lie beyond the limits."""
    return float((table["tokens"] - limits).clip(lower=0).sum() / table["tokens"].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--after", type=int, default=10, help="the first rollouts do not count")
    args = parser.parse_args()
    rows = []
    for run in (load_run(path) for path in find_runs(args.runs)):
        table = solutions(run, args.after)
        right = table[table["correct"]]
        row: dict[str, object] = {"run": run.name, "solutions": len(table)}
        for loss in LOSSES:
            margin = float(np.quantile(right["tokens"] / right["predicted"], 1 - loss))
            saved = saving(table, table["predicted"] * margin)
            row[f"{loss:.0%} lost"] = f"margin {margin:.2f}: {saved:.1%} saved"
        bound = table["longest"].fillna(0)
        row["bound"] = f"{saving(table, bound):.1%}"
        rows.append(row)
    print(pd.DataFrame(rows).to_markdown(index=False))


if __name__ == "__main__":
    main()
