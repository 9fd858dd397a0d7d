"""Simulations of a study → power against the number of levels of a grouping factor."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import share
from lmmsparse.inference.power.power import Question, Repeated
from lmmsparse.report.plots import figure
from lmmsparse.report.plots.figure import GREY, INK


def plot_power(question: Question, found: Repeated, ax: Any, target: float | None) -> Any:
    """A curve with Monte Carlo limits."""
    if not question.along:
        raise OptionError(
            "There is one design, and no curve. Pass numbers of levels, for example "
            "m.power(term, along='Subject', n=[20, 30, 40], rng=1).plot()."
        )
    if target is not None:
        target = share("target", target)
    (axes,) = figure.panels(1, ax)
    order = np.argsort(found.n)
    n, power = found.n[order], (found.significant / found.done)[order]
    reach = np.array([power - found.lower[order], found.upper[order] - power])
    axes.errorbar(
        n, power, yerr=reach, color=INK, marker="o", markersize=5, linewidth=1.6, elinewidth=1.0,
        capsize=2.5, zorder=3,
    )  # fmt: skip
    if target is not None:
        axes.axhline(target, color=GREY, linewidth=0.9, linestyle="--", zorder=1)
    axes.set_ylim(0.0, 1.02)
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.dress(axes, f"Levels of {question.along}", f"Power of {question.term}")
    return axes
