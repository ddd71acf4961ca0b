"""What stands around a value in an answer: a unit, a currency, degrees, percent, a counted noun."""

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from masa.verifiers.numerals import read_number


class Unit(NamedTuple):
    """`factor` of the product of the base units `powers`."""

    factor: Fraction
    powers: tuple[tuple[str, int], ...]


class Quantity(NamedTuple):
    """A value, as text, and what was taken off it."""

    text: str
    unit: Unit | None
    percent: bool


_SI = {
    "m": "m", "g": "1/1000 kg", "s": "s", "A": "A", "K": "K", "mol": "mol", "cd": "cd", "Hz": "s^-1",
    "N": "kg m s^-2", "J": "kg m^2 s^-2", "W": "kg m^2 s^-3", "V": "kg m^2 s^-3 A^-1",
    "Ω": "kg m^2 s^-3 A^-2", "Pa": "kg m^-1 s^-2", "C": "A s", "F": "kg^-1 m^-2 s^4 A^2",
    "T": "kg s^-2 A^-1", "H": "kg m^2 s^-2 A^-2", "Wb": "kg m^2 s^-2 A^-1", "L": "1/1000 m^3",
    "l": "1/1000 m^3", "eV": "1.602176634e-19 kg m^2 s^-2", "bar": "100000 kg m^-1 s^-2",
    "cal": "4.184 kg m^2 s^-2", "Wh": "3600 kg m^2 s^-2", "rad": "rad", "B": "byte",
}  # fmt: skip
_PREFIXES = {
    "": 0, "f": -15, "p": -12, "n": -9, "μ": -6, "u": -6, "m": -3, "c": -2, "d": -1, "k": 3, "M": 6,
    "G": 9, "T": 12,
}  # fmt: skip
_OTHERS = {
    "min": "60 s", "h": "3600 s", "hr": "3600 s", "day": "86400 s", "week": "604800 s",
    "month": "month", "year": "12 month", "yr": "12 month", "in": "0.0254 m", "ft": "0.3048 m",
    "yd": "0.9144 m", "mi": "1609.344 m", "lb": "0.45359237 kg", "oz": "0.028349523125 kg",
    "tonne": "1000 kg", "ton": "ton", "gal": "gal", "qt": "1/4 gal", "pt": "1/8 gal",
    "cup": "1/16 gal", "acre": "4046.8564224 m^2", "ha": "10000 m^2", "atm": "101325 kg m^-1 s^-2",
    "mph": "0.44704 m s^-1", "kph": "1/3.6 m s^-1", "kmh": "1/3.6 m s^-1", "rpm": "rev s^-1",
    "°": "°", "°C": "°C", "°F": "°F", "dollar": "dollar", "usd": "dollar", "cent": "1/100 dollar",
    "euro": "euro", "eur": "euro", "yen": "yen", "rupee": "rupee", "rs": "rupee", "unit": "unit",
    "sterling": "sterling", "am": "am", "pm": "pm", "rev": "rev",
}  # fmt: skip
_SPELLED = {
    "meter": "m", "metre": "m", "gram": "g", "second": "s", "sec": "s", "ampere": "A", "amp": "A",
    "kelvin": "K", "mole": "mol", "hertz": "Hz", "newton": "N", "joule": "J", "watt": "W",
    "volt": "V", "ohm": "Ω", "pascal": "Pa", "coulomb": "C", "farad": "F", "tesla": "T", "henry": "H",
    "liter": "L", "litre": "L", "electronvolt": "eV", "calorie": "cal", "radian": "rad",
    "byte": "B", "inch": "in", "inche": "in", "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi",
    "pound": "lb", "ounce": "oz", "minute": "min", "hour": "h", "gallon": "gal", "quart": "qt",
    "pint": "pt", "hectare": "ha", "degree": "°", "deg": "°", "revolution": "rev", "celsius": "°C",
    "fahrenheit": "°F", "penny": "cent", "pennie": "cent", "weber": "Wb",
}  # fmt: skip
_SPELLED_PREFIXES = {
    "femto": "f", "pico": "p", "nano": "n", "micro": "μ", "milli": "m", "centi": "c", "deci": "d",
    "kilo": "k", "mega": "M", "giga": "G", "tera": "T",
}  # fmt: skip
_COUNTED = set(
    "way number integer solution value point time people student ball box total possible different"
    " of in all is the a an answer ans approximately each".split()
)
"""Words that say what the question asked for anyway."""
_NO_UNIT = re.compile(
    r"\b(?:or|not|and|if|else|except|otherwise|plus|minus|less|more|greater|least|most|over|above"
    r"|below|under|squared|cubed|factorial|half|dozen|score|mod|modulo|base|root|negative|infinity"
    r"|no|never|wrong|incorrect|impossible|invalid|false|maybe|perhaps|possibly|probably|unsure|than|when|where|divided|multiplied|but|only if|cannot|undefined|to|with|remainder"
    r"|hundreds?|thousands?|millions?|billions?|trillions?)\b",
    re.IGNORECASE,
)
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))"
_LOOSE = r"\\text\{[^{}]*\}|\\mu(?![a-zA-Z])\s*(?=\\text|[a-zA-Z](?![a-zA-Z]))[a-zA-Z]?|\\Omega(?![a-zA-Z])"
_TAIL = re.compile(rf"\s*(?:/\s*)?(?:{_LOOSE})(?:\s|/|\\cdot(?![a-zA-Z])|{_LOOSE}|{_POWER})*$")
_BARE = "|".join(
    sorted(
        {"".join((prefix, unit)) for unit in ("m", "g", "s", "l", "L", "Hz", "J", "W", "V", "Pa", "eV",
         "N", "mol", "cal", "Wh", "A", "K") for prefix in ("n", "m", "c", "d", "k", "M", "G")}
        | {"mol", "Hz", "Pa", "eV", "rad", "usd", "USD", "mph", "kph", "kmh", "ft", "yd", "mi", "lbs?",
           "oz", "hr", "hrs", "min", "mins", "sec", "secs", "inch", "inches", "atm", "ml", "square",
           "sq", "cubic", "per", "dollars?", "cents?", "euros?", "units?", "degrees?", "days?",
           "weeks?", "months?", "years?", "hours?", "minutes?", "seconds?", "rupees", "rs",
           "feet", "foot", "yards?", "miles?", "pounds?", "ounces?", "(?:kilo|centi|milli)?met(?:er|re)s?",
           "(?:kilo|milli)?grams?", "(?:milli)?lit(?:er|re)s?", "joules?", "newtons?", "watts?", "volts?",
           "amps?", "ohms?", "hertz", "kelvin", "radians?", "people", "students", "ways", "times"},
        key=len, reverse=True,
    )
)  # fmt: skip
_BARE_TAIL = re.compile(
    rf"(?<![\\a-zA-Z^_])[\s/]*(?:{_BARE})(?![a-zA-Z])\.?{_POWER}?"
    rf"(?:(?:\s*/\s*|\s+|\s*\\cdot\s*)(?:{_BARE}|s|h|m|g|K|A)(?![a-zA-Z])\.?{_POWER}?)*$"
)
_SYMBOL_TAIL = re.compile(
    rf"(?<=[\d}}\s])[\s]*(?:[msghLNJWVAKCFT]|Pa|eV){_POWER}?"
    rf"(?:(?:\s*/\s*|\s+|\s*\\cdot\s*)(?:[msghLNJWVAKCFT]|Pa|eV|kg|mol|cm){_POWER}?)*$"
)
_PREFIX = re.compile(
    r"^(?:\\approx|\\text\{(?:approx(?:imately)?\.?|about|around|roughly|exactly|us"
    r"|(?:the )?(?:final )?answer(?: is)?:?)\}"
    r"|(?:approximately|about|exactly)(?=\s*\d))\s*",
    re.IGNORECASE,
)
_MONEY = re.compile(
    r"^(?P<sign>-?)\s*\\text\{(?P<unit>dollars|euros|pounds sterling|yen|rupees|usd|eur|rs\.?)\}\s*"
    r"(?=-?[\d.\\])",
    re.IGNORECASE,
)
_DEGREES = re.compile(r"\s*\^\s*\\circ(?:\s*\\text\{(?P<words>[CF])\}|\s*(?P<bare>[CF]))?\s*$")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])|cis")
"""Degrees inside these are part of the value."""
_NAME = re.compile(r"(?P<name>[a-zA-ZμΩ°]+)\.?(?:\s*\^\s*(?P<power>-?\d)|(?P<digit>[23])(?!\d))?")


