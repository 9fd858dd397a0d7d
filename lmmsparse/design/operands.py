"""Values inside a formula: what kind they are, and whether they may be combined."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.errors import FormulaError
from lmmsparse.common.words import shortened
from lmmsparse.design.counting import counted
from lmmsparse.formula import limits
from lmmsparse.formula.expression import spelled
from lmmsparse.formula.limits import too_much

SCALARS = (bool, int, float, np.generic, pd.Timestamp, pd.Timedelta)
WORD = 63  # bits of a whole number


BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}  # fmt: skip
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: counted, ast.USub: lambda value: -counted(value), ast.Invert: operator.invert,
    ast.Not: operator.not_,
}  # fmt: skip
COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right, ast.NotIn: lambda left, right: left not in right,
}  # fmt: skip


def kind_of(value: Any) -> str:
    """Which table of methods a value has."""
    if isinstance(value, pd.Series):
        return "column"
    if isinstance(value, (np.ndarray, np.number)):
        return "array"
    if isinstance(value, pd.Timedelta):
        return "time"
    name = type(value).__name__
    if type(value).__module__.startswith("pandas."):
        if name == "StringMethods":
            return "text"
        if name in ("DatetimeProperties", "TimedeltaProperties", "CombinedDatetimelikeProperties"):
            return "time"
        if name == "CategoricalAccessor":
            return "categories"
    return "other"


def flattened(values: list[Any]) -> list[Any]:
    """Values without the lists around them."""
    while any(isinstance(value, (list, tuple)) for value in values):
        values = [
            v for value in values for v in (value if isinstance(value, (list, tuple)) else [value])
        ]
    return values


def check_arguments(name: str, values: list[Any]) -> None:
    """Refuse functions as arguments, and columns whose rows do not belong together."""
    if any(callable(v) and not isinstance(v, (type, np.generic)) for v in values):
        raise FormulaError(
            f"{name}() is given a function. Call that function, or compute the column before "
            "fitting."
        )
    check_rows(values)


def check_rows(values: Iterable[Any]) -> None:
    """Refuse columns that pandas would match by labels that occur more than once."""
    series = [v for v in values if isinstance(v, pd.Series)]
    for other in series[1:]:
        first = series[0].index
        if other.index is first or other.index.equals(first):
            continue
        if not (first.is_unique and other.index.is_unique):
            raise FormulaError(
                "Values of different rows are combined. Compute the column before fitting."
            )


def is_text(value: Any) -> bool:
    """Whether a value is text, or a column of it."""
    if isinstance(value, str):
        return True
    dtype = getattr(value, "dtype", None)
    if isinstance(dtype, pd.CategoricalDtype):
        return not pd.api.types.is_numeric_dtype(dtype.categories.dtype)
    if isinstance(dtype, np.dtype) and dtype.kind in "biufmMc":
        return False
    if dtype is None or pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype):
        return False
    return pd.api.types.infer_dtype(value, skipna=True) not in ("boolean", "empty", "floating")


def power(left: Any, right: Any) -> Any:
    """A power in floating point where whole numbers would wrap around or grow without end."""
    if isinstance(left, int) and isinstance(right, int):
        if right >= 0 and left.bit_length() * right <= WORD:
            return left**right
        left = float(left)
    if isinstance(left, (pd.Series, np.ndarray)) and left.dtype.kind in "iub":
        left = left.astype(np.float64)
    try:
        return left**right
    except OverflowError:
        too_much("A power is larger than any number", "1.8e308", "Check the exponent.")


def check_text(accessor: Any, given: Mapping[str, Any]) -> None:
    """What replacing makes of texts, and what a pattern is searched in, is not too long."""
    longest = int(accessor.len().max()) if len(accessor.len()) else 0
    old, new = given.get("pat"), given.get("repl")
    if any(callable(value) for value in given.values()):
        raise FormulaError("A function is given to a method of text. Give a text.")
    if given.get("regex") and longest > limits.TEXT:
        too_much(f"A pattern is searched in texts of {longest:,} characters",
                 f"{limits.TEXT:,}", "Compute the column before fitting.")  # fmt: skip
    if isinstance(new, str):
        width = len(old) if isinstance(old, str) and old and not given.get("regex") else 1
        made = longest + (longest // width + 1) * max(len(new) - width, 0)
        if made > max(limits.TEXT, longest):
            too_much(f"Replacing makes texts of {made:,} characters", f"{limits.TEXT:,}",
                     "Compute the column before fitting.")  # fmt: skip


def refused(node: ast.expr) -> FormulaError:
    """The error for what a formula does not allow."""
    return FormulaError(
        f"{shortened(spelled(node))} is not allowed in a formula. It may use columns, the "
        "functions and methods in the documentation, and what is passed as context=. Compute the "
        "column before fitting, or pass a function through context=."
    )


def check_amount(name: str, arrays: list[Any], largest: int) -> None:
    """Refuse a call that is given more numbers than there can be."""
    count = sum(np.size(values) for values in arrays)
    if count > largest:
        too_much(
            f"{name}() is given {count:,} values",
            f"{largest:,} with these data",
            "Compute the column before fitting.",
        )
