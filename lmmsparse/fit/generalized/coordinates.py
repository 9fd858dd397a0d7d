"""The coordinates of a search for β, θ and δ together, and the criterion in them.

β is in internal columns of X, θ standardized as in the search of a linear model. Between points the
mode of the random effects is predicted to first order, so that a point costs few factorizations.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.generalized.laplace import LaplaceDeviance
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.engine.products import CrossProducts
from lmmsparse.fit.coordinates import standardizing_map
from lmmsparse.optimize import Bounds, Derivatives

_ASIDE = 1e-4
_ROUNDING = 1e-15
SEARCHING = 1e-16  # tolerance of modes on the way; at the end they are tight


class Coordinates:
    """x = (β/√n, θ̃, δ), with δ only where it is estimated.

    A unit of every coordinate is a large change of the linear predictor, or of the dispersion.

    Parameters
    ----------
    deviance : LaplaceDeviance
    products : CrossProducts
        Unweighted, for the units of the random effects.
    """

    def __init__(self, deviance: LaplaceDeviance, products: CrossProducts) -> None:
        rows = deviance.rows
        self.template, self.p = rows.template, rows.p
        self.n_theta = rows.template.n_theta
        self.unit = float(np.sqrt(rows.n))
        self.has_delta = rows.family.estimates_delta
        held = rows.family.held_delta
        self.delta = 0.0 if held is None else held
        self.products = products
        self.map = standardizing_map(rows.template, products)
        self._inverse = sla.solve_triangular(self.map, np.eye(self.n_theta), lower=True)

    @property
    def size(self) -> int:
        return self.p + self.n_theta + self.has_delta

    @property
    def in_theta(self) -> slice:
        return slice(self.p, self.p + self.n_theta)

    def parameters(self, x: FloatArray) -> Parameters:
        delta = float(x[-1]) if self.has_delta else self.delta
        return Parameters(self.unit * x[: self.p], self.map @ x[self.in_theta], delta)

    def standardized(self, theta: FloatArray) -> FloatArray:
        return np.asarray(self._inverse @ theta)

    def x(self, at: Parameters) -> FloatArray:
        delta = [at.delta] if self.has_delta else []
        return np.concatenate([at.beta / self.unit, self._inverse @ at.theta, delta])

    @cached_property
    def jacobian(self) -> FloatArray:
        """∂(β, θ, δ)/∂x, block diagonal."""
        J = np.eye(self.size)
        J[: self.p, : self.p] *= self.unit
        J[self.in_theta, self.in_theta] = self.map
        return J

    @cached_property
    def free(self) -> BoolArray:
        out = np.ones(self.size, dtype=bool)
        out[self.in_theta] = self.template.free
        return out

    @cached_property
    def bounds(self) -> Bounds:
        template, p = self.template, self.p
        lower, upper = np.full(self.size, -np.inf), np.full(self.size, np.inf)
        low, high = template.lower.copy(), template.upper.copy()
        held = ~template.free
        low[held] = high[held] = (self._inverse @ template.start)[held]
        lower[self.in_theta], upper[self.in_theta] = low, high
        mirrors = tuple(tuple(p + i for i in group) for group in template.mirrors)
        return Bounds(lower, upper, mirrors)


class GeneralizedObjective:
    """The criterion in `Coordinates`; keeps the best point for predicting the next mode.

    Parameters
    ----------
    deviance : LaplaceDeviance
    coordinates : Coordinates
    u : (q,) array
        The mode near the start.
    """

    def __init__(self, deviance: LaplaceDeviance, coordinates: Coordinates, u: FloatArray) -> None:
        self._deviance, self.coordinates, self._u = deviance, coordinates, u
        self.best: LaplacePoint | None = None
        self.factorizations = 0
        self._in_delta: FloatArray | None = None
        self._last: tuple[FloatArray, float, LaplacePoint] | None = None

    def point(
        self, x: FloatArray, base: LaplacePoint | None = None, tolerance: float = SEARCHING
    ) -> LaplacePoint:
        """The criterion at x; from the best point so far if no base is given."""
        last = self._last
        if base is None and last is not None and np.array_equal(last[0], x):
            if last[1] <= tolerance:
                return last[2]
            base = last[2]
        at = self.coordinates.parameters(x)
        base = self.best if base is None else base
        point = (
            self._deviance.point(at, self._u, tolerance)
            if base is None
            else self._from(base, at, tolerance)
        )
        self.factorizations += point.mode.steps
        self._last = np.array(x), tolerance, point
        return point

    def _from(self, base: LaplacePoint, at: Parameters, tolerance: float) -> LaplacePoint:
        for u in (base.predicted(at), base.mode.u):
            try:
                return self._deviance.point(at, u, tolerance)
            except NumericalError:
                continue
        return self._deviance.point(at, tolerance=tolerance)

    def _kept(self, point: LaplacePoint) -> LaplacePoint:
        if self.best is None or point.value < self.best.value:
            self.best = point
        return point

    def __call__(self, x: FloatArray) -> float:
        return self._kept(self.point(x)).value

    def derivatives(self, x: FloatArray) -> Derivatives:
        point = self.point(x)
        J = self.coordinates.jacobian
        gradient, hessian = J.T @ point.gradient, J.T @ point.hessian @ J
        if self.coordinates.has_delta:
            if self._in_delta is None:
                self._in_delta = self._slope_in_delta(x, point, gradient)
            hessian[-1] = hessian[:, -1] = self._in_delta
        self._kept(point)
        # log|M| is off by the square root of the tolerance of the mode.
        noise = _ROUNDING * (abs(point.mode.h) + abs(point.value)) + 2.0 * SEARCHING**0.5
        return Derivatives(point.value, gradient, hessian, noise=noise)

    def _slope_in_delta(
        self, x: FloatArray, point: LaplacePoint, gradient: FloatArray
    ) -> FloatArray:
        """The last column of the Hessian by a difference."""
        moved = x.copy()
        moved[-1] += _ASIDE
        there = self.point(moved, point)
        return np.asarray((self.coordinates.jacobian.T @ there.gradient - gradient) / _ASIDE)
