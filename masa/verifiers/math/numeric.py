"""Numerical value of a SymPy expression at a point, by mpmath: one walk over the tree.

It is bounded: a value that needs more than a million bits, or thousands of terms, is undefined.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any
from zlib import crc32

import mpmath
import sympy
from mpmath import mp
from sympy.core.function import AppliedUndef

Point = Mapping[str, Any]
"""Values of the variables, by name."""

_MOST_BITS = 1e6
_MOST_TERMS = 2000
_LARGEST_FACTORIAL = 1e5
_MOST_GAMMA_DIGITS = 100  # of a fraction: at 2000 digits the first value takes seconds
_QUADRATURE_DIGITS = 30


class Undefined(ValueError):
    """No finite value: a division by zero, a logarithm of zero, an unknown function."""


class GreatestDivisor(sympy.Function):  # type: ignore[misc]
    """gcd of integers; SymPy's own is that of polynomials, by which gcd(m, n) is 1."""


class LeastMultiple(sympy.Function):  # type: ignore[misc]
    """lcm of integers."""


def _of_integers(function: Callable[..., int]) -> Callable[..., Any]:
    """A function of whole numbers alone."""

    def exact(*numbers: Any) -> Any:
        if not all(mpmath.isint(number) and mpmath.mag(number) < mp.prec for number in numbers):
            raise Undefined("not whole, or rounded")
        return mp.mpf(function(*map(int, numbers)))

    return exact


