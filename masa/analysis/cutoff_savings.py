"""What a length cutoff could save: recorded solutions cut after the fact, at what loss."""

from __future__ import annotations

import numpy as np
import pandas as pd

from masa.analysis.load import Run

_KEY = ["step", "prompt_id"]


def cut_solutions(run: Run, groups: pd.DataFrame) -> pd.DataFrame:
    """One row per solution of some training prompts.

    Args:
        run: the run that they are from.
        groups: `step` and `prompt_id` of prompts that were rolled out in full, `weight`, how many
            each stands for, and further columns to keep.

    Returns:
        These columns, `tokens`, `correct`, `predicted` (mean predicted length of the prompt, NaN
        for none) and `longest` (tokens of its longest right answer, 0 without one: no limit loses
        any then).
    """
    rows = run.rollouts[run.rollouts["split"] == "train"]
    lengths = rows[rows["kind"] == "meta"].groupby(_KEY)["predicted_length"].mean()
    table = rows[rows["kind"] == "solution"][[*_KEY, "tokens", "correct"]].merge(groups, on=_KEY)
    table = table.astype({"correct": bool}).join(lengths.rename("predicted"), on=_KEY)
    right = table["tokens"].where(table["correct"], 0)
    return table.assign(longest=right.groupby([table[name] for name in _KEY]).transform("max"))


def saving(table: pd.DataFrame, limits: pd.Series) -> float:
    """Share of the solution tokens that lie beyond the limits."""
    beyond = (table["tokens"] - limits).clip(lower=0)
    return float((table["weight"] * beyond).sum() / (table["weight"] * table["tokens"]).sum())


def lost(table: pd.DataFrame, limits: pd.Series) -> float:
    """Share of the right answers that are longer than the limits, 0 where none is right."""
    weights = table["weight"] * table["correct"]
    return float((weights * (table["tokens"] > limits)).sum() / max(weights.sum(), 1e-12))


def margin(table: pd.DataFrame, lengths: pd.Series, loss: float) -> float:
    """The smallest factor of `lengths` as a limit that loses at most a share `loss` of the right
    answers that have one; there must be some."""
    ratios = (table["tokens"] / lengths)[table["correct"] & lengths.notna()]
    weights = table["weight"][ratios.index]
    return float(np.quantile(ratios, 1 - loss, method="inverted_cdf", weights=weights))
