"""Tables over runs: results, levels, comparison with a baseline, worst predictions.

Cells are estimates, numbers or words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from masa.analysis.control import gate_share
from masa.analysis.load import COSTS, Run, per_run, run_labels
from masa.statistics import Estimate, bootstrap_mean, bootstrap_ratio, holm, sign_flip_test

NOT_REACHED = "not reached"


@dataclass(frozen=True)
class Miss:
    """A held-out prompt whose predicted pass rate was far off."""

    prompt_id: str
    level: int
    problem: str
    answer: str
    predicted: float
    """Mean predicted pass rate, in [0, 1]."""
    actual: float
    """Share of correct solutions."""
    samples: int
    """Number of solutions."""
    meta: str
    """The meta rollout whose prediction is furthest off."""
    solution: str
    """A solution that speaks against the prediction: wrong where it is too high, else correct."""


def baseline(runs: Sequence[Run]) -> int:
    """Index of the run to compare with: the first of its sweep's baseline, of grpo, or of all."""
    wanted = ({run.baseline for run in runs} - {None}) or {"grpo"}
    return next((i for i, run in enumerate(runs) if run.method in wanted), 0)


@per_run
def headline(run: Run) -> Iterator[dict[str, Any]]:
    """Accuracy, cost and meta-alignment at the first and the last validation, skipped prompts."""
    first, last = _accuracy_and_alignment(run)
    train = run.rollouts[run.rollouts["split"] == "train"]
    of_meta = train["tokens"].where(train["kind"] == "meta", 0)
    end = run.metrics.iloc[-1]
    skipped = gate_share(run, "active", "skipped")
    yield {
        "method": run.method,
        "seed": run.seed,
        "rollouts": run.last_step,
        "held-out prompts": len(run.held_out(int(last["step"]))),
        "accuracy, start": first["accuracy"],
        "accuracy, end": last["accuracy"],
        "tokens": int(end["tokens"]),
        "FLOPs": float(end["flops"]),
        "seconds": float(end["seconds"]),
        "pass-rate MAE, start": first["mae"],
        "pass-rate MAE, end": last["mae"],
        "pass-rate corr, start": first["corr"],
        "pass-rate corr, end": last["corr"],
        "meta share of tokens": bootstrap_ratio(of_meta, train["tokens"], train["prompt_id"]),
        "skipped share, gate active": skipped if skipped.n else Estimate(nan),
    }


def _accuracy_and_alignment(run: Run) -> tuple[pd.Series, pd.Series]:
    """The first and the last row of `Run.validations`; without any, rows of NaN."""
    if run.validations.empty:
        nothing = dict.fromkeys(("accuracy", "mae", "corr"), Estimate(nan))
        return (pd.Series({"step": -1, **nothing}),) * 2
    return run.validations.iloc[0], run.validations.iloc[-1]


@per_run
def per_level(run: Run) -> Iterator[dict[str, Any]]:
    """Held-out accuracy per level, at the first and the last validation.

    The change is paired per prompt. Intervals: 95 % bootstrap over prompts.
    """
    if run.validations.empty:
        return
    start, end = map(run.held_out, run.ends)
    for level, last in end.groupby("level"):
        first = start[start["level"] == level]
        change = (last["pass_rate"] - first["pass_rate"]).dropna()
        change = change if run.ends[0] != run.ends[1] else change[:0]
        yield {
            "level": level,
            "prompts": len(last),
            "accuracy, start": bootstrap_mean(first["pass_rate"], first.index),
            "accuracy, end": bootstrap_mean(last["pass_rate"], last.index),
            "change": bootstrap_mean(change, change.index),
        }


