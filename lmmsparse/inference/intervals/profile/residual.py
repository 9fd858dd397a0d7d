"""The same for models whose residuals have parameters: θ and φ are searched side by side.

All that holds a parameter of θ, or σ, works on θ and φ joined into one vector. A parameter of the
residuals is an element of φ, but for the correlations of us(): these are that of the first two
visits once the visits are reordered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.residual.criterion import JointDeviance
from lmmsparse.engine.residual.unstructured import Unstructured
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.residual.problem import ResidualProblem, sets_of
from lmmsparse.inference.intervals.profile.curve import Problem
from lmmsparse.inference.intervals.profile.joint import (
    Column,
    Curvature,
    JointCriterion,
    JointTemplate,
)
from lmmsparse.inference.intervals.profile.located import Located, turned
from lmmsparse.inference.intervals.profile.problems import of_theta, residual_deviation
from lmmsparse.inference.intervals.profile.search import Point, minimize


def problem_of_residuals(fit: ResidualFit, index: int) -> Problem:
    """As `problem_of`, for a model whose residuals have parameters."""
    d, m = fit.template.n_theta, len(fit.phi)
    if index != d + m and fit.structure.centre.any() and not fit.held.any:
        return _at_centre(fit, index)
    return _as_it_is(fit, index)


def _at_centre(fit: ResidualFit, index: int) -> Problem:
    """With σ that of rows at the mean of ``residual_sd=``, which all but σ are the same with."""
    design, centre, d = fit.design, fit.structure.centre, fit.template.n_theta
    residual = design.residual
    assert residual is not None
    moved = replace(residual, columns=residual.columns - centre)
    problem = ResidualProblem(
        replace(design, residual=moved), fit.reml, fit.solver, held_phi=fit.problem.held_phi
    )
    gamma = slice(fit.structure.n_correlation, None)

    def size(phi: FloatArray) -> float:
        return float(np.exp(centre @ phi[gamma]))

    x = np.concatenate([_scaled_by(fit, fit.theta, 1.0 / size(fit.phi)), fit.phi])
    found = _as_it_is(replace(fit, problem=problem, optimum=replace(fit.optimum, x=x)), index)

    def estimates(point: Point) -> tuple[FloatArray, float, FloatArray]:
        both, sigma, beta = found.estimates(point)
        factor = size(both[d:])
        own = _scaled_by(fit, both[:d], factor)
        return np.concatenate([own, both[d:]]), sigma / factor, beta

    return replace(found, estimates=estimates)


def _as_it_is(fit: ResidualFit, index: int) -> Problem:
    d, m = fit.template.n_theta, len(fit.phi)
    if index > d + m:
        return _fixed_effect(fit, index - d - m - 1)
    if index == d + m:
        return residual_deviation(_located(fit))
    if index < d:
        return of_theta(
            fit, index, lambda objective, theta, term: _located(fit, term=term), _reordered
        )
    law = fit.structure.correlation
    if isinstance(law, Unstructured) and law.v - 1 <= index - d < len(law.labels):
        return _correlation(fit, index - d, law)
    return _element(_located(fit), fit, index - d)


def _criterion(
    fit: ResidualFit,
    joint: JointDeviance,
    column: Column | None = None,
    curvature: Curvature | None = None,
) -> JointCriterion:
    """The criterion of (θ, φ)."""
    at = joint.at(fit.phi)
    own = joint.template
    template = JointTemplate(
        own.structures,
        own.n_levels,
        own.held,
        own.shifts,
        phi=fit.phi,
        free_phi=fit.problem.free_phi,
    )
    if column is not None:
        at = column.moved(at)
    return JointCriterion(
        at.system,
        template,
        at.products,
        at.response,
        False,
        joint.held_sigma,
        joint=joint,
        column=column,
        curvature=Curvature() if curvature is None else curvature,
    )


class _Scaled(StandardizedObjective):
    """Standardized coordinates of θ, and φ in its units."""

    def __init__(self, objective: JointCriterion) -> None:
        super().__init__(objective)
        d = objective.joint.template.n_theta
        self._map[d:, d:] = np.diag(objective.steps[d:])
        self._inverse = np.asarray(np.linalg.inv(self._map), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _JointLocated(Located):
    """A criterion of (θ, φ) and its optimum."""

    @cached_property
    def scaled(self) -> StandardizedObjective:
        assert isinstance(self.objective, JointCriterion)
        return _Scaled(self.objective)


def _located(
    fit: ResidualFit,
    joint: JointDeviance | None = None,
    theta: FloatArray | None = None,
    term: int = 0,
    back: tuple[int, ...] = (),
) -> Located:
    objective = _criterion(fit, fit.problem.joint if joint is None else joint)
    own = fit.theta if theta is None else theta
    return _JointLocated(objective, np.concatenate([own, fit.phi]), term, back)


def _reordered(fit: Fit, term: int, order: tuple[int, ...]) -> Located:
    """The criterion with the effects of a term in another order."""
    assert isinstance(fit, ResidualFit)
    if order == tuple(range(len(order))):
        return _located(fit, term=term, back=order)
    take, part, design = list(order), fit.template.slices[term], fit.design
    theta = fit.theta.copy()
    theta[part] = turned(fit.template.structures[term].factor(theta[part]), order)
    blocks = list(design.blocks)
    block = blocks[term]
    names = tuple(block.names[i] for i in take)
    blocks[term] = replace(block, columns=np.asfortranarray(block.columns[:, take]), names=names)
    sets = sets_of(replace(design, blocks=tuple(blocks)), fit.structure)
    old = fit.problem.joint
    shifts = tuple(b.shift for b in blocks)
    template = replace(old.template, shifts=shifts)
    joint = JointDeviance.of(sets, fit.solver, template, False, old.held_sigma)
    return _located(fit, joint, theta, term, tuple(int(i) for i in np.argsort(order)))


def _element(at: Located, fit: ResidualFit, i: int) -> Problem:
    """One element of φ held, of which the natural parameter is a function."""
    structure, d = fit.structure, fit.template.n_theta
    law, m = structure.correlation, structure.n_correlation
    of_log = isinstance(law, Unstructured) and i < m  # the ratio of two standard deviations
    lower, upper = (0.0, np.inf) if of_log else (-np.inf, np.inf)
    if i < m and not of_log:
        ends = law.natural(np.full(1, -700.0)), law.natural(np.full(1, 700.0))
        lower, upper = float(ends[0][0]), float(ends[1][0])

    def phi_of(value: float) -> float:
        if i >= m:
            return value
        with np.errstate(all="ignore"):
            return float(np.log(value) if of_log else law.from_natural(np.array([value]))[0])

    estimate = float(fit.natural[i])
    slope = float(structure.slopes(fit.phi)[i, i])
    return _held(at, d + i, phi_of, (lower, upper), estimate, slope)


def _held(
    at: Located,
    index: int,
    phi_of: object,
    limits: tuple[float, float],
    estimate: float,
    slope: float,
) -> Problem:
    """A problem in which an element of (θ, φ) is a function of the parameter's value."""
    assert callable(phi_of)
    unit = at.unit

    def solve(value: float, x: FloatArray) -> Point:
        found = at.on_plane(unit[[index]], x, phi_of(value) * unit[index])
        return replace(found, value=value)

    step = 0.1 * abs(slope) * float(at.scaled.to_theta(unit)[index, index])
    return Problem(*limits, False, step, at.optimum(estimate), solve, at.estimates)


