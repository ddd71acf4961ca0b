"""Tables over runs. Cells are `Estimate`s, numbers or words; `render` makes text of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd

from masa.analysis import audit
from masa.analysis.load import COSTS, Run, RunError, run_labels
from masa.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_wilson,
    holm,
    sign_flip_test,
    wilson,
)

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
    """A solution of the verdict that the prediction did not expect."""


def baseline(runs: Sequence[Run]) -> int:
    """Index of the run to compare with: the first of its sweep's baseline, of grpo, or of all."""
    wanted = ({run.baseline for run in runs} - {None}) or {"grpo"}
    return next((i for i, run in enumerate(runs) if run.method in wanted), 0)


def headline(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run: accuracy, cost, meta-alignment on the last validation, gating."""
    return pd.DataFrame([_headline(r, n) for r, n in zip(runs, run_labels(runs), strict=True)])


def _headline(run: Run, label: str) -> dict[str, object]:
    first, last = _first(run), _last(run)
    train = run.rollouts[run.rollouts["split"] == "train"]
    of_meta = train["tokens"].where(train["kind"] == "meta", 0)
    end = run.metrics.iloc[-1]
    skipped = audit.gated_share(run, "audited", "skipped")
    return {
        "run": label,
        "method": run.method,
        "seed": run.seed,
        "rollouts": run.last_step,
        "held-out prompts": last["prompts"],
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


def _first(run: Run) -> pd.Series:
    return _validation(run, 0)


def _last(run: Run) -> pd.Series:
    return _validation(run, -1)


def _validation(run: Run, position: int) -> pd.Series:
    if run.validations.empty:
        nothing = Estimate(nan)
        return pd.Series({"step": -1, "prompts": 0, "accuracy": nothing, "mae": nothing,
                          "corr": nothing})  # fmt: skip
    row = run.validations.iloc[position].copy()
    row["prompts"] = len(held_out(run, int(row["step"])))
    return row


def held_out(run: Run, step: int) -> pd.DataFrame:
    """Rows of `Run.prompts` of the validation after `step`, indexed by prompt id."""
    rows = run.prompts
    rows = rows[(rows["split"] == "val") & (rows["step"] == step) & (rows["samples"] > 0)]
    return rows.set_index("prompt_id")


def per_level(runs: Sequence[Run]) -> pd.DataFrame:
    """Held-out accuracy per level and run, at the first and the last validation.

    The change is paired per prompt. Intervals: 95 % bootstrap over prompts.
    """
    rows: list[dict[str, object]] = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        if run.validations.empty:
            continue
        start = held_out(run, int(_first(run)["step"]))
        end = held_out(run, int(_last(run)["step"]))
        for level, last in end.groupby("level"):
            first = start[start["level"] == level]
            change = (last["pass_rate"] - first["pass_rate"]).dropna()
            rows.append(
                {
                    "level": level,
                    "run": label,
                    "prompts": len(last),
                    "accuracy, start": bootstrap_mean(first["pass_rate"], first.index),
                    "accuracy, end": bootstrap_mean(last["pass_rate"], last.index),
                    "change": bootstrap_mean(change, change.index),
                }
            )
    table = pd.DataFrame(rows, columns=["level", "run", "prompts", "accuracy, start",
                                        "accuracy, end", "change"])  # fmt: skip
    return table.sort_values("level", kind="stable", ignore_index=True)


def audits(runs: Sequence[Run]) -> pd.DataFrame:
    """Gate and cutoff per run and phase, from shadow and audited evidence apart."""
    rows: list[dict[str, object]] = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        if not (audit.has_meta(run) or audit.has_gate(run)):
            continue
        found = audit.evidence(run)
        for phase in audit.PHASES:
            part = found[found["phase"] == phase]
            share, lost = audit.gated_share(run, phase), audit.lost_correct(run, phase)
            if not share.n and not lost.n:
                continue
            precision, recall = audit.precision_recall(part)
            constant = part.groupby("prompt_id")["zero_variance"].agg(["sum", "size"])
            spent, free = audit.solution_tokens(run, phase)
            rows.append(
                {
                    "run": label,
                    "evidence": phase,
                    "gated share": share,
                    "zero-variance share": clustered_wilson(constant["sum"], constant["size"]),
                    "gate precision": precision,
                    "gate recall": recall,
                    "gate F1": audit.f1(part),
                    "correct lost to cutoff": lost if audit.has_meta(run) else Estimate(nan),
                    "solution tokens per prompt, spent": spent,
                    "solution tokens per prompt, without control": free,
                }
            )
    return pd.DataFrame(rows)


def held_out_gates(runs: Sequence[Run]) -> pd.DataFrame:
    """The gate's verdicts on held-out prompts per run, at the last validation."""
    rows: list[dict[str, object]] = []
    for run, label in zip(runs, run_labels(runs), strict=True):
        if run.validations.empty:
            continue
        found = audit.held_out_gate(run, int(_last(run)["step"]))
        if found["predicted"].isna().all() or audit.goes_by_history(run):
            continue
        precision, recall = audit.precision_recall(found)
        rows.append(
            {
                "run": label,
                "gated share": wilson(int(found["would_skip"].sum()), len(found)),
                "zero-variance share": wilson(int(found["zero_variance"].sum()), len(found)),
                "gate precision": precision,
                "gate recall": recall,
                "gate F1": audit.f1(found),
            }
        )
    return pd.DataFrame(rows)


def crossing(x: np.ndarray, y: np.ndarray, target: float) -> float:
    """Smallest x at which the polyline (x, y) reaches `target` from below; NaN if it never does."""
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return nan
    i = int(reached[0])
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (target - y[i - 1]) / (y[i] - y[i - 1]))


