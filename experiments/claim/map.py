"""When the gate pays: its gain over the share of zero variance and over the length of learning.

    python experiments/claim/map.py RUNS [...] --out FIGURE.png [--page README.md]

Each RUNS holds runs of GRPO and of one method with a gate on one mix of the task: a point, named
after the folder. Or it is the `map_NAME.jsonl` that results.py made of them; `results.jsonl` is
named after the profile. With `--page` the table also replaces what that page has
between `<!-- map -->` and `<!-- /map -->`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import nan
from pathlib import Path

import numpy as np
from results import BASE, FRACTION, FRACTIONS, Entry, cell, results
from run_record import by_method, measure, read

from masa.analysis.compare_methods import mean_curve
from masa.analysis.forecast import signal_kept
from masa.analysis.load import RunError
from masa.analysis.tables import crossing
from masa.analysis.theme import canvas, look, save, title
from masa.errors import ConfigError
from masa.markdown import fill_place, markdown_table
from masa.statistics import Floats

METHOD = "masa_cloned_family"
# of GRPO's gain, with its interval: where curves are steep
SHOWN = 0.5
NOTHING = dict.fromkeys(("mean", "low", "high"))
GATE = ("gate_precision", "gate_recall", "prediction_cost")


@dataclass(frozen=True)
class Point:
    """One mix of the task."""

    name: str
    seeds: int
    zero_variance: float
    """Share of GRPO's groups."""
    learning: float
    """Rollouts until GRPO has made `FRACTION` of its gain."""
    gate: dict[str, float]
    """Precision, recall, and the tokens of predictions over all solution tokens, where it acts."""
    ratios: dict[str, Entry]
    """Tokens of GRPO over those of the method until each of `FRACTIONS` of GRPO's gain, and its
    interval; None where one of them never comes there."""

    @property
    def expected(self) -> float:
        """The gain by the formula."""
        precision, recall, overhead = (self.gate[name] for name in GATE)
        return float(formula(np.array([self.zero_variance]), precision, recall, overhead)[0])


def formula(zero: Floats, precision: float, recall: float, overhead: float) -> Floats:
    """Signal kept over cost kept at these shares of zero variance [N], where each prompt costs as
    much as any other; see `masa.analysis.forecast`."""
    skipped = recall * zero / precision
    return signal_kept(skipped, precision, 1 - zero) / (1 - skipped + overhead)


def point(path: Path) -> Point:
    """Of the runs in one folder, or the records in one file.

    Raises:
        RunError: GRPO or the method is not among them.
    """
    records = measure(path) if path.is_dir() else read(path)
    methods = by_method(records)
    if not {BASE, METHOD} <= set(methods):
        raise RunError(f"{path} has runs of {', '.join(methods)}, not of {BASE} and {METHOD}")
    numbers = results(records)
    ratios = numbers["tokens_ratio_by_share"][METHOD]
    if not ratios:
        raise RunError(f"{path} has no seed of both {BASE} and {METHOD}")
    factors, cells = numbers["factors"], numbers["methods"][METHOD]
    steps, accuracy = mean_curve(methods[BASE], "step")
    goal = float(accuracy[0] + FRACTION * (accuracy[-1] - accuracy[0]))
    return Point(
        numbers["profile"] if path.name == "results.jsonl" else path.stem.removeprefix("map_"),
        numbers["seeds"],
        _mean(factors[BASE]["zero_variance_share"]),
        crossing(steps, accuracy, goal),
        {name: _mean((cells | factors[METHOD])[name]) for name in GATE},
        ratios,
    )


def _mean(found: Entry) -> float:
    """NaN where no seed has the number."""
    return nan if found is None else float(found["mean"])


def table(points: Sequence[Point]) -> str:
    """One row per mix."""
    heads = [
        "mix", "seeds", "zero variance", f"rollouts to {percent(FRACTION)} of grpo's gain",
        "gate precision", "gate recall", "predictions, o", "by the formula",
        *(f"tokens, grpo / method, to {percent(share)}" for share in FRACTIONS),
    ]  # fmt: skip
    rows = [
        [
            p.name, str(p.seeds), f"{p.zero_variance:.2f}", f"{p.learning:.0f}",
            *(f"{p.gate[name]:.2f}" for name in GATE), f"{p.expected:.2f}",
            *(cell(ratio) for ratio in p.ratios.values()),
        ]
        for p in points
    ]  # fmt: skip
    return markdown_table([heads, *rows])


def percent(share: float) -> str:
    """As the pages write it."""
    return f"{share * 100:.0f} %"


def draw(points: Sequence[Point], path: Path) -> None:
    """Both axes of the map."""
    with look():
        figure = canvas(3.2)
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, xs in ((left, "zero_variance"), (right, "learning")):
            for p, marker in zip(points, cycle("os^DvPX*"), strict=False):
                x, ratio = getattr(p, xs), p.ratios[f"{SHOWN:g}"] or NOTHING
                at_goal = p.ratios[f"{FRACTION:g}"] or NOTHING
                name = p.name.replace("_", " ")
                axes.plot([x, x], [ratio["low"], ratio["high"]], "-", color="C0")
                axes.plot([x], [at_goal["mean"]], marker, color="C0", fillstyle="none")
                axes.plot([x], [ratio["mean"]], marker, color="C0", label=name)
            axes.axhline(1, color="0.6", lw=0.8)
            axes.margins(x=0.25)
            # intervals of two seeds go far beyond
            axes.set_ylim(0, 3)
        shares = np.linspace(0.05, 0.95, 181)
        gate = [float(np.nanmean([p.gate[name] for p in points])) for name in GATE]
        left.plot(shares, formula(shares, *gate), "--", color="0.4", label="the formula")
        title(
            left,
            f"Tokens, grpo / method, to {percent(SHOWN)} of the gain (hollow: {percent(FRACTION)})",
        )
        left.set_xlabel("share of zero variance under grpo")
        right.set_xlabel(f"rollouts until {percent(FRACTION)} of grpo's gain")
        save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="a directory with runs per mix")
    parser.add_argument("--out", type=Path, required=True, help="figure")
    parser.add_argument("--page", type=Path, help="page with the marks of the table")
    args = parser.parse_args()
    try:
        points = sorted(map(point, args.runs), key=lambda p: p.zero_variance)
        text = table(points)
        print(text)
        draw(points, args.out)
        if args.page:
            fill_place(args.page, "map", text)
    except (RunError, ConfigError) as error:
        parser.exit(1, f"map.py: {error}\n")


if __name__ == "__main__":
    main()
