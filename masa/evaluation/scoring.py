"""Is an answer right, and was there one at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Protocol

from masa.errors import ConfigError
from masa.evaluation.items import Item, PackedTests
from masa.tasks.base import Task
from masa.verifiers import choice, number
from masa.verifiers.code import literal
from masa.verifiers.code.programs import BrokenTests, ProgramVerdict, Tests, extract_code, verify
from masa.verifiers.code.sandbox import Sandbox
from masa.verifiers.extract import extract_box
from masa.verifiers.math import verifier

_WRONG_NUMBER = "-987654321987"

Answers = Sequence[tuple[Item, str]]


@dataclass(frozen=True)
class Verdict:
    """What a scorer says of one response."""

    correct: bool
    answer: str | None
    """The answer as extracted; None where the response has none: it is then unparsable."""


class Scorer(Protocol):
    """Judges responses, and knows what a right and a wrong one look like."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """One verdict per response."""
        ...

    def check(self, item: Item) -> None:
        """Raise ValueError where the gold answer is unusable."""
        ...

    def right(self, item: Item) -> str | None:
        """A response that answers rightly; None where the data hold no solution."""
        ...

    def wrong(self, item: Item) -> str:
        """A response in the asked form that answers wrongly."""
        ...


class MathScorer:
    """The verdict of training."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        right = verifier.verify_batch([(item.gold, text) for item, text in answers])
        pairs = zip(right, answers, strict=True)
        return [Verdict(verdict, extract_box(text)) for verdict, (_, text) in pairs]

    def check(self, item: Item) -> None:
        """See `Scorer.check`."""
        verifier.check_gold(item.gold)

    def right(self, item: Item) -> str:
        """See `Scorer.right`."""
        return rf"\boxed{{{item.gold}}}"

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        return rf"\boxed{{{_WRONG_NUMBER}}}"


class NumberScorer:
    """A number within a relative tolerance, in the unit that was asked for."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        right = number.verify_batch([(item.gold[0], text, item.gold[1]) for item, text in answers])
        pairs = zip(right, answers, strict=True)
        return [Verdict(verdict, extract_box(text)) for verdict, (_, text) in pairs]

    def check(self, item: Item) -> None:
        """See `Scorer.check`."""
        number.check_gold(item.gold[0])

    def right(self, item: Item) -> str:
        """See `Scorer.right`."""
        return rf"\boxed{{{item.gold[0]}}}"

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        return rf"\boxed{{{_WRONG_NUMBER}}}"


class ChoiceScorer:
    """The last clear choice."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        verdicts = []
        for item, text in answers:
            letter, count = item.gold
            chosen = choice.extract(text, ascii_uppercase[:count])
            verdicts.append(Verdict(chosen == letter, chosen))
        return verdicts

    def check(self, item: Item) -> None:
        """See `Scorer.check`."""
        # its letter was found among the options

    def right(self, item: Item) -> str:
        """See `Scorer.right`."""
        return rf"\boxed{{{item.gold[0]}}}"

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        letter, count = item.gold
        return rf"\boxed{{{chr(ord('A') + (ord(letter) - ord('A') + 1) % count)}}}"


class LiteralScorer:
    """A Python literal that equals the real output; nothing is executed."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        verdicts = []
        for item, text in answers:
            right = literal.verify(item.gold, text)
            verdicts.append(Verdict(bool(right), None if right is None else extract_code(text)))
        return verdicts

    def check(self, item: Item) -> None:
        """See `Scorer.check`."""
        literal.literal(item.gold)

    def right(self, item: Item) -> str:
        """See `Scorer.right`."""
        return _fenced(item.gold)

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        return _fenced(f"['not', {item.gold}]")


class ProgramScorer:
    """Programs against their tests, in the sandbox.

    Args:
        name: of the benchmark.
        allow_unsafe_execution: go on where there is no sandbox.

    Raises:
        ConfigError: there is none and that is not allowed.
    """

    def __init__(self, name: str, allow_unsafe_execution: bool) -> None:
        self.name = name
        self.sandbox = Sandbox(allow_unsafe_execution=allow_unsafe_execution)

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        tests = {item.prompt.id: item.gold[0] for item, _ in answers}
        for name, found in tests.items():
            if isinstance(found, PackedTests):
                tests[name] = found.unpack()
        for_each = [(item.prompt.id, tests[item.prompt.id], text) for item, text in answers]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            verdicts = list(pool.map(self._judge, *zip(*for_each, strict=True))) if answers else []
        return [
            Verdict(verdict.correct, extract_code(text))
            for verdict, (_, text) in zip(verdicts, answers, strict=True)
        ]

    def _judge(self, name: str, tests: Tests, text: str) -> ProgramVerdict:
        try:
            return verify(tests, text, self.sandbox)
        except BrokenTests as error:
            raise ConfigError(
                f"question {name}: {error}; benchmark.{self.name}.exclude=[{name}] leaves it out"
            ) from error

    def check(self, item: Item) -> None:
        """See `Scorer.check`."""
        # its tests were read when the item was made

    def right(self, item: Item) -> str | None:
        """See `Scorer.right`."""
        solution = item.gold[1]
        return None if solution is None else _fenced(solution)

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        return _fenced("print('a program that passes no test')")


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


class TaskScorer:
    """The verdicts of a training task."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`; a box makes a response parsable."""
        right = self.task.verify([(item.prompt, text) for item, text in answers])
        pairs = zip(right, answers, strict=True)
        return [Verdict(verdict, extract_box(text)) for verdict, (_, text) in pairs]

    def check(self, item: Item) -> None:
        """See `Scorer.check`."""
        # the task has checked its own

    def right(self, item: Item) -> str:
        """See `Scorer.right`."""
        return rf"\boxed{{{item.gold}}}"

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        return rf"\boxed{{{_WRONG_NUMBER}}}"
