"""Problems with gold answers of any data set: deepscaler, math, gsm8k and your own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from masa.errors import ConfigError, one_of, positive, require
from masa.plugins import call, is_finite, load_function, made, time_limit
from masa.tasks.curation import contaminated, digest, is_held_out
from masa.tasks.demonstrations import TAG, Demonstrated, chosen, dressed
from masa.tasks.sources import Column, Source, is_missing
from masa.tasks.templates import Templates, is_text
from masa.types import Prompt
from masa.verifiers import choice
from masa.verifiers.extract import extract_box
from masa.verifiers.math import verifier

# the marks of gsm8k: <<6*2=12>> and #### 12
_CALCULATOR = re.compile(r"<<[^<>]*>>")
_LAST_LINE = re.compile(r"\s*####[^\n]*\s*$")

LETTERS = "ABCDEFGHIJ"
"""Labels of a multiple-choice problem."""


def _check_choice(gold: str) -> None:
    if gold not in tuple(LETTERS):
        raise ValueError(f"gold choice {gold!r} is none of {LETTERS}")


def _same_choice(a: str, b: str) -> bool:
    chosen = choice.extract(a, LETTERS)
    return chosen is not None and chosen == choice.extract(b, LETTERS)


def _verify_choices(pairs: Sequence[tuple[str, str]]) -> list[bool]:
    return [choice.verify(gold, response, LETTERS) for gold, response in pairs]


class Verifier(NamedTuple):
    """What is known of a kind of answers."""

    check_gold: Callable[[str], object]
    """Raises ValueError for what can be no gold answer."""
    verify: Callable[[Sequence[tuple[str, str]]], list[bool]]
    """Verdicts on pairs (gold answer, response)."""
    same: Callable[[str, str], bool]
    """Do two responses give the same answer?"""
    answer_in: Callable[[str], str | None]
    """The answer in a response, in the form in which `same` compares it; None without one."""


VERIFIERS = {
    "math": Verifier(verifier.check_gold, verifier.verify_batch, verifier.same, extract_box),
    "choice": Verifier(
        _check_choice, _verify_choices, _same_choice, partial(choice.extract, letters=LETTERS)
    ),
}


BOXED = {"math"}
"""Verifiers that read the answer in a box alone."""


def _function(name: str) -> partial[Any]:
    """The function `MODULE.FUNCTION` that judges a response."""
    return load_function("task.verifier", {"_target_": name}, ("answer", "response"))


def _is_score(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or (is_finite(value) and 0 <= value <= 1)


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `a.0.b` looks into lists and records."""

    problem: str
    answer: str
    id: str | None = None
    """A stable id; null makes one of the problem's text."""
    level: str | None = None
    """Difficulty: the first number in the cell."""
    solution: str | None = None
    """A worked solution, for `masa-sft`."""

    def __post_init__(self) -> None:
        for name, column in vars(self).items():
            optional = name not in ("problem", "answer")
            require(
                (column is None and optional) or (isinstance(column, str) and column != ""),
                f"task.columns.{name} is {column!r}, it must name a column",
            )


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


def _evaluation_set(entry: Mapping[str, Any]) -> EvaluationSet:
    source = {name: value for name, value in entry.items() if name != "column"}
    return EvaluationSet(made("task.decontaminate", Source, source), entry["column"])


@dataclass(frozen=True)
class HubConfig:
    """The settings that determine the prompts."""

    source: Source
    columns: Columns
    answer_format: str
    """text (the column is the answer), boxed (its last box is) or gsm8k (what follows ####)."""
    verifier: str
    """math, choice (the answer is a letter), or MODULE.FUNCTION, a function of (answer, response)
    that returns True, False or a score in [0, 1]."""
    validation: Validation
    decontaminate: tuple[EvaluationSet, ...]
    max_examples: int | None
    """Read only the first rows, without fetching the others."""
    levels: tuple[int, ...] | None
    """Problems of these levels alone; None for all."""
    seed: int
    """Which problems a fraction holds out."""

    def __post_init__(self) -> None:
        require(
            self.levels is None or self.columns.level is not None,
            "task.levels needs levels: name their column with task.columns.level",
        )
        one_of("task.answer_format", self.answer_format, tuple(GOLD))
        if "." in self.verifier:
            _function(self.verifier)
        else:
            one_of("task.verifier", self.verifier, (*VERIFIERS, "MODULE.FUNCTION"))
        require(
            self.max_examples is None or self.max_examples >= 1,
            f"task.max_examples is {self.max_examples}, it must be >= 1",
        )


@dataclass(frozen=True)
class HubPools:
    """Usable prompts, and a report on the others."""

    train: tuple[Prompt, ...]
    validation: tuple[Prompt, ...]
    report: Mapping[str, Any]


