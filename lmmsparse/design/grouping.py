"""A grouping expression and data → level of each row, level labels, and the key to new data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmmsparse._types import BoolArray, IntArray, ReadOnly
from lmmsparse.design.frame import codes_and_categories, listed, without_unused
from lmmsparse.errors import DataError


@dataclass(frozen=True, eq=False)
class LevelKey(ReadOnly):
    """How values are recognized as levels: labels per factor, and the observed combinations.

    Attributes
    ----------
    components : tuple of pandas.Index
        Levels of each factor of an interaction (one for a plain factor).
    combinations : (levels,) int array
        Sorted mixed-radix codes of the combinations that are observed.
    """

    components: tuple[pd.Index, ...]
    combinations: IntArray

    def encode(self, columns: Sequence[pd.Series]) -> tuple[IntArray, BoolArray]:
        """Level of each row (−1 for an unknown one) and whether a value is missing, both (n,)."""
        n = len(columns[0])
        missing = np.zeros(n, dtype=bool)
        unknown = np.zeros(n, dtype=bool)
        mixed = np.zeros(n, dtype=np.int64)
        for levels, column in zip(self.components, columns, strict=True):
            values = (
                column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
            )
            missing |= values.isna().to_numpy()
            codes = levels.get_indexer(pd.Index(values, dtype=values.dtype))
            unknown |= codes < 0
            mixed = mixed * len(levels) + np.maximum(codes, 0)
        place = np.searchsorted(self.combinations, mixed)
        place = np.minimum(place, len(self.combinations) - 1)
        found = (self.combinations[place] == mixed) & ~unknown
        return np.where(found, place, -1).astype(np.intp), missing


@dataclass(frozen=True, eq=False)
class Grouping(ReadOnly):
    """A grouping factor.

    Attributes
    ----------
    name : str
        As reported: ``"Subject"``, ``"batch:cask"``.
    levels : pandas.Index
        Labels: the original values, or joined by ":" for an interaction.
    codes : (n,) int array
        Level of each fitted row.
    key : LevelKey
    """

    name: str
    levels: pd.Index
    codes: IntArray
    key: LevelKey


def make_grouping(name: str, columns: Sequence[pd.Series]) -> Grouping:
    """Turn one column, or several whose observed combinations count, into a grouping factor.

    Unused levels are dropped; levels of an interaction are ordered with the first factor slowest.

    Parameters
    ----------
    name : str
    columns : sequence of Series
        Without missing values.
    """
    components, coded = [], []
    for column in columns:
        levels, codes = _factorize(name, column)
        components.append(levels)
        coded.append(codes)
    if len(columns) == 1:
        key = LevelKey((components[0],), np.arange(len(components[0]), dtype=np.int64))
        return Grouping(name, components[0], coded[0], key)
    mixed = np.zeros(len(coded[0]), dtype=np.int64)
    for levels, codes in zip(components, coded, strict=True):
        mixed = mixed * len(levels) + codes
    combinations, codes = np.unique(mixed, return_inverse=True)
    key = LevelKey(tuple(components), combinations)
    return Grouping(name, combined_labels(key), codes.astype(np.intp), key)


def combined_labels(key: LevelKey) -> pd.Index:
    """Labels such as ``"1:x"`` of the observed combinations."""
    parts = []
    rest = key.combinations.copy()
    for levels in reversed(key.components):
        rest, code = np.divmod(rest, len(levels))
        text = np.array([_label(value) for value in levels], dtype=object)
        parts.append(text[code])
    labels = parts[-1]
    for part in reversed(parts[:-1]):
        labels = labels + ":" + part
    index: pd.Index = pd.Index(labels, dtype=object)
    return index


def _label(value: object) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _factorize(name: str, column: pd.Series) -> tuple[pd.Index, IntArray]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, levels = codes_and_categories(without_unused(column))
        return levels, codes.astype(np.intp)
    if np.ndim(column) != 1:
        raise DataError(
            f"The grouping factor {name!r} has more than one column. It needs one value per row. "
            "Name a single column."
        )
    kinds = sorted({type(v).__name__ for v in column}) if column.dtype == object else []
    mixed = "str" in kinds and len(kinds) > 1
    try:
        codes, levels = pd.factorize(column, sort=not mixed)
        if mixed:
            raise TypeError("text and other labels")
    except TypeError as error:
        raise DataError(
            f"The grouping factor {name!r} mixes values of different types ({listed(kinds)}). Its "
            "levels cannot be ordered. Convert the column to one type, for example with "
            ".astype(str)."
        ) from error
    return pd.Index(levels, tupleize_cols=False), codes.astype(np.intp)
