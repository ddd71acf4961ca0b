"""Paired comparison of two evaluations, question by question."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from masa.errors import ConfigError, require
from masa.evaluation.pass_at_k import macro_average, paired_difference
from masa.evaluation.policy_scores import compare_policies, comparison_table
from masa.evaluation.results import interval, predictions_table, render, scored_samples, verdicts
from masa.evaluation.store import WEIGHTS, Store
from masa.markdown import in_one_line
from masa.statistics import Estimate, holm


def compare(first: Path, second: Path, only: Collection[str] = ()) -> tuple[dict[str, Any], str]:
    """Paired differences in pass@1, second minus first, on the questions that both answered; how
    good their predictions are; and where both have `solve`, what each policy gets out of the same
    tokens.

    Args:
        first, second: directories of masa-eval.
        only: benchmarks to compare; none: all that both have.

    Returns:
        The numbers by benchmark, and a markdown table.

    Raises:
        ConfigError: an evaluation is missing or unfinished, they have nothing in common or lack one
            of `only`, or one id stands for two different questions.
    """
    stores = [Store(first), Store(second)]
    # verdicts are of the verifiers of a version
    settings = [store.settings() | store.results().get("environment", {}) for store in stores]
    names = [name for name in stores[0].benchmarks() if name in stores[1].benchmarks()]
    if not names:
        raise ConfigError(f"{first} and {second} have no benchmark in common")
    lacking = [name for name in only if name not in names]
    require(not lacking, f"benchmark={','.join(lacking)}: {first} and {second} do not both have it")
    names = [name for name in names if name in only or not only]
    rows: list[dict[str, str]] = []
    numbers: dict[str, Any] = {}
    parts, p_values = [], []
    policies: list[str] = []
    predictions: dict[str, Any] = {}
    for name in names:
        a, b, clusters = _paired(stores, name)
        difference, p = paired_difference(a, b, clusters)
        p_values.append(p)
        parts.append((b - a, clusters))
        numbers[name] = {
            "questions": len(a),
            "first": float(a.mean()),
            "second": float(b.mean()),
            "difference": interval(difference),
            "p": p,
        }
        scores = [store.scores()[name] for store in stores]
        for side, score in zip("AB", scores, strict=True):
            if "meta" in score:
                predictions[f"{side}, {name}"] = score["meta"]
        curves = [store.curves(name) for store in stores]
        if curves[0] is not None and curves[1] is not None:
            solved = [score["solve"] for score in scores]
            compared = compare_policies(curves[0], curves[1], solved[0]["reference_tokens"])
            numbers[name]["solve"] = {
                policy: cells | {"aurc": [one["policies"][policy].get("aurc") for one in solved]}
                for policy, cells in compared.items()
            }
            policies += comparison_table(name, numbers[name]["solve"])
    for name, adjusted in zip(names, holm(p_values), strict=True):
        numbers[name]["p_holm"] = float(adjusted)
        score = numbers[name]
        rows.append(
            {
                "benchmark": name,
                "questions": str(score["questions"]),
                "A (%)": f"{100 * score['first']:.1f}",
                "B (%)": f"{100 * score['second']:.1f}",
                "B - A": _points(**score["difference"]),
                "p": f"{score['p']:.4f}",
                "p (Holm)": f"{adjusted:.4f}",
            }
        )
    if len(names) > 1:
        mean = macro_average(parts)
        numbers["mean"] = interval(mean)
        rows.append({"benchmark": "mean", "B - A": _points(**numbers["mean"])})
    text = "\n\n".join(
        [
            f"A: {first} ({settings[0]['model']})\nB: {second} ({settings[1]['model']})",
            *_differences(*settings),
            render(rows),
            "pass@1, in percent. Brackets: 95 % cluster bootstrap over questions; p: paired "
            "sign-flip test over clusters, Holm-corrected over benchmarks. Neither covers the "
            "training seed: a claim about a method needs several.",
            *_predictions(predictions),
            *policies,
        ]
    )
    return numbers, text + "\n"


def _predictions(scores: dict[str, Any]) -> list[str]:
    """How good the predictions of each evaluation are; nothing where there are none."""
    if not scores:
        return []
    note = "Predictions: each row is of all questions of its evaluation, not paired."
    return [predictions_table(scores), note]


def _differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """One line with the settings that differ between two evaluations, without the model."""
    names = sorted((first.keys() | second.keys()) - {"model", "checkpoint", WEIGHTS})
    changed = [name for name in names if first.get(name) != second.get(name)]
    # a template is a page long
    pairs = [
        f"{name} ({', '.join(in_one_line(str(of.get(name)), 60) for of in (first, second))})"
        for name in changed
    ]
    return [f"Settings that differ (A, B): {', '.join(pairs)}"] if pairs else []


def _paired(stores: list[Store], name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Mean verdict per common question [N] of both, and the clusters [N]."""
    means, digests = [], []
    clusters: dict[str, str] = {}
    for store in stores:
        score = store.scores().get(name)
        if score is None:
            raise ConfigError(
                f"{store.directory}: {name} has no score in results.json: run that evaluation to "
                "its end first, with the same n and k as the others there"
            )
        solved = scored_samples(store, name, score)
        require(
            solved["id"].nunique() >= score["questions"],
            f"{store.directory}: {name} is unfinished: run that evaluation to its end first",
        )
        ids, correct, of_question = verdicts(solved, int(score["samples"]))
        means.append(dict(zip(ids, correct.mean(axis=1), strict=True)))
        digests.append(solved.groupby("id")["digest"].first())
        clusters |= dict(zip(ids, of_question, strict=True))
    common = [id for id in means[0] if id in means[1]]
    if not common:
        raise ConfigError(f"{name}: the two evaluations have no question in common")
    changed = [id for id in common if digests[0][id] != digests[1][id]]
    if changed:
        raise ConfigError(
            f"{name}: question {changed[0]} is not the same in both evaluations: its text, gold "
            "answer or instruction changed in between"
        )
    a, b = (np.array([mean[id] for id in common]) for mean in means)
    return a, b, [clusters[id] for id in common]


def _points(value: float, low: float, high: float) -> str:
    return str(Estimate(100 * value, 100 * low, 100 * high, digits=1))
