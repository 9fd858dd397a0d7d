"""θ → everything the derivatives of the criterion need there, from one factor of M.

Nothing of size n appears. This works with any system; `solvers.levels` has the same for models in
which one factor groups all terms, and is tested against this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import chunks, solve_triangular, summed_products, times_each
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import Modes, PLSSystem
from lmmsparse.engine.traces import Border, traces


def traces_by_term(
    products: CrossProducts, factors: Sequence[FloatArray], inverse: Sequence[FloatArray]
) -> list[FloatArray]:
    """Per term Σ_ℓ (Z'WZ Λ M⁻¹)_ℓℓ, (k, k), from every stored block and its transpose."""
    out = [np.zeros((k, k)) for k in products.sizes]
    for pair, S in zip(products.pairs, inverse, strict=True):
        for part in chunks(len(S), S[:1].size):
            BT = times_each(pair.values[part], factors[pair.t])
            out[pair.s] += summed_products(BT, S[part])
            if pair.s != pair.t:
                k = products.sizes[pair.t]
                TB = np.matmul(factors[pair.s].T, pair.values[part])
                out[pair.t] += TB.reshape(-1, k).T @ S[part].reshape(-1, k)
    return out


class GeneralPoint:
    """A `Point` from any factor of M: its solves and the entries of M⁻¹ where Z'WZ has blocks."""

    def __init__(
        self,
        system: PLSSystem,
        products: CrossProducts,
        template: LambdaTemplate,
        theta: FloatArray,
        response: Response,
        reml: bool,
        sigma2: float | None = None,
    ) -> None:
        self._products, self._template, self._reml = products, template, reml
        self.theta = theta
        self.T = template.shifted_factors(theta)
        solution, factor = system.solve(theta, response), system.factor(theta)
        self.solution = solution
        self.s2 = solution.pwrss / products.df(reml) if sigma2 is None else sigma2
        # One solve and one product for u and U_X together.
        p = products.p
        right = np.empty((products.q, p + 1))
        right[:, :p] = products.ZtX
        right[:, p] = response.Zty - products.ZtX @ solution.beta
        solved = factor.solve(template.multiply_transposed(self.T, right))
        effects = template.multiply(self.T, solved)
        left = right - products.times(effects)
        self.modes = Modes(solution, factor, solved[:, p], effects[:, p], left[:, p])
        self._UX, self._VX = solved[:, :p], left[:, :p]
        root = solve_triangular(solution.RX, np.eye(p))
        self._border = Border(self._VX @ root, self._UX @ root)

    @property
    def VX(self) -> FloatArray:
        return np.asarray(self._VX)

    @cached_property
    def inverse(self) -> list[FloatArray]:
        """M⁻¹ where Z'WZ has blocks."""
        return self.modes.factor.inverse_blocks()

    @cached_property
    def FT(self) -> list[FloatArray]:
        products, template = self._products, self._template
        out = traces_by_term(products, self.T, self.inverse)
        for t, (k, a, z) in enumerate(
            zip(products.sizes, template.offsets[:-1], template.offsets[1:], strict=True)
        ):
            # (Z'V⁻¹Z − vv'/s² − AA') times T and the levels' covariance, which make u of v.
            v, u = self.modes.v[a:z].reshape(-1, k), self.modes.u[a:z].reshape(-1, k)
            out[t] -= v.T @ u / self.s2
            if self._reml:
                A, B = (part[a:z].reshape(len(v), k, products.p) for part in self._border)
                out[t] -= summed_products(A, B)
        return out

    def _by_level(self, t: int, vector: FloatArray) -> FloatArray:
        """Term t's part of a (q,) vector, (levels, k)."""
        offsets = self._template.offsets
        return vector[offsets[t] : offsets[t + 1]].reshape(-1, len(self.T[t]))

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        out = np.empty(self._template.n_theta)
        for t, (part, D) in enumerate(zip(self._template.slices, directions, strict=True)):
            v, u = self._by_level(t, self.modes.v), self._by_level(t, self.modes.u)
            out[part] = -2.0 * (D.reshape(len(D), -1) @ (v.T @ u).ravel())
        return out

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        products, template = self._products, self._template
        # ∂(ΛQ⁻¹Λ') v = C + ΛQ⁻¹K with C = ∂Λ u and K = ∂Λ' v: where Λ is large, no sum is formed.
        C, K = np.zeros((2, products.q, template.n_theta))
        for t, (part, D) in enumerate(zip(template.slices, directions, strict=True)):
            a, z = template.offsets[t], template.offsets[t + 1]
            for into, vector, moved in (
                (C, self.modes.u, D.transpose(2, 1, 0)),
                (K, self.modes.v, D.transpose(1, 2, 0)),
            ):
                columns = self._by_level(t, vector) @ moved.reshape(len(moved), -1)
                into[a:z, part] = columns.reshape(z - a, len(D))
        GC = products.times(C)
        LtGC = template.multiply_transposed(self.T, GC)
        # With Λ'Z'V⁻¹ZΛ = Q − QM⁻¹Q the squares complete each other.
        both = LtGC - K
        out = C.T @ GC + K.T @ products.prior.solve(K) - both.T @ self.modes.factor.solve(both)
        if products.p:
            E = products.ZtX.T @ C - self._UX.T @ both
            E = solve_triangular(self.modes.solution.RX, E, transposed=True)
            out -= E.T @ E
        return np.asarray(out / self.s2)

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        border = self._border if self._reml else None
        products, solve = self._products, self.modes.factor.solve
        return traces(products, self.T, directions, self.inverse, solve, border)

    def moment_estimate(self) -> FloatArray | None:
        u, pwrss = self.modes.u, self.solution.pwrss
        return moment_estimate(self._products, self._template, self.theta, u, pwrss, self.inverse)
