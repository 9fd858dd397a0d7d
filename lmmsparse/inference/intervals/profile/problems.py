"""ML fit and one parameter → the least deviance with it held at a value.

All searches run in the standardized coordinates of θ. A fixed effect is held by moving its column
into the offset. A standard deviation is held by letting σ = value / ‖row of T‖; σ itself by holding
it; a correlation, and a standard deviation of zero, by linear constraints on θ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.profile.curve import Problem
from lmmsparse.inference.intervals.profile.located import Located, reordered
from lmmsparse.inference.intervals.profile.search import (
    Point,
    SigmaHeld,
    minimize,
)
from lmmsparse.results.parameters import parameter_names


def problem_of(fit: Fit, index: int) -> Problem:
    """The parameter at a position of `parameter_names` followed by the fixed effects."""
    d = fit.template.n_theta
    if index > d:
        return _fixed_effect(fit, index - d - 1)
    if index == d:
        return residual_deviation(Located(fit.objective, fit.theta))
    return of_theta(fit, index, Located, reordered)


def of_theta(
    fit: Fit,
    index: int,
    here: Callable[..., Located],
    moved: Callable[[Fit, int, tuple[int, ...]], Located],
) -> Problem:
    """An element of θ as a standard deviation or correlation.

    Parameters
    ----------
    here, moved : callable
        What makes the criterion and its optimum, as they are and with a term's effects reordered.
    """
    term = next(t for t, part in enumerate(fit.template.slices) if index < part.stop)
    structure, part = fit.template.structures[term], fit.template.slices[term]
    row, column = structure.entries[index - part.start]
    located = here(fit.objective, fit.theta, term)
    if row == column and fit.held.sigma is None:
        return _standard_deviation(located, row)
    if not structure.closed or structure.k == 1:
        return _element(located, index, fit.sigma if row == column else 1.0)
    if not fit.template.free[part].all():
        raise OptionError(
            f"{parameter_names(fit)[index]} cannot be profiled: it is a function of several "
            f"elements of theta, and some of {fit.design.blocks[term].source} are fixed. Name the "
            "parameters to profile by which=, or use method='boot'."
        )
    # What is held must be of the first effect, or the first two.
    first = (column, row) if row != column else (row,)
    located = moved(fit, term, (*first, *(i for i in range(structure.k) if i not in first)))
    return _element(located, part.start, fit.sigma) if row == column else _correlation(located)


def residual_deviation(at: Located) -> Problem:
    """σ held."""
    d = len(at.theta)
    to_theta = at.scaled.to_theta(at.unit)

    def solve(value: float, x: FloatArray) -> Point:
        held = (float(np.log(value)), np.zeros(d), np.zeros((d, d)))
        return at.with_sigma(SigmaHeld(at.objective, to_theta, lambda theta: held), value, x)

    return Problem(
        lower=0.0,
        upper=np.inf,
        closed=False,
        scale=0.3 * at.sigma / float(np.sqrt(at.objective.products.n)),
        best=at.optimum(at.sigma),
        solve=solve,
        estimates=lambda point: at.estimates(point, point.value),
    )


def _standard_deviation(at: Located, row: int) -> Problem:
    """The standard deviation σ ‖T_row‖ of one effect of one term held, with σ free to follow."""
    template, structure, part = at.template, at.structure, at.part
    to_theta = at.scaled.to_theta(at.unit)
    # The parameters that are zero where the standard deviation is.
    own = [
        part.start + i
        for i, (r, column) in enumerate(structure.entries)
        if r == row and (structure.closed or column == row)
    ]
    is_own = np.isin(np.arange(len(at.theta)), own)

    def size_of(theta: FloatArray) -> float:
        return float(np.linalg.norm(structure.factor(theta[part])[row]))

    def log_sigma(theta: FloatArray, value: float) -> tuple[float, FloatArray, FloatArray]:
        r = structure.factor(theta[part])[row]
        square = max(float(r @ r), 1e-200)
        slope, unit = np.zeros(len(theta)), np.zeros((structure.k, structure.k))
        slope[part] = -(structure.derivative(theta[part])[:, row] @ r) / square
        unit[row, row] = 1.0
        bend = 2.0 * np.outer(slope, slope)
        bend[part, part] -= structure.curvature(theta[part], unit) / (2 * square)
        return float(np.log(value) - 0.5 * np.log(square)), slope, bend

    def solve(value: float, x: FloatArray) -> Point:
        if value <= 0:
            return replace(at.on_plane(at.unit[own], x), value=0.0)
        theta = at.scaled.to_theta(x)
        size = size_of(theta)
        if not 0.5 < size * at.sigma / value < 2.0:
            # Start from a row that leaves σ where it is.
            rows = is_own & template.free
            unit = np.zeros(len(theta))
            unit[part] = structure.start()
            start = theta if size > 0 else np.where(rows, unit, theta)
            factor = value / (at.sigma * size_of(start))
            x = at.scaled.to_internal(np.where(rows, start * factor, start))
        held = SigmaHeld(at.objective, to_theta, lambda theta: log_sigma(theta, value))
        return at.with_sigma(held, value, x)

    def estimates(point: Point) -> tuple[FloatArray, float, FloatArray]:
        size = size_of(at.scaled.to_theta(point.x))
        return at.estimates(point, point.value / size if point.value > 0 else None)

    estimate = at.sigma * size_of(at.theta)
    typical = at.scaled.to_theta(at.scaled.to_internal(template.start))
    return Problem(
        lower=0.0,
        upper=np.inf,
        # Zero is possible unless the user holds some of the row elsewhere.
        closed=not np.any(template.start[is_own & ~template.free]),
        scale=0.05 * estimate if estimate > 0 else 0.02 * at.sigma * size_of(typical),
        best=at.optimum(estimate),
        solve=solve,
        estimates=estimates,
    )


def _correlation(at: Located) -> Problem:
    """The correlation of the first two effects of an unstructured term held."""

    def value_of(theta: FloatArray) -> float:
        T = at.structure.factor(theta[at.part])
        size = float(np.hypot(T[1, 0], T[1, 1]))
        if T[0, 0] == 0 or size == 0:
            return np.nan
        return float(np.clip(np.sign(T[0, 0]) * T[1, 0] / size, -1.0, 1.0))

    def indices(*entries: tuple[int, int]) -> list[int]:
        """Where entries of T stand in θ."""
        return [at.part.start + at.structure.entries.index(entry) for entry in entries]

    @cache
    def undetermined() -> Point:
        """The optimum where either effect has no variance: any value of the correlation is there.

        An effect without variance has a row of zeros in T, and the others need one column less.
        """
        zeros = [indices(*(e for e in at.structure.entries if effect in e)) for effect in (0, 1)]
        found = [at.on_plane(at.unit[own], at.x) for own in zeros]
        return min(found, key=lambda point: point.deviance)

    def solve(value: float, x: FloatArray) -> Point:
        if np.isnan(value_of(at.scaled.to_theta(x))):
            x = at.x
        C = np.zeros((1, len(at.theta)))
        C[0, indices((1, 0), (1, 1))] = np.sqrt(1.0 - value**2), -value
        found = at.on_plane(C, x)
        # On this plane the correlation is the value or its negative.
        reached = value_of(at.scaled.to_theta(found.x))
        if not abs(reached - value) <= 1e-6 or found.deviance > undetermined().deviance:
            found = undetermined()
        return replace(found, value=value)

    best = at.optimum(value_of(at.theta))
    return Problem(-1.0, 1.0, True, 0.05, best, solve, at.estimates)


def _element(at: Located, index: int, per_unit: float) -> Problem:
    """One element of θ held: a correlation, or with σ known a standard deviation.

    Parameters
    ----------
    per_unit : float
        The parameter for each unit of the element: 1, or σ.
    """
    template, part, unit = at.template, at.part, at.unit
    upper, estimate = per_unit * float(template.upper[index]), per_unit * float(at.theta[index])
    # Where the standard deviations stand that a correlation is about, if it is one.
    own: list[int] = []
    if np.isfinite(template.upper[index]) and template.free[part].all():
        own = [i for i in range(part.start, part.stop) if np.isinf(template.upper[i])]

    def search(value: float, x: FloatArray, without: Sequence[int] = ()) -> Point:
        """The optimum at a value of the element, without some standard deviations."""
        return at.on_plane(unit[[index, *without]], x, value / per_unit * unit[index])

    @cache
    def undetermined() -> list[Point]:
        """The optima with no two standard deviations left, at which the correlation is anything."""
        without = [[j for j in own if j != i] for i in own] if len(own) > 1 else [own]
        return [search(estimate, at.x, zeros) for zeros in without]

    def solve(value: float, x: FloatArray) -> Point:
        found = [search(value, x)]
        if own:
            # There may be a minimum with a standard deviation and another one without.
            theta, typical = at.scaled.to_theta(x), at.scaled.to_theta(template.start)
            for i in own:
                start = theta.copy()
                start[i] = 0.0 if theta[i] > 1e-3 * typical[i] else typical[i]
                found.append(search(value, at.scaled.to_internal(start)))
            found += undetermined()
        return replace(min(found, key=lambda point: point.deviance), value=value)

    scale = 0.05
    if not np.isfinite(upper):
        typical = per_unit * float(at.scaled.to_theta(unit)[index, index])
        scale = 0.05 * estimate if estimate > 0 else 0.02 * typical
    lower, best = per_unit * float(template.lower[index]), at.optimum(estimate)
    return Problem(lower, upper, True, scale, best, solve, at.estimates)


def _fixed_effect(fit: Fit, column: int) -> Problem:
    """One fixed effect held: its column moves into the offset."""
    products, old = fit.products, fit.objective.response
    # The other columns in the internal basis: X₋ = Q G R₋ and x = Q (G c + g ρ).
    R = products.basis.R
    G, triangle = np.linalg.qr(np.delete(R, column, axis=1), mode="complete")
    c, unit, rest, triangle = G.T @ R[:, column], G[:, -1], G[:, :-1], triangle[:-1]
    logdet = float(2 * np.log(np.abs(np.diag(triangle))).sum())
    smaller = replace(
        products,
        ZtX=products.ZtX @ rest,
        XtX=rest.T @ products.XtX @ rest,
        basis=replace(products.basis, R=triangle, logdet=logdet),
    )
    system = fit.solver.build(smaller, fit.template)
    without = replace(fit.objective, system=system, products=smaller)

    def located(value: float) -> Located:
        # The residual of y − value·x on X₋ is that of y on X plus κ times a unit vector.
        beta0 = G.T @ old.beta0 - value * c
        kappa = float(beta0[-1])
        response = replace(
            old,
            Zty=old.Zty + kappa * (products.ZtX @ unit),
            Xty=rest.T @ old.Xty,
            yty=old.yty + kappa * kappa + 2.0 * kappa * float(unit @ old.Xty),
            beta0=beta0[:-1],
        )
        return Located(without.with_response(response), fit.theta)

    def solve(value: float, x: FloatArray) -> Point:
        scaled = located(value).scaled
        return replace(minimize(scaled, x, scaled.bounds), value=value)

    def estimates(point: Point) -> tuple[FloatArray, float, FloatArray]:
        theta, sigma, beta = located(point.value).estimates(point)
        return theta, sigma, np.insert(beta, column, point.value)

    x = StandardizedObjective(fit.objective).to_internal(fit.theta)
    return Problem(
        lower=-np.inf,
        upper=np.inf,
        closed=False,
        scale=0.25 * float(np.sqrt(fit.vcov[column, column])),
        best=Point(float(fit.beta[column]), fit.criterion, x),
        solve=solve,
        estimates=estimates,
    )
