"""One grouping factor for all terms: what is summed over its rows, and M level by level.

M is block diagonal, and everything about a level is a few numbers. Arrays have the effects of all
terms first and the levels last, (K, levels), so that a step of Newton's method costs some dozen
calls on contiguous arrays, whatever the number of levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.linalg import inverse_factors, small_product
from lmmsparse.engine.pairs import TermColumns

_TOGETHER = 20_000  # numbers up to which one sum costs less than several


class OneFactor:
    """The rows of a model in which all terms share one grouping factor.

    Attributes
    ----------
    codes : (n,) int array
    columns : list of (n,) array or None
        The random-effects columns of all terms side by side, K of them; None: all ones.
    parts : list of slice
        Where each term's stand among them.
    n_levels : int
    """

    def __init__(self, terms: Sequence[TermColumns]) -> None:
        self.codes: IntArray = np.ascontiguousarray(terms[0].codes, dtype=np.intp)
        self.n_levels = terms[0].n_levels
        columns = [column for term in terms for column in np.ascontiguousarray(term.columns.T)]
        self.columns = [None if np.all(column == 1.0) else column for column in columns]
        ends = np.cumsum([0, *(term.columns.shape[1] for term in terms)]).tolist()
        self.parts = [slice(a, z) for a, z in pairwise(ends)]
        self._repeated: dict[int, IntArray] = {}

    @property
    def K(self) -> int:
        """Random effects per level."""
        return len(self.columns)

    def split(self, b: FloatArray) -> FloatArray:
        """(q,), by term and level → (K, levels)."""
        if len(self.parts) == 1:
            return np.ascontiguousarray(b.reshape(self.n_levels, self.K).T)
        ends = [self.n_levels * part.stop for part in self.parts]
        return np.concatenate([own.reshape(self.n_levels, -1).T for own in np.split(b, ends[:-1])])

    def join(self, B: FloatArray) -> FloatArray:
        """The inverse of `split`."""
        if len(self.parts) == 1:
            return np.asarray(B.T.reshape(-1))
        return np.concatenate([B[part].T.ravel() for part in self.parts])

    def side_by_side(self, factors: Sequence[FloatArray]) -> FloatArray:
        """T of every term → the T of all, (K, K); stacks (m, k, k) one after the other."""
        if len(factors) == 1:
            return factors[0]
        out = np.zeros((self.K, self.K))
        for part, own in zip(self.parts, factors, strict=True):
            out[part, part] = own
        return out

    def directions(self, by_term: Sequence[FloatArray]) -> FloatArray:
        """∂T per term, (parameters, k, k) each → of all, (parameters, K, K)."""
        if len(by_term) == 1:
            return by_term[0]
        out = np.zeros((sum(map(len, by_term)), self.K, self.K))
        at = 0
        for part, own in zip(self.parts, by_term, strict=True):
            out[at : at + len(own), part, part] = own
            at += len(own)
        return out

    def spread(self, B: FloatArray) -> FloatArray:
        """Zb for b of every level, (K, …, levels) → (…, n)."""
        out: FloatArray | None = None
        for column, b in zip(self.columns, B, strict=True):
            own = b.take(self.codes, axis=-1)
            if column is not None:
                own *= column
            out = own if out is None else out + own
        assert out is not None
        return out

    def _sums(self, r: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(self.codes, r, self.n_levels), dtype=np.float64)

    def gathered(self, r: FloatArray) -> FloatArray:
        """Z'r, (K, levels)."""
        if len(self.columns) == 1:
            column = self.columns[0]
            return self._sums(r if column is None else r * column)[None]
        out = np.empty((self.K, self.n_levels))
        for own, column in zip(out, self.columns, strict=True):
            own[:] = self._sums(r if column is None else r * column)
        return out

    def crossed(self, w: FloatArray) -> FloatArray:
        """Z'WZ of every level, (K, K, levels)."""
        if len(self.columns) == 1 and self.columns[0] is None:
            return self._sums(w)[None, None]
        out = np.empty((self.K, self.K, self.n_levels))
        for i, one in enumerate(self.columns):
            left = w if one is None else w * one
            for j, other in enumerate(self.columns[: i + 1]):
                both = left if other is None else left * other
                out[i, j] = out[j, i] = self._sums(both)
        return out

    def summed(self, R: FloatArray) -> FloatArray:
        """Every row of R, (m, n), summed over each level: (m, levels)."""
        m = len(R)
        if R.size <= _TOGETHER and m:
            places = self._places(m)
            together = np.bincount(places, R.ravel(), m * self.n_levels)
            return np.asarray(together.reshape(m, self.n_levels), dtype=np.float64)
        out = np.empty((m, self.n_levels))
        for own, row in zip(out, R, strict=True):
            own[:] = self._sums(row)
        return out

    def gathered_rows(self, R: FloatArray) -> FloatArray:
        """Z' of every row of R, (m, n) → (K, m, levels)."""
        return np.stack([self.summed(R if c is None else R * c) for c in self.columns])

    def _places(self, m: int) -> IntArray:
        if m not in self._repeated:
            shift = self.n_levels * np.arange(m)[:, None]
            self._repeated[m] = (self.codes + shift).ravel()
        return self._repeated[m]

    def diagonal(self, S: FloatArray) -> FloatArray:
        """The diagonal of Z S Z' for a symmetric S of every level, (K, K, levels) → (n,)."""
        out: FloatArray | None = None
        for i, one in enumerate(self.columns):
            for j, other in enumerate(self.columns[: i + 1]):
                own = S[i, j].take(self.codes)
                for column in (one, other):
                    if column is not None:
                        own *= column
                if i != j:
                    own *= 2.0
                out = own if out is None else out + own
        assert out is not None
        return out


