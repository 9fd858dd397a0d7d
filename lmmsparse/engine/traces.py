"""Z'V⁻¹Z → the traces tr(P V_i P V_j), which turn average information into second derivatives.

They need every block of Z'V⁻¹Z, not only those where Z'WZ has some. That is cheap where all terms
share one grouping factor, since there are no others, and where there are few random effects.

The derivatives of V are Z E_i Z' with E_i = D_i T' + T D_i'. Where T is large, H = Z'V⁻¹Z is small
along its columns, and E_i H E_j would multiply H's rounding errors by the square of T. No E is
formed: X = HT and Y = T'HT = I − M⁻¹ are known to all digits whatever T is, and with
v = Z'V⁻¹(y − Xβ) and u = T'v, E_i v = D_i u + T D_i'v. Where the covariance A of the levels is
known, E_i = D_iAΛ' + ΛAD_i', X = HΛA, Y = AΛ'HΛA = A − M⁻¹ and u = AΛ'v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.linalg import small_product
from lmmsparse.engine.products import CrossProducts, side_by_side

_FEW_EFFECTS = 100
_LARGEST_BORDER = 200
_AT_ONCE = 2000  # levels whose products stay in the cache
_POSSIBLE = 4  # times as many effects, and columns of a border, where traces are seldom asked for


def is_cheap(products: CrossProducts, reml: bool) -> bool:
    """Whether the traces cost less than the rest of an evaluation, or next to nothing."""
    return _within(products, reml, 1)


def is_possible(products: CrossProducts, reml: bool) -> bool:
    """Whether the traces cost no more than some evaluations."""
    return _within(products, reml, _POSSIBLE)


def _within(products: CrossProducts, reml: bool, times: int) -> bool:
    if products.q <= times * _FEW_EFFECTS:
        return True
    border = sum(products.sizes) * products.p if reml else 0
    return border <= times * _LARGEST_BORDER and products.one_factor


class Border(NamedTuple):
    """What X takes: A = Z'V⁻¹X R_X⁻¹ and B = T'A, first axes as those of Z'V⁻¹Z."""

    A: FloatArray
    B: FloatArray


def traces(
    products: CrossProducts,
    factors: Sequence[FloatArray],
    directions: Sequence[FloatArray],
    inverse: Sequence[FloatArray],
    solve: Callable[[FloatArray], FloatArray],
    border: Border | None,
) -> FloatArray:
    """Return tr(P V_i P V_j) for all pairs of parameters, (d, d).

    Parameters
    ----------
    factors : sequence of (k, k) arrays
        T of every term.
    directions : sequence of (parameters, k, k) arrays
        ∂T of every term, the same in all levels.
    inverse : sequence of arrays
        M⁻¹ at these T where Z'WZ has blocks, from `PLSFactor.inverse_blocks`.
    solve : callable
        `PLSFactor.solve`.
    border : Border or None
        (q, p) arrays for REML, which also projects on the complement of X; None for ML.
    """
    if products.one_factor:
        return _of_one_factor(products, factors, directions, inverse, border)
    return _of_all_effects(products, factors, directions, solve, border)


def _of_one_factor(
    products: CrossProducts,
    factors: Sequence[FloatArray],
    directions: Sequence[FloatArray],
    inverse: Sequence[FloatArray],
    border: Border | None,
) -> FloatArray:
    """Z'V⁻¹Z is block diagonal: one batch of small products over the levels."""
    ends = np.cumsum([0, *products.sizes])
    w, levels = int(ends[-1]), products.q // int(ends[-1])
    own = [slice(int(a), int(z)) for a, z in pairwise(ends)]
    G, S = (side_by_side(products, blocks) for blocks in (products.blocks, inverse))
    T, D = sla.block_diag(*factors), np.zeros((sum(map(len, directions)), w, w))
    at = 0
    for part, direction in zip(own, directions, strict=True):
        D[at : at + len(direction), part, part] = direction
        at += len(direction)
    GT = np.matmul(G, T)
    X = np.matmul(GT, S)
    H = G - np.matmul(X, np.swapaxes(GT, 1, 2))
    inner = np.array([each.transpose(1, 2, 0) for each in (H, X, np.eye(w) - S)])
    if border is None:
        return traces_of_levels(inner, None, D)

    def by_level(matrix: FloatArray) -> FloatArray:
        parts = [
            matrix[a:z].reshape(levels, k, matrix.shape[1])
            for a, z, k in zip(
                products.offsets[:-1], products.offsets[1:], products.sizes, strict=True
            )
        ]
        return np.concatenate(parts, axis=1).transpose(1, 2, 0)

    return traces_of_levels(inner, Border(by_level(border.A), by_level(border.B)), D)


