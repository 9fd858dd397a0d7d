"""Tail probabilities and quantiles of the normal, t, F and χ² distributions.

Straight from `scipy.special`: importing `scipy.stats` takes as long as all the rest together, and
its general machinery a hundred times as long per call. The numbers are the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from lmmsparse._types import FloatArray


def normal_cdf(x: npt.ArrayLike) -> FloatArray:
    """P(Z ≤ x)."""
    return np.asarray(special.ndtr(x))


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
