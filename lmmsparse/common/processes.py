"""Calls of one function in other processes → their results in order, from joblib.

Processes are started deaf to Ctrl-C, which goes to all of a terminal. When results are no longer
wanted, they are ended only once they hold all they were given: loky's thread that hands out calls
trips over those that were withdrawn from it in between, and prints a KeyError.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import LokyBackend, get_active_backend

from lmmsparse.common.threads import filtered

R = TypeVar("R")

_PATIENCE = 2.0


def workers_for(n_jobs: int, calls: int) -> int:
    """How many processes compute so many calls, this one where it is one."""
    return min(int(effective_n_jobs(n_jobs)), max(1, calls))


def elsewhere(
    function: Callable[..., R], calls: Iterable[tuple[Any, ...]], processes: int
) -> Generator[R, None, None]:
    """The results of calls from other processes, which are ended when this is closed."""
    with _ignoring_interrupts():
        results = Parallel(n_jobs=processes, return_as="generator", backend=_backend())(
            delayed(function)(*call) for call in calls
        )
    out = _closed(results)
    next(out)  # what is not begun is not ended either
    return out


def _closed(results: Generator[R, None, None]) -> Generator[Any, None, None]:
    try:
        yield
        # `yield from` would close them before the filter is there.
        for result in results:  # noqa: UP028
            yield result
    finally:
        with filtered(("ignore", Warning)):  # of tasks that were started and are not needed
            results.close()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """What is started here never hears Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is None:  # not set by Python, which cannot put it back
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _backend() -> Any:
    """The backend the user has chosen; in place of joblib's own default, ours."""
    active, _ = get_active_backend()
    return _Workers(nesting_level=active.nesting_level) if type(active) is LokyBackend else active


class _Workers(LokyBackend):  # type: ignore[misc]
    """joblib's processes, which are not ended while a call is on its way to them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = threading.Lock()
        self._sent: set[Future[Any]] = set()
        self._ended = False

    def submit(self, func: Any, callback: Any = None) -> Future[Any]:
        with self._gate:  # a thread of loky's own sends on, too
            if self._ended:
                return Future()
            future: Future[Any] = self._workers.submit(func)
            self._sent.add(future)
        future.add_done_callback(self._sent.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def abort_everything(self, ensure_ready: bool = True) -> None:
        with self._gate:
            self._ended = True
        deadline = time.monotonic() + _PATIENCE
        while not all(map(_has_arrived, list(self._sent))) and time.monotonic() < deadline:
            time.sleep(0.002)
        super().abort_everything(ensure_ready)


def _has_arrived(future: Future[Any]) -> bool:
    return future.running() or future.done()
