"""`Fit` and clusters → the rows of every cluster, in stacks of clusters of about the same size.

Clusters of a stack have as many rows and random effects as its largest: the additional rows are
zero everywhere and independent of the others, the additional random effects are in no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.linalg import chunks
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.inference.robust.clusters import Clusters

_STEP = 1.25
_LARGEST = 12_000


@dataclass(frozen=True, eq=False)
class Stack:
    """Some clusters of about the same size; V = UU' + R, relative to σ².

    Attributes
    ----------
    which : (c,) int array
        The clusters.
    U : (c, m, k) array
        Columns of ZΛ that are not zero.
    X : (c, m, p) array
    e : (c, m) array
        Marginal residuals.
    spread : (c, m) array
        Diagonal of R.
    R : (c, m, m) array or None
        Where it is more than that.
    """

    which: IntArray
    U: FloatArray
    X: FloatArray
    e: FloatArray
    spread: FloatArray
    R: FloatArray | None = None

    @property
    def V(self) -> FloatArray:
        """The clusters' blocks of V, (c, m, m)."""
        if (m := self.U.shape[1]) > _LARGEST:
            raise OptionError(
                f"CR2 needs matrices of {m} × {m} numbers for the largest clusters. Use 'CR3' or "
                "'CR1', which do not."
            )
        V = np.matmul(self.U, self.U.swapaxes(1, 2))
        if self.R is not None:
            return np.asarray(V + self.R)
        at = np.arange(m)
        V[:, at, at] += self.spread
        return np.asarray(V)

    @property
    def inner(self) -> FloatArray:
        """X'V⁻¹X, (c, p, p)."""
        return np.asarray(np.matmul(self.X.swapaxes(1, 2), self.solve(self.X, 0.0)))

    def solve(self, B: FloatArray, shift: complex) -> Any:
        """(V − shift)⁻¹B of (c, m, r) arrays, without V; where R is diagonal."""
        scale = 1.0 / (self.spread - shift)[:, :, None]
        both = self.U.swapaxes(1, 2)
        small = np.eye(self.U.shape[2]) + np.matmul(both, scale * self.U)
        return scale * (B - np.matmul(self.U, np.linalg.solve(small, np.matmul(both, scale * B))))

    def forms(self, E: FloatArray) -> FloatArray:
        """EVE' of (c, p, m) arrays, without V."""
        EU = np.matmul(E, self.U)
        ER = E * self.spread[:, None] if self.R is None else np.matmul(E, self.R)
        own = np.matmul(ER, E.swapaxes(1, 2))
        return np.asarray(own + np.matmul(EU, EU.swapaxes(1, 2)))

    def compressed(self) -> Stack:
        """The same in an orthonormal basis of [U X], outside of which V is a multiple of I.

        Only for clusters in which all rows have the same weight.
        """
        Q, _ = np.linalg.qr(np.concatenate([self.U, self.X], axis=2))
        Qt = Q.swapaxes(1, 2)
        e = np.einsum("crm,cm->cr", Qt, self.e)
        spread = np.repeat(self.spread[:, :1], Q.shape[2], axis=1)
        return Stack(self.which, np.matmul(Qt, self.U), np.matmul(Qt, self.X), e, spread)


