"""Figures of methods over seeds: accuracy, cost, predictions, gate, gains, lengths, notions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from masa.analysis import panel_plots
from masa.analysis.compare_methods import BUDGETS, Method, limits, mean_curve
from masa.analysis.gains import gains
from masa.analysis.lengths import VERDICTS, length_errors
from masa.analysis.load import Run
from masa.analysis.notions import notion_means
from masa.analysis.panel_plots import COST_LABELS, band, forest, interval_table, limit_axis
from masa.analysis.theme import (
    INK,
    LINES,
    MUTED,
    Style,
    canvas,
    empty,
    figure_legend,
    rollouts,
    styles,
    thousands,
)
from masa.statistics import Estimate, t_mean

_BINS = np.linspace(-0.5, 0.5, 6)
_GATE = {
    "gate precision": "share of the prompts that the gate would skip",
    "gate recall": "share of the zero-variance prompts",
    "gate F1": "harmonic mean of precision and recall",
    "correct lost to cutoff": "share of the correct solutions",
}
Rows = list[tuple[str, Estimate, Style]]
_WIDEST = 8.0  # standardised errors beyond are drawn at the edge


def method_styles(methods: Sequence[Method]) -> list[Style]:
    """A style per method."""
    return styles([method.family for method in methods])


def _styled_rows(
    table: pd.DataFrame, methods: Sequence[Method]
) -> Iterator[tuple[str, pd.Series, Style]]:
    """Label, row and style, for each row of a table of methods or of runs."""
    looks = dict(zip((m.label for m in methods), method_styles(methods), strict=True))
    for _, row in table.iterrows():
        label = row["method"] if "method" in table else row["run"]
        yield label, row, looks[label]


def over_training(methods: Sequence[Method], column: str) -> list[pd.DataFrame]:
    """Mean over seeds of a column of `Run.validations` at the steps that all seeds validated.

    One `interval_table` by step per method (95 % t interval, NaN for one seed).
    """

    def measure(run: Run) -> pd.Series:
        return run.validations.set_index("step")[column].map(lambda e: e.value)

    return [_means(_by_seed(method, measure).dropna(), limits(column)) for method in methods]


def _by_seed(method: Method, measure: Callable[[Run], pd.Series]) -> pd.DataFrame:
    """A measured series of every run, one column per seed."""
    return pd.DataFrame({run.seed: measure(run) for run in method.runs}).sort_index()


def _means(values: pd.DataFrame, within: tuple[float, float] = (-inf, inf)) -> pd.DataFrame:
    """Means over the columns with t intervals, as an `interval_table`."""
    return interval_table([t_mean(row, within) for row in values.to_numpy(float)], values.index)


def accuracy_curves(methods: Sequence[Method]) -> Figure | None:
    """Held-out accuracy against rollouts, tokens, FLOPs and seconds; ticks of `before_repeats`."""
    shown = [method for method in methods if method.validated]
    if not shown:
        return None
    figure = canvas(7.6)
    tables = over_training(shown, "accuracy")
    for axes, cost in zip(figure.subplots(2, 2, sharey=True).flat, BUDGETS, strict=True):
        for method, table, style in zip(shown, tables, method_styles(shown), strict=True):
            x, _ = mean_curve(method.runs, cost)
            if not np.isfinite(x).all():
                continue
            band(axes, x, table, style, method.label)
            metrics = method.runs[0].metrics
            for end in before_repeats(method.runs[0]):
                axes.axvline(float(np.interp(end, metrics["step"], metrics[cost])), ymax=0.03,
                             color=style.colour, linewidth=2)  # fmt: skip
        if not axes.lines:
            empty(axes, f"{cost}: not recorded by these runs")
            continue
        axes.set_xlim(left=0)
        thousands(axes)
        axes.set_xlabel(COST_LABELS[cost])
    for axes in figure.axes[::2]:
        axes.set_ylabel("held-out accuracy")
    figure_legend(figure, figure.axes[0])
    return figure


def before_repeats(run: Run) -> list[int]:
    """The rollout steps before a prompt came for the second time, the third and so on: in shuffled
    epochs without refill, those at which epochs ended."""
    train = run.train_prompts[["step", "prompt_id"]].sort_values("step", kind="stable")
    again = train.groupby("prompt_id").cumcount()
    firsts = train["step"].groupby(again).min()
    return [int(step) - 1 for step in firsts[firsts.index > 0]]


def _forests(
    panels: Mapping[str, Rows], labels: Sequence[str], columns: int, reference: float | None = None
) -> Figure | None:
    """One `forest` per panel, with its title, its label of the x axis and a line at `reference`;
    nothing where no panel has rows."""
    most = max(map(len, panels.values()), default=0)
    if not most:
        return None
    lines = -(-len(panels) // columns)
    two_lines = any("\n" in name for rows in panels.values() for name, _, _ in rows)
    figure = canvas(lines * (1.2 + (0.5 if two_lines else 0.33) * most))
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, (heading, rows), label in zip(grid.flat, panels.items(), labels, strict=True):
        axes.set_title(heading)
        if not rows:
            empty(axes, "not measured")
            continue
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=1)
        forest(axes, rows)
        axes.set_xlabel(label)
    return figure


def speedup_figure(table: pd.DataFrame, methods: Sequence[Method]) -> Figure | None:
    """`compare_methods.speedups` as dots with intervals, one panel per cost."""
    costs = {"rollouts": "rollouts", "tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
    panels = {
        name: [
            (f"{label}\n{str(row['target']).partition(' of')[0]}", row[column], style)
            for label, row, style in _styled_rows(table, methods)
            if isinstance(row[column], Estimate)
        ]
        for cost, name in costs.items()
        if (column := f"{cost}, baseline / method") in table
    }
    figure = _forests(panels, ["times cheaper"] * len(panels), max(1, len(panels)), 1.0)
    for axes, rows in zip(figure.axes if figure else (), panels.values(), strict=False):
        values = [estimate.value for _, estimate, _ in rows]
        axes.set_xscale("log", base=2)
        limit_axis(axes, rows, min([0.5, *values]) / 1.2, max([2.0, *values]) * 1.2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.label_outer()
    return figure


def dynamics(methods: Sequence[Method]) -> Figure | None:
    """Predicted and true pass rate on held-out prompts, their error and their correlation."""
    shown = [method for method in methods if all(run.predicts for run in method.runs)]
    if not shown:
        return None
    figure = canvas(4.2)
    panels = dict(zip(("actual", "mae", "corr"), figure.subplots(1, 3), strict=True))
    headings = ("mean pass rate", "error (MAE) of predictions", "correlation of predictions")
    for (column, axes), heading in zip(panels.items(), headings, strict=True):
        tables = over_training(shown, column)
        for method, table, style in zip(shown, tables, method_styles(shown), strict=True):
            band(axes, table.index, table, style, method.label)
        axes.set_title(heading, pad=24)
        rollouts(axes)
    figure_legend(figure, panels["mae"])
    left = panels["actual"]
    predicted = over_training(shown, "predicted")
    for table, style in zip(predicted, method_styles(shown), strict=True):
        band(left, table.index, table, Style(style.colour, style.marker, "--"))
    left.legend(
        handles=[left.plot([], [], line, color=INK)[0] for line in ("-", "--")],
        labels=["true", "predicted"], ncols=2, loc="lower left", bbox_to_anchor=(0, 1),
        borderaxespad=0.2, borderpad=0.1,
    )  # fmt: skip
    left.set_ylim(0, 1)
    panels["mae"].set_ylim(bottom=0)
    return figure


def ablation_figure(table: pd.DataFrame, methods: Sequence[Method]) -> Figure | None:
    """`compare_methods.ablation` as dots with intervals: accuracy, and its difference from the
    baseline."""
    if table.empty or "difference" not in table:
        return None
    panels = {
        heading: [(label, row[name], style) for label, row, style in _styled_rows(table, methods)]
        for heading, name in (
            ("held-out accuracy", "accuracy"),
            ("against the baseline", "difference"),
        )
    }
    figure = _forests(panels, ["share correct", "difference in held-out accuracy"], 2)
    if figure:
        figure.axes[1].axvline(0, color=MUTED, linewidth=1)
    return figure


def levels(table: pd.DataFrame, methods: Sequence[Method]) -> Figure | None:
    """Held-out accuracy per level, of rows of `tables.per_level`."""
    if table.empty or table["level"].nunique() < 2:
        return None
    figure = canvas(4.6)
    looks = {label: style for label, _, style in _styled_rows(table, methods)}
    panel_plots.levels(figure.subplots(), table, looks)
    return figure


def gate_figure(
    control: pd.DataFrame, held_out: pd.DataFrame, methods: Sequence[Method]
) -> Figure | None:
    """Precision, recall and F1 of the gate and correct answers lost, dots with intervals.

    Args:
        control, held_out: rows of `control_table` and `held_out_gate_table`, of runs or methods.
    """
    panels: dict[str, Rows] = {name: [] for name in _GATE}
    table = pd.concat([control, held_out.assign(mode="held-out")])
    for mode, part in table.groupby("mode", sort=False):
        for label, row, style in _styled_rows(part, methods):
            for name, rows in panels.items():
                if isinstance(cell := row.get(name), Estimate) and not np.isnan(cell.value):
                    rows.append((f"{label}\n{mode}", cell, style))
    figure = _forests(panels, list(_GATE.values()), 2)
    for axes, name in zip(figure.axes if figure else (), panels, strict=False):
        axes.set_xlim(-0.03, None if name == "correct lost to cutoff" else 1.03)
    return figure


def gains_figure(methods: Sequence[Method]) -> Figure | None:
    """Accuracy gain against the change of meta reward (binned) and against the rollout."""
    shown = [method for method in methods if all(len(gains(run)) for run in method.runs)]
    if not shown:
        return None
    figure = canvas(4.3)
    left, right = figure.subplots(1, 2, sharey=True)

    def by_reward(run: Run) -> pd.Series:
        table = gains(run)
        place = np.clip(np.digitize(table["reward"], _BINS), 1, len(_BINS) - 1)
        return table["gain"].groupby((_BINS[place] + _BINS[place - 1]) / 2).mean()

    def by_step(run: Run) -> pd.Series:
        return gains(run).groupby("step")["gain"].mean()

    for axes, measure in ((left, by_reward), (right, by_step)):
        for method, style in zip(shown, method_styles(shown), strict=True):
            table = _means(_by_seed(method, measure))
            band(axes, table.index, table, style, method.label)
        axes.axhline(0, color=MUTED, linewidth=1)
    rollouts(right)
    left.set_xlabel("change of meta reward (weighted mean of the scores)")
    left.set_ylabel("gain in held-out pass rate")
    figure_legend(figure, right)
    return figure


def shapley_figure(table: pd.DataFrame, methods: Sequence[Method]) -> Figure | None:
    """Shapley shares of R2 per feature as dots with intervals, from rows of `gain_table`."""
    rows = [
        (f"{label}: {name.removeprefix('R2 share, ')}", row[name], style)
        for label, row, style in _styled_rows(table, methods)
        for name in table
        # runs may differ in their scores
        if name.startswith("R2 share, ") and isinstance(row[name], Estimate)
    ]
    return _forests({"": rows}, ["share of R2 of the accuracy gain"], 1, 0.0)


def lengths_figure(methods: Sequence[Method]) -> Figure | None:
    """Standardised length errors at the last validation, of correct and of wrong solutions, as
    cumulative shares of the prompts."""
    shown = [method for method in methods if method.validated]
    errors = {
        method.label: pd.concat([length_errors(run, run.ends[1]) for run in method.runs])
        for method in shown
    }
    if not any(table["error"].notna().any() for table in errors.values()):
        return None
    figure = canvas(4.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, verdict in zip(panels, VERDICTS, strict=True):
        for i, (method, style) in enumerate(zip(shown, method_styles(shown), strict=True)):
            table = errors[method.label]
            values = table.loc[table["verdict"] == verdict, "error"].dropna()
            if len(values):
                axes.ecdf(values.clip(-_WIDEST, _WIDEST), color=style.colour,
                          linestyle=LINES[i % len(LINES)], label=method.label)  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_title(f"{verdict} solutions")
        axes.set_xlabel("(actual - predicted length) / std of predictions")
        axes.set_xlim(-_WIDEST, _WIDEST)
        panel_plots.shares(axes)
    panels[0].set_ylabel("share of prompts up to this error")
    figure_legend(figure, max(panels, key=lambda axes: len(axes.lines)))
    return figure


def notions_figure(methods: Sequence[Method], count: int = 8) -> Figure | None:
    """The notions whose share among correct and among wrong solutions changed most."""
    panels = {}
    for method, style in zip(methods, method_styles(methods), strict=True):
        table = notion_means(method, count)
        for verdict in VERDICTS if len(table) else ():
            part = table[table["solutions"] == verdict]
            panels[f"{method.label}: {verdict} solutions"] = [
                # a model's text is no formula to draw
                (row["notion"].replace("$", r"\$"), row["change"], style)
                for _, row in part.iterrows()
            ]
    return _forests(panels, ["change in the share of solutions"] * len(panels), 2, 0.0)
