"""Equality of an answer and the gold answer: by form first, then by number, then by algebra."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import sympy
from sympy.core.function import AppliedUndef

from masa.verifiers.math.expressions import (
    functions_in,
    names,
    proportional,
    read_expression,
    without_denominators,
)
from masa.verifiers.math.latex import MAX_DEPTH, MAX_LENGTH, depth, key, normalise, word_key
from masa.verifiers.math.numbers import TOLERANCE, read_number
from masa.verifiers.math.quantities import DENIED, OF_ANOTHER, split_quantity
from masa.verifiers.math.sets import FLIPPED, interval, real_set, text_of, variables
from masa.verifiers.math.structure import (
    Cases,
    Combined,
    Congruence,
    Leaf,
    Matrix,
    Node,
    Ordered,
    Relation,
    Several,
    as_list,
    parse,
    top_level,
)
from masa.verifiers.math.value_equality import ValueComparison

_ARGUMENT = r"(?:\([^()]*\)|\[[^\[\]]*\])"
_LETTER = (
    r"(?:[a-zA-Z]|\\(?:alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|rho"
    r"|sigma|tau|phi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell)(?![a-zA-Z]))"
)
_VECTOR = (
    r"(?:\\(?:vec|overrightarrow|mathbf|boldsymbol|overline|bar|hat)\s*"
    r"(?:\{[^{}]*\}|[a-zA-Z](?![a-zA-Z])))"
)
_TERM = rf"(?:{_LETTER}|\\angle\s*[A-Z]{{1,3}})"
_SCRIPTS = r"(?:_(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?\w)|(?<=[A-Z])\^\{-1\}|\^\{-1\}(?=\()|'|\^\*)*"
_NAME = re.compile(
    rf"(?:{_LETTER}{_SCRIPTS}{_ARGUMENT}?|[A-Z]{{2,4}}|[a-zA-Z][a-z]{{3,}}{_ARGUMENT}?"
    rf"|\\(?:angle|triangle|Delta|text)\s*(?:\{{[^{{}}]*\}}|[A-Za-z]{{1,4}}|\\[a-z]+){_SCRIPTS}{_ARGUMENT}?"
    rf"|m\s*\\angle\s*[A-Z]{{1,3}}|\|[A-Z]{{1,2}}\||\\\|?\|?\[?[A-Z]{{3,5}}\]|\[[A-Z]{{3,5}}\]"
    r"|[a-zA-Z](?::[a-zA-Z])+|[A-Z]{2}(?::[A-Z]{2})+"
    r"|\\(?:overline|vec|hat|tilde|mathcal|mathbb)\{[^{}]*\}(?:_\{?\w+\}?)?(?:\([^()]*\)|\[[^\[\]]*\])?"
    r"|\\frac\{d(?:\^\{?\d\}?)?\s*[a-z]\}\{d\s*[a-z](?:\^\{?\d\}?)?\}"
    r"|\\(?:dim|deg|Pr|ker|rank)(?![a-zA-Z])[^+\-=]*"
    rf"|\\(?:sin|cos|tan|cot|sec|csc)\s*(?:{_TERM}|\({_TERM}(?:[+-]{_TERM})?\))"
    rf"|\\?\|(?:[uvwz]|{_VECTOR})(?:_\w)?\\?\|"
    r"|\\text\{[a-z]{2,5}\}\s*[A-Z]|\\operatorname\{lcm\}\([^()=]*\)"
    rf"|{_VECTOR}\s*\\(?:cdot|times)\s*{_VECTOR}"
    r"|\\frac\{[A-Z]{2}\}\{[A-Z]{2}\}"
    r"|[a-zA-Z]\([a-zA-Z]\([^()]*\)\)|\([a-zA-Z]\s*\\circ\s*[a-zA-Z]\)\([^()]*\)"
    r"|[a-zA-Z]\([^()]*\)_(?:\\(?:max|min)|\{\\?(?:max|min|\\text\{(?:max|min)\})\}))"
)
"""Names on the left of an equation: x, f(2), a_{10}, AB, an angle, words, a limit, what is asked of
a vector, a set or an angle."""
_OPERATION = re.compile(r"\\(?:lim|sum|prod|int|max|min|sup|inf|det|gcd)(?![a-zA-Z]).*")
_SIGN = re.compile(r"[-+]")
_VARIABLE = re.compile(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?")
_LETTER_ALONE = re.compile(r"(?:(?:Option|Choice|Answer):?)?\(?([a-zA-Z])\)?")
_CALL = re.compile(r"([a-zA-Z])\(([a-zA-Z])\)")
_LABELLED = re.compile(
    r"\\text\{\(?([A-J])[).:]+\}\s*(\S.*)|\(([A-J])\)\s+(.+)|([A-J])[).:]\s+(.+)", re.DOTALL
)
_FURTHER_LABEL = re.compile(
    r"\([A-J]\)|(?<![A-Za-z\\])[A-J][).:]|^\W*(?:\\text\{)?\W*(?:or|and)\b|^[A-J]$"
)
"""In the text of an option that was chosen: another one."""
_COUNTING = re.compile(
    r"\\mathbb\{N\}(?:[\^_](?:\{?[+*]\}?|\{[^{}]*\}))?|\\mathbb\{Z\}[\^_]\{?(?:\+|>0)\}?"
)
_PREFIX = re.compile(r"(\\text\{[A-Za-z ]+:\s*\})\s*([(\[\\].*)")
_MOST_ITEMS = 100
_ROUNDED = 0.05
"""Relative error allowed between the two sides of an approximation sign, if its digits allow it."""
_DECIMAL = re.compile(r"-?(\d+?)(0*)(?:\.(\d+))?")


def judge_item(item: tuple[list[str], list[str], float]) -> bool:
    """The verdict on a JSON item (accepted golds, boxes of the answer, tolerance), for workers."""
    golds, boxes, tolerance = item
    return bool(boxes) and all(
        any(same_answer(gold, box, tolerance) for gold in golds) for box in boxes
    )


def same_answer(gold: str, answer: str, tolerance: float = TOLERANCE) -> bool:
    """Are two answers equal?

    Args:
        gold: the gold answer, any LaTeX or plain text.
        answer: the content of a box.
        tolerance: relative error allowed where a decimal takes part.
    """
    gold, answer = normalise(gold), normalise(answer)
    if not gold or not answer:
        return False
    keys = key(gold), key(answer)
    if keys[0] == keys[1]:
        return True
    if max(len(gold), len(answer)) > MAX_LENGTH or max(depth(gold), depth(answer)) > MAX_DEPTH:
        return False
    words = word_key(gold)
    if words is not None and words == word_key(answer):
        return True
    one, other = map(_LETTER_ALONE.fullmatch, keys)
    if one and other:
        if r"\text" in gold:
            return one[1].upper() == other[1].upper()
        if one[1] == other[1]:
            return True
    if _labelled(gold, answer, tolerance):
        return True
    gold, answer = map(_unprefixed, (gold, answer))
    return _Comparison(tolerance).same(*_renamed(parse(gold), parse(answer)))


def _labelled(gold: str, answer: str, tolerance: float) -> bool:
    """Is an option with its label, `(B) 12`, equal to the same or to its label or text alone?"""
    sides = [_LABELLED.fullmatch(side) for side in (gold, answer)]
    if not any(sides):
        return False
    for side in sides:
        text = " ".join(group for group in side.groups()[1::2] if group) if side else ""
        if _FURTHER_LABEL.search(text) or DENIED.search(text):
            return False
    (one, gold), (other, answer) = (
        [group for group in side.groups() if group] if side else [text, text]
        for side, text in zip(sides, (gold, answer), strict=True)
    )
    equal = _Comparison(tolerance).same(parse(gold), parse(answer))
    return equal and one == other if all(sides) else equal or _option(one) == _option(other)


def _unprefixed(text: str) -> str:
    r"""Without the `\text{Range: }` before a set."""
    match = _PREFIX.fullmatch(text)
    if match is None or r":}" in match[2] or OF_ANOTHER.search(match[1]):
        return text
    return match[2]


def _option(text: str) -> str:
    return re.sub(r"[().:]", "", key(text))


def _renamed(gold: Node, answer: Node) -> tuple[Node, Node]:
    r"""`k\pi, k \in \mathbb{Z}` and `n\pi, n \in \mathbb{Z}` with one name and no declaration.

    Likewise `f(x) = x` and `f(t) = t`.
    """
    (one, declared), (other, its) = _declared(gold), _declared(answer)
    if declared and its:
        if declared[1] != its[1]:
            return gold, answer
        other = _rename(other, its[0], declared[0])
    if isinstance(one, Relation) and isinstance(other, Relation):
        call, its_call = (_CALL.fullmatch(key(text_of(node.sides[0]))) for node in (one, other))
        if call and its_call and call[1] == its_call[1]:
            other = _rename(other, its_call[2], call[2])
    return one, other


def _declared(node: Node) -> tuple[Node, tuple[str, str] | None]:
    r"""A list without its last item `k \in \mathbb{Z}`, and that item's letter and domain."""
    items = node.items[:-1] if isinstance(node, Several) else ()
    if not items or not isinstance(node, Several) or any(map(_has_conditions, items)):
        return node, None
    last = node.items[-1]
    if not isinstance(last, Relation) or last.operators != ("in",):
        return node, None
    letter, domain = (text_of(side).strip() for side in last.sides)
    if _COUNTING.fullmatch(domain) and _depends(items[0], letter):
        domain = r"\mathbb{N}"
    elif domain not in (r"\mathbb{Z}", r"\mathbb{R}"):
        return node, None
    if not re.fullmatch("[a-zA-Z]", letter):
        return node, None
    return (items[0] if len(items) == 1 else Several(items, node.joined)), (letter, domain)


