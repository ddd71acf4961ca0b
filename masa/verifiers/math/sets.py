"""Intervals, unions, differences and inequalities of one variable as sets of real numbers."""

import re

import sympy

from masa.verifiers.math.expressions import read_expression
from masa.verifiers.math.latex import key
from masa.verifiers.math.numbers import read_number
from masa.verifiers.math.structure import Combined, Leaf, Node, Ordered, Relation, Several

FLIPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le"}
_VARIABLE = re.compile(r"\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\([a-zA-Z]\))?|\\text\{[^{}]*\}")
_CONSTANTS = {r"\infty", r"\pi", "e"}


def text_of(node: Node) -> str:
    """The text of a Leaf, "" of everything else."""
    return node.text if isinstance(node, Leaf) else ""


def variables(node: Node) -> set[str]:
    """The variables of the inequalities and memberships of a form."""
    if isinstance(node, Relation):
        sides = [key(text_of(side)) for side in node.sides]
        absolute = {bars[0] for bars in map(_in_bars, sides) if bars}
        return absolute | {side for side in sides if _is_variable(side)}
    if isinstance(node, Several | Combined):
        return {name for item in node.items for name in variables(item)}
    return set()


def _is_variable(text: str) -> bool:
    return bool(_VARIABLE.fullmatch(text)) and text not in _CONSTANTS


def _in_bars(text: str) -> tuple[str, sympy.Expr, sympy.Expr] | None:
    """The name, the factor and the summand of `|x|` or `|2x - 4|`."""
    match = re.fullmatch(r"\|([^|]+)\|", text)
    if match is None:
        return None
    if _is_variable(match[1]):
        return match[1], sympy.Integer(1), sympy.Integer(0)
    # a linear term has no power, whose expansion may take long
    expression = None if re.search(r"\^|!", match[1]) else read_expression(match[1])
    if not isinstance(expression, sympy.Expr) or len(expression.free_symbols) != 1:
        return None
    name = next(iter(expression.free_symbols))
    summand = expression.subs(name, 0).doit()
    factor = sympy.expand(expression.doit() - summand).coeff(name)
    linear = name.name.isalpha() and sympy.expand(expression - factor * name - summand) == 0
    real = factor.is_real and summand.is_real and factor.is_nonzero
    return (name.name, factor, summand) if linear and real else None


def interval(node: Node) -> tuple[str, Ordered] | None:
    r"""`-a < x < a`, `x > a` and `x \in (-a, a)` as the name and the interval; "" for `(-a, a)`."""
    if isinstance(node, Ordered):
        return "", node
    if not isinstance(node, Relation):
        return None
    operators, sides = node.operators, node.sides
    if operators == ("in",) and isinstance(sides[1], Ordered):
        return key(text_of(sides[0])), sides[1]
    if len(sides) == 2 and operators[0] in FLIPPED:
        return _half_line(operators[0], *sides)
    if len(sides) != 3 or not _VARIABLE.fullmatch(key(text_of(sides[1]))):
        return None
    if set(operators) <= {">", "ge"}:
        operators, sides = tuple(FLIPPED[sign] for sign in operators[::-1]), sides[::-1]
    if not set(operators) <= {"<", "le"}:
        return None
    opening, ending = "(" if operators[0] == "<" else "[", ")" if operators[1] == "<" else "]"
    return key(text_of(sides[1])), Ordered(opening, (sides[0], sides[2]), ending)


def _half_line(operator: str, left: Node, right: Node) -> tuple[str, Ordered] | None:
    """The name and the interval of `x > a`."""
    if not _is_variable(key(text_of(left))):
        operator, left, right = FLIPPED[operator], right, left
    name = key(text_of(left))
    if not _is_variable(name):
        return None
    if operator in (">", "ge"):
        bounds = Ordered("(" if operator == ">" else "[", (right, Leaf(r"\infty")), ")")
    else:
        bounds = Ordered("(", (Leaf(r"-\infty"), right), ")" if operator == "<" else "]")
    return name, bounds


def real_set(node: Node) -> sympy.Set | None:
    """The set that a form describes; None where it describes none, or one not supported here."""
    if len(variables(node)) > 1:
        return None
    return _set(node)


def _set(node: Node) -> sympy.Set | None:
    if isinstance(node, Ordered):
        if len(node.items) != 2:
            return None
        return _interval(node.items[0], node.items[1], node.opening == "(", node.ending == ")")
    if isinstance(node, Combined):
        return _combined(node)
    if isinstance(node, Several):
        return _several(node)
    if isinstance(node, Relation):
        return _relation(node)
    name = text_of(node).strip()
    if name == r"\mathbb{R}":
        return sympy.S.Reals
    return sympy.S.EmptySet if name == r"\emptyset" else None


