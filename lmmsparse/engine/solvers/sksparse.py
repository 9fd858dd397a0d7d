"""scikit-sparse, whichever generation is installed → one small interface to CHOLMOD.

scikit-sparse 0.4 (SuiteSparse 5) and 0.5 (SuiteSparse ≥ 7.4) share no names. `analyze` hides the
difference. In 0.4 `Factor.cholesky` returns a copy: only `cholesky_inplace` may be used here. In
0.5 a factor that was factorized once is simplicial ever after: the symbolic one is copied per
factorization, or all but the first would be an order of magnitude slower. Where scikit-sparse is
not installed, or its libraries do not load, this module still imports: `UNUSABLE` says why.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.common.threads import filtered
from lmmsparse.engine.solvers.base import FAILED
from lmmsparse.engine.solvers.cholesky import TOO_LARGE, SparseCholesky, log_determinant

UNUSABLE = ""
try:
    import sksparse.cholmod as cholmod
except (ImportError, OSError, ValueError) as error:  # not there, no libcholmod, another numpy's ABI
    cholmod = None
    UNUSABLE = f"{type(error).__name__}: {error}"

IS_04 = hasattr(cholmod, "analyze")
_EXHAUSTED: tuple[type[Exception], ...] = tuple(
    getattr(cholmod, f"Cholmod{name}Error")
    for name in ("OutOfMemory", "TooLarge", "Overflow")
    if hasattr(cholmod, f"Cholmod{name}Error")
)


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except _EXHAUSTED as error:
        raise MemoryError(TOO_LARGE) from error


class _Factor04:
    def __init__(self, factor: Any, logdet: float = np.nan) -> None:
        self._factor = factor
        self._logdet = logdet
        self._is_LL = False

    def factorize(self, lower: sp.csc_matrix) -> None:
        try:
            with _enough_memory():
                self._factor.cholesky_inplace(lower)
        except cholmod.CholmodNotPositiveDefiniteError as error:
            raise NumericalError(FAILED) from error
        self._is_LL = False
        self._logdet = log_determinant(self._factor.D())

    def logdet(self) -> float:
        return self._logdet

    def half_solve(self, b: FloatArray) -> FloatArray:
        with _enough_memory():
            permuted = self._factor.apply_P(b)
            out = np.asarray(self._factor.solve_L(permuted, use_LDLt_decomposition=False))
            self._is_LL = True
            return out

    def solve(self, b: FloatArray) -> FloatArray:
        with _enough_memory():
            return np.asarray(self._factor.solve_A(b))

    def lower(self) -> sp.csc_matrix:
        with _enough_memory():
            L = self._factor.copy().L()
        L.sort_indices()
        return L

    def permutation(self) -> IntArray:
        return np.asarray(self._factor.P(), dtype=np.intp)

    def copy(self) -> SparseCholesky:
        # The first half of a solution turns LDL' into LL', in place: a copy that is made before
        # and one that is made after would differ in their last digits.
        with _enough_memory():
            if not self._is_LL:
                self.half_solve(np.zeros(len(self._factor.P())))
            return _Factor04(self._factor.copy(), self._logdet)


class _Factor05:
    """No numeric factor is ever changed: `factorize` makes another, so that copies may share."""

    def __init__(self, symbolic: Any) -> None:
        self._symbolic = symbolic
        self._permutation = np.array(symbolic.perm, dtype=np.intp)
        symbolic._clear_cache()  # see `lower`
        self._factor: Any = None
        self._logdet = np.nan

    def factorize(self, lower: sp.csc_matrix) -> None:
        try:
            with _enough_memory():
                factor = self._symbolic.copy()
                factor.factorize(lower, ldl=False)
        except cholmod.CholmodNotPositiveDefiniteError as error:
            raise NumericalError(FAILED) from error
        view = factor.factor
        pivots = view.data[view.indptr[:-1]] ** 2
        factor._clear_cache()
        self._logdet = log_determinant(pivots)
        self._factor = factor

    def logdet(self) -> float:
        return self._logdet

    def _solve(self, b: FloatArray, system: str) -> FloatArray:
        b = np.require(b, np.float64, ["F", "W"])  # what is read-only is refused
        if self._factor.rcond > len(b) * np.finfo(np.float64).eps:
            with _enough_memory():
                return np.asarray(self._factor.solve(b, system=system))
        # Of pivots that differ much, as they do when θ is large.
        with filtered(("ignore", cholmod.CholmodWarning)), _enough_memory():
            return np.asarray(self._factor.solve(b, system=system))

    def half_solve(self, b: FloatArray) -> FloatArray:
        return self._solve(b[self._permutation], "L")

    def solve(self, b: FloatArray) -> FloatArray:
        return self._solve(b, "A")

    def lower(self) -> sp.csc_matrix:
        # `get_factor` drops zeros; the view keeps them. It is cached by the factor that it keeps
        # alive, a cycle that the garbage collector does not see: only clearing frees them.
        L = sp.csc_matrix(self._factor.factor, copy=True)
        self._factor._clear_cache()
        L.sort_indices()
        return L

    def permutation(self) -> IntArray:
        return self._permutation.copy()

    def copy(self) -> SparseCholesky:
        return copy.copy(self)


def analyze(lower: sp.csc_matrix, ordering: str, mode: str) -> SparseCholesky:
    """As `libraries.analyze`."""
    with _enough_memory():
        if IS_04:
            return _Factor04(cholmod.analyze(lower, mode=mode, ordering_method=ordering))
        return _Factor05(
            cholmod.CholeskyFactor(lower, lower=True, order=ordering, supernodal_mode=mode)
        )
