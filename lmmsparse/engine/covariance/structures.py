"""θ → the relative covariance factor Λ(θ): one k × k lower-triangular T per term and level.

A structure maps its own parameters to T and knows the derivative of T; `LambdaTemplate` strings the
terms together. Parameters of a term are contiguous in θ, terms in the order of the design.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import ClassVar, Protocol

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray, frozen
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.covariance.correlated import AR1, CompoundSymmetry


class CovarianceStructure(Protocol):
    """How the parameters of one term make its k × k relative covariance factor T.

    Attributes
    ----------
    k : int
        Number of random effects per level.
    n_par : int
        Number of parameters.
    entries : tuple of (int, int)
        Row and column of T that each parameter is named after.
    """

    @property
    def k(self) -> int: ...
    @property
    def n_par(self) -> int: ...
    @property
    def entries(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def labels(self) -> tuple[str, ...]:
        """What to call each parameter; empty where its entry of T says it."""
        ...

    @property
    def tag(self) -> str:
        """How a formula names it."""
        ...

    @property
    def hom(self) -> bool:
        """Whether all effects share one standard deviation."""
        ...

    @property
    def linear(self) -> bool:
        """Whether `spans` is the same everywhere, so that covariances add up to others."""
        ...

    @property
    def closed(self) -> bool:
        """Whether any covariance matrix is of the form, so that a change of basis keeps it."""
        ...

    @property
    def correlated(self) -> bool:
        """Whether correlations are parameters."""
        ...

    @property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        """Groups of parameters whose signs may be flipped together, the one kept ≥ 0 first.

        The bounds of a parameter in no group are limits that a search has to keep.
        """
        ...

    def start(self) -> FloatArray: ...
    def lower(self) -> FloatArray: ...
    def upper(self) -> FloatArray: ...
    def factor(self, par: FloatArray) -> FloatArray:
        """T, shape (k, k), lower triangular."""
        ...

    def derivative(self, par: FloatArray) -> FloatArray:
        """∂T/∂par, shape (n_par, k, k)."""
        ...

    def curvature(self, par: FloatArray, F: FloatArray) -> FloatArray:
        """Second derivatives of tr(F T T') for a symmetric F (k, k), shape (n_par, n_par)."""
        ...

    def spans(self, par: FloatArray) -> FloatArray:
        """Derivatives of T T' by parameters that span its form, (parameters, k, k)."""
        ...

    def standardizer(self, inverse: FloatArray) -> FloatArray:
        """The linear map of parameters that takes T to inverse · T, as far as the form allows.

        It is lower triangular, (n_par, n_par), and keeps all bounds.
        """
        ...


@dataclass(frozen=True)
class Unstructured:
    """Any covariance matrix: the free entries of T, column-major lower triangle (lme4's order).

    Parameters
    ----------
    k : int
        Number of random effects per level.

    Examples
    --------
    >>> Unstructured(2).factor(np.array([1.0, 0.5, 2.0]))
    array([[1. , 0. ],
           [0.5, 2. ]])
    """

    k: int
    tag: ClassVar[str] = "us"
    hom: ClassVar[bool] = False
    linear: ClassVar[bool] = True
    closed: ClassVar[bool] = True

    @property
    def n_par(self) -> int:
        return self.k * (self.k + 1) // 2

    @cached_property
    def _columns(self) -> IntArray:
        return np.concatenate([np.full(self.k - c, c) for c in range(self.k)]).astype(np.intp)

    @cached_property
    def _rows(self) -> IntArray:
        return np.concatenate([np.arange(c, self.k) for c in range(self.k)]).astype(np.intp)

    @cached_property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._rows.tolist(), self._columns.tolist(), strict=True))

    @property
    def labels(self) -> tuple[str, ...]:
        return ("",) * self.n_par

    @property
    def correlated(self) -> bool:
        return self.k > 1

    @cached_property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(np.flatnonzero(self._columns == c).tolist()) for c in range(self.k))

    @cached_property
    def _unit(self) -> FloatArray:
        """∂T, the same everywhere."""
        D = np.zeros((self.n_par, self.k, self.k))
        D[np.arange(self.n_par), self._rows, self._columns] = 1.0
        return frozen(D)

    def start(self) -> FloatArray:
        return np.asarray(self._rows == self._columns, dtype=np.float64)

    def lower(self) -> FloatArray:
        return np.where(self._rows == self._columns, 0.0, -np.inf)

    def upper(self) -> FloatArray:
        return np.full(self.n_par, np.inf)

    def factor(self, par: FloatArray) -> FloatArray:
        if self.k == 1:
            return np.array(par, dtype=np.float64, ndmin=2)
        if self.k == 2:
            a, b, c = par.tolist()
            return np.array([[a, 0.0], [b, c]])
        T = np.zeros((self.k, self.k))
        T[self._rows, self._columns] = par
        return T

    def derivative(self, par: FloatArray) -> FloatArray:
        return self._unit

    def curvature(self, par: FloatArray, F: FloatArray) -> FloatArray:
        return _curvature_of_linear(self.derivative(par), F)

    def spans(self, par: FloatArray) -> FloatArray:
        rows, columns = np.tril_indices(self.k)
        E = np.zeros((self.n_par, self.k, self.k))
        E[np.arange(self.n_par), rows, columns] = E[np.arange(self.n_par), columns, rows] = 1.0
        return E

    def standardizer(self, inverse: FloatArray) -> FloatArray:
        moved = np.matmul(inverse, self.derivative(self.start()))
        return np.asarray(moved[:, self._rows, self._columns].T)