def to_target(runs: Sequence[Run], target: float | None = None) -> pd.DataFrame:
    """Rollouts, tokens, FLOPs and seconds until held-out accuracy first reaches `target`.

    Linear between validations. The default target is the baseline's accuracy at its last
    validation. No ratios: what one run needed says nothing about a method, and `seeds.speedups`
    gives them with intervals.
    """
    reference = runs[baseline(runs)]
    if reference.validations.empty:
        return pd.DataFrame()
    goal = _last(reference)["accuracy"].value if target is None else target
    costs = pd.DataFrame(
        [
            {x: crossing(run.validations[x].to_numpy(float), _values(run), goal)
             for x in ("step", *COSTS)}
            for run in runs
        ]
    )  # fmt: skip
    table = pd.DataFrame({"run": run_labels(runs), "target accuracy": float(goal)})
    missed = [
        f"{NOT_REACHED} (best {run.validations['accuracy'].iloc[_values(run).argmax()]})"
        if len(run.validations)
        else NOT_REACHED
        for run in runs
    ]
    for name, column in (("rollouts", "step"), *zip(COSTS, COSTS, strict=True)):
        never = costs["step"].isna()
        table[name] = costs[column].astype(object).where(~never, pd.Series(missed))
    return table


def _values(run: Run) -> np.ndarray:
    return np.array([estimate.value for estimate in run.validations["accuracy"]], float)


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
        ends = int(_last(run)["step"]), int(_last(runs[base])["step"])
        common = set(run.validations["step"]) & set(runs[base].validations["step"]) - {0}
        pairs = [ends]
        if ends[0] != ends[1] and common:
            pairs.append((max(common), max(common)))
        for step, other in pairs:
            mine, theirs = held_out(run, step), held_out(runs[base], other)
            row: dict[str, object] = {"run": labels[i], "against": labels[base],
                                      "rollouts": f"{step} / {other}"}  # fmt: skip
            if set(mine.index) == set(theirs.index):
                delta = mine["pass_rate"] - theirs["pass_rate"]
                row |= {"prompts": len(delta), "difference": bootstrap_mean(delta, delta.index),
                        "p (sign flip)": sign_flip_test(delta)}  # fmt: skip
            else:
                row |= {"prompts": "other held-out prompts", "difference": Estimate(nan),
                        "p (sign flip)": nan}  # fmt: skip
            rows.append(row)
    table = pd.DataFrame(rows)
    if len(table):
        p = table["p (sign flip)"].astype(float)
        table["p (Holm)"] = pd.Series(holm(p.dropna()), index=p.dropna().index).reindex(p.index)
    return table


def worst_predictions(run: Run, count: int = 3) -> list[Miss]:
    """The held-out prompts of the last validation with the largest error of the pass rate."""
    if run.validations.empty:
        return []
    step = int(_last(run)["step"])
    rows = held_out(run, step).dropna(subset=["predicted"])
    error = (rows["predicted"] - rows["pass_rate"]).abs()
    rows = rows.loc[error.sort_values(ascending=False, kind="stable").index[:count]]
    if rows.empty:
        return []
    try:
        texts = run.texts("val", step)
    except RunError:
        return []
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


def cell(value: object) -> str:
    """One cell as text: counts with separators, floats to three digits, an en dash for NaN."""
    if isinstance(value, float | np.floating):
        number = float(value)
        if isnan(number):
            return "–"
        return f"{number:,.0f}" if 100 <= abs(number) < 1e9 else f"{number:.3g}"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{int(value):,}"
    return str(value).replace("|", "\\|")


def render(table: pd.DataFrame, transpose: bool = False) -> str:
    """A Markdown table, padded so that it also reads well in a terminal.

    Args:
        transpose: one column per row of `table`, headed by its first column.
    """
    names = [str(name) for name in table.columns]
    grid = [names] + [[cell(v) for v in row] for row in table.itertuples(index=False)]
    if transpose:
        grid = [list(column) for column in zip(*grid, strict=True)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = ["| " + " | ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)) + " |"
             for row in grid]  # fmt: skip
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])
