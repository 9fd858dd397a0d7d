"""θ → what the derivatives of the criterion need there: solutions to rounding, traces by probes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NoReturn

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import solve_triangular
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.krylov.factor import KrylovFactor
from lmmsparse.engine.solvers.krylov.probes import Estimate, exact_sums

_TOL = 1e-5  # of the solutions in `squares`, whose error is that squared


class KrylovPoint:
    """A `Point` whose F T is estimated by probes."""

    def __init__(
        self,
        factor: KrylovFactor,
        products: CrossProducts,
        template: LambdaTemplate,
        response: Response,
        reml: bool,
        sigma2: float | None = None,
    ) -> None:
        self._factor, self._products, self._template = factor, products, template
        self._reml, self.theta, self.T = reml, factor.theta, factor.T
        self.modes = factor.modes(response)
        self.solution = self.modes.solution
        self.s2 = self.solution.pwrss / products.df(reml) if sigma2 is None else sigma2
        U, V = factor.effects(response)
        self._UX, self._VX = U[:, :-1], V[:, :-1]
        self._squares: tuple[list[FloatArray], FloatArray] | None = None

    @property
    def VX(self) -> FloatArray:
        return self._VX

    @cached_property
    def _traces(self) -> list[Estimate]:
        """Per term Σ_levels of [Z'V⁻¹Z]_ℓℓ T, (k, k)."""
        M, probed = self._factor.M, self._factor.probed
        core, lead = exact_sums(M)
        out = {}
        for t, part in M.cells.parts.items():
            value = lead[part, part] + probed.lead.value[part, part]
            out[t] = Estimate(value, probed.lead.errors[:, part, part])
        for term, exact, found in zip(M.cells.terms, core, probed.core, strict=True):
            out[term.number] = Estimate(exact + found.value, found.errors)
        return [out[t] for t in range(len(out))]

    @cached_property
    def FT(self) -> list[FloatArray]:
        products, template = self._products, self._template
        p = products.p
        root = solve_triangular(self.solution.RX, np.eye(p))
        out = []
        for t, (k, a, z) in enumerate(
            zip(products.sizes, template.offsets[:-1], template.offsets[1:], strict=True)
        ):
            v = self.modes.v[a:z].reshape(-1, k)
            minus = v.T @ v / self.s2
            if self._reml and p:
                A = (self._VX[a:z] @ root).reshape(len(v), k, p)
                minus += np.tensordot(A, A, axes=([0, 2], [0, 2]))
            out.append(self._traces[t].value - minus @ self.T[t])
        return out

    @property
    def FT_errors(self) -> list[FloatArray]:
        """Per term the errors of the single probes, of whose mean F T has the error, (s, k, k)."""
        return [each.errors for each in self._traces]

    def _by_level(self, t: int, vector: FloatArray) -> FloatArray:
        offsets = self._template.offsets
        return vector[offsets[t] : offsets[t + 1]].reshape(-1, len(self.T[t]))

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        out = np.empty(self._template.n_theta)
        for t, (part, D) in enumerate(zip(self._template.slices, directions, strict=True)):
            sums = self._by_level(t, self.modes.v).T @ self._by_level(t, self.modes.u)
            out[part] = -2.0 * (D.reshape(len(D), -1) @ sums.ravel())
        return out

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        last = self._squares
        if last is None or not all(map(np.array_equal, last[0], directions)):
            last = self._squares = list(directions), self._squares_of(directions)
        return last[1]

    def _squares_of(self, directions: Sequence[FloatArray]) -> FloatArray:
        products, template = self._products, self._template
        # ∂(ΛΛ') v = C + Λ K with C = ∂Λ u and K = ∂Λ' v: where Λ is large, the sum is not formed.
        C, K = np.zeros((2, products.q, template.n_theta))
        for t, (part, D) in enumerate(zip(template.slices, directions, strict=True)):
            a, z = template.offsets[t], template.offsets[t + 1]
            u, v = self._by_level(t, self.modes.u), self._by_level(t, self.modes.v)
            for i, direction in enumerate(D):
                C[a:z, part.start + i] = (u @ direction.T).ravel()
                K[a:z, part.start + i] = (v @ direction).ravel()
        GC = self._factor.M.cells.times(C)
        # With Λ'Z'V⁻¹ZΛ = I − M⁻¹ the squares complete each other.
        both = template.multiply_transposed(self.T, GC) - K
        inner = self._factor.M.solve_with_squares(both, _TOL)[1]
        out = C.T @ GC + K.T @ K - inner
        if products.p:
            E = products.ZtX.T @ C - self._UX.T @ both
            E = solve_triangular(self.solution.RX, E, transposed=True)
            out -= E.T @ E
        return np.asarray(out / self.s2)

    def traces(self, directions: Sequence[FloatArray]) -> NoReturn:
        raise OptionError(
            "Exact second derivatives need the inverse of the whole system, which lmm.Krylov() "
            "does not have. Fit with an exact solver, for example solver=lmm.Blocked()."
        )

    def moment_estimate(self) -> FloatArray | None:
        inverse = self._factor.rough_blocks()
        u, pwrss = self.modes.u, self.solution.pwrss
        return moment_estimate(self._products, self._template, self.theta, u, pwrss, inverse)
