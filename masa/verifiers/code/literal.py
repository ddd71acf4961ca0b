"""The verifier of CRUXEval-O: compares a predicted output, a Python literal, with the real one.

Nothing is executed.
"""

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
    """True where the response has the gold output, None where it has no literal.

    The answer is the last `[ANSWER]` or the last fenced block, else the last line, after
    `</think>`; of `f(x) == y` the right side. An `[ANSWER]` may contain a fenced block.

    Raises:
        NotLiteral: the gold output is no literal.
    """
    expected = literal(gold)
    try:
        answer = literal(_answer_text(response))
    except NotLiteral:
        return None
    return bool(answer == expected)


def same(a: str, b: str) -> bool:
    """True where two responses have the same literal; False where one has none."""
    try:
        return bool(literal(_answer_text(a)) == literal(_answer_text(b)))
    except NotLiteral:
        return False


def literal(text: str) -> Any:
    """The value of a Python literal, or of the right side of an assertion of equality.

    Raises:
        NotLiteral: the text is no literal, or longer or deeper than any output of the benchmark.
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


def _answer_text(response: str) -> str:
    text = final_part(response).strip()
    tagged = ANSWER.findall(text)
    block = extract_code(tagged[-1] if tagged else text)
    if block is not None:
        return block
    return (tagged[-1] if tagged else text.split("\n")[-1]).strip("` \n")
