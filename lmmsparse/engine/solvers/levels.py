"""Cross-products of one grouping factor → penalized least squares level by level, all at once.

M is block diagonal. Arrays have the small axes first and the levels last, (K, K, levels), so that
every operation runs along contiguous memory, whatever the number of levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.structures import LambdaTemplate
from lmmsparse.engine.linalg import inverse_factors
from lmmsparse.engine.products import CrossProducts, Response
from lmmsparse.engine.solvers.base import FAILED, PLSSolution, eliminate


@dataclass(frozen=True, eq=False)
class Levels:
    """M at one θ, factored level by level: M = LL'.

    Attributes
    ----------
    theta : (n_theta,) array
    T : (K, K) array
        The relative covariance factors of all terms, side by side.
    inverse : (K, K, levels) array
        L⁻¹ of every level.
    W : (K, K, levels) array
        L⁻¹T'.
    WX : (K, p, levels) array
        L⁻¹T'Z'WX.
    logdet : float
        log|M|.
    """

    theta: FloatArray
    T: FloatArray
    inverse: FloatArray
    W: FloatArray
    WX: FloatArray
    logdet: float


class LevelSystem:
    """`PLSSystem` of a model in which all terms share one grouping factor.

    Parameters
    ----------
    products : CrossProducts
    template : LambdaTemplate

    Attributes
    ----------
    A : (K, K, levels) array
        Z'WZ of every level, the K random effects of all terms side by side.
    X : (K, p, levels) array
        Z'WX of every level.
    parts : list of slice
        Where the effects of each term stand among the K.
    """

    def __init__(self, products: CrossProducts, template: LambdaTemplate) -> None:
        self.products, self.template = products, template
        ends = [0, *np.cumsum(products.sizes).tolist()]
        self.K, self.n_levels = ends[-1], products.offsets[1] // products.sizes[0]
        self.parts = [slice(a, z) for a, z in pairwise(ends)]
        self.A = np.empty((self.K, self.K, self.n_levels))
        for pair in products.pairs:
            rows, cols = self.parts[pair.s], self.parts[pair.t]
            blocks = pair.values.transpose(1, 2, 0)
            self.A[rows, cols] = blocks
            self.A[cols, rows] = blocks.swapaxes(0, 1)
        self.X = self.split(products.ZtX)
        self._last: Levels | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (LevelSystem, (self.products, self.template))

    def describe(self) -> str:
        return f"elimination of {self.n_levels} levels with {self.K} effects each, no core"

    def split(self, b: FloatArray) -> FloatArray:
        """(q, m), ordered by term and level → (K, m, levels)."""
        out = np.empty((self.K, b.shape[1], self.n_levels))
        offsets = self.products.offsets
        for t, k in enumerate(self.products.sizes):
            part = b[offsets[t] : offsets[t + 1]].reshape(self.n_levels, k, b.shape[1])
            out[self.parts[t]] = part.transpose(1, 2, 0)
        return out

    def join(self, c: FloatArray) -> FloatArray:
        """The inverse of `split`."""
        m, offsets = c.shape[1], self.products.offsets
        out = np.empty((self.products.q, m))
        for t, k in enumerate(self.products.sizes):
            part = c[self.parts[t]].transpose(2, 0, 1)
            out[offsets[t] : offsets[t + 1]] = part.reshape(self.n_levels * k, m)
        return out

    def at(self, theta: FloatArray) -> Levels:
        """The factorization at θ; the last one is kept."""
        last = self._last  # other threads may put another in its place
        if last is None or not np.array_equal(last.theta, theta):
            last = self._last = self._factorize(np.array(theta))
        return last

    def _factorize(self, theta: FloatArray) -> Levels:
        K, L = self.K, self.n_levels
        T = np.zeros((K, K))
        for part, own in zip(self.parts, self.template.shifted_factors(theta), strict=True):
            T[part, part] = own
        # One side after the other: where T is large, both at once would lose digits.
        half = (T.T @ self.A.reshape(K, K * L)).reshape(K, K, L)
        M = np.matmul(T.T, half)
        M.reshape(K * K, L)[:: K + 1] += 1.0
        with np.errstate(all="ignore"):
            inverse, logdets = inverse_factors(M)
        logdet = float(logdets.sum())
        if not np.isfinite(logdet):
            raise NumericalError(FAILED)
        W = np.matmul(T, inverse)
        return Levels(theta, T, inverse, W, small_product(W, self.X), logdet)

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        return self.solve_with(self.at(theta), self.responses(response), response)

    def responses(self, response: Response) -> FloatArray:
        """Z'Wy of every level, (K, levels)."""
        return self.split(response.Zty[:, None])[:, 0]

    def solve_with(self, levels: Levels, y: FloatArray, response: Response) -> PLSSolution:
        """The solution from a factorization and Z'Wy, (K, levels)."""
        Wy = small_product(levels.W, y[:, None])
        p = self.products.p
        C = np.concatenate([levels.WX, Wy], axis=1).transpose(1, 0, 2).reshape(p + 1, -1)
        return eliminate(levels.logdet, C @ C.T, self.products, response)

    def factor(self, theta: FloatArray) -> LevelFactor:
        return LevelFactor(self, self.at(theta).inverse)


class LevelFactor:
    """`PLSFactor`: L⁻¹ of every level; never changes.

    Parameters
    ----------
    system : LevelSystem
    inverse : (K, K, levels) array
    """

    def __init__(self, system: LevelSystem, inverse: FloatArray) -> None:
        self._system, self._inverse = system, inverse

    @cached_property
    def _transposed(self) -> FloatArray:
        return self._inverse.swapaxes(0, 1)

    def solve(self, b: FloatArray) -> FloatArray:
        half = small_product(self._inverse, self._system.split(b.reshape(len(b), -1)))
        return self._system.join(small_product(self._transposed, half)).reshape(b.shape)

    def inverse_blocks(self) -> list[FloatArray]:
        own = small_product(self._transposed, self._inverse)
        parts = self._system.parts
        return [
            np.ascontiguousarray(own[parts[pair.s], parts[pair.t]].transpose(2, 0, 1))
            for pair in self._system.products.pairs
        ]


def small_product(A: FloatArray, B: FloatArray) -> FloatArray:
    """The products of small matrices (k, l, levels) and (l, m, levels), level by level."""
    out = A[:, 0, None] * B[0]
    for i in range(1, A.shape[1]):
        out += A[:, i, None] * B[i]
    return np.asarray(out, dtype=np.float64)
