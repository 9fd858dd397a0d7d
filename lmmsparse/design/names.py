"""Names a formula may use, and a check of every expression before it is evaluated.

A formula is evaluated by Python, and a saved model carries its formula. Only columns, the functions
listed here, formulaic's transforms, numpy's numerical functions and the user's `context` are
therefore reachable: no builtins, no private attributes, no input or output.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from formulaic.materializers.types import FactorValues
from formulaic.transforms import TRANSFORMS

from lmmsparse._tokens import is_column_word, tokenize
from lmmsparse.design.frame import close_match, listed
from lmmsparse.errors import DataError, FormulaError
from lmmsparse.formula import referenced_names

_NP_FUNCTIONS = {
    "where", "clip", "minimum", "maximum", "round", "cumsum", "diff", "mean", "median", "std",
    "var", "sum", "min", "max", "interp", "digitize", "asarray", "array", "isin", "pi", "e", "nan",
    "float64", "int64", "select", "abs", "linspace", "arange", "quantile", "percentile",
}  # fmt: skip
_METHODS = {
    "str", "dt", "cat", "lower", "upper", "strip", "len", "slice", "contains", "startswith",
    "endswith", "replace", "codes", "year", "month", "day", "hour", "dayofweek", "days",
    "total_seconds", "astype", "clip", "abs", "round", "shift", "rank", "fillna", "isin", "between",
    "cumsum", "cumprod", "diff", "mean", "median", "std", "var", "sum", "min", "max", "isna",
    "notna", "eq", "ne", "lt", "le", "gt", "ge", "T", "values", "quantile",
}  # fmt: skip
_ALLOWED = (
    ast.Expression, ast.Call, ast.Name, ast.Attribute, ast.Constant, ast.BinOp, ast.UnaryOp,
    ast.BoolOp, ast.Compare, ast.List, ast.Tuple, ast.Dict, ast.Subscript, ast.Slice, ast.keyword,
    ast.IfExp, ast.Load, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
# What users of R, mgcv and patsy write from habit.
_HABITS = {
    "cbind": "A model has one response; fit one and use m.refit_many(Y) for the others.",
    "s": "Smooth terms are not fitted here; bs(x, df=5) is a spline without penalty.",
    "te": "Smooth terms are not fitted here; bs(x, df=5) is a spline without penalty.",
    "ns": "Write cr(x, df=5) for a natural cubic spline.",
    "rcs": "Write cr(x, df=5) for a natural cubic spline.",
    "relevel": "Write C(x, Treatment('level')) for another reference level.",
    "ordered": "Make the column an ordered pandas Categorical.",
    "as.factor": "Write factor(x).",
    "as.numeric": "Write numeric(x).",
    "ifelse": "Write np.where(condition, a, b).",
    "pow": "Write I(x ** 2).",
}
_QUOTED = re.compile(r"`([^`]*)`")


def dummy(values: Any, level: Any = None) -> Any:
    """Indicator columns of a factor's levels: one level, or all but the first."""
    series = pd.Series(values).astype("category")
    chosen = list(series.cat.categories[1:]) if level is None else np.atleast_1d(level).tolist()
    unknown = [v for v in chosen if v not in set(series.cat.categories)]
    if unknown:
        raise DataError(
            f"dummy(): {unknown[0]!r} is not a level of {series.name!r}. Its levels are "
            f"{listed(series.cat.categories)}. Name one of these."
        )
    columns = [(series == v).to_numpy(dtype=np.float64) for v in chosen]
    if len(columns) == 1:
        return columns[0]
    values = np.column_stack(columns) if columns else np.zeros((len(series), 0))
    names = tuple(str(v) for v in chosen)
    return FactorValues(values, column_names=names)


def interaction(*columns: Any) -> pd.Series:
    """Labels of the combinations of several factors, joined by "."; missing where one is."""
    series = [pd.Series(column) for column in columns]
    missing = np.logical_or.reduce([s.isna().to_numpy() for s in series])
    text = series[0].astype(str)
    for other in series[1:]:
        text = text + "." + other.astype(str)
    return text.astype(object).mask(missing)


def factor(values: Any, *args: Any, **kwargs: Any) -> Any:
    """R's name for treating a column as categorical."""
    return TRANSFORMS["C"](values, *args, **kwargs)


def _as_numeric(values: Any) -> Any:
    return pd.to_numeric(pd.Series(values).astype(object)).astype(np.float64)


