"""A run directory as data frames, with one-line errors for what cannot be read.

A run directory holds `config.yaml`, `metrics.csv`, `timings.csv` and `rollouts/*.parquet` (one file
per rollout step and one per validation).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from masa.rollout_columns import ADDED, FLAGS, SCHEMA, TEXTS
from masa.statistics import Estimate, bootstrap_correlation, bootstrap_mean

COSTS = ("tokens", "flops", "seconds")
CONSOLE = "console.txt"  # what a job of a sweep printed, there from its start
_KEY = ["split", "step", "prompt_id"]


class RunError(Exception):
    """A run directory is missing, empty or incomplete; the message is one line."""


@dataclass(eq=False)
class Run:
    """One training run."""

    path: Path
    """Run directory."""
    config: dict[str, Any]
    """Resolved configuration."""
    name: str
    """Name of the run directory."""
    method: str
    """`algorithm.name`."""
    seed: int
    """Training seed."""
    metrics: pd.DataFrame
    """One row per `step` (0 = before training), with cumulative `tokens`, `flops` and `seconds`
    (training only, validation left out; NaN where the run did not record them)."""
    rollouts: pd.DataFrame
    """One row per rollout, without the texts (see `texts`); `correct` is 1, 0 or NaN, `r_<name>`
    the component of the meta reward, NaN without truth."""
    rewards: tuple[str, ...] = ()
    """Names of these components; none where no prediction was compared with a truth."""

    @property
    def reward_columns(self) -> list[str]:
        """Their columns in `rollouts` and `prompts`."""
        return [f"r_{name}" for name in self.rewards]

    @property
    def environments(self) -> list[dict[str, str]]:
        """Code, packages and machine, in order; none where the run did not record them.

        Raises:
            RunError: they cannot be read.
        """
        path = self.path / "environment.json"
        if not path.is_file():
            return []
        try:
            return list(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise RunError(f"{path}: not valid JSON") from error

    @property
    def baseline(self) -> str | None:
        """Method that the run's sweep is to be compared with; None where it names none."""
        sweep = self.config.get("sweep")
        return sweep.get("baseline") if isinstance(sweep, dict) else None

    @property
    def last_step(self) -> int:
        """Number of rollout steps trained."""
        return int(self.metrics["step"].max())

    @cached_property
    def prompts(self) -> pd.DataFrame:
        """One row per (split, step, prompt_id): outcomes, predictions and decisions.

        `samples`, `correct`, `tokens`, `pass_rate` of the solutions (0, 0, 0, NaN where skipped),
        `mixed` (some are right and some wrong),
        `predicted` (mean over its parsed predictions, NaN for none), `r_<name>` per component of
        the meta reward (means over its meta rollouts, NaN without truth), `level`, the decisions
        and what they are evidence of (docs/metrics.md), `active` (gate or cutoff active).
        """
        rows = self.rollouts
        table = rows.groupby(_KEY, sort=True)[
            ["level", *FLAGS, "cutoff_tokens", "evidence_weight", "full_probability"]
        ].first()
        table["active"] = table["gate_active"] | table["cutoff_active"]
        correct = rows[rows["kind"] == "solution"].groupby(_KEY)["correct"]
        table["samples"], table["correct"] = correct.size(), correct.sum()
        table["tokens"] = rows[rows["kind"] == "solution"].groupby(_KEY)["tokens"].sum()
        table["pass_rate"] = correct.mean()
        table["mixed"] = table["pass_rate"].between(0, 1, inclusive="neither")
        means = rows.groupby(_KEY)[["predicted_pass_rate", *self.reward_columns]].mean()
        table[["predicted", *self.reward_columns]] = means
        counts = ["samples", "correct", "tokens"]
        table[counts] = table[counts].fillna(0).astype(int)
        return table.reset_index()

    @property
    def train_prompts(self) -> pd.DataFrame:
        """Rows of `prompts` of the training split."""
        return self.prompts[self.prompts["split"] == "train"]

    def held_out(self, step: int) -> pd.DataFrame:
        """Rows of `prompts` of the validation after `step`, indexed by prompt id."""
        rows = self.prompts
        rows = rows[(rows["split"] == "val") & (rows["step"] == step) & (rows["samples"] > 0)]
        return rows.set_index("prompt_id")

    def held_out_rollouts(self, step: int) -> pd.DataFrame:
        """Rows of `rollouts` of the validation after `step`."""
        return self.rollouts[(self.rollouts["split"] == "val") & (self.rollouts["step"] == step)]

    @cached_property
    def validations(self) -> pd.DataFrame:
        """One row per validation: `step`, `tokens`, `flops`, `seconds` so far, `Estimate`s.

        `accuracy` (avg@k over held-out prompts), `predicted` and `actual` (mean pass rates of
        the prompts with a prediction), `mae` and `corr` of the two per prompt. Intervals: 95 %
        cluster bootstrap over prompts.
        """
        solutions = self.rollouts[
            (self.rollouts["split"] == "val") & (self.rollouts["kind"] == "solution")
        ]
        table = pd.DataFrame(
            [
                {
                    "step": step,
                    "accuracy": bootstrap_mean(rows["correct"], rows["prompt_id"]),
                    **alignment(self.held_out(int(step)).reset_index()),
                }
                for step, rows in solutions.groupby("step")
            ],
            columns=["step", "accuracy", "predicted", "actual", "mae", "corr"],
        ).astype({"step": "int64"})
        return pd.merge_asof(table, self.metrics[["step", *COSTS]], on="step")

    @property
    def ends(self) -> tuple[int, int]:
        """Rollouts after which the first and the last validation came.

        Raises:
            IndexError: the run has no validation.
        """
        steps = self.validations["step"]
        return int(steps.iloc[0]), int(steps.iloc[-1])

    def curve(self, cost: str) -> tuple[np.ndarray, np.ndarray]:
        """Held-out accuracy against `cost` at each validation: x [V], y [V]."""
        y = np.array([estimate.value for estimate in self.validations["accuracy"]], float)
        return self.validations[cost].to_numpy(float), y

    @property
    def predicts(self) -> bool:
        """True where held-out prompts have predictions."""
        return any(estimate.n for estimate in self.validations["mae"])

    def texts(self, split: str, step: int) -> pd.DataFrame:
        """All columns, texts included, of one rollout step or validation."""
        path = self.path / "rollouts" / f"{split}-{step:06d}.parquet"
        return _read_table(path, SCHEMA.names).to_pandas()


