"""What the fuzzers share: how many inputs they try, and the figures they print.

`LMMSPARSE_FUZZ` is the number of inputs for each test; unset, it is a number that takes seconds.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings


def budget(few: int) -> Callable[[Any], Any]:
    """Settings of a fuzzer: `few` inputs, or as many as `LMMSPARSE_FUZZ` says.

    Without that variable the inputs are the same in every run; with it they come from
    ``--hypothesis-seed``.
    """
    many = os.environ.get("LMMSPARSE_FUZZ")
    return settings(
        max_examples=int(many or few),
        derandomize=not many,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def tally(what: str) -> Iterator[Counter[str]]:
    """Counts of outcomes, printed at the end: ``formulas: 5000 tried, 3100 fitted, …``."""
    counts: Counter[str] = Counter()
    try:
        yield counts
    finally:
        outcomes = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        print(f"{what}: {counts.total()} tried, {outcomes}")
