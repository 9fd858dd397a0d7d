"""The syntax tree of one side of a formula, and the text of its leaves.

Calls are kept whole: what is inside them is Python, not formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from lmmsparse.formula.places import Place
from lmmsparse.formula.tokens import Token, check_columns_callable, python_text, quote_name


@dataclass(frozen=True)
class Name(Place):
    """A column, or ``.`` for all others."""

    token: Token


@dataclass(frozen=True)
class Number(Place):
    """A number, as in ``0 + x``."""

    value: float


@dataclass(frozen=True)
class Call(Place):
    """A call such as ``log(x)``; `tokens` from the function's name to the last parenthesis."""

    tokens: tuple[Token, ...]

    @property
    def function(self) -> str:
        """Name of the function."""
        return self.tokens[0].value


@dataclass(frozen=True)
class Paren(Place):
    """Something in parentheses."""

    inner: Node


@dataclass(frozen=True)
class Sum(Place):
    """Summands with their signs, +1 or -1."""

    items: tuple[tuple[int, Node], ...]


@dataclass(frozen=True)
class Product(Place):
    """Two operands of one of ``* / : %in% ^`` (``**`` is read as ``^``)."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Bar(Place):
    """``effects | group`` or, with `double`, ``effects || group``."""

    left: Node
    right: Node
    double: bool


@dataclass(frozen=True)
class Special(Place):
    """A bar with a named covariance structure: ``diag(effects | group, hom=True)``."""

    structure: str
    bar: Bar
    hom: bool | None


Node: TypeAlias = Name | Number | Call | Paren | Sum | Product | Bar | Special
Leaf: TypeAlias = Name | Call


def unwrap(node: Node) -> Node:
    """The node without the parentheses around it."""
    while isinstance(node, Paren):
        node = node.inner
    return node


def is_dot(node: Node) -> bool:
    """Whether the node is ``.``."""
    return isinstance(node, Name) and node.token.kind == "name" and node.token.value == "."


def leaf_text(leaf: Leaf, *, in_formula: bool = True) -> str:
    """Expression for a column or call; `in_formula` refuses what formulaic cannot evaluate."""
    if isinstance(leaf, Name):
        return "." if is_dot(leaf) else quote_name(leaf.token.value, leaf.token.kind == "quoted")
    if in_formula:
        check_columns_callable(leaf.tokens)
    return python_text(leaf.tokens)


def leaf_display(leaf: Leaf) -> str:
    """Name to show for a column or call: no backquotes where they are not needed."""
    if isinstance(leaf, Name):
        return leaf.token.value
    return python_text(leaf.tokens, display=True)


def walk(node: Node) -> Iterator[Node]:
    """The node and all inside it, from left to right."""
    yield node
    match node:
        case Product():
            yield from walk(node.left)
            yield from walk(node.right)
        case Paren():
            yield from walk(node.inner)
        case Sum():
            for _, item in node.items:
                yield from walk(item)
