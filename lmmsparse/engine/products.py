"""Design → the cross-products of [Z X y], the only place where rows, weights and offset are seen.

Everything after this module is independent of the number of rows. Weights and offset appear nowhere
else in the engine. X is orthonormalized and y replaced by its least-squares residual, so that
neither units nor large means cost digits; `Basis` carries the way back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly, frozen, frozen_csr, is_ones
from lmmsparse.engine.columns import Basis, InternalColumns
from lmmsparse.engine.pair_blocks import AT_ONCE, PairBlocks, add_product, all_blocks
from lmmsparse.engine.pairs import PairPattern, TermColumns, pair_patterns
from lmmsparse.engine.prior import Prior, Priors

_FEW_COLUMNS = 4
_DENSE_UP_TO = 200  # random effects


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
    priors : tuple of Prior or None
        Known covariances of the levels, by term; empty where there are none.
    """

    pairs: tuple[PairBlocks, ...]
    ZtX: FloatArray
    XtX: FloatArray
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    n: int
    sum_log_weights: float
    basis: Basis
    priors: tuple[Prior | None, ...] = ()

    @cached_property
    def prior(self) -> Priors:
        """Q, the prior precision of the random effects: the identity where none is known."""
        return Priors(self._known, self.offsets, self.sizes)

    @property
    def _known(self) -> tuple[Prior | None, ...]:
        return self.priors or (None,) * len(self.sizes)

    def with_blocks(self, pairs: tuple[PairBlocks, ...]) -> CrossProducts:
        """The same with other numbers in Z'WZ."""
        return CrossProducts(
            pairs, self.ZtX, self.XtX, self.offsets, self.sizes, self.n, self.sum_log_weights,
            self.basis, self.priors,
        )  # fmt: skip

    @property
    def blocks(self) -> list[FloatArray]:
        """Those of every pair, (m, k_s, k_t) each."""
        return [pair.values for pair in self.pairs]

    @property
    def q(self) -> int:
        return self.offsets[-1]

    @property
    def p(self) -> int:
        return int(self.XtX.shape[0])

    def df(self, reml: bool) -> int:
        """N for ML, n − p for REML: what r² is divided by to give σ²."""
        return self.n - (self.p if reml else 0)

    @cached_property
    def n_levels(self) -> tuple[int, ...]:
        """Levels of each term."""
        ends = pairwise(self.offsets)
        return tuple((z - a) // k for (a, z), k in zip(ends, self.sizes, strict=True))

    @cached_property
    def lead(self) -> tuple[int, ...]:
        """The terms of the factor with the most levels: the first, and all that pair with it."""
        if not self.sizes or self._known[0] is not None:  # M has elements between its levels
            return ()
        own = self.n_levels[0]
        with_the_first = (
            pair.s
            for pair in self.pairs
            if pair.t == 0 < pair.s
            and self._known[pair.s] is None
            and own == len(pair.rows) == self.n_levels[pair.s]
            and np.array_equal(pair.rows, pair.cols)
        )
        return (0, *with_the_first)

    @property
    def core(self) -> int:
        """Random effects of the other factors: what is left when the lead is eliminated."""
        return self.q - sum(self.n_levels[t] * self.sizes[t] for t in self.lead)

    @property
    def one_factor(self) -> bool:
        """Whether all terms share one grouping factor."""
        return len(self.lead) == len(self.sizes)

    def coordinates(self, pair: PairBlocks) -> tuple[IntArray, IntArray]:
        """Row and column in Z'WZ of every element of a pair's blocks, each (m, k_s, k_t)."""
        ks, kt = self.sizes[pair.s], self.sizes[pair.t]
        r = self.offsets[pair.s] + pair.rows[:, None] * ks + np.arange(ks)
        c = self.offsets[pair.t] + pair.cols[:, None] * kt + np.arange(kt)
        shape = (len(pair.rows), ks, kt)
        return np.broadcast_to(r[:, :, None], shape), np.broadcast_to(c[:, None, :], shape)

    @cached_property
    def grams(self) -> tuple[FloatArray, ...]:
        """Per term the sum of the levels' own blocks, each times its level's prior variance."""
        own = (pair.values for pair in self.pairs if pair.s == pair.t)
        return tuple(
            G.sum(axis=0) if prior is None else np.tensordot(prior.variances, G, axes=1)
            for G, prior in zip(own, self._known, strict=True)
        )

    def times(self, b: FloatArray) -> FloatArray:
        """Z'WZ b for b of shape (q,) or (q, m)."""
        if len(self.sizes) != 1:
            if self.q <= _DENSE_UP_TO:
                return np.asarray(self.dense @ b)
            if sum(pair.values.size for pair in self.pairs) <= AT_ONCE:
                return np.asarray(self.ZtZ @ b)
            return self._times_by_pairs(b.reshape(self.q, -1)).reshape(b.shape)
        k = self.sizes[0]
        by_level = b.reshape(self.q // k, k, -1)
        return np.asarray(np.matmul(self.pairs[0].values, by_level)).reshape(b.shape)

    def _times_by_pairs(self, b: FloatArray) -> FloatArray:
        """The same without Z'WZ, which would take several times the memory of its blocks."""
        out = np.zeros_like(b)

        def of(x: FloatArray, t: int) -> FloatArray:
            part = x[self.offsets[t] : self.offsets[t + 1]]
            return part.reshape(self.n_levels[t], self.sizes[t], x.shape[1])

        for pair in self.pairs:
            s, t = pair.s, pair.t
            add_product(pair, of(b, s), of(b, t), of(out, s), of(out, t))
        return out

    @cached_property
    def dense(self) -> FloatArray:
        """Z'WZ as a dense matrix, (q, q)."""
        out = np.zeros((self.q, self.q))
        for pair in self.pairs:
            ks, kt = self.sizes[pair.s], self.sizes[pair.t]
            r = (self.offsets[pair.s] + pair.rows[:, None] * ks + np.arange(ks))[:, :, None]
            c = (self.offsets[pair.t] + pair.cols[:, None] * kt + np.arange(kt))[:, None, :]
            out[r, c] = pair.values
            if pair.s != pair.t:
                out[c, r] = pair.values
        return frozen(out)

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
        if not values:
            return frozen_csr(sp.csr_array((0, 0)))
        data = np.concatenate(values)
        coords = (np.concatenate(rows), np.concatenate(cols))
        return frozen_csr(sp.coo_array((data, coords), shape=(self.q, self.q)).tocsr())


def side_by_side(
    products: CrossProducts, blocks: Sequence[FloatArray], terms: Sequence[int] | None = None
) -> FloatArray:
    """Blocks of terms that share a factor, joined level by level: (levels, K, K).

    They are as those of `CrossProducts.pairs`, of all levels or of some.
    """
    terms = range(len(products.sizes)) if terms is None else terms
    ends = np.cumsum([0, *(products.sizes[t] for t in terms)]).tolist()
    part = {t: slice(a, z) for t, (a, z) in zip(terms, pairwise(ends), strict=True)}
    among = [
        (pair, own)
        for pair, own in zip(products.pairs, blocks, strict=True)
        if pair.s in part and pair.t in part
    ]
    out = np.empty((len(among[0][1]), ends[-1], ends[-1]))
    for pair, own in among:
        out[:, part[pair.s], part[pair.t]] = own
        out[:, part[pair.t], part[pair.s]] = np.swapaxes(own, 1, 2)
    return out


def _grouped(term: TermColumns, Q: InternalColumns, WX: FloatArray | sp.csr_array) -> FloatArray:
    """Z_t'WQ, (levels · k, p)."""
    if isinstance(WX, np.ndarray):
        return level_sums(term, WX)
    return Q.over_root((term.transposed @ WX).toarray())


def level_sums(term: TermColumns, matrix: FloatArray) -> FloatArray:
    """Z_t' times a dense (n, m) matrix: (levels · k, m)."""
    k, m = term.columns.shape[1], matrix.shape[1]
    if m > _FEW_COLUMNS:
        return np.asarray(term.transposed @ np.ascontiguousarray(matrix))
    out = np.empty((term.n_levels, k, m))
    codes, ones = term.codes.astype(np.intp, copy=False), is_ones(term.columns)
    for i in range(k):
        for j in range(m):
            product = matrix[:, j] if ones else term.columns[:, i] * matrix[:, j]
            out[:, i, j] = np.bincount(codes, product, minlength=term.n_levels)
    return out.reshape(term.n_levels * k, m)


def grouped_columns(
    terms: Sequence[TermColumns], Q: InternalColumns, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Z'WQ and Q'WQ for weights under which Q is not orthonormal, (q, p) and (p, p)."""
    WX = Q.weighted(weights)
    return np.concatenate([_grouped(term, Q, WX) for term in terms]), Q.gram_anew(WX)


def cross_products(
    Q: InternalColumns,
    basis: Basis,
    terms: Sequence[TermColumns],
    weights: FloatArray | None = None,
    pairs: Iterable[PairPattern] | None = None,
) -> CrossProducts:
    """Form Z'WZ (observed blocks only), Z'WQ and Q'WQ in one pass over the rows.

    Parameters
    ----------
    Q : InternalColumns
        From `orthonormal`.
    weights : (n,) array, optional
        Prior weights, all positive; 1 if not given.
    pairs : iterable of PairPattern, optional
        Of every s ≥ t; found anew, one after the other, if not given.
    """
    WX = Q.weighted(weights)
    sizes = tuple(term.columns.shape[1] for term in terms)
    lengths = [k * term.n_levels for k, term in zip(sizes, terms, strict=True)]
    return CrossProducts(
        pairs=tuple(all_blocks(terms, weights, pairs)),
        ZtX=np.concatenate([_grouped(term, Q, WX) for term in terms]),
        XtX=Q.gram(WX),
        offsets=tuple(accumulate(lengths, initial=0)),
        sizes=sizes,
        n=Q.X.shape[0],
        sum_log_weights=0.0 if weights is None else float(np.log(weights).sum()),
        basis=basis,
        priors=tuple(term.prior for term in terms) if any(term.prior for term in terms) else (),
    )


@dataclass(frozen=True, eq=False)
class Pattern:
    """What of the cross-products does not depend on weights, found once."""

    terms: tuple[TermColumns, ...]
    pairs: tuple[PairPattern, ...]

    def products(
        self, Q: InternalColumns, basis: Basis, weights: FloatArray | None = None
    ) -> CrossProducts:
        """The cross-products for other weights, in one pass over the rows."""
        return cross_products(Q, basis, self.terms, weights, self.pairs)


def pattern_of(terms: Sequence[TermColumns]) -> Pattern:
    """Find which levels meet."""
    return Pattern(tuple(terms), tuple(pair_patterns(terms)))
