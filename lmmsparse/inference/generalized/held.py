"""`GeneralizedFit` and a parameter → what is searched with the parameter held at a value.

Held at a value, a parameter leaves a plane of the criterion's coordinates: a coefficient, δ, and
the standard deviation of a term's first effect are linear in them; a correlation is that of the
first two effects, whose row of T is (ρ, √(1 − ρ²)) times a length. Effects are reordered for this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.structures import Diagonal
from lmmsparse.engine.covariance.triangular import lower_triangular
from lmmsparse.fit.generalized.coordinates import GeneralizedObjective
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.intervals.profile.curve import Problem
from lmmsparse.inference.intervals.profile.search import Point
from lmmsparse.optimize import Bounds, OnPlane, Status, StructuredSearch, minimize_free
from lmmsparse.results.generalized import covariance_values

_ENOUGH = 1e-5  # of the criterion, by which a point may be off


@dataclass(frozen=True, eq=False)
class HeldParameter:
    """A parameter to be held.

    Attributes
    ----------
    fit : GeneralizedFit
        With effects in the order that the parameter asks for.
    term : int
    order : tuple of int
        That order; empty where it is the model's own.
    plane : callable
        Value → origin (d,) and directions (d, m) of the coordinates that are left.
    start : (m,) array
        Where on the plane of the estimate the optimum is.
    bounds : Bounds
        On the plane.
    free : (m,) bool array
    value, lower, upper : float
        The estimate and its bounds.
    closed : bool
        Whether the lower bound is possible.
    scale : float
        About a standard error.
    """

    fit: GeneralizedFit
    term: int
    order: tuple[int, ...]
    plane: Callable[[float], tuple[FloatArray, FloatArray]]
    start: FloatArray
    bounds: Bounds
    free: BoolArray
    value: float
    lower: float
    upper: float
    closed: bool
    scale: float


def held_parameter(fit: GeneralizedFit, i: int) -> HeldParameter | None:
    """The parameter with number i in the order of the intervals; None where θ is held beside it."""
    d, p = fit.template.n_theta, fit.design.p
    coordinates, own = fit.problem.coordinates, fit.family.estimates_delta
    c = np.zeros(coordinates.size)
    if i >= d + own:
        c[:p] = coordinates.unit * fit.problem.rows.basis.coefficients(np.eye(p))[i - d - own]
        return _linear(fit, c, -np.inf)
    if i == d:
        c[-1] = 1.0
        return _linear(fit, c, 0.0, of_log=True)
    t = next(t for t, part in enumerate(fit.template.slices) if part.start <= i < part.stop)
    structure, part = fit.template.structures[t], fit.template.slices[t]
    row, column = structure.entries[i - part.start]
    if not fit.template.free[part].all():
        return None
    if isinstance(structure, Diagonal):
        c[coordinates.in_theta] = coordinates.map[i]
        return _linear(fit, c, 0.0)
    if not structure.closed:
        return _element(fit, i, part)
    first = (row,) if row == column else (column, row)
    order = (*first, *(j for j in range(structure.k) if j not in first))
    moved = reordered(fit, t, order)
    if row != column:
        return _correlation(moved, t, order, float(covariance_values(fit)[i]))
    c[coordinates.in_theta] = moved.problem.coordinates.map[part.start]
    return _linear(moved, c, 0.0, t, order)


def reordered(fit: GeneralizedFit, t: int, order: Sequence[int]) -> GeneralizedFit:
    """The same fit with the effects of a term in another order."""
    take = list(order)
    if take == list(range(len(take))):
        return fit
    block = fit.design.blocks[t]
    moved = replace(
        block,
        names=tuple(block.names[j] for j in take),
        columns=np.asfortranarray(block.columns[:, take]),
    )
    blocks = list(fit.design.blocks)
    blocks[t] = moved
    problem = replace(fit.problem, design=replace(fit.design, blocks=tuple(blocks)))
    at = fit.parameters
    x = np.concatenate(
        [at.beta, turned(fit, fit.theta, t, take), [at.delta] * fit.family.estimates_delta]
    )
    out = replace(
        fit, problem=problem, optimum=replace(fit.optimum, x=x), u=np.zeros(fit.template.q)
    )
    point = out.problem.deviance.point(out.parameters)
    hessian = np.array(point.hessian)  # of the working model: good enough for first steps
    if fit.family.estimates_delta:
        hessian[-1, -1] = fit.hessian[-1, -1]
    return replace(out, u=np.array(point.mode.u), hessian=hessian)


def turned(fit: GeneralizedFit, theta: FloatArray, t: int, order: Sequence[int]) -> FloatArray:
    """θ with the effects of a term in another order."""
    structure, part = fit.template.structures[t], fit.template.slices[t]
    T = lower_triangular(structure.factor(theta[part])[list(order)])
    rows, columns = np.array(structure.entries).T
    out = np.array(theta)
    out[part] = T[rows, columns]
    return out


def _covariance(fit: GeneralizedFit) -> FloatArray:
    """About that of the coordinates, (d, d)."""
    J = fit.problem.coordinates.jacobian
    values, vectors = np.linalg.eigh(J.T @ fit.hessian @ J)
    values = np.maximum(values, 1e-8 * max(float(values.max()), 1e-300))
    return np.asarray(2.0 * (vectors / values) @ vectors.T)


def _linear(
    fit: GeneralizedFit,
    c: FloatArray,
    least: float,
    t: int = 0,
    order: tuple[int, ...] = (),
    of_log: bool = False,
) -> HeldParameter:
    """A parameter c'x, or its exponential."""
    x = fit.problem.coordinates.x(fit.parameters)
    V = _covariance(fit)
    moves, se, center = V @ c / float(c @ V @ c), float(np.sqrt(c @ V @ c)), float(c @ x)
    N = np.linalg.svd((c / np.linalg.norm(c))[None])[2][1:].T  # keeps c'x

    def plane(value: float) -> tuple[FloatArray, FloatArray]:
        return x + moves * ((float(np.log(value)) if of_log else value) - center), N

    m = N.shape[1]
    free = Bounds(np.full(m, -np.inf), np.full(m, np.inf))
    value = float(np.exp(center)) if of_log else center
    scale = se * value if of_log else se
    return HeldParameter(
        fit, t, order, plane, np.zeros(m), free, np.ones(m, dtype=bool),
        value, least, np.inf, not of_log, scale,
    )  # fmt: skip


