"""p-values and limits of several comparisons, adjusted for how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import (
    studentized_range_quantile,
    studentized_range_tail,
    t_quantile,
    t_tail,
)
from lmmsparse.common.options import word_of

_METHODS = ("tukey", "holm", "bonferroni", "sidak", "fdr", "none")
_NAMES = {
    "tukey": "Tukey's method",
    "holm": "Holm's method",
    "bonferroni": "Bonferroni's method",
    "sidak": "Šidák's method",
    "fdr": "Benjamini and Hochberg's method",
}
# Methods that look at all p-values together have no limits of their own.
_LIMITS = {"holm": "bonferroni", "fdr": "bonferroni"}


def check_adjust(adjust: Any) -> str:
    """The name of a method; None is none."""
    if adjust is None:
        return "none"
    why = "It says how p-values and limits allow for the number of comparisons."
    return word_of("adjust", adjust, tuple(_METHODS), why)


def method_for(adjust: str, pairs: bool) -> str:
    """The method that is used: Tukey's is for all pairs, Šidák's takes its place elsewhere."""
    return "sidak" if adjust == "tukey" and not pairs else adjust


def adjusted_p(t: FloatArray, df: FloatArray, adjust: str, means: int) -> FloatArray:
    """Two-sided p-values of one family of comparisons.

    Parameters
    ----------
    t, df : (m,) array
        NaN for comparisons that are not estimable, which do not count.
    adjust : str
    means : int
        How many means are compared, for Tukey's method.
    """
    if adjust == "tukey" and means > 2:
        return studentized_range_tail(np.sqrt(2.0) * np.abs(t), means, df)
    p = np.asarray(2.0 * t_tail(np.abs(t), df))
    m = int(np.sum(~np.isnan(p)))
    if adjust == "bonferroni":
        return np.asarray(np.minimum(1.0, p * m))
    if adjust == "sidak":
        return np.asarray(-np.expm1(m * np.log1p(-np.minimum(p, 1.0))))
    if adjust not in ("holm", "fdr"):
        return p
    out = np.full(len(p), np.nan)
    order = np.argsort(p)[:m]
    rank = np.arange(1, m + 1)
    if adjust == "holm":
        steps = np.maximum.accumulate(p[order] * (m + 1 - rank))
    else:
        steps = np.minimum.accumulate((p[order] * m / rank)[::-1])[::-1]
    out[order] = np.minimum(1.0, steps)
    return out


def critical_value(
    df: FloatArray, level: float, adjust: str, means: int, comparisons: int
) -> FloatArray:
    """How many standard errors the limits of comparisons are away, (m,)."""
    adjust = _LIMITS.get(adjust, adjust)
    if adjust == "tukey" and means > 2:
        return np.asarray(studentized_range_quantile(level, means, df) / np.sqrt(2.0))
    if adjust == "bonferroni":
        level = 1.0 - (1.0 - level) / max(comparisons, 1)
    elif adjust == "sidak":
        level = level ** (1.0 / max(comparisons, 1))
    return t_quantile(0.5 + level / 2.0, df)


def adjustment_notes(
    asked: str, used: str, means: list[int], comparisons: list[int], what: str
) -> list[str]:
    """What a table says of the adjustment; nothing for single comparisons.

    Parameters
    ----------
    asked, used : str
    means, comparisons : list of int
        Of every group.
    what : str
        What is compared: means or slopes.
    """
    if max(comparisons, default=0) < 2:
        return []
    if used == "none":
        return ["p-values and limits are not adjusted."]
    counted, of = (means, what) if used == "tukey" else (comparisons, "comparisons")
    numbers = sorted(set(counted))
    number = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    each = " in each group" if len(means) > 1 else ""
    adjusted = "p-values" if used in _LIMITS else "p-values and limits"
    notes = [f"{adjusted} adjusted by {_NAMES[used]} for {number} {of}{each}."]
    if used in _LIMITS:
        notes.append("Limits adjusted by Bonferroni's method.")
    if asked != used:
        notes.append("Tukey's method is for all pairs only.")
    return notes
