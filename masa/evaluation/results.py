"""Samples to scores: results.json, and results.md with its tables."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from masa.errors import ConfigError
from masa.evaluation.benchmarks import Benchmark
from masa.evaluation.calibration import calibration, measuring_config, mixed_calibration
from masa.evaluation.eval_config import EvaluationConfig
from masa.evaluation.pass_at_k import (
    clustered_standard_error,
    macro_average,
    pass_at_k,
    std_over_samples,
)
from masa.evaluation.policy_scores import policy_scores, policy_table
from masa.evaluation.store import Store, write_json, write_text
from masa.markdown import markdown_table
from masa.statistics import Estimate, bootstrap_mean

_log = logging.getLogger(__name__)


def verdicts(samples: pd.DataFrame, n: int) -> tuple[list[str], np.ndarray, list[str]]:
    """Verdicts on the first n solutions of every question.

    Args:
        samples: rows of `store.SCHEMA`.
        n: samples per question.

    Returns:
        ids [N], verdicts [N, n] and clusters [N].

    Raises:
        ConfigError: a question has fewer.
    """
    solved = samples[(samples["kind"] == "solution") & (samples["sample"] < n)]
    table = solved.pivot(index="id", columns="sample", values="correct")
    if table.shape[1] < n or table.isna().any().any():
        raise ConfigError(f"fewer than {n} samples of a question: run the evaluation to its end")
    clusters = solved.groupby("id")["cluster"].first()
    return list(table.index), table.to_numpy(bool), list(clusters[table.index])


def scored_samples(store: Store, name: str, score: Mapping[str, Any]) -> pd.DataFrame:
    """Solutions of the questions that a score may count: left out are those that it leaves out, and
    those that a longer evaluation, stopped later, has begun with."""
    samples = store.read(name)
    left_out = score.get("not_scored", ())
    samples = samples[(samples["kind"] == "solution") & ~samples["id"].isin(left_out)]
    samples = samples[samples["sample"] < score["samples"]]
    complete = samples.groupby("id")["correct"].count() == score["samples"]
    return samples[samples["id"].isin(complete.index[complete])]


def summarise_all(
    benchmarks: Sequence[Benchmark], store: Store, config: EvaluationConfig
) -> dict[str, Any]:
    """Scores of every benchmark and their macro-averages, as plain values for JSON.

    Earlier scores of other benchmarks with the same n and k are kept, so that benchmarks can be
    evaluated one at a time.
    """
    scores: dict[str, Any] = {}
    by_average: dict[str, dict[int, list[tuple[Any, Any]]]] = {}

    def add_to_averages(domain: str, correct: np.ndarray, clusters: Sequence[str]) -> None:
        for average in (domain, "all"):
            for k in config.k:
                values = (pass_at_k(correct, k), clusters)
                by_average.setdefault(average, {}).setdefault(k, []).append(values)

    for name, score, correct, clusters in _scored_before(benchmarks, store, config):
        scores[name] = score
        before = store.scores()[name].get("limit")
        if before == config.limit:
            add_to_averages(score["domain"], correct, clusters)
        else:
            _log.warning(
                "%s was scored with limit=%s and is in no average beside limit=%s",
                *(name, before, config.limit),
            )
    for benchmark in benchmarks:
        clusters_of = {item.prompt.id: item.cluster for item in benchmark.items}
        store.set_clusters(benchmark.name, clusters_of)
        samples = store.read(benchmark.name)
        not_scored = sorted(set(samples["id"]) - clusters_of.keys())
        samples = samples[samples["id"].isin(clusters_of)]
        _, correct, clusters = verdicts(samples, config.n)
        solved = samples[(samples["kind"] == "solution") & (samples["sample"] < config.n)]
        score = _score(benchmark, correct, clusters, solved, config.k)
        if config.meta:
            metas = samples[(samples["kind"] == "meta") & (samples["sample"] < config.meta_samples)]
            algorithm = measuring_config(config.max_tokens, config.min_length, config.sigma)
            prompts = {prompt.id: prompt for prompt in benchmark.prompts}
            score["meta"] = {
                "meta_samples": config.meta_samples,
                "sigma": config.sigma,
                **calibration(solved, metas, prompts, algorithm),
            }
            if config.mixed_of is not None:
                score["meta"]["mixed"] = mixed_calibration(
                    solved, metas, config.mixed_of, config.min_mixed
                )
        if config.solve:
            score["solve"], curves = policy_scores(benchmark, samples, config)
            store.write_curves(benchmark.name, curves)
        scores[benchmark.name] = {
            **score,
            **benchmark.origin,
            "limit": config.limit,
            "not_scored": not_scored,
        }
        add_to_averages(benchmark.domain, correct, clusters)
    averages = {
        domain: {str(k): interval(macro_average(of_k)) for k, of_k in by_k.items()}
        for domain, by_k in by_average.items()
        # of one domain, that of all is the same
        if len(by_k[config.k[0]]) > 1 and (domain != "all" or len(by_average) > 2)
    }
    return {"benchmarks": scores, "averages": averages}


def _scored_before(
    benchmarks: Sequence[Benchmark], store: Store, config: EvaluationConfig
) -> Iterator[tuple[str, dict[str, Any], np.ndarray, list[str]]]:
    """Name, score, verdicts and clusters of earlier scores of other benchmarks, by the k of now."""
    names = {benchmark.name for benchmark in benchmarks}
    for name, score in store.scores().items():
        if name in names:
            continue
        if score["samples"] != config.n:
            _log.warning(
                "%s was scored with n=%s and is not beside n=%s: its samples stay, and "
                "benchmark=%s scores it again",
                *(name, score["samples"], config.n, name),
            )
            continue
        samples = scored_samples(store, name, score)
        if samples["id"].nunique() > score["questions"]:
            _log.warning(
                "%s has answers to further questions, of an evaluation that was stopped: "
                "benchmark=%s goes on and scores them",
                *(name, name),
            )
            continue
        if samples["id"].nunique() < score["questions"]:
            _log.warning(
                "samples of %s are missing: benchmark=%s samples and scores it", name, name
            )
            continue
        _, correct, clusters = verdicts(samples, config.n)
        score = _with_nan(score)
        if list(score["pass_at"]) != [*map(str, config.k)]:
            score["pass_at"] = {str(k): _pass_at(correct, clusters, k) for k in config.k}
        yield name, score, correct, clusters


def _score(
    benchmark: Benchmark,
    correct: np.ndarray,
    clusters: Sequence[str],
    solved: pd.DataFrame,
    ks: Sequence[int],
) -> dict[str, Any]:
    unparsed = solved["answer"].isna() & ~solved["truncated"].astype(bool)
    return {
        "domain": benchmark.domain,
        "questions": correct.shape[0],
        "clusters": len(set(clusters)),
        "rows": benchmark.rows,
        "published_rows": benchmark.published,
        "left_out": dict(benchmark.left_out),
        "samples": correct.shape[1],
        "pass_at": {str(k): _pass_at(correct, clusters, k) for k in ks},
        "std_over_samples": std_over_samples(correct),
        "truncated": float(solved["truncated"].mean()),
        "unparsed": float(unparsed.mean()),
        "mean_tokens": float(solved["tokens"].mean()),
    }


def _pass_at(correct: np.ndarray, clusters: Sequence[str], k: int) -> dict[str, float]:
    values = pass_at_k(correct, k)
    error = clustered_standard_error(values, clusters)
    return interval(bootstrap_mean(values, clusters)) | {"standard_error": error}


def interval(estimate: Estimate) -> dict[str, float]:
    """The value and its bounds, for JSON."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def write_results(
    directory: Path,
    scores: Mapping[str, Any],
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
) -> str:
    """Write results.json and results.md; returns the table."""
    content = {"settings": dict(settings), "environment": dict(environment), **scores}
    write_json(directory / "results.json", without_nan(content))
    text = as_markdown(scores, environment)
    write_text(directory / "results.md", text)
    return text


