"""Cross-products → the structural pattern of M(θ) = Λ'Z'WZΛ + Q and the values in it at any θ.

The pattern is structural: every stored block of Z'WZ, all of the prior precision Q (the identity
where no covariance is known) and the whole diagonal, zeros included. It is
never taken from a product computed at some θ, because a sparse product drops zeros, and a pattern
that changes between θ makes a supernodal factorization wrong without an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.linalg import between
from lmmsparse.engine.products import CrossProducts


class MPattern:
    """The lower triangle of M in compressed columns, with a place for every block element.

    Attributes
    ----------
    indptr, indices : int arrays
        Compressed sparse columns of the lower triangle, rows sorted, diagonal always present.
    """

    def __init__(self, products: CrossProducts) -> None:
        self._q = q = products.q
        rows, cols = [], []
        for pair in products.pairs:
            r, c = products.coordinates(pair)
            rows.append(r.ravel())
            cols.append(c.ravel())
        of_blocks = sum(map(len, rows))
        prior_rows, prior_cols, self._prior_values = products.prior.below()
        r, c = np.concatenate([*rows, prior_rows]), np.concatenate([*cols, prior_cols])
        # Within a level's own block only the lower triangle is stored; the term of higher
        # position has the larger indices, so blocks between terms lie below the diagonal.
        low = r >= c
        place = np.arange(1, low.sum() + 1)
        shape = (q, q)
        matrix = sp.csc_array((place, (r[low], c[low])), shape=shape)
        matrix.sort_indices()
        self.indptr: IntArray = matrix.indptr.astype(np.intp)
        self.indices: IntArray = matrix.indices.astype(np.intp)
        slot_of = np.empty(len(place), dtype=np.intp)
        slot_of[matrix.data - 1] = np.arange(len(place))
        slots = np.full(len(r), -1, dtype=np.intp)
        slots[low] = slot_of
        self._slots: list[IntArray] = []
        start = 0
        for pair in products.pairs:
            size = pair.values.size
            block = slots[start : start + size].reshape(pair.values.shape)
            start += size
            if pair.s == pair.t:
                block = np.where(block < 0, np.swapaxes(block, 1, 2), block)
            self._slots.append(block)
        self._diagonal = self.indptr[:-1]
        self._prior_diagonal = products.prior.diagonal(q)
        self._prior_slots = slots[of_blocks:]

    @property
    def nnz(self) -> int:
        return len(self.indices)

    def values(self, products: CrossProducts, factors: Sequence[FloatArray]) -> FloatArray:
        """The lower triangle of M at the given T of each term, aligned with `indices`."""
        data = np.empty(self.nnz)
        data[self._prior_slots] = self._prior_values  # no two levels of one factor share a row
        for pair, slots in zip(products.pairs, self._slots, strict=True):
            Ts, Tt = factors[pair.s], factors[pair.t]
            if pair.values.shape[1:] == (1, 1):
                data[slots] = pair.values * (Ts[0, 0] * Tt[0, 0])
            else:
                data[slots] = between(Ts, pair.values, Tt)
        data[self._diagonal] += self._prior_diagonal
        return data

    def blocks(self, data: FloatArray) -> list[FloatArray]:
        """Values aligned with `indices` → the block arrays of every pair of terms."""
        return [data[slots] for slots in self._slots]

    def matrix(self, data: FloatArray) -> sp.csc_matrix:
        """The lower triangle as a sparse matrix that shares nothing with the pattern."""
        shape = (self._q, self._q)
        return sp.csc_matrix(
            (data, self.indices.astype(np.int32), self.indptr.astype(np.int32)), shape=shape
        )
