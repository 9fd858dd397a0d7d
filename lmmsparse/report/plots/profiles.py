"""`Profile` → its curves as signed roots, confidence densities or rises of the deviance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.curves import Interpolant
from lmmsparse.common.distributions import chi2_quantile, normal_density, normal_quantile
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import check_level, one_of
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.profile.curve import interpolant
from lmmsparse.inference.intervals.profile.profile import Profile, profile
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import ACCENT, BAND, GREY, INK, Axes
from lmmsparse.results.parameters import parameter_labels

KINDS = ("zeta", "density", "deviance")


@dataclass(frozen=True, eq=False)
class ProfileCurve:
    """The curve of one parameter between its points.

    Attributes
    ----------
    value, zeta : (m,) arrays
        Both increasing.
    others : dict
        Parameter → its best values along the curve, (m,).
    """

    name: str
    value: FloatArray
    zeta: FloatArray
    others: dict[str, FloatArray]

    @property
    def known(self) -> bool:
        """Whether the deviance says anything about the parameter."""
        return len(self.value) > 3

    def between(self) -> Interpolant:
        """Zeta as a smooth function of the value, increasing where the points are."""
        return interpolant(self.value, self.zeta)


def as_profile(fit: Fit, given: Any) -> Profile:
    """A profile as it is, or the one of the parameters that are named (all with None)."""
    if isinstance(given, Profile):
        return given
    if given is None or isinstance(given, (str, Sequence)):
        return profile(fit, given)
    raise OptionError(
        f"profile must be a profile of the deviance, not {type(given).__name__}. Pass one from "
        "m.profile(), or names of parameters."
    )


def curves_of(profiled: Profile) -> list[ProfileCurve]:
    """The curves of a profile, in its order."""
    frame = profiled.to_frame()
    names = [str(name) for name in frame.columns[3:]]
    curves = []
    for name, part in frame.groupby("parameter", sort=False):
        # Where the estimate lies on a bound, or a curve is flat, values may repeat.
        part = part.drop_duplicates("value")
        numbers = part.to_numpy()[:, 1:].astype(np.float64)
        others = {other: numbers[:, 2 + j] for j, other in enumerate(names)}
        curves.append(ProfileCurve(str(name), numbers[:, 0], numbers[:, 1], others))
    return curves


def plot_profile(fit: Fit, given: Any, kind: str, level: float, ax: Any) -> Any:
    """One panel per parameter."""
    one_of("kind", kind, KINDS)
    level = check_level(level)
    profiled = as_profile(fit, given)
    limits = profiled.confint(level)
    curves = curves_of(profiled)
    axes = figure.panels(len(curves), ax, (3.4, 2.9))
    labels = parameter_labels(fit)
    for j, (each, curve) in enumerate(zip(axes, curves, strict=True)):
        label = figure.wrapped(labels.get(curve.name, curve.name), 34)
        if not curve.known:
            figure.say(each, "The deviance says nothing\nabout this parameter.")
            figure.dress(each, label)
            continue
        lower, upper = map(float, limits.loc[curve.name].to_numpy(dtype=np.float64))
        _DRAW[kind](each, curve, lower, upper, level)
        figure.few_ticks(each)
        figure.dress(each, label, _Y[kind] if j % 3 == 0 or ax is not None else "")
    return figure.one_or_all(axes)


def _inside(curve: ProfileCurve, lower: float, upper: float) -> tuple[float, float]:
    return max(lower, float(curve.value[0])), min(upper, float(curve.value[-1]))


def _zeta(ax: Axes, curve: ProfileCurve, lower: float, upper: float, level: float) -> None:
    z = float(normal_quantile(0.5 + level / 2.0))
    x = np.linspace(curve.value[0], curve.value[-1], 200)
    between = curve.between()
    at = float(np.interp(0.0, curve.zeta, curve.value))
    low, high = _inside(curve, lower, upper)
    ax.axvspan(low, high, color=BAND, linewidth=0, zorder=0)
    for height in (-z, 0.0, z):
        ax.axhline(height, color=GREY, linewidth=0.7, linestyle=(0, (4, 3)) if height else "-")
    ax.axline((at, 0.0), slope=float(between(at, 1)), color=ACCENT, linewidth=0.9, linestyle=":")
    ax.plot(x, between(x), color=INK, linewidth=1.6)
    reach = float(np.abs(curve.zeta).max())
    ax.set_ylim(-1.05 * reach, 1.05 * reach)
    _limits(ax, curve)


def _density(ax: Axes, curve: ProfileCurve, lower: float, upper: float, level: float) -> None:
    x = np.linspace(curve.value[0], curve.value[-1], 300)
    between = curve.between()
    y = normal_density(between(x)) * np.maximum(between(x, 1), 0.0)
    low, high = _inside(curve, lower, upper)
    ax.fill_between(x, y, where=(x >= low) & (x <= high), color=BAND, linewidth=0)
    ax.plot(x, y, color=INK, linewidth=1.6)
    ax.axvline(float(np.interp(0.0, curve.zeta, curve.value)), color=GREY, linewidth=0.8)
    ax.set_ylim(bottom=0.0)
    _limits(ax, curve)


def _deviance(ax: Axes, curve: ProfileCurve, lower: float, upper: float, level: float) -> None:
    x = np.linspace(curve.value[0], curve.value[-1], 200)
    low, high = _inside(curve, lower, upper)
    ax.axvspan(low, high, color=BAND, linewidth=0, zorder=0)
    ax.axhline(float(chi2_quantile(level, 1)), color=GREY, linewidth=0.7, linestyle=(0, (4, 3)))
    ax.plot(x, curve.between()(x) ** 2, color=INK, linewidth=1.6)
    ax.set_ylim(bottom=0.0)
    _limits(ax, curve)


def _limits(ax: Axes, curve: ProfileCurve) -> None:
    margin = 0.02 * float(curve.value[-1] - curve.value[0])
    ax.set_xlim(curve.value[0] - margin, curve.value[-1] + margin)


_DRAW = {"zeta": _zeta, "density": _density, "deviance": _deviance}
_Y = {
    "zeta": "Signed root of the deviance (ζ)",
    "density": "Density",
    "deviance": "Rise of the deviance",
}
