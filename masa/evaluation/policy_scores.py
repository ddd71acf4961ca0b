"""`masa-eval solve=...`: what each policy gets out of its tokens, as numbers and as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from masa.errors import require
from masa.evaluation.benchmarks import Benchmark
from masa.evaluation.eval_config import EvaluationConfig
from masa.evaluation.policy_curves import (
    AnsweredQuestion,
    Curve,
    compare_curves,
    draw_curve,
    oracle_curve,
    reference_setting,
    selective,
)
from masa.inference.answers import places
from masa.inference.policies import Policy, UniformPolicy
from masa.inference.predictions import summarise
from masa.markdown import markdown_table
from masa.plugins import build_plugin
from masa.statistics import Estimate, bootstrap_mean
from masa.types import MetaPrediction

UNIFORM = {"_target_": f"{UniformPolicy.__module__}.{UniformPolicy.__qualname__}"}


def check_policies(config: EvaluationConfig) -> None:
    """Raise ConfigError for policies that cannot be compared with these settings."""
    for name, node in config.solve.items():
        policy = build_plugin(f"solve.{name}", _own(node), Policy)
        require(
            config.meta or not policy.needs_predictions,
            f"solve={name} goes by predictions: set meta=true",
        )
        wanted = getattr(policy, "n", 1)
        require(
            wanted <= config.n,
            f"solve.{name}.n is {wanted}, and there are n={config.n} solutions per question: "
            "raise n",
        )


def _own(node: Mapping[str, Any]) -> dict[str, Any]:
    """A policy's own settings, without those that `masa-solve` has for all."""
    return {key: value for key, value in node.items() if key not in ("abstain", "meta_samples")}


def answered_questions(
    benchmark: Benchmark, samples: pd.DataFrame, n: int, meta_samples: int
) -> list[AnsweredQuestion]:
    """The saved samples of a benchmark, by question.

    Args:
        benchmark: holds answers equal.
        samples: rows of `store.SCHEMA`.
        n, meta_samples: how many of each question.
    """
    solved = samples[(samples["kind"] == "solution") & (samples["sample"] < n)]
    metas = samples[(samples["kind"] == "meta") & (samples["sample"] < meta_samples)]
    predicted = dict(list(metas.groupby("id")))
    items = {item.prompt.id: item for item in benchmark.items}
    questions = []
    for name, rows in solved.sort_values("sample").groupby("id"):
        item = items[str(name)]

        def same(a: str, b: str, item: Any = item) -> bool:
            return benchmark.scorer.same(item, a, b)

        of_question = predicted.get(name)
        questions.append(
            AnsweredQuestion(
                str(name),
                str(rows["cluster"].iloc[0]),
                places(list(rows["text"]), same),
                list(rows["tokens"]),
                list(map(bool, rows["correct"])),
                None
                if of_question is None
                else summarise(list(map(_prediction, of_question.to_dict("records"))),
                               int(of_question["tokens"].sum())),
            )
        )  # fmt: skip
    return questions


def _prediction(row: Mapping[str, Any]) -> MetaPrediction:
    rate, length = row["predicted_pass_rate"], row["predicted_length"]
    return MetaPrediction(
        pass_rate=None if pd.isna(rate) else float(rate),
        length=None if pd.isna(length) else int(length),
        error=None if pd.isna(row["parse_error"]) else row["parse_error"],
    )


