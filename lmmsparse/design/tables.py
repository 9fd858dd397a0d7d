"""Whatever table the user has → a pandas DataFrame, or a clear error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.errors import DataError
from lmmsparse.design.foreign import (
    arrow_frame,
    duckdb_frame,
    exact_list,
    polars_frame,
    records_frame,
)
from lmmsparse.design.variables import Tabular


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
    return _native(frame)


def _kinds(frame: pd.DataFrame) -> Iterable[Any]:
    """The types of the columns; `frame.dtypes` takes longer than reading a small formula."""
    arrays = getattr(frame, "_iter_column_arrays", None)
    return frame.dtypes if arrays is None else [array.dtype for array in arrays()]


def _native(frame: pd.DataFrame) -> pd.DataFrame:
    """The table without columns of another byte order, of records, or of more than 64 bits.

    pandas and its like can do little with these.
    """
    foreign = [
        (i, kind)
        for i, kind in enumerate(_kinds(frame))
        if isinstance(kind, np.dtype)
        and (not kind.isnative or kind.kind == "V" or (kind.kind == "f" and kind.itemsize > 8))
    ]
    if not foreign:
        return frame
    frame = frame.copy(deep=False)
    for i, kind in foreign:
        wide = kind.kind == "f" and kind.itemsize > 8
        own = object if kind.kind == "V" else np.float64 if wide else kind.newbyteorder("=")
        values = frame.iloc[:, i].to_numpy().astype(own)
        frame.isetitem(i, values)
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


def kind_of_data(data: Any) -> str:
    """What some data are, by their type: ``"frame"``, ``"dask"``, ``"connection"``, …; or empty."""
    if isinstance(data, pd.DataFrame):
        return "frame"
    if isinstance(data, Mapping):
        return "mapping"
    kind = type(data)
    match kind.__module__.partition(".")[0]:
        case "polars":
            known = {"get_columns": "polars", "collect": "lazy"}
        case "pyarrow":
            known = {"get_fragments": "dataset", "to_table": "to_table", "read_all": "read_all"}
            known["to_pandas"] = "to_pandas"
        case "duckdb" | "_duckdb":
            known = {"cursor": "connection", "project": "relation", "df": "relation"}
        case "dask" | "dask_expr":
            known = {"npartitions": "dask"} if hasattr(kind, "columns") else {}
        case _:
            known = {}
    return next((found for member, found in known.items() if hasattr(kind, member)), "")


def _convert(data: Any) -> pd.DataFrame:
    match kind_of_data(data):
        case "frame":
            frame: pd.DataFrame = data
            return frame
        case "mapping":
            return _from_mapping(data)
        case "polars":
            return polars_frame(data)
        case "lazy":
            return _convert(data.collect())
        case "dataset" | "to_table":  # of several files
            return arrow_frame(data.to_table())
        case "read_all":  # a stream of batches
            return arrow_frame(data.read_all())
        case "to_pandas":
            return arrow_frame(data)
        case "relation":
            return duckdb_frame(data)
        case "connection":
            return _of_connection(data)
        case "dask":
            raise DataError(
                "The data are a Dask DataFrame, which only lmm.lmer and the methods for batches "
                "read, in chunks. Pass data.compute() to read it into memory."
            )
    if isinstance(data, np.ndarray) and data.dtype.names is not None:
        return pd.DataFrame({name: data[name] for name in data.dtype.names})
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return records_frame(data)
    if isinstance(data, (str, PathLike)):
        raise _not_read(str(data))
    raise _no_table(data)


def _of_connection(data: Any) -> pd.DataFrame:
    """What a DuckDB connection has executed; a connection by itself is no table."""
    try:
        return duckdb_frame(data)
    except Exception as error:  # whatever DuckDB says of a connection without a result
        raise DataError(
            "The data are a DuckDB connection, not a table. Pass one of its relations, for example "
            "connection.table('name') or connection.sql('SELECT ...')."
        ) from error


def _not_read(path: str) -> DataError:
    if path.lower().endswith((".parquet", ".pq")):
        return DataError(
            f"data is a path ({path!r}), not a table. lmm.lmer reads Parquet files in chunks; "
            f"elsewhere read the file first: pandas.read_parquet({path!r})."
        )
    return DataError(
        f"data is a string ({path!r}), not a table. Read the file first, for example with "
        f"pandas.read_csv({path!r})."
    )


def _no_table(data: Any) -> DataError:
    kind = type(data)
    plain = kind.__module__ in ("builtins", "__main__")
    name = kind.__name__ if plain else f"{kind.__module__}.{kind.__name__}"
    hint = ""
    if hasattr(data, "__next__"):
        hint = " It can be read once: lmm.lmer takes lmm.Batches(function), which starts it anew."
    elif isinstance(data, (list, tuple)) and data and hasattr(data[0], "columns"):
        hint = " For tables one after the other lmm.lmer takes lmm.Batches(lambda: tables)."
    elif callable(getattr(data, "to_native", None)):
        hint = " Pass the table that is in it, data.to_native()."
    elif callable(getattr(data, "read", None)) and kind.__module__.startswith("pyarrow"):
        hint = " Read it first, data.read()."
    return DataError(
        f"The data must be a table with named columns, not of type {name}.{hint} Pass a pandas or "
        "polars DataFrame, a pyarrow Table, a DuckDB relation, or a mapping of names to arrays."
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
