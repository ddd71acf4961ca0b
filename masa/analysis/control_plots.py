"""Figures of what went on inside: gains and meta rewards, the gate, predicted lengths, notions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from masa.analysis.compare_methods import Group
from masa.analysis.curves import forest, group_colours
from masa.analysis.lengths import VERDICTS, length_errors
from masa.analysis.load import Run
from masa.analysis.notions import notion_changes, vocabulary
from masa.analysis.paired import gains
from masa.analysis.panel_plots import bounds
from masa.analysis.theme import MUTED, canvas, empty
from masa.statistics import Estimate, t_mean

_BINS = np.linspace(-0.5, 0.5, 6)
_GATE = ("gate precision", "gate recall", "gate F1", "correct lost to cutoff")
_NOTION = {"start": (0.0, 1.0), "end": (0.0, 1.0), "change": (-1.0, 1.0)}
_WIDEST = 8.0  # standardised errors beyond are drawn at the edge


def seed_means(group: Group, measure: Callable[[Run], pd.Series]) -> pd.DataFrame:
    """A measured series of every run -> its mean over seeds with `low` and `high`, by index."""
    values = pd.DataFrame({run.seed: measure(run) for run in group.runs}).sort_index()
    value, low, high = bounds([t_mean(row) for row in values.to_numpy(float)])
    return pd.DataFrame({"value": value, "low": low, "high": high}, index=values.index)


def paired_figure(groups: Sequence[Group]) -> Figure | None:
    """Accuracy gain against the change of meta reward (binned) and against the rollout."""
    shown = [g for g in groups if all(len(gains(run)) for run in g.runs)]
    if not shown:
        return None
    figure = canvas(10, 4)
    left, right = figure.subplots(1, 2, sharey=True)

    def by_reward(run: Run) -> pd.Series:
        table = gains(run)
        place = np.clip(np.digitize(table["reward"], _BINS), 1, len(_BINS) - 1)
        return table["gain"].groupby((_BINS[place] + _BINS[place - 1]) / 2).mean()

    def by_step(run: Run) -> pd.Series:
        return gains(run).groupby("step")["gain"].mean()

    for group, colour in zip(shown, group_colours(shown), strict=True):
        for axes, measure in ((left, by_reward), (right, by_step)):
            table = seed_means(group, measure)
            axes.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.15,
                              linewidth=0)  # fmt: skip
            axes.plot(table.index, table["value"], "o-", color=colour, label=group.label)
    left.set_xlabel("change of meta reward (weighted mean of the scores)")
    left.set_ylabel("gain in pass rate")
    right.set_xlabel("rollout")
    right.legend()
    for axes in (left, right):
        axes.axhline(0, color=MUTED, linewidth=1)
    return figure


def _labelled(table: pd.DataFrame, groups: Sequence[Group]) -> Iterator[tuple[str, pd.Series, str]]:
    """Label, row and colour, for each row of a table of methods or of runs."""
    colours = dict(zip((g.label for g in groups), group_colours(groups), strict=True))
    for _, row in table.iterrows():
        label = row["method"] if "method" in table else row["run"]
        yield label, row, colours[label]


def ablation_figure(table: pd.DataFrame, groups: Sequence[Group]) -> Figure | None:
    """`seeds.ablation` as dots with intervals: accuracy, and its difference from the baseline."""
    if table.empty or "difference" not in table:
        return None
    rows = list(_labelled(table, groups))
    figure = canvas(10, 1.3 + 0.35 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    forest(left, [(label, row["accuracy"], colour) for label, row, colour in rows])
    forest(right, [(label, row["difference"], colour) for label, row, colour in rows])
    right.axvline(0, color=MUTED, linewidth=1)
    left.set_xlabel("held-out accuracy")
    right.set_xlabel("difference from the baseline")
    return figure


def shapley_figure(table: pd.DataFrame, groups: Sequence[Group]) -> Figure | None:
    """Shapley shares of R2 per feature as dots with intervals, from rows of `paired_table`."""
    rows = [
        (f"{label}: {name.removeprefix('R2 share, ')}", row[name], colour)
        for label, row, colour in _labelled(table, groups)
        for name in table
        # runs may differ in their scores
        if name.startswith("R2 share, ") and isinstance(row[name], Estimate)
    ]
    if not rows:
        return None
    figure = canvas(7.5, 1.2 + 0.3 * len(rows))
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, linewidth=1)
    forest(axes, rows)
    axes.set_xlabel("share of R2 of the accuracy gain")
    return figure


def gate_figure(tables: dict[str, pd.DataFrame], groups: Sequence[Group]) -> Figure | None:
    """Precision, recall and F1 of the gate and correct answers lost, dots with intervals.

    Args:
        tables: evidence -> rows of `tables.audits` or of `tables.held_out_gates`, of runs or of
            methods.
    """
    panels: dict[str, list[tuple[str, Estimate, str]]] = {name: [] for name in _GATE}
    for evidence, table in tables.items():
        for label, row, colour in _labelled(table, groups):
            for name, rows in panels.items():
                if name in row and not np.isnan(row[name].value):
                    rows.append((f"{label}\n{evidence}", row[name], colour))
    most = max(map(len, panels.values()))
    if not most:
        return None
    figure = canvas(10, 2 * (1.1 + 0.5 * most))
    for axes, (name, rows) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.set_title(name)
        if not rows:
            empty(axes, "not measured")
            continue
        forest(axes, rows)
        if name in _GATE[:3]:
            axes.set_xlim(-0.03, 1.03)
        else:
            axes.set_xlim(left=0)
    return figure


def lengths_figure(groups: Sequence[Group]) -> Figure | None:
    """Distribution of standardised length errors at the last validation, correct and wrong."""
    shown = [g for g in groups if all(len(run.validations) for run in g.runs)]
    found = {group.label: _errors(group) for group in shown}
    if not any(len(errors) for errors in found.values()):
        return None
    figure = canvas(10, 3.8)
    edges = np.linspace(-_WIDEST, _WIDEST, 33)
    for axes, verdict in zip(figure.subplots(1, 2, sharey=True), VERDICTS, strict=True):
        for group, colour in zip(shown, group_colours(shown), strict=True):
            errors = found[group.label]
            values = errors.loc[errors["verdict"] == verdict, "error"].clip(-_WIDEST, _WIDEST)
            if len(values):
                axes.hist(values, edges, density=True, histtype="step", color=colour,
                          linewidth=1.8, label=group.label)  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_title(f"{verdict} solutions")
        axes.set_xlabel("(actual - predicted length) / std of predictions")
    figure.axes[0].set_ylabel("density of prompts")
    figure.axes[0].legend()
    return figure


def _errors(group: Group) -> pd.DataFrame:
    tables = [length_errors(run, int(run.validations["step"].iloc[-1])) for run in group.runs]
    return pd.concat(tables).dropna(subset=["error"])


def notions_figure(groups: Sequence[Group], count: int = 8) -> Figure | None:
    """The notions whose share among correct and among wrong solutions changed most."""
    tables = {group: notion_means(group, count) for group in groups}
    shown = [group for group in groups if len(tables[group])]
    if not shown:
        return None
    figure = canvas(10, (1.0 + 0.3 * count) * len(shown))
    grid = figure.subplots(len(shown), 2, squeeze=False)
    for group, row, colour in zip(shown, grid, group_colours(shown), strict=True):
        table = tables[group]
        for axes, verdict in zip(row, VERDICTS, strict=True):
            part = table[table["solutions"] == verdict]
            axes.axvline(0, color=MUTED, linewidth=1)
            pairs = zip(part["notion"], part["change"], strict=True)
            forest(axes, [(notion, change, colour) for notion, change in pairs])
            axes.set_title(f"{verdict} solutions ({group.label})")
    for axes in grid[-1]:
        axes.set_xlabel("change of share, start to end")
    return figure


def notion_means(group: Group, count: int) -> pd.DataFrame:
    """The notions with the largest mean change over seeds, `count` per verdict, t intervals.

    Over the seeds that have solutions of the verdict both at the start and at the end.
    """
    # looked for in every seed, so that a seed that did not predict a notion says how often it came
    notions = sorted(set().union(*map(vocabulary, group.runs)))
    tables = pd.concat([notion_changes(run, notions).assign(seed=run.seed) for run in group.runs])
    rows: list[dict[str, object]] = []
    for verdict in VERDICTS:
        part = tables[tables["verdict"] == verdict].set_index(["notion", "seed"])
        wide = {x: part[x].astype(float).unstack() for x in _NOTION}
        seen = (wide["start"] > 0) | (wide["end"] > 0)
        size = wide["change"].mean(axis=1).abs()[seen.any(axis=1)]
        for notion in size.sort_values(ascending=False, kind="stable").index[:count]:
            means = {x: t_mean(wide[x].loc[notion], within=_NOTION[x]) for x in wide}
            row = {"method": group.label, "seeds": means["change"].n, "solutions": verdict}
            said = f"{seen.loc[notion].sum()} of {len(group.runs)}"
            rows.append(row | {"notion": notion, "seeds that mention it": said} | means)
    return pd.DataFrame(rows)
