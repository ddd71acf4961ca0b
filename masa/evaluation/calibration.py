"""Calibration of predictions against solutions, for any model, trained to predict or not."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from masa.algorithm.controller import Controller
from masa.algorithm.step import reward
from masa.config import AlgorithmConfig, GateConfig, MetaConfig
from masa.statistics import (
    Estimate,
    bootstrap_correlation,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_wilson,
    percentiles,
    resampled_sums,
)
from masa.tracking.metrics import mean_prediction, meta_metrics
from masa.types import Completion, MetaPrediction, Prompt, RolloutGroup

BINS = 8
"""Bins of the reliability curve per unit: pass rates are predicted in eighths."""


def calibration(
    solutions: pd.DataFrame,
    predictions: pd.DataFrame,
    prompts: Mapping[str, Prompt],
    algorithm: AlgorithmConfig,
) -> dict[str, Any]:
    """Metrics of one benchmark's predictions against its solutions.

    Args:
        solutions, predictions: samples of kind solution and meta.
        prompts: questions by id.
        algorithm: settings of the meta rewards, and `gate.sigma`.

    Returns:
        parse_rate, reward/length and the other `meta_metrics`; pass_rate_mae and
        pass_rate_corr with intervals; pass_rate_ece and the reliability curve (per bin: mean
        predicted, mean actual, questions); pass_rate_brier and pass_rate_auroc as of
        `discrimination`; gate precision, recall and F1 with intervals, and its share of questions.
    """
    by_question = dict(list(solutions.groupby("id")))
    groups, clusters = [], []
    for name, predicted in predictions.groupby("id"):
        of_question = by_question[name]
        groups.append(_group(prompts[str(name)], of_question, predicted, algorithm))
        clusters.append(of_question["cluster"].iloc[0])
    predicted_rates = [mean_prediction(group) for group in groups]
    actual_rates = [group.pass_rate for group in groups]
    errors = [abs(p - a) for p, a in zip(predicted_rates, actual_rates, strict=True)]
    mae = bootstrap_mean(errors, clusters)
    corr = bootstrap_correlation(predicted_rates, actual_rates, clusters)
    rated = [i for i, p in enumerate(predicted_rates) if not math.isnan(p)]
    curve = reliability([(predicted_rates[i], actual_rates[i]) for i in rated])
    verdicts = [(sum(groups[i].correct), len(groups[i].correct)) for i in rated]
    brier, auroc = discrimination(
        [predicted_rates[i] for i in rated], verdicts, [clusters[i] for i in rated]
    )
    metrics = {name.removeprefix("meta/"): v for name, v in meta_metrics(groups).items()}
    return {
        **metrics,
        "pass_rate_mae": _with_bounds(mae),
        "pass_rate_corr": _with_bounds(corr),
        "pass_rate_ece": expected_calibration_error(curve),
        "pass_rate_brier": _with_bounds(brier),
        "pass_rate_auroc": _with_bounds(auroc),
        "reliability": curve,
        "gate": gating(
            [group.plan.would_skip for group in groups],
            [group.zero_variance for group in groups],
            clusters,
        ),
    }


def discrimination(
    predicted: Sequence[float], verdicts: Sequence[tuple[int, int]], clusters: Sequence[Any]
) -> tuple[Estimate, Estimate]:
    """Brier score and AUROC of predicted pass rates, against the verdict on each solution.

    Args:
        predicted: mean predicted pass rate per question, [Q].
        verdicts: right solutions and all solutions of each, [Q].
        clusters: context of each, [Q].

    Returns:
        Mean of (predicted - verdict)^2 over the solutions. Probability that of a right and a wrong
        solution, of whichever questions, the right one's question has the higher prediction, ties
        counted half; NaN where there are not both. Intervals by bootstrap over clusters.
    """
    p = np.asarray(predicted, float)
    right, n = np.array(verdicts, float).reshape(-1, 2).T
    brier = bootstrap_mean((p - 1) ** 2 * right / n + p**2 * (1 - right / n), clusters)
    values, index = np.unique(p, return_inverse=True)
    by_value = np.eye(len(values))[index]
    table = np.hstack([by_value * right[:, None], by_value * (n - right)[:, None]])

    def auroc(sums: np.ndarray) -> np.ndarray:
        rights, wrongs = np.split(sums, 2, axis=-1)
        below = wrongs.cumsum(axis=-1) - wrongs / 2
        pairs = rights.sum(axis=-1) * wrongs.sum(axis=-1)
        with np.errstate(invalid="ignore"):
            return (rights * below).sum(axis=-1) / pairs

    draws = auroc(resampled_sums(table, clusters)) if len({*clusters}) > 1 else np.empty(0)
    whole = float(auroc(table.sum(axis=0))) if len(p) else math.nan
    return brier, Estimate(whole, *percentiles(draws))


def mixed_calibration(
    solutions: pd.DataFrame, predictions: pd.DataFrame, group_size: int, min_mixed: float
) -> dict[str, Any]:
    """The field `mixed` of one benchmark's predictions against its solutions.

    Both are means over a question: of its predictions, and over all groups of G of its n
    solutions, which makes each number the unbiased one of a group of G.

    Args:
        solutions, predictions: samples of kind solution and meta.
        group_size: G, at most the number of solutions per question.
        min_mixed: a gate skips where the prediction is below it.

    Returns:
        predicted and true, the mean chances of a mixed group; brier, the mean squared error of the
        prediction from 1 of a mixed group and 0 of another, and corr, its correlation with the
        chance, both with intervals; the gate as of `gating`, and its min_mixed. Questions without
        a prediction are left out; the gate skips none of them.
    """
    by_question = predictions.groupby("id")
    q = by_question["predicted_mixed"].mean()
    solved = solutions.groupby("id")
    verdicts = solved["correct"].agg(["sum", "count"]).loc[q.index].astype(int)
    p = pd.Series([chance_of_mixed(c, n, group_size) for c, n in verdicts.to_numpy()], q.index)
    clusters = list(solved["cluster"].first()[q.index])
    return {
        "group_size": group_size,
        "predicted": float(q.mean()),
        "true": float(p[q.notna()].mean()),
        "brier": _with_bounds(bootstrap_mean(p * (1 - q) ** 2 + (1 - p) * q**2, clusters)),
        "corr": _with_bounds(bootstrap_correlation(q, p, clusters)),
        "gate": gating(list(q < min_mixed), list(1 - p), clusters) | {"min_mixed": min_mixed},
    }


def chance_of_mixed(right: int, n: int, group_size: int) -> float:
    """Share of the groups of G of n solutions, of which some are right, that are mixed."""
    alike = math.comb(right, group_size) + math.comb(n - right, group_size)
    return 1 - alike / math.comb(n, group_size)


def reliability(pairs: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """Questions by predicted pass rate, in bins centred on eighths; empty bins are left out.

    Args:
        pairs: (mean predicted, actual) pass rate per question.
    """
    bins: dict[int, list[tuple[float, float]]] = {}
    for pair in pairs:
        bins.setdefault(round(pair[0] * BINS), []).append(pair)
    return [
        {
            "predicted": statistics.fmean(p for p, _ in points),
            "actual": statistics.fmean(a for _, a in points),
            "questions": len(points),
        }
        for _, points in sorted(bins.items())
    ]


def expected_calibration_error(curve: Sequence[Mapping[str, float]]) -> float:
    """Mean distance of the reliability curve from the diagonal, over questions; NaN without any."""
    total = sum(point["questions"] for point in curve)
    if not total:
        return math.nan
    distances = (abs(p["predicted"] - p["actual"]) * p["questions"] for p in curve)
    return math.fsum(distances) / total


def gating(
    skips: Sequence[bool], zero_variance: Sequence[float], clusters: Sequence[Any]
) -> dict[str, Any]:
    """The gate's decisions against questions whose solutions are all correct or all wrong.

    Args:
        skips: whether the gate would skip, [questions].
        zero_variance: whether all solutions have the same verdict, or the probability, [questions].
        clusters: context of each, [questions].

    Returns:
        precision, recall (Wilson at the effective size over clusters) and f1 (bootstrap over
        clusters, none without a hit), each as value and 95 % interval; would_skip and
        zero_variance, plain shares.
    """
    skipped, constant = pd.Series(skips, dtype=float), pd.Series(zero_variance, dtype=float)
    counts = pd.DataFrame({"hit": skipped * constant, "skipped": skipped, "constant": constant})
    sums = counts.groupby(list(clusters)).sum()
    precision = clustered_wilson(sums["hit"], sums["skipped"])
    recall = clustered_wilson(sums["hit"], sums["constant"])
    f1 = bootstrap_ratio(2 * counts["hit"], skipped + constant, clusters)
    if not counts["hit"].any():
        f1 = Estimate(f1.value)
    return {
        "precision": _with_bounds(precision),
        "recall": _with_bounds(recall),
        "f1": _with_bounds(f1),
        "would_skip": float(skipped.mean()),
        "zero_variance": float(constant.mean()),
    }


def _with_bounds(estimate: Estimate) -> list[float]:
    return [estimate.value, estimate.low, estimate.high]


def _group(
    prompt: Prompt, solutions: pd.DataFrame, meta: pd.DataFrame, algorithm: AlgorithmConfig
) -> RolloutGroup:
    predictions = tuple(map(saved_prediction, meta.itertuples()))
    controller = Controller(algorithm, seed=0)
    group = RolloutGroup(
        prompt=prompt,
        meta_prompt_ids=np.empty(0, np.int32),
        solution_prompt_ids=np.empty(0, np.int32),
        plan=controller.decide(prompt, predictions, controller.phase(0)),
        meta=tuple(_completion(row) for row in meta.itertuples()),
        predictions=predictions,
        solutions=tuple(_completion(row) for row in solutions.itertuples()),
        scores=tuple(map(float, solutions["correct"])),
        correct=tuple(map(bool, solutions["correct"])),
        uncensored=True,
        shaped_scores=tuple(map(float, solutions["correct"])),
    )
    return reward(group, algorithm)


def saved_prediction(row: Any) -> MetaPrediction:
    """The prediction in a row of `store.SCHEMA`, but for `mixed`, which is of groups of another
    size than the samples."""
    return MetaPrediction(
        pass_rate=None if pd.isna(row.predicted_pass_rate) else float(row.predicted_pass_rate),
        length=None if pd.isna(row.predicted_length) else int(row.predicted_length),
        notions=None if row.predicted_notions is None else tuple(row.predicted_notions),
        error=None if pd.isna(row.parse_error) else row.parse_error,
    )


def _completion(row: Any) -> Completion:
    # the tokens are not saved; lengths need only their number
    count = int(row.tokens)
    tokens, logprobs = np.zeros(count, np.int32), np.zeros(count, np.float32)
    return Completion(tokens, logprobs, not row.truncated, 0, row.text)


def measuring_config(max_tokens: int, min_length: int, sigma: float) -> AlgorithmConfig:
    """Settings for the measurement: the meta rewards of training, and a gate of `sigma`."""
    return AlgorithmConfig(
        response_limit=max_tokens,
        meta=MetaConfig(min_length=min_length),
        gate=GateConfig(settings={**GateConfig().settings, "sigma": sigma}),
    )
