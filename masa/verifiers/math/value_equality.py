"""Equality of two values: as words, ratios, quantities or numbers of a base, then by algebra."""

import math
import re

from masa.verifiers.math.expressions import (
    functions_in,
    read_expression,
    same_expression,
    same_number,
)
from masa.verifiers.math.latex import ANSWER_WORDS, key, word_key
from masa.verifiers.math.numbers import TOLERANCE, read_number
from masa.verifiers.math.quantities import (
    ValueWithUnit,
    angle,
    as_fraction,
    converted,
    split_quantity,
)

_BASE = re.compile(
    r"\(?(-?[0-9A-Fa-f]+)\)?(?:_\{?(?:\\text\{)?\(?(?:base)?|\(?(?:in)?base)"
    r"(\d{1,2}|[a-z]{3,8})\)?\}?\}?"
)
_BASES = {
    name: base
    for base, name in enumerate("two three four five six seven eight nine ten".split(), start=2)
} | {"sixteen": 16, "twelve": 12}
_CLOCK = re.compile(
    r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*(?:\\text\{\s*)?([ap]\.?\s*m\.?)?\s*\}?", re.IGNORECASE
)
_DATE = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}[-/]\d{1,2}[-/]\d{4}")
_ARC = re.compile(r"\\pi|\\arc|\\(?:sin|cos|tan)\^\{?-1")
"""Signs that an angle is in radians."""
_ANGLE = re.compile(r"\^\\circ|\\pi")
_SCALED = re.compile(r"\\text|\\circ\s*[CF]|%")
_WORDS = re.compile(r"\\text\{[^{}]*\}")


