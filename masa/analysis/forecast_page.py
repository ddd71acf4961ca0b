"""A forecast as a page, a figure, plain data and a few lines for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from masa.analysis.forecast import KINDS, RunForecast, Shares
from masa.analysis.page import grid, section, write_page
from masa.analysis.theme import INK, LINES, MUTED, TRUE, canvas, look, save, title
from masa.statistics import Estimate

_FEW = 30
"""Mixed groups below which intervals are wide."""
_SHADES = ("#0B3C66", "#2171A8", "#5B9BC8", "#9EC9E6")

OUTCOMES = (
    "Prompts that were rolled out in full, each weighted with the inverse of its chance to be. All "
    "right, all wrong: no solution has an advantage. Brackets, here and below: 95 % bootstrap over "
    "prompts."
)
BOUNDS = (
    "Cheaper: how many times fewer tokens a mixed group takes, predictions included: the share of "
    "mixed groups kept over the sum of the share of tokens kept and the overhead. A gate that "
    "knows each pass rate p skips by the probability 1 - p^G - (1 - p)^G of a mixed group over its "
    "tokens, at the best threshold that keeps 75 % of the mixed groups. Pass rates are not those "
    "counted, as 0 right of 8 need not mean 0: their distribution is the one under which the "
    "counts are most likely, a mixture of binomials on a grid, fitted again to 200 resamples for "
    "the interval."
)
GATES = (
    "Break even: precision from which on a gate pays, 1 where none does. Highest: precision of a "
    "gate that knows each pass rate, at this recall. Cheaper: as above, of a gate that skips all "
    "right and all wrong groups alike; 0 where it would skip every mixed group."
)
CUTOFF = (
    "Recorded solutions cut after the fact; savings are shares of all solution tokens. The last "
    "limit is a bound. What a cutoff saves outside of mixed groups a gate saves as well."
)
REFILL = (
    "The gate has precision {precision:g} and recall {recall:g}. Refill draws other prompts for "
    "the places of skipped ones, up to {draws:g} draws: a rollout keeps its size and trains on "
    "more mixed groups, each of which costs the same."
)
FIGURE = (
    "How many times cheaper a mixed group is, against the zero-variance share, at a recall of "
    "{recall:g} and predictions that take {overhead:.2f} of the solution tokens. Zero-variance and "
    "mixed groups cost what they do in this run. Dots: this run; grey: 95 % interval of its share. "
    "Below the dashed line a gate makes learning dearer."
)


def write_forecast(forecast: RunForecast, out: Path) -> tuple[Path, str]:
    """Write forecast.md, forecast.html, forecast.json and figures/forecast.png into `out`.

    Returns:
        The path of forecast.md, and what the terminal shows of it.
    """
    sentences = [conclusion(forecast), *notes(forecast)]
    tables = {
        "outcomes": forecast.outcomes(),
        "bounds": forecast.bounds(),
        "gates": forecast.gates(),
        "cutoff": forecast.cutoff(),
        "refill": forecast.refill(),
    }
    shown = {name: grid(_with_words(table)) for name, table in tables.items()}
    with look():
        save(figure(forecast), out / "figures" / "forecast.png")
    caption = FIGURE.format(recall=forecast.assumed.recall, overhead=forecast.overhead)
    refill = REFILL.format(
        precision=forecast.assumed.precision,
        recall=forecast.assumed.recall,
        draws=forecast.max_draws,
    )
    gates = f"Real gates, at an overhead of {forecast.overhead:.2f}"
    parts = [
        f"# Forecast for {forecast.run.name}",
        *sentences[:1],
        f"![forecast](figures/forecast.png)\n\n*{caption}*",
        "\n".join(f"- {note}" for note in sentences[1:]),
        *section("What the first rollouts show", shown["outcomes"], OUTCOMES),
        *section("Bounds of a gate", shown["bounds"], BOUNDS),
        *section(gates, shown["gates"], GATES),
        *section("Length cutoff", shown["cutoff"], CUTOFF),
        *section("Refill", shown["refill"], refill),
    ]
    path = write_page(parts, out, "forecast")
    data = {
        "run": str(forecast.run.path),
        "rollouts": forecast.rollouts,
        "groups": len(forecast.groups),
        "prompts": int(forecast.groups["prompt_id"].nunique()),
        "group_size": forecast.group_size,
        "overhead": forecast.overhead,
        "conclusion": sentences[0],
        "notes": sentences[1:],
        **{name: table.to_dict("records") for name, table in tables.items()},
    }
    text = json.dumps(_plain(data), indent=1, allow_nan=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    console = (
        shown["outcomes"],
        shown["bounds"],
        f"{gates}:",
        shown["gates"],
        "\n".join(sentences),
    )
    return path, "\n\n".join(console)


def _with_words(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns=lambda name: name.replace("_", " "))


def _plain(value: Any) -> Any:
    """For JSON: estimates as value, low and high; NaN as null."""
    if isinstance(value, Estimate):
        return {name: _plain(getattr(value, name)) for name in ("value", "low", "high")}
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and isnan(value) else value


def conclusion(forecast: RunForecast) -> str:
    """In one or two sentences: whether a gate pays."""
    recall, precision = forecast.assumed.recall, forecast.assumed.precision
    constant, cost = (
        float(part[0]) for part in (forecast.shares.constant, forecast.shares.constant_tokens)
    )
    if not constant:
        return "No gate pays here: every group is mixed, so that there is nothing to skip."
    needed, gain = forecast.break_even(recall), forecast.cheaper(precision, recall)
    if needed.value >= 1:
        return (
            f"No gate of recall {recall:g} pays here: the zero-variance groups that it could skip "
            f"take {recall * cost:.2f} of the solution tokens, predictions {forecast.overhead:.2f}."
        )
    known = forecast.shares.cheaper(1, 1, forecast.overhead)[0]
    text = (
        f"At a recall of {recall:g} a gate pays here only above a precision of "
        f"{needed.value:.2f} (between {needed.low:.2f} and {needed.high:.2f}); at {precision:g} it "
    )
    if gain.value > 1:
        text += (
            f"makes a mixed group {gain.value:.1f} times cheaper (between {gain.low:.1f} and "
            f"{gain.high:.1f}; one that knows the outcome: {known:.1f})."
        )
    else:
        text += f"makes a mixed group dearer still ({gain.value:.2f} times cheaper)."
    highest = forecast.highest_precision(recall)
    if not isnan(highest.value):
        text += (
            f" A gate that knew every pass rate would have a precision of {highest.value:.2f} at "
            f"this recall (between {highest.low:.2f} and {highest.high:.2f})."
        )
    return text


def notes(forecast: RunForecast) -> Iterator[str]:
    """From what the forecast was computed, and what to beware of."""
    groups, considered = forecast.groups, forecast.considered
    yield (
        f"From {len(groups)} groups of {forecast.group_size} solutions to "
        f"{groups['prompt_id'].nunique()} prompts, in the first {forecast.rollouts} rollouts."
    )
    mixed = int((groups["kind"] == "mixed").sum())
    if mixed < _FEW:
        yield f"Only {mixed} of them are mixed: intervals are wide, more rollouts narrow them."
    if forecast.assumed.overhead is None:
        known = forecast.measured_overhead
        yield (
            f"Predictions take {forecast.overhead:.2f} of the solution tokens of all prompts"
            f"{', as in this run' if known else ', which is assumed, as this run has none'}."
        )
    config = forecast.run.config
    if considered["active"].any():
        yield (
            f"Gate or cutoff acted: of {len(considered)} prompts those count that were rolled out "
            "in full, each for as many as its chance to be says."
        )
    if config["algorithm"].get("dynamic_sampling"):
        yield (
            "Dynamic sampling drew until enough groups were mixed: all that were drawn count, also "
            "those that were left out of the training. A gate makes its draws cheaper."
        )
    sampler = str((config.get("sampler") or {}).get("_target_", ""))
    if sampler and not sampler.endswith(".ShuffledEpochs"):
        yield (
            f"{sampler.rpartition('.')[2]} chose the prompts: shares are those of its choice, not "
            "of the data."
        )
    if not forecast.verdicts:
        yield (
            "Scores are no verdicts: a group counts as mixed where its scores differ. Pass rates "
            "do not say whether they do, so nothing is computed from them."
        )
    trained = forecast.trained_all_the_same
    if trained > 0:
        yield (
            f"In {trained:.0%} of the zero-variance groups rewards differ, by task.rewards or the "
            "penalty of overlong answers: these teach something that a gate loses."
        )


def figure(forecast: RunForecast) -> Figure:
    """How much cheaper a mixed group is against the zero-variance share."""
    picture = canvas(4.6)
    axes = picture.subplots()
    recall, overhead, here = forecast.assumed.recall, forecast.overhead, forecast.shares
    share = np.linspace(0.001, 0.995, 400)
    shares, run_share = _at(here, share), float(here.constant[0])
    interval = forecast.estimate(lambda shares: shares.constant)
    axes.axvspan(interval.low, interval.high, color=MUTED, alpha=0.15, linewidth=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = [("knows the outcome", TRUE, "-", 1.0, 1.0)]
        for i, precision in enumerate(sorted(forecast.assumed.precisions, reverse=True)):
            colour, line = _SHADES[i % len(_SHADES)], LINES[i % len(LINES)]
            drawn.append((f"precision {precision:g}", colour, line, precision, recall))
        for label, colour, line, precision, share_found in drawn:
            height = shares.cheaper(precision, share_found, overhead)
            axes.plot(share, height, color=colour, linestyle=line, label=label)
            dot = here.cheaper(precision, share_found, overhead)[0]
            axes.plot(run_share, dot, "o", color=colour, markeredgecolor="white", markersize=7)
    rates = forecast.estimate_of_rates(lambda mixture: mixture.best_gate(overhead)["cheaper"])
    if not isnan(rates.value):
        axes.plot(run_share, rates.value, "*", color=INK, markersize=12, linestyle="none",
                  markeredgecolor="white", label="knows each pass rate")  # fmt: skip
    axes.axhline(1, color=INK, linestyle=(0, (5, 4)), linewidth=1.2)
    axes.set_yscale("log", base=2)
    axes.set_ylim(0.4, 10)
    axes.set_yticks([0.5, 1, 2, 4, 8])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0, 1)
    axes.set_xlabel("zero-variance share of the groups")
    axes.set_ylabel("times cheaper per mixed group")
    title(axes, "What a gate saves")
    return picture


def _at(here: Shares, constant: np.ndarray) -> Shares:
    """Shares where the zero-variance share is another [B], and groups cost what they do here."""
    last = KINDS.index("mixed")
    each = float(here.constant_tokens[0] / here.constant[0]) if here.constant[0] else 1.0
    mixed = float(here.tokens[0, last] / here.prompts[0, last])
    tokens = constant * each / (constant * each + (1 - constant) * mixed)
    # how it splits into all right and all wrong does not matter here
    parts = (np.stack([part, 0 * part, 1 - part], axis=1) for part in (constant, tokens))
    return Shares(*parts)
