"""`Fit` → the covariance matrix of its estimated covariance parameters (θ, σ), or (θ, φ, σ)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.covariance.tangents import derivatives_of_T
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit

_STEP = 1e-4
_FLAT = 1e-8


@dataclass(frozen=True, eq=False)
class ParameterCovariance:
    """Asymptotic covariance of θ̂, in standardized coordinates, φ̂ if there is any, and σ̂.

    Attributes
    ----------
    matrix : (n_theta + n_phi + 1, n_theta + n_phi + 1) array
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
    if isinstance(fit, ResidualFit):
        return _with_residuals(fit)
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
    return ParameterCovariance(_twice_inverse(H, varies), to_theta)


def _twice_inverse(H: FloatArray, varies: BoolArray) -> FloatArray:
    """Twice the inverse of a Hessian in what varies, without directions that are flat."""
    free = np.flatnonzero(varies)
    values, vectors = np.linalg.eigh(H[np.ix_(free, free)])
    kept = values > _FLAT * values.max(initial=0.0)
    A = np.zeros_like(H)
    A[np.ix_(free, free)] = 2.0 * (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return A


def _with_residuals(fit: ResidualFit) -> ParameterCovariance:
    """That of (θ, φ, σ)."""
    H, to_theta = joint_hessian(fit)
    scaled = StandardizedObjective(fit.objective)
    of_theta = ~scaled.bounds.held(scaled.to_internal(fit.theta)) & fit.template.free
    varies = np.concatenate([of_theta, fit.problem.free_phi, [fit.held.sigma is None]])
    # Standard deviations of very different size must not hide each other.
    size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
    size = np.where(varies, size, 1.0)
    inverse = _twice_inverse(H / np.outer(size, size), varies)
    return ParameterCovariance(inverse / np.outer(size, size), to_theta)


def joint_hessian(fit: ResidualFit) -> tuple[FloatArray, FloatArray]:
    """Second derivatives of the criterion in (standardized θ, φ, σ), and the map to θ."""
    joint, phi, s2 = fit.problem.joint, fit.phi, fit.sigma2
    scaled = StandardizedObjective(fit.objective)
    d, m = len(fit.theta), len(phi)
    to_theta = scaled.to_theta(np.eye(d))
    J = np.eye(d + m)
    J[:d, :d] = to_theta
    x = np.concatenate([scaled.to_internal(fit.theta), phi])
    free = np.concatenate([fit.template.free, fit.problem.free_phi])

    def gradient(at: FloatArray, sigma2: float) -> FloatArray:
        theta, own = to_theta @ at[:d], at[d:]
        return np.asarray(J.T @ joint.gradient(theta, own, sigma2=sigma2))

    H = np.zeros((d + m + 1, d + m + 1))
    units = np.concatenate(
        [np.ones(d + joint.sets.structure.n_correlation), 1.0 / joint.sets.structure.scales]
    )
    for i in np.flatnonzero(free):
        step = np.zeros(d + m)
        step[i] = _STEP * max(units[i], abs(x[i]))
        H[:-1, i] = (gradient(x + step, s2) - gradient(x - step, s2)) / (2.0 * step[i])
    H[:-1, :-1] = 0.5 * (H[:-1, :-1] + H[:-1, :-1].T)
    # The gradient is a + ∂r²/σ²: two values of σ² tell ∂r².
    r2_slope = 2.0 * s2 * (gradient(x, s2) - gradient(x, 2.0 * s2))
    H[:-1, -1] = H[-1, :-1] = np.where(free, -2.0 * r2_slope / fit.sigma**3, 0.0)
    H[-1, -1] = 4.0 * fit.objective.df / s2
    return H, to_theta


def _pwrss_gradient(fit: Fit) -> FloatArray:
    """∂r²/∂θ = −2 Σ_levels v'Du, (n_theta,)."""
    out = np.empty(len(fit.theta))
    directions = derivatives_of_T(fit.template, fit.theta)
    levels = zip(fit.split(fit.modes.v), fit.split(fit.modes.u), strict=True)
    for part, D, (v, u) in zip(fit.template.slices, directions, levels, strict=True):
        out[part] = -2.0 * (D.reshape(len(D), -1) @ (v.T @ u).ravel())
    return out
