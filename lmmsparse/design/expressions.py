"""Names a formula may use, and a check of every expression before it is evaluated.

Whatever is wrong with an expression can be said from its names, before any data are looked at.
What is evaluated, and that nothing else is reached, is up to `evaluate`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from lmmsparse.common.errors import DataError, FormulaError
from lmmsparse.common.words import close_match, listed, shortened
from lmmsparse.design.functions import (
    ANY_ATTRIBUTE,
    CODINGS,
    FUNCTIONS,
    NUMPY,
    NUMPY_CONSTANTS,
)
from lmmsparse.formula.expression import Expression, bare, read_expression, spelled
from lmmsparse.formula.formula import referenced_names
from lmmsparse.formula.limits import remembered
from lmmsparse.formula.tokens import is_column_word, tokenize

KNOWN = frozenset({*FUNCTIONS, "np", "contr"})
LEARNING = frozenset(name for name, function in FUNCTIONS.items() if function.learns)
# What users of R, mgcv and patsy write from habit.
_HABITS = {
    "cbind": "A model has one response; fit one and use m.refit_many(Y) for the others.",
    "s": "Smooth terms are not fitted here; bs(x, df=5) is a spline without penalty.",
    "te": "Smooth terms are not fitted here; bs(x, df=5) is a spline without penalty.",
    "ns": "Write cr(x, df=5, constraints='center') for a natural cubic spline.",
    "rcs": "Write cr(x, df=5, constraints='center') for a natural cubic spline.",
    "c": "Write a list in square brackets, such as [2, 3].",
    "list": "Write a list in square brackets, such as [2, 3].",
    "seq": "Write a list in square brackets, such as [1, 2, 3], or np.arange(1, 4).",
    "cut": "Make the column with pandas.cut first.",
    "relevel": "Write C(x, Treatment('level')) for another reference level.",
    "ordered": "Make the column an ordered pandas Categorical.",
    "as.factor": "Write factor(x).",
    "as.numeric": "Write numeric(x).",
    "ifelse": "Write np.where(condition, a, b).",
    "pow": "Write I(x ** 2).",
}


def own_names(context: Mapping[str, Any] | None) -> dict[str, Any]:
    """The names of `context` that a formula may use: not those that Python keeps for itself."""
    return {name: value for name, value in (context or {}).items() if not name.startswith("__")}


def columns_of(
    text: str, columns: Iterable[str], context: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Data columns a formula part or expression uses, each once."""
    columns = list(columns)
    known, own = set(columns), own_names(context)
    used: dict[str, None] = {}
    for name in referenced_names(text):
        if name in known:
            used[name] = None
        elif name not in own:
            raise unknown_name(name, columns)
    for call in split_calls(text)[1]:
        used.update(dict.fromkeys(check_expression(call, columns, own)))
    return tuple(used)


def check_expression(
    expression: str, columns: Iterable[str], context: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Refuse an expression that names something unknown or reaches outside the data.

    Returns
    -------
    tuple of str
        The columns it uses.
    """
    columns, own = list(columns), own_names(context)
    data = set(columns)
    read = read_expression(expression)
    used: dict[str, None] = {}
    for name in read.called:
        if name == "Q":
            raise FormulaError(
                f"{expression!r} uses Q(). Write `my column`, in backquotes, instead."
            )
        if name not in own and name not in KNOWN:
            raise unknown_name(name, columns, called=True)
    for name in read.names:
        if name in data:
            used[name] = None
        elif name not in own and name not in KNOWN:
            raise unknown_name(name, columns)
    for node in ast.walk(read.tree):
        if isinstance(node, ast.Attribute) and not _may_be_allowed(node, data, own):
            raise FormulaError(
                f"{shortened(expression)} uses .{node.attr}, which a formula does not allow. "
                "Compute the column before fitting, or pass a function through context=."
            )
    return tuple(used)


def learning_calls(expression: Expression | None) -> tuple[str, ...]:
    """The calls in an expression that keep what they learn from the data, such as poly(x, 2)."""
    if expression is None or LEARNING.isdisjoint(expression.called):
        return ()
    return tuple(
        spelled(node)
        for node in ast.walk(expression.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in LEARNING
    )


def _may_be_allowed(node: ast.Attribute, columns: set[str], context: Mapping[str, Any]) -> bool:
    """Whether an attribute is one that some value of a formula may have."""
    if node.attr.startswith("_"):
        return False
    root = node.value
    if isinstance(root, ast.Name) and root.id == "np" and "np" not in context:
        return node.attr in NUMPY or node.attr in NUMPY_CONSTANTS
    if not isinstance(root, ast.Name) or bare(root.id) in columns:
        return node.attr in ANY_ATTRIBUTE
    if root.id in context:
        return True
    return root.id == "contr" and node.attr in CODINGS


def unknown_name(name: str, columns: Iterable[str], called: bool = False) -> DataError:
    """The error for a name that stands for nothing."""
    columns = list(columns)
    if called:
        functions = sorted(FUNCTIONS)
        hint = f" {_HABITS[name]}" if name in _HABITS else close_match(name, functions)
        return DataError(
            f"The formula calls {name}(), which is not known.{hint} "
            f"Available are {', '.join(functions)} and np.…; pass functions of your own as "
            f"context={{{name!r}: {name}}}."
        )
    if name in FUNCTIONS:
        return DataError(
            f"The formula names {name!r}, which is not a column of the data but a function. Call "
            f"it, {name}(), in C(x, Sum()) for example."
        )
    return DataError(
        f"The formula names {name!r}, which is not a column of the data."
        f"{close_match(name, columns)} The columns are {listed(columns, 20)}. Correct the name, or "
        "pass other names as context=."
    )


@remembered
def split_calls(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A formula part → the names that stand by themselves, and the calls, as texts.

    Examples
    --------
    >>> split_calls("1 + x:f + np.log(z) + (poly(x, 2) + `my age`)")
    (('x', 'f', 'my age'), ('np.log(z)', 'poly(x, 2)'))
    """
    tokens = tokenize(text)
    names: dict[str, None] = {}
    calls: list[str] = []
    i = 0
    while i < len(tokens) - 1:
        token = tokens[i]
        if token.kind == "quoted":
            names[token.value] = None
        elif token.kind == "name" and tokens[i + 1].is_op("(", "["):
            depth, end = 0, i + 1
            while True:  # brackets match: tokenize has seen to that
                depth += tokens[end].is_op("(", "[") - tokens[end].is_op(")", "]")
                more = tokens[end + 1].is_op("(", "[") or tokens[end + 1].value.startswith(".")
                if depth == 0 and not more:
                    break
                end += 1
            calls.append(text[token.start : tokens[end].end])
            i = end
        elif token.kind == "name" and token.value.strip(".") and is_column_word(token.value):
            names[token.value] = None
        i += 1
    return tuple(names), tuple(calls)
