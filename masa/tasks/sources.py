"""Rows of a data set: from the Hugging Face hub or from local files, with a column mapping."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from masa.config import ConfigError

FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
"""Local files by their ending, and the reader that `datasets` has for them."""


@dataclass(frozen=True)
class Source:
    """One split of one data set."""

    path: str
    """Repository of the hub, or a .parquet, .jsonl, .json or .csv file; * and ? are patterns."""
    split: str = "train"
    """Split of a data set of the hub."""
    name: str | None = None
    """Configuration (subset) of a data set of the hub."""
    revision: str | None = None
    """Branch, tag or commit; only for the hub."""

    @property
    def is_local(self) -> bool:
        """True where the path names files, whether they exist or not."""
        return Path(self.path).suffix in FORMATS

    @property
    def label(self) -> str:
        """Short name, the beginning of every prompt's id."""
        if self.is_local:
            return Path(self.path).stem
        return f"{self.path.rpartition('/')[2]}/{self.split.partition('[')[0]}"

    def rows(self, max_examples: int | None = None) -> Iterator[dict[str, Any]]:
        """The rows in the order of the source; only the first `max_examples` are fetched.

        Raises:
            ConfigError: there is no such data set, or it cannot be read.
        """
        import datasets

        datasets.disable_progress_bars()
        try:
            found = self._load(streaming=self.is_local or max_examples is not None)
            yield from islice(found, max_examples)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            where = "" if self.is_local else f" (split {self.split})"
            raise ConfigError(f"cannot read {self.path}{where}: {reason}") from error

    def _load(self, streaming: bool) -> Any:
        from datasets import load_dataset

        if not self.is_local:
            return load_dataset(
                self.path,
                self.name,
                split=self.split,
                revision=self.revision,
                streaming=streaming,
            )
        files = sorted(glob.glob(str(Path(self.path).expanduser())))
        if not files:
            raise FileNotFoundError("there is no such file")
        if not any(Path(file).stat().st_size for file in files):
            raise ValueError("the file is empty")
        # streamed, so that no copy of the file is left in a cache
        return load_dataset(
            FORMATS[Path(self.path).suffix], data_files=files, split="train", streaming=True
        )


def cell(row: Mapping[str, Any], column: str, setting: str) -> Any:
    """The value in a column; `a.0.b` looks into lists and records, None where a value is missing.

    Raises:
        ConfigError: there is no such column.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if value is None:
            return None
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            raise ConfigError(
                f"{setting}={column}: there is no such column; there are {', '.join(row)}"
            )
    return value
