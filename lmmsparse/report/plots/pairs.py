"""`Profile` → contours of the joint confidence regions of its parameters, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmsparse.common.arrays import ObjectArray
from lmmsparse.common.distributions import chi2_quantile
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import check_level, several
from lmmsparse.fit.fit import Fit
from lmmsparse.report.plots.contours import contour
from lmmsparse.report.plots.figure import (
    ACCENT,
    GREY,
    INK,
    Axes,
    dress,
    few_ticks,
    one_or_all,
    panels,
    pyplot,
    wrapped,
)
from lmmsparse.report.plots.names import parameter_labels
from lmmsparse.report.plots.profiles import ProfileCurve, as_profile, curves_of


def plot_pairs(fit: Fit, given: Any, levels: float | Sequence[float], ax: Any) -> Any:
    """The lower triangle of all pairs, row by row."""
    shares = sorted(check_level(level, "levels") for level in several(levels))
    if not shares:
        raise OptionError(
            "levels=() is empty. Contours are drawn at levels of confidence. Give at least one, "
            "for example levels=(0.95,)."
        )
    curves = [curve for curve in curves_of(as_profile(fit, given)) if curve.known]
    k = len(curves)
    if k < 2:
        raise OptionError(
            f"The profile has {k} usable parameter{'s' if k != 1 else ''}. A contour is about two. "
            "Profile two or more, for example m.profile()."
        )
    radii = [float(np.sqrt(chi2_quantile(share, 2))) for share in shares]
    # All were followed equally far; those that fall short have met a bound of the parameter.
    reach = max(float(np.abs(curve.zeta).max()) for curve in curves)
    if radii[-1] > reach * (1 + 1e-6):
        raise OptionError(
            f"A joint region of level {shares[-1]:g} asks for |zeta| up to {radii[-1]:.2f}, but "
            f"the profile was followed to {reach:.2f}. Profile again without level=, or give "
            "smaller levels."
        )
    pairs = [(row, column) for row in range(1, k) for column in range(row)]
    known = parameter_labels(fit)
    labels = [wrapped(known[curve.name], 16 if k > 2 else 40) for curve in curves]
    axes = _triangle(k) if ax is None else panels(len(pairs), ax)
    for each, (row, column) in zip(axes, pairs, strict=True):
        _panel(each, curves[column], curves[row], radii)
        outer = ax is not None
        dress(
            each,
            labels[column] if outer or row == k - 1 else "",
            labels[row] if outer or column == 0 else "",
        )
        if not outer:
            each.tick_params(labelbottom=row == k - 1, labelleft=column == 0)
    return one_or_all(axes)


def _triangle(k: int) -> ObjectArray:
    """Axes below the diagonal of a (k − 1) × (k − 1) grid."""
    side = max(4.2, 1.6 + 1.9 * (k - 1))
    figure, grid = pyplot().subplots(
        k - 1, k - 1, figsize=(side, side), layout="constrained", squeeze=False,
        sharex="col", sharey="row",
    )  # fmt: skip
    for row in range(k - 1):
        for column in range(row + 1, k - 1):
            grid[row, column].remove()
    figure.align_labels()
    axes = np.empty(k * (k - 1) // 2, dtype=object)
    axes[:] = [grid[row, column] for row in range(k - 1) for column in range(row + 1)]
    return axes


def _panel(ax: Axes, x: ProfileCurve, y: ProfileCurve, radii: Sequence[float]) -> None:
    outermost = contour(x, y, radii[-1])
    low, high = outermost.min(axis=0), outermost.max(axis=0)
    # The traces: the best value of one parameter for each value of the other.
    ax.plot(x.value, x.others[y.name], color=GREY, linewidth=0.7)
    ax.plot(y.others[x.name], y.value, color=GREY, linewidth=0.7)
    for radius in radii[:-1]:
        ax.plot(*contour(x, y, radius).T, color=INK, linewidth=1.0)
    ax.plot(*outermost.T, color=INK, linewidth=1.5)
    middle = [float(np.interp(0.0, curve.zeta, curve.value)) for curve in (x, y)]
    ax.plot(*middle, marker="+", color=ACCENT, markersize=6)
    margin = 0.06 * (high - low)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
    few_ticks(ax, "both", 3)
