"""Growth of seconds and memory per step with prompts, G, response length, model size and ranks.

One axis at a time from one middle point, each a separate piece; GRPO with engine=vllm on geometric
lengths, whose mean is a constant share of the limit. Seconds are those of the expected number of
tokens. The points run one after the other, in reverse order every second time. The exponent b of
y = a * x ** b is fitted to all points, and to the two largest, where constant parts count least.
Memory, most of which is constant, is fitted by its growth from the smallest point.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bench
import record

BASE: dict[str, Any] = {"prompts": 8, "group": 8, "response": 128, "size": "1M", "ranks": 1}
AXES: dict[str, list[Any]] = {
    "prompts": [2, 8, 32, 128],
    "group": [2, 8, 32, 64],
    "response": [64, 128, 256, 512, 1024, 2048],
    "size": ["0.3M", "1M", "3M", "10M"],
    "ranks": [1, 2],
}
SHARE = 0.3
"""Mean of the lengths over their limit, before they are cut at it."""
QUICK: dict[str, list[Any]] = {"prompts": [2, 4]}
NAMES = {
    "prompts": "prompts", "group": "G", "response": "tokens per response at most",
    "size": "parameters", "ranks": "ranks",
}  # fmt: skip
PARTS = {
    "wall": "step", "timing_s/generate": "generate", "timing_s/forward_backward": "train",
    "rest": "rest",
}  # fmt: skip
MEMORY = "memory"
PROMPT = 64
"""At most so many tokens of a prompt."""
LINEAR = 1.1
"""Exponents above this one are reported: they differ from 1 by more than the spread."""
NOTABLE = 0.05
"""Memory that grows by a smaller share of the smallest point has no exponent."""


def exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Slope of the least-squares line through (log x, log y); None where there is none."""
    if len(x) < 2 or min(*x, *y) <= 0:
        return None
    return statistics.linear_regression([*map(math.log, x)], [*map(math.log, y)]).slope


