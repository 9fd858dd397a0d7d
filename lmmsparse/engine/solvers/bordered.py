"""Random intercepts of some factors → the largest factor eliminated, the others a dense core.

What `blocked` does for any terms, where every term has one effect per level and most pairs of
levels may have a number: M₁₁ is a vector, and nothing else is larger than the border of the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.moments import moment_estimate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import (
    FAILED,
    PLSSolution,
    eliminate,
    inverse_root,
    root_of_border,
)
from lmmsparse.engine.traces import Border, traces

_MOST_CORE = 120
_MOST_CELLS = 20_000


def is_bordered(products: CrossProducts) -> bool:
    """Whether the cross-products are those of random intercepts with a small border."""
    return (
        max(products.sizes) == 1
        and not products.priors
        and products.lead == (0,)
        and 0 < products.core <= _MOST_CORE
        and products.n_levels[0] * products.core <= _MOST_CELLS
    )


class Halves(NamedTuple):
    """What belongs to the eliminated factor, (levels, m), and to the core, (core, m)."""

    lead: FloatArray
    core: FloatArray

    def joined(self) -> FloatArray:
        return np.concatenate(self)


class BorderedFactor:
    """`PLSFactor`: M⁻¹ in its parts; never changes.

    Attributes
    ----------
    theta : (n_theta,) array
    T : list of (1, 1) arrays
    scale : Halves
        The diagonal of Λ.
    own : (levels,) array
        M₁₁⁻¹.
    P : (core, levels) array
        M₂₁M₁₁⁻¹.
    root : (core, core) array
        L⁻¹ with LL' what elimination leaves of M₂₂.
    S : (core, core) array
        The core's block of M⁻¹.
    W : (core, levels) array
        SP, the border's block of −M⁻¹.
    """

    def __init__(
        self,
        system: BorderedSystem,
        theta: FloatArray,
        T: list[FloatArray],
        scale: Halves,
        own: FloatArray,
        P: FloatArray,
        root: FloatArray,
        logdet: float,
    ) -> None:
        self._system, self.theta, self.T, self.scale = system, theta, T, scale
        self.own, self.P, self.root, self.logdet = own, P, root, logdet
        self.S = root.T @ root
        self.W = self.S @ P

    def halves(self, b: Halves) -> tuple[FloatArray, Halves]:
        """b'M⁻¹b and M⁻¹b."""
        lead, rest = self.own[:, None] * b.lead, self.root @ (b.core - self.P @ b.lead)
        core = self.root.T @ rest
        return b.lead.T @ lead + rest.T @ rest, Halves(lead - self.P.T @ core, core)

    def solve(self, b: FloatArray) -> FloatArray:
        n = len(self.own)
        split = Halves(b[:n].reshape(n, -1), b[n:].reshape(len(b) - n, -1))
        return self.halves(split)[1].joined().reshape(b.shape)

    def diagonal(self) -> FloatArray:
        """The diagonal of M⁻¹ of the eliminated factor, (levels,)."""
        return np.asarray(self.own + np.einsum("cl,cl->l", self.P, self.W))

    def inverse_blocks(self) -> list[FloatArray]:
        products, n = self._system.products, len(self.own)
        out = []
        for pair in products.pairs:
            rows, cols = products.offsets[pair.s] + pair.rows, products.offsets[pair.t] + pair.cols
            if pair.s == 0:
                block = self.diagonal()
            else:
                block = self.S[rows - n, cols - n] if pair.t else -self.W[rows - n, cols]
            out.append(block[:, None, None])
        return out


class BorderedSystem:
    """`PLSSystem` of random intercepts of which all but one factor have few levels.

    Attributes
    ----------
    own : (levels,) array
        Z₁'WZ₁.
    border : (core, levels) array
        Z₂'WZ₁.
    core : (core, core) array
        Z₂'WZ₂.
    members : (core, terms) array
        Which effects of the core are of which term.
    """

    def __init__(self, products: CrossProducts, template: LambdaTemplate) -> None:
        self.products, self.template = products, template
        n, m = products.n_levels[0], products.core
        self.own, self.border, self.core = np.empty(n), np.zeros((m, n)), np.zeros((m, m))
        for pair in products.pairs:
            values = pair.values[:, 0, 0]
            rows, cols = products.offsets[pair.s] + pair.rows, products.offsets[pair.t] + pair.cols
            if pair.s == 0:
                self.own[:] = values
            elif pair.t == 0:
                self.border[rows - n, cols] = values
            else:
                self.core[rows - n, cols - n] = self.core[cols - n, rows - n] = values
        terms = len(products.sizes)
        self.term = np.repeat(np.arange(1, terms), products.n_levels[1:])
        self.members = np.eye(terms)[self.term]
        self._last: BorderedFactor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (BorderedSystem, (self.products, self.template))

    def describe(self) -> str:
        return (
            f"batched elimination of {len(self.own)} levels with 1 effects each, dense core of "
            f"{len(self.core)}"
        )

    def split(self, b: FloatArray) -> Halves:
        """(q, m) → both halves."""
        return Halves(b[: len(self.own)], b[len(self.own) :])

    def times(self, b: Halves) -> Halves:
        """Z'WZ b."""
        lead = self.own[:, None] * b.lead + self.border.T @ b.core
        return Halves(lead, self.border @ b.lead + self.core @ b.core)

    def at(self, theta: FloatArray) -> BorderedFactor:
        """The factorization at θ; the last one is kept."""
        last = self._last  # other threads may put another in its place
        if last is None or not np.array_equal(last.theta, theta):
            last = self._last = self._factorize(np.array(theta))
        return last

    def _factorize(self, theta: FloatArray) -> BorderedFactor:
        T = self.template.shifted_factors(theta)
        values = np.concatenate(T)[:, 0]
        lead, core = values[0], values[self.term]
        M11 = 1.0 + lead * lead * self.own
        M21 = (lead * core)[:, None] * self.border
        P = M21 / M11
        S = core[:, None] * self.core * core
        S.flat[:: len(S) + 1] += 1.0
        S -= P @ M21.T
        root, of_core = inverse_root(S)
        logdet = float(np.log(M11).sum()) + of_core
        if not isfinite(logdet):
            raise NumericalError(FAILED)
        scale = Halves(np.full((len(M11), 1), lead), core[:, None])
        return BorderedFactor(self, theta, T, scale, 1.0 / M11, P, root, logdet)

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        return self.solve_with(self.at(theta), response)[0]

    def solve_with(
        self, factor: BorderedFactor, response: Response
    ) -> tuple[PLSSolution, FloatArray, Halves]:
        """The solution, Z'W[X y], (q, p + 1), and M⁻¹Λ' times it."""
        border = np.concatenate([self.products.ZtX, response.Zty[:, None]], axis=1)
        halves = self.split(border)
        scaled = Halves(factor.scale.lead * halves.lead, factor.scale.core * halves.core)
        CtC, solved = factor.halves(scaled)
        return eliminate(factor.logdet, CtC, self.products, response), border, solved

    def factor(self, theta: FloatArray) -> BorderedFactor:
        return self.at(theta)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> BorderedPoint:
        return BorderedPoint(self, theta, response, reml, sigma2)

    def with_products(self, products: CrossProducts) -> BorderedSystem:
        return BorderedSystem(products, self.template)


