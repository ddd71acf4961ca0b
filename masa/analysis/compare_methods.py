"""Methods instead of runs: one value per training seed, intervals and tests over seeds.

Intervals are Student's t over seeds; tests are paired by seed. What is measured on held-out prompts
is averaged over them first, so an interval covers both the seeds and the rollouts of each run.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from math import exp, inf, isnan, log, nan
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from masa.analysis.load import COSTS, Run, RunError, find_runs, load_finished, run_labels
from masa.analysis.tables import NOT_REACHED, crossing, with_holm
from masa.layout_settings import KEPT, LAYOUT
from masa.markdown import in_one_line
from masa.old_settings import as_of_now
from masa.statistics import (
    Estimate,
    clustered_wilson,
    jackknife,
    paired_t_test,
    t_mean,
    t_quantile,
)

_SETTINGS = ("algorithm", "optimizer", "task", "model", "trainer", "sampler")
_PER_RUN = ("run", "method", "seed", "prompts", "held-out prompts", "pairs")
_SHARES = {
    "accuracy", "actual", "predicted", "mae", "pass-rate MAE", "predicted pass rate",
    "true pass rate", "meta share of tokens", "mixed groups kept", "solution tokens kept",
    "accuracy of skipped", "gate F1", "R2", "R2 share",
}  # fmt: skip
BUDGETS = ("step", *COSTS)
TARGETS = (0.9, 1.0)


@dataclass(eq=False)
class Method:
    """Runs that differ in nothing but their seed."""

    label: str
    """`algorithm.name`, and where that is not enough the settings in which it differs from
    others."""
    runs: list[Run]
    """By seed."""
    family: str
    """Methods of one family have one colour."""

    @property
    def seeds(self) -> list[int]:
        """Training seeds."""
        return [run.seed for run in self.runs]

    @property
    def validated(self) -> bool:
        """True where every seed has a validation."""
        return all(len(run.validations) for run in self.runs)


def load_sweep(*paths: Path | str) -> list[Method]:
    """The finished runs in and below `paths`, by method; a warning names the others.

    Raises:
        RunError: as `find_runs`, `load_finished` and `group_runs`.
    """
    runs, unfinished = load_finished(find_runs(paths))
    if unfinished:
        warnings.warn(f"left out, not finished: {'; '.join(unfinished)}", stacklevel=2)
    return group_runs(runs)


def group_runs(runs: Sequence[Run]) -> list[Method]:
    """Runs of equal settings together, in order of first appearance.

    Raises:
        RunError: two runs have the same settings and the same seed.
    """
    alike: list[list[Run]] = []
    for same in _alike(runs, ignored=LAYOUT):
        # one that was resumed with smaller micro-batches is a seed like the others
        distinct = len({run.seed for run in same}) == len(same)
        alike += [same] if distinct else _alike(same)
    methods = []
    for same in alike:
        same.sort(key=lambda run: run.seed)
        for one, other in pairwise(same):
            if one.seed == other.seed:
                raise RunError(
                    f"{one.path} and {other.path} are the same method and seed: name one of them"
                )
        methods.append(Method(same[0].method, same, same[0].method))
    for name in dict.fromkeys(method.label for method in methods):
        variants = [method for method in methods if method.label == name]
        if len(variants) > 1:
            for method, (_, row) in zip(variants, varied(variants).iterrows(), strict=True):
                values = {key: in_one_line(str(value), 40) for key, value in row.items()}
                method.label += "".join(f", {key}={value}" for key, value in values.items())
                method.family = method.label
    return methods


def _alike(runs: Sequence[Run], ignored: Collection[str] = ()) -> list[list[Run]]:
    """Runs of equal settings together, those in `ignored` left out."""
    alike: list[tuple[dict[str, Any], list[Run]]] = []
    for run in runs:
        settings = {k: v for k, v in method_settings(run).items() if k not in ignored}
        same = next((same for theirs, same in alike if theirs == settings), None)
        if same is None:
            alike.append((settings, [run]))
        else:
            same.append(run)
    return [same for _, same in alike]


def single_runs(runs: Sequence[Run]) -> list[Method]:
    """Every run as a method of one seed."""
    labelled = zip(runs, run_labels(runs), strict=True)
    return [Method(label, [run], run.method) for run, label in labelled]


def baseline_index(methods: Sequence[Method], name: str | None = None) -> int:
    """Index of the method to compare with.

    The one called `name`, else the one that the sweep's `sweep.baseline` names, else grpo, else
    the first.

    Raises:
        RunError: no method is called so, or the runs are of sweeps with other baselines.
    """
    labels = [method.label for method in methods]
    if name is None:
        named = {run.baseline for method in methods for run in method.runs} - {None}
        if len(named) > 1:
            several = ", ".join(sorted(map(str, named)))
            raise RunError(f"the sweeps have several baselines ({several}): choose a baseline")
        name = named.pop() if named else None
    if name is not None and name not in labels:
        raise RunError(f"no method is called {name}; choose a baseline of {', '.join(labels)}")
    return labels.index(name or ("grpo" if "grpo" in labels else labels[0]))


def varied(methods: Sequence[Method]) -> pd.DataFrame:
    """The settings in which the methods differ, one row per method; columns are shortened keys."""
    table = pd.DataFrame([method_settings(method.runs[0]) for method in methods], dtype=object)
    table = table.where(table.notna(), None).drop(columns="algorithm.name", errors="ignore")
    differing = [name for name in table if table[name].map(repr).nunique() > 1]
    tails = pd.Series([name.rpartition(".")[2] for name in differing], dtype=object)
    short = [
        name.split(".", 1)[1] if again else tail
        for name, tail, again in zip(differing, tails, tails.duplicated(keep=False), strict=True)
    ]
    return table[differing].set_axis(short, axis=1)


def method_settings(run: Run) -> dict[str, Any]:
    """Flat settings that make a method, without the seed, and without those that are null: a
    setting that came later is null where it changes nothing."""
    flat = as_of_now(_flat({section: run.config.get(section) for section in _SETTINGS}))
    return {name: v for name, v in flat.items() if v is not None and name not in KEPT}


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix[1:]: node}
    parts = (_flat(value, f"{prefix}.{name}") for name, value in node.items())
    return {name: value for part in parts for name, value in part.items()}


def over_seeds(
    methods: Sequence[Method],
    per_run: Callable[[Sequence[Run]], pd.DataFrame],
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """A table with one row per run as one with one row per method (and value of `by`).

    Counted shares are pooled, with a Wilson interval at the effective size over seeds and Student's
    quantile; other numbers are means over seeds with a t interval.
    """
    rows: list[dict[str, object]] = []
    for method in methods:
        table = per_run(method.runs)
        if table.empty:
            continue
        for key, part in table.groupby(list(by), sort=False) if by else [((), table)]:
            row: dict[str, object] = {"method": method.label, **dict(zip(by, key, strict=True))}
            row["seeds"] = len(method.runs)
            for name in part.columns.difference([*_PER_RUN, *by], sort=False):
                row[name] = _pooled(part[name].tolist(), len(method.runs), limits(name))
            rows.append(row)
    return pd.DataFrame(rows)


def limits(column: str) -> tuple[float, float]:
    """Between which numbers the quantity of a column lies."""
    if re.search(r"\bcorr\b", column):
        return -1.0, 1.0
    return (0.0, 1.0) if column.partition(",")[0] in _SHARES else (-inf, inf)


def _pooled(
    cells: Sequence[Any], seeds: int, within: tuple[float, float] = (-inf, inf)
) -> Estimate | int:
    if len(set(map(repr, cells))) == 1 and isinstance(cells[0], int | np.integer):
        return int(cells[0])
    estimates = [c if isinstance(c, Estimate) else Estimate(float(c)) for c in cells]
    known = [e for e in estimates if not isnan(e.value)]
    values = [e.value for e in known]
    pooled = t_mean(values, within=within)
    if known and all(e.hits is not None for e in known):
        hits, n = [e.hits or 0 for e in known], [e.n or 0 for e in known]
        pooled = Estimate(sum(hits) / sum(n), hits=sum(hits), n=sum(n))
        if len(known) > 1:
            pooled = clustered_wilson(hits, n, t_quantile(len(known)))
    large = any(abs(value) >= 100 for value in values)
    note = "" if not known or 1 < len(known) == seeds else f"{len(known)} of {seeds} seeds"
    return replace(pooled, digits=0 if large else 3, note="one seed" if seeds == 1 else note)


class HasCurve(Protocol):
    """A run, or what is kept of one."""

    def curve(self, cost: str) -> tuple[np.ndarray, np.ndarray]:
        """Held-out accuracy against `cost` at each validation: x [V], y [V]."""


def mean_curve(runs: Sequence[HasCurve], cost: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean cost and mean accuracy over runs, at the steps that all of them validated."""
    steps = [run.curve("step")[0] for run in runs]
    shared = reduce(np.intersect1d, steps)
    pairs = [run.curve(cost) for run in runs]
    kept = [np.isin(of_run, shared) for of_run in steps]
    xs, ys = ([side[k] for side, k in zip(sides, kept, strict=True)]
              for sides in zip(*pairs, strict=True))  # fmt: skip
    return np.mean(xs, axis=0), np.mean(ys, axis=0)


