"""Whatever data the user has → a source to read in chunks, or None for a table in memory."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from lmmsparse.chunks.arrow import dataset_source, files_source
from lmmsparse.chunks.batch import Source
from lmmsparse.chunks.dask import DaskSource
from lmmsparse.chunks.options import Batches, Chunks
from lmmsparse.chunks.products import ModelProducts
from lmmsparse.chunks.streams import BatchesSource, FrameSource, LazySource, RelationSource
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.design import as_frame
from lmmsparse.design.tables import kind_of_data


def source_of(data: Any) -> Source:
    """The source that some data are, tables in memory among them."""
    found = lazy_source(data)
    return FrameSource(as_frame(data)) if found is None else found


def lazy_source(data: Any) -> Source | None:
    """The source that some data are; None for those that are in memory."""
    if isinstance(data, Batches):
        return BatchesSource(data)
    if _is_path(data):
        return files_source(data)
    kind = kind_of_data(data)
    if kind == "dataset":
        return dataset_source(data)
    if kind == "lazy":
        return LazySource(data)
    if kind == "relation":
        return RelationSource(data)
    if kind == "dask":
        return DaskSource(data)
    return None


def reads_always(data: Any) -> bool:
    """Whether data are read in chunks whatever their size."""
    return isinstance(data, Batches) or _is_path(data) or kind_of_data(data) == "dask"


def _is_path(data: Any) -> bool:
    """Whether data are the name of files, or a list of such."""
    if isinstance(data, (list, tuple)):
        return bool(data) and all(isinstance(each, (str, PurePath)) for each in data)
    return isinstance(data, (str, PurePath))


def refuse_chunks(who: str, data: Any) -> None:
    """Refuse what is read in chunks only, for a function that needs all rows in memory.

    Raises
    ------
    DataError
    """
    parquet = isinstance(data, (str, PurePath)) and str(data).endswith((".parquet", ".pq"))
    if isinstance(data, ModelProducts):
        raise DataError(
            f"{who} does not take cross-products: its search weights all rows anew at every step. "
            "Pass the data themselves, in memory."
        )
    if isinstance(data, Batches) or parquet or kind_of_data(data) == "dask":
        read = f"pandas.read_parquet({str(data)!r})" if parquet else "pandas.concat(batches)"
        read = "data.compute()" if kind_of_data(data) == "dask" else read
        raise DataError(
            f"{who} does not read data in chunks: its search weights all rows anew at every step. "
            f"Read them into memory, {read}, or a part of them."
        )


def check_chunks(chunks: Any) -> Chunks | None:
    """The user's ``chunks=``."""
    if chunks is None or isinstance(chunks, Chunks):
        return chunks
    raise OptionError(
        f"chunks must be lmm.Chunks(...), not a {type(chunks).__name__}. Write, for example, "
        "chunks=lmm.Chunks(rows=1_000_000, processes=2)."
    )
