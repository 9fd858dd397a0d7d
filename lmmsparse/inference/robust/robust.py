"""`Fit` and clusters → a covariance matrix of β̂ that holds whatever happens within clusters.

All that is needed of a cluster are its scores, p numbers, and two p × p matrices. Without
adjustment they come from V⁻¹X in O(n); the adjustment CR2 takes the blocks of V.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DesignWarning, OptionError
from lmmsparse.common.findings import warn
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.linalg import chunks
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.inference.robust.adjustment import NOTHING_LEFT, adjusted
from lmmsparse.inference.robust.blocks import Stack, stacks
from lmmsparse.inference.robust.clusters import Clusters, Robust, clusters_of
from lmmsparse.inference.robust.summed import stacks_of_sums
from lmmsparse.results.cluster_sums import ClusterSums
from lmmsparse.results.row_forms import EffectsOfRows, projected_rows, pulled_columns

_FEW = 4.0  # degrees of freedom
_FEW_CLUSTERS = 10


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


def robust_covariance(fit: Fit, kind: str, cluster: Any) -> FloatArray:
    """Cluster-robust covariance of the fixed effects, (p, p); a warning where it says little."""
    robust = Robust(kind, clusters_of(fit, cluster))
    clusters = robust.clusters.count
    if clusters < _FEW_CLUSTERS:
        warn(
            f"There are {clusters} clusters of {robust.clusters.name!r}. A covariance matrix from "
            "so few is rough, and z tests with it are too optimistic. Use "
            "m.coef_table(robust=..., cluster=...), whose degrees of freedom allow for it.",
            DesignWarning,
        )
    return cluster_robust(fit, robust, finite=False).covariance


@one_thread
def cluster_robust(fit: Fit, robust: Robust, finite: bool = True) -> ClusterRobust:
    """Prepare the cluster-robust covariance matrix of a fit."""
    clusters, kind, p = robust.clusters, robust.kind, fit.design.p
    RX, basis = fit.modes.solution.RX, fit.products.basis
    back = basis.coefficients(sla.solve_triangular(RX, np.eye(p))) if p else np.zeros((0, 0))
    found: Iterable[Stack] = ()
    if isinstance(clusters, ClusterSums):
        scores, inner = clusters.scores, _blocks(clusters, kind, finite)
        if kind == "CR2":
            found = stacks_of_sums(fit, clusters, inner)
    else:
        X, VX, e = _whitened(fit)
        scores, inner = _sums(VX * e[:, None], clusters), _inner(X, VX, clusters)
        if kind == "CR2":
            found = stacks(fit, clusters, X, e)
    if kind == "CR2":
        scores, spread, hat = _square_roots(found, clusters.count, p)
    elif kind == "CR3":
        G = _inverses(inner)
        hat = np.matmul(G, inner)
        scores, spread = np.einsum("jab,jb->ja", G, scores), np.matmul(hat, G)
    else:
        factor = clusters.count / (clusters.count - 1.0) if kind == "CR1" else 1.0
        scores, spread, hat = np.sqrt(factor) * scores, factor * inner, np.sqrt(factor) * inner
    half = back @ scores.T
    return ClusterRobust(robust, half @ half.T, back, spread, hat, finite)


def _blocks(sums: ClusterSums, kind: str, finite: bool) -> FloatArray:
    """X_j'V_j⁻¹X_j of the clusters, where anything depends on them."""
    if sums.inner is not None:
        return sums.inner
    if finite or kind in ("CR2", "CR3"):
        raise OptionError(
            f"{kind} standard errors{' with degrees of freedom' * finite} need p × p numbers of "
            f"every cluster, more than memory would hold of {sums.count:,} clusters. Use 'CR1' "
            "with ddf='asymptotic'."
        )
    return np.zeros((0, sums.scores.shape[1], sums.scores.shape[1]))


