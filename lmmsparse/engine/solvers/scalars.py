"""Few random effects, one per level of each term → penalized least squares on dense matrices.

Λ is diagonal, so that it and its derivatives scale rows and columns, and what is summed over the
levels of terms is summed by one product of small matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import PLSSolution, eliminate, inverse_root, root_of_border


class ScalarFactor:
    """`PLSFactor`: M = LL' with the inverse of L; never changes.

    Attributes
    ----------
    theta : (n_theta,) array
    T : list of (1, 1) arrays
    scale : (q,) array
        The diagonal of Λ.
    inverse, P : (q, q) arrays
        L⁻¹ and L⁻¹Λ'Z'WZ.
    """

    def __init__(
        self,
        products: CrossProducts,
        theta: FloatArray,
        T: list[FloatArray],
        scale: FloatArray,
        inverse: FloatArray,
        P: FloatArray,
        logdet: float,
    ) -> None:
        self._products, self.theta, self.T, self.scale = products, theta, T, scale
        self.inverse, self.P, self.logdet = inverse, P, logdet

    def solve(self, b: FloatArray) -> FloatArray:
        return np.asarray(self.inverse.T @ (self.inverse @ b))

    @cached_property
    def of_M(self) -> FloatArray:
        """M⁻¹, (q, q)."""
        return np.asarray(self.inverse.T @ self.inverse)

    def inverse_blocks(self) -> list[FloatArray]:
        products = self._products
        return [self.of_M[products.coordinates(pair)] for pair in products.pairs]


class ScalarSystem:
    """`PLSSystem` of a model with few random effects, one per level of each term."""

    def __init__(self, products: CrossProducts, template: LambdaTemplate) -> None:
        self.products, self.template = products, template
        self.A = products.dense
        self.Q = products.prior.dense(products.q)
        self.covariance = products.prior.solve(np.eye(products.q))
        self.term = np.repeat(np.arange(len(products.sizes)), products.n_levels)
        # Which effects are of which term, (q, terms).
        self.members = np.eye(len(products.sizes))[self.term]
        self._last: ScalarFactor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (ScalarSystem, (self.products, self.template))

    def describe(self) -> str:
        return f"dense Cholesky of {self.products.q} random effects"

    def at(self, theta: FloatArray) -> ScalarFactor:
        """The factorization at θ; the last one is kept."""
        last = self._last  # other threads may put another in its place
        if last is None or not np.array_equal(last.theta, theta):
            last = self._last = self._factorize(np.array(theta))
        return last

    def _factorize(self, theta: FloatArray) -> ScalarFactor:
        T = self.template.shifted_factors(theta)
        scale = np.concatenate(T)[self.term, 0]
        half = scale[:, None] * self.A
        M = half * scale
        M += self.Q
        inverse, logdet = inverse_root(M)
        return ScalarFactor(self.products, theta, T, scale, inverse, inverse @ half, logdet)

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        return self.solve_with(self.at(theta), response).solution

    def solve_with(self, factor: ScalarFactor, response: Response) -> _Solved:
        """The solution from a factorization."""
        p = self.products.p
        border = np.empty((self.products.q, p + 1))
        border[:, :p], border[:, p] = self.products.ZtX, response.Zty
        C = factor.inverse @ (factor.scale[:, None] * border)
        solution = eliminate(factor.logdet, C.T @ C, self.products, response)
        return _Solved(solution, border, C)

    def factor(self, theta: FloatArray) -> ScalarFactor:
        return self.at(theta)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> ScalarPoint:
        return ScalarPoint(self, theta, response, reml, sigma2)

    def with_products(self, products: CrossProducts) -> ScalarSystem:
        return ScalarSystem(products, self.template)


class _Solved(NamedTuple):
    """A solution, Z'W[X y] and C = L⁻¹Λ' times it, (q, p + 1) each."""

    solution: PLSSolution
    border: FloatArray
    C: FloatArray


class ScalarPoint:
    """A `Point` of a model with few random effects, one per level of each term.

    Parameters
    ----------
    theta : (n_theta,) array
    sigma2 : float, optional
        σ², profiled out if not given.

    Notes
    -----
    The same quantities as `GeneralPoint`, where ∂Λ is an element of θ's direction times the
    identity of a term's levels.
    """

    def __init__(
        self,
        system: ScalarSystem,
        theta: FloatArray,
        response: Response,
        reml: bool,
        sigma2: float | None = None,
    ) -> None:
        self._system, self._reml, self.theta = system, reml, theta
        self._factor = factor = system.at(theta)
        self.T = factor.T
        self.solution, border, C = system.solve_with(factor, response)
        self.s2 = self.solution.pwrss / system.products.df(reml) if sigma2 is None else sigma2
        # Z'V⁻¹X R_X⁻¹ beside v/s = Z'V⁻¹(y − Xβ)/s; and Q⁻¹Λ' times these, B beside u/s.
        left, root = border - factor.P.T @ C, root_of_border(self.solution, self.s2)
        self._VX, self._A, self._B = left[:, :-1], left @ root, factor.inverse.T @ (C @ root)

    @property
    def VX(self) -> FloatArray:
        return self._VX

    @cached_property
    def _X(self) -> FloatArray:
        """HΛQ⁻¹ = Z'WZΛM⁻¹ with H = Z'V⁻¹Z, which loses no digits however large Λ is."""
        return np.asarray(self._factor.P.T @ self._factor.inverse)

    @cached_property
    def _H(self) -> FloatArray:
        return np.asarray(self._system.A - self._factor.P.T @ self._factor.P)

    @cached_property
    def _Y(self) -> FloatArray:
        """Q⁻¹Λ'HΛQ⁻¹ = Q⁻¹ − M⁻¹."""
        return np.asarray(self._system.covariance - self._factor.of_M)

    @cached_property
    def FT(self) -> list[FloatArray]:
        A, B = (self._A, self._B) if self._reml else (self._A[:, -1:], self._B[:, -1:])
        own = self._X.diagonal() - np.einsum("qp,qp->q", A, B)
        return list((own @ self._system.members)[:, None, None])

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        vu = (self._A[:, -1] * self._B[:, -1]) @ self._system.members
        return np.asarray(-2.0 * self.s2 * vu * _lengths(directions))

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        # ∂(ΛQ⁻¹Λ') v = C + ΛQ⁻¹K with C = ∂Λ u and K = ∂Λ' v.
        ways = self._system.members * _lengths(directions)
        C, K = self._B[:, -1:] * ways, self._A[:, -1:] * ways
        mixed = C.T @ (self._X @ K)
        out = C.T @ (self._H @ C) + K.T @ (self._Y @ K) + mixed + mixed.T
        E = self._A[:, :-1].T @ C + self._B[:, :-1].T @ K
        return np.asarray(out - E.T @ E)

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        H, X, Y = self._H, self._X, self._Y
        if self._reml and self._system.products.p:
            A, B = self._A[:, :-1], self._B[:, :-1]
            H, X, Y = H - A @ A.T, X - A @ B.T, Y - B @ B.T
        # tr(HE_iHE_j) = 2 tr(X'D_iX'D_j) + 2 tr(HD_iYD_j').
        ways = self._system.members * _lengths(directions)
        return np.asarray(2.0 * (ways.T @ (X * X.T + H * Y) @ ways))

    def moment_estimate(self) -> FloatArray | None:
        products, template = self._system.products, self._system.template
        u, inverse = self._B[:, -1] * self.s2**0.5, self._factor.inverse_blocks()
        return moment_estimate(products, template, self.theta, u, self.solution.pwrss, inverse)


def _lengths(directions: Sequence[FloatArray]) -> FloatArray:
    """∂T of every term as one number each, (terms,)."""
    return np.concatenate(directions).ravel()
