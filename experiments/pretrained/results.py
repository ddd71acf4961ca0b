"""What became of the pretrained model: evaluations before and after, cost, examples.

    python experiments/pretrained/results.py RUNS [--page experiments/pretrained/README.md]

RUNS holds the runs `sft`, `grpo` and `masa_cloned`, and their evaluations `eval-sft`,
`eval-grpo` and `eval-masa_cloned` (masa-eval benchmark=task meta=true). With `--page` the text
replaces what that page has between `<!-- results -->` and `<!-- /results -->`, and the runs are
kept beside it without their texts, for the notebook of meta-alignment.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from masa.markdown import fill_place, markdown_table
from masa.statistics import Estimate, bootstrap_mean

RUNS = {"sft": "fine-tuned", "grpo": "then GRPO", "masa_cloned": "then MASA"}
KEPT = ("config.yaml", "metrics.csv", "timings.csv")
TEXTS = ("problem", "answer", "text")
EXAMPLES = 3


def evaluation(runs: Path, name: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """Score and samples of one evaluation."""
    directory = runs / f"eval-{name}"
    score = json.loads((directory / "results.json").read_text())["benchmarks"]["task"]
    files = sorted((directory / "samples" / "task").glob("*.parquet"))
    return score, pd.concat(map(pd.read_parquet, files), ignore_index=True)


def scores(runs: Path) -> str:
    """The table of the evaluations."""
    rows = [["", "accuracy", "pass@8", "solved always, mixed, never", "tokens", "parsed",
             "pass-rate MAE", "of one number for all", "corr", "AUROC", "Brier"]]  # fmt: skip
    first: pd.Series | None = None
    for name, title in RUNS.items():
        score, samples = evaluation(runs, name)
        solved = samples[samples["kind"] == "solution"].groupby("id")["correct"]
        rate = solved.mean().astype(float)
        first = rate if first is None else first
        meta = score["meta"]
        rows.append([
            title, _value(score["pass_at"]["1"]), _value(score["pass_at"]["8"]),
            ", ".join(f"{part.mean():.2f}" for part in
                      (rate == 1, (rate > 0) & (rate < 1), rate == 0)),
            f"{score['mean_tokens']:.0f}", f"{meta['parse_rate']:.2f}",
            str(Estimate(*meta["pass_rate_mae"])), f"{(rate - rate.median()).abs().mean():.3f}",
            *(str(Estimate(*meta[key])) for key in
              ("pass_rate_corr", "pass_rate_auroc", "pass_rate_brier")),
        ])  # fmt: skip
        if name != "sft":
            change = (rate - first).dropna()
            rows[-1][1] += f", change {bootstrap_mean(change, change.index)}"
    return markdown_table(rows)


def _value(entry: dict[str, float]) -> str:
    return str(Estimate(entry["value"], entry["low"], entry["high"]))


def levels(runs: Path) -> str:
    """Accuracy per kind of problem before and after."""
    kinds = _kinds(runs)
    table: dict[str, dict[str, str]] = {}
    for name, title in RUNS.items():
        _, samples = evaluation(runs, name)
        solved = samples[samples["kind"] == "solution"]
        rates = solved.groupby(solved["id"].map(kinds))["correct"].mean()
        for kind, rate in rates.items():
            table.setdefault(str(kind), {})[title] = f"{float(rate):.2f}"
    rows = [["kind of problem", *RUNS.values()]]
    rows += [[kind, *(of_kind.get(title, "–") for title in RUNS.values())]
             for kind, of_kind in sorted(table.items())]  # fmt: skip
    return markdown_table(rows)


def _kinds(runs: Path) -> dict[str, str]:
    """Kind of problem by prompt id, from the validation of a run."""
    path = sorted((runs / "grpo" / "rollouts").glob("val-*.parquet"))[0]
    rows = pd.read_parquet(path, columns=["prompt_id", "level"]).drop_duplicates()
    return {
        name: f"{level:02d} {name.split('/')[1]}"
        for name, level in rows.itertuples(index=False, name=None)
    }


def cost(runs: Path) -> str:
    """Hours and tokens of each run."""
    rows = [["", "steps", "hours", "generated tokens", "prompts skipped"]]
    for name, title in RUNS.items():
        metrics = pd.read_csv(runs / name / "metrics.csv")
        timings = pd.read_csv(runs / name / "timings.csv")
        seconds = timings.filter(regex=r"timing_s/(step|validation)").sum().sum()
        tokens = metrics.get("cost/tokens_total", pd.Series([np.nan])).iloc[-1]
        skipped = "–"
        if "gate/fraction" in metrics:
            skipped = f"{metrics['gate/fraction'].mean():.2f}"
        rows.append([title, f"{metrics['step'].max():.0f}", f"{seconds / 3600:.1f}",
                     "–" if np.isnan(tokens) else f"{tokens:,.0f}", skipped])  # fmt: skip
    return markdown_table(rows)


def examples(runs: Path) -> Iterator[str]:
    """The best and the worst predictions of the run that was trained on them."""
    _, samples = evaluation(runs, "masa_cloned")
    solved = samples[samples["kind"] == "solution"].groupby("id")
    truth = pd.DataFrame({"rate": solved["correct"].mean().astype(float),
                          "length": solved["tokens"].mean()})  # fmt: skip
    meta = samples[(samples["kind"] == "meta") & samples["predicted_pass_rate"].notna()]
    meta = meta.join(truth, on="id")
    meta["error"] = (meta["predicted_pass_rate"] - meta["rate"]).abs()
    # one of each kind of problem, so that the easiest kind does not stand for all
    meta["kind_of_problem"] = meta["id"].map(_kinds(runs))
    ordered = meta.sort_values(["error", "id", "sample"])
    for title, rows in (("Good", ordered), ("Bad", ordered[::-1])):
        yield f"**{title} predictions**"
        for row in rows.drop_duplicates("kind_of_problem").head(EXAMPLES).itertuples():
            yield (
                f"{row.kind_of_problem}: predicted pass rate {row.predicted_pass_rate:.2f}, true "
                f"{row.rate:.2f}; mean length {row.length:.0f} tokens\n\n"
                f"```text\n{row.text.strip()}\n```"
            )


def keep(runs: Path, folder: Path) -> None:
    """Copies of the runs without their texts."""
    for name in ("grpo", "masa_cloned"):
        target = folder / f"{name}-seed0"
        shutil.rmtree(target, ignore_errors=True)
        (target / "rollouts").mkdir(parents=True)
        for file in KEPT:
            text = (runs / name / file).read_text()
            # a path of this machine
            (target / file).write_text(re.sub(r"/\S*/(?=pretrained)", "", text))
        for file in sorted((runs / name / "rollouts").glob("*.parquet")):
            table = pq.read_table(file)
            for column in TEXTS:
                i = table.schema.get_field_index(column)
                blank = pd.Series([""] * len(table))
                table = table.set_column(i, table.schema.field(i), [blank.tolist()])
            pq.write_table(table, target / "rollouts" / file.name, compression="zstd")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--page", type=Path, metavar="README.md")
    args = parser.parse_args()
    text = "\n\n".join([
        "120 held-out prompts, 8 solutions and 2 predictions each. Brackets: 95 % bootstrap over "
        "prompts; one seed.",
        scores(args.runs), levels(args.runs), cost(args.runs), *examples(args.runs),
    ])  # fmt: skip
    print(text)
    if args.page is not None:
        fill_place(args.page, "results", text)
        keep(args.runs, args.page.parent / "runs")


if __name__ == "__main__":
    main()