def _definition(text: str) -> tuple[Fraction, dict[str, int]]:
    """`1/1000 kg m^2` -> (1/1000, {kg: 1, m: 2})."""
    head, _, rest = text.partition(" ")
    numeric = head[0].isdigit()
    over, _, under = head.partition("/")
    factor = Fraction(over) / Fraction(under or 1) if numeric else Fraction(1)
    powers: dict[str, int] = {}
    for piece in (rest if numeric else text).split():
        name, _, power = piece.partition("^")
        powers[name] = int(power or 1)
    return factor, powers


def _one(name: str) -> tuple[Fraction, dict[str, int]] | None:
    """A unit by its symbol, in its case, or by its name."""
    if name in _OTHERS:
        return _definition(_OTHERS[name])
    for prefix, power in _PREFIXES.items():
        if name.startswith(prefix) and name[len(prefix) :] in _SI:
            factor, powers = _definition(_SI[name[len(prefix) :]])
            return factor * Fraction(10) ** power, powers
    plain = name.lower()
    for candidate in (plain, plain.removesuffix("s")):
        if candidate in _OTHERS:
            return _definition(_OTHERS[candidate])
        if candidate in _SPELLED:
            return _one(_SPELLED[candidate])
        for long, short in _SPELLED_PREFIXES.items():
            if candidate.startswith(long) and candidate[len(long) :] in _SPELLED:
                return _one(short + _SPELLED[candidate[len(long) :]])
    usual = {"kg", "km", "cm", "mm", "ml", "kj", "kw", "ev", "mhz", "khz", "hz", "pa", "kpa"}
    if plain in usual and plain != name:
        return _one(plain) or _one(plain[:-1] + plain[-1].upper())
    return None


