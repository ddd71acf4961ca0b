"""Problems with a gold answer out of any data set: deepscaler, math, gsm8k and your own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

from masa.errors import ConfigError
from masa.tasks.curation import contaminated, digest, is_held_out
from masa.tasks.sources import Column, Source, is_missing
from masa.tasks.templates import Templates
from masa.types import Prompt
from masa.verifiers import choice
from masa.verifiers.extract import answer_boxes
from masa.verifiers.math import verifier

LETTERS = "ABCDEFGHIJ"
"""Labels of a multiple-choice problem."""


def _check_choice(gold: str) -> None:
    if gold not in LETTERS:
        raise ValueError(f"gold choice {gold!r} is none of {LETTERS}")


def _verify_choices(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [choice.verify(gold, response, LETTERS) for gold, response in pairs]


CHECK_GOLD: dict[str, Callable[[str], object]] = {
    "math": verifier.check_gold,
    "choice": _check_choice,
}
VERIFIERS: dict[str, Callable[[Sequence[tuple[str, str]]], list[bool]]] = {
    "math": verifier.verify_batch,
    "choice": _verify_choices,
}


@dataclass(frozen=True)
class Columns:
    """Which column holds what; `a.0.b` looks into lists and records."""

    problem: str
    answer: str
    id: str | None = None
    """A stable id; where there is none the problem's text gives it."""
    level: str | None = None
    """Difficulty; the first number in it counts."""


@dataclass(frozen=True)
class Validation:
    """Held-out prompts: another split or file of the same columns, or a share of the data."""

    path: str | None = None
    split: str | None = None
    fraction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise ConfigError(f"task.validation.fraction is {self.fraction}, it must lie in [0, 1)")
        if (self.path or self.split) and self.fraction:
            raise ConfigError(
                "task.validation has a path or split of its own and a fraction as well: "
                "set task.validation.fraction=0"
            )
        if not (self.path or self.split or self.fraction):
            raise ConfigError(
                "there is nothing to validate on: set task.validation.fraction, .split or .path"
            )


@dataclass(frozen=True)
class EvaluationSet:
    """Problems that may not be trained on."""

    source: Source
    column: str


