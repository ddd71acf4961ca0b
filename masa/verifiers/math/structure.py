r"""The outer form of an answer: lists, tuples and intervals, sets, unions, relations, matrices.

The inner values are text (`Leaf`), for value_equality.py.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from masa.verifiers.math.latex import closing, strip_outer

_OPEN, _CLOSE = ("(", "[", "{", r"\begin"), (")", "]", "}", r"\end")
_MATRIX = re.compile(
    r"^(?:\[|\()?\s*\\begin\{(?:[pbB]?(?:small)?matrix|array)\}(?:\{[clr|\s]*\})?(.*?)"
    r"\\end\{(?:[pbB]?(?:small)?matrix|array)\}\s*(?:\]|\))?$",
    re.DOTALL,
)
_CASES = re.compile(
    r"^(?:\\\{\s*\\begin\{array\}(?:\{[clr|\s]*\})?|\\begin\{[dr]?cases\})(.*?)\\end\{(?:array|[dr]?cases)\}$",
    re.DOTALL,
)
_CONDITION = re.compile(r"^\s*\\text\{(?:if|for|when|where)\s*([^{}]*)\}|^\s*(?:if|for|when)\b")
_BEFORE_CONDITION = re.compile(
    r",\s*(?=\\text|[^,]*(?:[<>=]|\\(?:le|ge|neq|in|notin)(?![a-zA-Z])))|(?=\\text\{(?:if|for|when))"
)
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?")
_RELATION = re.compile(r"\\(le|ge|neq|approx|equiv|in|notin)(?![a-zA-Z])|[<>=]")
_CUP = re.compile(r"\\(cup|cap|setminus)(?![a-zA-Z])")
_SIGNS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_CONJUNCTION = {word: re.compile(rf"\\text\{{{word}\}}") for word in ("or", "and")}
_BUILDER = re.compile(
    r"\\\{\s*(?P<name>[a-zA-Z])\s*(?:\\in\s*\\mathbb\{R\})?\s*\|\s*(?P<condition>.*)\\\}$"
)
_CONGRUENCE = re.compile(
    r"(?:(?P<name>[^=<>]*?)\s*(?:\\equiv|=)\s*)?(?P<residue>-?\d+)\s*,?\s*\(?\s*\\pmod\{(?P<modulus>\d+)\}\s*\)?"
)
_TRANSPOSED = re.compile(
    r"(?P<rows>.*[\])}])\s*\^\s*\{?\s*(?:T|\\top|\\intercal|\\text\{T\})\s*\}?", re.DOTALL
)
_SEPARATOR = {mark: re.compile(mark) for mark in ",;"}
_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d)")
_ZEROS = re.compile(r"(?<![\d.])\d{1,3},0\d\d(?!\d)")


@dataclass(frozen=True)
class Leaf:
    """One value."""

    text: str


@dataclass(frozen=True)
class Ordered:
    """A tuple, point or interval: items between brackets, whose kind matters."""

    opening: str
    items: tuple["Node", ...]
    ending: str


@dataclass(frozen=True)
class Several:
    r"""A list without brackets, or a set, in any order.

    `joined` is "," or "and" or "or", and "{" for a set.
    """

    items: tuple["Node", ...]
    joined: str


@dataclass(frozen=True)
class Combined:
    """Sets joined by `operator`: cup, cap or setminus."""

    operator: str
    items: tuple["Node", ...]


@dataclass(frozen=True)
class Cases:
    """A value per condition, in any order."""

    rows: tuple[tuple["Node", "Node"], ...]


@dataclass(frozen=True)
class Congruence:
    """`name = residue` modulo `modulus`; the name may be empty."""

    name: str
    residue: int
    modulus: int


@dataclass(frozen=True)
class Relation:
    """`sides[0] operators[0] sides[1] ...`; operators are among = < > le ge neq in notin approx."""

    operators: tuple[str, ...]
    sides: tuple["Node", ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of entries; a single row or column is a vector."""

    rows: tuple[tuple["Node", ...], ...]


Node = Leaf | Ordered | Several | Combined | Cases | Congruence | Relation | Matrix


def _split(text: str, separator: str, bracketed: bool = False) -> list[str]:
    """The non-empty parts between top-level separators.

    Commas before three digits group digits where all commas do so, outside brackets; or where the
    separating commas have a space after them, as in `(1,000, 2)`.
    """
    marks = top_level(text, _SEPARATOR[separator]) if separator in text else []
    if separator == "," and marks:
        groups = [match.span() for match in _GROUPED.finditer(text)]
        others = [m for m in marks if not any(a < m.start() < b for a, b in groups)]
        spaced = others and all(text[m.end() : m.end() + 1] == " " for m in others)
        if spaced or (not others and (_ZEROS.search(text) or not bracketed)):
            marks = others
    return [part for part in map(str.strip, _pieces(text, marks)) if part]


