"""Two nested fits → the distribution of their likelihood ratio, with variances on their boundary.

A covariance matrix that is zero in some directions under the smaller model can only move to one
side of them. The likelihood ratio is then, to first order, the squared length of a normal vector
projected on a cone: all freed covariances and fixed effects, times a positive semidefinite matrix
for the null directions. Its distribution is a mixture of χ² distributions (χ̄²).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import chi2_tail, sobol_normals
from lmmsparse.common.table import p_values
from lmmsparse.design import Design, RandomBlock
from lmmsparse.design.grouping import same_covariance
from lmmsparse.design.rank import spans
from lmmsparse.design.without_rows import on_same_rows
from lmmsparse.engine.covariance.structures import CovarianceStructure
from lmmsparse.engine.covariance.triangular import lower_triangular
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.df.information import information

MIXTURE = "Pr(>Chibarsq)"
_DRAWS = 11  # 2 to this power
_STEPS = 400
_STILL = 1e-7
_EVENING = 6
_ALMOST = 1e-8


@dataclass(frozen=True, eq=False)
class Boundary:
    """The null distribution of a likelihood ratio with variances on their boundary.

    Attributes
    ----------
    inside : int
        Parameters that are free to both sides.
    sizes : tuple of int
        Sizes of the covariance matrices that are zero under the hypothesis.
    metric : (d, d) array
        Information about their distinct elements, all other parameters unknown.

    References
    ----------
    Self & Liang (1987), Journal of the American Statistical Association 82, 605-610; Stram & Lee
    (1994), Biometrics 50, 1171-1177 (one effect more beside k: ½ χ²(k) + ½ χ²(k + 1)); Shapiro
    (1988), International Statistical Review 56, 49-62.
    """

    inside: int
    sizes: tuple[int, ...]
    metric: FloatArray

    @property
    def df(self) -> int:
        """Number of parameters tested."""
        return self.inside + len(self.metric)

    def __str__(self) -> str:
        if self.sizes == (1,):
            return f"½ χ²({self.inside}) + ½ χ²({self.df})"
        return f"a mixture of χ²({self.inside}) to χ²({self.df})"

    def p(self, LRT: float) -> float:
        """Probability of a likelihood ratio of at least this size."""
        if LRT <= 0.0:
            return 1.0
        if self.sizes == (1,):
            below = chi2_tail(LRT, self.inside) if self.inside else 0.0
            return float(0.5 * below + 0.5 * chi2_tail(LRT, self.df))
        shares = self._shares
        with np.errstate(divide="ignore"):
            return float(chi2_tail(LRT / shares, self.df).mean())

    def said(self, LRT: float) -> str:
        """The p-value of a likelihood ratio, in words."""
        p = p_values([self.p(LRT)])[0]
        p = f"p {p}" if p.startswith("<") else f"p = {p}"
        many = "the variance" if self.sizes == (1,) else "variances"
        return f"{p} by {self}, as {many} cannot be negative."

    @cached_property
    def _shares(self) -> FloatArray:
        """Share of a squared length that stays when random directions are projected on the cone.

        Lengths are independent of directions, and their distribution is known: only directions are
        simulated, always the same ones.
        """
        d = len(self.metric)
        z = sobol_normals(self.df, _DRAWS)
        R = np.linalg.cholesky(self.metric).T
        point = np.linalg.solve(R, z[:, :d].T).T
        left = (point - _projected(point, self.metric, self.sizes)) @ R.T
        whole = np.einsum("ni,ni->n", z, z)
        return np.asarray(np.clip(1.0 - np.einsum("ni,ni->n", left, left) / whole, 0.0, 1.0))


def boundary(large: Fit, small: Fit | Design) -> Boundary | None:
    """Compare a fit with a smaller one; None if no variance is on its boundary, or it is not clear.

    Parameters
    ----------
    small : Fit, or Design without random effects
        Of the same data.
    """
    design = small if isinstance(small, Design) else small.design
    if large.design.residual is not None or design.residual is not None:
        return None  # how correlations of residuals move with them is not worked out
    if large.held.theta or (isinstance(small, Fit) and small.held.theta):
        return None
    designs = on_same_rows(large.design, design)
    if designs is None or not spans(designs[0].X, designs[1].X):
        return None
    parts = _matched(*designs, small)
    if parts is None:
        return None
    theta, null_maps, sizes, inside = [], [], [], large.design.p - design.p
    known = large.held.sigma is not None
    if isinstance(small, Fit) and small.held.sigma is not None:
        inside += not known
    for block, own in zip(large.design.blocks, parts, strict=True):
        seen = _one_block(block, own)
        if seen is None:
            return None
        theta.append(seen.theta)
        null_maps.append(seen.null)
        sizes += list(seen.sizes)
        inside += seen.inside
    if not sizes:
        return None
    S = np.hstack([sla.block_diag(*null_maps), np.zeros((sum(map(len, null_maps)), 1))])
    if tuple(sizes) == (1,):
        return Boundary(inside, (1,), np.eye(1))
    if large.estimated:
        return None
    under = replace(large, optimum=replace(large.optimum, x=np.concatenate(theta)))
    J = information(under)
    if known:
        J, S = J[:-1, :-1], S[:, :-1]
    try:
        covariance = S @ sla.cho_solve(sla.cho_factor(J), S.T)
        scale = 1.0 / np.sqrt(np.diag(covariance))
        correlation = covariance * np.outer(scale, scale)
        metric = np.linalg.inv(correlation) * np.outer(scale, scale)
        np.linalg.cholesky(metric)
    except np.linalg.LinAlgError:
        return None
    return Boundary(inside, tuple(sizes), metric)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One term of the larger model under the hypothesis.

    Attributes
    ----------
    theta : (n_par,) array
    null : (d, parameters) array
        What takes its covariance parameters to the matrices that are zero.
    inside : int
        Parameters that the smaller model does not have and that are free to both sides.
    """

    theta: FloatArray
    null: FloatArray
    sizes: tuple[int, ...]
    inside: int


