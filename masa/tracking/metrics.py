"""Metrics of one step's rollouts, named as in TRL and verl where those have them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from masa.algorithm.sliding_gain import gain_of, verdicts_on
from masa.types import RolloutGroup


def rollout_metrics(
    groups: Sequence[RolloutGroup],
    meta_limit: int,
    *,
    controlled: bool = False,
    penalized: bool = False,
) -> dict[str, float]:
    """Metrics of one step over the groups of all ranks; undefined ones are left out.

    Args:
        groups: this step's groups.
        meta_limit: token limit of a meta rollout.
        controlled: a gate or a cutoff is enabled, in shadow mode or active.
        penalized: overlong solutions are.
    """
    solutions = [c for g in groups for c in g.solutions]
    lengths = [len(c.token_ids) for c in solutions]
    sampled = [g for g in groups if not g.skipped]
    metrics = {
        "reward": _mean(_mean(g.shaped_scores) for g in sampled),
        "reward_std": _mean(statistics.stdev(g.shaped_scores) for g in sampled),
        "pass_rate": _mean(g.pass_rate for g in sampled),
        "frac_reward_zero_std": _mean(g.zero_variance for g in sampled),
        "health/trainable": _mean(g.trainable for g in sampled),
        "health/all_right": _mean(all(g.correct) for g in sampled),
        "health/all_wrong": _mean(not any(g.correct) for g in sampled),
        "completions/mean_length": _mean(lengths),
        "completions/max_length": max(lengths, default=math.nan),
        "completions/clipped_ratio": _mean(not c.finished for c in solutions),
    }
    metrics |= task_reward_metrics(sampled)
    penalties = [
        score - reward
        for g in sampled
        for score, reward in zip(g.shaped_scores, g.solution_rewards, strict=False)
    ]
    if penalized or any(penalties):
        metrics["overlong_penalty"] = _mean(penalties)
    if any(g.meta for g in groups):
        metrics |= meta_metrics(groups)
        metas = [c for g in groups for c in g.meta]
        predicted = sum(len(c.token_ids) for c in metas)
        metrics["meta/token_share"] = predicted / (predicted + sum(lengths))
        metrics["meta/mean_length"] = _mean(len(c.token_ids) for c in metas)
        metrics["meta/clipped_ratio"] = _mean(
            not c.finished and len(c.token_ids) >= meta_limit for c in metas
        )
    if controlled or any(g.meta or g.plan.gate_active for g in groups):
        metrics |= control_metrics(groups)
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def task_reward_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Mean and standard deviation of each further reward over the solutions that it applies to."""
    rewards = [scores for g in groups for scores in g.task_rewards]
    metrics = {}
    for name in rewards[0] if rewards else ():
        values = [value for scores in rewards if (value := scores[name]) is not None]
        metrics[f"rewards/{name}/mean"] = _mean(values)
        metrics[f"rewards/{name}/std"] = statistics.stdev(values) if values[1:] else math.nan
    return metrics


