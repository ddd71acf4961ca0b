"""What the claim needs of a run, as a line of JSON: it is kept where the run is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd

from masa.analysis.compare_methods import load_sweep, method_settings
from masa.analysis.control import has_gate, has_meta, in_full
from masa.analysis.load import Run, RunError
from masa.tracking.files import atomic_replace

SHARES = (0.0, 1.0)
GATE = ("gate_precision", "gate_recall", "meta_share")
FACTORS: dict[str, tuple[str, tuple[float, float]]] = {
    "zero_variance_share": ("zero variance", SHARES),
    "mixed_per_kilotoken": ("mixed groups per 1,000 tokens", (0.0, inf)),
    "tokens_before_gate": ("tokens before the gate acts", (0.0, inf)),
    "skipped_share": ("skipped", SHARES),
    "signal_kept": ("mixed groups kept, s", SHARES),
    "tokens_kept": ("solution tokens kept, c", SHARES),
    "prediction_cost": ("predictions, o", (0.0, inf)),
    "gain": ("s / (c + o)", (0.0, inf)),
}
"""Of one run: heading, and between which numbers it lies."""


@dataclass(frozen=True)
class Record:
    """One run."""

    method: str
    seed: int
    settings: str
    """Digest of all settings but the seed: the seeds of a method have the same."""
    profile: str
    pool: int
    """Training prompts."""
    predicts: bool
    """Skips prompts, and predicts."""
    commits: list[str]
    devices: list[str]
    """Several where it was resumed elsewhere; none where the run did not record them."""
    curves: dict[str, list[float | None]]
    """At each validation: `step`, `accuracy`, `tokens` and `seconds` so far, and `mixed_tokens`:
    what the run had spent, had groups of zero variance cost nothing. None where it is not known."""
    values: dict[str, float | None]
    """`GATE` and `FACTORS`; None where there is no number."""

    def curve(self, cost: str) -> tuple[np.ndarray, np.ndarray]:
        """Held-out accuracy against `cost` at each validation: x [V], y [V]."""
        return np.array(self.curves[cost], float), np.array(self.curves["accuracy"], float)

    def without_zero_variance(self) -> Record:
        """The same run, had the groups that it could not learn from cost nothing."""
        return replace(self, curves=self.curves | {"tokens": self.curves["mixed_tokens"]})


Methods = dict[str, list[Record]]
"""The runs of each method, by seed."""


def measure(*paths: Path) -> list[Record]:
    """The finished runs in and below directories.

    Raises:
        RunError: there is none, or one cannot be read.
    """
    return [of_run(method.label, run) for method in load_sweep(*paths) for run in method.runs]


def read(path: Path) -> list[Record]:
    """The records of a file.

    Raises:
        RunError: a line is no record.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [Record(**json.loads(line)) for line in lines]
    except (OSError, TypeError, ValueError) as error:
        raise RunError(f"{path} is no file of records: {error}") from error


def merged(records: Iterable[Record]) -> list[Record]:
    """By method and seed; of two with the same ones the later.

    Raises:
        RunError: the seeds of a method have different settings.
    """
    latest = {(record.method, record.seed): record for record in records}
    for name, runs in by_method(list(latest.values())).items():
        if len({run.settings for run in runs}) > 1:
            raise RunError(
                f"the runs of {name} have different settings: make all of its seeds anew, or "
                "delete the lines of those that are old"
            )
    return [latest[key] for key in sorted(latest)]


def write(path: Path, records: Iterable[Record]) -> None:
    """A line per run."""
    lines = [json.dumps(asdict(record), allow_nan=False) + "\n" for record in records]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text("".join(lines), encoding="utf-8")
    atomic_replace(partial, path)


def by_method(records: Sequence[Record]) -> Methods:
    """In order of first appearance."""
    methods: Methods = {}
    for record in records:
        methods.setdefault(record.method, []).append(record)
    return {name: sorted(runs, key=lambda run: run.seed) for name, runs in methods.items()}


# --- one run


def of_run(method: str, run: Run) -> Record:
    """The record of a run."""
    task = run.config["task"]["config"]
    table = run.validations
    prompts = run.train_prompts
    spent = (prompts["tokens"] * prompts["mixed"]).groupby(prompts["step"]).sum()
    so_far = spent.reindex(run.metrics["step"], fill_value=0).cumsum()
    values = measured(run)
    return Record(
        method=method,
        seed=run.seed,
        settings=digest(run),
        profile=task.get("profile"),
        pool=task["train_size"],
        predicts=has_gate(run) and has_meta(run),
        commits=recorded(run, "commit"),
        devices=recorded(run, "device"),
        curves={
            "step": [int(step) for step in table["step"]],
            "accuracy": known_numbers(estimate.value for estimate in table["accuracy"]),
            **{cost: known_numbers(table[cost].round(2)) for cost in ("tokens", "seconds")},
            "mixed_tokens": known_numbers(so_far[table["step"]]),
        },
        values=dict(zip(values, known_numbers(values.values()), strict=True)),
    )


def known_numbers(values: Iterable[float]) -> list[float | None]:
    """None for NaN, which JSON does not have."""
    return [None if isnan(value) else float(value) for value in values]


def digest(run: Run) -> str:
    """Of the settings that make a method."""
    settings = json.dumps(method_settings(run), sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:12]


def recorded(run: Run, fact: str) -> list[str]:
    """What the run recorded, each value once; nothing where it did not each time."""
    values = {facts.get(fact) for facts in run.environments}
    return [] if None in values else sorted(map(str, values))


def share(part: pd.Series, of: pd.Series) -> float:
    """Sum of one over sum of the other; NaN for none."""
    return float(part.sum() / of.sum()) if of.sum() else nan


def measured(run: Run) -> dict[str, float]:
    """What a run's gate was worth on prompts that were rolled out whatever it said, and the
    factors of its cost. NaN where there is none."""
    rows, train = in_full(run.train_prompts), run.rollouts[run.rollouts["split"] == "train"]
    weight, tokens = rows["evidence_weight"], run.metrics.set_index("step")["tokens"]
    prompts = run.train_prompts
    values = dict.fromkeys([*GATE, *FACTORS], nan) | {
        "meta_share": share(train["tokens"] * (train["kind"] == "meta"), train["tokens"]),
        "zero_variance_share": share(weight * ~rows["mixed"], weight),
        "mixed_per_kilotoken": 1000 * float(prompts["mixed"].sum() / train["tokens"].sum()),
    }
    acts = prompts[prompts["gate_active"]]
    if not has_gate(run) or acts.empty:
        return values
    rows = rows[rows["gate_active"]]
    weight, skip = rows["evidence_weight"], rows["would_skip"].astype(bool)
    hit = weight * (skip & ~rows["mixed"])
    in_action = train[train["gate_active"]]
    cost = weight * rows["tokens"]
    kept, spared = share(weight * (rows["mixed"] & ~skip), weight * rows["mixed"]), cost * ~skip
    values |= {
        "tokens_before_gate": float(tokens[tokens.index < acts["step"].min()].max()),
        "skipped_share": float(acts["skipped"].mean()),
        "gate_precision": share(hit, weight * skip),
        "gate_recall": share(hit, weight * ~rows["mixed"]),
        "signal_kept": kept,
        "tokens_kept": share(spared, cost),
    }
    if cost.sum():
        meta = in_action.loc[in_action["kind"] == "meta", "tokens"].sum()
        values["prediction_cost"] = float(meta / cost.sum())
        values["gain"] = kept / (values["tokens_kept"] + values["prediction_cost"])
    return values
