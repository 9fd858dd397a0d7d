"""Laplace's approximation for one grouping factor: derivatives from arrays by level.

The same formulas as `LaplacePoint`, which is their test, in as few calls as can be.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.tangents import curvatures
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.engine.generalized.mode import Mode
from lmmsparse.engine.generalized.one_factor import (
    AtLevels,
    OneFactor,
    by_column,
    factored_levels,
    transformed,
)
from lmmsparse.engine.linalg import small_product

_ALMOST_NOTHING = 1e-6


def _arranged(mode: Mode, one: OneFactor) -> AtLevels:
    """A mode that has been found otherwise, by level."""
    T, A = one.side_by_side(mode.factors), one.crossed(mode.at.w)
    return factored_levels(T, A, one.split(mode.u), one.split(mode.v))


class LaplaceByLevel(LaplacePoint):
    """The criterion at one point.

    Parameters
    ----------
    mode : Mode
    one : OneFactor
    """

    def __init__(self, mode: Mode, one: OneFactor) -> None:
        super().__init__(mode)
        self.one = one
        self.levels = mode.by_level or _arranged(mode, one)

    @cached_property
    def leverage(self) -> FloatArray:
        return self.leverage_of(self.levels.of_M)

    def leverage_of(self, S: FloatArray, T: FloatArray | None = None) -> FloatArray:
        """The diagonal of ZTST'Z', (n,), for T of the point or another."""
        T = self.levels.T if T is None else T
        if len(T) == 1:
            return self.one.diagonal(T[0, 0] ** 2 * S)
        K = len(T)
        half = (T @ S.reshape(K, -1)).reshape(S.shape)
        return self.one.diagonal(np.matmul(T, half))

    @cached_property
    def _trace(self) -> FloatArray:
        return self._trace_of(self.levels.of_M)

    def _trace_of(self, S: FloatArray) -> FloatArray:
        """Σ_levels Z'WZTS, (K, K)."""
        at = self.levels
        K = len(at.T)
        if K == 1:
            return np.asarray(at.T * float(np.vdot(at.A, S)))
        # A and S are symmetric, so that their own axes may be swapped.
        AT = (at.T.T @ at.A.reshape(K, -1)).reshape(at.A.shape)
        return np.asarray(np.einsum("lij,lkj->ik", AT, S))

    @cached_property
    def traces(self) -> list[FloatArray]:
        return [self._trace[part, part] for part in self.one.parts]

    @cached_property
    def gradient(self) -> FloatArray:
        rows, mode, at, one = self.rows, self.mode, self.levels, self.one
        slope = self.third.t
        assert slope is not None
        P = self.leverage
        c = slope * P
        a = at.solve(transformed(at.T.T, one.gathered(c)))
        follow = one.spread(transformed(at.T, a))
        moved = c - mode.at.w * follow
        through = one.gathered(moved) - 2.0 * at.V
        by_T = at.V @ a.T + through @ at.U.T + 2.0 * self._trace
        in_beta = rows.Q.transposed_times(moved - 2.0 * mode.at.s)
        parts = [in_beta, self.slopes([by_T[part, part] for part in one.parts])]
        if rows.family.estimates_delta:
            scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
            total = -2.0 * scale.total + float(P @ scale.w) + float(follow @ scale.s)
            parts.append(np.array([total]))
        return np.concatenate(parts)

    @cached_property
    def _fixed(self) -> tuple[FloatArray, FloatArray]:
        """Z'WX of every level, (K, p, levels), and X'WX."""
        return self.rows.fixed_by_level(self.mode.at.w)

    @cached_property
    def _border(self) -> tuple[FloatArray, FloatArray]:
        """T'Z'WX and M⁻¹ times it, (p, K · levels) each."""
        border = transformed(self.levels.T.T, self._fixed[0])
        return by_column(border), by_column(self.levels.solve(border))

    @cached_property
    def information(self) -> FloatArray:
        border, solved = self._border
        out = self._fixed[1] - border @ solved.T
        return np.asarray(0.5 * (out + out.T))

    @cached_property
    def _second_moments(self) -> list[FloatArray]:
        T = self.levels.T
        if len(T) > 1 or abs(T[0, 0]) < _ALMOST_NOTHING or self.rows.template.has_limits:
            return super()._second_moments
        V = self.levels.V
        return [np.asarray(self._trace / T - V @ V.T)]

    @cached_property
    def hessian(self) -> FloatArray:
        rows, at = self.rows, self.levels
        K, levels = at.U.shape
        p, d = rows.p, rows.template.n_theta
        size = p + d + rows.family.estimates_delta
        D = self.one.directions(self.directions)
        C = (D.swapaxes(0, 1).reshape(K * d, K) @ at.U).reshape(K, d, levels)
        moved = (D.transpose(2, 0, 1).reshape(K * d, K) @ at.V).reshape(K, d, levels)
        AC = at.A[0] * C if K == 1 else small_product(at.A, C)
        both = transformed(at.T.T, AC) - moved
        C, AC, moved = by_column(C), by_column(AC), by_column(moved)
        flat, solved = by_column(both), by_column(at.solve(both))
        out = np.zeros((size, size))
        out[:p, :p] = 2.0 * self.information
        squares = C @ AC.T + moved @ moved.T - flat @ solved.T
        moments = self._second_moments
        out[p : p + d, p : p + d] = squares + curvatures(rows.template, self.mode.theta, moments)
        if p:
            mixed = 2.0 * (by_column(self._fixed[0]) @ C.T - self._border[1] @ flat.T)
            out[:p, p : p + d] = mixed
            out[p : p + d, :p] = mixed.T
        return 0.5 * (out + out.T)

    def predicted(self, to: Parameters) -> FloatArray:
        rows, mode, at, one = self.rows, self.mode, self.levels, self.one
        T = one.side_by_side(rows.template.shifted_factors(to.theta))
        pushed = mode.at.w * rows.Q.times(to.beta - mode.beta) if rows.p else np.zeros(rows.n)
        if rows.family.estimates_delta and to.delta != mode.delta:
            scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
            pushed -= scale.s * (to.delta - mode.delta)
        change = T - at.T
        effects = transformed(change, at.U)
        pulled = small_product(at.A, effects[:, None])[:, 0]
        right = transformed(change.T, at.V) - transformed(at.T.T, one.gathered(pushed) + pulled)
        return one.join(at.U + at.solve(right))
