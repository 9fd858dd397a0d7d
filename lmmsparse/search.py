"""Objective and start → optimum: the search in standardized coordinates, reported in θ.

Units of the predictors never reach an optimizer, and what it finds is put in canonical form: signs
flipped so that diagonals are not negative, tiny variances set to zero where that costs nothing.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import scipy.linalg as sla

from lmmsparse._types import FloatArray
from lmmsparse.charts import ChartedObjective
from lmmsparse.covariance import LambdaTemplate
from lmmsparse.design import Design
from lmmsparse.errors import NumericalError, OptionError
from lmmsparse.objective import ProfiledDeviance
from lmmsparse.optimize import Bounds, Derivatives, Objective, Optimizer, Optimum, minimize_free
from lmmsparse.options import brief
from lmmsparse.tangents import ALMOST_NOTHING
from lmmsparse.undetermined import Undetermined

SNAP = 1e-3
NO_WORSE = 1e-9
_FAR = 5.0
_DEPENDENT = 1e-8


def search(
    objective: ProfiledDeviance,
    design: Design,
    start: FloatArray | None,
    optimizer: Optimizer,
    progress: bool = False,
    undetermined: Undetermined | None = None,
) -> Optimum:
    """Minimize the criterion in standardized coordinates and report in θ.

    Parameters
    ----------
    objective : ProfiledDeviance
    design : Design
        Only asked for start values.
    start : (n_theta,) array or None
    optimizer : Optimizer
    progress : bool
        Print every evaluation to the standard error stream.
    undetermined : Undetermined, optional
        What the search is to keep off.
    """
    template = objective.template
    scaled = StandardizedObjective(objective, undetermined)
    bounds, free = scaled.bounds, template.free
    first = start_values(scaled, design) if start is None else _check_start(start, template)
    first = template.with_held(first)
    target: Objective = scaled
    if not np.isfinite(bounds.limits).any():
        # From nowhere in particular, or from far away, moment estimates can save half the way.
        x = scaled.to_internal(first)
        rough = start is None and (
            np.array_equal(first, scaled.to_theta(template.start)) or np.abs(x).max() > _FAR
        )
        map_ = scaled.to_theta(np.eye(template.n_theta))
        target = ChartedObjective(objective, map_, x if rough else None, undetermined)
    target = Announced(target) if progress else target
    found = minimize_free(optimizer, target, scaled.to_internal(first), bounds, free)
    if np.any(bounds.held(found.x) & free):
        found = _from_other_starts(target, scaled, found, optimizer, bounds)
    trace = np.array(found.trace)
    trace[:, :-1] = scaled.to_theta(trace[:, :-1].T).T
    if not np.isfinite(found.value):
        raise NumericalError(
            "The criterion could not be evaluated at the start values. The data may hold values "
            "that are far too large or too small. Check the predictors, or pass other start values."
        )
    x, value, extra = _snap_to_zero(scaled, found.x, found.value, bounds)
    theta = Bounds(template.lower, template.upper, template.mirrors).canonical(scaled.to_theta(x))
    return replace(found, x=theta, value=value, trace=trace, evaluations=found.evaluations + extra)


def _from_other_starts(
    target: Objective,
    scaled: StandardizedObjective,
    found: Optimum,
    optimizer: Optimizer,
    bounds: Bounds,
) -> Optimum:
    """The best of several searches, where the first has ended at a limit.

    With standard deviations of zero or a correlation at its bound there can be more than one
    minimum: these starts are on either side of no correlation.
    """
    template = scaled.template
    searches = [found]
    for share in (-0.9, 0.9):
        start = template.start.copy()
        low, high = template.lower, template.upper
        limited = np.isfinite(high) & template.free
        start[limited] = abs(share) * (low if share < 0 else high)[limited]
        first = scaled.to_internal(start)
        searches.append(minimize_free(optimizer, target, first, bounds, template.free))
    best = min(searches, key=lambda each: each.value)
    best = best if best.value < found.value - NO_WORSE else found
    trace = np.concatenate([each.trace for each in searches])
    return replace(best, trace=trace, evaluations=sum(each.evaluations for each in searches))


class StandardizedObjective:
    """The criterion in coordinates in which every random-effects column has unit size.

    For a term with columns M let K be lower triangular with K'K = M'WM/n. Then T = K⁻¹ T̃ with T̃
    lower triangular, a linear map of θ̃ to θ that keeps every bound at zero; the model is the same
    and the units of the predictors disappear from the search. Where elements of T are held, K is
    diagonal, so that they are coordinates of the search too.

    Parameters
    ----------
    objective : ProfiledDeviance
    undetermined : Undetermined, optional
        Directions in which steps are not to go.
    """

    def __init__(
        self, objective: ProfiledDeviance, undetermined: Undetermined | None = None
    ) -> None:
        self._objective, self._undetermined = objective, undetermined
        self.template = template = objective.template
        products = objective.products
        self._map = np.eye(template.n_theta)
        own = [pair for pair in products.pairs if pair.s == pair.t]
        for t, (structure, part, pair) in enumerate(
            zip(template.structures, template.slices, own, strict=True)
        ):
            gram = pair.values.sum(axis=0) / products.n
            S = template.shifts[t] if template.shifts else None
            if not template.free[part].all():
                inverse = standardizer(np.diag(np.diag(template.unshifted(t, gram))))
            else:
                inverse = standardizer(gram) if S is None else _standardizer_of_shifted(gram, S)
            self._map[part, part] = structure.standardizer(inverse)
        self._inverse = sla.solve_triangular(self._map, np.eye(template.n_theta), lower=True)

    @property
    def bounds(self) -> Bounds:
        """The box of the internal coordinates, a point where θ is held, and their mirrors."""
        template = self.template
        held = ~template.free
        at = self.to_internal(template.start)[held]
        lower, upper = template.lower.copy(), template.upper.copy()
        lower[held] = upper[held] = at
        return Bounds(lower, upper, template.mirrors)

    def to_theta(self, x: FloatArray) -> FloatArray:
        """Internal coordinates (d,) or (d, m) → θ."""
        return np.asarray(self._map @ x)

    def to_internal(self, theta: FloatArray) -> FloatArray:
        """θ → internal coordinates."""
        return np.asarray(self._inverse @ theta)

    def __call__(self, x: FloatArray) -> float:
        return self._objective(self._map @ x)

    def derivatives(self, x: FloatArray) -> Derivatives:
        theta = self.to_theta(x)
        at = self._objective.derivatives(theta).along(self._map)
        if self._undetermined is None:
            return at
        nothing = [None] * len(self.template.structures)
        rows = self._undetermined.along(
            self.template, theta, nothing, self._objective.column_scales
        )
        return at.kept_off(rows @ self._map)


class Announced:
    """An objective that prints every evaluation to the standard error stream."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._count = 0

    def _announce(self, value: float) -> None:
        self._count += 1
        print(f"evaluation {self._count}: criterion {value:.6f}", file=sys.stderr)

    def __call__(self, x: FloatArray) -> float:
        value = self._objective(x)
        self._announce(value)
        return value

    def derivatives(self, x: FloatArray) -> Derivatives:
        at = self._objective.derivatives(x)
        self._announce(at.value)
        return at


