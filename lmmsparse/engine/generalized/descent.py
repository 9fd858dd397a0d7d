"""Newton's method for the mode of the random effects, or for that of β too, on any solver.

h(u) = −Σℓ + ½u'Qu is minimized; M = Λ'Z'WZΛ + Q with W = −ℓ'' is its Hessian (Q: the identity, or
the known precision of levels). Steps are halved until h falls. Where observed weights leave M
indefinite, steps use expected ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import lapack

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.families.base import Pointwise
from lmmsparse.engine.generalized.mode import Mode, factorized
from lmmsparse.engine.generalized.one_factor import AtLevels
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import PLSFactor

_LAST = 1e-12  # below this, what does not fall any more is rounding
STEPS = 200
HALVINGS, _FEWER = 60, 20
_SHORT, _SHORT_STEPS = 0.01, 5  # Newton steps that a limit of the link cuts short
_DEPENDENT = 1e-5  # of a factor's diagonal
FLAT = 1e-11  # of |h|: a promise that rounding hides


class Step(NamedTuple):
    """Newton's step in u from a point, and what it was made of."""

    direction: FloatArray
    decrement: float
    observed: bool
    v: FloatArray
    made: tuple[CrossProducts, PLSFactor] | AtLevels


class JointStep(NamedTuple):
    """Newton's step in u and β."""

    of_u: FloatArray
    of_beta: FloatArray
    decrement: float


