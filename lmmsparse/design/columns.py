"""Columns named in a formula → their kind and coding, and errors for what no model can use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
from formulaic.transforms import contrasts as coding

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import mapping
from lmmsparse.common.words import brief, close_match, listed
from lmmsparse.design.arguments import check_real
from lmmsparse.design.rank import LARGEST
from lmmsparse.design.variables import (
    Variables,
    as_floats,
    codes_and_categories,
    holds_objects,
)
from lmmsparse.formula.references import references


@dataclass(frozen=True, eq=False)
class ColumnInfo:
    """What a column was when the model was fitted.

    Attributes
    ----------
    kind : {"numeric", "categorical", "date", "duration", "other"}
    categories : tuple or None
        Levels of a categorical column; of a numeric one False and True if it holds truth values.
    coded : bool
        Whether it is handed over with its contrasts (see `MatrixRecipe.contrasts`).
    span : tuple or None
        Mean, smallest and largest value of a numeric column.
    values : tuple or None
        Some of its values, in ascending order, where an expression makes levels of them.
    """

    kind: str
    categories: tuple[Any, ...] | None = None
    coded: bool = False
    span: tuple[float, float, float] | None = None
    values: tuple[float, ...] | tuple[int, ...] | None = None

    @property
    def boolean(self) -> bool:
        """Whether it holds truth values, which count as 0 and 1 in arithmetic."""
        return bool(self.categories) and all(isinstance(c, bool) for c in self.categories or ())


_MOST_VALUES = 200
_CODINGS = {
    "treatment": coding.TreatmentContrasts,
    "sum": coding.SumContrasts,
    "helmert": coding.HelmertContrasts,
    "diff": coding.DiffContrasts,
    "poly": coding.PolyContrasts,
}


def _coding_named(text: str) -> Any:
    """A coding by its name here, in R (contr.sum), in MASS (contr.sdif) or in formulaic (Sum)."""
    name = text.lower().removeprefix("contr.")
    return _CODINGS.get("diff" if name == "sdif" else name)


_DECIMAL_COMMA = re.compile(r"\s*-?\d*,\d+\s*$")


def check_response(response: str, table: Variables) -> None:
    """The response must be a numeric column, if it is a plain column."""
    name = response.strip("`")
    if name not in table.columns:
        return
    column = table[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = listed([repr(v) for v in column.cat.categories], 4)
        remedy = _to_numbers(name, column.cat.categories)
        if all(_DECIMAL_COMMA.match(str(value)) for value in column.cat.categories):
            remedy = (
                "Its decimal sign is a comma. Read the file with pandas.read_csv(..., decimal=',')."
            )
        raise DataError(f"The response {name!r} is not numeric (it holds {levels}). {remedy}")
    if not is_real(column):
        raise DataError(
            f"The response {name!r} must be real numbers, not of type {column.dtype}. Convert the "
            "column to numbers."
        )


def _to_numbers(name: str, levels: Iterable[Any]) -> str:
    """How a column of text becomes numbers, with what in it is none."""
    numbers, odd = _as_numbers(levels)
    if not len(numbers):
        return "None of it is a number. Name a numeric column."
    if not odd or 2 * len(odd) > len(numbers) + len(odd):
        return "Convert the column, for example with pandas.to_numeric."
    return (
        f"All but {listed([repr(v) for v in odd], 4)} are numbers. "
        f"pandas.to_numeric(data[{name!r}], errors='coerce') converts them and makes the others "
        "missing."
    )


def _as_numbers(levels: Iterable[Any]) -> tuple[FloatArray, list[Any]]:
    """The numbers among texts, and the texts that are none."""
    levels = [level if isinstance(level, (str, Number)) else str(level) for level in levels]
    values = pd.to_numeric(pd.Series(levels, dtype=object), errors="coerce").to_numpy(np.float64)
    odd = [level for level, value in zip(levels, values, strict=True) if np.isnan(value)]
    return values[~np.isnan(values)], odd


def _is_measured(levels: Iterable[Any]) -> bool:
    """Whether texts are mostly numbers and no labels: with fractions, or with a few words."""
    numbers, odd = _as_numbers(levels)
    return len(odd) < 0.1 * len(numbers) and bool(odd or np.any(numbers % 1))


def text_explained(names: Iterable[str], table: pd.DataFrame) -> str:
    """What to do about columns of text that an expression takes for numbers; empty if none is."""
    for name in names:
        if isinstance(table[name].dtype, pd.CategoricalDtype):
            levels = table[name].cat.categories
            return (
                f"The column {name!r} is not numeric (it holds "
                f"{listed([repr(v) for v in levels], 4)}). {_to_numbers(name, levels)}"
            )
    return ""


def is_real(column: pd.Series) -> bool:
    """Whether a column holds numbers or truth values."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iufb":
        return True
    if pd.api.types.is_complex_dtype(dtype):
        return False
    numeric = pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
    return bool(numeric or holds_objects(column))


