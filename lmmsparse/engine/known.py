"""Known covariances of levels: a recursion (pedigrees), a sparse precision, a dense covariance.

Each is a `Prior`. What is computed from the numbers it is given is not pickled.
"""

from __future__ import annotations

from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp
import scipy.sparse.csgraph as graph
import scipy.sparse.linalg as spla

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.solvers.cholmod import Cholmod
from lmmsparse.engine.solvers.libraries import library
from lmmsparse.engine.solvers.selected_inverse import SelectedInverse
from lmmsparse.engine.solvers.superlu import SuperLU

_SINGULAR = 1e-12  # a squared pivot of this share of its diagonal element is nothing but rounding


class NotPositiveDefiniteError(NumericalError):
    """A matrix that is no covariance and no precision."""


def triangular_factor(P: sp.csc_array) -> Any:
    """I − P for a P with elements below its diagonal only, as what `solve` is a method of."""
    W = sp.csc_matrix(sp.eye_array(P.shape[0], format="csc") - P)
    W.sort_indices()
    options = {"SymmetricMode": True, "Equil": False}
    return spla.splu(W, permc_spec="NATURAL", diag_pivot_thresh=0.0, options=options)


class RecursivePrior:
    """x_i = Σ_j P_ij x_j + e_i with e_i ~ N(0, d_i), every j before i: Q = W'D⁻¹W with W = I − P.

    Parameters
    ----------
    P : (levels, levels) csr_array
    d : (levels,) array
    order : (levels,) int array
        The levels, each after those it depends on.
    variances : (levels,) array
        The diagonal of A.
    """

    def __init__(self, P: sp.csr_array, d: FloatArray, order: IntArray, variances: FloatArray):
        self._P, self._d, self._order, self.variances = P, d, order, variances
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return (RecursivePrior, (self._P, self._d, self._order, self.variances))

    @cached_property
    def precision(self) -> sp.csc_array:
        W = sp.csc_array(sp.eye_array(len(self._d), format="csr") - self._P)
        Q = sp.csc_array(W.T @ (sp.diags_array(1.0 / self._d) @ W))
        Q.sort_indices()
        return Q

    @cached_property
    def logdet(self) -> float:
        return -float(np.log(self._d).sum())

    @cached_property
    def _W(self) -> Any:
        """W with rows and columns in order, factored: it is triangular."""
        return triangular_factor(sp.csc_array(self._P[self._order][:, self._order]))

    def _solved(self, B: FloatArray, trans: str) -> FloatArray:
        out = np.empty(B.shape)
        with self._lock:
            out[self._order] = self._W.solve(np.ascontiguousarray(B[self._order]), trans)
        return out

    def times(self, B: FloatArray) -> FloatArray:
        return np.asarray(self.precision @ B)

    def solve(self, B: FloatArray) -> FloatArray:
        return self._solved(self._d[:, None] * self._solved(B, "T"), "N")

    def root(self, B: FloatArray) -> FloatArray:
        return self._solved(np.sqrt(self._d)[:, None] * B, "N")

    def root_transposed(self, B: FloatArray) -> FloatArray:
        return np.sqrt(self._d)[:, None] * self._solved(B, "T")


class SparsePrior:
    """A sparse Q with its Cholesky factor, LL' = PQP'.

    Raises
    ------
    NotPositiveDefiniteError
    """

    def __init__(self, precision: sp.csc_array) -> None:
        self.precision = precision
        self._lock = Lock()
        lower = sp.csc_matrix(sp.tril(precision))
        lower.sort_indices()
        solver = Cholmod() if library() else SuperLU()
        try:
            self._factor, _ = solver.analyze(lower)
            self._factor.factorize(lower)
            self.logdet = self._factor.logdet()
            self._L = self._factor.lower()
        except (NumericalError, np.linalg.LinAlgError) as error:
            raise NotPositiveDefiniteError(str(error)) from error
        self._permutation = self._factor.permutation()
        pivots = self._L.diagonal() ** 2
        if not (pivots > _SINGULAR * precision.diagonal()[self._permutation]).all():
            raise NotPositiveDefiniteError("It is singular.")

    def __reduce__(self) -> tuple[Any, ...]:
        return (SparsePrior, (self.precision,))

    @cached_property
    def variances(self) -> FloatArray:
        out = np.empty(len(self._permutation))
        inverse = SelectedInverse(self._L.indptr, self._L.indices)(self._L.data)
        out[self._permutation] = inverse[self._L.indptr[:-1]]
        return out

    def times(self, B: FloatArray) -> FloatArray:
        return np.asarray(self.precision @ B)

    def solve(self, B: FloatArray) -> FloatArray:
        with self._lock:
            return np.asarray(self._factor.solve(np.ascontiguousarray(B)))

    def root(self, B: FloatArray) -> FloatArray:
        # R = Q⁻¹P'L = P'L⁻ᵀ.
        out = np.empty(B.shape)
        out[self._permutation] = self._L @ B
        return self.solve(out)

    def root_transposed(self, B: FloatArray) -> FloatArray:
        return np.asarray(self._L.T @ self.solve(B)[self._permutation])


class DensePrior:
    """A dense A with its Cholesky factor.

    Raises
    ------
    NotPositiveDefiniteError
    """

    def __init__(self, covariance: FloatArray) -> None:
        self.covariance = covariance
        L, info = sla.lapack.dpotrf(covariance, lower=1, clean=1)
        pivots = np.diag(L) ** 2
        if info != 0 or not (pivots > _SINGULAR * np.diag(covariance)).all():
            raise NotPositiveDefiniteError("It is singular, or no covariance.")
        self._L = L
        self.logdet = -float(np.log(pivots).sum())
        self.variances = np.diag(covariance).copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return (DensePrior, (self.covariance,))

    @cached_property
    def precision(self) -> sp.csc_array:
        inverse = sla.cho_solve((self._L, True), np.eye(len(self._L)), check_finite=False)
        # Levels that nothing connects are independent: what is left there is rounding.
        _, part = graph.connected_components(sp.csr_array(self.covariance), directed=False)
        inverse = np.where(part[:, None] == part, 0.5 * (inverse + inverse.T), 0.0)
        return sp.csc_array(inverse)

    def times(self, B: FloatArray) -> FloatArray:
        return np.asarray(sla.cho_solve((self._L, True), B, check_finite=False))

    def solve(self, B: FloatArray) -> FloatArray:
        return np.asarray(self.covariance @ B)

    def root(self, B: FloatArray) -> FloatArray:
        return np.asarray(self._L @ B)

    def root_transposed(self, B: FloatArray) -> FloatArray:
        return np.asarray(self._L.T @ B)
