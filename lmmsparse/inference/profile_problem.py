"""ML fit and one parameter → the least deviance with that parameter held at a value.

All searches run in the standardized coordinates of θ. A standard deviation is held by letting
σ = value / ‖row of T‖; σ itself by holding it; a correlation, and a standard deviation of zero, by
linear constraints on θ; a fixed effect by moving its column into the offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.linalg as sla

from lmmsparse._types import FloatArray
from lmmsparse.covariance import LambdaTemplate
from lmmsparse.errors import NumericalError
from lmmsparse.fit import Fit
from lmmsparse.objective import ProfiledDeviance
from lmmsparse.optimize import Bounds, Derivatives, Objective, TrustRegion
from lmmsparse.search import StandardizedObjective

_SEARCH = TrustRegion(tol=1e-9, max_eval=200)


@dataclass(frozen=True, eq=False)
class Point:
    """The best model with one parameter held.

    Attributes
    ----------
    value : float
        What the parameter is held at.
    deviance : float
    x : (n_theta,) array
        Standardized θ.
    """

    value: float
    deviance: float
    x: FloatArray


class Problem(Protocol):
    """One parameter to be held.

    Attributes
    ----------
    lower, upper : float
        Its bounds.
    closed : bool
        Whether the lower bound itself is possible.
    scale : float
        Size of a first step.
    """

    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...
    @property
    def closed(self) -> bool: ...
    @property
    def scale(self) -> float: ...

    def best(self) -> Point:
        """The optimum without any constraint."""
        ...

    def solve(self, value: float, x: FloatArray) -> Point:
        """The optimum with the parameter held at `value`, searched from x."""
        ...

    def estimates(self, point: Point) -> tuple[FloatArray, float, FloatArray]:
        """θ, σ and the fixed effects at a point."""
        ...


def _minimize(objective: Objective, start: FloatArray, mirrors: LambdaTemplate | None) -> Point:
    """Search without bounds; the point is in the coordinates of the search."""
    free = np.full(len(start), np.inf)
    bounds = Bounds(-free, free, mirrors.mirrors if mirrors is not None else ())
    found = _SEARCH.minimize(objective, start, bounds)
    if not np.isfinite(found.value):
        raise NumericalError(
            "The deviance could not be evaluated while a parameter was held fixed. The model may "
            "be close to fitting the data exactly. Check the data, or use method='wald'."
        )
    return Point(np.nan, found.value, found.x)


@dataclass(frozen=True, eq=False)
class _Restricted:
    """The profiled deviance where linear functions of θ are zero: x = N y."""

    scaled: StandardizedObjective
    N: FloatArray

    def __call__(self, y: FloatArray) -> float:
        return self.scaled(self.N @ y)

    def derivatives(self, y: FloatArray) -> Derivatives:
        at = self.scaled.derivatives(self.N @ y)
        return Derivatives(at.value, self.N.T @ at.gradient, self.N.T @ at.hessian @ self.N)


def _restricted(scaled: StandardizedObjective, C: FloatArray, x: FloatArray) -> Point:
    """Minimize the profiled deviance subject to Cθ = 0, (m, n_theta)."""
    N = sla.null_space(C @ scaled.to_theta(np.eye(C.shape[1])))
    if N.shape[1] == 0:
        origin = np.zeros(len(x))
        return Point(np.nan, scaled(origin), origin)
    found = _minimize(_Restricted(scaled, N), N.T @ x, None)
    return replace(found, x=N @ found.x)


@dataclass(frozen=True, eq=False)
class _SigmaHeld:
    """The deviance in x with σ a function of θ given by its logarithm and two derivatives."""

    objective: ProfiledDeviance
    to_theta: FloatArray
    log_sigma: Callable[[FloatArray], tuple[float, FloatArray, FloatArray]]

    def __call__(self, x: FloatArray) -> float:
        theta = self.to_theta @ x
        return self.objective.joint_value(theta, float(np.exp(self.log_sigma(theta)[0])))

    def derivatives(self, x: FloatArray) -> Derivatives:
        theta = self.to_theta @ x
        tau, slope, bend = self.log_sigma(theta)
        at = self.objective.joint_derivatives(theta, float(np.exp(tau)))
        g, H = at.gradient, at.hessian
        cross = np.outer(H[:-1, -1], slope)
        gradient = g[:-1] + g[-1] * slope
        hessian = H[:-1, :-1] + cross + cross.T
        hessian = hessian + H[-1, -1] * np.outer(slope, slope) + g[-1] * bend
        J = self.to_theta
        return Derivatives(at.value, J.T @ gradient, J.T @ hessian @ J)


@dataclass(frozen=True, eq=False)
class _OfTheta:
    """What all parameters other than fixed effects share: an ML objective and its optimum θ."""

    objective: ProfiledDeviance
    theta: FloatArray

    @cached_property
    def scaled(self) -> StandardizedObjective:
        return StandardizedObjective(self.objective)

    @cached_property
    def to_theta(self) -> FloatArray:
        return self.scaled.to_theta(np.eye(len(self.theta)))

    @cached_property
    def sigma(self) -> float:
        """σ at the optimum."""
        return float(np.sqrt(self.objective.sigma2(self.objective.solution(self.theta))))

    @property
    def estimate(self) -> float:
        raise NotImplementedError

    @property
    def scale(self) -> float:
        return 0.05

    def held_sigma(self, theta: FloatArray, value: float) -> float | None:
        """σ where the parameter determines it; None where it is profiled out."""
        return None

    def best(self) -> Point:
        deviance = self.objective(self.theta)
        return Point(self.estimate, deviance, self.scaled.to_internal(self.theta))

    def user_theta(self, theta: FloatArray) -> FloatArray:
        """θ in the order of the fit."""
        return theta

    def estimates(self, point: Point) -> tuple[FloatArray, float, FloatArray]:
        theta = self.scaled.to_theta(point.x)
        solution = self.objective.solution(theta)
        sigma = self.held_sigma(theta, point.value)
        if sigma is None:
            sigma = float(np.sqrt(self.objective.sigma2(solution)))
        internal = self.objective.response.beta0 + solution.beta
        beta = self.objective.products.basis.coefficients(internal)
        return self.user_theta(theta), sigma, beta


@dataclass(frozen=True, eq=False)
class ResidualDeviation(_OfTheta):
    """σ held."""

    lower: float = 0.0
    upper: float = np.inf
    closed: bool = False

    @property
    def estimate(self) -> float:
        return self.sigma

    @property
    def scale(self) -> float:
        return 0.3 * self.sigma / float(np.sqrt(self.objective.products.n))

    def held_sigma(self, theta: FloatArray, value: float) -> float | None:
        return value

    def solve(self, value: float, x: FloatArray) -> Point:
        d = len(self.theta)
        held = (float(np.log(value)), np.zeros(d), np.zeros((d, d)))
        function = _SigmaHeld(self.objective, self.to_theta, lambda theta: held)
        return replace(_minimize(function, x, self.objective.template), value=value)


@dataclass(frozen=True, eq=False)
class StandardDeviation(_OfTheta):
    """The standard deviation σ ‖T_row‖ of one effect of one term held."""

    term: int
    row: int
    lower: float = 0.0
    upper: float = np.inf
    closed: bool = True

    def _row(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The row of T, (k,), and its derivative, (n_theta, k)."""
        template = self.objective.template
        part, structure = template.slices[self.term], template.structures[self.term]
        D = np.zeros((template.n_theta, structure.k))
        D[part] = structure.derivative(theta[part])[:, self.row]
        return structure.factor(theta[part])[self.row], D

    @property
    def estimate(self) -> float:
        return self.sigma * float(np.linalg.norm(self._row(self.theta)[0]))

    @property
    def scale(self) -> float:
        if self.estimate > 0:
            return 0.05 * self.estimate
        structure = self.objective.template.structures[self.term]
        unit = self.scaled.to_theta(self.scaled.to_internal(self.objective.template.start))
        size = np.linalg.norm(structure.factor(unit[self._part])[self.row])
        return 0.02 * self.sigma * float(size)

    @property
    def _part(self) -> slice:
        return self.objective.template.slices[self.term]

    def held_sigma(self, theta: FloatArray, value: float) -> float | None:
        size = float(np.linalg.norm(self._row(theta)[0]))
        return value / size if value > 0 else None

    def _log_sigma(
        self, theta: FloatArray, value: float
    ) -> tuple[float, FloatArray, FloatArray]:
        r, D = self._row(theta)
        square = max(float(r @ r), 1e-200)
        slope = -(D @ r) / square
        return np.log(value) - 0.5 * np.log(square), slope, 2 * np.outer(slope, slope) - (
            D @ D.T / square
        )

    def solve(self, value: float, x: FloatArray) -> Point:
        if value <= 0:
            C = self._row(self.theta)[1].T
            return replace(_restricted(self.scaled, C[np.any(C != 0, axis=1)], x), value=0.0)
        theta = self.scaled.to_theta(x)
        size = float(np.linalg.norm(self._row(theta)[0]))
        if not 0.5 < size * self.sigma / value < 2.0:
            # Start from a row that leaves σ where it is.
            D = self._row(theta)[1]
            rows = np.any(D != 0, axis=1)
            structure = self.objective.template.structures[self.term]
            unit = np.zeros(len(theta))
            unit[self._part] = structure.start()
            start = theta if size > 0 else np.where(rows, unit, theta)
            factor = value / (self.sigma * float(np.linalg.norm(self._row(start)[0])))
            x = self.scaled.to_internal(np.where(rows, start * factor, start))
        function = _SigmaHeld(
            self.objective, self.to_theta, lambda theta: self._log_sigma(theta, value)
        )
        return replace(_minimize(function, x, self.objective.template), value=value)


