"""How a design was made → the same columns, levels and offsets for new data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, ReadOnly
from lmmsparse.common.errors import DataError, FormulaError, LmmError
from lmmsparse.common.threads import filtered
from lmmsparse.common.words import close_match, listed
from lmmsparse.design.arguments import aligned, numbers
from lmmsparse.design.evaluate import Evaluator
from lmmsparse.design.expressions import check_expression, columns_of, learning_calls
from lmmsparse.design.grouping import LevelKey
from lmmsparse.design.labels import check_types
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.design.variables import Tabular, holds_objects, renumbered, tidy_column, widened
from lmmsparse.formula.expression import bare, read_expression
from lmmsparse.formula.parts import read_part
from lmmsparse.formula.references import references

_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class GroupRecipe:
    """How a grouping factor is read from data: its expressions and the key to its levels."""

    name: str
    factors: tuple[str, ...]
    key: LevelKey


@dataclass(frozen=True, eq=False)
class Recipe(ReadOnly):
    """Everything needed to build model matrices from new data.

    Attributes
    ----------
    matrices : MatrixRecipe
        Parts ``"fixed"``, ``"random0"``, ``"random1"``, … in the order of the design's blocks.
    kept : (columns,) bool array
        Columns of the fixed part that are in X.
    groups : tuple of GroupRecipe
        One per block.
    offsets : tuple of str
        Offset expressions of the formula.
    offset_column : str or None
        Column given as ``offset=``.
    offset_array : bool
        Whether ``offset=`` was an array, which new data cannot supply.
    weights_column : str or None
        Column given as ``weights=``.
    relations : (p, dropped) array or None
        On the fitted rows the columns that were dropped are X times this.
    """

    matrices: MatrixRecipe
    kept: BoolArray
    groups: tuple[GroupRecipe, ...]
    offsets: tuple[str, ...]
    offset_column: str | None
    offset_array: bool
    weights_column: str | None
    relations: FloatArray | None = None

    @property
    def names(self) -> set[str]:
        """All names the formula, the offset and the weights use."""
        expressions = [*self.offsets, *(f for group in self.groups for f in group.factors)]
        used = {name for text in expressions for name in references(text).names}
        columns = {name for name in (self.offset_column, self.weights_column) if name}
        return used | columns | set(self.matrices.columns)

    def fixed(self, newdata: pd.DataFrame) -> tuple[FloatArray, BoolArray]:
        """X for new data, and rows whose mean the data of the fit do not determine.

        Returns
        -------
        X : (n, p) array
            NaN in such rows and in those with a missing value.
        undetermined : (n,) bool array
        """
        values, _ = self.matrices.matrix("fixed", newdata)
        X, undetermined = values[:, self.kept], ~self.determines(values)
        X[undetermined] = np.nan
        return X, undetermined

    def determines(self, values: FloatArray) -> BoolArray:
        """Rows of all fixed-effects columns for which Xβ can be estimated, (n,).

        Those in which the columns that were dropped are the same combinations of the others as in
        the data of the fit.
        """
        if self.relations is None:
            return np.ones(len(values), dtype=bool)
        own, dropped = values[:, self.kept], values[:, ~self.kept]
        gap = np.abs(dropped - own @ self.relations)
        size = np.abs(dropped) + np.abs(own) @ np.abs(self.relations)
        return np.asarray(~np.any(gap > _SAME * size, axis=1))

    def random(self, block: int, newdata: pd.DataFrame) -> FloatArray:
        """Columns (n, k) of one random-effects term; NaN in rows with a missing value."""
        values, _ = self.matrices.matrix(f"random{block}", newdata)
        return values

    def levels(self, block: int, newdata: pd.DataFrame) -> tuple[IntArray, BoolArray, pd.Series]:
        """Level of each row (−1 for a new one), whether it is missing, and how to show it."""
        codes, missing, columns = self._encoded(block, newdata)
        return codes, missing, shown_labels(columns)

    def codes(self, block: int, newdata: pd.DataFrame) -> tuple[IntArray, BoolArray]:
        """Level of each row (−1 for a new one), and whether it is missing."""
        codes, missing, _ = self._encoded(block, newdata)
        return codes, missing

    def _encoded(
        self, block: int, newdata: pd.DataFrame
    ) -> tuple[IntArray, BoolArray, list[pd.Series]]:
        group = self.groups[block]
        columns = [
            evaluate_grouping(factor, newdata, self.matrices.context) for factor in group.factors
        ]
        codes, missing = group.key.encode(columns)
        unknown = (codes < 0) & ~missing
        if unknown.any():
            for factor, levels, column in zip(
                group.factors, group.key.components, columns, strict=True
            ):
                check_types(f"The grouping factor {factor!r}", levels, column[unknown])
        return codes, missing, columns

    def offset(self, newdata: pd.DataFrame, given: Any = None) -> FloatArray:
        """The offset for new data, (n,)."""
        n = len(newdata)
        total = np.zeros(n)
        for expression in self.offsets:
            total = total + evaluate_numbers(expression, newdata, self.matrices.context)
        if given is not None:
            return total + column_or_array("offset", given, newdata)
        if self.offset_column is not None:
            return total + column_or_array("offset", self.offset_column, newdata)
        if self.offset_array:
            raise DataError(
                "The model was fitted with an offset given as an array, which new data do not "
                "contain. Pass the new rows' offset as predict(..., offset=...), with zeros to "
                "leave it out, or fit with offset='column'."
            )
        return total

    def weights(self, newdata: pd.DataFrame) -> FloatArray:
        """The weights of new data, (n,), from the column the fit used."""
        if self.weights_column is None:
            raise DataError(
                "The model was fitted with weights given as an array, which new data do not "
                "contain. Fit with weights='column' and give the new data that column."
            )
        if self.weights_column not in newdata.columns:
            raise DataError(
                f"The new data have no column {self.weights_column!r}, the weights of the model. "
                "Add it, with 1 for observations of weight 1."
            )
        values = column_or_array("weights", self.weights_column, newdata)
        if np.any(values <= 0):
            raise DataError(
                f"The weights {self.weights_column!r} of the new data hold "
                f"{int(np.sum(values <= 0))} values that are zero or negative. Use positive "
                "weights."
            )
        return values


def shown_labels(columns: list[pd.Series]) -> pd.Series:
    """The labels of a grouping of one or several factors as they are shown."""
    if len(columns) == 1:
        return columns[0].astype(object)
    shown = columns[0].astype(str)
    for column in columns[1:]:
        shown = shown + ":" + column.astype(str)
    return shown


def check_texts(recipe: Recipe) -> None:
    """Hold the formula texts of a recipe from a file to what the user's are held to."""
    matrices = recipe.matrices
    for part, text in matrices.parts.items():
        columns_of(text, matrices.variables[part], matrices.context)
        for expression in matrices.categories[part]:  # also of terms that were left out
            if expression not in matrices.columns:
                check_expression(expression, list(matrices.columns), matrices.context)
        for variable in {variable for term in read_part(text) for variable in term}:
            for call in learning_calls(variable.expression):
                if call not in matrices.transform_state:
                    raise FormulaError(f"What {call!r} has learnt from the data is missing.")
    for expression in (*recipe.offsets, *(f for group in recipe.groups for f in group.factors)):
        read = read_expression(expression)  # of what table its columns are, the file does not say
        check_expression(expression, read.names, matrices.context)


