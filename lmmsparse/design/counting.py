"""Truth values in arithmetic count as 0 and 1, as in R.

numpy's True + True is True, it has no True − True, and exp(True) in eleven bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

_FUNCTIONS = frozenset({
    "exp", "exp2", "exp10", "log", "log2", "log10", "log1p", "expm1", "sqrt", "abs", "sin", "cos",
    "tan", "floor", "ceil", "round", "numeric", "poly", "center", "scale", "bs", "cr", "cc", "cs",
    "lag",
})  # fmt: skip
_METHODS = frozenset({
    "diff", "cumsum", "cumprod", "mean", "median", "std", "var", "sum", "min", "max", "quantile",
    "abs", "clip", "round", "rank",
})  # fmt: skip
_LOGICAL = frozenset({"np.invert", "np.isin", "np.where", "np.select", "np.asarray", "np.array"})


def counted(values: Any) -> Any:
    """Truth values as 0 and 1, NaN where missing; anything else as it is."""
    if isinstance(values, (bool, np.bool_)):
        return int(values)
    if isinstance(values, np.ndarray) and values.dtype == bool:
        return values.astype(np.int64)
    if not isinstance(values, pd.Series):
        return values
    dtype = values.dtype
    if dtype is np.dtype(bool):
        return values.astype(np.int64)
    if dtype is np.dtype(object):
        truth = pd.api.types.infer_dtype(values, skipna=True) == "boolean"
    else:
        truth = pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype)
    return values.where(values.notna(), np.nan).astype(np.float64) if truth else values


def counted_for(name: str, values: list[Any]) -> list[Any]:
    """What a function is given, counted if it calculates with numbers."""
    return [counted(value) for value in values] if _computes(name) else values


def _computes(name: str) -> bool:
    """Whether a function (``exp``, ``np.exp``) or method (``.sum``) calculates with numbers."""
    if name.startswith("np."):
        return name not in _LOGICAL and not name.startswith(("np.bitwise", "np.logical", "np.is"))
    return name.removeprefix(".") in _METHODS if name.startswith(".") else name in _FUNCTIONS
