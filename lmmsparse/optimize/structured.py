"""Objective with a Hessian that lacks a part → minimum, learning the missing part on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.optimize.base import (
    Bounds,
    Derivatives,
    Objective,
    Optimum,
    Recorder,
    Status,
    check_positive,
)
from lmmsparse.optimize.trust_region import bounded_step

_GROWS, _SHRINKS = 3.0, 0.3
_SHORTEST, _LONGEST = 0.05, 0.5  # of a step that failed
_TOO_FAR = -1.0  # of what was promised
_NOTHING = 1e-11
_WELL = 0.3  # cosine of step and what was missed above which one explains the other
_REACH = 5.0  # of the last step: what is known of curvature goes no further
_NOWHERE = 12  # points at which the objective could not be evaluated
_THERE = 0.7  # how much of the model along a step is that of its end: the best of those tried


@checked_construction
@dataclass(frozen=True)
class StructuredSearch:
    """Second-order search with a structured secant: the model's Hessian plus what it has missed.

    A unit of every coordinate is taken to be a large change.

    Parameters
    ----------
    tol : float
        Stop when the model predicts a smaller decrease than this, in units of the criterion.
    max_eval : int
        Limit on evaluations.
    radius : float
        First trust region radius, in units of the square root of the curvature.

    References
    ----------
    Nocedal & Wright (2006), Numerical Optimization, chapters 4, 6 and 10.
    """

    tol: float = 1e-8
    max_eval: int = 300
    radius: float = 10.0

    def __post_init__(self) -> None:
        check_positive("StructuredSearch", tol=self.tol, max_eval=self.max_eval, radius=self.radius)

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize from `start` within those bounds that no mirror makes unnecessary."""
        record = Recorder(objective)
        x = np.clip(np.asarray(start, dtype=np.float64), *bounds.limits)
        here = record.derivatives(x)
        if here is None:
            return record.optimum(Status.FAILED, "StructuredSearch", bounds)
        missed = np.zeros_like(here.hessian)
        radius, status = self.radius, Status.MAX_EVALUATIONS
        expected: float | None = None
        nowhere = 0
        while len(record.rows) < self.max_eval:
            hessian = here.hessian + missed
            scale = _scales(hessian, here.hessian)
            step, predicted, length = _scaled_step(x, here, hessian, scale, radius, bounds)
            enough = max(self.tol, 1e-12 * abs(here.value), here.noise)
            if predicted < enough:
                if length < 0.99 * radius:
                    if predicted > _NOTHING:
                        # The last step is free; values that differ by rounding do not tell.
                        value = record(x + step)
                        if value <= here.value + enough:
                            x, here = x + step, replace(here, value=value)
                    status, expected = Status.CONVERGED, max(0.0, predicted)
                    break
                if radius < self.radius:  # so small a region promises nothing anywhere
                    radius *= 10.0
                    continue
            if length < 1e-10:
                status = Status.STALLED
                break
            there = record.derivatives(x + step)
            if there is None:
                radius, nowhere = _SHRINKS * length, nowhere + 1
                if nowhere > _NOWHERE:
                    status = Status.LIMIT
                    break
                continue
            ratio = (here.value - there.value) / predicted
            noise = max(1e-13 * abs(here.value), 10.0 * here.noise)
            if abs(here.value - there.value) <= noise and predicted < max(1e-6, 10.0 * noise):
                ratio = 1.0
            if ratio < 0.1:
                radius = _shrunk(here.value, there.value, float(here.gradient @ step)) * length
            elif ratio > 0.5 and length > 0.8 * radius:
                radius *= _GROWS
            else:
                radius = min(radius, _REACH * length)
            model = (1.0 - _THERE) * here.hessian + _THERE * there.hessian + missed
            change = there.gradient - here.gradient - model @ step
            if ratio > _TOO_FAR:  # what happened so far away says little about here
                missed = missed + _learnt(change / scale, step * scale, scale)
            if ratio > 1e-4:
                x, here = x + step, there
        found = record.optimum(status, "StructuredSearch", bounds, expected)
        if status is not Status.CONVERGED:
            return found
        return replace(found, x=bounds.canonical(x), value=here.value)


def _shrunk(value: float, there: float, slope: float) -> float:
    """The share of a step that failed at which a parabola through both its ends is lowest."""
    above = there - value - slope
    if not np.isfinite(above) or above <= 0.0:
        return _SHRINKS
    return float(np.clip(-0.5 * slope / above, _SHORTEST, _LONGEST))


def _scales(hessian: FloatArray, model: FloatArray) -> FloatArray:
    """The square roots of the curvatures, of the model where the whole has none; at least one."""
    curved, of_model = np.diag(hessian), np.diag(model)
    own = np.where(curved > 0.1 * of_model, curved, of_model)
    return np.asarray(np.sqrt(np.maximum(np.abs(own), 1.0)))


def _scaled_step(
    x: FloatArray,
    here: Derivatives,
    hessian: FloatArray,
    scale: FloatArray,
    radius: float,
    bounds: Bounds,
) -> tuple[FloatArray, float, float]:
    """A step, the decrease it promises, and its length in units of `scale`."""
    box = Bounds(bounds.lower * scale, bounds.upper * scale, bounds.mirrors)
    own = hessian / np.outer(scale, scale)
    step, predicted = bounded_step(x * scale, here.gradient / scale, own, radius, box)
    return step / scale, predicted, float(np.linalg.norm(step))


def _learnt(missed: FloatArray, step: FloatArray, scale: FloatArray) -> FloatArray:
    """The smallest symmetric matrix that explains what was missed along a step.

    Of rank one where that is well determined (SR1), otherwise of least norm (Powell).
    """
    along, square = float(missed @ step), float(step @ step)
    if abs(along) <= _WELL * float(np.linalg.norm(missed)) * square**0.5:
        cross = np.outer(missed, step) / square
        own = cross + cross.T - along / square**2 * np.outer(step, step)
    else:
        own = np.outer(missed, missed) / along
    return np.asarray(own * np.outer(scale, scale))
