"""Standard deviations and one correlation → the relative covariance factor T of a term.

The covariance T T' = S C S has the standard deviations S = diag(s) and a correlation matrix C(ρ),
either compound symmetry (every correlation is ρ) or first-order autoregression (ρ^|i − j|).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray

# At its bounds C is singular, and a diagonal of its Cholesky factor has an infinite slope. Squares
# of such diagonals are kept above this: Λ is exact to 1e-12, and T ∂T' has its finite limit.
_FLOOR = 1e-12


@dataclass(frozen=True)
class _Correlated:
    """What both structures share; parameters are the standard deviations, then ρ.

    Parameters
    ----------
    k : int
        Number of random effects per level, at least 2.
    hom : bool
        Whether all effects share one standard deviation.
    """

    k: int
    hom: bool
    linear: ClassVar[bool] = False
    closed: ClassVar[bool] = False

    @property
    def n_sd(self) -> int:
        return 1 if self.hom else self.k

    @property
    def n_par(self) -> int:
        return self.n_sd + 1

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        return (*((i, i) for i in range(self.n_sd)), (1, 0))

    @property
    def labels(self) -> tuple[str, ...]:
        return (*(("sd",) if self.hom else ("",) * self.k), "rho")

    @property
    def correlated(self) -> bool:
        return True

    @property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        return ((0,),) if self.hom else ()

    def start(self) -> FloatArray:
        return np.append(np.ones(self.n_sd), 0.0)

    def lower(self) -> FloatArray:
        return np.append(np.zeros(self.n_sd), self._lowest)

    def upper(self) -> FloatArray:
        return np.append(np.full(self.n_sd, np.inf), 1.0)

    def standardizer(self, inverse: FloatArray) -> FloatArray:
        sizes = np.diag(inverse)
        if self.hom:
            sizes = np.array([np.exp(np.mean(np.log(sizes)))])
        return np.diag(np.append(sizes, 1.0))

    def factor(self, par: FloatArray) -> FloatArray:
        return np.asarray(self._sd(par)[:, None] * self._cholesky(float(par[-1]))[0])

    def derivative(self, par: FloatArray) -> FloatArray:
        L, slope = self._cholesky(float(par[-1]))
        D = np.zeros((self.n_par, self.k, self.k))
        if self.hom:
            D[0] = L
        else:
            i = np.arange(self.k)
            D[i, i] = L
        D[-1] = self._sd(par)[:, None] * slope
        return D

    def curvature(self, par: FloatArray, F: FloatArray) -> FloatArray:
        s = self._sd(par)
        C, first, second = self._correlation(float(par[-1]))
        H = np.empty((self.n_par, self.n_par))
        ss, mixed = 2.0 * F * C, 2.0 * (F * first) @ s
        H[:-1, :-1] = ss.sum() if self.hom else ss
        H[:-1, -1] = H[-1, :-1] = mixed.sum() if self.hom else mixed
        H[-1, -1] = s @ (F * second) @ s
        return H

    def spans(self, par: FloatArray) -> FloatArray:
        G = np.matmul(self.derivative(par), self.factor(par).T)
        return np.asarray(G + np.swapaxes(G, 1, 2))

    def _sd(self, par: FloatArray) -> FloatArray:
        return np.broadcast_to(par[:-1], (self.k,))

    @property
    def _lowest(self) -> float:
        raise NotImplementedError

    def _cholesky(self, rho: float) -> tuple[FloatArray, FloatArray]:
        """The lower Cholesky factor of C and its derivative by ρ."""
        raise NotImplementedError

    def _correlation(self, rho: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """C with its first and second derivatives by ρ."""
        raise NotImplementedError


@dataclass(frozen=True)
class CompoundSymmetry(_Correlated):
    """Every two effects have the same correlation ρ ∈ [−1/(k − 1), 1].

    Parameters
    ----------
    k : int
        Number of random effects per level, at least 2.
    hom : bool
        Whether all effects share one standard deviation.

    Notes
    -----
    Column m = 0, 1, … of the Cholesky factor of C has the diagonal d with
    d² = (1 − ρ)(1 + mρ) / (1 + (m − 1)ρ) and below it everywhere ρ(1 − ρ) / ((1 + (m − 1)ρ) d).

    Examples
    --------
    >>> T = CompoundSymmetry(3, hom=True).factor(np.array([2.0, 0.5]))
    >>> (T @ T.T).round(12)
    array([[4., 2., 2.],
           [2., 4., 2.],
           [2., 2., 4.]])
    """

    hom: bool = False
    tag: ClassVar[str] = "cs"

    @property
    def _lowest(self) -> float:
        return -1.0 / (self.k - 1)

    def _cholesky(self, rho: float) -> tuple[FloatArray, FloatArray]:
        L, slope = np.zeros((self.k, self.k)), np.zeros((self.k, self.k))
        L[:, 0] = rho
        L[0, 0] = 1.0
        slope[1:, 0] = 1.0
        a = max(1.0 - rho, _FLOOR)
        for m in range(1, self.k):
            b, c = max(1.0 + m * rho, _FLOOR), max(1.0 + (m - 1) * rho, _FLOOR)
            d, below = np.sqrt(a * b / c), np.sqrt(a / (b * c))
            L[m, m] = d
            slope[m, m] = 0.5 * d * (-1.0 / a + m / b - (m - 1) / c)
            L[m + 1 :, m] = rho * below
            slope[m + 1 :, m] = below + 0.5 * rho * below * (-1.0 / a - m / b - (m - 1) / c)
        return L, slope

    def _correlation(self, rho: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        first = 1.0 - np.eye(self.k)
        return rho * first + np.eye(self.k), first, np.zeros((self.k, self.k))


@dataclass(frozen=True)
class AR1(_Correlated):
    """Effects in a sequence; those d steps apart have the correlation ρ^d.

    Parameters
    ----------
    k : int
        Number of random effects per level, at least 2.
    hom : bool
        Whether all effects share one standard deviation.
    at : tuple of int, optional
        Increasing positions of the effects in the sequence; 0, 1, … if not given.

    Notes
    -----
    The Cholesky factor of C has ρ^(i − i₀) in its first column and √(1 − ρ^2s) ρ^(i − j) in the
    others, with the positions i of a row and j of a column and the step s before j.

    Examples
    --------
    >>> T = AR1(3).factor(np.array([2.0, 0.5]))
    >>> (T @ T.T).round(12)
    array([[4., 2., 1.],
           [2., 4., 2.],
           [1., 2., 4.]])
    """

    hom: bool = True
    at: tuple[int, ...] | None = None
    tag: ClassVar[str] = "ar1"

    def __post_init__(self) -> None:
        if self.at is not None and (len(self.at) != self.k or np.any(np.diff(self.at) <= 0)):
            raise ValueError(f"{self.k} increasing positions expected, not {self.at!r:.80}")

    @property
    def shortest(self) -> int:
        """The shortest step between two effects."""
        return int(np.diff(self._places).min())

    def start(self) -> FloatArray:
        """No correlation, or 1/2 over the shortest step: over several, ρ = 0 is a flat place."""
        rho = 0.0 if self.shortest == 1 else 0.5 ** (1.0 / self.shortest)
        return np.append(np.ones(self.n_sd), rho)

    @property
    def _lowest(self) -> float:
        return -1.0

    @property
    def _places(self) -> IntArray:
        return np.arange(self.k) if self.at is None else np.array(self.at, dtype=np.intp)

    def _cholesky(self, rho: float) -> tuple[FloatArray, FloatArray]:
        places = self._places
        steps = np.subtract.outer(places, places)
        below = steps >= 0
        power, first, _ = _powers(rho, np.where(below, steps, 0))
        before = np.diff(places, prepend=places[0] - 1)
        square, slope_of_square, _ = _powers(rho, 2 * before)
        root = np.sqrt(np.maximum(1.0 - square, _FLOOR))
        L = np.where(below, power * root, 0.0)
        slope = np.where(below, first * root - 0.5 * power * slope_of_square / root, 0.0)
        L[:, 0], slope[:, 0] = power[:, 0], first[:, 0]
        return L, slope

    def _correlation(self, rho: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        return _powers(rho, np.abs(np.subtract.outer(self._places, self._places)))


def _powers(rho: float, e: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """ρ^e with its first and second derivatives by ρ, for whole e ≥ 0."""
    first = e * rho ** np.maximum(e - 1, 0)
    second = e * (e - 1) * rho ** np.maximum(e - 2, 0)
    return np.asarray(rho**e, dtype=np.float64), first, second
