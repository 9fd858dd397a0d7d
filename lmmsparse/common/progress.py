"""Calls of one function, here or in other processes → their results, with a bar and a way out.

Ctrl-C between two results ends the run and leaves the results so far: always a prefix, in order.
Nothing is printed unless stderr is a terminal or a notebook.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Any, Generic, TypeVar

import numpy as np

from lmmsparse.common.processes import elsewhere, workers_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of widgets that are missing in a notebook
    from tqdm.auto import tqdm

R = TypeVar("R")

_PATIENCE = 2.0


@dataclass(frozen=True)
class Run(Generic[R]):
    """What came of a sequence of calls.

    Attributes
    ----------
    results : list
        In the order of the calls; not all of them if the run was interrupted or ended early.
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    results: list[R]
    interrupted: bool


def run(
    function: Callable[..., R],
    calls: Sequence[tuple[Any, ...]],
    label: str,
    *,
    unit: str,
    n_jobs: int = 1,
    progress: bool | None = None,
    sizes: Sequence[int] | None = None,
    until: Callable[[R], bool] = lambda result: False,
) -> Run[R]:
    """Call a function with each tuple of arguments.

    Parameters
    ----------
    progress : bool, optional
        True: a bar at once; False: none; by default one after two seconds, if standard error is a
        terminal or a notebook.
    sizes : sequence of int, optional
        What each call counts; 1 if not given.
    until : callable, optional
        A result for which this is true is the last one.
    """
    counts = [1] * len(calls) if sizes is None else list(sizes)
    results: list[R] = []
    own = max(1, int(np.searchsorted(np.cumsum(counts), max(counts, default=1), "right")))
    workers = workers_for(int(n_jobs), len(calls))
    stream = _results(function, calls, workers, own)
    try:
        with bar(label, sum(counts), unit, progress) as shown:
            for result, count in zip(stream, counts, strict=False):
                results.append(result)
                shown.update(count)
                if until(result):
                    break
    except KeyboardInterrupt:
        if not results:
            raise
        return Run(results, interrupted=True)
    finally:
        stream.close()
    return Run(results, interrupted=False)


def streamed(
    function: Callable[..., R], calls: Sequence[tuple[Any, ...]], n_jobs: int
) -> Generator[R, None, None]:
    """The results of calls, in their order, as they are asked for."""
    if n_jobs == 1 or len(calls) < 2:
        return (function(*arguments) for arguments in calls)
    return elsewhere(function, calls, min(n_jobs, len(calls)))


def _results(
    function: Callable[..., R], calls: Sequence[tuple[Any, ...]], workers: int, own: int
) -> Generator[R, None, None]:
    if workers == 1:
        return (function(*arguments) for arguments in calls)
    return _first_here(function, calls[:own], elsewhere(function, calls[own:], workers))


def _first_here(
    function: Callable[..., R], calls: Sequence[tuple[Any, ...]], others: Generator[R, None, None]
) -> Generator[R, None, None]:
    """The first results from this process: the others take seconds to start."""
    try:
        for call in calls:
            yield function(*call)
        yield from others
    finally:
        others.close()


def growing(total: int, largest: int, first: int = 1) -> list[slice]:
    """Parts of a long computation, small at first: what is interrupted early has some results."""
    out, start, size = [], 0, min(first, largest)
    while start < total:
        out.append(slice(start, min(start + size, total)))
        start, size = start + size, min(2 * size, largest)
    return out


def bar(label: str, total: int | None, unit: str, progress: bool | None = None) -> Any:
    """A bar of tqdm's: at once, never, or after two seconds if stderr is watched."""
    size = None if _in_notebook() else get_terminal_size()  # some terminals say they have none
    return tqdm(
        total=total,
        desc=label,
        unit=f" {unit}",
        file=sys.stderr,
        disable=not (_watched() if progress is None else progress),
        delay=_PATIENCE if progress is None else 0.0,
        leave=bool(progress),
        ncols=size and size.columns,
        nrows=size and size.lines,
    )


def _watched() -> bool:
    """Whether standard error is a terminal or the output of a notebook."""
    stream = sys.stderr
    if stream is None:
        return False
    return stream.isatty() or _in_notebook()


def _in_notebook() -> bool:
    return type(sys.stderr).__module__.partition(".")[0] == "ipykernel"
