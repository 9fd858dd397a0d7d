"""Syntax tree of one side → its summands for formulaic, intercept, offsets and random terms.

The intercept markers 0, 1 and -1 are taken out wherever they stand, the last one decides, as in R.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn

from lmmsparse.formula.expression import check_python
from lmmsparse.formula.terms import power_of, term_labels
from lmmsparse.formula.tokens import CONSTANTS, python_text
from lmmsparse.formula.tree import (
    Bar,
    Call,
    Name,
    Node,
    Number,
    Paren,
    Product,
    Special,
    Sum,
    is_dot,
    leaf_text,
    walk,
)


def joined(pieces: Iterable[tuple[int, str]], start: str = "") -> str:
    """Terms with their signs as one text, after `start`."""
    text = start
    for sign, piece in pieces:
        if text:
            text += f" + {piece}" if sign > 0 else f" - {piece}"
        else:
            text = piece if sign > 0 else f"-{piece}"
    return text


Where = Literal["fixed", "one-sided", "effects", "response"]


@dataclass(frozen=True)
class FoundBar:
    """A random term before its effects and groupings are expanded.

    `source` is the node with the parentheses, or the call, around the bar.
    """

    bar: Bar
    source: Node
    structure: str = "us"
    hom: bool | None = None


class Summands:
    """Collects the summands of a fixed part or of the left side of a bar.

    Attributes
    ----------
    intercept : bool
        Whether there is one; without a marker there is.
    offsets : list of str
        Python expressions.
    bars : list of FoundBar
        Random terms in the order of the text.
    """

    def __init__(self, where: Where) -> None:
        self._where = where
        self._terms: list[tuple[int, str]] = []
        self.intercept = True
        self.offsets: list[str] = []
        self.bars: list[FoundBar] = []

    def formula(self) -> str:
        """The summands for formulaic, the intercept first."""
        return joined(self._terms, "1" if self.intercept else "0")

    def collect(self, node: Node) -> None:
        """Take up all summands of `node`."""
        self._collect(node, 1, 1, self._terms)

    def _collect(self, node: Node, parity: int, sign: int, terms: list[tuple[int, str]]) -> None:
        # parity: sign with regard to the whole side; sign: with regard to the list `terms`
        match node:
            case Sum():
                for own, item in node.items:
                    self._collect(item, parity * own, sign * own, terms)
            case Paren(inner=Bar() as bar):
                self._added(node, parity)
                self.bars.append(FoundBar(bar, node))
            case Special():
                self._added(node, parity)
                self.bars.append(FoundBar(node.bar, node, node.structure, node.hom))
            case Paren():
                inner: list[tuple[int, str]] = []
                self._collect(node.inner, parity, 1, inner)
                while inner and inner[0][0] < 0:  # nothing is there yet to be taken away from
                    inner.pop(0)
                if all(own > 0 for own, _ in inner):
                    terms += [(sign, term) for _, term in inner]
                else:
                    terms.append((sign, f"({joined(inner)})"))
            case Number():
                self._mark_intercept(node, parity)
            case Call() if node.function == "offset" and self._where == "fixed":
                self._added(node, parity)
                self.offsets.append(self._offset(node))
            case _:
                self._mark_inside(node, parity)
                term = self.render(node)
                if self._where == "one-sided":
                    node.fail(
                        f'"{node.written}" is not a random term. This formula only chooses random '
                        "terms: leave it out."
                    )
                labels = term_labels(node) if _must_expand(node) else (term,)
                terms += [(sign, label) for label in labels]

    def _added(self, node: Node, parity: int) -> None:
        shown = node.written
        if self._where not in ("fixed", "one-sided"):
            node.fail(
                f'The random term "{shown}" stands inside another one. Write them one after the '
                "other, joined by +."
            )
        if parity < 0:
            what = "offset" if isinstance(node, Call) else "random term"
            node.fail(f'The {what} "{shown}" is subtracted. Leave it out, or add it with +.')

    def _mark_intercept(self, node: Number, parity: int) -> None:
        if node.value not in (0, 1):
            node.fail(
                f'The number "{node.written}" cannot be a term: only 1 (with intercept) and 0 or '
                "-1 (without) can. Remove it; a known amount is written offset(...)."
            )
        self.intercept = (node.value == 1) == (parity > 0)

    def _mark_inside(self, node: Node, parity: int) -> None:
        """Take up the markers in the sums inside a product, as in ``(1 + x)*z``."""
        match node:
            case Product():
                self._mark_inside(node.left, parity)
                self._mark_inside(node.right, parity)
            case Paren():
                self._mark_inside(node.inner, parity)
            case Sum():
                for sign, item in node.items:
                    if isinstance(item, Number):
                        self._mark_intercept(item, parity * sign)
                    else:
                        self._mark_inside(item, parity * sign)

    def _offset(self, node: Call) -> str:
        tokens = node.tokens[2:-1]
        depth, commas = 0, 0
        for token in tokens:
            depth += token.nesting
            commas += depth == 0 and token.is_op(",", "=")
        if not tokens or commas:
            node.fail(
                f'"{node.written}" must hold exactly one quantity, for example offset(x) or '
                "offset(log(x))."
            )
        check_python(tokens)
        return python_text(tokens)

    def render(self, node: Node) -> str:
        """Text for formulaic of a summand that has no intercept marker or random term in it."""
        match node:
            case Name() | Call():
                self._check_leaf(node)
                return leaf_text(node)
            case Product(operator="^"):
                return f"{self.render(node.left)}**{power_of(node)}"
            case Product():
                operator = ":" if node.operator == "%in%" else node.operator
                return f"{self.render(node.left)}{operator}{self.render(node.right)}"
            case Paren(inner=Sum() as inner):
                items = [pair for pair in inner.items if not isinstance(pair[1], Number)]
                if not items:
                    self._number_in_product(node)
                if items[0][0] < 0:
                    items[0][1].fail(
                        f'There is nothing "{items[0][1].written}" could be taken away from. A '
                        "minus leaves a term out: remove it, or write I(-x) with your own column."
                    )
                if len(items) == 1 and isinstance(items[0][1], Name | Call):
                    return self.render(items[0][1])
                return f"({joined((sign, self.render(item)) for sign, item in items)})"
            case Paren(inner=Product()):
                return f"({self.render(node.inner)})"
            case Paren(inner=Bar()) | Special() | Bar():
                node.fail(
                    f'The random term "{node.written}" is multiplied or combined with another '
                    "term. Join it with +; effects that vary between groups stand to the left of "
                    "its |."
                )
            case Paren():
                return self.render(node.inner)
            case _:
                self._number_in_product(node)

    def _number_in_product(self, node: Node) -> NoReturn:
        node.fail(
            f'"{node.written}" is a number inside a product. For arithmetic write I(2 * x), with '
            "your own column; write 0 or 1 for the intercept as a summand of its own."
        )

    def _check_leaf(self, leaf: Name | Call) -> None:
        if isinstance(leaf, Call):
            if leaf.function != "offset":
                return
            what, why = "offset(...)", "It is a summand of its own in the fixed part"
            advice = "Write + offset(...) beside the other fixed terms"
        elif leaf.token.kind == "name" and leaf.token.value in CONSTANTS:
            what, why = f'"{leaf.token.value}"', "It is a constant, not a column"
            advice = "Remove it, or write the column you mean"
        elif is_dot(leaf) and self._where != "fixed":
            what, why = '"."', "It stands for all other columns and only works in the fixed part"
            advice = "Write the columns you mean"
        else:
            return
        leaf.fail(f"{what} cannot stand here. {why}. {advice}.")


def _must_expand(node: Node) -> bool:
    """Whether formulaic would not read the product as R does: ``%in%``, minus inside."""
    parts = list(walk(node))
    if any(isinstance(part, Product) and part.operator == "%in%" for part in parts):
        return True
    minus = any(isinstance(part, Sum) and any(s < 0 for s, _ in part.items) for part in parts)
    return minus and not any(is_dot(part) for part in parts)
