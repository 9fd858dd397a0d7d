"""Memory: what is said when it has run out, and what nobody uses any more given back."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

_ADVICE = (
    "Fit fewer levels of crossed grouping factors or simpler random-effects terms, read the rows "
    "in chunks (chunks=lmm.Chunks(rows=250_000)), leave out solver= where one is given, or use a "
    "machine with more memory."
)


class enough_memory:
    """What is done inside says in a sentence of its own when memory runs out.

    A class, as a generator would cost as much as what small models compute.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and issubclass(kind, MemoryError):
            said = str(error)
            if not said.endswith("more memory."):  # it has been said inside
                raise MemoryError(f"Memory ran out{f' ({said})' if said else ''}. {_ADVICE}")


@cache
def _trim() -> Any:
    """The function of the C library, where it has one."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # of another library, or of Windows
        return None


def give_back() -> None:
    """Return what was freed: glibc keeps arrays of up to 32 MiB for the next ones of their size."""
    trim = _trim()
    if trim is not None:
        trim(0)
