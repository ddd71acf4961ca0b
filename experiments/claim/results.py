"""What each method costs and reaches beside GRPO: the claim as numbers, with intervals over seeds.

    python experiments/claim/results.py RUNS --out FILE.json [--page README.md]

RUNS holds runs of several methods on one profile and pool, GRPO among them. With `--page` the
tables also replace what that page has between `<!-- NAME -->` and `<!-- /NAME -->`, NAME being that
of FILE.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from masa.analysis.compare_methods import Method, load_sweep, speedup
from masa.analysis.control import has_gate, has_meta
from masa.analysis.load import Run, RunError
from masa.errors import ConfigError
from masa.markdown import fill_place, markdown_table
from masa.statistics import Estimate, t_mean

BASE = "grpo"
ORACLE = "oracle"
FRACTION = 0.9
"""Share of GRPO's gain in held-out accuracy until which costs are compared."""
SHARES = (0.0, 1.0)

Entry = dict[str, float | None] | None
"""`mean`, `low` and `high`; no bounds for one seed, None where there is no number."""

HEADS = {
    "tokens_ratio": "tokens, grpo / method",
    "seconds_ratio": "seconds, grpo / method",
    "accuracy_difference": "accuracy at the end, less grpo's",
    "gate_precision": "gate precision",
    "gate_recall": "gate recall",
    "meta_share": "predictions' share of tokens",
}
FACTORS: dict[str, tuple[str, tuple[float, float]]] = {
    "zero_variance_share": ("zero variance", SHARES),
    "mixed_per_kilotoken": ("mixed groups per 1,000 tokens", (0.0, inf)),
    "tokens_before_gate": ("tokens before the gate acts", (0.0, inf)),
    "skipped_share": ("skipped", SHARES),
    "signal_kept": ("mixed groups kept, s", SHARES),
    "tokens_kept": ("solution tokens kept, c", SHARES),
    "prediction_cost": ("predictions, o", (0.0, inf)),
    "gain": ("s / (c + o)", (0.0, inf)),
}
"""Of one run: heading, and between which numbers it lies."""
DIFFERENCES = {
    "tokens_ratio": "tokens, other / method",
    "seconds_ratio": "seconds, other / method",
    "accuracy_difference": "accuracy at the end, difference",
    "accuracy_difference_at_equal_tokens": "accuracy at equal tokens, difference",
}


def entry(estimate: Estimate) -> Entry:
    """An estimate as JSON has it."""
    values = {"mean": estimate.value, "low": estimate.low, "high": estimate.high}
    if isnan(estimate.value):
        return None
    return {name: None if isnan(x) else float(f"{x:.5g}") for name, x in values.items()}


# --- one run


def known(run: Run) -> pd.DataFrame:
    """Training prompts that were rolled out in full, and `weight`, how many each stands for. None
    where prompts of some kind had no chance to be."""
    rows = run.train_prompts
    audits = run.config["algorithm"]["control"]["audit_fraction"]
    rows = rows[(rows["evidence_weight"] > 0) & (audits > 0 or not rows["skipped"].any())]
    mixed = (rows["correct"] > 0) & (rows["correct"] < rows["samples"])
    return rows.assign(weight=rows["evidence_weight"], mixed=mixed)


def share(part: pd.Series, of: pd.Series) -> float:
    """Sum of one over sum of the other; NaN for none."""
    return float(part.sum() / of.sum()) if of.sum() else nan


