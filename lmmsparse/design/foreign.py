"""Tables of polars, Arrow and DuckDB, and lists → pandas columns that hold the same values.

Their own ways to pandas make doubles of whole numbers where one is missing, so that above 2⁵³
neighbours become one; time zones and intervals get lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.threads import filtered

_LARGEST = 2**53  # whole numbers up to here are doubles too


def polars_frame(data: Any) -> pd.DataFrame:
    """A polars DataFrame in pandas."""
    return pd.DataFrame({column.name: _polars_column(column) for column in data.get_columns()})


def _polars_column(column: Any) -> Any:
    dtype = column.dtype
    kind = str(dtype).partition("(")[0]
    if kind in ("Categorical", "Enum"):
        text = column.cast(str).to_list()
        # Categories of a string cache have no order of their own.
        known = dtype.categories if kind == "Enum" else sorted({*text} - {None})
        return pd.Categorical(text, categories=[str(category) for category in known])
    if kind == "Extension":  # such as pandas' intervals and periods
        return column.to_arrow().to_pandas()
    if kind in ("Int128", "UInt128"):
        return pd.Series(column.to_list(), dtype=object)
    if dtype.is_integer() and column.null_count():
        filled = np.array(column.fill_null(0).to_numpy())
        return pd.arrays.IntegerArray(filled, np.array(column.is_null().to_numpy()))
    if kind == "Datetime" and dtype.time_zone is not None:
        moments = pd.DatetimeIndex(column.to_numpy())  # in UTC
        return moments.tz_localize("UTC").tz_convert(dtype.time_zone)
    if kind in ("String", "Utf8", "Object") or dtype.is_nested():
        return column.to_list()
    if kind == "Boolean" and column.null_count():
        return column.to_list()
    return column.to_numpy()


def arrow_frame(table: Any) -> pd.DataFrame:
    """An Arrow Table or RecordBatch in pandas."""
    special = {
        name: _arrow_column(table.column(j))
        for j, name in enumerate(table.schema.names)
        if _needs_care(table.column(j)) and table.schema.names.count(name) == 1
    }
    if not special:
        return pd.DataFrame(table.to_pandas())
    frame = pd.DataFrame(table.drop_columns(list(special)).to_pandas())
    if len(frame) != len(table):  # nothing else is in it
        frame = pd.DataFrame(index=pd.RangeIndex(len(table)))
    for name, values in special.items():
        frame[name] = values.array
    return frame[[name for name in table.schema.names if name in frame.columns]]


def _needs_care(column: Any) -> bool:
    kind = str(column.type)
    if kind in ("int64", "uint64"):
        return bool(column.null_count)
    return kind.startswith("dictionary<values=extension")


def _arrow_column(column: Any) -> pd.Series:
    if str(column.type) in ("int64", "uint64"):
        values: pd.Series = column.to_pandas(integer_object_nulls=True)
        return values.astype("Int64" if str(column.type) == "int64" else "UInt64")
    parts = []
    for chunk in getattr(column, "chunks", [column]):
        levels = pd.Index(chunk.dictionary.to_pandas())
        codes = chunk.indices.to_pandas().fillna(-1).to_numpy(dtype=np.intp)
        parts.append(pd.Series(pd.Categorical.from_codes(codes, levels, chunk.type.ordered)))
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def duckdb_frame(data: Any) -> pd.DataFrame:
    """A DuckDB relation or result in pandas."""
    types = getattr(data, "types", None) or [each[1] for each in data.description]
    if any(str(kind).startswith(("HUGEINT", "UHUGEINT", "DECIMAL")) for kind in types):
        try:
            with filtered(("ignore", UserWarning)):  # that a result is copied for it
                return arrow_frame(data.to_arrow_table())
        except ImportError:  # without pyarrow they are doubles
            pass
    return pd.DataFrame(data.df())


def from_arrow(values: pd.Series) -> pd.Series:
    """A column that pandas keeps in Arrow's memory, in a type of pandas' own."""
    array: Any = values.array
    column = array.__arrow_array__()
    made = _arrow_column(column) if _needs_care(column) else column.to_pandas()
    return pd.Series(made.array, index=values.index, name=values.name)


def exact_list(values: Sequence[Any]) -> Any:
    """A list as it is, or as objects where pandas would make doubles of large whole numbers."""
    made = pd.Series(values)
    if made.dtype == np.float64 and any(
        isinstance(v, (int, np.integer)) and abs(int(v)) > _LARGEST for v in values
    ):
        return pd.Series(list(values), dtype=object)
    return made


def records_frame(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Records as columns."""
    frame = pd.DataFrame(rows)
    for j, name in enumerate(frame.columns):
        if frame.dtypes.iloc[j] == np.float64 and frame.iloc[:, j].abs().max() > _LARGEST:
            frame[name] = exact_list([row.get(name) for row in rows])
    return frame
