"""Design → the cross-products of [Z X y], the only place where rows, weights and offset are seen.

Everything after this module is independent of the number of rows. Weights enter as W = diag(w), the
offset is subtracted from y; neither appears anywhere else in the engine. X is orthonormalized and y
replaced by its least-squares residual, so that neither the units of a predictor nor a large mean of
the response costs digits; `Basis` carries what is needed to return to the user's units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly, frozen_csr
from lmmsparse.engine.columns import Basis, InternalColumns

_FEW_COLUMNS = 4
_TABLE = 8  # cells per row that are cheaper to number than rows are to sort


@dataclass(frozen=True, eq=False)
class TermColumns(ReadOnly):
    """What the engine needs of one random-effects term.

    Attributes
    ----------
    codes : (n,) int array
        Level of the grouping factor in each row.
    columns : (n, k) array
        The term's model matrix columns.
    n_levels : int
    """

    codes: IntArray
    columns: FloatArray
    n_levels: int

    @property
    def transposed(self) -> sp.csc_array:
        """Z_t', (levels · k, n)."""
        n, k = self.columns.shape
        rows = (self.codes[:, None] * k + np.arange(k)).ravel()
        starts = np.arange(0, n * k + 1, k)
        return sp.csc_array((self.columns.ravel(), rows, starts), shape=(self.n_levels * k, n))


@dataclass(frozen=True, eq=False)
class PairBlocks(ReadOnly):
    """The stored blocks of Z'WZ between two terms s ≥ t (in term order, s below t).

    Attributes
    ----------
    s, t : int
        The terms; s == t holds the levels' own blocks.
    rows, cols : (m,) int arrays
        Level of s and level of t of each block.
    values : (m, k_s, k_t) array
    """

    s: int
    t: int
    rows: IntArray
    cols: IntArray
    values: FloatArray


