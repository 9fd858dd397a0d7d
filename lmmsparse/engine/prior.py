"""Known covariances of the levels of grouping factors, as the engine needs them: Q and A = Q⁻¹.

The random effects of a term are b = (I ⊗ T)u with u ~ N(0, σ² A ⊗ I). Q takes the place of the
identity in M = Λ'Z'WZΛ + Q ⊗ I, and Λ'Z'V⁻¹(y − Xβ) is (Q ⊗ I)u.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray


class Prior(Protocol):
    """The covariance A of the levels of one factor, up to a variance, and its inverse Q.

    Attributes
    ----------
    precision : (levels, levels) csc_array
        Q, symmetric, with its whole diagonal stored.
    logdet : float
        log|Q|.
    variances : (levels,) array
        The diagonal of A.
    """

    @property
    def precision(self) -> sp.csc_array: ...
    @property
    def logdet(self) -> float: ...
    @property
    def variances(self) -> FloatArray: ...
    def times(self, B: FloatArray) -> FloatArray:
        """Q B for B of shape (levels, m)."""
        ...

    def solve(self, B: FloatArray) -> FloatArray:
        """A B."""
        ...

    def root(self, B: FloatArray) -> FloatArray:
        """R B for some R with RR' = A."""
        ...

    def root_transposed(self, B: FloatArray) -> FloatArray:
        """R' B."""
        ...


class Priors:
    """Q ⊗ I of all terms: the identity where nothing is known.

    Parameters
    ----------
    own : sequence of Prior or None
        Per term.
    offsets : sequence of int
        First element of b of each term, and q at the end.
    sizes : sequence of int
        Effects per level of each term.
    """

    def __init__(
        self, own: Sequence[Prior | None], offsets: Sequence[int], sizes: Sequence[int]
    ) -> None:
        self._terms = [
            (prior, a, z, k)
            for prior, (a, z), k in zip(own, pairwise(offsets), sizes, strict=True)
            if prior is not None
        ]

    @cached_property
    def logdet(self) -> float:
        """Of Q ⊗ I: log|Q ⊗ I|."""
        return sum(k * prior.logdet for prior, _, _, k in self._terms)

    def times(self, b: FloatArray) -> FloatArray:
        """Q b for b of shape (q,) or (q, m)."""
        return self._each(b, [prior.times for prior, *_ in self._terms])

    def solve(self, b: FloatArray) -> FloatArray:
        """Q⁻¹ b."""
        return self._each(b, [prior.solve for prior, *_ in self._terms])

    def root(self, b: FloatArray) -> FloatArray:
        """R b with RR' = Q⁻¹."""
        return self._each(b, [prior.root for prior, *_ in self._terms])

    def root_transposed(self, b: FloatArray) -> FloatArray:
        """R' b."""
        return self._each(b, [prior.root_transposed for prior, *_ in self._terms])

    def square(self, u: FloatArray) -> float:
        """The penalty u'Qu."""
        return float(u @ self.times(u))

    def _each(
        self, b: FloatArray, maps: Sequence[Callable[[FloatArray], FloatArray]]
    ) -> FloatArray:
        if not maps:
            return b
        out = b.copy()
        for (_, a, z, k), of_levels in zip(self._terms, maps, strict=True):
            part = b[a:z].reshape((z - a) // k, -1)
            out[a:z] = of_levels(part).reshape(out[a:z].shape)
        return out

    def diagonal(self, q: int) -> FloatArray:
        """The diagonal of Q, (q,)."""
        out = np.ones(q)
        for prior, a, z, k in self._terms:
            out[a:z] = np.repeat(prior.precision.diagonal(), k)
        return out

    def below(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Rows, columns and values of the elements of Q below its diagonal."""
        rows, cols, values = [], [], []
        for prior, a, _, k in self._terms:
            lower = sp.tril(prior.precision, -1).tocoo()
            for i in range(k):
                rows.append(a + lower.row.astype(np.intp) * k + i)
                cols.append(a + lower.col.astype(np.intp) * k + i)
                values.append(lower.data)
        if not rows:
            return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), np.zeros(0)
        return np.concatenate(rows), np.concatenate(cols), np.concatenate(values)

    def dense(self, q: int) -> FloatArray:
        """Q, (q, q)."""
        return np.asarray(self.times(np.eye(q)))