def standardizer(gram: FloatArray) -> FloatArray:
    """K⁻¹ for K lower triangular with K'K = gram; diagonal scaling where gram is singular."""
    size = np.sqrt(np.diag(gram))
    if not np.all(size > 0):
        return np.diag(1.0 / np.where(size > 0, size, 1.0))
    correlation = gram / np.outer(size, size)
    try:
        upper = np.linalg.cholesky(correlation[::-1, ::-1])
    except np.linalg.LinAlgError:
        return np.diag(1.0 / size)
    K = upper.T[::-1, ::-1]
    if np.min(np.diag(K)) < 1e-6:
        return np.diag(1.0 / size)
    inverse = sla.solve_triangular(K, np.eye(len(K)), lower=True)
    return np.asarray(inverse / size[:, None])


def _standardizer_of_shifted(gram: FloatArray, S: FloatArray) -> FloatArray:
    """K⁻¹ for K lower triangular with K'K = S' gram S, about that where gram is singular.

    The product is not formed: it would have lost the digits that the shift has saved. Nor would
    diagonal scaling do: from far away, all columns look like the constant one.
    """
    size = np.sqrt(np.diag(gram))
    correlation = gram / np.outer(size, size)
    if np.linalg.eigvalsh(correlation)[0] < _DEPENDENT:
        correlation += 1e-3 * np.eye(len(gram))  # less would let T grow where nothing holds it
    upper = np.linalg.cholesky(correlation).T @ (size[:, None] * S)
    K = np.asarray(np.linalg.qr(upper[:, ::-1], mode="r"))[::-1, ::-1]
    K = K * np.where(np.diag(K) < 0, -1.0, 1.0)[:, None]
    return np.asarray(sla.solve_triangular(K, np.eye(len(K)), lower=True))


