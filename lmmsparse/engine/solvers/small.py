"""Few random effects → penalized least squares on dense matrices, with as few calls as can be.

For some tens of random effects a product of dense matrices costs less than a call, so that what
counts is how few calls there are, whatever the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import solve_triangular
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import PLSSolution, eliminate, inverse_root
from lmmsparse.engine.traces import Border


class _Places:
    """Where the blocks of each term stand in a (q, q) matrix."""

    def __init__(self, products: CrossProducts) -> None:
        self.q = products.q
        self.blocks: list[tuple[IntArray, IntArray]] = []
        for a, k, n in zip(products.offsets, products.sizes, products.n_levels, strict=False):
            effects = a + np.arange(n)[:, None] * k + np.arange(k)
            self.blocks.append((effects[:, :, None], effects[:, None, :]))
        # The same for arrays with the matrix laid out flat.
        self.flat = [
            (rows * self.q + columns).reshape(len(rows), -1) for rows, columns in self.blocks
        ]

    def spread(self, factors: Sequence[FloatArray]) -> FloatArray:
        """One (k, k) matrix per term → all levels' blocks, (q, q)."""
        out = np.zeros(self.q * self.q)
        for flat, T in zip(self.flat, factors, strict=True):
            out[flat] = T.reshape(-1)
        return out.reshape(self.q, self.q)

    def spread_all(self, directions: Sequence[FloatArray]) -> FloatArray:
        """∂T per parameter → ∂Λ, (n_theta, q, q)."""
        out = np.zeros((sum(map(len, directions)), self.q * self.q))
        at = 0
        for flat, D in zip(self.flat, directions, strict=True):
            own = out[at : at + len(D)]
            own[:, flat] = D.reshape(len(D), 1, -1)
            at += len(D)
        return out.reshape(len(out), self.q, self.q)

    def summed(self, matrix: FloatArray) -> list[FloatArray]:
        """The sum of the levels' own blocks of a (q, q) matrix, (k, k) per term."""
        return [matrix[rows, columns].sum(axis=0) for rows, columns in self.blocks]


class SmallSystem:
    """`PLSSystem` of a model with few random effects."""

    def __init__(self, products: CrossProducts, template: LambdaTemplate) -> None:
        self.products, self.template = products, template
        self.places = _Places(products)
        self.A = products.dense
        self.Q = products.prior.dense(products.q)
        self.covariance = products.prior.solve(np.eye(products.q))
        self._last: SmallFactor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (SmallSystem, (self.products, self.template))

    def describe(self) -> str:
        return f"dense Cholesky of {self.products.q} random effects"

    def at(self, theta: FloatArray) -> SmallFactor:
        """The factorization at θ; the last one is kept."""
        last = self._last  # other threads may put another in its place
        if last is None or not np.array_equal(last.theta, theta):
            last = self._last = self._factorize(np.array(theta))
        return last

    def _factorize(self, theta: FloatArray) -> SmallFactor:
        Lambda = self.places.spread(self.template.shifted_factors(theta))
        # One side after the other: where T is large, both at once would lose digits.
        half = Lambda.T @ self.A
        M = half @ Lambda
        M += self.Q
        inverse, logdet = inverse_root(M)
        return SmallFactor(self, theta, Lambda, inverse, inverse @ half, logdet)

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        return self.solve_with(self.at(theta), response)

    def solve_with(self, factor: SmallFactor, response: Response) -> PLSSolution:
        """The solution from a factorization."""
        border = np.column_stack([self.products.ZtX, response.Zty])
        C = factor.inverse @ (factor.Lambda.T @ border)
        return eliminate(factor.logdet, C.T @ C, self.products, response)

    def factor(self, theta: FloatArray) -> SmallFactor:
        return self.at(theta)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> SmallPoint:
        return SmallPoint(self, theta, response, reml, sigma2)

    def with_products(self, products: CrossProducts) -> SmallSystem:
        return SmallSystem(products, self.template)


class SmallFactor:
    """`PLSFactor`: M = LL' with the inverse of L; never changes.

    Attributes
    ----------
    theta : (n_theta,) array
    Lambda, inverse, P : (q, q) arrays
        Λ, L⁻¹ and L⁻¹Λ'Z'WZ.
    """

    def __init__(
        self,
        system: SmallSystem,
        theta: FloatArray,
        Lambda: FloatArray,
        inverse: FloatArray,
        P: FloatArray,
        logdet: float,
    ) -> None:
        self._system, self.theta, self.Lambda = system, theta, Lambda
        self.inverse, self.P, self.logdet = inverse, P, logdet

    def solve(self, b: FloatArray) -> FloatArray:
        return np.asarray(self.inverse.T @ (self.inverse @ b))

    @cached_property
    def of_M(self) -> FloatArray:
        """M⁻¹, (q, q)."""
        return np.asarray(self.inverse.T @ self.inverse)

    def inverse_blocks(self) -> list[FloatArray]:
        products = self._system.products
        return [self.of_M[products.coordinates(pair)] for pair in products.pairs]