def _depends(node: Node, letter: str) -> bool:
    """Is it `a_n = ...` or `f(n) = ...`, of the letter n?"""
    name = key(text_of(node.sides[0])) if isinstance(node, Relation) else ""
    return bool(re.fullmatch(rf"[a-zA-Z](?:_\{{?{letter}\}}?|\({letter}\))", name))


def _rename(node: Node, letter: str, replacement: str) -> Node:
    """With two letters swapped."""
    if isinstance(node, Leaf):
        swapped = str.maketrans(letter + replacement, replacement + letter)
        pieces = re.split(r"(\\[a-zA-Z]+)", node.text)
        return Leaf("".join(p if p.startswith("\\") else p.translate(swapped) for p in pieces))
    inner = node.sides if isinstance(node, Relation) else getattr(node, "items", ())
    renamed = tuple(_rename(each, letter, replacement) for each in inner)
    if isinstance(node, Several | Ordered | Combined):
        return replace(node, items=renamed)
    return replace(node, sides=renamed) if isinstance(node, Relation) else node


class _Comparison:
    """Recursive comparison of two forms with one tolerance."""

    def __init__(self, tolerance: float) -> None:
        self.values = ValueComparison(tolerance)

    def same(self, gold: Node, answer: Node) -> bool:
        if gold == answer:
            return True
        if isinstance(gold, Leaf) and isinstance(answer, Leaf):
            return self.values.same(gold.text, answer.text)
        if Combined in (type(gold), type(answer)) and _real_sets(gold, answer):
            return True
        if isinstance(gold, Several) and len(gold.items) == 1:
            return self.same(gold.items[0], answer)
        if isinstance(answer, Several) and len(answer.items) == 1:
            return self.same(gold, answer.items[0])
        if isinstance(answer, Several) and answer.joined == "or" and isinstance(gold, Leaf):
            leaves = all(isinstance(item, Leaf) for item in answer.items)  # 1/2 or 0.5
            return leaves and all(self.same(gold, item) for item in answer.items)
        if isinstance(gold, Congruence) or isinstance(answer, Congruence):
            return self._congruences(gold, answer)
        if {type(gold), type(answer)} & {Several, Ordered}:
            gold, answer = _system(gold), _system(answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self._relations(gold, answer)
        if isinstance(gold, Cases) and isinstance(answer, Cases):
            return self._in_any_order(
                [Ordered("(", row, ")") for row in gold.rows],
                [Ordered("(", row, ")") for row in answer.rows],
            )
        if Leaf in (type(gold), type(answer)) and {type(gold), type(answer)} & {Matrix, Ordered}:
            gold, answer = _as_vector(gold, answer), _as_vector(answer, gold)
        if isinstance(gold, Matrix) or isinstance(answer, Matrix):
            return self._matrices(gold, answer)
        if isinstance(gold, Ordered) and isinstance(answer, Ordered):
            # the kind of bracket matters for an interval, not for three or more items
            alike = gold.opening + gold.ending == answer.opening + answer.ending
            alike = alike or len(gold.items) > 2
            return alike and self._in_order(gold.items, answer.items) or _real_sets(gold, answer)
        if isinstance(gold, Several | Ordered) and isinstance(answer, Several | Ordered):
            return self._lists(gold, answer)
        if isinstance(gold, Combined) and isinstance(answer, Combined):
            same = self._in_order if gold.operator == "setminus" else self._in_any_order
            return gold.operator == answer.operator and same(gold.items, answer.items)
        for one, other in ((gold, answer), (answer, gold)):
            grouped = as_list(text_of(one))
            if grouped and isinstance(other, Several):
                return self._in_any_order(grouped.items, other.items)
        return _real_sets(gold, answer)

    def _lists(self, gold: Several | Ordered, answer: Several | Ordered) -> bool:
        """Compare lists and sets in any order, tuples in order, conditions by their solutions."""
        sides = (gold, answer)
        assigned = [_assigned(side) for side in sides]
        several = all(isinstance(side, Several) for side in sides)
        if several and bool(assigned[0]) is bool(assigned[1]):
            if any(map(_has_conditions, sides)):
                sets = real_set(gold), real_set(answer)
                if sets[0] is not None and sets[1] is not None:
                    return _same_variable(gold, answer) and bool(sets[0] == sets[1])
                if len({side.joined == "or" for side in sides if isinstance(side, Several)}) > 1:
                    return False
            return self._in_any_order(gold.items, answer.items)
        if several and _has_indices(gold) is not _has_indices(answer):  # x_1 = 1, x_2 = 2
            one, other = (
                values or side.items for values, side in zip(assigned, sides, strict=True)
            )
            return not any(map(_has_conditions, sides)) and self._in_any_order(one, other)
        # a tuple without its brackets, or as x = 1, y = 2
        one, other = (values or _listed(side) for values, side in zip(assigned, sides, strict=True))
        return self._in_order(one, other) if one and other else _real_sets(gold, answer)

    def _in_order(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        return len(gold) == len(answer) and all(map(self.same, gold, answer))

    def _in_any_order(self, gold: Sequence[Node], answer: Sequence[Node]) -> bool:
        if len(gold) != len(answer) or len(gold) > _MOST_ITEMS:
            return False
        remaining = list(answer)
        for node in gold:
            match = next((other for other in remaining if self.same(node, other)), None)
            if match is None:
                return False
            remaining.remove(match)
        return True

    def _matrices(self, gold: Node, answer: Node) -> bool:
        rows = [_rows(gold), _rows(answer)]
        if rows[0] is None or rows[1] is None:
            return self.values.same_without_unit(_latex_of(gold), _latex_of(answer))
        if len(rows[0]) == len(rows[1]):
            return all(map(self._in_order, rows[0], rows[1]))
        flat = [[cell for row in side for cell in row] for side in (rows[0], rows[1])]
        vectors = all(len(side) == 1 or len(side[0]) == 1 for side in (rows[0], rows[1]))
        loose = not (isinstance(gold, Matrix) and isinstance(answer, Matrix))
        return vectors and loose and self._in_order(flat[0], flat[1])

    def _congruences(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Congruence) and isinstance(answer, Congruence):
            one, other = key(gold.name), key(answer.name)
            same = gold.modulus == answer.modulus and (one == other or not (one and other))
            return same and (gold.residue - answer.residue) % gold.modulus == 0
        if not isinstance(answer, Congruence):
            return False
        number = read_number(text_of(gold))  # the remainder asked for
        return number is not None and number.value == answer.residue < answer.modulus

    def _relations(self, gold: Node, answer: Node) -> bool:
        if isinstance(gold, Relation) and isinstance(answer, Relation):
            if _is_equation(gold) and _is_equation(answer):
                return self._equations(gold, answer)
            if gold.operators == answer.operators == ("in",):
                same_name = key(text_of(gold.sides[0])) == key(text_of(answer.sides[0]))
                return same_name and self.same(gold.sides[1], answer.sides[1])
            if self._inequalities(gold, answer):
                return True
        intervals = [side for side in map(interval, (gold, answer)) if side]
        if len(intervals) == 2:
            one, other = intervals
            if (one[0] == other[0] or "" in (one[0], other[0])) and self.same(one[1], other[1]):
                return True
        if isinstance(gold, Relation) and isinstance(answer, Relation):
            return _real_sets(gold, answer)
        if isinstance(answer, Relation) and _is_equation(answer):
            return any(self.same(gold, side) for side in self._stated(answer))
        if isinstance(gold, Relation) and _is_equation(gold):
            return any(self.same(side, answer) for side in self._stated(gold))
        for member, compared in ((gold, answer), (answer, gold)):
            if isinstance(member, Relation) and member.operators == ("in",) and variables(member):
                return _same_variable(gold, answer) and self.same(member.sides[1], compared)
        return _real_sets(gold, answer)

    def _stated(self, equation: Relation) -> list[Node]:
        r"""The values that an equation states: `x = 4`, `1 + 2 = 3`, `x = \sqrt2 \approx 1.41`.

        Empty where it must be solved, as `2x = 4`, or where two of its constants differ.
        """
        sides, signs = list(equation.sides), list(equation.operators)
        if len(sides) == 2 and _is_name(sides[1]) and not _is_name(sides[0]):
            sides.reverse()
        named = _is_name(sides[0])
        while len(sides) > 1 and _is_name(sides[0]) and (len(sides) > 2 or named):
            sides.pop(0), signs.pop(0)  # x = y = 4
        if not named and not _is_constant(sides[0]):
            return []
        for one, sign, other in zip(sides, signs[-len(sides) + 1 :], sides[1:], strict=False):
            comparison = _Comparison(_rounding(other)) if sign == "approx" else self
            constants = _is_constant(one) and _is_constant(other)
            if constants and not comparison.same(one, other):
                return []
        rounded = signs[-1:] == ["approx"] and len(sides) > 1
        decimal = re.fullmatch(r"-?\d*\.\d+", text_of(sides[-1]).strip())
        last = sides[-1:] if named or decimal or not rounded else []
        return last + (sides[-2:-1] if rounded else [])

    def _equations(self, gold: Relation, answer: Relation) -> bool:
        unknowns = _unknowns(gold) if len(gold.sides) > 2 else set()
        if len(unknowns) > 1:
            if not unknowns <= _unknowns(answer):
                return False
            if len(unknowns) == len(gold.sides):
                return len(answer.sides) == len(gold.sides)
            return any(self.same(gold.sides[-1], side) for side in self._stated(answer))
        named = [_is_name(side.sides[0]) for side in (gold, answer)]
        if all(named):
            same_name = _name_key(gold.sides[0]) == _name_key(answer.sides[0])
            if same_name and any(self.same(gold.sides[-1], side) for side in self._stated(answer)):
                return True
        if not len(gold.sides) == len(answer.sides) == 2:
            return False
        if all(isinstance(side, Ordered) for side in (*gold.sides, *answer.sides)):
            return self._in_order(gold.sides, answer.sides)
        one, other = _differences(gold, answer, 0)
        if one is None or other is None:
            return False
        if proportional(one, other, positive=False):
            return True
        return proportional(without_denominators(one), without_denominators(other), positive=False)

    def _inequalities(self, gold: Relation, answer: Relation) -> bool:
        """Are the links of two chains equal, read from the left or from the right?"""
        if len(gold.operators) != len(answer.operators):
            return False
        backwards = Relation(
            tuple(FLIPPED.get(operator, operator) for operator in reversed(answer.operators)),
            tuple(reversed(answer.sides)),
        )
        candidates = [side for side in (answer, backwards) if side.operators == gold.operators]
        if any(self._in_order(gold.sides, candidate.sides) for candidate in candidates):
            return True
        if {"in", "notin"} & set(gold.operators):
            return False
        return any(all(_same_links(gold, candidate)) for candidate in candidates)


def _unknowns(equation: Relation) -> set[str]:
    """The sides of `x = y = 1` or `AB = BC = 1` that are variables; VI of `P = VI = 1` is none."""
    sides = {key(text_of(side)) for side in equation.sides if _is_name(side)} - {"e", "i"}
    names = {name for name in sides if _VARIABLE.fullmatch(name)}
    return {name for name in names if not re.fullmatch("[A-Z]{2,}", name)} or names


def _system(node: Node) -> Node:
    """`x = y = 1` as `x = 1, y = 1`; any other node as it is."""
    if not isinstance(node, Relation) or set(node.operators) != {"="} or len(node.sides) < 3:
        return node
    *unknowns, value = node.sides
    if len(_unknowns(node)) < len(unknowns) or _is_name(value):
        return node
    return Several(tuple(Relation(("=",), (name, value)) for name in unknowns), "and")


def _rounding(node: Node) -> float:
    """Relative error by which a number may be rounded or cut: less than one of its last digit."""
    text = text_of(node).strip()
    match = _DECIMAL.fullmatch(text)
    if not match or not float(text):
        return _ROUNDED
    place = 10.0 ** (-len(match[3]) if match[3] else len(match[2]))
    return min(_ROUNDED, place / abs(float(text)) * (1 - 1e-9))


def _same_links(gold: Relation, answer: Relation) -> Iterator[bool]:
    for place, operator in enumerate(gold.operators):
        one, other = _differences(gold, answer, place)
        comparable = one is not None and other is not None
        yield comparable and proportional(one, other, positive=operator not in ("=", "neq"))


def _real_sets(gold: Node, answer: Node) -> bool:
    if not _same_variable(gold, answer):
        return False
    gold_set = real_set(gold)
    answer_set = None if gold_set is None else real_set(answer)
    return answer_set is not None and bool(gold_set == answer_set)


def _same_variable(gold: Node, answer: Node) -> bool:
    one, other = variables(gold), variables(answer)
    return not one or not other or one == other


def _rows(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    if isinstance(node, Matrix):
        return node.rows
    if isinstance(node, Ordered):
        if all(isinstance(item, Ordered) for item in node.items):
            return tuple(item.items for item in node.items if isinstance(item, Ordered))
        return tuple((item,) for item in node.items)
    return None


def _as_vector(node: Node, other: Node) -> Node:
    """`2i - 3j` as a vector of as many entries as the other one; any other node as it is."""
    rows = _rows(other)
    cells = [cell for row in rows for cell in row] if rows and isinstance(node, Leaf) else []
    text = re.sub(r"\\(?:hat|vec)\{\s*\\?([ijk])(?:math)?\s*\}", r"\1 ", text_of(node))
    if len(cells) not in (2, 3) or not re.search(r"(?<![\\a-zA-Z])[jk](?![a-zA-Z])", text):
        return node
    expression = read_expression(text)
    units = [sympy.Symbol(name) for name in "ijk"[: len(cells)]]
    if not isinstance(expression, sympy.Expr) or not expression.free_symbols <= set(units):
        return node
    sums = [expression.subs({unit: int(unit == one) for unit in units}) for one in units]
    constant = expression.subs(dict.fromkeys(units, 0))
    linear = sympy.Add(*(c * unit for c, unit in zip(sums, units, strict=True)))
    if constant != 0 or sympy.expand(expression.doit() - linear) != 0:
        return node
    return Ordered("(", tuple(Leaf(sympy.latex(entry)) for entry in sums), ")")


def _latex_of(node: Node) -> str:
    """A matrix or a product with one, as LaTeX."""
    if isinstance(node, Matrix):
        rows = r"\\".join("&".join(text_of(cell) for cell in row) for row in node.rows)
        return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"
    return text_of(node)


def _assigned(node: Several | Ordered) -> tuple[Node, ...]:
    """The values of `y = 2, x = 1` in the order of the names, where these are letters that follow
    each other, else as written; () where it is no such list."""
    if not isinstance(node, Several) or node.joined == "or":
        return ()
    values: dict[str, Node] = {}
    for item in node.items:
        if not isinstance(item, Relation) or item.operators != ("=",):
            return ()
        name = key(text_of(item.sides[0])).lstrip("\\")
        if not _VARIABLE.fullmatch(name) or name in values:
            return ()
        values[name] = item.sides[1]
    return tuple(values[name] for name in (sorted(values) if _follow(values) else values))


def _follow(names: Collection[str]) -> bool:
    """Are they x, y, z or a, b, or one letter with indices? Of (x, y, z, w) w comes last."""
    letters = sorted({re.sub(r"_\{?\w+\}?$", "", name) for name in names})
    steps = [ord(other[-1]) - ord(one[-1]) for one, other in pairwise(letters)]
    return all(len(name) == 1 for name in letters) and {*steps} <= {1} and letters[0] != "w"


def _has_indices(node: Several | Ordered) -> bool:
    """Is it `x_1 = 2, x_2 = 3`, the solutions for one variable?"""
    if not _assigned(node):
        return False
    names = [key(text_of(item.sides[0])) for item in node.items if isinstance(item, Relation)]
    letters = {re.sub(r"_\{?\d+\}?$", "", name) for name in names}
    return len(letters) == 1 and len(names) > 1 and all("_" in name for name in names)


def _listed(node: Several | Ordered) -> tuple[Node, ...]:
    """The items of a list that may be a tuple; () of a set, an interval or conditions."""
    loose = (
        (node.joined == ",") if isinstance(node, Several) else node.opening + node.ending == "()"
    )
    return node.items if loose and not _has_conditions(node) else ()


def _has_conditions(node: Node) -> bool:
    if isinstance(node, Several):
        return any(_has_conditions(item) for item in node.items)
    return isinstance(node, Relation) and not _is_equation(node)


def _is_name(node: Node) -> bool:
    text = re.sub(r"(?<=[a-zA-Z]) (?=[(_^'])", "", text_of(node).strip())
    if _OPERATION.fullmatch(text):
        integral = text.startswith(r"\int")  # of what may be a sum
        return (integral or not top_level(text, _SIGN)) and not _is_constant(node)
    return bool(_NAME.fullmatch(text)) and not DENIED.search(text)


def _name_key(node: Node) -> str:
    """dy/dx is y', f(x) is y."""
    text = re.sub(r"^[fy]\(x\)$", "y", key(text_of(node)))
    match = re.fullmatch(r"\\frac\{d(\^2)?([a-z])\}\{d([a-z])(\^2)?\}", text)
    return match[2] + ("''" if match[1] else "'") if match and match[1] == match[4] else text


def _is_equation(relation: Relation) -> bool:
    return set(relation.operators) <= {"=", "approx"}


def _is_constant(node: Node) -> bool:
    """A value without variables, which can be read."""
    text = split_quantity(text_of(node), True).text
    if read_number(text):
        return True
    expression = read_expression(text) if text else None
    if not isinstance(expression, sympy.Expr) or names(expression):
        return False
    return not expression.has(AppliedUndef)


def _differences(gold: Relation, answer: Relation, place: int) -> list[sympy.Expr | None]:
    functions = functions_in(*(text_of(side) for side in (*gold.sides, *answer.sides)))
    return [_difference(relation, place, functions) for relation in (gold, answer)]


def _difference(relation: Relation, place: int, functions: str) -> sympy.Expr | None:
    """Left side minus right side of one link of a relation."""
    sides = [relation.sides[place], relation.sides[place + 1]]
    expressions = [
        read_expression(side.text, functions) if isinstance(side, Leaf) else None for side in sides
    ]
    if not all(isinstance(side, sympy.Expr) for side in expressions):
        return None
    return sympy.Add(expressions[0], sympy.Mul(-1, expressions[1], evaluate=False), evaluate=False)
