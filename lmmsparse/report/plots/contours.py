"""Two profile curves and their traces → the contour of a joint confidence region."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from lmmsparse.common.arrays import FloatArray
from lmmsparse.report.plots.profiles import ProfileCurve


def contour(first: ProfileCurve, second: ProfileCurve, radius: float) -> FloatArray:
    """Points of the closed curve on which two parameters have a joint |zeta| of `radius`.

    Parameters
    ----------
    radius : float
        √χ²(level, 2 df) for a joint region.

    Returns
    -------
    (181, 2) array
        Values of the two parameters, first point repeated at the end. Where a parameter ends at a
        bound, the contour follows it.

    Notes
    -----
    In the plane of the two zetas the contour is τ₁ = r cos(a + d/2), τ₂ = r cos(a − d/2), a circle
    for d = π/2. The profile traces give it, with its phase d, where it touches its box: at τ₁ = ±r
    and τ₂ = ±r. Between these four points d is a periodic cubic spline in a.

    References
    ----------
    Bates & Watts (1988), Nonlinear Regression Analysis and its Applications, appendix A.6.
    """
    phases = []
    for one, other, sign in ((first, second, 1.0), (second, first, -1.0)):
        for side in (1.0, -1.0):
            there = _trace(one, other, side * radius)
            phase = float(np.arccos(np.clip(side * there / radius, -1.0, 1.0)))
            start = 0.0 if side > 0 else np.pi
            phases.append(((start - sign * phase / 2.0) % (2.0 * np.pi), phase))
    phases.sort()
    a = np.array([phase for phase, _ in phases])
    d = np.array([difference for _, difference in phases])
    a, where = np.unique(np.round(a, 9), return_index=True)
    d = d[where]
    turn = np.linspace(0.0, 2.0 * np.pi, 181)
    if len(a) > 1:
        ring = CubicSpline(np.append(a, a[0] + 2 * np.pi), np.append(d, d[0]), bc_type="periodic")
        d = np.clip(ring(turn), 0.0, np.pi)
    zetas = radius * np.cos(turn + d / 2.0), radius * np.cos(turn - d / 2.0)
    return np.column_stack([_value(first, zetas[0]), _value(second, zetas[1])])


def _trace(one: ProfileCurve, other: ProfileCurve, zeta: float) -> float:
    """Zeta of the other parameter's best value where the first has `zeta`."""
    along = one.others[other.name]
    usable = np.isfinite(along)
    return float(_extended(one.zeta[usable], _zeta(other, along[usable]), np.array([zeta]))[0])


def _zeta(curve: ProfileCurve, value: FloatArray) -> FloatArray:
    return _extended(curve.value, curve.zeta, value)


def _value(curve: ProfileCurve, zeta: FloatArray) -> FloatArray:
    """The parameter at a zeta; its outermost value beyond the curve, which ends at a bound."""
    inside = np.clip(zeta, curve.zeta[0], curve.zeta[-1])
    return _extended(curve.zeta, curve.value, inside)


def _extended(x: FloatArray, y: FloatArray, at: FloatArray) -> FloatArray:
    """A monotone cubic through points with increasing x, straight beyond its ends."""
    x, where = np.unique(x, return_index=True)
    y = y[where]
    if len(x) < 2:
        return np.full(len(at), y[0] if len(y) else 0.0)
    cubic = PchipInterpolator(x, y)
    inside = np.clip(at, x[0], x[-1])
    slope = np.where(at < x[0], cubic(x[0], 1), cubic(x[-1], 1))
    return np.asarray(cubic(inside) + slope * (at - inside))
