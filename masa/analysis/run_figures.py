"""Figures of single runs: what was learned and at what cost, before and after, over training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.figure import Figure

from masa.analysis import panel_plots
from masa.analysis.control import active_from, has_gate, has_meta
from masa.analysis.lengths import length_pairs
from masa.analysis.load import Run
from masa.analysis.panel_plots import styled
from masa.analysis.tables import per_level
from masa.analysis.theme import canvas, figure_legend

_PANELS = 3  # side by side


def main_run(runs: Sequence[Run]) -> Run:
    """The run to show in detail: the first with gate or cutoff active, else with predictions, else
    any."""
    active = [run for run in runs if active_from(run) is not None]
    meta = [run for run in runs if has_meta(run)]
    return (active or meta or list(runs))[0]


def overview(runs: Sequence[Run]) -> Figure | None:
    """Four panels, readable at 900 pixels."""
    shown = [run for run in runs if len(run.validations)]
    if not shown:
        return None
    run = main_run(shown)
    label, style = next((label, style) for r, label, style in styled(runs) if r is run)
    figure = canvas(7.6)
    (a, b), (c, d) = figure.subplots(2, 2)
    panel_plots.accuracy(a, runs, "tokens")
    panel_plots.title(a, "Held-out accuracy against cost")
    if run.predicts:
        panel_plots.before_after(b, run, style, f"Held-out predictions: {label}")
        panel_plots.pass_rates(c, run, f"Pass rate over training: {label}")
    else:
        for axes, cost, words in ((b, "seconds", "time"), (c, "step", "rollouts")):
            panel_plots.accuracy(axes, runs, cost)
            panel_plots.title(axes, f"Held-out accuracy against {words}")
    if active_from(run) is not None:
        panel_plots.gate(d, run, f"Gate: {label}")
    else:
        looks = {name: look for r, name, look in styled(runs) if r in shown}
        panel_plots.levels(d, per_level(shown), looks, "Held-out accuracy per level")
    return figure


def accuracy(runs: Sequence[Run]) -> Figure | None:
    """Held-out accuracy against generated tokens and against seconds."""
    if not any(len(run.validations) for run in runs):
        return None
    figure = canvas(4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    panel_plots.accuracy(left, runs, "tokens")
    panel_plots.accuracy(right, runs, "seconds")
    right.set_ylabel("")
    figure_legend(figure, left)
    return figure


def calibration(runs: Sequence[Run]) -> Figure | None:
    """Predicted against actual pass rate, first and last validation: one row per run."""
    return _scatters(
        runs, panel_plots.PASS_RATE, lambda run, step: run.held_out(step).reset_index()
    )


def length_calibration(runs: Sequence[Run]) -> Figure | None:
    """Predicted length against the mean of the correct solutions, first and last validation."""
    pairs = [length_pairs(run, step) for run in runs if run.predicts for step in run.ends]
    longest = [table[["predicted", "length"]].max(axis=None) for table in pairs if len(table)]
    if not longest:
        return None
    what = panel_plots.Quantity("length", "length (tokens)", float(max(longest)), 1)
    return _scatters(runs, what, length_pairs)


def _scatters(
    runs: Sequence[Run], what: panel_plots.Quantity, prompts: Callable[[Run, int], pd.DataFrame]
) -> Figure | None:
    chosen = [row for row in styled(runs) if row[0].predicts]
    if not chosen:
        return None
    figure = canvas(5.2 * len(chosen))
    grid = figure.subplots(len(chosen), 2, squeeze=False)
    for (run, label, style), row in zip(chosen, grid, strict=True):
        for axes, step, word in zip(row, run.ends, ("before", "after"), strict=True):
            heading = f"{label}, {word} (rollout {step})"
            panel_plots.calibration(axes, prompts(run, step), style, heading, what)
    return figure


def alignment(runs: Sequence[Run]) -> Figure | None:
    """Predicted and true pass rate over training, one panel per run."""
    chosen = [row for row in styled(runs) if row[0].predicts or has_meta(row[0])]
    if not chosen:
        return None
    lines = -(-len(chosen) // _PANELS)
    figure = canvas(3.5 * lines)
    panels = list(figure.subplots(lines, min(_PANELS, len(chosen)), squeeze=False).flat)
    for axes, (run, label, _) in zip(panels, chosen, strict=False):
        panel_plots.pass_rates(axes, run, label)
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    return figure


def control(runs: Sequence[Run]) -> Figure | None:
    """Gate, cutoff and tokens over training, one row per run with predictions or a gate."""
    chosen = [row for row in styled(runs) if has_meta(row[0]) or has_gate(row[0])]
    if not chosen:
        return None
    figure = canvas(4.1 * len(chosen))
    parts = figure.subfigures(len(chosen), 1, squeeze=False).flat
    for (run, label, _), part in zip(chosen, parts, strict=True):
        part.suptitle(label, x=0.01, ha="left", fontsize=12, weight="bold")
        gate, cutoff, cost = part.subplots(1, 3)
        panel_plots.gate(gate, run, "gate")
        panel_plots.cutoff(cutoff, run, "length cutoff")
        panel_plots.token_cost(cost, run, "cost")
    return figure
