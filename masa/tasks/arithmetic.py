"""The built-in task: chains of operations modulo 97, their demonstrations and their tokenizer.

A problem reads `Take 45 modulo 97:` and one line per operation, `(a) add 27`, `(b) swap` and so on.
A demonstration solves each line either step by step (`: units 5+7 2 carry tens 4+2 7 plain = 72`)
or by a guess (`: guess 57`), which is often wrong. Careful steps need only one-digit tables, as
100 = 3 modulo 97: a carry out of the tens wraps by adding 3, a borrow by subtracting 3.
Reinforcement learning has to find that careful steps pay, and to predict when they do not help.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from masa.tasks.chains import LABELS, Operation, Problem, draw_problem, work_out
from masa.tasks.demonstrations import Demonstrated
from masa.tasks.templates import Templates
from masa.types import Prompt

TEMPLATES = Templates(
    solution="Solve step by step, answer in \\boxed{}.\n{problem}\nSolution: ",
    meta="Predict how solving this will go.\n{problem}\nPrediction: ",
    hint="{problem}\nHint: {hint}",
)

NOTIONS = ("carry", "borrow", "plain", "product", "tenfold", "shift", "wrap", "guess")
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

MAX_LEVELS = 6
LEVEL_WEIGHTS = (2, 2, 3, 4, 4, 1)
"""Shares of the levels in the demonstrations. Long chains teach the later lines; the impossible
ones are mostly noise."""
MODULI = (83, 89, 97)  # two-digit primes above 9 * 9, so that one wrap is always enough

HELD_OUT = ("validation", "tuning")
_HELD_OUT_SHARE = 10  # one problem in ten, by its hash, may only serve for validation
_LARGEST_POOL = 600  # held-out problems per level
_WORDS = ("add ", "subtract ", "swap", "times ")
_SPECIALS = ("<pad>", "<eos>", "<unk>")
_LITERALS = (
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

_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_JOINED_BOXES = re.compile(r"(?=\\boxed\{([^{}]*)\}\s*or\s*\\boxed\{([^{}]*)\})")
_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,9})\s*")


@dataclass(frozen=True)
class ArithmeticConfig:
    """Sizes of the task, and the shares of its kinds of demonstrations."""

    modulus: int = 97
    """83, 89 or 97."""
    levels: int = 6
    """Levels 1..levels are used."""
    train_size: int = 12_000
    """Problems to train on, over all levels."""
    validation_size_per_level: int = 30
    """Held-out problems per level."""
    held_out: str = "validation"
    """Which held-out problems: validation, to report on, or tuning, to choose settings by. For one
    seed no problem is in both, whatever their sizes."""
    seed: int = 0
    """Which problems are drawn."""
    careful: float = 0.78
    """Share of the demonstrated steps that are worked out and not guessed."""
    guess_right_easy: float = 0.9
    """Share of right guesses at a step without carry, borrow, product or wrap."""
    guess_right_hard: float = 0.5
    """The same at any other step that is not hopeless."""
    review_after_error: float = 0.45
    """Share of the demonstrations with an error that list their states again."""
    review_otherwise: float = 0.08
    """The same without an error."""
    scrambled: float = 0.7
    """Share of those reviews after an error that end in a random answer."""

    def __post_init__(self) -> None:
        if self.modulus not in MODULI:
            raise ValueError(f"modulus must be one of {MODULI}, got {self.modulus}")
        if not 1 <= self.levels <= MAX_LEVELS:
            raise ValueError(f"levels must be 1..{MAX_LEVELS}, got {self.levels}")
        # Level 1 has the fewest problems, about 2 * 80 * 80, a tenth of them held out.
        if not self.levels <= self.train_size <= 6_000 * self.levels:
            limits = f"{self.levels}..{6_000 * self.levels} with {self.levels} levels"
            raise ValueError(f"train_size must be {limits}, got {self.train_size}")
        if not 1 <= self.validation_size_per_level <= _LARGEST_POOL:
            size = self.validation_size_per_level
            raise ValueError(f"validation_size_per_level must be 1..{_LARGEST_POOL}, got {size}")
        if self.held_out not in HELD_OUT:
            raise ValueError(f"held_out must be one of {HELD_OUT}, got {self.held_out!r}")
        for field in fields(self):
            share = getattr(self, field.name)
            if field.type == "float" and not 0.0 <= share <= 1.0:
                raise ValueError(f"{field.name} must be within 0..1, got {share}")


class ArithmeticTask:
    """The built-in task: problems, verdicts, demonstrations and tokenizer."""

    notions = NOTIONS

    def __init__(self, config: ArithmeticConfig | None = None) -> None:
        self.config = config or ArithmeticConfig()
        self.templates = TEMPLATES

    @cached_property
    def train(self) -> list[Prompt]:
        """The finite pool to train on, levels in turn, the same on every call and machine."""
        return self._pool("train", self.config.train_size, held_out=False)

    @cached_property
    def validation(self) -> list[Prompt]:
        """Held-out problems, levels in turn; none of them occurs in `train` or a demonstration."""
        levels, name = self.config.levels, self.config.held_out
        size = self.config.validation_size_per_level * levels
        # a smaller pool is the start of a larger one, so this excludes every validation pool
        reported = (
            self._pool("validation", _LARGEST_POOL * levels, True) if name == "tuning" else ()
        )
        return self._pool(name, size, True, {prompt.problem for prompt in reported})

    def _pool(
        self, name: str, size: int, held_out: bool, excluded: Collection[str] = ()
    ) -> list[Prompt]:
        rng = random.Random(f"{name}-{self.config.seed}")
        pool: dict[str, Prompt] = {}
        while len(pool) < size:
            prompt = self.draw(1 + len(pool) % self.config.levels, rng, held_out)
            if prompt.problem not in excluded:
                pool.setdefault(prompt.problem, prompt)
        return list(pool.values())

    def draw(self, level: int, rng: random.Random, held_out: bool = False) -> Prompt:
        """A random problem of a level, held out or for training."""
        while True:
            problem = draw_problem(level, self.config.modulus, rng)
            text = str(problem)
            if is_held_out(text) == held_out:
                answer = str(problem.states()[-1])
                return Prompt(f"arith-{level}-{_digest(text)}", text, answer, level)

    @property
    def report(self) -> dict[str, Any]:
        """The source; problems are generated, so none is left out."""
        return {"source": "arithmetic"}

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        r"""True where the last \boxed{} has the answer and no "or" joins it to another one."""
        return [int(prompt.answer) == _answer(text) for prompt, text in answers]

    def same(self, a: str, b: str) -> bool:
        """True where both have an answer and it is the same number."""
        answer = _answer(a)
        return answer is not None and answer == _answer(b)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level tokenizer: a token per digit and per fixed part of the texts."""
        vocabulary = {token: i for i, token in enumerate((*_SPECIALS, *_LITERALS))}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        pattern = "|".join(re.escape(t) for t in sorted(_LITERALS, key=len, reverse=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        tokenizer.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            eos_token="<eos>",
            unk_token="<unk>",
            clean_up_tokenization_spaces=False,
            model_max_length=512,
        )

    def demonstrations(self, count: int, seed: int) -> Demonstrated:
        """Solutions, some of them wrong, to fresh problems that are never held out, whatever the
        sizes of the pools."""
        rng = random.Random(f"demonstrations-{seed}")
        weights = LEVEL_WEIGHTS[: self.config.levels]
        levels = rng.choices(range(1, self.config.levels + 1), weights, k=count)
        prompts = (self.draw(level, rng) for level in levels)
        solutions = [(prompt, self.solution_demo(prompt, rng)) for prompt in prompts]
        return Demonstrated(solutions, wrong_too=True)

    def prediction(self, prompt: Prompt, rng: random.Random) -> str:
        """A demonstrated prediction on a problem; see `meta_demo`."""
        operations = Problem.parse(prompt.problem).operations
        large = sum(operation.hopeless for operation in operations)
        return self.meta_demo(rng, len(operations), large)

    def solution_demo(self, prompt: Prompt, rng: random.Random) -> str:
        """A demonstrated solution, careful or not, correct or not."""
        problem = Problem.parse(prompt.problem)
        state, error, states = problem.start, False, []
        text = f"{state:02d}"
        for label, operation in zip(LABELS, problem.operations, strict=False):
            correct = operation.apply(state, problem.modulus)
            step, state = self._step(operation, state, problem.modulus, rng)
            error |= state != correct
            states.append(f"{state:02d}")
            text += f"\n({label}) {operation}{step}"
            # The jitter spreads the lengths of correct solutions; without it r_length is 0.
            text += f" check {state:02d}" * rng.randint(0, 2)
        if rng.random() < (
            self.config.review_after_error if error else self.config.review_otherwise
        ):
            text += ("\nReview " + ", ".join(states)) * rng.randint(1, 2)
            if error and rng.random() < self.config.scrambled:
                state = rng.randrange(problem.modulus)
        return text + f"\nAnswer: \\boxed{{{state:02d}}}"

    def _step(
        self, operation: Operation, state: int, modulus: int, rng: random.Random
    ) -> tuple[str, int]:
        """The text of a demonstration after an operation, and the state it ends in."""
        if operation.hopeless:
            tries = [f"{rng.randrange(modulus):02d}" for _ in range(rng.randint(8, 13))]
            guess = rng.randrange(modulus)
            return ": try " + " try ".join(tries) + f" guess {guess:02d}", guess
        worked_out = work_out(operation, state, modulus)
        correct = operation.apply(state, modulus)
        if rng.random() < self.config.careful:
            return worked_out, correct
        hard = any(word in worked_out for word in ("carry", "borrow", "product", "wrap"))
        share = self.config.guess_right_hard if hard else self.config.guess_right_easy
        guess = correct if rng.random() < share else (correct + rng.randrange(1, modulus)) % modulus
        return f": guess {guess:02d}", guess

    def meta_demo(self, rng: random.Random, steps: int, large: int) -> str:
        """A demonstrated prediction: its format is correct, its content random and over-confident.

        Of the problem it depends only on the counts in its reasoning: operations and large factors.
        The words after the counts are random.

        Args:
            rng: source of the random words.
            steps: operations of the problem.
            large: those with a two-digit factor.
        """
        (rate_word,) = rng.choices(tuple(PASS_RATE_WORDS), weights=(45, 25, 15, 15))
        length_word = rng.choice(tuple(LENGTH_WORDS))
        reasoning = f"{steps} steps, {large} large: {rate_word}; {steps} steps: {length_word}"
        rates, lengths = PASS_RATE_WORDS[rate_word], LENGTH_WORDS[length_word]
        return f"<meta>{reasoning}</meta>{_random_prediction(rng, rates, lengths)}"


def _random_prediction(
    rng: random.Random, pass_rates: Sequence[int], lengths: Sequence[int]
) -> str:
    """A random prediction, independent of the problem."""
    notions = rng.sample(NOTIONS, rng.randint(1, 3))
    pass_rate = rng.choice(pass_rates)
    length = rng.choice(lengths)
    return json.dumps({"math_notion": notions, "pass_rate": pass_rate, "solution_length": length})


def is_held_out(problem: str) -> bool:
    """True where the problem may only serve for validation, whatever the seed and the sizes."""
    return int(_digest(problem), 16) % _HELD_OUT_SHARE == 0


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _answer(text: str) -> int | None:
    boxes = _BOX.findall(text)
    hedged = any(_integer(a) != _integer(b) for a, b in _JOINED_BOXES.findall(text))
    return _integer(boxes[-1]) if boxes and not hedged else None


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    return int(match[1]) if match else None
