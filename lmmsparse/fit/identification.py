"""Cross-products → which covariance parameters the data cannot tell apart, before any search.

The covariance of the response is linear in the entries of every term's covariance and in σ²:
V = Σ_i s_i V_i with V_i = Z_t E_i Z_t' and, for the residual, W⁻¹. Where a combination Σ_i c_i V_i
is zero, the data say nothing about what it changes; for REML, where it is zero off the columns of
X. That depends neither on the response nor on θ. Where the covariance A of the levels is known,
V_i = Z_t (A ⊗ E_i) Z_t'.

Three steps, each taken only where the one before cannot tell (the last alone, where a covariance is
known): ranks that rule it out; the Gram matrix tr(P V_i P V_j) at θ = 0 from the stored blocks of
Z'WZ; and the V_i applied to random vectors, row by row, where no digits are lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.design import Design
from lmmsparse.engine.columns import InternalColumns
from lmmsparse.engine.covariance.correlated import AR1
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.linalg import chunks
from lmmsparse.engine.pair_blocks import PairBlocks
from lmmsparse.engine.prior import Prior
from lmmsparse.engine.products import CrossProducts, side_by_side
from lmmsparse.fit.coordinates import standardizer
from lmmsparse.fit.undetermined import Undetermined

_SUSPECT = 1e-6  # an eigenvalue of the Gram matrix below this is looked at again
_NOTHING = 1e-9  # of the size of its parts, a combination of matrices is zero
_CLEAR = 1e-5  # smallest eigenvalue of the correlations of independent columns
_LOST = 1e-10  # of what it could be, a sum of squares that may be rounding errors
_IN_ONE_PRODUCT = 1024
_PROBES = 4


@dataclass(frozen=True, eq=False)
class Unidentified:
    """What the data do not determine.

    Attributes
    ----------
    directions : Undetermined
        Independent combinations of covariance parameters that the criterion does not depend on.
    away : Undetermined or None
        Those that change V and with it standard errors, which only REML has. The others are
        bounded, as variances are not negative; along these a search could go to infinity.
    """

    directions: Undetermined
    away: Undetermined | None

    def __len__(self) -> int:
        return len(self.directions.residual)


def unidentified(
    design: Design,
    template: LambdaTemplate,
    products: CrossProducts,
    reml: bool,
    sigma_known: bool = False,
) -> Unidentified | None:
    """Independent combinations of covariance parameters that the data do not determine.

    Parameters
    ----------
    reml : bool
        Whether only what X cannot explain counts.
    sigma_known : bool
        Whether σ is held, and thus no parameter.

    Notes
    -----
    Structures that are not linear in their parameters, and terms of which something is held, are
    looked at near one point: the rank of their derivatives is the same almost everywhere.
    """
    if products.priors:
        nothing = sigma_known and not template.free.any()
        return None if nothing else _by_rows(design, template, reml, sigma_known)
    if ruled_out(template, products, reml):
        return None
    G = gram_matrix(template, products, reml)
    G = G[:-1, :-1] if sigma_known else G
    if not len(G) or np.linalg.eigvalsh(G)[0] > _SUSPECT:
        return None
    return _by_rows(design, template, reml, sigma_known)


def parameter_changes(template: LambdaTemplate, t: int) -> FloatArray:
    """How the covariance of a term's effects changes with its free parameters, (d, k, k).

    The entries of the lower triangle of the covariance itself for a free unstructured term, in the
    order of θ; otherwise derivatives by θ.
    """
    structure, part = template.structures[t], template.slices[t]
    free = template.free[part]
    if structure.closed and free.all():
        return _symmetric(*template.places[t], structure.k)
    D = structure.derivative(generic_theta(template)[part])[free]
    E = np.matmul(D, structure.factor(generic_theta(template)[part]).T)
    return np.asarray(E + np.swapaxes(E, 1, 2))


def generic_theta(template: LambdaTemplate) -> FloatArray:
    """Some θ with all variances that what is held allows, (n_theta,)."""
    rest = np.random.default_rng(7).uniform(0.2, 0.8, template.n_theta)
    for structure, part in zip(template.structures, template.slices, strict=True):
        if isinstance(structure, AR1):  # so that effects that far apart are correlated
            rest[part.stop - 1] **= 1.0 / structure.shortest
    return template.with_held(rest)


def _symmetric(rows: IntArray, columns: IntArray, k: int) -> FloatArray:
    E = np.zeros((len(rows), k, k))
    i = np.arange(len(rows))
    E[i, rows, columns] = E[i, columns, rows] = 1.0
    return E


# -- ranks -----------------------------------------------------------------------------------------


def ruled_out(template: LambdaTemplate, products: CrossProducts, reml: bool) -> bool:
    """Whether ranks show at once that everything is determined; False where they do not tell.

    With one grouping factor Σ c_i V_i is a block per level. If it is zero off the columns of X,
    its rank is at most 2p. But if c is not zero, its rank is at least n − q where σ² has a part in
    it, and elsewhere the number of levels in which the columns of all terms are independent.
    """
    rank = 2 * products.p if reml else 0
    levels = template.n_levels[0]
    if template.held or products.n - products.q <= rank or levels <= rank:
        return False
    if len(products.pairs) > 1 and not _one_factor(template, products):
        return False
    some = slice(None, None, max(1, levels // (2 * rank + 8)))
    A = side_by_side(products, [blocks[some] for blocks in products.blocks])
    size = np.sqrt(np.einsum("lkk->lk", A))
    full = size.min(axis=1) > 0
    if A.shape[1] > 1:
        A, size = A[full], size[full]
        full = np.linalg.eigvalsh(A / (size[:, :, None] * size[:, None, :]))[:, 0] > _CLEAR
    return bool(np.count_nonzero(full) > rank)


def _one_factor(template: LambdaTemplate, products: CrossProducts) -> bool:
    """Whether all terms have the same levels, so that Z'WZ is a block per level."""
    levels = template.n_levels[0]
    return all(n == levels for n in template.n_levels) and all(
        len(pair.rows) == levels and np.array_equal(pair.rows, pair.cols) for pair in products.pairs
    )


