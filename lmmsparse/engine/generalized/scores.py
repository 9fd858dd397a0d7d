"""The gradient of a generalized model's −2 log-likelihood, cluster by cluster.

Where no random effect is shared by two clusters, the likelihood is a product over them, and every
sum over rows and levels that the gradient is made of falls apart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.columns import InternalColumns
from lmmsparse.engine.generalized.laplace_point import LaplacePoint
from lmmsparse.engine.generalized.quadrature import QuadraturePoint
from lmmsparse.engine.pairs import TermColumns
from lmmsparse.engine.products import grouped_columns


def scores(point: LaplacePoint, codes: IntArray, count: int) -> FloatArray:
    """∂d/∂(β, θ, δ) of every cluster, (count, p + n_theta [+ 1]), β in internal columns.

    Parameters
    ----------
    point : LaplacePoint
        Laplace's approximation or quadrature.
    codes : (n,) int array
        Cluster of every row; the levels of every factor lie within clusters.
    count : int
        Clusters.
    """
    sums = _Sums(codes, count)
    if isinstance(point, QuadraturePoint):
        in_eta, in_theta, in_delta = _of_quadrature(point, sums)
    else:
        in_eta, in_theta, in_delta = _of_laplace(point, sums)
    parts = [sums.fixed(point.rows.Q, in_eta), *in_theta]
    if in_delta is not None:
        parts.append(sums.rows(in_delta)[:, None])
    return np.column_stack(parts)


def informations(point: LaplacePoint, codes: IntArray, count: int) -> FloatArray:
    """X'V⁻¹X of the working model and of every cluster, (count, p, p), internal columns."""
    rows, p, sums = point.rows, point.rows.p, _Sums(codes, count)
    out = np.empty((count, p, p))
    for j, column in enumerate(np.eye(p)):
        out[:, j] = sums.fixed(rows.Q, point.mode.at.w * rows.Q.times(column))
    border, solved = point.border
    for term, start in zip(rows.pattern.terms, rows.template.offsets, strict=False):
        k = term.columns.shape[1]
        part = slice(start, start + k * term.n_levels)
        own = border[part].reshape(-1, k, p), solved[part].reshape(-1, k, p)
        np.subtract.at(out, sums.of_level(term), np.matmul(own[0].swapaxes(1, 2), own[1]))
    return 0.5 * (out + out.swapaxes(1, 2))


class _Sums:
    """Sums over clusters."""

    def __init__(self, codes: IntArray, count: int) -> None:
        self._codes, self._count = codes, count

    def rows(self, values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(self._codes, values, self._count), dtype=np.float64)

    def fixed(self, Q: InternalColumns, weights: FloatArray) -> FloatArray:
        """Of the rows of Q, weighted, (clusters, p)."""
        cluster = TermColumns(self._codes, np.ones((len(self._codes), 1)), self._count)
        return grouped_columns([cluster], Q, weights)[0]

    def of_level(self, term: TermColumns) -> IntArray:
        """The cluster of every level of a term."""
        out = np.zeros(term.n_levels, dtype=np.intp)
        out[term.codes] = self._codes
        return out

    def levels(self, term: TermColumns, values: FloatArray) -> FloatArray:
        """(d, levels) → (d, clusters)."""
        of_level = self.of_level(term)
        return np.array([np.bincount(of_level, own, self._count) for own in values])

    def both(self, term: TermColumns, levels: FloatArray, rows: list[FloatArray]) -> FloatArray:
        """Of levels and of rows, (clusters, d)."""
        of_rows = [self.rows(own) for own in rows]
        return np.asarray((self.levels(term, levels) + np.reshape(of_rows, (len(rows), -1))).T)


_Parts = tuple[FloatArray, list[FloatArray], FloatArray | None]


def _of_laplace(point: LaplacePoint, sums: _Sums) -> _Parts:
    """∂/∂η at fixed effects by row, ∂/∂θ by cluster for every term, ∂/∂δ by row."""
    rows, mode, template = point.rows, point.mode, point.rows.template
    P, factors, w = point.leverage, mode.factors, point.weights
    c = point.slope * P
    a = mode.factor.solve(template.multiply_transposed(factors, rows.grouped(c)))
    follow = rows.random_part(template.multiply(factors, a))
    moved = c - mode.at.w * follow
    through = -2.0 * mode.v + rows.grouped(moved)
    in_theta = []
    for t, (term, D) in enumerate(zip(rows.pattern.terms, point.directions, strict=True)):
        pairs = ((mode.v, a), (through, mode.u))
        own = sum(
            np.einsum("dij,li,lj->dl", D, point.by_level(t, x), point.by_level(t, y), optimize=True)
            for x, y in pairs
        )

        def leverage(T: FloatArray, t: int = t) -> FloatArray:
            return rows.diagonal([*factors[:t], T, *factors[t + 1 :]], point.inverse)

        slopes = _slopes(leverage, factors[t], D)
        total = sums.levels(term, np.asarray(own))
        in_theta.append(
            np.array([o + sums.rows(w * s) for o, s in zip(total, slopes, strict=True)]).T
        )
    in_delta = None
    if rows.family.estimates_delta:
        scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
        of_weights = scale.w if point.expected is None else point.expected.in_delta
        assert of_weights is not None
        in_delta = -2.0 * scale.by_row + P * of_weights + follow * scale.s
    return moved - 2.0 * mode.at.s, in_theta, in_delta


def _of_quadrature(point: QuadraturePoint, sums: _Sums) -> _Parts:
    rows, mode, one, at, own = point.rows, point.mode, point.one, point.levels, point.sums
    D = one.directions(point.directions)
    level = np.einsum("dij,il,jl->dl", D, at.V, own.a, optimize=True)
    level += np.einsum("dij,il,jl->dl", D, one.gathered(own.moved), at.U, optimize=True)
    level -= 2.0 * np.einsum("dij,ijl->dl", D, own.outer)
    slopes = [mode.at.w * s for s in _slopes(lambda T: point.leverage_of(own.S, T), at.T, D)]
    in_theta = sums.both(rows.pattern.terms[0], level, slopes)
    in_delta = None
    if rows.family.estimates_delta:
        scale = rows.family.scale_slopes(mode.eta, rows.seen, mode.delta)
        in_delta = -2.0 * own.in_delta + own.P * scale.w + own.follow * scale.s
    return own.moved - 2.0 * own.s, [in_theta], in_delta


def _slopes(
    leverage: Callable[[FloatArray], FloatArray], T: FloatArray, D: FloatArray
) -> list[FloatArray]:
    """Derivatives of what is quadratic in T along every ∂T: its differences are exact."""
    out = []
    for direction in D:
        step = max(1.0, float(np.abs(T).max())) / float(np.abs(direction).max())
        ends = [leverage(T + sign * step * direction) for sign in (1.0, -1.0)]
        out.append((ends[0] - ends[1]) / (2.0 * step))
    return out
