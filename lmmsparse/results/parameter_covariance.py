"""`Fit` → the covariance matrix of its estimated covariance parameters (θ, σ)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.covariance.tangents import derivatives_of_T
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit

_STEP = 1e-4
_FLAT = 1e-8


@dataclass(frozen=True, eq=False)
class ParameterCovariance:
    """Asymptotic covariance of θ̂, in standardized coordinates, and σ̂.

    Attributes
    ----------
    matrix : (n_theta + 1, n_theta + 1) array
        Zero for what is held or at its bound.
    to_theta : (n_theta, n_theta) array
        θ from standardized coordinates.

    Notes
    -----
    Twice the inverse Hessian of the criterion with σ free, by central differences of its exact
    gradient; where that is estimated, average information takes the place of the Hessian.
    """

    matrix: FloatArray
    to_theta: FloatArray


@one_thread
def parameter_covariance(fit: Fit) -> ParameterCovariance:
    """The covariance of the estimated covariance parameters of a fit."""
    objective, theta, sigma = fit.objective, fit.theta, fit.sigma
    scaled = StandardizedObjective(objective)
    to_theta = scaled.to_theta(np.eye(len(theta)))
    x = scaled.to_internal(theta)
    d = len(theta)

    def gradient(at: FloatArray, sigma2: float) -> FloatArray:
        return to_theta.T @ objective.gradient(scaled.to_theta(at), sigma2)

    H = np.zeros((d + 1, d + 1))
    for i in range(0 if fit.estimated else d):
        step = np.zeros(d)
        if not fit.template.free[i]:
            continue
        step[i] = _STEP * max(1.0, abs(x[i]))
        up, down = gradient(x + step, sigma**2), gradient(x - step, sigma**2)
        H[:d, i] = (up - down) / (2.0 * step[i])
    if fit.estimated:  # differences of a gradient that is estimated tell less
        average = objective.joint_derivatives(theta, sigma).hessian[:d, :d]
        H[:d, :d] = to_theta.T @ average @ to_theta
    H[:d, :d] = 0.5 * (H[:d, :d] + H[:d, :d].T)
    # The criterion has r²(θ)/σ² + df log σ²; the profile gradient is zero at the optimum.
    r2_slope = _pwrss_gradient(fit) @ to_theta
    H[:d, d] = H[d, :d] = -2.0 * r2_slope / sigma**3
    H[d, d] = 4.0 * objective.df / sigma**2
    # A correlation at its bound does not vary, nor does what the user holds.
    varies = np.append(~scaled.bounds.held(x) & fit.template.free, fit.held.sigma is None)
    free = np.flatnonzero(varies)
    values, vectors = np.linalg.eigh(H[np.ix_(free, free)])
    kept = values > _FLAT * values.max(initial=0.0)
    A = np.zeros((d + 1, d + 1))
    A[np.ix_(free, free)] = 2.0 * (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return ParameterCovariance(A, to_theta)


def _pwrss_gradient(fit: Fit) -> FloatArray:
    """∂r²/∂θ = −2 Σ_levels v'Du, (n_theta,)."""
    out = np.empty(len(fit.theta))
    directions = derivatives_of_T(fit.template, fit.theta)
    levels = zip(fit.split(fit.modes.v), fit.split(fit.modes.u), strict=True)
    for part, D, (v, u) in zip(fit.template.slices, directions, levels, strict=True):
        out[part] = -2.0 * (D.reshape(len(D), -1) @ (v.T @ u).ravel())
    return out
