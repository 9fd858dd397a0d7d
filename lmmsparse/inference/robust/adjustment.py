"""A stack of clusters → E = X'V⁻¹A of every one, with the adjustment A of CR2.

A is symmetric with A(V − XX')A = V, for columns that together have X'V⁻¹X = I. With N = V − XX'
this is E' = (VN)^{−1/2} X.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ellipj, ellipkm1

from lmmsparse.common.arrays import FloatArray
from lmmsparse.inference.robust.blocks import Stack

NOTHING_LEFT = 1e-9
_SPREAD = 1e8  # of eigenvalues, beyond which those of a square lose too many digits
_DIGITS = 32.0  # of the quadrature, as natural logarithm
_WIDE = 2  # rows per column of [U X] from which quadrature pays


def adjusted(stack: Stack) -> FloatArray:
    """E of every cluster, (c, p, m); by pseudo-inverses where nothing of some column is left."""
    if stack.R is None and _WIDE * (stack.U.shape[2] + stack.X.shape[2]) < stack.X.shape[1]:
        left = 1.0 - np.linalg.eigvalsh(stack.inner)[:, -1:].max(initial=0.0)
        if left > NOTHING_LEFT:
            return _by_quadrature(stack, float(left))
    return _by_eigenvalues(stack)


def _by_eigenvalues(stack: Stack) -> FloatArray:
    """With V = R'R, x = R⁻ᵀX and H = RR': E = x'(H(I − xx')H)^{+1/2}R."""
    lower = np.linalg.cholesky(stack.V)
    x = np.linalg.solve(lower, stack.X)
    H = np.matmul(lower.swapaxes(1, 2), lower)
    inner = np.linalg.eigvalsh(np.matmul(x.swapaxes(1, 2), x))
    lost = (inner > 1.0 - NOTHING_LEFT).sum(axis=1)
    values, vectors = _eigen(H, x)
    gone = np.arange(values.shape[1]) < lost[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(gone, 0.0, 1.0 / np.sqrt(values))
    middle = np.matmul(x.swapaxes(1, 2), vectors) * root[:, None]
    return np.asarray(np.matmul(np.matmul(middle, vectors.swapaxes(1, 2)), lower.swapaxes(1, 2)))


def _eigen(H: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, in ascending order, and vectors of H(I − xx')H."""
    diagonal = np.einsum("cii->ci", H)
    if diagonal.max() ** 2 < _SPREAD * diagonal.min() ** 2:
        Hx = np.matmul(H, x)
        values, vectors = np.linalg.eigh(np.matmul(H, H) - np.matmul(Hx, Hx.swapaxes(1, 2)))
        return values, vectors
    U, s, _ = np.linalg.svd(x, full_matrices=False)
    left = 1.0 - np.sqrt(np.maximum(1.0 - s**2, 0.0))
    inner = np.matmul(U.swapaxes(1, 2), H)
    K = H - np.matmul(U * left[:, None], inner)  # (I − xx')^½ H
    _, values, Vt = np.linalg.svd(K)
    return values[:, ::-1] ** 2, Vt.swapaxes(1, 2)[:, :, ::-1]


def _by_quadrature(stack: Stack, left: float) -> FloatArray:
    """E without a matrix of the size of the clusters.

    z^{−1/2} = 2/π ∫ dt / (z + t²), by the midpoint rule after t = √m sc(s), which converges
    geometrically (Hale, Higham & Trefethen 2008, SIAM Journal on Numerical Analysis 46, 2505-2523).
    (VN + t²)⁻¹X needs (V² + t²)⁻¹ of X and of VX, imaginary and real part of (V − it)⁻¹X.

    Parameters
    ----------
    left : float
        Smallest eigenvalue of I − X'V⁻¹X.
    """
    largest = stack.spread.max() + float(np.einsum("cmk,cmk->c", stack.U, stack.U).max(initial=0.0))
    low, high = float(stack.spread.min()) ** 2 * left, float(largest) ** 2
    n = int(np.ceil(_DIGITS * (np.log(high / low) + 6.0) / (2.0 * np.pi**2)))
    quarter = ellipkm1(low / high)
    sn, cn, dn, _ = ellipj((np.arange(n) + 0.5) * quarter / n, 1.0 - low / high)
    X, out = stack.X, np.zeros_like(stack.X)
    for t, weight in zip(np.sqrt(low) * sn / cn, dn / cn**2, strict=True):
        solved = stack.solve(X, 1j * t)
        BX, BVX = solved.imag / t, solved.real
        inner = np.eye(X.shape[2]) - np.matmul(X.swapaxes(1, 2), BVX)
        Y = BX + np.matmul(BVX, np.linalg.solve(inner, np.matmul(X.swapaxes(1, 2), BX)))
        out += weight * Y
    return np.asarray(2.0 / np.pi * quarter / n * np.sqrt(low) * out.swapaxes(1, 2))