def as_list(text: str) -> "Several | None":
    """`100,200,300` as three numbers."""
    if not re.fullmatch(r"[+-]?\d{1,3}(?:,[1-9]\d\d)+", text):
        return None
    return Several(tuple(Leaf(part) for part in text.split(",")), ",")


def top_level(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Matches outside brackets and environments."""
    matches, level, position = [], 0, 0
    for match in pattern.finditer(text):
        between = text[position : match.start()]
        level += sum(map(between.count, _OPEN)) - sum(map(between.count, _CLOSE))
        position = match.start()
        if level == 0:
            matches.append(match)
    return matches


def _inside(text: str) -> tuple[str, str, str] | None:
    r"""(opening, inside, ending) where one pair of brackets is around the whole text."""
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return (r"\{", text[2:-2], r"\}") if closing(text, 1) == len(text) - 1 else None
    if text[:1] in ("(", "[") and closing(text, 0) == len(text) - 1:
        return text[0], text[1:-1], text[-1]
    return None


def _matrix(text: str) -> Matrix | None:
    match = _MATRIX.match(text)
    if not match or r"\begin" in match[1]:
        return None
    rows = [row for row in _ROW.split(match[1]) if row.strip()]
    cells = tuple(tuple(parse(cell) for cell in row.split("&")) for row in rows)
    if not cells or len({len(row) for row in cells}) != 1:
        return None
    return Matrix(cells)


def _cases(text: str) -> "Node | None":
    match = _CASES.match(text)
    if not match or r"\begin" in match[1]:
        return None
    rows = [_value_and_condition(row) for row in _ROW.split(match[1]) if row.strip()]
    if all(len(row) == 1 or not row[0].strip() for row in rows):
        return _several([parse(" ".join(row)) for row in rows], "and")
    if any("=" in row[-1] and len(row) == 2 and row[1].strip().startswith("=") for row in rows):
        return _several([parse("".join(row)) for row in rows], "and")
    if not all(len(row) == 2 for row in rows):
        return None
    return Cases(
        tuple(
            (parse(value), parse(_CONDITION.sub(r"\1", condition.lstrip(" ,"))))
            for value, condition in rows
        )
    )


def _value_and_condition(row: str) -> list[str]:
    """The parts of a row between `&`, or at the comma or the word before a condition."""
    mark = next(iter(top_level(row, _BEFORE_CONDITION)), None) if "&" not in row else None
    if mark is None or _RELATION.search(row[: mark.start()]):
        return row.split("&", 1)
    return [row[: mark.start()], row[mark.end() :]]


def parse(text: str) -> Node:
    """The outer form of a normalised answer; a text without a form is a Leaf."""
    text = strip_outer(text)
    if r"\begin" in text:
        form = _cases(text) or _matrix(text)
        if form:
            return form
    if transposed := _TRANSPOSED.fullmatch(text):
        rows = parse(transposed["rows"])
        if isinstance(rows, Ordered):
            rows = Matrix((rows.items,))
        if isinstance(rows, Matrix):
            return Matrix(tuple(zip(*rows.rows, strict=True)))
    match = _CONGRUENCE.fullmatch(text) if r"\pmod" in text else None
    if match:
        if int(match["modulus"]) > 0:
            return Congruence(match["name"] or "", int(match["residue"]), int(match["modulus"]))
    for word, pattern in _CONJUNCTION.items() if r"\text{" in text else ():
        if marks := top_level(text, pattern):
            items = [part.strip(" ,;") for part in _pieces(text, marks)]
            return _several(map(parse, filter(None, items)), word)
    for separator in (";", ","):
        if len(items := _split(text, separator)) > 1:
            return _several(map(parse, items), ",")
    if builder := _BUILDER.match(text):
        return parse(builder["condition"])
    if relations := top_level(text, _RELATION):
        return _relation(text, relations)
    signs = top_level(text, _CUP)
    if _SIGNS.search(text) and not signs and not text.startswith(r"\{"):
        return _several(map(parse, _both_signs(text)), "or")
    if match := re.fullmatch(r"([\[\]])([^\[\]()]*,[^\[\]()]*)([\[\]])", text):  # ]1,2[
        opening, ending = "(" if match[1] == "]" else "[", ")" if match[3] == "[" else "]"
        return _bracketed(opening, match[2], ending)
    if signs:
        operators = {sign[1] for sign in signs}
        if len(operators) == 1 or "setminus" not in operators:
            # \cap binds more tightly than \cup
            operator = "cup" if "cup" in operators else operators.pop()
            marks = [sign for sign in signs if sign[1] == operator]
            return Combined(operator, tuple(parse(part) for part in _pieces(text, marks)))
    if inside := _inside(text):
        return _bracketed(*inside)
    return Leaf(_lone_plus(text))


def _both_signs(text: str) -> tuple[str, str]:
    r"""The text with the upper signs of `\pm` and `\mp`, and with the lower ones."""
    upper = _SIGNS.sub(lambda m: "+" if m[1] == "pm" else "-", text)
    return upper, _SIGNS.sub(lambda m: "-" if m[1] == "pm" else "+", text)


def _pieces(text: str, marks: list[re.Match[str]]) -> list[str]:
    """The text between the marks."""
    cuts = [0, *(position for mark in marks for position in mark.span()), len(text)]
    return [text[a:b] for a, b in zip(cuts[::2], cuts[1::2], strict=True)]


def _lone_plus(text: str) -> str:
    """The text without plus signs that begin a value."""
    return re.sub(r"(^|[(,=\[])\s*\+", r"\1", text)


def _several(items: Iterable[Node], joined: str) -> Node:
    flat: list[Node] = []
    items = list(items)
    solutions = [names for item in items if (names := _solved(item))]
    if len(solutions) > len(set(solutions)):
        return Several(tuple(items), joined)
    for item in items:
        values = isinstance(item, Several) and not any(
            isinstance(each, Relation) for each in item.items
        )
        joins = (",", "or", "and") if joined == "{" and values else (",", "or")
        inner = item.items if isinstance(item, Several) and item.joined in joins else (item,)
        flat.extend(node for node in inner if node not in flat or joined != "{")
    return Several(tuple(_shortened(flat)), joined)


def _solved(node: Node) -> frozenset[Node]:
    """The names of `x = 1, y = 2`, values that belong together; empty for anything else."""
    items = node.items if isinstance(node, Several) and node.joined in (",", "and") else ()
    solved = [item.sides[0] for item in items if isinstance(item, Relation)]
    equations = all(isinstance(item, Relation) and item.operators == ("=",) for item in items)
    return frozenset(solved if equations and len(items) == len(set(solved)) > 1 else ())


def _shortened(items: list[Node]) -> list[Node]:
    r"""`1, 2, 3, \ldots, 9, 10` as `1, 2, \ldots, 10`."""
    if items.count(Leaf(r"\ldots")) != 1:
        return items
    place = items.index(Leaf(r"\ldots"))
    head, tail = items[:place], items[place + 1 :]
    step = _step(head)
    head = head[:2] if step else head
    return [*head, items[place], *(tail[-1:] if step and _step(tail) == step else tail)]


def _step(items: list[Node]) -> int | None:
    """The difference between integers that follow each other; None where there is none."""
    texts = [item.text if isinstance(item, Leaf) else "" for item in items]
    if not all(re.fullmatch(r"-?\d{1,9}", text) for text in texts):
        return None
    steps = {int(other) - int(one) for one, other in pairwise(texts)}
    return steps.pop() if len(steps) == 1 else None


def _bracketed(opening: str, inside: str, ending: str) -> Node:
    items = _split(inside, ";" if ";" in inside else ",", True)
    if not items:
        return Leaf(r"\emptyset" if opening == r"\{" else opening + ending)
    if opening == r"\{":
        return _several(map(_element, items), "{")
    return Ordered(opening, tuple(map(parse, items)), ending) if items[1:] else parse(items[0])


def _element(text: str) -> Node:
    """An element of a set: {{1}, 2} is not {1, 2}, and {{}} is not empty."""
    node = parse(text)
    nested = node == Leaf(r"\emptyset") or (isinstance(node, Several) and node.joined == "{")
    return Leaf(rf"\{{{text}\}}") if nested else node


def _relation(text: str, signs: list[re.Match[str]]) -> Node:
    sides = [side.strip() for side in _pieces(text, signs)]
    if _SIGNS.search(sides[0]) and [sign[0] for sign in signs] == ["="] and r"\{" not in text:
        return _several(map(parse, _both_signs(text)), "or")
    operators = [match[1] or match[0] for match in signs]
    operators = ["=" if operator == "equiv" else operator for operator in operators]
    if not sides[0] and len(sides) == 2 and operators[0] in ("=", "approx"):
        return parse(sides[1])
    if not all(sides):
        return Leaf(text)
    parsed = tuple(parse(side) for side in sides)
    if operators in (["="], ["neq"]) and isinstance(parsed[1], Several) and parsed[1].joined != "{":
        joined = parsed[1].joined if operators == ["="] else "and"
        return Several(
            tuple(Relation(tuple(operators), (parsed[0], item)) for item in parsed[1].items), joined
        )
    if operators == ["="] and all(isinstance(side, Ordered) for side in parsed):
        names, values = (side.items for side in parsed if isinstance(side, Ordered))
        if len(names) == len(values) and all(
            isinstance(name, Leaf) and re.fullmatch(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?", name.text)
            for name in names
        ):
            return Several(
                tuple(Relation(("=",), pair) for pair in zip(names, values, strict=True)),
                "and",
            )
    return Relation(tuple(operators), parsed)
