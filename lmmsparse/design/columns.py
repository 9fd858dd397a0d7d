"""Columns named in a formula → are they of a kind the model can use? And how factors are coded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from formulaic.transforms import contrasts as coding

from lmmsparse._types import FloatArray
from lmmsparse.design.frame import close_match, listed
from lmmsparse.design.names import split_calls
from lmmsparse.errors import DataError, OptionError

_CODINGS = {
    "treatment": coding.TreatmentContrasts,
    "sum": coding.SumContrasts,
    "helmert": coding.HelmertContrasts,
    "diff": coding.DiffContrasts,
    "poly": coding.PolyContrasts,
}


def check_response(response: str, table: pd.DataFrame) -> None:
    """The response must be a numeric column, if it is a plain column."""
    name = response.strip("`")
    if name not in table.columns:
        return
    column = table[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = listed([repr(v) for v in column.cat.categories], 4)
        raise DataError(
            f"The response {name!r} is not numeric (it holds {levels}). A linear mixed model needs "
            "numbers. Convert the column, for example with pandas.to_numeric."
        )
    if not (
        pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)
    ) or pd.api.types.is_complex_dtype(column.dtype):
        raise DataError(
            f"The response {name!r} is of type {column.dtype}. A linear mixed model needs real "
            "numbers. Convert the column to numbers."
        )


def response_values(
    text: str, matrix: tuple[FloatArray, tuple[str, ...]], table: pd.DataFrame
) -> FloatArray:
    """The response as (n,) numbers."""
    values, names = matrix
    column = text.strip("`")
    if column in table.columns and pd.api.types.is_bool_dtype(table[column].dtype):
        return table[column].to_numpy(dtype=np.float64)
    if values.shape[1] != 1:
        raise DataError(
            f"The response {text!r} makes {values.shape[1]} columns ({listed(names, 4)}). A linear "
            "mixed model has one numeric response. Name a single numeric column, or fit one "
            "response and use m.refit(y) for the others."
        )
    return values[:, 0]


def check_finite(what: str, values: FloatArray) -> None:
    """Refuse infinite values and undefined ones."""
    if not np.isfinite(values).all():
        n = int((~np.isfinite(values)).sum())
        raise DataError(
            f"The {what} holds {n} values that are not finite. Nothing can be fitted to infinity. "
            "Check it for divisions by zero and logarithms of zero."
        )


def codings(contrasts: Mapping[str, Any] | None, frame: pd.DataFrame) -> dict[str, Any]:
    """Column → formulaic contrasts, from what the user passed as ``contrasts=``."""
    out = {}
    for name, value in (contrasts or {}).items():
        if name not in frame.columns:
            raise DataError(
                f"contrasts names {name!r}, which is not a column of the data."
                f"{close_match(str(name), frame.columns)}"
            )
        chosen = value
        if isinstance(value, str):
            chosen = _CODINGS.get(value.removeprefix("contr."))
            if chosen is None:
                raise OptionError(
                    f"contrasts={{{name!r}: {value!r}}} does not exist. Choose one of "
                    f"{', '.join(map(repr, _CODINGS))}, or pass formulaic contrasts."
                )
        if isinstance(chosen, type) and issubclass(chosen, coding.Contrasts):
            chosen = chosen()
        if not isinstance(chosen, coding.Contrasts):
            chosen = coding.CustomContrasts(chosen)
        out[name] = chosen
    return out


def check_factors(
    parts: Mapping[str, str], uses: Mapping[str, tuple[str, ...]], table: pd.DataFrame
) -> None:
    """A factor with one level or one level per row cannot be a predictor."""
    for part, text in parts.items():
        if part == "response":
            continue
        for name in split_calls(text)[0]:
            column = table[name] if name in table.columns else None
            if column is None or not isinstance(column.dtype, pd.CategoricalDtype):
                continue
            levels = len(column.cat.categories)
            if levels < 2:
                raise DataError(
                    f"The factor {name!r} has a single level "
                    f"({listed(column.cat.categories)}) in the rows that are fitted. Its effect "
                    "cannot be estimated. Leave it out of the formula, or check which rows were "
                    "dropped."
                )
            if part == "fixed" and levels > 50 and levels >= 0.9 * len(table):
                raise DataError(
                    f"The fixed effect {name!r} is text with {levels} different values in "
                    f"{len(table)} rows. Each would get a coefficient of its own. Convert it to "
                    "numbers if it is a measurement, or use it as a grouping factor, "
                    f"(1 | {name})."
                )
