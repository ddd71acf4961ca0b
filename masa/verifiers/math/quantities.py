"""The parts of an answer beside its value: a unit, a currency, percent, a counted noun."""

import re
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from masa.verifiers import units
from masa.verifiers.math.numbers import read_number


class AnswerUnit(NamedTuple):
    """A unit of physics, money or time of day; and nouns, as in `5 red balls`."""

    physical: units.Unit | None
    nouns: frozenset[str]


class ValueWithUnit(NamedTuple):
    """A value, as text, and its unit."""

    text: str
    unit: AnswerUnit | None
    percent: bool


_MONEY = {
    "dollar": ("dollar", "1"), "usd": ("dollar", "1"), "cent": ("dollar", "0.01"),
    "penny": ("dollar", "0.01"), "pennie": ("dollar", "0.01"), "euro": ("euro", "1"),
    "eur": ("euro", "1"), "yen": ("yen", "1"), "rupee": ("rupee", "1"), "rs": ("rupee", "1"),
    "pounds sterling": ("sterling", "1"), "am": ("am", "1"), "pm": ("pm", "1"),
}  # fmt: skip
"""Base and size of units that pint does not have."""
_OF_EACH = {"per", "a", "an", "each", "every"}
"""What may follow a currency: 5 dollars per hour."""
_COUNTED = set(
    "way number integer solution value point time people student total possible different of in all"
    " is the a an answer ans approximately each old exactly about".split()
)
"""Words that repeat the question."""
_NO_UNIT = re.compile(
    r"\b(?:or|not|and|if|else|except|otherwise|plus|minus|less|more(?!\s+(?!than|or|of)\w+$)"
    r"|greater|least|most|over|above|below|under|factorial|half|dozen|score|mod|modulo|base|root|negative|infinity|no|never|than"
    r"|wrong|incorrect|impossible|invalid|false|maybe|perhaps|possibly|probably|unsure|when|where"
    r"|divided|multiplied|but|only|cannot|undefined|to|with|remainder|hundreds?|thousands?|millions?"
    r"|billions?|trillions?|halves|halved|thirds?|fourths?|\w*(?:[fx]|en|gh|in|dred|sand|llion|tie)ths?"
    r"|tens|lakhs?|crores?|pi|choose|doubled|tripled|twice"
    r"|(?:times|point) (?:zero|one|two|three|four|five|six|seven|eight|nine|ten|pi)"
    r"|\w+n't|fails?|failed|rejected|excluded|contradiction|unknown|guess|too|onwards?|upwards?)\b"
    r"|^\s*(?:squared|cubed)|(?<![\w^-])\d",
    re.IGNORECASE,
)
"""Words after a value that change it, and further numbers."""
DENIED = re.compile(
    r"\b(?:not|never|no|cannot|except|wrong|incorrect|impossible|false"
    r"|(?:fewer|less|more|greater|larger|smaller) than|at (?:least|most))\b",
    re.IGNORECASE,
)
OF_ANOTHER = re.compile(
    DENIED.pattern + r"|\b(?:twice|half|double|outside|complement|exclud\w*)\b", re.IGNORECASE
)
"""Words before a value or a set by which it is that of something else."""
_LONE_UNIT = re.compile(r"\s+[ACFJKLNVWghms](?:\^\{?-?\d\}?)?")
"""A unit of one letter without `\\text{}`: after a space, or it is a variable."""
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))"
_PIECE = (
    r"\\text\{[^{}]*\}|\\Omega(?![a-zA-Z])"
    r"|\\mu(?![a-zA-Z])\s*(?=\\text|[a-zA-Z](?![a-zA-Z]))[a-zA-Z]?"
)
_TAIL = re.compile(
    rf"\s*(?:/\s*)?(?:{_PIECE})(?:\s|/|\\cdot(?![a-zA-Z])|{_PIECE}|{_POWER}|\^\s*\\circ|[()])*$"
)
_BARE_TAIL = re.compile(
    rf"(?<=[\d)}}\s])\s*/?\s*[a-zA-Z][a-zA-Z.]*(?:[\s/]|\\cdot(?![a-zA-Z])|[a-zA-Z.]|{_POWER})*$"
)
_PART = r"(\d+(?:\.\d+)?)\s*(?:\\text\{([a-zA-Z ]+?)(?: and)?\}|([a-zA-Z]{2,}))"
_PARTS = re.compile(_PART)
_COMPOUND = re.compile(rf"(?:{_PART}\s*){{2,4}}")
_PREFIX = re.compile(
    r"^(?:\\approx|\\text\{(?:approx(?:imately)?\.?|about|around|roughly|exactly|us"
    r"|(?:the )?(?:final )?answer(?: is)?:?|[A-Za-z ]+:)\}"
    r"|(?:approximately|about|exactly)(?=\s*\d))\s*",
    re.IGNORECASE,
)
_MONEY_FIRST = re.compile(
    r"^(?P<sign>-?)\s*\\text\{(?P<unit>dollars|euros|pounds sterling|yen|rupees|usd|eur|rs\.?)\}\s*"
    r"(?=-?[\d.\\])",
    re.IGNORECASE,
)
_DEGREES = re.compile(r"\s*\^\s*\\circ(?:\s*\\text\{(?P<words>[CF])\}|\s*(?P<bare>[CF]))?\s*$")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])|cis")
"""Degrees inside these are part of the value."""


