"""The sparse border between the eliminated factor and the dense core: fill, Gram matrix, inverse.

Rows are the levels of the eliminated factor (each with `width` random effects), columns the random
effects of the core. The pattern is fixed; only values change with θ.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.linalg import between, chunks, small_products, subtract_square
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.pairs import by_level
from lmmsparse.engine.products import CrossProducts

# L₁₁⁻¹M₁₂: one matrix (levels, core) per effect of the largest factor, all of one pattern; or all
# together, (levels · width, core), where most of it is filled.
BorderRows: TypeAlias = list[sp.csr_array] | FloatArray

_CHUNK = 100_000
_PANEL = 256
_DENSE_CHUNK = 8_000_000
_ENTRIES = 2_000_000
_MOST_PLACES = 20_000_000
_MOST_MEETINGS = 300_000
_HEAVY, _HEAVY_OF_MANY = 24, 16  # a level that meets this share of the core goes the dense way
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
            column = pair.rows[:, None] * k + np.arange(k, dtype=pair.rows.dtype)
            levels.append(np.repeat(pair.cols, k))
            columns.append(column.ravel() + column.dtype.type(layout.core_start[pair.s]))
            self._shapes[pair.s] = (start, len(pair.rows), k)
            start += column.size
        self.nnz = start
        if not start:
            return
        level_of, column_of = np.concatenate(levels), np.concatenate(columns)
        del levels, columns
        order = by_level(level_of, layout.n_levels)  # within a level columns stay in order
        self._level: IntArray = level_of[order]
        self._column: IntArray = column_of[order]
        self._place = np.empty_like(order)
        self._place[order] = np.arange(start, dtype=order.dtype)
        self._counts = np.bincount(self._level, minlength=layout.n_levels)
        self._first = np.concatenate([[0], np.cumsum(self._counts)]).astype(order.dtype)
        w, cells = layout.width, layout.n_levels * layout.n_core
        filled = start >= _MOSTLY_FILLED * cells and w * cells <= _DENSE_UP_TO
        self._dense = filled or w * cells <= _SMALL
        self._is_heavy = self._counts > max(64, layout.n_core // _HEAVY_OF_MANY)
        self._many = self._pairs_of_light > _MOST_PLACES
        if not self._many:
            self._is_heavy = self._counts > max(64, layout.n_core // _HEAVY)
        self._heavy = np.flatnonzero(self._is_heavy)

    def _core_of(self, pair: PairBlocks) -> tuple[int, bool]:
        core_is_s = pair.s in self._layout.core_start
        return (pair.s, True) if core_is_s else (pair.t, False)

    def _lead_of(self, pair: PairBlocks) -> int:
        return pair.t if pair.s in self._layout.core_start else pair.s

    def _entries(self, products: CrossProducts, T: list[FloatArray]) -> FloatArray:
        """Λ'Z'WZΛ between the two parts: (width, nnz), sorted by level."""
        out = np.empty((self._layout.width, self.nnz))
        for pair in (products.pairs[i] for i in self._between):
            core, lead_is_t = self._core_of(pair)
            start, n, k = self._shapes[core]
            into = out[self._layout.lead_slice[self._lead_of(pair)]]
            values = pair.values
            if not lead_is_t:
                values = values[np.lexsort((pair.rows, pair.cols))]
            for part in chunks(n, values.shape[1] * values.shape[2]):
                block = between(T[pair.s], values[part], T[pair.t])
                block = block if lead_is_t else np.swapaxes(block, 1, 2)
                at = self._place[start + part.start * k : start + part.stop * k]
                into[:, at] = block.reshape(len(at), -1).T
        return out

    def values(
        self, products: CrossProducts, T: list[FloatArray], inverse: FloatArray
    ) -> BorderRows:
        """Y = L₁₁⁻¹ M₁₂."""
        layout = self._layout
        levels, w, shape = layout.n_levels, layout.width, (layout.n_levels, layout.n_core)
        if not self.nnz:
            return [sp.csr_array(shape) for _ in range(w)]
        Y = self._entries(products, T)
        for part in chunks(self.nnz, w * w):
            own = inverse[self._level[part]]
            if w == 1:
                Y[0, part] *= own[:, 0, 0]
            else:
                Y[:, part] = small_products(own, Y[:, part].T[:, :, None])[:, :, 0].T
        if self._dense:
            full = np.zeros((levels, w, layout.n_core))
            full[self._level, :, self._column] = Y.T
            return full.reshape(levels * w, layout.n_core)
        return [sp.csr_array((own, self._column, self._first), shape) for own in Y]

    def times(self, Y: BorderRows, x: FloatArray) -> FloatArray:
        """Y x for x of shape (core, m), (levels, width, m)."""
        if isinstance(Y, np.ndarray):
            return np.asarray(Y @ x).reshape(-1, self._layout.width, x.shape[1])
        return np.stack([own @ x for own in Y], axis=1)

    def transposed_times(self, Y: BorderRows, x: FloatArray) -> FloatArray:
        """Y'x for x of shape (levels, width, m), (core, m)."""
        if isinstance(Y, np.ndarray):
            return np.asarray(Y.T @ x.reshape(len(Y), x.shape[2]))
        first, *others = (own.T @ x[:, e] for e, own in enumerate(Y))
        return np.asarray(sum(others, first))

    def subtract_gram(self, S: FloatArray, Y: BorderRows) -> None:
        """S −= Y'Y in place, the lower triangle at least; S stands column by column.

        Levels that meet much of the core go through one dense product; the others contribute one
        small block each, and all blocks are summed in one pass over their fixed places in S.
        """
        if not self.nnz:
            return
        if isinstance(Y, np.ndarray):
            subtract_square(S, Y)
            return
        for levels in self._parts_of(self._heavy):
            for own in Y:
                subtract_square(S, own[levels].toarray())
        if self._many:
            light = np.flatnonzero(~self._is_heavy)
            parts = int(self._counts[light].sum()) // _ENTRIES + 1
            for levels in np.array_split(light, parts):
                for own in Y:
                    rows = own[levels]
                    turned = rows.T.tocsr()
                    for i in range(0, len(S), _PANEL):  # all would be as large as S, or more
                        S.T[i : i + _PANEL] -= (turned[i : i + _PANEL] @ rows).toarray()
            return
        if self._meetings is not None:
            one, other = self._meetings
            products = Y[0].data.take(one) * Y[0].data.take(other)
        else:
            found = [np.zeros(0)]
            for levels, at in self._batches():
                if self._is_heavy[levels[0]]:
                    continue
                rows, cols = _lower_triangle(at.shape[1])
                P = [own.data[at] for own in Y]
                found.append(sum(each[:, rows] * each[:, cols] for each in P).ravel())
            products = np.concatenate(found)
        if len(self._places):
            summed = np.bincount(self._places, products, minlength=S.size)
            S.T[:] -= summed.reshape(S.shape)

    def _parts_of(self, levels: IntArray) -> list[IntArray]:
        """Levels in parts whose dense rows stay small."""
        if not len(levels):
            return []
        parts = max(1, levels.size * self._layout.width * self._layout.n_core // _DENSE_CHUNK)
        return np.array_split(levels, min(parts, len(levels)))

    @property
    def _pairs_of_light(self) -> float:
        """Pairs of entries of all light levels."""
        light = self._counts[~self._is_heavy].astype(np.float64)
        return float((light * (light + 1) / 2).sum())

    @cached_property
    def _places(self) -> IntArray:
        """Where the lower triangles of all light levels' blocks go in S, counted by columns."""
        places = []
        for levels, at in self._batches():
            if self._is_heavy[levels[0]]:
                continue
            neighbours = self._column[at].astype(np.intp)
            rows, cols = _lower_triangle(at.shape[1])
            places.append((neighbours[:, cols] * self._layout.n_core + neighbours[:, rows]).ravel())
        return np.concatenate(places) if places else np.zeros(0, dtype=np.intp)

    @cached_property
    def _meetings(self) -> tuple[IntArray, IntArray] | None:
        """The two entries that meet at each of `_places`; None where batches are the faster way."""
        if self._layout.width > 1 or self._many or len(self._places) > _MOST_MEETINGS:
            return None
        one, other = [], []
        for levels, at in self._batches():
            if not self._is_heavy[levels[0]]:
                rows, cols = _lower_triangle(at.shape[1])
                one.append(at[:, rows].ravel())
                other.append(at[:, cols].ravel())
        none = np.zeros(0, dtype=np.intp)
        return (np.concatenate(one), np.concatenate(other)) if one else (none, none)

    @cached_property
    def _alike(self) -> list[IntArray]:
        """Levels with equally many entries, in parts of one cache."""
        out = []
        order = np.argsort(self._counts, kind="stable").astype(np.intp)
        counts, first = np.unique(self._counts[order], return_index=True)
        for count, levels in zip(counts.tolist(), np.split(order, first[1:]), strict=True):
            size = max(1, _CHUNK // max(1, count * count))
            out += [levels[i : i + size] for i in range(0, len(levels) if count else 0, size)]
        return out

    def _batches(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Levels with equally many entries, and the places of these, (levels, entries)."""
        for levels in self._alike:
            yield levels, self._first[levels][:, None] + np.arange(self._counts[levels[0]])

    def inverse(
        self,
        Y: BorderRows,
        S22: FloatArray,
        inverse: FloatArray,
        own: FloatArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Blocks of M⁻¹: the levels' own (levels, width, width), and the border (width, nnz).

        With P = L₁₁⁻ᵀ Y: Σ₁₁ = M₁₁⁻¹ + P Σ₂₂ P' and Σ₁₂ = −P Σ₂₂, on the pattern only.
        """
        own, w = own.copy(), self._layout.width
        cross = np.empty((w, self.nnz))
        if not self.nnz:
            return own, cross
        if isinstance(Y, np.ndarray):
            full = Y.reshape(self._layout.n_levels, w, -1)
            P = small_products(np.swapaxes(inverse, 1, 2), full)
            W = (P.reshape(Y.shape) @ S22).reshape(P.shape)
            own += np.einsum("lic,ljc->lij", W, P)
            return own, -W[self._level, :, self._column].T
        dense = self._counts > max(64, self._layout.n_core // _DENSE_BELOW)
        for levels in self._parts_of(np.flatnonzero(dense)):
            full = np.stack([rows[levels].toarray() for rows in Y], axis=1)
            P = np.matmul(np.swapaxes(inverse[levels], 1, 2), full)
            W = (P.reshape(len(levels) * w, -1) @ S22).reshape(P.shape)
            own[levels] += np.matmul(W, np.swapaxes(P, 1, 2))
            at = np.concatenate([np.arange(self._first[i], self._first[i + 1]) for i in levels])
            which = np.repeat(np.arange(len(levels)), self._counts[levels])
            cross[:, at] = -W[which, :, self._column[at]].T
        flat, n = S22.ravel(order="K"), len(S22)  # symmetric
        in_one_go = self._meetings is not None
        if in_one_go:
            self._invert_meetings(Y[0].data, flat, inverse, own, cross[0])
        for levels, at in self._batches():
            if dense[levels[0]] or (in_one_go and not self._is_heavy[levels[0]]):
                continue
            if w == 1 and at.shape[1] <= _BY_PAIRS_UP_TO:
                P = Y[0].data[at.T] * inverse[levels, 0, 0]
                W = _symmetric_product(flat, n, self._column[at.T].astype(np.intp), P)
                own[levels, 0, 0] += np.einsum("tl,tl->l", P, W)
                cross[0, at.T] = -W
                continue
            neighbours = self._column[at].astype(np.intp)
            P = np.matmul(np.stack([rows.data[at] for rows in Y], axis=2), inverse[levels])
            W = np.matmul(flat[n * neighbours[:, :, None] + neighbours[:, None, :]], P)
            own[levels] += np.matmul(np.swapaxes(P, 1, 2), W)
            cross[:, at] = -W.transpose(2, 0, 1)
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
        assert self._meetings is not None
        one, other = self._meetings
        if not len(one):
            return
        P = entries * inverse[self._level, 0, 0]
        met = flat.take(self._places)
        W = np.bincount(one, met * P.take(other), minlength=self.nnz)
        met[one == other] = 0.0
        W += np.bincount(other, met * P.take(one), minlength=self.nnz)
        light = ~self._is_heavy[self._level]
        cross[light] = -W[light]
        own[:, 0, 0] += np.bincount(self._level, P * W, minlength=len(own))

    def blocks(self, pair: PairBlocks, cross: FloatArray) -> FloatArray:
        """The border's values in the layout of one pair, (m, k_s, k_t)."""
        core, lead_is_t = self._core_of(pair)
        start, n, k = self._shapes[core]
        own = cross[self._layout.lead_slice[self._lead_of(pair)]]
        block = np.empty((n, k, len(own)))
        for e, values in enumerate(own):
            block[:, :, e] = values[self._place[start : start + n * k]].reshape(n, k)
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
