"""Problem → optimum in (β, θ, δ) with the joint Hessian there, by the structured search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.engine.generalized.modes import TIGHT
from lmmsparse.fit.generalized.coordinates import Coordinates, GeneralizedObjective
from lmmsparse.fit.generalized.errors import hessian_by_differences
from lmmsparse.fit.generalized.limit import Found, Search, at_limit, is_near_limit, nearest
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.fit.generalized.start import constant_start, start
from lmmsparse.optimize import (
    Announced,
    Objective,
    Optimizer,
    Optimum,
    QuasiNewton,
    Status,
    StructuredSearch,
    TrustRegion,
    minimize_free,
)

SNAP = 1e-3
NO_WORSE = 1e-9
_ENOUGH = 1e-7
_POLISH = 1e-10
_POLISHINGS = 3
_SMALLER = (1.0, 0.3, 0.1, 0.03)


def search(
    problem: GeneralizedProblem,
    theta: FloatArray | None,
    optimizer: Optimizer,
    progress: bool = False,
    begin: tuple[Parameters, FloatArray] | None = None,
) -> Found:
    """Minimize −2 log-likelihood.

    Parameters
    ----------
    problem : GeneralizedProblem
    theta : (n_theta,) array, optional
        Where to begin.
    optimizer : Optimizer
    progress : bool
        Print every evaluation to the standard error stream.
    begin : Parameters and (q,) array, optional
        All of where to begin, and the mode there.
    """
    coordinates = problem.coordinates
    at, u = start(problem.rows, coordinates, theta) if begin is None else begin
    again = _again(optimizer, progress)
    before, near = 0, np.inf
    if problem.family.without_own() is not None:
        near = max(nearest(problem, at, u), at.delta)
    if is_near_limit(problem, at, u):
        limit, wanted = at_limit(problem, at, u, again)
        if wanted:
            return limit
        here = limit.optimum.x[:-1]
        at = replace(at, beta=here[: coordinates.p], theta=here[coordinates.p :])
        u, before = limit.u, limit.optimum.evaluations
    by_default = theta is None and begin is None
    try:
        objective, at = _begun(problem, at, u, by_default)
    except NumericalError:
        if not by_default:
            raise
        objective, at = _begun_elsewhere(problem)
    limits = (problem.family.least_delta(problem.seen), near)
    found = _run(objective, coordinates, coordinates.x(at), optimizer, progress, limits)
    if not np.isfinite(found.value):
        raise NumericalError(
            "The likelihood could not be evaluated at the start values. The data may hold values "
            "that are far too large or too small. Check the predictors, or pass other start values."
        )
    found = replace(found, evaluations=found.evaluations + before)
    if not before and found.x[-1] >= near and objective.best is not None:
        best = objective.best.mode
        limit, wanted = at_limit(problem, coordinates.parameters(found.x), best.u, again)
        evaluations = found.evaluations + limit.optimum.evaluations
        if wanted:
            return replace(limit, optimum=replace(limit.optimum, evaluations=evaluations))
        found = replace(found, evaluations=evaluations)
    if coordinates.has_delta and found.x[-1] <= limits[0]:
        return _exact(objective, coordinates, found)
    found = _snapped(objective, coordinates, found)
    last = _Ending(objective, coordinates, found)
    for other in () if problem.family.is_limited else _others(optimizer):
        if last.expected <= _ENOUGH:
            break
        try:
            more = _run(objective, coordinates, last.found.x, other, progress)
        except NumericalError:
            continue
        if more.value <= last.found.value + NO_WORSE:
            more = _snapped(objective, coordinates, more)
            last = _Ending(objective, coordinates, _followed(last.found, more))
    return last.reported()


def _exact(objective: GeneralizedObjective, coordinates: Coordinates, found: Optimum) -> Found:
    """The end of a search where nothing is left for the residuals."""
    J = coordinates.jacobian
    point = objective.point(found.x)
    trace = np.array(found.trace)
    trace[:, :-1] = trace[:, :-1] @ J.T
    optimum = replace(
        found, x=J @ found.x, value=point.value, trace=trace, status=Status.CONVERGED,
        expected_decrease=0.0,
    )  # fmt: skip
    return Found(optimum, np.array(point.hessian), np.array(point.mode.u), objective.factorizations)


def _begun(
    problem: GeneralizedProblem, at: Parameters, u: FloatArray, may_shrink: bool
) -> tuple[GeneralizedObjective, Parameters]:
    """The criterion evaluated at the start, with smaller random effects where that fails."""
    for share in _SMALLER if may_shrink else _SMALLER[:1]:
        begin = Parameters(at.beta, problem.template.with_held(share * at.theta), at.delta)
        objective = GeneralizedObjective(problem.deviance, problem.coordinates, u)
        try:
            objective(problem.coordinates.x(begin))
        except NumericalError:
            if share == _SMALLER[-1] or not may_shrink:
                raise
            continue
        return objective, begin
    raise AssertionError


def _begun_elsewhere(
    problem: GeneralizedProblem,
) -> tuple[GeneralizedObjective, Parameters]:
    """The same where the working model has led astray: without it, or from constant means."""
    rows, coordinates = problem.rows, problem.coordinates
    try:
        return _begun(problem, *start(rows, coordinates, working=False), True)
    except NumericalError:
        return _begun(problem, *constant_start(rows, coordinates), True)


def _others(optimizer: Optimizer) -> Iterator[Optimizer]:
    """What is tried from where a search has stopped short."""
    if isinstance(optimizer, StructuredSearch) and (
        optimizer.max_eval == StructuredSearch.max_eval
    ):
        yield StructuredSearch(radius=1.0)
        yield QuasiNewton()
        yield TrustRegion()


def _followed(found: Optimum, other: Optimum) -> Optimum:
    return replace(
        other,
        evaluations=found.evaluations + other.evaluations,
        trace=np.concatenate([found.trace, other.trace]),
    )


def _run(
    objective: GeneralizedObjective,
    coordinates: Coordinates,
    x: FloatArray,
    optimizer: Optimizer,
    progress: bool,
    of_delta: tuple[float, float] = (-np.inf, np.inf),
) -> Optimum:
    target: Objective = Announced(objective) if progress else objective
    bounds = coordinates.bounds
    if coordinates.has_delta:  # which may be on its way to infinity
        lower, upper = bounds.lower.copy(), bounds.upper.copy()
        lower[-1], upper[-1] = of_delta
        bounds = replace(bounds, lower=lower, upper=upper)
    return minimize_free(optimizer, target, x, bounds, coordinates.free)


def _again(optimizer: Optimizer, progress: bool) -> Search:
    """The same search of another problem."""

    def searched(problem: GeneralizedProblem, at: Parameters, u: FloatArray) -> Found:
        return search(problem, None, optimizer, progress, (at, u))

    return searched


def _snapped(objective: GeneralizedObjective, coordinates: Coordinates, found: Optimum) -> Optimum:
    """Tiny diagonal entries of T set to zero where that does not raise the criterion."""
    x, value, evaluations = found.x, found.value, found.evaluations
    for group in coordinates.bounds.mirrors:
        first, rest = group[0], list(group[1:])
        if x[first] == 0.0 or abs(x[first]) > SNAP:
            continue
        trial = x.copy()
        trial[first] = 0.0
        trial[rest] = np.where(np.abs(trial[rest]) < 1e-6, 0.0, trial[rest])
        at_zero = objective(trial)
        evaluations += 1
        if at_zero <= value + NO_WORSE:
            x, value = trial, at_zero
    return replace(found, x=x, value=value, evaluations=evaluations)


def second_derivatives(
    objective: GeneralizedObjective, x: FloatArray, point: LaplacePoint
) -> FloatArray:
    """The Hessian at the end of a search, in its coordinates."""
    coordinates = objective.coordinates
    J = coordinates.jacobian
    curvature = np.diag(J.T @ point.hessian @ J).copy()
    if coordinates.has_delta:
        curvature[-1] = max(curvature[-1], 0.1 * coordinates.template.q)
    return hessian_by_differences(objective, x, point, curvature)


class _Ending:
    """The end of a search, looked at with exact second derivatives."""

    def __init__(
        self, objective: GeneralizedObjective, coordinates: Coordinates, found: Optimum
    ) -> None:
        self.objective, self.coordinates, self.found = objective, coordinates, found
        self.point = objective.point(found.x, tolerance=TIGHT)
        self._look()
        for _ in range(_POLISHINGS):
            if self.expected < _POLISH or not self._polished():
                break
            self._look()

    def _look(self) -> None:
        """Second derivatives at the point, the step to their minimum, and what that promises.

        `expected` is how much lower the criterion can get.
        """
        self.hessian = second_derivatives(self.objective, self.found.x, self.point)
        self._step, self.expected = self._newton()

    @property
    def _active(self) -> np.ndarray:
        x, bounds = self.found.x, self.coordinates.bounds
        return np.flatnonzero(self.coordinates.free & ~bounds.held(x))

    def _newton(self) -> tuple[FloatArray, float]:
        """The step to the minimum by exact second derivatives, and what it promises."""
        which = self._active
        g = (self.coordinates.jacobian.T @ self.point.gradient)[which]
        H = self.hessian[np.ix_(which, which)]
        if not np.isfinite(H).all():
            raise NumericalError(
                "The likelihood cannot be computed around the parameters the search has come to. "
                "Leave out start=, or begin elsewhere."
            )
        size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-300))
        values, vectors = np.linalg.eigh(H / np.outer(size, size))
        along = vectors.T @ (g / size)
        curved = values > 1e-8
        step = np.zeros(len(self.found.x))
        step[which] = -(vectors[:, curved] @ (along[curved] / values[curved])) / size
        newton = 0.5 * float(np.sum(along[curved] ** 2 / values[curved]))
        return step, newton + float(np.sum(np.abs(along[~curved]))) * 1e-3

    def _polished(self) -> bool:
        """A Newton step with second derivatives that are known already: whether it was one."""
        if self.expected > 1e-3:
            return False
        x = self.coordinates.bounds.canonical(self.found.x + self._step)
        try:
            point = self.objective.point(x, self.point, TIGHT)
        except NumericalError:
            return False
        if point.value > self.point.value + 1e-12 * abs(self.point.value):
            return False
        trace = np.concatenate([self.found.trace, np.append(x, point.value)[None]])
        self.found = replace(
            self.found, x=x, value=point.value, evaluations=self.found.evaluations + 1, trace=trace
        )
        self.point = point
        return True

    def reported(self) -> Found:
        """The same in (β, θ, δ)."""
        coordinates = self.coordinates
        J = coordinates.jacobian
        inverse = np.linalg.inv(J)
        trace = np.array(self.found.trace)
        trace[:, :-1] = trace[:, :-1] @ J.T
        status = self.found.status
        if self.expected <= _ENOUGH:
            status = Status.CONVERGED
        optimum = replace(
            self.found,
            x=J @ self.found.x,
            value=self.point.value,
            status=status,
            trace=trace,
            expected_decrease=self.expected,
        )
        hessian = inverse.T @ self.hessian @ inverse
        factorizations = self.objective.factorizations
        u = np.array(self.point.mode.u)
        return Found(optimum, hessian, u, factorizations, self.point)
