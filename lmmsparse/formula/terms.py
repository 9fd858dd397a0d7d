"""Syntax trees → term labels as R expands them, and groupings.

A term is a set of variables, which are numbered by their first appearance; two terms of the same
variables are one, and the first names them in its order.
"""

from __future__ import annotations

from lmmsparse.formula import limits
from lmmsparse.formula.tokens import CONSTANTS
from lmmsparse.formula.tree import (
    Call,
    Leaf,
    Name,
    Node,
    Number,
    Paren,
    Product,
    Sum,
    fail,
    is_dot,
    leaf_text,
    slice_of,
    unwrap,
)

_MAX_POWER = 20


def term_labels(node: Node, text: str) -> tuple[str, ...]:
    """Labels of the terms a model expression expands to, lowest order of interaction first.

    Parameters
    ----------
    node : Node
        Summands and products of columns and calls. The markers 0 and 1 are passed over.
    text : str
        The whole formula, for error messages.

    Returns
    -------
    tuple of str
        ``("x", "z", "x:z")`` for ``x*z``.
    """
    algebra = _Algebra(text)
    terms = sorted(algebra.expand(node), key=len)
    names = list(algebra.variables)
    return tuple(":".join(names[i] for i in sorted(term)) for term in terms)


def expanded(node: Node, text: str) -> tuple[tuple[Leaf, ...], ...]:
    """The terms of a model expression as columns and calls, lowest order of interaction first.

    The variables of a term are in the order in which the term, not the formula, names them.
    """
    algebra = _Algebra(text)
    terms = sorted(algebra.expand(node), key=len)
    leaves = list(algebra.variables.values())
    return tuple(tuple(leaves[i] for i in term) for term in terms)


_Term = tuple[int, ...]