@dataclass(frozen=True, eq=False)
class Correlation(_OfTheta):
    """The correlation of the first two effects of an unstructured term held.

    Parameters
    ----------
    order : tuple of int
        Where each effect of the term stands in the fit's own order.
    """

    term: int
    order: tuple[int, ...]
    lower: float = -1.0
    upper: float = 1.0
    closed: bool = True

    @property
    def _part(self) -> slice:
        return self.objective.template.slices[self.term]

    @property
    def estimate(self) -> float:
        return self._value(self.theta)

    def _value(self, theta: FloatArray) -> float:
        T = self.objective.template.structures[self.term].factor(theta[self._part])
        size = float(np.hypot(T[1, 0], T[1, 1]))
        if T[0, 0] == 0 or size == 0:
            return np.nan
        return float(np.clip(np.sign(T[0, 0]) * T[1, 0] / size, -1.0, 1.0))

    def _constraint(self, first: float, second: float, third: float) -> FloatArray:
        """A row that weighs T[0, 0], T[1, 0] and T[1, 1]."""
        entries = self.objective.template.structures[self.term].entries
        C = np.zeros((1, len(self.theta)))
        for entry, weight in (((0, 0), first), ((1, 0), second), ((1, 1), third)):
            C[0, self._part.start + entries.index(entry)] = weight
        return C

    def solve(self, value: float, x: FloatArray) -> Point:
        C = self._constraint(0.0, np.sqrt(1.0 - value**2), -value)
        found = _restricted(self.scaled, C, x)
        at = self._value(self.scaled.to_theta(found.x))
        if np.isnan(at) or abs(at - value) > 1e-6:
            # The other sign: with it excluded one of the two variances vanishes.
            first = _restricted(self.scaled, np.vstack([C, self._constraint(1.0, 0.0, 0.0)]), x)
            both = np.vstack([self._constraint(0, 1, 0), self._constraint(0, 0, 1)])
            second = _restricted(self.scaled, both, x)
            found = min(first, second, key=lambda point: point.deviance)
        return replace(found, value=value)

    def user_theta(self, theta: FloatArray) -> FloatArray:
        structure = self.objective.template.structures[self.term]
        out = theta.copy()
        out[self._part] = reordered(structure.factor(theta[self._part]), self.order)
        return out


