"""Objective with derivatives → minimum, by a second-order search in a trust region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from scipy.linalg import lapack

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
    second_by_differences,
)

_NEAR = 0.3  # length of a step along which a Hessian hardly changes
_QUADRATIC = 0.1  # predicted decrease below which the objective is close to quadratic
_MUCH_BETTER = 0.3
_RIGHT = (0.6, 1.6)  # what a step brings, in terms of what was promised, where the Hessian is right


@checked_construction
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
        model = _Model(len(x), not bounds.unlimited)
        while len(record.rows) < self.max_eval:
            step, predicted = model.step(x, here, radius, bounds)
            length, point = _norm(step), here.moved(x, step)
            if predicted < max(self.tol, here.noise):
                if model.doubtful(here):
                    here = model.renewed(record, x, here, bounds, self.max_eval)
                    continue
                value = record(point)  # the last step is free: keep it if it is no worse
                if here.by_gradient and np.isfinite(value):
                    record.keep(point, value)
                status = Status.CONVERGED
                break
            if length < 1e-12 * (1.0 + _norm(x)):
                status = Status.STALLED
                break
            there = record.derivatives(point)
            if there is None:
                radius = 0.25 * length
                continue
            fall = here.fall(step, there)
            ratio = fall / predicted
            if abs(fall) <= max(4e-15 * abs(here.value), here.noise):
                ratio = 1.0 if predicted < max(1e-6, 10.0 * here.noise) else ratio
            if ratio < 0.25:
                radius = 0.25 * length
            elif ratio > 0.75 and length > 0.9 * radius:
                radius *= 3.0
            here, there = model.learn(here, there, step, ratio)
            if ratio > 1e-4:
                x, here = point, there
                if here.by_gradient:
                    record.keep(x, here.value)
            if model.misleads:
                here = model.renewed(record, x, here, bounds, self.max_eval)
        reached = predicted if status is Status.CONVERGED else None
        return record.optimum(status, "TrustRegion", bounds, reached)


class _Model:
    """Which Hessian to step with: the approximate one far away, second derivatives near the end.

    Average information is the better guide where the objective is not quadratic at all; where it
    is, it can be wrong by a factor that makes every step too long or too short. Where it has been
    wrong twice in a row and the objective does not give second derivatives by itself, they are
    asked for, or made of differences of the gradient and kept up by what later gradients say.
    """

    def __init__(self, d: int, limited: bool) -> None:
        self._correction = np.zeros((d, d))
        self._limited = limited
        self._exact_is_better = False
        self._wrong = 0
        self._asks = False

    def step(
        self, x: FloatArray, here: Derivatives, radius: float, bounds: Bounds
    ) -> tuple[FloatArray, float]:
        """The step to take from x, and the decrease it promises."""
        if here.exact is None or not self._exact_is_better:
            hessian = here.hessian + self._correction if self._limited else here.hessian
            step, predicted = bounded_step(x, here.gradient, hessian, radius, bounds)
            if here.exact is None or not predicted < _QUADRATIC:
                return step, predicted
        return bounded_step(x, here.gradient, here.exact, radius, bounds)

    def learn(
        self, here: Derivatives, there: Derivatives, step: FloatArray, ratio: float
    ) -> tuple[Derivatives, Derivatives]:
        """Compare what was promised with what has happened, and mend second derivatives by it."""
        right = here.by_gradient or _RIGHT[0] < ratio < _RIGHT[1]
        self._wrong = 0 if right else self._wrong + 1
        if here.exact is not None:
            slope, found = float(here.gradient @ step), there.value - here.value
            missed = [
                abs(slope + 0.5 * float(step @ H @ step) - found)
                for H in (here.hessian, here.exact)
            ]
            self._exact_is_better = missed[1] < _MUCH_BETTER * missed[0]
        elif self._limited and _norm(step) < _NEAR:
            # Average information is a poor Hessian where the covariance has a form that the data
            # do not follow, which only structures with limits impose.
            model = 0.5 * (here.hessian + there.hessian) + self._correction
            self._correction += _rank_one(there.gradient - here.gradient - model @ step, step)
        if not self._asks:
            return here, there
        there = there.with_second()
        if here.exact is not None and there.exact is None:
            P = here.carried(step, there)
            change = P.T @ there.gradient - here.gradient
            exact = here.exact + _rank_one(change - here.exact @ step, step)
            here, there = replace(here, exact=exact), replace(there, exact=P @ exact @ P.T)
        return here, there

    @property
    def misleads(self) -> bool:
        """Whether the last two steps have both brought something else than was promised."""
        return self._wrong >= 2

    def doubtful(self, here: Derivatives) -> bool:
        """Whether the end may not be believed: the last promise was wrong, by a mere guide."""
        return here.exact is None and self._wrong > 0

    def renewed(
        self, record: Recorder, x: FloatArray, here: Derivatives, bounds: Bounds, max_eval: int
    ) -> Derivatives:
        """The same derivatives with second ones, made for this point."""
        self._wrong = 0
        if here.exact is not None and not self._asks:
            return here  # the objective gives them at every point
        self._asks = self._exact_is_better = True
        if here.second is not None:
            return here.with_second()
        if len(record.rows) + len(x) > max_eval:
            return here
        exact = second_by_differences(record.derivatives, x, here, bounds)
        return here if exact is None else replace(here, exact=exact)


def _rank_one(missed: FloatArray, step: FloatArray) -> FloatArray:
    """What the gradient has done along a step and the Hessian did not say (symmetric rank one)."""
    along = float(missed @ step)
    if abs(along) <= 1e-8 * float(np.linalg.norm(missed) * np.linalg.norm(step)):
        return np.zeros((len(step), len(step)))
    return np.asarray(np.outer(missed, missed) / along)


def bounded_step(
    x: FloatArray, g: FloatArray, H: FloatArray, radius: float, bounds: Bounds
) -> tuple[FloatArray, float]:
    """A step that stays within the limits, and the decrease it promises."""
    if bounds.unlimited:
        return _trust_region_step(g, H, radius)
    lower, upper = bounds.limits
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


def _norm(x: FloatArray) -> float:
    return sqrt(float(x @ x))


def _trust_region_step(g: FloatArray, H: FloatArray, radius: float) -> tuple[FloatArray, float]:
    """The minimizer of g's + ½ s'Hs in a ball, and the decrease it promises."""
    values, vectors, info = lapack.dsyevd(H, lower=1)
    if info:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")
    a = vectors.T @ g
    least = float(values[0])
    largest = max(1e-300, -least, float(values[-1]))
    if least > 1e-13 * largest:
        s = -a / values
        if _norm(s) <= radius:
            return vectors @ s, float(-0.5 * (a @ s))
    low = max(0.0, -least)
    with np.errstate(over="ignore"):  # that far is beyond every radius
        s = -a / np.maximum(values + low, 1e-13 * largest)
    if _norm(s) < radius:
        # Hard case: (next to) no pull along the most negative curvature. Go that way all the same.
        if values[0] < 0:
            others = float(s[1:] @ s[1:])
            s[0] = np.copysign(np.sqrt(max(radius**2 - others, 0.0)), -a[0] if a[0] else 1.0)
        return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))
    # Find the shift with ‖s(shift)‖ = radius by safeguarded bisection in the shift.
    high = low + _norm(g) / radius + max(1.0, largest)
    lo = low
    for _ in range(200):
        shift = 0.5 * (lo + high)
        s = -a / np.maximum(values + shift, 1e-300)
        norm = _norm(s)
        if abs(norm - radius) < 1e-3 * radius:
            break
        if norm > radius:
            lo = shift
        else:
            high = shift
    return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))
