"""How the pass rates of the prompts are distributed, beside what others report of real runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from masa.analysis.load import Run
from masa.analysis.theme import canvas, title

PUBLISHED = (
    ("SPO, Qwen3-8B, start", None, None, 0.60),
    ("SPO, Qwen3-8B, step 140", None, None, 0.80),
    ("Knapsack RL, Qwen2.5-Math-7B, late", 0.20, 0.40, 0.60),
    ("AVSPO, Math-1.5B, mean", 0.25, 0.15, 0.40),
    ("AVSPO, 0.5B, mean", None, None, 0.45),
    ("ThinkPrior, Qwen2.5-Math-7B, start", None, None, 0.38),
)
"""(run, shares of all wrong, all right and zero variance): arXiv 2509.13232 (figure 3a),
2509.25849, 2605.21125 and 2609.09075; None where only the sum is reported."""
EDGES = (0.0, 1 / 3, 2 / 3, 1.0)
"""Of the bars between the ends: as many rates of four solutions in each."""
_BARS = ("0", "< 1/3", "< 2/3", "< 1", "1")
_COLOURS = ("#C9DDEC", "#5B9BC8", "#0B4F7D")
_WRONG, _RIGHT, _EITHER = "#D55E00", "#0072B2", "#A6A6A6"


def pass_rate_figure(run: Run) -> Figure | None:
    """Histogram of held-out pass rates at start, middle and end, and shares of zero variance."""
    steps = run.validations["step"].tolist()
    if not steps:
        return None
    chosen = list(dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])))
    figure = canvas(4.2)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1))
    held_out = {int(step): run.held_out(step) for step in chosen}
    histogram(left, held_out)
    zero_variance(right, run.method, held_out)
    return figure


def binned(pass_rates: pd.Series) -> list[float]:
    """Shares of 0, of each third between 0 and 1, and of 1."""
    inside = pass_rates[(pass_rates > 0) & (pass_rates < 1)]
    counts, _ = np.histogram(inside, EDGES)
    return [(pass_rates == 0).mean(), *(counts / len(pass_rates)), (pass_rates == 1).mean()]


def histogram(axes: Axes, held_out: dict[int, pd.DataFrame]) -> None:
    """Bars per validation."""
    width = 0.8 / len(held_out)
    for i, (step, rows) in enumerate(held_out.items()):
        heights = binned(rows["pass_rate"])
        places = np.arange(len(heights)) + (i - (len(held_out) - 1) / 2) * width
        axes.bar(places, heights, width, color=_COLOURS[i], label=f"rollout {step}")
    axes.set_xticks(range(len(_BARS)), _BARS)
    samples = max(int(rows["samples"].max()) for rows in held_out.values())
    axes.set_xlabel(f"pass rate of a held-out prompt, {samples} solutions")
    axes.set_ylabel("share of the prompts")
    axes.grid(False, axis="x")
    title(axes, "Pass rates")


def zero_variance(axes: Axes, method: str, held_out: dict[int, pd.DataFrame]) -> None:
    """A bar per validation and per published run."""
    rates = {f"{method}, rollout {step}": rows["pass_rate"] for step, rows in held_out.items()}
    bars = [(name, (rate == 0).mean(), (rate == 1).mean()) for name, rate in rates.items()]
    names = [name for name, *_ in bars] + [name for name, *_ in PUBLISHED]
    for i, (_, wrong, right) in enumerate(bars):
        axes.barh(i, wrong, color=_WRONG, label="all wrong" if i == 0 else None)
        axes.barh(i, right, left=wrong, color=_RIGHT, label="all right" if i == 0 else None)
    for i, (_, wrong, right, either) in enumerate(PUBLISHED, len(bars)):
        if wrong is None or right is None:
            label = "either" if i == len(bars) else None
            axes.barh(i, either, color=_EITHER, label=label)
        else:
            axes.barh(i, wrong, color=_WRONG)
            axes.barh(i, right, left=wrong, color=_RIGHT)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the prompts")
    axes.grid(False, axis="y")
    title(axes, "Zero variance")
