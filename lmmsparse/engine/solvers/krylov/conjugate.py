"""Conjugate gradients on blocks of columns, and what their coefficients say about the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import NumericalError

Operator = Callable[[FloatArray], FloatArray]
MOST_STEPS = 500


@dataclass(frozen=True, eq=False)
class Solved:
    """A y = b for every column of b.

    Attributes
    ----------
    y : (m, c) array
    alpha, beta : (steps, c) arrays
        Coefficients of every step; those of a column end with its `steps`.
    steps : (c,) int array
    size : (c,) array
        b'b.
    """

    y: FloatArray
    alpha: FloatArray
    beta: FloatArray
    steps: IntArray
    size: FloatArray

    def _tridiagonal(self, columns: IntArray, k: int) -> FloatArray:
        """The Lanczos matrices of columns that took k steps, (columns, k, k)."""
        a, b = self.alpha[:k, columns].T, self.beta[: k - 1, columns].T
        T = np.zeros((len(columns), k, k))
        i = np.arange(k)
        T[:, i, i] = 1.0 / a
        T[:, i[1:], i[1:]] += b / a[:, :-1]
        T[:, i[1:], i[:-1]] = T[:, i[:-1], i[1:]] = np.sqrt(b) / a[:, :-1]
        return T

    def logarithms(self) -> tuple[FloatArray, FloatArray]:
        """The forms b' log(A) b by Gauss quadrature and the ratios of eigenvalues, (c,) each."""
        out, ratios = np.zeros(len(self.steps)), np.ones(len(self.steps))
        for k in np.unique(self.steps[self.steps > 0]).tolist():
            columns = np.flatnonzero(self.steps == k)
            values, vectors = np.linalg.eigh(self._tridiagonal(columns, k))
            values = np.maximum(values, np.finfo(float).tiny)
            out[columns] = np.einsum("ck,ck->c", vectors[:, 0] ** 2, np.log(values))
            ratios[columns] = values[:, -1] / values[:, 0]
        return out * self.size, ratios

    def squares(self) -> FloatArray:
        """The forms b'Ab, (c,)."""
        out = np.zeros(len(self.steps))
        some = np.flatnonzero(self.steps)
        if len(some):
            out[some] = self.size[some] / self.alpha[0, some]
        return out


def solve(A: Operator, b: FloatArray, tol: float) -> Solved:
    """Solve A y = b until the residual of every column is tol times its right-hand side.

    Each column has its own coefficients, so that none depends on which others are beside it.

    Parameters
    ----------
    A : callable
        Positive definite, of about unit size: times an (m, c) array.
    b : (m, c) array
    """
    c = b.shape[1]
    size = np.einsum("mc,mc->c", b, b)
    y, steps = np.zeros_like(b), np.zeros(c, dtype=np.intp)
    alphas: list[FloatArray] = []
    betas: list[FloatArray] = []
    active = np.flatnonzero(size > 0)
    r = b[:, active].copy()
    p, rr = r.copy(), size[active]
    while len(active):
        if len(alphas) == MOST_STEPS:
            so_far = _solved(y, alphas, betas, steps, size)
            raise _stuck(so_far, rr / size[active])
        q = A(p)
        alpha = rr / np.einsum("mc,mc->c", p, q)
        y[:, active] += alpha * p
        r -= alpha * q
        new = np.einsum("mc,mc->c", r, r)
        beta = new / rr
        alphas.append(_spread(alpha, active, c))
        betas.append(_spread(beta, active, c))
        steps[active] += 1
        p *= beta
        p += r
        rr = new
        on = new > tol**2 * size[active]
        if not on.all():
            active, rr = active[on], rr[on]
            r, p = r[:, on], p[:, on]
    return _solved(y, alphas, betas, steps, size)


def _solved(
    y: FloatArray,
    alphas: list[FloatArray],
    betas: list[FloatArray],
    steps: IntArray,
    size: FloatArray,
) -> Solved:
    alpha, beta = (np.array(each).reshape(-1, len(size)) for each in (alphas, betas))
    return Solved(y, alpha, beta, steps, size)


def _spread(values: FloatArray, columns: IntArray, c: int) -> FloatArray:
    out = np.zeros(c)
    out[columns] = values
    return out


def _stuck(found: Solved, left: FloatArray) -> NumericalError:
    ratio = found.logarithms()[1].max()
    return NumericalError(
        f"Conjugate gradients have not converged in {MOST_STEPS} steps (the residual is "
        f"{np.sqrt(left.max()):.1g} of the right-hand side): the largest eigenvalue of the "
        f"preconditioned core is at least {ratio:.1e} times the smallest. Variances that large "
        "leave nothing to the residuals. Check the response and the scale of the predictors, or "
        "use an exact solver, for example solver=lmm.Cholmod()."
    )
