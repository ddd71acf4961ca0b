"""Rows of a data set: from the Hugging Face hub, an address or local files."""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import io
import json
import lzma
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, TextIO
from urllib.parse import urlsplit

from masa.errors import ConfigError

Row = Mapping[str, Any]

_NO_NUMBER = re.compile(r"\s*[+-]?(nan|inf)\s*", re.IGNORECASE)
_ENDINGS = re.compile(
    r"(?P<kind>\.(parquet|jsonl|ndjson|json|csv|tsv))(?P<packed>\.(gz|bz2|xz|zst))?(?=$|[?&#])",
    re.IGNORECASE,
)


def _parquet(path: Path, packed: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _binary(path, packed) as file:
        source = io.BytesIO(file.read()) if packed else path
        for batch in pq.ParquetFile(source).iter_batches():
            for i, field in enumerate(batch.schema):
                if field.type == pa.float32():
                    # 0.1 in single precision is 0.10000000149011612 in Python's
                    decimals = batch.column(i).cast(pa.string()).cast(pa.float64())
                    batch = batch.set_column(i, field.name, decimals)
            yield from batch.to_pylist()


def _table(path: Path, packed: str, delimiters: str) -> Iterator[Row]:
    # a problem may be longer than the default limit of 128 KiB
    csv.field_size_limit(2**31 - 1)
    with _text(path, packed) as file:
        lines = iter(file)
        first = next(lines, "")
        # the first that splits the header
        splitting = (d for d in delimiters if len(next(csv.reader([first], delimiter=d), ())) > 1)
        delimiter = next(splitting, delimiters[0])
        reader = csv.DictReader(chain([first], lines), delimiter=delimiter, strict=True)
        try:
            names = Counter(filter(None, reader.fieldnames or ()))
            if names and max(names.values()) > 1:
                name = names.most_common(1)[0][0]
                raise csv.Error(f"{names[name]} columns have the name {name!r}")
            for row in reader:
                if None in row:
                    raise csv.Error("more fields than the header has")
                yield row
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from None


def _lines(path: Path, packed: str) -> Iterator[Row]:
    with _text(path, packed) as file:
        # a text may hold separators that end no line of JSON
        yield from _objects(file)


def _objects(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        # each of several concatenated files begins with a byte order mark
        line = line.strip("\ufeff \t\r\n")
        if line:
            try:
                yield _parsed(line)
            except json.JSONDecodeError as error:
                where = f"line {number}, column {error.colno}"
                raise ValueError(f"{where}: {error.msg}") from None


def _json(path: Path, packed: str) -> Iterator[Row]:
    with _text(path, packed) as file:
        text = file.read()
    yield from json_rows(text)


def json_rows(text: str) -> Iterator[Any]:
    """The rows of a JSON list, of one object, or of an object per line.

    Raises:
        ValueError: that is no JSON; with the line.
    """
    if text.lstrip().startswith("["):
        yield from _parsed(text)
        return
    try:
        rows: Iterable[Row] = [_parsed(text)]
    except json.JSONDecodeError:
        rows = _objects(io.StringIO(text, newline=""))
    yield from rows


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _integer(digits: str) -> int | str:
    # Python does not parse longer ones
    return int(digits) if len(digits) <= sys.int_info.default_max_str_digits else digits


def _binary(path: Path, packed: str) -> IO[bytes]:
    if packed == ".zst":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")  # type: ignore[no-any-return]
    openers: dict[str, Callable[[Path], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
    }
    file: IO[bytes] = openers[packed](path) if packed else path.open("rb")
    return file


@contextmanager
def _text(path: Path, packed: str) -> Iterator[TextIO]:
    """The file's characters, in UTF-8, -16 or -32 with or without a byte order mark.

    Only \\n, \\r and \\r\\n end a line, and they are kept.
    """
    with _binary(path, packed) as file:
        encoding = json.detect_encoding(file.read(4))
    with _binary(path, packed) as file:
        try:
            yield io.TextIOWrapper(file, encoding=encoding, newline="")
        except UnicodeDecodeError as error:
            byte = f"0x{error.object[error.start]:02x}"
            raise ValueError(f"it is not in UTF-8, -16 or -32 (byte {byte}): convert it") from None


READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {
    ".parquet": _parquet,
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _json,
    ".csv": partial(_table, delimiters=",;\t"),
    ".tsv": partial(_table, delimiters="\t"),
}
"""Reader per file ending, in small or capital letters, with .gz, .bz2, .xz or .zst after it. .json
has a list, or an object per line; .csv may have semicolons or tabs where its header has no commas.
"""


@dataclass(frozen=True)
class Source:
    """One split of one data set."""

    path: str
    """Repository of the hub, address of a file, or a file with an ending of `READERS`; where there
    is no file of exactly that name, * ? [ ] are patterns."""
    split: str = "train"
    """Split of a data set of the hub."""
    name: str | None = None
    """Configuration (subset) of a data set of the hub."""
    revision: str | None = None
    """Branch, tag or commit; only for the hub."""
    files: tuple[str, ...] = ()
    """Files to read from the repository, where `datasets` cannot load it."""

    @property
    def is_file(self) -> bool:
        """True where the path names files, here or at an address: they have no splits."""
        return self.is_local or "://" in self.path

    @property
    def is_local(self) -> bool:
        """True where the path names files, whether they exist or not."""
        ending = _ENDINGS.search(self.path)
        is_file_name = ending is not None and ending.end() == len(self.path)
        return "://" not in self.path and (is_file_name or os.path.isfile(self._expanded))

    @property
    def label(self) -> str:
        """Short name, the beginning of every prompt's id."""
        if self.is_local:
            return _ENDINGS.sub("", Path(self.path).name)
        name = urlsplit(self.path).path if "://" in self.path else self.path
        return f"{name.rstrip('/').rpartition('/')[2]}/{self.split.partition('[')[0]}"

    @property
    def _expanded(self) -> str:
        return os.path.expanduser(self.path)

    def rows(self, max_examples: int | None = None) -> Iterator[Row]:
        """The rows in the order of the source; only the first `max_examples` are fetched.

        Raises:
            ConfigError: there is no such data set, or it cannot be read.
        """
        import datasets

        datasets.disable_progress_bars()
        try:
            for row in islice(self._load(streaming=max_examples is not None), max_examples):
                if not isinstance(row, Mapping):
                    raise ValueError(f"it must hold a list of objects, not {row!r}")
                yield row
        # a file of any origin, and the libraries that fetch it have errors of their own
        except Exception as error:
            expected = isinstance(error, OSError | ValueError | csv.Error)
            kind = "" if expected else f"{type(error).__name__}: "
            reason = " ".join(f"{kind}{error.__cause__ or error}".split())[:160]
            where = "" if self.is_local or "://" in self.path else f" (split {self.split})"
            raise ConfigError(f"cannot read {self.path}{where}: {reason}") from error

    def _load(self, streaming: bool) -> Iterator[Row]:
        import datasets
        from huggingface_hub import hf_hub_download

        if self.is_local:
            exists = os.path.exists(self._expanded)
            files = [self._expanded] if exists else sorted(glob.glob(self._expanded))
            if not files:
                raise FileNotFoundError("there is no such file")
        elif "://" in self.path:
            _reader(self.path)
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
            # a file downloaded from an address has no ending
            yield from _reader(self.path if "://" in self.path else file)(Path(file))


def _reader(name: str) -> Callable[[Path], Iterator[Row]]:
    ending = _ENDINGS.search(name)
    if ending is None:
        raise ValueError(f"it must end in {', '.join(READERS)}, or that with .gz, .bz2, .xz, .zst")
    reader, packed = READERS[ending["kind"].lower()], (ending["packed"] or "").lower()
    return lambda path: reader(path, packed)


def is_missing(value: Any) -> bool:
    """True for null, and for NaN and infinities, which mean null in tables, also as words."""
    if isinstance(value, str):
        return _NO_NUMBER.fullmatch(value) is not None
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def answer_of(row: Row) -> str:
    """The text in the column `answer`, empty where there is none."""
    answer = row.get("answer")
    missing = answer is None or (isinstance(answer, float) and math.isnan(answer))
    return "" if missing else str(answer)


def cell(row: Row, column: str, setting: str) -> Any:
    """The value in a column, None where it is missing.

    `a.0.b` looks into lists and records; `a | b` takes the first column that exists.

    Raises:
        ConfigError: there is no such column.
    """
    exists, value = _look_up(row, column)
    if not exists:
        raise no_such_column(row, column, setting)
    return value


class Column:
    """A column that single rows may lack, as lines of JSON often do.

    Args:
        column: as for `cell`.
        setting: the setting that names it.
    """

    def __init__(self, column: str, setting: str) -> None:
        self.column = column
        self.setting = setting
        self._lacking: Row | None = None
        self._has_column = False

    def of(self, row: Row) -> Any:
        """The value, None where it or the column is missing."""
        exists, value = _look_up(row, self.column)
        self._has_column |= exists
        if not exists and self._lacking is None:
            self._lacking = row
        return value

    def require(self) -> None:
        """Raise ConfigError where there were rows and none had the column."""
        if self._lacking is not None and not self._has_column:
            raise no_such_column(self._lacking, self.column, self.setting)


def no_such_column(row: Row, column: str, setting: str) -> ConfigError:
    """The error for a column that a row does not have."""
    return ConfigError(
        f"{setting}={column}: there is no such column; there are {', '.join(map(str, row))}"
    )


def _look_up(row: Row, column: str) -> tuple[bool, Any]:
    """Whether the column exists, and its value."""
    for path in column.split(" | "):
        value: Any = row
        # the name of a column may have a dot in it
        for key in [path] if path in row else path.split("."):
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit():
                value = value[int(key)] if int(key) < len(value) else None
            elif value is not None:
                break
        else:
            return True, None if is_missing(value) else value
    return False, None
