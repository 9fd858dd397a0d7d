"""R⁻¹ in classes of entries → every cross-product as a sum of coefficients times fixed products.

Where classes are few, what is summed over rows is summed once, and an evaluation does not depend on
their number. Where they are many (a covariate, or times without pattern), rows are summed anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.columns import Basis
from lmmsparse.engine.linalg import times_each
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.pairs import PairPattern, TermColumns
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.residual.structure import Classes, ResidualStructure
from lmmsparse.engine.responses import Response

_MOST_CLASSES = 3000
_MOST_NUMBERS = 3e7
_ENTRIES_PER_CLASS = 4


@dataclass(frozen=True, eq=False)
class Weights:
    """What a gradient multiplies the changes of cross-products by.

    Attributes
    ----------
    ZtZ : list of (m, k_s, k_t) arrays
        Per pair of terms; of two different terms for one of the two places.
    ZtX : (q, p) array
    XtX : (p, p) array
    Zty : (q,) array
    Xty : (p,) array
    yty : float
    """

    ZtZ: Sequence[FloatArray]
    ZtX: FloatArray
    XtX: FloatArray
    Zty: FloatArray
    Xty: FloatArray
    yty: float


class CrossSets:
    """The rows of a model, and what is summed over them.

    Parameters
    ----------
    X : (n, p) array
        Internal columns.
    e : (n,) array
        The response's least-squares residual.
    terms : sequence of TermColumns
    patterns : sequence of PairPattern
        Of all pairs of terms.
    """

    def __init__(
        self,
        structure: ResidualStructure,
        X: FloatArray,
        e: FloatArray,
        beta0: FloatArray,
        basis: Basis,
        terms: Sequence[TermColumns],
        patterns: Sequence[PairPattern],
    ) -> None:
        self.structure, self.basis, self.beta0 = structure, basis, beta0
        self.terms, self.patterns = tuple(terms), tuple(patterns)
        self.sizes = tuple(term.columns.shape[1] for term in terms)
        lengths = [k * term.n_levels for k, term in zip(self.sizes, terms, strict=True)]
        self.offsets = tuple(int(v) for v in np.cumsum([0, *lengths]))
        self.n, self.p = X.shape
        priors = tuple(term.prior for term in terms)
        self._priors = priors if any(priors) else ()
        root = None if structure.weights is None else np.sqrt(structure.weights)[:, None]
        # Internal columns and response side by side, and the terms', as W weighs them.
        joined = np.column_stack([X, e])
        self.columns = joined if root is None else joined * root
        self.term_columns = [t.columns if root is None else t.columns * root for t in terms]
        own = structure.classes
        numbers = sum(map(len, own)) * (self.offsets[-1] * (self.p + 1 + sum(self.sizes)) + 1)
        few = all(
            len(c) <= _MOST_CLASSES and _ENTRIES_PER_CLASS * len(c) <= len(c.of) + 64 for c in own
        )
        self.summed_once = few and numbers <= _MOST_NUMBERS
        kind = _Summed if self.summed_once else _ByRow
        self._parts = [kind(_Sides(self, c)) for c in own]

    def products(self, phi: FloatArray) -> tuple[CrossProducts, Response]:
        """Every cross-product with R⁻¹ at φ."""
        of_classes = [f for f, _ in self.structure.coefficients(phi)]
        return self._with(of_classes, -self.structure.logdet(phi)[0])

    def slopes(self, phi: FloatArray) -> Iterator[CrossProducts]:
        """The derivatives of the cross-products by every element of φ."""
        of_classes = [df for _, df in self.structure.coefficients(phi)]
        for i in range(self.structure.n_phi):
            yield self._with([df[i] for df in of_classes], 0.0)[0]

    def _with(
        self, of_classes: Sequence[FloatArray], sum_log_weights: float
    ) -> tuple[CrossProducts, Response]:
        """Every cross-product for coefficients of the classes."""
        q, p = self.offsets[-1], self.p
        YY, ZY = np.zeros((p + 1, p + 1)), np.zeros((q, p + 1))
        ZZ = [
            np.zeros((len(pattern.rows), self.sizes[pattern.s], self.sizes[pattern.t]))
            for pattern in self.patterns
        ]
        for part, f in zip(self._parts, of_classes, strict=True):
            part.add(f, YY, ZY, ZZ)
        products = CrossProducts(
            pairs=tuple(
                PairBlocks(pattern.s, pattern.t, pattern.rows, pattern.cols, values)
                for pattern, values in zip(self.patterns, ZZ, strict=True)
            ),
            ZtX=np.ascontiguousarray(ZY[:, :p]),
            XtX=np.ascontiguousarray(YY[:p, :p]),
            offsets=self.offsets,
            sizes=self.sizes,
            n=self.n,
            sum_log_weights=sum_log_weights,
            basis=self.basis,
            priors=self._priors,
        )
        response = Response(
            Zty=np.ascontiguousarray(ZY[:, p]),
            Xty=np.ascontiguousarray(YY[:p, p]),
            yty=float(YY[p, p]),
            beta0=self.beta0,
        )
        return products, response

    def gradient(self, phi: FloatArray, by: Weights) -> FloatArray:
        """The change of Σ weights · cross-products with φ, (n_phi,)."""
        YY = np.zeros((self.p + 1, self.p + 1))
        YY[: self.p, : self.p] = by.XtX
        YY[: self.p, self.p] = YY[self.p, : self.p] = 0.5 * by.Xty
        YY[self.p, self.p] = by.yty
        ZY = np.column_stack([by.ZtX, by.Zty])
        # Of two different terms both places count.
        ZZ = [
            A if pattern.s == pattern.t else 2.0 * A
            for A, pattern in zip(by.ZtZ, self.patterns, strict=True)
        ]
        out = np.zeros(self.structure.n_phi)
        for part, (_, df) in zip(self._parts, self.structure.coefficients(phi), strict=True):
            out += df @ part.along(YY, ZY, ZZ)
        return out


class _Sides:
    """Both sides of the entries of some classes: columns, levels and places of blocks."""

    def __init__(self, sets: CrossSets, classes: Classes) -> None:
        self.classes, self._sets = classes, sets
        self.double = classes.twice[classes.of]
        cells = sets.structure.cells
        self._cell = cells.cell if classes.sums else None
        rows = cells.first[classes.left] if classes.sums else classes.left
        self.levels = [term.codes[rows] for term in sets.terms]
        self.places = [pattern.place[rows] for pattern in sets.patterns]
        self.patterns, self.sizes, self.terms = sets.patterns, sets.sizes, sets.terms
        self.offsets = sets.offsets

    def _taken(self, columns: FloatArray, which: IntArray) -> FloatArray:
        if self._cell is None:
            return np.ascontiguousarray(columns[which])
        m = int(self._cell.max()) + 1
        sums = [np.bincount(self._cell, column, minlength=m) for column in columns.T]
        return np.asarray(np.column_stack(sums)[which], dtype=np.float64)

    @cached_property
    def Y(self) -> tuple[FloatArray, FloatArray]:
        """[X e] on the left and on the right."""
        Y, own = self._sets.columns, self.classes
        return self._taken(Y, own.left), self._taken(Y, own.right)

    @cached_property
    def Z(self) -> list[tuple[FloatArray, FloatArray]]:
        """The columns of every term on the left and on the right."""
        own = self.classes
        return [
            (self._taken(Z, own.left), self._taken(Z, own.right)) for Z in self._sets.term_columns
        ]

    def blocks(self, at: int, weights: FloatArray | None) -> FloatArray:
        """Products of two terms' columns of every entry, (entries, k_s, k_t)."""
        pattern = self.patterns[at]
        (left, right), (other, others) = self.Z[pattern.s], self.Z[pattern.t]
        out = left[:, :, None] * others[:, None, :]
        twice = self.double[:, None, None]
        out += np.where(twice, right[:, :, None] * other[:, None, :], 0.0)
        return out if weights is None else out * weights[:, None, None]