def reordered(T: FloatArray, order: tuple[int, ...]) -> FloatArray:
    """The parameters of an unstructured term with effect i of the result being order[i] of T."""
    k = len(order)
    R = np.asarray(np.linalg.qr(T[list(order)].T, mode="r"))
    L = R.T * np.where(np.diag(R) < 0, -1.0, 1.0)
    return np.concatenate([L[c:, c] for c in range(k)])


@dataclass(frozen=True, eq=False)
class FixedEffect:
    """One fixed effect held: its column moves into the offset.

    Parameters
    ----------
    fit : Fit
        Fitted by maximum likelihood.
    column : int
    """

    fit: Fit
    column: int
    lower: float = -np.inf
    upper: float = np.inf
    closed: bool = False

    @cached_property
    def _split(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The other columns in the internal basis: X₋ = Q G R₋ and x = Q (G c + g ρ)."""
        R = self.fit.products.basis.R
        G, triangle = np.linalg.qr(np.delete(R, self.column, axis=1), mode="complete")
        return G, triangle[:-1], G.T @ R[:, self.column]

    @cached_property
    def _held(self) -> ProfiledDeviance:
        """The model without the column."""
        fit, (G, triangle, _) = self.fit, self._split
        products, G = fit.products, G[:, :-1]
        diagonal = np.abs(np.diag(triangle))
        basis = replace(products.basis, R=triangle, logdet=float(2 * np.log(diagonal).sum()))
        smaller = replace(
            products, ZtX=products.ZtX @ G, XtX=G.T @ products.XtX @ G, basis=basis
        )
        system = fit.solver.build(smaller, fit.template)
        return replace(fit.objective, system=system, products=smaller)

    def _at(self, value: float) -> ProfiledDeviance:
        old, (G, _, c) = self.fit.objective.response, self._split
        products = self.fit.products
        # The residual of y − value·x on X₋ is that of y on X plus κ times a unit vector.
        beta0 = G.T @ old.beta0 - value * c
        kappa, unit = float(beta0[-1]), G[:, -1]
        response = replace(
            old,
            Zty=old.Zty + kappa * (products.ZtX @ unit),
            Xty=G[:, :-1].T @ old.Xty,
            yty=old.yty + kappa * kappa + 2.0 * kappa * float(unit @ old.Xty),
            beta0=beta0[:-1],
        )
        return self._held.with_response(response)

    @property
    def scale(self) -> float:
        return 0.25 * float(np.sqrt(self.fit.vcov[self.column, self.column]))

    def best(self) -> Point:
        scaled = StandardizedObjective(self.fit.objective)
        value = float(self.fit.beta[self.column])
        return Point(value, self.fit.criterion, scaled.to_internal(self.fit.theta))

    def solve(self, value: float, x: FloatArray) -> Point:
        scaled = StandardizedObjective(self._at(value))
        return replace(_minimize(scaled, x, self.fit.template), value=value)

    def estimates(self, point: Point) -> tuple[FloatArray, float, FloatArray]:
        objective = self._at(point.value)
        theta = StandardizedObjective(objective).to_theta(point.x)
        solution = objective.solution(theta)
        internal = objective.response.beta0 + solution.beta
        beta = objective.products.basis.coefficients(internal)
        sigma = float(np.sqrt(objective.sigma2(solution)))
        return theta, sigma, np.insert(beta, self.column, point.value)