def stacks(fit: Fit, clusters: Clusters, X: FloatArray, e: FloatArray) -> Iterator[Stack]:
    """The clusters of a fit, each in one stack, in the smallest coordinates.

    Parameters
    ----------
    X : (n, p) array
    e : (n,) array
    """
    order = np.argsort(clusters.codes, kind="stable").astype(np.intp)
    sizes = np.bincount(clusters.codes, minlength=clusters.count)
    first = np.cumsum(sizes) - sizes
    codes = clusters.codes[order]
    row = np.arange(len(order)) - first[codes]
    spread, correlated = _residual_variances(fit)[order], _correlated(fit)
    same = np.maximum.reduceat(spread, first) == np.minimum.reduceat(spread, first)
    same &= not correlated
    columns, places, widths = _effects(fit, clusters, order)
    rows_in, width_in = rounded(sizes), rounded(widths)
    # Where the basis would be as large as the cluster, there is nothing to gain from it.
    smaller = same & (width_in + X.shape[1] < rows_in)
    kinds = np.column_stack([rows_in, width_in, smaller])
    X, e = X[order], e[order]
    for m, k, shrinks in np.unique(kinds, axis=0):
        own = np.flatnonzero((kinds == (m, k, shrinks)).all(axis=1))
        for part in chunks(len(own), int(m) * int(k + X.shape[1] if shrinks else 2 * m)):
            which = own[part]
            rows = np.repeat(first[which], sizes[which]) + counted(sizes[which])
            at = (np.repeat(np.arange(len(which)), sizes[which]), row[rows])
            stack = Stack(
                which,
                np.zeros((len(which), m, k)),
                np.zeros((len(which), m, X.shape[1])),
                np.zeros((len(which), m)),
                np.repeat(spread[first[which], None], m, axis=1),
            )
            for values, place in zip(columns, places, strict=True):
                for j in range(values.shape[1]):
                    stack.U[(*at, place[rows] + j)] = values[rows, j]
            stack.X[at], stack.e[at], stack.spread[at] = X[rows], e[rows], spread[rows]
            if correlated:
                stack = replace(stack, R=_blocks_of_residuals(fit, stack.spread, order[rows], at))
            yield stack.compressed() if shrinks else stack


def _correlated(fit: Fit) -> bool:
    """Whether residuals of different rows are."""
    return fit.design.residual is not None and fit.design.residual.grouping is not None


def _residual_variances(fit: Fit) -> FloatArray:
    """Diagonal of R, (n,)."""
    if isinstance(fit, ResidualFit):
        return fit.structure.sd(fit.phi) ** 2
    return 1.0 / fit.design.weights_or_one


def _blocks_of_residuals(
    fit: Fit, spread: FloatArray, rows: IntArray, at: tuple[IntArray, IntArray]
) -> FloatArray:
    """R between the rows of each cluster; rows that only fill it up are independent.

    Parameters
    ----------
    rows : (r,) int array
        Rows of the fit.
    at : pair of (r,) int arrays
        Cluster and place of each.
    """
    assert isinstance(fit, ResidualFit)
    c, m = spread.shape
    places, there = np.zeros((c, m), dtype=np.intp), np.zeros((c, m), dtype=bool)
    places[at], there[at] = rows, True
    R = fit.structure.block(fit.phi, places)
    R = np.where(there[:, :, None] & there[:, None, :], R, 0.0)
    i = np.arange(m)
    R[:, i, i] = np.where(there, R[:, i, i], spread)
    return R


def _effects(
    fit: Fit, clusters: Clusters, order: IntArray
) -> tuple[list[FloatArray], list[IntArray], IntArray]:
    """Columns of ZΛ in the rows' new order, their first places in the cluster, all its columns."""
    template, widths = fit.template, np.zeros(clusters.count, dtype=np.intp)
    columns, places = [], []
    of_rows = clusters.codes[order]
    for block, T in zip(fit.design.blocks, template.shifted_factors(fit.theta), strict=True):
        levels = block.codes[order]
        cluster_of = np.zeros(block.n_levels, dtype=np.intp)
        cluster_of[levels] = of_rows
        by_cluster = np.argsort(cluster_of, kind="stable")
        counts = np.bincount(cluster_of, minlength=clusters.count)
        rank = np.empty(block.n_levels, dtype=np.intp)
        rank[by_cluster] = counted(counts)
        columns.append(block.shifted_columns[order] @ T)
        places.append(widths[of_rows] + block.k * rank[levels])
        widths = widths + block.k * counts
    return columns, places, widths


def counted(sizes: IntArray) -> IntArray:
    """0, 1, …, size − 1 for every size, one after the other."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def rounded(sizes: IntArray) -> IntArray:
    """Sizes rounded up, so that few different ones are left."""
    steps: list[int] = [0]
    while steps[-1] < sizes.max(initial=0):
        steps.append(max(steps[-1] + 1, int(steps[-1] * _STEP)))
    return np.asarray(np.array(steps)[np.searchsorted(steps, sizes)])
