"""A part of the data in memory: tables of any kind → pandas columns, texts as codes and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmsparse.common.errors import DataError, LmmError
from lmmsparse.common.words import close_match, listed
from lmmsparse.design import as_frame
from lmmsparse.design.tables import check_unique


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows.

    Attributes
    ----------
    frame : DataFrame
        Text columns are categorical, with labels in any order.
    text : frozenset of str
        These columns. Categories of others have the order that they have.
    index : pandas.Index or None
        Labels of the rows, where they have some.
    """

    frame: pd.DataFrame
    text: frozenset[str] = frozenset()
    index: pd.Index | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def decoded(self, rows: Any) -> pd.DataFrame:
        """Some of the rows, with texts as texts."""
        some = self.frame.iloc[rows]
        columns = {}
        for name in some:
            column: Any = some[name]
            if name in self.text:
                labels = column.cat.categories
                column = pd.Series(labels.take(column.cat.codes), index=some.index).where(
                    column.notna()
                )
                column = column.astype(labels.dtype)
            columns[str(name)] = column
        return pd.DataFrame(columns, index=some.index)


class Partition(Protocol):
    """A part of a source that one process works on; it can be read again and again."""

    def batches(self) -> Iterator[Batch]: ...


class Source(Protocol):
    """Data that are read in parts.

    Attributes
    ----------
    what : str
        For messages.
    names : tuple of str
        Columns.
    """

    what: str
    names: tuple[str, ...]

    @property
    def n_rows(self) -> int | None:
        """How many rows there are, if that is known without reading them."""
        ...

    def count(self) -> int:
        """The number of rows, which may have to be counted."""
        ...

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        """Parts of the data, few and large, whatever the number of processes.

        Parameters
        ----------
        rows : int
            Of a batch.
        """
        ...


@dataclass(frozen=True, eq=False)
class Stream:
    """All of a source, from its beginning: it has one part and is read in this process.

    Attributes
    ----------
    what : str
        For messages about what another package cannot read; empty for a function of the user's,
        whose errors are left as they are.
    """

    start: Callable[[], Iterator[Batch]]
    what: str = ""

    def batches(self) -> Iterator[Batch]:
        return reading(self.start, self.what, _UNCHANGED) if self.what else self.start()


_UNCHANGED = (
    "Check that what it reads is there, as it was when the model was called for, and that columns "
    "have one type throughout."
)


def reading(start: Callable[[], Iterator[Batch]], what: str, remedy: str) -> Iterator[Batch]:
    """Batches that another package reads, whose errors are ours."""
    try:
        yield from start()
    except (LmmError, MemoryError):
        raise
    except Exception as error:  # whatever the package says
        said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
        raise DataError(f"{what} cannot be read ({said}). {remedy}") from error


def frame_batch(frame: pd.DataFrame, columns: Iterable[str], labelled: bool = False) -> Batch:
    """A batch of a pandas frame, with columns of a source in any order.

    Parameters
    ----------
    labelled : bool
        Whether the labels of the rows are kept.
    """
    names = list(columns)
    check_columns(frame.columns, names, "One of the batches has")
    check_unique(frame, names)
    out: dict[str, Any] = {}
    text = set()
    for name in names:
        column = frame[name].reset_index(drop=True)
        if _is_text(column):
            codes, labels = pd.factorize(column)
            column = pd.Series(pd.Categorical.from_codes(codes, labels))
            text.add(name)
        out[name] = column
    made = pd.DataFrame(out, index=pd.RangeIndex(len(frame)))
    return Batch(made, frozenset(text), frame.index if labelled else None)


def _is_text(column: pd.Series) -> bool:
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype) or not pd.api.types.is_string_dtype(dtype):
        return False
    texts = not pd.api.types.is_object_dtype(dtype)
    return texts or pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty")


def check_columns(have: Iterable[str], names: Iterable[str], who: str) -> None:
    """Refuse data without one of the columns that are needed."""
    have = list(have)
    lost = [name for name in names if name not in have]
    if lost:
        raise DataError(
            f"{who} no column {lost[0]!r}, which is needed.{close_match(lost[0], have)} There are "
            f"{listed(have, 20)}. All parts of the data must have the same columns."
        )


def table_batches(tables: Iterable[Any], columns: Iterable[str], rows: int) -> Iterator[Batch]:
    """Batches of at most so many rows from tables of any kind."""
    names = list(columns)
    for table in tables:
        if not _rows_of(table):
            continue
        frame = as_frame(table)
        for start in range(0, len(frame), rows):
            yield frame_batch(frame.iloc[start : start + rows], names)


def _rows_of(table: Any) -> int:
    """Rows of a table; of a mapping those of its first column."""
    if isinstance(table, dict):
        return max((int(np.size(values)) for values in table.values()), default=0)
    return len(table) if hasattr(table, "__len__") else 1


def grouped(sizes: Iterable[int], parts: int) -> list[list[int]]:
    """Positions of consecutive pieces in at most so many groups of similar size."""
    counts = np.asarray(list(sizes), dtype=np.float64)
    if not len(counts):
        return []
    middle = (np.cumsum(counts) - counts / 2) / max(float(counts.sum()), 1.0)
    group = np.minimum((middle * parts).astype(np.intp), parts - 1)
    return [np.flatnonzero(group == g).tolist() for g in np.unique(group)]


_FEW, _MOST = 8, 64  # parts: for the processes of one machine, for those of a cluster


def number_of_parts(total: int | None, rows: int) -> int:
    """Into how many parts a source is cut; there are few, as their results are large.

    Up to eight have two batches at least, more have eight.
    """
    if total is None:
        return 1
    few = int(np.clip(total // (2 * rows), 1, _FEW))
    return max(few, min(total // (8 * rows), _MOST))
