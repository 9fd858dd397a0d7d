"""Columns of a table by name, in tidy types: a small table of which columns are read one by one."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Mapping
from functools import cache
from numbers import Number
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.design.foreign import from_arrow


def tidy_column(values: pd.Series) -> pd.Series:
    """A column as numpy numbers, or as a Categorical without unused levels.

    Text and objects become categories in sorted order. Booleans and dates are left alone, and so
    are numbers that would not stay what they are: whole numbers with missing ones among them, which
    become numpy's when these are gone, and numbers beyond 64 bits, which are kept as objects.
    """
    dtype = values.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iufbmM":
        return values
    if isinstance(dtype, pd.ArrowDtype) and not _numeric(dtype) and dtype.kind != "U":
        return tidy_column(from_arrow(values))
    if isinstance(dtype, pd.CategoricalDtype):
        return without_unused(values)
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, np.dtype):
        return values.astype(object if values.isna().any() else bool)
    if pd.api.types.is_numeric_dtype(dtype):
        return values if isinstance(dtype, np.dtype) else _from_nullable(values)
    if pd.api.types.is_string_dtype(dtype) or dtype == np.dtype(object):
        return _from_objects(values)
    return values


def _numeric(dtype: Any) -> bool:
    return bool(pd.api.types.is_numeric_dtype(dtype) and dtype.kind in "iufb")


def _from_nullable(values: pd.Series) -> pd.Series:
    kind = values.dtype.kind
    if kind in "iu" and values.isna().any():
        return values
    if kind in "iu":
        numbers = values.to_numpy(dtype=np.dtype(f"{kind}8"))
    else:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.Series(numbers, index=values.index, name=values.name)


def widened(values: pd.Series) -> pd.Series:
    """Numbers to compute with, as int64 or float64: results must not overflow.

    In eight bits without a sign 2 − 5 is 253, and 20² is 144.
    """
    dtype = values.dtype
    if holds_objects(values) or (not isinstance(dtype, np.dtype) and _numeric(dtype)):
        numbers = as_floats(values)
        return pd.Series(numbers, index=values.index, name=values.name)
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iuf":
        return values
    whole = dtype.kind == "i" or (
        dtype.kind == "u" and (dtype.itemsize < 8 or values.max() < 2**63)
    )
    wide = np.dtype(np.int64 if whole else np.float64)
    return values if dtype == wide else values.astype(wide)


def as_floats(values: pd.Series) -> FloatArray:
    """Numbers of any kind in double precision, NaN where missing."""
    try:
        return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    except OverflowError as error:
        raise DataError(
            f"Column {values.name!r} holds whole numbers beyond 1.8e308, which cannot be computed "
            "with. Divide them first, or turn them into text if they are labels."
        ) from error


def holds_objects(values: pd.Series) -> bool:
    """Whether a column keeps its numbers as Python's own, such as whole ones beyond 64 bits."""
    if values.dtype != object:
        return False
    first = next((value for value in values.array if not pd.isna(value)), None)
    return isinstance(first, Number) and not isinstance(first, (bool, np.bool_))