def ablation(methods: Sequence[Method], base: int) -> pd.DataFrame:
    """What each method changes in the settings, beside its accuracy after equally many rollouts.

    The difference from the baseline is paired by seed; p is Student's paired t test, and
    Holm-adjusted over the methods.
    """
    table = at_budget(methods, base)
    table = table[table["equal"] == "rollouts"] if len(table) else table
    if table.empty:
        return table
    table = with_holm(table.reset_index(drop=True), "p (paired t)")
    settings = varied(methods).astype(str).reset_index(drop=True)
    results = table.drop(columns=["method", "equal", "budget"])
    return pd.concat([table[["method"]], settings, results], axis=1)


def _shared(method: Method, base: Method) -> list[tuple[Run, Run]]:
    """Pairs of runs with the same seed."""
    theirs = {run.seed: run for run in base.runs}
    return [(run, theirs[run.seed]) for run in method.runs if run.seed in theirs]


def _measured(methods: Sequence[Method], cost: str) -> bool:
    ends = [run.validations[cost] for method in methods for run in method.runs]
    return all(len(end) and np.isfinite(end.to_numpy(float)).all() for end in ends)


def at_budget(methods: Sequence[Method], base: int) -> pd.DataFrame:
    """Held-out accuracy where every run has spent the same: rollouts, tokens, FLOPs, seconds.

    The budget is what the run that ended cheapest had spent; accuracy is linear between
    validations. The difference from the baseline is paired by seed, p is Student's paired t test
    over seeds, and Holm-adjusted over all rows.
    """
    rows: list[dict[str, object]] = []
    runs = [run for method in methods for run in method.runs]
    for cost in BUDGETS:
        if not _measured(methods, cost):
            continue
        budget = min(float(run.validations[cost].iloc[-1]) for run in runs)
        accuracy = {run: float(np.interp(budget, *run.curve(cost))) for run in runs}
        for i, method in enumerate(methods):
            values = [accuracy[run] for run in method.runs]
            row: dict[str, object] = {
                "equal": "rollouts" if cost == "step" else cost,
                "budget": budget,
                "method": method.label,
                "seeds": len(method.runs),
                "accuracy": _pooled(values, len(values), limits("accuracy")),
            }
            pairs = _shared(method, methods[base])
            if i != base and len(pairs) > 1:
                differences = [accuracy[run] - accuracy[other] for run, other in pairs]
                row["difference"] = t_mean(differences)
                row["p (paired t)"] = paired_t_test(differences)
            rows.append(row)
    table = with_holm(pd.DataFrame(rows), "p (paired t)")
    if "difference" in table:
        table["difference"] = [Estimate(nan) if d != d else d for d in table["difference"]]
    return table


