"""Tail probabilities, quantiles and draws of the distributions that inference and plots need.

Straight from `scipy.special`: importing `scipy.stats` takes as long as all the rest together, and
its general machinery a hundred times as long per call. The numbers are the same. What only
`scipy.stats` has is imported when it is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from lmmsparse.common.arrays import FloatArray


def normal_cdf(x: npt.ArrayLike) -> FloatArray:
    """P(Z ≤ x)."""
    return np.asarray(special.ndtr(x))


def normal_density(x: npt.ArrayLike) -> FloatArray:
    """exp(−x²/2)/√(2π)."""
    return np.asarray(np.exp(-0.5 * np.square(x)) / np.sqrt(2.0 * np.pi))


def normal_quantile(p: npt.ArrayLike) -> FloatArray:
    """The x with P(Z ≤ x) = p."""
    return np.asarray(special.ndtri(p))


def t_tail(t: npt.ArrayLike, df: npt.ArrayLike) -> FloatArray:
    """P(T > t) with `df` degrees of freedom, which may be infinite."""
    return np.asarray(special.stdtr(df, -np.asarray(t, dtype=np.float64)))


def t_quantile(p: npt.ArrayLike, df: npt.ArrayLike) -> FloatArray:
    """The t with P(T ≤ t) = p."""
    return np.asarray(special.stdtrit(df, p))


def f_tail(F: npt.ArrayLike, num: npt.ArrayLike, den: npt.ArrayLike) -> FloatArray:
    """P(F(num, den) > F); `den` may be infinite."""
    F, num, den = (np.asarray(a, dtype=np.float64) for a in (F, num, den))
    finite = special.fdtrc(num, np.where(np.isinf(den), 1.0, den), np.maximum(F, 0.0))
    return np.asarray(np.where(np.isinf(den), chi2_tail(num * F, num), finite))


def chi2_tail(x: npt.ArrayLike, df: npt.ArrayLike) -> FloatArray:
    """P(χ² > x); 1 for negative x."""
    return np.asarray(special.chdtrc(df, np.maximum(np.asarray(x, dtype=np.float64), 0.0)))


def chi2_quantile(p: npt.ArrayLike, df: npt.ArrayLike) -> FloatArray:
    """The x with P(χ² ≤ x) = p."""
    return np.asarray(special.chdtri(df, 1.0 - np.asarray(p, dtype=np.float64)))


def beta_cdf(x: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """P(B ≤ x) for B ~ beta(a, b)."""
    return np.asarray(special.betainc(a, b, x))


def beta_quantile(p: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """The x with P(B ≤ x) = p for B ~ beta(a, b)."""
    return np.asarray(special.betaincinv(a, b, p))


def studentized_range_tail(q: npt.ArrayLike, means: int, df: npt.ArrayLike) -> FloatArray:
    """P(Q > q) for the studentized range of `means` means; NaN where `q` is NaN."""
    from scipy import stats

    q, df = np.broadcast_arrays(np.asarray(q, dtype=np.float64), df)
    out = np.full(q.shape, np.nan)
    known = ~np.isnan(q)  # the integral of NaN takes seconds
    out[known] = stats.studentized_range.sf(q[known], means, df[known])
    return out


def sobol_normals(dimensions: int, count: int) -> FloatArray:
    """2^count standard normal vectors that fill space evenly, the same ones every time."""
    from scipy.stats import qmc

    uniform = qmc.Sobol(dimensions, seed=1).random_base2(count)
    return normal_quantile(np.clip(uniform, 1e-12, 1.0 - 1e-12))


def kernel_density(values: FloatArray) -> Any:
    """A Gaussian kernel density, scipy's `gaussian_kde`."""
    from scipy.stats import gaussian_kde

    return gaussian_kde(values)
