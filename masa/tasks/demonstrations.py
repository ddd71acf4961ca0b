"""Demonstrations: solutions that a task has, and the form of a prediction, without its content."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from masa.errors import ConfigError
from masa.tasks.base import Task
from masa.tasks.templates import PASS_RATE_SCALE, Templates
from masa.types import Prompt
from masa.verifiers.extract import answer_boxes

T = TypeVar("T")

TAG = "<answer>"
"""What a template holds that asks for the answer in a tag and not in a box."""
_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class Demonstrated:
    """Solutions to learn from."""

    solutions: Sequence[tuple[Prompt, str]]
    """Prompts, none of them held out, and what the model is to say to them."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """How many were left out for which reason."""
    wrong_too: bool = False
    """Some are wrong on purpose, and learned from."""


@runtime_checkable
class Demonstrator(Protocol):
    """A task with solutions of its own. It may also have `notions`, a list of words, and
    `prediction(prompt, rng)`, the text of a prediction that knows nothing of the outcome."""

    def demonstrations(self, count: int, seed: int) -> Demonstrated:
        """Solutions to prompts that are not held out; `accepted` leaves out wrong ones.

        Args:
            count: of solutions, at most; a task that makes them makes as many.
            seed: which ones, and of what is random in them.

        Raises:
            ConfigError: there are none.
        """
        ...


def require_demonstrations(task: object) -> Demonstrator:
    """The task, if it has solutions of its own.

    Raises:
        ConfigError: it has none.
    """
    if isinstance(task, Demonstrator):
        return task
    raise ConfigError(
        f"{type(task).__name__} has no demonstrations: use sft.source=self, which learns from the "
        "model's own right solutions, or data with a column of solutions (task=hub, "
        "task.columns.solution)"
    )


def chosen(items: Sequence[T], count: int, seed: int) -> list[T]:
    """At most `count` of the items, at random, in their order."""
    if len(items) <= count:
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), count))]


def accepted(demonstrated: Demonstrated, task: Task, correct_at: float) -> Demonstrated:
    """Those that the verifier accepts, and those that are meant to be wrong.

    Args:
        demonstrated: of the task.
        task: judges.
        correct_at: smallest score of a correct solution.

    Raises:
        ConfigError: it accepts none.
    """
    if demonstrated.wrong_too:
        return demonstrated
    solutions = demonstrated.solutions
    scores = task.verify(solutions)
    right = [pair for pair, score in zip(solutions, scores, strict=True) if score >= correct_at]
    counts = Counter(demonstrated.dropped)
    counts["rejected by the verifier"] += len(solutions) - len(right)
    if not right:
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts.items() if n)
        raise ConfigError(f"no solution is left to learn from: {reasons or 'there were none'}")
    return Demonstrated(right, {reason: n for reason, n in counts.items() if n})


def final_answer(answer: str, templates: Templates) -> str:
    """The answer in the form that q_sol asks for."""
    if TAG in templates.solution:
        return f"<answer>{answer}</answer>"
    return f"The final answer is \\boxed{{{answer}}}."


def dressed(solution: str, answer: str, templates: Templates) -> str:
    """A solution of a data set that ends with its answer as q_sol asks for it.

    Where it gives an answer in that form, it stays as it is, right or wrong.
    """
    text = solution.strip()
    has_answer = TAG in text if TAG in templates.solution else bool(answer_boxes(text))
    return text if has_answer else f"{text}\n\n{final_answer(answer, templates)}"


@dataclass(frozen=True)
class PredictionForm:
    """Predictions of the right form that say nothing: every number and notion is drawn at random.

    Pass rate, length and notions are drawn independently of each other, of the problem and of
    whether anybody solves it. What they mean is left to reinforcement learning.
    """

    lengths: Sequence[int]
    """Lengths to draw from (tokens)."""
    notions: Sequence[str]
    """Notions to draw from; empty: words of the problem."""

    def draw(self, prompt: Prompt, rng: random.Random) -> str:
        """The text of a prediction."""
        notions = self.hint(prompt, rng)
        pass_rate = rng.randint(0, PASS_RATE_SCALE)
        length = rng.choice(self.lengths)
        reasoning = (
            f"Ideas that may matter: {', '.join(notions) or 'none'}. "
            f"I expect {pass_rate} of {PASS_RATE_SCALE} attempts to be right, "
            f"and about {length} tokens for a right one."
        )
        fields = {"math_notion": notions, "pass_rate": pass_rate, "solution_length": length}
        # a word of the problem must not end the reasoning
        return f"<meta>{reasoning}</meta>\n{json.dumps(fields, ensure_ascii=False)}"

    def hint(self, prompt: Prompt, rng: random.Random) -> list[str]:
        """One to three notions, fewer where there are fewer."""
        words = self.notions or sorted(set(map(str.lower, _WORD.findall(prompt.problem))))
        return rng.sample(list(words), min(len(words), rng.randint(1, 3)))


def uniform_lengths(shortest: int, longest: int, count: int = 1000) -> list[int]:
    """Lengths over a range, evenly spread in their logarithm."""
    step = math.log(longest / shortest) / max(1, count - 1)
    return [min(longest, round(shortest * math.exp(step * i))) for i in range(count)]


def draw_prediction(task: Any, form: PredictionForm, prompt: Prompt, rng: random.Random) -> str:
    """A prediction as the task itself writes them, else in the general form."""
    own = getattr(task, "prediction", None)
    return str(own(prompt, rng)) if own else form.draw(prompt, rng)
