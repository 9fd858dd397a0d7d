"""One BLAS thread while a model is fitted.

numpy, scipy and CHOLMOD each bring a BLAS with threads of its own. A fit is a long sequence of
small dense operations: threads bring nothing there, and three pools on a busy machine make it many
times slower. Whoever wants more cores runs fits side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import ThreadpoolController

P = ParamSpec("P")
R = TypeVar("R")


_here = threading.local()


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    """The BLAS libraries of this process; looked for once, after everything is imported."""
    return ThreadpoolController()


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function to run with one BLAS thread; the former number comes back afterwards."""

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        if getattr(_here, "limited", False):  # by a caller of this one
            return function(*args, **kwargs)
        _here.limited = True
        try:
            with _controller().limit(limits=1, user_api="blas"):
                return function(*args, **kwargs)
        finally:
            _here.limited = False

    return limited
