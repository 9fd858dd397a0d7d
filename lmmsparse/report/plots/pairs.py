"""`Profile` → contours of the joint confidence regions of its parameters, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, ObjectArray
from lmmsparse.common.curves import cubic, monotone
from lmmsparse.common.distributions import chi2_quantile
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import check_level, several
from lmmsparse.fit.fit import Fit
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import ACCENT, GREY, INK, Axes
from lmmsparse.report.plots.profiles import ProfileCurve, as_profile, curves_of
from lmmsparse.results.parameters import parameter_labels


def plot_pairs(fit: Fit, given: Any, levels: float | Sequence[float], ax: Any) -> Any:
    """The lower triangle of all pairs, row by row."""
    shares = sorted(check_level(level, "levels") for level in several(levels))
    if not shares:
        raise OptionError("levels=() is empty. Give at least one, for example levels=(0.95,).")
    curves = [curve for curve in curves_of(as_profile(fit, given)) if curve.known]
    k = len(curves)
    if k < 2:
        raise OptionError(
            f"The profile has {k} usable parameter{'s' if k != 1 else ''}, but a contour needs "
            "two. Profile two or more, for example m.profile()."
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
    labels = [
        figure.wrapped(known.get(curve.name, curve.name), 16 if k > 2 else 40) for curve in curves
    ]
    axes = _triangle(k) if ax is None else figure.panels(len(pairs), ax)
    for each, (row, column) in zip(axes, pairs, strict=True):
        _panel(each, curves[column], curves[row], radii)
        outer = ax is not None
        figure.dress(
            each,
            labels[column] if outer or row == k - 1 else "",
            labels[row] if outer or column == 0 else "",
        )
        if not outer:
            each.tick_params(labelbottom=row == k - 1, labelleft=column == 0)
    return figure.one_or_all(axes)


def _triangle(k: int) -> ObjectArray:
    """Axes below the diagonal of a (k − 1) × (k − 1) grid."""
    side = max(4.2, 1.6 + 1.9 * (k - 1))
    whole, grid = figure.pyplot().subplots(
        k - 1, k - 1, figsize=(side, side), layout="constrained", squeeze=False,
        sharex="col", sharey="row",
    )  # fmt: skip
    for row in range(k - 1):
        for column in range(row + 1, k - 1):
            grid[row, column].remove()
    whole.align_labels()
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
    figure.few_ticks(ax, "both", 3)


def contour(first: ProfileCurve, second: ProfileCurve, radius: float) -> FloatArray:
    """Points of the closed curve on which two parameters have a joint |zeta| of `radius`.

    Parameters
    ----------
    radius : float
        √χ²(level, 2 df) for a joint region.

    Returns
    -------
    (181, 2) array
        Values of the two parameters, first point repeated at the end. Where a parameter ends at a
        bound, the contour follows it.

    Notes
    -----
    In the plane of the two zetas the contour is τ₁ = r cos(a + d/2), τ₂ = r cos(a − d/2), a circle
    for d = π/2. The profile traces give it, with its phase d, where it touches its box: at τ₁ = ±r
    and τ₂ = ±r. Between these four points d is a periodic cubic spline in a.

    References
    ----------
    Bates & Watts (1988), Nonlinear Regression Analysis and its Applications, appendix A.6.
    """
    phases = []
    for one, other, sign in ((first, second, 1.0), (second, first, -1.0)):
        for side in (1.0, -1.0):
            there = _trace(one, other, side * radius)
            phase = float(np.arccos(np.clip(side * there / radius, -1.0, 1.0)))
            start = 0.0 if side > 0 else np.pi
            phases.append(((start - sign * phase / 2.0) % (2.0 * np.pi), phase))
    phases.sort()
    a = np.array([phase for phase, _ in phases])
    d = np.array([difference for _, difference in phases])
    a, where = np.unique(np.round(a, 9), return_index=True)
    d = d[where]
    turn = np.linspace(0.0, 2.0 * np.pi, 181)
    if len(a) > 1:
        ring = cubic(np.append(a, a[0] + 2 * np.pi), np.append(d, d[0]), periodic=True)
        d = np.clip(ring(turn), 0.0, np.pi)
    zetas = radius * np.cos(turn + d / 2.0), radius * np.cos(turn - d / 2.0)
    return np.column_stack([_value(first, zetas[0]), _value(second, zetas[1])])


def _trace(one: ProfileCurve, other: ProfileCurve, zeta: float) -> float:
    """Zeta of the other parameter's best value where the first has `zeta`."""
    along = one.others[other.name]
    usable = np.isfinite(along)
    return float(_extended(one.zeta[usable], _zeta(other, along[usable]), np.array([zeta]))[0])


def _zeta(curve: ProfileCurve, value: FloatArray) -> FloatArray:
    return _extended(curve.value, curve.zeta, value)


def _value(curve: ProfileCurve, zeta: FloatArray) -> FloatArray:
    """The parameter at a zeta; its outermost value beyond the curve, which ends at a bound."""
    inside = np.clip(zeta, curve.zeta[0], curve.zeta[-1])
    return _extended(curve.zeta, curve.value, inside)


def _extended(x: FloatArray, y: FloatArray, at: FloatArray) -> FloatArray:
    """A monotone cubic through points with increasing x, straight beyond its ends."""
    x, where = np.unique(x, return_index=True)
    y = y[where]
    if len(x) < 2:
        return np.full(len(at), y[0] if len(y) else 0.0)
    curve = monotone(x, y)
    inside = np.clip(at, x[0], x[-1])
    slope = np.where(at < x[0], curve(x[0], 1), curve(x[-1], 1))
    return np.asarray(curve(inside) + slope * (at - inside))
