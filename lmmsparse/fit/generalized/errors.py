"""The criterion at its optimum → the joint Hessian in (β, θ, δ), and the covariance it gives."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.generalized.laplace_point import LaplacePoint
from lmmsparse.fit.generalized.coordinates import GeneralizedObjective

_STEP = 1e-4  # in half standard errors
_NARROW = 0.05
_LONGEST = 300.0
_SHORTEST = 1e-13  # share of a coordinate: a step that changes it
_SEEN = 1e-6  # share of a difference that may be rounding
_EPS = float(np.finfo(np.float64).eps)
_FLAT = 1e-9
_MODE = 1e-16  # tolerance of modes a step away: the prediction is good enough


def hessian_by_differences(
    objective: GeneralizedObjective, x: FloatArray, point: LaplacePoint, curvature: FloatArray
) -> FloatArray:
    """Second derivatives at x by differences of the exact gradient, (d, d).

    Forward ones, or on both sides where the criterion has a narrow valley.

    Parameters
    ----------
    objective : GeneralizedObjective
    x : (d,) array
    point : LaplacePoint
        At x.
    curvature : (d,) array
        About the diagonal, for the length of the steps.
    """
    coordinates = objective.coordinates
    J = coordinates.jacobian
    upper = coordinates.bounds.limits[1]
    here = J.T @ point.gradient
    largest = max(float(np.abs(curvature).max(initial=0.0)), 1e-300)
    curvature = np.maximum(np.abs(curvature), 1e-10 * largest)
    longer = _longer_steps(point, coordinates.unit, curvature)
    sizes = np.maximum(longer * _STEP / np.sqrt(curvature), _SHORTEST * np.abs(x))
    which = np.flatnonzero(coordinates.free).tolist()

    def slope(i: int, size: float) -> tuple[FloatArray, float]:
        moved = x.copy()
        moved[i] += size
        return J.T @ objective.point(moved, point, _MODE).gradient, moved[i] - x[i]

    def forward(i: int) -> tuple[FloatArray, float]:
        size = sizes[i] if x[i] + sizes[i] <= upper[i] else -sizes[i]
        try:
            return slope(i, size)
        except NumericalError:
            return slope(i, -size)

    out = np.zeros((len(x), len(x)))
    ends = [forward(i) for i in which]
    for i, (there, step) in zip(which, ends, strict=True):
        out[i] = (there - here) / step
    if longer > 1.0 or _is_narrow(out[np.ix_(which, which)]):
        for i, (there, step) in zip(which, ends, strict=True):
            try:
                back, other = slope(i, -step)
            except NumericalError:
                continue
            out[i] = (there - back) / (step - other)
    return 0.5 * (out + out.T)


def _is_narrow(H: FloatArray) -> bool:
    """Whether the criterion is so flat along some direction that third derivatives matter there."""
    if not np.isfinite(H).all():
        return False
    size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
    values = np.linalg.eigvalsh(0.5 * (H + H.T) / np.outer(size, size))
    return bool(len(values) and 0.0 < values[0] < _NARROW)


def _longer_steps(point: LaplacePoint, unit: float, curvature: FloatArray) -> float:
    """By how much steps must be longer for rounding in Q's not to show in the differences."""
    rows, mode = point.rows, point.mode
    if not rows.p:
        return 1.0
    largest = float(np.max(np.abs(mode.at.w * mode.eta), initial=0.0))
    noise = unit * _EPS * largest  # a column of Q has length one
    usual = _STEP * float(np.sqrt(curvature[: rows.p].min()))
    return float(np.clip(noise / (_SEEN * usual), 1.0, _LONGEST))


def covariance(hessian: FloatArray, free: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Twice the inverse Hessian of the free parameters, and which of them it does not determine.

    Parameters
    ----------
    hessian : (d, d) array
    free : (d,) bool array

    Returns
    -------
    covariance : (d, d) array
        Zero for what is not free, infinite on the diagonal for what is not determined.
    open : (d,) bool array
    """
    out, lost = np.zeros_like(hessian), np.zeros(len(hessian), dtype=bool)
    which = np.flatnonzero(free)
    if not len(which):
        return out, lost
    H = hessian[np.ix_(which, which)]
    if not np.isfinite(H).all():
        lost[which] = True
        return out, lost
    size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
    values, vectors = np.linalg.eigh(H / np.outer(size, size))
    flat = values <= _FLAT
    kept = vectors[:, ~flat] / np.sqrt(values[~flat])
    inverse = 2.0 * (kept @ kept.T) / np.outer(size, size)
    # A parameter that a flat direction moves is not determined, the others are.
    own = np.square(vectors[:, flat]).sum(axis=1) > 1e-6
    inverse[own, own] = np.inf
    out[np.ix_(which, which)] = inverse
    lost[which[own]] = True
    return out, lost
