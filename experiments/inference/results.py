"""Policies of masa-solve over several trained models: one table, one figure.

    python experiments/inference/results.py EVAL_DIR ... --out FILE.json [--page README.md]

Each EVAL_DIR is an evaluation with `meta=true solve=...` of one trained model on the same
questions. Intervals are Student's t over the models. With `--page` the table also replaces what
that page has between `<!-- NAME -->` and `<!-- /NAME -->`, NAME being that of FILE, and the figure
goes into `figures/NAME.png` beside it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from masa.analysis.theme import CYCLE, canvas, look, save
from masa.evaluation.policy_curves import accuracy_at
from masa.markdown import fill_place, markdown_table
from masa.statistics import Estimate, jackknife, t_mean

NUMBERS = {
    "accuracy_difference": ("accuracy, same tokens", 3),
    "at_half": ("accuracy at half the tokens, less the reference's", 3),
    "tokens_ratio": ("tokens, same accuracy", 2),
    "over_adaptive": ("accuracy less adaptive_consistency's, same tokens", 3),
    "aurc": ("AURC", 3),
    "meta_tokens": ("meta tokens", 0),
}


def read(directory: Path, benchmark: str) -> dict[str, Any]:
    """Settings, and the score of one benchmark, of an evaluation."""
    results = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    score = results["benchmarks"][benchmark]
    if "solve" not in score:
        raise SystemExit(f"{directory}: {benchmark} was evaluated without solve=...")
    return {"settings": results["settings"], **score}


def curve(policy: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and accuracy of a policy's settings, by tokens."""
    points = sorted((p["tokens"]["value"], p["accuracy"]["value"]) for p in policy["curve"])
    tokens, accuracy = np.array(points).T
    return tokens, accuracy


def at(policy: Mapping[str, Any], budget: float) -> float:
    """Accuracy of a policy at so many tokens per question; NaN where it starts above."""
    return accuracy_at(*curve(policy), budget)


def numbers(score: Mapping[str, Any], name: str) -> dict[str, float]:
    """Of one model and policy."""
    solve = score["solve"]
    policy = solve["policies"][name]
    plain: dict[str, float] = {}
    for key in ("accuracy_difference", "aurc"):
        value = (policy.get(key) or {"value": None})["value"]
        plain[key] = nan if value is None else value
    plain["meta_tokens"] = policy.get("meta_tokens", nan)
    adaptive = solve["policies"].get("adaptive_consistency")
    budget = solve["reference_tokens"]
    plain["at_half"] = at(policy, budget / 2) - at(solve["policies"]["uniform"], budget)
    plain["over_adaptive"] = nan
    if adaptive is not None and name not in ("uniform", "adaptive_consistency"):
        plain["over_adaptive"] = _over(policy, adaptive, budget)
    return plain


def ratio(scores: Sequence[Mapping[str, Any]], name: str) -> Estimate:
    """Tokens of a policy over those of the uniform one until the mean accuracy of the models is the
    reference's; jackknife over the models of its logarithm."""
    solves = [score["solve"] for score in scores]

    def log_ratio(models: Sequence[int]) -> float:
        chosen = [solves[i] for i in models]
        goal = np.mean([at(s["policies"]["uniform"], s["reference_tokens"]) for s in chosen])
        needed = [
            _first([s["policies"][policy] for s in chosen], goal) for policy in (name, "uniform")
        ]
        return float(np.log(needed[0] / needed[1]))

    if name == "uniform":
        return Estimate(nan)
    estimate = jackknife(log_ratio, len(solves))
    return Estimate(*np.exp([estimate.value, estimate.low, estimate.high]).tolist())


def _first(policies: Sequence[Mapping[str, Any]], goal: float) -> float:
    """Tokens at which the mean accuracy of a policy over models reaches a goal; NaN for never."""
    low = max(curve(policy)[0][0] for policy in policies)
    high = max(curve(policy)[0][-1] for policy in policies)
    budgets = np.linspace(low, high, 5000)
    means = np.mean([[at(policy, b) for b in budgets] for policy in policies], axis=0)
    reached = np.flatnonzero(means >= goal)
    return float(budgets[reached[0]]) if len(reached) else nan


def _over(policy: Mapping[str, Any], other: Mapping[str, Any], most: float) -> float:
    """Mean difference in accuracy over the tokens that both curves have, up to `most`."""
    low = max(curve(policy)[0][0], curve(other)[0][0])
    high = min(curve(policy)[0][-1], curve(other)[0][-1], most)
    budgets = np.linspace(low, high, 50)
    return float(np.mean([at(policy, b) - at(other, b) for b in budgets]))