def without_unused(values: pd.Series) -> pd.Series:
    """A categorical column without levels that do not occur."""
    codes, categories = codes_and_categories(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    return values if counts.all() else values.cat.remove_unused_categories()


def codes_and_categories(values: pd.Series) -> tuple[IntArray, pd.Index]:
    """The codes (−1 where missing) and the levels of a categorical column."""
    array: Any = values.array  # the accessor of pandas makes Series on the way
    return array.codes, array.categories


def close_numbers(values: pd.Series) -> tuple[IntArray, Any] | None:
    """Codes and sorted labels of whole numbers that lie close together, counted and not hashed.

    None for other columns.
    """
    dtype = values.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iu" or not len(values):
        return None
    own = values.to_numpy()
    low, high = int(own.min()), int(own.max())
    if high - low >= min(4 * len(own) + 1000, 2**31 - 1):
        return None
    # Differences may be beyond the signed type, but not beyond the unsigned one of its size.
    place = (own - dtype.type(low)).view(f"u{dtype.itemsize}")
    there = np.zeros(high - low + 1, dtype=bool)
    there[place] = True
    numbers = np.cumsum(there, dtype=np.int32) - np.int32(1)
    labels: Any = np.flatnonzero(there).astype(dtype)
    return numbers[place], labels + dtype.type(low)


def where_missing(values: pd.Series) -> BoolArray:
    """Where a column has no value."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return np.asarray(codes_and_categories(values)[0] < 0)
    kind = dtype.kind if isinstance(dtype, np.dtype) else ""
    if kind == "f":
        return np.asarray(np.isnan(values.to_numpy()))
    if kind and kind in "iub":
        return np.zeros(len(values), dtype=bool)
    return np.asarray(values.isna().to_numpy(), dtype=bool)


def renumbered(values: pd.Series) -> pd.Series:
    """A column with the labels 0, 1, 2 and so on."""
    index = values.index
    plain = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    return values if plain else values.reset_index(drop=True)


class Tabular(Protocol):
    """What a DataFrame and `Variables` have in common."""

    @property
    def columns(self) -> Any: ...
    @property
    def index(self) -> pd.Index: ...
    def __len__(self) -> int: ...
    def __getitem__(self, name: str, /) -> Any: ...


class Variables:
    """Columns of a table by name, as Series that share a RangeIndex.

    What a DataFrame would be, where columns are only read one by one: making and cutting
    DataFrames is most of the time that small data take.

    Parameters
    ----------
    columns : mapping
        Name → Series with a RangeIndex.
    """

    def __init__(self, columns: Mapping[str, pd.Series], rows: int) -> None:
        self.columns = dict(columns)
        self.index: pd.Index = pd.RangeIndex(rows)

    @classmethod
    def of(cls, frame: pd.DataFrame, names: Iterable[str]) -> Variables:
        """Tidy columns of a frame whose names are unique."""
        return cls({name: tidy_column(renumbered(frame[name])) for name in names}, len(frame))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, name: str) -> pd.Series:
        return self.columns[name]

    def items(self) -> ItemsView[str, pd.Series]:
        return self.columns.items()

    def take(self, rows: IntArray) -> Variables:
        """Some of the rows, without levels that do not occur in them."""
        taken = {n: tidy_column(renumbered(c.iloc[rows])) for n, c in self.items()}
        return Variables(taken, len(rows))

    def frame(
        self, names: Iterable[str], labels: Iterable[str] = (), rows: IntArray | None = None
    ) -> pd.DataFrame:
        """Some of the columns as a DataFrame to compute with, `labels` among them as they are.

        Factors have the levels of `rows` (None: all rows).
        """
        exact = set(labels)
        columns = {name: with_levels_of(rows, self.columns[name]) for name in names}
        columns = {n: column if n in exact else widened(column) for n, column in columns.items()}
        return pd.DataFrame(columns, index=self.index)


def with_levels_of(rows: IntArray | None, column: pd.Series) -> pd.Series:
    """A factor with the levels that occur in some of its rows only, missing in others."""
    if rows is None or not isinstance(column.dtype, pd.CategoricalDtype):
        return column
    return column.cat.set_categories(without_unused(column.iloc[rows]).cat.categories)


def _from_objects(values: pd.Series) -> pd.Series:
    if values.dtype != object or pd.api.types.infer_dtype(values, skipna=True) == "string":
        return _from_text(values)
    present = values[values.notna()]
    kinds: set[type] = set(map(type, present.array)) if values.dtype == object else {str}
    if kinds and all(issubclass(k, (bool, np.bool_)) for k in kinds):
        return values if len(present) < len(values) else values.astype(bool)
    if kinds and all(issubclass(k, Number) for k in kinds):
        return _from_numbers(values, present, kinds)
    names = " and ".join(sorted(k.__name__ for k in kinds))
    apart = [k for k in kinds if issubclass(k, (str, bytes, Number))]
    if apart and not any(all(issubclass(k, kind) for k in kinds) for kind in (str, bytes)):
        raise DataError(
            f"Column {values.name!r} mixes values of different types ({names}): the number 1 and "
            "the text '1' would be different levels. Convert it to one type, for example with "
            ".astype(str)."
        )
    try:
        return values.astype(object).astype("category")
    except TypeError as error:
        raise DataError(
            f"Column {values.name!r} holds values of type {names}, which cannot be levels. "
            "Convert it to numbers or text, for example with .astype(str)."
        ) from error


def _from_numbers(values: pd.Series, present: pd.Series, kinds: set[type]) -> pd.Series:
    """Numbers in an object column (Decimal, int with None) in a type that holds them."""
    if any(issubclass(k, (complex, np.complexfloating)) for k in kinds):
        return values.astype(np.complex128)
    try:
        floats = values.astype(np.float64)
    except OverflowError:
        return values
    if all(issubclass(k, (float, np.floating)) for k in kinds) or np.isinf(floats).any():
        return floats
    whole = bool((floats.dropna() % 1 == 0).all()) and all(v == int(v) for v in present.array)
    if not whole:
        return floats if floats.nunique() == present.nunique() else values
    numbers = [int(v) for v in present.array]
    low, high = min(numbers), max(numbers)
    signed = low >= -(2**63) and high < 2**63
    if not signed and (low < 0 or high >= 2**64):
        return values
    if len(present) == len(values):
        exact = np.array(numbers, dtype=np.int64 if signed else np.uint64)
        return pd.Series(exact, index=values.index, name=values.name)
    filled = pd.Series(pd.NA, index=range(len(values)), dtype="Int64" if signed else "UInt64")
    filled[values.notna().to_numpy()] = numbers
    return pd.Series(filled.array, index=values.index, name=values.name)


@cache
def _dtype_of_labels() -> Any:
    """What pandas makes of an index of texts."""
    return pd.Index(["text"]).dtype


def _levels(categories: pd.Index) -> Any:
    """The dtype of a Categorical of levels that differ, none of them missing.

    pandas would look at that again, which takes longer than all the rest of a small column.
    """
    unchecked = getattr(pd.CategoricalDtype, "_from_fastpath", pd.CategoricalDtype)
    return unchecked(categories, False)


def _from_text(values: pd.Series) -> pd.Series:
    """Text as a Categorical with its levels in sorted order."""
    codes, found = values.array.factorize()  # by the column's own kind: the cheapest way
    levels = np.asarray(found, dtype=object)
    order = np.array(sorted(range(len(levels)), key=levels.tolist().__getitem__), dtype=np.intp)
    place = np.empty(len(order) + 1, dtype=np.intp)
    place[order], place[-1] = np.arange(len(order)), -1
    own = found.dtype == _dtype_of_labels()
    try:
        categories = pd.Index(found.take(order) if own else levels[order])
    except UnicodeEncodeError as error:
        raise DataError(
            f"Column {values.name!r} holds texts that are not valid Unicode, as names of files can "
            "be. Clean them first, for example by .str.encode('utf-8', 'replace')."
        ) from error
    text = pd.Categorical.from_codes(place[codes], dtype=_levels(categories), validate=False)
    return pd.Series(text, index=values.index, name=values.name)
