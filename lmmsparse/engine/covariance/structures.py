"""θ → the relative covariance factor Λ(θ): one k × k lower-triangular T per term and level.

A structure maps its own parameters to T and knows the derivative of T; `LambdaTemplate` strings the
terms together. Parameters of a term are contiguous in θ, terms in the order of the design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, frozen
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.covariance.correlated import AR1, CompoundSymmetry

_ONE_PRODUCT_UP_TO = 16


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

    @property
    def n_par(self) -> int:
        return self.k * (self.k + 1) // 2

    @cached_property
    def _columns(self) -> IntArray:
        return np.concatenate([np.full(self.k - c, c) for c in range(self.k)]).astype(np.intp)

    @cached_property
    def _rows(self) -> IntArray:
        return np.concatenate([np.arange(c, self.k) for c in range(self.k)]).astype(np.intp)

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return tuple((int(r), int(c)) for r, c in zip(self._rows, self._columns, strict=True))

    @property
    def labels(self) -> tuple[str, ...]:
        return ("",) * self.n_par

    @property
    def correlated(self) -> bool:
        return self.k > 1

    @property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(np.flatnonzero(self._columns == c).tolist()) for c in range(self.k))

    def start(self) -> FloatArray:
        return np.asarray(self._rows == self._columns, dtype=np.float64)

    def lower(self) -> FloatArray:
        return np.where(self._rows == self._columns, 0.0, -np.inf)

    def upper(self) -> FloatArray:
        return np.full(self.n_par, np.inf)

    def factor(self, par: FloatArray) -> FloatArray:
        T = np.zeros((self.k, self.k))
        T[self._rows, self._columns] = par
        return T

    def derivative(self, par: FloatArray) -> FloatArray:
        D = np.zeros((self.n_par, self.k, self.k))
        D[np.arange(self.n_par), self._rows, self._columns] = 1.0
        return D

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


def make_structure(name: str, k: int, hom: bool | None) -> CovarianceStructure:
    """Return the structure a formula's tag names, for a term with k effects per level.

    Raises
    ------
    OptionError
        If there is no such structure.
    """
    if name == "us" or (name == "diag" and k == 1):
        return Unstructured(k)
    if name == "diag":
        return Diagonal(k, hom=bool(hom))
    if name not in ("cs", "ar1"):
        raise OptionError(
            f"The covariance structure {name}() does not exist. Terms can be us(x | g), "
            "diag(x | g), cs(x | g) or ar1(x | g). Write the term in one of these ways."
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


@dataclass(frozen=True, eq=False)
class LambdaTemplate:
    """The pattern of Λ(θ): structures and numbers of levels of all terms, in the design's order.

    Parameters
    ----------
    structures : sequence of CovarianceStructure
        One per term.
    n_levels : sequence of int
        Levels of each term's grouping factor.
    held : sequence of (int, float)
        Positions in θ that are not varied, and their values; start and both bounds are there.
    shifts : sequence of (k, k) array or None, optional
        Per term S with Z = Z̃S, where cross-products are taken of shifted columns Z̃; Zb = Z̃(Sb).
    """

    structures: tuple[CovarianceStructure, ...]
    n_levels: tuple[int, ...]
    held: tuple[tuple[int, float], ...] = ()
    shifts: tuple[FloatArray | None, ...] = ()

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each term's parameters stand in θ."""
        ends = np.cumsum([0, *(s.n_par for s in self.structures)])
        return tuple(slice(int(a), int(b)) for a, b in pairwise(ends))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First element of b of each term, and q at the end; (terms + 1,)."""
        sizes = [s.k * n for s, n in zip(self.structures, self.n_levels, strict=True)]
        return tuple(int(v) for v in np.cumsum([0, *sizes]))

    @property
    def n_theta(self) -> int:
        return self.slices[-1].stop if self.slices else 0

    @property
    def q(self) -> int:
        return self.offsets[-1]

    @cached_property
    def free(self) -> BoolArray:
        """Which elements of θ are estimated, (n_theta,)."""
        out = np.ones(self.n_theta, dtype=bool)
        out[[i for i, _ in self.held]] = False
        return frozen(out)

    @cached_property
    def places(self) -> tuple[tuple[IntArray, IntArray], ...]:
        """Per term, row and column in T of every parameter, (n_par,) each."""
        own = (np.array(s.entries, dtype=np.intp).reshape(-1, 2) for s in self.structures)
        return tuple((frozen(entries[:, 0]), frozen(entries[:, 1])) for entries in own)

    @cached_property
    def has_limits(self) -> bool:
        """Whether any parameter has a bound that no change of sign makes unnecessary."""
        return any(np.isfinite(s.upper()).any() for s in self.structures)

    def with_held(self, theta: FloatArray) -> FloatArray:
        """θ with what is held at its values."""
        out = np.array(theta, dtype=np.float64)
        for i, value in self.held:
            out[i] = value
        return out

    @cached_property
    def start(self) -> FloatArray:
        return frozen(self.with_held(np.concatenate([s.start() for s in self.structures])))

    @cached_property
    def lower(self) -> FloatArray:
        return frozen(self.with_held(np.concatenate([s.lower() for s in self.structures])))

    @cached_property
    def upper(self) -> FloatArray:
        return frozen(self.with_held(np.concatenate([s.upper() for s in self.structures])))

    @cached_property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        """Sets of positions in θ whose signs can be flipped together without changing ΛΛ'."""
        groups = (
            tuple(sl.start + i for i in group)
            for s, sl in zip(self.structures, self.slices, strict=True)
            for group in s.mirrors
        )
        held = dict(self.held)
        # An element held at another value than zero cannot flip, nor then can those with it.
        return tuple(
            tuple(i for i in group if i not in held)
            for group in groups
            if group[0] not in held and not any(held.get(i, 0.0) for i in group)
        )

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        """T of every term at θ, each (k, k)."""
        return [s.factor(theta[sl]) for s, sl in zip(self.structures, self.slices, strict=True)]

    def shifted_factors(self, theta: FloatArray) -> list[FloatArray]:
        """ST of every term at θ, each (k, k): what goes with cross-products of shifted columns."""
        return [self.shifted(t, T) for t, T in enumerate(self.factors(theta))]

    def shifted(self, t: int, T: FloatArray) -> FloatArray:
        """S times T, or a stack of such, for term t."""
        S = self.shifts[t] if self.shifts else None
        return T if S is None else np.matmul(S, T)

    def unshifted(self, t: int, F: FloatArray) -> FloatArray:
        """S'FS of term t: a derivative by STT'S' as one by TT'."""
        S = self.shifts[t] if self.shifts else None
        return F if S is None else S.T @ F @ S

    def Lambda(self, theta: FloatArray) -> sp.csc_array:
        """Λ(θ) as a sparse (q, q) matrix, one diagonal block per level."""
        return self.block_diagonal(self.factors(theta))

    def block_diagonal(self, factors: Sequence[FloatArray]) -> sp.csc_array:
        """One (k, k) block per level and term, sparse (q, q)."""
        blocks = [
            sp.kron(sp.eye_array(n), sp.csc_array(T), format="csc")
            for T, n in zip(factors, self.n_levels, strict=True)
        ]
        return sp.csc_array(sp.block_diag(blocks, format="csc"))

    def multiply(self, factors: Sequence[FloatArray], b: FloatArray) -> FloatArray:
        """Λ b for b of shape (q, m) or (q,), with the T of each term given."""
        return self._blockwise(factors, b)

    def multiply_transposed(self, factors: Sequence[FloatArray], b: FloatArray) -> FloatArray:
        """Λ' b for b of shape (q, m) or (q,), with the T of each term given."""
        return self._blockwise([T.T for T in factors], b)

    def _blockwise(self, factors: Sequence[FloatArray], b: FloatArray) -> FloatArray:
        out = np.empty_like(b)
        columns = b.shape[1] if b.ndim > 1 else 1
        for T, n, (a, z) in zip(factors, self.n_levels, pairwise(self.offsets), strict=True):
            k = T.shape[0]
            if k == 1:
                np.multiply(b[a:z], T[0, 0], out=out[a:z])
            elif k * columns <= _ONE_PRODUCT_UP_TO:
                # One product of long and small matrices instead of one small product per level.
                wide = T.T[:, None, :, None] * np.eye(columns)[:, None, :]
                flat = b[a:z].reshape(n, k * columns)
                out[a:z] = (flat @ wide.reshape(k * columns, k * columns)).reshape(out[a:z].shape)
            else:
                out[a:z] = np.matmul(T, b[a:z].reshape(n, k, columns)).reshape(out[a:z].shape)
        return out