@dataclass(frozen=True)
class HubConfig:
    """Everything that decides which prompts there are."""

    source: Source
    columns: Columns
    answer_format: str
    """text (the column is the answer), boxed (its last box is) or gsm8k (what follows ####)."""
    verifier: str
    """math, or choice (the answer is a letter)."""
    validation: Validation
    decontaminate: tuple[EvaluationSet, ...]
    max_examples: int | None
    """Read only the first rows, without fetching the others."""
    seed: int
    """Which problems a fraction holds out."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("answer_format", self.answer_format, tuple(GOLD)),
            ("verifier", self.verifier, tuple(VERIFIERS)),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"task.{name} is {value!r}, it must be one of {', '.join(allowed)}"
                )
        if self.max_examples is not None and self.max_examples < 1:
            raise ConfigError(f"task.max_examples is {self.max_examples}, it must be >= 1")


@dataclass(frozen=True)
class Pools:
    """Prompts that can be used, and what became of the others."""

    train: tuple[Prompt, ...]
    validation: tuple[Prompt, ...]
    report: Mapping[str, Any]


class HubTask:
    """A data set of the Hugging Face hub or in local files, as `conf/task/hub.yaml` sets it up.

    The prompts are read when they are first asked for; what cannot be read raises ConfigError then.
    """

    def __init__(
        self,
        templates: Templates,
        path: str,
        split: str,
        name: str | None,
        revision: str | None,
        columns: Mapping[str, Any],
        answer_format: str,
        verifier: str,
        validation: Mapping[str, Any],
        decontaminate: Sequence[Mapping[str, Any]],
        max_examples: int | None,
        seed: int,
    ) -> None:
        self.templates = templates
        evaluation = (dict(entry) for entry in decontaminate)
        self.config = HubConfig(
            Source(path, split, name, revision),
            Columns(**columns),
            answer_format,
            verifier,
            Validation(**validation),
            tuple(EvaluationSet(column=e.pop("column"), source=Source(**e)) for e in evaluation),
            max_examples,
            seed,
        )

    @property
    def train(self) -> Sequence[Prompt]:
        """Problems that are neither held out nor in an evaluation set."""
        return self._pools.train

    @property
    def validation(self) -> Sequence[Prompt]:
        """Held-out problems; by their normalised text none is in `train`."""
        return self._pools.validation

    @property
    def report(self) -> Mapping[str, Any]:
        """Source, rows read, and how many were left out for which reason."""
        return self._pools.report

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        """Verdicts of the configured verifier."""
        pairs = [(prompt.answer, text) for prompt, text in answers]
        return VERIFIERS[self.config.verifier](pairs)

    @cached_property
    def _pools(self) -> Pools:
        return read_pools(self.config)


# the check of a command line and its run ask for the same prompts
@lru_cache(maxsize=2)
def read_pools(config: HubConfig) -> Pools:
    """Read, clean and split.

    Raises:
        ConfigError: nothing can be read, or nothing is left to train or to validate on.
    """
    dropped: Counter[str] = Counter()
    seen: set[str] = set()
    held: list[Prompt] = []
    given = config.validation
    if given.path or given.split:
        path, split = given.path or config.source.path, given.split or config.source.split
        # first, so that a copy in the training data is the one that is dropped
        held = _read(replace(config.source, path=path, split=split), config, seen, dropped)
    prompts = _read(config.source, config, seen, dropped)
    read = len(held) + len(prompts) + dropped.total()
    if config.decontaminate and prompts:
        known = _evaluation_problems(config.decontaminate)
        marks = contaminated([prompt.problem for prompt in prompts], known)
        dropped["contaminated"] = sum(marks)
        prompts = [prompt for prompt, mark in zip(prompts, marks, strict=True) if not mark]
    if given.fraction:
        is_held = [is_held_out(prompt.problem, given.fraction, config.seed) for prompt in prompts]
        held = [prompt for prompt, out in zip(prompts, is_held, strict=True) if out]
        prompts = [prompt for prompt, out in zip(prompts, is_held, strict=True) if not out]
    _refuse_equal_ids([*prompts, *held], config.columns)
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    lost = f"{read} rows read" + (f", dropped: {reasons}" if reasons else "")
    if not prompts:
        raise ConfigError(f"no prompt to train on in {config.source.path}: {lost}")
    if not held:
        raise ConfigError(
            f"no prompt to validate on in {given.path or config.source.path}: {lost}; "
            "raise task.validation.fraction or name another task.validation.split or .path"
        )
    source = config.source
    report = {
        "path": source.path,
        "name": source.name,
        "split": source.split,
        "revision": source.revision,
        "read": read,
        "dropped": dict(dropped),
    }
    return Pools(tuple(prompts), tuple(held), report)


def _read(source: Source, config: HubConfig, seen: set[str], dropped: Counter[str]) -> list[Prompt]:
    """Usable problems of a source that are not in `seen`, which grows; the others are counted."""
    columns, check_gold = config.columns, CHECK_GOLD[config.verifier]
    problems = Column(columns.problem, "task.columns.problem")
    answers = Column(columns.answer, "task.columns.answer")
    levels = Column(columns.level or "", "task.columns.level")
    names = Column(columns.id or "", "task.columns.id")
    prompts = []
    for row in source.rows(config.max_examples):
        problem = problems.of(row)
        answer = GOLD[config.answer_format](answers.of(row))
        level = levels.of(row) if columns.level else 0
        key = digest(problem) if _is_text(problem) else ""
        if not key:
            dropped["without a problem"] += 1
        elif answer is None:
            dropped["without an answer"] += 1
        elif key in seen:
            dropped["duplicate"] += 1
        elif not _is_usable(answer, check_gold):
            dropped["with an unusable answer"] += 1
        else:
            seen.add(key)
            name = _text(names.of(row)) if columns.id else None
            name = name if _is_text(name) else key
            prompts.append(Prompt(f"{source.label}/{name}", problem, answer, _number(level)))
    for column in (problems, answers, levels, names):
        column.require()
    return prompts


def _is_text(value: Any) -> bool:
    """True for words that can be written down: JSON can hold half a character."""
    if not isinstance(value, str):
        return False
    try:
        return bool(value.encode()) and bool(value.strip())
    except UnicodeEncodeError:
        return False


def _is_usable(answer: str, check_gold: Callable[[str], object]) -> bool:
    if not _is_text(answer):
        return False
    try:
        check_gold(answer)
    except ValueError:
        return False
    return True


def _evaluation_problems(sets: Sequence[EvaluationSet]) -> list[str]:
    problems = []
    for entry in sets:
        try:
            rows = list(entry.source.rows())
        except ConfigError as error:
            raise ConfigError(
                f"{error}; it is needed to keep evaluation problems out of training: give local "
                "files, task.decontaminate=[{path: FILE, column: COLUMN}], or do without, "
                "task.decontaminate=[]"
            ) from error
        column = Column(entry.column, "task.decontaminate.column")
        cells = [column.of(row) for row in rows]
        column.require()
        problems += [problem for problem in cells if isinstance(problem, str)]
    return problems


def _refuse_equal_ids(prompts: Sequence[Prompt], columns: Columns) -> None:
    name, count = Counter(prompt.id for prompt in prompts).most_common(1)[0] if prompts else ("", 1)
    if count > 1:
        raise ConfigError(
            f"task.columns.id={columns.id} gives {count} problems the id {name}: "
            "name a column without repetitions, or null to take ids from the text"
        )


def _number(level: Any) -> int:
    digits = re.search(r"\d+", str(level))
    if digits and len(digits[0]) > 18:
        raise ConfigError(
            f"task.columns.level: {digits[0][:40]} is no level, it must have at most 18 digits"
        )
    return int(digits[0]) if digits else 0


def _text(value: Any) -> str | None:
    """The value as a gold answer; all members of a list must be found.

    None for what is no answer: a truth value, a record, bytes, a date, a list in a list, and what
    `is_missing`.
    """
    if is_missing(value):
        return None
    if isinstance(value, list):
        members = [None if isinstance(member, list) else _text(member) for member in value]
        return None if not members or None in members else ", ".join(map(str, members))
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        exact = Decimal(repr(value) if isinstance(value, float) else value) or Decimal(0)
        if not exact.is_finite():
            return None
        # 3 in a column of floats is 3.0, and a small number 1e-05
        whole = exact.to_integral_value()
        return f"{whole if exact == whole else exact:f}"
    return value.strip() or None if isinstance(value, str) else None


def _last_box(value: Any) -> str | None:
    boxes = answer_boxes(value) if isinstance(value, str) else ()
    return _text(boxes[-1]) if boxes else None


def _after_hashes(value: Any) -> str | None:
    if not isinstance(value, str) or "####" not in value:
        return None
    return _text(value.rpartition("####")[2])


GOLD: dict[str, Callable[[Any], str | None]] = {
    "text": _text,
    "boxed": _last_box,
    "gsm8k": _after_hashes,
}
