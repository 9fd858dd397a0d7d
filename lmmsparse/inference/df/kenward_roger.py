"""`Fit` → Kenward–Roger's adjusted covariance and degrees of freedom, in the space of b.

No n × n matrix appears (`VarianceParts`). Weights are part of V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.residual.parts import ClusterParts
from lmmsparse.engine.variance_parts import VarianceParts
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.monte_carlo import require_exact
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.inference.df.information import restricted, variance_parts

_MOVED = 1e-6  # of a variance, by as much more variance as the residuals have


@dataclass(frozen=True, eq=False)
class KenwardRoger:
    """Small-sample covariance of the fixed effects and degrees of freedom.

    Attributes
    ----------
    covariance : (p, p) array
        Adjusted covariance matrix Φ_A.
    unadjusted : (p, p) array
        Φ = σ²(X'V⁻¹X)⁻¹.
    weights : (r, r) array
        W, asymptotic covariance of the r variance parameters, relative to σ².
    slopes : (r, p, p) array
        Φ A_r Φ / σ², with A_r = X'V⁻¹G_rV⁻¹X, in the user's units.
    arbitrary : (m, p, p) array
        The same for m combinations of variances that REML does not determine.

    Notes
    -----
    Variance parameters are the distinct variances and covariances of every term and the residual
    variance; Σ is linear in them, so that no second derivatives appear. Of the structures cs() and
    ar1() the parameters are those of the fit, with second derivatives of Σ left out. What the user
    holds relative to σ moves with the residual variance, and nothing else of it is a parameter.
    Where residuals have a covariance of their own, second derivatives of Σ by its parameters are
    left out: of us() they are zero for its variances and covariances, and the result does not
    depend on which parameters are taken.

    References
    ----------
    Kenward & Roger (1997), Biometrics 53, 983-997; Halekoh & Højsgaard (2014), Journal of
    Statistical Software 59(9).
    """

    covariance: FloatArray
    unadjusted: FloatArray
    weights: FloatArray
    slopes: FloatArray
    arbitrary: FloatArray

    def open(self, L: FloatArray) -> BoolArray:
        """Rows whose variance depends on what REML does not determine."""
        moved = np.abs(np.einsum("li,mij,lj->ml", L, self.arbitrary, L, optimize=True))
        size = np.einsum("li,ij,lj->l", L, self.unadjusted, L, optimize=True)
        return np.asarray((moved > _MOVED * size).any(axis=0))

    def single(self, L: FloatArray) -> FloatArray:
        return np.array([self.joint(row[None])[1] for row in L])

    def joint(self, L: FloatArray) -> tuple[float, float]:
        L = _independent_rows(L)
        q = len(L)
        if np.abs(np.matmul(L, np.matmul(self.arbitrary, L.T))).max(initial=0.0) > _MOVED * np.max(
            np.linalg.eigvalsh(L @ self.unadjusted @ L.T), initial=0.0
        ):
            return np.nan, np.nan
        middle = np.linalg.inv(L @ self.unadjusted @ L.T)
        # Θ Φ P_r Φ, up to the sign, as q × q matrices: traces are the same.
        M = np.matmul(middle, np.matmul(L, np.matmul(self.slopes, L.T)))
        traces = np.trace(M, axis1=1, axis2=2)
        A1 = float(traces @ self.weights @ traces)
        A2 = float(np.einsum("rs,rij,sji->", self.weights, M, M, optimize=True))
        B = (A1 + 6.0 * A2) / (2.0 * q)
        if A2 <= 0.0:
            return 1.0, np.inf
        g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
        below = 3.0 * q + 2.0 * (1.0 - g)
        c1, c2, c3 = g / below, (q - g) / below, (q + 2.0 - g) / below
        V0 = 1.0 + c1 * B
        V0 = 0.0 if abs(V0) < 1e-10 else V0
        V1, V2 = 1.0 - c2 * B, 1.0 - c3 * B
        first = 1.0 - A2 / q
        ratio = 1.0 if abs(first) < 1e-10 and abs(V1) < 1e-10 else first / V1
        rho = ratio**2 * V0 / V2 / q
        if abs(q * rho - 1.0) < 1e-10:  # the variance of Lβ̂ is known
            return 1.0, np.inf
        nu = 4.0 + (q + 2.0) / (q * rho - 1.0)
        scale = 1.0 if abs(nu - 2.0) < 0.01 else nu * (1.0 - A2 / q) / (nu - 2.0)
        return float(scale), float(nu)


def _independent_rows(L: FloatArray) -> FloatArray:
    """An orthonormal basis of the row space of L."""
    _, s, Vt = np.linalg.svd(L, full_matrices=False)
    return np.asarray(Vt[s > 1e-10 * s.max(initial=0.0)])


@one_thread
def kenward_roger(fit: Fit) -> KenwardRoger:
    """Prepare Kenward and Roger's method for a REML fit."""
    if not fit.reml:
        raise OptionError(
            "The Kenward–Roger method is defined for REML fits, and this model was fitted by "
            "maximum likelihood. Refit with reml=True, or use ddf='satterthwaite'."
        )
    require_exact(fit, "The Kenward–Roger method needs", "Use ddf='satterthwaite'")
    free = _free_parameters(fit)
    p = fit.design.p
    C = sla.cho_solve((fit.modes.solution.RX, False), np.eye(p)) if p else np.zeros((0, 0))
    parts = variance_parts(fit)
    A = np.tensordot(free, parts.slopes(), axes=1)
    Q = np.einsum("ri,sj,ijkl->rskl", free, free, parts.curvatures(), optimize=True)
    whole = free @ parts.traces() @ free.T
    J = restricted(whole, A, Q, C)
    W = 2.0 * _inverse(0.5 * (J + J.T), np.sqrt(np.abs(np.diag(whole))))
    inner = Q - np.einsum("rij,jk,skl->rsil", A, C, A, optimize=True)
    gain = np.einsum("rs,rsij->ij", W, inner, optimize=True)
    adjusted = C + 2.0 * C @ (0.5 * (gain + gain.T)) @ C
    back = fit.products.basis.coefficients(np.eye(p))
    covariance = fit.sigma2 * back @ adjusted @ back.T

    def moved(A: FloatArray) -> FloatArray:
        inner = np.matmul(C, np.matmul(A, C))
        return np.asarray(fit.sigma2 * np.matmul(np.matmul(back, inner), back.T))

    return KenwardRoger(covariance, fit.vcov, W, moved(A), moved(_undetermined(fit, parts)))


def _undetermined(fit: Fit, parts: VarianceParts | ClusterParts) -> FloatArray:
    """X'V⁻¹GV⁻¹X for the combinations that REML does not determine, (m, p, p).

    Each adds σ² to the variance of the response, by its largest part.
    """
    away, p = fit.problem.away, fit.design.p
    if away is None or isinstance(parts, ClusterParts):
        return np.zeros((0, p, p))
    template = fit.template
    design = fit.design
    size = [np.sqrt(design.squares(t, shifted=True)) for t in range(len(design.blocks))]
    out = []
    for i, residual in enumerate(away.residual):
        changes = [
            template.shifted(t, template.shifted(t, of_term[i]).T)
            for t, of_term in enumerate(away.changes)
        ]
        added = [np.abs(N * np.outer(s, s)).max() for N, s in zip(changes, size, strict=True)]
        out.append(parts.slope_of(changes, residual) / max(*added, abs(residual)))
    return np.array(out)


def _free_parameters(fit: Fit) -> FloatArray:
    """The parameters that are estimated, as combinations of all variance parameters, (free, r).

    All of them are those of `CovarianceStructure.spans`, term by term, the residual variance last.
    """
    template = fit.template
    rows, with_residual = [], []
    for t, (structure, part, block) in enumerate(
        zip(template.structures, template.slices, fit.design.blocks, strict=True)
    ):
        par, free = fit.theta[part], template.free[part]
        by_elements = structure.closed and structure.k > 1
        if by_elements and not free.all() and free.any():
            raise OptionError(
                "The Kenward–Roger method needs a covariance that is linear in its parameters, and "
                f"some, but not all, elements of {block.source} are fixed. Hold all elements of "
                "the term or none, or use ddf='satterthwaite'."
            )
        rows.append(free)
        if by_elements:
            T = template.shifted(t, structure.factor(par))
            cov = T @ T.T
            size = np.array([cov[i, j] for i in range(structure.k) for j in range(i + 1)])
        elif structure.linear:
            size = par**2
        else:  # a standard deviation grows with σ, a correlation does not
            size = 0.5 * np.append(par[:-1], 0.0)
        with_residual.append(np.where(free, 0.0, size))
    if isinstance(fit, ResidualFit):
        rows.append(fit.problem.free_phi)
        with_residual.append(np.zeros(len(fit.phi)))
    varies = np.append(np.concatenate(rows), fit.held.sigma is None)
    out = np.eye(len(varies))
    out[-1, :-1] = np.concatenate(with_residual)
    return np.asarray(out[varies])


def _inverse(J: FloatArray, size: FloatArray) -> FloatArray:
    """Inverse of the information, or its pseudo-inverse when the fit is singular.

    `size` is what its diagonal would be without fixed effects: beside it, nothing is nothing.
    """
    size = np.where(size > 0, size, 1.0)
    scaled = J / np.outer(size, size)
    values, vectors = np.linalg.eigh(scaled)
    kept = values > 1e-10 * values.max(initial=0.0)
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return np.asarray(inverse / np.outer(size, size))
