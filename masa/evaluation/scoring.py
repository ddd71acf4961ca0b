"""Scorers: verdicts on the responses of each kind of benchmark."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Protocol

from masa.errors import ConfigError
from masa.evaluation.items import Item, PackedTests
from masa.tasks.base import Task, same_of
from masa.tasks.demonstrations import final_answer
from masa.verifiers import choice, gym_answers, number
from masa.verifiers.code import literal
from masa.verifiers.code.programs import BrokenTests, ProgramVerdict, Tests, extract_code, verify
from masa.verifiers.code.sandbox import Sandbox
from masa.verifiers.extract import extract_box
from masa.verifiers.math import verifier

_WRONG_NUMBER = "-987654321987"

Answers = Sequence[tuple[Item, str]]


@dataclass(frozen=True)
class Verdict:
    """The verdict on one response."""

    correct: bool
    answer: str | None
    """The extracted answer; None makes the response unparsable."""


class Scorer(Protocol):
    """Judges responses, and gives an example of a correct and of a wrong one."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """One verdict per response."""
        ...

    def check_gold(self, item: Item) -> None:
        """Raise ValueError where the gold answer is unusable."""
        ...

    def correct_response(self, item: Item) -> str | None:
        """A correct response; None where the data have no solution."""
        ...

    def wrong_response(self, item: Item) -> str:
        """A wrong response in the format that the question asks for."""
        ...

    def same(self, item: Item, a: str, b: str) -> bool:
        """True where two responses give the same answer, as `judge` would hold them; one without an
        answer is like no other, nor like itself.

        Raises:
            ConfigError: the scorer cannot tell; raised whatever the responses are.
        """
        ...


class BoxScorer:
    """Judges the last box of a response by `_verify`."""

    def _verify(self, answers: Answers) -> list[bool]:
        raise NotImplementedError

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`; a box makes a response parsable."""
        pairs = zip(self._verify(answers), answers, strict=True)
        return [Verdict(correct, extract_box(text)) for correct, (_, text) in pairs]

    def check_gold(self, item: Item) -> None:
        """See `Scorer.check_gold`; the gold answer was checked when the item was made."""

    def correct_response(self, item: Item) -> str:
        """See `Scorer.correct_response`."""
        return rf"\boxed{{{item.prompt.answer}}}"

    def wrong_response(self, item: Item) -> str:
        """See `Scorer.wrong_response`."""
        return rf"\boxed{{{_WRONG_NUMBER}}}"


class MathScorer(BoxScorer):
    """A mathematical text, judged by the verifier of training."""

    def _verify(self, answers: Answers) -> list[bool]:
        return verifier.verify_batch([(item.gold, text) for item, text in answers])

    def check_gold(self, item: Item) -> None:
        """See `Scorer.check_gold`."""
        verifier.check_gold(item.gold)

    def same(self, item: Item, a: str, b: str) -> bool:
        """See `Scorer.same`."""
        return verifier.same(a, b)


class NumberScorer(BoxScorer):
    """A number within a relative tolerance, in the unit of the question."""

    def _verify(self, answers: Answers) -> list[bool]:
        return number.verify_batch([(item.gold[0], text, item.gold[1]) for item, text in answers])

    def check_gold(self, item: Item) -> None:
        """See `Scorer.check_gold`."""
        number.check_gold(item.gold[0])

    def same(self, item: Item, a: str, b: str) -> bool:
        """See `Scorer.same`: the number of one response within the tolerance of the other's."""
        read = number.read_quantities(extract_box(a) or "")
        if not read:
            return False
        unit, value = read[-1].unit or item.gold[1], read[-1].value
        # no float is as large or as small
        if value and not 1e-300 < abs(value) < 1e300:
            return False
        return number.verify_batch([(str(float(value)), b, unit)])[0]


