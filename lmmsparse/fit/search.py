"""Objective and start → optimum: the search in standardized coordinates, reported in θ.

Units of the predictors never reach an optimizer, and what it finds is put in canonical form: signs
flipped so that diagonals are not negative, tiny variances set to zero where that costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.design import Design
from lmmsparse.engine.covariance.structures import LambdaTemplate
from lmmsparse.engine.covariance.tangents import ALMOST_NOTHING
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.products import CrossProducts
from lmmsparse.fit.charts import ChartedObjective
from lmmsparse.fit.start import (
    Start,
    checked_start,
    further_starts,
    is_cheap,
    is_lost,
    lacks_fixed_effects,
    lacks_variance,
    start_values,
    starts_at_limits,
)
from lmmsparse.fit.undetermined import Undetermined
from lmmsparse.optimize import (
    Announced,
    Bobyqa,
    Bounds,
    Derivatives,
    NelderMead,
    Objective,
    Optimizer,
    Optimum,
    QuasiNewton,
    Status,
    TrustRegion,
    minimize_free,
)

SNAP = 1e-3
NO_WORSE = 1e-9
_NOTICEABLE = 1e-6
_FAR = 5.0
_PATIENCE = 60  # evaluations of a search from a further start
_PER_PARAMETER = 200  # evaluations of a search without derivatives
_SIMPLEX_UP_TO = 6  # parameters
_HALVINGS = 40
_DEPENDENT = 1e-8


def search(
    objective: ProfiledDeviance,
    design: Design,
    start: FloatArray | Start | None,
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
    start : (n_theta,) array or Start or None
        Where to begin. With None, further starts follow where there may be more than one minimum
        and an evaluation is cheap.
    optimizer : Optimizer
    progress : bool
        Print every evaluation to the standard error stream.
    undetermined : Undetermined, optional
        What the search is to keep off.
    """
    searches = _Searches(objective, design, optimizer, progress, undetermined)
    if isinstance(start, Start):
        first = start
    elif start is None:
        first = searches.default_start()
    else:
        first = Start("", checked_start(start, objective.template))
    found = searches.run(optimizer, first)
    if not np.isfinite(found.value):
        raise NumericalError(
            "The criterion could not be evaluated at the start values. The data may hold values "
            "that are far too large or too small. Check the predictors, or pass other start values."
        )
    return searches.reported(searches.carried_on(searches.lowest(found, start is None)))


