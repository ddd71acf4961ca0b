"""The built-in task: chains of operations modulo 97, their demonstrations and their tokenizer.

A problem reads `Take 45 modulo 97:` and one line per operation, `(a) add 27`, `(b) swap` and so on.
A demonstration takes each line either carefully (`: units 5+7 2 carry tens 4+2 7 plain = 72`) or at
a guess (`: guess 57`), which is often wrong. Careful steps need only one-digit tables, as 100 = 3
modulo 97: a carry out of the tens wraps by adding 3, a borrow by subtracting 3. What reinforcement
has to find out is to be careful, and, about the model itself, when that will not help.
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
from masa.tasks.templates import Templates
from masa.types import Prompt

TEMPLATES = Templates(
    solution="Solve step by step, answer in \\boxed{}.\n{problem}\nSolution: ",
    meta="Predict how solving this will go.\n{problem}\nPrediction: ",
    hint="{problem}\nHint: {hint}",
)

NOTIONS = ("carry", "borrow", "plain", "product", "tenfold", "shift", "wrap", "guess")
"""Words of the solutions that a prediction may name; none of them stands in a problem."""

FEELINGS = {"easy": (8,), "fair": (5, 6, 7), "hard": (2, 3, 4), "hopeless": (0,)}
"""How a prediction sums up its reasoning, and the pass rates (0..8) that go with it. Both ends of
the scale have a word of their own: one that stood for two rates would settle between them."""
SIZES = {
    "tiny": range(16, 33),
    "short": range(33, 56),
    "middling": range(56, 81),
    "long": range(81, 111),
    "huge": range(111, 161),
}
"""The same of the solution, and the lengths (tokens) that go with it."""

MAX_LEVELS = 6
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
    # Label and word are one token, so that a solution finds its next line with one look.
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
    # One token with its counts, so that a word is learned for each count by itself: the warm start,
    # whose words know no counts, would leave the same features behind all of them.
    *(
        f"{steps} steps, {large} large: {feeling}"
        for steps in range(1, 7)
        for large in range(3)
        for feeling in FEELINGS
    ),
    *(f"; {steps} steps: {size}" for steps in range(1, 7) for size in SIZES),
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
    """Size of the domain and the habits of its demonstrations."""

    modulus: int = 97
    """83, 89 or 97."""
    levels: int = 6
    """Levels 1..levels are used."""
    train_size: int = 12_000
    """Problems to train on, over all levels."""
    validation_size_per_level: int = 30
    """Held-out problems per level."""
    held_out: str = "validation"
    """Which held-out problems: validation, to report on, or tuning, to choose settings by. No
    problem of a seed is in both, whatever their sizes."""
    seed: int = 0
    """Which problems are drawn."""
    careful: float = 0.78
    """Share of the demonstrated steps that are worked out."""
    guess_right_easy: float = 0.9
    """Share of right guesses at a step without carry, borrow, product or wrap."""
    guess_right_hard: float = 0.5
    """The same at any other step that is not hopeless."""
    review_after_error: float = 0.45
    """Share of the demonstrations with an error that go over their states again."""
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
            got = self.validation_size_per_level
            raise ValueError(f"validation_size_per_level must be 1..{_LARGEST_POOL}, got {got}")
        if self.held_out not in HELD_OUT:
            raise ValueError(f"held_out must be one of {HELD_OUT}, got {self.held_out!r}")
        for field in fields(self):
            share = getattr(self, field.name)
            if field.type == "float" and not 0.0 <= share <= 1.0:
                raise ValueError(f"{field.name} must be within 0..1, got {share}")


class ArithmeticTask:
    """The built-in task: problems, verdicts, demonstrations and tokenizer."""

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
        # a smaller pool is the start of a larger one, so that this leaves out every validation pool
        apart = self._pool("validation", _LARGEST_POOL * levels, True) if name == "tuning" else ()
        return self._pool(name, size, True, {prompt.problem for prompt in apart})

    def _pool(
        self, name: str, size: int, held_out: bool, without: Collection[str] = ()
    ) -> list[Prompt]:
        rng = random.Random(f"{name}-{self.config.seed}")
        pool: dict[str, Prompt] = {}
        while len(pool) < size:
            prompt = self.draw(1 + len(pool) % self.config.levels, rng, held_out)
            if prompt.problem not in without:
                pool.setdefault(prompt.problem, prompt)
        return list(pool.values())

    def draw(self, level: int, rng: random.Random, held_out: bool = False) -> Prompt:
        """A random problem of a level, from the held-out side of the domain or from the other."""
        while True:
            problem = draw_problem(level, self.config.modulus, rng)
            text = str(problem)
            if is_held_out(text) == held_out:
                answer = str(problem.states()[-1])
                return Prompt(f"arith-{level}-{_digest(text)}", text, answer, level)

    @property
    def report(self) -> dict[str, Any]:
        """Nothing is read, so nothing is left out."""
        return {"source": "arithmetic"}

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        r"""True where the last \boxed{} holds the answer and is no pick of several ("a or b")."""
        return [_is_right(int(prompt.answer), text) for prompt, text in answers]

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level tokenizer: digits one by one, the fixed parts of the texts whole."""
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

    def solution_demo(self, prompt: Prompt, rng: random.Random) -> str:
        """A demonstration solution, careful or not, right or wrong."""
        problem = Problem.parse(prompt.problem)
        state, error, states = problem.start, False, []
        text = f"{state:02d}"
        for label, operation in zip(LABELS, problem.operations, strict=False):
            right = operation.apply(state, problem.modulus)
            step, state = self._step(operation, state, problem.modulus, rng)
            error |= state != right
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
        """What a demonstration writes after an operation, and the state it ends in."""
        if operation.hopeless:
            tries = [f"{rng.randrange(modulus):02d}" for _ in range(rng.randint(8, 13))]
            guess = rng.randrange(modulus)
            return ": try " + " try ".join(tries) + f" guess {guess:02d}", guess
        careful = work_out(operation, state, modulus)
        right = operation.apply(state, modulus)
        if rng.random() < self.config.careful:
            return careful, right
        hard = any(word in careful for word in ("carry", "borrow", "product", "wrap"))
        share = self.config.guess_right_hard if hard else self.config.guess_right_easy
        guess = right if rng.random() < share else (right + rng.randrange(1, modulus)) % modulus
        return f": guess {guess:02d}", guess

    def meta_demo(self, rng: random.Random, steps: int, large: int) -> str:
        """A demonstration prediction: its form is right, its content random and over-confident.

        Of the problem it sees only what it writes down as its reasoning: how many operations there
        are and how many large factors. The words that follow each are drawn without looking at it.
        """
        (feeling,) = rng.choices(tuple(FEELINGS), weights=(45, 25, 15, 15))
        size = rng.choice(tuple(SIZES))
        reasoning = f"{steps} steps, {large} large: {feeling}; {steps} steps: {size}"
        return f"<meta>{reasoning}</meta>{_random_prediction(rng, FEELINGS[feeling], SIZES[size])}"


def _random_prediction(
    rng: random.Random, pass_rates: Sequence[int], lengths: Sequence[int]
) -> str:
    """A prediction that knows nothing of the problem."""
    notions = rng.sample(NOTIONS, rng.randint(1, 3))
    pass_rate = rng.choice(pass_rates)
    length = rng.choice(lengths)
    return json.dumps({"math_notion": notions, "pass_rate": pass_rate, "solution_length": length})


def is_held_out(problem: str) -> bool:
    """True where the problem may only serve for validation, whatever the seed and the sizes."""
    return int(_digest(problem), 16) % _HELD_OUT_SHARE == 0


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _is_right(answer: int, text: str) -> bool:
    boxes = [_integer(box) for box in _BOX.findall(text)]
    hedged = any(_integer(a) != _integer(b) for a, b in _JOINED_BOXES.findall(text))
    return bool(boxes) and boxes[-1] == answer and not hedged


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    return int(match[1]) if match else None
