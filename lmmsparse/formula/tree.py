"""The syntax tree of one side of a formula, and the text of its leaves.

Calls are kept whole: what is inside them is Python, not formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from lmmsparse.common.errors import FormulaError
from lmmsparse.formula.tokens import Token, check_columns_callable, python_text, quote_name


@dataclass(frozen=True)
class Name:
    """A column, or ``.`` for all others."""

    token: Token
    start: int
    end: int


@dataclass(frozen=True)
class Number:
    """A number, as in ``0 + x``."""

    value: float
    start: int
    end: int


@dataclass(frozen=True)
class Call:
    """A call such as ``log(x)``; `tokens` from the function's name to the last parenthesis."""

    tokens: tuple[Token, ...]
    start: int
    end: int

    @property
    def function(self) -> str:
        """Name of the function."""
        return self.tokens[0].value


@dataclass(frozen=True)
class Paren:
    """Something in parentheses."""

    inner: Node
    start: int
    end: int


@dataclass(frozen=True)
class Sum:
    """Summands with their signs, +1 or -1."""

    items: tuple[tuple[int, Node], ...]
    start: int
    end: int


@dataclass(frozen=True)
class Product:
    """Two operands of one of ``* / : %in% ^`` (``**`` is read as ``^``)."""

    operator: str
    left: Node
    right: Node
    start: int
    end: int


@dataclass(frozen=True)
class Bar:
    """``effects | group`` or, with `double`, ``effects || group``."""

    left: Node
    right: Node
    double: bool
    start: int
    end: int


@dataclass(frozen=True)
class Special:
    """A bar with a named covariance structure: ``diag(effects | group, hom=True)``."""

    structure: str
    bar: Bar
    hom: bool | None
    start: int
    end: int


Node: TypeAlias = Name | Number | Call | Paren | Sum | Product | Bar | Special
Leaf: TypeAlias = Name | Call


def fail(message: str, text: str, node: Node | Token) -> NoReturn:
    """Raise a `FormulaError` that underlines `node`."""
    raise FormulaError(message, text, node.start, node.end - node.start)


def unwrap(node: Node) -> Node:
    """The node without the parentheses around it."""
    while isinstance(node, Paren):
        node = node.inner
    return node


def slice_of(text: str, node: Node) -> str:
    """What the user wrote for `node`, on one line."""
    return " ".join(text[node.start : node.end].split())


def is_dot(node: Node) -> bool:
    """Whether the node is ``.``."""
    return isinstance(node, Name) and node.token.kind == "name" and node.token.value == "."


def leaf_text(leaf: Leaf, text: str, *, in_formula: bool = True) -> str:
    """Expression for a column or call; `in_formula` refuses what formulaic cannot evaluate."""
    if isinstance(leaf, Name):
        return "." if is_dot(leaf) else quote_name(leaf.token.value, leaf.token.kind == "quoted")
    if in_formula:
        check_columns_callable(leaf.tokens, text)
    return python_text(leaf.tokens)


def leaf_display(leaf: Leaf) -> str:
    """Name to show for a column or call: no backquotes where they are not needed."""
    if isinstance(leaf, Name):
        return leaf.token.value
    return python_text(leaf.tokens, display=True)
