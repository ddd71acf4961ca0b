"""The single panels of which `figures` are made: each draws runs on one pair of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from masa.analysis import audit
from masa.analysis.load import Run, alignment
from masa.analysis.tables import held_out
from masa.analysis.theme import (
    INK,
    MUTED,
    TRUE,
    dressed,
    empty,
    legend_above,
    shares,
    short,
    thousands,
)
from masa.statistics import Estimate

PRECISION, RECALL, GATED = "#332288", "#CC79A7", "#BDBDBD"
META, SOLUTION = "#56B4E9", "#8C8C8C"
COST_LABELS = {
    "tokens": "tokens generated in training",
    "flops": "FLOPs of training",
    "seconds": "seconds of training (rollouts and updates)",
    "step": "rollout",
}


def bounds(estimates: Sequence[Estimate]) -> np.ndarray:
    """(value, low, high) per estimate, [3, N]."""
    return np.array([(e.value, e.low, e.high) for e in estimates], float).reshape(-1, 3).T


def accuracy(axes: Axes, runs: Sequence[Run], cost: str, legend: bool = True) -> None:
    """Held-out accuracy against `cost` (tokens, seconds or step), 95 % bands."""
    tops = []
    for run, label, colour, line in dressed(runs):
        table = run.validations
        if table.empty or not np.isfinite(table[cost]).all():
            continue
        value, low, high = bounds(table["accuracy"].tolist())
        axes.fill_between(table[cost], low, high, color=colour, alpha=0.13, linewidth=0)
        axes.plot(table[cost], value, line, color=colour, marker="o", markersize=3.6, label=label)
        tops.append(np.nanmax([value, high]))
    if not tops:
        return empty(axes, f"no validation with {cost}")
    axes.set_xlim(left=0)
    axes.set_ylim(0, min(1.0, max(tops) * 1.06))
    thousands(axes)
    axes.set_xlabel(COST_LABELS[cost])
    axes.set_ylabel("held-out accuracy")
    if legend:
        axes.legend(loc="lower right")


@dataclass(frozen=True)
class Quantity:
    """What is predicted of a prompt, from 0 to `top`."""

    column: str
    """Holds the actual value."""
    label: str
    top: float
    digits: int
    """Decimals of the error."""


PASS_RATE = Quantity("pass_rate", "pass rate", 1.0, 2)


def calibration(
    axes: Axes,
    prompts: pd.DataFrame,
    colour: str,
    title: str,
    seed: int = 0,
    what: Quantity = PASS_RATE,
) -> None:
    """Predicted against actual value, one dot per held-out prompt, with binned means.

    Args:
        prompts: of one validation, with `prompt_id`, `predicted` and the column of `what`.
        title: stands above the computed correlation and error.
    """
    rows = prompts.dropna(subset=["predicted", what.column])
    if rows.empty:
        return empty(axes, f"{title}\nno predictions")
    rng = np.random.default_rng(seed)
    x, y = rows["predicted"].to_numpy(), rows[what.column].to_numpy()
    jitter = what.top * rng.uniform(-0.018, 0.018, size=(2, len(x)))
    _diagonal(axes, what)
    axes.scatter(x + jitter[0], y + jitter[1], s=13, color=colour, alpha=0.32, linewidth=0)
    _binned(axes, rows, colour, what)
    numbers = alignment(rows, what.column)
    axes.set_title(f"{title}\n")
    axes.text(
        0, 1.02, f"corr {_brief(numbers['corr'])}, MAE {_brief(numbers['mae'], what.digits)}",
        transform=axes.transAxes, fontsize=9.5, color=MUTED, va="bottom",
    )  # fmt: skip
    axes.set_aspect("equal")


def _diagonal(axes: Axes, what: Quantity) -> None:
    """Square axes of predicted and actual value, with the line where they are the same."""
    axes.plot([0, what.top], [0, what.top], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(-0.04 * what.top, 1.04 * what.top)
    axes.set_ylim(-0.04 * what.top, 1.04 * what.top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"predicted {what.label}")
    axes.set_ylabel(f"actual {what.label}")


def _brief(estimate: Estimate, digits: int = 2) -> str:
    return str(replace(estimate, digits=digits))


def _binned(
    axes: Axes, rows: pd.DataFrame, colour: str, what: Quantity, label: str | None = None
) -> None:
    """Mean actual value per fifth of the range of the predicted one, standard errors (n >= 3)."""
    bins = np.clip((rows["predicted"] * 5 / what.top).astype(int), 0, 4)
    means = rows.groupby(bins)[["predicted", what.column]].agg(["mean", "sem", "size"])
    means = means[means[("predicted", "size")] >= 3]
    axes.errorbar(
        means[("predicted", "mean")], means[(what.column, "mean")],
        yerr=means[(what.column, "sem")], color=colour, marker="o", markersize=7,
        markeredgecolor="white", markeredgewidth=1.2, linewidth=1.8, capsize=0, zorder=3,
        label=label,
    )  # fmt: skip


def before_after(axes: Axes, run: Run, colour: str) -> None:
    """Predicted against actual pass rate of one run: first validation (grey) and last."""
    steps = [int(run.validations["step"].iloc[i]) for i in (0, -1)]
    _diagonal(axes, PASS_RATE)
    rng = np.random.default_rng(0)
    for step, ink, word in zip(steps, ("#BDBDBD", colour), ("before", "after"), strict=True):
        rows = held_out(run, step).reset_index().dropna(subset=["predicted"])
        if rows.empty:
            continue
        jitter = rng.uniform(-0.018, 0.018, size=(2, len(rows)))
        axes.scatter(rows["predicted"] + jitter[0], rows["pass_rate"] + jitter[1],
                     s=10, color=ink, alpha=0.28, linewidth=0)  # fmt: skip
        numbers = alignment(rows)
        label = f"{word}: corr {_brief(numbers['corr'])}, MAE {_brief(numbers['mae'])}"
        _binned(axes, rows, ink, PASS_RATE, label)
    axes.legend(loc="upper left")


def pass_rates(axes: Axes, run: Run, window: int | None = None) -> None:
    """Predicted and true pass rate over training: evidence prompts (line), held-out (dots)."""
    rows = audit.evidence(run).dropna(subset=["predicted"])
    span = window or _window(run)
    if len(rows):
        step = rows.groupby("step")[["predicted", "pass_rate"]].agg(["sum", "count"])
        smooth = step.reindex(range(1, run.last_step + 1), fill_value=0).rolling(span, 1).sum()
        for column, colour, line in (("pass_rate", TRUE, "-"), ("predicted", META, "-")):
            mean = smooth[(column, "sum")] / smooth[(column, "count")].where(lambda n: n > 0)
            axes.plot(mean.index, mean, line, color=colour, linewidth=1.4, alpha=0.75)
    table = run.validations
    marks: dict[str, Any] = {"markersize": 6, "capsize": 0, "linestyle": "none", "elinewidth": 1.3}
    for column, colour, marker, label in (
        ("actual", TRUE, "o", "true"), ("predicted", META, "s", "predicted"),
    ):  # fmt: skip
        if not len(table):
            continue
        value, low, high = bounds(table[column].tolist())
        axes.errorbar(table["step"], value, yerr=np.abs([value - low, high - value]), fmt=marker,
                      color=colour, markeredgecolor="white", label=label, **marks)  # fmt: skip
    shares(axes, 1.2)
    axes.set_xlabel("rollout")
    axes.set_ylabel("mean pass rate")
    mark_start(axes, run)
    legend_above(axes, 2)


def _window(run: Run) -> int:
    return max(5, run.last_step // 10)


def mark_start(axes: Axes, run: Run) -> None:
    """A line where gate and cutoff come into force."""
    start = audit.control_start(run)
    if start is not None:
        axes.axvline(start, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(f"control from {start}", (start, 1), (3, -2), va="top", fontsize=8.5,
                      xycoords=("data", "axes fraction"), textcoords="offset points",
                      color=MUTED)  # fmt: skip


def gating(axes: Axes, run: Run) -> None:
    """Gated share per step, precision and recall over a running window with Wilson bands."""
    train = run.prompts[run.prompts["split"] == "train"]
    share = train.groupby("step")["would_skip"].mean()
    axes.fill_between(share.index, share, step="mid", color=GATED, alpha=0.75, linewidth=0,
                      label="gated share")  # fmt: skip
    rows = audit.evidence(run)
    for phase in audit.PHASES:
        part = rows[rows["phase"] == phase]
        if part.empty:
            continue
        first, last = int(part["step"].min()), int(part["step"].max())
        span = _window(run) if phase == "shadow" else max(10, (last - first + 1) // 3)
        counts = part.groupby("step")[["hit", "would_skip", "zero_variance"]].sum()
        counts = counts.reindex(range(first, last + 1), fill_value=0).rolling(span, 1).sum()
        for column, colour, name, line in (
            ("would_skip", PRECISION, "precision", "-"), ("zero_variance", RECALL, "recall", "-"),
        ):  # fmt: skip
            pairs = zip(counts["hit"], counts[column], strict=True)
            value, low, high = bounds([audit.wilson(int(hit), int(n)) for hit, n in pairs])
            label = None if name in axes.get_legend_handles_labels()[1] else name
            axes.fill_between(counts.index, low, high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(counts.index, value, line, color=colour, label=label)
    shares(axes, 1.2)
    axes.set_xlabel("rollout")
    axes.set_ylabel("share of prompts")
    mark_start(axes, run)
    legend_above(axes, 3)


def token_cost(axes: Axes, run: Run) -> None:
    """Tokens of each rollout, solutions and meta stacked."""
    train = run.rollouts[run.rollouts["split"] == "train"]
    table = train.pivot_table(index="step", columns="kind", values="tokens", aggfunc="sum")
    table = table.reindex(columns=["solution", "meta"]).fillna(0)
    axes.stackplot(table.index, table["solution"], table["meta"], colors=[SOLUTION, META],
                   labels=["solutions", "meta"], alpha=0.9, linewidth=0)  # fmt: skip
    axes.set_ylim(0, table.sum(axis=1).max() * 1.3)
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    axes.set_xlabel("rollout")
    axes.set_ylabel("tokens per rollout step")
    mark_start(axes, run)
    legend_above(axes, 2)


def cutoff(axes: Axes, run: Run) -> None:
    """Token limit asked for by the cutoff (median and middle half of prompts), actual lengths.

    The lengths are those of correct solutions among the evidence, which no cutoff has shortened.
    """
    train = run.prompts[(run.prompts["split"] == "train") & run.prompts["cutoff_tokens"].notna()]
    if train.empty:
        return empty(axes, "no cutoff")
    asked = train.groupby("step")["cutoff_tokens"].quantile([0.25, 0.5, 0.75]).unstack()
    axes.fill_between(asked.index, asked[0.25], asked[0.75], color=META, alpha=0.25, linewidth=0)
    axes.plot(asked.index, asked[0.5], color=META, label="cutoff")
    free, span = audit.evidence(run)[["split", "step", "prompt_id"]], _window(run)
    correct = run.rollouts[run.rollouts["correct"] == 1].merge(free)
    middle = correct["step"] // span * span + (span - 1) / 2
    length = correct["tokens"].groupby(middle.clip(upper=run.last_step)).quantile([0.5, 0.95])
    length = length.unstack().reindex(columns=[0.5, 0.95])
    axes.plot(length.index, length[0.5], color=TRUE, label="correct: median")
    axes.plot(length.index, length[0.95], ":", color=TRUE, label="correct: 95th percentile")
    axes.set_ylim(0, max(asked[0.75].max(), length.max(axis=None)) * 1.4)
    axes.set_xlabel("rollout")
    axes.set_ylabel("tokens")
    mark_start(axes, run)
    legend_above(axes, 2)


def levels(axes: Axes, table: pd.DataFrame, names: Sequence[tuple[str, str]]) -> None:
    """Held-out accuracy per level after training (dots), and of the first name before (bars).

    Args:
        table: as of `tables.per_level`.
        names: values of its column `run`, with their colours.
    """
    if table.empty:
        return empty(axes, "no validation")
    ticks = sorted(table["level"].unique())
    place = {level: i for i, level in enumerate(ticks)}
    start = table[table["run"] == table["run"].iloc[0]]
    axes.bar(start["level"].map(place), bounds(start["accuracy, start"].tolist())[0], width=0.82,
             color="#EBEBEB", label="before training")  # fmt: skip
    for i, (label, colour) in enumerate(names):
        rows = table[table["run"] == label]
        value, low, high = bounds(rows["accuracy, end"].tolist())
        shift = (i - (len(names) - 1) / 2) * min(0.22, 0.7 / len(names))
        axes.errorbar(rows["level"].map(place) + shift, value, fmt="o", markersize=5.5,
                      yerr=np.abs([value - low, high - value]), color=colour, label=label,
                      markeredgecolor="white", elinewidth=1.6)  # fmt: skip
    axes.grid(False, axis="x")
    axes.set_xticks(range(len(ticks)), [str(level) for level in ticks])
    shares(axes, 1.2)
    axes.set_xlabel("level")
    axes.set_ylabel("held-out accuracy")
    axes.legend(loc="upper left", ncols=2 if len(names) > 3 else 4, columnspacing=1.2)