class Descent:
    """Newton's method in u, or in u and β together."""

    def __init__(
        self, rows: GeneralizedRows, theta: FloatArray, delta: float, beta: FloatArray
    ) -> None:
        self.rows, self.theta, self.delta, self.beta = rows, theta, delta, beta
        self.factors = rows.template.shifted_factors(theta)
        self._short = 0
        self.fixed = rows.fixed_part(beta)

    # -- u as (q,); by level where there is one factor ---------------------------------------------

    def arranged(self, u: FloatArray) -> FloatArray:
        """U as it is kept on the way."""
        return u

    def flat(self, u: FloatArray) -> FloatArray:
        """The inverse of `arranged`, (q,)."""
        return u

    def predictor(self, u: FloatArray) -> FloatArray:
        """η at u."""
        rows = self.rows
        return self.fixed + rows.random_part(rows.template.multiply(self.factors, u))

    def penalty(self, u: FloatArray) -> float:
        """U'Qu."""
        return self.rows.prior.square(u)

    def step(self, u: FloatArray, eta: FloatArray, at: Pointwise) -> Step:
        """The step from u."""
        rows = self.rows
        products, factor, observed = self._factor(eta, at)
        v = rows.grouped(at.s)
        gradient = rows.template.multiply_transposed(self.factors, v) - rows.prior.times(u)
        direction = factor.solve(gradient)
        return Step(direction, float(gradient @ direction), observed, v, (products, factor))

    def mode(
        self, u: FloatArray, eta: FloatArray, at: Pointwise, h: float, last: Step, steps: int
    ) -> Mode:
        """The mode that has been found."""
        assert not isinstance(last.made, AtLevels)
        return Mode(
            self.rows, self.beta, self.theta, self.delta, self.factors, u, eta, at, last.v, h,
            last.made[1].logdet, steps, last.made,
        )  # fmt: skip

    def joint_step(self, u: FloatArray, at: Pointwise, weights: FloatArray) -> JointStep:
        """The step from u and β with these weights."""
        rows, template, factors = self.rows, self.rows.template, self.factors
        products, factor = factorized(rows, self.theta, weights)
        full = rows.with_fixed(products, weights)
        g_u = template.multiply_transposed(factors, rows.grouped(at.s)) - rows.prior.times(u)
        g_beta = rows.Q.transposed_times(at.s)
        border = template.multiply_transposed(factors, full.ZtX)
        solved = factor.solve(np.column_stack([border, g_u]))
        schur = full.XtX - border.T @ solved[:, :-1]
        d_beta = solution_of(schur, g_beta - border.T @ solved[:, -1])
        d_u = solved[:, -1] - solved[:, :-1] @ d_beta
        return JointStep(d_u, d_beta, float(g_u @ d_u + g_beta @ d_beta))

    def _factor(self, eta: FloatArray, at: Pointwise) -> tuple[CrossProducts, PLSFactor, bool]:
        """Z'WZ and a factor to step with, and whether its weights are the observed ones."""
        rows = self.rows
        try:
            return *factorized(rows, self.theta, at.w), True
        except NumericalError:
            if rows.family.canonical:
                raise
        expected = rows.family.expected(eta, rows.seen, self.delta).w
        return *factorized(rows, self.theta, np.maximum(at.w, expected)), False

    # -- the descent -------------------------------------------------------------------------------

    def to(self, u: FloatArray) -> tuple[FloatArray, Pointwise, float]:
        """η, the log density and h at u."""
        rows = self.rows
        eta = self.predictor(u)
        at = rows.family.at(eta, rows.seen, self.delta)
        h = 0.5 * self.penalty(u) - float(at.value.sum())
        return eta, at, h if np.isfinite(h) else np.inf

    def started(self, u: FloatArray) -> tuple[FloatArray, FloatArray, Pointwise, float]:
        """The first u at which there is a density."""
        for first in (u, np.zeros_like(u)):
            eta, at, h = self.to(first)
            if np.isfinite(h):
                return first, eta, at, h
        raise NumericalError(
            "The linear predictor has left the values that the link allows. Check the model, or "
            "use a link without such limits."
        )

    def conditional(self, u: FloatArray, tolerance: float) -> Mode:
        """The mode at this β."""
        u, eta, at, h = self.started(self.arranged(u))
        before = np.inf
        for number in range(STEPS):
            step = self.step(u, eta, at)
            decrement = step.decrement
            done = decrement < tolerance or (decrement < _LAST and decrement > 0.1 * before)
            if done and step.observed:
                return self.mode(u, eta, at, h, step, number + 1)
            if done:
                break
            before = decrement
            u, eta, at, h = self._moved(u, h, step.direction, decrement)
        raise NumericalError(
            "The conditional modes of the random effects could not be found at these parameters."
        )

    def _moved(
        self, u: FloatArray, h: float, direction: FloatArray, decrement: float
    ) -> tuple[FloatArray, FloatArray, Pointwise, float]:
        flat = decrement < FLAT * (1.0 + abs(h))
        size = 1.0
        for _ in range(_FEWER if self.rows.family.is_limited else HALVINGS):
            moved = u + size * direction
            eta, at, lower = self.to(moved)
            if lower < h or (flat and np.isfinite(lower)):
                self._short += size < _SHORT
                if self._short > _SHORT_STEPS:
                    break
                return moved, eta, at, lower
            size *= 0.5
        raise NumericalError(self._stuck())

    def _stuck(self) -> str:
        text = (
            "The conditional modes of the random effects could not be found: no step raises the "
            "penalized log-likelihood."
        )
        family = self.rows.family
        if family.is_limited:
            text += (
                f" The {family.link} link keeps means inside limits, and the mode is at one. Use a "
                "link without limits."
            )
        return text


def solution_of(A: FloatArray, b: FloatArray) -> FloatArray:
    """A⁻¹b for a matrix that may be (nearly) singular."""
    if not len(b):
        return b
    factor, found, failed = lapack.dposv(A, b)
    if failed == 0:
        diagonal = factor.diagonal()
        if diagonal.min() > _DEPENDENT * diagonal.max():
            return np.asarray(found)
    values, vectors = np.linalg.eigh(0.5 * (A + A.T))
    floor = 1e-12 * max(float(np.abs(values).max()), 1e-300)
    return np.asarray(vectors @ ((vectors.T @ b) / np.maximum(values, floor)))
