"""SciBench: a number within a relative tolerance, and the unit that its problem asks for.

A problem's unit may hold a power of ten (`10^{-19} J`, `$10^3$ kg`): the gold number then counts
those, and a response may give the number with or without it.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction

from masa.verifiers.extract import answer_boxes
from masa.verifiers.latex import normalise
from masa.verifiers.numerals import close, read_number
from masa.verifiers.pool import shared_pool
from masa.verifiers.structure import Leaf, Relation, parse
from masa.verifiers.units import strip_units

CPU_SECONDS = 3.0
"""Per verdict; an ordinary one takes less than a millisecond."""
MEMORY = 1 << 28
"""Bytes per worker beyond its imports."""
_JUDGE = "masa.verifiers.number:is_right"
_POWER = re.compile(r"10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|([+-]?\d{1,3}))")


def _scale(unit: str) -> int:
    """The power of ten in a unit; 0 where there is none."""
    match = _POWER.search(normalise(unit))
    return int(match[1] or match[2]) if match else 0


def _quantity(text: str) -> tuple[Fraction, str | None] | None:
    """The number in a box and its unit where that is a known one; the last side of an equation."""
    form = parse(normalise(text))
    if isinstance(form, Relation) and set(form.operators) == {"="}:
        form = form.sides[-1]
    if not isinstance(form, Leaf):
        return None
    found = strip_units(form.text, symbols=True)
    number = read_number(found.text)
    return (number.value, found.unit) if number else None


def check_gold(gold: str | float) -> Fraction:
    """The gold number.

    Raises:
        ValueError: the gold answer is no finite number.
    """
    number = read_number(normalise(str(gold)))
    if number is None or (isinstance(gold, float) and not math.isfinite(gold)):
        raise ValueError(f"Gold answer {gold!r} is no number: drop the problem or correct it")
    return number.value


def is_right(item: tuple[str, str, list[str], float]) -> bool:
    """What the workers apply to a JSON item (gold, unit, boxes of the answer, tolerance)."""
    gold, unit, boxes, tolerance = item
    wanted = check_gold(gold)
    # the unit alone is no quantity, and a power of ten in it is no unit
    asked = strip_units("1 " + _POWER.sub("", normalise(unit)).strip(), symbols=True).unit
    numbers = {wanted * Fraction(10) ** scale for scale in (0, _scale(unit))}
    for box in boxes:
        found = _quantity(box)
        if found is None or not any(close(found[0], number, tolerance) for number in numbers):
            return False
        if asked and found[1] and asked != found[1]:
            return False
    return bool(boxes)


def verify_batch(
    answers: Sequence[tuple[str | float, str, str]], tolerance: float = 0.05
) -> list[bool]:
    """`verify` of (gold, response, unit), in killable workers: an answer may be nested as deeply
    as it likes.

    Raises:
        ValueError: a gold answer is no finite number.
    """
    items = []
    for gold, response, unit in answers:
        check_gold(gold)
        items.append((str(gold), unit, answer_boxes(response), tolerance))
    asked = list(dict.fromkeys(item for item in items if item[2]))
    verdicts = shared_pool(_JUDGE, CPU_SECONDS, MEMORY).map(asked) if asked else []
    right = {item: verdict is True for item, verdict in zip(asked, verdicts, strict=True)}
    return [right.get(item, False) for item in items]


def verify(gold: str | float, response: str, unit: str = "", tolerance: float = 0.05) -> bool:
    """Is the number in the last box within `tolerance` of the gold number?

    Args:
        gold: `answer_number` of the problem, in units of `unit`.
        response: the whole text. A unit in the box that is known, and not the problem's, is wrong.
        unit: the problem's unit, with its power of ten if it has one.
        tolerance: relative; SciBench allows 0.05.

    Raises:
        ValueError: the gold answer is no finite number.
    """
    return verify_batch([(gold, response, unit)], tolerance)[0]