class TaskScorer:
    """An answer to a training task, judged by the task: some judge the whole text.

    Args:
        task: the task.
        correct_at: smallest score of a correct answer.
    """

    def __init__(self, task: Task, correct_at: float) -> None:
        self.task = task
        self.correct_at = correct_at

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`; a box, a tag or a right answer makes a response parsable."""
        scores = self.task.verify([(item.prompt, text) for item, text in answers])
        verdicts = []
        for score, (_, text) in zip(scores, answers, strict=True):
            correct, answer = score >= self.correct_at, gym_answers.extract(text)
            verdicts.append(Verdict(correct, text if correct and answer is None else answer))
        return verdicts

    def check_gold(self, item: Item) -> None:
        """See `Scorer.check_gold`; the task has checked its problems."""

    def correct_response(self, item: Item) -> str:
        """See `Scorer.correct_response`."""
        return final_answer(item.prompt.answer, self.task.templates)

    def wrong_response(self, item: Item) -> str:
        """See `Scorer.wrong_response`."""
        return final_answer(_WRONG_NUMBER, self.task.templates)

    def same(self, item: Item, a: str, b: str) -> bool:
        """See `Scorer.same`."""
        return same_of(self.task)(a, b)


class ChoiceScorer(BoxScorer):
    """The last clear choice."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        verdicts = []
        for item, text in answers:
            letter, count = item.gold
            chosen = choice.extract(text, ascii_uppercase[:count])
            verdicts.append(Verdict(chosen == letter, chosen))
        return verdicts

    def wrong_response(self, item: Item) -> str:
        """See `Scorer.wrong_response`."""
        letter, count = item.gold
        return rf"\boxed{{{chr(ord('A') + (ord(letter) - ord('A') + 1) % count)}}}"

    def same(self, item: Item, a: str, b: str) -> bool:
        """See `Scorer.same`."""
        letters = ascii_uppercase[: item.gold[1]]
        chosen = choice.extract(a, letters)
        return chosen is not None and chosen == choice.extract(b, letters)


class LiteralScorer:
    """A Python literal that equals the real output; nothing is executed."""

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        verdicts = []
        for item, text in answers:
            correct = literal.verify(item.gold, text)
            verdicts.append(
                Verdict(correct is True, None if correct is None else extract_code(text))
            )
        return verdicts

    def check_gold(self, item: Item) -> None:
        """See `Scorer.check_gold`."""
        literal.literal(item.gold)

    def correct_response(self, item: Item) -> str:
        """See `Scorer.correct_response`."""
        return _fenced(item.gold)

    def wrong_response(self, item: Item) -> str:
        """See `Scorer.wrong_response`."""
        return _fenced(f"['not', {item.gold}]")

    def same(self, item: Item, a: str, b: str) -> bool:
        """See `Scorer.same`."""
        return literal.same(a, b)


class ProgramScorer:
    """Programs against their tests, in the sandbox.

    Args:
        name: of the benchmark.
        allow_unsafe_execution: run programs where there is no sandbox.

    Raises:
        ConfigError: there is no sandbox and that is not allowed.
    """

    def __init__(self, name: str, allow_unsafe_execution: bool) -> None:
        self.name = name
        self.sandbox = Sandbox(allow_unsafe_execution=allow_unsafe_execution)

    def judge(self, answers: Answers) -> list[Verdict]:
        """See `Scorer.judge`."""
        tests = {item.prompt.id: item.gold[0] for item, _ in answers}
        for name, packed in tests.items():
            if isinstance(packed, PackedTests):
                tests[name] = packed.unpack()
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

    def check_gold(self, item: Item) -> None:
        """See `Scorer.check_gold`."""
        # the tests were read when the item was made

    def correct_response(self, item: Item) -> str | None:
        """See `Scorer.correct_response`."""
        solution = item.gold[1]
        return None if solution is None else _fenced(solution)

    def wrong_response(self, item: Item) -> str:
        """See `Scorer.wrong_response`."""
        return _fenced("print('a program that passes no test')")

    def same(self, item: Item, a: str, b: str) -> bool:
        """Programs have no answer that could be compared.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"benchmark {self.name} has programs for answers: they cannot be held equal, so there "
            "is nothing to vote on"
        )


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"
