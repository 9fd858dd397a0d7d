"""β, θ, δ → −2 log-likelihood by adaptive Gauss–Hermite quadrature, with its exact gradient.

For one grouping factor: the integral of every level is a sum over nodes around its mode, scaled by
the factor of its Hessian. One node is Laplace's approximation. Nodes follow mode and Hessian as
parameters change, and so does the gradient.

References
----------
Pinheiro & Bates (1995), Journal of Computational and Graphical Statistics 4, 12-35.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.special import logsumexp

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.generalized.laplace import LaplaceDeviance, LaplacePoint, Parameters
from lmmsparse.engine.generalized.modes import TIGHT, Mode, conditional_mode
from lmmsparse.engine.generalized.rows import GeneralizedRows

LARGEST = 3


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
        return QuadraturePoint(self, mode, self.grid)

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


class QuadraturePoint(LaplacePoint):
    """The criterion at one point.

    Parameters
    ----------
    deviance : QuadratureDeviance
    mode : Mode
    grid : (m, K) and (m,) arrays
    """

    def __init__(
        self, deviance: QuadratureDeviance, mode: Mode, grid: tuple[FloatArray, FloatArray]
    ) -> None:
        super().__init__(deviance, mode)
        self._z, self._log_w = grid

    def _stacked(self, vector: FloatArray) -> FloatArray:
        """A (q,) vector as (levels, K), the effects of all terms side by side."""
        terms = range(len(self.mode.factors))
        return np.concatenate([self.by_level(t, vector) for t in terms], axis=1)

    def _joined(self, levels: FloatArray) -> FloatArray:
        """The inverse of `_stacked`."""
        sizes = [structure.k for structure in self.rows.template.structures]
        return np.concatenate([part.ravel() for part in np.split(levels, np.cumsum(sizes)[:-1], 1)])

    @cached_property
    def _C(self) -> FloatArray:
        """C with M⁻¹ = CC' of every level, (levels, K, K), upper triangular."""
        template = self.rows.template
        ends = np.cumsum([0, *(structure.k for structure in template.structures)])
        K, levels = int(ends[-1]), template.n_levels[0]
        A = np.zeros((levels, K, K))
        T = np.zeros((K, K))
        for pair in self.mode.products.pairs:
            rows, columns = (slice(ends[i], ends[i + 1]) for i in (pair.s, pair.t))
            A[:, rows, columns] = pair.values
            A[:, columns, rows] = np.swapaxes(pair.values, 1, 2)
        for t, own in enumerate(self.mode.factors):
            T[ends[t] : ends[t + 1], ends[t] : ends[t + 1]] = own
        M = T.T @ A @ T + np.eye(K)
        return np.swapaxes(np.linalg.inv(np.linalg.cholesky(M)), 1, 2)

    @cached_property
    def _at_nodes(self) -> list[FloatArray]:
        """U at every node, (levels, K) each."""
        center = self._stacked(self.mode.u)
        return [center + self._C @ z for z in self._z]

    def _eta(self, u: FloatArray) -> FloatArray:
        rows, mode = self.rows, self.mode
        moved = self._joined(u) - mode.u
        return mode.eta + rows.random_part(rows.template.multiply(mode.factors, moved))

    @cached_property
    def _terms(self) -> FloatArray:
        """Log of every node's part of every level's integral, (m, levels)."""
        rows, mode = self.rows, self.mode
        codes, levels = rows.pattern.terms[0].codes, rows.template.n_levels[0]
        out = np.empty((len(self._z), levels))
        for k, u in enumerate(self._at_nodes):
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                value = rows.family.at(self._eta(u), rows.seen, mode.delta).value
            value = np.where(np.isnan(value), -np.inf, value)
            own = np.bincount(codes, np.maximum(value, -1e300), minlength=levels)
            out[k] = own - 0.5 * np.square(u).sum(axis=1) + self._log_w[k]
        return out

    @cached_property
    def value(self) -> float:
        """−2 log-likelihood."""
        constant = self.rows.family.constant(self.rows.seen, self.mode.delta)
        total = float(np.sum(logsumexp(self._terms, axis=0)))
        return self.mode.factor.logdet - 2.0 * (total + constant)

    @cached_property
    def _shares(self) -> FloatArray:
        """Every node's share of a level's integral, (m, levels)."""
        return np.asarray(np.exp(self._terms - logsumexp(self._terms, axis=0)))

    @cached_property
    def gradient(self) -> FloatArray:
        """∂d/∂(β, θ, δ)."""
        rows, mode = self.rows, self.mode
        template, family = rows.template, rows.family
        codes = rows.pattern.terms[0].codes
        levels, K = self._at_nodes[0].shape
        mean_s = np.zeros(rows.n)
        g_mean, Q = np.zeros((levels, K)), np.zeros((levels, K, K))
        outer = [np.zeros((len(T), len(T))) for T in mode.factors]
        own_scale = 0.0
        for share, u, z in zip(self._shares, self._at_nodes, self._z, strict=True):
            eta = self._eta(u)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                s = family.at(eta, rows.seen, mode.delta).s
            weight = share.take(codes)
            s = np.where(weight > 0, s, 0.0) * weight
            mean_s += s
            v = rows.grouped(s)
            g = self._stacked(template.multiply_transposed(mode.factors, v)) - share[:, None] * u
            g_mean += g
            Q += z[:, None] * g[:, None, :]
            joined = self._joined(u)
            for t, out in enumerate(outer):
                out += self.by_level(t, v).T @ self.by_level(t, joined)
            if family.estimates_delta:
                own_scale += self._scale_of(eta, weight)
        C = self._C
        R = np.tril(Q @ C)
        R[:, np.arange(K), np.arange(K)] *= 0.5
        R = 0.5 * (R + np.swapaxes(R, 1, 2))
        inverse = self._blocks(C @ (np.eye(K) + 2.0 * R) @ np.swapaxes(C, 1, 2))
        P = rows.diagonal(mode.factors, inverse)
        assert self.third.t is not None
        c = self.third.t * P
        right = template.multiply_transposed(mode.factors, rows.grouped(c))
        a = mode.factor.solve(right - 2.0 * self._joined(g_mean))
        follow = rows.random_part(template.multiply(mode.factors, a))
        moved = c - mode.at.w * follow
        through = rows.grouped(moved)
        by_term = [
            self.by_level(t, mode.v).T @ self.by_level(t, a)
            + self.by_level(t, through).T @ self.by_level(t, mode.u)
            - 2.0 * outer[t]
            + 2.0 * trace
            for t, trace in enumerate(self._traces_with(inverse))
        ]
        parts = [rows.Q.transposed_times(moved - 2.0 * mean_s), self.slopes(by_term)]
        if family.estimates_delta:
            scale = family.scale_slopes(mode.eta, rows.seen, mode.delta)
            total = -2.0 * own_scale + float(P @ scale.w) + float(follow @ scale.s)
            parts.append(np.array([total]))
        return np.concatenate(parts)

    def _scale_of(self, eta: FloatArray, weight: FloatArray) -> float:
        """Σ weight ∂ℓ/∂δ over the rows at one node."""
        by_row = self.rows.family.scale_slopes(eta, self.rows.seen, self.mode.delta).by_row
        return float(np.sum(np.where(weight > 0, by_row, 0.0) * weight))

    def _blocks(self, levels: FloatArray) -> list[FloatArray]:
        """A matrix per level, (levels, K, K), as blocks of pairs of terms."""
        ends = np.cumsum([0, *(structure.k for structure in self.rows.template.structures)])
        return [
            levels[:, ends[pair.s] : ends[pair.s + 1], ends[pair.t] : ends[pair.t + 1]]
            for pair in self.mode.products.pairs
        ]