@lru_cache(maxsize=512)
def parse_unit(text: str) -> Unit | None:
    """The unit that a text names, or None where one of its words is none."""
    text = re.sub(r"\ba\.?m\b\.?", "am", re.sub(r"\bp\.?m\b\.?", "pm", text, flags=re.I), flags=re.I)
    factor, powers = Fraction(1), dict[str, int]()
    sign, next_power, position = 1, 1, 0
    while position < len(text):
        rest = text[position:]
        if separator := re.match(r"[\s·*().,-]+|\\cdot", rest):
            position += separator.end()
            continue
        if rest[0] == "/":
            sign, position = -1, position + 1
            continue
        match = _NAME.match(rest)
        if not match:
            return None
        position += match.end()
        name = match["name"]
        word = name.lower()
        if word == "per":
            sign = -1
        elif word in ("square", "sq", "cubic", "cu"):
            next_power = 2 if word.startswith("s") else 3
        else:
            unit = _one(name)
            if unit is None:
                return None
            power = sign * next_power * int(match["power"] or match["digit"] or 1)
            if after := re.match(r"\s*(squared|cubed)\b", text[position:]):
                power *= 2 if after[1] == "squared" else 3
                position += after.end()
            factor *= unit[0] ** power
            for base, exponent in unit[1].items():
                powers[base] = powers.get(base, 0) + exponent * power
            next_power = 1
    if not powers:
        return None
    return Unit(factor, tuple(sorted((base, p) for base, p in powers.items() if p)))


def _counted(words: str) -> Unit | None:
    """Nouns that are no units, as a unit of their own; None where they add nothing."""
    nouns = [word.removesuffix("s") for word in re.findall(r"[a-z]+", words.lower())]
    named = sorted({noun for noun in nouns if noun not in _COUNTED})
    return Unit(Fraction(1), tuple((f"word {noun}", 1) for noun in named)) if named else None


def _unit_text(tail: str) -> str:
    text = tail.replace(r"\mu", "μ").replace(r"\Omega", "Ω")
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\^\s*\{\s*(-?\d)\s*\}", r"^\1", text)
    text = re.sub(r"\b([kM])\s+Ω", r"\1Ω", text)
    text = re.sub(r"\s+\^", "^", text)
    return re.sub(r"μ\s+(?=[a-zA-Z])", "μ", text).strip()


def split_quantity(text: str, symbols: bool) -> Quantity:
    r"""Take percent, degrees, currency and units off a normalised answer.

    Args:
        text: one value, not a list.
        symbols: also take bare one-letter units off (`12 m`), where letters cannot be variables.
    """
    value, unit, percent = _PREFIX.sub("", text.strip()), None, False
    if money := _MONEY.match(value):
        unit, value = parse_unit(money["unit"].split()[-1]), money["sign"] + value[money.end() :]
    if value.endswith("%"):
        return Quantity(value[:-1].rstrip().removesuffix("\\"), unit, True)
    degrees = None if _TRIGONOMETRIC.search(value) else _DEGREES.search(value)
    if degrees and degrees.start():
        scale = degrees["words"] or degrees["bare"] or ""
        return Quantity(value[: degrees.start()], parse_unit("°" + scale), percent)
    match = _TAIL.search(value) or _BARE_TAIL.search(value)
    if symbols and (not match or match.start() == 0):
        match = _SYMBOL_TAIL.search(value)
    if match and match.start() > 0 and not _NO_UNIT.search(_unit_text(match[0])):
        tail, rest = _unit_text(match[0]), value[: match.start()].rstrip().removesuffix("\\").rstrip()
        greek = match[0].lstrip().startswith((r"\Omega", r"\mu"))
        if rest and not (greek and read_number(rest) is None):
            if rest.endswith("%"):
                rest, percent = rest[:-1].rstrip(), True
            return Quantity(rest, unit or parse_unit(tail) or _counted(tail), percent)
    return Quantity(value, unit, percent)


def ratio(gold: Unit, given: Unit) -> Fraction | None:
    """How many of the gold unit one of the given unit is; None where they measure other things."""
    if {gold.powers, given.powers} <= {(("°", 1),), (("°C", 1),), (("°F", 1),)}:
        mixed = {gold.powers, given.powers}
        return Fraction(1) if len(mixed) == 1 or (("°", 1),) in mixed else None
    nouns = [{base for base, _ in side.powers if base.startswith("word ")} for side in (gold, given)]
    if all(nouns):
        return Fraction(1) if nouns[0] <= nouns[1] or nouns[1] <= nouns[0] else None
    return given.factor / gold.factor if gold.powers == given.powers else None