def traces_of_levels(
    inner: FloatArray, border: Border | None, directions: FloatArray
) -> FloatArray:
    """The same for one factor.

    Parameters
    ----------
    inner : (3, w, w, levels) array
        H = Z'V⁻¹Z, X = HT and Y = T'HT of every level.
    border : Border or None
        (w, p, levels) arrays; None for ML.
    directions : (d, w, w) array
        ∂T with the effects of all terms side by side.

    Notes
    -----
    tr(HE_iHE_j) = 2 tr(X'D_iX'D_j) + 2 tr(YD_i'HD_j); what X takes is twice `sandwiches` of A, and
    tr(A'E_iA A'E_jA), where A'E_iA sums over levels and the product then couples all of them.
    """
    border = None if border is None or not border.A.shape[1] else border
    if len(directions) < inner.shape[1]:
        return _one_by_one(inner, border, directions)
    _, X, Y = inner
    flat = directions.reshape(len(directions), -1)
    if border is None:
        return np.asarray(2.0 * flat @ _form(inner[:2], np.array([Y, X])) @ flat.T)
    A, B = border
    others = np.empty_like(inner)
    np.subtract(Y, _summed(B, B), out=others[0])
    np.subtract(X, 2.0 * _summed(A, B), out=others[1])
    np.negative(_summed(A, A), out=others[2])
    out = flat @ _form(inner, others) @ flat.T
    w, p = A.shape[:2]
    sums = (A.reshape(w * p, -1) @ B.reshape(w * p, -1).T).reshape(w, p, w, p)
    AEA = flat @ (sums.transpose(0, 2, 1, 3) + sums.transpose(0, 2, 3, 1)).reshape(w * w, p * p)
    return np.asarray(out + out.T + AEA @ AEA.T)


def sandwiches(inner: FloatArray, pairs: FloatArray, directions: FloatArray) -> FloatArray:
    """Σ v'E_i H E_j v over levels, (d, d).

    Parameters
    ----------
    inner : (3, w, w, levels) array
        H = Z'V⁻¹Z, X = HT and Y = T'HT of every level.
    pairs : (3, w, w, levels) array
        uu', 2vu' and vv' of every level, with u = T'v.
    directions : (d, w, w) array
        ∂T with the effects of all terms side by side.

    Notes
    -----
    v'E_i H E_j v = (D_iu)'H(D_ju) + (D_iu)'X(D_j'v) + (D_i'v)'X'(D_ju) + (D_i'v)'Y(D_j'v).
    """
    flat = directions.reshape(len(directions), -1)
    out = flat @ _form(inner, pairs) @ flat.T
    return np.asarray(0.5 * (out + out.T))


