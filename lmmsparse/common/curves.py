"""Curves through points and where they cross a level, by scipy.

`scipy.interpolate` and `scipy.optimize` take as long to import as a fit of a large model; few
calls need them, and so they are imported when these are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from lmmsparse.common.arrays import FloatArray


class Interpolant(Protocol):
    """A smooth function of one variable."""

    def __call__(self, x: Any, nu: int = 0) -> Any:
        """The value at x, or its derivative of order `nu`."""
        ...


def cubic(x: FloatArray, y: FloatArray, periodic: bool = False) -> Interpolant:
    """A cubic spline through points with increasing x."""
    from scipy.interpolate import CubicSpline

    curve: Interpolant = CubicSpline(x, y, bc_type="periodic" if periodic else "not-a-knot")
    return curve


def monotone(x: FloatArray, y: FloatArray) -> Interpolant:
    """A cubic that rises and falls where the points do."""
    from scipy.interpolate import PchipInterpolator

    curve: Interpolant = PchipInterpolator(x, y)
    return curve


def root(function: Callable[[float], float], a: float, b: float) -> float:
    """Where a function that differs in sign at a and b is zero, to all digits."""
    from scipy.optimize import brentq

    return float(brentq(function, a, b, xtol=1e-15, rtol=1e-14))
