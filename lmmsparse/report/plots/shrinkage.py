"""`Fit` and a group → coefficients by partial pooling against those of each level alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.options import names_in, refused
from lmmsparse.common.words import listed
from lmmsparse.fit.fit import Fit
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import ACCENT, GREY, INK, PALE, Axes
from lmmsparse.report.plots.levels import LevelEffects, effects_of
from lmmsparse.results.residuals import residuals


def plot_shrinkage(fit: Fit, group: str | None, effects: Sequence[str] | None, ax: Any) -> Any:
    """Two effects: arrows in their plane; one effect: partial pooling against none."""
    pooled = pooling(fit, group)
    names = pooled.effects.names
    use = f"Name one or two of {listed(names)}."
    chosen = list(names[:2]) if effects is None else names_in("effects", effects, use)
    unknown = [name for name in chosen if name not in names]
    if unknown or not 1 <= len(chosen) <= 2 or len(set(chosen)) < len(chosen):
        kind = f"one or two different effects of {pooled.effects.group!r}"
        raise refused("effects", kind, effects, use)
    at = [names.index(name) for name in chosen]
    (ax,) = figure.panels(1, ax, (4.8, 4.4))
    known = ~np.isnan(pooled.alone[:, at].sum(axis=1))
    response, title = fit.design.response, f"{pooled.effects.group}: {len(known):,} levels"
    if not known.all():
        title += f", {int(known.sum()):,} with an estimate of their own"
    if not known.any():
        figure.say(ax, "No level has rows enough\nfor an estimate of its own.")
        figure.dress(ax, title=title)
    elif len(at) == 2:
        _plane(ax, pooled, at[0], at[1], known)
        x, y = (f"{name} ({figure.scale_of(response, name)})" for name in chosen)
        figure.dress(ax, x, y, title)
    else:
        _line(ax, pooled, at[0], known)
        what = f"{chosen[0]} ({figure.scale_of(response, chosen[0])})"
        figure.dress(ax, f"{what}, level alone", f"{what}, partially pooled", title)
    return ax


def _plane(ax: Axes, pooled: Pooling, i: int, j: int, known: BoolArray) -> None:
    alone, partial = pooled.alone[known][:, [i, j]], pooled.partial[known][:, [i, j]]
    many = len(alone) > 150
    moved = partial - alone
    ax.quiver(
        *alone.T, *moved.T, angles="xy", scale_units="xy", scale=1.0, color=PALE if many else GREY,
        width=0.0012 if many else 0.0025, headwidth=5, headlength=6, zorder=1,
        rasterized=len(alone) > 2_000,
    )  # fmt: skip
    size = 4 if many else 18
    ax.scatter(*alone.T, s=size, facecolors="none" if not many else GREY, edgecolors=GREY,
               linewidths=0 if many else 1.0, zorder=2, label="level alone")  # fmt: skip
    ax.scatter(*partial.T, s=size, color=INK, linewidths=0, zorder=3, label="partially pooled")
    ax.plot(pooled.fixed[i], pooled.fixed[j], "+", color=ACCENT, markersize=11, markeredgewidth=2,
            zorder=4, label="fixed effects", linestyle="none")  # fmt: skip
    both = np.vstack([alone, partial])
    low, high = both.min(axis=0), both.max(axis=0)
    margin = np.where(high > low, 0.06 * (high - low), 1.0)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
    figure.legend(ax, crowded=many)


def _line(ax: Axes, pooled: Pooling, j: int, known: BoolArray) -> None:
    x, y = pooled.alone[known, j], pooled.partial[known, j]
    n = len(x)
    rows = pooled.rows[known]
    area = np.clip(rows / rows.max(), 0.05, 1.0) * (36 if n <= 300 else 12)
    ax.axline((pooled.fixed[j], pooled.fixed[j]), slope=1.0, color=GREY, linewidth=0.8,
              label="no pooling")  # fmt: skip
    ax.axhline(pooled.fixed[j], color=ACCENT, linewidth=1.0, label="complete pooling")
    ax.scatter(x, y, s=area, color=INK, alpha=0.9 if n <= 300 else 0.35, linewidths=0, zorder=3,
               rasterized=n > 2_000)  # fmt: skip
    # One range for both: how flat the cloud lies is how much is pooled.
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    margin = 0.05 * (high - low) or 1.0
    ax.set_xlim(low - margin, high + margin)
    ax.set_ylim(low - margin, high + margin)
    figure.legend(ax, crowded=n > 300)


@dataclass(frozen=True, eq=False)
class Pooling:
    """Coefficients of the levels of a group under different amounts of pooling.

    Attributes
    ----------
    fixed : (k,) array
        The common coefficients (complete pooling), 0 for an effect that is only random.
    partial : (levels, k) array
        Coefficients of the model: fixed part plus random effect.
    alone : (levels, k) array
        Least squares on the rows of each level; NaN where these do not determine them.
    rows : (levels,) int array
        Number of rows.
    """

    effects: LevelEffects
    fixed: FloatArray
    partial: FloatArray
    alone: FloatArray
    rows: IntArray


def pooling(fit: Fit, group: str | None) -> Pooling:
    """Compare partial pooling with no and with complete pooling.

    Notes
    -----
    Least squares within a level are about the group's own effects. Other fixed effects and the
    random effects of other groups are held at their estimates; without any, these are the fits of
    one regression per level.
    """
    effects = effects_of(fit, group)
    design = fit.design
    terms = design.groups[effects.group]
    Z = np.concatenate([design.blocks[t].columns for t in terms], axis=1)
    codes = design.blocks[terms[0]].codes
    levels, k = effects.modes.shape
    w = design.weights_or_one
    # What is left for the group: the response without everything but the group's own effects.
    own = np.einsum("nk,nk->n", Z, effects.modes[codes])
    target = residuals(fit) + own
    ZtZ = np.zeros((levels, k, k))
    Zty = np.zeros((levels, k))
    np.add.at(ZtZ, codes, w[:, None, None] * Z[:, :, None] * Z[:, None, :])
    np.add.at(Zty, codes, (w * target)[:, None] * Z)
    alone = np.full((levels, k), np.nan)
    size = np.sqrt(np.einsum("lkk->lk", ZtZ))
    usable = np.all(size > 0, axis=1)
    scaled = ZtZ[usable] / (size[usable][:, :, None] * size[usable][:, None, :])
    fine = np.linalg.eigvalsh(scaled)[:, 0] > 1e-8
    usable[np.flatnonzero(usable)[~fine]] = False
    alone[usable] = np.linalg.solve(ZtZ[usable], Zty[usable][:, :, None])[:, :, 0]
    known = dict(zip(design.x_names, fit.beta.tolist(), strict=True))
    fixed = np.array([known.get(name, 0.0) for name in effects.names])
    return Pooling(
        effects, fixed, fixed + effects.modes, fixed + alone, np.bincount(codes, minlength=levels)
    )
