"""θ → what the derivatives need, where one factor groups all terms: nothing but sums over levels.

The same quantities as `points.GeneralPoint`, from (K, K, levels) arrays that `LevelSystem` keeps.
Sums over levels are products of matrices with one long axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.linalg import solve_triangular
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.points import Model
from lmmsparse.engine.solvers.levels import LevelSystem, small_product
from lmmsparse.engine.traces import Border, Inner, sandwiches, traces_of_levels


class LevelPoint:
    """A `Point` of a model with one grouping factor.

    Parameters
    ----------
    model : Model
    system : LevelSystem
        The model's.
    theta : (n_theta,) array
    sigma2 : float, optional
        σ², profiled out if not given.
    """

    def __init__(
        self, model: Model, system: LevelSystem, theta: FloatArray, sigma2: float | None = None
    ) -> None:
        self._model, self._system = model, system
        self.theta = theta
        self.T = model.template.shifted_factors(theta)
        self._levels = levels = system.at(theta)
        y = system.responses(model.response)
        self.solution = solution = system.solve_with(levels, y, model.response)
        self.s2 = solution.pwrss / model.df if sigma2 is None else sigma2
        # The residuals Z'W(y − Xβ), what elimination leaves of them, and Z'V⁻¹(y − Xβ).
        residual = y - np.matmul(solution.beta, system.X)
        self._half = small_product(levels.W, residual[:, None])
        self._P = small_product(levels.W, system.A)
        self._v = residual - self._from_right(self._half)[:, 0]
        # T'v, which is the spherical random effects.
        self._u = small_product(levels.inverse.swapaxes(0, 1), self._half)[:, 0]

    def _from_right(self, C: FloatArray) -> FloatArray:
        """P'C level by level."""
        return small_product(self._P.swapaxes(0, 1), C)

    @cached_property
    def _inner(self) -> Inner:
        inverse = self._levels.inverse
        Y = -small_product(inverse.swapaxes(0, 1), inverse)
        Y.reshape(len(Y) ** 2, -1)[:: len(Y) + 1] += 1.0
        H = self._system.A - self._from_right(self._P)
        return Inner(H, self._from_right(inverse), Y)

    @cached_property
    def _VX(self) -> FloatArray:
        """Z'V⁻¹X of every level, (K, p, levels)."""
        return self._system.X - self._from_right(self._levels.WX)

    @cached_property
    def _border(self) -> Border:
        """Z'V⁻¹X R_X⁻¹ and T' times it, of every level, (K, p, levels)."""
        RX = self.solution.RX
        root = solve_triangular(RX, np.eye(len(RX)), transposed=True)
        UX = small_product(self._levels.inverse.swapaxes(0, 1), self._levels.WX)
        return Border(np.matmul(root, self._VX), np.matmul(root, UX))

    @property
    def VX(self) -> FloatArray:
        return self._system.join(self._VX)

    @cached_property
    def _sum_vv(self) -> FloatArray:
        return np.asarray(self._v @ self._v.T)

    @cached_property
    def FT(self) -> list[FloatArray]:
        # H T = A T M⁻¹ = P'L⁻¹, which loses no digits however large T is.
        levels, K = self._levels, self._system.K
        out = np.matmul(self._P, levels.inverse.swapaxes(1, 2)).sum(axis=0)
        minus = self._sum_vv / self.s2
        if self._model.reml and len(self.solution.RX):
            A = self._border.A.reshape(K, -1)
            minus = minus + A @ A.T
        out -= minus @ levels.T
        return [out[part, part] for part in self._system.parts]

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        sums = self._v @ self._u.T
        return np.concatenate(
            [
                -2.0 * (D.reshape(len(D), -1) @ sums[part, part].ravel())
                for part, D in zip(self._system.parts, directions, strict=True)
            ]
        )

    def _side_by_side(self, directions: Sequence[FloatArray]) -> FloatArray:
        """∂T of all terms, (n_theta, K, K)."""
        K = self._system.K
        if len(directions) == 1:
            return directions[0]
        out = np.zeros((sum(map(len, directions)), K, K))
        for own, part, D in zip(
            self._model.template.slices, self._system.parts, directions, strict=True
        ):
            out[own, part, part] = D
        return out

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        v, u, D = self._v, self._u, self._side_by_side(directions)
        vv, vu, uu = v[:, None] * v, v[:, None] * u, u[:, None] * u
        out = sandwiches(self._inner, vv, vu, uu, D)
        if len(self.solution.RX):
            # X'V⁻¹Z E_i v = A'D_iu + B'D_i'v, summed over levels.
            K, (A, B) = self._system.K, self._border
            sums = A.reshape(-1, A.shape[2]) @ u.T
            sums = sums.reshape(K, -1, K).transpose(0, 2, 1)
            sums = sums + (B.reshape(-1, A.shape[2]) @ v.T).reshape(K, -1, K).transpose(2, 0, 1)
            XVZc = D.reshape(len(D), -1) @ sums.reshape(K * K, -1)
            out -= XVZc @ XVZc.T
        return np.asarray(out / self.s2)

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        border = self._border if self._model.reml else None
        return traces_of_levels(self._inner, border, self._side_by_side(directions))

    def moment_estimate(self) -> FloatArray | None:
        system = self._system
        u = system.join(self._u[:, None])[:, 0]
        inverse = system.factor(self.theta).inverse_blocks()
        products, template = self._model.products, self._model.template
        return moment_estimate(products, template, self.theta, u, self.solution.pwrss, inverse)