def speedups(methods: Sequence[Method], base: int) -> pd.DataFrame:
    """How many times cheaper each method reaches what the baseline reached (above 1: cheaper).

    Targets: shares of the baseline's gain in mean accuracy. Costs are read off the mean curves over
    the seeds that both have, linear between validations. 95 % interval: jackknife over seeds of the
    log ratio, Student's t. No interval where without one seed there is no ratio. Words instead of a
    ratio where the baseline did not gain, and where the method reached the target before training
    or never.
    """
    rows: list[dict[str, object]] = []
    costs = [cost for cost in BUDGETS if _measured(methods, cost)]
    for fraction in TARGETS:
        for i, method in enumerate(methods):
            pairs = _shared(method, methods[base])
            if i == base or not pairs or not costs:
                continue
            reached = _target([other for _, other in pairs], fraction)
            row: dict[str, object] = {
                "target": f"{100 * fraction:.0f} % of the gain ({reached:.3f})",
                "method": method.label,
                "seeds": len(pairs),
            }
            words = _no_ratio(pairs, reached)
            for cost in costs:
                ratio = speedup(pairs, cost, fraction)
                name = "rollouts" if cost == "step" else cost
                row[f"{name}, baseline / method"] = words or ratio
            rows.append(row)
    return pd.DataFrame(rows)