class _Algebra:
    """Expands products; `variables` are those met, in order of appearance."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._numbers: dict[str, int] = {}
        self.variables: dict[str, Leaf] = {}

    def expand(self, node: Node) -> list[_Term]:
        match node:
            case Paren():
                return self.expand(node.inner)
            case Name() | Call():
                return [self._variable(node)]
            case Number():
                return []
            case Sum():
                terms: dict[frozenset[int], _Term] = {}
                for sign, item in node.items:
                    for term in self.expand(item):
                        if sign > 0:
                            terms.setdefault(frozenset(term), term)
                        else:
                            terms.pop(frozenset(term), None)
                return list(terms.values())
            case Product():
                return self._product(node)
        fail(
            f'"{slice_of(self._text, node)}" cannot stand inside another random term. Each random '
            "term is a summand of its own. Write them one after the other, joined by +.",
            self._text,
            node,
        )

    def _variable(self, leaf: Leaf) -> _Term:
        if is_dot(leaf):
            fail(
                'The "." cannot be used here. It stands for all other columns and only works as a '
                "term of the fixed part. Write the columns you mean.",
                self._text,
                leaf,
            )
        name = leaf_text(leaf, self._text)
        self.variables.setdefault(name, leaf)
        return (self._numbers.setdefault(name, len(self._numbers)),)

    def _product(self, node: Product) -> list[_Term]:
        left = self.expand(node.left)
        if node.operator == "^":
            terms = left
            for _ in range(power_of(node, self._text) - 1):
                before = len(terms)
                terms = self._interact(node, terms, left)
                if len(terms) == before:  # every product there is
                    break
            return terms
        right = self.expand(node.right)
        if not left or not right:  # an operand whose terms were all subtracted
            return [] if node.operator == ":" else left
        match node.operator:
            case ":":
                return self._interact(node, left, right)
            case "*":
                return _unique([*left, *right, *self._interact(node, left, right)])
            case "/":
                return _unique([*left, *self._interact(node, [_union(left)], right)])
            case _:
                return self._interact(node, left, [_union(right)])

    def _interact(self, node: Product, left: list[_Term], right: list[_Term]) -> list[_Term]:
        if len(left) * len(right) > limits.PRODUCTS:
            self._too_many(node, len(left) * len(right))
        terms = _unique([tuple(dict.fromkeys((*a, *b))) for a in left for b in right])
        if len(terms) > limits.INTERACTIONS:
            self._too_many(node, len(terms))
        longest = max(map(len, terms), default=0)
        if longest > limits.ORDER:
            limits.too_much(
                f'"{_start_of(self._text, node)}" has a term of {longest} variables',
                f"{limits.ORDER} variables in one term",
                "Leave out interactions of high order.",
                (self._text, node.start, node.end - node.start),
            )
        return terms

    def _too_many(self, node: Product, count: int) -> None:
        limits.too_much(
            f'"{_start_of(self._text, node)}" stands for {count:,} terms',
            f"{limits.INTERACTIONS:,} interactions",
            "Write the terms that are needed, or a power such as (a + b + c)^2.",
            (self._text, node.start, node.end - node.start),
        )


def _start_of(text: str, node: Node) -> str:
    shown = slice_of(text, node)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _unique(terms: list[_Term]) -> list[_Term]:
    found: dict[frozenset[int], _Term] = {}
    for term in terms:
        found.setdefault(frozenset(term), term)
    return list(found.values())


def _union(terms: list[_Term]) -> _Term:
    return tuple(dict.fromkeys(i for term in terms for i in term))


def power_of(node: Product, text: str) -> int:
    """The exponent of ``(a + b)^2``, which has to be a small positive whole number."""
    exponent = unwrap(node.right)
    if isinstance(exponent, Number) and exponent.value in range(1, _MAX_POWER + 1):
        return int(exponent.value)
    fail(
        f'The power "{slice_of(text, exponent)}" cannot be used here. In a formula, (a + b)^2 '
        "means a, b and their interaction, so the power has to be a small whole number. For "
        "arithmetic write I(x^2), with your own column and power.",
        text,
        exponent,
    )


def groupings(node: Node, text: str) -> list[tuple[Leaf, ...]]:
    """Expand the right side of a bar into groupings, each a tuple of columns or calls.

    ``a/b`` gives ``a`` and ``a:b``, ``a*b`` gives ``a``, ``b`` and ``a:b``, ``a + b`` gives both,
    in this order and without repetitions.
    """
    found: dict[frozenset[str], tuple[Leaf, ...]] = {}
    for grouping in _few(_groupings(node, text), node, text):
        found.setdefault(frozenset(_key(leaf, text) for leaf in grouping), grouping)
    return list(found.values())


def _key(leaf: Leaf, text: str) -> str:
    return leaf_text(leaf, text, in_formula=False)


def _groupings(node: Node, text: str) -> list[tuple[Leaf, ...]]:
    match node:
        case Paren():
            return _groupings(node.inner, text)
        case Name() | Call():
            _check_group(node, text)
            return [(node,)]
        case Number():
            fail(
                f'The number "{slice_of(text, node)}" cannot be a grouping. To the right of | '
                "stands the column that says which group a row belongs to. Write that column's "
                "name, for example (1|group).",
                text,
                node,
            )
        case Sum():
            for sign, item in node.items:
                if sign < 0:
                    fail(
                        f'"{slice_of(text, item)}" cannot be subtracted from a grouping. To the '
                        "right of | groupings can be nested (a/b), crossed (a:b, a*b) or listed "
                        "(a + b). List the groupings you want.",
                        text,
                        item,
                    )
            return [grouping for _, item in node.items for grouping in _groupings(item, text)]
        case Product():
            return _combine(node, text)
    fail(
        f'There is more than one | in "{slice_of(text, node)}". A random term has one | between '
        "its effects and its grouping. Write each random term in its own parentheses, joined by +.",
        text,
        node,
    )


def _check_group(leaf: Leaf, text: str) -> None:
    if isinstance(leaf, Call):
        if leaf.function != "offset":
            return
        what, why = "offset()", "An offset is added to the fixed part"
    elif is_dot(leaf):
        what, why = 'The "."', "It stands for all other columns"
    elif leaf.token.kind == "name" and leaf.token.value in CONSTANTS:
        what, why = f'"{leaf.token.value}"', "It is a constant, not a column"
    else:
        return
    fail(
        f"{what} cannot be a grouping. {why}. Write the name of the column that says which group "
        "a row belongs to, for example (1|group).",
        text,
        leaf,
    )


def _combine(node: Product, text: str) -> list[tuple[Leaf, ...]]:
    if node.operator == "^":
        fail(
            f'A power cannot be a grouping: "{slice_of(text, node)}". To the right of | groupings '
            "can be nested (a/b), crossed (a:b, a*b) or listed (a + b). List the groupings you "
            "want.",
            text,
            node,
        )
    left = _few(_groupings(node.left, text), node, text)
    right = _few(_groupings(node.right, text), node, text)
    match node.operator:
        case ":":
            return [_joined(text, a, b) for a in left for b in right]
        case "*":
            return [*left, *right, *(_joined(text, a, b) for a in left for b in right)]
        case "/":
            parents = _joined(text, *left)
            return [*left, *(_joined(text, parents, b) for b in right)]
        case _:
            return [_joined(text, a, *right) for a in left]


def _few(groupings: list[tuple[Leaf, ...]], node: Node, text: str) -> list[tuple[Leaf, ...]]:
    if len(groupings) > limits.GROUPINGS:
        limits.too_much(
            f'"{_start_of(text, node)}" stands for {len(groupings):,} groupings or more',
            f"{limits.GROUPINGS} random-effects terms",
            "Write the groupings that are needed.",
            (text, node.start, node.end - node.start),
        )
    return groupings


def _joined(text: str, *parts: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
    leaves: dict[str, Leaf] = {}
    for part in parts:
        for leaf in part:
            leaves.setdefault(_key(leaf, text), leaf)
    return tuple(leaves.values())
