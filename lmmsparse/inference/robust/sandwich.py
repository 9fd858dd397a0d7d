"""A cluster-robust covariance matrix → tests with the degrees of freedom that clusters leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.inference.robust.adjustment import NOTHING_LEFT
from lmmsparse.inference.robust.clusters import Robust

_FEW = 4.0  # degrees of freedom


@dataclass(frozen=True, eq=False)
class ClusterRobust:
    """Cluster-robust covariance of the fixed effects, and its degrees of freedom.

    Attributes
    ----------
    robust : Robust
    covariance : (p, p) array
    back : (p, p) array
        Coefficients from those in which σ²(X'V⁻¹X)⁻¹ is σ²I; the others are in these.
    spread : (clusters, p, p) array
        E_jV_jE_j' of E_j = X_j'V_j⁻¹A_j.
    hat : (clusters, p, p) array
        E_jX_j.
    finite : bool
        Whether degrees of freedom are estimated rather than taken as infinite.

    Notes
    -----
    Cov = M Σ_j E_j e_j e_j' E_j' M with M = (X'V⁻¹X)⁻¹ and marginal residuals e. A_j is I (CR0),
    I √(m/(m−1)) (CR1), the matrix with A_j Cov(e_j) A_j' = V_j (CR2), or (I − H_jj)⁻¹ (CR3), all
    with the fitted V as working model; pseudo-inverses where I − H_jj is singular. The variance of
    l'β̂ is Σ_j (p_j'y)²; with P_ij = p_i'Vp_j its degrees of freedom are (tr P)²/tr(P²), and a joint
    test is Hotelling's T² with the degrees of freedom of a Wishart matrix of the same total
    variance.

    References
    ----------
    Bell & McCaffrey (2002), Survey Methodology 28, 169-181; Tipton & Pustejovsky (2015), Journal of
    Educational and Behavioral Statistics 40, 604-634; Pustejovsky & Tipton (2018), Journal of
    Business & Economic Statistics 36, 672-683.
    """

    robust: Robust
    covariance: FloatArray
    back: FloatArray
    spread: FloatArray
    hat: FloatArray
    finite: bool = True

    def _parts(self, L: FloatArray) -> tuple[FloatArray, FloatArray]:
        """p_si'Vp_ti as far as it is diagonal, (q, q, clusters), and the rest's root (q, m, p)."""
        within = L @ self.back
        g = np.einsum("sa,jab,tb->stj", within, self.spread, within, optimize=True)
        return g, np.einsum("sa,jab->sjb", within, self.hat, optimize=True)

    def single(self, L: FloatArray) -> FloatArray:
        if not self.finite:
            return np.full(len(L), np.inf)
        out = np.full(len(L), np.nan)
        for i, row in enumerate(L):
            g, b = (part[0] for part in self._parts(row[None]))
            own, common = g[0], np.einsum("ja,ja->j", b, b)
            total = float(np.sum(own - common))
            squares = np.sum(own**2 - 2.0 * own * common) + np.sum((b.T @ b) ** 2)
            if total > NOTHING_LEFT * np.sum(own):
                out[i] = total**2 / squares
        return out

    def joint(self, L: FloatArray) -> tuple[float, float]:
        values, vectors = np.linalg.eigh(L @ self.back @ self.back.T @ L.T)
        kept = values > 1e-10 * values.max(initial=0.0)
        L = (vectors[:, kept] / np.sqrt(values[kept])).T @ L
        q = len(L)
        if not self.finite:
            return 1.0, np.inf
        if q == 1:
            return 1.0, float(self.single(L)[0])
        if np.linalg.matrix_rank(L @ self.covariance @ L.T, hermitian=True) < q:
            return np.nan, np.nan
        g, b = self._parts(L)
        expected = g.sum(axis=2) - np.einsum("sja,tja->st", b, b)
        values, vectors = np.linalg.eigh(expected)
        if values[0] <= NOTHING_LEFT * values[-1]:
            return np.nan, np.nan
        root = (vectors / np.sqrt(values)) @ vectors.T
        g = np.einsum("us,stj,vt->uvj", root, g, root, optimize=True)
        b = np.tensordot(root, b, axes=1)
        freedom = q * (q + 1) / _total_variance(g, b)
        left = freedom - q + 1.0
        return (float(left / freedom), float(left)) if left > 0 else (np.nan, np.nan)

    def notes(self, L: FloatArray) -> list[str]:
        """What a table has to say of the clusters."""
        clusters = self.robust.clusters
        notes = [f"{self.robust.words}: {clusters.count} clusters."]
        df = self.single(L)
        if self.finite and (df < _FEW).any():
            notes.append(
                f"Less than {_FEW:g} degrees of freedom: few clusters tell, and p-values are rough."
            )
        return notes


def _total_variance(g: FloatArray, b: FloatArray) -> float:
    """Σ_st Var(d_st) of the matrix whose expectation is I; see `ClusterRobust`.

    P_st = diag(g_st) − b_s b_t' for rows s and t, and Var(d_st) = Σ_ij P_st∘P_st' + P_ss∘P_tt.
    """
    common = np.einsum("sja,tja->stj", b, b)
    out = 0.0
    for s in range(len(b)):
        for t in range(len(b)):
            K = b[s].T @ b[t]
            both = g[s, t] * g[t, s] - 2.0 * g[s, t] * common[t, s]
            apart = g[s, s] * g[t, t] - g[s, s] * common[t, t] - g[t, t] * common[s, s]
            out += float(np.sum(both) + np.sum(K * K.T) + np.sum(apart) + np.sum(K * K))
    return out