@dataclass(frozen=True, eq=False)
class CrossProducts(ReadOnly):
    """Z'WZ in blocks, Z'WX and X'WX (X stands for the internal columns, see `Basis`).

    Attributes
    ----------
    pairs : tuple of PairBlocks
        Every pair of terms s ≥ t that is observed.
    ZtX : (q, p) array
    XtX : (p, p) array
    offsets : tuple of int
        First element of b of each term, and q at the end.
    sizes : tuple of int
        Effects per level of each term.
    n : int
        Rows.
    sum_log_weights : float
    basis : Basis
    """

    pairs: tuple[PairBlocks, ...]
    ZtX: FloatArray
    XtX: FloatArray
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    n: int
    sum_log_weights: float
    basis: Basis

    @property
    def q(self) -> int:
        return self.offsets[-1]

    @property
    def p(self) -> int:
        return int(self.XtX.shape[0])

    def coordinates(self, pair: PairBlocks) -> tuple[IntArray, IntArray]:
        """Row and column in Z'WZ of every element of a pair's blocks, each (m, k_s, k_t)."""
        ks, kt = self.sizes[pair.s], self.sizes[pair.t]
        r = self.offsets[pair.s] + pair.rows[:, None] * ks + np.arange(ks)
        c = self.offsets[pair.t] + pair.cols[:, None] * kt + np.arange(kt)
        shape = (len(pair.rows), ks, kt)
        return np.broadcast_to(r[:, :, None], shape), np.broadcast_to(c[:, None, :], shape)

    def times(self, b: FloatArray) -> FloatArray:
        """Z'WZ b for b of shape (q,) or (q, m)."""
        if len(self.sizes) > 1:
            return np.asarray(self.ZtZ @ b)
        k = self.sizes[0]
        by_level = b.reshape(self.q // k, k, -1)
        return np.asarray(np.matmul(self.pairs[0].values, by_level)).reshape(b.shape)

    @cached_property
    def ZtZ(self) -> sp.csr_array:
        """Z'WZ, sparse and symmetric, (q, q)."""
        rows, cols, values = [], [], []
        for pair in self.pairs:
            r, c = self.coordinates(pair)
            rows.append(r.ravel())
            cols.append(c.ravel())
            values.append(pair.values.ravel())
            if pair.s != pair.t:
                rows.append(c.ravel())
                cols.append(r.ravel())
                values.append(pair.values.ravel())
        data = np.concatenate(values)
        coords = (np.concatenate(rows), np.concatenate(cols))
        return frozen_csr(sp.coo_array((data, coords), shape=(self.q, self.q)).tocsr())


@dataclass(frozen=True, eq=False)
class Response(ReadOnly):
    """The cross-products of the least-squares residual e = y − o − X β₀.

    Attributes
    ----------
    Zty : (q,) array
        Z'We.
    Xty : (p,) array
        Q'We, zero up to rounding.
    yty : float
        e'We.
    beta0 : (p,) array
        The least-squares coefficients, in internal coordinates: β = R⁻¹ (β₀ + internal β).
    """

    Zty: FloatArray
    Xty: FloatArray
    yty: float
    beta0: FloatArray


def _pair(terms: Sequence[TermColumns], s: int, t: int, weights: FloatArray | None) -> PairBlocks:
    a, b = terms[s], terms[t]
    ks, kt = a.columns.shape[1], b.columns.shape[1]
    left = a.columns if weights is None else a.columns * weights[:, None]
    if s == t:
        values = np.empty((a.n_levels, ks, kt))
        for i in range(ks):
            for j in range(i + 1):
                product = left[:, i] * b.columns[:, j]
                values[:, i, j] = np.bincount(a.codes, product, minlength=a.n_levels)
                values[:, j, i] = values[:, i, j]
        levels = np.arange(a.n_levels)
        return PairBlocks(s, t, levels, levels, values)
    rows, cols, place = _observed_pairs(a, b)
    values = np.empty((len(rows), ks, kt))
    for i in range(ks):
        for j in range(kt):
            product = left[:, i] * b.columns[:, j]
            values[:, i, j] = np.bincount(place, product, minlength=len(rows))
    return PairBlocks(s, t, rows, cols, values)


def _observed_pairs(a: TermColumns, b: TermColumns) -> tuple[IntArray, IntArray, IntArray]:
    """The pairs of levels that are observed, in sorted order, and the pair of each row."""
    n, pairs = len(a.codes), a.n_levels * b.n_levels
    if pairs <= _TABLE * n:
        key = a.codes * b.n_levels + b.codes
        found = np.flatnonzero(np.bincount(key, minlength=pairs))
        numbers = np.empty(pairs, dtype=np.intp)
        numbers[found] = np.arange(len(found))
        rows, cols = np.divmod(found, b.n_levels)
        return rows, cols, numbers[key]
    order = _by_level(b.codes, b.n_levels)
    order = order[_by_level(a.codes[order], a.n_levels)]
    row, col = a.codes[order], b.codes[order]
    new = np.ones(n, dtype=bool)
    new[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
    place = np.empty(n, dtype=np.intp)
    place[order] = np.cumsum(new) - 1
    return row[new], col[new], place


def _by_level(codes: IntArray, n_levels: int) -> IntArray:
    """The rows of each level after those of the level before: a stable sort in linear time."""
    n = len(codes)
    by_row = sp.csc_array((np.ones(n, dtype=bool), codes, np.arange(n + 1)), shape=(n_levels, n))
    return np.asarray(by_row.tocsr().indices, dtype=np.intp)


def _grouped(term: TermColumns, Q: InternalColumns, WX: FloatArray | sp.csr_array) -> FloatArray:
    """Z_t'WQ, (levels · k, p)."""
    if isinstance(WX, np.ndarray):
        return _times(term, WX)
    return Q.over_root((term.transposed @ WX).toarray())


def _times(term: TermColumns, matrix: FloatArray) -> FloatArray:
    """Z_t' times a dense (n, m) matrix: (levels · k, m)."""
    k, m = term.columns.shape[1], matrix.shape[1]
    if m > _FEW_COLUMNS:
        return np.asarray(term.transposed @ np.ascontiguousarray(matrix))
    out = np.empty((term.n_levels, k, m))
    for i in range(k):
        for j in range(m):
            product = term.columns[:, i] * matrix[:, j]
            out[:, i, j] = np.bincount(term.codes, product, minlength=term.n_levels)
    return out.reshape(term.n_levels * k, m)


def cross_products(
    Q: InternalColumns,
    basis: Basis,
    terms: Sequence[TermColumns],
    weights: FloatArray | None = None,
) -> CrossProducts:
    """Form Z'WZ (observed blocks only), Z'WQ and Q'WQ in one pass over the rows.

    Parameters
    ----------
    Q : InternalColumns
        From `orthonormal`.
    basis : Basis
    terms : sequence of TermColumns
    weights : (n,) array, optional
        Prior weights, all positive; 1 if not given.
    """
    WX = Q.weighted(weights)
    sizes = tuple(term.columns.shape[1] for term in terms)
    lengths = [k * term.n_levels for k, term in zip(sizes, terms, strict=True)]
    return CrossProducts(
        pairs=tuple(_pair(terms, s, t, weights) for s in range(len(terms)) for t in range(s + 1)),
        ZtX=np.concatenate([_grouped(term, Q, WX) for term in terms]),
        XtX=Q.gram(WX),
        offsets=tuple(int(v) for v in np.cumsum([0, *lengths])),
        sizes=sizes,
        n=Q.X.shape[0],
        sum_log_weights=0.0 if weights is None else float(np.log(weights).sum()),
        basis=basis,
    )


def response_products(
    y: FloatArray,
    Q: InternalColumns,
    terms: Sequence[TermColumns],
    weights: FloatArray | None = None,
    offset: FloatArray | None = None,
) -> Response:
    """Form the cross-products that involve the response.

    Parameters
    ----------
    y : (n,) array
    Q : InternalColumns
        Orthonormal under the weights.
    terms : sequence of TermColumns
    weights, offset : (n,) arrays, optional
    """
    residual = y if offset is None else y - offset
    beta0 = np.zeros(Q.p)
    for _ in range(2):  # the second pass removes what rounding left of the first
        step = Q.transposed_times(residual if weights is None else residual * weights)
        residual = residual - Q.times(step)
        beta0 = beta0 + step
    weighted = residual if weights is None else residual * weights
    Zty = np.concatenate([_times(term, weighted[:, None])[:, 0] for term in terms])
    Xty = Q.transposed_times(weighted)
    return Response(Zty=Zty, Xty=Xty, yty=float(residual @ weighted), beta0=beta0)
