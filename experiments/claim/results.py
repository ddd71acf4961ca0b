"""What each method costs and reaches beside GRPO: the claim as numbers, with intervals over seeds.

    python experiments/claim/results.py [RUNS] --out FILE.json [--page README.md] [--short PAGE.md]

RUNS holds runs of several methods on one profile and pool, GRPO among them. What is needed of them
goes into FILE.jsonl, a line per run, beside those that it has; the numbers are of all of them. With
`--page` the tables also replace what that page has between `<!-- NAME -->` and `<!-- /NAME -->`,
NAME being that of FILE, and with `--short` one table of them what another page has there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from run_record import FACTORS, SHARES, Record, by_method, measure, merged, read, write

from masa.analysis.compare_methods import speedup
from masa.analysis.load import RunError
from masa.analysis.tables import crossing
from masa.errors import ConfigError
from masa.markdown import fill_place, markdown_table
from masa.statistics import Estimate, t_mean

BASE = "grpo"
ORACLE = "oracle"
FRACTION = 0.9
"""Share of GRPO's gain in held-out accuracy until which costs are compared."""
FRACTIONS = (0.5, 0.7, 0.8, 0.9)
"""Shares until which tokens and seconds are compared beside it."""
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
DIFFERENCES = {
    "tokens_ratio": "tokens, other / method",
    "seconds_ratio": "seconds, other / method",
    "accuracy_difference": "accuracy at the end, difference",
    "accuracy_difference_at_equal_tokens": "accuracy at equal tokens, difference",
}


# --- methods, paired by seed


Pairs = Sequence[tuple[Record, Record]]


def differences(pairs: Pairs, accuracy: Callable[[Record], float]) -> Estimate:
    """Mean difference in accuracy over pairs (method, other)."""
    return t_mean([accuracy(mine) - accuracy(other) for mine, other in pairs])


def at_end(pairs: Pairs) -> Estimate:
    """Of held-out accuracy at the last validation that all runs have."""
    runs = [run for pair in pairs for run in pair]
    steps = set.intersection(*(set(run.curves["step"]) for run in runs))
    return differences(pairs, lambda run: float(np.interp(max(steps), *run.curve("step"))))


def at_equal_tokens(pairs: Pairs) -> Estimate:
    """Where all runs have spent what the cheapest had at its end."""
    budget = min(float(run.curve("tokens")[0][-1]) for pair in pairs for run in pair)
    return differences(pairs, lambda run: float(np.interp(budget, *run.curve("tokens"))))


def against(
    mine: Sequence[Record], other: Sequence[Record], base: Sequence[Record]
) -> dict[str, Entry]:
    """Costs and accuracy of a method beside another one, on the seeds that they and the baseline
    have."""
    of_seed = [{run.seed: run for run in runs} for runs in (mine, other, base)]
    seeds = sorted(set.intersection(*map(set, of_seed)))
    if not seeds:
        return dict.fromkeys(DIFFERENCES, None)
    pairs = [(of_seed[0][seed], of_seed[1][seed]) for seed in seeds]
    goal_of = [of_seed[2][seed] for seed in seeds]
    cells = {f"{c}_ratio": speedup(pairs, c, FRACTION, goal_of) for c in ("tokens", "seconds")}
    cells["accuracy_difference"] = at_end(pairs)
    cells["accuracy_difference_at_equal_tokens"] = at_equal_tokens(pairs)
    return {name: estimate.rounded() for name, estimate in cells.items()}


def by_share(pairs: Pairs, cost: str) -> dict[str, Entry]:
    """Cost of GRPO over that of the method until each of `FRACTIONS`."""
    return (
        {f"{share:g}": speedup(pairs, cost, share).rounded() for share in FRACTIONS}
        if pairs
        else {}
    )


def by_seed(pairs: Pairs) -> dict[str, Any]:
    """Tokens of GRPO over those of the method until `FRACTION` of the gain of GRPO's run of the
    same seed: of each seed, None where the method never comes there, and their geometric mean."""
    ratios = []
    for run, other in pairs:
        accuracy = other.curve("step")[1]
        goal = accuracy[0] + FRACTION * (accuracy[-1] - accuracy[0])
        spent = [crossing(*each.curve("tokens"), goal) for each in (other, run)]
        ratios.append(spent[0] / spent[1] if min(spent) > 0 else nan)
    logs = t_mean(np.log(ratios).tolist()) if not np.isnan(ratios).any() else Estimate(nan)
    return {
        "seeds": [None if isnan(ratio) else float(f"{ratio:.3g}") for ratio in ratios],
        "mean": Estimate(*np.exp([logs.value, logs.low, logs.high]).tolist()).rounded(),
    }


def mean(runs: Sequence[Record], name: str) -> Entry:
    """A value over the seeds that have it."""
    within = FACTORS[name][1] if name in FACTORS else SHARES
    values = np.array([run.values[name] for run in runs], float)
    return t_mean(values.tolist(), within=within).rounded()


