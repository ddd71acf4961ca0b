"""What the audit says of gate and cutoff.

Evidence are prompts whose solutions were sampled at the full response limit whatever the gate
said: all of them while control is only observed, the audited ones afterwards. Audits are drawn
independently of the gate, so the shares below are unbiased. Gate and cutoff each come into force
for themselves: `shadow` is evidence from rollouts in which the one in question was only observed,
`audited` from those in which it acted.
"""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pandas as pd

from masa.analysis.load import Run
from masa.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_wilson,
    wilson,
)

PHASES = ("shadow", "audited")
_PHASE = dict(zip((False, True), PHASES, strict=True))  # by whether it acted


def has_meta(run: Run) -> bool:
    """True where training prompts were rolled out with meta predictions."""
    rows = run.rollouts
    return bool(((rows["split"] == "train") & (rows["kind"] == "meta")).any())


def has_gate(run: Run) -> bool:
    """True where a gate was to act, by predictions or by a prompt's own past."""
    return bool(run.config["algorithm"].get("gate", {}).get("enabled"))


def goes_by_history(run: Run) -> bool:
    """True where the gate judges by a prompt's own past, of which held-out ones have none."""
    target = run.config["algorithm"].get("gate", {}).get("_target_", "")
    return has_gate(run) and str(target).endswith(".HistoryGate")


def control_start(run: Run) -> int | None:
    """First rollout step with gate and cutoff in force, None where there was none."""
    train = run.prompts[(run.prompts["split"] == "train") & run.prompts["enforced"]]
    return None if train.empty else int(train["step"].min())


def evidence(run: Run) -> pd.DataFrame:
    """Training prompts that are evidence about the gate, one row per step and prompt.

    The columns of `Run.prompts` and `phase` (of the gate), `zero_variance` (all solutions have one
    verdict), `hit` (zero variance, and the gate would skip).
    """
    rows = run.prompts[(run.prompts["split"] == "train") & run.prompts["gate_evidence"]].copy()
    rows["phase"] = rows["gate_active"].map(_PHASE)
    return _with_truth(rows)


def _with_truth(rows: pd.DataFrame) -> pd.DataFrame:
    constant = (rows["correct"] == 0) | (rows["correct"] == rows["samples"])
    return rows.assign(zero_variance=constant, hit=constant & rows["would_skip"])


def precision_recall(rows: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Gating precision and recall of rows of `evidence`.

    Wilson intervals at the effective sample size, since a prompt may come again in later epochs.
    """
    sums = rows.groupby("prompt_id")[["hit", "would_skip", "zero_variance"]].sum()
    return (
        clustered_wilson(sums["hit"], sums["would_skip"]),
        clustered_wilson(sums["hit"], sums["zero_variance"]),
    )


def held_out_gate(run: Run, step: int) -> pd.DataFrame:
    """Held-out prompts of one validation, as `evidence` has them: all are rolled out in full, and
    the gate's verdict on them is on record. Not what the gate was trained or steered on."""
    rows = run.prompts[(run.prompts["split"] == "val") & (run.prompts["step"] == step)]
    rows = rows[rows["samples"] > 0]
    return _with_truth(rows.assign(phase="held-out"))


def f1(rows: pd.DataFrame) -> Estimate:
    """Harmonic mean of precision and recall of rows of `evidence`; NaN where nothing is a hit.

    Interval: 95 % bootstrap over prompts.
    """
    if not rows["hit"].any():
        return Estimate(nan)
    both = rows["would_skip"].astype(int) + rows["zero_variance"].astype(int)
    return bootstrap_ratio(2 * rows["hit"].astype(int), both, rows["prompt_id"])


def lost_correct(run: Run, phase: str) -> Estimate:
    """Share of correct solutions that are longer than the cutoff, of prompts that are evidence
    about it.

    Wilson interval at the effective sample size, since solutions of one prompt share a cutoff.
    """
    rows = run.prompts[(run.prompts["split"] == "train") & run.prompts["cutoff_evidence"]]
    rows = rows[rows["cutoff_active"].map(_PHASE) == phase]
    kept = rows[["step", "prompt_id", "cutoff_tokens"]]
    train = run.rollouts[(run.rollouts["split"] == "train") & (run.rollouts["correct"] == 1)]
    correct = train[["step", "prompt_id", "tokens"]].merge(kept, on=["step", "prompt_id"])
    correct["lost"] = correct["tokens"] > correct["cutoff_tokens"]
    counts = correct.groupby(["step", "prompt_id"])["lost"].agg(["sum", "size"])
    return clustered_wilson(counts["sum"], counts["size"])


def gated_share(run: Run, phase: str, decision: str = "would_skip") -> Estimate:
    """Share of training prompts in one phase of the gate that it flagged, audited ones included;
    of those it kept from being rolled out with `decision="skipped"`."""
    train = run.prompts[run.prompts["split"] == "train"]
    found = train.loc[train["gate_active"].map(_PHASE) == phase, decision]
    return wilson(int(found.sum()), len(found))


def solution_tokens(run: Run, phase: str) -> tuple[Estimate, Estimate]:
    """Mean solution tokens per training prompt: as spent (skipped: 0), and on the evidence alone.

    The second is what a prompt would have cost without gate and cutoff.
    """
    train = run.prompts[run.prompts["split"] == "train"]
    train = train[train["enforced"] == (phase == "audited")]
    rows = run.rollouts
    spent = rows[(rows["split"] == "train") & (rows["kind"] == "solution")]
    sums = spent.groupby(["step", "prompt_id"])["tokens"].sum().rename("spent")
    train = train.join(sums, on=["step", "prompt_id"]).fillna({"spent": 0})
    free = train[train["audited"] | ~train["enforced"]]
    return (
        replace(bootstrap_mean(train["spent"], train["prompt_id"]), digits=0),
        replace(bootstrap_mean(free["spent"], free["prompt_id"]), digits=0),
    )
