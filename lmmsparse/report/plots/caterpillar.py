"""`Fit` and a group → its random effects in order, with conditional intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmsparse.common.distributions import normal_quantile
from lmmsparse.common.options import check_level, one_of
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import GREY, INK
from lmmsparse.report.plots.levels import effects_of

NAMED_LEVELS = 60


def plot_caterpillar(fit: Fit, group: str | None, level: float, order: str | None, ax: Any) -> Any:
    """One panel per effect; levels in the order of one of the effects."""
    z = float(normal_quantile(0.5 + check_level(level) / 2.0))
    effects = effects_of(fit, group)
    if order is not None:
        one_of("order", order, effects.names)
    by = effects.names.index(order) if order is not None else 0
    rows = np.argsort(effects.modes[:, by], kind="stable")
    n = len(rows)
    named = n <= NAMED_LEVELS
    height = 1.2 + 0.17 * n if named else 5.0
    axes = figure.panels(
        len(effects.names), ax, (3.6, max(2.2, height)), columns=len(effects.names), sharey=True
    )
    y = np.arange(n)
    response = fit.design.response
    if isinstance(fit, GeneralizedFit):
        response = f"the linear predictor ({fit.family.link})"
    for j, (each, name) in enumerate(zip(axes, effects.names, strict=True)):
        middle = effects.modes[rows, j]
        half = z * effects.conditional_sd[rows, j]
        apart = np.abs(middle) > half
        each.axvline(0.0, color=GREY, linewidth=0.8, zorder=1)
        for some, colour in ((~apart, GREY), (apart, INK)):
            each.hlines(
                y[some], (middle - half)[some], (middle + half)[some],
                color=colour, linewidth=1.4 if named else min(1.0, 280 / n),
                alpha=1.0 if named else 0.6, zorder=2, rasterized=n > 500,
            )  # fmt: skip
            each.scatter(
                middle[some], y[some], s=18 if named else max(1.5, 600 / n),
                color=colour if named else "black", linewidths=0, zorder=3, rasterized=n > 500,
            )  # fmt: skip
        figure.dress(each, f"Effect on {figure.scale_of(response, name)}", title=name)
        figure.few_ticks(each)
        each.set_ylim(-0.7 - 0.005 * n, n - 0.3 + 0.005 * n)
        if j == 0 or ax is not None:
            each.set_yticks(
                y if named else [], figure.listed_levels(effects.labels[rows]) if named else []
            )
        each.tick_params(axis="y", length=0, labelsize=8)
    axes[0].set_ylabel(effects.group if named else f"{effects.group} ({n:,} levels, in order)")
    return figure.one_or_all(axes)
