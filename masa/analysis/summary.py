"""The first screen of a report: did it learn, did predictions come true, what did they save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isnan, nan

import numpy as np

from masa.analysis.compare_methods import Method
from masa.analysis.control import (
    gate_evidence,
    gate_share,
    has_meta,
    precision_recall,
    solution_tokens,
)
from masa.analysis.load import Run
from masa.statistics import Estimate, bootstrap_mean, t_mean

SHARE = (0.0, 1.0)


def summary(methods: Sequence[Method]) -> str:
    """The three questions, each with an answer per method, as Markdown."""
    questions: tuple[tuple[str, Callable[[Method], str]], ...] = (
        ("Did it learn?", _learned),
        ("Did its predictions come true?", _came_true),
        ("What did they save?", _saved),
    )
    parts = []
    for question, answer in questions:
        lines = [f"- {method.label}: {answer(method)}" for method in methods]
        parts.append("\n".join([f"**{question}**\n", *lines]))
    return "\n\n".join(parts)


def _over_seeds(
    method: Method, number: Callable[[Run], Estimate], within: tuple[float, float] = (-inf, inf)
) -> Estimate:
    """Of one run its own interval, of several that over seeds."""
    estimates = [number(run) for run in method.runs]
    return estimates[0] if len(estimates) == 1 else t_mean([e.value for e in estimates], within)


def _learned(method: Method) -> str:
    if not all(len(run.validations) for run in method.runs):
        return "not known, as nothing was validated."
    if any(run.ends[0] == run.ends[1] for run in method.runs):
        return "not known, as it was validated once."
    change = _over_seeds(method, accuracy_change)
    start = _over_seeds(method, lambda run: run.validations["accuracy"].iloc[0], SHARE)
    end = _over_seeds(method, lambda run: run.validations["accuracy"].iloc[-1], SHARE)
    word = "yes" if change.low > 0 else "no, it got worse" if change.high < 0 else "not shown"
    return (
        f"{word}. Held-out accuracy went from {start.value:.3f} to {end.value:.3f} in "
        f"{method.runs[0].ends[1]} rollouts, a change of {_signed(change)}."
    )


def accuracy_change(run: Run) -> Estimate:
    """Last less first held-out accuracy, paired per prompt."""
    start, end = map(run.held_out, run.ends)
    change = (end["pass_rate"] - start["pass_rate"]).dropna()
    return bootstrap_mean(change, change.index)


def _came_true(method: Method) -> str:
    if not any(map(has_meta, method.runs)) and not any(run.predicts for run in method.runs):
        return "it made none."
    if not all(run.predicts for run in method.runs):
        return "not known, as those about held-out prompts were not measured."
    better = _over_seeds(method, better_than_constant)
    corr = _over_seeds(method, lambda run: run.validations["corr"].iloc[-1], (-1.0, 1.0))
    mae = _over_seeds(method, lambda run: run.validations["mae"].iloc[-1], SHARE)
    word = "yes" if better.low > 0 else "no" if better.high < 0 else "not shown"
    return (
        f"{word}. At the end predicted and true pass rates of held-out prompts correlate with "
        f"{corr}; they are {mae.value:.3f} apart on average, and one number for all prompts "
        f"{mae.value + better.value:.3f}: a gain of {_signed(better)}."
    )


def better_than_constant(run: Run) -> Estimate:
    """Mean error of the best single number, the median of the true pass rates, less that of the
    predictions, on the held-out prompts of the last validation that have one."""
    rows = run.held_out(run.ends[1])
    rows = rows[rows["predicted"].notna()]
    actual = rows["pass_rate"]
    gained = (actual - actual.median()).abs() - (rows["predicted"] - actual).abs()
    return bootstrap_mean(gained, rows.index) if len(rows) else Estimate(nan)


def _saved(method: Method) -> str:
    acted = [run for run in method.runs if bool(run.train_prompts["active"].any())]
    if not acted:
        return "nothing, as neither gate nor cutoff was active."
    active = Method(method.label, acted, method.family)
    some = f" ({len(acted)} of {len(method.runs)} seeds; in the others neither was)"
    skipped = _over_seeds(active, lambda run: gate_share(run, "active", "skipped"), SHARE)
    saved = _over_seeds(active, saved_share)
    cost = _over_seeds(active, prediction_share)
    precision = _over_seeds(active, _precision, SHARE)
    net = saved.value - cost.value
    balance = ""
    if not isnan(net):
        word = "less" if net > 0 else "more"
        balance = f", which makes {100 * abs(net):.0f} % {word} per prompt than without them"
    gated = any(run.train_prompts["gate_active"].any() for run in acted)
    skips = f"skipped {_percent(skipped)} of the prompts and " if gated else ""
    right = (
        f" Of the prompts that would be skipped {_percent(precision)} had nothing to learn from "
        "(audited ones)."
    )
    return (
        f"while active{some if len(acted) < len(method.runs) else ''} they {skips}saved "
        f"{_percent(saved)} of the solution tokens; predictions cost {_percent(cost)} of these"
        f"{balance}.{right if gated else ''}"
    )


def saved_share(run: Run) -> Estimate:
    """Share of the solution tokens that gate and cutoff saved while active."""
    spent, in_full = solution_tokens(run, "active")
    return Estimate(1 - spent.value / in_full.value if in_full.value else nan)


def prediction_share(run: Run) -> Estimate:
    """Tokens of predictions over the solution tokens of all prompts, while gate or cutoff were
    active."""
    prompts = run.train_prompts
    active = prompts.loc[prompts["active"], ["step", "prompt_id"]]
    rows = run.rollouts
    meta = rows[(rows["split"] == "train") & (rows["kind"] == "meta")].merge(active)
    in_full = solution_tokens(run, "active")[1].value
    return Estimate(meta["tokens"].sum() / (len(active) * in_full) if in_full else nan)


def _precision(run: Run) -> Estimate:
    rows = gate_evidence(run)
    return precision_recall(rows[rows["gate_active"]])[0]


def _signed(estimate: Estimate) -> str:
    low, high = estimate.low, estimate.high
    bounds = "" if isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
    return f"{estimate.value:+.3f}{bounds}"


def _percent(estimate: Estimate) -> str:
    values = np.array([estimate.value, estimate.low, estimate.high]) * 100
    if isnan(values[0]):
        return "an unknown share"
    bounds = "" if isnan(values[1]) else f" [{values[1]:.0f}, {values[2]:.0f}]"
    return f"{values[0]:.0f} %{bounds}"
