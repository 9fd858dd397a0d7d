"""Where results are written: a place is refused before the fit, and written in one go after it."""

from __future__ import annotations

import os

from lmmsparse.common.errors import DataError


def check_place(path: str, source: str) -> None:
    """Refuse a place for results that would cost the data, before anything is fitted."""
    if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
        raise DataError(
            f"The results would replace the data: --json names {path!r}, which is the data file. "
            "Give another name."
        )
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise DataError(
            f"The results cannot be written to {path!r}: it is a directory, or in one that does "
            "not exist. Choose a file in a place that exists."
        )


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
    # A pipe that nobody reads is an error at once, where it would wait for ever.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NONBLOCK", 0)
    try:
        place = os.open(path, flags, 0o666)
        if hasattr(os, "set_blocking"):
            os.set_blocking(place, True)
        with open(place, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except OSError as error:
        raise DataError(
            f"The results cannot be written to {path!r}: {error.strerror}. Choose a place that "
            "exists and that you may write to."
        ) from error
