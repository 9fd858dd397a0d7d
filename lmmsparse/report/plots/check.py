"""`Fit` → the usual diagnostics of a model in one figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import kernel_density
from lmmsparse.common.errors import LmmError
from lmmsparse.common.options import as_generator
from lmmsparse.engine.families import Binomial
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import ACCENT, GREY, INK, PALE, Axes
from lmmsparse.report.plots.levels import effects_of
from lmmsparse.report.plots.qq import effect_panel, plot_qq
from lmmsparse.report.plots.residuals import (
    plot_residuals,
    plot_scale_location,
    standard_residuals,
)
from lmmsparse.results.generalized import simulate_generalized
from lmmsparse.results.influence import Influence
from lmmsparse.results.simulate import simulate

_DRAWS, _EFFECTS, _NAMED, _SEED = 50, 6, 3, 0
_ROWS = 5_000  # whose responses are drawn as densities
_NUMBERS = 5_000_000  # to draw at most, unless rows are very many
Panel = Callable[[Axes], Any]


def plot_check(fit: Fit, level: float, rng: Any, ax: Any) -> Any:
    """Mean, spread, distribution, draws, influence, and random effects of each group."""
    generator = as_generator(_SEED if rng is None else rng)
    seed = int(generator.integers(2**31))
    own = standard_residuals(fit, seed, exact=False)
    panels = [
        _titled(
            "Mean: the line stays near zero", lambda each: plot_residuals(fit, True, each, seed)
        ),
        _titled(
            "Spread: the line stays level",
            lambda each: plot_scale_location(fit, True, each, given=own),
        ),
        _titled(
            "Residuals: points stay in the band",
            lambda each: plot_qq(fit, None, level, each, given=own),
        ),
        _response_panel(fit, generator),
    ]
    if own.influence is not None:
        panels.append(partial(_draw_influence, measures=own.influence))
    panels += _effect_panels(fit, level)
    axes = figure.panels(len(panels), ax, (4.4, 3.2), columns=2)
    for each, draw in zip(axes, panels, strict=True):
        draw(each)
    return figure.one_or_all(axes)


def _titled(title: str, draw: Panel) -> Panel:
    def panel(ax: Axes) -> None:
        draw(ax)
        figure.dress(ax, title=title)

    return panel


def _effect_panels(fit: Fit, level: float) -> list[Panel]:
    """Quantile plots of random effects, the first few of them."""
    found: list[Panel] = []
    for group in fit.design.groups:
        if len(found) >= _EFFECTS:
            break
        try:
            effects = effects_of(fit, group)
        except LmmError as error:
            found.append(partial(_say, error=error, title=group))
            continue
        found += [
            partial(effect_panel, effects=effects, j=j, level=level)
            for j in range(len(effects.names))
        ]
    return found[:_EFFECTS]


def _say(ax: Axes, error: LmmError, title: str) -> None:
    """Why there is nothing to draw."""
    figure.say(ax, figure.wrapped(str(error), 44))
    figure.dress(ax, title=title)


# Responses --------------------------------------------------------------------------------------


def _response_panel(fit: Fit, generator: np.random.Generator) -> Panel:
    """Observed responses beside those that the model draws, with new random effects."""
    if isinstance(fit, GeneralizedFit) and isinstance(fit.family, Binomial):
        return lambda ax: _draw_calibration(ax, fit)
    count = int(np.clip(_NUMBERS // fit.design.n, 5, _DRAWS))
    try:
        if isinstance(fit, GeneralizedFit):
            draws, _ = simulate_generalized(fit, count, generator, "new", None)
        else:
            draws, _ = simulate(fit, count, generator)
    except LmmError as error:
        return partial(_say, error=error, title="Responses")
    if fit.design.na_action == "exclude":
        draws = draws[fit.design.rows]
    y, name = np.asarray(fit.design.y), fit.design.response
    if isinstance(fit, GeneralizedFit) and fit.family.discrete:
        return lambda ax: _draw_counts(ax, y, draws, name)
    return lambda ax: _draw_densities(ax, y, draws, name)


def _draw_densities(ax: Axes, y: FloatArray, draws: FloatArray, name: str) -> None:
    if len(y) > _ROWS:
        some = np.linspace(0, len(y) - 1, _ROWS).astype(np.intp)
        y, draws = y[some], draws[some]
    low, high = np.quantile(np.concatenate([y, draws.ravel()]), [0.001, 0.999])
    low, high = min(low, y.min()), max(high, y.max())
    grid = np.linspace(low, high, 200)
    for j, column in enumerate([*draws.T, y]):
        if np.ptp(column) == 0:
            continue
        observed = j == draws.shape[1]
        label = "observed" if observed else "drawn" if j == 0 else None
        ax.plot(
            grid, kernel_density(column)(grid), color=INK if observed else PALE, label=label,
            linewidth=1.8 if observed else 0.7, zorder=2 if observed else 1,
        )  # fmt: skip
    ax.set_ylim(bottom=0.0)
    figure.dress(ax, name, "Density", "Responses: drawn ones look alike")
    figure.legend(ax)


def _draw_counts(ax: Axes, y: FloatArray, draws: FloatArray, name: str) -> None:
    """Roots of the frequencies of each count, with the middle 95 % of those of draws."""
    top = int(max(y.max(), np.quantile(draws, 0.995)))
    width = max(1, -(-(top + 1) // 25))
    edges = np.arange(0, top + width + 1, width) - 0.5
    middle = edges[:-1] + 0.5 * width
    share = np.array([np.histogram(column, edges)[0] for column in draws.T])
    low, high = np.sqrt(np.quantile(share, [0.025, 0.975], axis=0))
    ax.bar(middle, np.sqrt(np.histogram(y, edges)[0]), 0.9 * width, color=PALE, label="observed")
    ax.vlines(middle, low, high, color=INK, linewidth=1.6)
    ax.plot(middle, np.sqrt(share.mean(axis=0)), ".", color=INK, label="drawn, 95 %")
    figure.dress(ax, name, "√frequency", "Counts: bars end within the lines")
    figure.legend(ax)


def _draw_calibration(ax: Axes, fit: GeneralizedFit) -> None:
    """Shares of successes in bins of equal size against the probabilities of the model."""
    p, y = fit.fitted, np.asarray(fit.seen.y)
    trials = np.broadcast_to(np.asarray(fit.seen.trials_or_one, dtype=np.float64), y.shape)
    bins = int(np.clip(len(p) // 10, 4, 20))
    groups = [rows for rows in np.array_split(np.argsort(p, kind="stable"), bins) if len(rows)]
    total = np.array([trials[rows].sum() for rows in groups])
    mean = np.array([float(trials[rows] @ p[rows]) for rows in groups]) / total
    share = np.array([float(trials[rows] @ y[rows]) for rows in groups]) / total
    spread = [float(trials[rows] @ (p[rows] * (1.0 - p[rows]))) for rows in groups]
    half = 2.0 * np.sqrt(spread) / total
    ax.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8)
    ax.vlines(mean, np.clip(mean - half, 0, 1), np.clip(mean + half, 0, 1), color=PALE, linewidth=4)
    ax.scatter(mean, share, s=18, color=INK, linewidths=0, zorder=3)
    figure.dress(ax, "Fitted probability", "Observed share", "Shares: points stay on the bars")


# Influence --------------------------------------------------------------------------------------


def _draw_influence(ax: Axes, measures: Influence) -> None:
    """Cook's distance against leverage, the largest with the labels of their rows."""
    distance = measures.cooks_distance.to_numpy(dtype=np.float64)
    leverage = measures.leverage.to_numpy(dtype=np.float64)
    labels = measures.cooks_distance.index
    known = np.isfinite(distance) & np.isfinite(leverage)
    figure.points(ax, leverage[known], distance[known])
    order: Sequence[int] = np.argsort(np.where(known, -distance, np.inf), kind="stable").tolist()
    for i in order[:_NAMED]:
        left = leverage[i] > 0.5 * (leverage[known].min() + leverage[known].max())
        ax.annotate(
            figure.plain(str(labels[i])), (leverage[i], distance[i]), (-5 if left else 5, 0),
            textcoords="offset points", ha="right" if left else "left", va="center", fontsize=8,
            color=ACCENT,
        )  # fmt: skip
    ax.set_ylim(bottom=0.0)
    figure.few_ticks(ax)
    figure.dress(ax, "Leverage", "Cook's distance", "Influence: no row far above the others")
