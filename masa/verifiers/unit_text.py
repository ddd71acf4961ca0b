r"""The parser of units, in text or LaTeX: `\mathrm{J\,K^{-1}\,mol^{-1}}` -> J 1, K -1, mol -1.

It has no list of units: masa.verifiers.units gives the names their meaning.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

_MAX_EXPONENT = 12

_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("μµ", "µ"), **dict.fromkeys("Ωω", "Ω"),
        **dict.fromkeys("·⋅∙•×✕*", "*"), **dict.fromkeys("⁄∕÷", "/"),
        **dict.fromkeys("−–—‐‑﹣", "-"), **dict.fromkeys("\u200b\u2060\ufeff", ""),
        "Å": "Å", "℃": "°C", "℉": "°F", "º": "°", "˚": "°", "％": "%", "‰": " permille ",
        "[": "(", "]": ")", "~": " ", "$": " ",
    }
)  # fmt: skip
del _CHARACTERS[ord("ω")]
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_COMMANDS = {
    "times": "*", "cdot": "*", "ast": "*", "bullet": "*", "cdotp": "*", "div": "/", "per": "/",
    "mu": "µ", "micro": "µ", "Omega": "Ω", "ohm": "Ω", "AA": "Å", "angstrom": "Å",
    "circ": "°", "degree": "°", "textdegree": "°", "celsius": "°C", "degreeCelsius": "°C",
    "textmu": "µ", "upmu": "µ", "percent": "%", "squared": "^2", "cubed": "^3",
    "left": "", "right": "", "big": "", "Big": "", "bigl": "", "bigr": "",
    "quad": " ", "qquad": " ", "unit": "", "si": "", "tfrac": r"\frac", "dfrac": r"\frac",
    "frac": r"\frac", "sqrt": "√", "nicefrac": r"\frac", "sfrac": r"\frac",
    "text": "", "textnormal": "", "textrm": "", "textbf": "", "textit": "", "textsf": "",
    "mathrm": "", "mathit": "", "mathbf": "", "mathsf": "", "mathnormal": "", "rm": "", "mbox": "",
    "hbox": "", "operatorname": "", "boldsymbol": "", "bm": "", "emph": "", "textup": "",
}  # fmt: skip
_CELSIUS = {"c": "degC", "celsius": "degC", "centigrade": "degC", "f": "degF", "fahrenheit": "degF"}
_SPELLING: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # a degree sign is no power
    (re.compile(r"\^\s*(?:\(\s*°\s*\)|°)"), "°"),
    (
        re.compile(
            r"(?:°|\bdeg(?:rees?)?\b\.?)\s*(celsius|centigrade|fahrenheit|[CF])(?![A-Za-z])", re.I
        ),
        lambda match: f" {_CELSIUS[match[1].lower()]} ",
    ),
    (re.compile(r"°\s*K(?![A-Za-z])"), " K "),
    (re.compile("°"), " degree "),
    (re.compile(r"µ\s+"), "µ"),
    (re.compile(r"(?<![A-Za-z])([numkMGT])\s+(?=Ω)"), r"\1"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\^\s*\(\s*\)"), ""),
    (re.compile(r"\bmm\s+Hg\b"), "mmHg"),
    (re.compile(r"\blight[\s-]+year"), "lightyear"),
    # Nm, JK, kJmol: a symbol with a capital before others
    (
        re.compile(r"(?<![A-Za-zµ])([numkMG]?(?:J|N|Pa|W|A|C|V))(kg|mol|[smK])(?![A-Za-z])"),
        r"\1 \2",
    ),
    (re.compile(r"\bper\b", re.I), " / "),
    (re.compile(r"(?<=[A-Za-z)}])\s*[-.]\s*(?=[A-Za-z(])"), " "),  # N-m, N.m
    (re.compile(r"(?<=[A-Za-z])\.(?![A-Za-z\d])"), " "),  # in., ft.
)
_TOKEN = re.compile(
    r"\s*(?:(?P<frac>\\frac)|(?P<root>√)|(?P<name>[A-Za-zµΩÅ%]+)|(?P<sign>[-+]?\d+(?:\.\d+)?)|(?P<mark>[()^/*]))"
)
_PREFIXES = set(
    "yocto zepto atto femto pico nano milli centi deci deca deka hecto kilo mega giga tera peta exa"
    " zetta yotta".split()
)
_BEFORE = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_AFTER = {"squared": 2, "cubed": 3}


class NoUnit(ValueError):
    """Text that is no unit."""


def unit_powers(text: str) -> dict[str, Fraction]:
    """Names and their powers, in the order of the text; after a slash all powers are negative.

    Raises:
        NoUnit: the text does not have the form of a unit.
    """
    return _Parser(_spell(text)).all()


def _spell(text: str) -> str:
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda match: "^(" + match[0].translate(_POWERS) + ")", text)
    text = unicodedata.normalize("NFKC", text)  # the signs of ohm, angstrom and micro
    text = re.sub(r"\\([,;:! ])", lambda match: "" if match[1] == "!" else " ", text)
    text = re.sub(r"\\[()\[\]]|\\(?=[%$])", "", text).translate(_CHARACTERS)
    text = re.sub(r"\x00\s*", "", re.sub(r"\\([A-Za-z]+)\*?\s*", _command, text))
    text = _without_braces(text)
    for pattern, spelling in _SPELLING:
        text = pattern.sub(spelling, text)
    return text.strip().rstrip(".")


def _without_braces(text: str) -> str:
    r"""Braces of arguments as brackets, other braces as spaces.

    A power after a font belongs to the last unit in it: `\text{m/s}^2` is m/s^2.
    """
    out: list[str] = []
    following: list[int] = []  # arguments still to come after each open brace's own
    arguments = 0
    for token in re.findall(r"\\frac|.", text, re.DOTALL):
        if token == "{":
            following.append(arguments)
            out.append("(" if arguments else " ")
            arguments = 0
        elif token == "}":
            arguments = following.pop() if following else 0
            out.append(")" if arguments else " ")
            arguments = max(0, arguments - 1)
        else:
            out.append(token)
            if not token.isspace():
                arguments = 2 if token == r"\frac" else int(token in "^√")
    return "".join(out)


def _command(match: re.Match[str]) -> str:
    name = match[1]
    if name in _COMMANDS:
        return _COMMANDS[name] or " "
    # siunitx: \kilo\gram
    return f" {name}\0" if name in _PREFIXES else f" {name} "


class _Parser:
    """Parses the names and their powers."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if not match:
                raise NoUnit(text)
            self.tokens.append((str(match.lastgroup), match[match.lastindex or 0]))
            position = match.end()
        self.position = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.position += 1
        return token

    def all(self) -> dict[str, Fraction]:
        powers = self.product()
        if self.peek()[0] != "end":
            raise NoUnit
        return {name: power for name, power in powers.items() if power}

    def product(self) -> dict[str, Fraction]:
        total: dict[str, Fraction] = {}
        below, empty, pending = False, True, 1
        while True:
            kind, value = self.peek()
            if kind == "end" or value == ")":
                break
            if value in ("*", "/"):
                self.take()
                below = below or value == "/"
                if self.peek()[0] == "end" or self.peek()[1] in ("*", "/", ")"):
                    raise NoUnit
                if empty and value == "*":
                    raise NoUnit
                empty = False
                continue
            if kind == "name" and value.lower() in _BEFORE:
                self.take()
                pending = _BEFORE[value.lower()]
                continue
            factor, direct = self.factor()
            # J/kg K^{-1}: a negative power is not negated again
            after_slash = self.tokens[self.position - direct - 1][1] == "/" if below else False
            negative = all(power < 0 for power in factor.values())
            sign = -1 if below and (after_slash or not negative) else 1
            for name, power in factor.items():
                total[name] = total.get(name, Fraction(0)) + sign * power * pending
            empty, pending = False, 1
        if pending != 1:
            raise NoUnit
        return total

    def factor(self) -> tuple[dict[str, Fraction], int]:
        """A name, a bracket or a fraction with its power, and the number of its tokens."""
        start = self.position
        kind, value = self.take()
        if kind == "frac":
            above, below = self.bracket(), self.bracket()
            powers = dict(above)
            for name, power in below.items():
                powers[name] = powers.get(name, Fraction(0)) - power
        elif kind == "root":
            powers = {name: power / 2 for name, power in self.bracket().items()}
        elif kind == "name":
            powers = {value: Fraction(1)}
        elif value == "(":
            powers = self.product()
            self.expect(")")
        elif (kind, value) == ("sign", "1"):
            powers = {}
        else:
            raise NoUnit
        return self.powered(powers), self.position - start

    def powered(self, powers: dict[str, Fraction]) -> dict[str, Fraction]:
        kind, value = self.peek()
        if value == "^":
            self.take()
            power = self.exponent()
        elif kind == "sign" and powers and re.fullmatch(r"[-+]?\d", value):
            power = Fraction(self.take()[1])  # m2, s-1
        elif kind == "name" and value.lower() in _AFTER and powers:
            power = Fraction(_AFTER[self.take()[1].lower()])
        else:
            return powers
        if abs(power) > _MAX_EXPONENT:
            raise NoUnit
        return {name: exponent * power for name, exponent in powers.items()}

    def exponent(self) -> Fraction:
        kind, value = self.take()
        if kind == "sign":
            return Fraction(value)
        if value != "(":
            raise NoUnit
        kind, value = self.take()
        if kind != "sign":
            raise NoUnit
        power = Fraction(value)
        if self.peek()[1] == "/":
            self.take()
            kind, value = self.take()
            if kind != "sign" or not Fraction(value):
                raise NoUnit
            power /= Fraction(value)
        self.expect(")")
        return power

    def bracket(self) -> dict[str, Fraction]:
        self.expect("(")
        powers = self.product()
        self.expect(")")
        return powers

    def expect(self, mark: str) -> None:
        if self.take()[1] != mark:
            raise NoUnit
