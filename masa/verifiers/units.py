"""What stands around a number and is not part of its value: units, currencies, degrees, percent."""

import re
from typing import NamedTuple

_WORDS = """
    units? degrees? deg inch inches in ft foot feet yards? yd miles? mi mph kmh kph meters?
    metres? centimeters? millimeters? kilometers? km cm mm nm dm liters? litres? ml gallons?
    quarts? pints? cups? ounces? oz pounds? lbs? grams? kilograms? kg mg tons? seconds? secs?
    minutes? mins? hours? hrs? days? weeks? months? years? yrs? dollars? cents? usd euros?
    rupees? rs square sq cubic cu per joules? newtons? watts? volts? amps? ohms? hertz hz khz
    mhz pascals? kpa kelvin moles? mol rad radians? people students? ways times numbers?
    integers? solutions? values? points? balls? boxes
""".split()
_SYMBOLS = "m|s|g|h|L|N|J|W|V|A|K|Pa|eV|C|F|T"
_POWER = r"(?:\s*\^\s*(?:\{-?\d\}|-?\d))?"
_TEXT_UNIT = re.compile(
    r"(?:\s*(?:\\text\{(?P<words>[^{}\d]*)\}|/|\\cdot(?=\s*\\text))" + _POWER + r")+$"
)
_BARE_UNIT = re.compile(
    r"(?<![\\a-zA-Z^_])(?:[\s/]*(?:" + "|".join(_WORDS) + r")\.?" + _POWER + r")+$", re.IGNORECASE
)
_SYMBOL_UNIT = re.compile(rf"(?<=[\d}}\s])(?:[\s/]*(?:{_SYMBOLS}){_POWER})+$")
_NO_UNIT = re.compile(r"\b(?:or|not|and|if|else|except|otherwise|plus|minus)\b", re.IGNORECASE)
_PREFIX = re.compile(
    r"^(?:\\approx|\\text\{(?:approx(?:imately)?\.?|about|around|roughly|usd|rs\.?|us)\}"
    r"|(?:approximately|about|usd|rs\.?)(?=\s*\d))\s*",
    re.IGNORECASE,
)
_DEGREES = re.compile(r"\s*\^\s*\\circ(?:\s*\\text\{[CFcf]\}|\s*[CF](?![a-zA-Z]))?\s*$")
_ANGLE_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
"""Degrees inside these are part of the value."""

_KNOWN = {
    "nm", "mm", "cm", "dm", "m", "km", "in", "ft", "yd", "mi", "mg", "g", "kg", "lb", "oz", "ml",
    "l", "s", "ms", "min", "h", "hr", "hz", "khz", "mhz", "n", "kn", "j", "kj", "w", "kw", "v", "a",
    "k", "pa", "kpa", "ev", "mol",
}  # fmt: skip
_SPELLED = {
    "millimeter": "mm", "centimeter": "cm", "meter": "m", "metre": "m", "kilometer": "km",
    "inch": "in",
    "inche": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "gram": "g",
    "kilogram": "kg",
    "pound": "lb", "ounce": "oz", "liter": "l", "litre": "l", "milliliter": "ml",
    "second": "s", "sec": "s",
    "minute": "min", "hour": "h", "hr": "h",
}  # fmt: skip


class Quantity(NamedTuple):
    """An answer without what stands around it."""

    text: str
    """The value."""
    unit: str | None
    """A unit of physics in its short form where it was recognised as one, without its power."""
    percent: bool
    """True where a percent sign was taken off."""


def _short(words: str) -> str | None:
    """The one unit that words name, if they name one that other units could be confused with."""
    plain = re.sub(r"\b(?:square|sq|cubic|cu)\b|[.\s]", "", words.lower())
    plain = _SPELLED.get(plain.removesuffix("s"), plain)
    return plain if plain in _KNOWN else None


def strip_units(text: str, symbols: bool = False) -> Quantity:
    r"""Take percent, degrees, currency and units off a normalised answer.

    Args:
        text: one value, not a list.
        symbols: also take bare one-letter units off (`12 m`), where letters cannot be variables.
    """
    value, unit, percent = _PREFIX.sub("", text.strip()), None, False
    before = None
    while before != value:
        before = value
        if value.endswith("%"):
            value, percent = value[:-1].rstrip(), True
        value = value if _ANGLE_FUNCTION.search(value) else _DEGREES.sub("", value)
        match = _TEXT_UNIT.search(value)
        if not match or match.start() == 0:
            match = _BARE_UNIT.search(value)
        if symbols and (not match or match.start() == 0):
            match = _SYMBOL_UNIT.search(value)
        if match and match.start() > 0 and not _NO_UNIT.search(match[0]):
            words = re.sub(r"\\text|[{}]|\^\s*\{?-?\d\}?", "", match[0])
            unit = unit or _short(words)
            value = value[: match.start()].rstrip()
            value = value.removesuffix("\\").rstrip()
    return Quantity(value or text, unit if value else None, percent)
