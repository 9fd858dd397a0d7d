"""Syntax trees → term labels as R expands them, and groupings.

A term is a set of variables, which are numbered by their first appearance; two terms of the same
variables are one, and the first names them in its order.
"""

from __future__ import annotations

from collections.abc import Iterator

from lmmsparse.formula import limits
from lmmsparse.formula.places import one_line
from lmmsparse.formula.tokens import CONSTANTS, tokenize
from lmmsparse.formula.tree import (
    Call,
    Leaf,
    Name,
    Node,
    Number,
    Paren,
    Product,
    Sum,
    is_dot,
    leaf_text,
    unwrap,
    walk,
)

_MAX_POWER = 20


def term_labels(node: Node) -> tuple[str, ...]:
    """Labels of the terms a model expression expands to, lowest order of interaction first.

    Returns
    -------
    tuple of str
        ``("x", "z", "x:z")`` for ``x*z``.
    """
    algebra = _Algebra()
    terms = sorted(algebra.expand(node), key=len)
    names = list(algebra.variables)
    return tuple(":".join(names[i] for i in sorted(term)) for term in terms)


def expanded(node: Node) -> tuple[tuple[Leaf, ...], ...]:
    """The terms of a model expression as columns and calls, lowest order of interaction first.

    The variables of a term are in the order in which the term, not the formula, names them.
    """
    algebra = _Algebra()
    terms = sorted(algebra.expand(node), key=len)
    return algebra.leaves(terms)


def left_of_bar(term: str) -> str:
    """The effects of a random term ``(effects | group)`` as written, with blanks around ``+``.

    Examples
    --------
    >>> left_of_bar("(x+ `a+b`|g)")
    'x + `a+b`'
    """
    text, end = "", 0
    for token in tokenize(term)[1:]:
        if token.is_op("|", "||"):
            break
        plus = token.is_op("+")
        gap = "" if text.endswith(" + ") or plus else term[end : token.start] if text else ""
        text = f"{text.rstrip()} + " if plus else text + gap + term[token.start : token.end]
        end = token.end
    return one_line(text)


def groupings(node: Node) -> tuple[tuple[Leaf, ...], ...]:
    """Expand the right side of a bar into groupings, each a tuple of columns or calls.

    ``a/b`` gives ``a`` and ``a:b``, ``a*b`` gives ``a``, ``b`` and ``a:b``, ``a + b`` gives both,
    in this order and without repetitions.
    """
    for part in walk(node):
        _check_grouping(part)
    algebra = _Algebra(groups=True)
    return algebra.leaves(algebra.few(algebra.expand(node), node))


def idle_products(node: Node) -> Iterator[tuple[Product, str]]:
    """Powers and products that are no more than their one variable, such as ``x^2``."""
    end = -1
    for part in walk(node):
        if not isinstance(part, Product) or part.start < end:
            continue
        if part.operator == "^" and power_of(part) == 1:
            continue
        leaves = [leaf for leaf in walk(part) if isinstance(leaf, Name | Call)]
        names = {leaf_text(leaf, in_formula=False) for leaf in leaves}
        if len(names) == 1 and not is_dot(leaves[0]):
            end = part.end
            yield part, names.pop()


_Term = tuple[int, ...]


class _Algebra:
    """Expands products; `variables` are those met, in order of appearance.

    `groups` says that terms are groupings, which are fewer and may call what formulaic cannot.
    """

    def __init__(self, groups: bool = False) -> None:
        self._groups = groups
        self._numbers: dict[str, int] = {}
        self.variables: dict[str, Leaf] = {}

    def leaves(self, terms: list[_Term]) -> tuple[tuple[Leaf, ...], ...]:
        leaves = list(self.variables.values())
        return tuple(tuple(leaves[i] for i in term) for term in terms)

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
                return self.few(self._product(node), node)
        node.fail(
            f'"{node.written}" cannot stand inside another random term. Write them one after the '
            "other, joined by +."
        )

    def _variable(self, leaf: Leaf) -> _Term:
        if is_dot(leaf):
            leaf.fail(
                'The "." cannot be used here; it works only as a term of the fixed part. Write '
                "the columns you mean."
            )
        name = leaf_text(leaf, in_formula=not self._groups)
        self.variables.setdefault(name, leaf)
        return (self._numbers.setdefault(name, len(self._numbers)),)

    def _product(self, node: Product) -> list[_Term]:
        left = self.expand(node.left)
        if node.operator == "^":
            terms = left
            for _ in range(power_of(node) - 1):
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
        if longest > limits.ORDER and not self._groups:
            node.fail(
                limits.beyond(
                    f'"{_start_of(node)}" has a term of {longest} variables',
                    f"{limits.ORDER} variables in one term",
                    "Leave out interactions of high order.",
                )
            )
        return terms

    def _too_many(self, node: Product, count: int) -> None:
        node.fail(
            limits.beyond(
                f'"{_start_of(node)}" stands for {count:,} terms',
                f"{limits.INTERACTIONS:,} interactions",
                "Write the terms that are needed, or a power such as (a + b + c)^2.",
            )
        )

    def few(self, terms: list[_Term], node: Node) -> list[_Term]:
        if self._groups and len(terms) > limits.GROUPINGS:
            node.fail(
                limits.beyond(
                    f'"{_start_of(node)}" stands for {len(terms):,} groupings or more',
                    f"{limits.GROUPINGS} random-effects terms",
                    "Write the groupings that are needed.",
                )
            )
        return terms


def _start_of(node: Node) -> str:
    shown = node.written
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _unique(terms: list[_Term]) -> list[_Term]:
    found: dict[frozenset[int], _Term] = {}
    for term in terms:
        found.setdefault(frozenset(term), term)
    return list(found.values())


def _union(terms: list[_Term]) -> _Term:
    return tuple(dict.fromkeys(i for term in terms for i in term))


def power_of(node: Product) -> int:
    """The exponent of ``(a + b)^2``, which must be a small positive whole number."""
    exponent = unwrap(node.right)
    if isinstance(exponent, Number) and exponent.value in range(1, _MAX_POWER + 1):
        return int(exponent.value)
    exponent.fail(
        f'The power "{exponent.written}" must be a small positive whole number: (a + b)^2 means '
        "a, b and their interaction. For arithmetic write I(x^2), with your own column and power."
    )


def _check_grouping(node: Node) -> None:
    """Refuse what has no meaning to the right of a bar."""
    match node:
        case Name() | Call():
            _check_group(node)
        case Number():
            node.fail(
                f'The number "{node.written}" cannot be a grouping. Write the name of the '
                "grouping column, for example (1|group)."
            )
        case Sum():
            for sign, item in node.items:
                if sign < 0:
                    item.fail(
                        f'"{item.written}" cannot be subtracted from a grouping. Groupings can be '
                        "nested (a/b), crossed (a:b, a*b) or listed (a + b)."
                    )
        case Product(operator="^"):
            node.fail(
                f'A power cannot be a grouping: "{node.written}". Groupings can be nested (a/b), '
                "crossed (a:b, a*b) or listed (a + b)."
            )
        case Paren() | Product():
            pass
        case _:
            node.fail(
                f'There is more than one | in "{node.written}". Write each random term in its own '
                "parentheses, joined by +."
            )


def _check_group(leaf: Leaf) -> None:
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
    leaf.fail(
        f"{what} cannot be a grouping. {why}. Write the name of the grouping column, for example "
        "(1|group)."
    )