def alignment(prompts: pd.DataFrame, truth: str = "pass_rate") -> dict[str, Estimate]:
    """How well `predicted` matches the column `truth`, one pair per prompt with both."""
    both = prompts.dropna(subset=["predicted", truth])
    ids = both["prompt_id"]
    return {
        "predicted": bootstrap_mean(both["predicted"], ids),
        "actual": bootstrap_mean(both[truth], ids),
        "mae": bootstrap_mean((both["predicted"] - both[truth]).abs(), ids),
        "corr": bootstrap_correlation(both["predicted"], both[truth], ids),
    }


def load_run(path: Path | str) -> Run:
    """Read one run directory.

    Raises:
        RunError: missing, empty or half-written.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"{path}: no such directory")
    if not any(path.iterdir()):
        raise RunError(f"{path}: the directory is empty")
    config = _read_config(path / "config.yaml")
    if "sft" in config:
        raise RunError(f"{path}: a run of masa-sft, which has no rollouts to report on")
    rollouts, rewards = _read_rollouts(path / "rollouts")
    metrics = _add_cost(_read_csv(path / "metrics.csv"), path / "timings.csv", rollouts)
    algorithm = config.get("algorithm")
    if not isinstance(algorithm, dict) or "name" not in algorithm:
        raise RunError(f"{path / 'config.yaml'}: algorithm.name is missing")
    if not isinstance(config.get("seed"), int):
        raise RunError(f"{path / 'config.yaml'}: seed is missing")
    name = path.resolve().name
    method, seed = str(algorithm["name"]), config["seed"]
    return Run(path, config, name, method, seed, metrics, rollouts, rewards)


def load_finished(paths: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs, and of each other one its directory and how many rollouts it has done.

    An unfinished run has spent less than planned: compared with others it would set the common
    budget, and a method's mean would be over runs of several lengths.

    Raises:
        RunError: as `load_run`, or no run is finished.
    """
    so_far = {path: progress(path) for path in paths}
    unfinished = [
        f"{path}: {f'{done} of {planned}' if done else 'no'} rollouts"
        for path, (done, planned) in so_far.items()
        if done < planned
    ]
    if paths and len(unfinished) == len(paths):
        raise RunError(f"no run is finished ({'; '.join(unfinished)})")
    finished = [path for path, (done, planned) in so_far.items() if done >= planned]
    return [load_run(path) for path in finished], unfinished