def _correlation(fit: ResidualFit, i: int, law: Unstructured) -> Problem:
    """A correlation of us(): that of the first two visits, once they stand first."""
    a, b = law.pair(i - (law.v - 1))
    order = [a, b, *(k for k in range(law.v) if k not in (a, b))]
    place = np.argsort(order)
    groups = replace(law.groups, times=place[law.groups.times.astype(np.intp)].astype(float))
    visits = tuple(law.visits[k] for k in order)
    moved = Unstructured(groups, visits)
    structure = replace(fit.structure, correlation=moved)
    own, gamma = fit.structure.split(fit.phi)
    R = law.covariance(own)[np.ix_(order, order)]
    phi = np.concatenate([moved.of_covariance(R), gamma])
    old = fit.problem.joint
    sets = sets_of(fit.design, structure)
    joint = JointDeviance.of(sets, fit.solver, old.template, False, old.held_sigma)
    # σ is that of another visit, and θ is relative to it.
    ratio = float(np.sqrt(law.covariance(own)[a, a]))
    theta = _relative(fit, ratio)
    twin = replace(fit, optimum=replace(fit.optimum, x=np.concatenate([theta, phi])))
    at = _JointLocated(_criterion(twin, joint), np.concatenate([theta, phi]))
    index = len(theta) + law.v - 1  # of the first correlation

    def back(point: Point) -> tuple[FloatArray, float, FloatArray]:
        both, sigma, beta = at.estimates(point)
        d = len(theta)
        C = moved.covariance(both[d : d + moved.n_par])[np.ix_(place, place)]
        first = float(np.sqrt(C[0, 0]))
        there = np.concatenate([law.of_covariance(C), both[d + moved.n_par :]])
        return np.concatenate([_scaled_by(fit, both[:d], 1.0 / first), there]), sigma * first, beta

    estimate = float(fit.natural[i])
    chart = lambda r: r / np.sqrt(1.0 - r * r)  # noqa: E731
    slope = (1.0 - estimate**2) ** 1.5
    return replace(_held(at, index, chart, (-1.0, 1.0), estimate, slope), estimates=back)


