"""Is a given answer the gold answer? By form first, then by number, then by algebra."""

import re
from collections.abc import Sequence

import sympy

from masa.verifiers.expressions import proportional, read_expression, same_expression, same_number
from masa.verifiers.latex import MAX_DEPTH, MAX_LENGTH, depth, key, normalise
from masa.verifiers.numerals import TOLERANCE, read_number
from masa.verifiers.structure import Leaf, Matrix, Node, Ordered, Relation, Several, Union, parse
from masa.verifiers.units import strip_units

_BASE = re.compile(r"\(?(-?[0-9A-Fa-f]+)\)?_\{?(?:\\text\{)?(\d{1,2})\}?\}?")
_VARIABLE = re.compile(
    r"(?:\\?[a-zA-Z]+|\\text\{[^{}]*\})(?:_\{?\w+\}?)?'*(?:\([^()]*\))?(?:\^\{-1\}\([^()]*\))?"
)
_MOST_ITEMS = 100
_FLIPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le"}


def same_answer(gold: str, given: str, tolerance: float = TOLERANCE) -> bool:
    """Does `given` say what `gold` says?

    Args:
        gold: the reference, any LaTeX or plain text.
        given: the content of a box.
        tolerance: relative error allowed where a decimal takes part.
    """
    gold, given = normalise(gold), normalise(given)
    if not gold or not given:
        return False
    if key(gold) == key(given):
        return True
    if max(len(gold), len(given)) > MAX_LENGTH or max(depth(gold), depth(given)) > MAX_DEPTH:
        return False
    return _Comparison(tolerance).same(parse(gold), parse(given))


