"""Cross-products → the penalized least-squares problem by sparse Cholesky factorization (CHOLMOD).

One symbolic analysis on the structural pattern, one numeric refactorization in place per θ. The
factor is the only thing that changes; it never leaves the system. Threads take turns at it, and at
the copies of it: these share CHOLMOD's workspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, ClassVar, Protocol

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.options import one_of
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.points import GeneralPoint
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import PLSSolution, eliminate
from lmmsparse.engine.solvers.cholesky import SparseCholesky
from lmmsparse.engine.solvers.libraries import analyze, library, require_cholmod
from lmmsparse.engine.solvers.pattern import MPattern
from lmmsparse.engine.solvers.selected_inverse import SelectedInverse

_ORDERINGS = ("auto", "amd", "metis", "nesdis", "natural")
_MODES = ("auto", "simplicial", "supernodal")
_METIS_PAYS_ABOVE = 1e7  # operations; analysing with METIS costs as much as several of these
_THIN = 200.0  # operations per element of L
_SIMPLICIAL_UP_TO = 6e7


@checked_construction
@dataclass(frozen=True)
class Cholmod:
    """Sparse Cholesky factorization of M by CHOLMOD: of scikit-sparse, without it of cvxopt.

    Parameters
    ----------
    ordering : {"auto", "amd", "metis", "nesdis", "natural"}
        Fill-reducing ordering. ``"auto"`` analyses with AMD and, where that leaves many operations,
        with METIS too, and keeps the one that needs fewer.
    mode : {"auto", "simplicial", "supernodal"}
        CHOLMOD's kind of factorization. ``"auto"`` is CHOLMOD's own choice, but simplicial where
        columns of the factor hardly repeat each other.

    Raises
    ------
    OptionError
        For any other value.
    MissingPackageError
        If neither scikit-sparse nor cvxopt can be used, or an ordering that cvxopt lacks is asked
        of it.

    References
    ----------
    Chen, Davis, Hager & Rajamanickam (2008), ACM Transactions on Mathematical Software 35, 22.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> m = lmm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin"),
    ...              solver=lmm.Cholmod(ordering="amd"))
    >>> round(m.reml_criterion, 4)
    330.8606
    """

    known_covariances: ClassVar[bool] = True
    ordering: str = "auto"
    mode: str = "auto"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("ordering", self.ordering, _ORDERINGS),
            ("mode", self.mode, _MODES),
        ):
            one_of(name, value, allowed)
        require_cholmod(self.ordering)

    def build(self, products: CrossProducts, template: LambdaTemplate) -> CholmodSystem:
        """Analyse the pattern of M once and return the system that refactors it per θ."""
        return CholmodSystem(products, template, self)

    def analyze(self, lower: sp.csc_matrix, several: bool = True) -> tuple[SparseCholesky, str]:
        """Factor of M's pattern and what to call it; `several` terms may need another ordering."""
        amd, title = "amd", f"CHOLMOD ({library()}) sparse Cholesky, {{}} ordering"
        if self.ordering != "auto":
            return analyze(lower, self.ordering, self.mode), title.format(self.ordering)
        first = analyze(lower, amd, self.mode)
        if not several:
            return first, title.format(amd)
        operations, stored = _size(first, lower)
        thin = operations < _THIN * stored and operations < _SIMPLICIAL_UP_TO
        if self.mode == "auto" and thin:
            # Columns of L hardly repeat each other: supernodes would be small.
            return analyze(lower, amd, "simplicial"), title.format(amd)
        if operations >= _METIS_PAYS_ABOVE and library() != "cvxopt":  # which has none
            second = analyze(lower, "metis", self.mode)
            if _size(second, lower)[0] < operations:
                return second, title.format("metis")
        return first, title.format(amd)


class SparseSolver(Protocol):
    """A solver that chooses the sparse factor of M."""

    def analyze(self, lower: sp.csc_matrix, several: bool = True) -> tuple[SparseCholesky, str]:
        """Factor of M's pattern, given by its lower triangle, and what to call it."""
        ...


class _Workspace:
    """What is overwritten from θ to θ, by all systems of one pattern in turn.

    Attributes
    ----------
    matrix : csc_matrix
        The lower triangle of M.
    products, theta : CrossProducts or None, (n_theta,) array
        Of what `factor` is; None while it is being made.
    inversion : Inversion or None
        Made when it is first needed.
    """

    def __init__(self, matrix: sp.csc_matrix, factor: SparseCholesky) -> None:
        self.matrix, self.factor = matrix, factor
        self.products: CrossProducts | None = None
        self.theta: FloatArray = np.zeros(0)
        self.inversion: Inversion | None = None
        self.lock = Lock()


