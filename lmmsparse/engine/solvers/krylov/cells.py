"""Cross-products → Z'WZ by levels of the largest factor, in pieces that are multiplied from.

The levels of the largest factor are the rows, the random effects of the others (the core) the
columns. What meets is stored once and read in both directions. Vectors of the core stand effect by
effect: all levels of the first effect of the first term, then all of its second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray, is_ones
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.products import CrossProducts, side_by_side

_ROWS = 8192
_CELLS = 16  # a piece has so many times as many cells as there are effects in the core


def mix(F: FloatArray, y: FloatArray) -> FloatArray:
    """F y for every level: (k, k, levels) or (k, k) times (k, levels, m)."""
    if F.ndim == 2:
        k, levels, m = y.shape
        return np.asarray(y * F[0, 0] if k == 1 else (F @ y.reshape(k, -1)).reshape(k, levels, m))
    out = F[:, 0, :, None] * y[0]
    for i in range(1, len(y)):
        out += F[:, i, :, None] * y[i]
    return np.asarray(out)


@dataclass(frozen=True, eq=False)
class CoreTerm:
    """A term of the core.

    Attributes
    ----------
    number : int
        Its place among all terms.
    k, n_levels, start : int
        Effects per level, levels, and where it begins in a vector of the core.
    own : (k, k, levels) array
        Z'WZ of every level.
    """

    number: int
    k: int
    n_levels: int
    start: int
    own: FloatArray

    @property
    def part(self) -> slice:
        return slice(self.start, self.start + self.k * self.n_levels)

    def of(self, y: FloatArray) -> FloatArray:
        """Its part of a vector of the core, (core, m) → (k, levels, m)."""
        return y[self.part].reshape(self.k, self.n_levels, y.shape[1])


class Piece:
    """Some levels of the largest factor and all that they meet.

    Parameters
    ----------
    ones : array
        As many as there are cells at least; pieces share them.

    Attributes
    ----------
    rows : slice
        Its levels.
    """

    def __init__(
        self, rows: slice, terms: Sequence[CoreTerm], tables: Sequence[_Table], ones: FloatArray
    ) -> None:
        self.rows, self._terms = rows, terms
        self._blocks: list[list[list[sp.csr_array]]] = []
        for term, table in zip(terms, tables, strict=True):
            a, z = int(table.starts[rows.start]), int(table.starts[rows.stop])
            starts = table.starts[rows.start : rows.stop + 1] - table.starts[rows.start]
            shape = (rows.stop - rows.start, term.n_levels)

            def of(values: FloatArray | None, a: int = a, z: int = z) -> FloatArray:
                return ones[: z - a] if values is None else values[a:z]

            self._blocks.append(
                [
                    [sp.csr_array((of(d), table.columns[a:z], starts), shape=shape) for d in own]
                    for own in table.values
                ]
            )
        self._turned = [[[b.T for b in own] for own in of_term] for of_term in self._blocks]
        self._width = len(self._blocks[0])

    def down(self, B: FloatArray) -> FloatArray:
        """Z₁'WZ₂ B of its levels, (width, levels, m)."""
        out = np.empty((self._width, self.rows.stop - self.rows.start, B.shape[1]))
        for e in range(self._width):
            parts = (
                block @ part
                for term, of_term in zip(self._terms, self._blocks, strict=True)
                for block, part in zip(of_term[e], term.of(B), strict=True)
            )
            out[e] = next(parts)
            for part in parts:
                out[e] += part
        return out

    def up(self, V: FloatArray, out: FloatArray) -> None:
        """Out −= Z₂'WZ₁ V with the V of its levels."""
        for term, of_term in zip(self._terms, self._turned, strict=True):
            into = term.of(out)
            for e in range(self._width):
                for j, block in enumerate(of_term[e]):
                    into[j] -= block @ V[e]

    def subtract_own(self, H: FloatArray, out: Sequence[FloatArray]) -> None:
        """Out −= Σ Z₂'WZ₁ H Z₁'WZ₂ over its levels, the blocks of the core's own levels."""
        for of_term, into in zip(self._blocks, out, strict=True):
            for j in range(len(into)):
                for i in range(j + 1):
                    total = 0.0
                    for e in range(self._width):
                        for f in range(self._width):
                            both = _times(of_term[e][i], of_term[f][j])
                            total = total + both.T @ H[e, f]
                    into[i, j] -= total
                    if i != j:
                        into[j, i] = into[i, j]

    def add_inner(self, J: Sequence[FloatArray], out: FloatArray) -> None:
        """Out += Σ Z₁'WZ₂ J Z₂'WZ₁ over the core's levels, (width, width, levels)."""
        for of_term, own in zip(self._blocks, J, strict=True):
            for e in range(self._width):
                for f in range(e + 1):
                    total = np.zeros(out.shape[2])
                    for i in range(len(own)):
                        for j in range(len(own)):
                            total += _times(of_term[e][i], of_term[f][j]) @ own[i, j]
                    out[e, f] += total
                    if e != f:
                        out[f, e] += total


