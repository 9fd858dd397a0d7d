"""Cross-products of one grouping factor → penalized least squares level by level, all at once.

M is block diagonal. Arrays have the small axes first and the levels last, (K, K, levels), so that
every operation runs along contiguous memory, whatever the number of levels. Of few levels a call
costs more than what it computes: what can be is computed of X and y, or of v and u, together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import inverse_factors, parts_of, small_product
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.products import CrossProducts, side_by_side
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import FAILED, PLSSolution, eliminate, root_of_border
from lmmsparse.engine.traces import (
    Border,
    at_once,
    is_cheap,
    sandwiches,
    traces_of_levels,
)

_PER_NUMBER = 2e-8  # seconds

AtOnce: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]


class Levels(NamedTuple):
    """M at one θ, factored level by level: M = LL'.

    Attributes
    ----------
    key : bytes
        θ's.
    factors : list of (k, k) arrays
        T of every term.
    T : (K, K) array
        The same of all terms, side by side.
    root : (K, K, levels) array
        L⁻¹ of every level.
    half : (K, K, levels) array
        T'Z'WZ of every level.
    logdet : float
        log|M|.
    """

    key: bytes
    factors: list[FloatArray]
    T: FloatArray
    root: FloatArray
    half: FloatArray
    logdet: float


class LevelSystem:
    """`PLSSystem` of a model in which all terms share one grouping factor.

    Attributes
    ----------
    A : (K, K, levels) array
        Z'WZ of every level, the K random effects of all terms side by side.
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
        self._last: Levels | None = None
        self._border: tuple[Response, FloatArray] | None = None
        self._solved: tuple[Levels, Response, PLSSolution, FloatArray] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (LevelSystem, (self.products, self.template))

    def describe(self) -> str:
        return f"elimination of {self.n_levels} levels with {self.K} effects each, no core"

    @property
    def seconds(self) -> float:
        """What an evaluation with derivatives takes, about, on one core of an ordinary machine."""
        return float(_PER_NUMBER * self.n_levels * self.K * (self.K + self.products.p))

    def split(self, b: FloatArray, out: FloatArray | None = None) -> FloatArray:
        """(q, m), ordered by term and level → (K, m, levels)."""
        if out is None:
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
        last, key = self._last, theta.tobytes()  # other threads may put another in its place
        if last is None or last.key != key:
            last = self._last = self._factorize(theta, key)
        return last

    def _factorize(self, theta: FloatArray, key: bytes) -> Levels:
        K, factors = self.K, self.template.shifted_factors(theta)
        T = factors[0]
        if len(factors) > 1:
            T = np.zeros((K, K))
            for part, own in zip(self.parts, factors, strict=True):
                T[part, part] = own
        # One side after the other: where T is large, both at once would lose digits.
        half = (T.T @ self.A.reshape(K, -1)).reshape(self.A.shape)
        M = np.matmul(T.T, half)
        M.reshape(K * K, -1)[:: K + 1] += 1.0
        with np.errstate(all="ignore"):
            root, logdets = inverse_factors(M)
        logdet = float(logdets.sum())
        if not isfinite(logdet):
            raise NumericalError(FAILED)
        return Levels(key, factors, T, root, half, logdet)

    def border(self, response: Response) -> FloatArray:
        """[Z'WX Z'Wy] of every level, (K, p + 1, levels)."""
        last = self._border  # other threads may put another in its place
        if last is None or last[0] is not response:
            p = self.products.p
            B = np.empty((self.K, p + 1, self.n_levels))
            self.split(self.products.ZtX, B[:, :p])
            self.split(response.Zty[:, None], B[:, p:])
            last = self._border = (response, B)
        return last[1]

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        return self.solve_with(self.at(theta), response)[0]

    def solve_with(self, levels: Levels, response: Response) -> tuple[PLSSolution, FloatArray]:
        """The solution, and C = L⁻¹T'[Z'WX Z'Wy] of every level, (K, p + 1, levels)."""
        last = self._solved  # other threads may put another in its place
        if last is None or last[0] is not levels or last[1] is not response:
            last = self._solved = (levels, response, *self._solve(levels, response))
        return last[2:]

    def _solve(self, levels: Levels, response: Response) -> tuple[PLSSolution, FloatArray]:
        B = self.border(response)
        C = (levels.T.T @ B.reshape(self.K, -1)).reshape(B.shape)
        for part in parts_of(self.n_levels):
            C[..., part] = small_product(levels.root[..., part], C[..., part])
        CtC = np.matmul(C, C.swapaxes(1, 2)).sum(axis=0)
        return eliminate(levels.logdet, CtC, self.products, response), C

    def factor(self, theta: FloatArray) -> LevelFactor:
        levels = self.at(theta)
        return LevelFactor(self, levels.root, levels.logdet)

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
    root : (K, K, levels) array
    """

    def __init__(self, system: LevelSystem, root: FloatArray, logdet: float) -> None:
        self._system, self._root, self.logdet = system, root, logdet

    def solve(self, b: FloatArray) -> FloatArray:
        half = small_product(self._root, self._system.split(b.reshape(len(b), -1)))
        solved = small_product(self._root.swapaxes(0, 1), half)
        return self._system.join(solved).reshape(b.shape)

    def inverse_blocks(self) -> list[FloatArray]:
        own, parts = small_product(self._root.swapaxes(0, 1), self._root), self._system.parts
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
        self._levels = levels = system.at(theta)
        self.T = levels.factors
        solution, C = system.solve_with(levels, response)
        self.solution = solution
        self.s2 = solution.pwrss / system.products.df(reml) if sigma2 is None else sigma2
        # A = Z'V⁻¹X R_X⁻¹ beside v/s = Z'V⁻¹(y − Xβ)/s; and T' times these, B beside u/s.
        root = root_of_border(solution, self.s2)
        border, C = system.border(response), np.matmul(root.T, C)
        self._ends = np.empty((2, *border.shape))
        np.matmul(root.T, border, out=self._ends[0])
        self._P = small_product(levels.root, levels.half)
        small_product(self._P.swapaxes(0, 1), C, self._ends[1])
        self._ends[0] -= self._ends[1]
        small_product(levels.root.swapaxes(0, 1), C, self._ends[1])
        self._made: FloatArray | None = None
        self._FT: list[FloatArray] | None = None
        self._last: tuple[Sequence[FloatArray], AtOnce | None] | None = None

    @property
    def VX(self) -> FloatArray:
        return self._system.join(np.matmul(self.solution.RX.T, self._border.A))

    @property
    def _inner(self) -> FloatArray:
        """H = Z'V⁻¹Z of every level, X = HT and Y = T'HT = I − M⁻¹, (3, K, K, levels)."""
        out = self._made
        if out is None:
            root, P = self._levels.root, self._P
            out = np.empty((3, *P.shape))
            H, X, Y = out
            np.subtract(self._system.A, small_product(P.swapaxes(0, 1), P), out=H)
            # H T = A T M⁻¹ = P'L⁻¹, which loses no digits however large T is.
            small_product(P.swapaxes(0, 1), root, X)
            np.negative(small_product(root.swapaxes(0, 1), root), out=Y)
            Y.reshape(len(Y) ** 2, -1)[:: len(Y) + 1] += 1.0
            self._made = out  # complete: other threads may take it
        return out

    @property
    def _border(self) -> Border:
        """Z'V⁻¹X R_X⁻¹ and T' times it, of every level, (K, p, levels)."""
        A, B = self._ends[:, :, :-1]
        return Border(A, B)

    @property
    def _vu(self) -> FloatArray:
        """Σ vu'/s² over levels, (K, K)."""
        v, u = self._ends[:, :, -1]
        return np.asarray(v @ u.T)

    @property
    def FT(self) -> list[FloatArray]:
        if self._FT is None:
            self._FT = self._summed_FT()
        return self._FT

    def _summed_FT(self) -> list[FloatArray]:
        K = self._system.K
        out = self._inner[1].sum(axis=2)
        if self._reml:
            A, B = self._ends
            out -= A.reshape(K, -1) @ B.reshape(K, -1).T
        else:
            out -= self._vu
        return [out] if len(self.T) == 1 else [out[part, part] for part in self._system.parts]

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        made = self._at_once(directions)
        if made is not None:
            return -self.s2 * made[0]
        sums = -2.0 * self.s2 * self._vu
        parts = [
            D.reshape(len(D), -1) @ sums[part, part].ravel()
            for part, D in zip(self._system.parts, directions, strict=True)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

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

    def _at_once(self, directions: Sequence[FloatArray]) -> AtOnce | None:
        """`pwrss_gradient`, `squares` and `traces` together; None where that would be too much."""
        last = self._last
        if last is None or last[0] is not directions:
            D, made = self._side_by_side(directions), None
            if len(D) >= self._system.K and is_cheap(self._system.products, True):
                made = at_once(self._inner, self._ends, self._reml, D)
            last = self._last = (directions, made)
        return last[1]

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        made = self._at_once(directions)
        if made is not None:
            return made[1]
        K, D, both = self._system.K, self._side_by_side(directions), self._ends[:, :, -1]
        v, u = both
        pairs = np.empty((3, K, K, u.shape[1]))
        np.multiply(u[:, None], u, out=pairs[0])
        np.multiply(v[:, None], 2.0 * u, out=pairs[1])
        np.multiply(v[:, None], v, out=pairs[2])
        out = sandwiches(self._inner, pairs, D)
        p = self._system.products.p
        if p:
            # X'V⁻¹Z E_i v = A'D_iu + B'D_i'v, summed over levels.
            A, B = self._border
            sums = np.matmul(A, u.T).transpose(0, 2, 1)
            sums = sums + np.matmul(B, v.T).transpose(2, 0, 1)
            XVZc = D.reshape(len(D), -1) @ sums.reshape(K * K, p)
            out -= XVZc @ XVZc.T
        return out

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        made = self._at_once(directions)
        if made is not None:
            return made[2]
        border = self._border if self._reml and self._system.products.p else None
        return traces_of_levels(self._inner, border, self._side_by_side(directions))

    def moment_estimate(self) -> FloatArray | None:
        system = self._system
        u = system.join(self._ends[1, :, -1:])[:, 0] * self.s2**0.5
        inverse = system.factor(self.theta).inverse_blocks()
        products, template = system.products, system.template
        return moment_estimate(products, template, self.theta, u, self.solution.pwrss, inverse)
