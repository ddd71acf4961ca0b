r"""The verifier of mathematics: compares the last box of a response with a gold answer.

Verdicts come from a pool of processes (masa.verifiers.pool) with CPU and memory limits per item, so
they do not depend on threads or load, and nothing hangs. No part of an answer is executed. This
module imports neither SymPy nor torch.
"""

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

from masa.verifiers.extract import answer_boxes, extract_box
from masa.verifiers.math.latex import normalise
from masa.verifiers.math.numbers import TOLERANCE
from masa.verifiers.pool import VerdictPool, default_workers, shared_pool

Gold = str | float | Sequence[str | float]
"""An accepted answer, or several of which one is enough."""

CPU_SECONDS = 3.0
"""Per verdict; an ordinary one takes milliseconds."""
MEMORY = 1 << 30
"""Bytes per worker beyond its imports."""
_JUDGE = "masa.verifiers.math.equality:judge_item"


class MathVerdict(NamedTuple):
    """The verdict on one response."""

    correct: bool
    extracted: str | None
    """The answer in the box; None where there is none: the response is unparsable and wrong."""


def check_gold(gold: Gold) -> tuple[str, ...]:
    """The accepted answers as text.

    Raises:
        ValueError: there is none, or one of them is empty or not finite.
    """
    one = isinstance(gold, str) or not isinstance(gold, Sequence)
    answers = [gold] if one else list(gold)  # type: ignore[arg-type]
    accepted = tuple(_gold_text(answer) for answer in answers)
    if not accepted:
        raise ValueError("The gold answer is an empty list: drop the problem or give it an answer")
    return accepted


def _gold_text(answer: object) -> str:
    if isinstance(answer, numbers.Number) and not isinstance(answer, bool):
        text = str(answer)
        finite = not isinstance(answer, numbers.Real) or math.isfinite(answer)
    else:
        finite = isinstance(answer, str)
        text = answer if isinstance(answer, str) else ""
    text = extract_box(text) or text
    if not finite or not normalise(text):
        raise ValueError(
            f"Gold answer {answer!r} is empty or no answer: drop the problem or give it a non-empty"
            " text, a finite number or a list of them"
        )
    return text


def math_pool(
    workers: int | None = None, seconds: float = CPU_SECONDS, memory: int = MEMORY
) -> VerdictPool:
    """A separate pool for `judge_batch`, which else uses a shared one. Close it after use."""
    return VerdictPool(_JUDGE, workers or default_workers(), seconds, memory)


def judge_batch(
    pairs: Sequence[tuple[Gold, str]],
    tolerance: float = TOLERANCE,
    pool: VerdictPool | None = None,
) -> list[MathVerdict]:
    """Verdicts of (gold, response) pairs, in their order; equal answers are judged once.

    Args:
        pairs: a gold answer and the full text of a response.
        tolerance: relative error allowed where a decimal takes part.
        pool: from `math_pool`; a shared one if None.

    Raises:
        ValueError: a gold answer is unusable (see `check_gold`).
    """
    extracted = [(answer_boxes(response), extract_box(response)) for _, response in pairs]
    # boxes joined by "or": each is right, or together they are a gold answer that says "or" itself
    items = [
        [
            (check_gold(gold), boxes, tolerance)
            for boxes in dict.fromkeys((each, (joined,)))
            if joined
        ]
        for (gold, _), (each, joined) in zip(pairs, extracted, strict=True)
    ]
    pool = pool or shared_pool(_JUDGE, CPU_SECONDS, MEMORY)
    verdicts = pool.verdicts(item for of_pair in items for item in of_pair)
    return [
        MathVerdict(any(verdicts[item] for item in of_pair), joined)
        for of_pair, (_, joined) in zip(items, extracted, strict=True)
    ]


def same(a: str, b: str) -> bool:
    """Is the answer of one response correct where that of the other is the gold answer?

    False where one of them has no answer, or more than one.
    """
    boxes = answer_boxes(a), answer_boxes(b)
    if any(len(box) != 1 or not normalise(box[0]) for box in boxes):
        return False
    (first,), (second,) = boxes
    return any(verify_batch([(first, b), (second, a)]))


def judge(gold: Gold, response: str, tolerance: float = TOLERANCE) -> MathVerdict:
    """The verdict on one response, with its extracted answer."""
    return judge_batch([(gold, response)], tolerance)[0]


def verify_batch(
    pairs: Sequence[tuple[Gold, str]],
    tolerance: float = TOLERANCE,
    pool: VerdictPool | None = None,
) -> list[bool]:
    """`judge_batch` without the answers."""
    return [verdict.correct for verdict in judge_batch(pairs, tolerance, pool)]


def verify(gold: Gold, response: str, tolerance: float = TOLERANCE) -> bool:
    r"""Is the last `\boxed{}` of a response the gold answer?"""
    return judge(gold, response, tolerance).correct