def at_once(
    inner: FloatArray, ends: FloatArray, reml: bool, directions: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Σ v'E_i v, y'P V_i P V_j P y and tr(P V_i P V_j) for one factor and σ = 1.

    The last two are `sandwiches` less what X takes, and `traces_of_levels`.

    Parameters
    ----------
    inner : (3, w, w, levels) array
        H = Z'V⁻¹Z, X = HT and Y = T'HT of every level.
    ends : (2, w, p + 1, levels) array
        A = Z'V⁻¹X R_X⁻¹ beside v = Z'V⁻¹(y − Xβ), and T' times these.
    directions : (d, w, w) array
        ∂T with the effects of all terms side by side.
    """
    _, w, p, levels = ends.shape
    p -= 1
    form, sums = _at_once(inner[..., :_AT_ONCE], ends[..., :_AT_ONCE], reml)
    for start in range(_AT_ONCE, levels, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        more = _at_once(inner[..., part], ends[..., part], reml)
        form, sums = form + more[0], sums + more[1]
    flat = directions.reshape(len(directions), -1)
    squares, traces = flat @ form @ flat.T
    # F_i = [A v]'E_i[A v], summed over levels.
    sums = sums.reshape(w, p + 1, w, p + 1)
    F = (sums.transpose(0, 2, 1, 3) + sums.transpose(0, 2, 3, 1)).reshape(w * w, -1)
    F = (flat @ F).reshape(-1, p + 1, p + 1)
    squares, traces = 0.5 * (squares + squares.T), traces + traces.T
    if p:
        squares -= F[:, p, :p] @ F[:, p, :p].T
    if reml and p:
        AEA = F[:, :p, :p].reshape(len(F), -1)
        traces += AEA @ AEA.T
    return F[:, p, p], squares, traces


def _at_once(inner: FloatArray, ends: FloatArray, reml: bool) -> tuple[FloatArray, FloatArray]:
    """The two forms of `at_once`, and AB' with v beside A and u beside B, summed over levels."""
    (_, X, Y), (A, B) = inner, ends
    w, p = A.shape[0], A.shape[1] - 1
    v, u, AX, BX = A[:, p], B[:, p], A[:, :p], B[:, :p]
    others = np.empty((2, *inner.shape))
    (uu, vu, vv), (HY, XX, YH) = others
    np.multiply(u[:, None], u, out=uu)
    np.multiply(v[:, None], 2.0 * u, out=vu)
    np.multiply(v[:, None], v, out=vv)
    if reml and p:
        np.subtract(Y, _summed(BX, BX), out=HY)
        np.subtract(X, 2.0 * _summed(AX, BX), out=XX)
        np.negative(_summed(AX, AX), out=YH)
    else:
        HY[:], XX[:], YH[:] = Y, X, 0.0
    sums = A.reshape(w * (p + 1), -1) @ B.reshape(w * (p + 1), -1).T
    return _form(inner, others), sums


def _form(inner: FloatArray, others: FloatArray) -> FloatArray:
    """R with vec(D)'R vec(E) = Σ_ℓ tr(D'HEF') + tr(X'DG'E) + tr(D'KEY'), (…, w², w²).

    Parameters
    ----------
    inner : (3, w, w, levels) array
        H, X and Y; without Y where K is zero.
    others : (…, 3, w, w, levels) array
        F, G and K.
    """
    m, w, *_, levels = inner.shape
    right = others.reshape(*others.shape[:-4], m, w * w, levels).swapaxes(-1, -2)
    sums = np.matmul(inner.reshape(m, w * w, levels), right)
    flat = sums.reshape(*others.shape[:-4], -1)
    return np.asarray(flat.take(_places(w)[:m], axis=-1).sum(axis=-3))


@cache
def _places(w: int) -> IntArray:
    """Where of D's element (a, b) and E's (c, d) the products stand in the sums of `_form`."""
    a, b, c, d = np.indices((w, w, w, w)).reshape(4, w * w, w * w)
    of_H, of_X, of_Y = (a, c, b, d), (a, d, c, b), (b, d, a, c)
    at = [((i * w + j) * w + k) * w + m for i, j, k, m in (of_H, of_X, of_Y)]
    return np.array([at[0], w**4 + at[1], 2 * w**4 + at[2]])


def _summed(A: FloatArray, B: FloatArray) -> FloatArray:
    """AB' of every level, from (w, p, levels) arrays with p ≥ 1."""
    out = A[:, None, 0] * B[:, 0]
    for i in range(1, A.shape[1]):
        out += A[:, None, i] * B[:, i]
    return np.asarray(out)


def _one_by_one(inner: FloatArray, border: Border | None, directions: FloatArray) -> FloatArray:
    """The same where a few parameters move many effects: d w³ instead of w⁴ products per level."""
    H, X, Y = inner

    def left(D: FloatArray, blocks: FloatArray) -> FloatArray:
        return np.tensordot(D, blocks, axes=1)

    def right(blocks: FloatArray, D: FloatArray) -> FloatArray:
        return np.asarray(np.tensordot(blocks, D, axes=([1], [0])).swapaxes(1, 2))

    def pairs(lefts: list[FloatArray], rights: list[FloatArray]) -> FloatArray:
        return np.array([[np.vdot(a, b) for b in rights] for a in lefts])

    XD = [right(X.swapaxes(0, 1), D) for D in directions]
    out = pairs(XD, [each.swapaxes(0, 1) for each in XD])
    out += pairs([left(D, Y) for D in directions], [right(H, D) for D in directions])
    if border is None:
        return 2.0 * out
    DB = [left(D, border.B) for D in directions]
    DA = [left(D.T, border.A) for D in directions]
    out -= pairs(DB, [small_product(H, each) for each in DB])
    out -= pairs(DA, [small_product(Y, each) for each in DA])
    mixed = pairs(DB, [small_product(X, each) for each in DA])
    out -= mixed + mixed.T
    ADB = np.array([np.einsum("apl,aql->pq", border.A, each) for each in DB])
    AEA = ADB + ADB.swapaxes(1, 2)
    return np.asarray(2.0 * out + np.einsum("ipq,jqp->ij", AEA, AEA))


def _of_all_effects(
    products: CrossProducts,
    factors: Sequence[FloatArray],
    directions: Sequence[FloatArray],
    solve: Callable[[FloatArray], FloatArray],
    border: Border | None,
) -> FloatArray:
    """The same with dense matrices of all random effects."""
    G = products.dense
    offsets, sizes = products.offsets, products.sizes
    TG = np.empty_like(G)
    for T, a, z, k in zip(factors, offsets[:-1], offsets[1:], sizes, strict=True):
        TG[a:z] = np.matmul(T.T, G[a:z].reshape(-1, k, products.q)).reshape(z - a, products.q)
    X = solve(TG).T
    identity = np.eye(products.q)
    H, Y = G - X @ TG, products.prior.solve(identity) - solve(identity)
    if border is not None:
        H, X, Y = H - border.A @ border.A.T, X - border.A @ border.B.T, Y - border.B @ border.B.T
    ends = np.cumsum([0, *map(len, directions)])
    out = np.empty((int(ends[-1]), int(ends[-1])))

    def blocks(matrix: FloatArray, s: int, t: int) -> FloatArray:
        """The blocks between the levels of two terms side by side, (ks kt, pairs of levels)."""
        part = matrix[offsets[s] : offsets[s + 1], offsets[t] : offsets[t + 1]]
        by_level = part.reshape(-1, sizes[s], part.shape[1] // sizes[t], sizes[t])
        return by_level.transpose(1, 3, 0, 2).reshape(sizes[s] * sizes[t], -1)

    for s, ks in enumerate(sizes):
        rows = slice(int(ends[s]), int(ends[s + 1]))
        for t, kt in enumerate(sizes[: s + 1]):
            cols = slice(int(ends[t]), int(ends[t + 1]))
            # R[a, b, c, d] = Σ H[a, c] Y[b, d] + X[a, d] X[c, b], rows of s and columns of t first.
            R = (blocks(H, s, t) @ blocks(Y, s, t).T).reshape(ks, kt, ks, kt).transpose(0, 2, 1, 3)
            other = blocks(X.T, s, t)  # X between t and s, transposed
            XX = blocks(X, s, t) @ other.T
            R = R + XX.reshape(ks, kt, ks, kt).transpose(0, 2, 3, 1)
            left = directions[s].reshape(len(directions[s]), ks * ks)
            right = directions[t].reshape(len(directions[t]), kt * kt)
            out[rows, cols] = 2.0 * left @ R.reshape(ks * ks, kt * kt) @ right.T
            out[cols, rows] = out[rows, cols].T
    return out
