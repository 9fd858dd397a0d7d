"""Cross-products → penalized least squares by eliminating the largest factor, then a dense core.

The levels of the factor with the most levels meet only in the other factors. Their blocks of M are
eliminated in one batch (with them all terms of the same factor), and what remains, S = M₂₂ − Y'Y,
is factored densely. A single grouping factor has no core and costs a handful of batched operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import between, inverse_from_factor, small_products, solve_triangular
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.points import GeneralPoint
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import FAILED, PLSSolution, PLSSystem, eliminate
from lmmsparse.engine.solvers.border import Border, BorderRows
from lmmsparse.engine.solvers.bordered import BorderedSystem, is_bordered
from lmmsparse.engine.solvers.levels import LevelSystem
from lmmsparse.engine.solvers.scalars import ScalarSystem
from lmmsparse.engine.solvers.small import SmallSystem

_UNROLLED_UP_TO = 8
_SMALL = 64
_PER_CELL, _PER_OPERATION = 3e-7, 6e-11  # seconds


@checked_construction
@dataclass(frozen=True)
class Blocked:
    """Batched elimination of the largest grouping factor and a dense core for the others.

    The fastest choice for a single grouping factor, for nested factors, and for crossed factors as
    long as the smaller ones have up to a few thousand random effects together.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> m = lmm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin"),
    ...              solver=lmm.Blocked())
    >>> round(m.reml_criterion, 4)
    330.8606
    """

    # Levels of a single factor stand by themselves, so that many responses can go together.
    level_by_level: ClassVar[bool] = True
    known_covariances: ClassVar[bool] = True

    def build(self, products: CrossProducts, template: LambdaTemplate) -> PLSSystem:
        """Arrange the blocks of one model."""
        if products.one_factor and sum(products.sizes) <= _UNROLLED_UP_TO:
            return LevelSystem(products, template)
        if products.q <= _SMALL:
            scalar = max(products.sizes) == 1
            return (ScalarSystem if scalar else SmallSystem)(products, template)
        if is_bordered(products):
            return BorderedSystem(products, template)
        return BlockedSystem(products, template)


class BlockedSystem:
    """`PLSSystem` with arrays that are made anew per θ; it keeps the last factorization only."""

    def __init__(self, products: CrossProducts, template: LambdaTemplate) -> None:
        self.products = products
        self.template = template
        self.lead = products.lead
        terms = range(len(products.sizes))
        self.core = tuple(t for t in terms if t not in self.lead)
        # Nothing is eliminated where the largest factor has a known covariance: all is core.
        self.n_levels = products.n_levels[0] if self.lead else 0
        starts = np.cumsum([0, *(products.sizes[t] for t in self.lead)])
        self.width = int(starts[-1]) or 1
        self.lead_slice = {
            t: slice(int(a), int(b))
            for t, a, b in zip(self.lead, starts[:-1], starts[1:], strict=True)
        }
        core_sizes = [products.offsets[t + 1] - products.offsets[t] for t in self.core]
        core_starts = np.cumsum([0, *core_sizes])
        self.n_core = int(core_starts[-1])
        self.core_start = dict(zip(self.core, core_starts[:-1].tolist(), strict=True))
        self.border = Border(self)
        self.core_places = {
            i: self.core_coordinates(pair)
            for i, pair in enumerate(products.pairs)
            if pair.s in self.core_start and pair.t in self.core_start
        }
        in_core = np.full(products.q, -1, dtype=np.intp)
        for t, start in self.core_start.items():
            size = products.offsets[t + 1] - products.offsets[t]
            in_core[products.offsets[t] :][:size] = start + np.arange(size)
        rows, cols, self._prior_values = products.prior.below()
        self._prior_places = in_core[rows], in_core[cols]
        self._prior_diagonal = products.prior.diagonal(products.q)[in_core >= 0]
        self._last: tuple[FloatArray, BlockedFactor] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (BlockedSystem, (self.products, self.template))

    def describe(self) -> str:
        if not self.lead:
            return f"dense Cholesky of {self.n_core} random effects"
        core = f"dense core of {self.n_core}" if self.n_core else "no core"
        return (
            f"batched elimination of {self.n_levels} levels with {self.width} effects each, {core}"
        )

    @cached_property
    def seconds(self) -> float:
        """What an evaluation with derivatives takes, about, on one core of an ordinary machine."""
        met = np.zeros(self.n_levels)
        for pair in self.products.pairs:
            if (pair.s in self.core_start) != (pair.t in self.core_start):
                lead, k = (pair.cols, pair.s) if pair.t in self.lead_slice else (pair.rows, pair.t)
                met += np.bincount(lead, minlength=self.n_levels) * self.products.sizes[k]
        cells, squares = float(met.sum()), float(met @ met)
        filled = _PER_OPERATION * (self.width * squares + float(self.n_core) ** 3)
        return _PER_CELL * self.width * cells + filled

    def core_coordinates(self, pair: PairBlocks) -> tuple[IntArray, IntArray]:
        """Place of a core pair's blocks in S."""
        rows, cols = self.products.coordinates(pair)
        rows = rows - self.products.offsets[pair.s] + self.core_start[pair.s]
        cols = cols - self.products.offsets[pair.t] + self.core_start[pair.t]
        return rows, cols

    def split(self, b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(q, m) → the lead part (levels, width, m) and the core part (core, m)."""
        offsets, m = self.products.offsets, b.shape[1]
        if not self.lead:
            return np.zeros((0, self.width, m)), b
        lead = [
            b[offsets[t] : offsets[t + 1]].reshape(self.n_levels, self.products.sizes[t], m)
            for t in self.lead
        ]
        core = [b[offsets[t] : offsets[t + 1]] for t in self.core]
        first = lead[0] if len(lead) == 1 else np.concatenate(lead, axis=1)
        return first, np.concatenate(core) if core else np.zeros((0, m))

    def join(self, lead: FloatArray, core: FloatArray) -> FloatArray:
        """The inverse of `split`."""
        offsets, m = self.products.offsets, core.shape[1]
        out = np.empty((self.products.q, m))
        for t in self.lead:
            part = lead[:, self.lead_slice[t]]
            out[offsets[t] : offsets[t + 1]] = part.reshape(self.n_levels * part.shape[1], m)
        for t in self.core:
            start = self.core_start[t]
            size = offsets[t + 1] - offsets[t]
            out[offsets[t] : offsets[t + 1]] = core[start : start + size]
        return out

    def _factorize(self, theta: FloatArray) -> BlockedFactor:
        last = self._last  # other threads may put another in its place
        if last is None or not np.array_equal(last[0], theta):
            self._last = last = None  # before there is another: both may be large
            factor = self._compute(self.template.shifted_factors(theta))
            last = self._last = (theta.copy(), factor)
        return last[1]

    def _compute(self, T: list[FloatArray]) -> BlockedFactor:
        M11 = np.zeros((self.n_levels, self.width, self.width))
        for pair in self.products.pairs:
            if pair.s in self.lead_slice and pair.t in self.lead_slice:
                block = between(T[pair.s], pair.values, T[pair.t])
                below, left = self.lead_slice[pair.s], self.lead_slice[pair.t]
                M11[:, below, left] = block
                if pair.s != pair.t:
                    M11[:, left, below] = np.swapaxes(block, 1, 2)
        diagonal = np.arange(self.width)
        M11[:, diagonal, diagonal] += 1.0
        L11, logdet = _batched_cholesky(M11)
        inverse = _batched_inverse(L11)
        if not self.n_core:
            return BlockedFactor(self, inverse, None, None, logdet)
        Y = self.border.values(self.products, T, inverse)
        S = np.zeros((self.n_core, self.n_core), order="F")
        for i, places in self.core_places.items():
            pair = self.products.pairs[i]
            S[places] = between(T[pair.s], pair.values, T[pair.t])
        S[self._prior_places] += self._prior_values  # the lower triangle is what counts
        S[np.diag_indices(self.n_core)] += self._prior_diagonal
        self.border.subtract_gram(S, Y)
        L22, info = sla.lapack.dpotrf(S, lower=1, clean=1, overwrite_a=1)
        if info != 0:
            raise NumericalError(FAILED)
        logdet += 2 * float(np.log(np.diag(L22)).sum())
        return BlockedFactor(self, inverse, Y, L22, logdet)

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        factor = self._factorize(theta)
        border = np.column_stack([self.products.ZtX, response.Zty])
        border = self.template.multiply_transposed(self.template.shifted_factors(theta), border)
        c1, c2 = factor.half_solve(*self.split(border))
        flat = c1.reshape(c1.shape[0] * c1.shape[1], c1.shape[2])
        return eliminate(factor.logdet, flat.T @ flat + c2.T @ c2, self.products, response)

    def factor(self, theta: FloatArray) -> BlockedFactor:
        return self._factorize(theta)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> GeneralPoint:
        return GeneralPoint(self, self.products, self.template, theta, response, reml, sigma2)

    def with_products(self, products: CrossProducts) -> BlockedSystem:
        out = object.__new__(BlockedSystem)  # a copy would be built anew, as a pickle is
        out.__dict__.update(self.__dict__)
        out.products, out._last = products, None
        return out


class BlockedFactor:
    """`PLSFactor`: L = [[L₁₁, 0], [Y', L₂₂]] with L₁₁ block diagonal; never changes.

    Parameters
    ----------
    inverse : (levels, width, width) array
        L₁₁⁻¹ of every level.
    Y : BorderRows or None
        L₁₁⁻¹ M₁₂.
    L22 : (core, core) array or None
    """

    def __init__(
        self,
        system: BlockedSystem,
        inverse: FloatArray,
        Y: BorderRows | None,
        L22: FloatArray | None,
        logdet: float,
    ) -> None:
        self._system = system
        self._inverse = inverse
        self._Y = Y
        self._L22 = L22
        self.logdet = logdet

    def half_solve(self, b1: FloatArray, b2: FloatArray) -> tuple[FloatArray, FloatArray]:
        """L⁻¹ b in two parts."""
        c1 = small_products(self._inverse, b1)
        if self._Y is None or self._L22 is None:
            return c1, b2
        rest = b2 - self._system.border.transposed_times(self._Y, c1)
        return c1, solve_triangular(self._L22, rest, lower=True)

    def _half_solve_transposed(self, c1: FloatArray, c2: FloatArray) -> FloatArray:
        if self._Y is not None and self._L22 is not None:
            c2 = solve_triangular(self._L22, c2, lower=True, transposed=True)
            c1 = c1 - self._system.border.times(self._Y, c2)
        return self._system.join(small_products(np.swapaxes(self._inverse, 1, 2), c1), c2)

    def solve(self, b: FloatArray) -> FloatArray:
        matrix = b[:, None] if b.ndim == 1 else b
        out = self._half_solve_transposed(*self.half_solve(*self._system.split(matrix)))
        return out[:, 0] if b.ndim == 1 else out

    def inverse_blocks(self) -> list[FloatArray]:
        system = self._system
        own = small_products(np.swapaxes(self._inverse, 1, 2), self._inverse)
        S22, cross = np.zeros((0, 0)), np.zeros((0, system.width))
        if self._Y is not None and self._L22 is not None:
            S22 = inverse_from_factor(self._L22)
            own, cross = system.border.inverse(self._Y, S22, self._inverse, own)
        out = []
        for i, pair in enumerate(system.products.pairs):
            if pair.s in system.lead_slice and pair.t in system.lead_slice:
                out.append(own[:, system.lead_slice[pair.s], system.lead_slice[pair.t]])
            elif pair.s in system.core_start and pair.t in system.core_start:
                out.append(S22[system.core_places[i]])
            else:
                out.append(system.border.blocks(pair, cross))
        return out


def _batched_cholesky(M: FloatArray) -> tuple[FloatArray, float]:
    """Lower factors of a stack of positive definite matrices and the sum of log-determinants."""
    if M.shape[1] == 1:
        if not np.all(M > 0):
            raise NumericalError(FAILED)
        return np.sqrt(M), float(np.log(M).sum())
    try:
        L = np.asarray(np.linalg.cholesky(M), dtype=np.float64)
    except np.linalg.LinAlgError as error:
        raise NumericalError(FAILED) from error
    diagonal = np.einsum("lii->li", L)
    return L, 2 * float(np.log(diagonal).sum())


def _batched_inverse(L: FloatArray) -> FloatArray:
    """Inverses of a stack of lower-triangular matrices, row by row."""
    if L.shape[1] == 1:
        return 1.0 / L
    out = np.zeros_like(L)
    for j in range(L.shape[1]):
        out[:, j, j] = 1.0 / L[:, j, j]
        if j:
            row = np.matmul(L[:, j, None, :j], out[:, :j, :j])[:, 0, :]
            out[:, j, :j] = -row * out[:, j, j, None]
    return out
