"""How soon predictions align, and what a gate by them keeps: a table over the seeds of each method.

    python experiments/selection/table.py RUN_DIRECTORY [...] [--at 10 20] [--accuracy 20 60]
        [--methods family alone ...] [--page PAGE.md NAME]

Predictions and the gate's decisions are those on held-out prompts, whose outcomes are all known.
Means with 95 % t intervals over seeds. With `--page` the table replaces what that page has between
`<!-- NAME -->` and `<!-- /NAME -->`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from masa.analysis.compare_methods import group_runs
from masa.analysis.control import in_full
from masa.analysis.load import Run, RunError, find_runs, load_finished
from masa.markdown import fill_place
from masa.statistics import t_mean


def held_out(run: Run, step: int) -> Iterator[tuple[str, float]]:
    """Alignment and gate on the held-out prompts of a validation."""
    row = run.metrics[run.metrics["step"] == step].iloc[-1]
    for name in ("pass_rate_corr", "mixed_corr"):
        if f"val/meta/{name}" in row:
            yield f"{name} at {step}", row[f"val/meta/{name}"]
    prompts = run.held_out(step)
    mixed = prompts["pass_rate"].between(0, 1, inclusive="neither")
    skip, tokens = prompts["would_skip"].astype(bool), prompts["tokens"]
    yield f"would skip at {step}", skip.mean()
    yield f"precision at {step}", (~mixed[skip]).mean()
    yield f"recall at {step}", skip[~mixed].mean()
    yield f"mixed kept at {step}", (~skip[mixed]).mean()
    yield f"tokens kept at {step}", tokens[~skip].sum() / tokens.sum()


def course(run: Run, step: int) -> Iterator[tuple[str, float]]:
    """Accuracy and cost up to a validation."""
    metrics = run.metrics
    row = metrics[metrics["step"] == step].iloc[-1]
    so_far = metrics[metrics["step"].between(1, step) & metrics["completions/total_tokens"].notna()]
    yield f"accuracy at {step}", row["val/accuracy"]
    yield f"kilotokens to {step}", so_far["completions/total_tokens"].sum() / 1000
    if "gate/fraction" in metrics:
        prompts = run.train_prompts
        active = so_far[so_far["step"].isin(prompts.loc[prompts["gate_active"], "step"])]
        yield f"skipped to {step}, where active", active["gate/fraction"].mean()
        if "meta/token_share" in metrics:
            yield f"meta share to {step}, where active", active["meta/token_share"].mean()


def evidence(run: Run, after: int) -> Iterator[tuple[str, float]]:
    """What the gate keeps of training prompts that were rolled out whatever it said, each weighted
    with the inverse of its chance to be."""
    rows = run.train_prompts
    rows = in_full(rows[rows["step"] > after])
    mixed = rows["pass_rate"].between(0, 1, inclusive="neither") * rows["evidence_weight"]
    tokens = rows["tokens"] * rows["evidence_weight"]
    kept = ~rows["would_skip"].astype(bool)
    yield f"mixed kept after {after}, audited", mixed[kept].sum() / mixed.sum()
    yield f"tokens kept after {after}, audited", tokens[kept].sum() / tokens.sum()


def cell(values: pd.Series, seeds: int) -> str:
    """The mean, and of how many seeds it is where it is not of all."""
    known = f" (n={len(values)})" if 0 < len(values) < seeds else ""
    return f"{t_mean(values)}{known}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--at", type=int, nargs="*", default=[10, 20])
    parser.add_argument("--accuracy", type=int, nargs="*", default=[20, 60])
    parser.add_argument("--after", type=int, default=14)
    parser.add_argument("--methods", nargs="*", help="these alone, in this order")
    parser.add_argument("--page", nargs=2, metavar=("PAGE", "NAME"))
    args = parser.parse_args()
    columns = {}
    try:
        finished, unfinished = load_finished(find_runs(args.runs))
    except RunError as error:
        parser.exit(1, f"table.py: {error}\n")
    for line in unfinished:
        print(f"left out, not finished: {line}")
    methods = {m.label: m for m in group_runs(finished)}
    if unknown := set(args.methods or ()) - methods.keys():
        parser.error(f"no runs of {', '.join(sorted(unknown))}, but of {', '.join(methods)}")
    for method in [methods[label] for label in args.methods or methods]:
        cells: dict[str, list[float]] = {}
        for run in method.runs:
            steps = set(run.validations["step"])
            rows = [row for step in args.at if step in steps for row in held_out(run, step)]
            rows += [row for step in args.accuracy if step in steps for row in course(run, step)]
            rows += evidence(run, args.after)
            for name, value in rows:
                cells.setdefault(name, []).append(float(value))
        seeds = len(method.runs)
        columns[f"{method.label} (n={seeds})"] = {
            name: cell(pd.Series(values).dropna(), seeds) for name, values in cells.items()
        }
    table = pd.DataFrame(columns).fillna("–").to_markdown()
    print(table)
    if args.page:
        page, name = args.page
        fill_place(Path(page), name, table)


if __name__ == "__main__":
    main()
