"""β, θ, δ → the conditional mode of the random effects; θ, δ → the joint mode with β."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.generalized.descent import FLAT, HALVINGS, STEPS, Descent
from lmmsparse.engine.generalized.level_descent import LevelDescent
from lmmsparse.engine.generalized.mode import Mode
from lmmsparse.engine.generalized.rows import GeneralizedRows

TIGHT = 1e-20  # Newton decrement of a mode; log|M| is off by its square root


def _descent(rows: GeneralizedRows, theta: FloatArray, delta: float, beta: FloatArray) -> Descent:
    if rows.one_factor is not None:
        return LevelDescent(rows, theta, delta, beta, rows.one_factor)
    return Descent(rows, theta, delta, beta)


def conditional_mode(
    rows: GeneralizedRows,
    beta: FloatArray,
    theta: FloatArray,
    delta: float,
    u: FloatArray,
    tolerance: float = TIGHT,
) -> Mode:
    """Return the mode of the random effects at given parameters.

    Parameters
    ----------
    rows : GeneralizedRows
    beta : (p,) array
        Internal coordinates.
    theta : (n_theta,) array
    delta : float
    u : (q,) array
        Where to begin.
    tolerance : float
        Of the Newton decrement.

    Raises
    ------
    NumericalError
        If there is none that can be found.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _descent(rows, theta, delta, beta).conditional(u, tolerance)


def joint_mode(
    rows: GeneralizedRows,
    beta: FloatArray,
    theta: FloatArray,
    delta: float,
    u: FloatArray,
    tolerance: float,
) -> tuple[FloatArray, FloatArray, int]:
    """Return β and u that maximize the penalized likelihood together, and the steps taken.

    Expected weights throughout: this is for starts, and for models that are fitted this way.

    Parameters
    ----------
    rows : GeneralizedRows
    beta, theta, delta, u
        Where to begin, and at which θ and δ.
    tolerance : float
        Stop when the Newton decrement is below this.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _joint_mode(_descent(rows, theta, delta, beta), u, tolerance)


def _joint_mode(
    descent: Descent, u: FloatArray, tolerance: float
) -> tuple[FloatArray, FloatArray, int]:
    rows, delta = descent.rows, descent.delta
    u, eta, at, h = descent.started(descent.arranged(u))
    for number in range(STEPS):
        weights = at.w
        if not rows.family.canonical:
            weights = rows.family.expected(eta, rows.seen, delta).w
        step = descent.joint_step(u, at, weights)
        if step.decrement < tolerance:
            return descent.beta, descent.flat(u), number + 1
        size = 1.0
        beta = descent.beta
        for _ in range(HALVINGS):
            descent.beta = beta + size * step.of_beta
            descent.fixed = rows.fixed_part(descent.beta)
            moved = u + size * step.of_u
            eta, at, lower = descent.to(moved)
            if lower < h or (step.decrement < FLAT * (1.0 + abs(h)) and np.isfinite(lower)):
                break
            size *= 0.5
        else:
            descent.beta = beta
            return beta, descent.flat(u), number + 1
        u, h = moved, lower
    return descent.beta, descent.flat(u), STEPS
