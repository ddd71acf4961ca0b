"""Run directories with chosen numbers, for tests of masa.analysis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from builders import group, plan

from masa.tracking import records

Rows = list[dict[str, Any]]


def prompt_rows(
    split: str,
    step: int,
    prompt_id: str,
    correct: Sequence[bool],
    predicted: Sequence[float | None] = (),
    *,
    level: int = 1,
    tokens: Sequence[int] | int = 60,
    meta_tokens: int = 15,
    would_skip: bool = False,
    audited: bool = False,
    enforced: bool = False,
    gate_active: bool | None = None,
    cutoff_active: bool | None = None,
    skipped: bool = False,
    cutoff_tokens: int | None = 120,
    scored: Sequence[float] | None = None,
    rewards: Sequence[float] | None = None,
) -> Rows:
    """The rollouts of one prompt: one solution per verdict, one meta rollout per prediction.

    Scores are the verdicts and rewards the scores where none are given.
    """
    scored = [float(ok) for ok in correct] if scored is None else scored
    rewards = scored if rewards is None else rewards
    lengths = [tokens] * len(correct) if isinstance(tokens, int) else list(tokens)
    shared = {
        "step": step, "split": split, "prompt_id": prompt_id, "level": level,
        "problem": f"problem {prompt_id}", "answer": "7", "max_tokens": 180, "prompt_tokens": 9,
        "version": step, **decisions(
            bool(correct) and not skipped, would_skip, audited,
            enforced if gate_active is None else gate_active,
            enforced if cutoff_active is None else cutoff_active,
        ), "cutoff_tokens": cutoff_tokens, "skipped": skipped, "kept": True,
    }  # fmt: skip

    def scores(i: int, p: float | None) -> list[tuple[str, float]] | None:
        if skipped or not correct:
            return None
        difficulty = 0.0 if p is None else 0.01 ** abs(p - sum(correct) / len(correct))
        return [("difficulty", difficulty), ("length", float(i % 2)), ("notion", 0.5)]

    solutions = [
        shared | {
            "kind": "solution", "sample": i, "text": f"step by step ```{i}``` \\boxed{{7}}",
            "tokens": n, "reward": rewards[i], "score": scored[i], "advantage": 0.0,
            "correct": bool(ok),
            "finish_reason": "stop", "predicted_pass_rate": None, "predicted_length": None,
            "predicted_notions": None, "predicted_mixed": None, "parse_error": None,
            "meta_rewards": None,
        }
        for i, (ok, n) in enumerate(zip(correct, lengths, strict=True))
        if not skipped
    ]  # fmt: skip
    metas = [
        shared | {
            "kind": "meta", "sample": i, "text": f"<meta>pass rate {p}</meta>",
            "tokens": meta_tokens, "reward": None, "advantage": None, "correct": None,
            "finish_reason": "stop", "predicted_pass_rate": p,
            "predicted_length": None if p is None else 64 + 4 * i,
            "predicted_notions": None if p is None else ["carry"],
            "parse_error": "no JSON" if p is None else None,
            "meta_rewards": scores(i, p),
        }
        for i, p in enumerate(predicted)
    ]  # fmt: skip
    return solutions + metas


def decisions(
    rolled_out: bool, would_skip: bool, audited: bool, gate_active: bool, cutoff_active: bool
) -> dict[str, bool | float]:
    """Columns of a prompt's plan, and its evidence."""
    decided = plan(
        would_skip=would_skip, audited=audited, gate_active=gate_active, cutoff_active=cutoff_active
    )
    outcome = group((True,) if rolled_out else (), decided=decided)
    certain = not decided.enforced or (gate_active and not cutoff_active and not would_skip)
    full = audited or certain
    return {
        "would_skip": would_skip,
        "audited": audited,
        "revisited": False,
        "skip_kind": "",
        "full_probability": 1.0 if certain else 0.2,
        "gate_active": gate_active,
        "cutoff_active": cutoff_active,
        "gate_evidence": outcome.gate_evidence,
        "evidence_weight": (1.0 if certain else 5.0) if rolled_out and full else 0.0,
        "skip_evidence": outcome.skip_evidence,
        "cutoff_evidence": outcome.cutoff_evidence,
    }


