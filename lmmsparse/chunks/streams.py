"""Polars LazyFrames, DuckDB relations, functions that give batches, tables in memory → batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from lmmsparse.chunks.arrow import arrow_batches
from lmmsparse.chunks.batch import (
    Batch,
    Partition,
    Stream,
    frame_batch,
    number_of_parts,
    table_batches,
)
from lmmsparse.chunks.options import Batches
from lmmsparse.common.errors import DataError, MissingPackageError
from lmmsparse.common.threads import filtered
from lmmsparse.design import as_frame


class LazySource:
    """A polars LazyFrame."""

    what = "The LazyFrame"
    n_rows: int | None = None

    def __init__(self, lazy: Any) -> None:
        self._lazy = lazy
        try:
            self._schema = lazy.collect_schema()
        except Exception as error:  # whatever polars says
            said = f"{self.what} cannot be read ({error}). Check how it was made."
            raise DataError(said) from error
        self.names = tuple(self._schema.names())

    def count(self) -> int:
        return int(self._lazy.select(self.names[0]).collect().height)

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        names = sorted(columns)
        # Categories of a string cache have no order of their own: they are texts.
        texts = [n for n in names if str(self._schema[n]).partition("(")[0] == "Categorical"]
        if not hasattr(self._lazy, "collect_batches"):
            raise MissingPackageError(
                "This version of polars does not give the batches of a LazyFrame. Update polars, "
                "or write lazyframe.sink_parquet('data.parquet') and pass that path."
            )
        chosen = self._lazy.select(names).cast({name: str for name in texts})

        def start() -> Iterator[Batch]:
            with filtered(("ignore", Warning)):  # that this way to read is new
                found = iter(chosen.collect_batches(chunk_size=rows))
            tables = (batch for frame in found for batch in frame.to_arrow().to_batches())
            return arrow_batches(tables, rows)

        return [Stream(start, self.what)]


class RelationSource:
    """A DuckDB relation."""

    what = "The relation"
    n_rows: int | None = None

    def __init__(self, relation: Any) -> None:
        self._relation = relation
        self.names = tuple(relation.columns)

    def count(self) -> int:
        return int(self._relation.aggregate("count(*)").fetchall()[0][0])

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in sorted(columns))

        def start() -> Iterator[Batch]:
            chosen = self._relation.project(quoted)
            read = getattr(chosen, "to_arrow_reader", None) or chosen.fetch_record_batch
            return arrow_batches(read(rows), rows)

        return [Stream(start, self.what)]


class BatchesSource:
    """A function that gives batches."""

    what = "The function of lmm.Batches"
    n_rows: int | None = None

    def __init__(self, batches: Batches) -> None:
        self._function = batches.function
        self.names = self._names()

    def _names(self) -> tuple[str, ...]:
        for table in self._started():
            if not hasattr(table, "__len__") or len(table):
                return tuple(str(name) for name in as_frame(table).columns)
        raise DataError(f"{self.what} gives no rows. Check what it returns.")

    def _started(self) -> Iterator[Any]:
        made = self._function()
        if hasattr(made, "columns") or not hasattr(made, "__iter__"):
            raise DataError(
                f"{self.what} returned a {type(made).__name__}, not batches. Return an iterator of "
                "tables, or pass the table itself."
            )
        return iter(made)

    def count(self) -> int:
        return sum(len(as_frame(table)) for table in self._started())

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        names = sorted(columns)
        return [Stream(lambda: table_batches(self._started(), names, rows))]


class FrameSource:
    """A table in memory, which is cut in parts as if it were not."""

    what = "The table"

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.names = tuple(str(name) for name in frame.columns)

    @property
    def n_rows(self) -> int | None:
        return len(self._frame)

    def count(self) -> int:
        return len(self._frame)

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        names = sorted(columns)
        n, parts = len(self._frame), number_of_parts(len(self._frame), rows)
        ends = [n * i // parts for i in range(parts + 1)]
        return [FramePartition(self._frame[names].iloc[a:z], rows) for a, z in pairwise(ends)]


@dataclass(frozen=True, eq=False)
class FramePartition:
    """Consecutive rows of a table."""

    frame: pd.DataFrame
    rows: int

    def batches(self) -> Iterator[Batch]:
        names = [str(name) for name in self.frame.columns]
        for start in range(0, len(self.frame), self.rows):
            yield frame_batch(self.frame.iloc[start : start + self.rows], names, True)
