"""Gate and cutoff: how good their decisions were, and what they cost and saved.

A decision is compared with the truth on the evidence: prompts that were rolled out in full whatever
was decided (columns `gate_evidence` and `cutoff_evidence` of the rollouts, docs/metrics.md). In
shadow mode these are all prompts, while gate or cutoff are active the audited ones, which are drawn
at random: the shares below are unbiased. Gate and cutoff each have a mode of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import nan
from typing import Any

import pandas as pd

from masa.analysis.load import Run, per_run
from masa.statistics import (
    Estimate,
    bootstrap_gain,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_wilson,
    wilson,
)

MODES = ("shadow", "active")
GAIN = ("mixed groups kept", "solution tokens kept", "gain", "accuracy of skipped")
_PROMPT = ["step", "prompt_id"]


def has_meta(run: Run) -> bool:
    """True where training prompts were rolled out with predictions."""
    rows = run.rollouts
    return bool(((rows["split"] == "train") & (rows["kind"] == "meta")).any())


def has_gate(run: Run) -> bool:
    """True where the settings have a gate, by predictions or by a prompt's own past."""
    return bool(run.config["algorithm"].get("gate", {}).get("enabled"))


def active_from(run: Run) -> int | None:
    """First rollout step with gate or cutoff active, None where there was none."""
    steps = run.train_prompts.loc[run.train_prompts["active"], "step"]
    return None if steps.empty else int(steps.min())


def _in_mode(rows: pd.DataFrame, column: str, mode: str) -> pd.DataFrame:
    return rows[rows[column] == (mode == "active")]


