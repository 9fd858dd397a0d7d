"""L with LL' = M → the entries of M⁻¹ on the pattern of L, without forming the rest of M⁻¹.

Takahashi's recurrence, supernode by supernode from the root down: with supernode J, the rows I
below it and Y = L_IJ L_JJ⁻¹, Σ_IJ = −Σ_II Y and Σ_JJ = (L_JJ L_JJ')⁻¹ + Y'Σ_II Y, where Σ_II is a
submatrix of the parent's front. Supernodes at one height of the tree go in few batches, padded to
common shapes: a call costs a handful of array operations per batch, not per supernode.

References
----------
Takahashi, Fagan & Chin (1973); Erisman & Tinney (1975), Communications of the ACM 18, 177-179.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.linalg import inverse_from_factor, solve_triangular

_LARGEST_BATCHED = 48
_PADDING = 4_000  # elements that cost less than another batch
_CHUNK = 200_000


@dataclass(frozen=True, eq=False)
class _Batch:
    """Supernodes that are treated together, w columns and m rows below each (with padding).

    Attributes
    ----------
    nodes : (b,) int array
    places : (b, w + m, w) int array or None
        Where their columns stand in L; one past the end is a zero, two past it a one. None for
        one large supernode by itself.
    at : (b, m) int array
        Where their rows stand in the parent's front.
    inner : (b, m, m) int array or None
        Where Σ_II stands among all fronts; None for one supernode by itself.
    parent_start, parent_size : (b,) int arrays
        The parent's front among all fronts.
    is_parent : (c,) int array
        Which of them have children, and so keep a front.
    front : (c, w + m, w + m) int array or None
        Where these fronts go; one past the end for padding.
    """

    nodes: IntArray
    w: int
    m: int
    places: IntArray | None
    at: IntArray
    inner: IntArray | None
    parent_start: IntArray
    parent_size: IntArray
    is_parent: IntArray
    front: IntArray | None


class SelectedInverse:
    """The symbolic half: supernodes of a fixed pattern, reused at every θ.

    Parameters
    ----------
    indptr, indices : int arrays
        Pattern of L in compressed columns, rows sorted, diagonal first; closed under elimination
        (every child's rows are among its parent's columns and rows).
    """

    def __init__(self, indptr: IntArray, indices: IntArray) -> None:
        self._indptr = indptr = np.asarray(indptr, dtype=np.intp)
        self._indices = indices = np.asarray(indices, dtype=np.intp)
        q = len(indptr) - 1
        counts = np.diff(indptr)
        parent = np.full(q, -1, dtype=np.intp)
        below = counts > 1
        parent[below] = indices[indptr[:-1][below] + 1]
        joined = np.zeros(q, dtype=bool)
        joined[1:] = (parent[:-1] == np.arange(1, q)) & (counts[:-1] == counts[1:] + 1)
        self._first = np.flatnonzero(~joined)
        self._width = np.diff(np.append(self._first, q))
        last = self._first + self._width - 1
        self._rows_start = indptr[last] + 1
        self._n_rows = indptr[last + 1] - self._rows_start
        node_of = np.cumsum(~joined) - 1
        self._parent = np.where(parent[last] >= 0, node_of[parent[last]], -1)
        self._height = self._heights()
        self._has_children = self._height > 0
        size = (self._width + self._n_rows) ** 2
        self._front_start = np.concatenate([[0], np.cumsum(np.where(self._has_children, size, 0))])
        places = self._places_in_parent()
        self._batches = [self._batch(nodes, w, m, places) for nodes, w, m in self._shapes()]

    def _heights(self) -> IntArray:
        """Steps down to the farthest leaf: nodes of equal height do not depend on each other."""
        height = [0] * len(self._first)
        for node, parent in enumerate(self._parent.tolist()):
            if parent >= 0 and height[parent] <= height[node]:
                height[parent] = height[node] + 1
        return np.array(height, dtype=np.intp)

    def _shapes(self) -> list[tuple[IntArray, int, int]]:
        """Supernodes to treat together and their common shape, parents before children."""
        w, m = self._width, self._n_rows
        alone = (w > _LARGEST_BATCHED) | (m > _LARGEST_BATCHED)
        out = [
            (-int(self._height[i]), np.array([i]), int(w[i]), int(m[i]))
            for i in np.flatnonzero(alone)
        ]
        # By height, then shape, the largest first: neighbours share a batch if padding is cheap.
        order = np.flatnonzero(~alone)
        order = order[np.lexsort((-w[order], -(w + m)[order], -self._height[order]))]
        key = np.column_stack([-self._height, w, m])[order]
        first = np.flatnonzero(np.r_[True, np.any(key[1:] != key[:-1], axis=1)][: len(key)])
        batch: list[IntArray] = []
        height, big_w, big_m, size = 1, 0, 0, 0
        shared = np.split(order, first[1:]) if len(order) else []
        for nodes, (own_height, own_w, own_m) in zip(shared, key[first].tolist(), strict=True):
            new_w, new_m = max(big_w, own_w), max(big_m, own_m)
            apart = size * (big_w + big_m) ** 2 + len(nodes) * (own_w + own_m) ** 2
            padding = (size + len(nodes)) * (new_w + new_m) ** 2 - apart
            if own_height != height or (own_m == 0) != (big_m == 0) or padding > _PADDING:
                if batch:
                    out.append((height, np.concatenate(batch), big_w, big_m))
                batch, size, height, new_w, new_m = [], 0, own_height, own_w, own_m
            batch.append(nodes)
            big_w, big_m, size = new_w, new_m, size + len(nodes)
        if batch:
            out.append((height, np.concatenate(batch), big_w, big_m))
        shapes = []
        for _, nodes, own_w, own_m in sorted(out, key=lambda each: each[0]):
            chunks = max(1, min(len(nodes), len(nodes) * (own_w + own_m) ** 2 // _CHUNK))
            shapes += [(part, own_w, own_m) for part in np.array_split(nodes, chunks)]
        return shapes

    def _places_in_parent(self) -> IntArray:
        """Where every row below every supernode stands in its parent's front, in one array."""
        q = np.int64(len(self._indptr) - 1)
        parents = np.flatnonzero(self._has_children)
        width, rows = self._width[parents], self._n_rows[parents]
        # A front lists the parent's columns, then the rows below it: ascending, so that one
        # search over (parent, row) keys finds all places.
        owner, within = _ragged(width + rows)
        is_row = within >= width[owner]
        index = self._first[parents][owner] + within
        index[is_row] = self._indices[
            (self._rows_start[parents] - width)[owner[is_row]] + within[is_row]
        ]
        keys = parents[owner] * q + index
        node, within_rows = _ragged(self._n_rows)
        row = self._indices[self._rows_start[node] + within_rows]
        found = np.searchsorted(keys, self._parent[node] * q + row)
        return within[found] if len(within) else np.zeros(0, dtype=np.intp)

    def _batch(self, nodes: IntArray, w: int, m: int, places: IntArray) -> _Batch:
        """What a call needs of some supernodes, padded to w columns and m rows."""
        own_w, own_m = self._width[nodes], self._n_rows[nodes]
        row = np.arange(m)
        there = row < own_m[:, None]
        first_row = np.cumsum(self._n_rows) - self._n_rows
        # Padding points at a number of the front that is there; what it meets is zero.
        at = np.zeros((len(nodes), m), dtype=np.intp)
        at[there] = places[(first_row[nodes][:, None] + row)[there]]
        parent = self._parent[nodes]
        is_parent = np.flatnonzero(self._has_children[nodes])
        alone = w > _LARGEST_BATCHED or m > _LARGEST_BATCHED
        column_places, front = None, None
        if not alone:
            nnz = len(self._indices)
            c, r = np.arange(w), np.arange(w + m)
            # Column c of a supernode holds w - c entries of its triangle, then its m rows.
            last = len(self._indptr) - 2
            start = self._indptr[np.minimum(self._first[nodes][:, None] + c, last)]
            inside = (r[:, None] < w) & (r[:, None] >= c) & (r[:, None] < own_w[:, None, None])
            below = (r[:, None] >= w) & (r[:, None] - w < own_m[:, None, None])
            offset = np.where(r[:, None] < w, r[:, None] - c, own_w[:, None, None] + r[:, None] - w)
            offset = offset - np.where(r[:, None] < w, 0, c)
            real = (inside | below) & (c < own_w[:, None, None])
            column_places = np.where(real, start[:, None, :] + offset, nnz)
            column_places[(r[:, None] == c) & (c >= own_w[:, None, None])] = nnz + 1
            own = np.where(r < w, r, own_w[is_parent][:, None] + r - w)
            size = (own_w + own_m)[is_parent]
            exists = np.where(r < w, r < own_w[is_parent][:, None], own < size[:, None])
            begin = self._front_start[nodes[is_parent]]
            front = begin[:, None, None] + own[:, :, None] * size[:, None, None] + own[:, None, :]
            front[~(exists[:, :, None] & exists[:, None, :])] = self._front_start[-1]
        parent_start = self._front_start[parent]
        parent_size = self._width[parent] + self._n_rows[parent]
        inner = None
        if m and len(nodes) > 1:
            begin = parent_start[:, None] + at * parent_size[:, None]
            inner = begin[:, :, None] + at[:, None, :]
        return _Batch(
            nodes=nodes,
            w=w,
            m=m,
            places=column_places,
            at=at,
            inner=inner,
            parent_start=parent_start,
            parent_size=parent_size,
            is_parent=is_parent,
            front=front,
        )

    def __call__(self, data: FloatArray) -> FloatArray:
        """Entries of M⁻¹ aligned with the pattern, for L's values aligned with it.

        Parameters
        ----------
        data : (nnz,) array
            Values of L.

        Returns
        -------
        (nnz,) array
        """
        L = np.append(data, [0.0, 1.0])
        out = np.empty_like(L)
        fronts = np.empty(int(self._front_start[-1]) + 1)
        for batch in self._batches:
            m = batch.m
            SII = np.zeros((len(batch.nodes), 0, 0))
            if batch.inner is not None:
                SII = fronts.take(batch.inner)
            elif m:
                start, size, at = int(batch.parent_start[0]), int(batch.parent_size[0]), batch.at[0]
                front = fronts[start : start + size**2].reshape(size, size)
                a, z = int(at[0]), int(at[-1]) + 1
                SII = front[a:z, a:z] if z - a == m else front[at].take(at, axis=1)
                SII = SII[None]
            if batch.places is None or batch.front is None:
                self._alone(data, out, fronts, batch, SII[0])
                continue
            w, keep = batch.w, batch.is_parent
            columns = _together(L.take(batch.places), SII)
            out[batch.places] = columns
            if len(keep):
                kept = columns if len(keep) == len(columns) else columns[keep]
                front = np.empty((len(keep), w + m, w + m))
                front[:, :, :w] = kept
                front[:, :w, w:] = kept[:, w:].swapaxes(1, 2)
                front[:, w:, w:] = SII if kept is columns else SII[keep]
                fronts[batch.front] = front
        return out[:-2]

    def _alone(
        self, data: FloatArray, out: FloatArray, fronts: FloatArray, batch: _Batch, SII: FloatArray
    ) -> None:
        """The columns of one large supernode, and its front."""
        w, m, node = batch.w, batch.m, int(batch.nodes[0])
        first = int(self._first[node])
        starts = self._indptr[first : first + w + 1].tolist()
        block = np.zeros((w + m, w), order="F")
        for c in range(w):
            block[c:, c] = data[starts[c] : starts[c + 1]]
        LJJ = np.asfortranarray(block[:w])
        SJJ = inverse_from_factor(LJJ)
        SIJ = np.empty((m, w))
        if m:
            Y = solve_triangular(LJJ, block[w:].T, lower=True, transposed=True).T
            SIJ = -SII @ Y
            SJJ -= Y.T @ SIJ
        block[:w], block[w:] = SJJ, SIJ
        for c in range(w):
            out[starts[c] : starts[c + 1]] = block[c:, c]
        if len(batch.is_parent):
            start = self._front_start[node]
            front = fronts[start : start + (w + m) ** 2].reshape(w + m, w + m)
            front[:w, :w], front[w:, :w], front[:w, w:], front[w:, w:] = SJJ, SIJ, SIJ.T, SII


