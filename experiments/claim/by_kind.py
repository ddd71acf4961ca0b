"""What a gate did to each kind of prompts: `by_kind.py RUN [RUN ...] [--column family]`.

Of each kind, over blocks of rollouts: the pass rate of the prompts that were rolled out in full,
and the share that was skipped. Kinds are told apart by a column of the task's prompts. The most
common kind comes first.
"""

import argparse
from pathlib import Path

import pandas as pd
from omegaconf import OmegaConf

from masa.analysis.load import Run, RunError, load_run
from masa.markdown import markdown_table
from masa.tasks.build import build_task


def by_kind(run: Run, column: str, block: int) -> pd.DataFrame:
    """One row per kind: its prompts in the pool, and `pass rate/skipped` in each block."""
    pool = build_task(OmegaConf.create(run.config)["task"]).train
    if column not in pool[0].columns:
        raise RunError(f"prompts have no column {column}, but {', '.join(pool[0].columns)}")
    kinds = pd.Series({prompt.id: prompt.columns[column] for prompt in pool}, name="kind")
    rows = run.train_prompts.join(kinds, on="prompt_id")
    rows["block"] = (rows["step"] - 1) // block
    rows["known"] = rows["pass_rate"].where(rows["evidence_weight"] > 0)
    cells = rows.groupby(["kind", "block"])[["known", "skipped"]].mean()
    text = cells["known"].map("{:.2f}".format) + " / " + cells["skipped"].map("{:.2f}".format)
    table = text.str.replace("nan", "–").unstack("block")
    table.columns = [f"{block * i + 1}-{block * (i + 1)}" for i in table.columns]
    table.insert(0, "prompts", kinds.value_counts())
    table = table.sort_values("prompts", ascending=False, kind="stable").reset_index()
    return table.fillna("–").astype(str)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--column", default="family")
    parser.add_argument("--block", type=int, default=10, help="rollouts")
    args = parser.parse_args()
    try:
        for path in args.runs:
            table = by_kind(load_run(path), args.column, args.block)
            lines = [[*table], *table.values.tolist()]
            print(f"{path}: pass rate / share skipped\n\n{markdown_table(lines)}\n")
    except RunError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
