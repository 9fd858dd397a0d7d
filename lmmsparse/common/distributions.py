"""Tail probabilities, quantiles and draws of the distributions that inference and plots need.

Straight from `scipy.special`: importing `scipy.stats` takes as long as all the rest together, and
its general machinery a hundred times as long per call. The numbers are the same. What only
`scipy.stats` has is imported when it is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from lmmsparse.common.arrays import FloatArray

_HALF_LOG_2PI = 0.5 * np.log(2.0 * np.pi)


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
    """P(Q > q) for the studentized range of `means` means; NaN where `q` or `df` is NaN."""
    q, df = np.broadcast_arrays(np.asarray(q, dtype=np.float64), np.asarray(df, dtype=np.float64))
    each = [_range_tail(float(a), means, float(b)) for a, b in zip(q.flat, df.flat, strict=True)]
    return np.array(each, dtype=np.float64).reshape(q.shape)


def _range_tail(q: float, means: int, df: float) -> float:
    """The integral of the tail of the range of normal means over the standard deviation's law."""
    if np.isnan(q) or np.isnan(df):
        return np.nan
    if df > 1e8:
        return float(np.clip(_normal_range_tail(np.array([q]), means)[0], 0.0, 1.0))
    if df < 1.0:  # whose density is infinite at zero
        from scipy import stats

        return float(stats.studentized_range.sf(q, means, df))
    low = max(0.0, 1.0 - 10.0 / np.sqrt(2.0 * df))
    high = float(np.sqrt(special.chdtri(df, 1e-17) / df))
    x, w = _legendre()
    # Towards zero the density is a power that need not be whole: a fourth power makes it smooth.
    power = 1 if low > 0 else 4
    v = (x + 1.0) / 2.0
    s = low + (high - low) * v**power
    h = df / 2.0
    # Log density of the standard deviation, without the large terms that cancel: Stirling's series.
    rest = 1 / (12 * h) - 1 / (360 * h**3) + 1 / (1260 * h**5)
    rest = rest if h > 25 else special.gammaln(h) - (h - 0.5) * np.log(h) + h - _HALF_LOG_2PI
    log_density = np.log(2.0) + 0.5 * np.log(h) - _HALF_LOG_2PI - rest
    log_density = log_density + h * (1.0 - s**2 + 2.0 * np.log(s)) - np.log(s)
    density = np.exp(log_density) * w * (high - low) * power * v ** (power - 1) / 2.0
    return float(np.clip(density @ _normal_range_tail(q * s, means), 0.0, 1.0))


def _normal_range_tail(w: FloatArray, means: int) -> FloatArray:
    """P(range of independent standard normals > w), (m,)."""
    x, weights = _legendre()
    z = 8.5 * x
    density = 8.5 * weights * normal_density(z)
    above = special.ndtr(z)
    inside = above - special.ndtr(z - w[:, None])
    return np.asarray(means * ((above ** (means - 1) - inside ** (means - 1)) @ density))


@cache
def _legendre() -> tuple[FloatArray, FloatArray]:
    """Nodes and weights on (−1, 1)."""
    x, w = np.polynomial.legendre.leggauss(160)
    return np.asarray(x), np.asarray(w)


def studentized_range_quantile(p: float, means: int, df: npt.ArrayLike) -> FloatArray:
    """The q with P(Q ≤ q) = p for the studentized range; NaN where `df` is NaN."""
    df = np.asarray(df, dtype=np.float64)
    found: dict[str, float] = {"nan": np.nan}
    keys = [f"{own:.12g}" for own in df.flat]
    for key in keys:
        if key not in found:
            found[key] = _range_quantile(p, means, float(key))
    return np.array([found[key] for key in keys], dtype=np.float64).reshape(df.shape)


def _range_quantile(p: float, means: int, df: float) -> float:
    # Between a single comparison and Bonferroni's bound for all of them.
    pairs = means * (means - 1) / 2
    low, high = (np.sqrt(2.0) * t_quantile(1.0 - (1.0 - p) / 2.0 / m, df) for m in (1, pairs))
    a, b = 0.999 * float(low), 1.001 * float(high)
    fa, fb = (_range_tail(q, means, df) - (1.0 - p) for q in (a, b))
    q = a
    for _ in range(200):  # Regula falsi that halves the end which stays (Illinois)
        q = (a * fb - b * fa) / (fb - fa)
        f = _range_tail(q, means, df) - (1.0 - p)
        if abs(f) <= 1e-14 or abs(b - a) <= 1e-12 * q:
            break
        if f * fb < 0:
            a, fa = b, fb
        else:
            fa = fa / 2.0
        b, fb = q, f
    return q


def sobol_normals(dimensions: int, count: int) -> FloatArray:
    """2^count standard normal vectors that fill space evenly, the same ones every time."""
    from scipy.stats import qmc

    uniform = qmc.Sobol(dimensions, seed=1).random_base2(count)
    return normal_quantile(np.clip(uniform, 1e-12, 1.0 - 1e-12))


def kernel_density(values: FloatArray) -> Any:
    """A Gaussian kernel density, scipy's `gaussian_kde`."""
    from scipy.stats import gaussian_kde

    return gaussian_kde(values)
