"""The same descent for one grouping factor, level by level: `Descent` is its test."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.families.base import Pointwise
from lmmsparse.engine.generalized.descent import Descent, JointStep, Step, solution_of
from lmmsparse.engine.generalized.mode import NOT_DEFINITE, Mode
from lmmsparse.engine.generalized.one_factor import (
    AtLevels,
    OneFactor,
    by_column,
    factored_levels,
    transformed,
)
from lmmsparse.engine.generalized.rows import GeneralizedRows


class LevelDescent(Descent):
    """The same with u as (K, levels), for one grouping factor."""

    def __init__(
        self,
        rows: GeneralizedRows,
        theta: FloatArray,
        delta: float,
        beta: FloatArray,
        factor: OneFactor,
    ) -> None:
        super().__init__(rows, theta, delta, beta)
        self._one, self._T = factor, factor.side_by_side(self.factors)

    def arranged(self, u: FloatArray) -> FloatArray:
        return self._one.split(u)

    def flat(self, u: FloatArray) -> FloatArray:
        return self._one.join(u)

    def predictor(self, u: FloatArray) -> FloatArray:
        eta = self._one.spread(transformed(self._T, u))
        eta += self.fixed
        return eta

    def penalty(self, u: FloatArray) -> float:
        return float(np.vdot(u, u))

    def _levels(
        self, u: FloatArray, v: FloatArray, eta: FloatArray, at: Pointwise
    ) -> tuple[AtLevels, bool]:
        """The factor to step with, and whether its weights are the observed ones."""
        rows = self.rows
        levels = factored_levels(self._T, self._one.crossed(at.w), u, v)
        if np.isfinite(levels.logdet):
            return levels, True
        if not rows.family.canonical:
            expected = rows.family.expected(eta, rows.seen, self.delta).w
            weights = np.maximum(at.w, expected)
            levels = factored_levels(self._T, self._one.crossed(weights), u, v)
        if not np.isfinite(levels.logdet):
            raise NumericalError(NOT_DEFINITE)
        return levels, False

    def step(self, u: FloatArray, eta: FloatArray, at: Pointwise) -> Step:
        v = self._one.gathered(at.s)
        levels, observed = self._levels(u, v, eta, at)
        gradient = transformed(self._T.T, v) - u
        direction = levels.solve(gradient)
        return Step(direction, float(np.vdot(gradient, direction)), observed, v, levels)

    def mode(
        self, u: FloatArray, eta: FloatArray, at: Pointwise, h: float, last: Step, steps: int
    ) -> Mode:
        assert isinstance(last.made, AtLevels)
        join = self._one.join
        return Mode(
            self.rows, self.beta, self.theta, self.delta, self.factors, join(u), eta, at,
            join(last.v), h, last.made.logdet, steps, by_level=last.made,
        )  # fmt: skip

    def joint_step(self, u: FloatArray, at: Pointwise, weights: FloatArray) -> JointStep:
        rows, v = self.rows, self._one.gathered(at.s)
        levels = factored_levels(self._T, self._one.crossed(weights), u, v)
        if not np.isfinite(levels.logdet):
            raise NumericalError(NOT_DEFINITE)
        ZtX, XtX = rows.fixed_by_level(weights)
        g_u, g_beta = transformed(self._T.T, v) - u, rows.Q.transposed_times(at.s)
        border = transformed(self._T.T, ZtX)
        behind, d_u = levels.solve(border), levels.solve(g_u)
        flat, behind = by_column(border), by_column(behind)
        d_beta = solution_of(XtX - flat @ behind.T, g_beta - flat @ d_u.ravel())
        d_u = d_u - (d_beta @ behind).reshape(d_u.shape)
        return JointStep(d_u, d_beta, float(np.vdot(g_u, d_u) + g_beta @ d_beta))
