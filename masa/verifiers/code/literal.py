"""CRUXEval-O: is a predicted output the real one. Literals are compared, nothing is executed."""

from __future__ import annotations

import ast
import re
from typing import Any

from masa.verifiers.code.fences import extract_code
from masa.verifiers.extract import final_part

MAX_LENGTH = 20_000
ANSWER = re.compile(r"\[ANSWER\](.*?)\[/ANSWER\]", re.DOTALL)


class NotLiteral(ValueError):
    """Text that is no Python literal."""


def verify(gold: str, response: str) -> bool | None:
    """True where the response predicts the gold output, None where it predicts no literal.

    The prediction is the last `[ANSWER]` or the last fenced block, else the last line, after
    `</think>`; of `f(x) == y` the right side.

    Raises:
        NotLiteral: the gold output is none.
    """
    expected = literal(gold)
    try:
        predicted = literal(_prediction(response))
    except NotLiteral:
        return None
    return bool(predicted == expected)


def literal(text: str) -> Any:
    """The value of a Python literal, or of the right side of an assertion of equality.

    Raises:
        NotLiteral: where it is none, or longer or deeper than any output of the benchmark.
    """
    if len(text) > MAX_LENGTH:
        raise NotLiteral(f"{len(text)} characters")
    try:
        statement = ast.parse(text.strip()).body[-1]
        tree = statement.test if isinstance(statement, ast.Assert) else statement
        value = tree.value if isinstance(tree, ast.Expr) else tree
        if isinstance(value, ast.Compare) and all(isinstance(op, ast.Eq) for op in value.ops):
            value = value.comparators[-1]
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, IndexError, MemoryError, RecursionError) as error:
        raise NotLiteral(f"no Python literal: {text[:80]!r}") from error


def _prediction(response: str) -> str:
    text = final_part(response).strip()
    if tagged := ANSWER.findall(text):
        return str(tagged[-1])
    block = extract_code(text)
    return text.split("\n")[-1].strip("` ") if block is None and text else block or ""
