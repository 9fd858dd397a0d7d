"""L with LL' = M → the entries of M⁻¹ on the pattern of L, without forming the rest of M⁻¹.

Takahashi's recurrence, supernode by supernode from the root down: with supernode J, the rows I
below it and Y = L_IJ L_JJ⁻¹, Σ_IJ = −Σ_II Y and Σ_JJ = (L_JJ L_JJ')⁻¹ + Y'Σ_II Y, where Σ_II is a
submatrix of the parent's front. Supernodes of one shape at one depth of the tree go in one batch.

References
----------
Takahashi, Fagan & Chin (1973); Erisman & Tinney (1975), Communications of the ACM 18, 177-179.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from lmmsparse._types import FloatArray, IntArray
from lmmsparse.linalg import inverse_from_factor, solve_triangular

_BATCH_ROWS = 48


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
        self._depth = self._depths()
        self._has_children = np.zeros(len(self._first), dtype=bool)
        self._has_children[self._parent[self._parent >= 0]] = True
        self._groups = self._make_groups()
        size = (self._width + self._n_rows) ** 2
        self._front_start = np.concatenate([[0], np.cumsum(np.where(self._has_children, size, 0))])
        self._at = [self._places_in_parent(nodes) for nodes in self._groups]

    def _depths(self) -> IntArray:
        depth = np.zeros(len(self._first), dtype=np.intp)
        for node in range(len(self._first) - 1, -1, -1):
            if self._parent[node] >= 0:
                depth[node] = depth[self._parent[node]] + 1
        return depth

    def _make_groups(self) -> list[IntArray]:
        """Nodes that are treated together, parents' groups before their children's."""
        groups: dict[tuple[int, int, int, int], list[int]] = defaultdict(list)
        for node, key in enumerate(
            zip(self._depth.tolist(), self._width.tolist(), self._n_rows.tolist(), strict=True)
        ):
            alone = node if key[2] > _BATCH_ROWS or key[1] > _BATCH_ROWS else -1
            groups[(*key, alone)].append(node)
        return [np.array(groups[key], dtype=np.intp) for key in sorted(groups)]

    def _places_in_parent(self, nodes: IntArray) -> IntArray:
        """Where the rows below each node stand in its parent's front, (nodes, rows)."""
        m = int(self._n_rows[nodes[0]])
        rows = self._indices[self._rows_start[nodes][:, None] + np.arange(m)]
        if not m:
            return np.asarray(rows)
        # A front lists the parent's columns, then the rows below it: ascending, so that one
        # search over (parent, row) keys finds all places of the group.
        parents, which = np.unique(self._parent[nodes], return_inverse=True)
        keys, place = [], []
        q = np.int64(len(self._indptr) - 1)
        for i, parent in enumerate(parents.tolist()):
            first, width = self._first[parent], self._width[parent]
            start = self._rows_start[parent]
            below = self._indices[start : start + self._n_rows[parent]]
            index = np.concatenate([np.arange(first, first + width), below])
            keys.append(i * q + index)
            place.append(np.arange(len(index)))
        found = np.searchsorted(np.concatenate(keys), which[:, None] * q + rows)
        return np.asarray(np.concatenate(place)[found])

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
        out = np.empty_like(data)
        fronts = np.empty(int(self._front_start[-1]))
        for nodes, at in zip(self._groups, self._at, strict=True):
            w, m = int(self._width[nodes[0]]), int(self._n_rows[nodes[0]])
            parent = self._parent[nodes]
            width = self._width[parent] + self._n_rows[parent]
            start = self._front_start[parent]
            SII = np.empty((len(nodes), m, m))
            if m and len(nodes) == 1:
                front = fronts[start[0] : start[0] + width[0] ** 2].reshape(width[0], width[0])
                a, z = int(at[0, 0]), int(at[0, -1]) + 1
                in_one_piece = z - a == m
                SII = front[a:z, a:z] if in_one_piece else front[at[0]].take(at[0], axis=1)
                SII = SII[None]
            elif m:
                rows = start[:, None, None] + at[:, :, None] * width[:, None, None]
                SII = fronts[rows + at[:, None, :]]
            if w > _BATCH_ROWS:
                SJJ, SIJ = self._alone(data, out, int(nodes[0]), SII)
            else:
                SJJ, SIJ = self._together(data, out, nodes, SII)
            for i in np.flatnonzero(self._has_children[nodes]).tolist():
                start = self._front_start[nodes[i]]
                front = fronts[start : start + (w + m) ** 2].reshape(w + m, w + m)
                front[:w, :w] = SJJ[i]
                if m:
                    front[w:, :w] = SIJ[i]
                    front[:w, w:] = SIJ[i].T
                    front[w:, w:] = SII[i]
        return out

    def _together(
        self, data: FloatArray, out: FloatArray, nodes: IntArray, SII: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Write the columns of many small nodes of one shape; returns Σ_JJ and Σ_IJ of each."""
        w, m = int(self._width[nodes[0]]), SII.shape[1]
        # Column c of a node holds w - c entries of its triangle, then its m rows.
        starts = self._indptr[self._first[nodes][:, None] + np.arange(w)]
        LJJ = np.zeros((len(nodes), w, w))
        LIJ = np.empty((len(nodes), m, w))
        for c in range(w):
            column = data[starts[:, c, None] + np.arange(w - c + m)]
            LJJ[:, c:, c] = column[:, : w - c]
            LIJ[:, :, c] = column[:, w - c :]
        inverse = _triangular_inverse(LJJ)
        SJJ = np.matmul(np.swapaxes(inverse, 1, 2), inverse)
        SIJ = LIJ
        if m:
            Y = np.matmul(LIJ, inverse)
            SIJ = -np.matmul(SII, Y)
            SJJ = SJJ - np.matmul(np.swapaxes(Y, 1, 2), SIJ)
        for c in range(w):
            places = starts[:, c, None] + np.arange(w - c + m)
            out[places] = np.concatenate([SJJ[:, c:, c], SIJ[:, :, c]], axis=1)
        return SJJ, SIJ

    def _alone(
        self, data: FloatArray, out: FloatArray, node: int, SII: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The same for one node of many columns."""
        w, m, first = int(self._width[node]), SII.shape[1], int(self._first[node])
        starts = self._indptr[first : first + w + 1].tolist()
        block = np.zeros((w + m, w), order="F")
        for c in range(w):
            block[c:, c] = data[starts[c] : starts[c + 1]]
        LJJ = np.asfortranarray(block[:w])
        SJJ = inverse_from_factor(LJJ)
        SIJ = np.empty((m, w))
        if m:
            Y = solve_triangular(LJJ, block[w:].T, lower=True, transposed=True).T
            SIJ = -SII[0] @ Y
            SJJ -= Y.T @ SIJ
        block[:w], block[w:] = SJJ, SIJ
        for c in range(w):
            out[starts[c] : starts[c + 1]] = block[c:, c]
        return SJJ[None], SIJ[None]


def _triangular_inverse(L: FloatArray) -> FloatArray:
    """Inverse of a stack of lower-triangular matrices, (b, w, w)."""
    if L.shape[1] == 1:
        return 1.0 / L
    out = np.zeros_like(L)
    w = L.shape[1]
    for j in range(w):  # forward substitution on all matrices at once
        out[:, j, j] = 1.0 / L[:, j, j]
        if j:
            row = np.matmul(L[:, j, None, :j], out[:, :j, :j])[:, 0, :]
            out[:, j, :j] = -row * out[:, j, j, None]
    return out
