"""Names a formula may use, and a check of every expression before it is evaluated.

Whatever is wrong with an expression can be said from its names, before any data are looked at.
What is evaluated, and that nothing else is reached, is up to `evaluate`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lmmsparse.common.errors import DataError, FormulaError
from lmmsparse.common.habits import habit
from lmmsparse.common.words import close_match, listed, shortened
from lmmsparse.design.functions import (
    ANY_ATTRIBUTE,
    CODINGS,
    FUNCTIONS,
    NUMPY,
    NUMPY_CONSTANTS,
)
from lmmsparse.formula.expression import Expression, bare, read_expression, spelled
from lmmsparse.formula.references import references

KNOWN = frozenset({*FUNCTIONS, "np", "contr"})
_LABELS = re.compile(r"(C|factor|interaction|dummy)\(")
LEARNING = frozenset(name for name, function in FUNCTIONS.items() if function.learns)


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
    found = references(text)
    for name in found.names:
        if name in known:
            used[name] = None
        elif name not in own:
            raise unknown_name(name, columns)
    for call in found.calls:
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


def labels_in(parts: Iterable[str]) -> set[str]:
    """Columns of formula parts whose values are taken for labels, whatever they are."""
    calls = [call for text in parts for call in references(text).calls]
    found = (references(call).names for call in calls if _LABELS.match(call))
    return {name for names in found for name in names}


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
        if advice := habit("functions", name):
            return DataError(f"The formula calls {name}(), which is not known. {advice}")
        functions = sorted(FUNCTIONS)
        return DataError(
            f"The formula calls {name}(), which is not known.{close_match(name, functions)} "
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
