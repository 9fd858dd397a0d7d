"""X → its internal columns Q = X R⁻¹ with Q'WQ = I: dense, or as X and R where X is sparse.

Cross-products meet X in this form only. A sparse X, such as the indicators of a factor with a
thousand levels, is never filled in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg import blas, lapack

from lmmsparse.common.arrays import FloatArray, ReadOnly, is_ones
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.linalg import solve_triangular
from lmmsparse.engine.origins import origins

_FAR_FROM_DEPENDENT = 1e-3
_DEPENDENT = (
    "The columns of the fixed-effects matrix are linearly dependent. Their coefficients cannot be "
    "told apart. Leave out the columns that repeat others."
)


@dataclass(frozen=True, eq=False)
class Basis(ReadOnly):
    """The internal fixed-effects columns Q = X R⁻¹, orthonormal under W.

    Attributes
    ----------
    R : (p, p) array
        Upper triangular, X = Q R and Q'WQ = I.
    logdet : float
        log det(R'R), which the REML criterion needs.
    """

    R: FloatArray
    logdet: float

    def coefficients(self, internal: FloatArray) -> FloatArray:
        """R⁻¹ applied to internal coefficients (p,) or (p, m)."""
        if self.R.shape[0] == 0:
            return internal
        return solve_triangular(self.R, internal)


@dataclass(frozen=True, eq=False)
class InternalColumns(ReadOnly):
    """The columns Q of the fixed effects that the engine works with.

    Attributes
    ----------
    X : (n, p) array or csr_array
        Q itself, or the sparse X of Q = X R⁻¹.
    R : (p, p) array or None
        Upper triangular; None where X is Q.
    """

    X: FloatArray | sp.csr_array
    R: FloatArray | None = None

    @property
    def p(self) -> int:
        return int(self.X.shape[1])

    def weighted(self, weights: FloatArray | None) -> FloatArray | sp.csr_array:
        """W X, of the same kind as X."""
        if weights is None:
            return self.X
        if isinstance(self.X, np.ndarray):
            return self.X * weights[:, None]
        return sp.csr_array(self.X.multiply(weights[:, None]))

    def times(self, b: FloatArray) -> FloatArray:
        """Q b for b of shape (p,) or (p, m)."""
        return np.asarray(self.X @ (b if self.R is None else solve_triangular(self.R, b)))

    def transposed_times(self, r: FloatArray) -> FloatArray:
        """Q'r for r of shape (n,) or (n, m)."""
        product = np.asarray(self.X.T @ r)
        return product if self.R is None else solve_triangular(self.R, product, transposed=True)

    def over_root(self, products: FloatArray) -> FloatArray:
        """Products with X, (m, p) → products with Q."""
        if self.R is None or not products.size:
            return products
        return np.ascontiguousarray(solve_triangular(self.R, products.T, transposed=True).T)

    def gram(self, WX: FloatArray | sp.csr_array) -> FloatArray:
        """Q'WQ, (p, p)."""
        return np.asarray(self.X.T @ WX) if self.R is None else np.eye(self.p)

    def gram_anew(self, WX: FloatArray | sp.csr_array) -> FloatArray:
        """Q'WQ for weights under which Q is not orthonormal, (p, p)."""
        if self.R is None:
            return np.asarray(self.X.T @ WX)
        half = self.over_root(np.asarray(sp.csr_array(self.X.T @ WX).toarray()))
        return self.over_root(np.ascontiguousarray(half.T))


def orthonormal(
    X: FloatArray | sp.csr_array,
    weights: FloatArray | None = None,
    factors: Callable[[int], frozenset[str]] | None = None,
) -> tuple[InternalColumns, Basis]:
    """Return Q = X R⁻¹ with Q'WQ = I and the `Basis` that leads back.

    One Cholesky factorization of X'WX gives R, as long as the columns are far from dependent.
    Others, scaled to length one, take passes of Cholesky QR until Q is orthonormal: as accurate as
    Householder QR for any X that passed the rank check, at a third of the time and without an
    n-sized workspace. Of these, columns far from zero are moved first (`origins`).

    Parameters
    ----------
    X : (n, p) array or csr_array
    weights : (n,) array, optional
    factors : callable, optional
        Column number → what the column is a product of; see `origins`.
    """
    p = X.shape[1]
    if p == 0:
        dense = X if isinstance(X, np.ndarray) else X.toarray()
        return InternalColumns(dense), Basis(R=np.zeros((0, 0)), logdet=0.0)
    if isinstance(X, np.ndarray) and weights is None and is_ones(X):
        root = np.sqrt(float(len(X)))
        Q = np.broadcast_to(1.0 / root, X.shape)
        return InternalColumns(Q), Basis(R=np.array([[root]]), logdet=float(2 * np.log(root)))
    columns = np.asfortranarray(X) if isinstance(X, np.ndarray) else X
    gram = _gram(columns, weights)
    length = np.sqrt(gram.diagonal())
    if not (length > 0).all():
        raise NumericalError(_DEPENDENT)
    once = _root_once(gram, length)
    if once is not None:
        basis = Basis(R=once, logdet=_logdet(once))
        if not isinstance(columns, np.ndarray):
            return InternalColumns(columns, once), basis
        return InternalColumns(blas.dtrsm(1.0, once, columns, side=1)), basis
    if not isinstance(columns, np.ndarray):
        columns = np.asfortranarray(columns.toarray())
    columns, moved = origins(columns, factors, weights)
    if moved is not None:
        length = np.sqrt(np.diag(_gram(columns, weights)))
    root = None if weights is None else np.sqrt(weights)[:, None]
    Q, R = columns / length, np.diag(length)
    for _ in range(3):
        S = Q if root is None else Q * root
        try:
            step = np.linalg.cholesky(S.T @ S).T
        except np.linalg.LinAlgError:
            step = np.asarray(np.linalg.qr(S, mode="r"))
            if np.min(np.abs(np.diag(step))) <= 1e-13 * np.max(np.abs(np.diag(step))):
                raise NumericalError(_DEPENDENT) from None
        Q = blas.dtrsm(1.0, step, Q, side=1)
        R = step @ R
        if np.max(np.abs(step - np.eye(p))) < 1e-10:
            break
    if moved is not None:
        R = solve_triangular(moved, R.T, transposed=True).T
    return InternalColumns(Q), Basis(R=R, logdet=_logdet(R))


def _gram(X: FloatArray | sp.csr_array, weights: FloatArray | None) -> FloatArray:
    """X'WX, (p, p)."""
    if not isinstance(X, np.ndarray):
        WX = X if weights is None else sp.csr_array(X.multiply(weights[:, None]))
        return np.asarray((X.T @ WX).toarray())
    S = X if weights is None else X * np.sqrt(weights)[:, None]
    return np.asarray(S.T @ S)


def _root_once(gram: FloatArray, length: FloatArray) -> FloatArray | None:
    """R with R'R = X'WX; None if the columns of X are close to dependent."""
    root, info = lapack.dpotrf(gram / (length[:, None] * length))
    if info or root.diagonal().min() < _FAR_FROM_DEPENDENT:
        return None
    return np.asarray(root * length)


def _logdet(R: FloatArray) -> float:
    return 2.0 * float(np.log(np.abs(R.diagonal())).sum())