def write_run(
    path: Path,
    rows: Rows,
    *,
    method: str = "masa_efficient",
    seed: int = 0,
    seconds_per_step: float = 2.0,
) -> Path:
    """A run directory from its rollouts; metrics.csv follows from them."""
    frame = pd.DataFrame(rows)
    (path / "rollouts").mkdir(parents=True)
    for (split, step), part in frame.groupby(["split", "step"]):
        records.write(
            [rows[i] for i in part.index], path / "rollouts" / f"{split}-{step:06d}.parquet"
        )
    config = {"algorithm": {"name": method, "control": {"start_step": 4}}, "seed": seed}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    solutions = frame[frame["kind"] == "solution"]
    train = frame[frame["split"] == "train"]
    last = int(frame["step"].max())
    metrics = pd.DataFrame({"step": range(last + 1)})
    metrics["val/accuracy"] = metrics["step"].map(
        solutions[solutions["split"] == "val"].groupby("step")["correct"].apply(
            lambda s: s.astype(float).mean())
    )  # fmt: skip
    spent = metrics["step"].map(train.groupby("step")["tokens"].sum())
    metrics["cost/tokens_total"] = spent.cumsum()
    metrics["cost/flops"] = 1e6 * metrics["cost/tokens_total"]
    metrics.to_csv(path / "metrics.csv", index=False)
    timings = pd.DataFrame({"step": range(1, last + 1), "timing_s/step": seconds_per_step})
    timings.to_csv(path / "timings.csv", index=False)
    return path


def simulated_run(
    path: Path,
    *,
    method: str = "masa_efficient",
    seed: int = 0,
    steps: int = 40,
    start: int | None = 15,
    gain: float = 0.4,
    prompts: int = 20,
    held_out: int = 120,
    validate_every: int = 5,
    audit_fraction: float = 0.2,
    meta: bool = True,
) -> Path:
    """A plausible run: accuracy rises, predictions start over-confident and align where `meta`."""
    rng = np.random.default_rng(seed + 1000 * len(method))
    ease = np.array([0.85, 0.6, 0.4, 0.25, 0.15, 0.02])

    def rolled(split: str, step: int, name: str, level: int, samples: int) -> Rows:
        progress = 1 - np.exp(-3 * step / steps)
        p = float(
            np.clip(ease[level - 1] + gain * progress * (level < 6) + rng.normal(0, 0.08), 0, 1)
        )
        correct = rng.random(samples) < p
        aligned = progress if meta else 0.0
        guess = aligned * p + (1 - aligned) * rng.uniform(0.6, 1.0)
        raw = np.clip(guess + rng.normal(0, 0.06, 4), 0, 1)
        predicted = [float(x) for x in np.round(raw * 8) / 8]
        flagged = bool(
            np.std(predicted) < 0.1
            and (np.mean(predicted) < 1 / 16 + 1e-9 or np.mean(predicted) > 15 / 16 - 1e-9)
        )
        train = split == "train"
        enforced = train and start is not None and step > start
        audited = train and bool(rng.random() < audit_fraction)
        return prompt_rows(
            split, step, name, correct.tolist(), predicted if meta or not train else (),
            level=level, tokens=(40 + 12 * level + rng.integers(0, 50, samples)).tolist(),
            would_skip=flagged and train, audited=audited, enforced=enforced,
            skipped=enforced and flagged and not audited, cutoff_tokens=70 + 12 * level,
        )  # fmt: skip

    rows: Rows = []
    for step in range(0, steps + 1):
        if step % validate_every == 0:
            for i in range(held_out):
                rows += rolled("val", step, f"v{i:04d}", 1 + i % 6, 4)
        if step:
            for i in range(prompts):
                rows += rolled("train", step, f"t{step:04d}-{i:02d}", 1 + i % 6, 8)
    return write_run(path, rows, method=method, seed=seed, seconds_per_step=1.6)
