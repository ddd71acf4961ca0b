"""`masa-eval solve=...`: what each policy gets out of its tokens, as numbers and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from masa.config import with_settings
from masa.errors import require
from masa.evaluation.benchmarks import Benchmark
from masa.evaluation.calibration import saved_prediction
from masa.evaluation.eval_config import EvaluationConfig, typed
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
from masa.inference.inference_config import PolicyConfig
from masa.inference.policies import Policy, UniformPolicy
from masa.inference.predictions import summarise
from masa.inference.solving import Limits
from masa.markdown import markdown_table
from masa.plugins import build_plugin
from masa.statistics import Estimate, bootstrap_mean

UNIFORM = f"{UniformPolicy.__module__}.{UniformPolicy.__qualname__}"
ORACLE = "oracle"
AURC = (
    "AURC: mean share of wrong answers over all shares of questions answered, the most confident "
    "ones first"
)
INFINITE = "infinite"
"""In results.json: tokens for an accuracy that is never reached."""


def policies_of(config: EvaluationConfig) -> dict[str, tuple[dict[str, Any], PolicyConfig]]:
    """Own settings of each policy to compare, of at most n samples, and those of all policies.

    The uniform one, which the others are compared with, is among them.

    Raises:
        ConfigError: one of them cannot be.
    """
    nodes: dict[str, Any] = {"uniform": {"_target_": UNIFORM}} | dict(config.solve)
    policies = {}
    for name, node in nodes.items():
        require(isinstance(node, Mapping), f"solve.{name} is {node!r}, it must be a policy's node")
        require(name != ORACLE, f"solve.{ORACLE} is the name of the bound: choose another one")
        common = typed(PolicyConfig, with_settings(dict(node), PolicyConfig), f"solve.{name}.")
        own = dict(common.settings)
        require(
            name != "uniform" or own["_target_"] == UNIFORM,
            "solve.uniform is what the others are compared with: choose another name",
        )
        policy = build_plugin(f"solve.{name}", own, Policy)
        if policy.n > config.n:
            own["n"] = config.n
            policy = build_plugin(f"solve.{name}", own, Policy)
        require(
            config.meta or not policy.needs_predictions,
            f"solve={name} goes by predictions: set meta=true",
        )
        require(
            not policy.needs_predictions or common.meta_samples <= config.meta_samples,
            f"solve.{name}.meta_samples is {common.meta_samples}, and there are "
            f"meta_samples={config.meta_samples} predictions per question",
        )
        require(
            common.abstain == 0,
            f"solve.{name}.abstain is for masa-solve: here the risk-coverage curve has every "
            "threshold",
        )
        policies[name] = (own, common)
    return policies


def check_votes(benchmarks: Sequence[Benchmark]) -> None:
    """Raise ConfigError for a benchmark whose answers cannot be held equal."""
    for benchmark in benchmarks:
        benchmark.scorer.same(benchmark.items[0], "", "")


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
        prediction = None
        if name in predicted:
            metas_of = predicted[name]
            tokens = int(metas_of["tokens"].sum())
            prediction = summarise([*map(saved_prediction, metas_of.itertuples())], tokens)
        questions.append(
            AnsweredQuestion(
                str(name),
                str(rows["cluster"].iloc[0]),
                places(list(rows["text"]), partial(benchmark.scorer.same, item)),
                list(rows["tokens"]),
                list(map(bool, rows["correct"])),
                prediction,
            )
        )
    return questions


def policy_scores(
    benchmark: Benchmark, samples: pd.DataFrame, config: EvaluationConfig
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Per policy of `solve` the curve of accuracy over tokens, the comparison with the uniform one,
    and selective answering, as plain values.

    Returns:
        reference, the samples per question of the uniform policy that the others are compared with,
        and its tokens; policies: by name, and `oracle`, each with curve (settings, tokens and
        accuracy with bounds), accuracy_difference and tokens_ratio of `compare_curves` (null for
        uniform; `INFINITE` where an accuracy is never reached), meta_tokens per question, aurc, and
        the risk-coverage curve. And the curves by question, as `compare_policies` takes them.
    """
    policies = policies_of(config)
    limits = Limits(config.max_tokens, config.meta_max_tokens, config.min_length)
    counts = {common.meta_samples for _, common in policies.values()}
    by_count = {count: answered_questions(benchmark, samples, config.n, count) for count in counts}
    anyone = next(iter(by_count.values()))
    clusters = [question.cluster for question in anyone]
    curves = {
        name: draw_curve(own, by_count[common.meta_samples], config.n, limits)
        for name, (own, common) in policies.items()
    }
    curves[ORACLE] = oracle_curve(anyone, config.n, limits)
    uniform = curves["uniform"]
    at = reference_setting(uniform)
    scores = {name: _compared(curve, uniform, at, clusters) for name, curve in curves.items()}
    for name, (own, common) in policies.items():
        questions = by_count[common.meta_samples]
        policy = build_plugin(f"solve.{name}", own, Policy)
        area, risk = selective(policy, questions, limits)
        spent = [q.prediction.tokens for q in questions if q.prediction is not None]
        scores[name] |= {
            "meta_tokens": float(np.mean(spent)) if policy.needs_predictions and spent else 0.0,
            "aurc": _plain(area),
            "risk_coverage": risk,
        }
    reference = {
        "reference": dict(uniform.settings[at]),
        "reference_tokens": float(uniform.tokens[:, at].mean()),
        "reference_accuracy": float(uniform.accuracy[:, at].mean()),
    }
    return reference | {"policies": scores}, _by_question(curves, anyone)