# -- the Gram matrix -------------------------------------------------------------------------------


def gram_matrix(template: LambdaTemplate, products: CrossProducts, reml: bool) -> FloatArray:
    """tr(P V_i P V_j), σ² last, with the V_i scaled to tr(V_i V_i) = 1; (d + 1, d + 1).

    P is the projection off the columns of X for REML, and the identity for ML. With
    Z_s'PZ_t = Z_s'WZ_t − B_s B_t' the products of the first parts need stored blocks only.
    """
    if not template.held and max(products.sizes) == 1:
        return _gram_of_scalars(products, reml)
    terms = range(len(products.sizes))
    roots, changes, border = [], [], []
    for pair in products.pairs:
        if pair.s != pair.t:
            continue
        root, E = standardized_changes(template, products, pair)
        roots.append(root)
        changes.append(E)
        if reml:
            a, z = products.offsets[pair.s], products.offsets[pair.s + 1]
            k = products.sizes[pair.s]
            B = products.ZtX[a:z].reshape((z - a) // k, k, products.p)
            border.append(np.matmul(root.T, B))
    ends = np.cumsum([0, *map(len, changes)])
    part = [slice(int(ends[t]), int(ends[t + 1])) for t in terms]
    d = int(ends[-1])
    G, total = np.zeros((d + 1, d + 1)), np.zeros(d + 1)
    G[d, d] = total[d] = products.n
    for pair in products.pairs:
        s, t = pair.s, pair.t
        width = max(products.sizes) * (products.p + products.sizes[t])
        for some in [slice(None)] if s == t else chunks(len(pair.rows), width):
            A = np.matmul(np.matmul(roots[s].T, pair.values[some]), roots[t])
            G[part[s], part[t]] += traces(A, A, changes[s], changes[t])
            if s == t:
                largest = np.sum(np.einsum("lkk->l", A) ** 2) * np.sum(changes[s] ** 2, axis=(1, 2))
                total[part[s]] = np.maximum(np.diag(G)[part[s]], _LOST * largest)
                G[d, part[s]] = np.tensordot(changes[s], A.sum(axis=0), axes=2)
            if reml:
                left, right = border[s][pair.rows[some]], border[t][pair.cols[some]]
                BB = np.matmul(left, np.swapaxes(right, 1, 2))
                G[part[s], part[t]] -= 2.0 * traces(A, BB, changes[s], changes[t])
    if reml and products.p:
        pulled = np.concatenate(
            [_pulled(B, E) for B, E in zip(border, changes, strict=True)]
        )  # Q'V_iQ
        G[:d, :d] += pulled @ pulled.T
        G[d, :d] -= pulled[:, :: products.p + 1].sum(axis=1)
        G[d, d] -= products.p
    i, j = np.triu_indices(d + 1, 1)
    G[i, j] = G[j, i]
    scale = 1.0 / np.sqrt(np.where(total > 0, total, 1.0))
    return np.asarray(scale[:, None] * G * scale)


def _gram_of_scalars(products: CrossProducts, reml: bool) -> FloatArray:
    """The same with one effect per level of every term, as of random intercepts."""
    d, p = len(products.sizes), products.p if reml else 0
    G = np.zeros((d + 1, d + 1))
    for pair in products.pairs:
        a, s, t = pair.values.ravel(), pair.s, pair.t
        G[s, t] = G[t, s] = a @ a
        if s == t:
            G[s, d] = G[d, s] = a.sum()
    G[d, d] = products.n
    scale = 1.0 / np.sqrt(np.diag(G))
    if p:
        B = [products.ZtX[a:z] for a, z in pairwise(products.offsets)]
        pulled = np.array([(own.T @ own).ravel() for own in B])
        for pair in products.pairs:
            a, s, t = pair.values.ravel(), pair.s, pair.t
            for part in chunks(len(a), p):
                at = (part, part) if s == t else (pair.rows[part], pair.cols[part])
                own, other = B[s][at[0]], B[t][at[1]]
                G[s, t] -= 2.0 * (a[part] @ np.einsum("mp,mp->m", own, other))
            G[t, s] = G[s, t]
        G[:d, :d] += pulled @ pulled.T
        G[d, :d] -= pulled[:, :: p + 1].sum(axis=1)
        G[:d, d] = G[d, :d]
        G[d, d] -= p
    return np.asarray(scale[:, None] * G * scale)


def standardized_changes(
    template: LambdaTemplate, products: CrossProducts, own: PairBlocks
) -> tuple[FloatArray, FloatArray]:
    """K⁻¹ that makes a term's columns orthonormal, and its parameters' changes in them."""
    t = own.s
    structure, part = template.structures[t], template.slices[t]
    gram = own.values.sum(axis=0) / products.n
    if structure.closed and template.free[part].all():
        return standardizer(gram), _symmetric(*template.places[t], structure.k)
    size = np.sqrt(np.diag(gram))
    E = parameter_changes(template, t)
    S = template.shifts[t] if template.shifts else None
    if S is not None:
        E = S @ E @ S.T
    return np.diag(1.0 / np.where(size > 0, size, 1.0)), size[:, None] * E * size


def traces(A: FloatArray, B: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
    """Σ over blocks of tr(E_i A E_j B'), for (m, k_s, k_t) stacks A and B; (d_s, d_t)."""
    m, ks, kt = A.shape
    if ks * kt > _IN_ONE_PRODUCT:
        moved = [np.matmul(A @ E, np.swapaxes(B, 1, 2)).sum(axis=0) for E in right]
        return np.array([[np.vdot(E, F) for F in moved] for E in left])
    R = (A.reshape(m, -1).T @ B.reshape(m, -1)).reshape(ks, kt, ks, kt).transpose(2, 0, 1, 3)
    flat = np.ascontiguousarray(R).reshape(ks * ks, kt * kt)
    return np.asarray(left.reshape(-1, ks * ks) @ flat @ right.reshape(-1, kt * kt).T)


def _pulled(B: FloatArray, changes: FloatArray) -> FloatArray:
    """Σ over levels of B'E_iB as rows, (d, p²)."""
    levels, k, p = B.shape
    flat = B.reshape(levels, k * p)
    inner = (flat.T @ flat).reshape(k, p, k, p).transpose(0, 2, 1, 3).reshape(k * k, p * p)
    return np.asarray(changes.reshape(-1, k * k) @ inner)


# -- row by row ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TermMatrices:
    """The V_i of one term in well-scaled columns.

    Attributes
    ----------
    codes : (n,) int array
    columns : (n, k) array
        With the weights' roots multiplied in.
    changes : (d, k, k) array
    back : (k, k) array
        A change E of the covariance in these columns is back @ E @ back' in the term's own.
    prior : Prior or None
        The known covariance of the levels.
    """

    codes: IntArray
    columns: FloatArray
    changes: FloatArray
    back: FloatArray
    n_levels: int
    prior: Prior | None = None

    def times(self, r: FloatArray) -> FloatArray:
        """V_i r for all i, (n, d)."""
        sums: FloatArray = np.column_stack(
            [np.bincount(self.codes, column * r, self.n_levels) for column in self.columns.T]
        )
        if self.prior is not None:
            sums = self.prior.solve(sums)
        out = np.empty((len(r), len(self.changes)))
        for i, E in enumerate(self.changes):
            out[:, i] = np.einsum("nk,nk->n", self.columns, (sums @ E)[self.codes])
        return out


def term_matrices(design: Design, template: LambdaTemplate, t: int) -> TermMatrices:
    """The V_i of a term."""
    block, n = design.blocks[t], design.n
    root = np.sqrt(design.weights_or_one)[:, None]
    E = parameter_changes(template, t)
    if block.structure.closed and template.free[template.slices[t]].all():
        columns = root * block.shifted_columns
        size = np.sqrt(np.einsum("nk,nk->k", columns, columns) / n)
        R = np.linalg.qr(columns / size, mode="r") / np.sqrt(n) if size.all() else np.eye(block.k)
        if np.abs(np.diag(R)).min() > 1e-12:
            back = np.asarray(sla.solve_triangular(R, np.eye(block.k))) / size[:, None]
            columns = columns @ back
            if block.shift is not None:
                back = np.linalg.solve(block.shift, back)
            return TermMatrices(block.codes, columns, E, back, block.n_levels, block.prior)
    columns = root * block.columns
    size = np.sqrt(np.einsum("nk,nk->k", columns, columns) / n)
    size = np.where(size > 0, size, 1.0)
    if not block.structure.closed or template.held:
        E = size[:, None] * E * size
    back = np.diag(1.0 / size)
    return TermMatrices(block.codes, columns / size, E, back, block.n_levels, block.prior)


def off_columns(Q: InternalColumns, root: FloatArray, r: FloatArray) -> FloatArray:
    """R off the columns of X, with the roots of the weights multiplied in."""
    by = root if r.ndim == 1 else root[:, None]
    return np.asarray(r - by * Q.times(Q.transposed_times(by * r)))


def _by_rows(
    design: Design, template: LambdaTemplate, reml: bool, sigma_known: bool
) -> Unidentified | None:
    terms = [term_matrices(design, template, t) for t in range(len(design.blocks))]
    root = np.sqrt(design.weights_or_one)
    Q = design.internal_columns()[0] if reml and design.p else None
    stack, whole, squares = [], [], 0.0
    random = np.random.default_rng(11)
    probes = max(_PROBES, 2 + max(term.columns.shape[1] for term in terms) // 2)
    for _ in range(probes):
        r = random.normal(size=design.n)
        F = _applied(terms, r, sigma_known)
        size = np.einsum("nd,nd->d", F, F)
        squares = squares + np.maximum(size, _LOST**2 * size.max())
        whole.append(np.linalg.qr(F, mode="r"))
        if Q is not None:
            F = off_columns(Q, root, _applied(terms, off_columns(Q, root, r), sigma_known))
            stack.append(np.linalg.qr(F, mode="r"))
    scale = 1.0 / np.sqrt(np.where(squares > 0, squares, 1.0))
    null = _null_space(np.concatenate(stack or whole) * scale)
    if not len(null):
        return None
    ends = np.cumsum([0, *(len(term.changes) for term in terms)]).tolist()

    def directions(of: FloatArray) -> Undetermined:
        parts = of * scale
        changes = tuple(
            term.back @ np.tensordot(parts[:, a:z], term.changes, axes=1) @ term.back.T
            for term, (a, z) in zip(terms, pairwise(ends), strict=True)
        )
        return Undetermined(changes, np.zeros(len(of)) if sigma_known else parts[:, -1])

    away = None
    if Q is not None:
        still = _null_space(np.concatenate(whole) * scale @ null.T)
        others = np.linalg.svd(still)[2][len(still) :] if len(still) else np.eye(len(null))
        away = directions(others @ null) if len(others) else None
    return Unidentified(directions(null), away)


def _applied(terms: Sequence[TermMatrices], r: FloatArray, sigma_known: bool) -> FloatArray:
    """All V_i r, the residual's last, (n, d)."""
    parts = [term.times(r) for term in terms]
    return np.column_stack(parts if sigma_known else [*parts, r])


def _null_space(F: FloatArray) -> FloatArray:
    """Orthonormal combinations of columns of about unit length that are nothing, (m, d)."""
    _, s, Vt = np.linalg.svd(F)
    s = np.append(s, np.zeros(len(Vt) - len(s)))
    return np.asarray(Vt[s < _NOTHING])