def in_full(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the prompts that were rolled out in full, none where some had no chance to be."""
    seen = bool((rows["full_probability"] != 0).all())
    return rows[(rows["evidence_weight"] > 0) & seen]


def gate_evidence(run: Run) -> pd.DataFrame:
    """Training prompts that are evidence about the gate, one row per step and prompt.

    The columns of `Run.prompts` and `zero_variance` (the solutions are all correct or all wrong),
    `hit` (zero variance, and the gate would skip).
    """
    return _with_truth(run.train_prompts[run.train_prompts["gate_evidence"]])


def stretches(rows: pd.DataFrame) -> list[tuple[bool, int, int]]:
    """Rollouts in a row in which the gate was active, or in shadow mode: whether it was, first and
    last step."""
    active = rows.groupby("step")["gate_active"].any()
    stretch = (active != active.shift()).cumsum()
    return [
        (bool(part.iloc[0]), int(part.index[0]), int(part.index[-1]))
        for _, part in active.groupby(stretch)
    ]


def held_out_gate(run: Run, step: int) -> pd.DataFrame:
    """Held-out prompts of one validation, with the columns of `gate_evidence`."""
    return _with_truth(run.held_out(step).reset_index())


def _with_truth(rows: pd.DataFrame) -> pd.DataFrame:
    constant = (rows["correct"] == 0) | (rows["correct"] == rows["samples"])
    return rows.assign(zero_variance=constant, hit=constant & rows["would_skip"])


def precision_recall(rows: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Precision and recall of the gate on rows of `gate_evidence`.

    Wilson intervals at the effective sample size, since a prompt may come again in later epochs.
    """
    sums = rows.groupby("prompt_id")[["hit", "would_skip", "zero_variance"]].sum()
    return (
        clustered_wilson(sums["hit"], sums["would_skip"]),
        clustered_wilson(sums["hit"], sums["zero_variance"]),
    )


def _gate_quality(rows: pd.DataFrame) -> dict[str, Estimate]:
    """Cells on rows of `gate_evidence`; the F1 has a bootstrap over prompts, NaN without a hit."""
    precision, recall = precision_recall(rows)
    flags = rows[["hit", "would_skip", "zero_variance"]].astype(int)
    both = flags["would_skip"] + flags["zero_variance"]
    any_hit = bool(flags["hit"].any())
    f1 = bootstrap_ratio(2 * flags["hit"], both, rows["prompt_id"]) if any_hit else Estimate(nan)
    return {"gate precision": precision, "gate recall": recall, "gate F1": f1}


def gain(run: Run, mode: str) -> dict[str, Estimate]:
    """Cells: what the gate keeps of mixed groups and of solution tokens, the ratio of the two
    shares, and the pass rate of prompts that it would skip.

    On prompts rolled out in full, each weighted with the inverse of its chance to be. NaN where
    some had no chance.
    """
    rows = in_full(_in_mode(run.train_prompts, "gate_active", mode))
    signal, tokens = (
        rows["mixed"] * rows["evidence_weight"],
        rows["tokens"] * rows["evidence_weight"],
    )
    kept, names = ~rows["would_skip"], rows["prompt_id"]
    skipped = rows["evidence_weight"] * rows["would_skip"]
    if rows.empty:
        return dict.fromkeys(GAIN, Estimate(nan))
    cells = (
        bootstrap_ratio(signal * kept, signal, names),
        bootstrap_ratio(tokens * kept, tokens, names),
        bootstrap_gain((signal * kept, tokens * kept), (signal, tokens), names),
        bootstrap_ratio(skipped * rows["pass_rate"], skipped, names),
    )
    return dict(zip(GAIN, cells, strict=True))


def lost_correct(run: Run, mode: str) -> Estimate:
    """Share of correct solutions that are longer than the cutoff, of prompts that are evidence
    about it.

    Wilson interval at the effective sample size, since solutions of one prompt share a cutoff.
    """
    rows = run.train_prompts[run.train_prompts["cutoff_evidence"]]
    limits = _in_mode(rows, "cutoff_active", mode)[[*_PROMPT, "cutoff_tokens"]]
    train = run.rollouts[(run.rollouts["split"] == "train") & (run.rollouts["correct"] == 1)]
    correct = train[[*_PROMPT, "tokens"]].merge(limits, on=_PROMPT)
    correct["lost"] = correct["tokens"] > correct["cutoff_tokens"]
    # a prompt may come again in later epochs
    counts = correct.groupby("prompt_id")["lost"].agg(["sum", "size"])
    return clustered_wilson(counts["sum"], counts["size"])


def gate_share(run: Run, mode: str, decision: str) -> Estimate:
    """Share of training prompts with a decision (`would_skip` or `skipped`) in a mode of the
    gate."""
    rows = _in_mode(run.train_prompts, "gate_active", mode)
    counts = rows.groupby("prompt_id")[decision].agg(["sum", "size"])
    return clustered_wilson(counts["sum"], counts["size"])


def solution_tokens(run: Run, mode: str) -> tuple[Estimate, Estimate]:
    """Mean solution tokens per training prompt: as spent (skipped: 0), and without gate and cutoff.

    The second is that of prompts rolled out in full, each weighted with the inverse of its chance
    to be. NaN where some had no chance.
    """
    train = _in_mode(run.train_prompts, "active", mode)
    full = in_full(train)
    weight = full["evidence_weight"]
    return (
        replace(bootstrap_mean(train["tokens"], train["prompt_id"]), digits=0),
        replace(bootstrap_ratio(weight * full["tokens"], weight, full["prompt_id"]), digits=0),
    )


@per_run
def control_table(run: Run) -> Iterator[dict[str, Any]]:
    """Gate and cutoff per run and mode, on the evidence."""
    if not (has_meta(run) or has_gate(run)):
        return
    evidence = gate_evidence(run)
    for mode in MODES:
        share, lost = gate_share(run, mode, "would_skip"), lost_correct(run, mode)
        if not share.n and not lost.n:
            continue
        rows = _in_mode(evidence, "gate_active", mode)
        constant = rows.groupby("prompt_id")["zero_variance"].agg(["sum", "size"])
        spent, in_full = solution_tokens(run, mode)
        yield {
            "mode": mode,
            "would-skip share": share,
            "zero-variance share": clustered_wilson(constant["sum"], constant["size"]),
            **_gate_quality(rows),
            **gain(run, mode),
            "correct lost to cutoff": lost if has_meta(run) else Estimate(nan),
            "solution tokens per prompt, spent": spent,
            "solution tokens per prompt, without control": in_full,
        }


@per_run
def held_out_gate_table(run: Run) -> Iterator[dict[str, Any]]:
    """The gate's decisions on held-out prompts at the last validation.

    Not of a gate that decides by a prompt's own past, which held-out prompts do not have.
    """
    target = run.config["algorithm"].get("gate", {}).get("_target_", "")
    by_history = has_gate(run) and str(target).endswith(".HistoryGate")
    if run.validations.empty or by_history:
        return
    rows = held_out_gate(run, run.ends[1])
    if rows["predicted"].notna().any():
        yield {
            "would-skip share": wilson(int(rows["would_skip"].sum()), len(rows)),
            "zero-variance share": wilson(int(rows["zero_variance"].sum()), len(rows)),
            **_gate_quality(rows),
        }
