"""ML fit and one covariance parameter → the least deviance with it held at a value.

All searches run in the standardized coordinates of θ. A standard deviation is held by letting
σ = value / ‖row of T‖; σ itself by holding it; a correlation, and a standard deviation of zero, by
linear constraints on θ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.inference.intervals.profile.search import (
    Point,
    SigmaHeld,
    minimize,
    minimize_on_plane,
)


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
        function = SigmaHeld(self.objective, self.to_theta, lambda theta: held)
        return replace(minimize(function, x, self.scaled.bounds), value=value)


@dataclass(frozen=True, eq=False)
class StandardDeviation(_OfTheta):
    """The standard deviation σ ‖T_row‖ of one effect of one term held, with σ free to follow."""

    term: int
    row: int
    lower: float = 0.0
    upper: float = np.inf

    @property
    def closed(self) -> bool:
        """Zero is possible unless the user holds some of the row elsewhere."""
        template = self.objective.template
        rows = np.any(self._own != 0, axis=0) & ~template.free
        return not np.any(template.start[rows])

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

    @property
    def _own(self) -> FloatArray:
        """One row per parameter that is zero where the standard deviation is, (m, n_theta)."""
        structure, start = self.objective.template.structures[self.term], self._part.start
        own = [
            start + i
            for i, (row, column) in enumerate(structure.entries)
            if row == self.row and (structure.closed or column == row)
        ]
        return np.eye(len(self.theta))[own]

    def _log_sigma(self, theta: FloatArray, value: float) -> tuple[float, FloatArray, FloatArray]:
        r, D = self._row(theta)
        square = max(float(r @ r), 1e-200)
        slope = -(D @ r) / square
        structure = self.objective.template.structures[self.term]
        unit = np.zeros((structure.k, structure.k))
        unit[self.row, self.row] = 1.0
        bend = 2.0 * np.outer(slope, slope)
        bend[self._part, self._part] -= structure.curvature(theta[self._part], unit) / (2 * square)
        return float(np.log(value) - 0.5 * np.log(square)), slope, bend

    def solve(self, value: float, x: FloatArray) -> Point:
        if value <= 0:
            found = minimize_on_plane(self.scaled, self._own, x)
            return replace(found, value=0.0)
        theta = self.scaled.to_theta(x)
        size = float(np.linalg.norm(self._row(theta)[0]))
        if not 0.5 < size * self.sigma / value < 2.0:
            # Start from a row that leaves σ where it is.
            rows = np.any(self._own != 0, axis=0) & self.objective.template.free
            structure = self.objective.template.structures[self.term]
            unit = np.zeros(len(theta))
            unit[self._part] = structure.start()
            start = theta if size > 0 else np.where(rows, unit, theta)
            factor = value / (self.sigma * float(np.linalg.norm(self._row(start)[0])))
            x = self.scaled.to_internal(np.where(rows, start * factor, start))
        function = SigmaHeld(
            self.objective, self.to_theta, lambda theta: self._log_sigma(theta, value)
        )
        return replace(minimize(function, x, self.scaled.bounds), value=value)


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

    def _indices(self, *entries: tuple[int, int]) -> list[int]:
        """Where entries of T stand in θ."""
        own = self.objective.template.structures[self.term].entries
        return [self._part.start + own.index(entry) for entry in entries]

    @cached_property
    def _undetermined(self) -> Point:
        """The optimum where either effect has no variance: any value of the correlation is there.

        An effect without variance has a row of zeros in T, and the others need one column less.
        """
        structure, unit = self.objective.template.structures[self.term], np.eye(len(self.theta))
        found = []
        for effect in (0, 1):
            zeros = self._indices(*(entry for entry in structure.entries if effect in entry))
            best = self.scaled.to_internal(self.theta)
            found.append(minimize_on_plane(self.scaled, unit[zeros], best))
        return min(found, key=lambda point: point.deviance)

    def solve(self, value: float, x: FloatArray) -> Point:
        if np.isnan(self._value(self.scaled.to_theta(x))):
            x = self.scaled.to_internal(self.theta)
        C = np.zeros((1, len(self.theta)))
        C[0, self._indices((1, 0), (1, 1))] = np.sqrt(1.0 - value**2), -value
        found = minimize_on_plane(self.scaled, C, x)
        # On this plane the correlation is the value or its negative.
        at = self._value(self.scaled.to_theta(found.x))
        if not abs(at - value) <= 1e-6 or found.deviance > self._undetermined.deviance:
            found = self._undetermined
        return replace(found, value=value)

    def user_theta(self, theta: FloatArray) -> FloatArray:
        return _in_order(self.objective.template, theta, self.term, self.order)


@dataclass(frozen=True, eq=False)
class Element(_OfTheta):
    """One element of θ held: a correlation, or with σ known a standard deviation.

    Parameters
    ----------
    unit : float
        The parameter for each unit of the element: 1, or σ.
    order : tuple of int
        Where each effect of its term stands in the fit's own order; empty if there.
    """

    index: int
    unit: float = 1.0
    term: int = 0
    order: tuple[int, ...] = ()
    closed: bool = True

    @property
    def lower(self) -> float:
        return self.unit * float(self.objective.template.lower[self.index])

    @property
    def upper(self) -> float:
        return self.unit * float(self.objective.template.upper[self.index])

    @property
    def estimate(self) -> float:
        return self.unit * float(self.theta[self.index])

    @property
    def scale(self) -> float:
        if np.isfinite(self.upper):
            return 0.05
        unit = float(self.scaled.to_theta(np.eye(len(self.theta)))[self.index, self.index])
        return 0.05 * self.estimate if self.estimate > 0 else 0.02 * self.unit * unit

    @cached_property
    def _deviations(self) -> list[int]:
        """Where the standard deviations stand that a correlation is about, if it is one."""
        template = self.objective.template
        part = template.slices[self.term]
        if not np.isfinite(template.upper[self.index]) or not template.free[part].all():
            return []
        return [i for i in range(part.start, part.stop) if np.isinf(template.upper[i])]

    def _search(self, value: float, x: FloatArray, without: Sequence[int] = ()) -> Point:
        """The optimum at a value of the element, without some standard deviations."""
        unit = np.eye(len(self.theta))
        origin = value / self.unit * unit[self.index]
        return minimize_on_plane(self.scaled, unit[[self.index, *without]], x, origin=origin)

    @cached_property
    def _undetermined(self) -> list[Point]:
        """The optima with no two standard deviations left, at which the correlation is anything."""
        x, own = self.scaled.to_internal(self.theta), self._deviations
        without = [[j for j in own if j != i] for i in own] if len(own) > 1 else [own]
        return [self._search(self.estimate, x, zeros) for zeros in without]

    def solve(self, value: float, x: FloatArray) -> Point:
        found = [self._search(value, x)]
        if self._deviations:
            # There may be a minimum with a standard deviation and another one without.
            theta = self.scaled.to_theta(x)
            typical = self.scaled.to_theta(self.scaled.template.start)
            for i in self._deviations:
                start = theta.copy()
                start[i] = 0.0 if theta[i] > 1e-3 * typical[i] else typical[i]
                found.append(self._search(value, self.scaled.to_internal(start)))
            found += self._undetermined
        return replace(min(found, key=lambda point: point.deviance), value=value)

    def user_theta(self, theta: FloatArray) -> FloatArray:
        return _in_order(self.objective.template, theta, self.term, self.order)


def _in_order(
    template: LambdaTemplate, theta: FloatArray, term: int, order: tuple[int, ...]
) -> FloatArray:
    if not order:
        return theta
    out, part = theta.copy(), template.slices[term]
    out[part] = reordered(template.structures[term].factor(theta[part]), order)
    return out


def reordered(T: FloatArray, order: tuple[int, ...]) -> FloatArray:
    """The parameters of an unstructured term with effect i of the result being order[i] of T."""
    k = len(order)
    R = np.asarray(np.linalg.qr(T[list(order)].T, mode="r"))
    L = R.T * np.where(np.diag(R) < 0, -1.0, 1.0)
    return np.concatenate([L[c:, c] for c in range(k)])
