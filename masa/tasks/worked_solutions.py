"""Worked solutions of problems of reasoning-gym, out of the facts that the gym keeps of each."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

Entry = Mapping[str, Any]
"""A problem of the gym: `question`, `answer`, `metadata`."""

_OPERATIONS: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.floordiv),
}


def _expression(entry: Entry) -> str:
    """Each operation of an expression of integers, in the order in which it is worked out."""
    lines: list[str] = []

    def work_out(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            sign, apply = _OPERATIONS[type(node.op)]
            left, right = work_out(node.left), work_out(node.right)
            result = apply(left, right)
            lines.append(f"{left} {sign} {_bracketed(right)} = {result}")
            return result
        if isinstance(node, ast.UnaryOp):
            value = work_out(node.operand)
            if not isinstance(node.op, ast.USub):
                return value
            if isinstance(node.operand, ast.BinOp):
                lines.append(f"-{_bracketed(value)} = {-value}")
            return -value
        assert isinstance(node, ast.Constant) and isinstance(node.value, int)
        return node.value

    work_out(ast.parse(entry["metadata"]["expression"].strip(), mode="eval").body)
    return "\n".join(lines) or f"It is {entry['answer']} already."


def is_answered(name: str, entry: Entry) -> bool:
    """False where the answer that the gym keeps is not the true one.

    That of basic_arithmetic comes of rounded divisions, and without parentheses of working from the
    left to the right.
    """
    if name != "basic_arithmetic":
        return True

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if not isinstance(node.op, ast.Div):
                return Fraction(_OPERATIONS[type(node.op)][1](left, right))
            if not right or (left / right).denominator != 1:
                raise ArithmeticError
            return left / right
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
        assert isinstance(node, ast.Constant) and isinstance(node.value, int)
        return Fraction(node.value)

    expression = ast.parse(entry["metadata"]["expression"].strip(), mode="eval").body
    try:
        return value(expression) == Fraction(entry["answer"])
    except ArithmeticError:
        return False


def _bracketed(number: int) -> str:
    return f"({number})" if number < 0 else str(number)


def _gcd(entry: Entry) -> str:
    first, *others = entry["metadata"]["numbers"]
    lines = []
    for other in others:
        a, b = max(first, other), min(first, other)
        while b:
            lines.append(f"{a} = {a // b} * {b} + {a % b}")
            a, b = b, a % b
        lines.append(f"So the greatest common divisor of {first} and {other} is {a}.")
        first = a
    return "\n".join(lines)


def _lcm(entry: Entry) -> str:
    first, *others = entry["metadata"]["numbers"]
    lines = []
    for other in others:
        divisor, multiple = math.gcd(first, other), math.lcm(first, other)
        lines.append(f"The greatest common divisor of {first} and {other} is {divisor}.")
        lines.append(f"{first} / {divisor} * {other} = {multiple}")
        first = multiple
    return "\n".join(lines)


def _backward(entry: Entry) -> str:
    letters = entry["metadata"]["word"]
    return f"The letters are {' '.join(letters)}.\nBackward: {' '.join(reversed(letters))}."


def _letters(entry: Entry) -> str:
    letter, total, lines = entry["metadata"]["target_letter"], 0, []
    for word in entry["metadata"]["span"]:
        count = word.lower().count(letter)
        total += count
        lines.append(f"{word}: {count}, together {total}")
    return "\n".join(lines)


def _bits(entry: Entry) -> str:
    return f"In binary it is {' '.join(entry['metadata']['binary'])}. Now count the 1s."


WORKED: dict[str, Callable[[Entry], str]] = {
    "basic_arithmetic": _expression,
    "chain_sum": _expression,
    "count_bits": _bits,
    "gcd": _gcd,
    "lcm": _lcm,
    "letter_counting": _letters,
    "products": _expression,
    "spell_backward": _backward,
}
"""Solution per data set, without the answer at its end."""
