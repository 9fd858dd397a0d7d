"""Objective and start → optimum: the search in standardized coordinates, reported in θ.

Units of the predictors never reach an optimizer, and what it finds is put in canonical form: signs
flipped so that diagonals are not negative, tiny variances set to zero where that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.design import Design
from lmmsparse.engine.covariance.tangents import ALMOST_NOTHING
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.fit.coordinates import StandardizedObjective
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
    NelderMead,
    Objective,
    Optimizer,
    Optimum,
    QuasiNewton,
    Status,
    TrustRegion,
    minimize_free,
    nlopt_missing,
)

SNAP = 1e-3
NO_WORSE = 1e-9
_NOTICEABLE = 1e-6
_FAR = 5.0
_PATIENCE = 60  # evaluations of a search from a further start
_PER_PARAMETER = 200  # evaluations of a search without derivatives
_SIMPLEX_UP_TO = 6  # parameters
_HALVINGS = 40


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
    design : Design
        Only asked for start values.
    start : (n_theta,) array or Start or None
        Where to begin. With None, further starts follow where there may be more than one minimum
        and an evaluation is cheap.
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
            "The criterion could not be evaluated at the start values. Check the predictors for "
            "values that are far too large or too small, or pass other start values."
        )
    return searches.reported(searches.carried_on(searches.lowest(found, start is None)))


def first_start(
    objective: ProfiledDeviance, design: Design, start: FloatArray | Start | None
) -> Start:
    """Where `search` begins."""
    if start is None:
        return _Searches(objective, design, TrustRegion(), False, None).default_start()
    return (
        start if isinstance(start, Start) else Start("", checked_start(start, objective.template))
    )


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
        self._limited = not self._bounds.unlimited

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
        scaled, before = self._scaled, np.empty((0, self._template.n_theta + 1))
        x, target = scaled.to_internal(start.theta), cast(Objective, scaled)
        if not self._limited and not isinstance(optimizer, QuasiNewton):
            target = scaled.charted()
            if start.moments and isinstance(optimizer, TrustRegion) and optimizer.max_eval > 1:
                optimizer = replace(optimizer, max_eval=optimizer.max_eval - 1)
                value, nearer = self._nearer(start.theta)
                before = np.append(x, value)[None]
                x = x if nearer is None else nearer
        target = Announced(target) if self._progress else target
        found = minimize_free(optimizer, target, x, self._bounds, self._template.free)
        if not len(before):
            return found
        return replace(
            found,
            evaluations=found.evaluations + len(before),
            trace=np.concatenate([before, found.trace]),
        )

    def _nearer(self, theta: FloatArray) -> tuple[float, FloatArray | None]:
        """The criterion at θ, and the moment estimate, if it is better, in coordinates."""
        value, estimate = self._objective.moment_estimate(theta)
        if estimate is None:
            return value, None
        x = self._scaled.to_internal(estimate)
        try:
            return value, x if self._scaled(x) < value else None
        except NumericalError:
            return value, None

    def lowest(self, found: Optimum, from_default: bool) -> Optimum:
        """The best of this search and of those from further starts, if there is need of any."""
        best, evaluations = found, found.evaluations
        for start in self._further_starts(found, from_default):
            other = self.run(self._shortened(), start)
            evaluations += other.evaluations
            if self._believable(other) < self._believable(best) - NO_WORSE:
                best = replace(other, start=start.name)
        further = evaluations - best.evaluations
        return replace(best, further_evaluations=further) if further else best

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
        points = scaled.to_theta(found.trace[:, :-1].T).T
        trace = np.concatenate([points, found.trace[:, -1:]], axis=1)
        x, value, extra = snap_to_zero(scaled, found.x, found.value, self._bounds)
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
    """What is tried from where a second-order search has stopped short, one after the other."""
    most = _PER_PARAMETER * n_theta
    yield QuasiNewton()
    yield TrustRegion()
    if nlopt_missing():
        return
    yield Bobyqa(max_eval=most)
    if n_theta <= _SIMPLEX_UP_TO:
        yield NelderMead(max_eval=most)
    yield TrustRegion()


def snap_to_zero(
    objective: Callable[[FloatArray], float], x: FloatArray, value: float, bounds: Bounds
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
