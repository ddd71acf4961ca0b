"""Problems from a file, from standard input or from the command line."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from masa.errors import ConfigError, require
from masa.tasks.sources import Source, answer_of, is_missing, json_rows
from masa.tasks.templates import is_text
from masa.types import Prompt

STDIN = "-"
_FILE_NAME = re.compile(
    r"[^\n\\${}]+\.(txt|jsonl|ndjson|json|parquet|csv|tsv)(\.(gz|bz2|xz|zst))?", re.IGNORECASE
)
_JSON = re.compile(r"\{\s*(\"|$)|\[\s*([\"{]|$)")
"""How a line of JSON with problems begins, and hardly a problem."""


@lru_cache(maxsize=1)
def standard_input() -> str:
    """What came on standard input, which can be read once: by the check of a command or its run.

    Raises:
        ConfigError: it is closed, or no text in UTF-8.
    """
    # Python has none where the shell closed it
    require(sys.stdin is not None, "standard input is closed: problems=FILE names a file")
    try:
        return sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is not in UTF-8: {error.reason}") from error


def read_problems(source: str, column: str = "problem") -> tuple[Prompt, ...]:
    """The problems, numbered from 1 unless they have a column `id`.

    Args:
        source: a file, `-` for standard input (JSON lines, a JSON list, or a problem per line), or
            the text of one problem.
        column: of a file with columns.

    Raises:
        ConfigError: the file cannot be read, holds no problem or has no such column, or an id comes
            twice.
    """
    path = source if os.path.exists(source) else os.path.expanduser(source)
    where, rows = source, iter([{column: source}])
    if source == STDIN:
        where, rows = "standard input", iter(_of_text(standard_input()))
    elif os.path.isfile(path):
        rows = iter(_of_file(path))
    else:
        require(not os.path.isdir(path), f"problems={source} is a folder: name a file in it")
        # a sentence may end in the name of a file
        names_file = _FILE_NAME.fullmatch(source) and len(source.split()) <= 3
        require(not names_file, f"problems={source}: there is no such file")
    return problems_of(rows, column, where)


def problems_of(rows: Iterable[Any], column: str, where: str) -> tuple[Prompt, ...]:
    """Problems of rows with columns, or of plain texts; errors as of `read_problems`."""
    prompts: dict[str, Prompt] = {}
    for number, row in enumerate(rows, 1):
        row = {column: row} if isinstance(row, str) else row
        if not isinstance(row, Mapping) or column not in row:
            names = ", ".join(map(str, row)) if isinstance(row, Mapping) else "no columns"
            raise ConfigError(
                f"{where}: row {number} has no column {column}, it has {names}: column=NAME names "
                "the one with the problems"
            )
        text = row[column]
        if not is_text(text) or not text.strip():
            raise ConfigError(f"{where}: the problem of row {number} is {text!r}, it must be text")
        given = row.get("id")
        name = str(number if is_missing(given) or given == "" else given)
        answer = answer_of(row)
        require(
            is_text(name) and is_text(answer),
            f"{where}: id or answer of row {number} has half of a surrogate pair: correct it",
        )
        require(name not in prompts, f"{where}: id {name} comes twice")
        prompts[name] = Prompt(name, text.strip(), answer)
    require(bool(prompts), f"{where} holds no problem")
    return tuple(prompts.values())


def _of_file(path: str) -> Iterable[Any]:
    if path.endswith(".txt"):
        try:
            return _lines(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    return Source(path, "train", None, None).rows()


def _of_text(text: str) -> list[Any]:
    """The rows of JSON, where it is that; else a problem per line."""
    lines = _lines(text)
    if lines and lines[0][0] in "[{":
        try:
            return list(json_rows(text))
        except ValueError as error:
            if _JSON.match(lines[0]) and not _goes_on_as_text(lines[0]):
                reason = " ".join(str(error).split())
                raise ConfigError(f"standard input is no JSON, but begins so: {reason}") from error
    return lines


def _goes_on_as_text(line: str) -> bool:
    """True for `["a", "b"][0] is what?`: JSON, and then words."""
    try:
        _, end = json.JSONDecoder().raw_decode(line)
    except (ValueError, RecursionError):
        return False
    rest = line[end:].lstrip()
    return rest != "" and rest[0] not in ",{"


def _lines(text: str) -> list[str]:
    stripped = (line.strip() for line in io.StringIO(text))
    return [line for line in stripped if line]