class _Searches:
    """Searches of one criterion, from several starts and by several optimizers."""

    def __init__(
        self,
        objective: ProfiledDeviance,
        design: Design,
        optimizer: Optimizer,
        progress: bool,
        undetermined: Undetermined | None,
    ) -> None:
        self._objective, self._design, self._optimizer = objective, design, optimizer
        self._progress = progress
        self._template = objective.template
        self._scaled = StandardizedObjective(objective, undetermined)
        self._bounds = self._scaled.bounds
        self._limited = bool(np.isfinite(self._bounds.limits).any())

    def default_start(self) -> Start:
        """The start values; from nowhere in particular, or from far away, with their moments."""
        template, scaled = self._template, self._scaled
        theta = template.with_held(start_values(scaled, self._design))
        rough = (
            np.array_equal(theta, scaled.to_theta(template.start))
            or np.abs(scaled.to_internal(theta)).max() > _FAR
        )
        return Start("", theta, moments=rough)

    def run(self, optimizer: Optimizer, start: Start) -> Optimum:
        """One search, in standardized coordinates."""
        scaled, x = self._scaled, self._scaled.to_internal(start.theta)
        target: Objective = scaled
        if not self._limited and not isinstance(optimizer, QuasiNewton):
            target = scaled.charted(x if start.moments else None)
        target = Announced(target) if self._progress else target
        return minimize_free(optimizer, target, x, self._bounds, self._template.free)

    def lowest(self, found: Optimum, from_default: bool) -> Optimum:
        """The best of this search and of those from further starts, if there is need of any."""
        best, evaluations = found, found.evaluations
        for start in self._further_starts(found, from_default):
            other = self.run(self._shortened(), start)
            evaluations += other.evaluations
            if self._believable(other) < self._believable(best) - NO_WORSE:
                best = replace(other, start=start.name)
        return replace(best, further_evaluations=evaluations - best.evaluations)

    def _further_starts(self, found: Optimum, from_default: bool) -> Iterator[Start]:
        theta = self._scaled.to_theta(found.x)
        at_limit = bool(np.any(self._bounds.held(found.x) & self._template.free))
        several = from_default and isinstance(self._optimizer, TrustRegion)
        products = self._objective.products
        if is_lost(found.x) and not from_default:
            yield self.default_start()
        if several and is_cheap(products) and self._template.free.any():
            if at_limit or lacks_fixed_effects(products) or lacks_variance(self._objective, theta):
                yield from further_starts(self._scaled)
        elif at_limit:
            yield from starts_at_limits(self._scaled)

    def _shortened(self) -> Optimizer:
        """The optimizer, for a search that may only find again what is known."""
        if not isinstance(self._optimizer, TrustRegion):
            return self._optimizer
        return replace(self._optimizer, max_eval=min(_PATIENCE, self._optimizer.max_eval))

    def _believable(self, found: Optimum) -> float:
        """The criterion, with what rounding may have taken off."""
        theta = self._scaled.to_theta(found.x)
        return found.value + self._objective.lost_digits(theta)

    def carried_on(self, found: Optimum) -> Optimum:
        """The same if the search has ended at a minimum; otherwise what others find from there."""
        mine = self._optimizer
        if not isinstance(mine, TrustRegion) or mine.max_eval != TrustRegion.max_eval:
            return found  # a limit that the user has set is kept
        others = other_searches(self._template.n_theta)
        more = [] if found.evaluations >= mine.max_eval else [mine]
        while not _confirmed(found) and not is_lost(found.x):
            optimizer = more.pop() if more else next(others, None)
            if optimizer is None:
                break
            try:
                other = self.run(optimizer, Start("", self._scaled.to_theta(found.x)))
            except NumericalError:
                continue
            found = _followed(found, other)
        return found

    def reported(self, found: Optimum) -> Optimum:
        """The same in θ, canonical, with tiny variances set to zero where that costs nothing."""
        scaled, template = self._scaled, self._template
        if is_lost(found.x):
            found = self._within_reach(found)
        trace = np.array(found.trace)
        trace[:, :-1] = scaled.to_theta(trace[:, :-1].T).T
        x, value, extra = _snap_to_zero(scaled, found.x, found.value, self._bounds)
        box = Bounds(template.lower, template.upper, template.mirrors)
        theta = box.canonical(scaled.to_theta(x))
        evaluations = found.evaluations + extra
        return replace(found, x=theta, value=value, trace=trace, evaluations=evaluations)

    def _within_reach(self, found: Optimum) -> Optimum:
        """The same, nearer to zero if the criterion cannot be evaluated there.

        Where a model fits exactly, a search goes on until the arithmetic breaks down.
        """
        x = found.x
        for _ in range(_HALVINGS):
            try:
                self._scaled.derivatives(x)
                return replace(found, x=x, value=self._scaled(x))
            except (NumericalError, np.linalg.LinAlgError):
                x = np.where(self._template.free & ~np.isfinite(self._bounds.limits[1]), x / 2, x)
        return found


def _confirmed(found: Optimum) -> bool:
    """Whether a search is over, which only derivatives tell."""
    return found.status is Status.CONVERGED and found.expected_decrease is not None


def _followed(found: Optimum, other: Optimum) -> Optimum:
    """The better end of a search and of one that went on from there; named is who has got there."""
    better = other if other.value <= found.value + NO_WORSE else found
    further = other.value < found.value - _NOTICEABLE
    return replace(
        better,
        optimizer=other.optimizer if further else found.optimizer,
        start=found.start,
        evaluations=found.evaluations + other.evaluations,
        further_evaluations=found.further_evaluations,
        trace=np.concatenate([found.trace, other.trace]),
    )


def other_searches(n_theta: int) -> Iterator[Optimizer]:
    """What is tried from where a second-order search has stopped short, one after the other.

    Parameters
    ----------
    n_theta : int
    """
    most = _PER_PARAMETER * n_theta
    yield QuasiNewton()
    yield TrustRegion()
    yield Bobyqa(max_eval=most)
    if n_theta <= _SIMPLEX_UP_TO:
        yield NelderMead(max_eval=most)
    yield TrustRegion()


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
        self._map = standardizing_map(template, products)
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

    def charted(self, rough: FloatArray | None = None) -> ChartedObjective:
        """The same with derivatives along charts, where no coordinate has a limit.

        Parameters
        ----------
        rough : (d,) array, optional
            A point at which to look for a better one by the method of moments.
        """
        return ChartedObjective(self._objective, self._map, rough, self._undetermined)

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


def standardizing_map(template: LambdaTemplate, products: CrossProducts) -> FloatArray:
    """The linear map of standardized coordinates to θ, (n_theta, n_theta), lower triangular.

    Parameters
    ----------
    template : LambdaTemplate
    products : CrossProducts
    """
    out = np.eye(template.n_theta)
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
        out[part, part] = structure.standardizer(inverse)
    return out


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
