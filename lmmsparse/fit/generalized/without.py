"""A generalized model without random effects: its log-likelihood, for tests against it."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.fit.generalized.start import start_beta

_STEPS = 200
_DELTA_STEPS = 100


def log_likelihood_without(problem: GeneralizedProblem) -> float:
    """The largest log-likelihood of the fixed effects alone.

    Parameters
    ----------
    problem : GeneralizedProblem
    """
    rows, family, seen = problem.rows, problem.family, problem.seen
    beta = start_beta(rows)
    held = family.held_delta
    delta = 0.0 if held is None else held
    if not family.estimates_delta:
        beta, value = _maximized(problem, beta, delta)
        return value + family.constant(seen, delta)
    delta = family.start_delta(seen, family.mean(rows.fixed_part(beta)))
    low, high, best = -30.0, 30.0, -np.inf
    for _ in range(_DELTA_STEPS):
        beta, value = _maximized(problem, beta, delta)
        value += family.constant(seen, delta)
        slope = family.scale_slopes(rows.fixed_part(beta), seen, delta).total
        best = max(best, value)
        low, high = (delta, high) if slope > 0 else (low, delta)
        if abs(slope) < 1e-8 * max(1.0, abs(value)) or high - low < 1e-10:
            break
        h = 1e-4
        other, _ = _maximized(problem, beta, delta + h)
        curved = family.scale_slopes(rows.fixed_part(other), seen, delta + h).total - slope
        step = -slope * h / curved if curved < 0 else np.sign(slope)
        moved = delta + float(np.clip(step, -3.0, 3.0))
        delta = moved if low < moved < high else 0.5 * (low + high)
    return best


def _maximized(
    problem: GeneralizedProblem, beta: FloatArray, delta: float
) -> tuple[FloatArray, float]:
    """β at its best for a δ, and Σℓ without constants, by Fisher scoring with halving."""
    rows, family, seen = problem.rows, problem.family, problem.seen

    def to(at: FloatArray) -> tuple[FloatArray, float, FloatArray]:
        eta = rows.fixed_part(at)
        with np.errstate(all="ignore"):
            here = family.at(eta, seen, delta)
            total = float(np.sum(here.value))
        return eta, total if np.isfinite(total) else -np.inf, here.s

    eta, value, s = to(beta)
    if not np.isfinite(value):
        raise NumericalError("The model without random effects could not be fitted.")
    for _ in range(_STEPS):
        weights = family.expected(eta, seen, delta).w
        gram = rows.Q.gram_anew(rows.Q.weighted(weights))
        g = rows.Q.transposed_times(s)
        direction = np.linalg.lstsq(gram, g)[0] if len(g) else g
        decrement = float(g @ direction)
        if decrement < 1e-16 * (1.0 + abs(value)):
            break
        size = 1.0
        for _ in range(50):
            moved = beta + size * direction
            eta_, value_, s_ = to(moved)
            if value_ > value:
                break
            size *= 0.5
        else:
            break
        beta, eta, value, s = moved, eta_, value_, s_
    return beta, value
