"""The logger of metrics.csv and timings.csv: a row per rollout, complete files, kept on resume."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from masa.tracking.files import atomic_write

VOLATILE = ("timing_s/", "perf/")
"""Metrics that differ between runs of one seed. They are in a separate file, so that metrics.csv
of two such runs is identical."""


class CsvLogger(Logger):
    """Lightning's CSVLogger deletes an existing file and mixes timings with metrics; this does not.

    Args:
        directory: run directory.
        resume_step: rollout to resume after; later rows are dropped. None for a new run.
    """

    def __init__(self, directory: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.directory = directory
        self.tables = {
            name: _read(directory / name, resume_step) for name in ("metrics.csv", "timings.csv")
        }

    @property
    def name(self) -> str:
        """Nothing below the run directory."""
        return ""

    @property
    def version(self) -> str:
        """Nothing below the run directory."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add to the row of rollout `step` and rewrite the files."""
        if step is None:
            return
        for name, table in self.tables.items():
            row = {
                key: repr(float(value))
                for key, value in metrics.items()
                if key.startswith(VOLATILE) == (name == "timings.csv")
            }
            if row:
                table.setdefault(step, {}).update(row)
                _write(self.directory / name, table)


def _read(path: Path, resume_step: int | None) -> dict[int, dict[str, str]]:
    if resume_step is None or not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = {
            int(row.pop("step")): {key: value for key, value in row.items() if value}
            for row in csv.DictReader(file)
        }
    return {step: row for step, row in rows.items() if step <= resume_step}


def _write(path: Path, table: Mapping[int, Mapping[str, str]]) -> None:
    columns = ["step", *sorted({key for row in table.values() for key in row})]
    with atomic_write(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for step in sorted(table):
            writer.writerow({"step": step, **table[step]})
