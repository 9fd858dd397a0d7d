"""`Fit` and sums over clusters → the blocks of every cluster in coordinates of their own, for CR2.

Where all rows have the same weight, V is a multiple of I outside of the columns of [U X]. All that
matters of a cluster is their Gram matrix, which follows from Z'Z, Z'X and the sums, and [U X]'e.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.linalg import chunks
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.robust.blocks import Stack, counted, rounded
from lmmsparse.results.cluster_sums import ClusterSums

_LARGEST = 3000
_NOTHING = 1e-13  # of an eigenvalue, beside the largest


def stacks_of_sums(fit: Fit, sums: ClusterSums, inner: FloatArray) -> Iterator[Stack]:
    """The clusters of a fit whose rows are not there, each in one stack; see `blocks.stacks`."""
    if fit.design.weights is not None:
        raise OptionError(
            "CR2 standard errors of a model with weights need the rows of each cluster at once, "
            "which are not together where data are read in chunks. Use 'CR3' or 'CR1'."
        )
    effects = _Effects(fit, sums)
    if (largest := int(effects.widths.max(initial=0))) > _LARGEST:
        raise OptionError(
            f"CR2 needs matrices of {largest} × {largest} numbers for the clusters with most "
            "random effects. Use 'CR3' or 'CR1', which do not."
        )
    p = sums.scores.shape[1]
    kinds = rounded(effects.widths)
    for k in np.unique(kinds):
        own = np.flatnonzero(kinds == k)
        for part in chunks(len(own), int(k + p) ** 2):
            yield _stack(effects, sums.scores, inner, own[part], int(k))


class _Effects:
    """Random effects by cluster: where each stands, and Λ'Z'ZΛ, Λ'Z'X, Λ'Z'e."""

    def __init__(self, fit: Fit, sums: ClusterSums) -> None:
        template, p = fit.template, fit.design.p
        T = template.shifted_factors(fit.theta)
        self.levels = sums.levels
        self.widths = np.zeros(sums.count, dtype=np.intp)
        self.places: list[IntArray] = []
        for t, clusters in enumerate(sums.levels):
            k = template.structures[t].k
            order = np.argsort(clusters, kind="stable")
            counts = np.bincount(clusters, minlength=sums.count)
            rank = np.empty(len(clusters), dtype=np.intp)
            rank[order] = counted(counts)
            self.places.append(self.widths[clusters] + k * rank)
            self.widths = self.widths + k * counts
        self.pairs = [
            (pair, np.matmul(np.matmul(T[pair.s].T, pair.values), T[pair.t]))
            for pair in fit.products.pairs
        ]
        RX = fit.modes.solution.RX
        ZtX = fit.products.ZtX
        whitened = np.linalg.solve(RX.T, ZtX.T).T if p else ZtX
        Zte = fit.objective.response.Zty - ZtX @ fit.modes.solution.beta
        both = np.column_stack([whitened, Zte])
        self.UtXe = template.by_term(template.multiply_transposed(T, both))


def _stack(
    effects: _Effects, scores: FloatArray, inner: FloatArray, which: IntArray, k: int
) -> Stack:
    c, p = len(which), scores.shape[1]
    at = np.full(len(effects.widths), -1, dtype=np.intp)
    at[which] = np.arange(c)
    UU, UXe = np.zeros((c, k, k)), np.zeros((c, k, p + 1))
    for t, values in enumerate(effects.UtXe):
        own = np.flatnonzero(at[effects.levels[t]] >= 0)
        stack, place = at[effects.levels[t][own]], effects.places[t][own]
        for i in range(values.shape[1]):
            UXe[stack, place + i] = values[own, i]
    for pair, blocks in effects.pairs:
        own = np.flatnonzero(at[effects.levels[pair.s][pair.rows]] >= 0)
        rows, cols = pair.rows[own], pair.cols[own]
        stack = at[effects.levels[pair.s][rows]]
        first, second = effects.places[pair.s][rows], effects.places[pair.t][cols]
        for i in range(blocks.shape[1]):
            for j in range(blocks.shape[2]):
                UU[stack, first + i, second + j] = blocks[own, i, j]
                UU[stack, second + j, first + i] = blocks[own, i, j]
    solved = np.linalg.solve(np.eye(k) + UU, UXe)
    added = np.matmul(UXe[:, :, :p].swapaxes(1, 2), solved)  # what V⁻¹ takes off X'[X e]
    K = np.empty((c, k + p, k + p))
    K[:, :k, :k], K[:, :k, k:] = UU, UXe[:, :, :p]
    K[:, k:, :k] = UXe[:, :, :p].swapaxes(1, 2)
    K[:, k:, k:] = inner[which] + added[:, :, :p]
    e = np.concatenate([UXe[:, :, p], scores[which] + added[:, :, p]], axis=1)
    return _of_gram(which, K, e, k)


def _of_gram(which: IntArray, K: FloatArray, e: FloatArray, k: int) -> Stack:
    """Coordinates F with F'F = K, and f with F'f = e."""
    # A scale for U and one for X: of single columns some are nothing but rounding errors.
    size = np.sqrt(np.maximum(np.einsum("cii->ci", K), 0.0))
    for part in (slice(0, k), slice(k, None)):
        largest = size[:, part].max(axis=1, initial=0.0, keepdims=True)
        size[:, part] = np.where(largest > 0, largest, 1.0)
    values, vectors = np.linalg.eigh(K / size[:, :, None] / size[:, None, :])
    kept = values > _NOTHING * values[:, -1:]
    root = np.sqrt(np.where(kept, values, 0.0))
    F = root[:, :, None] * vectors.swapaxes(1, 2) * size[:, None, :]
    along = np.einsum("cij,ci->cj", vectors, e / size)
    f = np.where(kept, along, 0.0) / np.where(kept, root, 1.0)
    return Stack(which, F[:, :, :k], F[:, :, k:], f, np.ones_like(f))