def _no_ratio(pairs: Sequence[tuple[Run, Run]], goal: float) -> str:
    """Why there is no ratio of costs at this target; empty where there is one."""
    runs = [run for run, _ in pairs]
    steps, mine = mean_curve(runs, "step")
    _, theirs = mean_curve([other for _, other in pairs], "step")
    if theirs[-1] <= theirs[0]:
        return "baseline did not gain"
    if mine[0] >= goal:
        return f"reached before training ({mine[0]:.3f})"
    if mine.max() >= goal:
        return ""
    best = t_mean(
        [float(np.interp(steps[mine.argmax()], *run.curve("step"))) for run in runs],
        within=limits("accuracy"),
    )
    return f"{NOT_REACHED} (best {best})"


def _target(base: Sequence[HasCurve], fraction: float) -> float:
    _, y = mean_curve(base, "step")
    # in this form exactly the last value at a fraction of 1
    return float((1 - fraction) * y[0] + fraction * y[-1])


def speedup(
    pairs: Sequence[tuple[HasCurve, HasCurve]],
    cost: str,
    fraction: float,
    goal_of: Sequence[HasCurve] | None = None,
) -> Estimate:
    """The other method's cost over the method's at one target, from pairs (method, other) per seed.

    The target is `fraction` of the gain of the runs `goal_of`, in the order of the pairs, where
    they are named; else the other method is the baseline whose gain it is.
    """

    def log_ratio(seeds: Sequence[int]) -> float:
        chosen = [pairs[i] for i in seeds]
        mine, theirs = ([pair[side] for pair in chosen] for side in (0, 1))
        goal = _target(theirs if goal_of is None else [goal_of[i] for i in seeds], fraction)
        spent = [crossing(*mean_curve(runs, cost), goal) for runs in (theirs, mine)]
        return log(spent[0] / spent[1]) if min(spent) > 0 else nan

    ratio = jackknife(log_ratio, len(pairs))
    if isnan(ratio.value):
        return ratio
    note = "one seed" if len(pairs) == 1 else "no interval: no ratio without one seed"
    return Estimate(
        exp(ratio.value), exp(ratio.low), exp(ratio.high), digits=2,
        note=note if isnan(ratio.low) else "",
    )  # fmt: skip
