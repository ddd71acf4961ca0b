"""Problems from a file, from standard input or from the command line."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from masa.errors import ConfigError, require
from masa.tasks.sources import Source
from masa.types import Prompt

STDIN = "-"
_FILE_NAME = re.compile(r"[^\s\\${}]+\.(txt|jsonl|ndjson|json|parquet|csv|tsv)(\.(gz|bz2|xz|zst))?")


# standard input is read once, by the check and the run of a command
@lru_cache(maxsize=4)
def read_problems(source: str, column: str = "problem") -> tuple[Prompt, ...]:
    """The problems, numbered from 1 unless they have a column `id`.

    Args:
        source: a file, `-` for standard input (JSON lines, or a problem per line), or the text of
            one problem.
        column: of a file with columns.

    Raises:
        ConfigError: the file cannot be read, holds no problem or has no such column, or an id comes
            twice.
    """
    rows: Iterable[Any]
    if source == STDIN:
        rows = _of_text(sys.stdin.read(), column, "standard input")
    elif os.path.isfile(source):
        rows = _of_file(source, column)
    else:
        require(not _FILE_NAME.fullmatch(source), f"problems={source}: there is no such file")
        rows = [{column: source}]
    return problems_of(rows, column, "standard input" if source == STDIN else source)


def problems_of(rows: Iterable[Any], column: str, where: str) -> tuple[Prompt, ...]:
    """Problems of rows with columns, or of plain texts; errors as of `read_problems`."""
    prompts: dict[str, Prompt] = {}
    for number, row in enumerate(rows, 1):
        row = {column: row} if isinstance(row, str) else row
        if not isinstance(row, dict) or column not in row:
            names = ", ".join(map(str, row)) if isinstance(row, dict) else "no columns"
            raise ConfigError(
                f"{where}: row {number} has no column {column}, it has {names}: column=NAME names "
                "the one with the problems"
            )
        text = row[column]
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{where}: the problem of row {number} is {text!r}, it must be text")
        name = str(row.get("id", number))
        require(name not in prompts, f"{where}: id {name} comes twice")
        prompts[name] = Prompt(name, text.strip(), str(row.get("answer", "")))
    require(bool(prompts), f"{where} holds no problem")
    return tuple(prompts.values())


def _of_file(path: str, column: str) -> Iterable[Any]:
    if path.endswith(".txt"):
        try:
            return _lines(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return Source(path, "train", None, None).rows()


def _of_text(text: str, column: str, where: str) -> list[Any]:
    lines = _lines(text)
    if not all(line.startswith("{") and line.endswith("}") for line in lines):
        return list(lines)
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ConfigError(
            f"{where} is neither JSON lines nor a problem per line: {error}"
        ) from error


def _lines(text: str) -> list[str]:
    stripped = (line.strip() for line in io.StringIO(text))
    return [line for line in stripped if line]