def of_run(run: Run) -> dict[str, float]:
    """Of a run: what its gate was worth on prompts that were rolled out whatever it said, and the
    factors of its cost. NaN where there is none."""
    rows, train = known(run), run.rollouts[run.rollouts["split"] == "train"]
    weight, tokens = rows["weight"], run.metrics.set_index("step")["tokens"]
    prompts = run.train_prompts
    mixed = ((prompts["correct"] > 0) & (prompts["correct"] < prompts["samples"])).sum()
    values = dict.fromkeys([*HEADS, *FACTORS], nan) | {
        "meta_share": share(train["tokens"] * (train["kind"] == "meta"), train["tokens"]),
        "zero_variance_share": share(weight * ~rows["mixed"], weight),
        "mixed_per_kilotoken": 1000 * float(mixed / train["tokens"].sum()),
    }
    acts = prompts[prompts["gate_active"]]
    if not has_gate(run) or acts.empty:
        return values
    rows = rows[rows["gate_active"]]
    weight, skip = rows["weight"], rows["would_skip"].astype(bool)
    hit = weight * (skip & ~rows["mixed"])
    in_action = train[train["gate_active"]]
    cost = weight * rows["tokens"]
    kept, spared = share(weight * (rows["mixed"] & ~skip), weight * rows["mixed"]), cost * ~skip
    values |= {
        "tokens_before_gate": float(tokens[tokens.index < acts["step"].min()].max()),
        "skipped_share": float(acts["skipped"].mean()),
        "gate_precision": share(hit, weight * skip),
        "gate_recall": share(hit, weight * ~rows["mixed"]),
        "signal_kept": kept,
        "tokens_kept": share(spared, cost),
    }
    if cost.sum():
        meta = in_action.loc[in_action["kind"] == "meta", "tokens"].sum()
        values["prediction_cost"] = float(meta / cost.sum())
        values["gain"] = kept / (values["tokens_kept"] + values["prediction_cost"])
    return values


def without_zero_variance(run: Run) -> Run:
    """The same run, had the groups that it could not learn from cost nothing."""
    prompts = run.train_prompts
    mixed = (prompts["correct"] > 0) & (prompts["correct"] < prompts["samples"])
    spent = (prompts["tokens"] * mixed).groupby(prompts["step"]).sum()
    tokens = run.metrics["step"].map(spent).fillna(0).cumsum()
    return replace(run, metrics=run.metrics.assign(tokens=tokens))


# --- methods, paired by seed


Pairs = Sequence[tuple[Run, Run]]


def differences(pairs: Pairs, accuracy: Callable[[Run], float]) -> Estimate:
    """Mean difference in accuracy over pairs (method, other)."""
    return t_mean([accuracy(mine) - accuracy(other) for mine, other in pairs])


def at_end(pairs: Pairs) -> Estimate:
    """Of held-out accuracy at the last validation that all runs have."""
    runs = [run for pair in pairs for run in pair]
    steps = set.intersection(*(set(run.validations["step"]) for run in runs))
    return differences(pairs, lambda run: float(np.interp(max(steps), *run.curve("step"))))


def at_equal_tokens(pairs: Pairs) -> Estimate:
    """Where all runs have spent what the cheapest had at its end."""
    budget = min(float(run.curve("tokens")[0][-1]) for pair in pairs for run in pair)
    return differences(pairs, lambda run: float(np.interp(budget, *run.curve("tokens"))))


def against(mine: Method, other: Method, base: Method) -> dict[str, Entry]:
    """Costs and accuracy of a method beside another one, on the seeds that they and the baseline
    have."""
    by_seed = [{run.seed: run for run in method.runs} for method in (mine, other, base)]
    seeds = sorted(set.intersection(*map(set, by_seed)))
    if not seeds:
        return dict.fromkeys(DIFFERENCES, None)
    pairs = [(by_seed[0][seed], by_seed[1][seed]) for seed in seeds]
    goal_of = [by_seed[2][seed] for seed in seeds]
    cells = {f"{c}_ratio": speedup(pairs, c, FRACTION, goal_of) for c in ("tokens", "seconds")}
    cells["accuracy_difference"] = at_end(pairs)
    cells["accuracy_difference_at_equal_tokens"] = at_equal_tokens(pairs)
    return {name: entry(estimate) for name, estimate in cells.items()}


