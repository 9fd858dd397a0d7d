"""Truth values in arithmetic count as 0 and 1, as in R.

numpy's True + True is True, it has no True − True, and exp(True) in eleven bits.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

COUNTED = "counted__"
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_LOGICAL = (ast.BitAnd, ast.BitOr, ast.BitXor)
_FUNCTIONS = frozenset(
    "exp exp2 exp10 log log2 log10 log1p expm1 sqrt abs sin cos tan floor ceil round numeric poly "
    "center scale bs cr cc cs lag".split()
)
_METHODS = frozenset(
    "diff cumsum cumprod mean median std var sum min max quantile abs clip round rank".split()
)
_QUOTED = re.compile(r"`([^`]*)`")


def counted(values: Any) -> Any:
    """Truth values as 0 and 1, NaN where missing; anything else as it is."""
    if isinstance(values, (bool, np.bool_)):
        return int(values)
    if isinstance(values, np.ndarray) and values.dtype == bool:
        return values.astype(np.int64)
    if not isinstance(values, pd.Series):
        return values
    dtype = values.dtype
    if dtype == bool:
        return values.astype(np.int64)
    if dtype == object:
        truth = pd.api.types.infer_dtype(values, skipna=True) == "boolean"
    else:
        truth = pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype)
    return values.where(values.notna(), np.nan).astype(np.float64) if truth else values


@lru_cache(maxsize=1024)
def counting(
    expression: str,
    booleans: frozenset[str] | None = None,
    columns: frozenset[str] = frozenset(),
) -> str:
    """An expression in which operands of arithmetic that may be truth values are `counted`.

    What is called has another name in it where a column has the same: see `called`.

    Parameters
    ----------
    expression : str
        With names in backquotes where needed.
    booleans : frozenset of str or None
        The columns of truth values; None: any column may be one.
    columns : frozenset of str
        All columns.
    """
    quoted: list[str] = []

    def stand_in(match: re.Match[str]) -> str:
        quoted.append(match.group(1))
        return f"quoted_{len(quoted) - 1}_"

    tree = ast.parse(_QUOTED.sub(stand_in, expression).strip(), mode="eval")
    names = {f"quoted_{i}_": name for i, name in enumerate(quoted)}
    counter = _Counter(names, booleans, columns)
    tree = counter.visit(tree)
    if not counter.found:
        return expression
    text = ast.unparse(ast.fix_missing_locations(tree))
    return re.sub(r"\bquoted_(\d+)_\b", lambda match: f"`{quoted[int(match.group(1))]}`", text)


def called(functions: Mapping[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """Functions whose names columns have too, under the names that calls of them get."""
    return {f"called_{name}__": functions[name] for name in columns if name in functions}


def _is_numpy(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and hasattr(np, function.attr)


class _Counter(ast.NodeTransformer):
    def __init__(
        self, names: dict[str, str], booleans: Collection[str] | None, columns: Collection[str]
    ) -> None:
        self._names = names
        self._booleans = booleans
        self._columns = columns
        self.found = False

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, _ARITHMETIC):
            node.left, node.right = self._counted(node.left), self._counted(node.right)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, (ast.USub, ast.UAdd)):
            node.operand = self._counted(node.operand)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in _METHODS:
            function.value = self._counted(function.value)
        if self._computes(function):
            node.args = [self._counted(argument) for argument in node.args]
        owner = function
        while isinstance(owner, ast.Attribute):
            owner = owner.value
        if isinstance(owner, ast.Name) and owner.id in self._columns:
            if isinstance(function, ast.Name) or (owner.id == "np" and _is_numpy(function)):
                owner.id = f"called_{owner.id}__"
                self.found = True
        return node

    def _computes(self, function: ast.expr) -> bool:
        if isinstance(function, ast.Name):
            return function.id in _FUNCTIONS
        is_numpy = (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id == "np"
        )
        if not is_numpy:
            return False
        name = function.attr  # type: ignore[attr-defined]
        return name not in ("invert", "isin", "where", "select", "asarray", "array") and not (
            name.startswith(("bitwise", "logical", "is"))
        )

    def _counted(self, node: ast.expr) -> ast.expr:
        if not self._may_be_truth(node):
            return node
        self.found = True
        return ast.Call(ast.Name(COUNTED, ast.Load()), [node], [])

    def _may_be_truth(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            name = self._names.get(node.id, node.id)
            return name != "np" and (self._booleans is None or name in self._booleans)
        if isinstance(node, ast.UnaryOp):
            return isinstance(node.op, (ast.Not, ast.Invert))
        if isinstance(node, ast.BinOp):
            return isinstance(node.op, _LOGICAL)
        return isinstance(node, (ast.Compare, ast.BoolOp, ast.Call, ast.Subscript, ast.IfExp))
