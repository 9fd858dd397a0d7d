"""Any factor A of a covariance matrix AA' → the lower-triangular one, and directions around it.

A and AQ are the same covariance for every orthogonal Q. Lower-triangular T are one choice, and a
bad one to walk in where an early diagonal is small: a tiny change of AA' then turns T far around.
"""

from __future__ import annotations

from functools import cache
from math import copysign, hypot, sqrt

import numpy as np
from scipy.linalg import lapack

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray


def lower_triangular(A: FloatArray) -> FloatArray:
    """T with TT' = AA' and diagonals that are not negative, (k, k).

    Parameters
    ----------
    A : (k, m) array, m ≥ k
    """
    k = len(A)
    if k == 0:
        return np.zeros((0, 0))
    if A.shape == (2, 2):
        return _triangular_of_two(*A.ravel().tolist())
    T = np.where(_is_lower(k), lapack.dgeqrf(A.T)[0][:k].T, 0.0)
    return np.asarray(T * np.where(T.diagonal() < 0, -1.0, 1.0))


def _triangular_of_two(a: float, b: float, c: float, d: float) -> FloatArray:
    """The same for A = [[a, b], [c, d]], written out."""
    first = hypot(a, b)
    if first == 0.0:
        return np.array([[0.0, 0.0], [c, abs(d)]])
    return np.array([[first, 0.0], [(a * c + b * d) / first, abs(a * d - b * c) / first]])


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
def _is_lower(k: int) -> BoolArray:
    return np.tri(k, dtype=bool)


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
    if k == 2 and T[0, 1] == 0.0:
        return _directions_of_two(*T.ravel().tolist())
    U, s, V, info = lapack.dgesdd(T)
    if info:
        raise np.linalg.LinAlgError("Singular values did not converge")
    rows, columns = _lower(k)
    size = np.hypot(s[rows], s[columns])
    none = size < 1e-150
    size = np.where(none, 1.0, size)
    B = np.zeros((len(rows), k, k))
    at = np.arange(len(rows))
    B[at, columns, rows] = np.where(none, 0.0, s[rows] / size)
    B[at, rows, columns] = np.where(none | (rows == columns), 1.0, s[columns] / size)
    return np.asarray(U @ B @ V)


def _directions_of_two(a: float, zero: float, b: float, c: float) -> FloatArray:
    """The same for T = [[a, 0], [b, c]], without a decomposition.

    They are at right angles to w = [[0, −a], [c, −b]], in which a rotation moves T: one is the
    first entry of T, the others are columns of the reflection that takes w to the second entry.
    """
    length = sqrt(a * a + b * b + c * c)
    x, y, z = (-a / length, c / length, -b / length) if length else (1.0, 0.0, 0.0)
    sign, g = copysign(1.0, x), 1.0 / (1.0 + abs(x))
    ways = [1.0, zero, zero, zero, zero, -sign * y, 1.0 - g * y * y, -g * y * z]
    return np.array([*ways, zero, -sign * z, -g * y * z, 1.0 - g * z * z]).reshape(3, 2, 2)
