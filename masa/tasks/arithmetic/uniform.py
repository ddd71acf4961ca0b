"""The profile `uniform`: chains of operations modulo 97, of even difficulty within a level.

A problem reads `Take 45 modulo 97:` and one line per operation, `(a) add 27`, `(b) swap` and so on.
A demonstration solves each line either step by step (`: units 5+7 2 carry tens 4+2 7 plain = 72`)
or by a guess (`: guess 57`), which is often wrong. Careful steps need only one-digit tables, as
100 = 3 modulo 97: a carry out of the tens wraps by adding 3, a borrow by subtracting 3.
Reinforcement learning has to find that careful steps pay, and to predict when they do not help.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from masa.tasks.arithmetic.chains import LABELS, ChainProblem, Operation, draw_problem, work_out
from masa.tasks.arithmetic.config import ArithmeticConfig
from masa.tasks.arithmetic.words import nearest
from masa.tasks.templates import Templates, fields_json
from masa.types import MetaPrediction

TEMPLATES = Templates(
    solution="Solve step by step, answer in \\boxed{}.\n{problem}\nSolution: ",
    meta="Predict how solving this will go.\n{problem}\nPrediction: ",
    hint="{problem}\nHint: {hint}",
)

NOTIONS: tuple[str, ...] = (
    "carry",
    "borrow",
    "plain",
    "product",
    "tenfold",
    "shift",
    "wrap",
    "guess",
)
"""Words of the solutions that a prediction may name; none of them is in a problem."""

PASS_RATE_WORDS = {"easy": (8,), "fair": (5, 6, 7), "hard": (2, 3, 4), "hopeless": (0,)}
"""Words for the difficulty in a prediction's reasoning, and their pass rates (0..8). Both ends of
the scale have a separate word: one word for two rates would be learned as their mean."""
LENGTH_WORDS = {
    "tiny": range(16, 33),
    "short": range(33, 56),
    "middling": range(56, 81),
    "long": range(81, 111),
    "huge": range(111, 161),
}
"""Words for the solution's length, and their lengths (tokens)."""

LEVEL_WEIGHTS: tuple[int, ...] = (2, 2, 3, 4, 4, 1)
"""Shares of the levels in the demonstrations. Long chains teach the later lines; the impossible
ones are mostly noise."""
_WORDS = ("add ", "subtract ", "swap", "times ")
LITERALS: tuple[str, ...] = (
    *"0123456789",
    *(f"{sign}{digit} " for sign in "+-*" for digit in range(10)),
    "Solve step by step, answer in \\boxed{}.\n",
    "\nSolution: ",
    "Predict how solving this will go.\n",
    "\nPrediction: ",
    "\nHint: ",
    "Take ",
    " modulo ",
    ":",
    # Label and word are one token, so that a solution finds its next line in one attention step.
    *(f"\n({label}) {word}" for label in LABELS for word in _WORDS),
    *(f"{lead}{word} " for word in ("units", "guess", "try") for lead in (": ", " ")),
    *(f" {word} " for word in ("tens", "tenfold", "wrap", "check", "=")),
    *(f" {word}" for word in ("carry", "borrow", "plain")),
    ": product ",
    ": shift ",
    "\nReview ",
    ", ",
    "\nAnswer: \\boxed{",
    "}",
    "<meta>",
    # Word and counts are one token, so that a word is learned per count: in the warm start words do
    # not depend on the counts, and separate tokens would share their features.
    *(
        f"{steps} steps, {large} large: {feeling}"
        for steps in range(1, 7)
        for large in range(3)
        for feeling in PASS_RATE_WORDS
    ),
    *(f"; {steps} steps: {size}" for steps in range(1, 7) for size in LENGTH_WORDS),
    '</meta>{"math_notion": ["',
    '</meta>{"math_notion": [], "pass_rate": ',
    *NOTIONS,
    '", "',
    '"], "pass_rate": ',
    ', "solution_length": ',
)


def draw(
    level: int, config: ArithmeticConfig, rng: random.Random, seen: bool | None = True
) -> tuple[str, int, Mapping[str, Any]]:
    """A random problem of a level, its answer and its columns."""
    problem = draw_problem(level, config.modulus, rng)
    return str(problem), problem.states()[-1], {}


def solution(text: str, config: ArithmeticConfig, rng: random.Random) -> str:
    """A demonstrated solution, careful or not, correct or not."""
    problem = ChainProblem.parse(text)
    state, error, states = problem.start, False, []
    written = f"{state:02d}"
    for label, operation in zip(LABELS, problem.operations, strict=False):
        correct = operation.apply(state, problem.modulus)
        step, state = _step(operation, state, problem.modulus, config, rng)
        error |= state != correct
        states.append(f"{state:02d}")
        written += f"\n({label}) {operation}{step}"
        # The jitter spreads the lengths of correct solutions; without it r_length is 0.
        written += f" check {state:02d}" * rng.randint(0, 2)
    if rng.random() < (config.review_after_error if error else config.review_otherwise):
        written += ("\nReview " + ", ".join(states)) * rng.randint(1, 2)
        if error and rng.random() < config.scrambled:
            state = rng.randrange(problem.modulus)
    return written + f"\nAnswer: \\boxed{{{state:02d}}}"


def _step(
    operation: Operation, state: int, modulus: int, config: ArithmeticConfig, rng: random.Random
) -> tuple[str, int]:
    """The text of a demonstration after an operation, and the state it ends in."""
    if operation.hopeless:
        tries = [f"{rng.randrange(modulus):02d}" for _ in range(rng.randint(8, 13))]
        guess = rng.randrange(modulus)
        return ": try " + " try ".join(tries) + f" guess {guess:02d}", guess
    worked_out = work_out(operation, state, modulus)
    correct = operation.apply(state, modulus)
    if rng.random() < config.careful:
        return worked_out, correct
    hard = any(word in worked_out for word in ("carry", "borrow", "product", "wrap"))
    share = config.guess_right_hard if hard else config.guess_right_easy
    guess = correct if rng.random() < share else (correct + rng.randrange(1, modulus)) % modulus
    return f": guess {guess:02d}", guess


def prediction(text: str, rng: random.Random, mixed: bool = False) -> str:
    """A demonstrated prediction: its format is correct, its content random and over-confident.

    Of the problem it depends only on the counts in its reasoning: operations, and those of them
    with a two-digit factor. The words after the counts are random.
    """
    (rate_word,) = rng.choices(tuple(PASS_RATE_WORDS), weights=(45, 25, 15, 15))
    length_word = rng.choice(tuple(LENGTH_WORDS))
    notions = rng.sample(NOTIONS, rng.randint(1, 3))
    rate = rng.choice(PASS_RATE_WORDS[rate_word])
    length = rng.choice(LENGTH_WORDS[length_word])
    reasoning = _reasoning(text, rate_word, length_word)
    return f"<meta>{reasoning}</meta>{fields_json(notions, rate, length)}"


def write_prediction(text: str, prediction: MetaPrediction) -> str:
    """A prediction of these numbers, without the field `mixed`."""
    rate, length = round(8 * (prediction.pass_rate or 0)), prediction.length or 0
    reasoning = _reasoning(text, nearest(PASS_RATE_WORDS, rate), nearest(LENGTH_WORDS, length))
    return f"<meta>{reasoning}</meta>{fields_json(prediction.notions or (), rate, length)}"


def _reasoning(text: str, rate_word: str, length_word: str) -> str:
    operations = ChainProblem.parse(text).operations
    steps, large = len(operations), sum(operation.hopeless for operation in operations)
    return f"{steps} steps, {large} large: {rate_word}; {steps} steps: {length_word}"