_Part = tuple[FloatArray, CovarianceStructure, FloatArray]


def _one_block(block: RandomBlock, parts: list[_Part]) -> _Seen | None:
    """A term of the larger model, given those of the smaller that it contains."""
    structure, k = block.structure, block.k
    same = len(parts) == 1 and parts[0][1] == structure and np.array_equal(parts[0][0], np.eye(k))
    E = structure.spans(structure.start())
    if same:
        return _Seen(parts[0][2], np.zeros((0, len(E))), (), 0)
    if not structure.linear:
        return None
    # Directions of the smaller model, as directions of the larger.
    T = np.zeros((k, k))
    basis = []
    for A, own, theta in parts:
        if not own.linear:
            return None
        factor = A @ own.factor(theta)
        T = lower_triangular(np.hstack([T, factor]))
        basis += [A @ D @ A.T for D in own.spans(theta)]
    flat = E.reshape(len(E), -1).T
    found = np.array(basis).reshape(len(basis), k * k).T
    if len(basis) and np.abs(flat @ np.linalg.lstsq(flat, found)[0] - found).max() > _ALMOST:
        return None
    known = int(np.linalg.matrix_rank(found)) if len(basis) else 0
    reached = np.hstack([A for A, _, _ in parts]) if parts else np.zeros((k, 0))
    if not structure.closed:
        zero = np.flatnonzero(np.abs(reached).sum(axis=1) == 0)
        zero = zero[:1] if structure.hom else zero
        null, sizes = np.eye(len(E))[zero], (1,) * len(zero)
    else:
        N = sla.null_space(reached.T) if parts else np.eye(k)
        # Cross-products may be of shifted columns, with the covariance S G S' in place of G.
        N = N if block.shift is None else np.linalg.solve(block.shift.T, N)
        m = N.shape[1]
        rows, columns = np.tril_indices(m)
        null = np.array([(N.T @ D @ N)[rows, columns] for D in E]).T.reshape(-1, len(E))
        sizes = (m,) if m else ()
    entries = np.array(structure.entries).T
    par = T[entries[0], entries[1]]
    return _Seen(par, null, sizes, len(E) - len(null) - known)


def _matched(large: Design, own: Design, small: Fit | Design) -> list[list[_Part]] | None:
    """For each term of the larger model the terms of the smaller in it: columns, structure, θ."""
    out: list[list[_Part]] = [[] for _ in large.blocks]
    if isinstance(small, Design):
        return out
    for block, part in zip(own.blocks, small.template.slices, strict=True):
        for place, outer in zip(out, large.blocks, strict=True):
            if not np.array_equal(block.codes, outer.codes) or not same_covariance(
                block.known, outer.known
            ):
                continue
            A = np.linalg.lstsq(outer.columns, block.columns)[0]
            size = np.abs(block.columns).max()
            if np.abs(outer.columns @ A - block.columns).max() < _ALMOST * size:
                place.append((np.round(A, 10), block.structure, small.theta[part]))
                break
        else:
            return None
    return out