FUNCTIONS: dict[str, Any] = {
    "sqrt": np.sqrt, "abs": np.abs, "sin": np.sin, "cos": np.cos, "tan": np.tan, "log1p": np.log1p,
    "expm1": np.expm1, "floor": np.floor, "ceil": np.ceil, "round": np.round, "dummy": dummy,
    "interaction": interaction, "factor": factor, "numeric": _as_numeric,
}  # fmt: skip
PLAIN_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "factor": lambda values, *a, **k: values,
    "C": lambda values, *a, **k: values,
    "I": lambda values: values,
    **{name: TRANSFORMS[name] for name in ("exp", "exp2", "exp10", "log", "log2", "log10")},
}


def namespace(context: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a formula may name besides columns and formulaic's own transforms."""
    return {**FUNCTIONS, **(context or {})}


def columns_of(
    text: str, columns: Iterable[str], context: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Data columns a formula part or expression uses, each once.

    Raises
    ------
    DataError, FormulaError
        As `check_expression`.
    """
    columns = list(columns)
    known, own = set(columns), dict(context or {})
    used: dict[str, None] = {}
    for name in referenced_names(text):
        if name in known:
            used[name] = None
        elif name not in own and name not in FUNCTIONS:
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

    Raises
    ------
    DataError
        For a name that is neither a column nor a known function.
    FormulaError
        For syntax that has no place in a formula.
    """
    columns, extra = list(columns), dict(context or {})
    data = set(columns)
    used: dict[str, None] = {}
    quoted: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        name = f"quoted_{len(quoted)}_"
        quoted[name] = match.group(1)
        return name

    text = _QUOTED.sub(stand_in, expression)
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise FormulaError(
            f"{expression!r} cannot be read as an expression. Only columns, functions and "
            "arithmetic are possible inside a call. Check brackets, commas and quotes."
        ) from error
    known = set(TRANSFORMS) | set(FUNCTIONS) | set(PLAIN_FUNCTIONS) | set(extra)
    functions = (known | {"np"}) - {"Q"}
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise FormulaError(
                f"{expression!r} uses Python syntax ({type(node).__name__}) that a formula does "
                "not allow. Compute the column first, or pass a function through context=."
            )
        if isinstance(node, ast.Name):
            name = quoted.get(node.id, node.id)
            if name in functions and _is_called(tree, node):
                continue
            if name in data:
                used[name] = None
            elif name not in known:
                raise unknown_name(name, columns, called=_is_called(tree, node))
            elif name == "Q":
                raise FormulaError(
                    f"{expression!r} uses Q(). A formula reads names with spaces or signs in "
                    "backquotes. Write `my column` instead of Q('my column')."
                )
        if isinstance(node, ast.Attribute):
            _check_attribute(expression, node, data, extra)
    return tuple(used)


def _is_called(tree: ast.AST, name: ast.Name) -> bool:
    owners = {n.func for n in ast.walk(tree) if isinstance(n, ast.Call)}
    if name.id == "np":
        owners |= {f.value for f in owners if isinstance(f, ast.Attribute) and hasattr(np, f.attr)}
    return name in owners


def unknown_name(name: str, columns: Iterable[str], called: bool = False) -> DataError:
    """The error for a name that stands for nothing."""
    columns = list(columns)
    if called:
        functions = sorted(set(TRANSFORMS) | set(FUNCTIONS))
        hint = f" {_HABITS[name]}" if name in _HABITS else close_match(name, functions)
        return DataError(
            f"The formula calls {name}(), which is not known.{hint} "
            f"Available are {', '.join(functions)} and np.…; pass functions of your own as "
            f"context={{{name!r}: {name}}}."
        )
    if name in TRANSFORMS or name in FUNCTIONS:
        return DataError(
            f"The formula names {name!r}, which is not a column of the data but a function. It is "
            f"only known when it is called. Write {name}(), in C(x, Sum()) for example."
        )
    return DataError(
        f"The formula names {name!r}, which is not a column of the data."
        f"{close_match(name, columns)} The columns are {listed(columns, 20)}. Correct the name, or "
        "pass other names as context=."
    )


def _check_attribute(
    expression: str, node: ast.Attribute, columns: set[str], context: Mapping[str, Any]
) -> None:
    root: ast.AST = node
    while isinstance(root, (ast.Attribute, ast.Call, ast.Subscript)):
        root = root.func if isinstance(root, ast.Call) else root.value
    name = root.id if isinstance(root, ast.Name) else ""
    attr = node.attr
    direct = isinstance(node.value, ast.Name)
    if attr.startswith("_"):
        allowed = False
    elif name == "np" and direct:
        allowed = attr in _NP_FUNCTIONS or isinstance(getattr(np, attr, None), np.ufunc)
    elif (name == "contr" and direct) or (name in context and name not in columns):
        allowed = True
    else:
        allowed = attr in _METHODS
    if not allowed:
        raise FormulaError(
            f"{expression!r} uses .{attr}, which a formula does not allow. Compute the column "
            "before fitting, or pass a function through context=."
        )


@lru_cache(maxsize=1024)
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