def response_values(
    text: str, matrix: tuple[FloatArray, tuple[str, ...]], table: Variables
) -> FloatArray:
    """The response as (n,) numbers."""
    values, names = matrix
    column = text.strip("`")
    if column in table.columns and pd.api.types.is_bool_dtype(table[column].dtype):
        return table[column].to_numpy(dtype=np.float64)
    if values.shape[1] != 1:
        raise DataError(
            f"The response {text!r} makes {values.shape[1]} columns ({listed(names, 4)}). Name a "
            "single numeric column, or fit one response and use m.refit(y) for the others."
        )
    return values[:, 0]


def check_finite(what: str, values: FloatArray) -> None:
    """Refuse values that are infinite or undefined, or whose squares would be."""
    if not np.isfinite(values).all():
        n = int((~np.isfinite(values)).sum())
        raise DataError(
            f"The {what} holds {n} values that are not finite. Check it for divisions by zero and "
            "logarithms of zero."
        )
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST or 0.0 < largest < 1.0 / LARGEST:
        raise DataError(
            f"The largest value of the {what} is {largest:.3g}, too large for sums of squares. "
            "Check the column, or change its units."
        )


def codings(
    contrasts: Mapping[str, Any] | None, columns: Iterable[str], table: Variables
) -> dict[str, Any]:
    """Column → formulaic contrasts, from what the user passed as ``contrasts=``."""
    given = mapping("contrasts", contrasts, "Write contrasts={'column': 'sum'}.")
    out = {}
    for name, value in given.items():
        if name not in columns:
            raise DataError(
                f"contrasts names {name!r}, which is not a column of the data."
                f"{close_match(str(name), columns)} Correct the name, or leave it out."
            )
        chosen = _coding_named(value) if isinstance(value, str) else value
        if chosen is None:
            raise OptionError(
                f"contrasts={{{name!r}: {brief(value)}}} does not exist. Choose one of "
                f"{', '.join(map(repr, _CODINGS))}, or pass formulaic contrasts."
            )
        if isinstance(chosen, type) and issubclass(chosen, coding.Contrasts):
            chosen = chosen()
        if not isinstance(chosen, coding.Contrasts):
            chosen = _custom(name, _by_level(name, value, table))
        if isinstance(chosen, coding.CustomContrasts) and name in table.columns:
            levels = table[name].astype("category").cat.categories
            if len(chosen.contrasts) != len(levels):
                raise OptionError(
                    f"The contrasts of {name!r} have {len(chosen.contrasts)} rows, but it has "
                    f"{len(levels)} levels ({listed(levels)}). Give a matrix with one row per "
                    "level, in this order."
                )
        if name in table.columns:
            _check_has_levels(name, table[name])
        out[name] = chosen
    return out


