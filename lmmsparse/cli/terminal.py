"""The two streams of a terminal, made to take any text, and their ends told apart."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from typing import TextIO

from lmmsparse.common.errors import DataError

_PLAIN = {
    "−": "-", "–": "-", "×": "x", "·": "*", "√": "sqrt", "→": "->", "≤": "<=", "≥": ">=",
    "±": "+/-", "’": "'", "β": "beta", "θ": "theta", "ρ": "rho", "σ": "sigma", "χ": "chi",
    "Λ": "Lambda",
}  # fmt: skip


def open_streams() -> None:
    """Let both streams write characters that they have not in other words."""
    codecs.register_error("lmmsparse", _in_other_words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lmmsparse")
    if sys.stdout is None:
        raise DataError("The standard output is closed. Leave it open, or send it to a file.")


def _in_other_words(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    words = ""
    for letter in error.object[error.start : error.end]:
        plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
        words += _PLAIN.get(letter) or plain or letter.encode("ascii", "backslashreplace").decode()
    return words, error.end


def complain(text: str) -> None:
    """One paragraph to the error stream, if anybody is there to read it."""
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Send the rest to nowhere: Python writes once more when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # no stream of the system
        return
