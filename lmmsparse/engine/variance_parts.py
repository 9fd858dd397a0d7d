"""The criterion at θ → V and its derivatives by all variance parameters, in the space of b.

With N = Z'V⁻¹Z every trace over observations is one over random effects, and N is made a few
columns at a time. Parameters are those of `CovarianceStructure.spans`, relative to σ², the residual
one last.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.pair_sums import pair_sums
from lmmsparse.engine.solvers.base import Modes

_WELL = 1e4


class VarianceParts:
    """What inference about variances needs of V, parameter by parameter.

    Parameters
    ----------
    theta : (n_theta,) array
    modes : Modes
        The solution there, with its factor.
    """

    def __init__(self, objective: ProfiledDeviance, theta: FloatArray, modes: Modes) -> None:
        self._products, template = objective.products, objective.template
        self._template, self._factor, self._RX = template, modes.factor, modes.solution.RX
        self._T = template.shifted_factors(theta)
        self._VX = objective.border(theta)
        # Term, and derivative of its k × k covariance by each variance parameter.
        self._entries = [
            (t, E)
            for t, (structure, part) in enumerate(
                zip(template.structures, template.slices, strict=True)
            )
            for E in structure.spans(theta[part])
        ]

    def _apply(self, entry: tuple[int, FloatArray], B: FloatArray) -> FloatArray:
        """E_r B, with E_r the derivative of Cov(b) by one variance parameter; B is (q, m)."""
        t, E = entry
        a, z = self._template.offsets[t], self._template.offsets[t + 1]
        out = np.zeros_like(B)
        levels, shape = (z - a) // len(E), B[a:z].shape
        out[a:z] = np.matmul(E, B[a:z].reshape(levels, len(E), shape[1])).reshape(shape)
        return self._products.prior.solve(out)

    def times_N(self, GB: FloatArray) -> tuple[FloatArray, FloatArray]:
        """N B and Q⁻¹Λ'N B from Z'WZ B, (q, m) each; the second is M⁻¹Λ'Z'WZ B."""
        template = self._template
        half = self._factor.solve(template.multiply_transposed(self._T, GB))
        if self._inverses is not None:
            left = self._products.prior.times(half)
            return template.multiply_transposed(self._inverses, left), half
        return np.asarray(GB - self._products.ZtZ @ template.multiply(self._T, half)), half

    @cached_property
    def _inverses(self) -> list[FloatArray] | None:
        """T⁻¹ of every term, if none is close to singular."""
        if any(np.linalg.cond(T) > _WELL for T in self._T):
            return None
        return [np.asarray(np.linalg.inv(T), dtype=np.float64) for T in self._T]

    def _N(self, B: FloatArray) -> FloatArray:
        return self.times_N(self._products.ZtZ @ B)[0]

    def _K(self, B: FloatArray) -> FloatArray:
        """ΛQ⁻¹Λ' B."""
        inner = self._products.prior.solve(self._template.multiply_transposed(self._T, B))
        return self._template.multiply(self._T, inner)

    @cached_property
    def _residual_slope(self) -> FloatArray:
        return np.asarray(self._RX.T @ self._RX - self._VX.T @ self._K(self._VX))

    def slopes(self) -> FloatArray:
        """A_r = X'V⁻¹G_rV⁻¹X, (r, p, p)."""
        VX = self._VX
        return np.array([*(VX.T @ self._apply(e, VX) for e in self._entries), self._residual_slope])

    def slope_of(self, changes: Sequence[FloatArray], residual: float) -> FloatArray:
        """X'V⁻¹GV⁻¹X with G of a change of every term's covariance and of σ², (p, p)."""
        out = residual * self._residual_slope
        for entry in enumerate(changes):
            out = out + self._VX.T @ self._apply(entry, self._VX)
        return np.asarray(out)

    def curvatures(self) -> FloatArray:
        """Q_rs = X'V⁻¹G_rV⁻¹G_sV⁻¹X, (r, r, p, p)."""
        VX, RX = self._VX, self._RX
        KVX = self._K(VX)
        NKVX = self._N(KVX)
        left = [self._apply(entry, VX) for entry in self._entries]
        # Z'V⁻¹ G_s V⁻¹X of every parameter; the residual one is Z'V⁻¹W⁻¹V⁻¹X.
        right = [*(self._N(B) for B in left), VX - NKVX]
        r, p = len(left) + 1, VX.shape[1]
        out = np.empty((r, r, p, p))
        for i, B in enumerate(left):
            for j, D in enumerate(right):
                out[i, j] = B.T @ D
                out[j, i] = out[i, j].T
        out[-1, -1] = RX.T @ RX - 2.0 * VX.T @ KVX + KVX.T @ NKVX
        return out

    def traces(self) -> FloatArray:
        """tr(V⁻¹G_rV⁻¹G_s), (r, r)."""
        sums = pair_sums(self._products, self._T, self._factor, self.times_N)
        r = len(self._entries)
        out = np.empty((r + 1, r + 1))
        for x, (a, E) in enumerate(self._entries):
            for y, (b, D) in enumerate(self._entries):
                # tr(N_ba E_r N_ab E_s), with H[(i,k),(j,l)] = Σ N[(ℓ,i),(m,k)] N[(ℓ,j),(m,l)].
                H = sums.products[a, b].reshape(len(E), len(D), len(E), len(D))
                out[x, y] = np.tensordot(np.tensordot(E, H, axes=([0, 1], [0, 2])), D)
            out[x, r] = out[r, x] = float(np.sum(E * sums.own[a]))
        out[r, r] = self._products.n - 2.0 * sums.trace + sums.squares
        return out