@dataclass(frozen=True)
class Diagonal:
    """Uncorrelated effects: one relative standard deviation each, or one for all of them.

    Parameters
    ----------
    k : int
        Number of random effects per level.
    hom : bool
        Whether all effects share one standard deviation.
    """

    k: int
    hom: bool = False
    tag: ClassVar[str] = "diag"
    linear: ClassVar[bool] = True
    closed: ClassVar[bool] = False

    @property
    def n_par(self) -> int:
        return 1 if self.hom else self.k

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return tuple((i, i) for i in range(self.n_par))

    @property
    def labels(self) -> tuple[str, ...]:
        return ("sd",) if self.hom else ("",) * self.k

    @property
    def correlated(self) -> bool:
        return False

    @property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        return tuple((i,) for i in range(self.n_par))

    def start(self) -> FloatArray:
        return np.ones(self.n_par)

    def lower(self) -> FloatArray:
        return np.zeros(self.n_par)

    def upper(self) -> FloatArray:
        return np.full(self.n_par, np.inf)

    def factor(self, par: FloatArray) -> FloatArray:
        return np.diag(np.broadcast_to(par, (self.k,)))

    def derivative(self, par: FloatArray) -> FloatArray:
        if self.hom:
            return np.eye(self.k)[None]
        D = np.zeros((self.k, self.k, self.k))
        i = np.arange(self.k)
        D[i, i, i] = 1.0
        return D

    def curvature(self, par: FloatArray, F: FloatArray) -> FloatArray:
        return _curvature_of_linear(self.derivative(par), F)

    def spans(self, par: FloatArray) -> FloatArray:
        return self.derivative(par)

    def standardizer(self, inverse: FloatArray) -> FloatArray:
        return np.diag(np.diag(inverse)[: self.n_par])


def _curvature_of_linear(D: FloatArray, F: FloatArray) -> FloatArray:
    """2 tr(D_i' F D_j): what is left where T is linear in the parameters."""
    flat = D.reshape(len(D), -1)
    return np.asarray(2.0 * flat @ np.matmul(F, D).reshape(flat.shape).T)


def resized(structure: CovarianceStructure, k: int) -> CovarianceStructure:
    """A structure for k effects: without correlations if the given one has none."""
    if isinstance(structure, Diagonal) and k > 1:
        return replace(structure, k=k)
    return Unstructured(k)


@cache
def make_structure(name: str, k: int, hom: bool | None) -> CovarianceStructure:
    """Return the structure a formula's tag names, for a term with k effects per level."""
    if name == "us" or (name == "diag" and k == 1):
        return Unstructured(k)
    if name == "diag":
        return Diagonal(k, hom=bool(hom))
    if name not in ("cs", "ar1"):
        raise OptionError(
            f"{name}() is not a covariance structure. Write us(x | g), diag(x | g), cs(x | g) or "
            "ar1(x | g)."
        )
    if k == 1:
        raise OptionError(
            f"A term with the covariance structure {name}() has one effect per level only. "
            "Correlations need several: a number has one effect, a factor one per category. Write "
            f"{name}(0 + C(x) | g) to take the values of x as categories."
        )
    if name == "cs":
        return CompoundSymmetry(k, hom=bool(hom))
    return AR1(k, hom=hom is None or hom)
