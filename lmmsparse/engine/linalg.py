"""Triangular systems and factors of small matrices → solutions and inverses, without overhead.

scipy's own `solve_triangular` checks and dispatches for tens of microseconds per call, which is
most of the time of a small model.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import blas, lapack

from lmmsparse.common.arrays import FloatArray

_BLOCK = 128
_ELEMENTS = 4_000_000
_UNROLLED = 3
_LEVELS_AT_ONCE = 8_000  # whose products stay in the cache


def chunks(n: int, width: int) -> Iterator[slice]:
    """Slices of n rows of that width which have about four million elements each."""
    size = max(1, _ELEMENTS // max(1, width))
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


def solve_triangular(
    a: FloatArray, b: FloatArray, *, lower: bool = False, transposed: bool = False
) -> FloatArray:
    """Solve A x = b, or A'x = b, for triangular A without a zero on its diagonal.

    Parameters
    ----------
    a : (n, n) array
    b : (n,) or (n, m) array
    lower : bool
        Whether A is lower triangular rather than upper.
    """
    if b.size == 0:
        return b
    x, _ = lapack.dtrtrs(a, b, lower=lower, trans=transposed)
    return np.asarray(x if b.ndim == 2 else x.reshape(b.shape))


def solve(a: FloatArray, b: FloatArray) -> FloatArray:
    """A⁻¹B for small A, (n, n), and B, (n, m).

    Raises
    ------
    LinAlgError
        If A is singular.
    """
    _, _, x, info = lapack.dgesv(a, b)
    if info:
        raise np.linalg.LinAlgError("Singular matrix")
    return np.asarray(x)


def eigh(a: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, in increasing order, and vectors of a small symmetric matrix."""
    values, vectors, info = lapack.dsyevd(a, lower=1)
    if info:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")
    return values, vectors


def subtract_square(S: FloatArray, Y: FloatArray) -> None:
    """The lower triangle of S −= Y'Y, in place.

    Parameters
    ----------
    S : (n, n) array
        Column by column in memory.
    Y : (m, n) array
    """
    result = blas.dsyrk(-1.0, Y.T, beta=1.0, c=S, lower=1, overwrite_c=1)
    if result is not S and not np.shares_memory(result, S):
        S[:] = result


def times_each(blocks: FloatArray, T: FloatArray) -> FloatArray:
    """Every block times the same matrix, (m, r, k) and (k, l) → (m, r, l): one product."""
    m, r, k = blocks.shape
    if k == 1 and T.shape[1] == 1:
        return np.asarray(blocks * T[0, 0])
    return np.asarray((blocks.reshape(m * r, k) @ T).reshape(m, r, T.shape[1]))


def between(left: FloatArray, blocks: FloatArray, right: FloatArray) -> FloatArray:
    """Left' B right for every block B, (m, r, c), by products of long and small matrices."""
    half = times_each(blocks, right)
    if half.shape[1] == 1:
        return half * left[0, 0] if left.shape[1] == 1 else times_each(half.swapaxes(1, 2), left)
    return times_each(np.ascontiguousarray(half.swapaxes(1, 2)), left).swapaxes(1, 2)


def summed_products(A: FloatArray, B: FloatArray) -> FloatArray:
    """Σ A B' over stacks of matrices, (m, r, k) and (m, c, k) → (r, c): one product."""
    left, right = (M.transpose(1, 0, 2).reshape(M.shape[1], -1) for M in (A, B))
    return np.asarray(left @ right.T)


def small_products(A: FloatArray, B: FloatArray) -> FloatArray:
    """A B for stacks of matrices, (m, r, k) and (m, k, c); for small k without a call for each."""
    k = A.shape[2]
    if k > _UNROLLED:
        return np.asarray(np.matmul(A, B))
    out = A[:, :, 0, None] * B[:, 0, None]
    for i in range(1, k):
        out += A[:, :, i, None] * B[:, i, None]
    return np.asarray(out)


def inverse_from_factor(L: FloatArray) -> FloatArray:
    """(LL')⁻¹ from a Cholesky factor.

    Parameters
    ----------
    L : (n, n) array
        Lower triangular, without a zero on its diagonal.
    """
    inverse, _ = lapack.dpotri(L, lower=1)
    if len(L) <= _BLOCK:
        inverse = np.where(np.tri(len(L), dtype=bool), inverse, inverse.T)
        return np.asarray(inverse)
    for i in range(0, len(L), _BLOCK):  # only the lower triangle has been written
        j = i + _BLOCK
        inverse[i:j, j:] = inverse[j:, i:j].T
        corner = inverse[i:j, i:j]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    return np.asarray(inverse)


def inverse_factors(M: FloatArray) -> tuple[FloatArray, FloatArray]:
    """L⁻¹ for the lower Cholesky factor L of every matrix, and the log-determinants of M.

    Parameters
    ----------
    M : (k, k, …) array
        Symmetric matrices, their own axes first. Overwritten.

    Returns
    -------
    inverse : (k, k, …) array
        Lower triangular; not finite where M is not positive definite.
    logdet : (…) array
    """
    k = len(M)
    inverse = np.zeros_like(M)
    if k <= 2:
        return _of_one_or_two(M, inverse)
    logdet = np.zeros(M.shape[2:])
    for j in range(k):
        logdet += np.log(M[j, j])
        M[j:, j] /= np.sqrt(M[j, j])
        below = M[j + 1 :, j]
        M[j + 1 :, j + 1 :] -= below[:, None] * below[None]
        inverse[j, j] = 1.0 / M[j, j]
        if j:
            row = np.einsum("i...,ij...->j...", M[j, :j], inverse[:j, :j])
            inverse[j, :j] = -row * inverse[j, j]
    return inverse, logdet


def _of_one_or_two(M: FloatArray, inverse: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The same written out, with as few calls as can be."""
    first = M[0, 0]
    np.divide(1.0, np.sqrt(first), out=inverse[0, 0])
    if len(M) == 1:
        return inverse, np.log(first)
    below = M[1, 0]
    ratio = below / first
    rest = M[1, 1] - ratio * below
    np.divide(1.0, np.sqrt(rest), out=inverse[1, 1])
    np.multiply(-ratio, inverse[1, 1], out=inverse[1, 0])
    return inverse, np.log(first) + np.log(rest)


def parts_of(levels: int) -> list[slice]:
    """Levels of which small matrices stay in the cache together."""
    return [slice(i, i + _LEVELS_AT_ONCE) for i in range(0, levels, _LEVELS_AT_ONCE)]


def small_product(A: FloatArray, B: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """The products of small matrices (k, l, levels) and (l, m, levels), level by level."""
    levels = A.shape[-1]
    if levels <= _LEVELS_AT_ONCE or B.shape[2:] != (levels,) or A.shape[1] == 1:
        return _small_product(A, B, out)
    if out is None:
        out = np.empty((len(A), B.shape[1], levels))
    for part in parts_of(levels):
        _small_product(A[..., part], B[..., part], out[..., part])
    return out


def _small_product(A: FloatArray, B: FloatArray, out: FloatArray | None) -> FloatArray:
    out = np.multiply(A[:, 0, None], B[0], out=out)
    for i in range(1, A.shape[1]):
        out += A[:, i, None] * B[i]
    return np.asarray(out, dtype=np.float64)
