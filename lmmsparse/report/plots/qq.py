"""`Fit` → normal quantile plots of residuals or random effects, with simultaneous bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.distributions import beta_cdf, beta_quantile, normal_cdf, normal_quantile
from lmmsparse.common.options import check_level
from lmmsparse.fit.fit import Fit
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import BAND, GREY, INK, Axes
from lmmsparse.report.plots.levels import LevelEffects, effects_of
from lmmsparse.report.plots.residuals import StandardResiduals, standard_residuals

_NAMED = 5
_ALL_UP_TO = 1_000
_RANKS = 200
_DRAWS = 2_000


def plot_qq(
    fit: Fit,
    group: str | None,
    level: float,
    ax: Any,
    rng: Any = None,
    given: StandardResiduals | None = None,
) -> Any:
    """Standardized residuals, or random effects divided by their standard deviations."""
    level = check_level(level)
    if group is None:
        own = standard_residuals(fit, rng) if given is None else given
        (ax,) = figure.panels(1, ax, (4.2, 3.8))
        _panel(ax, own.values[np.isfinite(own.values)], level)
        figure.dress(ax, "Normal quantile", own.name)
        return ax
    effects = effects_of(fit, group)
    axes = figure.panels(len(effects.names), ax, (4.0, 3.8))
    for j, each in enumerate(axes):
        effect_panel(
            each, effects, j, level, "Random effect / its standard deviation" if j == 0 else ""
        )
    return figure.one_or_all(axes)


def effect_panel(
    ax: Axes, effects: LevelEffects, j: int, level: float, y: str = "Random effect / its SD"
) -> None:
    """The quantile plot of one effect of a group."""
    name = effects.names[j]
    # Var(b̂) = Var(b) − Var(b | y): what shrinkage leaves.
    variance = effects.variance[:, j] - effects.conditional_sd[:, j] ** 2
    known = variance > 1e-8 * effects.variance[:, j]
    title = f"{name} | {effects.group}"
    if not known.any():
        figure.say(ax, f"{name} does not vary\nbetween levels of {effects.group}.")
        figure.dress(ax, title=title)
        return
    values = effects.modes[known, j] / np.sqrt(variance[known])
    _panel(ax, values, level, list(effects.labels[known]))
    figure.dress(ax, "Normal quantile", y, title)


def _panel(ax: Axes, values: FloatArray, level: float, labels: Sequence[Any] = ()) -> None:
    order = np.argsort(values, kind="stable")
    band = normal_band(len(values), level)
    x, y = band.expected, values[order][band.ranks]
    ax.fill_between(x, band.lower, band.upper, color=BAND, linewidth=0, zorder=0)
    ax.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8, zorder=1)
    ax.scatter(x, y, s=14 if len(x) <= 300 else 6, color=INK, linewidths=0, zorder=2)
    outside = np.flatnonzero((y < band.lower) | (y > band.upper))
    if len(labels):
        beyond = np.maximum(y - band.upper, band.lower - y)[outside]
        for i in outside[np.argsort(-beyond, kind="stable")[:_NAMED]]:
            left = x[i] > 0
            ax.annotate(
                figure.plain(str(labels[order[band.ranks[i]]])), (x[i], y[i]),
                (-5 if left else 5, 0), textcoords="offset points",
                ha="right" if left else "left", va="center", fontsize=8, color="#333333",
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class NormalBand:
    """What ordered standard normal values look like.

    Attributes
    ----------
    ranks : (m,) int array
        The ranks (from 0) that are drawn: all of them, or of many the extremes and a thinned rest.
    expected : (m,) array
        Normal quantiles of the median ranks.
    lower, upper : (m,) arrays
        Limits between which all values of a normal sample lie with the chosen probability.
    """

    ranks: IntArray
    expected: FloatArray
    lower: FloatArray
    upper: FloatArray


def normal_band(n: int, level: float) -> NormalBand:
    """Expected order statistics of n standard normal values and their joint band.

    Parameters
    ----------
    level : float
        Probability that the whole sample lies inside.

    Notes
    -----
    The i-th of n ordered uniform values is Beta(i, n − i + 1). Limits are its quantiles at one
    local level for all ranks, which simulation (with a fixed seed) sets so that the chosen share
    of samples stays inside at every rank: the tail-sensitive band of the reference.

    References
    ----------
    Aldor-Noiman, Brown, Buja, Rolke & Stine (2013), The American Statistician 67, 249-260.
    """
    ranks = _thinned(n, _ALL_UP_TO)
    used = _thinned(n, _RANKS)
    first = used + 1.0
    last = n - used
    local = _local_level(used, n, level)
    lower = normal_quantile(beta_quantile(local / 2.0, first, last))
    upper = -normal_quantile(beta_quantile(local / 2.0, last, first))
    expected = normal_quantile(beta_quantile(0.5, ranks + 1.0, n - ranks))
    at = normal_quantile(beta_quantile(0.5, first, last))
    return NormalBand(
        ranks, expected, np.interp(expected, at, lower), np.interp(expected, at, upper)
    )


def _thinned(n: int, most: int) -> IntArray:
    """About `most` of n ranks: dense at both ends, even in normal quantiles between."""
    if n <= most:
        return np.arange(n)
    ends = most // 4
    edge = normal_quantile((ends + 0.5) / n)
    inner = normal_cdf(np.linspace(edge, -edge, most - 2 * ends)) * (n - 1)
    places = np.concatenate([np.arange(ends), np.round(inner), np.arange(n - ends, n)])
    return np.unique(places.astype(np.intp))


def _local_level(ranks: IntArray, n: int, level: float) -> float:
    """The level at every rank for which the joint level holds over the ranks."""
    rng = np.random.default_rng(0)
    # Ordered uniform values at some ranks only: gaps between them are gamma variables.
    gaps = np.diff([0, *(ranks + 1), n + 1]).astype(np.float64)
    sums = np.cumsum(rng.gamma(gaps, size=(_DRAWS, len(gaps))), axis=1)
    uniform = sums[:, :-1] / sums[:, -1:]
    below = beta_cdf(uniform, ranks + 1.0, n - ranks)
    tails = 2.0 * np.minimum(below, 1.0 - below).min(axis=1)
    return float(np.quantile(tails, 1.0 - level))