class _Summed:
    """Cross-products of every class, summed over the rows once."""

    def __init__(self, sides: _Sides) -> None:
        own = sides.classes
        C, of = len(own), own.of
        left, right = sides.Y
        width = left.shape[1]
        ends = np.searchsorted(of, np.arange(C + 1))
        self._YY = np.empty((C, width, width))
        for c in range(C):
            part = slice(ends[c], ends[c + 1])
            product = left[part].T @ right[part]
            self._YY[c] = product + product.T if own.twice[c] else product
        self._ZY = np.concatenate(
            [np.zeros((C, 0, width)), *(self._grouped(sides, t) for t in range(len(sides.terms)))],
            axis=1,
        )
        self._ZZ = [self._blocks(sides, at) for at in range(len(sides.patterns))]

    @staticmethod
    def _grouped(sides: _Sides, t: int) -> FloatArray:
        """Z_t'R_cY, (classes, levels · k, p + 1)."""
        own, levels, k = sides.classes, sides.terms[t].n_levels, sides.sizes[t]
        (left, right), (y, others) = sides.Z[t], sides.Y
        place = own.of * levels + sides.levels[t]
        out = np.empty((len(own) * levels, k, y.shape[1]))
        for i in range(k):
            for j in range(y.shape[1]):
                product = left[:, i] * others[:, j]
                product += np.where(sides.double, right[:, i] * y[:, j], 0.0)
                out[:, i, j] = np.bincount(place, product, minlength=len(out))
        return out.reshape(len(own), levels * k, y.shape[1])

    @staticmethod
    def _blocks(sides: _Sides, at: int) -> FloatArray:
        """The blocks of a pair of terms, (classes, m, k_s, k_t)."""
        own, m = sides.classes, len(sides.patterns[at].rows)
        product = sides.blocks(at, None)
        place = own.of * m + sides.places[at]
        flat = product.reshape(len(product), -1)
        sums = [np.bincount(place, column, minlength=len(own) * m) for column in flat.T]
        joined = np.stack(sums, axis=-1).astype(np.float64)
        return joined.reshape(len(own), m, *product.shape[1:])

    def add(self, f: FloatArray, YY: FloatArray, ZY: FloatArray, ZZ: Sequence[FloatArray]) -> None:
        YY += np.tensordot(f, self._YY, axes=1)
        if ZY.size:
            ZY += np.tensordot(f, self._ZY, axes=1)
        for into, own in zip(ZZ, self._ZZ, strict=True):
            into += np.tensordot(f, own, axes=1)

    def along(self, YY: FloatArray, ZY: FloatArray, ZZ: Sequence[FloatArray]) -> FloatArray:
        C = len(self._YY)
        out = self._YY.reshape(C, -1) @ YY.ravel()
        if ZY.size:
            out += self._ZY.reshape(C, -1) @ ZY.ravel()
        for by, own in zip(ZZ, self._ZZ, strict=True):
            out += own.reshape(C, -1) @ by.ravel()
        return np.asarray(out)


