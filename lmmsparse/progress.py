"""Calls of one function, here or in other processes → their results, with a bar and a way out.

Ctrl-C between two results ends the run and leaves the results so far: always a prefix, in order.
Nothing is printed unless somebody watches: a terminal, or a notebook.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Any, Generic, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from lmmsparse.threads import filtered

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
    function : callable
    calls : sequence of tuple
    label : str
        What the bar is about.
    unit : str
        What it counts.
    n_jobs : int
        Processes.
    progress : bool, optional
        True: a bar at once; False: none; by default one after two seconds, if standard error is a
        terminal or a notebook.
    sizes : sequence of int, optional
        What each call counts; 1 if not given.
    until : callable, optional
        A result for which this is true is the last one.

    Returns
    -------
    Run

    Raises
    ------
    KeyboardInterrupt
        If there is no result yet.
    """
    counts = [1] * len(calls) if sizes is None else list(sizes)
    results: list[R] = []
    stream = _results(function, calls, min(effective_n_jobs(int(n_jobs)), max(1, len(calls))))
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
        with filtered(("ignore", Warning)):  # of tasks that were started and are not needed
            stream.close()
    return Run(results, interrupted=False)


def _results(
    function: Callable[..., R], calls: Iterable[tuple[Any, ...]], workers: int
) -> Generator[R, None, None]:
    if workers == 1:
        return (function(*arguments) for arguments in calls)
    parallel = Parallel(n_jobs=workers, return_as="generator")
    out: Generator[R, None, None] = parallel(delayed(function)(*call) for call in calls)
    return out


def bar(label: str, total: int, unit: str, progress: bool | None = None) -> Any:
    """A bar of tqdm's: at once, never, or after two seconds if somebody watches.

    Parameters
    ----------
    label : str
    total : int
    unit : str
    progress : bool, optional
        As for `run`.
    """
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