def measure(
    setting: Mapping[str, Any], folder: Path, models: Path, args: argparse.Namespace
) -> dict[str, float]:
    """Median seconds of a step and its parts, and peak memory of a process (GiB), of one run."""
    out = folder / "-".join(str(value) for value in setting.values())
    limit, ranks = setting["response"], setting["ranks"]
    lengths = bench.Phases.geometric(SHARE * limit)
    model = models / f"model-{setting['size']}-{limit}"
    if not model.exists():
        bench.write_model(setting["size"], model, limit + PROMPT, lengths)
    several = ["strategy=ddp", f"strategy.devices={ranks}", "trainer.accelerator=cpu"]
    work = (setting["prompts"], setting["group"], limit)
    threads = max(1, args.threads // ranks)
    more = several if ranks > 1 else []
    if args.engine == "vllm":
        more = [*more, bench.engine_threads(setting["size"], threads)]
    command = bench.short_run(model, out, args.engine, *work, args.steps + 1, more)
    memory = bench.run(command, out / "output.txt", threads)
    rows = bench.rows_of(out)
    expected = setting["prompts"] * setting["group"] * lengths.mean(limit)
    for row in rows:
        bench.require_threads("the run", threads, row["threads"])
        row["rest"] = row["wall"] - row["timing_s/generate"] - row["timing_s/forward_backward"]
    medians = {
        part: statistics.median(
            row[part] * expected / row["step/cost/tokens_total"] for row in rows
        )
        for part in PARTS
    }
    trained = statistics.fmean(row["step/cost/tokens_trained"] for row in rows)
    return medians | {MEMORY: memory, "trained": trained}


def combined(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians of the runs of one point, and lowest and highest time of a step."""
    medians: dict[str, Any] = {k: statistics.median(run[k] for run in runs) for k in runs[0]}
    return medians | {"spread": record.spread([run["wall"] for run in runs])}


def fits(points: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Exponents of every part and of memory over one axis; None where there is none."""
    x = [point["x"] for point in points]
    exponents = {}
    for part in PARTS:
        y = [point[part] for point in points]
        exponents[part] = {"all": exponent(x, y), "largest": exponent(x[-2:], y[-2:])}
    y = [point[MEMORY] for point in points]
    if y[-1] - y[0] > NOTABLE * y[0]:
        # these differences remove the constant part
        grown = [[value - side[0] for value in side[1:]] for side in (x, y)]
        exponents[MEMORY] = {"all": exponent(*grown), "largest": exponent(*(v[-2:] for v in grown))}
    else:
        exponents[MEMORY] = {"all": None, "largest": None}
    return exponents


def figure(axes: Mapping[str, Any], path: Path) -> None:
    """Seconds and memory over each axis, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    chart, panels = plt.subplots(2, len(axes), figsize=(3.2 * len(axes), 5.6), squeeze=False)
    for column, (axis, data) in enumerate(axes.items()):
        x = [point["x"] for point in data["points"]]
        for part, name in PARTS.items():
            label = f"{name}: {_fit_text(data['fits'][part]['largest'])}"
            y = [point[part] for point in data["points"]]
            panels[0][column].loglog(x, y, marker="o", label=label)
        spreads = [point["spread"] for point in data["points"]]
        edges = [[spread[edge] for spread in spreads] for edge in ("low", "high")]
        panels[0][column].fill_between(x, *edges, alpha=0.2)
        memory = [point[MEMORY] for point in data["points"]]
        label = f"growth: {_fit_text(data['fits'][MEMORY]['largest'])}"
        panels[1][column].loglog(x, memory, marker="o", color="black", label=label)
        panels[1][column].set_xlabel(NAMES[axis])
        for panel in panels[:, column]:
            panel.grid(True, which="both", alpha=0.2)
            panel.legend(fontsize=7, title="exponent, largest two", title_fontsize=7)
    panels[0][0].set_ylabel("seconds per step")
    panels[1][0].set_ylabel("peak memory of a process (GiB)")
    chart.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.savefig(path, dpi=110)
    plt.close(chart)


def _fit_text(fit: float | None) -> str:
    return "none" if fit is None else f"{fit:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--steps", type=int, default=3, help="after one that is left out")
    parser.add_argument("--repetitions", type=int, default=2, help="runs of each point")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", choices=["vllm", "hf"], default="vllm")
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.repetitions = 1, 1
    axes = QUICK if args.quick else {axis: AXES[axis] for axis in args.axes}
    pieces = record.Pieces(parser, args, "How cost grows")
    parameters: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="masa-bench-") as scratch:
        folder = Path(scratch)
        for axis, values in axes.items():
            if pieces.done(axis, axes=axis):
                continue
            with pieces.piece(axis, [list(AXES).index(axis)], axes=axis) as report:
                for size in values if axis == "size" else []:
                    parameters[size] = bench.write_model(size, folder / f"count-{size}", 1024)
                runs: list[list[dict[str, float]]] = [[] for _ in values]
                for repetition in range(args.repetitions):
                    order = range(len(values))
                    for index in reversed(order) if repetition % 2 else order:
                        setting = BASE | {axis: values[index]}
                        with record.progress(", ".join(f"{k} {v}" for k, v in setting.items())):
                            point = measure(setting, folder / f"{axis}-{repetition}", folder, args)
                        runs[index].append(point)
                x = [parameters[value] if axis == "size" else value for value in values]
                points = [
                    {"x": float(at)} | combined(of_point)
                    for at, of_point in zip(x, runs, strict=True)
                ]
                report.data = {"axis": axis, "points": points, "fits": fits(points)}
                report_axis(report, args)
    pieces.end()


def report_axis(report: record.Report, args: argparse.Namespace) -> None:
    """Points and exponents of one axis."""
    axis, points, exponents = (report.data[key] for key in ("axis", "points", "fits"))
    base = ", ".join(f"{NAMES[k]} {v}" for k, v in BASE.items() if k != axis)
    report(
        f"**{NAMES[axis][0].upper()}{NAMES[axis][1:]}**, with {base}; engine={args.engine}, "
        f"{args.threads} threads in all; medians of {args.repetitions} runs of {args.steps} steps "
        "(lowest to highest run)"
    )
    report()
    parts = "s per step | generate | train | rest | peak GiB of a process"
    report(f"| {NAMES[axis]} | tokens trained | {parts} |")
    report("|---|---|---|---|---|---|---|")
    for point in points:
        cells = [f"{point['x']:.0f}", f"{point['trained']:.0f}", record.ranged(point["spread"])]
        cells += [f"{point[part]:.3g}" for part in (*PARTS, MEMORY) if part != "wall"]
        report(f"| {' | '.join(cells)} |")
    for which, name in (("all", "exponent, all points"), ("largest", "the two largest")):
        # of memory it is that of the growth, and none where it hardly grows
        cells = [_fit_text(exponents[part][which]) for part in (*PARTS, MEMORY)]
        report(f"| {name} | | {' | '.join(cells)} |")
    report()
    report(flagged(exponents))
    if axis == "ranks":
        report("All but the first of several ranks count as other processes below.")


def flagged(exponents: Mapping[str, Mapping[str, float | None]]) -> str:
    """One line on the exponents above `LINEAR`."""
    largest = {
        part: max((value for value in fit.values() if value is not None), default=0.0)
        for part, fit in exponents.items()
    }
    above = [f"{PARTS.get(p, p)} {value:.2f}" for p, value in largest.items() if value > LINEAR]
    return f"Exponents above {LINEAR}: {', '.join(above) if above else 'none'}."


if __name__ == "__main__":
    main()