class _ByRow:
    """Cross-products that are summed over the rows at every φ."""

    def __init__(self, sides: _Sides) -> None:
        self._sides = sides

    @property
    def _any_double(self) -> bool:
        return bool(self._sides.classes.twice.any())

    def add(self, f: FloatArray, YY: FloatArray, ZY: FloatArray, ZZ: Sequence[FloatArray]) -> None:
        sides = self._sides
        w = f[sides.classes.of]
        left, right = sides.Y
        double, some = sides.double, self._any_double
        weighted = right * w[:, None]
        YY += left.T @ weighted
        back = left * np.where(double, w, 0.0)[:, None] if some else None
        if back is not None:
            YY += right.T @ back
        for t, term in enumerate(sides.terms):
            k, levels = sides.sizes[t], sides.levels[t]
            own = ZY[sides.offsets[t] : sides.offsets[t + 1]].reshape(-1, k, ZY.shape[1])
            for i in range(k):
                for j in range(ZY.shape[1]):
                    product = sides.Z[t][0][:, i] * weighted[:, j]
                    if back is not None:
                        product += sides.Z[t][1][:, i] * back[:, j]
                    own[:, i, j] += np.bincount(levels, product, minlength=term.n_levels)
        for at, into in enumerate(ZZ):
            product = sides.blocks(at, w)
            for i in range(into.shape[1]):
                for j in range(into.shape[2]):
                    into[:, i, j] += np.bincount(
                        sides.places[at], product[:, i, j], minlength=len(into)
                    )

    def along(self, YY: FloatArray, ZY: FloatArray, ZZ: Sequence[FloatArray]) -> FloatArray:
        sides = self._sides
        left, right = sides.Y
        out = np.einsum("mi,mi->m", left @ YY, right) * np.where(sides.double, 2.0, 1.0)
        for t, levels in enumerate(sides.levels):
            k = sides.sizes[t]
            own = ZY[sides.offsets[t] : sides.offsets[t + 1]].reshape(-1, k, ZY.shape[1])[levels]
            z, others = sides.Z[t]
            out += np.einsum("mk,mkj,mj->m", z, own, right, optimize=True)
            if self._any_double:
                back = np.einsum("mk,mkj,mj->m", others, own, left, optimize=True)
                out += np.where(sides.double, back, 0.0)
        for at, by in enumerate(ZZ):
            out += np.einsum("mij,mij->m", sides.blocks(at, None), by[sides.places[at]])
        classes = sides.classes
        sums = np.bincount(classes.of, out, minlength=len(classes))
        return np.asarray(sums, dtype=np.float64)


def weights_of(
    patterns: Sequence[PairPattern],
    offsets: Sequence[int],
    sizes: Sequence[int],
    D: Sequence[FloatArray],
    left: FloatArray,
    right: FloatArray,
) -> list[FloatArray]:
    """The blocks of D + left right' where Z'R⁻¹Z has blocks, left and right of shape (q, m)."""
    out = []
    for pattern, own in zip(patterns, D, strict=True):
        s, t = pattern.s, pattern.t
        a = left[offsets[s] : offsets[s + 1]].reshape(-1, sizes[s], left.shape[1])[pattern.rows]
        b = right[offsets[t] : offsets[t + 1]].reshape(-1, sizes[t], left.shape[1])[pattern.cols]
        out.append(own + np.matmul(a, b.swapaxes(1, 2)))
    return out


def inverse_of_b(
    patterns: Sequence[PairPattern], factors: Sequence[FloatArray], inverse: Sequence[FloatArray]
) -> list[FloatArray]:
    """The blocks of ΛM⁻¹Λ' from those of M⁻¹."""
    return [
        times_each(np.matmul(factors[pattern.s], S), factors[pattern.t].T)
        for pattern, S in zip(patterns, inverse, strict=True)
    ]