def _whitened(fit: Fit) -> tuple[FloatArray, FloatArray, FloatArray]:
    """X̂ and V⁻¹X̂ of columns with X̂'V⁻¹X̂ = I, relative to σ², (n, p), and marginal residuals."""
    design = fit.design
    n, p = design.n, design.p
    X, VX = np.empty((n, p)), np.empty((n, p))
    codes = {t: block.codes for t, block in enumerate(design.blocks)}
    WX, WZ = _weighted(fit)
    rows = EffectsOfRows(dict(enumerate(WZ)), codes)
    pulled = pulled_columns(fit) if p else []
    R = fit.modes.solution.RX @ fit.products.basis.R
    for part in chunks(n, p * max((b.k for b in design.blocks), default=1)) if p else ():
        own, weighted = _dense(design.fixed[part]), _dense(WX[part])
        X[part] = sla.solve_triangular(R, own.T, trans="T", check_finite=False).T
        VX[part] = projected_rows(fit, weighted, rows.of(part), pulled).T
    if not isinstance(fit, ResidualFit):
        VX *= design.weights_or_one[:, None]
    return X, VX, design.y - design.offset_or_zero - design.fixed @ fit.beta


def _weighted(fit: Fit) -> tuple[Any, list[FloatArray]]:
    """R⁻¹X and R⁻¹Z; X and Z where R is diagonal, as each row has a factor then."""
    design = fit.design
    Z = [block.shifted_columns for block in design.blocks]
    if not isinstance(fit, ResidualFit):
        return design.fixed, Z
    structure, phi = fit.structure, fit.phi
    RZ = [structure.precision_times(phi, columns) for columns in Z]
    return structure.precision_times(phi, design.X), RZ


def _dense(X: Any) -> FloatArray:
    return X if isinstance(X, np.ndarray) else np.asarray(X.toarray())


def _sums(values: FloatArray, clusters: Clusters) -> FloatArray:
    """Sums over the rows of every cluster, (clusters, …)."""
    order, first = _arranged(clusters)
    return np.asarray(np.add.reduceat(values[order], first, axis=0))


def _arranged(clusters: Clusters) -> tuple[IntArray, IntArray]:
    """The rows cluster by cluster, and where each begins."""
    order = np.argsort(clusters.codes, kind="stable").astype(np.intp)
    sizes = np.bincount(clusters.codes, minlength=clusters.count)
    return order, np.cumsum(sizes) - sizes


def _inner(X: FloatArray, VX: FloatArray, clusters: Clusters) -> FloatArray:
    """X_j'V_j⁻¹X_j of every cluster, (clusters, p, p)."""
    order, first = _arranged(clusters)
    X, VX, p = X[order], VX[order], X.shape[1]
    out = np.empty((clusters.count, p, p))
    for a in range(p):  # a column at a time: n × p numbers at once, not n × p²
        out[:, a] = np.add.reduceat(X[:, a, None] * VX, first, axis=0)
    return np.asarray(0.5 * (out + out.swapaxes(1, 2)))


def _inverses(inner: FloatArray) -> FloatArray:
    """(I − X_j'V_j⁻¹X_j)⁻¹, pseudo-inverses where nothing is left, (clusters, p, p)."""
    values, vectors = np.linalg.eigh(inner)
    left = 1.0 - values
    with np.errstate(divide="ignore"):
        inverse = np.where(left > NOTHING_LEFT, 1.0 / left, 0.0)
    return np.asarray(np.matmul(vectors * inverse[:, None], vectors.swapaxes(1, 2)))


def _square_roots(
    found: Iterable[Stack], m: int, p: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E_je_j, E_jV_jE_j' and E_jX_j of every cluster for CR2."""
    scores, spread, hat = np.empty((m, p)), np.empty((m, p, p)), np.empty((m, p, p))
    for stack in found:
        E = adjusted(stack)
        scores[stack.which] = np.einsum("cpm,cm->cp", E, stack.e)
        spread[stack.which] = stack.forms(E)
        hat[stack.which] = np.matmul(E, stack.X)
    return scores, spread, hat