def summary(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per policy each number over the models."""
    names = list(scores[0]["solve"]["policies"])
    policies = {}
    for name in names:
        each = [numbers(score, name) for score in scores]
        policies[name] = {
            key: t_mean([one[key] for one in each]).rounded()
            for key in NUMBERS
            if key != "tokens_ratio"
        } | {"tokens_ratio": ratio(scores, name).rounded()}
    metas = [score["meta"] for score in scores if "meta" in score]
    predictions = {
        key: t_mean([meta[key][0] if isinstance(meta[key], list) else meta[key]
                     for meta in metas]).rounded()
        for key in ("parse_rate", "pass_rate_ece", "pass_rate_brier", "pass_rate_auroc")
    }  # fmt: skip
    return {
        "models": [Path(score["settings"]["model"]).name for score in scores],
        "questions": scores[0]["questions"],
        "reference": scores[0]["solve"]["reference"],
        "accuracy_of_one": t_mean([_uniform(s)[0] for s in scores]).rounded(),
        "accuracy_of_all": t_mean([_uniform(s)[-1] for s in scores]).rounded(),
        "reference_tokens": t_mean([s["solve"]["reference_tokens"] for s in scores]).rounded(),
        "reference_accuracy": t_mean([s["solve"]["reference_accuracy"] for s in scores]).rounded(),
        "policies": policies,
        "predictions": predictions,
    }


def _uniform(score: Mapping[str, Any]) -> list[float]:
    """Accuracy of the uniform policy by number of samples."""
    points = score["solve"]["policies"]["uniform"]["curve"]
    return [point["accuracy"]["value"] for point in points]


def table(found: Mapping[str, Any]) -> str:
    """The numbers of `summary` as Markdown."""
    rows = [["policy", *(title for title, _ in NUMBERS.values())]]
    for name, policy in found["policies"].items():
        rows.append([name, *(_shown(policy[key], digits) for key, (_, digits) in NUMBERS.items())])
    predictions = found["predictions"]
    reference = (
        f"{len(found['models'])} models, {found['questions']} questions each. Reference: "
        f"{found['reference']['n']} samples for every question, "
        f"{_shown(found['reference_tokens'], 0)} tokens per question, accuracy "
        f"{_shown(found['reference_accuracy'], 3)}; of one sample "
        f"{_shown(found['accuracy_of_one'], 3)}, of all {_shown(found['accuracy_of_all'], 3)}. "
        f"Predicted pass rates: "
        f"AUROC {_shown(predictions['pass_rate_auroc'], 3)}, Brier score "
        f"{_shown(predictions['pass_rate_brier'], 3)}, ECE "
        f"{_shown(predictions['pass_rate_ece'], 3)}. Tokens, same accuracy: until the mean "
        "accuracy of the models is the reference's, over the tokens that the uniform policy takes "
        "for it; "
        "–: never. Brackets: 95 % t intervals over the models, of that ratio by jackknife."
    )
    return f"{markdown_table(rows)}\n\n{reference}\n"


def _shown(entry: Mapping[str, float | None] | None, digits: int) -> str:
    if entry is None:
        return "–"
    low, high = (nan if entry[end] is None else entry[end] for end in ("low", "high"))
    return str(Estimate(entry["mean"], low, high, digits=digits))


def draw(scores: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against tokens, the mean over the models at equal tokens; risk against coverage."""
    with look():
        figure = canvas(4.4)
        left, right = figure.subplots(1, 2)
        for (colour, marker), name in zip(
            [("#7A7A7A", "o"), *CYCLE], scores[0]["solve"]["policies"], strict=False
        ):
            policies = [score["solve"]["policies"][name] for score in scores]
            low = max(curve(policy)[0][0] for policy in policies)
            high = min(curve(policy)[0][-1] for policy in policies)
            budgets = np.linspace(low, high, 60)
            values = np.array([[at(policy, b) for b in budgets] for policy in policies])
            style = "--" if name == "oracle" else "-"
            left.plot(budgets, values.mean(axis=0), style, color=colour, marker=marker,
                      markevery=10, label=name)  # fmt: skip
            if "risk_coverage" in policies[0]:
                coverage = np.linspace(0.05, 1, 60)
                risk = [
                    np.interp(coverage, [p["coverage"] for p in policy["risk_coverage"]],
                              [p["risk"] for p in policy["risk_coverage"]])
                    for policy in policies
                ]  # fmt: skip
                right.plot(coverage, np.mean(risk, axis=0), color=colour, marker=marker,
                           markevery=10, label=name)  # fmt: skip
        reference = np.mean([score["solve"]["reference_tokens"] for score in scores])
        left.axvline(reference, color="#6B6B6B", linewidth=1)
        left.set(xlabel="tokens per question, predictions included", ylabel="accuracy")
        right.set(xlabel="share of questions answered", ylabel="share of wrong answers")
        left.legend()
        right.legend()
        save(figure, path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluations", nargs="+", type=Path, metavar="EVAL_DIR")
    parser.add_argument("--benchmark", default="task")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--page", type=Path, metavar="README.md")
    args = parser.parse_args()
    scores = [read(directory, args.benchmark) for directory in args.evaluations]
    found = summary(scores)
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    text = table(found)
    print(text, end="")
    if args.page is not None:
        name = args.out.stem
        fill_place(args.page, name, text)
        draw(scores, args.page.parent / "figures" / f"{name}.png")


if __name__ == "__main__":
    main()
