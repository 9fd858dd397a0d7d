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

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.covariance import LambdaTemplate
from lmmsparse.crossproducts import CrossProducts, Response
from lmmsparse.linalg import solve_triangular
from lmmsparse.moments import moment_estimate
from lmmsparse.observed_information import is_cheap, traces
from lmmsparse.optimize import Derivatives
from lmmsparse.solvers.base import PLSFactor, PLSSolution, PLSSystem
from lmmsparse.tangents import (
    away_from_limits,
    changes_of_TT,
    curvatures,
    derivatives_of_T,
    of_full_rank,
)


@dataclass(frozen=True, eq=False)
class Modes:
    """The penalized least-squares solution at one θ with everything that hangs on the factor.

    Attributes
    ----------
    solution : PLSSolution
    factor : PLSFactor
    u : (q,) array
        Spherical random effects.
    b : (q,) array
        Random effects Λu.
    v : (q,) array
        Z'W times the residual, which is Z'V⁻¹(y − Xβ).
    """

    solution: PLSSolution
    factor: PLSFactor
    u: FloatArray
    b: FloatArray
    v: FloatArray


@dataclass(frozen=True, eq=False)
class ProfiledDeviance:
    """−2 log-likelihood (or restricted likelihood) as a function of θ alone.

    Parameters
    ----------
    system : PLSSystem
    template : LambdaTemplate
    products : CrossProducts
    response : Response
    reml : bool

    Notes
    -----
    With r² the penalized residual sum of squares and M = Λ'Z'WZΛ + I,
    d(θ) = log|M| − Σ log w + n [1 + log(2π r²/n)] for ML, and
    d(θ) = log|M| + log|R_X'R_X| − Σ log w + (n − p) [1 + log(2π r²/(n − p))] for REML.
    """

    system: PLSSystem
    template: LambdaTemplate
    products: CrossProducts
    response: Response
    reml: bool

    @property
    def df(self) -> int:
        """N for ML, n − p for REML: what r² is divided by to give σ²."""
        return self.products.n - (self.products.p if self.reml else 0)

    def with_response(self, response: Response) -> ProfiledDeviance:
        """The same model for another response."""
        return replace(self, response=response)

    def with_reml(self, reml: bool) -> ProfiledDeviance:
        """The other criterion of the same model."""
        return replace(self, reml=reml)

    def solution(self, theta: FloatArray) -> PLSSolution:
        """The penalized least-squares solution at θ."""
        return self.system.solve(np.asarray(theta, dtype=np.float64), self.response)

    def value_of(self, solution: PLSSolution) -> float:
        """The criterion from a solution."""
        value = solution.logdet_M - self.products.sum_log_weights
        value += self.df * (1.0 + np.log(2.0 * np.pi * solution.pwrss / self.df))
        if self.reml:
            value += solution.logdet_RX + self.products.basis.logdet
        return float(value)

    def __call__(self, theta: FloatArray) -> float:
        """The criterion at θ."""
        return self.value_of(self.solution(theta))

    def sigma2(self, solution: PLSSolution) -> float:
        """The residual variance that maximizes the (restricted) likelihood."""
        return solution.pwrss / self.df

    def modes(self, theta: FloatArray) -> Modes:
        """Solve at θ and keep an independent factor with the conditional modes."""
        theta = np.asarray(theta, dtype=np.float64)
        solution = self.solution(theta)
        factor = self.system.factor(theta)
        T = self.template.factors(theta)
        rhs = self.response.Zty - self.products.ZtX @ solution.beta
        u = factor.solve(self.template.multiply_transposed(T, rhs))
        b = self.template.multiply(T, u)
        return Modes(solution, factor, u, b, rhs - self.products.ZtZ @ b)

    def gradient(self, theta: FloatArray, sigma2: float | None = None) -> FloatArray:
        """∂d/∂θ, shape (n_theta,); with `sigma2` given, of the criterion with σ² held there."""
        theta = np.asarray(theta, dtype=np.float64)
        point, D = _Point(self, theta, sigma2), derivatives_of_T(self.template, theta)
        return self._gradient(theta, point, point.FT, D)

    def border(self, theta: FloatArray) -> FloatArray:
        """Z'V⁻¹X in internal columns of X, (q, p)."""
        return np.asarray(_Point(self, np.asarray(theta, dtype=np.float64)).VX)

    def derivatives(
        self,
        theta: FloatArray,
        directions: Sequence[FloatArray | None] | None = None,
        moments: bool = False,
    ) -> Derivatives:
        """Value, gradient and Hessian at θ in one go.

        Parameters
        ----------
        theta : (n_theta,) array
        directions : sequence of (parameters, k, k) arrays or None, optional
            Per unstructured term, other directions in which to move T than its own entries.
        moments : bool
            Propose a better θ by the method of moments.
        """
        theta = np.asarray(theta, dtype=np.float64)
        point = _Point(self, of_full_rank(self.template, self._column_scales, theta))
        D = derivatives_of_T(self.template, theta, directions)
        changes = changes_of_TT(self.template, theta, D)
        F = self._second_moments(point)
        squares = point.squares(changes)
        # Profiling σ² out takes the outer product off, per degree of freedom.
        slope = point.pwrss_gradient(changes) / point.s2
        curvature = curvatures(self.template, theta, F, directions)
        hessian = squares - np.outer(slope, slope) / self.df + curvature
        exact = None
        if self._traces_are_cheap:
            exact = hessian + squares - point.traces(changes)
            exact = 0.5 * (exact + exact.T)
        return Derivatives(
            value=self.value_of(point.modes.solution),
            gradient=self._gradient(theta, point, F, D),
            hessian=0.5 * (hessian + hessian.T),
            exact=exact,
            noise=self._noise(point.modes.solution),
            better=point.moment_estimate() if moments else None,
        )

    def joint_derivatives(self, theta: FloatArray, sigma: float) -> Derivatives:
        """The criterion with σ free: value, gradient and Hessian in (θ, log σ)."""
        theta = np.asarray(theta, dtype=np.float64)
        s2, d = sigma * sigma, self.template.n_theta
        point = _Point(self, of_full_rank(self.template, self._column_scales, theta), s2)
        D = derivatives_of_T(self.template, theta)
        changes = changes_of_TT(self.template, theta, D)
        F = self._second_moments(point, s2)
        r2, slope = point.modes.solution.pwrss, point.pwrss_gradient(changes)
        gradient = np.append(self._gradient(theta, point, F, D), 2.0 * (self.df - r2 / s2))
        hessian = np.empty((d + 1, d + 1))
        hessian[:d, :d] = point.squares(changes) + curvatures(self.template, theta, F)
        hessian[:d, d] = hessian[d, :d] = -2.0 * slope / s2
        hessian[d, d] = 4.0 * r2 / s2
        return Derivatives(self._joint_value(point.modes.solution, s2), gradient, hessian)

    def joint_value(self, theta: FloatArray, sigma: float) -> float:
        """The criterion with σ free, at θ and σ."""
        return self._joint_value(self.solution(theta), sigma * sigma)

    def _joint_value(self, solution: PLSSolution, sigma2: float) -> float:
        # With σ at its best this is the profiled criterion; elsewhere it is higher by a known sum.
        q = solution.pwrss / (self.df * sigma2)
        return self.value_of(solution) + self.df * float(q - 1.0 - np.log(q))

    @cached_property
    def _column_scales(self) -> list[FloatArray]:
        """Per term, 1 / the root mean square of each column: the natural unit of T's rows."""
        scales = []
        for pair in self.products.pairs:
            if pair.s == pair.t:
                squares = np.einsum("mii->i", pair.values)
                scales.append(np.sqrt(self.products.n / np.maximum(squares, 1e-300)))
        return scales

    @cached_property
    def _traces_are_cheap(self) -> bool:
        return is_cheap(self.products, self.reml)

    def _noise(self, solution: PLSSolution) -> float:
        """Rounding error of the criterion: r² is what two large sums leave of each other."""
        return min(1e-5, 2e-16 * self.df * self.response.yty / solution.pwrss)

    def _second_moments(self, point: _Point, sigma2: float | None = None) -> list[FloatArray]:
        """Per term F, half the gradient in TT', (k, k)."""
        safe = away_from_limits(self.template, point.theta)
        if not np.array_equal(safe, point.theta):
            point = _Point(self, safe, sigma2)
        out = []
        for FT, T in zip(point.FT, point.T, strict=True):
            F = np.linalg.solve(T.T, FT.T).T
            out.append(0.5 * (F + F.T))
        return out

    def _gradient(
        self,
        theta: FloatArray,
        point: _Point,
        F: Sequence[FloatArray],
        directions: Sequence[FloatArray],
    ) -> FloatArray:
        out = np.empty(self.template.n_theta)
        moved = not np.array_equal(theta, point.theta)
        T = self.template.factors(theta)
        for t, (part, D) in enumerate(zip(self.template.slices, directions, strict=True)):
            FT = F[t] @ T[t] if moved else point.FT[t]
            out[part] = 2.0 * (D.reshape(len(D), -1) @ FT.ravel())
        return out


