"""The report of a sweep: methods over seeds, every claim with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from masa.analysis import compare_methods, tables
from masa.analysis import figures as run_figures
from masa.analysis import report_runs as notes
from masa.analysis.compare_methods import Group, over_seeds
from masa.analysis.control_plots import (
    ablation_figure,
    gate_figure,
    lengths_figure,
    notion_means,
    notions_figure,
    paired_figure,
    shapley_figure,
)
from masa.analysis.curves import accuracy_curves, dynamics, group_colours, speedup_figure
from masa.analysis.lengths import length_table
from masa.analysis.load import Run
from masa.analysis.page import SHORT_TABLE, grid, picture, section
from masa.analysis.paired import paired_table
from masa.analysis.scores import alignment_table, score_table

_SCATTERS = 3
_CAPTIONS = {
    "accuracy_curves": "Held-out accuracy against rollouts, tokens, FLOPs and seconds of training "
    "(validation left out): mean over seeds; bands: 95 % t intervals over seeds. Ticks at the "
    "bottom: end of an epoch.",
    "speedup": "How many times cheaper than the baseline, with 95 % intervals over seeds; the line "
    "at 1 is no difference. The claim is at 90 %; 100 % is exploratory.",
    "dynamics": "Held-out predictions over training: mean over seeds, bands: 95 % t intervals over "
    "seeds.",
    "calibration": f"{notes.CAPTIONS['calibration']} One seed per method.",
    "length_calibration": f"{notes.CAPTIONS['length_calibration']} One seed per method.",
    "ablation": "Held-out accuracy after equally many rollouts, and its difference from the "
    "baseline of the same seed, with 95 % t intervals over seeds.",
    "levels": f"{notes.CAPTIONS['levels']} Mean over seeds, 95 % t intervals.",
    "gate": f"{notes.CAPTIONS['gate']} Intervals over seeds.",
    "gating": f"{notes.CAPTIONS['gating']} One seed.",
    "lengths": f"{notes.CAPTIONS['lengths']} Prompts of all seeds.",
    "paired": f"{notes.CAPTIONS['paired']} Mean over seeds, bands: 95 % t intervals over seeds.",
    "shapley": "Shapley shares of R2, 95 % t intervals over seeds.",
    "notions": f"{notes.CAPTIONS['notions']} Mean over seeds, 95 % t intervals.",
}
_OVER_SEEDS = (
    "Brackets: 95 % intervals over training seeds: Student's t on one value per seed, or, for "
    "counted shares (k of n), Wilson at the effective size over seeds with Student's quantile. "
    "They cover the training seeds alone: the held-out prompts are taken as fixed. Bounds of "
    "shares and correlations are cut where their range ends."
)


def sweep_report(groups: Sequence[Group], base: int, name: str, out: Path) -> list[str]:
    """Draw the figures into `out`/figures; returns the report as blocks of Markdown.

    Args:
        groups: methods, each over its seeds.
        base: index of the baseline.
        name: of the sweep.
    """
    runs = [run for group in groups for run in group.runs]
    faster = compare_methods.speedups(groups, base)
    audits = over_seeds(groups, tables.audits, ["evidence"])
    held_out = over_seeds(groups, tables.held_out_gates)
    changes = compare_methods.ablation(groups, base)
    paired = over_seeds(groups, paired_table)
    levels = over_seeds(groups, tables.per_level, ["level"])
    labels, colours = [group.label for group in groups], group_colours(groups)
    main = run_figures.main_run(runs)
    shown = _first_seeds(groups, base)
    telling = [group for group in groups if main in group.runs]
    by_evidence = dict(iter(audits.groupby("evidence"))) if len(audits) else {}
    drawings: dict[str, Callable[[], Figure | None]] = {
        "accuracy_curves": lambda: accuracy_curves(groups),
        "speedup": lambda: speedup_figure(faster, groups),
        "dynamics": lambda: dynamics(groups),
        "calibration": lambda: run_figures.calibration(shown),
        "length_calibration": lambda: run_figures.length_calibration(shown),
        "ablation": lambda: ablation_figure(changes, groups),
        "levels": lambda: run_figures.levels(
            levels.rename(columns={"method": "run"}), list(zip(labels, colours, strict=True))
        ),
        "gate": lambda: gate_figure(by_evidence | {"held-out": held_out}, groups),
        "gating": lambda: run_figures.gating([main]),
        "lengths": lambda: lengths_figure(groups),
        "paired": lambda: paired_figure(groups),
        "shapley": lambda: shapley_figure(paired, groups),
        "notions": lambda: notions_figure(telling),
    }
    paths = run_figures.draw_all(drawings, out / "figures")
    drawn = {name: picture(name, paths, _CAPTIONS[name]) for name in drawings}
    baseline = groups[base].label
    return [
        f"# Sweep {name}: {len(groups)} methods, {len(runs)} runs",
        _too_few(groups),
        drawn["accuracy_curves"],
        *section("Results", headline_text(groups), f"{_OVER_SEEDS} {notes.FLOPS_NOTE}"),
        *section(
            f"Accuracy at equal cost, against {baseline}",
            grid(
                compare_methods.at_budget(groups, base),
                "Budget: what the run that ended cheapest had spent; accuracy is linear between "
                f"validations. Difference: minus {baseline} of the same seed, t interval over "
                "seeds; p: Student's paired t test over seeds, and Holm-adjusted over the rows.",
            ),
        ),
        *section(
            f"Time to target, against {baseline}",
            grid(
                faster,
                f"Target: that share of the gain in mean accuracy which {baseline} made over "
                f"training. Ratio: cost of {baseline} / cost of the method until their mean "
                "curves over the shared seeds first reach it; above 1 means cheaper. 95 % "
                "interval: jackknife over seeds of the log ratio with Student's quantile. The "
                "claim is at 90 %; 100 % is exploratory: curves are flat there, so that noise "
                "moves the crossing far, and where leaving out a seed leaves none there is no "
                "interval.",
            ),
            drawn["speedup"],
        ),
        *section(
            "What the methods change",
            grid(
                changes,
                "Settings that differ, and accuracy after equally many rollouts; p Holm-adjusted "
                "over the methods.",
            ),
            drawn["ablation"],
        ),
        *section(
            "Meta-alignment",
            grid(over_seeds(groups, score_table), notes.SCORE_NOTE),
            grid(over_seeds(groups, alignment_table, ["rollout"]), notes.ALIGNMENT_NOTE, keys=2),
            drawn["dynamics"],
            drawn["calibration"],
            drawn["length_calibration"],
        ),
        *section(
            "Gate and cutoff",
            grid(audits, notes.AUDIT_NOTE, keys=2),
            grid(held_out, notes.HELD_OUT_NOTE),
            drawn["gate"],
            drawn["gating"],
        ),
        *section(
            "Predicted lengths",
            grid(over_seeds(groups, length_table, ["solutions"]), notes.LENGTH_NOTE, keys=2),
            drawn["lengths"],
        ),
        *section(
            "Gain and meta reward",
            grid(paired, notes.PAIRED_NOTE),
            drawn["paired"],
            drawn["shapley"],
        ),
        *section(
            "Notions",
            grid(
                _concatenated([notion_means(group, 5) for group in telling]),
                f"{notes.NOTION_NOTE} A notion that any seed predicts is looked for in the "
                "solutions of all seeds; one that never came up in a seed counts there as 0.",
            ),
            drawn["notions"],
        ),
        *section("Held-out accuracy per level", grid(levels), drawn["levels"]),
        *notes.worst_predictions(main),
        *notes.run_list(runs),
    ]


def headline_text(groups: Sequence[Group]) -> str:
    """The table of methods as it stands in the report and in the terminal."""
    table = over_seeds(groups, tables.headline)
    return tables.render(table, transpose=len(groups) <= SHORT_TABLE)


def _too_few(groups: Sequence[Group]) -> str:
    single = ", ".join(group.label for group in groups if len(group.runs) == 1)
    if not single:
        return ""
    return f"**One training seed carries no claim about a method** (one seed here: {single})."


def _first_seeds(groups: Sequence[Group], base: int) -> list[Run]:
    others = [group for i, group in enumerate(groups) if i != base]
    return [group.runs[0] for group in [groups[base], *others][:_SCATTERS]]


def _concatenated(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
