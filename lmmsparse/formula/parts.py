"""The text of a formula part → its terms, each a product of columns and expressions.

The text is the one that `formula` writes: summands with an explicit intercept, all columns written
out. Texts of saved models come here too, so everything is read as if a stranger had written it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lmmsparse.common.errors import FormulaError
from lmmsparse.formula.expression import Expression, read_expression
from lmmsparse.formula.limits import remembered
from lmmsparse.formula.parser import parse_side
from lmmsparse.formula.summands import Summands
from lmmsparse.formula.terms import expanded
from lmmsparse.formula.tokens import python_text, tokenize
from lmmsparse.formula.tree import Name


@dataclass(frozen=True)
class Variable:
    """A column, or what an expression computes."""

    text: str
    is_column: bool = True
    expression: Expression | None = field(default=None, compare=False)


@remembered
def read_part(text: str) -> tuple[tuple[Variable, ...], ...]:
    """The terms of a formula part in the order of their columns; the intercept is ``()``.

    Examples
    --------
    >>> [[v.text for v in term] for term in read_part("1 + x*log( z )")]
    [[], ['x'], ['log(z)'], ['x', 'log(z)']]
    """
    tokens = tokenize(text)[:-1]
    if not tokens:
        raise FormulaError("A part of the formula is empty.")
    node = parse_side(tokens)
    side = Summands("effects")
    side.collect(node)
    terms: list[tuple[Variable, ...]] = [()] if side.intercept else []
    seen = {frozenset(term) for term in terms}
    for leaves in expanded(node):
        term = tuple(
            dict.fromkeys(
                Variable(leaf.token.value)
                if isinstance(leaf, Name)
                else _expression(python_text(leaf.tokens))
                for leaf in leaves
            )
        )
        if frozenset(term) not in seen:  # x^2 and x ** 2 are one
            seen.add(frozenset(term))
            terms.append(term)
    return tuple(terms)


def _expression(text: str) -> Variable:
    expression = read_expression(text)
    return Variable(expression.text, False, expression)