def _check_has_levels(name: str, column: pd.Series) -> None:
    """Refuse contrasts for what is a measurement."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return
    different = column.nunique()
    if different > 20 and 2 * different > len(column):
        raise OptionError(
            f"contrasts names {name!r}, which holds {different} different numbers in "
            f"{len(column)} rows. Leave it out, or make the column a factor first."
        )


def _by_level(name: str, value: Any, table: Variables) -> Any:
    """A number for every level, by its name, as a list in the order of the levels."""
    given = value.to_dict() if isinstance(value, pd.Series) else value
    numbers = isinstance(given, Mapping) and all(np.ndim(v) == 0 for v in given.values())
    if not numbers or not given:
        return value
    if name not in table.columns:  # not in the formula: what levels it has does not matter
        return list(given.values())
    levels = list(table[name].astype("category").cat.categories)
    if set(given) != set(levels):
        raise OptionError(
            f"The contrasts of {name!r} are for {listed(map(repr, given))}, but its levels are "
            f"{listed(map(repr, levels))}. Give every level a number, or every contrast a list."
        )
    return [given[level] for level in levels]


def _custom(name: str, value: Any) -> Any:
    check_real(f"contrasts[{name!r}]", value)
    try:
        chosen = coding.CustomContrasts(
            np.reshape(value, (-1, 1)) if np.ndim(value) == 1 else value
        )
        numbers = np.asarray(chosen.contrasts, dtype=np.float64)
    except (TypeError, ValueError, IndexError, AttributeError):
        numbers = np.zeros(0)
    if numbers.ndim != 2 or not np.isfinite(numbers).all():
        raise OptionError(
            f"The contrasts of {name!r} are not a coding: {value!r}. Pass one of "
            f"{', '.join(map(repr, _CODINGS))}, formulaic contrasts, a number for each level as "
            "[-0.5, 0.5], or a matrix of them with one row per level."
        )
    return chosen


def check_factors(
    parts: Mapping[str, str], uses: Mapping[str, tuple[str, ...]], table: Variables
) -> None:
    """A predictor is numeric, or a factor with more than one level and not one level per row."""
    for part, text in parts.items():
        if part == "response":
            continue
        for name in references(text).columns:
            column = table[name] if name in table.columns else None
            if column is None:
                continue
            if not isinstance(column.dtype, pd.CategoricalDtype):
                if not is_real(column):
                    raise DataError(
                        f"The predictor {name!r} is of type {column.dtype}. Convert it to real "
                        "numbers or levels first, for example dates to days since the start."
                    )
                continue
            levels = len(codes_and_categories(column)[1])
            if levels < 2:
                raise DataError(
                    f"The factor {name!r} has a single level ({listed(column.cat.categories)}) in "
                    "the rows that are fitted: its effect cannot be estimated. Leave it out of "
                    "the formula, or check which rows were dropped."
                )
            if part == "fixed" and levels > 50 and _is_measured(column.cat.categories):
                raise DataError(
                    f"The fixed effect {name!r} is text with {levels} different values. "
                    f"{_to_numbers(name, column.cat.categories)} Write "
                    f"C({name if name.isidentifier() else f'`{name}`'}) if every value is a level."
                )
            if part == "fixed" and levels > 50 and levels >= 0.9 * len(table):
                raise DataError(
                    f"The fixed effect {name!r} is text with {levels} different values in "
                    f"{len(table)} rows. Convert it to numbers if it is a measurement, or use it "
                    f"as a grouping factor, (1 | {name})."
                )


def describe(
    column: pd.Series, name: str, bare: set[str], contrasts: Mapping[str, Any]
) -> ColumnInfo:
    """What a column is in this fit; `bare` are those that stand in a formula by themselves."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        levels = tuple(codes_and_categories(column)[1])
        return ColumnInfo("categorical", levels, name in contrasts)
    if name not in contrasts and isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return ColumnInfo("numeric", span=span_of(column))
    if name in contrasts or (pd.api.types.is_bool_dtype(column.dtype) and name in bare):
        levels = tuple(column.astype("category").cat.categories)
        if pd.api.types.is_bool_dtype(column.dtype):
            levels = tuple(bool(level) for level in levels)
        return ColumnInfo("categorical", levels, True)
    check_real(f"Column {name!r}", column)
    if pd.api.types.is_bool_dtype(column.dtype):
        return ColumnInfo("numeric", (False, True), span=span_of(column))
    if pd.api.types.is_numeric_dtype(column.dtype) or holds_objects(column):
        return ColumnInfo("numeric", span=span_of(column))
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "mM":
        return ColumnInfo("date" if column.dtype.kind == "M" else "duration")
    return ColumnInfo("other")


def span_of(column: pd.Series) -> tuple[float, float, float]:
    """Mean, smallest and largest value of a numeric column."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb":
        values = np.asarray(column.to_numpy(), dtype=np.float64)
    else:
        values = as_floats(column)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean())
    if not np.isfinite(mean):  # infinite values, or numbers whose sum is
        finite = values[np.isfinite(values)]
        values = finite if len(finite) else values
        mean = float(np.sum(values / len(values)))
    return mean, float(values.min()), float(values.max())


def some_values(column: pd.Series) -> tuple[float, ...] | tuple[int, ...]:
    """Values of a numeric column, in ascending order: all, or as many as show what there is."""
    found = column.dropna()
    kind = "int64" if pd.api.types.is_signed_integer_dtype(found.dtype) else "float64"
    kind = "uint64" if pd.api.types.is_unsigned_integer_dtype(found.dtype) else kind
    values = np.unique(found.to_numpy(dtype=kind))
    values = values[np.isfinite(values)]
    if len(values) > _MOST_VALUES:
        values = values[np.linspace(0, len(values) - 1, _MOST_VALUES).round().astype(np.intp)]
    return tuple(values.tolist())