@lru_cache(maxsize=1024)
def _unit(text: str) -> AnswerUnit | None:
    """The unit in the words after a value; None where there is none."""
    words = text.split()
    for count in range(len(words), 0, -1):
        head = " ".join(words[:count])
        money = _money(head) if {*words[count : count + 1]} <= _OF_EACH else None
        if physical := money or units.parse_unit(head):
            return AnswerUnit(physical, _nouns(words[count:]))
    nouns = _nouns(words)
    return AnswerUnit(None, nouns) if nouns else None


def _money(text: str) -> units.Unit | None:
    lowered = re.sub(r"\b([ap])\.\s*m\b\.?", r"\1m", text.lower()).strip(" .()")
    money = _MONEY.get(lowered) or _MONEY.get(lowered.removesuffix("s"))
    return units.Unit(float(money[1]), ((money[0], Fraction(1)),)) if money else None


def _nouns(words: list[str]) -> frozenset[str]:
    text = " ".join(words).lower()
    text = re.sub(r"\bcubic (\w+)", r"\1^3", re.sub(r"\bsq(?:uare|\.)? (\w+)", r"\1^2", text))
    words = re.findall(r"[a-z]+|\^-?\d", text)
    nouns = (re.sub(r"(?<=[xhs])es$|s$", "", re.sub("ies$", "y", noun)) for noun in words)
    return frozenset(noun for noun in nouns if noun not in _COUNTED)


def _tail_text(tail: str) -> str:
    text = tail.replace(r"\mu", "μ").replace(r"\Omega", "Ω")
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    text = re.sub(r"\^\s*\{\s*(-?\d)\s*\}", r"^\1", text)
    text = re.sub(r"\b([kM])\s+Ω", r"\1Ω", text)
    text = re.sub(r"\s+\^", "^", text)
    return re.sub(r"μ\s+(?=[a-zA-Z])", "μ", text).strip()


def _bare(text: str, symbols: bool) -> re.Match[str] | None:
    """A unit without `\\text{}`: a known one, or words longer than any product of variables."""
    match = _BARE_TAIL.search(text)
    if not match or not match.start():
        return None
    tail = _tail_text(match[0])
    names = re.findall("[a-zA-Z]+", tail)
    if all(_is_word(name) or name.lower().removesuffix("s") in _MONEY for name in names):
        return match
    if len(names) == 1 and len(names[0]) == 1:
        alone = _LONE_UNIT.fullmatch(match[0]) and read_number(text[: match.start()])
        return match if symbols and alone and units.parse_unit(tail) else None
    long = any(len(name) > 1 for name in names)
    return match if (symbols or long) and units.parse_unit(tail) else None


def _is_word(name: str) -> bool:
    """Longer than a product of variables, which is written in the order of the alphabet."""
    if sorted(set(name)) == list(name) and not name.endswith("s"):
        return False
    return len(name) > 4 or (len(name) == 4 and bool(re.search("[aeious]", name)))


