"""Whatever table the user has → a pandas DataFrame, or a clear error."""

from __future__ import annotations

import difflib
from collections.abc import ItemsView, Iterable, Mapping
from os import PathLike
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmsparse._types import BoolArray, IntArray
from lmmsparse.errors import DataError


def as_frame(data: Any) -> pd.DataFrame:
    """Return `data` as a DataFrame with text column names, without copying pandas columns.

    Parameters
    ----------
    data : table
        pandas or polars DataFrame or LazyFrame, pyarrow Table, RecordBatch, RecordBatchReader or
        Dataset, DuckDB relation, numpy record array, list of records, or mapping of arrays.

    Raises
    ------
    DataError
        If it is none of these, is empty, or its column names are ambiguous.
    """
    frame = _convert(data)
    if isinstance(frame.columns, pd.MultiIndex):
        raise DataError(
            "The data have column names of several levels (a MultiIndex). A formula can only name "
            "plain columns. Flatten them first, for example "
            "data.columns = ['_'.join(map(str, c)) for c in data.columns]."
        )
    if any(not isinstance(name, str) for name in frame.columns):
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if not frame.columns.is_unique:
        duplicated = frame.columns[frame.columns.duplicated()].unique()
        names = ", ".join(map(repr, duplicated))
        raise DataError(
            f"The data have more than one column named {names}. A formula could mean either. "
            "Rename or drop the repeated columns."
        )
    if len(frame) == 0:
        raise DataError(
            "The data have no rows. At least one is needed. Check how they were read and filtered."
        )
    return frame


def _convert(data: Any) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, Mapping):
        return _from_mapping(data)
    module = type(data).__module__.partition(".")[0]
    if module == "polars" and hasattr(data, "get_columns"):
        return pd.DataFrame({column.name: _polars_column(column) for column in data.get_columns()})
    if module == "polars" and hasattr(data, "collect"):
        return _convert(data.collect())
    if module == "pyarrow" and hasattr(data, "to_table"):  # a data set of several files
        data = data.to_table()
    if module == "pyarrow" and hasattr(data, "read_all"):  # a stream of batches
        data = data.read_all()
    if module == "pyarrow" and hasattr(data, "to_pandas"):
        return pd.DataFrame(data.to_pandas())
    if module in ("duckdb", "_duckdb") and hasattr(data, "df"):  # a relation, or a result
        return pd.DataFrame(data.df())
    if isinstance(data, np.ndarray) and data.dtype.names is not None:
        return pd.DataFrame({name: data[name] for name in data.dtype.names})
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return pd.DataFrame(data)
    if isinstance(data, (str, PathLike)):
        data = str(data)
        raise DataError(
            f"The data are text, {data!r}. A table with named columns is needed. Read the file "
            f"first, for example with pandas.read_csv({data!r})."
        )
    raise DataError(
        f"The data are of type {type(data).__name__}. A table with named columns is needed. Pass a "
        "pandas or polars DataFrame, a pyarrow Table, a DuckDB relation, or a mapping of names to "
        "arrays."
    )


