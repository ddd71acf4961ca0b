"""The parser of plain numbers, to exact fractions."""

import re
from dataclasses import dataclass
from fractions import Fraction

TOLERANCE = 5e-6
"""Relative error allowed where a decimal takes part: six significant digits."""

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_POWER = (
    r"(?:(?:\\times|\\cdot|\*|x)10\^(?:\{(?P<braced>[+-]?\d+)\}|(?P<bare>[+-]?\d+))"
    r"|[eE](?P<e>[+-]?\d+))"
)
_NUMBER = re.compile(rf"(?P<sign>[+-]*)(?P<digits>{_DECIMAL}){_POWER}?")
_POWER_OF_TEN = re.compile(r"(?P<sign>[+-]*)10\^(?:\{(?P<braced>[+-]?\d+)\}|(?P<bare>\d))")
_FRACTION = re.compile(
    rf"(?P<sign>[+-]*)(?P<whole>{_DIGITS})?\\frac\{{(?P<over>[+-]?{_DIGITS})\}}\{{(?P<under>[+-]?{_DIGITS})\}}"
)
_SLASH = re.compile(rf"(?P<sign>[+-]*)(?P<over>{_DIGITS})/(?P<under>[+-]?{_DIGITS})")
_MIXED = re.compile(rf"(?P<sign>[+-]*)(?P<whole>{_DIGITS})\|(?P<over>\d+)/(?P<under>\d+)")
_REPEATING = re.compile(
    r"(?P<sign>[+-]*)(?P<whole>\d*)\.(?P<fixed>\d*)"
    r"(?:\\(?:overline|bar|dot)\{?(?P<again>\d+)\}?|\((?P<bracketed>\d{1,6})\))"
)
_LONGEST = 1500
"""Digits, or powers of ten, of the longest number that is parsed."""


@dataclass(frozen=True)
class Number:
    """A rational number; `exact` unless it was written as a decimal with digits after the point."""

    value: Fraction
    exact: bool = True

    def equals(self, other: "Number", tolerance: float = TOLERANCE) -> bool:
        """Exactly where both are exact, else within a relative error of `tolerance`."""
        if self.exact and other.exact:
            return self.value == other.value
        return close(self.value, other.value, tolerance)


def close(one: Fraction, other: Fraction, tolerance: float) -> bool:
    """Equal within a tolerance relative to the larger? Only zero is close to zero."""
    allowed = Fraction(str(tolerance)) * max(abs(one), abs(other))
    return abs(one - other) <= allowed


def _sign(signs: str) -> int:
    return -1 if signs.count("-") % 2 else 1


def _integer(digits: str | None) -> Fraction:
    return Fraction((digits or "0").replace(",", ""))


def read_number(text: str) -> Number | None:
    """The number in a normalised answer, or None if it is no plain number.

    Parses integers, decimals, thousands separators, powers of ten, fractions, mixed fractions and
    repeating decimals.
    """
    if len(text) > _LONGEST:
        return None
    text = re.sub(r"(?<=\d)\s+(?=\d)", "|", text.strip())
    text = re.sub(r"\s+", "", text)
    if match := _POWER_OF_TEN.fullmatch(text):
        exponent = int(match["braced"] or match["bare"])
        if abs(exponent) <= _LONGEST:
            return Number(_sign(match["sign"]) * Fraction(10) ** exponent)
        return None
    if match := _NUMBER.fullmatch(text):
        power = match["braced"] or match["bare"] or match["e"]
        if power and abs(int(power)) > _LONGEST:
            return None
        value = _integer(match["digits"].rstrip(".")) * Fraction(10) ** int(power or 0)
        exact = not power and not match["digits"].partition(".")[2].strip("0")  # 250.00 is one
        return Number(_sign(match["sign"]) * value, exact)
    if match := _FRACTION.fullmatch(text) or _SLASH.fullmatch(text) or _MIXED.fullmatch(text):
        parts = match.groupdict()
        under = _integer(parts["under"])
        if under == 0:
            return None
        value = _integer(parts.get("whole")) + _integer(parts["over"]) / under
        return Number(_sign(match["sign"]) * value)
    if match := _REPEATING.fullmatch(text):
        fixed, again = match["fixed"], match["again"] or match["bracketed"]
        value = _integer(match["whole"] or "0") + Fraction(int(fixed or 0), 10 ** len(fixed))
        value += Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(fixed))
        return Number(_sign(match["sign"]) * value)
    return None