def _by_question(
    curves: Mapping[str, Curve], questions: Sequence[AnsweredQuestion]
) -> pd.DataFrame:
    """One row per question, policy and setting."""
    rows = [
        {
            "id": question.id,
            "cluster": question.cluster,
            "policy": name,
            "setting": k,
            "accuracy": curve.accuracy[i, k],
            "tokens": curve.tokens[i, k],
        }
        for name, curve in curves.items()
        for i, question in enumerate(questions)
        for k in range(len(curve.settings))
    ]
    return pd.DataFrame(rows)


def compare_policies(
    first: pd.DataFrame, second: pd.DataFrame, tokens: float
) -> dict[str, dict[str, Any]]:
    """Each policy that two models were replayed with, on the questions that both answered.

    Args:
        first, second: curves by question.
        tokens: per question, about which the first model spends.

    Returns:
        By policy: what the first model spends (`tokens`, of the setting next to the wanted one) and
        gets (`accuracy`), and `compare_curves` of the second model beside it.
    """
    compared = {}
    for name in first["policy"].unique():
        if name not in set(second["policy"]):
            continue
        a, b = (frame[frame["policy"] == name] for frame in (first, second))
        common = a[a["id"].isin(b["id"])].drop_duplicates("id")
        own, other = (_curve_of(frame, common["id"]) for frame in (a, b))
        at = int(np.abs(own.tokens.mean(axis=0) - tokens).argmin())
        estimates = compare_curves(other, own, at, list(common["cluster"]))
        compared[name] = {
            "tokens": float(own.tokens[:, at].mean()),
            "accuracy": float(own.accuracy[:, at].mean()),
        } | {kind: _plain(estimate) for kind, estimate in estimates.items()}
    return compared


def _curve_of(rows: pd.DataFrame, ids: pd.Series) -> Curve:
    columns = {
        kind: rows.pivot(index="id", columns="setting", values=kind).loc[ids].to_numpy()
        for kind in ("accuracy", "tokens")
    }
    return Curve([{}] * columns["tokens"].shape[1], **columns)


def comparison_table(name: str, compared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What `compare_policies` found on a benchmark as a table, and what it means."""
    rows = [
        [
            "policy", "tokens (A)", "accuracy (A)", "B - A, same tokens", "B / A, same accuracy",
            "AURC (A)", "AURC (B)",
        ]
    ]  # fmt: skip
    for policy, score in compared.items():
        rows.append(
            [
                policy,
                f"{score['tokens']:,.0f}",
                f"{score['accuracy']:.3f}",
                _shown(score["accuracy_difference"], 3),
                _shown(score["tokens_ratio"], 2),
                *(_shown(area, 3) for area in score["aurc"]),
            ]
        )
    return [
        markdown_table(rows),
        f"{name}: policies of solve. The difference in accuracy where B spends as many tokens per "
        "question as A, and B's tokens over A's for A's accuracy; those of predictions are "
        f"counted. –: B starts above these tokens. {AURC}. Brackets: 95 % bootstrap over "
        "questions, paired but for AURC.",
    ]


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


def _plain(estimate: Estimate) -> dict[str, float | str]:
    """For JSON, which has no infinity; NaN becomes null later."""
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: INFINITE if v == np.inf else float(v) for name, v in values.items()}


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
        "tokens, and the share of the uniform policy's tokens for the same accuracy; tokens of "
        "predictions are counted. –: the policy starts above the tokens. "
        f"{AURC}, of each policy at its own settings, whatever these spend. oracle: knows each "
        "question's pass rate, for no tokens. Brackets: 95 % bootstrap over questions; of "
        "difference and share it is paired.",
    ]


def _shown(value: Mapping[str, Any] | None, digits: int) -> str:
    if not isinstance(value, Mapping):
        return "–"
    ends = [np.inf if value[end] == INFINITE else value[end] for end in ("value", "low", "high")]
    middle, low, high = (np.nan if end is None else float(end) for end in ends)
    return "never" if middle == np.inf else str(Estimate(middle, low, high, digits=digits))