def _relative(fit: ResidualFit, ratio: float) -> FloatArray:
    """θ relative to `ratio` times σ."""
    return _scaled_by(fit, fit.theta, 1.0 / ratio)


def _scaled_by(fit: ResidualFit, theta: FloatArray, factor: float) -> FloatArray:
    """θ with all standard deviations multiplied."""
    out = theta.copy()
    for structure, part in zip(fit.template.structures, fit.template.slices, strict=True):
        correlations = np.isfinite(structure.upper())
        out[part] = np.where(correlations, out[part], factor * out[part])
    return out


def _fixed_effect(fit: ResidualFit, column: int) -> Problem:
    """One fixed effect held: its column moves into the offset."""
    joint = fit.problem.joint
    full = joint.at(fit.phi)
    products, old = full.products, full.response
    R = products.basis.R
    G, triangle = np.linalg.qr(np.delete(R, column, axis=1), mode="complete")
    c, unit, rest, triangle = G.T @ R[:, column], G[:, -1], G[:, :-1], triangle[:-1]
    empty = Column(rest, unit, triangle, 0.0, np.zeros(len(triangle)), joint.system)
    smaller = replace(
        products,
        ZtX=products.ZtX @ rest,
        XtX=rest.T @ products.XtX @ rest,
        basis=replace(products.basis, R=triangle),
    )
    system = fit.solver.build(smaller, joint.template)

    curvature = Curvature()

    def located(value: float) -> Located:
        beta0 = G.T @ old.beta0 - value * c
        held = replace(empty, kappa=float(beta0[-1]), beta0=beta0[:-1], system=system)
        both = np.concatenate([fit.theta, fit.phi])
        return _JointLocated(_criterion(fit, joint, held, curvature), both)

    def solve(value: float, x: FloatArray) -> Point:
        scaled = located(value).scaled
        return replace(minimize(scaled, x, scaled.bounds), value=value)

    def estimates(point: Point) -> tuple[FloatArray, float, FloatArray]:
        both, sigma, beta = located(point.value).estimates(point)
        return both, sigma, np.insert(beta, column, point.value)

    x = _located(fit).scaled.to_internal(np.concatenate([fit.theta, fit.phi]))
    return Problem(
        lower=-np.inf,
        upper=np.inf,
        closed=False,
        scale=0.25 * float(np.sqrt(fit.vcov[column, column])),
        best=Point(float(fit.beta[column]), fit.criterion, x),
        solve=solve,
        estimates=estimates,
    )
