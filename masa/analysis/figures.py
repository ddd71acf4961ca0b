"""The figures of a report: what was learned and at what cost, before and after, over training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from masa.analysis import panel_plots
from masa.analysis.audit import control_start, has_gate, has_meta
from masa.analysis.compare_methods import single_groups
from masa.analysis.control_plots import (
    gate_figure,
    lengths_figure,
    notions_figure,
    paired_figure,
    shapley_figure,
)
from masa.analysis.lengths import length_pairs
from masa.analysis.load import Run
from masa.analysis.paired import paired_table
from masa.analysis.tables import audits, held_out, held_out_gates, per_level
from masa.analysis.theme import canvas, dressed, look, save


def write_figures(runs: Sequence[Run], folder: Path) -> dict[str, Path]:
    """Draw every figure the runs have data for; name -> PNG, in reading order."""
    groups, shown = single_groups(runs), _validated(runs)
    table = audits(runs)
    by_evidence = dict(iter(table.groupby("evidence"))) if len(table) else {}
    drawings: dict[str, Callable[[], Figure | None]] = {
        "overview": lambda: overview(runs),
        "accuracy": lambda: accuracy(runs),
        "levels": lambda: levels(per_level(shown), _names(shown)),
        "calibration": lambda: calibration(runs),
        "length_calibration": lambda: length_calibration(runs),
        "alignment": lambda: alignment(runs),
        "gate": lambda: gate_figure(by_evidence | {"held-out": held_out_gates(runs)}, groups),
        "gating": lambda: gating(runs),
        "lengths": lambda: lengths_figure(groups),
        "paired": lambda: paired_figure(groups),
        "shapley": lambda: shapley_figure(paired_table(runs), groups),
        "notions": lambda: notions_figure(groups),
    }
    return draw_all(drawings, folder)


def draw_all(drawings: dict[str, Callable[[], Figure | None]], folder: Path) -> dict[str, Path]:
    """Draw and save what there is data for; name -> PNG."""
    written = {}
    with look():
        for name, draw in drawings.items():
            figure = draw()
            if figure is not None:
                written[name] = save(figure, folder / f"{name}.png")
    return written


def _validated(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if len(run.validations)]


def _predicting(runs: Sequence[Run]) -> list[Run]:
    """Runs with predictions on held-out prompts."""
    return [
        run
        for run in _validated(runs)
        if run.prompts.loc[run.prompts["split"] == "val", "predicted"].notna().any()
    ]


def main_run(runs: Sequence[Run]) -> Run:
    """The run to show in detail: the first under control, else with predictions, else any."""
    controlled = [run for run in runs if control_start(run) is not None]
    meta = [run for run in runs if has_meta(run)]
    return (controlled or meta or list(runs))[0]


def accuracy(runs: Sequence[Run]) -> Figure | None:
    """Held-out accuracy against generated tokens and against seconds."""
    if not _validated(runs):
        return None
    figure = canvas(11, 4.2)
    left, right = figure.subplots(1, 2, sharey=True)
    panel_plots.accuracy(left, runs, "tokens")
    panel_plots.accuracy(right, runs, "seconds", legend=False)
    right.set_ylabel("")
    return figure


def levels(table: pd.DataFrame, names: Sequence[tuple[str, str]]) -> Figure | None:
    """Held-out accuracy per level; arguments as of `panel_plots.levels`."""
    if table.empty or table["level"].nunique() < 2:
        return None
    figure = canvas(8, 4.2)
    panel_plots.levels(figure.subplots(), table, names)
    return figure


def _names(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Label and colour per run."""
    return [(label, colour) for _, label, colour, _ in dressed(runs)]


def calibration(runs: Sequence[Run]) -> Figure | None:
    """Predicted against actual pass rate, first and last validation: one row per run."""
    return _scatters(
        runs, panel_plots.PASS_RATE, lambda run, step: held_out(run, step).reset_index()
    )


