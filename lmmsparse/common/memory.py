"""Memory that nobody uses any more → back to the operating system, where it would stay here."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


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
