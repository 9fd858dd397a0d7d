"""Dask: DataFrames as sources, and clients that work on partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lmmsparse.chunks.batch import (
    Batch,
    Partition,
    frame_batch,
    grouped,
    number_of_parts,
    reading,
)

R = TypeVar("R")


class DaskSource:
    """A Dask DataFrame."""

    what = "The Dask DataFrame"
    n_rows: int | None = None

    def __init__(self, data: Any) -> None:
        self._data = data
        self.names = tuple(str(name) for name in data.columns)

    def count(self) -> int:
        return len(self._data)

    def partitions(self, columns: Iterable[str], rows: int) -> list[Partition]:
        names = sorted(columns)
        chosen, count = self._data[names], self._data.npartitions
        parts = number_of_parts(2 * count, 1)  # as if a partition were two batches
        return [
            DaskPartition([chosen.partitions[i] for i in group], names, rows)
            for group in grouped([1] * count, parts)
        ]


@dataclass(frozen=True, eq=False)
class DaskPartition:
    """Consecutive partitions of a Dask DataFrame."""

    pieces: Sequence[Any]
    names: list[str]
    rows: int

    def batches(self) -> Iterator[Batch]:
        remedy = "Check that what it reads is there, with the same columns in all partitions."
        return reading(self._batches, DaskSource.what, remedy)

    def _batches(self) -> Iterator[Batch]:
        for piece in self.pieces:
            frame = piece.compute(scheduler="synchronous")
            for start in range(0, len(frame), self.rows):
                yield frame_batch(frame.iloc[start : start + self.rows], self.names)


def own_client() -> Any:
    """The client that Dask uses by itself, None if there is none."""
    try:
        import distributed
    except ImportError:
        return None
    package: Any = distributed
    try:
        return package.default_client()
    except ValueError:
        return None


def is_dask(client: Any) -> bool:
    """Whether a client is Dask's, whose tasks can take the results of others."""
    return type(client).__module__.partition(".")[0] == "distributed"


def on_cluster(
    client: Any,
    work: Callable[..., R],
    calls: Sequence[tuple[Any, ...]],
    merge: Callable[[R, R], R],
    shown: Callable[[], Any],
) -> R:
    """Results of calls, merged pairwise on the cluster; a task whose worker dies is run again."""
    futures = [client.submit(work, *call, pure=False) for call in calls]
    every = list(futures)
    while len(futures) > 1:
        merged = [
            client.submit(merge, a, b, pure=False)
            for a, b in zip(futures[::2], futures[1::2], strict=False)
        ]
        every += merged
        futures = merged + futures[2 * len(merged) :]
    try:
        for future in every[: len(calls)]:
            _wait(future)
            shown()
        result: R = futures[0].result()
        return result
    finally:
        client.cancel(every)


def _wait(future: Any) -> None:
    """Until a task has ended; its error is that of the result that needs it."""
    import distributed

    package: Any = distributed
    package.wait(future)