def _compound(text: str) -> ValueWithUnit | None:
    """`3 hours 20 minutes` in its last unit."""
    parts = _PARTS.findall(text) if _COMPOUND.fullmatch(text) else []
    sizes = [_unit(words or bare) for _, words, bare in parts]
    kinds = [unit.physical for unit in sizes if unit and unit.physical and not unit.nouns]
    if len(kinds) < max(2, len(sizes)) or not all(map(kinds[0].comparable, kinds)):
        return None
    if any(one.scale <= other.scale for one, other in pairwise(kinds)):
        return None
    ratios = (Fraction(kind.scale / kinds[-1].scale).limit_denominator(10**6) for kind in kinds)
    total = sum(ratio * Fraction(part[0]) for ratio, part in zip(ratios, parts, strict=True))
    value = rf"\frac{{{total.numerator}}}{{{total.denominator}}}"
    return ValueWithUnit(value, sizes[-1], False)


def split_quantity(text: str, symbols: bool) -> ValueWithUnit:
    r"""Split a normalised answer into its value and percent, degrees, currency or unit.

    Args:
        text: one value, not a list.
        symbols: also split off one-letter units (`12 m`), where letters cannot be variables.
    """
    value, unit = text.strip(), None
    if compound := _compound(value):
        return compound
    if (prefix := _PREFIX.match(value)) and not OF_ANOTHER.search(prefix[0]):
        value = value[prefix.end() :]
    if money := _MONEY_FIRST.match(value):
        unit, value = _unit(money["unit"]), money["sign"] + value[money.end() :]
    if value.endswith("%"):
        return ValueWithUnit(value[:-1].rstrip().removesuffix("\\"), unit, True)
    degrees = None if _TRIGONOMETRIC.search(value) else _DEGREES.search(value)
    if degrees and degrees.start():
        scale = degrees["words"] or degrees["bare"] or ""
        return ValueWithUnit(value[: degrees.start()], _unit("°" + scale), False)
    match = _TAIL.search(value) or _bare(value, symbols)
    if match and match.start() > 0 and not _NO_UNIT.search(_tail_text(match[0])):
        rest = value[: match.start()].rstrip().removesuffix("\\").rstrip()
        greek = match[0].lstrip().startswith((r"\Omega", r"\mu"))
        if rest and not (greek and read_number(rest) is None):
            percent = rest.endswith("%")
            rest = rest.removesuffix("%").rstrip()
            return ValueWithUnit(rest, unit or _unit(_tail_text(match[0])), percent)
    return ValueWithUnit(value, unit, False)


def angle(unit: AnswerUnit | None) -> str:
    """ "degree" or "radian" where a unit is one, else ""."""
    if unit is None or unit.physical is None:
        return ""
    if unit.physical.dimension != (("radian", Fraction(1)),):
        return ""
    return "radian" if unit.physical.scale == 1 else "degree"


def converted(answer: ValueWithUnit, gold: ValueWithUnit) -> str | None:
    """The answer's value in the gold answer's unit, as text; None for units of different kinds."""
    one, other = gold.unit, answer.unit
    if one is None or other is None:
        return answer.text
    if one.nouns and other.nouns and not (one.nouns <= other.nouns or other.nouns <= one.nouns):
        return None
    if one.physical is None or other.physical is None:
        return answer.text if one.physical is other.physical else None
    if one.physical == other.physical:
        return answer.text
    if {angle(one), angle(other)} == {"degree", ""} and {
        side.physical.dimension for side in (one, other) if side.physical and side.physical.offset
    }:
        return answer.text  # 20 degrees, of Celsius
    if not one.physical.comparable(other.physical):
        return None
    scale = other.physical.scale / one.physical.scale
    shift = (other.physical.offset - one.physical.offset) / one.physical.scale
    text = rf"{_decimal(scale)} \cdot ({as_fraction(answer.text)})"
    return f"{text} + ({_decimal(shift)})" if shift else text


def as_fraction(text: str) -> str:
    """A number written as one fraction, as a mixed number is a product elsewhere; other values as
    they are."""
    number = read_number(text)
    if number is None or not number.exact:
        return text
    return rf"\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"


def _decimal(number: float) -> str:
    """A number without a power of ten and with a point: a decimal, as unit sizes are rounded."""
    digits = format(Decimal(f"{number:.12g}"), "f")
    return digits if "." in digits else digits + ".0"
