"""Whatever table the user has → a pandas DataFrame, or a clear error."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Mapping
from numbers import Number
from os import PathLike
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.design.foreign import (
    arrow_frame,
    duckdb_frame,
    exact_list,
    from_arrow,
    polars_frame,
    records_frame,
)


def as_frame(data: Any) -> pd.DataFrame:
    """Return `data` as a DataFrame with text column names, without copying pandas columns.

    Parameters
    ----------
    data : table
        pandas or polars DataFrame or LazyFrame, pyarrow Table, RecordBatch, RecordBatchReader or
        Dataset, DuckDB relation, numpy record array, list of records, or mapping of arrays.
    """
    frame = _convert(data)
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError(
            "The data have column names of several levels (a MultiIndex). Flatten them first, for "
            "example data.columns = ['_'.join(map(str, c)) for c in data.columns]."
        )
    if any(not isinstance(name, str) for name in frame.columns):
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if len(frame) == 0:
        raise DataError("The data have no rows. Check how they were read and filtered.")
    return frame


def check_unique(frame: Tabular, names: Iterable[str]) -> None:
    """Refuse columns whose name another column has too."""
    if frame.columns.is_unique:
        return
    repeated = set(frame.columns[frame.columns.duplicated()])
    used = sorted(repeated.intersection(names))
    if used:
        raise DataError(
            f"The data have more than one column named {', '.join(map(repr, used))}. Rename or "
            "drop the repeated columns."
        )


def _convert(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, Mapping):
        return _from_mapping(data)
    module = type(data).__module__.partition(".")[0]
    if module == "polars" and hasattr(data, "get_columns"):
        return polars_frame(data)
    if module == "polars" and hasattr(data, "collect"):
        return _convert(data.collect())
    if module == "pyarrow" and hasattr(data, "to_table"):  # a data set of several files
        data = data.to_table()
    if module == "pyarrow" and hasattr(data, "read_all"):  # a stream of batches
        data = data.read_all()
    if module == "pyarrow" and hasattr(data, "to_pandas"):
        return arrow_frame(data)
    if module in ("duckdb", "_duckdb") and hasattr(data, "df"):  # a relation, or a result
        return duckdb_frame(data)
    if isinstance(data, np.ndarray) and data.dtype.names is not None:
        return pd.DataFrame({name: data[name] for name in data.dtype.names})
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return records_frame(data)
    if isinstance(data, (str, PathLike)):
        data = str(data)
        raise DataError(
            f"data is a string ({data!r}), not a table. Read the file first, for example with "
            f"pandas.read_csv({data!r})."
        )
    raise DataError(
        f"The data must be a table with named columns, not of type {type(data).__name__}. Pass a "
        "pandas or polars DataFrame, a pyarrow Table, a DuckDB relation, or a mapping of names to "
        "arrays."
    )


def _from_mapping(data: Mapping[Any, Any]) -> pd.DataFrame:
    if data and all(isinstance(values, Mapping) for values in data.values()):
        return pd.DataFrame(data)  # what DataFrame.to_dict() gives
    for name, values in data.items():
        if np.ndim(values) > 1:
            raise DataError(
                f"Column {name!r} has {np.ndim(values)} dimensions. Give each of its columns a "
                "name of its own."
            )
    arrays = {name: values for name, values in data.items() if np.ndim(values) == 1}
    lengths = {str(name): len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(
            f"The arrays in the data have different lengths ({text}). Make them equally long."
        )
    labelled = [values for values in arrays.values() if isinstance(values, pd.Series)]
    if any(not values.index.equals(labelled[0].index) for values in labelled):
        raise DataError(
            "The Series in the data have different indexes. Put them into one DataFrame, or pass "
            "them as arrays."
        )
    columns = {
        name: exact_list(values) if isinstance(values, (list, tuple)) else values
        for name, values in data.items()
    }
    return pd.DataFrame(columns, index=None if arrays or not data else [0])


def tidy_column(values: pd.Series) -> pd.Series:
    """A column as numpy numbers, or as a Categorical without unused levels.

    Text and objects become categories in sorted order. Booleans and dates are left alone, and so
    are numbers that would not stay what they are: whole numbers with missing ones among them, which
    become numpy's when these are gone, and numbers beyond 64 bits, which are kept as objects.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.ArrowDtype) and not _numeric(dtype) and dtype.kind != "U":
        return tidy_column(from_arrow(values))
    if isinstance(dtype, pd.CategoricalDtype):
        return without_unused(values)
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, np.dtype):
        return values.astype(object if values.isna().any() else bool)
    if pd.api.types.is_numeric_dtype(dtype):
        return values if isinstance(dtype, np.dtype) else _from_nullable(values)
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return values
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
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Series(numbers, index=values.index, name=values.name)
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iuf":
        return values
    whole = dtype.kind == "i" or (
        dtype.kind == "u" and (dtype.itemsize < 8 or values.max() < 2**63)
    )
    wide = np.dtype(np.int64 if whole else np.float64)
    return values if dtype == wide else values.astype(wide)


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


def where_missing(values: pd.Series) -> BoolArray:
    """Where a column has no value."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return np.asarray(codes_and_categories(values)[0] < 0)
    kind = values.dtype.kind if isinstance(values.dtype, np.dtype) else ""
    if kind == "f":
        return np.asarray(np.isnan(values.to_numpy()))
    if kind and kind in "iub":
        return np.zeros(len(values), dtype=bool)
    return np.asarray(values.isna().to_numpy(), dtype=bool)


def renumbered(values: pd.Series) -> pd.Series:
    """A column with the labels 0, 1, 2 and so on."""
    index = values.index
    plain = isinstance(index, pd.RangeIndex) and index.equals(pd.RangeIndex(len(index)))
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


def _from_text(values: pd.Series) -> pd.Series:
    """Text as a Categorical with its levels in sorted order."""
    codes, found = pd.factorize(values)  # by the column's own kind: the cheapest way
    levels = np.asarray(found, dtype=object)
    order = np.array(sorted(range(len(levels)), key=levels.tolist().__getitem__), dtype=np.intp)
    place = np.empty(len(order) + 1, dtype=np.intp)
    place[order], place[-1] = np.arange(len(order)), -1
    usual = pd.Index(levels[:1]).dtype  # of an index of such labels
    categories = found[order] if found.dtype == usual else pd.Index(levels[order])
    text = pd.Categorical.from_codes(place[codes], categories=categories, validate=False)
    return pd.Series(text, index=values.index, name=values.name)
