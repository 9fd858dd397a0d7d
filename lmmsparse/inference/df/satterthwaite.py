"""`Fit` → Satterthwaite's degrees of freedom, from exact first derivatives.

The variance of l'β̂ depends on φ = (θ, σ). Its gradient is exact; the covariance of φ̂ is that of
`results.parameter_covariance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.covariance.tangents import changes_of_TT, derivatives_of_T
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.results.parameter_covariance import parameter_covariance


@dataclass(frozen=True, eq=False)
class Satterthwaite:
    """Degrees of freedom that match the variance of an estimated variance.

    Attributes
    ----------
    covariance : (p, p) array
        Covariance matrix of the fixed effects.
    parameter_covariance : (n_theta + 1, n_theta + 1) array
        Asymptotic covariance of θ̂ (standardized), parameters of the residuals, and σ̂.
    derivatives : (n_theta + 1, p, p) array
        Of the covariance matrix with respect to the same parameters.
    chance : (probes, n_theta, n_theta) array or None
        See `ParameterCovariance`.

    Notes
    -----
    df(l) = 2 v² / (g'Ag) with v = l'Cl and g_k = l'(∂C/∂φ_k)l.

    References
    ----------
    Satterthwaite (1946), Biometrics Bulletin 2, 110-114; Giesbrecht & Burns (1985), Biometrics 41,
    477-486; Fai & Cornelius (1996), Journal of Statistical Computation and Simulation 54, 363-378.
    """

    covariance: FloatArray
    parameter_covariance: FloatArray
    derivatives: FloatArray
    chance: FloatArray | None = None

    def single(self, L: FloatArray) -> FloatArray:
        v = np.einsum("mi,ij,mj->m", L, self.covariance, L, optimize=True)
        g = np.einsum("mi,kij,mj->mk", L, self.derivatives, L, optimize=True)
        return matched_df(v, g, self.parameter_covariance)

    def joint(self, L: FloatArray) -> tuple[float, float]:
        values, vectors = np.linalg.eigh(L @ self.covariance @ L.T)
        kept = values > np.sqrt(np.finfo(float).eps) * values.max(initial=0.0)
        return 1.0, joint_df(self.single(vectors[:, kept].T @ L))

    def notes(self, L: FloatArray) -> list[str]:
        """What a table has to say of degrees of freedom that are estimated."""
        if self.chance is None:
            return []
        s, d = self.chance.shape[:2]
        g = np.einsum("mi,kij,mj->mk", L, self.derivatives, L, optimize=True)
        along = g @ self.parameter_covariance
        moved = 0.5 * np.einsum("mi,rij,mj->rm", along[:, :d], self.chance, along[:, :d])
        size = np.einsum("mk,mk->m", along, g)
        ratio = np.sqrt(np.sum(moved**2, axis=0) / (s * (s - 1))) / np.where(size > 0, size, 1.0)
        return [
            f"Degrees of freedom are estimated with {s} random vectors: "
            f"standard deviation at most {100.0 * ratio.max(initial=0.0):.1g} % of them."
        ]


def matched_df(v: FloatArray, g: FloatArray, parameters: FloatArray) -> FloatArray:
    """Degrees of freedom of estimated variances v (…,) whose slopes are g (…, k)."""
    spread = np.einsum("...k,...kl,...l->...", g, parameters, g)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where the variance is known, rounding is all that is left of its spread.
        return np.where(spread > 1e-12 * v**2, 2.0 * v**2 / spread, np.inf)


def joint_df(nu: FloatArray) -> float:
    """Denominator degrees of freedom of F from those of the uncorrelated rows of L, (q,)."""
    if np.all(np.isinf(nu)):
        return np.inf
    if len(nu) == 1 or float(nu.max() - nu.min()) < 1e-8:
        return float(nu.mean())
    if np.any(nu <= 2.0):
        return 2.0
    E = float(np.sum(1.0 / (1.0 - 2.0 / nu)))
    return 2.0 * E / (E - len(nu))


@one_thread
def satterthwaite(fit: Fit) -> Satterthwaite:
    """Prepare Satterthwaite's method for a fit."""
    found = parameter_covariance(fit)
    J = np.concatenate(
        [
            _covariance_slopes(fit, found.to_theta),
            *([_slopes_of_residuals(fit)] if isinstance(fit, ResidualFit) else []),
            2.0 / fit.sigma * fit.vcov[None],
        ]
    )
    return Satterthwaite(fit.vcov, found.matrix, J, found.chance)


def _covariance_slopes(fit: Fit, to_theta: FloatArray) -> FloatArray:
    """∂Cov(β̂)/∂(standardized θ), (n_theta, p, p).

    σ² C X'V⁻¹Z (DQ⁻¹Λ' + ΛQ⁻¹D') Z'V⁻¹X C.
    """
    p = fit.design.p
    RX = fit.modes.solution.RX
    VX = fit.objective.border(fit.theta)
    C = sla.cho_solve((RX, False), np.eye(p)) if p else np.zeros((0, 0))
    VXC = fit.products.basis.coefficients(C @ VX.T).T if p else VX  # rows in the user's units
    slopes = np.empty((len(fit.theta), p, p))
    changes = changes_of_TT(fit.template, fit.theta, derivatives_of_T(fit.template, fit.theta))
    by_term, across = map(fit.template.by_term, (VXC, fit.products.prior.solve(VXC)))
    for part, own, other, E in zip(fit.template.slices, by_term, across, changes, strict=True):
        # S[r, s] = Σ_levels of row r times row s, once for all parameters of the term.
        S = np.tensordot(own, other, axes=([0], [0])).transpose(0, 2, 1, 3)
        slopes[part] = np.tensordot(E, S, axes=([1, 2], [0, 1]))
    return np.asarray(fit.sigma2 * np.tensordot(to_theta.T, slopes, axes=1))


def _slopes_of_residuals(fit: ResidualFit) -> FloatArray:
    """∂Cov(β̂)/∂φ, (n_phi, p, p): −σ² C ∂(X'V⁻¹X) C."""
    if not fit.design.p or not len(fit.phi):
        return np.zeros((len(fit.phi), fit.design.p, fit.design.p))
    C = sla.cho_solve((fit.modes.solution.RX, False), np.eye(fit.design.p))
    back = fit.products.basis.coefficients(C)
    slopes = fit.problem.joint.information_slopes(fit.theta, fit.phi)
    return np.asarray(-fit.sigma2 * np.matmul(np.matmul(back, slopes), back.T))