def _element(fit: GeneralizedFit, i: int, part: slice) -> HeldParameter | None:
    """A standard deviation or correlation that is an element of θ itself."""
    coordinates, structure = fit.problem.coordinates, None
    for own, place in zip(fit.template.structures, fit.template.slices, strict=True):
        structure = own if place == part else structure
    assert structure is not None
    value, unit = float(fit.theta[i]), float(coordinates.map[i, i])
    alone = np.count_nonzero(coordinates.map[i]) == 1
    if not alone or abs(value - float(covariance_values(fit)[i])) > 1e-8 * (1.0 + abs(value)):
        return None
    at = coordinates.p + i
    keep = np.delete(np.arange(coordinates.size), at)
    x, N = coordinates.x(fit.parameters), np.eye(coordinates.size)[:, keep]

    def plane(value: float) -> tuple[FloatArray, FloatArray]:
        origin = np.zeros(len(x))
        origin[at] = value / unit
        return origin, N

    low, high = structure.lower()[i - part.start], structure.upper()[i - part.start]
    scale = float(np.sqrt(_covariance(fit)[at, at])) * unit
    limits = coordinates.bounds.limits
    return HeldParameter(
        fit, 0, (), plane, x[keep], Bounds(limits[0][keep], limits[1][keep]),
        coordinates.free[keep], value, float(low), float(high), True, scale,
    )  # fmt: skip