def _together(L: FloatArray, SII: FloatArray) -> FloatArray:
    """Columns of Σ for a stack of small supernodes, [Σ_JJ; Σ_IJ] (b, w + m, w) as L's are."""
    w = L.shape[2]
    if w == 1:
        return _one_column(L, SII)
    inverse = _triangular_inverse(L[:, :w])
    out = np.empty_like(L)
    np.matmul(inverse.swapaxes(1, 2), inverse, out=out[:, :w])
    if L.shape[1] > w:
        Y = np.matmul(L[:, w:], inverse)
        SIJ = np.negative(np.matmul(SII, Y), out=out[:, w:])
        out[:, :w] -= np.matmul(Y.swapaxes(1, 2), SIJ)
    return out


def _one_column(L: FloatArray, SII: FloatArray) -> FloatArray:
    """The same for supernodes of one column, which most leaves are."""
    inverse = 1.0 / L[:, 0]
    out = np.empty_like(L)
    out[:, 0] = inverse * inverse
    if L.shape[1] > 1:
        Y = L[:, 1:, 0] * inverse
        SIJ = np.einsum("bij,bj->bi", SII, Y)
        out[:, 1:, 0] = -SIJ
        out[:, 0, 0] += np.einsum("bi,bi->b", Y, SIJ)
    return out


def _triangular_inverse(L: FloatArray) -> FloatArray:
    """Inverse of a stack of lower-triangular matrices, (b, w, w)."""
    if len(L) <= 2 * L.shape[1]:
        return np.stack([lapack.dtrtri(each, lower=1)[0] for each in L])
    out = np.zeros_like(L)
    diagonal = np.einsum("bjj->bj", out)
    np.divide(1.0, np.einsum("bjj->bj", L), out=diagonal)
    for j in range(1, L.shape[1]):  # forward substitution on all matrices at once
        row = np.matmul(L[:, j, None, :j], out[:, :j, :j])
        np.multiply(row[:, 0], -diagonal[:, j, None], out=out[:, j, :j])
    return out


def _ragged(counts: IntArray) -> tuple[IntArray, IntArray]:
    """For lists of these lengths one after the other: which list, and where in it."""
    owner = np.repeat(np.arange(len(counts)), counts)
    start = np.cumsum(counts) - counts
    return owner, np.arange(len(owner)) - start[owner]
