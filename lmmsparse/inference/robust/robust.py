"""`Fit` and clusters → a covariance matrix of β̂ that holds whatever happens within clusters.

All that is needed of a cluster are its scores, p numbers, and two p × p matrices. Without
adjustment they come from V⁻¹X in O(n); the adjustment CR2 takes the blocks of V.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DesignWarning, OptionError
from lmmsparse.common.findings import warn
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.linalg import chunks
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.inference.robust.adjustment import NOTHING_LEFT, adjusted
from lmmsparse.inference.robust.blocks import Stack, stacks
from lmmsparse.inference.robust.clusters import Clusters, Robust
from lmmsparse.inference.robust.sandwich import ClusterRobust
from lmmsparse.inference.robust.scores import score_robust
from lmmsparse.inference.robust.summed import stacks_of_sums
from lmmsparse.results.cluster_sums import ClusterSums
from lmmsparse.results.row_forms import EffectsOfRows, projected_rows, pulled_columns

_FEW_CLUSTERS = 10


def robust_covariance(fit: Fit, robust: Robust) -> FloatArray:
    """Cluster-robust covariance of the fixed effects, (p, p); a warning where it says little."""
    clusters = robust.clusters
    if clusters.count < _FEW_CLUSTERS:
        warn(
            f"There are {clusters.count} clusters of {clusters.name!r}. A covariance matrix from "
            "so few is rough, and z tests with it are too optimistic. Use "
            "m.coef_table(robust=..., cluster=...), whose degrees of freedom allow for it.",
            DesignWarning,
        )
    if isinstance(fit, GeneralizedFit):
        return score_robust(fit, robust, finite=False).covariance
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
