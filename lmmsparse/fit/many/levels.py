"""Cross-products of one grouping factor → the blocks of its levels, equal levels merged.

Levels whose blocks of Z'WZ are equal have equal blocks of M, and everything the criterion takes
from them is a sum of quadratic forms over them. An orthogonal rotation of such levels changes no
sum, and can be chosen so that X and the response live in a few of the rotated levels. Balanced
designs with hundreds of levels become a handful of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.products import CrossProducts, side_by_side

_DIGITS = 12
_RANK = 1e-14
_LARGEST_ROTATION = 300


@dataclass(frozen=True, eq=False)
class _Rotation:
    """Equal levels and the directions among them in which X lives.

    Attributes
    ----------
    levels : (n,) int array
    U : (n, r) array
        Orthonormal; the rotated X is zero outside these r directions.
    """

    levels: IntArray
    U: FloatArray


@dataclass(frozen=True, eq=False)
class MergedLevels:
    """The levels of one grouping factor, standardized and merged where their blocks are equal.

    Attributes
    ----------
    A : (K, K, L) array
        Blocks of Z'WZ of the L merged levels, with the K random effects of all terms side by side.
    X : (K, p, L) array
        Blocks of Z'WX.
    count : (L,) array
        How many original levels have this block (0 for all but one of a rotated set).
    alone : (a,) int array
        Original levels that were not merged; they come first.
    J : (K, K) array
        The standardization: the blocks are J'(·)J and J'(·) of the original ones.
    sizes : tuple of int
        Random effects per level of each term.
    """

    A: FloatArray
    X: FloatArray
    count: FloatArray
    alone: IntArray
    rotations: tuple[_Rotation, ...]
    J: FloatArray
    sizes: tuple[int, ...]

    def responses(self, Zty: FloatArray) -> FloatArray:
        """Z'Wy of m responses, (q, m), in the merged levels: (K, m, L)."""
        y = np.matmul(self.J.T, _by_level(Zty, self.sizes))
        K, m = y.shape[1:]
        out = np.empty((K, m, len(self.count)))
        at = len(self.alone)
        out[:, :, :at] = y[self.alone].transpose(1, 2, 0)
        for rotation in self.rotations:
            own = y[rotation.levels].reshape(len(rotation.levels), K * m)
            kept = rotation.U.T @ own
            r = len(kept)
            out[:, :, at : at + r] = kept.reshape(r, K, m).transpose(1, 2, 0)
            rest = (own - rotation.U @ kept).reshape(-1, K, m).transpose(2, 1, 0)
            out[:, :, at + r : at + r + K] = _root(rest @ rest.transpose(0, 2, 1)).swapaxes(0, 1)
            at += r + K
        return out


def merge_levels(products: CrossProducts, J: FloatArray) -> MergedLevels:
    """Arrange the blocks of a model with one grouping factor.

    Parameters
    ----------
    products : CrossProducts
        All terms belong to the same factor.
    J : (K, K) array
        Standardization of the random effects of all terms side by side.
    """
    own, sizes = side_by_side(products, products.blocks), products.sizes
    K, p = own.shape[1], products.p
    sets, single = _equal(own)
    own = np.matmul(np.matmul(J.T, own), J)
    X = np.matmul(J.T, _by_level(products.ZtX, sizes))
    alone, rotations = [single], []
    A_parts, X_parts, counts = [], [], []
    for levels in sets:
        U = _directions(X[levels].reshape(len(levels), K * p))
        merged = 0 if U is None else U.shape[1] + K
        if U is None or merged >= len(levels):
            alone.append(levels)
            continue
        rotations.append(_Rotation(levels, U))
        rotated = np.zeros((merged, K, p))
        rotated[: merged - K] = np.tensordot(U, X[levels], axes=(0, 0))
        A_parts.append(np.repeat(own[levels[:1]], merged, axis=0))
        X_parts.append(rotated)
        counts.append(np.append(float(len(levels)), np.zeros(merged - 1)))
    single = np.sort(np.concatenate(alone))
    A = np.concatenate([own[single], *A_parts])
    return MergedLevels(
        A=np.ascontiguousarray(A.transpose(1, 2, 0)),
        X=np.ascontiguousarray(np.concatenate([X[single], *X_parts]).transpose(1, 2, 0)),
        count=np.concatenate([np.ones(len(single)), *counts]),
        alone=single,
        rotations=tuple(rotations),
        J=J,
        sizes=sizes,
    )


def _by_level(matrix: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """(q, m), ordered by term and level → (levels, K, m)."""
    n_levels, m = len(matrix) // sum(sizes), matrix.shape[1]
    ends = np.cumsum([0, *sizes]) * n_levels
    parts = [
        matrix[a:z].reshape(n_levels, k, m)
        for a, z, k in zip(ends[:-1], ends[1:], sizes, strict=True)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _equal(blocks: FloatArray) -> tuple[list[IntArray], IntArray]:
    """Sets of levels whose blocks are equal up to the rounding of a sum, and the other levels."""
    flat = blocks.reshape(len(blocks), -1)
    size = np.abs(flat).max(axis=0)
    rounded = np.round(flat / np.where(size > 0, size, 1.0), _DIGITS) + 0.0
    _, inverse, counts = np.unique(rounded, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.ravel(), kind="stable").astype(np.intp)
    ends = np.cumsum(counts)
    single = order[np.repeat(counts == 1, counts)]
    sets = [order[ends[i] - counts[i] : ends[i]] for i in np.flatnonzero(counts > 1)]
    return sets, single


def _directions(X: FloatArray) -> FloatArray | None:
    """An orthonormal basis of the columns of X; None where finding one would not pay."""
    if min(X.shape) > _LARGEST_ROTATION:
        return None
    if X.shape[1] == 0:
        return np.zeros((len(X), 0))
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    return np.ascontiguousarray(U[:, s > _RANK * s[0]])


def _root(S: FloatArray) -> FloatArray:
    """B with BB' = S for a stack of positive semidefinite matrices."""
    if S.shape[1] == 1:
        return np.sqrt(S)
    values, vectors = np.linalg.eigh(S)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
