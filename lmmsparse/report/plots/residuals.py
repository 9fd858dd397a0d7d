"""`Fit` → residuals, and the roots of their sizes, against fitted values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import LmmError
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.report.plots.figure import ACCENT, GREY, Axes, dress, panels, points
from lmmsparse.results.generalized import residuals as generalized_residuals
from lmmsparse.results.influence import Influence, influence_of_rows
from lmmsparse.results.residuals import of_the_rows_kept, residuals


@dataclass(frozen=True, eq=False)
class StandardResiduals:
    """Residuals that are standard normal, nearly, if the model holds.

    Attributes
    ----------
    values : (n,) array
        √w r / (σ √(1 − h)) of a linear model, NaN where h = 1; quantile residuals of a generalized
        one; √w r / σ where leverages are not to be had, or not all rows are kept.
    name : str
    influence : Influence or None
        What leverages come from.
    """

    values: FloatArray
    name: str
    influence: Influence | None = None


def standard_residuals(fit: Fit, rng: Any = None, exact: bool = True) -> StandardResiduals:
    """Standardized or quantile residuals.

    Parameters
    ----------
    rng : numpy Generator or int, optional
        Randomizes quantile residuals of discrete responses.
    exact : bool
        Whether to fail where leverages cannot be computed.
    """
    if isinstance(fit, GeneralizedFit):
        return StandardResiduals(generalized_residuals(fit, "quantile", rng), "Quantile residual")
    if fit.design.facts is not None:
        name = f"Residual / σ{_of_sample(fit)}"
        return StandardResiduals(of_the_rows_kept(fit, "pearson") / fit.sigma, name)
    try:
        measures = influence_of_rows(fit)
    except LmmError:
        if exact:
            raise
        return StandardResiduals(residuals(fit, "pearson") / fit.sigma, "Residual / σ")
    values = measures.rstudent.to_numpy(dtype=np.float64)
    if fit.design.na_action == "exclude":
        values = values[fit.design.rows]
    values = np.where(np.isfinite(values), values, np.nan)
    return StandardResiduals(values, "Standardized residual", measures)


def _along(fit: Fit) -> tuple[FloatArray, str]:
    """What residuals are drawn against, and its name."""
    if isinstance(fit, GeneralizedFit):
        return fit.linear_predictor, f"Linear predictor ({fit.family.link})"
    fitted = fit.fitted if fit.design.sample is None else fit.fitted_on(fit.design.sample)
    return fitted, f"Fitted {fit.design.response}"


def _of_sample(fit: Fit) -> str:
    """Of how many rows, where not all are kept."""
    design = fit.design
    return "" if design.sample is None else f", {design.sample.n:,} of {design.n:,} rows"


def plot_residuals(fit: Fit, smooth: bool, ax: Axes, rng: Any = None) -> Axes:
    """Residuals against fitted values with a smoother."""
    x, label = _along(fit)
    if isinstance(fit, GeneralizedFit):
        own = standard_residuals(fit, rng)
        y, name = own.values, own.name
    else:
        y = of_the_rows_kept(fit, "pearson")
        weighted = " × √weight" if fit.design.weights is not None else ""
        name = f"Residual{weighted} ({fit.design.response}){_of_sample(fit)}"
    (ax,) = panels(1, ax)
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    _cloud(ax, x, y, smooth)
    dress(ax, label, name)
    return ax


def plot_scale_location(
    fit: Fit, smooth: bool, ax: Axes, rng: Any = None, given: StandardResiduals | None = None
) -> Axes:
    """Roots of absolute standardized residuals against fitted values."""
    own = standard_residuals(fit, rng) if given is None else given
    values = np.sqrt(np.abs(own.values))
    (ax,) = panels(1, ax)
    known = np.isfinite(values)
    x, label = _along(fit)
    _cloud(ax, x[known], values[known], smooth)
    ax.set_ylim(bottom=0.0)
    dress(ax, label, f"√|{own.name[0].lower()}{own.name[1:]}|")
    return ax


def _cloud(ax: Axes, x: FloatArray, y: FloatArray, smooth: bool) -> None:
    points(ax, x, y)
    if smooth and len(np.unique(x)) > 3:
        ax.plot(*lowess(x, y), color=ACCENT, linewidth=1.6, zorder=3)


def lowess(
    x: FloatArray, y: FloatArray, share: float = 2.0 / 3.0, points: int = 60, rounds: int = 3
) -> tuple[FloatArray, FloatArray]:
    """Cleveland's robust locally linear smoother on a grid.

    Parameters
    ----------
    x, y : (n,) arrays
    share : float
        Share of the points in each neighbourhood.
    points : int
        The most places at which the curve is computed: evenly spaced ranks of the values of x.
    rounds : int
        Rounds in which points far from the curve lose weight.

    Returns
    -------
    grid, curve : arrays
        Increasing values of x and the curve there.

    Notes
    -----
    Within the distance h of the k nearest points, weights are (1 − (|x_i − x|/h)³)³; after each
    round they are multiplied by (1 − (r_i/6s)²)², with s the median of |r|.

    References
    ----------
    Cleveland (1979), Journal of the American Statistical Association 74, 829-836.
    """
    n = len(x)
    distinct = np.unique(x)
    places = np.unique(np.linspace(0, len(distinct) - 1, points).astype(np.intp))
    grid = distinct[places]
    neighbours = min(n, max(2, int(share * n + 1e-7)))
    kernels = []
    for place in grid:
        distance = np.abs(x - place)
        h = float(np.partition(distance, neighbours - 1)[neighbours - 1])
        inside = np.flatnonzero(distance < h if h > 0 else distance == 0)
        kernels.append((inside, (1.0 - (distance[inside] / (h or 1.0)) ** 3) ** 3))
    robust = np.ones(n)
    curve = np.empty(len(grid))
    for _ in range(rounds + 1):
        for j, (inside, kernel) in enumerate(kernels):
            curve[j] = _line(x[inside] - grid[j], y[inside], kernel * robust[inside])
        left = np.abs(y - np.interp(x, grid, curve))
        scale = 6.0 * float(np.median(left))
        if scale <= 1e-12 * float(np.abs(y).max(initial=0.0)):
            break
        robust = np.clip(1.0 - (left / scale) ** 2, 0.0, None) ** 2
    return grid, curve


def _line(x: FloatArray, y: FloatArray, w: FloatArray) -> float:
    """A weighted least-squares line at x = 0; the mean where it has no slope."""
    total = float(w.sum())
    if total <= 0:
        return float(y.mean())
    mx, my = float(w @ x) / total, float(w @ y) / total
    spread = float(w @ (x - mx) ** 2)
    reach = float(np.abs(x).max(initial=0.0))
    if spread <= 1e-12 * total * reach**2:
        return my
    return my - mx * float(w @ ((x - mx) * (y - my))) / spread
