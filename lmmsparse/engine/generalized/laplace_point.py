"""β, θ, δ → −2 log-likelihood by Laplace's approximation, its exact gradient, and a cheap Hessian.

With û the conditional mode and M the Hessian of the penalized log density there, d = 2h(û) + log|M|
− log|Q|; u is integrated out and never linearized in the result. The gradient follows û as
parameters change. The Hessian is that of the working linear mixed model: average information in θ
with the curvature of θ → ΛΛ', and twice X'V⁻¹X in β.

References
----------
Breslow & Clayton (1993), Journal of the American Statistical Association 88, 9-25.
Skaug & Fournier (2006), Computational Statistics & Data Analysis 51, 699-709.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.tangents import (
    away_from_limits,
    curvatures,
    derivatives_of_T,
    of_full_rank,
)
from lmmsparse.engine.families.base import ExpectedWeights, Pointwise
from lmmsparse.engine.generalized.mode import Mode, factorized
from lmmsparse.engine.points import traces_by_term
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import PLSFactor


@dataclass(frozen=True, eq=False)
class Parameters:
    """A point of the criterion.

    Attributes
    ----------
    beta : (p,) array
        Internal coordinates.
    theta : (n_theta,) array
    delta : float
        Logarithm of the dispersion, or of the size of a negative binomial; 0 where there is none.
    """

    beta: FloatArray
    theta: FloatArray
    delta: float = 0.0


class LaplacePoint:
    """The criterion at one point.

    Parameters
    ----------
    mode : Mode
    expected : bool
        Whether log|M| is taken with expected weights.
    """

    def __init__(self, mode: Mode, expected: bool = False) -> None:
        self.rows, self.mode = mode.rows, mode
        self._takes_expected = expected and not mode.rows.family.canonical

    @cached_property
    def _determinant(self) -> tuple[CrossProducts, PLSFactor, ExpectedWeights | None]:
        """Whose log-determinant is taken: M, or its expectation."""
        mode, rows = self.mode, self.rows
        if not self._takes_expected:
            return mode.products, mode.factor, None
        weights = rows.family.expected(mode.eta, rows.seen, mode.delta)
        return *factorized(rows, mode.theta, weights.w), weights

    @property
    def expected(self) -> ExpectedWeights | None:
        """The weights of the determinant, if they are expected ones."""
        return self._determinant[2]

    @property
    def weights(self) -> FloatArray:
        """W of what the determinant is of."""
        return self.mode.at.w if self.expected is None else self.expected.w

    @property
    def slope(self) -> FloatArray:
        """∂W/∂η, (n,)."""
        slope = self.third.t if self.expected is None else self.expected.t
        assert slope is not None
        return slope

    @cached_property
    def value(self) -> float:
        """−2 log-likelihood."""
        constant = self.rows.constant(self.mode.delta)
        logdet = self._determinant[1].logdet if self._takes_expected else self.mode.logdet
        logdet -= self.rows.prior.logdet
        return 2.0 * (self.mode.h - constant) + logdet

    @cached_property
    def full(self) -> CrossProducts:
        """Z'WZ, Z'WX and X'WX."""
        return self.rows.with_fixed(self.mode.products, self.mode.at.w)

    @cached_property
    def third(self) -> Pointwise:
        mode, rows = self.mode, self.rows
        if mode.at.t is not None:
            return mode.at
        return rows.family.at(mode.eta, rows.seen, mode.delta, third=True)

    @cached_property
    def directions(self) -> list[FloatArray]:
        return derivatives_of_T(self.rows.template, self.mode.theta)

    @cached_property
    def inverse(self) -> list[FloatArray]:
        """The inverse of what the determinant is of, where Z'WZ has blocks."""
        return self._determinant[1].inverse_blocks()

    @cached_property
    def leverage(self) -> FloatArray:
        """The diagonal of ZΛM⁻¹Λ'Z', (n,)."""
        return self.rows.diagonal(self.mode.factors, self.inverse)

    @cached_property
    def traces(self) -> list[FloatArray]:
        """Per term Σ_levels (Z'WZΛM⁻¹)_ℓℓ, (k, k)."""
        return self._traces_with(self.inverse)

    def _traces_with(self, inverse: Sequence[FloatArray]) -> list[FloatArray]:
        return traces_by_term(self._determinant[0], self.mode.factors, inverse)

    def by_level(self, t: int, vector: FloatArray) -> FloatArray:
        """Term t's part of a (q,) vector, (levels, k)."""
        offsets = self.rows.template.offsets
        return vector[offsets[t] : offsets[t + 1]].reshape(-1, len(self.mode.factors[t]))

    def slopes(self, by_term: Sequence[FloatArray]) -> FloatArray:
        """∂/∂θ from ∂/∂T of every term, (n_theta,)."""
        out = np.empty(self.rows.template.n_theta)
        parts = self.rows.template.slices
        for part, D, G in zip(parts, self.directions, by_term, strict=True):
            out[part] = D.reshape(len(D), -1) @ G.ravel()
        return out

    @cached_property
    def gradient(self) -> FloatArray:
        """∂d/∂(β, θ, δ), δ only where it is estimated."""
        rows, mode = self.rows, self.mode
        template, factors, weights = rows.template, mode.factors, self.expected
        P = self.leverage
        c = self.slope * P
        a = mode.factor.solve(template.multiply_transposed(factors, rows.grouped(c)))
        follow = rows.random_part(template.multiply(factors, a))
        moved = c - mode.at.w * follow
        through = -2.0 * mode.v + rows.grouped(moved)
        by_term = [
            self.by_level(t, mode.v).T @ self.by_level(t, a)
            + self.by_level(t, through).T @ self.by_level(t, mode.u)
            + 2.0 * trace
            for t, trace in enumerate(self.traces)
        ]
        in_beta = rows.Q.transposed_times(moved - 2.0 * mode.at.s)
        parts = [in_beta, self.slopes(by_term)]
        if rows.family.estimates_delta:
            scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
            in_delta = scale.w if weights is None else weights.in_delta
            assert in_delta is not None
            total = -2.0 * scale.total + float(P @ in_delta) + float(follow @ scale.s)
            parts.append(np.array([total]))
        return np.concatenate(parts)

    @cached_property
    def _moves(self) -> tuple[FloatArray, FloatArray]:
        """∂Λ û and ∂Λ' Z's, (q, n_theta) each."""
        template, mode = self.rows.template, self.mode
        C, K = np.zeros((2, template.q, template.n_theta))
        for t, (part, D) in enumerate(zip(template.slices, self.directions, strict=True)):
            a, z = template.offsets[t], template.offsets[t + 1]
            for into, vector, moved in (
                (C, mode.u, D.transpose(2, 1, 0)),
                (K, mode.v, D.transpose(1, 2, 0)),
            ):
                columns = self.by_level(t, vector) @ moved.reshape(len(moved), -1)
                into[a:z, part] = columns.reshape(z - a, len(D))
        return C, K

    @cached_property
    def border(self) -> tuple[FloatArray, FloatArray]:
        """Λ'Z'WX and M⁻¹ times it, (q, p) each."""
        border = self.rows.template.multiply_transposed(self.mode.factors, self.full.ZtX)
        return border, self.mode.factor.solve(border)

    @cached_property
    def information(self) -> FloatArray:
        """X'V⁻¹X of the working model in internal columns, (p, p)."""
        border, solved = self.border
        out = self.full.XtX - border.T @ solved
        return np.asarray(0.5 * (out + out.T))

    @cached_property
    def hessian(self) -> FloatArray:
        """The Hessian of the working linear mixed model in (β, θ), zero in δ."""
        rows, mode = self.rows, self.mode
        p, d = rows.p, rows.template.n_theta
        size = p + d + rows.family.estimates_delta
        out = np.zeros((size, size))
        out[:p, :p] = 2.0 * self.information
        C, K = self._moves
        GC = np.column_stack([rows.crossed(column, mode.at.w) for column in C.T])
        both = rows.template.multiply_transposed(mode.factors, GC) - K
        squares = C.T @ GC + K.T @ rows.prior.solve(K) - both.T @ mode.factor.solve(both)
        out[p : p + d, p : p + d] = squares + curvatures(
            rows.template, mode.theta, self._second_moments
        )
        if p:
            mixed = 2.0 * (self.full.ZtX.T @ C - self.border[1].T @ both)
            out[:p, p : p + d] = mixed
            out[p : p + d, :p] = mixed.T
        return 0.5 * (out + out.T)

    @cached_property
    def _second_moments(self) -> list[FloatArray]:
        """Per term half the gradient of the working model in TT', (k, k)."""
        template = self.rows.template
        scales = [np.ones(len(T)) for T in self.mode.factors]
        across = self.rows.prior.solve(self.mode.v)
        safe = away_from_limits(template, of_full_rank(template, scales, self.mode.theta))
        factors, traces = template.shifted_factors(safe), self.traces
        if not np.array_equal(safe, self.mode.theta):
            products, factor = factorized(self.rows, safe, self.weights)
            traces = traces_by_term(products, factors, factor.inverse_blocks())
        out = []
        for t, (trace, T) in enumerate(zip(traces, factors, strict=True)):
            F = np.linalg.solve(T.T, trace.T).T
            v, spread = self.by_level(t, self.mode.v), self.by_level(t, across)
            out.append(0.5 * (F + F.T) - v.T @ spread)
        return out

    def predicted(self, to: Parameters) -> FloatArray:
        """The mode at other parameters, to first order, (q,)."""
        rows, mode, template = self.rows, self.mode, self.rows.template
        change = [
            there - here
            for there, here in zip(template.shifted_factors(to.theta), mode.factors, strict=True)
        ]
        moved = rows.grouped(mode.at.w * rows.Q.times(to.beta - mode.beta))
        moved += rows.crossed(template.multiply(change, mode.u), mode.at.w)
        if rows.family.estimates_delta and to.delta != mode.delta:
            scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
            moved -= rows.grouped(scale.s * (to.delta - mode.delta))
        right = template.multiply_transposed(change, mode.v)
        right -= template.multiply_transposed(mode.factors, moved)
        return np.asarray(mode.u + mode.factor.solve(right))
