"""R(φ) and θ → V and its derivatives by all variance parameters, cluster by cluster of rows.

A cluster is what no other row shares an effect or a correlation with. Parameters are those of
`CovarianceStructure.spans`, then φ, relative to σ²; the residual variance is last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.pairs import TermColumns
from lmmsparse.engine.residual.structure import ResidualStructure

LARGEST = 2500  # rows of a cluster
_ELEMENTS = 4_000_000


def clusters(structure: ResidualStructure, terms: Sequence[TermColumns]) -> list[IntArray]:
    """The rows of clusters, (clusters, m) for every size m."""
    n = structure.n
    codes = [structure.correlation.groups.codes, *map(_connected, terms)]
    rows, nodes, at = [], [], n
    for own in codes:
        rows.append(np.arange(n))
        nodes.append(at + own)
        at += int(own.max()) + 1
    pairs = (np.concatenate(rows), np.concatenate(nodes))
    graph = sp.coo_array((np.ones(len(pairs[0])), pairs), shape=(at, at))
    label = sp.csgraph.connected_components(graph, directed=False)[1][:n]
    _, label = np.unique(label, return_inverse=True)
    sizes = np.bincount(label)
    order = np.argsort(label, kind="stable")
    starts = np.cumsum(sizes) - sizes
    return [order[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]


def _connected(term: TermColumns) -> IntArray:
    """The level of each row, or the set of levels that a known covariance connects, (n,)."""
    if term.prior is None:
        return term.codes
    _, label = sp.csgraph.connected_components(term.prior.precision, directed=False)
    return np.asarray(label[term.codes], dtype=np.intp)


class ClusterParts:
    """What inference about variances needs of V, as `VarianceParts` has it.

    Parameters
    ----------
    X : (n, p) array
        Internal columns.
    theta, phi : arrays
    some : list of (clusters, m) arrays, optional
        Clusters to look at, all if not given.
    """

    def __init__(
        self,
        structure: ResidualStructure,
        template: LambdaTemplate,
        terms: Sequence[TermColumns],
        X: FloatArray,
        theta: FloatArray,
        phi: FloatArray,
        some: Sequence[IntArray] | None = None,
    ) -> None:
        self._structure, self._terms, self._X, self._phi = structure, tuple(terms), X, phi
        self._clusters = clusters(structure, terms) if some is None else some
        self._T = template.shifted_factors(theta)
        self._spans = [
            (t, E)
            for t, (own, part) in enumerate(zip(template.structures, template.slices, strict=True))
            for E in own.spans(theta[part])
        ]
        self._r = len(self._spans) + structure.n_phi + 1

    def _parts(self) -> Iterator[IntArray]:
        """Clusters of one size, some at a time."""
        for rows in self._clusters:
            step = max(1, _ELEMENTS // (self._r * rows.shape[1] ** 2))
            for start in range(0, len(rows), step):
                yield rows[start : start + step]

    def _of_term(self, t: int, E: FloatArray, rows: IntArray) -> FloatArray:
        """Z_t (A ⊗ E) Z_t' of clusters, A the covariance of the levels, (clusters, m, m)."""
        term = self._terms[t]
        Z, codes = term.columns[rows], term.codes[rows]
        if term.prior is not None:
            levels, place = np.unique(codes, return_inverse=True)
            unit = np.zeros((term.n_levels, len(levels)))
            unit[levels, np.arange(len(levels))] = 1.0
            A, place = term.prior.solve(unit)[levels], place.reshape(codes.shape)
            between = A[place[:, :, None], place[:, None, :]]
            return np.asarray(between * np.matmul(np.matmul(Z, E), Z.swapaxes(1, 2)))
        together = codes[:, :, None] == codes[:, None, :]
        return np.where(together, np.matmul(np.matmul(Z, E), Z.swapaxes(1, 2)), 0.0)

    @cached_property
    def _sums(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """A_r, Q_rs and tr(V⁻¹G_rV⁻¹G_s)."""
        r, p = self._r, self._X.shape[1]
        A, Q, J = np.zeros((r, p, p)), np.zeros((r, p, r, p)), np.zeros((r, r))
        for rows in self._parts():
            R = self._structure.block(self._phi, rows)
            V = R.copy()
            for t, T in enumerate(self._T):
                V += self._of_term(t, T @ T.T, rows)
            half = np.linalg.inv(np.linalg.cholesky(V))
            X = np.matmul(half, self._X[rows])
            G = [self._of_term(t, E, rows) for t, E in self._spans]
            G += [*self._structure.block_slopes(self._phi, rows), R]
            B = np.matmul(np.matmul(half, np.stack(G)), half.swapaxes(1, 2))
            BX = np.matmul(B, X)
            flat = B.reshape(r, -1)
            J += flat @ flat.T
            A += np.tensordot(BX, X, axes=([1, 2], [0, 1])).swapaxes(1, 2)
            wide = BX.transpose(0, 3, 1, 2).reshape(r * p, rows.size)
            Q += (wide @ wide.T).reshape(r, p, r, p)
        return 0.5 * (A + A.swapaxes(1, 2)), Q.transpose(0, 2, 1, 3), J

    def slopes(self) -> FloatArray:
        """A_r = X'V⁻¹G_rV⁻¹X, (r, p, p)."""
        return self._sums[0]

    def curvatures(self) -> FloatArray:
        """Q_rs = X'V⁻¹G_rV⁻¹G_sV⁻¹X, (r, r, p, p)."""
        return self._sums[1]

    def traces(self) -> FloatArray:
        """tr(V⁻¹G_rV⁻¹G_s), (r, r)."""
        return self._sums[2]

    @property
    def largest(self) -> int:
        """Rows of the largest cluster."""
        return max(int(rows.shape[1]) for rows in self._clusters)
