"""What of a generalized model has a row for every observation, and how it meets the rest.

Everything that is summed over rows is summed here: linear predictors, Z'r, cross-products for
working weights, and the diagonal of ZAZ' for a matrix known where Z'WZ has blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.engine.columns import Basis, InternalColumns
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.families.base import Family, Observations
from lmmsparse.engine.generalized.one_factor import OneFactor
from lmmsparse.engine.linalg import between
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.pairs import PairPattern
from lmmsparse.engine.prior import Priors
from lmmsparse.engine.products import CrossProducts, Pattern, grouped_columns
from lmmsparse.engine.solvers.base import PLSSystem

_NO_BASIS = Basis(np.zeros((0, 0)), 0.0)


@dataclass(frozen=True, eq=False)
class GeneralizedRows:
    """The rows of a generalized linear mixed model.

    Attributes
    ----------
    family : Family
    seen : Observations
    Q : InternalColumns
        The fixed effects, orthonormal without weights.
    basis : Basis
    pattern : Pattern
    template : LambdaTemplate
    offset : (n,) array or None
    system : PLSSystem
        Of the pattern, for whatever numbers.
    by_level : bool
        Whether one grouping factor may be taken level by level, whatever the system.
    """

    family: Family
    seen: Observations
    Q: InternalColumns
    basis: Basis
    pattern: Pattern
    template: LambdaTemplate
    offset: FloatArray | None
    system: PLSSystem
    by_level: bool = False

    @property
    def n(self) -> int:
        return self.seen.n

    @property
    def p(self) -> int:
        return self.Q.p

    @cached_property
    def prior(self) -> Priors:
        """The prior precision of the random effects."""
        own = [term.prior for term in self.pattern.terms]
        sizes = [structure.k for structure in self.template.structures]
        return Priors(own, self.template.offsets, sizes)

    @cached_property
    def _nothing(self) -> InternalColumns:
        return InternalColumns(np.zeros((self.n, 0)))

    @cached_property
    def _is_one(self) -> list[BoolArray]:
        """Per term, which columns are nothing but ones."""
        return [np.all(term.columns == 1.0, axis=0) for term in self.pattern.terms]

    @cached_property
    def one_factor(self) -> OneFactor | None:
        """The rows level by level."""
        return OneFactor(self.pattern.terms) if self.by_level else None

    @cached_property
    def fixed_rows(self) -> FloatArray | None:
        """Q', (p, n), where Q is stored as it is."""
        Q = self.Q
        return np.ascontiguousarray(Q.X.T) if Q.R is None and isinstance(Q.X, np.ndarray) else None

    @cached_property
    def _constant(self) -> float:
        held = self.family.held_delta
        return self.family.constant(self.seen, 0.0 if held is None else held)

    def constant(self, delta: float) -> float:
        """What Σℓ holds beside the densities as the family gives them."""
        if self.family.estimates_delta:
            return self.family.constant(self.seen, delta)
        return self._constant

    def fixed_part(self, beta: FloatArray) -> FloatArray:
        """Qβ + offset, (n,)."""
        eta = self.Q.times(beta) if self.p else np.zeros(self.n)
        return eta if self.offset is None else eta + self.offset

    def random_part(self, b: FloatArray) -> FloatArray:
        """Zb, (n,)."""
        out = np.zeros(self.n)
        offsets = self.template.offsets
        for t, (term, ones) in enumerate(zip(self.pattern.terms, self._is_one, strict=True)):
            effects = b[offsets[t] : offsets[t + 1]].reshape(term.n_levels, -1)
            for i, one in enumerate(ones):
                own = effects[:, i].take(term.codes)
                out += own if one else own * term.columns[:, i]
        return out

    def grouped(self, r: FloatArray) -> FloatArray:
        """Z'r, (q,)."""
        parts = []
        for term, ones in zip(self.pattern.terms, self._is_one, strict=True):
            own = np.empty((term.n_levels, len(ones)))
            for i, one in enumerate(ones):
                product = r if one else r * term.columns[:, i]
                own[:, i] = np.bincount(term.codes, product, minlength=term.n_levels)
            parts.append(own.ravel())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def products(self, weights: FloatArray) -> CrossProducts:
        """Z'WZ for working weights, which may be negative."""
        blocks = tuple(self._blocks(pair, weights) for pair in self.pattern.pairs)
        return self._without_numbers.with_blocks(blocks)

    @cached_property
    def _without_numbers(self) -> CrossProducts:
        """Of weights of one: what else there is to know."""
        return self.pattern.products(self._nothing, _NO_BASIS)

    def _blocks(self, pair: PairPattern, weights: FloatArray) -> PairBlocks:
        a, b = self.pattern.terms[pair.s].columns, self.pattern.terms[pair.t].columns
        one, other = self._is_one[pair.s], self._is_one[pair.t]
        own, m = pair.s == pair.t, len(pair.rows)
        values = np.empty((m, len(one), len(other)))
        for i in range(len(one)):
            left = weights if one[i] else weights * a[:, i]
            for j in range(i + 1 if own else len(other)):
                both = left if other[j] else left * b[:, j]
                values[:, i, j] = np.bincount(pair.place, both, m)
                if own:
                    values[:, j, i] = values[:, i, j]
        return PairBlocks(pair.s, pair.t, pair.rows, pair.cols, values)

    def crossed(self, b: FloatArray, weights: FloatArray) -> FloatArray:
        """Z'WZ b, (q,)."""
        return self.grouped(weights * self.random_part(b))

    def with_fixed(self, products: CrossProducts, weights: FloatArray) -> CrossProducts:
        """The same with Z'WQ and Q'WQ."""
        ZtX, XtX = grouped_columns(self.pattern.terms, self.Q, weights)
        return replace(products, ZtX=ZtX, XtX=XtX, basis=self.basis)

    def fixed_by_level(self, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Z'WQ of every level, (K, p, levels), and Q'WQ; for one grouping factor."""
        one, rows = self.one_factor, self.fixed_rows
        assert one is not None
        if rows is None:
            ZtX, XtX = grouped_columns(self.pattern.terms, self.Q, weights)
            by_column = [one.split(np.ascontiguousarray(column)) for column in ZtX.T]
            return np.stack(by_column, axis=1), XtX
        weighted = rows * weights
        return one.gathered_rows(weighted), weighted @ rows.T

    def diagonal(self, factors: Sequence[FloatArray], blocks: Sequence[FloatArray]) -> FloatArray:
        """The diagonal of ZΛAΛ'Z', (n,), for A given by its blocks where Z'WZ has some."""
        out = np.zeros(self.n)
        for pair, block in zip(self.pattern.pairs, blocks, strict=True):
            both = between(factors[pair.s].T, block, factors[pair.t].T)
            left, right = self.pattern.terms[pair.s].columns, self.pattern.terms[pair.t].columns
            ones = self._is_one[pair.s], self._is_one[pair.t]
            own = pair.s == pair.t
            for i in range(both.shape[1]):
                for j in range(i + 1 if own else both.shape[2]):
                    part = both[:, i, j].take(pair.place)
                    if not ones[0][i]:
                        part *= left[:, i]
                    if not ones[1][j]:
                        part *= right[:, j]
                    out += part if own and i == j else 2.0 * part
        return out
