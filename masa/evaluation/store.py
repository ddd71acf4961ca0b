"""What an evaluation keeps on disk: samples with verdicts, and the settings they came from."""

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
        ("parse_error", pa.string()),
        ("digest", pa.string()),
    ]
)
"""One row per completion of kind solution or meta. Null: no verdict (meta), no answer extracted
(solution), no prediction (solution). A solution without a verdict is not judged yet. `digest`
changes with question, gold answer, instruction and rule of judging."""

Key = tuple[str, str, int]
"""(kind, id, sample)"""


class Store:
    """The samples of one evaluation directory, in parquet files that are complete or not there.

    Args:
        directory: the evaluation directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def benchmarks(self) -> list[str]:
        """Benchmarks that have samples."""
        return sorted(folder.name for folder in (self.directory / "samples").glob("*"))

    def read(self, benchmark: str) -> pd.DataFrame:
        """All samples of a benchmark, by kind, id and sample."""
        files = self._files(benchmark)
        tables = [pq.read_table(file, schema=SCHEMA) for file in files]
        table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        return table.to_pandas().sort_values(["kind", "id", "sample"], ignore_index=True)

    def done(self, benchmark: str, digests: Mapping[str, str]) -> set[Key]:
        """Keys of the samples that are there.

        Args:
            digests: per question of today's benchmark.

        Raises:
            ConfigError: a sample answers another question than today's of the same id.
        """
        columns = ["kind", "id", "sample", "digest"]
        keys: set[Key] = set()
        for file in self._files(benchmark):
            for row in pq.read_table(file, columns=columns).to_pylist():
                if row["id"] in digests and row["digest"] != digests[row["id"]]:
                    raise ConfigError(
                        f"{self.directory} holds samples of another version of question "
                        f"{row['id']} of {benchmark}: choose another hydra.run.dir"
                    )
                keys.add((row["kind"], row["id"], row["sample"]))
        return keys

    def unjudged(self, benchmark: str) -> list[tuple[Path, list[dict[str, Any]]]]:
        """Files that hold solutions without a verdict, with all of their rows."""
        found = []
        for file in self._files(benchmark):
            table = pq.read_table(file, schema=SCHEMA)
            rows = table.select(["kind", "correct"]).to_pylist()
            if any(row["kind"] == "solution" and row["correct"] is None for row in rows):
                found.append((file, table.to_pylist()))
        return found

    def add(self, benchmark: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Save samples in a new file."""
        number = len(self._files(benchmark))
        path = self.directory / "samples" / benchmark / f"{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.replace(path, rows)
        return path

    def replace(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Save samples in the place of a file's."""
        partial = path.with_suffix(".tmp")
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), partial, compression="zstd")
        os.replace(partial, path)

    def _files(self, benchmark: str) -> list[Path]:
        return sorted((self.directory / "samples" / benchmark).glob("*.parquet"))

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Note what the samples depend on; refuse to go on with other settings.

        Raises:
            ConfigError: the directory's samples were drawn with others.
        """
        path = self.directory / "settings.json"
        if path.exists():
            before = _read_json(path)
            for name in sorted(before.keys() | settings.keys()):
                if before.get(name) != settings.get(name):
                    raise ConfigError(
                        f"{name} is {settings.get(name)}, but {self.directory} was sampled with "
                        f"{before.get(name)}: repeat it to go on, or choose another hydra.run.dir"
                    )
            return
        write_json(path, settings)

    def settings(self) -> dict[str, Any]:
        """What `check_settings` noted.

        Raises:
            ConfigError: this is no evaluation directory.
        """
        path = self.directory / "settings.json"
        # a name that is too long is no error here, as it would be of pathlib's
        if not os.path.isfile(path):
            raise ConfigError(f"{self.directory} is no directory of masa-eval: no settings.json")
        return _read_json(path)

    def scores(self) -> dict[str, Any]:
        """What results.json says of each benchmark; nothing before the first has a score."""
        path = self.directory / "results.json"
        scores: dict[str, Any] = _read_json(path)["benchmarks"] if path.is_file() else {}
        return scores


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}): restore it, or choose another hydra.run.dir"
        ) from error
    return content


def write_json(path: Path, content: Any) -> None:
    """Write a file that is either complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
