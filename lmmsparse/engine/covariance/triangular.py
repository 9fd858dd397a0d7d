"""Any factor A of a covariance matrix AA' → the lower-triangular one, and directions around it.

A and AQ are the same covariance for every orthogonal Q. Lower-triangular T are one choice, and a
bad one to walk in where an early diagonal is small: a tiny change of AA' then turns T far around.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray


def lower_triangular(A: FloatArray) -> FloatArray:
    """T with TT' = AA' and diagonals that are not negative, (k, k).

    Parameters
    ----------
    A : (k, m) array, m ≥ k
    """
    if len(A) == 0:
        return np.zeros((0, 0))
    T = np.asarray(np.linalg.qr(A.T, mode="r")).T
    return np.asarray(T * np.where(np.diag(T) < 0, -1.0, 1.0))


def with_zero_columns(T: FloatArray, tol: FloatArray) -> FloatArray:
    """T with TT' kept (to tol) and every column zero whose diagonal is within tol of zero.

    What stands below such a diagonal goes into the columns behind it.

    Parameters
    ----------
    T : (k, k) array
        Lower triangular.
    tol : (k,) array
        Per row.

    Examples
    --------
    >>> with_zero_columns(np.array([[0.0, 0.0], [3.0, 4.0]]), np.full(2, 1e-8))
    array([[0., 0.],
           [0., 5.]])
    """
    out = np.array(T)
    for c in range(len(T)):
        if abs(out[c, c]) > tol[c]:
            continue
        below = lower_triangular(out[c + 1 :, c:])
        out[c:, c] = 0.0
        out[c + 1 :, c + 1 :] = below
    return out


@cache
def _lower(k: int) -> tuple[IntArray, IntArray]:
    return np.tril_indices(k)


def directions(T: FloatArray) -> FloatArray:
    """Orthonormal directions of T in which TT' can change, (k(k + 1)/2, k, k).

    With T = U S V' they are U B V' with SB symmetric: T moves at right angles to all TQ, which are
    no change. None of them is singular, whatever T is.

    Parameters
    ----------
    T : (k, k) array

    References
    ----------
    Absil, Mahony & Sepulchre (2008), Optimization Algorithms on Matrix Manifolds, section 3.5.
    """
    k = len(T)
    U, s, V = np.linalg.svd(T)
    rows, columns = _lower(k)
    size = np.hypot(s[rows], s[columns])
    none = size < 1e-150
    size = np.where(none, 1.0, size)
    B = np.zeros((len(rows), k, k))
    at = np.arange(len(rows))
    B[at, columns, rows] = np.where(none, 0.0, s[rows] / size)
    B[at, rows, columns] = np.where(none | (rows == columns), 1.0, s[columns] / size)
    return np.asarray(U @ B @ V)