class ValueComparison:
    """Comparison of two values, as normalised text, with one tolerance."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance

    def same(self, gold: str, answer: str) -> bool:
        if key(gold) == key(answer):
            return True
        words = word_key(gold), word_key(answer)
        if words[0] is not None and words[0] == words[1]:
            return True
        if set(words) & ANSWER_WORDS:
            return False
        if _DATE.fullmatch(gold.strip()) or _DATE.fullmatch(answer.strip()):
            return False  # no difference and no quotient
        if ":" in _WORDS.sub("", gold) or ":" in _WORDS.sub("", answer):
            return self._ratios(gold, answer)
        based = self._bases(gold, answer)
        if based is not None:
            return based
        one = split_quantity(gold, False)
        letters = bool(re.search("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", _WORDS.sub("", one.text))))
        other = split_quantity(answer, not letters)
        bare = (one.unit or other.unit) and not re.search(r"\\text|\\circ|%", gold + answer)
        degrees = all(_ANGLE.search(side) for side in (gold, answer)) and not _SCALED.search(
            gold + answer
        )
        # kT/m may be a product as well as a unit, the last term of a sum alone be in degrees
        whole = (bare or degrees) and self.same_without_unit(gold, answer)
        return bool(whole) or self._quantities(one, other)

    def _quantities(self, gold: ValueWithUnit, answer: ValueWithUnit) -> bool:
        if gold.percent is not answer.percent:
            return self._percent(gold, answer)
        if {angle(gold.unit), angle(answer.unit)} == {"degree", "radian"}:
            return self.same_without_unit(_radians(gold), _radians(answer))
        text = converted(answer, gold)
        if text is None:
            return False
        if self.same_without_unit(gold.text, text):
            return True
        degrees = "degree" in (angle(gold.unit), angle(answer.unit))
        if degrees and not (gold.unit and answer.unit) and _ARC.search(gold.text + answer.text):
            return self.same_without_unit(_radians(gold), _radians(answer))
        return False

    def _percent(self, gold: ValueWithUnit, answer: ValueWithUnit) -> bool:
        """Compare where one side is in percent: the same share, or the same number above one."""
        if gold.unit or answer.unit:
            return False
        hundredth = [_hundredth(side) if side.percent else side.text for side in (gold, answer)]
        if self.same_without_unit(*hundredth):
            return True
        number = read_number(gold.text)
        return (
            number is not None
            and abs(number.value) > 1
            and self.same_without_unit(gold.text, answer.text)
        )

    def _ratios(self, gold: str, answer: str) -> bool:
        """Compare times of day and ratios; `12:00` is a time, as no ratio ends in zero."""
        clocks = _CLOCK.fullmatch(gold.strip()), _CLOCK.fullmatch(answer.strip())
        if clocks[0] and (clocks[1] or math.gcd(int(clocks[0][1]), int(clocks[0][2])) > 1):
            return clocks[1] is not None and _same_time(clocks[0], clocks[1])
        parts = [[part.strip() for part in side.split(":")] for side in (gold, answer)]
        if any(
            clock and any(part.startswith("0") for part in side)
            for clock, side in zip(clocks, parts, strict=True)
        ):
            return False
        if sorted(map(len, parts)) == [1, 2]:
            one, other = (p[0] if len(p) == 1 else rf"\frac{{{p[0]}}}{{{p[1]}}}" for p in parts)
            return self.same_without_unit(one, other)
        if len(parts[0]) != len(parts[1]):
            return False
        return all(
            self.same_without_unit(rf"\frac{{{a}}}{{{b}}}", rf"\frac{{{c}}}{{{d}}}")
            and not self.same_without_unit(a, "0")
            for a, b, c, d in zip(parts[0], parts[0][1:], parts[1], parts[1][1:], strict=False)
        )

    def _bases(self, gold: str, answer: str) -> bool | None:
        """Compare numbers of a stated base; None where there is none."""
        gold_based, answer_based = _based(gold), _based(answer)
        if gold_based and answer_based:
            if gold_based[1] == answer_based[1]:
                return _digits(gold_based[0]) == _digits(answer_based[0])
            values = _in_base(*gold_based), _in_base(*answer_based)
            return (
                10 in (gold_based[1], answer_based[1])
                and values[0] is not None
                and values[0] == values[1]
            )
        if gold_based:
            if gold_based[1] == 10:
                return self.same_without_unit(gold_based[0], answer)
            return _digits(key(answer).strip("()")) == _digits(
                gold_based[0]
            )  # the question names the base
        if answer_based:
            value = _in_base(*answer_based)
            return value is not None and self.same_without_unit(gold, str(value))
        return None

    def same_without_unit(self, gold: str, answer: str) -> bool:
        """Compare two values without units."""
        if key(gold) == key(answer):
            return True
        one, other = read_number(gold), read_number(answer)
        if one and other:
            return one.equals(other, self.tolerance)
        functions = functions_in(gold, answer)
        read_gold = None if one else read_expression(gold, functions)
        read_given = None if other else read_expression(answer, functions)
        if one:
            return read_given is not None and same_number(one, read_given, self.tolerance)
        if other:
            return read_gold is not None and same_number(other, read_gold, self.tolerance)
        if read_gold is None or read_given is None:
            return False
        return same_expression(read_gold, read_given, self.tolerance)


def _same_time(gold: re.Match[str], answer: re.Match[str]) -> bool:
    times = []
    for clock in (gold, answer):
        half = (clock[4] or "").lower()[:1]
        hour = int(clock[1]) % 12 + (12 if half == "p" else 0) if half else int(clock[1])
        times.append((hour, clock[2], clock[3]))
    if times[0] == times[1]:
        return True
    loose = bool(gold[4]) is not bool(answer[4])  # only one of them has am or pm
    return loose and (int(gold[1]), gold[2], gold[3]) == (int(answer[1]), answer[2], answer[3])


def _hundredth(side: ValueWithUnit) -> str:
    number = read_number(side.text)
    if number is None:
        return rf"\frac{{{side.text}}}{{100}}"
    return rf"\frac{{{number.value.numerator}}}{{{100 * number.value.denominator}}}"


def _radians(side: ValueWithUnit) -> str:
    degrees = angle(side.unit) == "degree"
    return rf"({as_fraction(side.text)}) \cdot \frac{{\pi}}{{180}}" if degrees else side.text


def _based(text: str) -> tuple[str, int] | None:
    match = _BASE.fullmatch(key(text))
    if not match:
        return None
    base = int(match[2]) if match[2].isdigit() else _BASES.get(match[2], 0)
    # A_{10} is a name
    return (match[1], base) if 2 <= base <= 36 and _in_base(match[1], base) is not None else None


def _digits(number: str) -> str:
    """Without leading zeros, in one case."""
    return re.sub(r"^(-?)0+(?=.)", r"\1", number).casefold()


def _in_base(digits: str, base: int) -> int | None:
    try:
        return int(digits, base)
    except ValueError:
        return None
