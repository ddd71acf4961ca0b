"""The profile `families`: made-up operations, of which each family has to be learned by itself.

A problem reads `Take 45:` and one line per operation, `(a) bon`, `(b) kal` and so on. A name stands
for one of eight methods, which change a two-digit number. A solution writes the method that it
takes for a name, works its digits out (`up units 5 6 tens 4 4 = 46`) and answers with the last
number. Demonstrations know a name's method with the share of its family:

- trivial: always;
- learnable: in a seventh to three fifths of the cases;
- rare: in less, so that most groups of rollouts have no right solution;
- composite: a name for two others in turn, which are learnable themselves;
- hopeless: its result is a number that no demonstration of it arrives at, after many tries.

Nothing that is learned of one family helps with another, but with the composites of it. So learning
takes long, while trivial and hopeless prompts stay what they are.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masa.tasks.arithmetic.config import ArithmeticConfig
from masa.tasks.arithmetic.words import nearest
from masa.tasks.templates import Templates, fields_json
from masa.types import MetaPrediction

TEMPLATES = Templates(
    solution="Solve step by step, answer in \\boxed{}.\n{problem}\nSolution:",
    meta="Predict how solving this will go.\n{problem}\nPrediction: ",
    hint="{problem}\nHint: {hint}",
    meta_mixed="Predict how solving this will go and whether attempts will differ.\n{problem}\n"
    "Prediction: ",
    recent='{problem}, "mixed": {mixed}',
)

METHODS: Mapping[str, Callable[[int], int]] = {
    "up": lambda x: x + 1,
    "down": lambda x: x - 1,
    "lift": lambda x: x + 10,
    "drop": lambda x: x - 10,
    "hop": lambda x: x + 2,
    "slip": lambda x: x - 3,
    "leap": lambda x: x + 5,
    "swap": lambda x: 10 * (x % 10) + x // 10,
}
NOTIONS: tuple[str, ...] = (*METHODS,)
"""Words of the solutions that a prediction may name: a notion is the method that a name needs."""

RATE_WORDS = {
    "never": ((0,), range(4)),
    "rarely": ((1,), range(20, 46)),
    "sometimes": ((2, 3, 4, 5), range(80, 100)),
    "mostly": ((6, 7), range(45, 81)),
    "always": ((8,), range(4)),
}
"""Words for the outcome in a prediction's reasoning, with their pass rates (0..8) and chances of a
mixed group (percent)."""
LENGTH_WORDS = {
    "tiny": range(16, 33),
    "short": range(33, 50),
    "middling": range(50, 75),
    "long": range(75, 106),
    "huge": range(106, 161),
}
"""Words for the solution's length, and their lengths (tokens)."""

LABELS = "abcd"
"""Labels of a problem's lines, in order."""
LOWEST, HIGHEST = 12, 84
"""Every number of a right solution lies between, but a hopeless result, which is above."""
LEVEL_WEIGHTS: tuple[int, ...] = (2, 2, 3, 3, 1, 1)
"""Shares of the levels in the demonstrations: hopeless ones are mostly noise."""
ERRORS_REVIEWED, OTHERS_REVIEWED = 0.5, 0.05
"""Shares of demonstrated solutions with and without a wrong method that list their numbers again:
what is wrong is longer."""
GOES_ON = 0.35
"""Chance of one more check, or one more try: lengths have a tail."""

_PROBLEM = re.compile(r"Take (\d\d):((?:\n\([a-d]\) [a-z]+)+)")
_LINE = re.compile(r"\n\([a-d]\) ([a-z]+)")


@dataclass(frozen=True)
class Family:
    """Problems with one name, or with one of its kind."""

    name: str
    kind: str
    """trivial, learnable, rare, composite or hopeless."""
    share: float
    """Share of the demonstrations that take the right method, or the right two names."""
    method: str = ""
    parts: tuple[str, ...] = ()
    """The two names of a composite."""
    seen: bool = True
    """False where no problem of the training has it, only demonstrations and validation."""


