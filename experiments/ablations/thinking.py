"""Predicted pass rate by the word in the reasoning before it.

Predictions on the built-in arithmetic task write easy, fair, hard or hopeless before the number.
Prints a row per method of a sweep: mean predicted pass rate after each word in training rollouts
after `--after`, with 95 % t intervals over seeds.

    python experiments/ablations/thinking.py outputs/arithmetic/bc
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from masa.analysis import Run, load_sweep
from masa.analysis.page import render
from masa.statistics import t_mean

WORDS = ("easy", "fair", "hard", "hopeless")


def by_word(run: Run, after: int) -> pd.Series:
    """Mean predicted pass rate per word."""
    files = sorted((run.path / "rollouts").glob("train-*.parquet"))
    meta = pd.concat(map(pd.read_parquet, files))
    meta = meta[(meta["kind"] == "meta") & (meta["step"] > after)]
    word = meta["text"].str.extract(rf": ({'|'.join(WORDS)});")[0]
    return meta.groupby(word)["predicted_pass_rate"].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--after", type=int, default=40, help="rollouts that are left out")
    args = parser.parse_args()
    rows = {}
    for method in load_sweep(args.sweep):
        means = pd.DataFrame([by_word(run, args.after) for run in method.runs])
        rows[method.label] = {word: str(t_mean(means[word], within=(0, 1))) for word in WORDS}
    print(render(pd.DataFrame(rows).T.rename_axis("method").reset_index()))


if __name__ == "__main__":
    main()