def _projected(points: FloatArray, metric: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """Nearest points of the product of cones of semidefinite matrices, in a metric, (n, d).

    Matrices are their lower triangles, row by row. Accelerated projected gradients with restarts,
    each point as long as it needs, in coordinates in which few steps are needed.
    """
    # With √2 off the diagonal, where an element stands for two, lengths are those of the matrices.
    ends = [np.equal(*np.tril_indices(m)) for m in sizes]
    length = np.where(np.concatenate(ends), 1.0, np.sqrt(2.0))
    A = _evened(metric / np.outer(length, length), sizes)
    H = A.T @ (metric / np.outer(length, length)) @ A
    target = np.asarray(np.linalg.solve(A, (points * length).T).T, dtype=np.float64)
    step = 1.0 / float(np.linalg.eigvalsh(H)[-1])
    found = np.empty_like(target)
    left = np.arange(len(target))
    x = _on_cone(target, sizes)
    y, momentum = x.copy(), np.ones(len(x))
    for _ in range(_STEPS):
        new = _on_cone(y - step * (y - target) @ H, sizes)
        later = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        uphill = np.einsum("ni,ni->n", y - new, new - x) > 0
        ahead = np.where(uphill, 0.0, (momentum - 1.0) / later)
        y = new + ahead[:, None] * (new - x)
        moving = np.abs(new - x).max(axis=1) >= _STILL
        found[left] = new
        left, target, x, y = left[moving], target[moving], new[moving], y[moving]
        momentum = np.where(uphill, 1.0, later)[moving]
        if not len(left):
            break
    return np.asarray(found @ A.T / length)


def _evened(H: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """New coordinates S = C S* C' of each matrix, which leave its cone as it is, (d, d).

    Information about a covariance matrix is about S → WSW. Where it is so exactly, C = W^-½ makes
    it the identity, and W² is what it makes of the identity matrix.
    """
    A = np.eye(len(H))
    for _ in range(_EVENING):
        now, parts, at = A.T @ H @ A, [], 0
        for m in sizes:
            part = slice(at, at + m * (m + 1) // 2)
            rows, columns = np.tril_indices(m)
            squared = _matrices(now[part, part] @ (rows == columns))
            values, vectors = np.linalg.eigh(squared)
            values = np.maximum(values, 1e-3 * values[-1])
            C = (vectors * values**-0.25) @ vectors.T
            parts.append(_triangles(C @ _matrices(np.eye(len(rows))) @ C.T).T)
            at = part.stop
        A = A @ sla.block_diag(*parts)
    return A


def _matrices(triangles: FloatArray) -> FloatArray:
    """Symmetric matrices (…, m, m) from their lower triangles, √2 off the diagonal."""
    m = int(np.sqrt(2 * triangles.shape[-1]))
    rows, columns = np.tril_indices(m)
    out = np.empty((*triangles.shape[:-1], m, m))
    out[..., rows, columns] = triangles / np.where(rows == columns, 1.0, np.sqrt(2.0))
    out[..., columns, rows] = out[..., rows, columns]
    return out


def _triangles(matrices: FloatArray) -> FloatArray:
    """The inverse of `_matrices`."""
    rows, columns = np.tril_indices(matrices.shape[-1])
    return matrices[..., rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))


def _on_cone(points: FloatArray, sizes: tuple[int, ...]) -> FloatArray:
    """The nearest semidefinite matrices; elements off the diagonal are times √2."""
    out, at = points.copy(), 0
    for m in sizes:
        part = slice(at, at + m * (m + 1) // 2)
        if m == 1:
            out[:, part] = np.maximum(points[:, part], 0.0)
        else:
            values, vectors = np.linalg.eigh(_matrices(points[:, part]))
            full = (vectors * np.maximum(values, 0.0)[:, None]) @ np.swapaxes(vectors, 1, 2)
            out[:, part] = _triangles(full)
        at = part.stop
    return out
