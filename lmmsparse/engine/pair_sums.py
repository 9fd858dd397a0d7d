"""M at one θ, with several factors → sums over pairs of levels of products of blocks of N = Z'V⁻¹Z.

Kenward–Roger's information needs the squares of all blocks between levels, q² of them. Where the
largest factor is eliminated first, those between its own levels are δA − F S⁻¹F', with A and F
sparse and S the rest: their sums need matrices of the size of the rest only.

Where the covariance A = RR' of levels is known, N stands for R'NR: with the columns ZR, the same
model has independent levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.progress import bar
from lmmsparse.engine.linalg import chunks
from lmmsparse.engine.products import CrossProducts, side_by_side
from lmmsparse.engine.solvers.base import PLSFactor

_CORE = 150_000_000  # elements of the matrices of the size of the rest
_DENSE = 0.2
_WELL = 1e4


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums over levels of the blocks of N.

    Attributes
    ----------
    products : dict of (int, int) to (k_a k_b, k_a k_b) array
        Terms a, b → H[(i, k), (j, l)] = Σ N[(ℓ, i), (m, k)] N[(ℓ, j), (m, l)].
    own : list of (k, k) arrays
        Per term Σ of the levels' own blocks of N − NΛΛ'N.
    trace, squares : float
        Of Λ'NΛ: its trace and the sum of its squared elements.
    """

    products: dict[tuple[int, int], FloatArray]
    own: list[FloatArray]
    trace: float
    squares: float


# Z'WZ B → N B and Q⁻¹Λ'N B, (q, m).
_TimesN = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def pair_sums(
    products: CrossProducts, T: list[FloatArray], factor: PLSFactor, times_N: _TimesN
) -> PairSums:
    """The sums at the relative covariance factors T, `factor` being that of M there."""
    by_elimination = _by_elimination(products, T, factor, times_N)
    return by_columns(products, T, times_N) if by_elimination is None else by_elimination


def by_columns(products: CrossProducts, T: list[FloatArray], times_N: _TimesN) -> PairSums:
    """The sums from all columns of N, some at a time; one for all levels where no two meet."""
    pairs: dict[tuple[int, int], FloatArray] = {}
    own = [np.zeros((k, k)) for k in products.sizes]
    trace = squares = 0.0
    with bar("variance information", sum(products.n_levels), "levels") as shown:
        for b, (k, n) in enumerate(zip(products.sizes, products.n_levels, strict=True)):
            for part in [slice(0, n)] if products.one_factor else chunks(n, products.q * k):
                mine = _rows(products, b)[part.start * k : part.stop * k]
                levels = part.stop - part.start
                N, half = _columns(products, times_N, mine, k)
                _add_products(pairs, products, b, N)
                white = half.reshape(-1, k) @ T[b]  # columns of Λ'NΛ
                own[b] += _own_blocks(N[mine], k) - half.reshape(-1, k).T @ half.reshape(-1, k)
                trace += float(np.trace(_own_blocks(white.reshape(half.shape)[mine], k)))
                squares += float(np.vdot(white, white))
                shown.update(levels)
    return PairSums(pairs, own, trace, squares)


