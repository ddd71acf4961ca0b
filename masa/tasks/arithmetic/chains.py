"""Chains of operations modulo a prime: text, result, and the calculation step by step."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

LABELS = "abcdef"
"""Labels of a problem's lines, in order."""

_PROBLEM = re.compile(r"Take (\d\d) modulo (\d\d):((?:\n\([a-f]\) [a-z]+(?: \d{1,2})?)+)")
_LINE = re.compile(r"\n\([a-f]\) ([a-z]+)(?: (\d{1,2}))?")


@dataclass(frozen=True)
class Operation:
    """One line of a problem."""

    word: str
    """add, subtract, swap or times."""
    operand: str = ""
    """Its number as written, empty for swap."""

    @property
    def hopeless(self) -> bool:
        """True for the product of two two-digit numbers, which no demonstration works out."""
        return self.word == "times" and len(self.operand) == 2

    def apply(self, state: int, modulus: int) -> int:
        """The state after this operation."""
        if self.word == "swap":
            return (10 * (state % 10) + state // 10) % modulus
        number = int(self.operand)
        if self.word == "times":
            return state * number % modulus
        return (state + number if self.word == "add" else state - number) % modulus

    def __str__(self) -> str:
        return f"{self.word} {self.operand}".rstrip()


@dataclass(frozen=True)
class ChainProblem:
    """A problem: a start value and operations."""

    start: int
    modulus: int
    operations: tuple[Operation, ...]

    @classmethod
    def parse(cls, text: str) -> ChainProblem:
        """Parse a problem's text; ValueError where it is not one."""
        match = _PROBLEM.fullmatch(text)
        if match is None:
            raise ValueError(f"not an arithmetic problem: {text!r}")
        lines = _LINE.findall(match[3])
        return cls(int(match[1]), int(match[2]), tuple(Operation(*line) for line in lines))

    def states(self) -> list[int]:
        """The true state after each operation."""
        state, states = self.start, []
        for operation in self.operations:
            state = operation.apply(state, self.modulus)
            states.append(state)
        return states

    def __str__(self) -> str:
        lines = (f"\n({LABELS[i]}) {op}" for i, op in enumerate(self.operations))
        return f"Take {self.start:02d} modulo {self.modulus}:" + "".join(lines)


def work_out(operation: Operation, state: int, modulus: int) -> str:
    """The calculation of one operation that is not hopeless, step by step, up to its result."""
    if operation.word == "swap":
        swapped = 10 * (state % 10) + state // 10
        return f": shift {swapped:02d}" + _wrap(swapped, swapped % modulus)
    number = int(operation.operand)
    if operation.word == "times":
        product = state % 10 * number
        tenfold = state // 10 * number * 10 % modulus
        products = f"product {state % 10}*{number} {product:02d}"
        products += f" tenfold {state // 10}*{number} {tenfold:02d}"
        return f": {products} {_add(product, tenfold, modulus)}"
    columns = _add if operation.word == "add" else _subtract
    return ": " + columns(state, number, modulus)


def _add(a: int, b: int, modulus: int) -> str:
    units = a % 10 + b % 10
    tens = a // 10 + b // 10 + units // 10
    columns = _column("units", a % 10, "+", b % 10, units, "carry")
    columns += _column(" tens", a // 10, "+", b // 10, tens, "carry")
    return columns + f" = {(a + b) % 100:02d}" + _wrap((a + b) % 100, (a + b) % modulus)


def _subtract(a: int, b: int, modulus: int) -> str:
    units = a % 10 - b % 10
    tens = a // 10 - b // 10 + units // 10
    columns = _column("units", a % 10, "-", b % 10, units, "borrow")
    columns += _column(" tens", a // 10, "-", b // 10, tens, "borrow")
    return columns + f" = {(a - b) % 100:02d}" + _wrap((a - b) % 100, (a - b) % modulus)


def _column(name: str, a: int, sign: str, b: int, result: int, transfer: str) -> str:
    """One column; `result` includes the transfer into it, and outside 0..9 it transfers itself."""
    return f"{name} {a}{sign}{b} {result % 10} {transfer if result // 10 else 'plain'}"


def _wrap(unwrapped: int, result: int) -> str:
    return "" if unwrapped == result else f" wrap {result:02d}"


def draw_problem(level: int, modulus: int, rng: random.Random) -> ChainProblem:
    """A problem of a level, 1 to 6."""
    kinds = _draw_kinds(level, rng)
    while True:
        operations = tuple(_draw_operation(kind, modulus, rng) for kind in kinds)
        problem = ChainProblem(rng.randrange(modulus), modulus, operations)
        before = [problem.start, *problem.states()]
        # 0 or 1 times a number is easy, and a hopeless level must have no easy problem.
        if all(state > 1 for op, state in zip(operations, before, strict=False) if op.hopeless):
            return problem


def _draw_kinds(level: int, rng: random.Random) -> list[str]:
    """Which kinds of operation a problem of a level has, in order."""
    count, products, hopeless = {
        1: (1, 0, 0),
        2: (2, 0, 0),
        3: (3, 1, 0),
        4: (4, rng.randint(1, 2), 0),
        5: (rng.randint(5, 6), rng.randint(1, 2), 0),
        6: (rng.randint(3, 4), 0, 2),
    }[level]
    easy = rng.choices(
        ("add", "subtract", "swap"), weights=(4, 4, 2), k=count - products - hopeless
    )
    kinds = easy + ["times"] * products + ["hopeless"] * hopeless
    rng.shuffle(kinds)
    return kinds


def _draw_operation(kind: str, modulus: int, rng: random.Random) -> Operation:
    if kind == "swap":
        return Operation("swap")
    if kind == "times":
        return Operation("times", str(rng.randint(2, 9)))
    word = "times" if kind == "hopeless" else kind
    return Operation(word, str(rng.randint(11, modulus - 1)))