class _Comparison:
    """Recursive comparison of two forms under one tolerance."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    def same(self, gold: Node, given: Node) -> bool:
        if gold == given:
            return True
        if isinstance(gold, Relation) or isinstance(given, Relation):
            return self._relations(gold, given)
        if isinstance(gold, Matrix) or isinstance(given, Matrix):
            return self._matrices(gold, given)
        if isinstance(gold, Leaf) and isinstance(given, Leaf):
            return self._leaves(gold.text, given.text)
        if isinstance(gold, Ordered) and isinstance(given, Ordered):
            return self._brackets(gold, given) and self._in_order(gold.items, given.items)
        if isinstance(gold, Several) and isinstance(given, Several):
            if self._in_any_order(gold.items, given.items):
                return True
        elif isinstance(gold, Several) and isinstance(given, Ordered):
            return not gold.braces and self._in_order(gold.items, given.items)
        elif isinstance(gold, Ordered) and isinstance(given, Several):
            point = gold.opening == "(" and gold.ending == ")"
            return point and not given.braces and self._in_order(gold.items, given.items)
        elif isinstance(gold, Several) and len(gold.items) == 1:
            return self.same(gold.items[0], given)
        elif isinstance(given, Several) and len(given.items) == 1:
            return self.same(gold, given.items[0])
        elif isinstance(gold, Union) and isinstance(given, Union):
            if self._in_any_order(gold.items, given.items):
                return True
        return self._sets(gold, given)

    @staticmethod
    def _brackets(gold: Ordered, given: Ordered) -> bool:
        """Round and square differ for an interval; of three or more items they are style."""
        square = (gold.opening, gold.ending) == (given.opening, given.ending)
        return square or len(gold.items) > 2

    def _in_order(self, gold: Sequence[Node], given: Sequence[Node]) -> bool:
        return len(gold) == len(given) and all(map(self.same, gold, given))

    def _in_any_order(self, gold: Sequence[Node], given: Sequence[Node]) -> bool:
        if len(gold) != len(given) or len(gold) > _MOST_ITEMS:
            return False
        left = list(given)
        for node in gold:
            match = next((other for other in left if self.same(node, other)), None)
            if match is None:
                return False
            left.remove(match)
        return True

    def _matrices(self, gold: Node, given: Node) -> bool:
        rows = [_rows(gold), _rows(given)]
        if rows[0] is None or rows[1] is None:
            return False
        if len(rows[0]) == len(rows[1]):
            return all(map(self._in_order, rows[0], rows[1]))
        flat = [[cell for row in side for cell in row] for side in (rows[0], rows[1])]
        vectors = all(len(side) == 1 or len(side[0]) == 1 for side in (rows[0], rows[1]))
        loose = not (isinstance(gold, Matrix) and isinstance(given, Matrix))
        return vectors and loose and self._in_order(flat[0], flat[1])

    def _leaves(self, gold: str, given: str) -> bool:
        if key(gold) == key(given):
            return True
        based = self._bases(gold, given)
        if based is not None:
            return based
        gold_has_letters = re.search(r"[a-zA-Z]", re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+", "", gold))
        one, other = strip_units(gold), strip_units(given, symbols=not gold_has_letters)
        if one.unit and other.unit and one.unit != other.unit:
            return False
        if self._values(one.text, other.text):
            return True
        if one.percent is other.percent:
            return False
        hundredth = (
            (rf"\frac{{{one.text}}}{{100}}" if one.percent else one.text),
            (rf"\frac{{{other.text}}}{{100}}" if other.percent else other.text),
        )
        return self._values(*hundredth)

    def _bases(self, gold: str, given: str) -> bool | None:
        """Numbers of a stated base; None where there is none."""
        one, other = _BASE.fullmatch(key(gold)), _BASE.fullmatch(key(given))
        if one and other:
            return one[2] == other[2] and _digits(one[1]) == _digits(other[1])
        if one:
            if one[2] == "10":
                return self._values(one[1], given)
            return _digits(key(given).strip("()")) == _digits(one[1])  # the question names the base
        if other:
            value = _in_base(other[1], int(other[2]))
            return value is not None and self._values(gold, str(value))
        return None

    def _values(self, gold: str, given: str) -> bool:
        """Two values without units."""
        if key(gold) == key(given):
            return True
        one, other = read_number(gold), read_number(given)
        if one and other:
            return one.equals(other, self.tolerance)
        read_gold = None if one else read_expression(gold)
        read_given = None if other else read_expression(given)
        if one:
            return read_given is not None and same_number(one, read_given, self.tolerance)
        if other:
            return read_gold is not None and same_number(other, read_gold, self.tolerance)
        if read_gold is None or read_given is None:
            return False
        return same_expression(read_gold, read_given, self.tolerance)

    def _relations(self, gold: Node, given: Node) -> bool:
        if isinstance(gold, Relation) and isinstance(given, Relation):
            if _is_equation(gold) and _is_equation(given):
                return self._equations(gold, given)
            if self._inequalities(gold, given):
                return True
            if _variable(gold) != _variable(given):
                return False
        elif isinstance(given, Relation) and _is_equation(given):
            return self.same(gold, given.sides[-1])
        elif isinstance(gold, Relation) and _is_equation(gold):
            return _is_name(gold.sides[0]) and self.same(gold.sides[-1], given)
        return self._sets(gold, given)

    def _equations(self, gold: Relation, given: Relation) -> bool:
        named = [_is_name(side.sides[0]) for side in (gold, given)]
        if all(named):
            names = [key(_text(side.sides[0])) for side in (gold, given)]
            if names[0] == names[1] and self.same(gold.sides[-1], given.sides[-1]):
                return True
        one, other = _difference(gold, 0), _difference(given, 0)
        if len(gold.sides) != 2 or len(given.sides) != 2 or one is None or other is None:
            return False
        return proportional(one, other, positive=False)

    def _inequalities(self, gold: Relation, given: Relation) -> bool:
        """The same links, read from left to right or from right to left."""
        if len(gold.operators) != len(given.operators):
            return False
        backwards = Relation(
            tuple(_FLIPPED.get(operator, operator) for operator in reversed(given.operators)),
            tuple(reversed(given.sides)),
        )
        for candidate in (given, backwards):
            if gold.operators != candidate.operators:
                continue
            if self._in_order(gold.sides, candidate.sides):
                return True
            pairs = [
                (_difference(gold, place), _difference(candidate, place))
                for place in range(len(gold.operators))
            ]
            if "in" not in gold.operators and all(
                one is not None and other is not None and proportional(one, other, positive=True)
                for one, other in pairs
            ):
                return True
        return False

    def _sets(self, gold: Node, given: Node) -> bool:
        """Intervals, unions and inequalities of one variable as sets of real numbers."""
        one, other = _pieces(gold), _pieces(given)
        if one is None or other is None:
            return False
        if (one, other) != ([gold], [given]) and self._in_any_order(one, other):
            return True
        left, right = _real_set(one), _real_set(other)
        return left is not None and right is not None and bool(left == right)


def _rows(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    if isinstance(node, Matrix):
        return node.rows
    if isinstance(node, Ordered):
        if all(isinstance(item, Ordered) for item in node.items):
            return tuple(item.items for item in node.items if isinstance(item, Ordered))
        return tuple((item,) for item in node.items)
    return ((node,),) if isinstance(node, Leaf) else None


def _digits(number: str) -> str:
    """Without leading zeros, in one case."""
    return re.sub(r"^(-?)0+(?=.)", r"\1", number).casefold()


def _in_base(digits: str, base: int) -> int | None:
    try:
        return int(digits, base) if 2 <= base <= 36 else None
    except ValueError:
        return None


def _text(node: Node) -> str:
    return node.text if isinstance(node, Leaf) else ""


def _is_name(node: Node) -> bool:
    return bool(_VARIABLE.fullmatch(_text(node).replace(" ", "")))


def _is_equation(relation: Relation) -> bool:
    return set(relation.operators) == {"="}


def _variable(relation: Relation) -> str | None:
    names = [key(_text(side)) for side in relation.sides if _is_name(side)]
    names = [name for name in names if name not in (r"\infty", r"\pi", "e")]
    return names[0] if len(names) == 1 else None


def _difference(relation: Relation, place: int) -> sympy.Expr | None:
    """Left side minus right side of one link of a relation."""
    sides = [relation.sides[place], relation.sides[place + 1]]
    read = [read_expression(side.text) if isinstance(side, Leaf) else None for side in sides]
    if not all(isinstance(side, sympy.Expr) for side in read):
        return None
    return sympy.Add(read[0], sympy.Mul(-1, read[1], evaluate=False), evaluate=False)


_LEAST, _MOST = Leaf(r"-\infty"), Leaf(r"\infty")


def _pieces(node: Node) -> list[Node] | None:
    """A set of real numbers as intervals, numbers and named sets; None if it is none."""
    if isinstance(node, Ordered):
        return [node] if len(node.items) == 2 else None
    if isinstance(node, Leaf):
        return [node] if node.text.startswith((r"\mathbb", r"\emptyset")) else None
    if isinstance(node, Union) or (isinstance(node, Several) and not node.braces):
        parts = [_pieces(item) for item in node.items]
        return None if None in parts else [piece for part in parts for piece in part or ()]
    if isinstance(node, Several):
        return list(node.items)
    if isinstance(node, Relation):
        return _interval(node)
    return None


def _interval(relation: Relation) -> list[Node] | None:
    """`a < x <= b` and its kin as intervals."""
    name, operators, sides = _variable(relation), relation.operators, relation.sides
    if name is None:
        return None
    if operators == ("in",):
        return _pieces(sides[1])
    if len(sides) == 2 and key(_text(sides[1])) == name:
        operators, sides = (_FLIPPED.get(operators[0], operators[0]),), (sides[1], sides[0])
    if len(sides) == 2:
        bound, operator = sides[1], operators[0]
        if operator == "neq":
            return [Ordered("(", (_LEAST, bound), ")"), Ordered("(", (bound, _MOST), ")")]
        if operator in ("<", "le"):
            return [Ordered("(", (_LEAST, bound), ")" if operator == "<" else "]")]
        if operator in (">", "ge"):
            return [Ordered("(" if operator == ">" else "[", (bound, _MOST), ")")]
        return None
    if len(sides) != 3 or key(_text(sides[1])) != name:
        return None
    if set(operators) <= {">", "ge"}:
        operators = (_FLIPPED[operators[1]], _FLIPPED[operators[0]])
        sides = tuple(reversed(sides))
    if not set(operators) <= {"<", "le"}:
        return None
    opening, ending = "(" if operators[0] == "<" else "[", ")" if operators[1] == "<" else "]"
    return [Ordered(opening, (sides[0], sides[2]), ending)]


def _bound(node: Node) -> sympy.Expr | None:
    number = read_number(_text(node))
    if number:
        return sympy.Rational(*number.value.as_integer_ratio())
    read = read_expression(_text(node)) if isinstance(node, Leaf) else None
    return read if isinstance(read, sympy.Expr) and not read.free_symbols else None


def _real_set(pieces: Sequence[Node]) -> sympy.Set | None:
    """The union of the pieces as SymPy merges it."""
    whole: sympy.Set = sympy.S.EmptySet
    for piece in pieces:
        if isinstance(piece, Ordered):
            low, high = (_bound(item) for item in piece.items)
            if low is None or high is None or not (low.is_extended_real and high.is_extended_real):
                return None
            part: sympy.Set = sympy.Interval(low, high, piece.opening == "(", piece.ending == ")")
        elif _text(piece) == r"\mathbb{R}":
            part = sympy.S.Reals
        elif _text(piece).strip() == r"\emptyset":
            part = sympy.S.EmptySet
        else:
            value = _bound(piece)
            if value is None:
                return None
            part = sympy.FiniteSet(value)
        whole = sympy.Union(whole, part)
    return whole
