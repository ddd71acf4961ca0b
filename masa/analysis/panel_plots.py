"""The single panels of which the figures are made: each draws on one pair of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from masa.analysis import control
from masa.analysis.load import Run, alignment, run_labels
from masa.analysis.theme import (
    INK,
    MUTED,
    PREDICTED,
    TRUE,
    Style,
    empty,
    rollouts,
    shares,
    short,
    styles,
    thousands,
    title,
)
from masa.statistics import Estimate, wilson

COST_LABELS = {
    "step": "rollout",
    "tokens": "tokens generated in training",
    "flops": "FLOPs of training",
    "seconds": "seconds of training (rollouts and updates)",
}
_FAINT = "#BDBDBD"


def interval_table(estimates: Sequence[Estimate], index: Any = None) -> pd.DataFrame:
    """Columns `value`, `low` and `high`, one row per estimate."""
    rows = [(e.value, e.low, e.high) for e in estimates]
    return pd.DataFrame(rows, index, columns=["value", "low", "high"], dtype=float)


def band(axes: Axes, x: Any, table: pd.DataFrame, style: Style, label: str | None = None) -> None:
    """A line of an `interval_table` with its intervals as a band."""
    axes.fill_between(x, table["low"], table["high"], color=style.colour, alpha=0.13, linewidth=0)
    axes.plot(x, table["value"], style.line, **style.markers, label=label)


def dots(axes: Axes, x: Any, table: pd.DataFrame, style: Style, label: str | None = None) -> None:
    """Dots of an `interval_table` with their intervals."""
    reach = [table["value"] - table["low"], table["high"] - table["value"]]
    axes.errorbar(x, table["value"], yerr=np.abs(reach), **style.markers, label=label,
                  linestyle="none", elinewidth=1.5)  # fmt: skip


def forest(axes: Axes, rows: Sequence[tuple[str, Estimate, Style]]) -> None:
    """One line per row (name, estimate, style), from the top: a dot with its interval."""
    for i, (_, estimate, style) in enumerate(rows):
        axes.plot([estimate.low, estimate.high], [i, i], color=style.colour, linewidth=2.4,
                  alpha=0.6)  # fmt: skip
        axes.plot([estimate.value], [i], **style.markers)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(False, axis="y")


def limit_axis(
    axes: Axes, rows: Sequence[tuple[str, Estimate, Style]], low: float, high: float
) -> None:
    """Limits of the x axis of a `forest`, with arrows where intervals end beyond them."""
    axes.set_xlim(low, high)
    for i, (_, estimate, style) in enumerate(rows):
        for edge, beyond, arrow in (
            (low, estimate.low < low, "<"),
            (high, estimate.high > high, ">"),
        ):
            if beyond:
                axes.plot([edge], [i], arrow, color=style.colour, clip_on=False)


def styled(runs: Sequence[Run]) -> list[tuple[Run, str, Style]]:
    """(run, label, style) per run."""
    looks = styles([run.method for run in runs])
    return list(zip(runs, run_labels(runs), looks, strict=True))


def accuracy(axes: Axes, runs: Sequence[Run], cost: str) -> None:
    """Held-out accuracy against `cost` (tokens, seconds or step), 95 % bands."""
    for run, label, style in styled(runs):
        if len(run.validations) and np.isfinite(run.validations[cost]).all():
            table = interval_table(run.validations["accuracy"].tolist())
            band(axes, run.validations[cost], table, style, label)
    if not axes.lines:
        return empty(axes, f"no validation with {cost}")
    axes.set_xlim(left=0)
    axes.set_ylim(0, min(1.02, axes.get_ylim()[1]))
    thousands(axes)
    axes.set_xlabel(COST_LABELS[cost])
    axes.set_ylabel("held-out accuracy")


@dataclass(frozen=True)
class Quantity:
    """What is predicted of a prompt, from 0 to `top`."""

    column: str
    """Holds the actual value."""
    label: str
    top: float
    digits: int
    """Decimals of the error."""


PASS_RATE = Quantity("pass_rate", "pass rate", 1.0, 2)


def calibration(
    axes: Axes, prompts: pd.DataFrame, style: Style, heading: str, what: Quantity = PASS_RATE
) -> None:
    """Predicted against actual value, one dot per held-out prompt, with binned means.

    Args:
        prompts: of one validation, with `prompt_id`, `predicted` and the column of `what`.
        heading: stands above the computed correlation and error.
    """
    rows = prompts.dropna(subset=["predicted", what.column])
    if rows.empty:
        return empty(axes, f"{heading}\nno predictions")
    _diagonal(axes, what)
    _scatter(axes, rows, style, what)
    axes.set_title(f"{heading}\n")
    axes.text(0, 1.02, _agreement(rows, what), transform=axes.transAxes, fontsize=9.5, color=MUTED,
              va="bottom")  # fmt: skip
    axes.set_aspect("equal")


def before_after(axes: Axes, run: Run, style: Style, heading: str) -> None:
    """Predicted against actual pass rate of one run: first validation (grey) and last."""
    _diagonal(axes, PASS_RATE)
    looks = Style(_FAINT, "d", "--"), style
    for step, look, word in zip(run.ends, looks, ("before", "after"), strict=True):
        rows = run.held_out(step).reset_index().dropna(subset=["predicted"])
        if len(rows):
            _scatter(axes, rows, look, PASS_RATE, f"{word}: {_agreement(rows, PASS_RATE)}")
    title(axes, heading)


def _diagonal(axes: Axes, what: Quantity) -> None:
    """Square axes of predicted and actual value, with the line where they are the same."""
    axes.plot([0, what.top], [0, what.top], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(-0.04 * what.top, 1.04 * what.top)
    axes.set_ylim(-0.04 * what.top, 1.04 * what.top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"predicted {what.label}")
    axes.set_ylabel(f"actual {what.label}")


def _agreement(rows: pd.DataFrame, what: Quantity) -> str:
    numbers = alignment(rows, what.column)
    corr, mae = replace(numbers["corr"], digits=2), replace(numbers["mae"], digits=what.digits)
    return f"corr {corr}, MAE {mae}"


def _scatter(
    axes: Axes, rows: pd.DataFrame, style: Style, what: Quantity, label: str | None = None
) -> None:
    """Faint dots, and the mean actual value per fifth of the range of the predicted one with its
    standard error (n >= 3)."""
    x, y = rows["predicted"].to_numpy(), rows[what.column].to_numpy()
    jitter = what.top * np.random.default_rng(0).uniform(-0.018, 0.018, size=(2, len(x)))
    axes.scatter(x + jitter[0], y + jitter[1], s=13, color=style.colour, alpha=0.5, linewidth=0)
    bins = np.clip((rows["predicted"] * 5 / what.top).astype(int), 0, 4)
    means = rows.groupby(bins)[["predicted", what.column]].agg(["mean", "sem", "size"])
    means = means[means[("predicted", "size")] >= 3]
    axes.errorbar(
        means[("predicted", "mean")], means[(what.column, "mean")],
        yerr=means[(what.column, "sem")], linestyle=style.line, linewidth=1.8, zorder=3,
        label=label, **style.markers | {"markersize": 8},
    )  # fmt: skip


def pass_rates(axes: Axes, run: Run, heading: str) -> None:
    """Predicted and true pass rate over training: evidence prompts (line), held-out (dots)."""
    rows, span = control.gate_evidence(run).dropna(subset=["predicted"]), _window(run)
    table = run.validations
    looks = Style(TRUE, "o", "-"), Style(PREDICTED, "s", "--")
    for style, of_prompts, of_validations, label in zip(
        looks, ("pass_rate", "predicted"), ("actual", "predicted"), ("true", "predicted"),
        strict=True,
    ):  # fmt: skip
        if len(rows):
            sums = rows.groupby("step")[of_prompts].agg(["sum", "count"])
            sums = sums.reindex(range(1, run.last_step + 1), fill_value=0).rolling(span, 1).sum()
            mean = sums["sum"] / sums["count"].where(lambda n: n > 0)
            axes.plot(mean.index, mean, style.line, color=style.colour, linewidth=1.6, alpha=0.8)
        if len(table):
            dots(axes, table["step"], interval_table(table[of_validations].tolist()), style, label)
    shares(axes)
    rollouts(axes)
    axes.set_ylabel("mean pass rate")
    mark_active(axes, run)
    title(axes, heading)


def _window(run: Run) -> int:
    return max(5, run.last_step // 10)


def mark_active(axes: Axes, run: Run) -> None:
    """A line where gate or cutoff become active."""
    start = control.active_from(run)
    if start is not None:
        axes.axvline(start, color=INK, linewidth=1, linestyle=(0, (1, 2)),
                     label=f"active from {start}")  # fmt: skip


def gate(axes: Axes, run: Run, heading: str) -> None:
    """Share of prompts that the gate would skip per step, its precision and recall over a running
    window with Wilson bands."""
    share = run.train_prompts.groupby("step")["would_skip"].mean()
    axes.fill_between(share.index, share, step="mid", color=_FAINT, alpha=0.75, linewidth=0,
                      label="would skip")  # fmt: skip
    looks = (
        ("precision", "would_skip", "#332288", "-"),
        ("recall", "zero_variance", "#D55E00", "--"),
    )
    rows = control.gate_evidence(run)
    for active, first, last in control.stretches(rows):
        span = max(10, (last - first + 1) // 3) if active else _window(run)
        within = rows[rows["step"].between(first, last)]
        counts = within.groupby("step")[["hit", "would_skip", "zero_variance"]].sum()
        counts = counts.reindex(range(first, last + 1), fill_value=0).rolling(span, 1).sum()
        for _, column, colour, line in looks:
            pairs = zip(counts["hit"], counts[column], strict=True)
            table = interval_table([wilson(int(hit), int(n)) for hit, n in pairs], counts.index)
            axes.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.12,
                              linewidth=0)  # fmt: skip
            axes.plot(table.index, table["value"], line, color=colour)
    for name, _, colour, line in looks:
        axes.plot([], [], line, color=colour, label=name)
    shares(axes)
    rollouts(axes)
    axes.set_ylabel("share of prompts")
    mark_active(axes, run)
    title(axes, heading)


def cutoff(axes: Axes, run: Run, heading: str) -> None:
    """Token limit that the cutoff asks for (median and middle half of prompts), actual lengths.

    The lengths are those of correct solutions among the evidence, which no cutoff has shortened.
    """
    train = run.train_prompts
    limits = train.dropna(subset=["cutoff_tokens"]).groupby("step")["cutoff_tokens"]
    if not len(limits):
        return empty(axes, "no cutoff")
    middle = limits.quantile([0.25, 0.5, 0.75]).unstack()
    axes.fill_between(middle.index, middle[0.25], middle[0.75], color=PREDICTED, alpha=0.2,
                      linewidth=0)  # fmt: skip
    axes.plot(middle.index, middle[0.5], color=PREDICTED, label="cutoff")
    in_full = control.gate_evidence(run)[["split", "step", "prompt_id"]]
    correct, span = run.rollouts[run.rollouts["correct"] == 1].merge(in_full), _window(run)
    centre = correct["step"] // span * span + (span - 1) / 2
    length = correct["tokens"].groupby(centre.clip(upper=run.last_step)).quantile([0.5, 0.95])
    length = length.unstack().reindex(columns=[0.5, 0.95])
    axes.plot(length.index, length[0.5], "o--", color=TRUE, markersize=4, label="correct")
    axes.plot(length.index, length[0.95], "^:", color=TRUE, markersize=4, label="correct 95 %")
    axes.set_ylim(0, 1.05 * axes.dataLim.y1)
    rollouts(axes)
    axes.set_ylabel("length (tokens)")
    mark_active(axes, run)
    title(axes, heading)


def token_cost(axes: Axes, run: Run, heading: str) -> None:
    """Tokens of each rollout, solutions and predictions stacked."""
    train = run.rollouts[run.rollouts["split"] == "train"]
    table = train.pivot_table(index="step", columns="kind", values="tokens", aggfunc="sum")
    table = table.reindex(columns=["solution", "meta"]).fillna(0)
    axes.stackplot(table.index, table["solution"], table["meta"], colors=[_FAINT, PREDICTED],
                   labels=["solutions", "predictions"], linewidth=0)  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    rollouts(axes)
    axes.set_ylabel("tokens per rollout")
    mark_active(axes, run)
    title(axes, heading)


def levels(axes: Axes, table: pd.DataFrame, looks: dict[str, Style], heading: str = "") -> None:
    """Held-out accuracy per level after training (dots), and of the first run before (bars).

    Args:
        table: as of `tables.per_level`, of runs or methods.
        looks: values of its column `run` or `method`, with their styles.
    """
    if table.empty:
        return empty(axes, "no validation")
    names = table["method"] if "method" in table else table["run"]
    ticks = sorted(table["level"].unique())
    places = table["level"].map(ticks.index)
    first = names == names.iloc[0]
    start = interval_table(table.loc[first, "accuracy, start"].tolist())
    axes.bar(places[first], start["value"], width=0.82, color="#E6E6E6", label="before training")
    for i, (name, style) in enumerate(looks.items()):
        end = interval_table(table.loc[names == name, "accuracy, end"].tolist())
        shift = (i - (len(looks) - 1) / 2) * min(0.22, 0.7 / len(looks))
        dots(axes, places[names == name] + shift, end, style, name)
    axes.grid(False, axis="x")
    axes.set_xticks(range(len(ticks)), [str(level) for level in ticks])
    shares(axes)
    axes.set_xlabel("level of difficulty")
    axes.set_ylabel("held-out accuracy")
    title(axes, heading)
