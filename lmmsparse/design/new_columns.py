"""Columns of new data in the form that they had in the fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.errors import DataError
from lmmsparse.common.words import listed, shortened
from lmmsparse.design.arguments import check_real
from lmmsparse.design.columns import ColumnInfo, is_real
from lmmsparse.design.labels import check_types, positions, python_value
from lmmsparse.design.variables import holds_objects, tidy_column, widened


def unseen_level(name: str, level: Any, levels: Iterable[Any]) -> DataError:
    """The error for a column, or an expression of a formula, with a level that the fit has not."""
    shown = listed(repr(python_value(each)) for each in levels)
    what = f"Column {name!r} of the new data has"
    if "(" in name or not name.isprintable():
        what = f"In the new data {shortened(name)} has"
    return DataError(
        f"{what} the level {python_value(level)!r}, which the data of the fit did not have "
        f"(levels: {shown}). Remove those rows, or fit with data that contain the level."
    )


def match_column(name: str, column: pd.Series, info: ColumnInfo, labels: bool = False) -> pd.Series:
    """A column of new data in the form it had in the fit.

    Parameters
    ----------
    labels : bool
        Whether the formula uses its values as labels, which must stay what they are.
    """
    if info.kind == "categorical":
        assert info.categories is not None
        levels = pd.Index(list(info.categories), dtype=object, tupleize_cols=False)
        codes = positions(levels, column)
        unknown = column[column.notna().to_numpy() & (codes < 0)]
        if len(unknown):
            check_types(f"Column {name!r}", levels, unknown)
            raise unseen_level(name, unknown.iloc[0], levels)
        categories = pd.Index(list(info.categories), tupleize_cols=False)
        matched = pd.Categorical.from_codes(codes, categories=categories)
        return pd.Series(matched, index=column.index, name=name)
    tidy = tidy_column(column)
    if info.kind == "numeric" and isinstance(tidy.dtype, pd.CategoricalDtype):
        levels = tidy.cat.categories
        if pd.api.types.is_numeric_dtype(levels.dtype):
            tidy = tidy_column(tidy.astype(levels.dtype if tidy.notna().all() else np.float64))
    if info.kind == "numeric" and not labels and holds_objects(tidy):
        tidy = widened(tidy)
    if info.kind == "numeric" and not is_real(tidy):
        if tidy.isna().all():
            return pd.Series(np.full(len(tidy), np.nan), index=tidy.index, name=name)
        check_real(f"Column {name!r} of the new data", tidy)
        if pd.api.types.infer_dtype(tidy, skipna=True) != "boolean":
            raise DataError(
                f"Column {name!r} was numeric when the model was fitted, but in the new data it "
                f"holds {listed(map(repr, tidy.dropna().unique()[:1]))}. Convert it to numbers."
            )
        return tidy.where(tidy.notna(), np.nan).astype(np.float64)
    if info.boolean and tidy.isin([0, 1]).all():
        return tidy.astype(bool)
    return tidy if labels else widened(tidy)