def _families() -> dict[str, Family]:
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    rng = random.Random("names of families")
    words = [a + v + b for a in consonants for v in vowels for b in consonants if a != b]
    rng.shuffle(words)
    names = (word for word in words if word not in METHODS)
    families: list[Family] = []

    def add(kind: str, shares: Sequence[float], unseen: int) -> None:
        """Families of these shares, of which the last `unseen` are not trained on."""
        for i, share in enumerate(shares):
            method = ""
            parts: tuple[str, ...] = ()
            if kind == "composite":
                learnable = [f for f in families if f.kind == "learnable" and f.seen]
                parts = (learnable[2 * i % 12].name, learnable[(2 * i + 5 + i // 6) % 12].name)
            elif kind != "hopeless":
                method = NOTIONS[(5 * len(families) + 3) % len(NOTIONS)]
            seen = i < len(shares) - unseen
            families.append(Family(next(names), kind, share, method, parts, seen))

    add("trivial", (1.0,) * 12, unseen=2)
    falling = (0.6, 0.5, 0.42, 0.36, 0.32, 0.28, 0.25, 0.22, 0.2, 0.18, 0.16, 0.14)
    add("learnable", (*falling, 0.42, 0.2), unseen=2)
    add("rare", (0.15, 0.12, 0.1, 0.08, 0.06, 0.04, 0.1), unseen=1)
    add("composite", (0.95,) * 7, unseen=1)
    add("hopeless", (0.0,) * 10, unseen=2)
    return {family.name: family for family in families}


FAMILIES = _families()
KINDS_OF_LEVEL = (
    ("trivial",),
    ("trivial",),
    ("learnable",),
    ("rare", "composite"),
    ("hopeless",),
    ("hopeless",),
)
LINES_OF_LEVEL = ((1, 3), (3, 4), (2, 4), (1, 3), (1, 3), (3, 4))
"""Fewest and most lines of a problem."""

LITERALS: tuple[str, ...] = (
    *"0123456789",
    *(f" {digit}" for digit in "0123456789"),
    "Solve step by step, answer in \\boxed{}.\n",
    "\nSolution:",
    "Predict how solving this will go.\n",
    "Predict how solving this will go and whether attempts will differ.\n",
    "\nPrediction: ",
    "\nHint: ",
    "Take",
    ":",
    # Label and name are one token, so that a solution finds its next line in one attention step.
    *(f"\n({label}) {name}" for label in LABELS for name in FAMILIES),
    *(f" {word}" for word in (*FAMILIES, *METHODS)),
    *(f" {word}" for word in ("units", "tens", "=", "then", "try", "guess", "check")),
    "\nReview",
    ",",
    "\nAnswer: \\boxed{",
    "}",
    "<meta>",
    # Name and word are one token, so that a word is learned per name: in demonstrations words do
    # not depend on the name, and separate tokens would share their features.
    *(f"{name}: {word}" for name in FAMILIES for word in RATE_WORDS),
    *(f"; lines {lines}: {size}" for lines in range(1, len(LABELS) + 1) for size in LENGTH_WORDS),
    '</meta>{"math_notion": ["',
    *METHODS,
    '", "',
    '"], "pass_rate": ',
    ', "solution_length": ',
    ', "mixed": ',
)


@dataclass(frozen=True)
class Problem:
    """A problem: a start value and the names of operations."""

    start: int
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Problem:
        """Parse a problem's text; ValueError where it is not one."""
        match = _PROBLEM.fullmatch(text)
        names = tuple(_LINE.findall(match[2])) if match else ()
        if match is None or not FAMILIES.keys() >= {*names}:
            raise ValueError(f"not a problem of families: {text!r}")
        return cls(int(match[1]), names)

    def __str__(self) -> str:
        lines = (f"\n({LABELS[i]}) {name}" for i, name in enumerate(self.names))
        return f"Take {self.start}:" + "".join(lines)

    @property
    def family(self) -> Family:
        """The family that decides how it goes: the one that is not trivial, else the first that is
        not trained on, else the first."""
        families = [FAMILIES[name] for name in self.names]
        return min(families, key=lambda family: (family.kind == "trivial", family.seen))

    def states(self) -> list[int]:
        """The true number after each operation."""
        state, states = self.start, []
        for name in self.names:
            state = result(FAMILIES[name], state)
            states.append(state)
        return states


def result(family: Family, state: int) -> int:
    """The true number after an operation of a family."""
    if family.kind == "hopeless":
        return HIGHEST + 1 + 7 * state % 12
    for name in family.parts:
        state = result(FAMILIES[name], state)
    return METHODS[family.method](state) if family.method else state


def draw(
    level: int, config: ArithmeticConfig, rng: random.Random, seen: bool | None = True
) -> tuple[str, int, Mapping[str, Any]]:
    """A random problem of a level, its answer, and its family as column.

    Args:
        level: which kinds of family, and how many lines.
        config: not used.
        rng: source of randomness.
        seen: of families that are trained on, of the others, or (None) of all.
    """
    kind = rng.choice(KINDS_OF_LEVEL[level - 1])
    lines = rng.randint(*LINES_OF_LEVEL[level - 1])
    of_kind = [f.name for f in FAMILIES.values() if f.kind == kind and seen in (None, f.seen)]
    trivial = [f.name for f in FAMILIES.values() if f.kind == "trivial" and f.seen]
    while True:
        names = [rng.choice(trivial) for _ in range(lines)]
        # nothing that comes after a hopeless line matters
        place = lines - 1 if kind == "hopeless" else rng.randrange(lines)
        names[place] = rng.choice(of_kind)
        problem = Problem(rng.randint(LOWEST, HIGHEST), tuple(names))
        states = problem.states()
        if all(LOWEST <= x <= HIGHEST for x in states[: lines - (kind == "hopeless")]):
            return str(problem), states[-1], {"family": problem.family.name}


def solution(text: str, config: ArithmeticConfig, rng: random.Random) -> str:
    """A demonstrated solution of a problem, right or wrong."""
    problem = Problem.parse(text)
    state, error, states = problem.start, False, []
    written = f" {state}"
    for label, name in zip(LABELS, problem.names, strict=False):
        written += f"\n({label}) {name}:"
        steps, state, correct = _line(FAMILIES[name], state, rng)
        written += steps + f" check {state:02d}" * _tail(rng)
        error |= not correct
        states.append(f" {state:02d}")
    if rng.random() < (ERRORS_REVIEWED if error else OTHERS_REVIEWED):
        written += ("\nReview" + ",".join(states)) * rng.randint(1, 2)
    return written + f"\nAnswer: \\boxed{{{state:02d}}}"


def _line(family: Family, state: int, rng: random.Random) -> tuple[str, int, bool]:
    """The text of a line after its name, the number it ends in, and whether that is the way."""
    if family.kind == "hopeless":
        tries = [rng.randint(LOWEST, HIGHEST) for _ in range(rng.randint(12, 22) + _tail(rng))]
        return "".join(f" try {x}" for x in tries) + f" guess {tries[-1]}", tries[-1], False
    names, known = [family.name], True
    if family.parts:
        learnable = [f.name for f in FAMILIES.values() if f.kind == "learnable" and f.seen]
        known = rng.random() < family.share
        names = list(family.parts) if known else rng.choices(learnable, k=2)
    steps = []
    for name in names:
        method = FAMILIES[name].method
        if rng.random() >= FAMILIES[name].share:
            known, method = False, rng.choice([other for other in NOTIONS if other != method])
        after = METHODS[method](state) % 100
        steps.append(
            f" {name} {method} units {state % 10} {after % 10} tens {state // 10} {after // 10}"
            f" = {after:02d}"
        )
        state = after
    return " then".join(steps), state, known


def _tail(rng: random.Random) -> int:
    """A number from 0 on with a geometric tail."""
    count = 0
    while rng.random() < GOES_ON and count < 12:
        count += 1
    return count


def prediction(text: str, rng: random.Random, mixed: bool = False) -> str:
    """A demonstrated prediction: its format is correct, its content random and over-confident.

    Of the problem it depends only on the name in its reasoning and on the number of lines.

    Args:
        text: the problem.
        rng: source of the random words.
        mixed: whether it predicts the chance of a mixed group.
    """
    (word,) = rng.choices(tuple(RATE_WORDS), weights=(2, 2, 2, 2, 4))
    size = rng.choice(tuple(LENGTH_WORDS))
    rates, chances = RATE_WORDS[word]
    notions = rng.sample(NOTIONS, rng.randint(1, 2))
    rate, length = rng.choice(rates), rng.choice(LENGTH_WORDS[size])
    percent = rng.choice(chances) if mixed else None
    reasoning = _reasoning(text, word, size)
    return f"<meta>{reasoning}</meta>{fields_json(notions, rate, length, percent)}"


def write_prediction(text: str, prediction: MetaPrediction) -> str:
    """A prediction of these numbers. Its chance of a mixed group is the middle one of the word for
    its pass rate, as a single group tells little of it."""
    rate, length = round(8 * (prediction.pass_rate or 0)), prediction.length or 0
    word = nearest({word: rates for word, (rates, _) in RATE_WORDS.items()}, rate)
    chances = RATE_WORDS[word][1]
    percent = None if prediction.mixed is None else chances[len(chances) // 2]
    reasoning = _reasoning(text, word, nearest(LENGTH_WORDS, length))
    fields = fields_json(prediction.notions or (), rate, length, percent)
    return f"<meta>{reasoning}</meta>{fields}"


def _reasoning(text: str, word: str, size: str) -> str:
    problem = Problem.parse(text)
    return f"{problem.family.name}: {word}; lines {len(problem.names)}: {size}"
