"""β, θ, δ → −2 log-likelihood by adaptive Gauss–Hermite quadrature, with its exact gradient.

For one grouping factor: the integral of every level is a sum over nodes around its mode, scaled by
the factor of its Hessian. One node is Laplace's approximation. Nodes follow mode and Hessian as
parameters change, and so does the gradient.

References
----------
Pinheiro & Bates (1995), Journal of Computational and Graphical Statistics 4, 12-35.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.generalized.laplace import LaplaceDeviance
from lmmsparse.engine.generalized.laplace_levels import LaplaceByLevel
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.engine.generalized.mode import Mode
from lmmsparse.engine.generalized.modes import TIGHT, conditional_mode
from lmmsparse.engine.generalized.one_factor import OneFactor, transformed
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.linalg import small_product

LARGEST = 3
_NUMBERS = 20_000  # that are evaluated together


@dataclass(frozen=True, eq=False)
class QuadratureDeviance(LaplaceDeviance):
    """−2 log-likelihood, the random effects of every level integrated out by quadrature.

    Attributes
    ----------
    nodes : int
        Per random effect.
    """

    nodes: int = 1

    def __post_init__(self) -> None:
        check_quadrature(self.rows)

    def point(
        self, at: Parameters, u: FloatArray | None = None, tolerance: float = TIGHT
    ) -> QuadraturePoint:
        first = np.zeros(self.rows.template.q) if u is None else u
        mode = conditional_mode(self.rows, at.beta, at.theta, at.delta, first, tolerance)
        return QuadraturePoint(mode, self._one, self.grid)

    @cached_property
    def _one(self) -> OneFactor:
        return self.rows.one_factor or OneFactor(self.rows.pattern.terms)

    @cached_property
    def grid(self) -> tuple[FloatArray, FloatArray]:
        """Nodes z, (m, K), and log ω + ½|z|², (m,), of the standard normal distribution."""
        z, w = np.polynomial.hermite_e.hermegauss(self.nodes)
        log_w = np.log(np.maximum(w / w.sum(), 1e-300))
        K = sum(structure.k for structure in self.rows.template.structures)
        every = np.array(list(product(range(self.nodes), repeat=K)))
        nodes = z[every]
        return nodes, log_w[every].sum(axis=1) + 0.5 * np.square(nodes).sum(axis=1)


def check_quadrature(rows: GeneralizedRows) -> None:
    """Refuse models whose likelihood is not a product of small integrals.

    Raises
    ------
    OptionError
    """
    terms, template = rows.pattern.terms, rows.template
    K = sum(structure.k for structure in template.structures)
    if any(term.prior is not None for term in terms):
        raise OptionError(
            "n_agq above 1 needs levels that are independent, and the covariance of those of the "
            "model is known. Use n_agq=1, the Laplace approximation."
        )
    same = all(np.array_equal(term.codes, terms[0].codes) for term in terms)
    if not same or K > LARGEST:
        why = f"{K} effects per level" if same else "several grouping factors"
        raise OptionError(
            f"n_agq above 1 needs one grouping factor with up to {LARGEST} effects per level, and "
            f"the model has {why}. Use n_agq=1, the Laplace approximation."
        )


class OverNodes(NamedTuple):
    """What the gradient sums over nodes.

    Attributes
    ----------
    s, in_delta : (n,) arrays
        Means of ∂ℓ/∂η and of ∂ℓ/∂δ.
    outer : (K, K, levels) array
        Means of Z's u'.
    S : (K, K, levels) array
        What takes the place of M⁻¹.
    P : (n,) array
        The diagonal of ZTST'Z'.
    a : (K, levels) array
        How the modes follow.
    follow, moved : (n,) arrays
        ZTa, and the slope of the nodes' η without that of ℓ.
    """

    s: FloatArray
    outer: FloatArray
    in_delta: FloatArray
    S: FloatArray
    P: FloatArray
    a: FloatArray
    follow: FloatArray
    moved: FloatArray


class QuadraturePoint(LaplaceByLevel):
    """The criterion at one point.

    Parameters
    ----------
    mode : Mode
    one : OneFactor
    grid : (m, K) and (m,) arrays
    """

    def __init__(self, mode: Mode, one: OneFactor, grid: tuple[FloatArray, FloatArray]) -> None:
        super().__init__(mode, one)
        self._z, self._log_w = grid

    @cached_property
    def _C(self) -> FloatArray:
        """C with M⁻¹ = CC' of every level, (K, K, levels), upper triangular."""
        return self.levels.root.swapaxes(0, 1)

    def _parts(self) -> Iterator[slice]:
        """Nodes that are evaluated together."""
        at_once = max(1, _NUMBERS // max(1, self.rows.n))
        for first in range(0, len(self._z), at_once):
            yield slice(first, first + at_once)

    def _at_nodes(self, part: slice) -> tuple[FloatArray, FloatArray]:
        """U, (K, m, levels), and η, (m, n), at some nodes."""
        moved = np.einsum("klj,ml->kmj", self._C, self._z[part])
        eta = self.mode.eta + self.one.spread(transformed(self.levels.T, moved))
        return self.levels.U[:, None] + moved, eta

    @cached_property
    def _terms(self) -> FloatArray:
        """Log of every node's part of every level's integral, (m, levels)."""
        rows, mode = self.rows, self.mode
        out = np.empty((len(self._z), self.one.n_levels))
        for part in self._parts():
            U, eta = self._at_nodes(part)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                value = rows.family.at(eta, rows.seen, mode.delta).value
            value = np.where(np.isnan(value), -np.inf, value)
            own = self.one.summed(np.maximum(value, -1e300))
            out[part] = own - 0.5 * np.square(U).sum(axis=0) + self._log_w[part, None]
        return out

    @cached_property
    def value(self) -> float:
        """−2 log-likelihood."""
        constant = self.rows.constant(self.mode.delta)
        total = float(np.sum(logsumexp(self._terms, axis=0)))
        return self.mode.logdet - 2.0 * (total + constant)

    @cached_property
    def _shares(self) -> FloatArray:
        """Every node's share of a level's integral, (m, levels)."""
        return np.asarray(np.exp(self._terms - logsumexp(self._terms, axis=0)))

    @cached_property
    def sums(self) -> OverNodes:
        """What the gradient sums over nodes, weighted with their shares."""
        rows, one, at = self.rows, self.one, self.levels
        family = rows.family
        mean_s, in_delta = np.zeros(rows.n), np.zeros(rows.n)
        g_mean, Q, outer = np.zeros_like(at.U), np.zeros_like(at.A), np.zeros_like(at.A)
        for part in self._parts():
            U, eta = self._at_nodes(part)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                s = family.at(eta, rows.seen, self.mode.delta).s
            weight = self._shares[part].take(one.codes, axis=1)
            s = np.where(weight > 0, s, 0.0) * weight
            mean_s += s.sum(axis=0)
            v = one.gathered_rows(s)
            g = transformed(at.T.T, v) - self._shares[part] * U
            g_mean += g.sum(axis=1)
            Q += np.einsum("mk,lmj->klj", self._z[part], g)
            outer += np.matmul(v.transpose(2, 0, 1), U.transpose(2, 1, 0)).transpose(1, 2, 0)
            if family.estimates_delta:
                by_row = family.scale_slopes(eta, rows.seen, self.mode.delta).by_row
                in_delta += (np.where(weight > 0, by_row, 0.0) * weight).sum(axis=0)
        S = self._around(Q)
        P = self.leverage_of(S)
        assert self.third.t is not None
        c = self.third.t * P
        a = at.solve(transformed(at.T.T, one.gathered(c)) - 2.0 * g_mean)
        follow = one.spread(transformed(at.T, a))
        return OverNodes(mean_s, outer, in_delta, S, P, a, follow, c - self.mode.at.w * follow)

    @cached_property
    def gradient(self) -> FloatArray:
        """∂d/∂(β, θ, δ)."""
        rows, mode, one, at = self.rows, self.mode, self.one, self.levels
        own = self.sums
        by_T = at.V @ own.a.T + one.gathered(own.moved) @ at.U.T - 2.0 * own.outer.sum(axis=2)
        by_T += 2.0 * self._trace_of(own.S)
        by_term = [by_T[part, part] for part in one.parts]
        in_beta = rows.Q.transposed_times(own.moved - 2.0 * own.s)
        parts = [in_beta, self.slopes(by_term)]
        if rows.family.estimates_delta:
            scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
            total = -2.0 * float(own.in_delta.sum())
            total += float(own.P @ scale.w) + float(own.follow @ scale.s)
            parts.append(np.array([total]))
        return np.concatenate(parts)

    def _around(self, Q: FloatArray) -> FloatArray:
        """C(I + 2R)C', R the symmetric half of QC: what takes the place of M⁻¹."""
        C, K = self._C, len(self._C)
        R = small_product(Q, C)
        for i in range(K):
            R[i, i] *= 0.5
            R[i, i + 1 :] = 0.0
        inner = R + R.swapaxes(0, 1)
        for i in range(K):
            inner[i, i] += 1.0
        return small_product(small_product(C, inner), C.swapaxes(0, 1))
