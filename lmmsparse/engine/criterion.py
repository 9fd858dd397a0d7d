"""θ → the profiled ML deviance or REML criterion, its exact gradient and a cheap Hessian.

β, u and σ are profiled out. The derivatives use one factor of M, the entries of M⁻¹ on the pattern
of Z'WZ and a handful of solves; nothing of size n appears.

References
----------
Bates, Mächler, Bolker & Walker (2015), Journal of Statistical Software 67(1), eqs. 34 and 41.
Gilmour, Thompson & Cullis (1995), Biometrics 51, 1440-1450 (average information).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi, sqrt
from typing import cast

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.memory import enough_memory
from lmmsparse.engine.covariance.tangents import (
    ALMOST_NOTHING,
    away_from_limits,
    changes_of_TT,
    curvatures,
    derivatives_of_T,
    of_full_rank,
    turned,
)
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.estimated_traces import estimated_traces
from lmmsparse.engine.linalg import solve, solve_triangular
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import (
    EstimatedSystem,
    Modes,
    PLSSolution,
    PLSSystem,
    Point,
)
from lmmsparse.engine.traces import is_cheap, is_possible
from lmmsparse.optimize import Derivatives

_EPS = float(np.finfo(np.float64).eps)
_LONG, _LONG_EXACT = 1.0, 0.1  # seconds of an evaluation
_ENOUGH = 1e-6  # a fall of an estimated criterion that is not worth another evaluation


def rounding_error(df: int, left: float | FloatArray) -> FloatArray:
    """The rounding error of a criterion with r² = left · y'Wy: what two sums leave of each other.

    It stops searches, and where the model fits exactly it has no bound: hence the limit.
    """
    return np.minimum(1e-5, 2e-16 * df / np.asarray(left))


def lost_digits(n: int, size: float | FloatArray) -> FloatArray:
    """The rounding error of log|M|, where `size` is `ProfiledDeviance.largest_size`."""
    return np.asarray(2.0 * _EPS * n * np.square(size))


@dataclass(frozen=True, eq=False)
class ProfiledDeviance:
    """−2 log-likelihood (or restricted likelihood) as a function of θ alone.

    Parameters
    ----------
    held_sigma : float, optional
        σ, where it is not profiled out but held.

    Notes
    -----
    With r² the penalized residual sum of squares, M = Λ'Z'WZΛ + Q and Q = I where no covariance of
    levels is known (log|M| stands for log|M| − log|Q|),
    d(θ) = log|M| − Σ log w + n [1 + log(2π r²/n)] for ML, and
    d(θ) = log|M| + log|R_X'R_X| − Σ log w + (n − p) [1 + log(2π r²/(n − p))] for REML. With σ held,
    the last part is n (or n − p) log(2πσ²) + r²/σ².
    """

    system: PLSSystem
    template: LambdaTemplate
    products: CrossProducts
    response: Response
    reml: bool
    held_sigma: float | None = None

    @property
    def df(self) -> int:
        """N for ML, n − p for REML: what r² is divided by to give σ²."""
        return self.products.df(self.reml)

    def with_response(self, response: Response) -> ProfiledDeviance:
        """The same model for another response."""
        return replace(self, response=response)

    def with_reml(self, reml: bool) -> ProfiledDeviance:
        """The other criterion of the same model."""
        return replace(self, reml=reml)

    def solution(self, theta: FloatArray) -> PLSSolution:
        """The penalized least-squares solution at θ."""
        with enough_memory():
            return self.system.solve(np.asarray(theta, dtype=np.float64), self.response)

    def value_of(self, solution: PLSSolution) -> float:
        """The criterion from a solution."""
        if self.held_sigma is not None:
            return self._joint_value(solution, self.held_sigma**2)
        return self._profiled_value(solution)

    def _profiled_value(self, solution: PLSSolution) -> float:
        value = solution.logdet_M - self.products.prior.logdet - self.products.sum_log_weights
        value += self.df * (1.0 + log(2.0 * pi * solution.pwrss / self.df))
        if self.reml:
            value += solution.logdet_RX + self.products.basis.logdet
        return float(value)

    def __call__(self, theta: FloatArray) -> float:
        """The criterion at θ."""
        return self.value_of(self.solution(theta))

    def sigma2(self, solution: PLSSolution) -> float:
        """The residual variance that maximizes the (restricted) likelihood, or the one held."""
        return self.held_sigma**2 if self.held_sigma is not None else solution.pwrss / self.df

    def modes(self, theta: FloatArray) -> Modes:
        """Solve at θ and keep an independent factor with the conditional modes."""
        theta = np.asarray(theta, dtype=np.float64)
        if self._estimating is not None:
            return self._estimating.modes(theta, self.response)
        solution = self.solution(theta)
        factor = self.system.factor(theta)
        T = self.template.shifted_factors(theta)
        rhs = self.response.Zty - self.products.ZtX @ solution.beta
        u = factor.solve(self.template.multiply_transposed(T, rhs))
        b = self.template.multiply(T, u)
        return Modes(solution, factor, u, b, rhs - self.products.times(b))

    def gradient(
        self,
        theta: FloatArray,
        sigma2: float | None = None,
        directions: Sequence[FloatArray | None] | None = None,
    ) -> FloatArray:
        """∂d/∂θ, shape (n_theta,); with `sigma2` given, of the criterion with σ² held there.

        Parameters
        ----------
        theta : (n_theta,) array
        directions : sequence of (parameters, k, k) arrays or None, optional
            As for `derivatives`.
        """
        theta = np.asarray(theta, dtype=np.float64)
        point, D = self._point(theta, sigma2), derivatives_of_T(self.template, theta, directions)
        return self._gradient(theta, point, point.FT, D)

    def _point(self, theta: FloatArray, sigma2: float | None = None) -> Point:
        if sigma2 is None and self.held_sigma is not None:
            sigma2 = self.held_sigma**2
        with enough_memory():
            return self.system.point(theta, self.response, self.reml, sigma2)

    def border(self, theta: FloatArray) -> FloatArray:
        """Z'V⁻¹X in internal columns of X, (q, p)."""
        return np.asarray(self._point(np.asarray(theta, dtype=np.float64)).VX)

    def derivatives(
        self,
        theta: FloatArray,
        directions: Sequence[FloatArray | None] | None = None,
    ) -> Derivatives:
        """Value, gradient and Hessian at θ in one go.

        Parameters
        ----------
        theta : (n_theta,) array
        directions : sequence of (parameters, k, k) arrays or None, optional
            Per unstructured term, other directions in which to move T than its own entries.
        """
        theta = np.asarray(theta, dtype=np.float64)
        point = self._point(self._full_rank(theta))
        D = derivatives_of_T(self.template, theta, directions)
        there = turned(self.template, self.column_scales, theta, point.theta, D)
        F = self._second_moments(point)
        squares = point.squares(there)
        # Profiling σ² out takes the outer product off, per degree of freedom.
        slope = point.pwrss_gradient(there) / point.s2
        hessian = squares + curvatures(self.template, theta, F, directions)
        if self.held_sigma is None:
            hessian -= slope[:, None] * (slope / self.df)

        def second() -> FloatArray:
            exact = hessian + squares - point.traces(there)
            return np.asarray(0.5 * (exact + exact.T))

        return Derivatives(
            value=self.value_of(point.solution),
            gradient=self._gradient(theta, point, F, D),
            hessian=0.5 * (hessian + hessian.T),
            exact=second() if self._traces_are_cheap else None,
            second=second if self._traces_are_possible else None,
            noise=self._noise(point),
            by_gradient=self.estimated,
        )

    @cached_property
    def _estimating(self) -> EstimatedSystem | None:
        # Whether it is an `EstimatedSystem`, which takes long to ask.
        return cast(EstimatedSystem, self.system) if hasattr(self.system, "logdet_sd") else None

    @property
    def estimated(self) -> bool:
        """Whether log|M| is known but for a Monte Carlo error."""
        return self._estimating is not None

    def monte_carlo(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """The Monte Carlo standard deviation of the criterion and covariance of its gradient.

        Returns
        -------
        float and (n_theta, n_theta) array
            Zero where nothing is left to chance.
        """
        theta, d = np.asarray(theta, dtype=np.float64), self.template.n_theta
        if self._estimating is None:
            return 0.0, np.zeros((d, d))
        s2 = None if self.held_sigma is None else self.held_sigma**2
        at = self._full_rank(theta)
        point = self._estimating.point(at, self.response, self.reml, s2)
        D = derivatives_of_T(self.template, theta)
        own_part = []
        for own, at_point, T, way in zip(
            point.FT_errors, point.T, self.template.shifted_factors(theta), D, strict=True
        ):
            errors = own if np.array_equal(at_point, T) else own @ np.linalg.solve(at_point, T)
            own_part.append(2.0 * errors.reshape(len(own), -1) @ way.reshape(len(way), -1).T)
        gradients = np.concatenate(own_part, axis=1)
        s = len(gradients)
        return self._estimating.logdet_sd(at), gradients.T @ gradients / (s * (s - 1))

    def moment_estimate(self, theta: FloatArray) -> tuple[float, FloatArray | None]:
        """The criterion at θ, and a θ nearer to the optimum by the method of moments."""
        point = self._point(self._full_rank(theta))
        estimate = point.moment_estimate()
        held = None if estimate is None else self.template.with_held(estimate)
        return self.value_of(point.solution), held

    def joint_derivatives(self, theta: FloatArray, sigma: float) -> Derivatives:
        """The criterion with σ free: value, gradient and Hessian in (θ, log σ)."""
        theta = np.asarray(theta, dtype=np.float64)
        s2, d = sigma * sigma, self.template.n_theta
        point = self._point(self._full_rank(theta), s2)
        D = derivatives_of_T(self.template, theta)
        there = turned(self.template, self.column_scales, theta, point.theta, D)
        F = self._second_moments(point, s2)
        r2, slope = point.solution.pwrss, point.pwrss_gradient(there)
        gradient = np.append(self._gradient(theta, point, F, D), 2.0 * (self.df - r2 / s2))
        hessian = np.empty((d + 1, d + 1))
        hessian[:d, :d] = point.squares(there) + curvatures(self.template, theta, F)
        hessian[:d, d] = hessian[d, :d] = -2.0 * slope / s2
        hessian[d, d] = 4.0 * r2 / s2
        return Derivatives(self._joint_value(point.solution, s2), gradient, hessian)

    @property
    def costs_much(self) -> bool:
        """Whether differences of gradients would take much longer than the search."""
        long = _LONG_EXACT if self._traces_are_possible else _LONG
        return getattr(self.system, "seconds", 0.0) > long and not self.products.priors

    def observed_information(
        self, theta: FloatArray, sigma: float
    ) -> tuple[FloatArray, FloatArray | None]:
        """The Hessian with σ held, from one point instead of differences of gradients.

        With it what each random vector deviates by, (probes, n_theta, n_theta); None without any.
        """
        theta, s2 = np.asarray(theta, dtype=np.float64), sigma * sigma
        point = self._point(self._full_rank(theta), s2)
        D = derivatives_of_T(self.template, theta)
        there = turned(self.template, self.column_scales, theta, point.theta, D)
        F = self._second_moments(point, s2)
        hessian = 2.0 * point.squares(there) + curvatures(self.template, theta, F)
        if self._traces_are_possible:
            return hessian - point.traces(there), None
        RX, border = point.solution.RX, None
        if self.reml and len(RX):
            border = solve_triangular(RX, point.VX.T, transposed=True).T
        traces = estimated_traces(
            self.products,
            self.template,
            point.T,
            changes_of_TT(self.template, point.theta, there),
            self.system.factor(point.theta).solve,
            border,
        )
        mean = traces.mean(axis=0)
        return hessian - mean, mean - traces

    def joint_value(self, theta: FloatArray, sigma: float) -> float:
        """The criterion with σ free, at θ and σ."""
        return self._joint_value(self.solution(theta), sigma * sigma)

    def _joint_value(self, solution: PLSSolution, sigma2: float) -> float:
        # With σ at its best this is the profiled criterion; elsewhere it is higher by a known sum.
        q = solution.pwrss / (self.df * sigma2)
        return self._profiled_value(solution) + self.df * float(q - 1.0 - np.log(q))

    @cached_property
    def column_scales(self) -> list[FloatArray]:
        """Per term, 1 / the root mean square of each column: the natural unit of T's rows."""
        scales = []
        for t, gram in enumerate(self.products.grams):
            squares = np.diag(self.template.unshifted(t, gram))
            scales.append(np.sqrt(self.products.n / np.maximum(squares, 1e-300)))
        return scales

    def _full_rank(self, theta: FloatArray) -> FloatArray:
        """θ with columns of T that are zero moved a little; θ itself where there are none."""
        if not np.count_nonzero(np.abs(theta) < self._smallest):
            return theta
        return of_full_rank(self.template, self.column_scales, theta)

    @cached_property
    def _smallest(self) -> FloatArray:
        """Per element of θ below which size a column of T counts as zero; 0 off the diagonals."""
        out = np.zeros(self.template.n_theta)
        for part, scale, (rows, columns) in zip(
            self.template.slices, self.column_scales, self.template.places, strict=True
        ):
            out[part] = np.where(rows == columns, ALMOST_NOTHING * scale[rows], 0.0)
        return out

    @cached_property
    def _column_sizes(self) -> list[FloatArray]:
        """Per term, the root mean squares of the columns that cross-products are taken of."""
        return [np.sqrt(np.diag(gram) / self.products.n) for gram in self.products.grams]

    @cached_property
    def _traces_are_cheap(self) -> bool:
        return not self.estimated and is_cheap(self.products, self.reml)

    @cached_property
    def _traces_are_possible(self) -> bool:
        return not self.estimated and is_possible(self.products, self.reml)

    def largest_size(self, theta: FloatArray) -> float:
        """A bound on the size of the random effects, over σ, with the parts that cancel."""
        return self._largest_size(self.template.shifted_factors(theta))

    def _largest_size(self, factors: Sequence[FloatArray]) -> float:
        square = 0.0
        for T, size in zip(factors, self._column_sizes, strict=True):
            sizes = size @ np.abs(T)
            square += float(sizes @ sizes)
        return sqrt(square)

    def lost_digits(self, theta: FloatArray) -> float:
        """How far rounding of Z'WZ may have put log|M| off.

        Columns of T that are large, or large in parts that cancel, multiply the rounding errors
        of Z'WZ; M itself may be no larger than one.
        """
        return float(lost_digits(self.products.n, self.largest_size(theta)))

    def _noise(self, point: Point) -> float:
        of_sums = float(rounding_error(self.df, point.solution.pwrss / self.response.yty))
        of_blocks = float(lost_digits(self.products.n, self._largest_size(point.T)))
        return max(_ENOUGH if self.estimated else 0.0, of_sums + of_blocks)

    def _second_moments(self, point: Point, sigma2: float | None = None) -> list[FloatArray]:
        """Per term F, half the gradient in TT', (k, k)."""
        safe = away_from_limits(self.template, point.theta)
        if safe is not point.theta and not np.array_equal(safe, point.theta):
            point = self._point(safe, sigma2)
        out = []
        for FT, T in zip(point.FT, point.T, strict=True):
            F = FT / T if len(T) == 1 else solve(T.T, FT.T)
            out.append(0.5 * (F + F.T))
        return out

    def _gradient(
        self,
        theta: FloatArray,
        point: Point,
        F: Sequence[FloatArray],
        directions: Sequence[FloatArray],
    ) -> FloatArray:
        out = np.empty(self.template.n_theta)
        T = None
        if theta is not point.theta and not np.array_equal(theta, point.theta):
            T = self.template.shifted_factors(theta)
        for t, (part, D) in enumerate(zip(self.template.slices, directions, strict=True)):
            FT = point.FT[t] if T is None else F[t] @ T[t]
            out[part] = 2.0 * (D.reshape(len(D), -1) @ FT.ravel())
        return out
