"""n_agq=0: β at the joint mode of fixed and random effects, and a search for θ and δ alone.

The criterion is Laplace's at β̂(θ, δ). Along it X's = 0, which gives the slope of β̂ exactly.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.engine.generalized.modes import joint_mode
from lmmsparse.fit.generalized.coordinates import Coordinates
from lmmsparse.fit.generalized.limit import Found, at_limit, is_near_limit
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.fit.generalized.start import start
from lmmsparse.optimize import (
    Announced,
    Bounds,
    Derivatives,
    Objective,
    Optimizer,
    minimize_free,
    second_by_differences,
)

_TIGHT = 1e-20


class JointModeObjective:
    """Laplace's criterion at β̂(θ, δ), in standardized (θ, δ)."""

    def __init__(
        self, problem: GeneralizedProblem, coordinates: Coordinates, at: Parameters, u: FloatArray
    ) -> None:
        self._problem, self._coordinates = problem, coordinates
        self._beta, self._u = at.beta, u
        self._delta_row: float | None = None
        self.best: LaplacePoint | None = None
        self.factorizations = 0

    @property
    def jacobian(self) -> FloatArray:
        """∂(β, θ, δ)/∂x of the coordinates."""
        return self._coordinates.jacobian

    @property
    def bounds(self) -> Bounds:
        """Of what is searched."""
        bounds, p = self._coordinates.bounds, self._coordinates.p
        mirrors = tuple(tuple(i - p for i in group) for group in bounds.mirrors)
        return Bounds(bounds.lower[p:], bounds.upper[p:], mirrors)

    def point(self, z: FloatArray) -> LaplacePoint:
        rows, p = self._problem.rows, self._coordinates.p
        at = self._coordinates.parameters(np.concatenate([np.zeros(p), z]))
        beta, u, steps = joint_mode(rows, self._beta, at.theta, at.delta, self._u, _TIGHT)
        point = self._problem.deviance.point(Parameters(beta, at.theta, at.delta), u)
        self.factorizations += steps + point.mode.steps
        if self.best is None or point.value < self.best.value:
            self.best, self._beta, self._u = point, beta, np.array(point.mode.u)
        return point

    def _slopes(self, point: LaplacePoint) -> FloatArray:
        """∂β̂/∂(θ, δ) in standardized coordinates, (p, d)."""
        rows, p, d = self._problem.rows, self._coordinates.p, self._coordinates.n_theta
        J = self._coordinates.jacobian[p:, p:]
        mixed = np.zeros((p, d + self._coordinates.has_delta))
        mixed[:, :d] = point.hessian[:p, p : p + d]
        if self._coordinates.has_delta:
            mode = point.mode
            scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
            inner = rows.template.multiply_transposed(mode.factors, rows.grouped(scale.s))
            mixed[:, d] = -2.0 * (rows.Q.transposed_times(scale.s) - point.border[1].T @ inner)
        return np.asarray(-np.linalg.lstsq(2.0 * point.information, mixed @ J)[0])

    def __call__(self, x: FloatArray) -> float:
        return self.point(x).value

    def derivatives(self, x: FloatArray) -> Derivatives:
        point, p = self.point(x), self._coordinates.p
        J = self._coordinates.jacobian[p:, p:]
        slopes = self._slopes(point)
        gradient = J.T @ point.gradient[p:] + slopes.T @ point.gradient[:p]
        H = J.T @ point.hessian[p:, p:] @ J
        if self._coordinates.has_delta:
            H[-1, -1] = self._in_delta(x, gradient)
        return Derivatives(point.value, gradient, H)

    def _in_delta(self, z: FloatArray, gradient: FloatArray) -> float:
        """The curvature in δ, by a difference once."""
        if self._delta_row is None:
            self._delta_row = 1.0  # while the difference is taken
            moved = z.copy()
            moved[-1] += 1e-4
            self._delta_row = float((self.derivatives(moved).gradient[-1] - gradient[-1]) / 1e-4)
        return self._delta_row


def hessian_at_joint_mode(
    objective: JointModeObjective, z: FloatArray, point: LaplacePoint
) -> FloatArray:
    """The Hessian at the end of a search, in standardized (β, θ, δ)."""
    J, p = objective.jacobian, point.rows.p
    hessian = np.array(J.T @ point.hessian @ J)
    hessian[:p, p:] = hessian[p:, :p] = 0.0
    here = objective.derivatives(z)
    second = second_by_differences(lambda x: objective.derivatives(x), z, here, objective.bounds)
    if second is not None:
        hessian[p:, p:] = second
    return hessian


def search_at_joint_mode(
    problem: GeneralizedProblem, theta: FloatArray | None, optimizer: Optimizer, progress: bool
) -> Found:
    """Minimize the criterion with β at the joint mode.

    The Hessian has that of (θ, δ), and for β the information of the working model: standard errors
    are those of known covariance parameters.
    """
    coordinates, p = problem.coordinates, problem.rows.p
    at, u = start(problem.rows, coordinates, theta)
    if is_near_limit(problem, at, u):
        again = lambda other, there, _: search_at_joint_mode(  # noqa: E731
            other, there.theta, optimizer, progress
        )
        limit, wanted = at_limit(problem, at, u, again)
        if wanted:
            return limit
    objective = JointModeObjective(problem, coordinates, at, u)
    own = objective.bounds
    target: Objective = Announced(objective) if progress else objective
    found = minimize_free(optimizer, target, coordinates.x(at)[p:], own, coordinates.free[p:])
    if not np.isfinite(found.value):
        raise NumericalError(
            "The likelihood could not be evaluated at the start values. Check the predictors."
        )
    point = objective.point(found.x)
    hessian = hessian_at_joint_mode(objective, found.x, point)
    J = coordinates.jacobian
    back = np.linalg.inv(J)
    x = np.concatenate([point.mode.beta, J[p:, p:] @ found.x])
    trace = np.full((len(found.trace), len(x) + 1), np.nan)
    trace[:, :p] = point.mode.beta
    trace[:, p:-1] = found.trace[:, :-1] @ J[p:, p:].T
    trace[:, -1] = found.trace[:, -1]
    optimum = replace(found, x=x, value=point.value, trace=trace)
    u = np.array(point.mode.u)
    return Found(optimum, back.T @ hessian @ back, u, objective.factorizations)
