"""`Fit` with several factors → sums over pairs of levels of products of blocks of Λ'NΛ = I − M⁻¹.

Kenward–Roger's information needs the squares of all blocks between levels, q² of them. Where the
largest factor is eliminated first, those between its own levels are δ(I − D) − F S⁻¹F' with D and F
sparse and S the rest: their sums need matrices of the size of the rest only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lmmsparse._types import FloatArray, IntArray
from lmmsparse.crossproducts import CrossProducts
from lmmsparse.fit import Fit
from lmmsparse.solvers.blocked import lead_terms

_COLUMNS = 4_000_000  # elements of the columns of M⁻¹ that are made together
_CORE = 150_000_000  # elements of the matrices of the size of the rest
_DENSE = 0.2
_SMALLEST = 1e-6


@dataclass(frozen=True, eq=False)
class WhitePairs:
    """Sums over levels of the blocks B of I − M⁻¹.

    Attributes
    ----------
    products : dict of (int, int) to (k_a k_b, k_a k_b) array
        Terms a, b → H[(i, k), (j, l)] = Σ B[(ℓ, i), (m, k)] B[(ℓ, j), (m, l)].
    own : list of (k, k) arrays
        Per term Σ of the levels' own blocks of B.
    """

    products: dict[tuple[int, int], FloatArray]
    own: list[FloatArray]


def white_pairs(fit: Fit) -> WhitePairs | None:
    """The sums for a model with several factors; None where they would not pay or not be exact.

    Parameters
    ----------
    fit : Fit
    """
    products, template = fit.products, fit.template
    T = template.shifted_factors(fit.theta)
    lead = lead_terms(products)
    rest = [t for t in range(len(products.sizes)) if t not in lead]
    places = np.concatenate([_rows(products, t) for t in rest]) if rest else np.zeros(0, np.intp)
    K, c = sum(products.sizes[t] for t in lead), len(places)
    if not rest or (K * K + 3) * c * c > _CORE:
        return None
    inverse = fit.modes.factor.inverse_blocks()
    own = []
    for t, k in enumerate(products.sizes):
        mine = next(
            S for S, pair in zip(inverse, products.pairs, strict=True) if pair.s == pair.t == t
        )
        own.append(np.asarray(len(mine) * np.eye(k) - mine.sum(axis=0)))
        if np.diag(own[t]).min() < _SMALLEST * len(mine):  # all digits are lost in I − M⁻¹
            return None
    pairs, core = _with_the_rest(fit, rest, places)
    H = _among_the_lead(products, T, lead, rest, inverse, core)
    ends = np.cumsum([0, *(products.sizes[t] for t in lead)])
    for a, i in zip(lead, ends, strict=False):
        for b, j in zip(lead, ends, strict=False):
            ka, kb = products.sizes[a], products.sizes[b]
            part = H[i : i + ka, j : j + kb, i : i + ka, j : j + kb]
            pairs[a, b] = part.reshape(ka * kb, ka * kb)
    return WhitePairs(pairs, own)


def _rows(products: CrossProducts, term: int) -> IntArray:
    return np.arange(products.offsets[term], products.offsets[term + 1])


def _with_the_rest(
    fit: Fit, rest: list[int], places: IntArray
) -> tuple[dict[tuple[int, int], FloatArray], FloatArray]:
    """The sums with a term of the rest on either side, and M⁻¹ within the rest, (c, c)."""
    products = fit.products
    pairs: dict[tuple[int, int], FloatArray] = {}
    core = np.empty((len(places), len(places)))
    at = 0
    for b in rest:
        k, rows = products.sizes[b], _rows(products, b)
        size = max(1, _COLUMNS // (products.q * k)) * k
        for start in range(0, len(rows), size):
            mine = rows[start : start + size]
            unit = np.zeros((products.q, len(mine)))
            unit[mine, np.arange(len(mine))] = 1.0
            columns = fit.modes.factor.solve(unit)
            core[:, at : at + len(mine)] = columns[places]
            at += len(mine)
            B = (unit - columns).reshape(products.q, -1, k)
            for a, ka in enumerate(products.sizes):
                block = B[products.offsets[a] : products.offsets[a + 1]].reshape(
                    -1, ka, len(mine) // k, k
                )
                flat = block.transpose(0, 2, 1, 3).reshape(-1, ka * k)
                pairs[a, b] = pairs.get((a, b), 0.0) + flat.T @ flat
    for a, b in list(pairs):
        if a not in rest:
            ka, kb = products.sizes[a], products.sizes[b]
            H = pairs[a, b].reshape(ka, kb, ka, kb).transpose(1, 0, 3, 2)
            pairs[b, a] = H.reshape(kb * ka, kb * ka)
    return pairs, core


def _among_the_lead(
    products: CrossProducts,
    T: list[FloatArray],
    lead: tuple[int, ...],
    rest: list[int],
    inverse: list[FloatArray],
    core: FloatArray,
) -> FloatArray:
    """The sums between levels of the largest factor, (K, K, K, K), its terms side by side."""
    ends = dict(zip(lead, np.cumsum([0, *(products.sizes[t] for t in lead)]), strict=False))
    part = {t: slice(ends[t], ends[t] + products.sizes[t]) for t in lead}
    K, c = sum(products.sizes[t] for t in lead), len(core)
    n_levels = len(_rows(products, lead[0])) // products.sizes[lead[0]]
    M, own = np.zeros((n_levels, K, K)), np.zeros((n_levels, K, K))
    for pair, S in zip(products.pairs, inverse, strict=True):
        if pair.s in lead and pair.t in lead:
            s, t = part[pair.s], part[pair.t]
            block = T[pair.s].T @ pair.values @ T[pair.t]
            for out, values in ((M, block), (own, S)):
                out[pair.rows, s, t] = values
                out[pair.rows, t, s] = values.swapaxes(1, 2)
    M += np.eye(K)
    D = np.asarray(np.linalg.inv(M), dtype=np.float64)
    F = _border(products, T, part, rest, D)
    A, R = np.eye(K) - D, own - D
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
    return np.asarray(H)


def _border(
    products: CrossProducts,
    T: list[FloatArray],
    part: dict[int, slice],
    rest: list[int],
    D: FloatArray,
) -> list[sp.csr_array]:
    """F = D M₁₂, one matrix (levels, c) per effect of the largest factor."""
    offsets = np.cumsum([0, *(len(_rows(products, t)) for t in rest)])
    first = dict(zip(rest, offsets[:-1].tolist(), strict=True))
    rows, cols, values = [], [], []
    for pair in products.pairs:
        inside = [t for t in (pair.s, pair.t) if t in part]
        if len(inside) != 1:
            continue
        block = T[pair.s].T @ pair.values @ T[pair.t]
        levels, others, (a,) = pair.rows, pair.cols, inside
        b = pair.t
        if pair.t == a:
            levels, others, block, b = pair.cols, pair.rows, block.swapaxes(1, 2), pair.s
        k = products.sizes[b]
        values.append((D[levels][:, :, part[a]] @ block).transpose(1, 0, 2).reshape(len(D[0]), -1))
        rows.append(np.repeat(levels, k))
        cols.append((first[b] + others[:, None] * k + np.arange(k)).ravel())
    where, shape = (np.concatenate(rows), np.concatenate(cols)), (len(D), int(offsets[-1]))
    return [sp.coo_array((v, where), shape=shape).tocsr() for v in np.concatenate(values, axis=1)]
