"""What holds for the tests and the examples in docstrings alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

# The examples in a bridge need the package at its other end.
collect_ignore = [
    f"lmmsparse/interop/{name}.py"
    for name in ("arviz", "marginaleffects", "sklearn")
    if find_spec(name) is None
]


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
