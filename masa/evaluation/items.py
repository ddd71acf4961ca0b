"""Rows of a benchmark to questions with gold answers."""

from __future__ import annotations

import pickle
import random
import re
import string
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from masa.errors import ConfigError, require
from masa.evaluation.eval_config import BenchmarkConfig
from masa.seeding import derive_seed
from masa.tasks.sources import Row, cell, is_missing
from masa.tasks.templates import is_text
from masa.types import Prompt
from masa.verifiers.code import programs

_LETTERED = re.compile(r"^\s*\(?([A-Z])[).:]\s+")
_REFERS = re.compile(
    r"\b(all|none|both|neither|any|each|one|two|three|some) of (the )?"
    r"(above|these|options|choices)\b|\b(all|none) the above\b"
    r"|\b(both|neither|either) \(?[A-H]\)? (and|or|nor) \(?[A-H]\b"
    r"|^\s*\(?[A-H]\)? (and|or|&) \(?[A-H]\)?\s*\.?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PackedTests:
    """Tests as LiveCodeBench publishes them, unpacked when they are needed."""

    columns: tuple[tuple[str, str], ...]
    """Names and texts."""

    def unpack(self) -> programs.Tests:
        """The tests; errors as for `programs.livecodebench_tests`."""
        return programs.livecodebench_tests(dict(self.columns))


@dataclass(frozen=True)
class Item:
    """One question of a benchmark."""

    prompt: Prompt
    """`problem` is the question with its options, without the instruction."""
    gold: Any
    """The gold answer, in the form of the scorer."""
    cluster: str
    """Questions of one cluster share their context."""


def make_items(config: BenchmarkConfig, rows: Sequence[Row]) -> tuple[list[Item], dict[str, str]]:
    """The questions of a benchmark, excluded ones left out.

    Returns:
        The questions; and the ids of rows that no answer could pass, with the reason.

    Raises:
        ConfigError: a column is missing, a gold answer is empty or an id occurs twice.
    """
    make = _MAKERS[config.template]
    items: dict[str, Item] = {}
    impossible: dict[str, str] = {}
    for number, row in enumerate(rows):
        get = ColumnReader(config, row)
        name = str(get("id", number)).strip()
        if name in config.exclude:
            continue
        try:
            question, gold, gold_text = make(get, name)
        except programs.MissingSetUp as error:
            impossible[name] = str(error)
            continue
        if not str(gold_text).strip():
            raise ConfigError(f"benchmark.{config.name}: question {name} has an empty answer")
        if name in items:
            raise ConfigError(
                f"benchmark.{config.name}: id {name} occurs twice; "
                f"benchmark.{config.name}.columns.id=null numbers the rows instead"
            )
        if any(" " in rule and rule in question for rule in config.exclude):
            continue
        cluster = str(get("group", name))
        require(
            all(map(is_text, (name, question, str(gold_text), cluster))),
            f"benchmark.{config.name}: question {name!a} has half of a surrogate pair: correct it",
        )
        items[name] = Item(Prompt(name, question, str(gold_text)), gold, cluster)
    if not items:
        raise ConfigError(f"benchmark.{config.name}: every row is excluded")
    return list(items.values()), impossible


class ColumnReader:
    """The cells of a row by the template's names."""

    def __init__(self, config: BenchmarkConfig, row: Row) -> None:
        self.config = config
        self.row = row

    def __call__(self, name: str, default: Any = None) -> Any:
        column = self.config.columns.get(name)
        if column is None:
            return default
        where = f"benchmark.{self.config.name}.columns.{name}"
        if isinstance(column, list):
            return [cell(self.row, part, where) for part in column]
        value = cell(self.row, str(column), where)
        # a missing value must not become the text "None"
        return "" if value is None else value


Question = tuple[str, Any, str]
"""Text of the question, gold answer, gold answer as text."""


def _math(get: ColumnReader, name: str) -> Question:
    answer = get("answer")
    # a list of answers: all of them are required
    answers = answer if isinstance(answer, list) else [answer]
    gold = "" if any(map(is_missing, answers)) else ", ".join(map(str, answers))
    return str(get("question")).strip(), gold, gold


def _number(get: ColumnReader, name: str) -> Question:
    unit = str(get("unit", "")).strip()
    question = str(get("question")).strip()
    if unit:
        question += f"\nGive the answer in this unit: {unit}"
    answer = str(get("answer")).strip()
    return question, (answer, unit), answer


def _choice(get: ColumnReader, name: str) -> Question:
    config = get.config
    texts = get("options")
    if not isinstance(texts, list):
        raise ConfigError(
            f"benchmark.{config.name}: the options of question {name} are {str(texts)[:40]!r}, "
            "they must be a list"
        )
    letters = string.ascii_uppercase
    require(
        len(texts) <= len(letters),
        f"benchmark.{config.name}: question {name} has {len(texts)} options, there are letters for "
        f"{len(letters)}",
    )
    options = _unlettered([str(option).strip() for option in texts])
    gold = _gold_option(get, name, len(options))
    order = list(range(len(options)))
    # a correct option in a separate column would always be the first
    if config.shuffle and (_correct_by_column(get) or not any(map(_REFERS.search, options))):
        random.Random(derive_seed("options", config.name, name)).shuffle(order)
    lines = [f"{letters[i]}) {options[place]}" for i, place in enumerate(order)]
    blocks = [str(get("context", "")).strip(), str(get("question")).strip(), "\n".join(lines)]
    letter = letters[order.index(gold)]
    return "\n\n".join(block for block in blocks if block), (letter, len(options)), letter


def _unlettered(options: list[str]) -> list[str]:
    """Options without their letters, where each has its own: `E. coli` alone is no letter."""
    matches = [_LETTERED.match(option) for option in options]
    if [match and match[1] for match in matches] != list(string.ascii_uppercase[: len(options)]):
        return options
    return [_LETTERED.sub("", option).strip() for option in options]


def _correct_by_column(get: ColumnReader) -> bool:
    columns = get.config.columns
    return isinstance(columns["options"], list) and columns["answer"] in columns["options"]


def _gold_option(get: ColumnReader, name: str, count: int) -> int:
    """Position of the correct option: by its column, by the set's labels or by its letter."""
    if _correct_by_column(get):
        columns = get.config.columns
        return int(columns["options"].index(columns["answer"]))
    answer = str(get("answer")).strip()
    labels = [str(label) for label in get("labels", string.ascii_uppercase)][:count]
    if answer not in labels:
        raise ConfigError(
            f"benchmark.{get.config.name}: the answer of question {name} is {answer!r}, "
            f"it must be one of {', '.join(labels)}"
        )
    return labels.index(answer)


def _function(get: ColumnReader, name: str) -> Question:
    question = str(get("question")).strip()
    examples = get("examples")
    if examples:
        asserts = "\n".join(examples)
        question += f"\n\nYour code has to pass these tests:\n```python\n{asserts}\n```"
        solution = get("solution")
    else:
        solution = f"{get('question')}{get('solution')}"
        question = f"Complete this function:\n```python\n{question}\n```"
    return question, (_tests(get, name), solution), "tests"


def _program(get: ColumnReader, name: str) -> Question:
    question = str(get("question")).strip()
    starter = str(get("starter") or "").strip()
    if starter:
        question += f"\n\nStart from this code:\n```python\n{starter}\n```"
    else:
        question += "\n\nThe program reads from standard input and writes to standard output."
    columns = ("public_test_cases", "private_test_cases", "metadata", "starter_code")
    _tests(get, name)
    # unpacked tests are many times as large: each batch unpacks its own
    packed = PackedTests(tuple((name, get.row[name]) for name in columns if name in get.row))
    return question, (packed, None), "tests"


def _tests(get: ColumnReader, name: str) -> programs.Tests:
    try:
        return _TESTS[get.config.scorer](get.row)
    except programs.MissingSetUp:
        raise
    except _UNREADABLE as error:
        raise ConfigError(
            f"benchmark.{get.config.name}: the tests of question {name} cannot be read "
            f"({type(error).__name__}: {error}); there are columns {', '.join(get.row)}; "
            f"benchmark.{get.config.name}.exclude=[{name}] leaves it out"
        ) from error


_UNREADABLE = (
    *(KeyError, ValueError, TypeError, SyntaxError, AttributeError),
    # of packed private tests
    *(zlib.error, pickle.UnpicklingError, EOFError),
)
_TESTS: dict[str, Callable[[Row], programs.Tests]] = {
    "mbpp": programs.mbpp_tests,
    "humaneval": programs.humaneval_tests,
    "livecodebench": programs.livecodebench_tests,
}


def _output(get: ColumnReader, name: str) -> Question:
    question = f"```python\n{str(get('code')).strip()}\n```\nWhat does f({get('input')}) return?"
    return question, str(get("answer")), str(get("answer"))


_MAKERS: dict[str, Callable[[ColumnReader, str], Question]] = {
    "math": _math,
    "number": _number,
    "choice": _choice,
    "function": _function,
    "program": _program,
    "output": _output,
}
