"""`Bootstrap` → the densities of its replicates, with estimates and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import kernel_density
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import check_level, names_in
from lmmsparse.common.words import brief
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.bootstrap import Bootstrap
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import BAND, GREY, INK
from lmmsparse.results.parameters import parameter_labels, parameter_names


def plot_bootstrap(
    fit: Fit, replicates: Any, which: str | Sequence[str] | None, level: float, kind: str, ax: Any
) -> Any:
    """One panel per number of the statistic."""
    check_level(level)
    if not isinstance(replicates, Bootstrap):
        raise OptionError(
            f"bootstrap must be the result of a bootstrap, not {type(replicates).__name__}. Pass "
            "that of m.bootstrap(1000, rng=1)."
        )
    frame = replicates.to_frame()
    names = [str(name) for name in frame.columns]
    use = f"Name one or several of {', '.join(names)}."
    wanted = names if which is None else names_in("which", which, use)
    if not wanted or not set(wanted) <= set(names):
        raise OptionError(f"which={brief(which)} is not in the bootstrap. {use}")
    limits = replicates.confint(level, kind)
    axes = figure.panels(len(wanted), ax, (3.4, 2.8))
    labels = parameter_labels(fit)
    for j, (each, name) in enumerate(zip(axes, wanted, strict=True)):
        values = frame[name].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        label = figure.wrapped(labels.get(name, name), 34)
        y = "Density" if j % 3 == 0 or ax is not None else ""
        if len(values) < 2 or np.ptp(values) <= 1e-12 * np.abs(values).max():
            figure.say(
                each, "The replicates do not vary." if len(values) else "No replicate succeeded."
            )
            figure.dress(each, label)
            continue
        x, density, at_bound = density_of(values, _bounds(fit, name))
        low, high = limits.loc[name].to_numpy(dtype=np.float64).tolist()
        each.fill_between(
            x, density, where=(x >= low) & (x <= high), color=BAND, linewidth=0, zorder=0
        )
        each.plot(x, density, color=INK, linewidth=1.6)
        each.axvline(float(replicates.original[name]), color=GREY, linewidth=0.9)
        each.set_ylim(bottom=0.0)
        figure.few_ticks(each)
        title = f"{at_bound:.0%} of replicates on the bound" if at_bound >= 0.01 else ""
        figure.dress(each, label, y, title)
    return figure.one_or_all(axes)


def _bounds(fit: Fit, name: str) -> tuple[float, float]:
    if name not in parameter_names(fit):
        return -np.inf, np.inf
    return (0.0, np.inf) if name.startswith(("sd", "sigma")) else (-1.0, 1.0)


def density_of(
    values: FloatArray, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[FloatArray, FloatArray, float]:
    """A kernel density that does not leak over bounds, and the share of values on them.

    Parameters
    ----------
    values : (m,) array
    bounds : (lower, upper)
        The density is reflected there. Values on a bound are no part of it.

    Returns
    -------
    x, density : arrays
        The density integrates to the share of values within the bounds.
    at_bound : float
    """
    low, high = bounds
    reach = 1e-6 * max(float(np.ptp(values)), 1e-300)
    inner = values[(values > low + reach) & (values < high - reach)]
    at_bound = (len(values) - len(inner)) / len(values)
    if len(inner) < 2 or np.ptp(inner) == 0:
        return values[:0], values[:0], at_bound
    kernel = kernel_density(inner)
    width = 3.0 * float(np.sqrt(kernel.covariance[0, 0]))
    x = np.linspace(max(low, inner.min() - width), min(high, inner.max() + width), 256)
    density = kernel(x)
    for bound in bounds:
        if np.isfinite(bound):
            density = density + kernel(2.0 * bound - x)
    return x, density * (1.0 - at_bound), at_bound
