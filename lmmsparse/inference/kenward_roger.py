"""`Fit` → Kenward–Roger's adjusted covariance and degrees of freedom, in the space of b.

No n × n matrix appears: with N = Z'V⁻¹Z every trace over observations is one over random effects,
and N is made a few columns at a time. Weights are part of V.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla

from lmmsparse._types import FloatArray, IntArray
from lmmsparse.covariance import CovarianceStructure, Diagonal, Unstructured
from lmmsparse.errors import OptionError
from lmmsparse.fit import Fit
from lmmsparse.threads import one_thread

_ELEMENTS = 4_000_000


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

    Notes
    -----
    Variance parameters are the distinct variances and covariances of every term and the residual
    variance; Σ is linear in them, so that no second derivatives appear. Of the structures cs() and
    ar1() the parameters are those of the fit, with second derivatives of Σ left out.

    References
    ----------
    Kenward & Roger (1997), Biometrics 53, 983-997; Halekoh & Højsgaard (2014), Journal of
    Statistical Software 59(9).
    """

    covariance: FloatArray
    unadjusted: FloatArray
    weights: FloatArray
    slopes: FloatArray

    def single(self, L: FloatArray) -> FloatArray:
        return np.array([self.joint(row[None])[1] for row in L])

    def joint(self, L: FloatArray) -> tuple[float, float]:
        L = _independent_rows(L)
        q = len(L)
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
        nu = 4.0 + (q + 2.0) / (q * rho - 1.0)
        scale = 1.0 if abs(nu - 2.0) < 0.01 else nu * (1.0 - A2 / q) / (nu - 2.0)
        return float(scale), float(nu)


def _independent_rows(L: FloatArray) -> FloatArray:
    """An orthonormal basis of the row space of L."""
    _, s, Vt = np.linalg.svd(L, full_matrices=False)
    return np.asarray(Vt[s > 1e-10 * s.max(initial=0.0)])


@one_thread
def kenward_roger(fit: Fit) -> KenwardRoger:
    """Prepare Kenward and Roger's method for a REML fit.

    Parameters
    ----------
    fit : Fit

    Raises
    ------
    OptionError
        If the model was fitted by ML: the method is defined for REML.
    """
    if not fit.reml:
        raise OptionError(
            "The Kenward–Roger method is defined for REML fits, and this model was fitted by "
            "maximum likelihood. Refit with reml=True, or use ddf='satterthwaite'."
        )
    p = fit.design.p
    C = sla.cho_solve((fit.modes.solution.RX, False), np.eye(p)) if p else np.zeros((0, 0))
    parts = _Parts(fit)
    A, Q = parts.slopes(), parts.curvatures()
    traces = parts.traces()
    J = traces - 2.0 * np.einsum("ij,rsji->rs", C, Q, optimize=True)
    CA = np.matmul(C, A)
    J += np.einsum("rij,sji->rs", CA, CA, optimize=True)
    W = 2.0 * _inverse(0.5 * (J + J.T))
    inner = Q - np.einsum("rij,jk,skl->rsil", A, C, A, optimize=True)
    gain = np.einsum("rs,rsij->ij", W, inner, optimize=True)
    adjusted = C + 2.0 * C @ (0.5 * (gain + gain.T)) @ C
    back = fit.products.basis.coefficients(np.eye(p))
    covariance = fit.sigma2 * back @ adjusted @ back.T
    slopes = fit.sigma2 * np.matmul(np.matmul(back, np.matmul(C, np.matmul(A, C))), back.T)
    return KenwardRoger(covariance, fit.vcov, W, slopes)


def _inverse(J: FloatArray) -> FloatArray:
    """Inverse of the information, or its pseudo-inverse when the fit is singular."""
    size = np.sqrt(np.abs(np.diag(J)))
    size = np.where(size > 0, size, 1.0)
    scaled = J / np.outer(size, size)
    values, vectors = np.linalg.eigh(scaled)
    kept = values > 1e-10 * values.max()
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return np.asarray(inverse / np.outer(size, size))


