r"""The verifier of SciBench: a number within a relative tolerance, in the problem's unit.

An answer without a unit is in the problem's unit. One with a unit is converted: 0.007 km/s is
7 m/s; 7 ft/s, 7 kg and 7 with an unknown unit are not. A problem's unit may have a power of ten
(`10^{-19} J`, `$10^3$ kg`): the gold number is in that unit, and an answer without a unit may give
the number with or without the power.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import sympy

from masa.verifiers.extract import answer_boxes
from masa.verifiers.math.expressions import names, read_expression
from masa.verifiers.math.latex import MAX_LENGTH, normalise
from masa.verifiers.math.numbers import close, read_number
from masa.verifiers.math.numeric import Undefined, numeric_value
from masa.verifiers.pool import shared_pool
from masa.verifiers.units import Unit, parse_unit

CPU_SECONDS = 3.0
"""Per verdict; an ordinary one takes less than a millisecond."""
MEMORY = 1 << 28
"""Bytes per worker beyond its imports."""
LARGEST_UNCERTAINTY = Fraction(1, 5)
r"""Of a number, relative to it; `3 \pm 2` is two numbers."""
_JUDGE = "masa.verifiers.number:judge_item"

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d*)?|\.\d+)"
_INTEGER = r"[+-]?\s*\d+"
_TEN = rf"10\s*\^\s*(?:\{{\s*{_INTEGER}\s*\}}|{_INTEGER})"
_EXPONENT = (
    rf"(?:\s*(?:\\times|\\cdot|\*|[xX])\s*{_TEN}"
    rf"|\s*[eE]\s*(?:\{{\s*{_INTEGER}\s*\}}|{_INTEGER}))"
)
_FRACTION = (
    rf"(?:\d+\s*)?\\frac\{{\s*{_DIGITS}\s*\}}\{{\s*{_DIGITS}\s*\}}|(?:\d+ )?\d+/\d+"
    r"|\d*\.\d*\\(?:overline|bar|dot)\s*\{?\d+\}?"
)
_UNCERTAINTY = rf"\s*(?:\\pm|\+/-)\s*(?P<about>{_DECIMAL})(?P<about_percent>\s*%)?"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<ten>{_TEN})|(?P<fraction>{_FRACTION})|(?P<decimal>{_DECIMAL})"
    r"(?:\((?P<digits>\d{1,3})\)|\s*\^\{\s*\+\s*[\d.]+\s*\}\s*_\{\s*-\s*[\d.]+\s*\}"
    r"|\s*_\{\s*-\s*[\d.]+\s*\}\s*\^\{\s*\+\s*[\d.]+\s*\})?"
    rf"(?P<exponent>{_EXPONENT})?)(?:{_UNCERTAINTY}(?P<error_exponent>{_EXPONENT})?)?"
)
_BRACKETED = re.compile(
    rf"\(\s*(?P<sign>[+-]?)\s*(?P<decimal>{_DECIMAL}){_UNCERTAINTY}\s*\)"
    rf"(?P<exponent>{_EXPONENT})?"
)
_REPEATED_UNIT = re.compile(
    rf"(?P<unit>\D.*?)\s*(?:\\pm|\+/-)\s*(?P<about>{_DECIMAL})\s*(?P<again>.*)"
)
_POWER = re.compile(rf"(?:\\times|\\cdot|[xX*])?\s*(?P<ten>{_TEN})")
_PREFIX = re.compile(
    r"^(?:\\(?:approx|sim)(?![a-zA-Z])|(?:\\text\{\s*)?\b(?:approx(?:imately)?|about|around|roughly"
    r"|ca|circa)\b\.?(?:\s*\})?)\s*",
    re.I,
)
_ADDED = re.compile(
    r"\s*\(?\s*(?:\\text\{\s*)?\(?(?:approx(?:imately|\.)?|rounded)\)?\s*\}?\)?\s*$", re.I
)
_E = re.compile(
    r"(?<=[\d.])(?:\s|\\[,;:! ])*\\(?:text|mathrm)\s*\{\s*[eE]\s*([+-]?)\s*\}(?:\s|\\[,;:! ])*"
    r"(?=\{?\s*[+-]?\s*\d)"
)
_PRICE = re.compile(r"^([+-]?)\s*(\\text\{[a-z ]+\})\s*([\d.].*)$")
_EQUAL = re.compile(r"=|\\approx(?![a-zA-Z])")
_RELATION = re.compile(r"[<>]|\\(?:le|ge|neq|in|to)(?![a-zA-Z])")
_NAME = re.compile(
    r"(?:\\text\{[^{}]*\}|\\[a-zA-Z]+|[a-zA-Z])(?:_\{[^{}]*\}|_\w)?(?:\^\{?\\circ\}?)?(?:\([^()]*\))?"
)
_FUNCTION = re.compile(r"\\(?:sqrt|frac|cdot|times|ln|log|exp|sin|cos|tan)(?![a-zA-Z])")
_FORMULA = re.compile(r"\\(?:sqrt|pi|ln|log|exp|sin|cos|tan)(?![a-zA-Z])|(?<![a-zA-Z\\])e\^")
_DIGITS_OF_A_FORMULA = 30
_METRES = re.compile(r"(?<![a-zA-Z])ms(?=\s*\^\s*\{?\s*-)")
"""`ms^{-2}`, which is metres per second squared as often as one over milliseconds squared."""
_OPERATION = re.compile(r"[-+*/!^\d]")
_NO_NOUNS = set(
    "and not but nor plus minus times more less than least most per over under the cos sin tan log"
    " exp mod div hundred thousand million billion half third quarter double squared cubed tens"
    " lakh crore tenth tenths hundredth hundredths thousandth thousandths fifths halves thirds"
    " fails rejected excluded unknown wrong incorrect".split()
)


class NumberWithUnit(NamedTuple):
    """A number and the text of its unit."""

    value: Fraction
    unit: str
    """As written; empty without a unit."""


def _spell(text: str) -> str:
    r"""One spelling for `\num{3}`, `\SI{3}{\metre}`, digits in groups of three, and prices."""
    text = re.sub(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r"\1 \2", text)
    text = re.sub(r"\\num\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\ang\s*\{([^{}]*)\}", r"\1^\\circ", text)
    text = re.sub(r"\\mathring\s*\{\s*(?:\\text\s*\{)?A\}?\s*\}", "Å", text)
    text = _E.sub(r"e\1", re.sub(r"(?<!\\)\$", " ", text))
    text = _PRICE.sub(r"\1\3 \2", normalise(text))
    if words := re.fullmatch(r"\\text\{([^{}]*)\}", text):
        text = words[1].strip()
    text = re.sub(r"\{\s*10\s*\}(?=\s*\^)", "10", text)
    while (joined := re.sub(r"(?<=\.)((?:\d{3})+) (?=\d{1,3}(?!\d))", r"\1", text)) != text:
        text = joined
    return text


def _number(match: re.Match[str]) -> Fraction | None:
    """The value of a match, None where it is no number or its uncertainty is too large."""
    parts = match.groupdict()
    if parts.get("digits") and "." not in str(parts["decimal"]):
        return None  # 5(6) is a product, 5.00(1) has an uncertainty
    sign = parts["sign"] + "1"
    text = parts.get("ten") or parts.get("fraction") or parts["decimal"]
    if parts.get("exponent"):
        text += r"\times10^{" + _power(parts["exponent"]) + "}"
    elif parts.get("ten"):
        text = "10^{" + _power(text) + "}"
    number = read_number(text)
    if number is None:
        return None
    if parts["about"] and not _small(parts, number.value):
        return None
    return number.value * int(sign)


def _small(parts: dict[str, str | None], value: Fraction) -> bool:
    """Is the uncertainty small relative to the number?"""
    about = read_number(str(parts["about"]))
    if about is None:
        return False
    if parts["about_percent"]:
        return about.value <= 100 * LARGEST_UNCERTAINTY
    exponent = parts.get("error_exponent")
    if exponent:
        scaled = read_number(f"{parts['about']}\\times10^{{{_power(exponent)}}}")
        return scaled is not None and scaled.value <= LARGEST_UNCERTAINTY * value
    decimal = read_number(str(parts.get("decimal") or parts.get("ten") or parts.get("fraction")))
    return decimal is not None and about.value <= LARGEST_UNCERTAINTY * decimal.value


def _power(text: str) -> str:
    """The exponent in `\\times 10^{-19}` or `e-19`."""
    digits = re.search(r"([+-]?)\s*(\d+)\s*\}?$", text)
    assert digits is not None
    return digits[1] + digits[2]


def _quantity(text: str) -> NumberWithUnit | None:
    """The number with its unit that is the text, None where it is none."""
    text = _ADDED.sub("", _PREFIX.sub("", text.strip())).strip()
    if _FORMULA.search(text):
        return _formula(text)
    match = _BRACKETED.match(text) or _NUMBER.match(text)
    value = _number(match) if match else None
    if match is None or value is None:
        return None
    rest = text[match.end() :].strip()
    if "." in match[0]:
        rest = re.sub(r"^(?:\\[lc]?dots|\.\.\.|…)\s*", "", rest)
    if repeated := _REPEATED_UNIT.fullmatch(rest):
        again = repeated["again"].strip()
        about = read_number(repeated["about"])
        same = not again or parse_unit(again) == parse_unit(repeated["unit"])
        if not same or about is None or about.value > LARGEST_UNCERTAINTY * abs(value):
            return None
        rest = repeated["unit"].strip()
    # 5.2.1, 3,4 and 5(6) are no numbers; (6) m is one in brackets
    follows = re.match(r"[\d.,;:!|_]|\((?!\\?[a-zA-Z])|\^(?!\\circ)", rest) and not re.match(
        r"1\s*/\s*[\\a-zA-Z]", rest
    )
    return None if follows else NumberWithUnit(value, rest)


def _formula(text: str) -> NumberWithUnit | None:
    r"""The value of a constant in symbols, as in `2\pi \text{ m}`, with its unit."""
    start = text.find(r"\text{")
    formula, unit = (text[:start], text[start:]) if start > 0 else (text, "")
    expression = read_expression(formula.strip())
    if not isinstance(expression, sympy.Expr) or names(expression):
        return None
    try:
        value = numeric_value(expression, {}, _DIGITS_OF_A_FORMULA, real=True)
    except Undefined:
        return None
    return NumberWithUnit(Fraction(str(value)), unit)


def read_quantities(box: str) -> list[NumberWithUnit]:
    """The number in a box; several in a chain of equal numbers, [] where there is none.

    The first side of an equation is a name or a formula: `2x = 4` does not state x.
    """
    if len(box) > MAX_LENGTH:
        return []
    text = _spell(box)
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        text = text[1:-1] if not re.search(r"[,;]", text) else text
    text = _PREFIX.sub("", text)
    if _RELATION.search(text):
        return []
    sides = [side.strip() for side in _EQUAL.split(text)]
    sides = sides if sides[0] else sides[1:]
    if len(sides) == 2 and _NAME.fullmatch(sides[1]) and not _NAME.match(sides[0]):
        sides.reverse()
    quantities = [_quantity(side) for side in sides]
    last = quantities[-1] if quantities else None
    for place, quantity in enumerate(quantities[:-1]):
        # 2x = 5, and 2m = 5 as well, but 5 m = 500 cm
        letter = quantity and len(quantity.unit) == 1 and not (last and last.unit)
        if quantity and quantity.unit and (letter or not parse_unit(quantity.unit)):
            quantities[place] = None
    if last is None:
        return []
    first = _FUNCTION.sub("/", sides[0])
    alone = len(set(_NAME.findall(first))) == 1 and _OPERATION.search(_NAME.sub("", first))
    if quantities[0] is None and alone:
        return []
    return [quantity for quantity in quantities if quantity is not None]


def check_gold(gold: str | float) -> Fraction:
    """The gold number.

    Raises:
        ValueError: the gold answer is no finite number.
    """
    number = read_number(normalise(str(gold)))
    if number is None or (isinstance(gold, float) and not math.isfinite(gold)):
        raise ValueError(f"Gold answer {gold!r} is no number: drop the problem or correct it")
    return number.value


class _GoldQuantity:
    """The gold number of a problem, with its unit and tolerance."""

    def __init__(self, gold: Fraction, unit: str, tolerance: float) -> None:
        text = _spell(unit)
        power = _POWER.search(text)
        self.text = _POWER.sub("", text, count=1).strip()
        self.unit = parse_unit(self.text) if self.text else None
        scale = Fraction(10) ** int(_power(power["ten"])) if power else Fraction(1)
        self.number, self.full, self.tolerance = gold, gold * scale, tolerance

    def matches(self, quantity: NumberWithUnit) -> bool:
        """Does a quantity equal the gold one?"""
        if not quantity.unit:
            return self._near(quantity.value, self.number) or self._near(quantity.value, self.full)
        unit = parse_unit(quantity.unit)
        if not self.text:  # a bare number: of all units only percent changes it
            if unit is None and not _noun(quantity.unit):
                return False
            if unit is not None and not unit.dimension:
                percent = abs(quantity.value) > 1 and self._near(quantity.value, self.full)
                return percent or self._near(quantity.value * Fraction(unit.scale), self.full)
            return self._near(quantity.value, self.full)
        if self.unit is None:
            return _folded(self.text) == _folded(quantity.unit) and self._near(
                quantity.value, self.full
            )
        if unit is None or not unit.comparable(self.unit):
            unit = parse_unit(_METRES.sub("m s", quantity.unit))
        if unit is None or not unit.comparable(self.unit):
            return False
        return self._near(_converted(quantity.value, unit, self.unit), self.full)

    def comparable_with(self, quantity: NumberWithUnit) -> bool:
        """Has a quantity no unit, or one of the same kind as the gold one?"""
        unit = parse_unit(quantity.unit) if quantity.unit else None
        return not quantity.unit or (unit and self.unit and unit.comparable(self.unit)) is True

    def _near(self, value: Fraction, gold: Fraction) -> bool:
        return close(value, gold, self.tolerance)


def _converted(value: Fraction, unit: Unit, to: Unit) -> Fraction:
    if unit == to:
        return value
    base = value * Fraction(unit.scale) + Fraction(unit.offset)
    return (base - Fraction(to.offset)) / Fraction(to.scale)


def _noun(text: str) -> bool:
    """Is a text that is no unit one or two nouns: 5 apples?"""
    words = re.sub(r"\\text(?![a-zA-Z])|[{}]", " ", text).lower().split()
    all_nouns = all(re.fullmatch("[a-z]{3,}", word) and word not in _NO_NOUNS for word in words)
    return all_nouns and len(words) <= 2


def _folded(unit: str) -> str:
    """Letters and digits of an unknown unit, without a plural s."""
    letters = re.sub(r"\\[a-zA-Z]+|[^a-zA-Z0-9]", "", unit)
    return letters.lower().removesuffix("s") or unit


def judge_item(item: tuple[str, str, list[str], float]) -> bool:
    """The verdict on a JSON item (gold, unit, boxes of the answer, tolerance), for the workers."""
    gold, unit, boxes, tolerance = item
    target = _GoldQuantity(check_gold(gold), unit, tolerance)
    for box in boxes:
        quantities = read_quantities(box)
        if not quantities or not target.matches(quantities[-1]):
            return False
        if any(
            target.comparable_with(other) and not target.matches(other) for other in quantities[:-1]
        ):
            return False
    return bool(boxes)


def verify_batch(
    answers: Sequence[tuple[str | float, str, str]], tolerance: float = 0.05
) -> list[bool]:
    """`verify` of (gold, response, unit) in workers with limits, as answers may be nested deeply.

    Raises:
        ValueError: a gold answer is no finite number.
    """
    items = []
    for gold, response, unit in answers:
        check_gold(gold)
        items.append((str(gold), unit, answer_boxes(response), tolerance))
    verdicts = shared_pool(_JUDGE, CPU_SECONDS, MEMORY).verdicts(item for item in items if item[2])
    return [verdicts.get(item, False) for item in items]


def verify(gold: str | float, response: str, unit: str = "", tolerance: float = 0.05) -> bool:
    """Is the number in the last box within `tolerance` of the gold number?

    Args:
        gold: `answer_number` of the problem, in units of `unit`.
        response: the full text. A unit in the box is converted to the problem's unit; an unknown
            one, or one of another kind, is wrong.
        unit: the problem's unit, with its power of ten if it has one; where it is empty, units are
            not judged.
        tolerance: relative; SciBench allows 0.05.

    Raises:
        ValueError: the gold answer is no finite number.
    """
    return verify_batch([(gold, response, unit)], tolerance)[0]