def progress(path: Path) -> tuple[int, int]:
    """Rollouts that a run has done, and those its settings ask for (0 where they name no number).

    A job of a sweep that failed before its first validation has done none.

    Raises:
        RunError: config.yaml or metrics.csv cannot be read.
    """
    begun = (path / "metrics.csv").is_file()
    if not begun and (path / CONSOLE).is_file():
        return 0, 1
    config = _read_config(path / "config.yaml")
    trainer, engine = config.get("trainer"), config.get("engine")
    planned = trainer.get("max_rollouts") if isinstance(trainer, dict) else None
    planned = planned if isinstance(planned, int) else 0
    metrics = _read_csv(path / "metrics.csv")
    done = int(metrics["step"].max())
    last = metrics[metrics["step"] == done]
    # of a replay, what was not recorded is left out
    replayed = isinstance(engine, dict) and str(engine.get("_target_")).endswith("RecordedEngine")
    unvalidated = "val/accuracy" in last and last["val/accuracy"].isna().all()
    if done == planned and unvalidated and not replayed:
        done -= 1  # a run that is stopped in its last rollout validates when it goes on
    return done, planned


def find_runs(paths: Iterable[Path | str]) -> list[Path]:
    """Run directories among and below `paths`, in the order given, each once.

    Jobs of a sweep that failed before they wrote metrics.csv are among them; below a path, runs of
    masa-sft are not.

    Raises:
        RunError: a path that does not exist or holds no run.
    """
    runs: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise RunError(f"{path}: no such directory")
        below = sorted({p.parent for name in ("metrics.csv", CONSOLE) for p in path.rglob(name)})
        if (path / "config.yaml").is_file() or path in below:
            runs.append(path)
        elif trained := [run for run in below if not _is_fine_tuning(run)]:
            runs += trained
        else:
            raise RunError(f"{path}: holds no run (no metrics.csv in it or below it)")
    return list({p.resolve(): p for p in runs}.values())


def _is_fine_tuning(path: Path) -> bool:
    config = path / "config.yaml"
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    return re.search("^sft:", text, re.MULTILINE) is not None


def run_labels(runs: Sequence[Run]) -> list[str]:
    """A short unique label per run: the method, with seed and directory where needed."""
    frame = pd.DataFrame({"a": [r.method for r in runs]})
    frame["b"] = [f"{r.method} (seed {r.seed})" for r in runs]
    frame["c"] = [f"{r.method} (seed {r.seed}, {r.name})" for r in runs]
    label = frame["b"].where(frame["a"].duplicated(keep=False), frame["a"])
    label = frame["c"].where(frame["b"].duplicated(keep=False), label)
    repeat = label.groupby(label).cumcount()
    return [f"{text} #{again + 1}" if again else text
            for text, again in zip(label, repeat, strict=True)]  # fmt: skip


