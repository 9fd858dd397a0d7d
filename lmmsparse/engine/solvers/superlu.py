"""Cross-products → the penalized least-squares problem by scipy's sparse factorization (SuperLU).

For machines without CHOLMOD. M is symmetric positive definite, so that with pivots on the
diagonal P M P' = L₁ U and U = D L₁': L = L₁ √D is its Cholesky factor. scipy leaves zeros out of
L₁; `lower` puts them back, because M's pattern must not change with θ.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import FAILED
from lmmsparse.engine.solvers.cholesky import SparseCholesky
from lmmsparse.engine.solvers.cholmod import CholmodSystem


@checked_construction
@dataclass(frozen=True)
class SuperLU:
    """Sparse factorization of M by SuperLU, which comes with scipy.

    Slower than `Cholmod`, and chosen only where that one cannot be used and `Blocked` would be
    slower still.

    References
    ----------
    Demmel, Eisenstat, Gilbert, Li & Liu (1999), SIAM Journal on Matrix Analysis and Applications
    20, 720–755.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> m = lmm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin"),
    ...              solver=lmm.SuperLU())
    >>> round(m.reml_criterion, 4)
    330.8606
    """

    known_covariances: ClassVar[bool] = True

    def build(self, products: CrossProducts, template: LambdaTemplate) -> CholmodSystem:
        """Find the pattern of the factor once and return the system that refactors M per θ."""
        return CholmodSystem(products, template, self)

    def analyze(self, lower: sp.csc_matrix, several: bool = True) -> tuple[SparseCholesky, str]:
        """Factor of M's pattern and what to call it; `several` terms may need another ordering."""
        del several
        return _Factor(lower), "SuperLU sparse factorization"


class _Factor:
    """`SparseCholesky`; no numeric factor is ever changed, so that copies may share it."""

    def __init__(self, lower: sp.csc_matrix) -> None:
        n = lower.shape[0]
        rows, cols = lower.indices, np.repeat(np.arange(n), np.diff(lower.indptr))
        off = rows != cols
        # Where each element of the lower triangle goes in the whole matrix.
        source = np.concatenate([np.arange(lower.nnz), np.flatnonzero(off)])
        order = np.lexsort((np.concatenate([rows, cols[off]]), np.concatenate([cols, rows[off]])))
        self._source = source[order]
        self._indices = np.concatenate([rows, cols[off]])[order]
        counts = np.bincount(np.concatenate([cols, rows[off]]), minlength=n)
        self._indptr = np.concatenate([[0], np.cumsum(counts)])
        # No element of the factor of such a matrix is zero by accident.
        values = np.where(off, np.random.default_rng(1).uniform(0.5, 1.0, lower.nnz), 0.0)
        sums = np.bincount(rows, values, n) + np.bincount(cols, values, n)
        values[~off] = 1.0 + 2.0 * sums[rows[~off]]
        lu = self._lu(values)
        self._permutation = np.argsort(lu.perm_c).astype(np.intp)
        L = lu.L.tocsc()
        L.sort_indices()
        self._pattern = L
        self._keys = _keys(L)
        self._L: sp.csc_matrix = L
        self._root: FloatArray = np.ones(n)
        self._logdet = np.nan

    def _lu(self, lower: FloatArray) -> Any:
        n = len(self._indptr) - 1
        whole = sp.csc_matrix((lower[self._source], self._indices, self._indptr), shape=(n, n))
        try:
            return spla.splu(
                whole,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True, "Equil": False},
            )
        except RuntimeError as error:  # of its own allocations that failed, too
            if "singular" not in str(error):
                raise MemoryError(str(error)) from error
            raise NumericalError(FAILED) from error

    def factorize(self, lower: sp.csc_matrix) -> None:
        if not np.isfinite(lower.data).all():
            raise NumericalError(FAILED)
        lu = self._lu(lower.data)
        pivots = lu.U.diagonal()
        if not ((pivots > 0) & (pivots < np.inf)).all():
            raise NumericalError(FAILED)
        self._L = lu.L.tocsc()
        self._root = np.sqrt(pivots)
        self._logdet = float(np.log(pivots).sum())

    def logdet(self) -> float:
        return self._logdet

    def half_solve(self, b: FloatArray) -> FloatArray:
        y = _solve_triangular(self._L, b[self._permutation], lower=True)
        return np.asarray((y.T / self._root).T)

    def _half_solve_transposed(self, b: FloatArray) -> FloatArray:
        z = _solve_triangular(self._L.T.tocsr(), (b.T / self._root).T, lower=False)
        out: FloatArray = np.empty_like(b)
        out[self._permutation] = z
        return out

    def solve(self, b: FloatArray) -> FloatArray:
        x: FloatArray = self._half_solve_transposed(self.half_solve(b))
        return x

    def lower(self) -> sp.csc_matrix:
        L = self._L.copy()
        L.sort_indices()
        data = np.zeros(len(self._keys))
        data[np.searchsorted(self._keys, _keys(L))] = L.data
        data *= np.repeat(self._root, np.diff(self._pattern.indptr))
        return sp.csc_matrix(
            (data, self._pattern.indices.copy(), self._pattern.indptr.copy()), shape=L.shape
        )

    def permutation(self) -> IntArray:
        return self._permutation.copy()

    def copy(self) -> SparseCholesky:
        return copy.copy(self)


# scipy changes the list of warning filters in there: what two threads at once would leave as it is.
_turn = Lock()


def _solve_triangular(A: sp.spmatrix, b: FloatArray, lower: bool) -> FloatArray:
    """A⁻¹b for a triangular A with ones on its diagonal."""
    with _turn:
        return np.asarray(spla.spsolve_triangular(A, b, lower=lower, unit_diagonal=True))


def _keys(matrix: sp.csc_matrix) -> IntArray:
    """Column-major position of every stored element."""
    n = matrix.shape[0]
    columns = np.repeat(np.arange(n, dtype=np.int64), np.diff(matrix.indptr))
    return np.asarray(columns * n + matrix.indices)
