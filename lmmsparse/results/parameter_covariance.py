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
    chance : (probes, n_theta, n_theta) array or None
        Where traces in the Hessian were estimated, how each random vector differs from the mean.

    Notes
    -----
    Twice the inverse Hessian of the criterion with σ free, by central differences of its exact
    gradient. Where these would take much longer than the search, the Hessian is made from its
    parts, with traces from random vectors if they cannot be had exactly; where the gradient is
    estimated, average information takes the place of the Hessian.
    """

    matrix: FloatArray
    to_theta: FloatArray
    chance: FloatArray | None = None


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

    H, chance = np.zeros((d + 1, d + 1)), None
    by_parts = objective.costs_much and not fit.estimated and not scaled.bounds.held(x).any()
    for i in range(0 if fit.estimated or by_parts else d):
        step = np.zeros(d)
        if not fit.template.free[i]:
            continue
        step[i] = _STEP * max(1.0, abs(x[i]))
        up, down = gradient(x + step, sigma**2), gradient(x - step, sigma**2)
        H[:d, i] = (up - down) / (2.0 * step[i])
    if fit.estimated:  # differences of a gradient that is estimated tell less
        average = objective.joint_derivatives(theta, sigma).hessian[:d, :d]
        H[:d, :d] = to_theta.T @ average @ to_theta
    if by_parts:
        observed, chance = objective.observed_information(theta, sigma)
        H[:d, :d] = to_theta.T @ observed @ to_theta
        if chance is not None:
            chance = np.matmul(to_theta.T, np.matmul(chance, to_theta))
    H[:d, :d] = 0.5 * (H[:d, :d] + H[:d, :d].T)
    # The criterion has r²(θ)/σ² + df log σ²; the profile gradient is zero at the optimum.
    r2_slope = _pwrss_gradient(fit) @ to_theta
    H[:d, d] = H[d, :d] = -2.0 * r2_slope / sigma**3
    H[d, d] = 4.0 * objective.df / sigma**2
    # A correlation at its bound does not vary, nor does what the user holds.
    varies = np.append(~scaled.bounds.held(x) & fit.template.free, fit.held.sigma is None)
    return ParameterCovariance(_twice_inverse(H, varies), to_theta, chance)


def _twice_inverse(H: FloatArray, varies: BoolArray) -> FloatArray:
    """Twice the inverse of a Hessian in what varies, without directions that are flat."""
    free = np.flatnonzero(varies)
    values, vectors = np.linalg.eigh(H[np.ix_(free, free)])
    kept = values > _FLAT * values.max(initial=0.0)
    A = np.zeros_like(H)
    A[np.ix_(free, free)] = 2.0 * (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return A


def _with_residuals(fit: ResidualFit) -> ParameterCovariance:
    """That of (θ, φ, σ).

    Derivatives are taken with θ and σ relative to the standard deviation at the mean of the columns
    of ``residual_sd=``: as they are, they may differ by rounding errors of each other only.
    """
    H, J, to_theta = _joint_hessian(fit)
    scaled = StandardizedObjective(fit.objective)
    of_theta = ~scaled.bounds.held(scaled.to_internal(fit.theta)) & fit.template.free
    varies = np.concatenate([of_theta, fit.problem.free_phi, [fit.held.sigma is None]])
    # Standard deviations of very different size must not hide each other.
    size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
    size = np.where(varies, size, 1.0)
    inverse = _twice_inverse(H / np.outer(size, size), varies) / np.outer(size, size)
    return ParameterCovariance(J @ inverse @ J.T, to_theta)


def _joint_hessian(fit: ResidualFit) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Second derivatives, their coordinates as (standardized θ, φ, σ), and the map to θ."""
    joint, structure = fit.problem.joint, fit.structure
    scaled, template = StandardizedObjective(fit.objective), fit.template
    d, m, c = len(fit.theta), len(fit.phi), structure.n_correlation
    to_theta = scaled.to_theta(np.eye(d))
    centre = np.concatenate([np.zeros(c), structure.centre * (not fit.held.any)])
    relative = np.where(np.isinf(template.upper), 1.0, 0.0)

    def gradient(at: FloatArray) -> FloatArray:
        """By standardized θ, φ and log σ at the centre."""
        move = float(centre @ (at[d:-1] - fit.phi))
        sigma2 = fit.sigma2 * float(np.exp(2.0 * (at[-1] - move)))
        size = np.exp(relative * move)
        theta = size * (to_theta @ at[:d])
        own = joint.gradient(theta, at[d:-1], sigma2=sigma2)
        r2 = joint.at(at[d:-1]).solution(theta).pwrss
        of_sigma = 2.0 * (fit.objective.df - r2 / sigma2)
        along = float(own[:d] @ (relative * theta)) - of_sigma
        of_theta = to_theta.T @ (size * own[:d])
        return np.concatenate([of_theta, own[d:] + along * centre, [of_sigma]])

    x = np.concatenate([scaled.to_internal(fit.theta), fit.phi, [0.0]])
    units = np.concatenate([np.ones(d + c), 1.0 / structure.scales, [1.0]])
    varies = np.concatenate([template.free, fit.problem.free_phi, [fit.held.sigma is None]])
    H = np.zeros((d + m + 1, d + m + 1))
    for i in np.flatnonzero(varies):
        step = np.zeros(len(x))
        step[i] = _STEP * max(units[i], min(abs(x[i]), 10.0 * units[i]))
        H[:, i] = (gradient(x + step) - gradient(x - step)) / (2.0 * step[i])
    J = np.eye(len(x))
    J[:d, d:-1] = np.outer(scaled.to_internal(relative * fit.theta), centre)
    J[-1, d:-1], J[-1, -1] = -fit.sigma * centre, fit.sigma
    return 0.5 * (H + H.T), J, to_theta


def _pwrss_gradient(fit: Fit) -> FloatArray:
    """∂r²/∂θ = −2 Σ_levels v'Du, (n_theta,)."""
    out = np.empty(len(fit.theta))
    directions = derivatives_of_T(fit.template, fit.theta)
    levels = zip(fit.split(fit.modes.v), fit.split(fit.modes.u), strict=True)
    for part, D, (v, u) in zip(fit.template.slices, directions, levels, strict=True):
        out[part] = -2.0 * (D.reshape(len(D), -1) @ (v.T @ u).ravel())
    return out
