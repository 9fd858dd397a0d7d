"""What a penalized-least-squares solver promises, and the numbers it returns.

A *system* is the linear algebra of one model: M(θ) = Λ'Z'WZΛ + Q and its borders, with Q the
prior precision of the random effects (the identity where no covariance of levels is known). It is
built once from cross-products and asked again and again at different θ; whatever it overwrites on
the way never leaves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.linalg import lapack

from lmmsparse.common.arrays import FloatArray, ReadOnly
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import solve_triangular
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response

FAILED = (
    "The penalized normal equations could not be factored: a value is not finite or far too large. "
    "Check predictors and weights for extreme values."
)


@dataclass(frozen=True, eq=False)
class PLSSolution(ReadOnly):
    """The penalized least-squares problem solved at one θ.

    Attributes
    ----------
    logdet_M : float
        log det(Λ'Z'WZΛ + Q).
    RX : (p, p) array
        Upper triangular, R_X'R_X = X'V⁻¹X with V = W⁻¹ + ZΛΛ'Z' (internal columns of X).
    beta : (p,) array
        Fixed effects, internal coordinates, without `Response.beta0`.
    pwrss : float
        Penalized residual sum of squares r².
    """

    logdet_M: float
    RX: FloatArray
    beta: FloatArray
    pwrss: float

    @property
    def logdet_RX(self) -> float:
        """Log det(R_X'R_X)."""
        return 2.0 * float(np.log(self.RX.diagonal()).sum())


class PLSFactor(Protocol):
    """A factorization of M at one θ that stays valid (it shares nothing with its system)."""

    @property
    def logdet(self) -> float:
        """log|M|."""
        ...

    def solve(self, b: FloatArray) -> FloatArray:
        """M⁻¹ b for b of shape (q,) or (q, m)."""
        ...

    def inverse_blocks(self) -> list[FloatArray]:
        """The blocks of M⁻¹ where Z'WZ has blocks: per pair of terms an (m, k_s, k_t) array."""
        ...


@dataclass(frozen=True, eq=False)
class Modes(ReadOnly):
    """The penalized least-squares solution at one θ with everything that hangs on the factor.

    Attributes
    ----------
    u : (q,) array
        Spherical random effects.
    b : (q,) array
        Random effects Λu, of the columns that cross-products are taken of: Sb where these are
        shifted (`Fit.b` is b itself).
    v : (q,) array
        Z'W times the residual, which is Z'V⁻¹(y − Xβ), of the same columns.
    """

    solution: PLSSolution
    factor: PLSFactor
    u: FloatArray
    b: FloatArray
    v: FloatArray


class Point(Protocol):
    """Everything the derivatives need at one θ.

    Attributes
    ----------
    theta : (n_theta,) array
    T : list of (k, k) arrays
        Of every term, for the columns that the cross-products are taken of.
    s2 : float
        σ², as given or as profiled out.
    """

    theta: FloatArray
    T: list[FloatArray]
    s2: float
    solution: PLSSolution

    @property
    def VX(self) -> FloatArray:
        """Z'V⁻¹X in internal columns of X, (q, p)."""
        ...

    @property
    def FT(self) -> list[FloatArray]:
        """Per term F T with F = Σ_levels of [Z'V⁻¹Z − vv'/s² (− the X part for REML)]_ℓℓ."""
        ...

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        """∂r² = −2 Σ_levels v' ∂T u, (n_theta,)."""
        ...

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        """Average information with σ² held: y'P V_i P V_j P y / s², (n_theta, n_theta)."""
        ...

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        """tr(P V_i P V_j), (n_theta, n_theta)."""
        ...

    def moment_estimate(self) -> FloatArray | None:
        """A better θ by the method of moments."""
        ...


class PLSSystem(Protocol):
    """The linear algebra of one model."""

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution: ...
    def factor(self, theta: FloatArray) -> PLSFactor: ...
    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> Point:
        """What derivatives need at θ; σ² is profiled out if not given."""
        ...

    def with_products(self, products: CrossProducts) -> PLSSystem:
        """The same linear algebra for other numbers in the same blocks."""
        ...

    def describe(self) -> str:
        """One line: which algebra, in which order, how large."""
        ...


@runtime_checkable
class EstimatedFactor(PLSFactor, Protocol):
    """A `PLSFactor` that has estimates of some blocks of M⁻¹, and not the others."""

    def own_blocks(self, terms: Sequence[int]) -> FloatArray:
        """M⁻¹'s blocks of every level of terms that share a factor, (levels, K, K)."""
        ...


class EstimatedPoint(Point, Protocol):
    """A `Point` whose F T is estimated from random vectors."""

    @property
    def FT_errors(self) -> list[FloatArray]:
        """Per term the errors of the single vectors, of whose mean F T has the error, (s, k, k)."""
        ...


@runtime_checkable
class EstimatedSystem(PLSSystem, Protocol):
    """A system that estimates log|M| and traces from random vectors, the same at every θ.

    Solutions are exact, so that β, modes and everything else that the data tell are.
    """

    def modes(self, theta: FloatArray, response: Response) -> Modes:
        """The solution at θ with the conditional modes."""
        ...

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> EstimatedPoint: ...

    def logdet_sd(self, theta: FloatArray) -> float:
        """The Monte Carlo standard deviation of log|M|."""
        ...

    def pilot_sd(self, theta: FloatArray) -> float:
        """About what `logdet_sd` would be, at a fraction of its cost."""
        ...

    def by(self, solver: PLSSolver) -> EstimatedSystem:
        """The same cross-products, arranged already, for another solver of this kind."""
        ...


class PLSSolver(Protocol):
    """A choice of linear algebra: builds a system for given cross-products.

    One whose systems have `CrossProducts.prior` in M says so by an attribute `known_covariances`,
    True; others are refused where covariances of levels are known.
    """

    def build(self, products: CrossProducts, template: LambdaTemplate) -> PLSSystem: ...


def inverse_root(M: FloatArray) -> tuple[FloatArray, float]:
    """L⁻¹ of M = LL', and log|M|, for a small dense M.

    Raises
    ------
    NumericalError
        If M is not positive definite, or its factor is not finite.
    """
    L, info = lapack.dpotrf(M, lower=1, clean=1)
    if info == 0:
        inverse, info = lapack.dtrtri(L, lower=1)
    if info != 0 or not np.isfinite(inverse).all():
        raise NumericalError(FAILED)
    logdet = 2.0 * float(np.log(L.diagonal()).sum())
    if not isfinite(logdet):
        raise NumericalError(FAILED)
    return inverse, logdet


def eliminate(
    logdet_M: float, CtC: FloatArray, products: CrossProducts, response: Response
) -> PLSSolution:
    """Finish the solution from C'C, where C = L⁻¹PΛ'[Z'WX  Z'W(y − o)], shape (p + 1, p + 1).

    The remainder [X'WX X'Wy; · y'Wy] − C'C has the Cholesky factor [R_X c_β; · r].
    """
    p = products.p
    full = np.empty((p + 1, p + 1))
    full[:p, :p] = products.XtX
    full[:p, p] = full[p, :p] = response.Xty
    full[p, p] = response.yty
    full -= CtC
    R, info = lapack.dpotrf(full, overwrite_a=1)  # of the upper triangle
    if 0 < info <= p:
        raise NumericalError(
            "X'V⁻¹X is not positive definite at this θ. The columns of the fixed-effects "
            "matrix are (nearly) linearly dependent once the random effects are accounted "
            "for. Remove or recode fixed effects that repeat a grouping factor."
        )
    pwrss = float(R[p, p]) ** 2
    if info or not pwrss > 0:
        raise NumericalError(
            "The residual sum of squares is zero. The model fits the data exactly, so that the "
            "residual variance cannot be estimated. Check the response for values that are an "
            "exact function of the predictors."
        )
    RX = R[:p, :p]
    return PLSSolution(logdet_M, RX, solve_triangular(RX, R[:p, p]), pwrss)


def root_of_border(solution: PLSSolution, s2: float) -> FloatArray:
    """What makes [X R_X⁻¹  (y − Xβ)/s] of [X y], (p + 1, p + 1)."""
    p = len(solution.RX)
    out = np.zeros((p + 1, p + 1))
    by_s = s2**-0.5
    if p:
        out[:p, :p], _ = lapack.dtrtri(solution.RX)
        out[:p, p] = -by_s * solution.beta
    out[p, p] = by_s
    return out