def _times(a: sp.csr_array, b: sp.csr_array) -> sp.csr_array:
    """The elementwise product of two arrays of one pattern."""
    return sp.csr_array((a.data * b.data, a.indices, a.indptr), shape=a.shape)


@dataclass(frozen=True, eq=False)
class _Table:
    """What the largest factor's levels share with one term of the core, in compressed rows.

    Attributes
    ----------
    values : list of lists of (m,) arrays
        By effect of the largest factor and effect of the core term; None for ones.
    """

    starts: IntArray
    columns: IntArray
    values: list[list[FloatArray | None]]


class Cells:
    """Z'WZ, arranged for elimination of the largest factor.

    Attributes
    ----------
    lead : tuple of int
        The terms of the largest factor, which is eliminated.
    parts : dict of int to slice
        Where the effects of each of these stand among the `width` of a level.
    own : (width, width, levels) array
        Z'WZ of every eliminated level.
    terms : tuple of CoreTerm
    """

    def __init__(self, products: CrossProducts) -> None:
        self._products = products
        self.lead, self.n_levels = products.lead, products.n_levels[0]
        ends = np.cumsum([0, *(products.sizes[t] for t in self.lead)]).tolist()
        self.width = int(ends[-1])
        self.parts = {t: slice(ends[i], ends[i + 1]) for i, t in enumerate(self.lead)}
        own = side_by_side(products, products.blocks, self.lead)
        self.own = np.ascontiguousarray(own.transpose(1, 2, 0))
        diagonal = {pair.s: pair for pair in products.pairs if pair.s == pair.t}
        terms, start = [], 0
        for t in range(len(products.sizes)):
            if t not in self.parts:
                values = np.ascontiguousarray(diagonal[t].values.transpose(1, 2, 0))
                k, n = products.sizes[t], products.n_levels[t]
                terms.append(CoreTerm(t, k, n, start, values))
                start += k * n
        self.terms, self.n_core = tuple(terms), start
        tables = [self._table(term) for term in terms]
        self.n_cells = sum(len(table.columns) for table in tables)
        total = np.asarray(np.sum([table.starts for table in tables], axis=0, dtype=np.int64))
        parts = _pieces(total, self.n_core)
        ones = np.ones(max((int(total[p.stop] - total[p.start]) for p in parts), default=0))
        self.pieces = [Piece(rows, terms, tables, ones) for rows in parts]

    def _table(self, term: CoreTerm) -> _Table:
        found: _Table | None = None
        for pair in self._products.pairs:
            if term.number not in (pair.s, pair.t) or pair.s == pair.t:
                continue
            other = pair.t if pair.s == term.number else pair.s
            if other not in self.parts:
                continue
            table = _by_level(pair, pair.s == term.number, self.n_levels, term.n_levels)
            if found is None:
                found = table
            else:
                found.values.extend(table.values)
        assert found is not None
        return found

    @cached_property
    def _among_core(self) -> list[tuple[CoreTerm, CoreTerm, list[list[sp.csr_array]]]]:
        """Pairs of terms of the core, by effect of the one and of the other."""
        by_number, out = {term.number: term for term in self.terms}, []
        for pair in self._products.pairs:
            if pair.s == pair.t or pair.s not in by_number or pair.t not in by_number:
                continue
            a, b = by_number[pair.s], by_number[pair.t]
            table = _by_level(pair, False, a.n_levels, b.n_levels)
            shape = (a.n_levels, b.n_levels)
            ones = np.ones(len(table.columns))
            blocks = [
                [
                    sp.csr_array((ones if d is None else d, table.columns, table.starts), shape)
                    for d in own
                ]
                for own in table.values
            ]
            out.append((a, b, blocks))
        return out

    def among_core(self, B: FloatArray) -> FloatArray:
        """Z₂'WZ₂ B, (core, m)."""
        out = np.empty_like(B)
        for term in self.terms:
            term.of(out)[:] = mix(term.own, term.of(B))
        for a, b, blocks in self._among_core:
            for i, of_effect in enumerate(blocks):
                for j, block in enumerate(of_effect):
                    a.of(out)[i] += block @ b.of(B)[j]
                    b.of(out)[j] += block.T @ a.of(B)[i]
        return out

    def complement(self, H: FloatArray, B: FloatArray) -> FloatArray:
        """(Z₂'WZ₂ − Z₂'WZ₁ H Z₁'WZ₂) B, (core, m).

        Parameters
        ----------
        H : (width, width, levels) array
        """
        out = self.among_core(B)
        for piece in self.pieces:
            piece.up(mix(H[:, :, piece.rows], piece.down(B)), out)
        return out

    def complement_own(self, H: FloatArray) -> list[FloatArray]:
        """The blocks of the same matrix that belong to one level of one term, (k, k, levels)."""
        out = [term.own.copy() for term in self.terms]
        for piece in self.pieces:
            piece.subtract_own(H[:, :, piece.rows], out)
        return out

    def inner(self, J: Sequence[FloatArray]) -> FloatArray:
        """The eliminated levels' own blocks of Z₁'WZ₂ J Z₂'WZ₁, (width, width, levels).

        Parameters
        ----------
        J : sequence of (k, k, levels) arrays
            Block diagonal, by term of the core.
        """
        out = np.zeros((self.width, self.width, self.n_levels))
        for piece in self.pieces:
            piece.add_inner(J, out[:, :, piece.rows])
        return out

    def down(self, B: FloatArray) -> FloatArray:
        """Z₁'WZ₂ B, (width, levels, m)."""
        out = np.empty((self.width, self.n_levels, B.shape[1]))
        for piece in self.pieces:
            out[:, piece.rows] = piece.down(B)
        return out

    def up(self, V: FloatArray) -> FloatArray:
        """−Z₂'WZ₁ V, (core, m)."""
        out = np.zeros((self.n_core, V.shape[2]))
        for piece in self.pieces:
            piece.up(V[:, piece.rows], out)
        return out

    def split(self, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(q, m), by term and level → (width, levels, m) and (core, m)."""
        offsets, m = self._products.offsets, b.shape[1]
        lead = np.empty((self.width, self.n_levels, m))
        for t, part in self.parts.items():
            own = b[offsets[t] : offsets[t + 1]].reshape(self.n_levels, -1, m)
            lead[part] = own.transpose(1, 0, 2)
        core = np.empty((self.n_core, m))
        for term in self.terms:
            t = term.number
            own = b[offsets[t] : offsets[t + 1]].reshape(term.n_levels, term.k, m)
            term.of(core)[:] = own.transpose(1, 0, 2)
        return lead, core

    def join(self, lead: FloatArray, core: FloatArray) -> FloatArray:
        """The inverse of `split`."""
        offsets, m = self._products.offsets, core.shape[1]
        out = np.empty((self._products.q, m))
        for t, part in self.parts.items():
            into = out[offsets[t] : offsets[t + 1]].reshape(self.n_levels, -1, m)
            into[:] = lead[part].transpose(1, 0, 2)
        for term in self.terms:
            t = term.number
            into = out[offsets[t] : offsets[t + 1]].reshape(term.n_levels, term.k, m)
            into[:] = term.of(core).transpose(1, 0, 2)
        return out

    def times(self, b: FloatArray) -> FloatArray:
        """Z'WZ b for b of shape (q, m)."""
        lead, core = self.split(b)
        below = self.among_core(core) - self.up(lead)
        return self.join(mix(self.own, lead) + self.down(core), below)


def _pieces(starts: IntArray, n_core: int) -> list[slice]:
    """Runs of levels with enough cells to be worth a pass over the core."""
    n_levels = len(starts) - 1
    per_level = max(1.0, float(starts[-1]) / n_levels)
    size = int(max(_ROWS, _CELLS * n_core / per_level))
    size = -(-n_levels // max(1, n_levels // size))
    return [slice(a, min(n_levels, a + size)) for a in range(0, n_levels, size)]


def _by_level(pair: PairBlocks, other: bool, n_rows: int, n_columns: int) -> _Table:
    """A pair's blocks in compressed rows by one of its terms.

    Parameters
    ----------
    other : bool
        By the levels of its second term, rather than of its first.
    """
    m, ones = len(pair.rows), is_ones(pair.values)
    kind: Any = np.int32 if m < 2**31 else np.int64
    columns = pair.cols.astype(kind, copy=False)
    counts = np.bincount(pair.rows, minlength=n_columns if other else n_rows)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(kind)
    if not other:
        own = pair.values.transpose(1, 2, 0)
        values = [[None if ones else np.ascontiguousarray(v) for v in row] for row in own]
        return _Table(starts, columns, values)
    order = np.ones(m, dtype=bool) if ones else np.arange(m, dtype=kind)
    turned = sp.csr_array((order, columns, starts), shape=(n_columns, n_rows)).tocsc()
    own = pair.values.transpose(2, 1, 0)
    values = [[None if ones else v[turned.data] for v in row] for row in own]
    return _Table(turned.indptr, turned.indices, values)
