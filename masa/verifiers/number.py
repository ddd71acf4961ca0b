"""SciBench: a number within a relative tolerance, and the unit that its problem asks for.

A problem's unit may hold a power of ten (`10^{-19} J`, `$10^3$ kg`): the gold number then counts
those, and a response may give the number with or without it.
"""

import math
import re
from fractions import Fraction

from masa.verifiers.extract import answer_boxes
from masa.verifiers.latex import normalise
from masa.verifiers.numerals import close, read_number
from masa.verifiers.structure import Leaf, Relation, parse
from masa.verifiers.units import strip_units

_POWER = re.compile(r"10\s*\^\s*(?:\{\s*([+-]?\d{1,3})\s*\}|([+-]?\d{1,3}))")


def _scale(unit: str) -> int:
    """The power of ten in a unit; 0 where there is none."""
    match = _POWER.search(normalise(unit))
    return int(match[1] or match[2]) if match else 0


def _value(text: str) -> Fraction | None:
    """The number in a box, without its unit; the last side of an equation."""
    form = parse(normalise(text))
    if isinstance(form, Relation) and set(form.operators) == {"="}:
        form = form.sides[-1]
    if not isinstance(form, Leaf):
        return None
    number = read_number(strip_units(form.text, symbols=True).text)
    return number.value if number else None


def verify(gold: str | float, response: str, unit: str = "", tolerance: float = 0.05) -> bool:
    """Is the number in the last box within `tolerance` of the gold number?

    Args:
        gold: `answer_number` of the problem, in units of `unit`.
        response: the whole text.
        unit: the problem's unit, with its power of ten if it has one.
        tolerance: relative; SciBench allows 0.05.

    Raises:
        ValueError: the gold answer is no finite number.
    """
    wanted = read_number(normalise(str(gold)))
    if wanted is None or (isinstance(gold, float) and not math.isfinite(gold)):
        raise ValueError(f"Gold answer {gold!r} is no number: drop the problem or correct it")
    boxes = answer_boxes(response)
    values = [_value(box) for box in boxes]
    scales = {0, _scale(unit)}
    return bool(values) and all(
        value is not None
        and any(close(value, wanted.value * Fraction(10) ** scale, tolerance) for scale in scales)
        for value in values
    )
