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