def length_calibration(runs: Sequence[Run]) -> Figure | None:
    """Predicted length against the mean of the correct solutions, first and last validation."""
    ends = [length_pairs(run, step) for run in _predicting(runs) for step in _ends(run)]
    longest = [pairs[["predicted", "length"]].max(axis=None) for pairs in ends if len(pairs)]
    if not longest:
        return None
    what = panel_plots.Quantity("length", "length (tokens)", float(max(longest)), 1)
    return _scatters(runs, what, length_pairs)


def _ends(run: Run) -> tuple[int, int]:
    """Rollouts after which the first and the last validation came."""
    steps = run.validations["step"]
    return int(steps.iloc[0]), int(steps.iloc[-1])


def _scatters(
    runs: Sequence[Run], what: panel_plots.Quantity, prompts: Callable[[Run, int], pd.DataFrame]
) -> Figure | None:
    chosen = [row for row in dressed(runs) if row[0] in _predicting(runs)]
    if not chosen:
        return None
    figure = canvas(8.4, 4.5 * len(chosen))
    grid = figure.subplots(len(chosen), 2, squeeze=False)
    for (run, label, colour, _), row in zip(chosen, grid, strict=True):
        for axes, step, word in zip(row, _ends(run), ("before", "after"), strict=True):
            title = f"{label}, {word} (rollout {step})"
            panel_plots.calibration(axes, prompts(run, step), colour, title, seed=step, what=what)
    return figure


def alignment(runs: Sequence[Run]) -> Figure | None:
    """Predicted and true pass rate over training, one panel per run."""
    chosen = [row for row in dressed(runs) if row[0] in _predicting(runs) or has_meta(row[0])]
    if not chosen:
        return None
    figure = canvas(max(6.0, 4.4 * len(chosen)), 3.9)
    for axes, (run, label, _, _) in zip(
        figure.subplots(1, len(chosen), squeeze=False, sharey=True)[0], chosen, strict=True
    ):
        panel_plots.pass_rates(axes, run)
        axes.set_title(label)
        axes.label_outer()
    return figure


def gating(runs: Sequence[Run]) -> Figure | None:
    """Gate, cutoff and tokens over training, one row per run with meta rollouts."""
    chosen = [row for row in dressed(runs) if has_meta(row[0]) or has_gate(row[0])]
    if not chosen:
        return None
    figure = canvas(13.5, 3.9 * len(chosen))
    grid = figure.subplots(len(chosen), 3, squeeze=False)
    for (run, label, _, _), row in zip(chosen, grid, strict=True):
        for axes, draw, title in zip(
            row, (panel_plots.gating, panel_plots.cutoff, panel_plots.token_cost),
            ("gate", "length cutoff", "cost"), strict=True,
        ):  # fmt: skip
            draw(axes, run)
            axes.set_title(f"{label}: {title}")
    return figure


def overview(runs: Sequence[Run]) -> Figure | None:
    """Four panels for a README (12 x 8 inches, readable at 900 px)."""
    shown = _validated(runs)
    if not shown:
        return None
    run = main_run(shown)
    colour, label = next((c, name) for r, name, c, _ in dressed(runs) if r is run)
    figure = canvas(12, 8)
    (a, b), (c, d) = figure.subplots(2, 2)
    panel_plots.accuracy(a, runs, "tokens")
    a.set_title("Held-out accuracy against cost")
    if run in _predicting(shown):
        panel_plots.before_after(b, run, colour)
        b.set_title(f"Predicted and actual pass rate, held out ({label})")
        panel_plots.pass_rates(c, run)
        c.set_title(f"Predicted and true pass rate over training ({label})")
    else:
        panel_plots.accuracy(b, runs, "seconds", legend=False)
        b.set_title("Held-out accuracy against time")
        panel_plots.accuracy(c, runs, "step", legend=False)
        c.set_title("Held-out accuracy against rollouts")
    if control_start(run) is not None:
        panel_plots.gating(d, run)
        d.set_title(f"The gate: precision and recall from audits ({label})")
    else:
        panel_plots.levels(d, per_level(shown), _names(shown))
        d.set_title("Held-out accuracy per level")
    return figure