def _from_mapping(data: Mapping[Any, Any]) -> pd.DataFrame:
    if data and all(isinstance(values, Mapping) for values in data.values()):
        return pd.DataFrame(data)  # what DataFrame.to_dict() gives
    for name, values in data.items():
        if np.ndim(values) > 1:
            raise DataError(
                f"Column {name!r} has {np.ndim(values)} dimensions. A column holds one value per "
                "row. Give each of its columns a name of its own."
            )
    arrays = {name: values for name, values in data.items() if np.ndim(values) == 1}
    lengths = {str(name): len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(
            f"The arrays in the data have different lengths ({text}). Every column needs one "
            "value per row. Make them equally long."
        )
    labelled = [values for values in arrays.values() if isinstance(values, pd.Series)]
    if any(not values.index.equals(labelled[0].index) for values in labelled):
        raise DataError(
            "The Series in the data have different indexes. It is not clear which rows belong "
            "together. Put them into one DataFrame, or pass them as arrays."
        )
    return pd.DataFrame(dict(data), index=None if arrays or not data else [0])


def _polars_column(column: Any) -> Any:
    kind = str(column.dtype)
    if kind.startswith(("Categorical", "Enum")):
        text = column.cast(str).to_list()
        # Categories of a string cache have no order of their own.
        known = column.dtype.categories if kind.startswith("Enum") else sorted({*text} - {None})
        return pd.Categorical(text, categories=[str(category) for category in known])
    if kind in ("String", "Utf8") or column.dtype.is_nested() or kind == "Object":
        return column.to_list()
    if kind == "Boolean" and column.null_count():
        return column.to_list()
    return column.to_numpy()


def check_order(what: str, values: Any, index: pd.Index) -> None:
    """Refuse a Series that has the rows' labels in another order: values go by position."""
    if not isinstance(values, (pd.Series, pd.DataFrame)) or len(values) != len(index):
        return
    if values.index.equals(index) or not (values.index.is_unique and index.is_unique):
        return
    if values.index.isin(index).all():
        raise DataError(
            f"{what} has the same row labels as the data, but in another order. Values are taken "
            "by position. Sort them like the data, or pass an array if they are in order already."
        )


def close_match(name: str, choices: Iterable[object]) -> str:
    """A hint such as " Did you mean 'Time'?", or nothing."""
    candidates = {str(choice).lower(): str(choice) for choice in choices}
    found = difflib.get_close_matches(name.lower(), list(candidates), n=1, cutoff=0.6)
    return f" Did you mean {candidates[found[0]]!r}?" if found else ""


def listed(values: Iterable[object], limit: int = 8) -> str:
    """Values as a short enumeration for messages."""
    items = [str(value) for value in values]
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown}, … ({len(items)} in all)"


def tidy_column(values: pd.Series) -> pd.Series:
    """A column as numpy numbers, or as a Categorical without unused levels.

    Text and objects become categories in sorted order; nullable numbers become float64. Booleans
    and dates are left alone.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return without_unused(values)
    if pd.api.types.is_bool_dtype(dtype) and not isinstance(dtype, np.dtype):
        return values.astype(object if values.isna().any() else bool)
    if pd.api.types.is_numeric_dtype(dtype):
        if isinstance(dtype, np.dtype):
            return values
        return pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan), index=values.index)
    if isinstance(dtype, np.dtype) and dtype.kind in "mM":
        return values
    if pd.api.types.is_string_dtype(dtype) or dtype == np.dtype(object):
        return _from_objects(values)
    return values


def widened(values: pd.Series) -> pd.Series:
    """Numbers of few bits as int64 or float64: what a formula computes of them must not overflow.

    In eight bits without a sign 2 − 5 is 253, and 20² is 144.
    """
    dtype = values.dtype
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iuf":
        return values
    whole = dtype.kind == "i" or (dtype.kind == "u" and dtype.itemsize < 8)
    wide = np.dtype(np.int64 if whole else np.float64)
    return values if dtype == wide else values.astype(wide)


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
    rows : int
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

    def frame(self, names: Iterable[str]) -> pd.DataFrame:
        """Some of the columns as a DataFrame to compute with."""
        columns = {name: widened(self.columns[name]) for name in names}
        return pd.DataFrame(columns, index=self.index)


def _from_objects(values: pd.Series) -> pd.Series:
    if values.dtype != object or pd.api.types.infer_dtype(values, skipna=True) == "string":
        return _from_text(values)
    present = values[values.notna()]
    kinds = set(map(type, present.array))
    if kinds and all(issubclass(k, (bool, np.bool_)) for k in kinds):
        return values if len(present) < len(values) else values.astype(bool)
    if kinds and not any(issubclass(k, str) for k in kinds):
        try:  # numbers in an object column (Decimal, mixed int and float)
            numbers = pd.to_numeric(values)
        except (TypeError, ValueError):
            numbers = None
        if numbers is not None and pd.api.types.is_numeric_dtype(numbers.dtype):
            return tidy_column(numbers)
    names = " and ".join(sorted(k.__name__ for k in kinds))
    text = [k for k in kinds if issubclass(k, str)]
    if text and len(text) < len(kinds):
        raise DataError(
            f"Column {values.name!r} mixes values of different types ({names}). The number 1 and "
            "the text '1' would be different levels. Convert it to one type, for example with "
            ".astype(str)."
        )
    try:
        return values.astype(object).astype("category")
    except TypeError as error:
        raise DataError(
            f"Column {values.name!r} holds values of type {names}, which cannot be levels. Numbers "
            "or text are needed. Convert it, for example with .astype(str)."
        ) from error


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
