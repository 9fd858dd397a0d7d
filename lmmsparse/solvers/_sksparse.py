"""scikit-sparse, whichever generation is installed → one small interface to CHOLMOD.

scikit-sparse 0.4 (SuiteSparse 5) and 0.5 (SuiteSparse ≥ 7.4) share no names. `analyze` hides the
difference. In 0.4 `Factor.cholesky` returns a copy: only `cholesky_inplace` may be used here.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
import sksparse.cholmod as cholmod

from lmmsparse._types import FloatArray, IntArray
from lmmsparse.errors import NumericalError

IS_04 = hasattr(cholmod, "analyze")


class SparseCholesky(Protocol):
    """L L' = P M P' for a sparse positive definite M whose pattern never changes."""

    def factorize(self, lower: sp.csc_matrix) -> None:
        """Overwrite the factor with that of the matrix whose lower triangle is given."""
        ...

    def logdet(self) -> float:
        """Log det M."""
        ...

    def half_solve(self, b: FloatArray) -> FloatArray:
        """L⁻¹ P b."""
        ...

    def half_solve_transposed(self, b: FloatArray) -> FloatArray:
        """P' L⁻ᵀ b."""
        ...

    def solve(self, b: FloatArray) -> FloatArray:
        """M⁻¹ b."""
        ...

    def lower(self) -> sp.csc_matrix:
        """L with its structural pattern, rows sorted."""
        ...

    def permutation(self) -> IntArray:
        """Perm with P M P' = M[perm][:, perm]."""
        ...

    def copy(self) -> SparseCholesky:
        """An independent factor."""
        ...


def _not_positive_definite(error: Exception) -> NumericalError:
    return NumericalError(
        "The penalized normal equations could not be factored: a value is not finite or far too "
        "large. Check predictors and weights for extreme values."
    )


class _Factor04:
    def __init__(self, factor: Any) -> None:
        self._factor = factor

    def factorize(self, lower: sp.csc_matrix) -> None:
        try:
            self._factor.cholesky_inplace(lower)
        except cholmod.CholmodError as error:
            raise _not_positive_definite(error) from error

    def logdet(self) -> float:
        return float(self._factor.logdet())

    def half_solve(self, b: FloatArray) -> FloatArray:
        permuted = self._factor.apply_P(b)
        return np.asarray(self._factor.solve_L(permuted, use_LDLt_decomposition=False))

    def half_solve_transposed(self, b: FloatArray) -> FloatArray:
        z = self._factor.solve_Lt(b, use_LDLt_decomposition=False)
        return np.asarray(self._factor.apply_Pt(z))

    def solve(self, b: FloatArray) -> FloatArray:
        return np.asarray(self._factor.solve_A(b))

    def lower(self) -> sp.csc_matrix:
        L = self._factor.copy().L()
        L.sort_indices()
        return L

    def permutation(self) -> IntArray:
        return np.asarray(self._factor.P(), dtype=np.intp)

    def copy(self) -> SparseCholesky:
        return _Factor04(self._factor.copy())


class _Factor05:
    def __init__(self, factor: Any) -> None:
        self._factor = factor

    def factorize(self, lower: sp.csc_matrix) -> None:
        try:
            self._factor.factorize(lower)
        except (cholmod.CholmodError, ArithmeticError, ValueError) as error:
            raise _not_positive_definite(error) from error

    def logdet(self) -> float:
        return float(self._factor.logdet())

    def half_solve(self, b: FloatArray) -> FloatArray:
        permuted = self._factor.solve(b, system="P")
        return np.asarray(self._factor.solve(permuted, system="L"))

    def half_solve_transposed(self, b: FloatArray) -> FloatArray:
        z = self._factor.solve(b, system="Lt")
        return np.asarray(self._factor.solve(z, system="Pt"))

    def solve(self, b: FloatArray) -> FloatArray:
        return np.asarray(self._factor.solve(b, system="A"))

    def lower(self) -> sp.csc_matrix:
        L = sp.csc_matrix(self._factor.L)
        L.sort_indices()
        return L

    def permutation(self) -> IntArray:
        return np.asarray(self._factor.perm, dtype=np.intp)

    def copy(self) -> SparseCholesky:
        return _Factor05(self._factor.copy())


def analyze(lower: sp.csc_matrix, ordering: str, mode: str) -> SparseCholesky:
    """Symbolic analysis of a symmetric matrix given by its lower triangle.

    Parameters
    ----------
    lower : csc_matrix
        Lower triangle with the structural pattern.
    ordering : {"amd", "metis", "natural", ...}
        CHOLMOD's name of the fill-reducing ordering.
    mode : {"auto", "simplicial", "supernodal"}
    """
    if IS_04:
        return _Factor04(cholmod.analyze(lower, mode=mode, ordering_method=ordering))
    return _Factor05(cholmod.CholeskyFactor(lower, order=ordering, supernodal_mode=mode))
