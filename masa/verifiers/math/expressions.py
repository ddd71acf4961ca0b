"""Algebra: expressions parsed by latex2sympy2_extended, and compared by their values.

Values are compared at fixed rational points at high precision: identities hold there or fail by a
wide margin. Nothing is simplified, so a tower of powers is never computed.
"""

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

import sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from mpmath import mp, mpf
from sympy.core.function import AppliedUndef

from masa.verifiers.math.latex import closing
from masa.verifiers.math.numbers import TOLERANCE, Number, read_number
from masa.verifiers.math.numeric import (
    GreatestDivisor,
    LeastMultiple,
    Undefined,
    lost_digits,
    numeric_value,
)

_GROWING = (
    sympy.exp, sympy.factorial, sympy.gamma, sympy.binomial, sympy.sinh, sympy.cosh, sympy.tanh,
    sympy.coth, sympy.Sum, sympy.Product, sympy.Integral, sympy.Derivative, sympy.Limit,
)  # fmt: skip
_CASED = ConversionConfig(lowercase_symbols=False)
_POINTS = tuple(
    tuple(
        Fraction(numerator + 2 * k, 7 + 3 * k) * (-1) ** (k // run * odd + sign) for k in range(12)
    )
    for numerator, run, odd, sign in (
        (9, 1, 0, 0), (5, 1, 0, 0), (17, 1, 0, 0), (3, 1, 0, 0), (11, 1, 1, 1), (23, 1, 1, 0),
        (13, 2, 1, 1), (2, 2, 1, 1), (57, 1, 0, 1), (113, 1, 0, 0), (113, 1, 0, 1),
    )
)  # fmt: skip
"""A value for each of up to 12 variables, per point; large ones of both signs as well, where an
absolute value or a logarithm differs from what it is near 0."""
_COUNTS = tuple(tuple(Fraction(n + k) for k in range(12)) for n in (3, 5, 8, 4, 6, 7, 2, 9))
"""Points where variables bound a sum or are integers by their place."""
_LARGE_COUNTS = tuple(tuple(Fraction(n + k) for k in range(12)) for n in (37, 131, 1009))
"""Further ones where something is rounded and nothing is added up."""
_SHARED = (12, 18, 30, 20, 42, 8, 45, 36, 10, 21, 24, 60)
_MULTIPLES = tuple(tuple(map(Fraction, _SHARED[k:] + _SHARED[:k])) for k in range(12))
"""Points of integers with and without common divisors."""
_INTEGERS = {"n", "m", "k", "N", "M", "K"}
"""Letters of integers, beside what differs at integers alone: rounding, powers of -1, angles."""
_DIGITS = (60, 2000)
"""First a quick check, then enough digits to distinguish 2^4950 from 2^4950 + 1."""
_GUARD = 40
"""Further digits, which are lost where terms cancel out."""
_MOST_DIGITS = 50000
"""Where sums need more, nothing is said to be equal."""
_FUNCTION_NAMES = set("fghpqruvyFGHPQRSTWL")
_ALLOWED = set(
    """frac sqrt pi infty cdot times sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh
    tanh coth ln log exp binom sum prod int lim max min gcd lfloor rfloor lceil rceil left right to
    mathrm overline hat bar vec tilde dot ddot circ partial begin end
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon
    phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar""".split()
)
_COMMAND = re.compile(r"\\([a-zA-Z]+|.)", re.DOTALL)
_LETTERS = re.compile(
    r"\\(?:begin|end|operatorname|mathrm|overline|hat|bar|vec|tilde|d?dot)\{[^{}]*\}|\\[a-zA-Z]+"
    r"|(?<=\d)E(?=[-+]?\d)|(?P<letter>[a-zA-Z])"
)
_PLACEHOLDER = re.compile(r"\\text\{letter([dEIT])\}|letter([dEIT])")
_CALCULUS = re.compile(r"\\int(?![a-zA-Z])|\\frac\{\s*d[^{}]*\}\{\s*d\s*[a-zA-Z\\]")
_PLAIN = re.compile(r"[0-9a-zA-Z+\-*/^_{}()\[\]|!., ]*")
_REPEATING = re.compile(r"\d*\.\d*\\overline\{\d+\}(?!\d)")
_PRIMED = re.compile(r"(\\[a-zA-Z]+|[a-zA-Z])(?:_\{?(\w+)\}?)?('+)")
_DERIVATIVE = re.compile(r"\\frac\{d(?:\^\{?(\d)\}?)?([a-zA-Z])\}\{d([a-zA-Z])(?:\^\{?(\d)\}?)?\}")
_CALL = re.compile(
    r"\\(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|coth|ln|log)(?![a-zA-Z])"
    r"(?:[_^](?:\{[^{}]*\}|\w))*\s*"
)
_FACTOR = re.compile(r"\\(?:cdot|times)(?![a-zA-Z])|\*")
_MIXED = re.compile(r"(?<![\w.}^_)\\])(\d{1,9})\s*\\frac\{(\d{1,9})\}\{(\d{1,9})\}")
_WORD_BETWEEN = re.compile(r"\d\s*\\text\{[^{}]*\}\s*\d")
"""No product of variables: 7 R 3, 3 hours 20 minutes."""
_MOST_POLAR = 4
_MOST_CONSTANTS = 3
_MOST_BARS = 16  # the parser tries every pair of them
_DETERMINANT = re.compile(r"\\begin\{vmatrix\}(.*)\\end\{vmatrix\}", re.DOTALL)
_WORD = re.compile(r"(?<![\\a-zA-Z])(?:[a-zA-Z]{5,}|[A-Z]{3,})")


def _readable(text: str) -> str:
    """The text with commands that latex2sympy lacks or drops replaced by ones that it has."""

    def repeating(match: re.Match[str]) -> str:
        number = read_number(match[0])
        if number is None:
            return match[0]
        return rf"\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"

    def derivative(match: re.Match[str]) -> str:
        order, name, variable, again = match.groups()
        if order != again:
            return match[0]
        if name in "yf" and variable == "x":
            return rf"{name}_{{prime{order or 1}}}"
        return rf"{name}_{{by{variable * int(order or 1)}}}"

    text = _closed_arguments(text)
    text = _MIXED.sub(_one_fraction, text)
    text = re.sub(r"\\gamma(?![a-zA-Z])", r"\\mathrm{smallgamma}", text)  # else a function
    text = re.sub(r"\\Gamma(?![a-zA-Z]|\s*\()", r"\\mathrm{largegamma}", text)
    text = re.sub(r"(\\(?:int|sum|prod)(?:_\{[^{}]*\})?)_(\w)", r"\1_{\2}", text)
    text = re.sub(r"(\\(?:int|sum|prod)(?:_\{[^{}]*\})?)\^(\w)", r"\1^{\2}", text)
    text = re.sub(r"\^\s*\\circ", r" \\cdot \\frac{\\pi}{180} ", text)
    text = re.sub(r"(\d+(?:\.\d+)?)\s*%", r"\\frac{\1}{100}", text)
    text = re.sub(r"\\text\{([a-zA-Z]+)\}", r"\\mathrm{\1}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = _REPEATING.sub(repeating, text)
    text = _DERIVATIVE.sub(derivative, text)
    text = re.sub(r"\\cdot\s*(?=\\(?:log|ln|sin|cos|tan|cot|sec|csc))", " ", text)
    text = _PRIMED.sub(
        lambda m: rf"{m[1]}_{{{m[2] or ''}prime{len(m[3])}}}", text
    )  # else a prime is dropped
    text = re.sub(r"(?<![\w_{}.^])(\d+)\s*\((?=\d|\\frac)", r"\1 \\cdot (", text)
    text = re.sub(r"(?<=\d\))\s*(?=\(\d)", r" \\cdot ", text)
    text = re.sub(r"\\overline\{([^{}]*[+-][^{}]*)\}", _conjugate, text)
    text = re.sub(r"\\(?:text|mathrm)\{cis\}|\bcis\b", r"\\cis ", text)
    while text.count(r"\cis ") <= _MOST_POLAR and (start := text.find(r"\cis ")) >= 0:
        text = text[:start] + _cis(text[start + 5 :])
    return text.replace("*", r" \cdot ")


def _closed_arguments(text: str) -> str:
    r"""The text with brackets around the argument of a function before `\cdot`, `\times` or another
    factor, and of a logarithm before `/`: the parser would go on with what follows."""
    out, position = [], 0
    for match in _CALL.finditer(text):
        start = match.end()
        if match.start() < position or text[start : start + 1] in tuple("({[|"):
            continue
        level, end = 0, start
        while end < len(text):
            if level == 0 and text[end] == "(" and _is_factor(text, start, end):
                break
            level += (text[end] in "([{") - (text[end] in ")]}")
            begun = level == 0 and text[start:end].strip()
            if level < 0 or (begun and (text[end] in "+-=,<>&|;/" or _FACTOR.match(text, end))):
                break
            if begun and _CALL.match(text, end):
                break
            end += 1
        divided = match[1] in ("ln", "log") and text[end : end + 1] == "/"
        followed = _FACTOR.match(text, end) or text[end : end + 1] == "("
        if level == 0 and (divided or followed):
            argument = text[start:end].strip()
            out.append(f"{text[position:start].rstrip()}({argument}) ")
            position = end
    return "".join(out) + text[position:]


def _is_factor(text: str, start: int, bracket: int) -> bool:
    r"""Is a bracket with functions in it no part of the argument before it: `\sin x(\cos x-1)`?"""
    argument = text[start:bracket].rstrip()
    is_variable = argument[-1:].isalpha() and argument[-1:] not in _FUNCTION_NAMES
    return is_variable and bool(_CALL.search(text[bracket : closing(text, bracket)]))


def _one_fraction(match: re.Match[str]) -> str:
    whole, over, under = map(int, match.groups())
    return rf"\frac{{{whole * under + over}}}{{{under}}}" if over < under else match[0]


def _conjugate(match: re.Match[str]) -> str:
    return "(" + re.sub(r"(?<![\\a-zA-Z])i(?![a-zA-Z])", "(-i)", match[1]) + ")"


def _cis(text: str) -> str:
    """The argument of `cis`, up to the next sum, as a power of e."""
    level = 0
    for end, character in enumerate(text):
        level += (character in "([{") - (character in ")]}")
        if level < 0 or (level == 0 and character in "+-" and text[:end].strip()):
            return rf"e^{{i({text[:end]})}}{text[end:]}"
    return rf"e^{{i({text})}}"


def _is_algebra(text: str) -> bool:
    """Is every command known? The parser drops or multiplies unknown ones."""
    if re.search(r"[\d)]\s*_", text):
        return False  # a subscript of a number, which the parser would drop
    environments = set(re.findall(r"\\(?:begin|end)\{(\w+)\}", text))
    if not environments <= {"pmatrix", "bmatrix", "matrix"}:
        return False
    rest = re.sub(r"\\(?:begin|end)\{\w+\}|\\\\|&", " ", text) if environments else text
    commands = _COMMAND.findall(rest.replace(r"\operatorname{lcm}", ""))
    if not all(command in _ALLOWED for command in commands):
        return False
    rest = rest.replace(r"\operatorname{lcm}", "")
    rest = re.sub(r"\\mathrm\{[a-zA-Z]+\}|_\{\w*(?:prime|by)\w+\}|_\{[a-zA-Z]=", "", rest)
    rest = _COMMAND.sub(" ", rest)
    return bool(_PLAIN.fullmatch(rest)) and not _WORD.search(rest) and "!!" not in rest


@lru_cache(maxsize=512)
def read_expression(text: str, functions: str = "") -> Any | None:
    """The SymPy object of a normalised answer, unevaluated; None where it cannot be parsed.

    Args:
        text: a normalised answer.
        functions: letters that are functions, as `f` in `f(2x-2)`, which else is a product.
    """
    if match := _DETERMINANT.fullmatch(text):
        return _determinant(match[1])
    if text.count("|") > _MOST_BARS or _WORD_BETWEEN.search(text):
        return None
    text = _called(_readable(text), functions)
    if not _is_algebra(text):
        return None
    try:
        with sympy.evaluate(False):
            expression = _LatexParser(config=_CASED).parse(_lexed(text))
        if isinstance(expression, sympy.MatrixExpr):
            expression = expression.doit()
    except MemoryError:
        raise
    except Exception:  # the grammar's, the lexer's and SymPy's errors have no common base
        return None
    with sympy.evaluate(False):
        if isinstance(expression, sympy.MatrixBase):
            return expression.applyfunc(_products)
        return _products(expression) if isinstance(expression, sympy.Expr) else None


def functions_in(*texts: str) -> str:
    """f and g, where each has a bracket after it everywhere in the texts."""
    letters = re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+", " ", " ".join(texts))
    return "".join(name for name in "fg" if not re.search(rf"{name}(?!\s*\()", letters))


def _called(text: str, functions: str) -> str:
    """The text with a comma after the argument of each function of one variable: the parser has a
    longer one without it as a factor."""
    out, position = [], 0
    for match in re.finditer(rf"(?<![\\a-zA-Z])[{functions}]\(", text) if functions else ():
        end = closing(text, match.end() - 1)
        argument = _COMMAND.sub("", text[match.end() : max(end, 0)])
        single = len(set(re.findall("[a-zA-Z]", argument))) == 1 and "," not in argument
        if match.start() >= position and single:
            out.append(text[position:end] + ",")
            position = end
    return "".join(out) + text[position:]


class _LatexParser(_Latex2Sympy):  # type: ignore[misc]
    """With gcd and lcm of integers, for those of polynomials."""

    def handle_gcd_lcm(self, f: str, args: Any) -> Any:
        return (GreatestDivisor if f == "gcd" else LeastMultiple)(*args)


def _lexed(text: str) -> str:
    """The text as the lexer needs it: it has a d with the next letter as a differential, I as the
    imaginary unit, E without an index, T as a transpose, and some words, as tr, as functions."""
    taken = "EI" + "d" * (not _CALCULUS.search(text)) + "T" * (r"\begin" not in text)

    def placeholder(match: re.Match[str]) -> str:
        if not match["letter"]:
            return match[0]
        return rf"\mathrm{{letter{match[0]}}}" if match[0] in taken else f"{match[0]} "

    return normalize_latex(_LETTERS.sub(placeholder, text), NormalizationConfig())


def _determinant(rows: str) -> Any | None:
    texts = [row.split("&") for row in rows.split(r"\\")]
    cells = [[read_expression(text.strip()) for text in row] for row in texts]
    square = all(len(row) == len(cells) for row in cells) and len(cells) <= 4
    if not square or not all(isinstance(cell, sympy.Expr) for row in cells for cell in row):
        return None
    return sympy.Matrix(cells).det(method="berkowitz")


def _products(expression: Any) -> Any:
    """`x(y)` is a product, `f(y)` is not; placeholders have the names of their letters."""
    calls = {
        call: sympy.Mul(sympy.Symbol(type(call).__name__), *call.args, evaluate=False)
        for call in expression.atoms(AppliedUndef)
        if type(call).__name__[:1] not in _FUNCTION_NAMES
        and len(call.args) == 1
        and not call.args[0].is_number  # I(0) is a current at the start
    }
    expression = expression.xreplace(calls) if calls else expression
    letters = {
        symbol: sympy.Symbol(_PLACEHOLDER.sub(lambda match: match[1] or match[2], symbol.name))
        for symbol in expression.atoms(sympy.Symbol)
        if _PLACEHOLDER.search(symbol.name)
    }
    return expression.xreplace(letters) if letters else expression


def names(*expressions: Any) -> list[str]:
    """The variables, in the order of their names."""
    symbols = {symbol.name for expression in expressions for symbol in expression.free_symbols}
    return sorted(symbols - {"i"})


def _rounds(expression: Any) -> bool:
    return bool(expression.has(sympy.floor, sympy.ceiling))


def _is_of_integers(expression: Any) -> bool:
    """Does it have other identities at integers: floor(n/2), (-1)^n, sin(n pi)?"""
    powers = any(
        power.base.is_number and power.base.is_negative and power.exp.free_symbols
        for power in expression.atoms(sympy.Pow)
    )
    angles = any(
        call.args[0].has(sympy.pi) for call in expression.atoms(sympy.sin, sympy.cos, sympy.tan)
    )
    return _rounds(expression) or powers or angles


def _bends(expression: Any) -> bool:
    """Does it change at a point, as |x - 20| does at 20?"""
    roots = any(
        power.exp == sympy.S.Half and power.base.free_symbols
        for power in expression.atoms(sympy.Pow)
    )
    return roots or bool(expression.has(sympy.Abs, sympy.Max, sympy.Min))


def _grows(expression: Any) -> bool:
    """Does it grow faster than a power, so that it cannot be computed far from 0?"""
    powers = any(power.exp.free_symbols for power in expression.atoms(sympy.Pow))
    return powers or bool(expression.has(*_GROWING))


def _scale(*expressions: Any) -> int:
    """More than the largest number in the expressions: points as large are beyond all bends."""
    numbers = {
        abs(number)
        for expression in expressions
        for number in expression.atoms(sympy.Number)
        if number.is_finite
    }
    return int(max(numbers, default=0)) + 1


def _points(*expressions: Any) -> Iterator[dict[str, Any]]:
    """Points for the variables of expressions; none for too many variables."""
    variables = names(*expressions)
    if len(variables) > len(_POINTS[0]):
        return
    counted: set[str] = set()
    for expression in expressions:
        for series in expression.atoms(sympy.Sum, sympy.Product):
            for _, low, high in series.limits:
                counted |= {symbol.name for symbol in low.free_symbols | high.free_symbols}
    if any(map(_is_of_integers, expressions)):
        counted |= _INTEGERS & set(variables)
    points = [(reals, counted) for reals in _POINTS]
    places = itertools.cycle(_COUNTS)
    if any(map(_bends, expressions)) and not any(map(_grows, expressions)):
        scale = _scale(*expressions)
        points += [(tuple(scale * real for real in reals), counted) for reals in _POINTS[-3:]]
    if any(map(_rounds, expressions)):
        # between integers floor(x) + 1 is ceil(x)
        points += [(reals, set(variables)) for reals in _POINTS]
        if not any(expression.has(sympy.Sum, sympy.Product) for expression in expressions):
            places = itertools.cycle(_LARGE_COUNTS + _COUNTS)
    if any(expression.has(GreatestDivisor, LeastMultiple) for expression in expressions):
        points, places = (
            [(_POINTS[0], set(variables))] * len(_MULTIPLES),
            itertools.cycle(_MULTIPLES),
        )
    for (reals, whole), counts in zip(points, places, strict=False):
        chosen = [
            (name, counts[place] if name in whole else reals[place])
            for place, name in enumerate(variables)
        ]
        with mp.workdps(max(_DIGITS)):
            point = {name: mpf(number.numerator) / number.denominator for name, number in chosen}
        yield point
        if not variables:
            return


def _near(one: Any, other: Any, relative: Any) -> bool:
    return bool(abs(one - other) <= relative * max(abs(one), abs(other)))


def _is_approximate(expression: Any) -> bool:
    return bool(expression.atoms(sympy.Float))


def _has_i(expression: Any) -> bool:
    return sympy.Symbol("i") in expression.free_symbols or bool(expression.has(sympy.I))


def _values(sides: tuple[Any, Any], point: Any, digits: int, real: bool) -> list[Any | None]:
    """The values of both sides at a point, None where a side has none."""
    values: list[Any | None] = []
    for side in sides:
        try:
            values.append(numeric_value(side, point, digits + _GUARD, real))
        except Undefined:
            values.append(None)
    return values


def _precisions(sides: tuple[Any, Any], point: Any, real: bool) -> tuple[int, int]:
    """Digits of the quick check and of the thorough one, in which each term of a sum counts."""
    lost = max(lost_digits(side, point, _DIGITS[0], real) for side in sides)
    return _DIGITS[0], max(_DIGITS[1], lost + _DIGITS[0])


def same_value(gold: Any, answer: Any, tolerance: float = TOLERANCE) -> bool:
    """Do two SymPy expressions have the same values wherever both have real ones?

    Where there are no such points, or the imaginary unit occurs, the complex values decide. With an
    absolute value on one side alone both have to be real at the same points: ln|x| is not ln x.
    """
    sides = (gold, answer)
    constant = not names(gold, answer)
    approximate = constant and any(map(_is_approximate, sides))
    loose = any(side.has(sympy.Integral) for side in sides)
    strict = gold.has(sympy.Abs) is not answer.has(sympy.Abs)
    points = list(_points(gold, answer))
    enough = 1 if constant else 2
    for real in (False,) if any(map(_has_i, sides)) else (True, False):
        equal = 0
        for place, point in enumerate(points):
            thorough = place == 0 and not approximate and not loose
            steps = _precisions(sides, point, real) if thorough else _DIGITS[:1]
            if steps[-1] > _MOST_DIGITS:
                return False
            for digits in steps:
                one, other = _values(sides, point, digits, real)
                if digits >= _DIGITS[1] and (one is None or other is None):
                    continue  # so many digits are not to be had: the quick check decides
                if one is None or other is None:
                    if strict and real and (one is None) is not (other is None):
                        return False
                    break  # outside the domain of one of them
                precision = 25 if loose else digits
                relative = mpf(tolerance) if approximate else mpf(10) ** (15 - precision)
                if not _near(one, other, relative):
                    return False
            else:
                equal += 1
        if equal >= enough:
            return True
    return False


def same_number(number: Number, expression: Any, tolerance: float = TOLERANCE) -> bool:
    """Is a plain number the value of an expression?"""
    if not isinstance(expression, sympy.Expr):
        return False
    rational = sympy.Rational(number.value.numerator, number.value.denominator)
    if number.exact or names(expression):
        return same_value(rational, expression, tolerance)
    one, other = _values((rational, expression), {}, _DIGITS[0], not _has_i(expression))
    return one is not None and other is not None and _near(one, other, mpf(tolerance))


def same_expression(gold: Any, answer: Any, tolerance: float = TOLERANCE) -> bool:
    """Are two SymPy expressions or matrices equal?"""
    matrices = [isinstance(side, sympy.MatrixBase) for side in (gold, answer)]
    if any(matrices):
        return (
            all(matrices)
            and gold.shape == answer.shape
            and all(
                same_value(one, other, tolerance)
                for one, other in zip(gold.flat(), answer.flat(), strict=True)
            )
        )
    return (
        same_value(gold, answer, tolerance)
        or any(same_value(gold, other, tolerance) for other in _with_constants(gold, answer))
        or _same_antiderivative(gold, answer)
    )


_INDEXED = re.compile(r"[cC]_\d")
_OTHER_NAMES = {"A", "B", "C", "D", "K", "c", "k"}


def _with_constants(gold: Any, answer: Any) -> Iterator[Any]:
    """The answer with the gold answer's arbitrary constants, in every order, for its own.

    Those of a gold answer are C_1, c_2 and the like, or C beside a variable.
    """
    wanted, given = names(gold), names(answer)
    constants = [name for name in wanted if _INDEXED.fullmatch(name)]
    if not constants and "C" in wanted and {"x", "t", "y"} & set(wanted):
        constants = ["C"]
    own = [name for name in given if _INDEXED.fullmatch(name)]
    indices = [[name[1:] for name in side] for side in (own, constants)]
    if own and indices[0] != indices[1] and (constants != ["C"] or len(own) > 1):
        return
    own = own or [name for name in given if name in _OTHER_NAMES - set(wanted)]
    if not 0 < len(constants) == len(own) <= _MOST_CONSTANTS:
        return
    for order in itertools.permutations(constants):
        if list(order) != own:
            pairs = zip(own, order, strict=True)
            yield answer.xreplace({sympy.Symbol(one): sympy.Symbol(new) for one, new in pairs})


_CONSTANTS = {sympy.Symbol(name) for name in ("C", "c", "K", "k", "C_1", "c_1", "C_0")}


def _same_antiderivative(gold: Any, answer: Any) -> bool:
    """Are `x^2 + C` and `x^2 + 3 + c` equal, up to the constant that both have?"""
    if not (isinstance(gold, sympy.Add) and isinstance(answer, sympy.Add)):
        return False
    constants = [_CONSTANTS & set(side.args) for side in (gold, answer)]
    if not all(len(name) == 1 for name in constants):
        return False
    # another letter of the gold answer may be a parameter, to which nothing can be added
    arbitrary = constants[0] <= {sympy.Symbol("C"), sympy.Symbol("C_1"), sympy.Symbol("C_0")}
    if not arbitrary and sympy.Symbol("C") not in constants[1]:
        return False
    rests = [
        sympy.Add(*(term for term in side.args if term not in name), evaluate=False)
        for side, name in zip((gold, answer), constants, strict=True)
    ]
    if not names(*rests) or any(constants[place] & rests[place].free_symbols for place in (0, 1)):
        return False
    gaps = []
    strict = rests[0].has(sympy.Abs) is not rests[1].has(sympy.Abs)
    for point in _points(*rests):
        one, other = _values((rests[0], rests[1]), point, _DIGITS[0], True)
        if one is not None and other is not None:
            gaps.append(one - other)
        elif strict and (one is None) is not (other is None):
            return False
    gap = gaps[0] if arbitrary and gaps else mpf(0)
    largest = max(map(abs, gaps), default=mpf(0))
    return len(gaps) > 1 and all(
        abs(each - gap) < mpf(10) ** -40 * max(1, largest) for each in gaps
    )


def without_denominators(difference: Any) -> Any:
    """The numerator over the common denominator of the variables: `xy - 1` of `y - 1/x`."""
    if not any(
        power.exp.is_number and power.exp.is_negative and power.base.free_symbols
        for power in difference.atoms(sympy.Pow)
    ):
        return difference
    return sympy.fraction(sympy.together(difference))[0]


def proportional(gold: Any, answer: Any, positive: bool) -> bool:
    """Is one expression a constant (positive) multiple of the other, at every point?

    Both sides of `y = 2x + 1` and `2x - y + 1 = 0` moved to the left are.
    """
    if not names(gold) or names(gold) != names(answer):
        return False
    ratios = []
    for point in _points(gold, answer):
        one, other = _values((gold, answer), point, _DIGITS[0], True)
        if one is not None and other is not None and other != 0:
            ratios.append(one / other)
    if len(ratios) < 3 or ratios[0] == 0 or (positive and ratios[0] < 0):
        return False
    approximate = _is_approximate(gold) or _is_approximate(answer)
    relative = mpf(TOLERANCE) if approximate else mpf(10) ** -40
    return all(bool(abs(ratio - ratios[0]) <= relative * abs(ratios[0])) for ratio in ratios)
