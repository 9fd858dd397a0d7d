"""Syntax trees → term labels as R expands them, and groupings.

A term is a set of variables (an int used as a bit set); variables are numbered by their first
appearance, which is the order in which a label names them.
"""

from __future__ import annotations

from lmmsparse._tokens import CONSTANTS
from lmmsparse._tree import (
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
    terms = algebra.expand(node)
    return tuple(algebra.label(term) for term in sorted(terms, key=int.bit_count))


class _Algebra:
    def __init__(self, text: str) -> None:
        self._text = text
        self._variables: list[str] = []

    def label(self, term: int) -> str:
        return ":".join(name for i, name in enumerate(self._variables) if term >> i & 1)

    def expand(self, node: Node) -> list[int]:
        match node:
            case Paren():
                return self.expand(node.inner)
            case Name() | Call():
                return [self._variable(node)]
            case Number():
                return []
            case Sum():
                terms: list[int] = []
                for sign, item in node.items:
                    expanded = self.expand(item)
                    if sign > 0:
                        terms = _unique(terms + expanded)
                    else:
                        terms = [term for term in terms if term not in expanded]
                return terms
            case Product():
                return self._product(node)
        fail(
            f'"{slice_of(self._text, node)}" cannot stand inside another random term. Each random '
            "term is a summand of its own. Write them one after the other, joined by +.",
            self._text,
            node,
        )

    def _variable(self, leaf: Leaf) -> int:
        if is_dot(leaf):
            fail(
                'The "." cannot be used here. It stands for all other columns and only works as a '
                "term of the fixed part. Write the columns you mean.",
                self._text,
                leaf,
            )
        name = leaf_text(leaf, self._text)
        if name not in self._variables:
            self._variables.append(name)
        return 1 << self._variables.index(name)

    def _product(self, node: Product) -> list[int]:
        left = self.expand(node.left)
        if node.operator == "^":
            terms = left
            for _ in range(power_of(node, self._text) - 1):
                terms = _interact(terms, left)
            return terms
        right = self.expand(node.right)
        if not left or not right:  # an operand whose terms were all subtracted
            return [] if node.operator == ":" else left
        match node.operator:
            case ":":
                return _interact(left, right)
            case "*":
                return _unique(left + right + _interact(left, right))
            case "/":
                return _unique(left + _interact([_union(left)], right))
            case _:
                return _interact(left, [_union(right)])


def _unique(terms: list[int]) -> list[int]:
    return list(dict.fromkeys(terms))


def _interact(left: list[int], right: list[int]) -> list[int]:
    return _unique([a | b for a in left for b in right])


def _union(terms: list[int]) -> int:
    union = 0
    for term in terms:
        union |= term
    return union


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
    for grouping in _groupings(node, text):
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
    left, right = _groupings(node.left, text), _groupings(node.right, text)
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


def _joined(text: str, *parts: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
    leaves: dict[str, Leaf] = {}
    for part in parts:
        for leaf in part:
            leaves.setdefault(_key(leaf, text), leaf)
    return tuple(leaves.values())
