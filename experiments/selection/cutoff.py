"""What a length cutoff could save: its margin against right answers lost and tokens saved.

    python experiments/selection/cutoff.py RUN_DIRECTORY [...] [--after 10]

Recorded solutions are cut at the mean predicted length of their prompt times a margin, after the
fact. Only prompts count that were rolled out in full, each for as many as it stands for. Margins
are those at which a given share of the right answers is lost. The bound is a cutoff that knows the
longest right answer of each prompt.
"""

from __future__ import annotations

import argparse

import pandas as pd

from masa.analysis.control import in_full
from masa.analysis.cutoff_savings import cut_solutions, margin, saving
from masa.analysis.load import RunError, find_runs, load_run

LOSSES = (0.0, 0.01, 0.05, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--after", type=int, default=10, help="the first rollouts do not count")
    args = parser.parse_args()
    try:
        runs = [load_run(path) for path in find_runs(args.runs)]
    except RunError as error:
        parser.exit(1, f"cutoff.py: {error}\n")
    rows = []
    for run in runs:
        groups = run.train_prompts
        groups = in_full(groups[groups["step"] > args.after])
        groups = groups.assign(weight=groups["evidence_weight"])
        table = cut_solutions(run, groups[["step", "prompt_id", "weight"]])
        table = table.dropna(subset=["predicted"])
        if not table["correct"].any():
            print(f"{run.name}: no right solution of a prompt with a predicted length")
            continue
        row: dict[str, object] = {"run": run.name, "solutions": len(table)}
        for loss in LOSSES:
            factor = margin(table, table["predicted"], loss)
            saved = saving(table, table["predicted"] * factor)
            row[f"{loss:.0%} lost"] = f"margin {factor:.2f}: {saved:.1%} saved"
        row["bound"] = f"{saving(table, table['longest']):.1%}"
        rows.append(row)
    print(pd.DataFrame(rows).to_markdown(index=False))


if __name__ == "__main__":
    main()
