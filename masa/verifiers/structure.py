r"""The outer form of an answer: lists, tuples and intervals, sets, unions, relations, matrices.

What is inside is left as text (`Leaf`) for literals, units and algebra.
"""

import re
from dataclasses import dataclass

from masa.verifiers.latex import closing, strip_outer

_OPEN, _CLOSE = "([{", ")]}"
_MATRIX = re.compile(
    r"^(?:\[|\()?\s*\\begin\{(?:[pbvBV]?(?:small)?matrix|array)\}(?:\{[clr|\s]*\})?(.*?)"
    r"\\end\{(?:[pbvBV]?(?:small)?matrix|array)\}\s*(?:\]|\))?$",
    re.DOTALL,
)
_RELATION = re.compile(r"\\(le|ge|neq|approx|equiv|in)(?![a-zA-Z])|[<>=]")
_CUP = re.compile(r"\\cup(?![a-zA-Z])")
_SIGNS = re.compile(r"\\(pm|mp)(?![a-zA-Z])")
_WORDS = re.compile(r"\\text\{")


@dataclass(frozen=True)
class Leaf:
    """One value."""

    text: str


@dataclass(frozen=True)
class Ordered:
    """A tuple, point or interval: items between brackets of which each has its meaning."""

    opening: str
    items: tuple["Node", ...]
    ending: str


@dataclass(frozen=True)
class Several:
    """A list without brackets, or a set: the order does not count."""

    items: tuple["Node", ...]
    braces: bool


@dataclass(frozen=True)
class Union:
    """Pieces joined by a union sign."""

    items: tuple["Node", ...]


@dataclass(frozen=True)
class Relation:
    """`sides[0] operators[0] sides[1] ...`; operators are among = < > le ge neq in."""

    operators: tuple[str, ...]
    sides: tuple["Node", ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of entries; a single row or column is a vector."""

    rows: tuple[tuple["Node", ...], ...]


Node = Leaf | Ordered | Several | Union | Relation | Matrix


def _split(text: str, separators: str) -> list[str]:
    """Split at top-level separators, but not at the commas of 1,000,000."""
    if re.fullmatch(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?\s*(?:[\\%a-zA-Z^].*)?", text):
        head = re.match(r"[+-]?\d{1,3}(?:,\d{3})+", text)
        assert head is not None
        rest = _split(text[head.end() :], separators)
        return [head[0] + rest[0], *rest[1:]]
    parts, level, start = [], 0, 0
    for position, character in enumerate(text):
        if character in _OPEN:
            level += 1
        elif character in _CLOSE:
            level -= 1
        elif character in separators and level == 0:
            if character == "," and re.match(r",\d{3}(?!\d)", text[position:]):
                before = re.search(r"(?<![\d,])\d{1,3}(?:,\d{3})*$", text[:position])
                if before and (separators != "," or _thousands(text, before.start())):
                    continue
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _thousands(text: str, start: int) -> bool:
    """Is the number that starts here grouped by commas, and not an item of a tight list?"""
    return bool(re.match(r"[1-9]\d{0,2}(?:,\d{3})+(?![\d,])", text[start:]))


def _top_level(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Matches that are in no brackets."""
    found, level, position = [], 0, 0
    for match in pattern.finditer(text):
        between = text[position : match.start()]
        level += sum(between.count(c) for c in _OPEN) - sum(between.count(c) for c in _CLOSE)
        position = match.start()
        if level == 0:
            found.append(match)
    return found


def _inside(text: str) -> tuple[str, str, str] | None:
    r"""(opening, inside, ending) where one pair of brackets holds the whole text."""
    for opening, ending in ((r"\langle", r"\rangle"), (r"\{", r"\}")):
        if text.startswith(opening) and text.endswith(ending):
            if opening == r"\langle" or closing(text, 1) == len(text) - 1:
                return opening, text[len(opening) : -len(ending)], ending
            return None
    if text[:1] in ("(", "[") and closing(text, 0) == len(text) - 1:
        return text[0], text[1:-1], text[-1]
    return None


def _matrix(text: str) -> Matrix | None:
    match = _MATRIX.match(text)
    if not match or r"\begin" in match[1]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[1]) if row.strip()]
    cells = tuple(tuple(parse(cell) for cell in row.split("&")) for row in rows)
    if not cells or len({len(row) for row in cells}) != 1:
        return None
    return Matrix(cells)


def parse(text: str) -> Node:
    """The outer form of a normalised answer. Never fails: what has no form is a Leaf."""
    text = strip_outer(text)
    if matrix := _matrix(text):
        return matrix
    for separators in (";", ","):
        items = [part for part in (p.strip() for p in _split(text, separators)) if part]
        if len(items) > 1:
            return _several([parse(item) for item in items], braces=False)
    if relations := _top_level(text, _RELATION):
        return _relation(text, relations)
    if _SIGNS.search(text):
        upper = _SIGNS.sub(lambda m: "+" if m[1] == "pm" else "-", text)
        lower = _SIGNS.sub(lambda m: "-" if m[1] == "pm" else "+", text)
        return _several([parse(_lone_plus(upper)), parse(lower)], braces=False)
    if cups := _top_level(text, _CUP):
        cuts = [0, *(position for cup in cups for position in cup.span()), len(text)]
        parts = [text[a:b] for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
        return Union(tuple(parse(part) for part in parts))
    if inside := _inside(text):
        return _bracketed(*inside)
    return Leaf(text)


def _lone_plus(text: str) -> str:
    """A sign that begins a value is no sum."""
    return re.sub(r"(^|[(,=\[])\s*\+", r"\1", text)


def _several(items: list[Node], braces: bool) -> Node:
    flat: list[Node] = []
    for item in items:
        inner = item.items if isinstance(item, Several) and not item.braces else (item,)
        flat.extend(node for node in inner if node not in flat or not braces)
    return Several(tuple(flat), braces)


def _bracketed(opening: str, inside: str, ending: str) -> Node:
    items = [part.strip() for part in _split(inside, ";" if ";" in inside else ",")]
    items = [item for item in items if item]
    if len(items) == 1 and re.fullmatch(r"[\d,]+", inside):
        items = inside.split(",")  # in brackets 1,100 is two numbers
    if not items:
        return Leaf(opening + ending)
    if opening == r"\{":
        if re.search(r"\||:|\\text", inside):
            return Leaf(opening + inside + ending)  # set-builder notation
        return _several([parse(item) for item in items], braces=True)
    if len(items) == 1:
        return parse(items[0])
    if opening == r"\langle":
        opening, ending = "(", ")"
    return Ordered(opening, tuple(parse(item) for item in items), ending)


def _relation(text: str, found: list[re.Match[str]]) -> Node:
    cuts = [0, *(position for match in found for position in match.span()), len(text)]
    sides = [text[a:b].strip() for a, b in zip(cuts[::2], cuts[1::2], strict=True)]
    operators = [match[1] or match[0] for match in found]
    operators = ["=" if operator in ("approx", "equiv") else operator for operator in operators]
    if not sides[0] and len(sides) == 2 and operators[0] == "=":
        return parse(sides[1])
    if not all(sides):
        return Leaf(text)
    return Relation(tuple(operators), tuple(parse(side) for side in sides))
