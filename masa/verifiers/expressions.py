"""Algebra: one expression read by latex2sympy2_extended, two compared by their values.

Values are compared at high precision and, where there are variables, at fixed rational points:
polynomial, radical and trigonometric identities hold there or fail by a wide margin. Nothing is
simplified and nothing is evaluated exactly, so that a tower of powers stays a symbol. What has no
value (sets, relations, undefined functions) is left to Math-Verify's own comparison.
"""

import logging
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

import math_verify
import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig

from masa.verifiers.latex import closing
from masa.verifiers.numerals import TOLERANCE, Number

logging.getLogger("math_verify").setLevel(
    logging.ERROR
)  # it warns of timeouts that are ours to set

_CASED = ConversionConfig(lowercase_symbols=False)
_POINTS = tuple(
    tuple(Fraction(numerator + 2 * k, 7 + 3 * k) * sign for k in range(12))
    for numerator, sign in ((9, 1), (5, 1), (11, -1), (23, 1))
)
"""Per point a value for each of up to 12 variables, both signs, none of them special."""
_DIGITS = (60, 2000)
"""First a glance, then enough to tell 2^4950 from 2^4950 + 1."""
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
_ANGLE = re.compile(r"\^\s*\\circ")


def _readable(text: str) -> str:
    """What latex2sympy lacks under ANTLR 4.9, said in terms that it knows."""

    def fraction(match: re.Match[str]) -> str:
        whole, fixed, again = match.groups()
        under = (10 ** len(again) - 1) * 10 ** len(fixed)
        over = int((whole + fixed) or 0) * (10 ** len(again) - 1) + int(again)
        return rf"\frac{{{over}}}{{{under}}}"

    text = _REPEATING.sub(fraction, text)
    text = _ANGLE.sub(r" \\cdot \\frac{\\pi}{180} ", text)
    text = re.sub(r"(\d+(?:\.\d+)?)\s*%", r"\\frac{\1}{100}", text)
    text = re.sub(r"\\text\{([^{}]*)\}", r"\\mathrm{\1}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return _plain_roots(text).replace("*", r" \cdot ")


def _plain_roots(text: str) -> str:
    r"""`\sqrt(x)` as `\sqrt{x}`."""
    while (start := text.find(r"\sqrt(")) >= 0:
        end = closing(text, start + 5)
        if end < 0:
            return text
        text = text[: start + 5] + "{" + text[start + 6 : end] + "}" + text[end + 1 :]
    return text


@lru_cache(maxsize=512)
def read_expression(text: str) -> Any | None:
    """The SymPy object a normalised answer stands for, unevaluated; None if it cannot be read."""
    try:
        with sympy.evaluate(False):
            read = latex2sympy(_readable(text), conversion_config=_CASED)
    except MemoryError:
        raise
    except Exception:  # the grammar's, the lexer's and SymPy's errors have no common base
        return None
    if isinstance(read, sympy.MatrixBase):
        return read
    if not isinstance(read, sympy.Basic):
        return None
    return read.xreplace({sympy.Symbol("i"): sympy.I}) if read.has(sympy.Symbol("i")) else read


def _value(expression: Any, point: dict[Any, Any], digits: int) -> Any | None:
    """The complex value, or None where there is no finite one."""
    try:
        value = expression.evalf(digits, subs=point, maxn=digits + 500)
        real, imaginary = value.as_real_imag()
    except MemoryError:
        raise
    except Exception:  # any function may refuse a point in its own way
        return None
    if not (real.is_Number and imaginary.is_Number) or not (real.is_finite and imaginary.is_finite):
        return None
    return real, imaginary


def _near(one: Any, other: Any, relative: Any) -> bool:
    gap = sympy.Max(abs(one[0] - other[0]), abs(one[1] - other[1]))
    size = sympy.Max(*(abs(part) for part in (*one, *other)))
    return bool(gap <= relative * size)


def _is_approximate(expression: Any) -> bool:
    return bool(expression.atoms(sympy.Float))


def _equal_values(gold: Any, given: Any, tolerance: float) -> bool | None:
    """Equality by value; None where the values say nothing."""
    symbols = sorted(gold.free_symbols | given.free_symbols, key=lambda symbol: symbol.name)
    if len(symbols) > len(_POINTS[0]):
        return None
    approximate = _is_approximate(gold) or _is_approximate(given)
    compared = 0
    for numbers in _POINTS if symbols else _POINTS[:1]:
        values = (sympy.Rational(n.numerator, n.denominator) for n in numbers)
        point = dict(zip(symbols, values, strict=False))
        for digits in _DIGITS[:1] if approximate else _DIGITS:
            one, other = _value(gold, point, digits), _value(given, point, digits)
            if one is None or other is None:
                if (one is None) is not (other is None):
                    return False
                break
            relative = (
                sympy.Float(tolerance) if approximate else sympy.Float(10, 30) ** (15 - digits)
            )
            if not _near(one, other, relative):
                return False
        else:
            compared += 1
    return True if compared else None


def same_number(number: Number, expression: Any, tolerance: float = TOLERANCE) -> bool:
    """Is a plain number the value of an expression?"""
    if not isinstance(expression, sympy.Expr):
        return False
    rational = sympy.Rational(number.value.numerator, number.value.denominator)
    if number.exact or expression.free_symbols:
        return same_expression(rational, expression, tolerance)
    one, other = _value(rational, {}, _DIGITS[0]), _value(expression, {}, _DIGITS[0])
    if one is None or other is None:
        return False
    return _near(one, other, sympy.Float(tolerance))


def same_expression(gold: Any, given: Any, tolerance: float = TOLERANCE) -> bool:
    """Do two SymPy objects say the same?"""
    if isinstance(gold, sympy.MatrixBase) or isinstance(given, sympy.MatrixBase):
        return (
            isinstance(gold, sympy.MatrixBase)
            and isinstance(given, sympy.MatrixBase)
            and gold.shape == given.shape
            and all(
                same_expression(one, other, tolerance)
                for one, other in zip(gold.flat(), given.flat(), strict=True)
            )
        )
    if gold == given:
        return True
    if isinstance(gold, sympy.Expr) and isinstance(given, sympy.Expr):
        decided = _equal_values(gold, given, tolerance)
        if decided is not None:
            return decided
    if _is_approximate(gold) or _is_approximate(given):
        return False  # Math-Verify compares six absolute decimals
    return bool(math_verify.verify(gold, given, timeout_seconds=None))


def proportional(gold: Any, given: Any, positive: bool) -> bool:
    """Is one expression a constant (positive) multiple of the other, at every point?

    Both sides of `y = 2x + 1` and `2x - y + 1 = 0` moved to the left are.
    """
    symbols = sorted(gold.free_symbols | given.free_symbols, key=lambda symbol: symbol.name)
    if not symbols or len(symbols) > len(_POINTS[0]) or gold.free_symbols != given.free_symbols:
        return False
    ratios = []
    for numbers in _POINTS:
        values = (sympy.Rational(n.numerator, n.denominator) for n in numbers)
        point = dict(zip(symbols, values, strict=False))
        one, other = _value(gold, point, _DIGITS[0]), _value(given, point, _DIGITS[0])
        if one is None or other is None or one[1] != 0 or other[1] != 0 or other[0] == 0:
            continue
        ratios.append(one[0] / other[0])
    if len(ratios) < 3 or ratios[0] == 0 or (positive and ratios[0] < 0):
        return False
    approximate = _is_approximate(gold) or _is_approximate(given)
    relative = TOLERANCE if approximate else sympy.Float(10, 30) ** -40
    return all(bool(abs(ratio - ratios[0]) <= relative * abs(ratios[0])) for ratio in ratios)
