"""The files of an evaluation: samples with verdicts, and the settings they were sampled with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from masa.errors import ConfigError
from masa.tracking.files import REPEAT, atomic_write

SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("id", pa.string()),
        ("kind", pa.string()),
        ("sample", pa.int32()),
        ("cluster", pa.string()),
        ("gold", pa.string()),
        ("text", pa.string()),
        ("tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("correct", pa.bool_()),
        ("answer", pa.string()),
        ("predicted_pass_rate", pa.float64()),
        ("predicted_length", pa.int32()),
        ("predicted_notions", pa.list_(pa.string())),
        ("predicted_mixed", pa.float64()),
        ("parse_error", pa.string()),
        ("digest", pa.string()),
    ]
)
"""One row per completion of kind solution or meta. Null: no verdict (meta), no extracted answer
(solution), no prediction (solution). A solution without a verdict is not judged yet. `digest`
changes with question, gold answer, instruction and rule of judging."""

WEIGHTS = "weights"
"""Setting that directories of before do not have."""

Key = tuple[str, str, int]
"""(kind, id, sample)"""


class Store:
    """The samples of one evaluation directory, in parquet files that are complete or absent.

    Args:
        directory: the evaluation directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def benchmarks(self) -> list[str]:
        """Benchmarks that have been begun."""
        return sorted(folder.name for folder in (self.directory / "samples").glob("*"))

    def read(self, benchmark: str) -> pd.DataFrame:
        """All samples of a benchmark, by kind, id and sample."""
        tables = [_read_samples(file) for file in self._files(benchmark)]
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        return table.to_pandas().sort_values(["kind", "id", "sample"], ignore_index=True)

    def saved_keys(self, benchmark: str, digests: Mapping[str, str]) -> set[Key]:
        """Keys of the saved samples.

        Args:
            benchmark: name.
            digests: of the benchmark's questions, by id.

        Raises:
            ConfigError: a sample is of another version of a question.
        """
        columns = ["kind", "id", "sample", "digest"]
        keys: set[Key] = set()
        for file in self._files(benchmark):
            for row in _read_samples(file, columns).to_pylist():
                if row["id"] in digests and row["digest"] != digests[row["id"]]:
                    raise ConfigError(
                        f"{self.directory} holds samples of another version of question "
                        f"{row['id']} of {benchmark}: choose another hydra.run.dir"
                    )
                keys.add((row["kind"], row["id"], row["sample"]))
        return keys

    def unjudged(self, benchmark: str) -> list[tuple[Path, list[dict[str, Any]]]]:
        """Files with solutions without a verdict, and all of their rows."""
        files = []
        for path in self._files(benchmark):
            table = _read_samples(path)
            rows = table.select(["kind", "correct"]).to_pylist()
            if any(row["kind"] == "solution" and row["correct"] is None for row in rows):
                files.append((path, table.to_pylist()))
        return files

    def set_clusters(self, benchmark: str, clusters: Mapping[str, str]) -> None:
        """Save the contexts that questions share, by id, where samples have other ones."""
        for path in self._files(benchmark):
            rows = _read_samples(path).to_pylist()
            changed = [row | {"cluster": clusters.get(row["id"], row["cluster"])} for row in rows]
            if changed != rows:
                self.replace(path, changed)

    def add(self, benchmark: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Save samples in a new file."""
        number = max((int(file.stem) + 1 for file in self._files(benchmark)), default=0)
        path = self.directory / "samples" / benchmark / f"{number:05d}.parquet"
        self.replace(path, rows)
        return path

    def replace(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the samples of a file."""
        with atomic_write(path, REPEAT) as partial:
            pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), partial, compression="zstd")

    def _files(self, benchmark: str) -> list[Path]:
        return sorted((self.directory / "samples" / benchmark).glob("*.parquet"))

    def write_curves(self, benchmark: str, curves: pd.DataFrame) -> None:
        """Save what policies made of each question."""
        with atomic_write(self._curves(benchmark), REPEAT) as partial:
            curves.to_parquet(partial, index=False)

    def curves(self, benchmark: str) -> pd.DataFrame | None:
        """What `write_curves` saved; None where the last evaluation compared no policies."""
        path = self._curves(benchmark)
        if "solve" not in self.scores().get(benchmark, {}) or not path.is_file():
            return None
        return pd.read_parquet(path)

    def _curves(self, benchmark: str) -> Path:
        return self.directory / "curves" / f"{benchmark}.parquet"

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Save the settings of the samples; refuse other ones once there are some.

        Raises:
            ConfigError: the directory's samples have other settings.
        """
        path = self.directory / "settings.json"
        saved = _read_json(path) if path.exists() else {}
        # a command that never came to a sample may be corrected
        if saved and any(map(self._files, self.benchmarks())):
            for name in sorted(saved.keys() | settings.keys()):
                wanted, before = settings.get(name), saved.get(name)
                if name == "model" and wanted and before and os.path.exists(str(wanted)):
                    # a folder may be written in several ways
                    wanted, before = (os.path.realpath(str(path)) for path in (wanted, before))
                if wanted != before and not (name == WEIGHTS and before is None):
                    # a template is a page long
                    wanted, before = (" ".join(str(v).split())[:200] for v in (wanted, before))
                    raise ConfigError(
                        f"{name} is {wanted}, but {self.directory} was sampled with {before}: "
                        "repeat it to resume, or choose another hydra.run.dir"
                    )
            return
        write_json(path, settings)

    def settings(self) -> dict[str, Any]:
        """The settings that `check_settings` saved.

        Raises:
            ConfigError: this is no evaluation directory.
        """
        path = self.directory / "settings.json"
        # pathlib would raise for a name that is too long
        if not os.path.isfile(path):
            raise ConfigError(f"{self.directory} is no directory of masa-eval: no settings.json")
        return _read_json(path)

    def results(self) -> dict[str, Any]:
        """What results.json has; empty before the first."""
        path = self.directory / "results.json"
        return _read_json(path) if path.is_file() else {}

    def scores(self) -> dict[str, Any]:
        """The scores in results.json by benchmark; empty before the first."""
        scores: dict[str, Any] = self.results().get("benchmarks", {})
        return scores


def _read_samples(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, schema=None if columns else SCHEMA)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from error
    except pa.ArrowException as error:
        raise ConfigError(
            f"{path} is damaged ({' '.join(str(error).split())[:160]}): delete it, and repeat the "
            "command that sampled it"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it has no object")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}): restore it, or choose another hydra.run.dir"
        ) from error
    return content


def write_json(path: Path, content: Any) -> None:
    """Write a file that is either complete or absent."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file that is either complete or absent."""
    with atomic_write(path, REPEAT) as partial:
        partial.write_text(text, encoding="utf-8")
