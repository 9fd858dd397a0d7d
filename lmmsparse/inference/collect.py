"""A function and many arguments → its results in order, and whether the user stopped it.

What is finished when Ctrl-C comes is kept. Tasks are the same whatever the number of processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from lmmsparse.errors import InterruptedWarning

T = TypeVar("T")


def collected(
    function: Callable[..., T],
    arguments: Sequence[tuple[Any, ...]],
    n_jobs: int = 1,
    tell: Callable[[int], None] | None = None,
    enough: Callable[[T], bool] | None = None,
) -> tuple[list[T], bool]:
    """Call a function on every tuple of arguments.

    Parameters
    ----------
    function : callable
    arguments : sequence of tuple
    n_jobs : int
        Processes.
    tell : callable, optional
        Is given the number of results so far.
    enough : callable, optional
        Whether a result makes the later ones unnecessary.

    Returns
    -------
    results : list
        In the order of the arguments.
    interrupted : bool
        Whether Ctrl-C came before the last.

    Raises
    ------
    KeyboardInterrupt
        If it came before there was any result.
    """
    workers = effective_n_jobs(int(n_jobs))
    results: list[T] = []
    try:
        if workers == 1:
            calls = (function(*each) for each in arguments)
        else:
            calls = iter(_parallel(workers)(delayed(function)(*each) for each in arguments))
        for result in calls:
            results.append(result)
            if tell is not None:
                tell(len(results))
            if enough is not None and workers == 1 and enough(result):
                break
    except KeyboardInterrupt:
        if not results:
            raise
        return results, True
    return results, False


def _parallel(workers: int) -> Parallel:
    """One that gives results as they come, if the back end in use can."""
    try:
        return Parallel(n_jobs=workers, return_as="generator")
    except ValueError:
        return Parallel(n_jobs=workers)


def warn_interrupted(what: str, stacklevel: int = 3) -> str:
    """Say that a result is a part of what was asked for.

    Parameters
    ----------
    what : str
        Which part, for example ``"256 of 1000 replicates"``.
    stacklevel : int
    """
    message = (
        f"Interrupted: the result holds {what}. The rest was not computed. Use it as it is, or "
        "run it again to the end."
    )
    warnings.warn(message, InterruptedWarning, stacklevel=stacklevel + 1)
    return message