def per_run(
    rows: Callable[[Run], Iterable[dict[str, Any]]],
) -> Callable[[Sequence[Run]], pd.DataFrame]:
    """Decorator: a function that yields rows of one run makes the table of several.

    The table has their labels in the column `run`; runs without rows are not in it.
    """

    @wraps(rows)
    def table(runs: Sequence[Run]) -> pd.DataFrame:
        labelled = zip(runs, run_labels(runs), strict=True)
        return pd.DataFrame([{"run": label, **row} for run, label in labelled for row in rows(run)])

    return table


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(f"{path}: missing (is this a run directory?)")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: not UTF-8 text") from error
    except yaml.YAMLError as error:
        raise RunError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise RunError(f"{path}: empty or half-written")
    return config


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise RunError(f"{path}: missing (the run has written no metrics yet)")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            widths = [len(row) for row in csv.reader(file) if row]
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: not UTF-8 text") from error
    except csv.Error as error:
        raise RunError(f"{path}: not a CSV file ({error})") from error
    if len(widths) < 2:
        raise RunError(f"{path}: holds no rows")
    if len(set(widths)) > 1:
        raise RunError(f"{path}: half-written (rows differ in their number of cells)")
    table = pd.read_csv(path)
    if "step" not in table:
        raise RunError(f"{path}: has no column 'step'")
    steps = pd.to_numeric(table["step"], errors="coerce")
    if not np.isfinite(steps).all():
        raise RunError(f"{path}: a 'step' is no number")
    table["step"] = steps.astype("int64")
    return table.drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)


def _add_cost(metrics: pd.DataFrame, timings: Path, rollouts: pd.DataFrame) -> pd.DataFrame:
    """Add cumulative training `tokens`, `flops` and `seconds` to the metrics."""
    train = rollouts[rollouts["split"] == "train"]
    counted = metrics["step"].map(train.groupby("step")["tokens"].sum()).fillna(0).cumsum()
    total = metrics["cost/tokens_total"] if "cost/tokens_total" in metrics else counted
    seconds: pd.Series | float = np.nan
    if timings.is_file():
        spent = _read_csv(timings)
        if "timing_s/step" not in spent and train.empty:
            spent["timing_s/step"] = 0.0
        if "timing_s/step" not in spent:
            raise RunError(f"{timings}: has no column 'timing_s/step'")
        spent["seconds"] = spent["timing_s/step"].fillna(0).cumsum()
        merged = pd.merge_asof(metrics[["step"]], spent[["step", "seconds"]], on="step")
        seconds = merged["seconds"].fillna(0.0)
    flops: pd.Series | float = np.nan
    if "cost/flops" in metrics:
        flops = metrics["cost/flops"].ffill().fillna(0)
    tokens = total.ffill().fillna(0)
    if metrics["step"].min() > 1:
        # what came before is in the run that this one went on from
        tokens, flops, seconds = total, np.nan, np.nan
    # a run with many metrics comes as many blocks of columns
    return metrics.copy().assign(tokens=tokens, flops=flops, seconds=seconds)


def _read_rollouts(folder: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Rollouts with a column `r_<name>` per component of the meta reward, and the names."""
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        raise RunError(f"{folder}: no rollouts (missing or empty)")
    columns = [name for name in SCHEMA.names if name not in TEXTS]
    rows = pa.concat_tables([_read_table(file, columns) for file in files]).to_pandas()
    numbers = ("predicted_length", "cutoff_tokens", "max_tokens", "correct")
    rows = rows.astype(dict.fromkeys(numbers, float) | {"step": "int64", "tokens": "int64"})
    measured = rows.pop("meta_rewards").dropna()
    scores = pd.DataFrame([dict(pairs) for pairs in measured], index=measured.index, dtype=float)
    return rows.join(scores.add_prefix("r_")), tuple(scores)


def _read_table(path: Path, columns: list[str]) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read(columns=columns)
    except FileNotFoundError:
        raise RunError(f"{path}: missing") from None
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path}: not readable (half-written?)") from error
    for name in sorted(set(ADDED) & set(columns) - set(table.column_names)):
        field = SCHEMA.field(name)
        value = pa.scalar(False if name in FLAGS else None, field.type)
        table = table.append_column(field, pa.repeat(value, len(table)))
    missing = set(columns) - set(table.column_names)
    if missing:
        names = ", ".join(sorted(missing))
        raise RunError(f"{path}: lacks the columns {names}, as in runs of an older masa")
    return table.select(columns)