class BorderedPoint:
    """A `Point` of random intercepts: the formulas of `GeneralPoint` in two halves.

    Parameters
    ----------
    theta : (n_theta,) array
    sigma2 : float, optional
        σ², profiled out if not given.
    """

    def __init__(
        self,
        system: BorderedSystem,
        theta: FloatArray,
        response: Response,
        reml: bool,
        sigma2: float | None = None,
    ) -> None:
        self._system, self._reml, self.theta = system, reml, theta
        self._factor = factor = system.at(theta)
        self.T = factor.T
        self.solution, border, solved = system.solve_with(factor, response)
        self.s2 = self.solution.pwrss / system.products.df(reml) if sigma2 is None else sigma2
        effects = Halves(factor.scale.lead * solved.lead, factor.scale.core * solved.core)
        left = border - system.times(effects).joined()
        # Z'V⁻¹X R_X⁻¹ beside v/s = Z'V⁻¹(y − Xβ)/s; and Λ' times these, B beside u/s.
        root = root_of_border(self.solution, self.s2)
        self._VX, self._A, self._B = left[:, :-1], left @ root, solved.joined() @ root

    @property
    def VX(self) -> FloatArray:
        return self._VX

    def _by_term(self, values: FloatArray) -> FloatArray:
        """The sums of (q,) numbers over the levels of every term, (terms,)."""
        lead, core = self._system.split(values)
        out = core @ self._system.members
        out[0] = lead.sum()
        return np.asarray(out)

    @property
    def FT(self) -> list[FloatArray]:
        system, factor = self._system, self._factor
        A, B = (self._A, self._B) if self._reml else (self._A[:, -1:], self._B[:, -1:])
        # The diagonal of Z'WZΛM⁻¹, half by half.
        lead, core = self.T[0][0, 0], factor.scale.core[:, 0]
        met = system.border * factor.W
        own = np.concatenate(
            [
                lead * system.own * factor.diagonal() - core @ met,
                (system.core * factor.S) @ core - lead * met.sum(axis=1),
            ]
        )
        own -= np.einsum("qp,qp->q", A, B)
        return list(self._by_term(own)[:, None, None])

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        sums = self._by_term(self._A[:, -1] * self._B[:, -1])
        return np.asarray(-2.0 * self.s2 * sums * np.concatenate(directions).ravel())

    def _moved(self, vector: FloatArray, lengths: FloatArray) -> Halves:
        """A (q,) vector term by term, times ∂T, in columns of their own."""
        lead, core = self._system.split(vector)
        first = np.zeros((len(lead), len(lengths)))
        first[:, 0] = lengths[0] * lead
        return Halves(first, core[:, None] * (self._system.members * lengths))

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        system, scale = self._system, self._factor.scale
        lengths = np.concatenate(directions).ravel()
        # ∂(ΛΛ') v = C + ΛK with C = ∂Λ u and K = ∂Λ' v: where Λ is large, no sum is formed.
        C, K = self._moved(self._B[:, -1], lengths), self._moved(self._A[:, -1], lengths)
        GC = system.times(C)
        both = Halves(scale.lead * GC.lead - K.lead, scale.core * GC.core - K.core)
        # With Λ'Z'V⁻¹ZΛ = I − M⁻¹ the squares complete each other.
        out = C.lead.T @ GC.lead + C.core.T @ GC.core + K.lead.T @ K.lead + K.core.T @ K.core
        out -= self._factor.halves(both)[0]
        E = self._A[:, :-1].T @ C.joined() + self._B[:, :-1].T @ K.joined()
        return np.asarray(out - E.T @ E)

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        products, border = self._system.products, None
        if self._reml and products.p:
            border = Border(self._A[:, :-1], self._B[:, :-1])
        return traces(products, self.T, directions, [], self._factor.solve, border)

    def moment_estimate(self) -> FloatArray | None:
        products, template = self._system.products, self._system.template
        u, inverse = self._B[:, -1] * self.s2**0.5, self._factor.inverse_blocks()
        return moment_estimate(products, template, self.theta, u, self.solution.pwrss, inverse)