def meta_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Meta-alignment: predictions against the truth of their prompts, NaN where there is none."""
    with_truth = [g for g in groups if g.uncensored and g.meta]
    pairs = [(rate, g.pass_rate) for g in with_truth if not math.isnan(rate := mean_prediction(g))]
    scores = [score for g in with_truth for score in g.meta_scores]
    names = scores[0] if scores else ()
    parsed = [p.parsed for g in groups for p in g.predictions]
    return {
        "meta/reward": _mean(r for g in with_truth for r in g.meta_rewards),
        "meta/pass_rate_mae": _mean(abs(predicted - actual) for predicted, actual in pairs),
        "meta/pass_rate_corr": correlation(pairs),
        "meta/pass_rate_predicted": _mean(predicted for predicted, _ in pairs),
        "meta/pass_rate_true": _mean(actual for _, actual in pairs),
        **{f"meta/reward/{name}": _mean(score[name] for score in scores) for name in names},
        "meta/parse_rate": _mean(parsed),
        **mixed_metrics(with_truth),
    }


def mixed_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """Predicted probability of a mixed group against what the group was; none where no prediction
    has one."""
    pairs = [
        (mixed, float(g.mixed)) for g in groups if not math.isnan(mixed := mean_mixed_prediction(g))
    ]
    if not pairs:
        return {}
    return {
        "meta/mixed_predicted": _mean(predicted for predicted, _ in pairs),
        "meta/mixed_true": _mean(actual for _, actual in pairs),
        "meta/mixed_brier": _mean((predicted - actual) ** 2 for predicted, actual in pairs),
        "meta/mixed_corr": correlation(pairs),
    }


def control_metrics(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """How often gate and cutoff acted, and how well, on prompts that are evidence.

    In shadow mode every prompt is evidence, later only the audited ones. These numbers are then
    noisy; `masa-report` pools them over the run with intervals.
    """
    evidence = [g for g in groups if g.gate_evidence]
    would_skip = [g for g in evidence if g.plan.would_skip]
    constant = [g for g in evidence if g.zero_variance]
    lost = [
        length > g.plan.cutoff_tokens
        for g in groups
        if g.cutoff_evidence
        for length, correct in zip(g.lengths, g.correct, strict=True)
        if correct
    ]
    rolled_out = [g for g in groups if g.plan.would_skip and g.evidence_weight]
    trivial, hopeless = (
        [g for g in rolled_out if g.plan.skip_kind == kind] for kind in ("trivial", "hopeless")
    )
    # without audits, what is skipped is not known, and the rest is all that there is
    unseen = any(g.plan.full_probability == 0 for g in groups)
    gain = gain_of(() if unseen else verdicts_on(groups))
    stopped = [not c.finished and not g.uncensored for g in groups for c in g.solutions]
    return {
        "gate/fraction": _mean(g.skipped for g in groups),
        "gate/would_skip": _mean(g.plan.would_skip for g in groups),
        "gate/precision": _mean(g.zero_variance for g in would_skip),
        "gate/recall": _mean(g.plan.would_skip for g in constant),
        "gate/signal_kept": gain.signal_kept,
        "gate/tokens_kept": gain.tokens_kept,
        "gate/gain": gain.gain,
        "gate/skipped_accuracy": _weighted_accuracy(rolled_out),
        "gate/skipped_accuracy/trivial": _weighted_accuracy(trivial),
        "gate/skipped_accuracy/hopeless": _weighted_accuracy(hopeless),
        "gate/alarm": _mean(g.plan.alarmed for g in groups),
        "gate/audited": float(sum(g.plan.audited for g in groups)),
        "cutoff/fraction": _mean(stopped),
        "cutoff/mean_limit": _mean(g.plan.cutoff_tokens for g in groups),
        "cutoff/lost_correct": _mean(lost),
    }


def _weighted_accuracy(groups: Sequence[RolloutGroup]) -> float:
    """Mean pass rate, each group counted as the prompts that it stands for."""
    weights = math.fsum(g.evidence_weight for g in groups)
    right = math.fsum(g.evidence_weight * g.pass_rate for g in groups)
    return right / weights if groups else math.nan


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Pearson's r, NaN where it is undefined."""
    if len(pairs) < 3 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return math.nan
    first, second = zip(*pairs, strict=True)
    return statistics.correlation(first, second)


def mean_prediction(group: RolloutGroup) -> float:
    """Mean predicted pass rate over the predictions that have one, NaN where none has."""
    return _mean(p.pass_rate for p in group.predictions if p.pass_rate is not None)


def mean_mixed_prediction(group: RolloutGroup) -> float:
    """Mean predicted probability of a mixed group, likewise."""
    return _mean(p.mixed for p in group.predictions if p.mixed is not None)


def _mean(values: Iterable[float]) -> float:
    numbers = [float(value) for value in values]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
