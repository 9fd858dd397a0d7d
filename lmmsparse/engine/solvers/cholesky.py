"""What a sparse Cholesky factorization promises, whichever library makes it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.solvers.base import FAILED

TOO_LARGE = (
    "CHOLMOD has no memory for the factor of this model, which grows with the levels of crossed "
    "grouping factors and with the effects of each. Fit fewer levels or simpler random-effects "
    "terms, or use a machine with more memory."
)


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


def log_determinant(pivots: FloatArray) -> float:
    """Sum of the logarithms of D; an error where one is not positive and finite."""
    # Simplicial factorizations pass over negative pivots, and all of them over NaN.
    if not ((pivots > 0) & (pivots < np.inf)).all():
        raise NumericalError(FAILED)
    return float(np.log(pivots).sum())
