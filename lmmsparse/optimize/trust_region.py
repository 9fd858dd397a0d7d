"""Objective with derivatives → minimum, by a second-order search in a trust region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.optimize.base import (
    Bounds,
    Derivatives,
    Objective,
    Optimum,
    Recorder,
    Status,
    check_positive,
)

_NEAR = 0.3  # length of a step along which a Hessian hardly changes


@dataclass(frozen=True)
class TrustRegion:
    """Second-order search: exact gradient, average information plus curvature, trust region.

    The sign symmetries of the objective make bounds at zero unnecessary; other bounds (of
    correlations, say) are kept by an active set.

    Parameters
    ----------
    tol : float
        Stop when the model predicts a smaller decrease than this, in units of the criterion.
    max_eval : int
        Limit on evaluations.
    radius : float
        First trust region radius.

    References
    ----------
    Nocedal & Wright (2006), Numerical Optimization, chapter 4.
    """

    tol: float = 1e-9
    max_eval: int = 300
    radius: float = 1.0

    def __post_init__(self) -> None:
        check_positive("TrustRegion", tol=self.tol, max_eval=self.max_eval, radius=self.radius)

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize from `start` within those bounds that no mirror makes unnecessary."""
        record = Recorder(objective)
        x = np.clip(np.asarray(start, dtype=np.float64), *bounds.limits)
        here = record.derivatives(x)
        if here is None:
            return record.optimum(Status.FAILED, "TrustRegion", bounds)
        radius, status = self.radius, Status.MAX_EVALUATIONS
        predicted: float | None = None
        correction = np.zeros((len(x), len(x)))
        limited = bool(np.isfinite(bounds.limits).any())
        while len(record.rows) < self.max_eval:
            hessian = here.hessian + correction
            step, predicted = _bounded_step(x, here.gradient, hessian, radius, bounds)
            if predicted < self.tol:
                record(x + step)  # the last step is free: keep it if it is no worse
                status = Status.CONVERGED
                break
            if np.linalg.norm(step) < 1e-12 * (1.0 + np.linalg.norm(x)):
                status = Status.STALLED
                break
            there = record.derivatives(x + step)
            if limited and there is not None and np.linalg.norm(step) < _NEAR:
                correction = _secant(correction, here, there, step)
            ratio = -1.0 if there is None else (here.value - there.value) / predicted
            if there is not None and abs(here.value - there.value) <= 4e-15 * abs(here.value):
                ratio = 1.0 if predicted < 1e-6 else ratio  # at the noise of the criterion
            if ratio < 0.25:
                radius = 0.25 * float(np.linalg.norm(step))
            elif ratio > 0.75 and np.linalg.norm(step) > 0.9 * radius:
                radius *= 3.0
            if there is not None and ratio > 1e-4:
                x, here = x + step, there
        reached = predicted if status is Status.CONVERGED else None
        return record.optimum(status, "TrustRegion", bounds, reached)


def _secant(
    correction: FloatArray, here: Derivatives, there: Derivatives, step: FloatArray
) -> FloatArray:
    """Mend the Hessian by what the gradient has done along a step (symmetric rank one).

    Average information is a poor Hessian where the covariance has a form that the data do not
    follow, which only structures with limits impose.
    """
    model = 0.5 * (here.hessian + there.hessian) + correction
    missed = there.gradient - here.gradient - model @ step
    along = float(missed @ step)
    if abs(along) <= 1e-8 * float(np.linalg.norm(missed) * np.linalg.norm(step)):
        return correction
    return np.asarray(correction + np.outer(missed, missed) / along)


def _bounded_step(
    x: FloatArray, g: FloatArray, H: FloatArray, radius: float, bounds: Bounds
) -> tuple[FloatArray, float]:
    """A step that stays within the limits, and the decrease it promises."""
    lower, upper = bounds.limits
    if np.all(np.isinf(lower)) and np.all(np.isinf(upper)):
        return _trust_region_step(g, H, radius)
    step, free = np.zeros_like(x), bounds.free(x, g)
    while free.any():
        slope = g[free] + H[np.ix_(free, ~free)] @ step[~free]
        step[free] = _trust_region_step(slope, H[np.ix_(free, free)], radius)[0]
        beyond = free & ((x + step < lower) | (x + step > upper))
        if not beyond.any():
            break
        step[beyond] = np.clip(x + step, lower, upper)[beyond] - x[beyond]
        free &= ~beyond
    promised = float(-(g @ step + 0.5 * step @ H @ step))
    # Steepest descent along the box: never worse than this, whatever was held above.
    length = radius / max(float(np.linalg.norm(g)), 1e-300)
    for _ in range(60):
        plain = np.clip(x - length * g, lower, upper) - x
        decrease = float(-(g @ plain + 0.5 * plain @ H @ plain))
        if decrease >= -0.1 * float(g @ plain):
            break
        length *= 0.5
    return (step, promised) if promised >= decrease else (plain, decrease)


def _trust_region_step(g: FloatArray, H: FloatArray, radius: float) -> tuple[FloatArray, float]:
    """The minimizer of g's + ½ s'Hs in a ball, and the decrease it promises."""
    values, vectors = np.linalg.eigh(H)
    a = vectors.T @ g
    scale = max(1.0, float(np.abs(values).max()))
    if values[0] > 1e-12 * scale:
        s = -a / values
        if np.linalg.norm(s) <= radius:
            return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))
    low = max(0.0, -float(values[0]))
    # Hard case: no pull along the most negative curvature, so that it has to be chosen.
    flat = np.abs(values - values[0]) <= 1e-10 * scale
    if np.linalg.norm(a[flat]) <= 1e-10 * (1.0 + np.linalg.norm(a)):
        s = np.where(flat, 0.0, -a / np.where(flat, 1.0, values + low))
        if np.linalg.norm(s) < radius:
            room = np.sqrt(radius**2 - float(s @ s))
            if values[0] < 0:
                s[np.flatnonzero(flat)[0]] = room
            return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))
    # Find the shift with ‖s(shift)‖ = radius by safeguarded bisection in the shift.
    high = low + float(np.linalg.norm(g)) / radius + scale
    lo = low
    for _ in range(200):
        shift = 0.5 * (lo + high)
        s = -a / np.maximum(values + shift, 1e-300)
        norm = float(np.linalg.norm(s))
        if abs(norm - radius) < 1e-3 * radius:
            break
        if norm > radius:
            lo = shift
        else:
            high = shift
    return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))
