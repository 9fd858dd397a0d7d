"""Random-effects terms → which of their levels meet in a row, and where each row is summed.

Weights and responses do not matter here: what is found once holds for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly, compact
from lmmsparse.engine.linalg import chunks
from lmmsparse.engine.prior import Prior

_TABLE = 8  # cells per row that are cheaper to number than rows are to sort
_MOST_CELLS = 2**26  # that are numbered at all, for the memory that this takes


@dataclass(frozen=True, eq=False)
class TermColumns(ReadOnly):
    """What the engine needs of one random-effects term.

    Attributes
    ----------
    codes : (n,) int array
        Level of the grouping factor in each row.
    columns : (n, k) array
        The term's model matrix columns.
    prior : Prior, optional
        The known covariance of the levels.
    """

    codes: IntArray
    columns: FloatArray
    n_levels: int
    prior: Prior | None = None

    @property
    def transposed(self) -> sp.csc_array:
        """Z_t', (levels · k, n)."""
        n, k = self.columns.shape
        rows = (self.codes[:, None] * k + np.arange(k)).ravel()
        starts = np.arange(0, n * k + 1, k)
        return sp.csc_array((self.columns.ravel(), rows, starts), shape=(self.n_levels * k, n))


@dataclass(frozen=True, eq=False)
class PairPattern(ReadOnly):
    """Which levels of two terms s ≥ t (in term order, s below t) meet: the blocks of Z'WZ.

    Attributes
    ----------
    s, t : int
        The terms; s == t holds the levels' own blocks.
    rows, cols : (m,) int arrays
        Level of s and level of t of each block, by s and then t.
    place : (n,) int array
        Block of each row of the data.
    """

    s: int
    t: int
    rows: IntArray
    cols: IntArray
    place: IntArray


def pair_pattern(terms: Sequence[TermColumns], s: int, t: int) -> PairPattern:
    """Which levels of terms s ≥ t meet."""
    if s == t or one_known_factor(terms[s], terms[t]):
        levels = np.arange(terms[s].n_levels)
        return PairPattern(s, t, levels, levels, terms[s].codes)
    return PairPattern(s, t, *_observed_pairs(terms[s], terms[t]))


def one_known_factor(a: TermColumns, b: TermColumns) -> bool:
    """Whether two terms have one factor of known covariance.

    Levels without a row belong to its pattern: M⁻¹ has blocks between their effects.
    """
    return a.prior is not None and a.prior is b.prior and np.array_equal(a.codes, b.codes)


def pair_patterns(terms: Sequence[TermColumns]) -> Iterator[PairPattern]:
    """Of every s ≥ t, one after the other."""
    return (pair_pattern(terms, s, t) for s in range(len(terms)) for t in range(s + 1))


def _observed_pairs(a: TermColumns, b: TermColumns) -> tuple[IntArray, IntArray, IntArray]:
    """The pairs of levels that are observed, in sorted order, and the pair of each row."""
    n, pairs = len(a.codes), a.n_levels * b.n_levels
    if pairs <= min(_TABLE * n, _MOST_CELLS):
        key = a.codes.astype(np.intp) * b.n_levels + b.codes
        there = np.zeros(pairs, dtype=bool)
        there[key] = True
        found = np.flatnonzero(there)
        numbers = np.empty(pairs, dtype=np.int32)
        numbers[found] = np.arange(len(found))
        rows, cols = np.divmod(found, b.n_levels)
        return compact(rows, pairs), compact(cols, pairs), numbers[key]
    order = by_level(b.codes, b.n_levels)
    order = order[by_level(a.codes[order], a.n_levels)]
    row, col = a.codes[order], b.codes[order]
    new = np.ones(n, dtype=bool)
    new[1:] = (row[1:] != row[:-1]) | (col[1:] != col[:-1])
    rows, cols = row[new], col[new]
    del row, col
    number = np.cumsum(new, dtype=order.dtype)
    number -= 1
    place = np.empty_like(order)
    place[order] = number
    return rows, cols, place


def counted_pairs(a: TermColumns, b: TermColumns) -> tuple[IntArray, IntArray, IntArray]:
    """The pairs of levels that are observed, in sorted order, and in how many rows."""
    key = a.codes.astype(np.int64)
    key *= b.n_levels
    key += b.codes
    key.sort()
    new = np.ones(len(key), dtype=bool)
    np.not_equal(key[1:], key[:-1], out=new[1:])
    count = np.diff(np.flatnonzero(new), append=len(key)) if not new.all() else new
    key = key[new] if not new.all() else key
    rows, cols = (np.empty(len(key), dtype=term.codes.dtype) for term in (a, b))
    for part in chunks(len(key), 1):
        rows[part], cols[part] = np.divmod(key[part], b.n_levels)
    return rows, cols, count


def by_level(codes: IntArray, n_levels: int) -> IntArray:
    """The rows of each level after those of the level before: a stable sort in linear time."""
    n = len(codes)
    kind: Any = np.int32 if max(n, n_levels) < 2**31 - 1 else np.intp
    by_row = sp.csc_array(
        (np.ones(n, dtype=bool), codes.astype(kind, copy=False), np.arange(n + 1, dtype=kind)),
        shape=(n_levels, n),
    )
    return np.asarray(by_row.tocsr().indices)
