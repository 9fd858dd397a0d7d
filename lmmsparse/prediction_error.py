"""`Fit` and rows → standard errors and intervals of predictions, by the covariance of (b, β)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg as sla
from scipy import stats

from lmmsparse._types import FloatArray
from lmmsparse.errors import OptionError
from lmmsparse.fit import Fit
from lmmsparse.predict import NewRows, Selection, new_frame, new_rows, predict, select_effects
from lmmsparse.threads import one_thread

INTERVALS = ("confidence", "prediction")
_ELEMENTS = 4_000_000


def predict_with_error(
    fit: Fit,
    newdata: Any,
    random: bool | str,
    new_levels: str,
    offset: Any,
    interval: str | None,
    level: float,
) -> pd.DataFrame:
    """Predictions with standard errors and limits.

    Parameters
    ----------
    fit : Fit
    newdata, random, new_levels, offset
        As for `predict`.
    interval : {"confidence", "prediction"} or None
        Limits for the predicted mean (also with None), or for a new observation.
    level : float

    Returns
    -------
    DataFrame
        Columns ``fit, se, lower, upper``; `se` is that of the predicted mean.

    Notes
    -----
    With m = M⁻¹Λ'z, Var(x'β̂ + z'b̂ − x'β − z'b) = σ²[z'Λm + |R_X⁻ᵀ(x − X'WZΛm)|²], conditional on θ:
    the inverse of Henderson's mixed-model equations. A level the fit has not seen adds its own
    variance σ² z'TT'z. A new observation adds the residual variance σ²/w and the variance of the
    random effects that `random` leaves out. Limits are normal quantiles.
    """
    if interval is not None and interval not in INTERVALS:
        raise OptionError(
            f"interval={interval!r} does not exist. Choose 'confidence' (for the predicted mean) "
            "or 'prediction' (for a new observation)."
        )
    values, index = predict(fit, newdata, random, new_levels, offset)
    selections = select_effects(fit, random)
    rows = _rows(fit, newdata, selections, new_levels, offset)
    variance = mean_variance(fit, rows, selections)
    total = variance
    if interval == "prediction":
        total = variance + _observation_variance(fit, newdata, selections)
    if newdata is None:
        variance, total = fit.design.pad(variance), fit.design.pad(total)
    if new_levels == "nan":
        variance = np.where(rows.unknown, np.nan, variance)
        total = np.where(rows.unknown, np.nan, total)
    half = stats.norm.ppf(0.5 + level / 2.0) * np.sqrt(total)
    columns = {
        "fit": values,
        "se": np.sqrt(variance),
        "lower": values - half,
        "upper": values + half,
    }
    return pd.DataFrame(columns, index=index)


def _rows(
    fit: Fit, newdata: Any, selections: list[Selection], new_levels: str, offset: Any
) -> NewRows:
    if newdata is not None:
        return new_rows(fit, newdata, selections, new_levels, offset)
    design = fit.design
    chosen = [s.block for s in selections]
    return NewRows(
        X=design.X,
        offset=design.offset_or_zero,
        columns={t: design.blocks[t].columns for t in chosen},
        codes={t: design.blocks[t].codes for t in chosen},
        unknown=np.zeros(design.n, dtype=bool),
        index=design.index[design.rows],
    )


@one_thread
def mean_variance(fit: Fit, rows: NewRows, selections: list[Selection]) -> FloatArray:
    """Variance of the error of the predicted mean, (m,).

    Parameters
    ----------
    fit : Fit
    rows : NewRows
    selections : list of Selection
        The random effects that take part.
    """
    template, products = fit.template, fit.products
    T, shifted = template.factors(fit.theta), template.shifted_factors(fit.theta)
    RX, R = fit.modes.solution.RX, products.basis.R
    n, p = rows.X.shape
    out = np.empty(n)
    size = max(1, _ELEMENTS // max(1, template.q))
    for start in range(0, n, size):
        part = slice(start, min(n, start + size))
        m = part.stop - part.start
        z = np.zeros((template.q, m))
        fresh = np.zeros(m)
        for selection in selections:
            t, at = selection.block, selection.columns
            codes, columns = rows.codes[t][part], rows.columns[t][part]
            known = codes >= 0
            k = template.structures[t].k
            for j in at:
                place = template.offsets[t] + codes[known] * k + j
                z[place, np.flatnonzero(known)] = columns[known, j]
            own = columns[:, at] @ T[t][at]
            fresh += np.where(known, 0.0, np.einsum("nk,nk->n", own, own))
        a = template.multiply_transposed(T, z)
        inner = fit.modes.factor.solve(a)
        variance = np.einsum("qn,qn->n", a, inner) + fresh
        if p:
            x = sla.solve_triangular(R, rows.X[part].T, trans="T", check_finite=False)
            x = x - products.ZtX.T @ template.multiply(shifted, inner)
            half = sla.solve_triangular(RX, x, trans="T", check_finite=False)
            variance = variance + np.einsum("pn,pn->n", half, half)
        out[part] = fit.sigma2 * variance
    return out


def _observation_variance(fit: Fit, newdata: Any, selections: list[Selection]) -> FloatArray:
    """σ²/w and the variance of the random effects that are not predicted, (m,)."""
    chosen = {s.block: set(s.columns.tolist()) for s in selections}
    T = fit.template.factors(fit.theta)
    if newdata is None:
        weights = fit.design.weights_or_one
    else:
        recipe, frame = new_frame(fit, newdata)
        weighted = fit.design.weights is not None
        weights = recipe.weights(frame) if weighted else np.ones(len(frame))
    total = 1.0 / weights
    for t, block in enumerate(fit.design.blocks):
        rest = [j for j in range(block.k) if j not in chosen.get(t, set())]
        if not rest:
            continue
        columns = block.columns if newdata is None else recipe.random(t, frame)
        own = columns[:, rest] @ T[t][rest]
        total = total + np.einsum("nk,nk->n", own, own)
    return np.asarray(fit.sigma2 * total)
