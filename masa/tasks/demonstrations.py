"""Demonstrations: solutions that a task has, and the form of a prediction, without its content."""

from __future__ import annotations

import inspect
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from masa.algorithm.meta_rewards import stands_in
from masa.errors import ConfigError, require
from masa.tasks.base import Task
from masa.tasks.templates import (
    MIXED_SCALE,
    PASS_RATE_SCALE,
    Templates,
    fields_json,
    parse_meta,
)
from masa.types import MetaPrediction, Prompt
from masa.verifiers.extract import answer_boxes

T = TypeVar("T")

TAG = "<answer>"
"""What a template holds that asks for the answer in a tag and not in a box."""
NOTIONS = 200
"""Words of solutions that predictions name at most."""
# no command of LaTeX
_WORD = re.compile(r"(?<![\\\w])[^\W\d_]{4,}(?!\w)")
_FUNCTION_WORDS = frozenset(
    """
    about above after again also although always another answer because been before being below
    both came cannot come could does doing done down each either else even ever every final finally
    find first following from gave gets give given gives going have having hence here however into
    itself just know known last least less like made make makes many means more most much must need
    needs next note only other otherwise over same second shall should show shows simply since some
    still such take takes than that their them then there therefore these they this those though
    through thus under until upon used uses using very want well were what when where whether which
    while whose will with within without would write your
    """.split()
)


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
    `prediction(prompt, rng)`, the text of a prediction that knows nothing of the outcome. Where
    predictions are to have the field `mixed` it is called with `mixed=True` as well.
    `write_prediction(prompt, prediction)` is the text of a given `MetaPrediction` in the same
    form, for `algorithm.bc.target=outcome`."""

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
    """Notions to draw from."""

    def draw(self, prompt: Prompt, rng: random.Random, mixed: bool = False) -> str:
        """The text of a prediction, with the field `mixed` where that is wanted."""
        notions = self.hint(prompt, rng)
        pass_rate = rng.randint(0, PASS_RATE_SCALE)
        length = rng.choice(self.lengths)
        percent = rng.randint(0, MIXED_SCALE) if mixed else None
        return general_form(notions, pass_rate, length, percent)

    def hint(self, prompt: Prompt, rng: random.Random) -> list[str]:
        """One to three notions that the problem does not mention, fewer where there are fewer."""
        words = [notion for notion in self.notions if not stands_in(prompt.problem, notion)]
        return rng.sample(words, min(len(words), rng.randint(1, 3)))


def general_form(
    notions: Sequence[str], pass_rate: int, length: int, percent: int | None = None
) -> str:
    """The text of a prediction whose reasoning says what its fields say."""
    reasoning = (
        f"Ideas that may matter: {', '.join(notions) or 'none'}. "
        f"I expect {pass_rate} of {PASS_RATE_SCALE} attempts to be right, "
        f"and about {length} tokens for a right one."
    )
    if percent is not None:
        reasoning += f" The chance that some are right and some wrong is {percent} %."
    return f"<meta>{reasoning}</meta>\n{fields_json(notions, pass_rate, length, percent)}"


def write_prediction(task: Any, prompt: Prompt, prediction: MetaPrediction) -> str:
    """The text of a prediction as the task itself writes them, else in the general form.

    Args:
        task: with `write_prediction`, or without.
        prompt: what it is about.
        prediction: with all fields; without `mixed` where that is not asked for.
    """
    own = getattr(task, "write_prediction", None)
    if own is not None:
        return str(own(prompt, prediction))
    rate, length, mixed = prediction.pass_rate, prediction.length, prediction.mixed
    assert rate is not None and length is not None
    percent = None if mixed is None else round(MIXED_SCALE * mixed)
    return general_form(prediction.notions or (), round(PASS_RATE_SCALE * rate), length, percent)


def check_written_predictions(task: Any, mixed: bool) -> None:
    """Raise ConfigError where what the task writes cannot be read as a prediction."""
    truth = MetaPrediction(0.5, 100, ("notion",), 1.0 if mixed else None)
    text = write_prediction(task, task.train[0], truth)
    error = parse_meta(text, mixed=mixed).error
    require(
        error is None,
        f"algorithm.bc.target=outcome: {type(task).__name__}.write_prediction writes a text that "
        f"is no prediction ({error}): {text[:100]!r}",
    )


def frequent_words(texts: Sequence[str]) -> list[str]:
    """The most frequent words of solutions, without function words, at most `NOTIONS`.

    No word is of one solution alone, so that none can tell of it. Words of most solutions are left
    out where there are others: they tell right ones from wrong ones least.
    """
    counts = Counter(word for text in texts for word in set(_WORD.findall(text.lower())))
    common = {w: n for w, n in counts.items() if n >= 2 and w not in _FUNCTION_WORDS}
    telling = {word: n for word, n in common.items() if 2 * n <= len(texts)} or common
    return sorted(telling, key=lambda word: (-telling[word], word))[:NOTIONS]


def uniform_lengths(shortest: int, longest: int, count: int = 1000) -> list[int]:
    """Lengths over a range, evenly spread in their logarithm."""
    step = math.log(longest / shortest) / max(1, count - 1)
    return [min(longest, round(shortest * math.exp(step * i))) for i in range(count)]


def draw_prediction(
    task: Any, form: PredictionForm, prompt: Prompt, rng: random.Random, mixed: bool = False
) -> str:
    """A prediction as the task itself writes them, else in the general form."""
    own = getattr(task, "prediction", None)
    if own is None:
        return form.draw(prompt, rng, mixed)
    return str(own(prompt, rng, mixed=True) if mixed else own(prompt, rng))


def check_mixed_predictions(task: Any) -> None:
    """Raise ConfigError where the task cannot demonstrate predictions with the field `mixed`."""
    task.templates.asking_for_mixed()
    own = getattr(task, "prediction", None)
    require(
        own is None or "mixed" in inspect.signature(own).parameters,
        f"{type(task).__name__}.prediction has no argument mixed, which demonstrations of the "
        "field of that name need: give it one, or set sft.mixed_predictions=0",
    )
