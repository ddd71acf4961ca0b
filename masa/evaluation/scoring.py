"""Is an answer right, and was there one at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Protocol

from masa.evaluation.items import Item
from masa.tasks.base import Task
from masa.verifiers import choice, literal, math, number
from masa.verifiers.code import extract_code, verify_all
from masa.verifiers.extract import extract_box
from masa.verifiers.sandbox import Sandbox

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
        right = math.verify_batch([(item.gold, text) for item, text in answers])
        pairs = zip(right, answers, strict=True)
        return [Verdict(verdict, extract_box(text)) for verdict, (_, text) in pairs]

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

    def right(self, item: Item) -> str:
        """See `Scorer.right`."""
        return _fenced(item.gold)

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        return _fenced(f"['not', {item.gold}]")


class ProgramScorer:
    """Programs against their tests, in the sandbox.

    Args:
        allow_unsafe_execution: go on where there is no sandbox.

    Raises:
        ConfigError: there is none and that is not allowed.
    """

    def __init__(self, allow_unsafe_execution: bool) -> None:
        self.sandbox = Sandbox(allow_unsafe_execution=allow_unsafe_execution)

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        verdicts = verify_all(
            [(item.gold[0], text) for item, text in answers], self.sandbox, os.cpu_count() or 1
        )
        return [
            Verdict(verdict.correct, extract_code(text))
            for verdict, (_, text) in zip(verdicts, answers, strict=True)
        ]

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

    def right(self, item: Item) -> str:
        """See `Scorer.right`."""
        return rf"\boxed{{{item.gold}}}"

    def wrong(self, item: Item) -> str:
        """See `Scorer.wrong`."""
        return rf"\boxed{{{_WRONG_NUMBER}}}"
