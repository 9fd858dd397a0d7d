"""Words for messages: values, names and choices as they are shown to the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

_LONGEST = 200
_MOST_CHOICES = 5_000


def brief(value: Any) -> str:
    """A value as a message shows it: as it is written, or its type where that is long."""
    try:
        text = repr(value)
    except Exception:  # whatever somebody's own __repr__ does
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 and "\n" not in text else f"a {type(value).__name__}"


def shortened(text: str) -> str:
    """A piece of a formula in quotes for a message."""
    return repr(text) if len(text) <= 80 else repr(f"{text[:77]}...")


def listed(values: Iterable[object], limit: int = 8) -> str:
    """Values as a short enumeration for messages."""
    items = [str(value) for value in values]
    shown = ", ".join(map(_cut, items[:limit]))
    return shown if len(items) <= limit else f"{shown}, … ({len(items)} in all)"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def alternatives(choices: Sequence[str]) -> str:
    """`'a', 'b' or 'c'`."""
    shown = [repr(choice) for choice in choices]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def close_match(name: str, choices: Iterable[object]) -> str:
    """A hint such as " Did you mean 'Time'?", or nothing."""
    candidates = {str(choice).lower(): str(choice) for choice in islice(choices, _MOST_CHOICES)}
    found = difflib.get_close_matches(name.lower(), list(candidates), n=1, cutoff=0.6)
    return f" Did you mean {candidates[found[0]]!r}?" if found else ""
