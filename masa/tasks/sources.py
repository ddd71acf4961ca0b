"""Rows of a data set: from the Hugging Face hub, an address or local files."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from masa.config import ConfigError

Row = Mapping[str, Any]


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _csv(path: Path) -> Iterator[Row]:
    # the limit is meant for spreadsheets: a problem may be longer than its 128 KiB
    csv.field_size_limit(2**31 - 1)
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _lines(path: Path) -> Iterator[Row]:
    # not str.splitlines: a text may hold separators that end no line of JSON
    with path.open(newline="\n", encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def _json(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8")
    yield from json.loads(text) if text.lstrip().startswith("[") else _lines(path)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".jsonl": _lines,
    ".json": _json,
    ".csv": _csv,
}
"""Local files by their ending; .json holds a list, or an object per line."""


@dataclass(frozen=True)
class Source:
    """One split of one data set."""

    path: str
    """Repository of the hub, address of a file, or a .parquet, .jsonl, .json or .csv file; * and ?
    are patterns."""
    split: str = "train"
    """Split of a data set of the hub."""
    name: str | None = None
    """Configuration (subset) of a data set of the hub."""
    revision: str | None = None
    """Branch, tag or commit; only for the hub."""
    files: tuple[str, ...] = ()
    """Files to read from the repository, where `datasets` cannot load it."""

    @property
    def is_local(self) -> bool:
        """True where the path names files, whether they exist or not."""
        return "://" not in self.path and Path(self.path).suffix in READERS

    @property
    def label(self) -> str:
        """Short name, the beginning of every prompt's id."""
        if self.is_local:
            return Path(self.path).stem
        return f"{self.path.rpartition('/')[2]}/{self.split.partition('[')[0]}"

    def rows(self, max_examples: int | None = None) -> Iterator[Row]:
        """The rows in the order of the source; only the first `max_examples` are fetched.

        Raises:
            ConfigError: there is no such data set, or it cannot be read.
        """
        import datasets
        from pyarrow import ArrowException

        datasets.disable_progress_bars()
        try:
            for row in islice(self._load(streaming=max_examples is not None), max_examples):
                if not isinstance(row, Mapping):
                    raise ValueError("it must hold a list of objects")
                yield row
        except (
            OSError, ValueError, csv.Error, ArrowException, datasets.exceptions.DatasetsError
        ) as error:  # fmt: skip
            reason = " ".join(str(error.__cause__ or error).split())[:160]
            where = "" if self.is_local or "://" in self.path else f" (split {self.split})"
            raise ConfigError(f"cannot read {self.path}{where}: {reason}") from error

    def _load(self, streaming: bool) -> Iterator[Row]:
        import datasets
        from huggingface_hub import hf_hub_download

        if self.is_local:
            files = sorted(glob.glob(str(Path(self.path).expanduser())))
            if not files:
                raise FileNotFoundError("there is no such file")
        elif "://" in self.path:
            files = [datasets.DownloadManager().download(self.path)]
        elif self.files:
            files = [
                hf_hub_download(self.path, file, repo_type="dataset", revision=self.revision)
                for file in self.files
            ]
        else:
            yield from datasets.load_dataset(
                self.path,
                self.name,
                split=self.split,
                revision=self.revision,
                streaming=streaming,
            )
            return
        for file in files:
            # what was downloaded from an address has lost its ending
            named = self.path if "://" in self.path else file
            yield from READERS[Path(named).suffix](Path(file))


def cell(row: Row, column: str, setting: str) -> Any:
    """The value in a column, None where it is missing.

    `a.0.b` looks into lists and records; `a | b` takes the first column that is there.

    Raises:
        ConfigError: there is no such column.
    """
    there, value = _look_up(row, column)
    if not there:
        raise no_such_column(row, column, setting)
    return value


class Column:
    """A column that single rows may lack, as lines of JSON do where they have nothing to say.

    Args:
        column: as for `cell`.
        setting: who names it.
    """

    def __init__(self, column: str, setting: str) -> None:
        self.column = column
        self.setting = setting
        self._lacking: Row | None = None
        self._found = False

    def of(self, row: Row) -> Any:
        """The value, None where it or the column is missing."""
        there, value = _look_up(row, self.column)
        self._found |= there
        if not there and self._lacking is None:
            self._lacking = row
        return value

    def require(self) -> None:
        """Raise ConfigError where there were rows and none had the column."""
        if self._lacking is not None and not self._found:
            raise no_such_column(self._lacking, self.column, self.setting)


def no_such_column(row: Row, column: str, setting: str) -> ConfigError:
    """What is said of a column that a row does not have."""
    return ConfigError(
        f"{setting}={column}: there is no such column; there are {', '.join(map(str, row))}"
    )


def _look_up(row: Row, column: str) -> tuple[bool, Any]:
    """Whether the column is there, and its value."""
    for path in column.split(" | "):
        value: Any = row
        # a column's own name may have a dot in it
        for part in [path] if path in row else path.split("."):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdigit():
                value = value[int(part)] if int(part) < len(value) else None
            elif value is not None:
                break
        else:
            return True, value
    return False, None