class SmallPoint:
    """A `Point` of a model with few random effects: the formulas of `GeneralPoint` as they stand.

    Parameters
    ----------
    theta : (n_theta,) array
    sigma2 : float, optional
        σ², profiled out if not given.
    """

    def __init__(
        self,
        system: SmallSystem,
        theta: FloatArray,
        response: Response,
        reml: bool,
        sigma2: float | None = None,
    ) -> None:
        self._system, self._reml, self.theta = system, reml, theta
        products = system.products
        self.T = system.template.shifted_factors(theta)
        self._factor = factor = system.at(theta)
        self.solution = solution = system.solve_with(factor, response)
        self.s2 = solution.pwrss / products.df(reml) if sigma2 is None else sigma2
        # Z'W(y − Xβ) beside Z'WX, what is solved for them, and Z'V⁻¹ of the same.
        p = products.p
        right = np.empty((products.q, p + 1))
        right[:, :p] = products.ZtX
        right[:, p] = response.Zty - products.ZtX @ solution.beta
        half = factor.inverse @ (factor.Lambda.T @ right)
        solved = factor.inverse.T @ half
        left = right - factor.P.T @ half
        self._spread_last: tuple[Sequence[FloatArray], FloatArray] | None = None
        self._u, self._v, self._UX, self._VX = solved[:, p], left[:, p], solved[:, :p], left[:, :p]

    @property
    def VX(self) -> FloatArray:
        return self._VX

    @cached_property
    def _border(self) -> Border:
        """Z'V⁻¹X R_X⁻¹ and Q⁻¹Λ' times it, (q, p)."""
        root = solve_triangular(self.solution.RX, np.eye(len(self.solution.RX)))
        return Border(self._VX @ root, self._UX @ root)

    @cached_property
    def _X(self) -> FloatArray:
        """HΛQ⁻¹ = Z'WZΛM⁻¹, which loses no digits however large T is."""
        return np.asarray(self._factor.P.T @ self._factor.inverse)

    @cached_property
    def _H(self) -> FloatArray:
        """Z'V⁻¹Z."""
        return np.asarray(self._system.A - self._factor.P.T @ self._factor.P)

    @cached_property
    def _Y(self) -> FloatArray:
        """Q⁻¹Λ'Z'V⁻¹ZΛQ⁻¹ = Q⁻¹ − M⁻¹."""
        return np.asarray(self._system.covariance - self._factor.of_M)

    @cached_property
    def FT(self) -> list[FloatArray]:
        # (Z'V⁻¹Z − vv'/s² − AA')ΛQ⁻¹, where Q⁻¹Λ'v = u and Q⁻¹Λ'A = B.
        inner = self._X - np.outer(self._v, self._u / self.s2)
        if self._reml and len(self.solution.RX):
            inner = inner - self._border.A @ self._border.B.T
        return self._system.places.summed(inner)

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        sums = self._system.places.summed(np.outer(self._v, self._u))
        return np.concatenate(
            [
                -2.0 * (D.reshape(len(D), -1) @ own.ravel())
                for own, D in zip(sums, directions, strict=True)
            ]
        )

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        D = self._spread(directions)
        # ∂(ΛQ⁻¹Λ') v = C + ΛQ⁻¹K with C = ∂Λ u and K = ∂Λ' v.
        C, K = (D @ self._u).T, (self._v @ D).T
        mixed = C.T @ self._X @ K
        out = C.T @ self._H @ C + K.T @ self._Y @ K + mixed + mixed.T
        if len(self.solution.RX):
            E = self._border.A.T @ C + self._border.B.T @ K
            out -= E.T @ E
        return np.asarray(out / self.s2)

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        D = self._spread(directions)
        H, X, Y = self._H, self._X, self._Y
        if self._reml and len(self.solution.RX):
            A, B = self._border
            H, X, Y = H - A @ A.T, X - A @ B.T, Y - B @ B.T
        # tr(HE_iHE_j) = 2 tr(X'D_iX'D_j) + 2 tr(HD_iYD_j').
        n = len(D)
        XD = np.matmul(X.T, D)
        out = XD.reshape(n, -1) @ XD.swapaxes(1, 2).reshape(n, -1).T
        out += np.matmul(np.matmul(H, D), Y).reshape(n, -1) @ D.reshape(n, -1).T
        return np.asarray(out + out.T)

    def _spread(self, directions: Sequence[FloatArray]) -> FloatArray:
        """∂Λ of every parameter; `squares` and `traces` are asked for the same ones."""
        last = self._spread_last
        if last is None or last[0] is not directions:
            last = self._spread_last = (directions, self._system.places.spread_all(directions))
        return last[1]

    def moment_estimate(self) -> FloatArray | None:
        products, template = self._system.products, self._system.template
        inverse = self._factor.inverse_blocks()
        return moment_estimate(
            products, template, self.theta, self._u, self.solution.pwrss, inverse
        )
