"""Residual problem → optimum in (θ, φ).

A variance between groups and a correlation within them can stand for each other, so that the
criterion may have a minimum for each. Every start of φ is therefore given the best θ first, found
by the search that models without φ have, and θ is looked for once more at the φ that was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.design import Design
from lmmsparse.engine.residual.criterion import JointDeviance
from lmmsparse.fit.residual.objective import JointObjective, free_coordinates
from lmmsparse.fit.search import NO_WORSE, other_searches, snap_to_zero
from lmmsparse.fit.search import search as search_theta
from lmmsparse.fit.start import Start, is_cheap
from lmmsparse.optimize import (
    Announced,
    Bounds,
    Derivatives,
    Objective,
    Optimizer,
    Optimum,
    Status,
    TrustRegion,
    minimize_free,
    second_by_differences,
)

_ROUNDS = 3
_ENOUGH = 1e-6
_NOTICEABLE = 1e-6
_ASIDE = (0.01, 0.1, 0.3, 1.0, 3.0)


def search_joint(
    joint: JointDeviance,
    design: Design,
    starts: list[FloatArray],
    free_phi: BoolArray,
    optimizer: Optimizer,
    begin: tuple[FloatArray, FloatArray | None] | None = None,
    progress: bool = False,
) -> Optimum:
    """Minimize the criterion over θ and φ.

    Parameters
    ----------
    starts : list of (n_phi,) arrays
        φ to search from, what is held at its value.
    free_phi : (n_phi,) bool array
    begin : θ and φ (or None: from `starts`), optional
        Where to begin, instead.
    """
    searches = _Searches(joint, design, free_phi, optimizer, progress)
    points: list[tuple[FloatArray | None, FloatArray]]
    if begin is not None and begin[1] is not None:
        points = [(begin[0], begin[1])]
    elif begin is not None:
        points = [(begin[0], phi) for phi in starts]
    else:
        points = [(None, phi) for phi in starts]
    if not is_cheap(searches.products) and begin is None and len(points) > 1:
        points = points[:2]
    return searches.best(points)


class _Searches:
    """Searches of one criterion from several starts."""

    def __init__(
        self,
        joint: JointDeviance,
        design: Design,
        free_phi: BoolArray,
        optimizer: Optimizer,
        progress: bool,
    ) -> None:
        self._joint, self._design, self._optimizer = joint, design, optimizer
        self._progress = progress
        template = joint.template
        self._free = free_coordinates(joint, free_phi)
        limited = template.has_limits
        self._second_order = isinstance(optimizer, TrustRegion)
        charted = bool(self._free.all()) and not limited and self._second_order
        phi = joint.sets.structure.starts[0]
        self._scaled = JointObjective(joint, phi, charted)
        self._plain = JointObjective(joint, phi, False)
        self.products = joint.at(phi).products

    def best(self, points: list[tuple[FloatArray | None, FloatArray]]) -> Optimum:
        """The lowest minimum that the searches from all points find."""
        found, spent = None, 0
        error: NumericalError | None = None
        for theta, phi in points:
            try:
                other = self._from(theta, phi)
            except NumericalError as one:
                error = one
                continue
            spent += other.evaluations
            if found is None or other.value < found.value - NO_WORSE:
                found = other
        if found is None or not np.isfinite(found.value):
            raise error or NumericalError(
                "The criterion could not be evaluated at the start values. Check the predictors "
                "for values that are far too large or too small."
            )
        found = replace(found, further_evaluations=spent - found.evaluations)
        return self._reported(self._carried_on(self._checked(found)))

    def _from(self, theta: FloatArray | None, phi: FloatArray) -> Optimum:
        if theta is None:
            theta = self._theta_at(phi, None)
        return self._run(self._optimizer, self._scaled.x(theta, phi))

    def _theta_at(self, phi: FloatArray, start: Start | None) -> FloatArray:
        """The best θ at a φ."""
        template = self._joint.template
        if not template.n_theta:
            return np.zeros(0)
        if not template.free.any():
            return template.start
        at = self._joint.at(phi)
        return search_theta(at, self._design, start, TrustRegion()).x

    def _run(self, optimizer: Optimizer, x: FloatArray) -> Optimum:
        """One search in (θ, φ)."""
        own = self._scaled if isinstance(optimizer, TrustRegion) else self._plain
        target: Objective = Announced(own) if self._progress else own
        if not len(x):
            value = own(x)
            return Optimum(
                x, value, Status.CONVERGED, 1, type(optimizer).__name__, np.array([[value]]), 0.0
            )
        return minimize_free(optimizer, target, x, own.bounds, self._free)

    def _checked(self, found: Optimum) -> Optimum:
        """The same, or what follows from a better θ at its φ."""
        if not self._second_order or not is_cheap(self.products):
            return found
        for _ in range(_ROUNDS):
            phi = self._scaled.parameters(found.x)[1]
            if not self._joint.template.free.any():
                return found
            try:
                better = self._theta_at(phi, None)
                if self._joint(better, phi) >= found.value - _NOTICEABLE:
                    return found
                other = self._run(self._optimizer, self._scaled.x(better, phi))
            except NumericalError:
                return found
            if other.value >= found.value - NO_WORSE:
                return found
            found = _followed(found, other)
        return found

    def _carried_on(self, found: Optimum) -> Optimum:
        """The same at a minimum; otherwise what other searches find from there."""
        mine = self._optimizer
        limit = getattr(mine, "max_eval", None)
        if not isinstance(mine, TrustRegion) or limit != TrustRegion.max_eval:
            return self._judged(found)
        others = self._others()
        while True:
            found = self._judged(found)
            assert found.expected_decrease is not None
            if found.expected_decrease <= _ENOUGH:
                return replace(found, status=Status.CONVERGED)
            optimizer = next(others, None)
            if optimizer is None:
                return found
            try:
                other = self._run(optimizer, found.x)
            except NumericalError:
                continue
            if other.value <= found.value + NO_WORSE:
                found = _followed(found, other)

    def _others(self) -> Iterator[Optimizer]:
        yield TrustRegion()
        yield from other_searches(len(self._free))

    def _judged(self, found: Optimum) -> Optimum:
        """The same with how much lower the criterion can get from there."""
        if found.expected_decrease is not None and found.status is Status.CONVERGED:
            return found
        own, free = self._scaled, self._free
        at = own.derivatives(found.x)
        hessian = second_by_differences(own.derivatives, found.x, at, own.bounds)
        hessian = at.hessian if hessian is None else hessian
        which = own.bounds.free(found.x, at.gradient) & free
        decrease = decrease_along(own, found.x, at, hessian, np.flatnonzero(which))
        return replace(found, expected_decrease=decrease)

    def _reported(self, found: Optimum) -> Optimum:
        """The same in θ and φ, canonical, tiny variances zero where that costs nothing."""
        scaled, template = self._scaled, self._joint.template
        x, value, extra = snap_to_zero(scaled, found.x, found.value, scaled.bounds)
        theta, phi = scaled.parameters(x)
        box = Bounds(template.lower, template.upper, template.mirrors)
        trace = np.array(found.trace)
        points = [np.concatenate(scaled.parameters(row)) for row in trace[:, :-1]]
        if points:
            trace[:, :-1] = points
        return replace(
            found,
            x=np.concatenate([box.canonical(theta), phi]),
            value=value,
            trace=trace,
            evaluations=found.evaluations + extra,
        )


def decrease_along(
    objective: Callable[[FloatArray], float],
    x: FloatArray,
    at: Derivatives,
    hessian: FloatArray,
    which: np.ndarray,
) -> float:
    """½ g'H⁻¹g over some coordinates, and how far the criterion falls where it curves down."""
    if not len(which):
        return 0.0
    g, H = at.gradient[which], hessian[np.ix_(which, which)]
    size = np.sqrt(np.maximum(np.abs(np.diag(H)), 1e-8))
    values, vectors = np.linalg.eigh(H / np.outer(size, size))
    along = vectors.T @ (g / size)
    curved = values > 1e-9
    decrease = 0.5 * float(np.sum(along[curved] ** 2 / values[curved]))
    decrease += float(np.sum(np.abs(along[~curved])))
    if values[0] < -1e-5:
        way = np.zeros(len(x))
        way[which] = vectors[:, 0] / size
        falls = []
        for step in (sign * length for sign in (1.0, -1.0) for length in _ASIDE):
            try:
                falls.append(at.value - objective(at.moved(x, step * way)))
            except NumericalError:
                continue
        decrease += max([0.0, *falls])
    return decrease


def _followed(found: Optimum, other: Optimum) -> Optimum:
    """The end of a search that went on from another's."""
    return replace(
        other,
        evaluations=found.evaluations + other.evaluations,
        further_evaluations=found.further_evaluations,
        trace=np.concatenate([found.trace, other.trace]),
    )
