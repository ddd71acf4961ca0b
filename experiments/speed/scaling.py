"""How seconds and memory per step grow with prompts, G, response length and model size.

One axis at a time from one middle point; GRPO with engine=vllm at fixed response lengths. The
exponent b of y = a * x ** b is fitted to all points, and once more between the two largest, where
what does not grow weighs least.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bench

BASE: dict[str, Any] = {"prompts": 8, "group": 8, "response": 64, "size": "1M"}
AXES: dict[str, list[Any]] = {
    "prompts": [2, 8, 32],
    "group": [2, 8, 32],
    "response": [32, 64, 128, 256],
    "size": ["0.3M", "1M", "3M", "10M"],
}
QUICK: dict[str, list[Any]] = {"prompts": [2, 4]}
NAMES = {
    "prompts": "prompts", "group": "G", "response": "tokens per response", "size": "parameters",
}  # fmt: skip
PARTS = {
    "wall": "step", "timing_s/generate": "generate", "timing_s/forward_backward": "train",
    "rest": "rest",
}  # fmt: skip


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through (log x, log y)."""
    return statistics.linear_regression([*map(math.log, x)], [*map(math.log, y)]).slope


def measure(
    setting: Mapping[str, Any], folder: Path, steps: int, threads: int, engine: str
) -> dict[str, float]:
    """Median seconds of a step and its parts, and peak memory (GiB), of one run."""
    out = folder / "-".join(str(value) for value in setting.values())
    model = folder / f"model-{setting['size']}"
    work = (setting["prompts"], setting["group"], setting["response"])
    command = bench.fixed_length_run(model, out, engine, *work, steps + 1)
    memory = bench.run(command, out / "output.txt", threads)
    rows = bench.rows_of(out)
    for row in rows:
        row["rest"] = row["wall"] - row["timing_s/generate"] - row["timing_s/forward_backward"]
    found = {part: statistics.median(row[part] for row in rows) for part in PARTS}
    return found | {"memory": memory, "trained": rows[0]["step/cost/tokens_trained"]}


def fits(points: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Exponents of every part and of memory over one axis."""
    x = [point["x"] for point in points]
    found = {}
    for part in (*PARTS, "memory"):
        y = [point[part] for point in points]
        found[part] = {"all": exponent(x, y), "largest": exponent(x[-2:], y[-2:])}
    return found


def figure(axes: Mapping[str, Any], path: Path) -> None:
    """Seconds and memory over each axis, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, panels = plt.subplots(2, len(axes), figsize=(3.2 * len(axes), 5.6), squeeze=False)
    for column, (axis, found) in enumerate(axes.items()):
        x = [point["x"] for point in found["points"]]
        for part, name in PARTS.items():
            label = f"{name}: {found['fits'][part]['largest']:.2f}"
            y = [point[part] for point in found["points"]]
            panels[0][column].loglog(x, y, marker="o", label=label)
        memory = [point["memory"] for point in found["points"]]
        label = f"{found['fits']['memory']['largest']:.2f}"
        panels[1][column].loglog(x, memory, marker="o", color="black", label=label)
        panels[1][column].set_xlabel(NAMES[axis])
        for panel in panels[:, column]:
            panel.grid(True, which="both", alpha=0.2)
            panel.legend(fontsize=7, title="exponent, largest two", title_fontsize=7)
    panels[0][0].set_ylabel("seconds per step")
    panels[1][0].set_ylabel("peak memory (GiB)")
    drawn.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--steps", type=int, default=3, help="after one that is left out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", choices=["vllm", "hf"], default="vllm")
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    if args.quick:
        args.steps = 1
    axes = QUICK if args.quick else {axis: AXES[axis] for axis in args.axes}
    report = bench.Report("scaling", "How cost grows")
    known: dict[tuple[Any, ...], dict[str, float]] = {}
    parameters: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="masa-bench-") as scratch:
        folder = Path(scratch)
        for axis, values in axes.items():
            points = []
            for value in values:
                setting = BASE | {axis: value}
                size = setting["size"]
                if size not in parameters:
                    parameters[size] = bench.write_model(size, folder / f"model-{size}", 1024)
                key = tuple(setting.values())
                if key not in known:
                    with bench.noted(", ".join(f"{k} {v}" for k, v in setting.items())):
                        known[key] = measure(setting, folder, args.steps, args.threads, args.engine)
                x = parameters[size] if axis == "size" else value
                points.append({"x": float(x)} | known[key])
            report.data[axis] = {"points": points, "fits": fits(points)}
    tell(report, args)
    if not args.quick:
        report.write(["experiments/speed/scaling.py", *sys.argv[1:]])


def tell(report: bench.Report, args: argparse.Namespace) -> None:
    """Points and exponents."""
    base = ", ".join(f"{NAMES[k]} {v}" for k, v in BASE.items())
    report(f"engine={args.engine}, {args.threads} threads, around {base};")
    report(f"median of {args.steps} steps.")
    report()
    report("| axis | at | tokens trained | s per step | generate | train | rest | peak GiB |")
    report("|---|---|---|---|---|---|---|---|")
    for axis, found in report.data.items():
        for point in found["points"]:
            cells = [f"{point[part]:.3g}" for part in (*PARTS, "memory")]
            at = f"{point['x']:.0f}"
            report(f"| {NAMES[axis]} | {at} | {point['trained']:.0f} | {' | '.join(cells)} |")
    report()
    report("Exponents, over all points and between the two largest:")
    report()
    report("| axis | step | generate | train | rest | memory |")
    report("|---|---|---|---|---|---|")
    for axis, found in report.data.items():
        cells = [f"{fit['all']:.2f}, {fit['largest']:.2f}" for fit in found["fits"].values()]
        report(f"| {NAMES[axis]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