def _correlation(
    fit: GeneralizedFit, t: int, order: tuple[int, ...], value: float
) -> HeldParameter:
    """The correlation of a term's first two effects."""
    coordinates, part = fit.problem.coordinates, fit.template.slices[t]
    entries = list(fit.template.structures[t].entries)
    a, b, c = (entries.index(entry) for entry in ((0, 0), (1, 0), (1, 1)))
    own = slice(coordinates.p + part.start, coordinates.p + part.stop)
    back = np.linalg.inv(coordinates.map[part, part])
    unit = np.diag(coordinates.map[part, part])
    keep = np.delete(np.arange(coordinates.size), own.start + c)
    x, size = coordinates.x(fit.parameters), len(entries)

    def plane(rho: float) -> tuple[FloatArray, FloatArray]:
        G = np.diag(unit)
        G[b, b], G[c, b] = unit[c] * rho, unit[c] * np.sqrt(max(0.0, 1.0 - rho * rho))
        whole = np.eye(coordinates.size)
        whole[own, own] = back @ G
        return np.zeros(coordinates.size), whole[:, keep]

    theta = fit.theta[part]
    z = x.copy()
    z[own] = theta / unit
    z[own.start + b] = np.hypot(theta[b], theta[c]) / unit[c]
    lower, upper = (limit.copy() for limit in coordinates.bounds.limits)
    lower[own.start + a] = lower[own.start + b] = 0.0  # both lengths: their signs are the sign of ρ
    at = own.start + np.array([b, c])
    both = _covariance(fit)[np.ix_(at, at)]
    slope = np.array([1.0 - value**2, -value * np.sqrt(max(0.0, 1.0 - value**2))])
    scale = float(np.sqrt(max(slope @ both @ slope, 1e-12))) / max(float(z[own.start + b]), 1e-3)
    assert size == own.stop - own.start
    return HeldParameter(
        fit, t, order, plane, z[keep], Bounds(lower[keep], upper[keep]), coordinates.free[keep],
        value, -1.0, 1.0, True, float(np.clip(scale, 1e-3, 0.5)),
    )  # fmt: skip


class Held:
    """The criterion with a parameter held, as `trace` follows it.

    Parameters
    ----------
    held : HeldParameter
    original : GeneralizedFit
        With effects in the model's order.
    """

    def __init__(self, held: HeldParameter, original: GeneralizedFit) -> None:
        self._held, self._original = held, original
        fit = held.fit
        self._deviance, self._coordinates = fit.problem.deviance, fit.problem.coordinates
        self._u = np.array(fit.u)

    @property
    def problem(self) -> Problem:
        held = self._held
        best = Point(held.value, self._original.criterion, held.start)
        return Problem(
            held.lower, held.upper, held.closed, held.scale, best, self.solve, self._nothing
        )

    def _nothing(self, point: Point) -> tuple[FloatArray, float, FloatArray]:
        theta, beta, _ = self.parameters(point)
        return theta, 1.0, beta

    def solve(self, value: float, z: FloatArray) -> Point:
        """The optimum with the parameter held at a value, searched from z."""
        held = self._held
        objective = GeneralizedObjective(self._deviance, self._coordinates, self._u)
        origin, N = held.plane(value)
        plane = OnPlane(objective, origin, N)
        start = np.clip(z, *held.bounds.limits)
        if not N.shape[1]:
            return Point(value, plane(start), start)
        found = minimize_free(StructuredSearch(), plane, start, held.bounds, held.free)
        if found.status is Status.FAILED or objective.best is None:
            raise NumericalError("The profile could not be followed.")
        self._u = np.array(objective.best.mode.u)
        left = found.expected_decrease
        return Point(value, found.value, found.x, left is not None and left < _ENOUGH)

    def parameters(self, point: Point) -> tuple[FloatArray, FloatArray, float]:
        """θ in the model's order, β in the user's columns, and δ."""
        held, original = self._held, self._original
        origin, N = held.plane(point.value)
        at = self._coordinates.parameters(origin + N @ point.x)
        theta = at.theta
        if held.order:
            theta = turned(held.fit, theta, held.term, np.argsort(held.order).tolist())
        return theta, original.problem.rows.basis.coefficients(at.beta), at.delta

    def estimates(self, point: Point) -> FloatArray:
        """All parameters in the order of the intervals."""
        original = self._original
        theta, beta, delta = self.parameters(point)
        own = covariance_values(original, theta, delta)
        return np.concatenate([own, beta])
