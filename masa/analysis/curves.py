"""Figures of methods over training, with bands over seeds: accuracy against cost, alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from masa.analysis.compare_methods import BUDGETS, Group, limits, mean_curve
from masa.analysis.load import COSTS, Run
from masa.analysis.panel_plots import COST_LABELS, bounds
from masa.analysis.theme import INK, MUTED, canvas, colours_of, empty, thousands
from masa.statistics import Estimate, t_mean


def group_colours(groups: Sequence[Group]) -> list[str]:
    """A colour per group; methods that have a colour of their own keep it."""
    return colours_of([g.method if g.method == g.label else g.label for g in groups])


def over_training(groups: Sequence[Group], column: str) -> list[pd.DataFrame]:
    """Mean over seeds of a column of `Run.validations` at the steps that all seeds validated.

    One table per group: `step`, `value`, `low`, `high` (95 % t interval, NaN for one seed).
    """
    tables = []
    for group in groups:
        values = pd.DataFrame(
            {run.seed: run.validations.set_index("step")[column].map(lambda e: e.value)
             for run in group.runs}
        ).dropna()  # fmt: skip
        means = [t_mean(row, within=limits(column)) for row in values.to_numpy(float)]
        columns = dict(zip(("value", "low", "high"), bounds(means), strict=True))
        tables.append(pd.DataFrame({"step": values.index} | columns))
    return tables


def band(axes: Axes, x: Any, table: pd.DataFrame, colour: str, label: str | None) -> None:
    """A line with its interval."""
    axes.fill_between(x, table["low"], table["high"], color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, table["value"], color=colour, marker="o", markersize=3.6, label=label)


def accuracy_curves(groups: Sequence[Group]) -> Figure | None:
    """Held-out accuracy against rollouts, tokens, FLOPs and seconds; ticks where epochs end."""
    shown = [g for g in groups if all(len(run.validations) for run in g.runs)]
    if not shown:
        return None
    figure = canvas(10, 7.6)
    tables = over_training(shown, "accuracy")
    for axes, cost in zip(figure.subplots(2, 2, sharey=True).flat, BUDGETS, strict=True):
        for group, table, colour in zip(shown, tables, group_colours(shown), strict=True):
            x, _ = mean_curve(group.runs, cost)
            if not np.isfinite(x).all():
                continue
            band(axes, x, table, colour, group.label)
            for end in epoch_ends(group.runs[0]):
                metrics = group.runs[0].metrics
                axes.axvline(float(np.interp(end, metrics["step"], metrics[cost])), ymax=0.03,
                             color=colour, linewidth=2)  # fmt: skip
        if not axes.lines:
            empty(axes, f"{cost}: not recorded by these runs")
            continue
        axes.set_xlim(left=0)
        thousands(axes)
        axes.set_xlabel(COST_LABELS[cost])
    first = figure.axes[0]
    first.legend(loc="lower right")
    for axes in figure.axes[::2]:
        axes.set_ylabel("held-out accuracy")
    return figure


def epoch_ends(run: Run) -> list[int]:
    """The rollout steps after which every prompt of the pool had come once more."""
    train = run.prompts.loc[run.prompts["split"] == "train", ["step", "prompt_id"]]
    train = train.sort_values("step", kind="stable")
    again = train.groupby("prompt_id").cumcount()
    firsts = train["step"].groupby(again).min()
    return [int(step) - 1 for step in firsts[firsts.index > 0]]


def dynamics(groups: Sequence[Group]) -> Figure | None:
    """Predicted and true pass rate on held-out prompts, their error and their correlation."""
    shown = [g for g in groups if _predicts(g)]
    if not shown:
        return None
    figure = canvas(11, 3.9)
    left, middle, right = figure.subplots(1, 3)
    colours = group_colours(shown)
    for column, style in (("predicted", "--"), ("actual", "-")):
        for table, colour in zip(over_training(shown, column), colours, strict=True):
            left.fill_between(table["step"], table["low"], table["high"], color=colour, alpha=0.12,
                              linewidth=0)  # fmt: skip
            left.plot(table["step"], table["value"], style, color=colour)
    left.plot([], [], "-", color=INK, label="true")
    left.plot([], [], "--", color=INK, label="predicted")
    left.set_ylim(0, 1)
    left.set_title("mean pass rate")
    left.legend()
    for axes, column, title in ((middle, "mae", "error (MAE)"), (right, "corr", "correlation")):
        tables = over_training(shown, column)
        for group, table, colour in zip(shown, tables, colours, strict=True):
            band(axes, table["step"], table, colour, group.label)
        axes.set_title(f"{title} of predictions")
    middle.set_ylim(bottom=0)
    right.legend(loc="best")
    for axes in (left, middle, right):
        axes.set_xlabel("rollout")
    return figure


def _predicts(group: Group) -> bool:
    return all(
        len(run.validations) and any(e.n for e in run.validations["mae"]) for run in group.runs
    )


def forest(axes: Axes, rows: Sequence[tuple[str, Estimate, str]]) -> None:
    """One line per row (name, estimate, colour): a dot with its interval."""
    for i, (_, estimate, colour) in enumerate(reversed(rows)):
        if not np.isnan(estimate.low):
            axes.plot([estimate.low, estimate.high], [i, i], color=colour, linewidth=2.4, alpha=0.6)
        axes.plot([estimate.value], [i], "o", color=colour, markersize=6, markeredgecolor="white")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(False, axis="y")


def speedup_figure(table: pd.DataFrame, groups: Sequence[Group]) -> Figure | None:
    """`seeds.speedups` as dots with intervals, one panel per cost."""
    names = [f"{cost}, baseline / method" for cost in ("rollouts", *COSTS)]
    names = [name for name in names if name in table]
    colours = dict(zip((g.label for g in groups), group_colours(groups), strict=True))
    panels = {
        name: [
            (f"{row['method']}\n{str(row['target']).partition(' of')[0]}", row[name],
             colours[row["method"]])
            for _, row in table.iterrows() if isinstance(row[name], Estimate)
        ]
        for name in names
    }  # fmt: skip
    most = max(map(len, panels.values()), default=0)
    if not most:
        return None
    figure = canvas(11, 1.3 + 0.55 * most)
    for axes, (name, rows) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        axes.axvline(1, color=MUTED, linewidth=1)
        forest(axes, rows)
        axes.set_xscale("log", base=2)
        values = [estimate.value for _, estimate, _ in rows]
        # an interval may go off the picture, its dot may not
        axes.set_xlim(min([0.5, *values]) / 1.2, max([2.0, *values]) * 1.2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(name.partition(",")[0])
        axes.set_xlabel("times cheaper")
    return figure
