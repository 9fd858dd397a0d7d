"""`Fit` → normal quantile plots of residuals or random effects, with simultaneous bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.options import check_level
from lmmsparse.fit.fit import Fit
from lmmsparse.report.plots.bands import normal_band
from lmmsparse.report.plots.figure import (
    BAND,
    GREY,
    INK,
    Axes,
    dress,
    one_or_all,
    panels,
    plain,
    say,
)
from lmmsparse.report.plots.levels import effects_of
from lmmsparse.report.plots.residuals import standardized

_NAMED = 5


def plot_qq(fit: Fit, group: str | None, level: float, ax: Any) -> Any:
    """Standardized residuals, or the random effects of a group over their standard deviations."""
    level = check_level(level)
    if group is None:
        values = standardized(fit)
        (ax,) = panels(1, ax, (4.2, 3.8))
        _panel(ax, values[np.isfinite(values)], level)
        dress(ax, "Normal quantile", "Standardized residual")
        return ax
    effects = effects_of(fit, group)
    axes = panels(len(effects.names), ax, (4.0, 3.8))
    for j, (each, name) in enumerate(zip(axes, effects.names, strict=True)):
        # Var(b̂) = Var(b) − Var(b | y): what shrinkage leaves.
        variance = effects.variance[j] - effects.conditional_sd[:, j] ** 2
        known = variance > 1e-8 * effects.variance[j]
        if not known.any():
            say(each, f"{name} does not vary\nbetween levels of {effects.group}.")
            dress(each, title=f"{name} | {effects.group}")
            continue
        values = effects.modes[known, j] / np.sqrt(variance[known])
        _panel(each, values, level, effects.labels[known])
        y = "Random effect / its standard deviation" if j == 0 else ""
        dress(each, "Normal quantile", y, f"{name} | {effects.group}")
    return one_or_all(axes)


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
                plain(str(labels[order[band.ranks[i]]])), (x[i], y[i]), (-5 if left else 5, 0),
                textcoords="offset points", ha="right" if left else "left", va="center",
                fontsize=8, color="#333333",
            )  # fmt: skip