def results(methods: Sequence[Method]) -> dict[str, Any]:
    """All numbers of the methods, GRPO among them.

    Raises:
        RunError: GRPO is not among them, or they are of several profiles or pools.
    """
    by_name = {method.label: method for method in methods}
    if BASE not in by_name:
        raise RunError(f"no run of {BASE}, but of {', '.join(by_name)}")
    runs = [run for method in methods for run in method.runs]
    tasks = {
        (task.get("profile"), task["train_size"])
        for task in (run.config["task"]["config"] for run in runs)
    }
    if len(tasks) > 1:
        raise RunError(f"the runs are of several profiles or pools: {sorted(map(str, tasks))}")
    profile, pool = tasks.pop()
    base = by_name[BASE]
    measured = {run: of_run(run) for run in runs}

    def mean(method: Method, name: str) -> Entry:
        within = FACTORS[name][1] if name in FACTORS else SHARES
        return entry(t_mean([measured[run][name] for run in method.runs], within=within))

    cells: dict[str, dict[str, Entry]] = {}
    for name, method in by_name.items():
        if method is not base:
            compared = against(method, base, base)
            cells[name] = {key: compared.get(key) or mean(method, key) for key in HEADS}
    ours = [m for m in methods if has_gate(m.runs[0]) and has_meta(m.runs[0])]
    rivals = [m for m in methods if m not in (*ours, base) and m.label != ORACLE]
    bound = [(without_zero_variance(run), run) for run in base.runs]
    return {
        "seeds": len(base.runs),
        "commit": origin(runs, "commit"),
        "profile": profile,
        "pool": pool,
        "machine": origin(runs, "device"),
        "methods": {name: cell for name, cell in cells.items() if name != ORACLE},
        "oracle": cells.get(ORACLE),
        "without_zero_variance": {"tokens_ratio": entry(speedup(bound, "tokens", FRACTION))},
        "factors": {
            name: {"seeds": len(method.runs)} | {key: mean(method, key) for key in FACTORS}
            for name, method in by_name.items()
        },
        "differences": {
            mine.label: {other.label: against(mine, other, base) for other in rivals}
            for mine in ours
        },
    }


def origin(runs: Sequence[Run], fact: str) -> str | None:
    """What the runs recorded, each value once; None where one recorded nothing."""
    recorded = [[facts.get(fact) for facts in run.environments] or [None] for run in runs]
    values = {value for of_run in recorded for value in of_run}
    return None if None in values else ", ".join(sorted(map(str, values)))


# --- as tables


def cell(value: Any) -> str:
    """An entry, a number or nothing as text."""
    if not isinstance(value, Mapping):
        return "–" if value is None else str(value)
    style = ",.0f" if abs(value["mean"]) >= 1000 else ".3f" if abs(value["mean"]) < 1 else ".2f"
    text = f"{value['mean']:{style}}"
    if value["low"] is None:
        return text
    return f"{text} [{value['low']:{style}}, {value['high']:{style}}]"


def table(rows: Mapping[str, Mapping[str, Any]], heads: Mapping[str, str]) -> str:
    """One row per name."""
    lines = [["method", *heads.values()]]
    lines += [[name, *(cell(row[key]) for key in heads)] for name, row in rows.items()]
    return markdown_table(lines)


def page(numbers: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    claim = dict(numbers["methods"]) | ({ORACLE: numbers["oracle"]} if numbers["oracle"] else {})
    versus = {
        f"{mine}, {other}": row
        for mine, others in numbers["differences"].items()
        for other, row in others.items()
    }
    factors = {"seeds": "seeds"} | {name: head for name, (head, _) in FACTORS.items()}
    bound = cell(numbers["without_zero_variance"]["tokens_ratio"])
    parts = [
        f"Profile {numbers['profile']}, a pool of {numbers['pool']:,} prompts, "
        f"{numbers['seeds']} seeds; "
        f"{numbers['machine'] or 'machine not recorded'}; "
        f"trained at {numbers['commit'] or 'a commit not recorded'}. "
        "Brackets: 95 % intervals over seeds.",
        table(claim, HEADS),
        f"Ratios: cost of grpo over cost of the method until {FRACTION * 100:.0f} % of grpo's "
        "gain, above 1 is cheaper; no brackets: without one seed there is no ratio. Precision and "
        "recall: on prompts rolled out whatever the gate said, each weighted with the inverse of "
        "its chance to be. Had groups of zero variance "
        f"cost nothing, grpo's ratio in tokens would be {bound}.",
        "What the ratios are made of:",
        table(numbers["factors"], factors),
        "Zero variance: share of the prompts that were drawn (those of a sampler: that it chose). "
        "The rest but the tokens and the mixed groups: while the gate acts; c and o are shares of "
        "the solution tokens without a gate, s / (c + o) is how much more signal a token buys.",
    ]
    if versus:
        parts += [
            "Beside the other methods, paired by seed:",
            table(versus, DIFFERENCES),
        ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="directories with runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--page", type=Path, help="page with the marks of the file's name")
    args = parser.parse_args()
    try:
        numbers = results(load_sweep(*args.runs))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(numbers, indent=1) + "\n")
        text = page(numbers)
        print(text)
        if args.page:
            fill_place(args.page, args.out.stem, text)
    except (RunError, ConfigError) as error:
        parser.exit(1, f"results.py: {error}\n")


if __name__ == "__main__":
    main()