def _combined(node: Combined) -> sympy.Set | None:
    parts = [_set(item) for item in node.items]
    if any(part is None for part in parts):
        return None
    if node.operator == "cup":
        return sympy.Union(*parts)
    if node.operator == "cap":
        return sympy.Intersection(*parts)
    difference = parts[0]
    for part in parts[1:]:
        difference = sympy.Complement(difference, part)
    return difference


def _several(node: Several) -> sympy.Set | None:
    """Conditions: an intersection by "and" and by a comma, unless that is empty; else a union."""
    if node.joined == "{":
        values = [_bound(item) for item in node.items]
        if any(value is None or not value.is_extended_real for value in values):
            return None
        return sympy.FiniteSet(*values)
    items: list[Node] = []
    for item in node.items:  # x \neq 1, 2
        before = items[-1] if items else None
        if isinstance(item, Leaf) and isinstance(before, Relation) and before.operators == ("neq",):
            item = Relation(("neq",), (before.sides[0], item))
        items.append(item)
    parts = [_set(item) for item in items]
    if any(part is None for part in parts):
        return None
    if all(isinstance(part, sympy.FiniteSet) for part in parts):
        return sympy.Union(*parts)
    meets = sympy.Intersection(*parts)
    if node.joined == "or":
        union = sympy.Union(*parts)
        # of two intervals the larger one alone would have been said
        hedged = any(part == union for part in parts) and any(isinstance(i, Ordered) for i in items)
        return None if hedged else union
    if node.joined == "," and (
        meets == sympy.S.EmptySet or not any(isinstance(item, Relation) for item in items)
    ):
        return sympy.Union(*parts)
    return meets


def _relation(relation: Relation) -> sympy.Set | None:
    """The set of a relation, such as `a < x <= b`."""
    operators, sides = relation.operators, relation.sides
    if operators == ("in",):
        return _set(sides[1])
    if operators == ("notin",):
        inside = _set(sides[1])
        return None if inside is None else sympy.Complement(sympy.S.Reals, inside)
    names = variables(relation)
    if len(names) != 1:
        return None
    name = names.pop()
    places = [key(text_of(side)) for side in sides]
    if len(sides) == 2 and (places[1] == name or _in_bars(places[1])):
        operators, sides = (FLIPPED.get(operators[0], operators[0]),), (sides[1], sides[0])
        places.reverse()
    if len(sides) == 2:
        bound = _bound(sides[1])
        if bound is None or not bound.is_extended_real:
            return None
        bars = _in_bars(places[0])
        if bars is None:
            return _between(operators[0], -sympy.oo, bound) if places[0] == name else None
        _, factor, summand = bars
        if not bound.is_nonnegative:
            return None
        low, high = sorted([(-bound - summand) / factor, (bound - summand) / factor])
        return _between(operators[0], low, high)
    chain = interval(relation)
    return _set(chain[1]) if chain else None


def _between(operator: str, low: sympy.Expr, high: sympy.Expr) -> sympy.Set | None:
    """Where `x < high`, for < and le; where |x - c| < r, of which these are the ends."""
    if operator in ("=", "neq"):
        values = sympy.FiniteSet(high) if low == -sympy.oo else sympy.FiniteSet(low, high)
        return values if operator == "=" else sympy.Complement(sympy.S.Reals, values)
    if operator in ("<", "le"):
        return sympy.Interval(low, high, operator == "<", operator == "<")
    if operator in (">", "ge"):
        rest = sympy.Interval(low, high, operator == "ge", operator == "ge")
        return sympy.Complement(sympy.S.Reals, rest)
    return None


def _interval(low: Node, high: Node, left_open: bool, right_open: bool) -> sympy.Set | None:
    least, most = _bound(low), _bound(high)
    if least is None or most is None or not (least.is_extended_real and most.is_extended_real):
        return None
    if least.is_finite and most.is_finite and not least < most:  # a point (3, 1)
        return None
    if (least.is_infinite and not left_open) or (most.is_infinite and not right_open):
        return None
    return sympy.Interval(least, most, left_open, right_open)


def _bound(node: Node) -> sympy.Expr | None:
    """A real constant; SymPy may evaluate it, as it is no tower of powers."""
    text = text_of(node).strip()
    if text in (r"\infty", r"-\infty"):
        return sympy.oo if text == r"\infty" else -sympy.oo
    number = read_number(text)
    if number:
        return sympy.Rational(*number.value.as_integer_ratio())
    expression = read_expression(text) if text and not re.search(r"\^.*\^|!", text) else None
    if not isinstance(expression, sympy.Expr) or expression.free_symbols:
        return None
    return expression.doit()