def evaluate(expression: str, frame: Tabular, context: Mapping[str, Any]) -> Any:
    """Evaluate a grouping or offset expression on the columns of a frame."""
    name = bare(expression)
    if name in frame.columns:
        return frame[name]
    used = check_expression(expression, [str(c) for c in frame.columns], context)
    read = read_expression(expression)
    columns = {column: widened(frame[column]) for column in used}
    try:
        # Missing and infinite values are found later.
        with np.errstate(all="ignore"), filtered(("ignore", Warning)):
            values = Evaluator(columns, len(frame), context or {})(read)
            np.ndim(values)  # raises for lists of things that do not belong together
            return values
    except (LmmError, MemoryError):
        raise
    except Exception as error:
        raise FormulaError(
            f"{expression!r} could not be evaluated on the data "
            f"({type(error).__name__}: {error}). Check the columns it uses."
        ) from error


def evaluate_grouping(expression: str, frame: Tabular, context: Mapping[str, Any]) -> pd.Series:
    """One factor of a grouping as a Series with a RangeIndex."""
    missing = [n for n in references(expression).names if n not in frame.columns]
    missing = [n for n in missing if n not in (context or {})]
    if missing:
        raise DataError(
            f"The new data have no column {missing[0]!r}, which the grouping factor "
            f"{expression!r} needs.{close_match(missing[0], frame.columns)} Add it to the new data."
        )
    values = evaluate(expression, frame, context)
    if np.ndim(values) > 1:
        raise FormulaError(
            f"The grouping factor {expression!r} has {np.shape(values)[1]} columns. Name a single "
            "column."
        )
    if np.ndim(values) == 0:
        raise FormulaError(
            f"The grouping factor {expression!r} is a single value. Name a column of the data."
        )
    series = renumbered(values if isinstance(values, pd.Series) else pd.Series(values))
    if len(series) != len(frame):
        raise DataError(
            f"The grouping factor {expression!r} has {len(series)} values for {len(frame)} rows. "
            "It needs one value per row."
        )
    return plain_labels(series)


def plain_labels(series: pd.Series) -> pd.Series:
    """Labels keep their type; nullable and Arrow's types become numpy's, or objects."""
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return series
    if holds_objects(series) and pd.api.types.infer_dtype(series, skipna=True) == "decimal":
        return tidy_column(series)  # as at the fit
    if isinstance(dtype, (np.dtype, pd.DatetimeTZDtype)):
        return series
    return series.astype(object) if pd.api.types.is_string_dtype(dtype) else tidy_column(series)


def evaluate_numbers(expression: str, frame: Tabular, context: Mapping[str, Any]) -> FloatArray:
    """An offset expression as (n,) numbers, NaN where missing."""
    values = evaluate(expression, frame, context)
    if np.ndim(values) == 0:
        values = np.full(len(frame), values)
    return column_or_array(f"offset({expression})", values, frame)


def column_or_array(what: str, value: Any, frame: Tabular) -> FloatArray:
    """Weights or an offset, given as a column name or as an array, as (n,) numbers."""
    if isinstance(value, str):
        if value not in frame.columns:
            raise DataError(
                f"{what}={value!r} is not a column of the "
                f"data.{close_match(value, frame.columns)} The columns are "
                f"{listed(frame.columns, 20)}. Name one of them, or pass an array."
            )
        source: Any = tidy_column(frame[value])
        what = f"{what}={value!r}"
    else:
        source = aligned(what, value, frame.index)
    if isinstance(getattr(source, "dtype", None), pd.CategoricalDtype):
        raise DataError(f"{what} must be numbers, not levels. Convert it first.")
    array = np.atleast_1d(numbers(what, source))
    if np.ndim(value) > 1 or len(array) != len(frame):
        shape = np.shape(value) if not isinstance(value, str) else array.shape
        raise DataError(
            f"{what} has shape {shape}, but the data have {len(frame)} rows. Give one number per "
            "row of the data, before any rows are dropped."
        )
    return array