def as_markdown(scores: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Tables of scores, averages and calibration."""
    benchmarks = scores["benchmarks"]
    ks = list(next(iter(benchmarks.values()))["pass_at"])
    rows = []
    for name, score in benchmarks.items():
        questions = f"{score['questions']}" + (
            "" if score["rows"] == score["published_rows"] else "*"
        )
        first = score["pass_at"][ks[0]]
        rows.append(
            {
                "benchmark": name,
                "questions": questions,
                "n": str(score["samples"]),
                **{f"pass@{k} (%)": _percent(score["pass_at"][k]) for k in ks},
                f"s.e. @{ks[0]}": _points(first["standard_error"]),
                "std over samples": _points(score["std_over_samples"]),
                "truncated": _points(score["truncated"]),
                "unparsed": _points(score["unparsed"]),
                "tokens": f"{score['mean_tokens']:,.0f}",
            }
        )
    for domain, by_k in scores["averages"].items():
        row = {"benchmark": f"mean ({domain})"}
        rows.append({**row, **{f"pass@{k} (%)": _percent(by_k[k]) for k in ks}})
    parts = [
        render(rows),
        "Brackets: 95 % cluster bootstrap over questions (10,000 resamples); without width where "
        "all questions score the same, which is no certainty. s.e.: over questions, clustered by "
        "shared context. All in percent; truncated: reached max_tokens; unparsed: ended without "
        "an answer.",
    ]
    if any(score["rows"] != score["published_rows"] for score in benchmarks.values()):
        parts.append("\\* The source does not have the published number of rows.")
    for name, score in benchmarks.items():
        if score["left_out"]:
            reasons = "; ".join(score["left_out"].values())
            parts.append(f"{name}: left out {len(score['left_out'])}, not in the score: {reasons}")
    metas = {name: score["meta"] for name, score in benchmarks.items() if "meta" in score}
    if metas:
        parts.append(predictions_table(metas))
    for name, score in benchmarks.items():
        if "solve" in score:
            parts += policy_table(name, score["solve"])
    parts.append(", ".join(f"{name} {value}" for name, value in environment.items()))
    return "\n\n".join(parts) + "\n"


_UNKNOWN = (math.nan,) * 3
"""Of an evaluation of before it was measured."""


def predictions_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """The `meta` of scores, one row per name."""
    return render([_meta_row(name, _with_nan(meta)) for name, meta in scores.items()])


def _meta_row(name: str, meta: Mapping[str, Any]) -> dict[str, str]:
    gate, mixed = meta["gate"], meta.get("mixed")
    row = {
        "predictions": name,
        "parsed": _number(meta["parse_rate"]),
        "pass-rate MAE": _bracketed(*meta["pass_rate_mae"]),
        "corr": _bracketed(*meta["pass_rate_corr"]),
        "ECE": _number(meta["pass_rate_ece"]),
        "Brier": _bracketed(*meta.get("pass_rate_brier", _UNKNOWN)),
        "AUROC": _bracketed(*meta.get("pass_rate_auroc", _UNKNOWN)),
        **{
            f"{key.removeprefix('reward/')} score": _number(value)
            for key, value in meta.items()
            if key.startswith("reward/")
        },
        **{f"gate {part}": _bracketed(*gate[part]) for part in ("precision", "recall", "f1")},
    }
    if mixed is None:
        return row
    return row | {
        f"mixed {part}": _bracketed(*values[part])
        for values, parts in ((mixed, ("brier", "corr")), (mixed["gate"], ("precision", "recall")))
        for part in parts
    }


def render(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table with a column per name; what a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return markdown_table([columns, *([row.get(name, "") for name in columns] for row in rows)])


def _percent(score: Mapping[str, float]) -> str:
    value, low, high = (100 * score[part] for part in ("value", "low", "high"))
    return _bracketed(value, low, high, digits=1)


def _points(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _bracketed(value: float, low: float, high: float, digits: int = 3) -> str:
    return str(Estimate(value, low, high, digits=digits))


def without_nan(node: Any) -> Any:
    """With null for NaN, which JSON does not have."""
    return _mapped(node, lambda leaf: None if leaf != leaf else leaf)


def _with_nan(node: Any) -> Any:
    """Inverse of `without_nan`."""
    return _mapped(node, lambda leaf: math.nan if leaf is None else leaf)


def _mapped(node: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(node, dict):
        return {key: _mapped(value, change) for key, value in node.items()}
    return [_mapped(value, change) for value in node] if isinstance(node, list) else change(node)
