"""Where results are written: a place is refused before the fit, and written in one go after it."""

from __future__ import annotations

import os
import sys
from typing import Any

from lmmsparse.common.errors import DataError
from lmmsparse.common.files import write_content


def is_standard_output(path: str) -> bool:
    """Whether a name is another one for where results are printed."""
    return path == "-" or _same(path, sys.stdout)


def check_output(source: str) -> None:
    """Refuse to print into the data."""
    if source != "-" and os.path.isfile(source) and _same(source, sys.stdout):
        raise DataError(
            f"The results would be written into the data: the standard output goes to {source!r}. "
            "Send it to another file."
        )


def check_place(path: str, source: str) -> None:
    """Refuse a place for results that would cost the data, before anything is fitted."""
    data = "the standard input" if source == "-" else repr(source)
    if _is_source(path, source):
        raise DataError(
            f"The results would replace the data: --json names {path!r}, which is the data file "
            f"({data}). Give another name."
        )
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise DataError(
            f"The results cannot be written to {path!r}: it is a directory, or in one that does "
            "not exist. Choose a file in a place that exists."
        )


def _is_source(path: str, source: str) -> bool:
    if source == "-":
        return _same(path, sys.stdin)
    return os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source)


def _same(path: str, stream: Any) -> bool:
    """Whether a path is that of the file or device of a stream."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except (OSError, ValueError, AttributeError):  # no such file, or no stream of the system
        return False


def write(path: str, text: str) -> None:
    """Write a line to a file, or print it where the path is ``"-"``.

    Parameters
    ----------
    text : str
        Without the end of the line.
    """
    if path == "-":
        print(text)
        return
    write_content(path, f"{text}\n".encode(errors="backslashreplace"))