@dataclass(frozen=True, eq=False)
class AtLevels:
    """M = T'Z'WZT + I of every level, and what stands beside it at a mode.

    Attributes
    ----------
    T : (K, K) array
    A : (K, K, levels) array
        Z'WZ.
    half : (K, K, levels) array
        L⁻¹ with M = LL'; M⁻¹ itself where K = 1.
    logdet : float
        log|M|, not finite where M is not positive definite.
    U, V : (K, levels) arrays
        Spherical random effects, and Z's.
    """

    T: FloatArray
    A: FloatArray
    half: FloatArray
    logdet: float
    U: FloatArray
    V: FloatArray

    @property
    def root(self) -> FloatArray:
        """L⁻¹, (K, K, levels)."""
        return np.sqrt(self.half) if len(self.T) == 1 else self.half

    @cached_property
    def of_M(self) -> FloatArray:
        """M⁻¹, (K, K, levels)."""
        if len(self.T) == 1:
            return self.half
        return small_product(self.half.swapaxes(0, 1), self.half)

    def solve(self, R: FloatArray) -> FloatArray:
        """M⁻¹R for R of every level, (K, levels) or (K, m, levels)."""
        if len(self.T) == 1:
            return np.asarray(self.half[0] * R)
        wide = R[:, None] if R.ndim == 2 else R
        halfway = small_product(self.half, wide)
        return small_product(self.half.swapaxes(0, 1), halfway).reshape(R.shape)


def factored_levels(T: FloatArray, A: FloatArray, U: FloatArray, V: FloatArray) -> AtLevels:
    """Factor T'AT + I of every level."""
    K, levels = U.shape
    if K == 1:
        M = T[0, 0] ** 2 * A
        M += 1.0
        positive = M.min() > 0.0  # not so of a NaN either
        return AtLevels(T, A, 1.0 / M, float(np.log(M).sum()) if positive else np.nan, U, V)
    with np.errstate(all="ignore"):
        # One side after the other: where T is large, both at once would lose digits.
        half = (T.T @ A.reshape(K, K * levels)).reshape(K, K, levels)
        M = np.matmul(T.T, half)
        M.reshape(K * K, levels)[:: K + 1] += 1.0
        inverse, logdets = inverse_factors(M)
    return AtLevels(T, A, inverse, float(logdets.sum()), U, V)


def transformed(T: FloatArray, B: FloatArray) -> FloatArray:
    """T times B of every level, (K, levels) or (K, m, levels)."""
    if len(T) == 1:
        return np.asarray(T[0, 0] * B)
    return np.asarray(T @ B.reshape(len(T), -1)).reshape(B.shape)


def by_column(B: FloatArray) -> FloatArray:
    """(K, m, levels) → (m, K · levels)."""
    return B[0] if len(B) == 1 else B.swapaxes(0, 1).reshape(B.shape[1], B.shape[0] * B.shape[2])
