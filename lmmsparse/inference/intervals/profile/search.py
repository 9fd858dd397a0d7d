"""Profiled deviance → its least value on a plane in θ, or with σ a function of θ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.verdict import TOLERANCE, expected_decrease
from lmmsparse.optimize import (
    Bobyqa,
    Bounds,
    Derivatives,
    NelderMead,
    Objective,
    OnPlane,
    Optimum,
    TrustRegion,
    nlopt_missing,
)

_SEARCH = TrustRegion(tol=1e-7, max_eval=200)
_PER_PARAMETER = 200  # evaluations of a search without derivatives


@dataclass(frozen=True, eq=False)
class Point:
    """The best model with one parameter held.

    Attributes
    ----------
    value : float
        What the parameter is held at.
    x : (n_theta,) array
        Standardized θ.
    converged : bool
        Whether the search has reached the optimum.
    """

    value: float
    deviance: float
    x: FloatArray
    converged: bool = True


def minimize(objective: Objective, start: FloatArray, bounds: Bounds) -> Point:
    """Search from `start`; the point is in the coordinates of the search, its value is NaN."""
    found = _SEARCH.minimize(objective, start, bounds)
    arrived = _arrived(objective, found, bounds)
    if np.isfinite(found.value) and not arrived:
        found, arrived = _by_other_searches(objective, found, bounds)
    if not np.isfinite(found.value):
        raise NumericalError(
            "The deviance could not be evaluated while a parameter was held fixed. The model may "
            "be close to fitting the data exactly. Check the data, or use method='wald'."
        )
    return Point(np.nan, found.value, found.x, arrived)


def _arrived(objective: Objective, found: Optimum, bounds: Bounds) -> bool:
    """Whether the objective cannot be lowered noticeably from where a search has ended."""
    decrease = found.expected_decrease
    if decrease is None:
        try:
            at = objective.derivatives(found.x)
        except (NumericalError, np.linalg.LinAlgError):
            return False
        free = bounds.free(found.x, at.gradient)
        decrease = expected_decrease(at.gradient[free], at.hessian[np.ix_(free, free)])
    return decrease <= max(TOLERANCE, 1e-13 * abs(found.value))


def _by_other_searches(
    objective: Objective, found: Optimum, bounds: Bounds
) -> tuple[Optimum, bool]:
    """The best of what other searches find from where the first has ended; whether it arrived."""
    if nlopt_missing():
        return found, False
    best, most = found, _PER_PARAMETER * len(found.x)
    for optimizer in (Bobyqa(max_eval=most), _SEARCH, NelderMead(max_eval=most), _SEARCH):
        again = optimizer.minimize(objective, best.x, bounds)
        if again.value <= best.value:
            best = again
            if _arrived(objective, best, bounds):
                return best, True
    return best, False


def minimize_on_plane(
    scaled: StandardizedObjective,
    C: FloatArray,
    x: FloatArray,
    origin: FloatArray | None = None,
) -> Point:
    """Minimize the profiled deviance subject to C(θ − origin) = 0, with C (m, n_theta)."""
    at = np.zeros(len(x)) if origin is None else scaled.to_internal(origin)
    A = C @ scaled.to_theta(np.eye(len(x)))
    touched = np.any(A != 0, axis=0)
    rest = np.flatnonzero(~touched)
    mixed = sla.null_space(A[:, touched])
    # Coordinates without a constraint stay as they are, with their bounds and mirrors.
    N = np.zeros((len(x), len(rest) + mixed.shape[1]))
    N[rest, np.arange(len(rest))] = 1.0
    N[touched, len(rest) :] = mixed
    if N.shape[1] == 0:
        return Point(np.nan, scaled(at), at)
    box, free = scaled.bounds, np.full(mixed.shape[1], np.inf)
    where = {int(old): new for new, old in enumerate(rest)}
    bounds = Bounds(
        np.append(box.lower[rest], -free),
        np.append(box.upper[rest], free),
        tuple(tuple(where[i] for i in g) for g in box.mirrors if set(g) <= where.keys()),
    )
    # A group that is only partly free has lost its mirror, and its bound was never one.
    for group in box.mirrors:
        if not set(group) <= where.keys() and group[0] in where:
            bounds.lower[where[group[0]]] = -np.inf
    found = minimize(OnPlane(scaled, at, N), N.T @ (x - at), bounds)
    return replace(found, x=at + N @ found.x)


@dataclass(frozen=True, eq=False)
class SigmaHeld:
    """The deviance in x with σ a function of θ given by its logarithm and two derivatives."""

    objective: ProfiledDeviance
    to_theta: FloatArray
    log_sigma: Callable[[FloatArray], tuple[float, FloatArray, FloatArray]]

    def __call__(self, x: FloatArray) -> float:
        theta = self.to_theta @ x
        return self.objective.joint_value(theta, float(np.exp(self.log_sigma(theta)[0])))

    def derivatives(self, x: FloatArray) -> Derivatives:
        theta = self.to_theta @ x
        tau, slope, bend = self.log_sigma(theta)
        at = self.objective.joint_derivatives(theta, float(np.exp(tau)))
        g, H = at.gradient, at.hessian
        cross = np.outer(H[:-1, -1], slope)
        gradient = g[:-1] + g[-1] * slope
        hessian = H[:-1, :-1] + cross + cross.T
        hessian = hessian + H[-1, -1] * np.outer(slope, slope) + g[-1] * bend
        J = self.to_theta
        return Derivatives(at.value, J.T @ gradient, J.T @ hessian @ J)
