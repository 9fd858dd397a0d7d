"""Cross-products of one grouping factor → penalized least squares level by level, all at once.

M is block diagonal. Arrays have the small axes first and the levels last, (K, K, levels), so that
every operation runs along contiguous memory, whatever the number of levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import inverse_factors, small_product, solve_triangular
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.products import CrossProducts, Response, side_by_side
from lmmsparse.engine.solvers.base import FAILED, PLSSolution, eliminate
from lmmsparse.engine.traces import Border, Inner, sandwiches, traces_of_levels


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
        self.K, self.n_levels = ends[-1], products.n_levels[0]
        self.parts = [slice(a, z) for a, z in pairwise(ends)]
        A = side_by_side(products, products.blocks)
        self.A = np.ascontiguousarray(A.transpose(1, 2, 0))
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
        levels = self.at(theta)
        return LevelFactor(self, levels.inverse, levels.logdet)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> LevelPoint:
        return LevelPoint(self, theta, response, reml, sigma2)

    def with_products(self, products: CrossProducts) -> LevelSystem:
        return LevelSystem(products, self.template)


class LevelFactor:
    """`PLSFactor`: L⁻¹ of every level; never changes.

    Parameters
    ----------
    inverse : (K, K, levels) array
    """

    def __init__(self, system: LevelSystem, inverse: FloatArray, logdet: float) -> None:
        self._system, self._inverse, self.logdet = system, inverse, logdet

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


class LevelPoint:
    """A `Point` of a model with one grouping factor.

    Parameters
    ----------
    theta : (n_theta,) array
    sigma2 : float, optional
        σ², profiled out if not given.

    Notes
    -----
    The same quantities as `GeneralPoint`: sums over levels are products of matrices with one long
    axis.
    """

    def __init__(
        self,
        system: LevelSystem,
        theta: FloatArray,
        response: Response,
        reml: bool,
        sigma2: float | None = None,
    ) -> None:
        self._system, self._reml, self.theta = system, reml, theta
        self.T = system.template.shifted_factors(theta)
        self._levels = levels = system.at(theta)
        y = system.responses(response)
        self.solution = solution = system.solve_with(levels, y, response)
        self.s2 = solution.pwrss / system.products.df(reml) if sigma2 is None else sigma2
        # The residuals Z'W(y − Xβ), what elimination leaves of them, and Z'V⁻¹(y − Xβ).
        residual = y - np.matmul(solution.beta, system.X)
        self._half = small_product(levels.W, residual[:, None])
        self._P = small_product(levels.W, system.A)
        self._v = residual - self._from_right(self._half)[:, 0]
        # T'v, which is the spherical random effects.
        self._u = small_product(levels.inverse.swapaxes(0, 1), self._half)[:, 0]

    def _from_right(self, C: FloatArray) -> FloatArray:
        """P'C level by level."""
        return small_product(self._P.swapaxes(0, 1), C)

    @cached_property
    def _inner(self) -> Inner:
        inverse = self._levels.inverse
        Y = -small_product(inverse.swapaxes(0, 1), inverse)
        Y.reshape(len(Y) ** 2, -1)[:: len(Y) + 1] += 1.0
        H = self._system.A - self._from_right(self._P)
        return Inner(H, self._from_right(inverse), Y)

    @cached_property
    def _VX(self) -> FloatArray:
        """Z'V⁻¹X of every level, (K, p, levels)."""
        return self._system.X - self._from_right(self._levels.WX)

    @cached_property
    def _border(self) -> Border:
        """Z'V⁻¹X R_X⁻¹ and T' times it, of every level, (K, p, levels)."""
        RX = self.solution.RX
        root = solve_triangular(RX, np.eye(len(RX)), transposed=True)
        UX = small_product(self._levels.inverse.swapaxes(0, 1), self._levels.WX)
        return Border(np.matmul(root, self._VX), np.matmul(root, UX))

    @property
    def VX(self) -> FloatArray:
        return self._system.join(self._VX)

    @cached_property
    def _sum_vv(self) -> FloatArray:
        return np.asarray(self._v @ self._v.T)

    @cached_property
    def FT(self) -> list[FloatArray]:
        # H T = A T M⁻¹ = P'L⁻¹, which loses no digits however large T is.
        levels, K = self._levels, self._system.K
        out = np.matmul(self._P, levels.inverse.swapaxes(1, 2)).sum(axis=0)
        minus = self._sum_vv / self.s2
        if self._reml and len(self.solution.RX):
            A = self._border.A.reshape(K, -1)
            minus = minus + A @ A.T
        out -= minus @ levels.T
        return [out[part, part] for part in self._system.parts]

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        sums = self._v @ self._u.T
        return np.concatenate(
            [
                -2.0 * (D.reshape(len(D), -1) @ sums[part, part].ravel())
                for part, D in zip(self._system.parts, directions, strict=True)
            ]
        )

    def _side_by_side(self, directions: Sequence[FloatArray]) -> FloatArray:
        """∂T of all terms, (n_theta, K, K)."""
        K = self._system.K
        if len(directions) == 1:
            return directions[0]
        out = np.zeros((sum(map(len, directions)), K, K))
        for own, part, D in zip(
            self._system.template.slices, self._system.parts, directions, strict=True
        ):
            out[own, part, part] = D
        return out

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        v, u, D = self._v, self._u, self._side_by_side(directions)
        vv, vu, uu = v[:, None] * v, v[:, None] * u, u[:, None] * u
        out = sandwiches(self._inner, vv, vu, uu, D)
        if len(self.solution.RX):
            # X'V⁻¹Z E_i v = A'D_iu + B'D_i'v, summed over levels.
            K, (A, B) = self._system.K, self._border
            sums = A.reshape(-1, A.shape[2]) @ u.T
            sums = sums.reshape(K, -1, K).transpose(0, 2, 1)
            sums = sums + (B.reshape(-1, A.shape[2]) @ v.T).reshape(K, -1, K).transpose(2, 0, 1)
            XVZc = D.reshape(len(D), -1) @ sums.reshape(K * K, -1)
            out -= XVZc @ XVZc.T
        return np.asarray(out / self.s2)

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        border = self._border if self._reml else None
        return traces_of_levels(self._inner, border, self._side_by_side(directions))

    def moment_estimate(self) -> FloatArray | None:
        system = self._system
        u = system.join(self._u[:, None])[:, 0]
        inverse = system.factor(self.theta).inverse_blocks()
        products, template = system.products, system.template
        return moment_estimate(products, template, self.theta, u, self.solution.pwrss, inverse)
