"""The report of runs (intervals over prompts) and of methods (intervals over seeds)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from masa.analysis import compare_methods, method_figures, run_figures, tables
from masa.analysis import report_texts as texts
from masa.analysis.compare_methods import Method, over_seeds, single_runs
from masa.analysis.control import control_table, held_out_gate_table
from masa.analysis.gains import gain_table
from masa.analysis.lengths import length_table
from masa.analysis.load import Run
from masa.analysis.notions import notion_means, notion_table
from masa.analysis.page import SHORT_TABLE, fenced, grid, render, section
from masa.analysis.pass_rate_figure import pass_rate_figure
from masa.analysis.scores import alignment_table, score_table
from masa.analysis.summary import summary
from masa.analysis.theme import look, save

_SCATTERS = 3  # methods in the calibration figures of a sweep

Draw = Callable[[str, Figure | None], str]
"""Saves a figure; returns it with its caption, nothing for None."""


def _draw_into(folder: Path, captions: Mapping[str, str]) -> Draw:
    def draw(name: str, figure: Figure | None) -> str:
        if figure is None:
            return ""
        save(figure, folder / f"{name}.png")
        caption = f"{texts.CAPTIONS[name]} {captions.get(name, '')}".strip()
        return f"![{name}](figures/{name}.png)\n\n*{caption}*"

    return draw


def runs_report(runs: Sequence[Run], out: Path) -> list[str]:
    """Draw the figures into `out`/figures; returns the report as blocks of Markdown."""
    draw = _draw_into(out / "figures", {})
    with look():
        return [
            f"# {f'Run {runs[0].name}' if len(runs) == 1 else f'Comparison of {len(runs)} runs'}",
            summary(single_runs(runs)),
            draw("overview", run_figures.overview(runs)),
            *section("Results", runs_headline(runs), texts.OVER_PROMPTS, one_seed(seeds_of(runs))),
            draw("accuracy", run_figures.accuracy(runs)),
            *_against_baseline(runs),
            *_measures(single_runs(runs), None, draw),
        ]


def sweep_report(methods: Sequence[Method], base: int, name: str, out: Path) -> list[str]:
    """Draw the figures into `out`/figures; returns the report as blocks of Markdown.

    Args:
        methods: each over its seeds.
        base: index of the baseline.
        name: of the sweep.
    """
    draw = _draw_into(out / "figures", texts.OF_A_SWEEP)
    baseline = methods[base].label
    budgets = compare_methods.at_budget(methods, base)
    faster = compare_methods.speedups(methods, base)
    changes = compare_methods.ablation(methods, base)
    with look():
        return [
            f"# Sweep {name}: {len(methods)} methods, {sum(len(m.runs) for m in methods)} runs",
            summary(methods),
            one_seed({method.label: set(method.seeds) for method in methods}),
            draw("accuracy_curves", method_figures.accuracy_curves(methods)),
            *section("Results", sweep_headline(methods), texts.OVER_SEEDS),
            *section(
                f"Accuracy at equal cost, against {baseline}",
                grid(budgets, texts.AT_BUDGET.format(baseline=baseline)),
            ),
            *section(
                f"Time to target, against {baseline}",
                grid(faster, texts.SPEEDUPS.format(baseline=baseline)),
                draw("speedup", method_figures.speedup_figure(faster, methods)),
            ),
            *section(
                "What the methods change",
                grid(changes, texts.ABLATION),
                draw("ablation", method_figures.ablation_figure(changes, methods)),
            ),
            *_measures(methods, base, draw),
        ]


def _measures(methods: Sequence[Method], base: int | None, draw: Draw) -> list[str]:
    """The sections that both reports have: tables of runs or, with a baseline, of methods."""
    runs = [run for method in methods for run in method.runs]
    main = run_figures.main_run(runs)

    def tabulate(
        table: Callable[[Sequence[Run]], pd.DataFrame], by: Sequence[str] = ()
    ) -> pd.DataFrame:
        return table(runs) if base is None else over_seeds(methods, table, by)

    if base is None:
        calibrated = controlled = runs
        over_training = draw("alignment", run_figures.alignment(runs))
        notions, notions_of = grid(notion_table(runs), texts.NOTIONS), methods
    else:
        others = [method for method in methods if method is not methods[base]]
        calibrated = [m.runs[0] for m in [methods[base], *others][:_SCATTERS]]
        controlled = [main]
        over_training = draw("dynamics", method_figures.dynamics(methods))
        notions_of = [method for method in methods if main in method.runs]
        notions = grid(notion_means(notions_of[0], 5), texts.NOTIONS_OF_SEEDS)
    levels = tabulate(tables.per_level, ["level"])
    control = tabulate(control_table, ["mode"])
    held_out = tabulate(held_out_gate_table)
    gain = tabulate(gain_table)
    return [
        *section(
            "Held-out accuracy per level",
            grid(levels.sort_values("level", kind="stable") if len(levels) else levels),
            draw("levels", method_figures.levels(levels, methods)),
        ),
        *section(
            "Pass rates of the prompts",
            draw(
                "pass_rates", pass_rate_figure(runs[0] if base is None else methods[base].runs[0])
            ),
        ),
        *section(
            "Meta-alignment",
            grid(tabulate(score_table), texts.SCORES),
            draw("calibration", run_figures.calibration(calibrated)),
            draw("length_calibration", run_figures.length_calibration(calibrated)),
            grid(tabulate(alignment_table, ["rollout"]), texts.ALIGNMENT, keys=2),
            over_training,
        ),
        *section(
            "Gate and cutoff",
            grid(control, texts.CONTROL, keys=2),
            grid(held_out, texts.HELD_OUT_GATE),
            draw("gate", method_figures.gate_figure(control, held_out, methods)),
            draw("control", run_figures.control(controlled)),
        ),
        *section(
            "Predicted lengths",
            grid(tabulate(length_table, ["solutions"]), texts.LENGTHS, keys=2),
            draw("lengths", method_figures.lengths_figure(methods)),
        ),
        *section(
            "Gain and meta reward",
            grid(gain, texts.GAINS),
            draw("gains", method_figures.gains_figure(methods)),
            draw("shapley", method_figures.shapley_figure(gain, methods)),
        ),
        *section("Notions", notions, draw("notions", method_figures.notions_figure(notions_of))),
        *_worst_predictions(main),
        *section("Runs", "\n".join(map(_origin, runs))),
    ]


def runs_headline(runs: Sequence[Run]) -> str:
    """The headline table as it stands in the report and in the terminal."""
    return render(tables.headline(runs), transpose=len(runs) <= SHORT_TABLE)


def sweep_headline(methods: Sequence[Method]) -> str:
    """The table of methods as it stands in the report and in the terminal."""
    return render(over_seeds(methods, tables.headline), transpose=len(methods) <= SHORT_TABLE)


def seeds_of(runs: Iterable[Run]) -> dict[str, set[int]]:
    """Training seeds per `algorithm.name`, in order of appearance."""
    seeds: dict[str, set[int]] = {}
    for run in runs:
        seeds.setdefault(run.method, set()).add(run.seed)
    return seeds


def one_seed(seeds: Mapping[str, AbstractSet[int]]) -> str:
    """The warning about methods with a single seed; nothing where there is none."""
    names = ", ".join(name for name, of_method in seeds.items() if len(of_method) == 1)
    if not names:
        return ""
    return f"**One training seed carries no claim about a method** (one seed here: {names})."


def _origin(run: Run) -> str:
    parts = [f"- `{run.path}`: {run.method}, seed {run.seed}"]
    parts += [", ".join(f"{name} {of}" for name, of in each.items()) for each in run.environments]
    return "; ".join(parts)


def _against_baseline(runs: Sequence[Run]) -> list[str]:
    if len(runs) < 2:
        return []
    return section(
        f"Against {tables.run_labels(runs)[tables.baseline(runs)]}",
        grid(tables.differences(runs), texts.DIFFERENCES),
        grid(tables.to_target(runs), texts.TO_TARGET),
    )


def _worst_predictions(run: Run) -> list[str]:
    parts: list[str] = []
    for miss in tables.worst_predictions(run):
        parts += [
            f"**`{miss.prompt_id}`** (level {miss.level}): predicted {miss.predicted:.2f}, actual "
            f"{miss.actual:.2f} of {miss.samples} solutions; answer `{miss.answer}`",
            *map(fenced, (miss.problem, miss.meta, miss.solution)),
        ]
    heading = f"Worst predictions ({run.method}, seed {run.seed}, last validation)"
    return section(heading, texts.WORST, *parts) if parts else []
