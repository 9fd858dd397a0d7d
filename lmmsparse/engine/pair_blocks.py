"""The blocks of Z'WZ between two terms: summed from rows, and multiplied from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly, is_ones
from lmmsparse.engine.pairs import (
    PairPattern,
    TermColumns,
    counted_pairs,
    one_known_factor,
    pair_pattern,
)

AT_ONCE = 8_000_000  # numbers of blocks that may be copied


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


def _blocks(
    terms: Sequence[TermColumns], pair: PairPattern, weights: FloatArray | None
) -> PairBlocks:
    """The numbers of a pair: one sum over the rows per element of a block."""
    a, b = terms[pair.s], terms[pair.t]
    own, m = pair.s == pair.t, len(pair.rows)
    left = a.columns if weights is None else a.columns * weights[:, None]
    place = pair.place.astype(np.intp, copy=False)
    values = np.empty((m, a.columns.shape[1], b.columns.shape[1]))
    for i in range(values.shape[1]):
        for j in range(i + 1 if own else values.shape[2]):
            product = left[:, i] * b.columns[:, j]
            values[:, i, j] = np.bincount(place, product, minlength=m)
            if own:
                values[:, j, i] = values[:, i, j]
    return PairBlocks(pair.s, pair.t, pair.rows, pair.cols, values)


def _counts(terms: Sequence[TermColumns], s: int, t: int) -> PairBlocks:
    """The blocks between two columns of ones; where each is one, in the memory of one number."""
    a, b = terms[s], terms[t]
    if s == t or one_known_factor(a, b):
        rows = cols = np.arange(a.n_levels, dtype=a.codes.dtype)
        count = np.bincount(a.codes, minlength=a.n_levels)
    else:
        rows, cols, count = counted_pairs(a, b)
    m = len(rows)
    if m and m == len(a.codes) and count.all():
        return PairBlocks(s, t, rows, cols, np.broadcast_to(np.ones((1, 1, 1)), (m, 1, 1)))
    return PairBlocks(s, t, rows, cols, count.astype(np.float64)[:, None, None])


def all_blocks(
    terms: Sequence[TermColumns],
    weights: FloatArray | None,
    pairs: Iterable[PairPattern] | None,
) -> Iterator[PairBlocks]:
    """Of every s ≥ t, one after the other."""
    if pairs is not None:
        yield from (_blocks(terms, pair, weights) for pair in pairs)
        return
    ones = [weights is None and is_ones(term.columns) for term in terms]
    for s in range(len(terms)):
        for t in range(s + 1):
            if ones[s] and ones[t]:
                yield _counts(terms, s, t)
            else:
                yield _blocks(terms, pair_pattern(terms, s, t), weights)


def add_product(
    pair: PairBlocks,
    left: FloatArray,
    right: FloatArray,
    above: FloatArray,
    below: FloatArray,
) -> None:
    """Above += B right and, of two terms, below += B'left, with B the pair's blocks.

    Parameters
    ----------
    left, above : (levels, k_s, m) arrays
        By the levels of the first term.
    right, below : (levels, k_t, m) arrays
        By those of the second.
    """
    if len(left) == len(right) == len(pair.rows) and np.array_equal(pair.rows, pair.cols):
        above += np.matmul(pair.values, right)
        if pair.s != pair.t:
            below += np.matmul(pair.values.swapaxes(1, 2), left)
        return
    for levels, part, starts in _parts_by_row(pair, len(left)):
        shape = (levels.stop - levels.start, len(right))
        for i, j in np.ndindex(*pair.values.shape[1:]):
            numbers = np.ascontiguousarray(pair.values[part, i, j])
            A = sp.csr_array((numbers, pair.cols[part], starts), shape=shape)
            above[levels, i] += A @ right[:, j]
            below[:, j] += A.T @ left[levels, i]


def _parts_by_row(pair: PairBlocks, n_rows: int) -> Iterator[tuple[slice, slice, IntArray]]:
    """Levels of the first term, their blocks, and where those of each begin, part by part."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(pair.rows, minlength=n_rows))])
    a = 0
    while a < n_rows:
        z = int(np.searchsorted(starts, starts[a] + AT_ONCE // 4, side="right")) - 1
        z = min(max(z, a + 1), n_rows)
        own = (starts[a : z + 1] - starts[a]).astype(pair.cols.dtype)
        yield slice(a, z), slice(int(starts[a]), int(starts[z])), own
        a = z