def _rounded(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Of numbers that are whole but for rounding, as log 8 over log 2, the whole number."""

    def rounded(number: Any) -> Any:
        nearest = mpmath.nint(number)
        near = abs(number - nearest) <= mp.eps * 2**20 * max(1, abs(nearest))
        return nearest if near else function(number)

    return rounded


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan, "cot": mpmath.cot,
    "sec": mpmath.sec, "csc": mpmath.csc, "asin": mpmath.asin, "acos": mpmath.acos,
    "atan": mpmath.atan, "acot": mpmath.acot, "asec": mpmath.asec, "acsc": mpmath.acsc,
    "sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh, "coth": mpmath.coth,
    "sech": mpmath.sech, "csch": mpmath.csch, "asinh": mpmath.asinh, "acosh": mpmath.acosh,
    "atanh": mpmath.atanh, "exp": mpmath.exp, "Abs": abs, "sign": mpmath.sign,
    "re": mpmath.re, "im": mpmath.im, "conjugate": mpmath.conj, "UnevaluatedExpr": lambda x: x,
}  # fmt: skip
_REAL: dict[str, Callable[..., Any]] = {
    "floor": _rounded(mpmath.floor), "ceiling": _rounded(mpmath.ceil), "Max": max, "Min": min,
    "Mod": lambda a, b: a - b * mpmath.floor(a / b),
    "GreatestDivisor": _of_integers(math.gcd), "LeastMultiple": _of_integers(math.lcm),
}  # fmt: skip
_CONSTANTS = {
    sympy.pi: lambda: mp.pi, sympy.E: lambda: mp.e, sympy.I: lambda: mp.mpc(0, 1),
    sympy.GoldenRatio: lambda: mp.phi, sympy.EulerGamma: lambda: mp.euler,
}  # fmt: skip


def numeric_value(expression: Any, point: Point, digits: int, real: bool) -> Any:
    """The value as an mpf or mpc of `digits` decimal digits.

    Args:
        expression: a SymPy expression; it may be unevaluated.
        point: a value for every free symbol but `i`, which is the imaginary unit.
        digits: working precision.
        real: compute with real numbers alone: an odd root of a negative number is real, an even one
            or a logarithm is undefined.

    Raises:
        Undefined: there is no finite value, no real one, or none within bounds, such as the
            factorial of a fraction to more than 100 digits.
    """
    with mp.workdps(digits):
        try:
            number = _Walk(point, real).value(expression)
            if not mpmath.isfinite(number):
                raise Undefined("not finite")
        except (ArithmeticError, TypeError, ValueError, mpmath.libmp.NoConvergence) as error:
            raise Undefined(str(error)) from error
        return number


def lost_digits(expression: Any, point: Point, digits: int, real: bool) -> int:
    """Digits by which the terms of its sums differ: with fewer, 2023! - 1 is 2023!.

    0 where the value is undefined.
    """
    walk = _Walk(point, real)
    with mp.workdps(digits):
        try:
            walk.value(expression)
        except (ArithmeticError, TypeError, ValueError, mpmath.libmp.NoConvergence):
            return 0
    return int(walk.lost_bits * math.log10(2))


class _Walk:
    def __init__(self, point: Point, real: bool, vanishing: bool = False) -> None:
        self.point = dict(point)
        self.real = real
        self.vanishing = vanishing  # in an integrand, values too small to compute are zero
        self.lost_bits = 0

    def checked(self, number: Any) -> Any:
        """The number, if it is allowed."""
        if self.real and isinstance(number, mp.mpc):
            if number.imag != 0:
                raise Undefined("not real")
            return number.real
        return number

    def value(self, node: Any) -> Any:
        if isinstance(node, sympy.Float):
            node = sympy.Rational(str(node))
        if isinstance(node, sympy.Rational):
            return mp.mpf(int(node.p)) / int(node.q)
        if isinstance(node, sympy.Symbol):
            return self._symbol(node.name)
        if node in _CONSTANTS:
            return +_CONSTANTS[node]()
        if isinstance(node, sympy.Add):
            terms = [self.value(term) for term in node.args]
            sizes = [int(mpmath.mag(term)) for term in terms if term != 0]
            self.lost_bits += max(sizes, default=0) - min(sizes, default=0)
            return _without_noise(mpmath.fsum(terms), max(map(abs, terms)))
        if isinstance(node, sympy.Mul):
            return mpmath.fprod([self.value(factor) for factor in node.args])
        if isinstance(node, sympy.Pow):
            return self.checked(self._power(node))
        if isinstance(node, sympy.Sum | sympy.Product):
            return self._series(node)
        if isinstance(node, sympy.Integral):
            return self._integral(node)
        if isinstance(node, sympy.Derivative | sympy.Limit):
            return self._derivative(node)
        if isinstance(node, AppliedUndef):
            return self._unknown_function(node)
        return self.checked(self._function(node))

    def _symbol(self, name: str) -> Any:
        if name in self.point:
            return self.point[name]
        if name == "i":
            return mp.mpc(0, 1)
        raise Undefined(name)

    def _power(self, node: Any) -> Any:
        base, exponent = self.value(node.base), self.value(node.exp)
        self.lost_bits += _small_bits(exponent)
        if base == 0 and mpmath.re(exponent) <= 0:
            raise Undefined("zero to a power that is not positive")
        bits = exponent * mpmath.mag(base) if base != 0 else 0
        if self.vanishing and mpmath.re(bits) < -_MOST_BITS:
            return mp.mpf(0)
        if abs(bits) > _MOST_BITS:
            raise Undefined("too large")
        root = _rational(node.exp) if self.real else None
        negative = isinstance(base, mp.mpf) and base < 0
        if root and negative and root.denominator > 1 and root.denominator % 2:
            return (-1) ** (root.numerator % 2) * mpmath.power(-base, exponent)
        return mpmath.power(base, exponent)

    def _function(self, node: Any) -> Any:
        name = type(node).__name__
        arguments = [self.value(argument) for argument in node.args]
        self.lost_bits += sum(map(_small_bits, arguments))
        if name == "log":
            if any(argument == 0 for argument in arguments):
                raise Undefined("logarithm of zero")
            logarithm = _without_noise(mpmath.ln(arguments[0]), 1)
            return logarithm / mpmath.ln(arguments[1]) if len(arguments) > 1 else logarithm
        if name in ("factorial", "gamma", "binomial"):
            if any(abs(argument) > _LARGEST_FACTORIAL for argument in arguments):
                raise Undefined("too large")
            if mp.dps > _MOST_GAMMA_DIGITS and not all(map(mpmath.isint, arguments)):
                raise Undefined("too many digits")
            return getattr(mpmath, name)(*arguments)
        if name in _REAL:
            if not all(isinstance(argument, mp.mpf) for argument in arguments):
                raise Undefined("not real")
            return _REAL[name](*arguments)
        if name not in _FUNCTIONS:
            raise Undefined(name)
        if name == "exp" and self.vanishing and mpmath.re(arguments[0]) < -_MOST_BITS:
            return mp.mpf(0)
        if any(abs(argument) > _MOST_BITS for argument in arguments):
            raise Undefined("too large")
        result = _FUNCTIONS[name](*arguments)
        if name in ("sin", "cos", "tan", "cot"):
            result = _without_noise(result, min(1, abs(arguments[0])))
        if name in ("tan", "sec", "cot", "csc") and abs(result) > mp.mpf(10) ** (mp.dps // 2):
            raise Undefined("a pole")
        return result

    def _series(self, node: Any) -> Any:
        (index, low, high), *more = node.limits
        if more or any(
            index.name in symbol.name and symbol != index for symbol in node.function.free_symbols
        ):
            raise Undefined("terms that are no function of the index")
        if high == sympy.oo:
            return self._evaluated(node)
        first, last = self.value(low), self.value(high)
        if not (mpmath.isint(first) and mpmath.isint(last)) or last - first > _MOST_TERMS:
            raise Undefined("bounds that are no integers, or too many terms")
        terms = [self._at(index, k, node.function) for k in range(int(first), int(last) + 1)]
        return mpmath.fsum(terms) if isinstance(node, sympy.Sum) else mpmath.fprod(terms)

    def _at(self, symbol: Any, number: Any, expression: Any, vanishing: bool = False) -> Any:
        point = {**self.point, symbol.name: mp.mpf(number)}
        return _Walk(point, self.real, vanishing or self.vanishing).value(expression)

    def _integral(self, node: Any) -> Any:
        (symbol, *bounds), *more = node.limits
        if more or len(bounds) != 2:
            raise Undefined("no definite integral over one variable")
        ends = [mp.inf * (1 if b == sympy.oo else -1) if b in (sympy.oo, -sympy.oo) else
                self.value(b) for b in bounds]  # fmt: skip
        with mp.workdps(_QUADRATURE_DIGITS):
            return mpmath.quad(lambda x: self._at(symbol, x, node.args[0], True), ends)

    def _derivative(self, node: Any) -> Any:
        if isinstance(node, sympy.Derivative):
            variables = {variable for variable, _ in node.variable_count}
            if node.expr.has(AppliedUndef) or not variables & node.expr.free_symbols:
                raise Undefined("a derivative of what is no function of the variable")
        return self._evaluated(node)

    def _evaluated(self, node: Any) -> Any:
        result = node.doit()
        if result.has(type(node)) or result.has(sympy.oo, sympy.nan, sympy.zoo):
            raise Undefined("no closed form")
        return self.value(result)

    def _unknown_function(self, node: Any) -> Any:
        """A fixed polynomial in place of a function, the same in every process, of both signs."""
        name = type(node).__name__
        result = _number_of(name)
        for place, argument in enumerate(node.args):
            number = self.value(argument)
            result += _number_of(f"{name}{place}1") * number
            result += _number_of(f"{name}{place}3") * number**3
        return result


def _without_noise(number: Any, size: Any) -> Any:
    """The number, or zero where it is only rounding error of its terms of the given size."""
    return mp.mpf(0) if abs(number) < size * mp.mpf(10) ** (12 - mp.dps) else number


def _small_bits(number: Any) -> int:
    """Bits that an argument near 0 needs to count: cos x is 1 - x^2 / 2 there."""
    return max(0, -2 * int(mpmath.mag(number))) if number != 0 else 0


def _number_of(name: str) -> Any:
    return 1 + mp.mpf(crc32(name.encode())) / 2**32


def _rational(node: Any) -> Fraction | None:
    """An exponent that is a rational number, written out as 1/3 or as an unevaluated 3^-1."""
    if isinstance(node, sympy.Rational):
        return Fraction(int(node.p), int(node.q))
    if isinstance(node, sympy.Mul):
        factors = [_rational(factor) for factor in node.args]
        return None if None in factors else Fraction(math.prod(f for f in factors if f is not None))
    if isinstance(node, sympy.Pow) and node.exp == -1:
        base = _rational(node.base)
        return 1 / base if base else None
    return None