class _Parts:
    """What the method needs of V, variance parameter by variance parameter, residual last."""

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._T = fit.template.shifted_factors(fit.theta)
        self._VX = fit.objective.border(fit.theta)
        # Term, and derivative of its k × k covariance by each variance parameter.
        self._entries = [
            (t, E)
            for t, (structure, part) in enumerate(
                zip(fit.template.structures, fit.template.slices, strict=True)
            )
            for E in _directions(structure, fit.theta[part], self._T[t])
        ]

    def _apply(self, entry: tuple[int, FloatArray], B: FloatArray) -> FloatArray:
        """E_r B, with E_r the derivative of Cov(b) by one variance parameter; B is (q, m)."""
        t, E = entry
        a, z = self._fit.template.offsets[t], self._fit.template.offsets[t + 1]
        k = self._fit.template.structures[t].k
        out = np.zeros_like(B)
        part = B[a:z].reshape((z - a) // k, k, B.shape[1])
        out[a:z] = np.matmul(E, part).reshape(z - a, B.shape[1])
        return out

    def _N(self, B: FloatArray) -> FloatArray:
        """N B = Z'V⁻¹Z B."""
        ZtZ, template = self._fit.products.ZtZ, self._fit.template
        GB = ZtZ @ B
        inner = self._fit.modes.factor.solve(template.multiply_transposed(self._T, GB))
        return np.asarray(GB - ZtZ @ template.multiply(self._T, inner))

    def _K(self, B: FloatArray) -> FloatArray:
        """ΛΛ' B."""
        template = self._fit.template
        return template.multiply(self._T, template.multiply_transposed(self._T, B))

    def slopes(self) -> FloatArray:
        """A_r = X'V⁻¹G_rV⁻¹X, (r, p, p)."""
        VX, RX = self._VX, self._fit.modes.solution.RX
        out = [VX.T @ self._apply(entry, VX) for entry in self._entries]
        return np.array([*out, RX.T @ RX - VX.T @ self._K(VX)])

    def curvatures(self) -> FloatArray:
        """Q_rs = X'V⁻¹G_rV⁻¹G_sV⁻¹X, (r, r, p, p)."""
        VX, RX = self._VX, self._fit.modes.solution.RX
        KVX = self._K(VX)
        NKVX = self._N(KVX)
        left = [self._apply(entry, VX) for entry in self._entries]
        # Z'V⁻¹ G_s V⁻¹X of every parameter; the residual one is Z'V⁻¹W⁻¹V⁻¹X.
        right = [*(self._N(B) for B in left), VX - NKVX]
        r, p = len(left) + 1, VX.shape[1]
        out = np.empty((r, r, p, p))
        for i, B in enumerate(left):
            for j, D in enumerate(right):
                out[i, j] = B.T @ D
                out[j, i] = out[i, j].T
        out[-1, -1] = RX.T @ RX - 2.0 * VX.T @ KVX + KVX.T @ NKVX
        return out

    def _chunks(self) -> Iterator[tuple[int, IntArray, bool]]:
        """Levels of one term whose columns of N are made together; True: one column for all."""
        template = self._fit.template
        apart = len(self._fit.design.groups) == 1
        for t, (structure, n) in enumerate(
            zip(template.structures, template.n_levels, strict=True)
        ):
            if apart:
                yield t, np.arange(n), True
                continue
            size = max(1, _ELEMENTS // (template.q * structure.k))
            for start in range(0, n, size):
                yield t, np.arange(start, min(n, start + size)), False

    def traces(self) -> FloatArray:
        """tr(V⁻¹G_rV⁻¹G_s), (r, r)."""
        template, n_obs = self._fit.template, self._fit.design.n
        sizes = [s.k for s in template.structures]
        pairs = {
            (a, b): np.zeros((sizes[a] * sizes[b],) * 2)
            for a in range(len(sizes))
            for b in range(len(sizes))
        }
        own = [np.zeros((k, k)) for k in sizes]
        total, squares = 0.0, 0.0
        for b, levels, together in self._chunks():
            k, offset = sizes[b], template.offsets[b]
            width = 1 if together else len(levels)
            columns = np.zeros((template.q, width, k))
            for j in range(k):
                at = offset + levels * k + j
                columns[at, 0 if together else np.arange(width), j] = 1.0
            N = self._N(columns.reshape(template.q, -1)).reshape(template.q, width, k)
            for a, ka in enumerate(sizes):
                block = N[template.offsets[a] : template.offsets[a + 1]]
                rows = block.reshape(-1, ka, width, k).transpose(0, 2, 1, 3).reshape(-1, ka * k)
                pairs[a, b] += rows.T @ rows
            half = template.multiply_transposed(self._T, N.reshape(template.q, -1))
            half = half.reshape(template.q, width, k)
            for i, level in enumerate(levels if not together else []):
                own[b] += N[offset + level * k : offset + (level + 1) * k, i]
            if together:
                own[b] += N[offset : template.offsets[b + 1], 0].reshape(-1, k, k).sum(axis=0)
            own[b] -= np.tensordot(half, half, axes=([0, 1], [0, 1]))
            white = half @ self._T[b]  # columns of Λ'NΛ
            squares += float((white**2).sum())
            if together:
                mine = white[offset : template.offsets[b + 1], 0].reshape(-1, k, k)
                total += float(np.einsum("lii->", mine))
            else:
                for i, level in enumerate(levels):
                    at = offset + level * k
                    total += float(np.trace(white[at : at + k, i]))
        r = len(self._entries)
        out = np.empty((r + 1, r + 1))
        for x, (a, E) in enumerate(self._entries):
            for y, (b, D) in enumerate(self._entries):
                # tr(N_ba E_r N_ab E_s), with H[(i,k),(j,l)] = Σ N[(ℓ,i),(m,k)] N[(ℓ,j),(m,l)].
                H = pairs[a, b].reshape(sizes[a], sizes[b], sizes[a], sizes[b])
                out[x, y] = np.tensordot(np.tensordot(E, H, axes=([0, 1], [0, 2])), D)
            out[x, r] = out[r, x] = float(np.sum(E * own[a]))
        out[r, r] = n_obs - 2.0 * total + squares
        return out


def _directions(structure: CovarianceStructure, par: FloatArray, T: FloatArray) -> list[FloatArray]:
    """Derivatives of the covariance T T' by parameters that span its form, each (k, k)."""
    k = structure.k
    if not isinstance(structure, Unstructured | Diagonal):
        G = np.matmul(structure.derivative(par), T.T)
        return list(G + np.swapaxes(G, 1, 2))
    if structure.n_par == 1:
        return [np.eye(k)]
    out = []
    for i in range(k):
        for j in range(i + 1) if structure.correlated else (i,):
            E = np.zeros((k, k))
            E[i, j] = E[j, i] = 1.0
            out.append(E)
    return out
