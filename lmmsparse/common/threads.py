"""What all threads of a process share: the BLAS's own threads, and the list of warning filters.

numpy, scipy and CHOLMOD each bring a BLAS with threads of its own. A fit is a long sequence of
small dense operations: threads bring nothing there, and three pools on a busy machine make it many
times slower. Whoever wants more cores runs fits side by side.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

from lmmsparse.common.memory import enough_memory

P = ParamSpec("P")
R = TypeVar("R")


class _Here(threading.local):
    """What this thread is inside of."""

    limited = False
    rules: tuple[tuple[str, type[Warning]], ...] = ()


class _Shared:
    """How many threads are inside, and what the last one has to put back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.limited = 0
        self.before: list[int] | None = None
        self.filtered = 0


_here, _shared = _Here(), _Shared()


def _begin_anew() -> None:
    """After a fork the other threads are gone, and with them whoever held the lock."""
    before = _shared.before
    _shared.__init__()  # type: ignore[misc]
    # The BLAS is left alone here: the next to leave puts back what another thread has set.
    _shared.before, _shared.limited = before, int(_here.limited)
    _shared.filtered = int(_here.rules != ())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@lru_cache(maxsize=1)
def _libraries() -> tuple[list[Any], list[Any]]:
    """The BLAS libraries of this process: with a number per thread, and with one for all threads.

    They are looked for once, after everything is imported.
    """
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [each for each in found if getattr(each, "threading_layer", "") == "openmp"]
    return own, [each for each in found if each not in own]


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run with one BLAS thread.

    Where the number is one for all threads, the first thread to come sets it, and the last to leave
    puts the former one back.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        if _here.limited:  # by a caller of this one
            return function(*args, **kwargs)
        with enough_memory():
            return outermost(*args, **kwargs)

    def outermost(*args: P.args, **kwargs: P.kwargs) -> R:
        own, _ = _libraries()
        before = [library.num_threads for library in own]
        _enter()
        try:
            for library in own:
                library.set_num_threads(1)
            return function(*args, **kwargs)
        finally:
            for library, number in zip(own, before, strict=True):
                library.set_num_threads(number)
            _leave()

    return limited


def _enter() -> None:
    _, shared = _libraries()
    with _shared.lock:
        if _shared.before is None:
            _shared.before = [library.num_threads for library in shared]
            for library, number in zip(shared, _shared.before, strict=True):
                if number != 1:
                    _set(library, 1)
        _shared.limited += 1
        _here.limited = True


def _leave() -> None:
    _, shared = _libraries()
    with _shared.lock:
        _here.limited = False
        _shared.limited -= 1
        if not _shared.limited and _shared.before is not None:
            for library, number in zip(shared, _shared.before, strict=True):
                if number != 1:
                    _set(library, number)
            _shared.before = None


def _set(library: Any, number: int) -> None:
    """Set a library's number, whichever thread has set it last.

    threadpoolctl lets one thread control a library, and what others set goes unheard.
    """
    if library.num_threads == number:
        return
    release = getattr(library, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    library.set_num_threads(number)
    if release is not None:
        release(force=True)


class _OfThisThread(type):
    """A kind of warning to which belongs what the thread that warns has a rule for."""

    action = ""

    def __subclasscheck__(cls, kind: type) -> bool:
        found = (action for action, each in _here.rules if issubclass(kind, each))
        return next(found, "") == cls.action


class _Ignored(Warning, metaclass=_OfThisThread):
    action = "ignore"


class _Raised(Warning, metaclass=_OfThisThread):
    action = "error"


_IGNORING = ("ignore", None, _Ignored, None, 0)
_RAISING = ("error", None, _Raised, None, 0)


class filtered:
    """Ignore warnings of some kinds, or make errors of them, for a while and in this thread.

    The first rule that fits decides.

    `warnings.catch_warnings` puts back the list of filters as it was: where two threads overlap,
    what one has set stays for ever, and meanwhile it is there for all. These filters match only
    what the thread that set them warns of.
    """

    def __init__(self, *rules: tuple[str, type[Warning]]) -> None:
        self._rules = rules

    def __enter__(self) -> None:
        self._before = _here.rules
        with _shared.lock:
            if not warnings.filters or warnings.filters[0] is not _IGNORING:
                warnings.filters.insert(0, _IGNORING)  # type: ignore[attr-defined]
            if any(action == "error" for action, _ in self._rules):
                warnings.simplefilter("error", _Raised)  # also for what was warned of before
            _shared.filtered += 1
        _here.rules = (*self._rules, *self._before)

    def __exit__(self, *_: object) -> None:
        _here.rules = self._before
        with _shared.lock:
            _shared.filtered -= 1
            if not _shared.filtered:
                for entry in (_IGNORING, _RAISING):
                    while entry in warnings.filters:
                        warnings.filters.remove(entry)  # type: ignore[attr-defined]
