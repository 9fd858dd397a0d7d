"""Models that fit the response exactly: nothing is left for the residuals.

The criterion of such a model has no minimum.
"""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import DataError
from lmmsparse.design import Design

_EPS = float(np.finfo(np.float64).eps)

FITS_EXACTLY = (
    "The fixed effects fit the response exactly: no variation is left to divide between random "
    "effects and residuals. Check whether the response was computed from the predictors, or leave "
    "out fixed effects."
)


def check_not_exact(design: Design, residual_squares: float) -> None:
    """Refuse a response of which the fixed effects leave nothing but rounding errors.

    Parameters
    ----------
    residual_squares : float
        See `Response.yty`.
    """
    if design.facts is not None:
        spread, size = design.facts.spread, design.facts.size
    else:
        centred = design.y - design.offset_or_zero
        weights = 1.0 if design.weights is None else design.weights
        spread = float(np.sum(weights * (centred - centred.mean()) ** 2))
        size = float(np.sum(weights * centred**2))
    if residual_squares <= 1e-24 * (spread + size):
        raise DataError(FITS_EXACTLY)


def fits_exactly(
    squares: float | FloatArray, yty: float | FloatArray, beta0: FloatArray, n: int
) -> BoolArray:
    """Whether what is left for the residuals cannot be told from rounding errors.

    Parameters
    ----------
    squares : float or (m,) array
        Residual sum of squares r² − ‖u‖², with the residuals at the conditional modes.
    yty : float or (m,) array
        See `Response`.
    beta0 : (p,) or (p, m) array
        See `Response`; ‖β₀‖² + y'Wy is the sum of squares of the response itself.
    n : int
        Rows.

    Notes
    -----
    r² is what sums of n products leave of each other: its error grows like √n times eps y'Wy, and
    a hundred covers what solving with the blocks of Z'WZ adds. The second part is what a response
    of that size loses by being stored.
    Where a model fits exactly, r² tends to zero with 1/θ² and is all ‖u‖², wherever the search
    gives up. The residuals say so at once: they go with 1/θ⁴.
    """
    size = np.einsum("p...,p...->...", beta0, beta0) + yty
    bound = 100.0 * np.sqrt(n) * _EPS * np.asarray(yty) + 4.0 * _EPS**2 * size
    return np.asarray(~(np.asarray(squares) > bound))
