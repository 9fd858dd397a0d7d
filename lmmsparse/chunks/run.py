"""Work on the partitions of a source, here, in processes or on a client; results are merged.

Which results are merged with which depends on the number of partitions only, so that sums are the
same to the last bit whoever did the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from typing import Any, TypeVar

from lmmsparse.chunks.batch import Partition, Stream
from lmmsparse.chunks.dask import is_dask, on_cluster
from lmmsparse.chunks.options import Chunks
from lmmsparse.common.errors import OptionError
from lmmsparse.common.progress import bar, streamed
from lmmsparse.common.threads import one_thread

R = TypeVar("R")


def fold(
    work: Callable[..., R],
    partitions: Sequence[Partition],
    arguments: tuple[Any, ...],
    merge: Callable[[R, R], R],
    chunks: Chunks,
    label: str,
    progress: bool | None = None,
    merge_here: Callable[[R, R], R] | None = None,
) -> R:
    """The result of work(partition, *arguments) for all partitions together.

    Parameters
    ----------
    merge_here : callable, optional
        Merges in this process, where the results of parts are of no other use.
    """
    calls = [(work, each, *arguments) for each in partitions]
    if any(isinstance(each, Stream) for each in partitions):  # not to be read elsewhere
        chunks = replace(chunks, client=None, processes=1)
    with bar(label, len(calls), "parts", progress) as shown:
        try:
            dask = chunks.client is not None and is_dask(chunks.client)
            merge = merge if dask or merge_here is None else merge_here
            found: R = _folded(calls, merge, chunks, shown)
            return found
        except Exception as error:
            if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
                raise OptionError(
                    "A process that worked on the chunks was killed, usually because memory ran "
                    "out. Use fewer rows or processes: lmm.Chunks(rows=250_000, processes=1)."
                ) from error
            raise


def _folded(
    calls: list[tuple[Any, ...]], merge: Callable[[R, R], R], chunks: Chunks, shown: Any
) -> Any:
    client = chunks.client
    if client is None:
        results = streamed(_limited, calls, chunks.processes)
        try:
            return _merged(results, merge, shown)
        finally:
            results.close()
    if is_dask(client):
        return on_cluster(client, _limited, calls, merge, lambda: shown.update(1))
    submitted = [client.submit(_limited, *call) for call in calls]
    return _merged((each.result() for each in submitted), merge, shown)


@one_thread
def _limited(work: Callable[..., Any], *arguments: Any) -> Any:
    return work(*arguments)


def _merged(results: Iterable[R], merge: Callable[[R, R], R], shown: Any) -> R:
    """Pairs of results, pairs of pairs and so on, each as soon as it is complete.

    What is over at the end of a round goes behind the others to the next one, as on a cluster.
    """
    waiting: list[tuple[int, R]] = []
    for each in results:
        depth, value = 0, each
        while waiting and waiting[-1][0] == depth:
            value, depth = merge(waiting.pop()[1], value), depth + 1
        waiting.append((depth, value))
        shown.update(1)
    _, value = waiting.pop()
    while waiting:
        value = merge(waiting.pop()[1], value)
    return value
