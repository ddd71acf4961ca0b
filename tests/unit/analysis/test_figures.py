"""Figures: nothing covers the data, and nothing is told apart by colour alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from synthetic_run import simulated_run

from masa.analysis import load_run, load_sweep, method_figures, run_figures, tables
from masa.analysis.compare_methods import over_seeds, single_runs
from masa.analysis.control import control_table, held_out_gate_table
from masa.analysis.pass_rate_figure import binned, pass_rate_figure
from masa.analysis.theme import CYCLE, METHODS, look, styles


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods over two seeds."""
    root = tmp_path_factory.mktemp("sweep")
    small = {"held_out": 36, "prompts": 12, "steps": 12, "validate_every": 4}
    for seed in (0, 1):
        plain = {"start": None, "meta": False} | small
        simulated_run(root / f"grpo{seed}", method="grpo", seed=seed, **plain)
        simulated_run(root / f"masa{seed}", method="masa", seed=seed, start=None, **small)
        simulated_run(
            root / f"efficient{seed}", method="masa_efficient", seed=seed, start=5, **small
        )
    return root


def drawn(root: Path) -> Iterator[tuple[str, Figure]]:
    runs = [load_run(path) for path in sorted(root.iterdir())]
    methods = load_sweep(root)
    for kind in ("overview", "accuracy", "alignment", "control", "calibration"):
        figure = getattr(run_figures, kind)(runs)
        assert figure is not None, kind
        yield kind, figure
    for each in (methods, single_runs(runs)):
        for kind in ("accuracy_curves", "dynamics", "gains_figure", "lengths_figure"):
            figure = getattr(method_figures, kind)(each)
            assert figure is not None, kind
            yield kind, figure
    pass_rates = pass_rate_figure(runs[0])
    assert pass_rates is not None
    yield "pass_rates", pass_rates
    levels = method_figures.levels(over_seeds(methods, tables.per_level, ["level"]), methods)
    assert levels is not None
    yield "levels", levels


def test_ends_of_the_pass_rates_have_bars_of_their_own() -> None:
    rates = pd.Series([0.0, 0.0, 0.125, 0.25, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0])
    assert binned(rates) == pytest.approx([0.2, 0.2, 0.2, 0.2, 0.2])


def test_no_legend_covers_data_or_another_text(sweep: Path) -> None:
    legends = 0
    with look():
        for name, figure in drawn(sweep):
            figure.canvas.draw()
            areas = [axes.get_window_extent() for axes in figure.axes if axes.axison]
            for legend in figure.findobj(Legend):
                legends += 1
                box = legend.get_window_extent()
                for area in areas:
                    above = box.y0 >= area.y1 - 1 or box.y1 <= area.y0 + 1
                    beside = box.x0 >= area.x1 - 1 or box.x1 <= area.x0 + 1
                    assert above or beside, name
                whole = figure.bbox
                assert box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1, name
    assert legends > 20


def test_axes_say_what_they_show(sweep: Path) -> None:
    with look():
        for name, figure in drawn(sweep):
            for axes in figure.axes:
                if axes.axison:
                    assert axes.get_xlabel(), name
                    place = axes.get_subplotspec()
                    assert (
                        axes.get_ylabel()
                        or axes.get_title(loc="left")
                        or (place is not None and not place.is_first_col())
                    ), name


def test_methods_differ_in_more_than_colour() -> None:
    names = [*METHODS, *(f"m{i}" for i in range(len(CYCLE)))]
    chosen = styles(names)
    assert len({style.marker for style in chosen}) == len(names)
    assert len({style.colour for style in chosen}) == len(names)
    many = styles([f"m{i}" for i in range(3 * len(CYCLE))])
    assert len({(style.colour, style.marker, style.line) for style in many}) == len(many)
    again = styles(["masa", "masa", "grpo"])
    assert again[0].colour == again[1].colour and again[0].line != again[1].line


def test_a_run_without_gate_has_the_gate_on_held_out_prompts(sweep: Path) -> None:
    runs = [load_run(sweep / "grpo0")]
    control, held_out = control_table(runs), held_out_gate_table(runs)
    figure = method_figures.gate_figure(control, held_out, single_runs(runs))
    assert control.empty and len(held_out) == 1 and figure is not None
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == ["grpo\nheld-out"]
    assert not figure.axes[3].axison  # lost answers: not measured
