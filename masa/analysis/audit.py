"""What the audit says of gate and cutoff.

Evidence are prompts whose solutions were sampled at the full response limit whatever the gate
said: all of them while control is only observed (`shadow`), the audited ones afterwards
(`audited`). Audits are drawn independently of the gate, so the shares below are unbiased.
"""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pandas as pd

from masa.analysis.load import Run
from masa.analysis.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    clustered_wilson,
    wilson,
)

PHASES = ("shadow", "audited")


def has_meta(run: Run) -> bool:
    """True where training prompts were rolled out with meta predictions."""
    rows = run.rollouts
    return bool(((rows["split"] == "train") & (rows["kind"] == "meta")).any())


def control_start(run: Run) -> int | None:
    """First rollout step with gate and cutoff in force, None where there was none."""
    train = run.prompts[(run.prompts["split"] == "train") & run.prompts["enforced"]]
    return None if train.empty else int(train["step"].min())


def evidence(run: Run) -> pd.DataFrame:
    """Training prompts that count as evidence, one row per step and prompt.

    The columns of `Run.prompts` and `phase`, `zero_variance` (all solutions have one verdict),
    `hit` (zero variance and gated).
    """
    prompts = run.prompts
    rows = prompts[
        (prompts["split"] == "train")
        & (prompts["samples"] > 0)
        & (prompts["audited"] | ~prompts["enforced"])
    ].copy()
    rows["phase"] = rows["enforced"].map({True: "audited", False: "shadow"})
    return _with_truth(rows)


def _with_truth(rows: pd.DataFrame) -> pd.DataFrame:
    constant = (rows["correct"] == 0) | (rows["correct"] == rows["samples"])
    return rows.assign(zero_variance=constant, hit=constant & rows["gated"])


def precision_recall(rows: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Gating precision and recall of rows of `evidence`, with Wilson intervals."""
    hits = int(rows["hit"].sum())
    return wilson(hits, int(rows["gated"].sum())), wilson(hits, int(rows["zero_variance"].sum()))


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
    both = rows["gated"].astype(int) + rows["zero_variance"].astype(int)
    return bootstrap_ratio(2 * rows["hit"].astype(int), both, rows["prompt_id"])


def lost_correct(run: Run, rows: pd.DataFrame) -> Estimate:
    """Share of correct solutions of non-gated evidence that are longer than the cutoff.

    Wilson interval at the effective sample size, since solutions of one prompt share a cutoff.
    """
    kept = rows.loc[~rows["gated"] & rows["cutoff"].notna(), ["step", "prompt_id", "cutoff"]]
    train = run.rollouts[(run.rollouts["split"] == "train") & (run.rollouts["correct"] == 1)]
    correct = train[["step", "prompt_id", "tokens"]].merge(kept, on=["step", "prompt_id"])
    correct["lost"] = correct["tokens"] > correct["cutoff"]
    counts = correct.groupby(["step", "prompt_id"])["lost"].agg(["sum", "size"])
    return clustered_wilson(counts["sum"], counts["size"])


def gated_share(run: Run, enforced: bool) -> Estimate:
    """Share of training prompts that the gate flagged, in the one phase or the other."""
    train = run.prompts[run.prompts["split"] == "train"]
    gated = train.loc[train["enforced"] == enforced, "gated"]
    return wilson(int(gated.sum()), len(gated))


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
