"""`Fit` → residuals, and the roots of their sizes, against fitted values."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.fit.fit import Fit
from lmmsparse.report.plots.figure import ACCENT, GREY, Axes, dress, panels, points
from lmmsparse.report.plots.smooth import lowess
from lmmsparse.results.influence import influence_of_rows


def pearson(fit: Fit) -> FloatArray:
    """√w (y − ŷ) of the fitted rows, (n,)."""
    design = fit.design
    return np.sqrt(design.weights_or_one) * (design.y - fit.fitted)


def standardized(fit: Fit) -> FloatArray:
    """Residuals over their standard deviation √w r / (σ √(1 − h)), (n,); NaN where h = 1."""
    values = influence_of_rows(fit).rstudent.to_numpy(dtype=np.float64)
    if fit.design.na_action == "exclude":
        values = values[fit.design.rows]
    return np.where(np.isfinite(values), values, np.nan)


def plot_residuals(fit: Fit, smooth: bool, ax: Axes) -> Axes:
    """Residuals against fitted values with a smoother."""
    (ax,) = panels(1, ax)
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    _cloud(ax, fit.fitted, pearson(fit), smooth)
    weighted = fit.design.weights is not None
    name = "Residual × √weight" if weighted else "Residual"
    dress(ax, f"Fitted {fit.design.response}", f"{name} ({fit.design.response})")
    return ax


def plot_scale_location(fit: Fit, smooth: bool, ax: Axes) -> Axes:
    """Roots of absolute standardized residuals against fitted values."""
    values = np.sqrt(np.abs(standardized(fit)))
    (ax,) = panels(1, ax)
    known = np.isfinite(values)
    _cloud(ax, fit.fitted[known], values[known], smooth)
    ax.set_ylim(bottom=0.0)
    dress(ax, f"Fitted {fit.design.response}", "√|standardized residual|")
    return ax


def _cloud(ax: Axes, x: FloatArray, y: FloatArray, smooth: bool) -> None:
    points(ax, x, y)
    if smooth and len(np.unique(x)) > 3:
        ax.plot(*lowess(x, y), color=ACCENT, linewidth=1.6, zorder=3)
