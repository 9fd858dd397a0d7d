"""Z'V⁻¹Z → the traces tr(P V_i P V_j), which turn average information into second derivatives.

They need every block of Z'V⁻¹Z, not only those where Z'WZ has some. That is cheap where all terms
share one grouping factor, since there are no others, and where there are few random effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.crossproducts import CrossProducts
from lmmsparse.solvers.blocked import lead_terms

_FEW_EFFECTS = 100
_LARGEST_BORDER = 200
_POSSIBLE = 4  # times as many effects, and columns of a border, where traces are seldom asked for


def is_cheap(products: CrossProducts, reml: bool) -> bool:
    """Whether the traces cost less than the rest of an evaluation, or next to nothing.

    Parameters
    ----------
    products : CrossProducts
    reml : bool
    """
    return _within(products, reml, 1)


def is_possible(products: CrossProducts, reml: bool) -> bool:
    """Whether the traces cost no more than some evaluations.

    Parameters
    ----------
    products : CrossProducts
    reml : bool
    """
    return _within(products, reml, _POSSIBLE)


def _within(products: CrossProducts, reml: bool, times: int) -> bool:
    if products.q <= times * _FEW_EFFECTS:
        return True
    border = sum(products.sizes) * products.p if reml else 0
    return border <= times * _LARGEST_BORDER and len(lead_terms(products)) == len(products.sizes)


def traces(
    products: CrossProducts,
    factors: Sequence[FloatArray],
    changes: Sequence[FloatArray],
    inverse: Sequence[FloatArray],
    solve: Callable[[FloatArray], FloatArray],
    border: FloatArray | None,
) -> FloatArray:
    """Return tr(P V_i P V_j) for all pairs of parameters, (d, d).

    Parameters
    ----------
    products : CrossProducts
    factors : sequence of (k, k) arrays
        T of every term.
    changes : sequence of (parameters, k, k) arrays
        ∂(TT') of every term, the same in all levels.
    inverse : sequence of arrays
        M⁻¹ at these T where Z'WZ has blocks, from `PLSFactor.inverse_blocks`.
    solve : callable
        `PLSFactor.solve`.
    border : (q, p) array or None
        Z'V⁻¹X R_X⁻¹ for REML, which also projects on the complement of X; None for ML.
    """
    if len(lead_terms(products)) == len(products.sizes):
        return _of_one_factor(products, factors, changes, inverse, border)
    return _of_all_effects(products, factors, changes, solve, border)


def _of_one_factor(
    products: CrossProducts,
    factors: Sequence[FloatArray],
    changes: Sequence[FloatArray],
    inverse: Sequence[FloatArray],
    border: FloatArray | None,
) -> FloatArray:
    """Z'V⁻¹Z is block diagonal: one batch of small products over the levels."""
    ends = np.cumsum([0, *products.sizes])
    w, levels = int(ends[-1]), products.q // int(ends[-1])
    own = [slice(int(a), int(z)) for a, z in pairwise(ends)]
    G, S = np.empty((levels, w, w)), np.empty((levels, w, w))
    for pair, own_S in zip(products.pairs, inverse, strict=True):
        for blocks, into in ((pair.values, G), (own_S, S)):
            into[:, own[pair.s], own[pair.t]] = blocks
            into[:, own[pair.t], own[pair.s]] = np.swapaxes(blocks, 1, 2)
    T = np.zeros((w, w))
    E = np.zeros((sum(map(len, changes)), w, w))
    at = 0
    for part, own_T, change in zip(own, factors, changes, strict=True):
        T[part, part] = own_T
        E[at : at + len(change), part, part] = change
        at += len(change)
    GT = np.matmul(G, T)
    K = G - np.matmul(np.matmul(GT, S), np.swapaxes(GT, 1, 2))
    A = None
    if border is not None:
        p = border.shape[1]
        parts = [
            border[a:z].reshape(levels, k, p)
            for a, z, k in zip(
                products.offsets[:-1], products.offsets[1:], products.sizes, strict=True
            )
        ]
        A = np.concatenate(parts, axis=1).transpose(1, 2, 0)
    return traces_of_levels(K.transpose(1, 2, 0), A, E)


def traces_of_levels(K: FloatArray, A: FloatArray | None, changes: FloatArray) -> FloatArray:
    """The same for one factor, from Z'V⁻¹Z and Z'V⁻¹X R_X⁻¹ of every level.

    Parameters
    ----------
    K : (w, w, levels) array
    A : (w, p, levels) array or None
        None for ML.
    changes : (d, w, w) array
        ∂(TT') with the effects of all terms side by side.
    """
    w, levels = len(K), K.shape[2]
    if len(changes) < w:
        return _one_by_one(K, A, changes)
    flat = changes.reshape(len(changes), w * w)
    out = flat @ _rearranged(K, K) @ flat.T
    if A is None:
        return np.asarray(out)
    p = A.shape[1]
    by_row = np.ascontiguousarray(A).reshape(w * p, levels)
    AA = sum(A[:, None, i] * A[None, :, i] for i in range(p)) if p else np.zeros_like(K)
    out -= 2.0 * flat @ _rearranged(K, np.asarray(AA)) @ flat.T
    # tr(A'E_iA A'E_jA), where A'E_iA sums over levels and the product then couples all of them.
    inner = (by_row @ by_row.T).reshape(w, p, w, p).transpose(0, 2, 1, 3)
    AEA = flat @ inner.reshape(w * w, p * p)
    return np.asarray(out + AEA @ AEA.T)


def _one_by_one(K: FloatArray, A: FloatArray | None, changes: FloatArray) -> FloatArray:
    """The same where a few parameters move many effects: d w³ instead of w⁴ products per level."""
    moved = [np.tensordot(E, K, axes=1) for E in changes]
    out = np.array([[np.einsum("abl,bal->", Y, W) for W in moved] for Y in moved])
    if A is None:
        return out
    border = [np.tensordot(E, A, axes=1) for E in changes]
    pulled = [np.einsum("abl,bpl->apl", K, B) for B in border]
    out -= 2.0 * np.array([[np.vdot(B, KB) for KB in pulled] for B in border])
    AEA = np.array([np.einsum("apl,aql->pq", A, B) for B in border])
    return np.asarray(out + np.einsum("ipq,jqp->ij", AEA, AEA))


def _rearranged(K: FloatArray, J: FloatArray) -> FloatArray:
    """R with Σ_ℓ tr(E K_ℓ F J_ℓ) = vec(E)' R vec(F), for symmetric (w, w, levels) stacks."""
    w, levels = len(K), K.shape[2]
    products = K.reshape(w * w, levels) @ J.reshape(w * w, levels).T
    return np.asarray(products.reshape(w, w, w, w).transpose(3, 0, 1, 2).reshape(w * w, w * w))


def _of_all_effects(
    products: CrossProducts,
    factors: Sequence[FloatArray],
    changes: Sequence[FloatArray],
    solve: Callable[[FloatArray], FloatArray],
    border: FloatArray | None,
) -> FloatArray:
    """The same with the dense matrix Z'V⁻¹Z."""
    G = products.ZtZ.toarray()
    offsets, sizes = products.offsets, products.sizes
    TG = np.empty_like(G)
    for T, a, z, k in zip(factors, offsets[:-1], offsets[1:], sizes, strict=True):
        TG[a:z] = np.matmul(T.T, G[a:z].reshape(-1, k, products.q)).reshape(z - a, products.q)
    K = G - TG.T @ solve(TG)
    if border is not None:
        K -= border @ border.T
    ends = np.cumsum([0, *map(len, changes)])
    out = np.empty((int(ends[-1]), int(ends[-1])))
    for s, ks in enumerate(sizes):
        rows = slice(int(ends[s]), int(ends[s + 1]))
        for t, kt in enumerate(sizes[: s + 1]):
            cols = slice(int(ends[t]), int(ends[t + 1]))
            block = K[offsets[s] : offsets[s + 1], offsets[t] : offsets[t + 1]]
            # All ks × kt blocks side by side: R[a, b, c, d] = Σ K[b, c] K[a, d].
            flat = block.reshape(-1, ks, block.shape[1] // kt, kt).swapaxes(1, 2)
            flat = flat.reshape(-1, ks * kt)
            R = (flat.T @ flat).reshape(ks, kt, ks, kt).transpose(2, 0, 1, 3)
            left = changes[s].reshape(len(changes[s]), ks * ks)
            right = changes[t].reshape(len(changes[t]), kt * kt)
            out[rows, cols] = left @ R.reshape(ks * ks, kt * kt) @ right.T
            out[cols, rows] = out[rows, cols].T
    return out