def policy_scores(
    benchmark: Benchmark, samples: pd.DataFrame, config: EvaluationConfig
) -> dict[str, Any]:
    """Per policy of `solve` the curve of accuracy over tokens, the comparison with the uniform one,
    and selective answering, as plain values.

    Returns:
        reference, the samples per question of the uniform policy that the others are compared with,
        and its tokens; policies: by name, and `oracle`, each with curve (settings, tokens and
        accuracy with bounds), accuracy_difference and tokens_ratio of `compare_curves` (null for
        uniform), meta_tokens per question, aurc, and the risk-coverage curve.
    """
    nodes = {"uniform": UNIFORM} | {name: _own(node) for name, node in config.solve.items()}
    counts = {int(node.get("meta_samples", 2)) for node in config.solve.values()}
    by_count = {
        count: answered_questions(benchmark, samples, config.n, count) for count in counts or {0}
    }
    anyone = next(iter(by_count.values()))
    clusters = [question.cluster for question in anyone]
    uniform = draw_curve(nodes["uniform"], anyone, config.n)
    at = reference_setting(uniform)
    policies: dict[str, Any] = {}
    for name, node in nodes.items():
        questions = by_count[int(config.solve.get(name, {}).get("meta_samples", min(by_count)))]
        policy = build_plugin(f"solve.{name}", node, Policy)
        curve = uniform if name == "uniform" else draw_curve(node, questions, config.n)
        area, risk = selective(policy, questions)
        spent = [q.prediction.tokens for q in questions if q.prediction is not None]
        policies[name] = _compared(curve, uniform, at, clusters) | {
            "meta_tokens": float(np.mean(spent)) if policy.needs_predictions and spent else 0.0,
            "aurc": _plain(area),
            "risk_coverage": risk,
        }
    policies["oracle"] = _compared(oracle_curve(anyone, config.n), uniform, at, clusters)
    return {
        "reference": dict(uniform.settings[at]),
        "reference_tokens": float(uniform.tokens[:, at].mean()),
        "reference_accuracy": float(uniform.accuracy[:, at].mean()),
        "policies": policies,
    }


def _compared(curve: Curve, uniform: Curve, at: int, clusters: list[str]) -> dict[str, Any]:
    points = [
        {
            "settings": dict(settings),
            "tokens": _plain(bootstrap_mean(curve.tokens[:, k], clusters)),
            "accuracy": _plain(bootstrap_mean(curve.accuracy[:, k], clusters)),
        }
        for k, settings in enumerate(curve.settings)
    ]
    if curve is uniform:
        return {"curve": points, "accuracy_difference": None, "tokens_ratio": None}
    compared = compare_curves(curve, uniform, at, clusters)
    return {"curve": points} | {name: _plain(estimate) for name, estimate in compared.items()}


def _plain(estimate: Estimate) -> dict[str, float | None]:
    """For JSON, which knows neither NaN nor infinity."""
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: float(v) if np.isfinite(v) else None for name, v in values.items()}


def policy_table(name: str, scores: Mapping[str, Any]) -> list[str]:
    """The policies of a benchmark as a table, and what it means."""
    rows = [["policy", "accuracy, same tokens", "tokens, same accuracy", "AURC", "meta tokens"]]
    for policy, score in scores["policies"].items():
        rows.append(
            [
                policy,
                _shown(score["accuracy_difference"], 3),
                _shown(score["tokens_ratio"], 2),
                _shown(score.get("aurc"), 3),
                f"{score['meta_tokens']:.0f}" if "meta_tokens" in score else "",
            ]
        )
    count, tokens = scores["reference"]["n"], scores["reference_tokens"]
    return [
        markdown_table(rows),
        f"{name}: beside {count} samples for every question ({tokens:,.0f} tokens per question, "
        f"accuracy {scores['reference_accuracy']:.3f}). The difference in accuracy at as many "
        "tokens, and the share of those tokens for the same accuracy; tokens of predictions are "
        "counted. –: the policy starts above the tokens, or never reaches the accuracy. AURC: mean "
        "share of wrong answers over all shares of questions answered, the most confident ones "
        "first. oracle: knows each question's pass rate, for no tokens. Brackets: 95 % bootstrap "
        "over questions, paired.",
    ]


def _shown(value: Mapping[str, Any] | None, digits: int) -> str:
    if value is None or value["value"] is None:
        return "–"
    # what JSON cannot hold is infinite
    low, high = (np.inf if value[end] is None else value[end] for end in ("low", "high"))
    return str(Estimate(value["value"], low, high, digits=digits))