class CholmodSystem:
    """`PLSSystem` on a sparse factor, CHOLMOD's or another, that is overwritten per θ."""

    def __init__(
        self, products: CrossProducts, template: LambdaTemplate, options: SparseSolver
    ) -> None:
        self._products = products
        self._template = template
        self._options = options
        self._pattern = MPattern(products)
        data = self._pattern.values(products, [np.eye(k) for k in products.sizes])
        matrix: sp.csc_matrix = self._pattern.matrix(data)
        factor, self._title = options.analyze(
            matrix, len(products.sizes) > 1 or bool(products.priors)
        )
        self._work = _Workspace(matrix, factor)

    def __reduce__(self) -> tuple[Any, ...]:
        return (CholmodSystem, (self._products, self._template, self._options))

    def describe(self) -> str:
        return (
            f"{self._title}, q = {self._products.q}, "
            f"{self._pattern.nnz} stored elements in the lower triangle of M"
        )

    def _factorized(self, theta: FloatArray, factors: list[FloatArray]) -> SparseCholesky:
        """The factor at θ; to be called, and used, with the lock held."""
        work = self._work
        if work.products is not self._products or not np.array_equal(work.theta, theta):
            work.products = None
            work.matrix.data[:] = self._pattern.values(self._products, factors)
            work.factor.factorize(work.matrix)
            work.products, work.theta = self._products, theta.copy()
        return work.factor

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        factors = self._template.shifted_factors(theta)
        border = np.empty((self._products.q, self._products.p + 1), order="F")
        border[:, :-1] = self._products.ZtX
        border[:, -1] = response.Zty
        border = self._template.multiply_transposed(factors, border)
        with self._work.lock:
            factor = self._factorized(theta, factors)
            C, logdet = factor.half_solve(border), factor.logdet()
        return eliminate(logdet, C.T @ C, self._products, response)

    def factor(self, theta: FloatArray) -> CholmodFactor:
        factors = self._template.shifted_factors(theta)
        with self._work.lock:
            factor = self._factorized(theta, factors)
            if self._work.inversion is None:
                self._work.inversion = Inversion(factor, self._pattern)
            return CholmodFactor(factor.copy(), self._work.inversion, self._work.lock)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> GeneralPoint:
        return GeneralPoint(self, self._products, self._template, theta, response, reml, sigma2)

    def with_products(self, products: CrossProducts) -> CholmodSystem:
        out = object.__new__(CholmodSystem)  # a copy would be built anew, as a pickle is
        out.__dict__.update(self.__dict__)
        out._products = products
        return out


def _size(factor: SparseCholesky, matrix: sp.csc_matrix) -> tuple[float, float]:
    """Multiplications of one factorization (of which this is the first), and elements of L."""
    factor.factorize(matrix)
    counts = np.diff(factor.lower().indptr).astype(np.float64)
    return float(counts @ counts), float(counts.sum())


class Inversion:
    """Where the elements of M⁻¹ on M's pattern stand in the selected inverse (symbolic, once)."""

    def __init__(self, factor: SparseCholesky, pattern: MPattern) -> None:
        self._pattern = pattern
        L = factor.lower()
        self._selected = SelectedInverse(L.indptr, L.indices)
        position = np.empty(L.shape[0], dtype=np.intp)
        position[factor.permutation()] = np.arange(L.shape[0])
        columns = np.repeat(np.arange(L.shape[0]), np.diff(pattern.indptr))
        a, b = position[pattern.indices], position[columns]
        low, high = np.minimum(a, b), np.maximum(a, b)
        # Keys of L's pattern ascend with storage order, so that one search finds every element.
        q = np.int64(L.shape[0])
        stored = np.repeat(np.arange(q), np.diff(L.indptr)) * q + L.indices
        self._places: IntArray = np.searchsorted(stored, low * q + high)

    def blocks(self, L: sp.csc_matrix) -> list[FloatArray]:
        inverse = self._selected(L.data)
        return self._pattern.blocks(inverse[self._places])


class CholmodFactor:
    """`PLSFactor` that owns its factor."""

    def __init__(self, factor: SparseCholesky, inversion: Inversion, lock: Lock) -> None:
        self._factor = factor
        self._inversion = inversion
        self._lock = lock

    @cached_property
    def logdet(self) -> float:
        with self._lock:
            return self._factor.logdet()

    def solve(self, b: FloatArray) -> FloatArray:
        with self._lock:
            return self._factor.solve(b)

    def inverse_blocks(self) -> list[FloatArray]:
        with self._lock:
            L = self._factor.lower()
        return self._inversion.blocks(L)
