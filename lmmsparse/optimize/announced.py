"""An objective → the same, which tells every evaluation to somebody who watches."""

from __future__ import annotations

import sys

from lmmsparse.common.arrays import FloatArray
from lmmsparse.optimize.base import Derivatives, Objective


class Announced:
    """An objective that prints every evaluation to the standard error stream."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._count = 0

    def _announce(self, value: float) -> None:
        self._count += 1
        print(f"evaluation {self._count}: criterion {value:.6f}", file=sys.stderr)

    def __call__(self, x: FloatArray) -> float:
        value = self._objective(x)
        self._announce(value)
        return value

    def derivatives(self, x: FloatArray) -> Derivatives:
        at = self._objective.derivatives(x)
        self._announce(at.value)
        return at
