"""Is one value the other? As words, ratio, quantity or number of a base, then by algebra."""

import math
import re

from masa.verifiers.math.expressions import read_expression, same_expression, same_number
from masa.verifiers.math.latex import ANSWER_WORDS, key, word_key
from masa.verifiers.math.numbers import TOLERANCE, read_number
from masa.verifiers.math.quantities import Quantity, angle, converted, split_quantity

_BASE = re.compile(r"\(?(-?[0-9A-Fa-f]+)\)?_\{?(?:\\text\{)?\(?(\d{1,2}|[a-z]{3,8})\)?\}?\}?")
_BASES = {
    name: base
    for base, name in enumerate("two three four five six seven eight nine ten".split(), start=2)
} | {"sixteen": 16, "twelve": 12}
_CLOCK = re.compile(
    r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*(?:\\text\{\s*)?([ap]\.?\s*m\.?)?\s*\}?", re.IGNORECASE
)
_DATE = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}[-/]\d{1,2}[-/]\d{4}")
_ARC = re.compile(r"\\pi|\\arc|\\(?:sin|cos|tan)\^\{?-1")
"""What tells that an angle is in radians."""
_WORDS = re.compile(r"\\text\{[^{}]*\}")


class Values:
    """Comparison of two values, given as normalised text, under one tolerance."""

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance

    def same(self, gold: str, given: str) -> bool:
        if key(gold) == key(given):
            return True
        words = word_key(gold), word_key(given)
        if words[0] is not None and words[0] == words[1]:
            return True
        if set(words) & ANSWER_WORDS:
            return False
        if _DATE.fullmatch(gold.strip()) or _DATE.fullmatch(given.strip()):
            return False  # no difference and no quotient
        if ":" in _WORDS.sub("", gold) or ":" in _WORDS.sub("", given):
            return self._ratios(gold, given)
        based = self._bases(gold, given)
        if based is not None:
            return based
        one = split_quantity(gold, False)
        letters = bool(re.search("[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", _WORDS.sub("", one.text))))
        other = split_quantity(given, not letters)
        bare = (one.unit or other.unit) and not re.search(r"\\text|\\circ|%", gold + given)
        # kT/m may be a product as well as a unit
        return bool(bare and self.plain(gold, given)) or self._quantities(one, other)

    def _quantities(self, gold: Quantity, given: Quantity) -> bool:
        if gold.percent is not given.percent:
            return self._percent(gold, given)
        if {angle(gold.unit), angle(given.unit)} == {"degree", "radian"}:
            return self.plain(_radians(gold), _radians(given))
        text = converted(given, gold)
        if text is None:
            return False
        if self.plain(gold.text, text):
            return True
        degrees = "degree" in (angle(gold.unit), angle(given.unit))
        if degrees and not (gold.unit and given.unit) and _ARC.search(gold.text + given.text):
            return self.plain(_radians(gold), _radians(given))
        return False

    def _percent(self, gold: Quantity, given: Quantity) -> bool:
        """One side in percent: the same part of one, or as many percent if more than one."""
        if gold.unit or given.unit:
            return False
        hundredth = [_hundredth(side) if side.percent else side.text for side in (gold, given)]
        if self.plain(*hundredth):
            return True
        number = read_number(gold.text)
        return number is not None and abs(number.value) > 1 and self.plain(gold.text, given.text)

    def _ratios(self, gold: str, given: str) -> bool:
        """Times of day and ratios; `12:00` is no ratio, as nothing is to zero."""
        clocks = _CLOCK.fullmatch(gold.strip()), _CLOCK.fullmatch(given.strip())
        if clocks[0] and (clocks[1] or math.gcd(int(clocks[0][1]), int(clocks[0][2])) > 1):
            return clocks[1] is not None and _same_time(clocks[0], clocks[1])
        parts = [[part.strip() for part in side.split(":")] for side in (gold, given)]
        if any(
            clock and any(part.startswith("0") for part in side)
            for clock, side in zip(clocks, parts, strict=True)
        ):
            return False
        if sorted(map(len, parts)) == [1, 2]:
            one, other = (p[0] if len(p) == 1 else rf"\frac{{{p[0]}}}{{{p[1]}}}" for p in parts)
            return self.plain(one, other)
        if len(parts[0]) != len(parts[1]):
            return False
        return all(
            self.plain(rf"\frac{{{a}}}{{{b}}}", rf"\frac{{{c}}}{{{d}}}") and not self.plain(a, "0")
            for a, b, c, d in zip(parts[0], parts[0][1:], parts[1], parts[1][1:], strict=False)
        )

    def _bases(self, gold: str, given: str) -> bool | None:
        """Numbers of a stated base; None where there is none."""
        one, other = _based(gold), _based(given)
        if one and other:
            if one[1] == other[1]:
                return _digits(one[0]) == _digits(other[0])
            values = _in_base(*one), _in_base(*other)
            return 10 in (one[1], other[1]) and values[0] is not None and values[0] == values[1]
        if one:
            if one[1] == 10:
                return self.plain(one[0], given)
            return _digits(key(given).strip("()")) == _digits(one[0])  # the question names the base
        if other:
            value = _in_base(*other)
            return value is not None and self.plain(gold, str(value))
        return None

    def plain(self, gold: str, given: str) -> bool:
        """Two values without units."""
        if key(gold) == key(given):
            return True
        one, other = read_number(gold), read_number(given)
        if one and other:
            return one.equals(other, self.tolerance)
        read_gold = None if one else read_expression(gold)
        read_given = None if other else read_expression(given)
        if one:
            return read_given is not None and same_number(one, read_given, self.tolerance)
        if other:
            return read_gold is not None and same_number(other, read_gold, self.tolerance)
        if read_gold is None or read_given is None:
            return False
        return same_expression(read_gold, read_given, self.tolerance)


def _same_time(gold: re.Match[str], given: re.Match[str]) -> bool:
    times = []
    for clock in (gold, given):
        half = (clock[4] or "").lower()[:1]
        hour = int(clock[1]) % 12 + (12 if half == "p" else 0) if half else int(clock[1])
        times.append((hour, clock[2], clock[3]))
    if times[0] == times[1]:
        return True
    loose = bool(gold[4]) is not bool(given[4])  # one of them leaves it to the question
    return loose and (int(gold[1]), gold[2], gold[3]) == (int(given[1]), given[2], given[3])


def _hundredth(side: Quantity) -> str:
    number = read_number(side.text)
    if number is None:
        return rf"\frac{{{side.text}}}{{100}}"
    return rf"\frac{{{number.value.numerator}}}{{{100 * number.value.denominator}}}"


def _radians(side: Quantity) -> str:
    degrees = angle(side.unit) == "degree"
    return rf"({side.text}) \cdot \frac{{\pi}}{{180}}" if degrees else side.text


def _based(text: str) -> tuple[str, int] | None:
    match = _BASE.fullmatch(key(text))
    if not match:
        return None
    base = int(match[2]) if match[2].isdigit() else _BASES.get(match[2], 0)
    return (match[1], base) if 2 <= base <= 36 else None


def _digits(number: str) -> str:
    """Without leading zeros, in one case."""
    return re.sub(r"^(-?)0+(?=.)", r"\1", number).casefold()


def _in_base(digits: str, base: int) -> int | None:
    try:
        return int(digits, base)
    except ValueError:
        return None
