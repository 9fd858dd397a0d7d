"""cvxopt → the same small interface to CHOLMOD as by scikit-sparse, from wheels without a compiler.

Four things are unlike there. `getfactor` empties the factor it is taken of, so that L comes from
one of its own. Options are a dictionary of the whole process: ours are in it during the analysis
only. Its own default is supernodal, several times slower on matrices as sparse as these. What is
not positive definite is refused by supernodal factorizations only: pivots are looked at here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.solvers.base import FAILED
from lmmsparse.engine.solvers.cholesky import TOO_LARGE, SparseCholesky, log_determinant

ORDERINGS = ("amd", "natural")
_SUPERNODAL = {"simplicial": 0, "auto": 1, "supernodal": 2}
_WHOLE, _LOWER, _DIAGONAL, _PERMUTE = 0, 4, 6, 7  # systems that `solve` knows


@cache
def _library() -> Any:
    import cvxopt.cholmod

    return cvxopt


@cache
def unusable() -> str:
    """Why cvxopt cannot be used; nothing if it can."""
    try:
        _library()
    except (ImportError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


_turn = Lock()


@contextmanager
def _set(ours: dict[str, Any]) -> Iterator[None]:
    options = _library().cholmod.options
    with _turn:
        theirs = dict(options)
        options.clear()
        options.update(ours)
        try:
            yield
        finally:
            options.clear()
            options.update(theirs)


@contextmanager
def _enough_memory() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise MemoryError(TOO_LARGE) from error


class _Analysis:
    """What does not change with the numbers, and the factors that wait for some.

    Attributes
    ----------
    permutation : (n,) int array
    supernodal : bool
    """

    def __init__(self, lower: sp.csc_matrix, ordering: str, mode: str) -> None:
        n = lower.shape[0]
        columns = np.repeat(np.arange(n), np.diff(lower.indptr))
        matrix = _library().matrix
        self._matrix = _library().spmatrix(
            matrix(np.ones(lower.nnz)),
            matrix(lower.indices.astype(np.int64)),
            matrix(columns.astype(np.int64)),
            lower.shape,
        )
        self._options: dict[str, Any] = {"supernodal": _SUPERNODAL[mode]}
        self._order: list[Any] = []  # none given: AMD's
        if ordering == "natural":
            self._keep_order(np.arange(n))
        self._waiting: list[Any] = []
        self._pattern: tuple[IntArray, IntArray, IntArray] | None = None
        identity = self.factorized(np.where(lower.indices == columns, 1.0, 0.0))
        self.permutation = identity.solve(np.arange(n), _PERMUTE).astype(np.intp)
        self.supernodal = identity.is_supernodal()
        self._keep_order(self.permutation)  # so that every further factor is like this one

    def _keep_order(self, permutation: IntArray) -> None:
        self._order = [_library().matrix(permutation.astype(np.int64))]
        self._options |= {"nmethods": 1, "postorder": False}  # else AMD's is tried too

    def factorized(self, values: FloatArray) -> _Numeric:
        """A factor of the lower triangle with these values."""
        library = _library()
        with _enough_memory():
            self._matrix.V = library.matrix(values)
            if self._waiting:
                factor = self._waiting.pop()
            else:
                with _set(self._options):
                    factor = library.cholmod.symbolic(self._matrix, *self._order)
            try:
                library.cholmod.numeric(self._matrix, factor)
            except ArithmeticError as error:
                raise NumericalError(FAILED) from error
        return _Numeric(factor, self._waiting)

    def lower(self, values: FloatArray) -> sp.csc_matrix:
        """L, rows sorted."""
        with _enough_memory():
            L = self.factorized(values).emptied(waits=not self.supernodal)
            if self._pattern is None:
                starts, rows, _ = (np.array(part).ravel() for part in L.CCS)
                places = sp.csc_matrix((np.arange(len(rows)), rows, starts), L.size)
                places.sort_indices()
                self._pattern = places.indptr, places.indices, places.data
            indptr, indices, places = self._pattern
            data: FloatArray = np.array(L.V).ravel()[places]
        if not self.supernodal:  # L of LDL', with D on its diagonal
            root = np.sqrt(data[indptr[:-1]])
            data[indptr[:-1]] = 1.0
            data *= np.repeat(root, np.diff(indptr))
        return sp.csc_matrix((data, indices.copy(), indptr.copy()), L.size)


class _Numeric:
    """A factor with numbers, which waits for others when nobody holds it any more."""

    def __init__(self, factor: Any, waiting: list[Any]) -> None:
        self._factor = factor
        self._waiting = waiting

    def __del__(self) -> None:
        if self._factor is not None:
            self._waiting.append(self._factor)

    def solve(self, b: FloatArray, *systems: int) -> FloatArray:
        library = _library()
        with _enough_memory():
            x = library.matrix(np.array(b, dtype=np.float64, order="F"))
            for system in systems:
                library.cholmod.solve(self._factor, x, sys=system)
            return np.asarray(x).reshape(b.shape, order="F")

    def is_supernodal(self) -> bool:
        try:
            _library().cholmod.diag(self._factor)
        except ValueError:
            return False
        return True

    def diagonal(self) -> FloatArray:
        """Of L; for supernodal ones only."""
        return np.array(_library().cholmod.diag(self._factor)).ravel()

    def emptied(self, waits: bool) -> Any:
        """L. What is left of the factor is simplicial, and thrown away unless it `waits`."""
        L = _library().cholmod.getfactor(self._factor)
        if not waits:
            self._factor = None
        return L


class _Factor:
    """`SparseCholesky`; no factor with numbers is ever changed, so that copies may share it."""

    def __init__(self, analysis: _Analysis) -> None:
        self._analysis = analysis
        self._numeric: Any = None
        self._values: FloatArray = np.zeros(0)
        self._root: FloatArray = np.zeros(0)
        self._logdet = np.nan

    def factorize(self, lower: sp.csc_matrix) -> None:
        self._numeric = None  # so that its place is taken where no copy holds it
        if not np.isfinite(lower.data).all():
            raise NumericalError(FAILED)
        numeric = self._analysis.factorized(lower.data)
        if self._analysis.supernodal:
            pivots = numeric.diagonal() ** 2
        else:
            with np.errstate(divide="ignore"):
                pivots = 1.0 / numeric.solve(np.ones(lower.shape[0]), _DIAGONAL)
        self._logdet = log_determinant(pivots)
        self._root = np.sqrt(pivots)
        self._values = lower.data.copy()
        self._numeric = numeric

    def logdet(self) -> float:
        return self._logdet

    def half_solve(self, b: FloatArray) -> FloatArray:
        if not b.size:
            return np.empty(b.shape)
        x: FloatArray = self._numeric.solve(b, _PERMUTE, _LOWER)
        return x if self._analysis.supernodal else (x.T / self._root).T

    def solve(self, b: FloatArray) -> FloatArray:
        if not b.size:
            return np.empty(b.shape)
        x: FloatArray = self._numeric.solve(b, _WHOLE)
        return x

    def lower(self) -> sp.csc_matrix:
        return self._analysis.lower(self._values)

    def permutation(self) -> IntArray:
        return self._analysis.permutation.copy()

    def copy(self) -> SparseCholesky:
        return copy.copy(self)


def analyze(lower: sp.csc_matrix, ordering: str, mode: str) -> SparseCholesky:
    """As `sksparse.analyze`; orderings are "amd" and "natural"."""
    return _Factor(_Analysis(lower, ordering, mode))