class HubTask:
    """A data set of the Hugging Face hub or of local files; settings as in `conf/task/hub.yaml`.

    The prompts are read at the first use, which raises ConfigError where they cannot be read.
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
        levels: Sequence[int] | None = None,
        score_seconds: float = 60.0,
    ) -> None:
        require(
            levels is None
            or (
                isinstance(levels, Sequence)
                and len(levels) > 0
                and all(type(level) is int and level >= 0 for level in levels)
            ),
            f"task.levels is {levels}, it must be a list of integers >= 0, or null for all",
        )
        positive("task.score_seconds", score_seconds)
        self.templates = templates
        self.score_seconds = score_seconds
        require(
            isinstance(decontaminate, Sequence)
            and all(isinstance(e, Mapping) and {"path", "column"} <= set(e) for e in decontaminate),
            "task.decontaminate must be a list of entries with path and column; [] for none",
        )
        require(
            verifier not in BOXED or TAG not in templates.solution or "boxed" in templates.solution,
            f"the solution template asks for {TAG}, and task.verifier={verifier} counts what "
            "stands in \\boxed{}: use templates@task.templates=boxed or short_boxed",
        )
        source = Source(path, split, name, revision)
        require(
            not source.is_file or "[" not in split,
            f"task.split={split} takes a part of a data set of the hub, and {path} is a file: use "
            "task.max_examples",
        )
        require(
            not (source.is_file and validation.get("split") and not validation.get("path")),
            f"task.validation.split={validation.get('split')} is of a data set of the hub, and "
            f"{path} is a file: set it to null and task.validation.fraction or .path",
        )
        self.config = HubConfig(
            source,
            made("task.columns", Columns, columns),
            answer_format,
            verifier,
            made("task.validation", Validation, validation),
            tuple(map(_evaluation_set, decontaminate)),
            max_examples,
            None if levels is None else tuple(sorted(set(levels))),
            seed,
        )

    @property
    def train(self) -> Sequence[Prompt]:
        """Problems that are neither held out nor in an evaluation set."""
        return self._pools.train

    @property
    def validation(self) -> Sequence[Prompt]:
        """Held-out problems; none of their normalised texts is in `train`."""
        return self._pools.validation

    @property
    def report(self) -> Mapping[str, Any]:
        """Source, rows read, and how many were left out for which reason."""
        return self._pools.report

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> Sequence[float]:
        """Verdicts of the configured verifier, or scores in [0, 1] of a function.

        Raises:
            TrainingError: the function failed, or returned something else.
        """
        name = self.config.verifier
        if name in VERIFIERS:
            return VERIFIERS[name].verify([(prompt.answer, text) for prompt, text in answers])
        function = _function(name)

        def limited(answer: str, text: str) -> Any:
            with time_limit(self.score_seconds, "task.score_seconds"):
                return function(answer, text)

        return [
            call(
                f"task.verifier: {name}",
                f"prompt {prompt.id}",
                limited,
                prompt.answer,
                text,
                valid=_is_score,
                expected="True, False or a number from 0 to 1",
            )
            for prompt, text in answers
        ]

    def same(self, a: str, b: str) -> bool:
        """See `Task.same`, by the configured verifier."""
        require(
            self.config.verifier in VERIFIERS,
            f"task.verifier={self.config.verifier}: a function of (answer, response) cannot tell "
            "whether two responses give the same answer",
        )
        return VERIFIERS[self.config.verifier].same(a, b)

    def demonstrations(self, count: int, seed: int) -> Demonstrated:
        """The solutions of the data set to problems of `train`, with their answers in the form
        that q_sol asks for.

        Raises:
            ConfigError: no column has solutions.
        """
        name = self.config.columns.solution
        if name is None:
            raise ConfigError(
                "this data set has no demonstrations: name its column of worked solutions with "
                "task.columns.solution, or use sft.source=self"
            )
        column = Column(name, "task.columns.solution")
        cells = [(prompt, column.of(prompt.columns)) for prompt in self.train]
        column.require()
        solutions = [
            (prompt, dressed(self._worked(cell), prompt.answer, self.templates))
            for prompt, cell in cells
            if _is_filled(cell)
        ]
        if not solutions:
            raise ConfigError(
                f"task.columns.solution={name} is empty in all {len(cells)} rows to train on: name "
                "another column, or use sft.source=self"
            )
        missing = {"without a solution": len(cells) - len(solutions)}
        return Demonstrated(chosen(solutions, count, seed), missing)

    def _worked(self, cell: str) -> str:
        if self.config.answer_format != "gsm8k":
            return cell
        return _LAST_LINE.sub("", _CALCULATOR.sub("", cell))

    @cached_property
    def _pools(self) -> HubPools:
        return read_pools(self.config)


# the check of a command line and its run need the same prompts
@lru_cache(maxsize=2)
def read_pools(config: HubConfig) -> HubPools:
    """Read the rows, drop unusable ones and split off the held-out problems.

    Raises:
        ConfigError: nothing can be read, or no prompt remains to train or to validate on.
    """
    dropped: Counter[str] = Counter()
    digests: set[str] = set()
    held_out: list[Prompt] = []
    validation = config.validation
    if validation.path or validation.split:
        source = config.source
        path, split = validation.path or source.path, validation.split or source.split
        source = replace(source, path=path, split=split)
        # first, so that of two copies the one in the training data is dropped
        held_out = _usable_prompts(source, config, digests, dropped)
    prompts = _usable_prompts(config.source, config, digests, dropped)
    rows_read = len(held_out) + len(prompts) + dropped.total()
    if config.decontaminate and prompts:
        evaluation = _evaluation_problems(config.decontaminate)
        is_copy = contaminated([prompt.problem for prompt in prompts], evaluation)
        dropped["contaminated"] = sum(is_copy)
        prompts = [prompt for prompt, copy in zip(prompts, is_copy, strict=True) if not copy]
    if validation.fraction:
        fraction, seed = validation.fraction, config.seed
        held_out = [p for p in prompts if is_held_out(p.problem, fraction, seed)]
        prompts = [p for p in prompts if not is_held_out(p.problem, fraction, seed)]
    _refuse_equal_ids([*prompts, *held_out], config.columns)
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
    summary = f"{rows_read} rows read" + (f", dropped: {reasons}" if reasons else "")
    if not prompts:
        raise ConfigError(f"no prompt to train on in {config.source.path}: {summary}")
    if not held_out:
        raise ConfigError(
            f"no prompt to validate on in {validation.path or config.source.path}: {summary}; "
            "raise task.validation.fraction or name another task.validation.split or .path"
        )
    source = config.source
    report = {
        "path": source.path,
        "name": source.name,
        "split": source.split,
        "revision": source.revision,
        "read": rows_read,
        "dropped": dict(dropped),
    }
    return HubPools(tuple(prompts), tuple(held_out), report)


def _usable_prompts(
    source: Source, config: HubConfig, digests: set[str], dropped: Counter[str]
) -> list[Prompt]:
    """Usable problems of a source that are not in `digests`; adds to `digests` and `dropped`."""
    columns, known = config.columns, VERIFIERS.get(config.verifier)
    check_gold = known.check_gold if known else len
    problems = Column(columns.problem, "task.columns.problem")
    answers = Column(columns.answer, "task.columns.answer")
    levels = Column(columns.level or "", "task.columns.level")
    names = Column(columns.id or "", "task.columns.id")
    prompts = []
    for row in source.rows(config.max_examples):
        problem = problems.of(row)
        answer = GOLD[config.answer_format](answers.of(row))
        level = levels.of(row) if columns.level else 0
        key = digest(problem) if _is_filled(problem) else ""
        if not key:
            is_list = isinstance(problem, list)
            dropped["whose problem is a list" if is_list else "without a problem"] += 1
        elif answer is None:
            dropped["without an answer"] += 1
        elif key in digests:
            dropped["duplicate"] += 1
        elif config.levels is not None and _number(level) not in config.levels:
            dropped["of another level"] += 1
        elif not _is_usable(answer, check_gold):
            dropped["with an unusable answer"] += 1
        else:
            digests.add(key)
            name = _text(names.of(row)) if columns.id else None
            name = name if _is_filled(name) else key
            prompt_id = f"{source.label}/{name}"
            prompts.append(Prompt(prompt_id, problem, answer, _number(level), row))
    for column in (problems, answers, levels, names):
        column.require()
    return prompts


def _is_filled(value: Any) -> bool:
    return is_text(value) and bool(value.strip())


def _is_usable(answer: str, check_gold: Callable[[str], object]) -> bool:
    if not _is_filled(answer):
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
    """The value as a gold answer; a list is joined, and a response needs all its members.

    None for other values: a truth value, a record, bytes, a date, a list in a list, a missing one.
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
        integer = exact.to_integral_value()
        return f"{integer if exact == integer else exact:f}"
    return value.strip() or None if isinstance(value, str) else None


def _last_box(value: Any) -> str | None:
    return _text(extract_box(value)) if isinstance(value, str) else None


def _after_hashes(value: Any) -> str | None:
    if not isinstance(value, str) or "####" not in value:
        return None
    return _text(value.rpartition("####")[2])


GOLD: dict[str, Callable[[Any], str | None]] = {
    "text": _text,
    "boxed": _last_box,
    "gsm8k": _after_hashes,
}
