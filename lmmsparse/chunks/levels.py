"""Values of factors in parts of the data → all levels, and all combinations of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.design.variables import close_numbers, codes_and_categories


@dataclass(frozen=True, eq=False)
class Values:
    """Different values of a column, with the order that its categories have, if it has any.

    Attributes
    ----------
    labels : pandas.Index
        In order of appearance; of a categorical column its categories.
    met : (labels,) bool array
        Those that occur.
    categorical : bool
        Whether the order of the labels is that of levels; otherwise they are sorted.
    ordered : bool
        Whether pandas calls them so.
    """

    labels: pd.Index
    met: BoolArray
    categorical: bool = False
    ordered: bool = False

    def joined(self, other: Values, name: str) -> Values:
        """With those of another part, behind them."""
        labels = _union(self.labels, other.labels, name)
        if len(labels) == len(self.labels):
            met = self.met.copy()
        else:
            met = np.append(self.met, np.zeros(len(labels) - len(self.labels), dtype=bool))
        met[labels.get_indexer(other.labels)] |= other.met
        if self.categorical != other.categorical:
            raise DataError(_mixed(name, "levels with an order of their own", "plain values"))
        return Values(labels, met, self.categorical, self.ordered and other.ordered)

    def column(self, rows: IntArray | None = None) -> pd.Series:
        """The values that occur, or some of the labels, as a column."""
        rows = np.flatnonzero(self.met) if rows is None else rows
        if self.categorical:
            return pd.Series(
                pd.Categorical.from_codes(rows, self.labels, ordered=self.ordered, validate=False)
            )
        return pd.Series(self.labels.take(rows))


def _union(first: pd.Index, second: pd.Index, name: str) -> pd.Index:
    if first.equals(second):
        return first
    if _kind(first) != _kind(second):
        raise DataError(_mixed(name, _kind(first), _kind(second)))
    new = second[~second.isin(first)]
    return first.append(new) if len(new) else first


def _kind(labels: pd.Index) -> str:
    kind: str = labels.inferred_type
    return _KINDS.get(kind, kind)


_KINDS = {
    "floating": "number",
    "integer": "number",
    "mixed-integer-float": "number",
    "string": "text",
    "empty": "text",
    "datetime": "moments with a time zone",
    "datetime64": "moments without a time zone",
}


def _mixed(name: str, one: str, other: str) -> str:
    return (
        f"The column {name!r} holds {one} in one part of the data and {other} in another. Make it "
        "one type throughout."
    )


def coded(column: pd.Series, text: bool) -> tuple[IntArray, Values]:
    """The place of each row's value among the values of a column without missing ones."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, labels = codes_and_categories(column)
        met = np.bincount(codes, minlength=len(labels)) > 0
        return codes.astype(np.intp), Values(
            labels, met, not text, bool(column.dtype.ordered) and not text
        )
    close = close_numbers(column)
    try:
        codes, labels = pd.factorize(column) if close is None else close
    except TypeError as error:
        raise DataError(
            f"Column {column.name!r} holds values that cannot be levels ({error}). Convert it to "
            "numbers or text, for example with .astype(str)."
        ) from error
    index: Any = labels if isinstance(labels, pd.Index) else pd.Index(labels, tupleize_cols=False)
    return codes, Values(index, np.ones(len(index), dtype=bool))


@dataclass(frozen=True, eq=False)
class Combinations:
    """The combinations of values of several columns that occur.

    Attributes
    ----------
    values : tuple of Values
        Per column.
    places : (m, columns) int array
        Combinations, as places among the labels.
    """

    values: tuple[Values, ...]
    places: IntArray

    def joined(self, other: Combinations, names: Sequence[str]) -> Combinations:
        """With those of another part."""
        values = tuple(
            a.joined(b, name) for a, b, name in zip(self.values, other.values, names, strict=True)
        )
        if len(values) == 1:
            return Combinations(values, np.zeros((0, 1), dtype=np.intp))
        moved = np.column_stack(
            [
                new.labels.get_indexer(old.labels)[other.places[:, j]]
                for j, (new, old) in enumerate(zip(values, other.values, strict=True))
            ]
        )
        both = np.concatenate([self.places, moved])
        return Combinations(values, both[_first_of_each(both, values)])

    @property
    def columns(self) -> list[pd.Series]:
        """One row for each combination."""
        if len(self.values) == 1:
            return [self.values[0].column()]
        return [v.column(self.places[:, j]) for j, v in enumerate(self.values)]


def combinations_in(columns: Sequence[tuple[IntArray, Values]]) -> Combinations:
    """The combinations in some rows."""
    values = tuple(v for _, v in columns)
    if len(values) == 1:
        return Combinations(values, np.zeros((0, 1), dtype=np.intp))
    rows = np.column_stack([codes for codes, _ in columns])
    return Combinations(values, rows[_first_of_each(rows, values)])


def _first_of_each(rows: IntArray, values: Sequence[Values]) -> IntArray:
    """Positions of rows that no row before equals, in order."""
    key: Any = rows[:, 0]
    for j in range(1, rows.shape[1]):
        size = len(values[j].labels)
        mixed = key.astype(np.int64) * size + rows[:, j]
        key = mixed if j == 1 else np.unique(mixed, return_inverse=True)[1]
        if j + 1 < rows.shape[1]:  # the product of all may be beyond 64 bits
            key = np.unique(key, return_inverse=True)[1]
    return np.sort(np.unique(key, return_index=True)[1])