def _columns(
    products: CrossProducts, times_N: _TimesN, mine: IntArray, k: int
) -> tuple[FloatArray, FloatArray]:
    """Some columns of N and of Λ'N, (q, m); summed over levels where no two of them meet."""
    if products.priors:
        prior, unit = products.prior, np.zeros((products.q, len(mine)))
        unit[mine, np.arange(len(mine))] = 1.0
        N, half = times_N(np.asarray(products.ZtZ @ prior.root(unit)))
        return prior.root_transposed(N), prior.root_transposed(prior.times(half))
    GB = products.ZtZ[mine]
    if products.one_factor:
        GB = sp.kron(np.ones((1, len(mine) // k)), sp.eye_array(k), format="csr") @ GB
    return times_N(GB.toarray().T)


def _add_products(
    pairs: dict[tuple[int, int], FloatArray], products: CrossProducts, b: int, N: FloatArray
) -> None:
    """Add those of some columns of N that belong to levels of term b, (q, m)."""
    k = products.sizes[b]
    for a, ka in enumerate(products.sizes):
        block = N[products.offsets[a] : products.offsets[a + 1]]
        flat = block.reshape(-1, ka, N.shape[1] // k, k).swapaxes(1, 2).reshape(-1, ka * k)
        pairs[a, b] = pairs.get((a, b), 0.0) + flat.T @ flat


def _own_blocks(square: FloatArray, k: int) -> FloatArray:
    """Σ of the (k, k) blocks on the diagonal, or of all where one column stands for all levels."""
    blocks = square.reshape(len(square) // k, k, -1, k)
    if blocks.shape[2] == 1:
        return np.asarray(blocks[:, :, 0].sum(axis=0))
    return np.asarray(np.einsum("lilj->ij", blocks))


def _by_elimination(
    products: CrossProducts, T: list[FloatArray], factor: PLSFactor, times_N: _TimesN
) -> PairSums | None:
    """The sums for a model with several factors; None where they would need too much memory."""
    lead, sizes = products.lead, products.sizes
    rest = [t for t in range(len(sizes)) if t not in lead]
    K = sum(sizes[t] for t in lead)
    if products.priors or not rest or (K * K + 3) * products.core**2 > _CORE:
        return None
    pairs, own = dict[tuple[int, int], FloatArray](), [np.zeros((k, k)) for k in sizes]
    core = _with_the_rest(products, factor, rest, times_N, pairs, own)
    A, F = _lead_blocks(products, T, lead, rest)
    H, own_of_lead = _among_the_lead(A, F, core)
    ends = np.cumsum([0, *(sizes[t] for t in lead)])
    for a, i in zip(lead, ends, strict=False):
        own[a] += own_of_lead[i : i + sizes[a], i : i + sizes[a]]
        for b, j in zip(lead, ends, strict=False):
            part = H[i : i + sizes[a], j : j + sizes[b], i : i + sizes[a], j : j + sizes[b]]
            pairs[a, b] = part.reshape(sizes[a] * sizes[b], -1)
    trace, squares = float(sum(np.sum(t @ t.T * N) for t, N in zip(T, own, strict=True))), 0.0
    for (a, b), flat in pairs.items():
        # Σ N_ba TT' N_ab, and the squares of Λ'NΛ.
        blocks = flat.reshape(sizes[a], sizes[b], sizes[a], sizes[b])
        minus = np.tensordot(T[a] @ T[a].T, blocks, axes=([0, 1], [0, 2]))
        own[b] -= minus
        squares += float(np.sum(T[b] @ T[b].T * minus))
    return PairSums(pairs, own, trace, squares)


def _rows(products: CrossProducts, term: int) -> IntArray:
    return np.arange(products.offsets[term], products.offsets[term + 1])


def _with_the_rest(
    products: CrossProducts,
    factor: PLSFactor,
    rest: list[int],
    times_N: _TimesN,
    pairs: dict[tuple[int, int], FloatArray],
    own: list[FloatArray],
) -> FloatArray:
    """Put down the sums with a term of the rest on a side; M⁻¹ within the rest, (c, c)."""
    places = np.concatenate([_rows(products, t) for t in rest])
    core, at = np.empty((len(places), len(places))), 0
    with bar("variance information", len(places), "columns") as shown:
        for b in rest:
            k, rows = products.sizes[b], _rows(products, b)
            for part in chunks(len(rows) // k, products.q * k):
                mine = rows[part.start * k : part.stop * k]
                unit = np.zeros((products.q, len(mine)))
                unit[mine, np.arange(len(mine))] = 1.0
                core[:, at : at + len(mine)] = factor.solve(unit)[places]
                at += len(mine)
                N, _ = times_N(products.ZtZ[mine].toarray().T)
                _add_products(pairs, products, b, N)
                own[b] += np.einsum("lilj->ij", N[mine].reshape(-1, k, len(mine) // k, k))
                shown.update(len(mine))
    for a, b in list(pairs):
        if a not in rest:
            ka, kb = products.sizes[a], products.sizes[b]
            H = pairs[a, b].reshape(ka, kb, ka, kb).transpose(1, 0, 3, 2)
            pairs[b, a] = H.reshape(kb * ka, kb * ka)
    return core


def _lead_blocks(
    products: CrossProducts, T: list[FloatArray], lead: tuple[int, ...], rest: list[int]
) -> tuple[FloatArray, list[sp.csr_array]]:
    """A = Z₁'V₁⁻¹Z₁ of every level, (levels, K, K), and F = Z₁'V₁⁻¹Z₂Λ₂ per effect, (levels, c).

    V₁ has the random effects of the largest factor only.
    """
    ends = np.cumsum([0, *(products.sizes[t] for t in lead)])
    part = {t: slice(int(ends[i]), int(ends[i + 1])) for i, t in enumerate(lead)}
    G = side_by_side(products, products.blocks, lead)
    K, own = int(ends[-1]), sla.block_diag(*(T[t] for t in lead))
    D = np.asarray(np.linalg.inv(own.T @ G @ own + np.eye(K)), dtype=np.float64)
    # (V₁⁻¹ as a factor of Z₁'…) = I − GΛ₁M₁⁻¹Λ₁' = Λ₁⁻ᵀ M₁⁻¹ Λ₁': the form that keeps the digits.
    if max(np.linalg.cond(T[t]) for t in lead) < _WELL and np.trace(D.mean(axis=0)) < 0.5 * K:
        inverse = np.linalg.inv(own)
        left = inverse.T @ D @ own.T
        A = inverse.T @ (np.eye(K) - D) @ inverse
    else:
        left = np.eye(K) - G @ own @ D @ own.T
        A = left @ G
    return 0.5 * (A + A.swapaxes(1, 2)), _border(products, T, part, rest, np.asarray(left))


def _among_the_lead(
    A: FloatArray, F: list[sp.csr_array], core: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The sums between levels of the largest factor, (K, K, K, K), and of their own blocks."""
    n_levels, K, _ = A.shape
    c = len(core)
    R = np.empty_like(A)
    for mine in chunks(n_levels, c):
        for i in range(K):
            dense = F[i][mine] @ core
            for j in range(K):
                R[mine, i, j] = np.asarray(F[j][mine].multiply(dense).sum(axis=1)).ravel()
    H = np.einsum("lik,ljm->ikjm", A, A)
    cross = np.einsum("lik,ljm->ikjm", A, R)
    H = H - cross - cross.transpose(2, 3, 0, 1)
    # Σ over two levels of (F_i S⁻¹F_k')(F_j S⁻¹F_m') = tr(S⁻¹ F_k'F_m S⁻¹ F_j'F_i).
    Y = np.empty((K, K, c, c))
    for i in range(K):
        for k in range(K):
            P = F[i].T @ F[k]
            dense = P.nnz > _DENSE * c * c
            Y[i, k] = (P.toarray() if dense else P) @ core  # F_i'F_k S⁻¹
    for k in range(K):
        for m in range(K):
            left = np.ascontiguousarray(Y[k, m])
            for j in range(K):
                for i in range(K):
                    H[i, k, j, m] += np.vdot(left, Y[j, i].T)
    return np.asarray(H), np.asarray((A - R).sum(axis=0))


def _border(
    products: CrossProducts,
    T: list[FloatArray],
    part: dict[int, slice],
    rest: list[int],
    left: FloatArray,
) -> list[sp.csr_array]:
    """F from `left`, (levels, K, K), one matrix per effect of the largest factor."""
    offsets = np.cumsum([0, *(len(_rows(products, t)) for t in rest)])
    first = dict(zip(rest, offsets[:-1].tolist(), strict=True))
    rows, cols, values = [], [], []
    for pair in products.pairs:
        inside = [t for t in (pair.s, pair.t) if t in part]
        if len(inside) != 1:
            continue
        levels, others, block, b, (a,) = pair.rows, pair.cols, pair.values, pair.t, inside
        if pair.t == a:
            levels, others, block, b = pair.cols, pair.rows, block.swapaxes(1, 2), pair.s
        block = block @ T[b]
        k = products.sizes[b]
        values.append(
            (left[levels][:, :, part[a]] @ block).transpose(1, 0, 2).reshape(left.shape[1], -1)
        )
        rows.append(np.repeat(levels, k))
        cols.append((first[b] + others[:, None] * k + np.arange(k)).ravel())
    where, shape = (np.concatenate(rows), np.concatenate(cols)), (len(left), int(offsets[-1]))
    return [sp.coo_array((v, where), shape=shape).tocsr() for v in np.concatenate(values, axis=1)]
