"""The sparse border between the eliminated factor and the dense core: fill, Gram matrix, inverse.

Rows are the levels of the eliminated factor (each with `width` random effects), columns the random
effects of the core. The pattern is fixed; only values change with θ.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.linalg import between, small_products, subtract_square
from lmmsparse.engine.products import CrossProducts, PairBlocks

_CHUNK = 100_000
_PANEL = 256
_DENSE_CHUNK = 8_000_000
_MOST_PLACES = 20_000_000
_MOST_MEETINGS = 300_000
_MOSTLY_FILLED = 0.15
_DENSE_UP_TO = 20_000_000
_SMALL = 20_000
_BY_PAIRS_UP_TO = 12
_DENSE_BELOW = 10  # a level that meets this share of the core is handled as if it met all


class Layout(Protocol):
    """What the border needs to know of the system."""

    products: CrossProducts
    lead: tuple[int, ...]
    lead_slice: dict[int, slice]
    core_start: dict[int, int]
    n_levels: int
    n_core: int
    width: int


class Border:
    """M₁₂ in compressed rows by level, and what elimination does with it."""

    def __init__(self, layout: Layout) -> None:
        products = layout.products
        self._layout = layout
        self._between = [
            i
            for i, pair in enumerate(products.pairs)
            if (pair.s in layout.core_start) != (pair.t in layout.core_start)
        ]
        # One entry per (level, core column), ordered by core level; all terms of the eliminated
        # factor share the pattern. Pairs with its first term (always the lower one) give it.
        levels, columns = [], []
        self._shapes: dict[int, tuple[int, int, int]] = {}
        start = 0
        for pair in (products.pairs[i] for i in self._between):
            if pair.t != layout.lead[0]:
                continue
            k = products.sizes[pair.s]
            column = layout.core_start[pair.s] + pair.rows[:, None] * k + np.arange(k)
            levels.append(np.repeat(pair.cols, k))
            columns.append(column.ravel())
            self._shapes[pair.s] = (start, len(pair.rows), k)
            start += column.size
        self.nnz = start
        if not start:
            return
        level_of, column_of = np.concatenate(levels), np.concatenate(columns)
        order = np.lexsort((column_of, level_of))
        self._level: IntArray = level_of[order]
        self._column: IntArray = column_of[order]
        self._place = np.empty(start, dtype=np.intp)
        self._place[order] = np.arange(start)
        counts = np.bincount(self._level, minlength=layout.n_levels)
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.intp)
        self._counts = counts
        w = layout.width
        # Row (level, effect) of Y holds the level's entries once per effect.
        self._indptr = np.concatenate([[0], np.cumsum(np.repeat(counts, w))])
        rows = np.repeat(np.arange(layout.n_levels), counts * w)
        within = np.arange(start * w) - w * self._first[rows]
        self._effect = within // np.maximum(counts[rows], 1)
        self._entry = self._first[rows] + within % np.maximum(counts[rows], 1)
        self._indices = self._column[self._entry]
        cells = layout.n_levels * layout.n_core
        filled = start >= _MOSTLY_FILLED * cells and w * cells <= _DENSE_UP_TO
        self._dense = filled or w * cells <= _SMALL
        self._is_heavy = counts > max(64, layout.n_core // 24)
        self._heavy = np.flatnonzero(self._is_heavy)

    def _core_of(self, pair: PairBlocks) -> tuple[int, bool]:
        core_is_s = pair.s in self._layout.core_start
        return (pair.s, True) if core_is_s else (pair.t, False)

    def _lead_of(self, pair: PairBlocks) -> int:
        return pair.t if pair.s in self._layout.core_start else pair.s

    def _entries(self, products: CrossProducts, T: list[FloatArray]) -> FloatArray:
        """Λ'Z'WZΛ between the two parts: (nnz, width), sorted by level."""
        out = np.empty((self.nnz, self._layout.width))
        for pair in (products.pairs[i] for i in self._between):
            core, lead_is_t = self._core_of(pair)
            start, n, k = self._shapes[core]
            block = between(T[pair.s], pair.values, T[pair.t])
            if not lead_is_t:
                block = np.swapaxes(block, 1, 2)[np.lexsort((pair.rows, pair.cols))]
            at = self._place[start : start + n * k]
            out[at, self._layout.lead_slice[self._lead_of(pair)]] = block.reshape(n * k, -1)
        return out

    def values(
        self, products: CrossProducts, T: list[FloatArray], inverse: FloatArray
    ) -> sp.csr_array | FloatArray:
        """Y = L₁₁⁻¹ M₁₂, (levels · width, core); dense where it is mostly filled."""
        layout = self._layout
        shape = (layout.n_levels * layout.width, layout.n_core)
        if not self.nnz:
            return sp.csr_array(shape)
        M12 = self._entries(products, T)
        if layout.width == 1:
            Y = M12 * inverse[self._level, 0]
        else:
            Y = small_products(inverse[self._level], M12[:, :, None])[:, :, 0]
        if self._dense:
            full = np.zeros((layout.n_levels, layout.width, layout.n_core))
            full[self._level, :, self._column] = Y
            return full.reshape(shape)
        return sp.csr_array((Y[self._entry, self._effect], self._indices, self._indptr), shape)

    def subtract_gram(self, S: FloatArray, Y: sp.csr_array | FloatArray) -> None:
        """S −= Y'Y in place, the lower triangle at least; S stands column by column.

        Levels that meet much of the core go through one dense product; the others contribute one
        small block each, and all blocks are summed in one pass over their fixed places in S.
        """
        if not self.nnz:
            return
        if isinstance(Y, np.ndarray):
            subtract_square(S, Y)
            return
        w = self._layout.width
        for rows in self._rows_of(self._heavy):
            subtract_square(S, Y[rows].toarray())
        if self._places is None:
            light = Y[np.repeat(~self._is_heavy, w)]
            turned = light.T.tocsr()
            for i in range(0, len(S), _PANEL):  # the whole product would be as large as S, or more
                S.T[i : i + _PANEL] -= (turned[i : i + _PANEL] @ light).toarray()
            return
        entries = self._by_entry(Y)
        if self._meetings is not None:
            one, other = self._meetings
            products = entries[:, 0].take(one) * entries[:, 0].take(other)
        else:
            parts = []
            for levels, at in self._batches:
                if self._is_heavy[levels[0]]:
                    continue
                P = entries[at]
                rows, cols = _lower_triangle(at.shape[1])
                parts.append(np.einsum("ltw,ltw->lt", P[:, rows], P[:, cols]).ravel())
            products = np.concatenate(parts) if parts else np.zeros(0)
        if len(self._places):
            summed = np.bincount(self._places, products, minlength=S.size)
            S.T[:] -= summed.reshape(S.shape)

    def _rows_of(self, levels: IntArray) -> list[IntArray]:
        """Rows of Y of some levels, in parts whose dense form stays small."""
        if not len(levels):
            return []
        w = self._layout.width
        parts = max(1, levels.size * w * self._layout.n_core // _DENSE_CHUNK)
        return [
            (part[:, None] * w + np.arange(w)).ravel()
            for part in np.array_split(levels, min(parts, len(levels)))
        ]

    def _by_entry(self, Y: sp.csr_array) -> FloatArray:
        """Y's values with one row per (level, core column), (nnz, width)."""
        if self._layout.width == 1:
            return np.asarray(Y.data[:, None])
        out = np.empty((self.nnz, self._layout.width))
        out[self._entry, self._effect] = Y.data
        return out

    @cached_property
    def _places(self) -> IntArray | None:
        """Where the lower triangles of all light levels' blocks go in S, counted by columns.

        None if they are too many.
        """
        light = self._counts[~self._is_heavy].astype(np.float64)
        if float((light * (light + 1) / 2).sum()) > _MOST_PLACES:
            return None
        places = []
        for levels, at in self._batches:
            if self._is_heavy[levels[0]]:
                continue
            neighbours = self._column[at]
            rows, cols = _lower_triangle(at.shape[1])
            places.append((neighbours[:, cols] * self._layout.n_core + neighbours[:, rows]).ravel())
        return np.concatenate(places) if places else np.zeros(0, dtype=np.intp)

    @cached_property
    def _meetings(self) -> tuple[IntArray, IntArray] | None:
        """The two entries that meet at each of `_places`; None where batches are the faster way."""
        if self._layout.width > 1 or self._places is None or len(self._places) > _MOST_MEETINGS:
            return None
        one, other = [], []
        for levels, at in self._batches:
            if not self._is_heavy[levels[0]]:
                rows, cols = _lower_triangle(at.shape[1])
                one.append(at[:, rows].ravel())
                other.append(at[:, cols].ravel())
        none = np.zeros(0, dtype=np.intp)
        return (np.concatenate(one), np.concatenate(other)) if one else (none, none)

    @cached_property
    def _batches(self) -> list[tuple[IntArray, IntArray]]:
        """Levels with equally many entries, and the places of these, in chunks of one cache."""
        out = []
        order = np.argsort(self._counts, kind="stable").astype(np.intp)
        counts, first = np.unique(self._counts[order], return_index=True)
        for count, levels in zip(counts.tolist(), np.split(order, first[1:]), strict=True):
            size = max(1, _CHUNK // max(1, count * count))
            for i in range(0, len(levels) if count else 0, size):
                part = levels[i : i + size]
                out.append((part, self._first[part][:, None] + np.arange(count)))
        return out

    def inverse(
        self,
        Y: sp.csr_array | FloatArray,
        S22: FloatArray,
        inverse: FloatArray,
        own: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Blocks of M⁻¹: the levels' own (levels, width, width), and the border (nnz, width).

        With P = L₁₁⁻ᵀ Y: Σ₁₁ = M₁₁⁻¹ + P Σ₂₂ P' and Σ₁₂ = −P Σ₂₂, on the pattern only.
        """
        own, w = own.copy(), self._layout.width
        cross = np.empty((self.nnz, w))
        if not self.nnz:
            return own, cross
        if isinstance(Y, np.ndarray):
            full = Y.reshape(self._layout.n_levels, w, -1)
            P = small_products(np.swapaxes(inverse, 1, 2), full)
            W = (P.reshape(Y.shape) @ S22).reshape(P.shape)
            own += np.einsum("lic,ljc->lij", W, P)
            return own, -W[self._level, :, self._column]
        dense = self._counts > max(64, self._layout.n_core // _DENSE_BELOW)
        for rows in self._rows_of(np.flatnonzero(dense)):
            levels = rows[::w] // w
            full = Y[rows].toarray().reshape(len(levels), w, -1)
            P = np.matmul(np.swapaxes(inverse[levels], 1, 2), full)
            W = (P.reshape(len(rows), -1) @ S22).reshape(P.shape)
            own[levels] += np.matmul(W, np.swapaxes(P, 1, 2))
            at = np.concatenate([np.arange(self._first[i], self._first[i + 1]) for i in levels])
            which = np.repeat(np.arange(len(levels)), self._counts[levels])
            cross[at] = -W[which, :, self._column[at]]
        entries, flat, n = self._by_entry(Y), S22.ravel(order="K"), len(S22)  # symmetric
        in_one_go = self._places is not None and self._meetings is not None
        if in_one_go:
            self._invert_meetings(entries, flat, inverse, own, cross)
        for levels, at in self._batches:
            if dense[levels[0]] or (in_one_go and not self._is_heavy[levels[0]]):
                continue
            if w == 1 and at.shape[1] <= _BY_PAIRS_UP_TO:
                P = entries[at.T, 0] * inverse[levels, 0, 0]
                W = _symmetric_product(flat, n, self._column[at.T], P)
                own[levels, 0, 0] += np.einsum("tl,tl->l", P, W)
                cross[at.T, 0] = -W
                continue
            neighbours = self._column[at]
            P = np.matmul(entries[at], inverse[levels])
            W = np.matmul(flat[n * neighbours[:, :, None] + neighbours[:, None, :]], P)
            own[levels] += np.matmul(np.swapaxes(P, 1, 2), W)
            cross[at] = -W
        return own, cross

    def _invert_meetings(
        self,
        entries: FloatArray,
        flat: FloatArray,
        inverse: FloatArray,
        own: FloatArray,
        cross: FloatArray,
    ) -> None:
        """What `inverse` gives for all light levels, from every two entries that meet in one."""
        assert self._places is not None
        assert self._meetings is not None
        one, other = self._meetings
        if not len(one):
            return
        P = entries[:, 0] * inverse[self._level, 0, 0]
        met = flat.take(self._places)
        W = np.bincount(one, met * P.take(other), minlength=self.nnz)
        met[one == other] = 0.0
        W += np.bincount(other, met * P.take(one), minlength=self.nnz)
        light = ~self._is_heavy[self._level]
        cross[light, 0] = -W[light]
        own[:, 0, 0] += np.bincount(self._level, P * W, minlength=len(own))

    def blocks(self, pair: PairBlocks, cross: FloatArray) -> FloatArray:
        """The border's values in the layout of one pair, (m, k_s, k_t)."""
        core, lead_is_t = self._core_of(pair)
        start, n, k = self._shapes[core]
        values = cross[self._place[start : start + n * k]]
        block = values[:, self._layout.lead_slice[self._lead_of(pair)]].reshape(n, k, -1)
        if lead_is_t:
            return block
        out = np.empty((n, block.shape[2], k))
        out[np.lexsort((pair.rows, pair.cols))] = np.swapaxes(block, 1, 2)
        return out


@lru_cache(maxsize=512)
def _lower_triangle(n: int) -> tuple[IntArray, IntArray]:
    rows, cols = np.tril_indices(n)
    return rows, cols


def _symmetric_product(flat: FloatArray, n: int, neighbours: IntArray, P: FloatArray) -> FloatArray:
    """Submatrices of a symmetric (n, n) matrix times vectors, a pair of neighbours at a time.

    Parameters
    ----------
    flat : (n²,) array
    neighbours : (c, levels) int array
        Rows and columns of each level's submatrix.
    P : (c, levels) array
    """
    out = np.zeros_like(P)
    for i, row in enumerate(n * neighbours):
        for j in range(i + 1):
            entry = flat.take(row + neighbours[j])
            out[i] += entry * P[j]
            if i != j:
                out[j] += entry * P[i]
    return out