class _Point:
    """Everything the derivatives need at one θ."""

    def __init__(
        self, objective: ProfiledDeviance, theta: FloatArray, sigma2: float | None = None
    ) -> None:
        self._objective = objective
        self.theta = theta
        products, template = objective.products, objective.template
        self.T = template.factors(theta)
        solution, factor = objective.solution(theta), objective.system.factor(theta)
        self.s2 = objective.sigma2(solution) if sigma2 is None else sigma2
        # One solve and one product for u and U_X together.
        p = products.p
        right = np.empty((products.q, p + 1))
        right[:, :p] = products.ZtX
        right[:, p] = objective.response.Zty - products.ZtX @ solution.beta
        solved = factor.solve(template.multiply_transposed(self.T, right))
        effects = template.multiply(self.T, solved)
        left = right - products.ZtZ @ effects
        self.modes = Modes(solution, factor, solved[:, p], effects[:, p], left[:, p])
        self._UX, self.VX = solved[:, :p], left[:, :p]
        RX = solution.RX
        self._VXR = self.VX
        if len(RX):
            self._VXR = solve_triangular(RX, self.VX.T, transposed=True).T

    @cached_property
    def inverse(self) -> list[FloatArray]:
        """M⁻¹ where Z'WZ has blocks."""
        return self.modes.factor.inverse_blocks()

    @cached_property
    def FT(self) -> list[FloatArray]:
        """Per term F T with F = Σ_levels of [Z'V⁻¹Z − vv'/s² (− the X part for REML)]_ℓℓ."""
        products, template = self._objective.products, self._objective.template
        out = [np.zeros((k, k)) for k in products.sizes]
        for pair, S in zip(products.pairs, self.inverse, strict=True):
            # Σ_ℓ (Z'WZ Λ M⁻¹)_ℓℓ, collected from every stored block and its transpose.
            BT = np.matmul(pair.values, self.T[pair.t])
            out[pair.s] += np.tensordot(BT, S, axes=([0, 2], [0, 2]))
            if pair.s != pair.t:
                TB = np.matmul(self.T[pair.s].T, pair.values)
                out[pair.t] += np.tensordot(TB, S, axes=([0, 1], [0, 1]))
        for t, (k, a, z) in enumerate(
            zip(products.sizes, template.offsets[:-1], template.offsets[1:], strict=True)
        ):
            v = self.modes.v[a:z].reshape(-1, k)
            minus = v.T @ v / self.s2
            if self._objective.reml:
                A = self._VXR[a:z].reshape(len(v), k, products.p)
                minus += np.tensordot(A, A, axes=([0, 2], [0, 2]))
            out[t] -= minus @ self.T[t]
        return out

    def pwrss_gradient(self, changes: Sequence[FloatArray]) -> FloatArray:
        """∂r² = −Σ_levels v' ∂(TT') v, (n_theta,)."""
        template = self._objective.template
        out = np.empty(template.n_theta)
        for t, (part, E) in enumerate(zip(template.slices, changes, strict=True)):
            v = self.modes.v[template.offsets[t] : template.offsets[t + 1]]
            v = v.reshape(-1, E.shape[1])
            out[part] = -(E.reshape(len(E), -1) @ (v.T @ v).ravel())
        return out

    def squares(self, changes: Sequence[FloatArray]) -> FloatArray:
        """Average information with σ² held: y'P V_i P V_j P y / s², (n_theta, n_theta)."""
        products, template = self._objective.products, self._objective.template
        C = np.zeros((products.q, template.n_theta))
        for t, (part, E) in enumerate(zip(template.slices, changes, strict=True)):
            # ∂(ΛΛ') v, level by level.
            a, z = template.offsets[t], template.offsets[t + 1]
            columns = self.modes.v[a:z].reshape(-1, E.shape[1]) @ E.transpose(2, 1, 0).reshape(
                E.shape[1], -1
            )
            C[a:z, part] = columns.reshape(z - a, len(E))
        GC = products.ZtZ @ C
        LtGC = template.multiply_transposed(self.T, GC)
        out = C.T @ GC - LtGC.T @ self.modes.factor.solve(LtGC)
        if products.p:
            E = products.ZtX.T @ C - self._UX.T @ LtGC
            E = solve_triangular(self.modes.solution.RX, E, transposed=True)
            out -= E.T @ E
        return np.asarray(out / self.s2)

    def traces(self, changes: Sequence[FloatArray]) -> FloatArray:
        """tr(P V_i P V_j), (n_theta, n_theta)."""
        border = self._VXR if self._objective.reml else None
        products, solve = self._objective.products, self.modes.factor.solve
        return traces(products, self.T, changes, self.inverse, solve, border)

    def moment_estimate(self) -> FloatArray | None:
        """A better θ by the method of moments."""
        modes, objective = self.modes, self._objective
        return moment_estimate(
            objective.products,
            objective.template,
            self.theta,
            modes.u,
            modes.solution.pwrss,
            self.inverse,
        )
