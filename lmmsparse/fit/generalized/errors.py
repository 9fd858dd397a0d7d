"""The criterion at its optimum → the joint Hessian in (β, θ, δ), and the covariance it gives."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.generalized.laplace import LaplacePoint
from lmmsparse.fit.generalized.coordinates import GeneralizedObjective

_STEP = 1e-4  # in half standard errors
_FLAT = 1e-9
_MODE = 1e-16  # tolerance of modes a step away: the prediction is good enough


def hessian_by_differences(
    objective: GeneralizedObjective, x: FloatArray, point: LaplacePoint, curvature: FloatArray
) -> FloatArray:
    """Second derivatives at x by forward differences of the exact gradient, (d, d).

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
    sizes = _STEP / np.sqrt(np.maximum(np.abs(curvature), 1e-10 * largest))
    out = np.zeros((len(x), len(x)))
    for i in np.flatnonzero(coordinates.free):
        moved = x.copy()
        moved[i] += sizes[i] if x[i] + sizes[i] <= upper[i] else -sizes[i]
        try:
            there = J.T @ objective.point(moved, point, _MODE).gradient
        except NumericalError:
            moved[i] = x[i] - sizes[i]
            there = J.T @ objective.point(moved, point, _MODE).gradient
        out[i] = (there - here) / (moved[i] - x[i])
    return 0.5 * (out + out.T)


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