def start_values(objective: StandardizedObjective, design: Design) -> FloatArray:
    """θ to start from: moment estimates (lme4's) for random intercepts only, or unit size."""
    blocks = design.blocks
    simple = all(b.columns.shape[1] == 1 and np.ptp(b.columns) == 0 for b in blocks)
    if simple and len({b.group for b in blocks}) == len(blocks):
        y = design.y
        between = []
        for block in blocks:
            counts = np.bincount(block.codes, minlength=block.n_levels)
            means = np.bincount(block.codes, y, minlength=block.n_levels) / counts
            between.append(float(np.var(means[block.codes], ddof=1)))
        within = float(np.var(y, ddof=1)) - sum(between)
        if within > 0:
            scale = np.array([abs(float(b.columns[0, 0])) for b in blocks])
            return np.asarray(np.sqrt(np.array(between) / within) / scale)
    return objective.to_theta(objective.template.start)


def _check_start(start: FloatArray, template: LambdaTemplate) -> FloatArray:
    try:
        if np.iscomplexobj(start):
            raise TypeError("complex numbers")
        theta = np.asarray(start, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"start={brief(start)} does not hold numbers. It gives the covariance parameters to "
            "start from. Give one number per parameter, in the order of m.theta."
        ) from error
    if theta.shape != (template.n_theta,):
        raise OptionError(
            f"start has {theta.size} values, but the model has {template.n_theta} covariance "
            "parameters. Each of them needs a start. Give one value per parameter, in the order of "
            "m.theta."
        )
    if not np.isfinite(theta).all():
        raise OptionError(
            "start holds values that are not finite. A search starts from a point. Give finite "
            "numbers."
        )
    theta = template.with_held(theta)
    outside = np.flatnonzero((theta < template.lower) | (theta > template.upper))
    if outside.size:
        i = int(outside[0])
        raise OptionError(
            f"start[{i}] = {theta[i]:g} is outside its bounds ({template.lower[i]:g} to "
            f"{template.upper[i]:g}). Diagonal entries of the covariance factor cannot be "
            "negative. Give a value inside."
        )
    return theta


def _snap_to_zero(
    objective: StandardizedObjective, x: FloatArray, value: float, bounds: Bounds
) -> tuple[FloatArray, float, int]:
    """Set tiny diagonal entries to exactly zero where that does not raise the criterion.

    Returns the point, the criterion there, and how often that was evaluated.
    """
    evaluations = 0
    for group in bounds.mirrors:
        first = group[0]
        if x[first] == 0.0 or x[first] > SNAP:
            continue
        if np.abs(x[list(group)]).max() < ALMOST_NOTHING:
            x = x.copy()
            x[list(group)] = 0.0
            continue
        trial = x.copy()
        trial[first] = 0.0
        rest = list(group[1:])
        trial[rest] = np.where(np.abs(trial[rest]) < 1e-6, 0.0, trial[rest])
        at_zero = objective(trial)
        evaluations += 1
        if at_zero <= value + NO_WORSE:
            x, value = trial, min(at_zero, value) if at_zero < value else at_zero
    return x, value, evaluations