def results(records: Sequence[Record]) -> dict[str, Any]:
    """All numbers of the methods, GRPO among them.

    Raises:
        RunError: GRPO is not among them, or they are of several profiles or pools.
    """
    methods = by_method(records)
    if BASE not in methods:
        raise RunError(f"no run of {BASE}, but of {', '.join(methods)}")
    tasks = {(run.profile, run.pool) for run in records}
    if len(tasks) > 1:
        raise RunError(f"the runs are of several profiles or pools: {sorted(map(str, tasks))}")
    profile, pool = tasks.pop()
    base = methods[BASE]
    cells: dict[str, dict[str, Entry]] = {}
    for name, runs in methods.items():
        if runs is not base:
            compared = against(runs, base, base)
            cells[name] = {
                key: compared[key] if key in compared else mean(runs, key) for key in HEADS
            }
    of_seed = {run.seed: run for run in base}
    beside = {
        name: [(run, of_seed[run.seed]) for run in methods[name] if run.seed in of_seed]
        for name in cells
    }
    ours = [name for name, runs in methods.items() if runs[0].predicts]
    rivals = [name for name in methods if name not in (*ours, BASE, ORACLE)]
    bound = [(run.without_zero_variance(), run) for run in base]
    return {
        "seeds": len(base),
        "commit": origin(run.commits for run in records),
        "profile": profile,
        "pool": pool,
        "machine": origin(run.devices for run in records),
        "methods": {name: cell for name, cell in cells.items() if name != ORACLE},
        "oracle": cells.get(ORACLE),
        "without_zero_variance": {"tokens_ratio": speedup(bound, "tokens", FRACTION).rounded()},
        **{
            f"{cost}_ratio_by_share": {name: by_share(beside[name], cost) for name in cells}
            for cost in ("tokens", "seconds")
        },
        "tokens_ratio_by_seed": {name: by_seed(beside[name]) for name in cells},
        "factors": {
            name: {"seeds": len(runs)} | {key: mean(runs, key) for key in FACTORS}
            for name, runs in methods.items()
        },
        "differences": {
            mine: {other: against(methods[mine], methods[other], base) for other in rivals}
            for mine in ours
        },
    }


def origin(recorded: Iterable[Sequence[str]]) -> str | None:
    """What the runs recorded, each value once; None where one recorded nothing."""
    of_runs = list(recorded)
    return (
        ", ".join(sorted({value for values in of_runs for value in values}))
        if all(of_runs)
        else None
    )


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
        *share_table("tokens", numbers),
        *share_table("seconds", numbers),
        *seed_table(numbers),
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


def short(numbers: Mapping[str, Any]) -> str:
    """The ratios and the accuracy at the end as one table."""
    half = numbers.get("tokens_ratio_by_share", {})
    heads = {
        "tokens to half": "tokens, to 50 %",
        "tokens_ratio": f"tokens, to {FRACTION * 100:.0f} %",
        "seconds_ratio": f"seconds, to {FRACTION * 100:.0f} %",
        "accuracy_difference": HEADS["accuracy_difference"],
    }
    rows = {
        name: row | {"tokens to half": half.get(name, {}).get("0.5")}
        for name, row in (numbers["methods"] | {ORACLE: numbers["oracle"]}).items()
        if row
    }
    return table(rows, heads)


def share_table(cost: str, numbers: Mapping[str, Any]) -> list[str]:
    """The ratios in a cost until several shares of GRPO's gain; nothing where they were not
    computed."""
    ratios = numbers.get(f"{cost}_ratio_by_share", {})
    heads = {f"{share:g}": f"{share * 100:.0f} % of the gain" for share in FRACTIONS}
    rows = {name: row for name, row in ratios.items() if row}
    if not rows:
        return []
    return [f"Until other shares of grpo's gain, {cost}, grpo / method:", table(rows, heads)]


def seed_table(numbers: Mapping[str, Any]) -> list[str]:
    """The ratios in tokens of each seed; nothing where they were not computed."""
    ratios = numbers.get("tokens_ratio_by_seed", {})
    if not ratios:
        return []
    lines = [["method", "of each seed", "geometric mean"]]
    for name, row in ratios.items():
        each = ", ".join("–" if ratio is None else f"{ratio:.2f}" for ratio in row["seeds"])
        lines.append([name, each, cell(row["mean"])])
    return [
        f"Tokens, grpo / method, of each seed until {FRACTION * 100:.0f} % of the gain of grpo's "
        "run of that seed (the first table: until that share of grpo's mean gain, on the mean "
        "curves):",
        markdown_table(lines),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*", help="directories with runs")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--page", type=Path, help="page with the marks of the file's name")
    parser.add_argument("--short", type=Path, help="page with the marks of its short table")
    args = parser.parse_args()
    kept = args.out.with_suffix(".jsonl")
    try:
        records = read(kept) if kept.exists() or not args.runs else []
        records = merged([*records, *(measure(*args.runs) if args.runs else ())])
        numbers = results(records)
        write(kept, records)
        args.out.write_text(json.dumps(numbers, indent=1) + "\n")
        text = page(numbers)
        print(text)
        if args.page:
            fill_place(args.page, args.out.stem, text)
        if args.short:
            fill_place(args.short, args.out.stem, short(numbers))
    except (RunError, ConfigError) as error:
        parser.exit(1, f"results.py: {error}\n")


if __name__ == "__main__":
    main()