def crossing(x: np.ndarray, y: np.ndarray, target: float) -> float:
    """Smallest x at which the polyline (x, y) reaches `target` from below; NaN if it never does."""
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return nan
    i = int(reached[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (target - y[i - 1]) / (y[i] - y[i - 1]))


def to_target(runs: Sequence[Run]) -> pd.DataFrame:
    """Rollouts, tokens, FLOPs and seconds until held-out accuracy first reaches the baseline's
    accuracy at its last validation; linear between validations.

    No ratios: those of single runs say nothing about a method, `compare_methods.speedups` gives
    them with intervals.
    """
    _, reference = runs[baseline(runs)].curve("step")
    if not len(reference):
        return pd.DataFrame()
    goal = float(reference[-1])
    rows: list[dict[str, object]] = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        row: dict[str, object] = {"run": label, "target accuracy": goal}
        for name, cost in (("rollouts", "step"), *zip(COSTS, COSTS, strict=True)):
            x, y = run.curve(cost)
            row[name] = crossing(x, y, goal)
            if not (y >= goal).any():
                best = f" (best {run.validations['accuracy'].iloc[y.argmax()]})" if len(y) else ""
                row[name] = NOT_REACHED + best
        rows.append(row)
    return pd.DataFrame(rows)


def differences(runs: Sequence[Run]) -> pd.DataFrame:
    """Held-out accuracy minus the baseline's, paired per prompt, one row per comparison.

    At each run's last validation and, where those are not after the same step, also at the last
    step that both validated. Interval: 95 % bootstrap over prompts; p: sign-flip test, and
    Holm-adjusted over all rows.
    """
    base = baseline(runs)
    labels = run_labels(runs)
    rows: list[dict[str, object]] = []
    for i, run in enumerate(runs):
        if i == base or run.validations.empty or runs[base].validations.empty:
            continue
        ends = run.ends[1], runs[base].ends[1]
        common = set(run.validations["step"]) & set(runs[base].validations["step"]) - {0}
        pairs = [ends]
        if ends[0] != ends[1] and common:
            pairs.append((max(common), max(common)))
        for step, other in pairs:
            mine, theirs = run.held_out(step), runs[base].held_out(other)
            row = {"run": labels[i], "against": labels[base], "rollouts": f"{step} / {other}"}
            if set(mine.index) == set(theirs.index):
                delta = mine["pass_rate"] - theirs["pass_rate"]
                difference, p = bootstrap_mean(delta, delta.index), sign_flip_test(delta)
                prompts: int | str = len(delta)
            else:
                difference, p, prompts = Estimate(nan), nan, "other held-out prompts"
            rows.append({**row, "prompts": prompts, "difference": difference, "p (sign flip)": p})
    return with_holm(pd.DataFrame(rows), "p (sign flip)")


def with_holm(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """A table with the p-values of a column, where it has one, also Holm-adjusted over its rows."""
    if column not in table:
        return table
    p = table[column].astype(float).dropna()
    return table.assign(**{"p (Holm)": pd.Series(holm(p), index=p.index).reindex(table.index)})


def worst_predictions(run: Run, count: int = 3) -> list[Miss]:
    """The held-out prompts of the last validation with the largest error of the pass rate."""
    if run.validations.empty:
        return []
    step = run.ends[1]
    rows = run.held_out(step).dropna(subset=["predicted"])
    error = (rows["predicted"] - rows["pass_rate"]).abs()
    rows = rows.loc[error.sort_values(ascending=False, kind="stable").index[:count]]
    if rows.empty:
        return []
    texts = run.texts("val", step)
    return [_miss(str(i), row, texts[texts["prompt_id"] == i]) for i, row in rows.iterrows()]


def _miss(prompt_id: str, row: pd.Series, texts: pd.DataFrame) -> Miss:
    solutions = texts[texts["kind"] == "solution"]
    unexpected = solutions["correct"].astype(bool) == (row["predicted"] < row["pass_rate"])
    metas = texts[(texts["kind"] == "meta") & texts["predicted_pass_rate"].notna()]
    error = (metas["predicted_pass_rate"].astype(float) - row["pass_rate"]).abs()
    return Miss(
        prompt_id,
        int(row["level"]),
        str(solutions["problem"].iloc[0]),
        str(solutions["answer"].iloc[0]),
        float(row["predicted"]),
        float(row["pass_rate"]),
        int(row["samples"]),
        str(metas.loc[error.idxmax(), "text"]),
        str((solutions[unexpected] if unexpected.any() else solutions)["text"].iloc[0]),
    )
