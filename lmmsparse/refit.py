"""`Fit` and another response → a new `Fit` of the same design, reusing what does not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse._types import BoolArray, FloatArray
from lmmsparse.checks import check_design, require
from lmmsparse.crossproducts import orthonormal, response_products
from lmmsparse.design import Design, LevelKey, RandomBlock
from lmmsparse.design.grouping import Grouping, combined_labels
from lmmsparse.errors import DataError
from lmmsparse.fit import Fit, fit_design, term_columns
from lmmsparse.search import search
from lmmsparse.threads import one_thread


def _per_row(design: Design, what: str, values: Any) -> FloatArray:
    """Values on the fitted rows, given for them or for all rows of the original data."""
    if np.ndim(values) == 2 and np.shape(values)[1] == 1:
        values = np.asarray(values)[:, 0]
    if np.ndim(values) != 1:
        raise DataError(
            f"{what} has {np.ndim(values)} dimensions. One response is fitted at a time. Pass one "
            "value per row."
        )
    try:
        array = np.array(pd.Series(values).to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what} does not hold numbers ({error}). A refit needs numbers. Convert it first."
        ) from error
    if len(array) == design.n:
        return array
    if len(array) == len(design.index):
        return array[design.rows]
    raise DataError(
        f"{what} has {len(array)} values. The model was fitted to {design.n} rows"
        + (f" of {len(design.index)}" if len(design.index) != design.n else "")
        + ", and each needs one. Pass one value per row."
    )


@one_thread
def refit_response(fit: Fit, y: Any, weights: Any = None) -> Fit:
    """Fit the design of `fit` to another response, starting from its θ.

    Parameters
    ----------
    fit : Fit
    y : array
        One value per fitted row, or per row of the original data.
    weights : array, optional

    Raises
    ------
    DataError
        For values of the wrong length or kind.
    """
    design = fit.design
    values = _per_row(design, "y", y)
    w = design.weights if weights is None else _per_row(design, "weights", weights)
    if w is not None and (np.any(w < 0) or np.any(np.isinf(w))):
        raise DataError(
            "weights holds negative or infinite values. A weight divides the residual variance "
            "of its row. Use positive, finite weights."
        )
    if np.any(np.isinf(values)):
        raise DataError(
            "y holds infinite values. Nothing can be fitted to them. Remove or correct them."
        )
    renewed = replace(design, y=values, weights=w)
    keep = ~np.isnan(values)
    if w is not None:
        keep &= ~np.isnan(w) & (w > 0)
    start = _inside(fit)
    if not keep.all():
        renewed = subset(renewed, keep)
    require(check_design(renewed))
    if not keep.all() or weights is not None:
        return fit_design(
            renewed, reml=fit.reml, start=start, optimizer=fit.optimizer, solver=fit.solver
        )
    terms = term_columns(design)
    Q, _ = orthonormal(design.X, design.weights)
    response = response_products(values, Q, terms, design.weights, design.offset)
    objective = fit.objective.with_response(response)
    optimum = search(objective, renewed, start, fit.optimizer)
    result = Fit(renewed, fit.reml, optimum, fit.optimizer, fit.solver)
    result.__dict__["objective"] = objective
    return result


def _inside(fit: Fit) -> FloatArray:
    """θ of the fit, moved off zero so that a singular fit is not a trap for the next response."""
    theta = fit.theta.copy()
    start = fit.template.start
    at_zero = (start > 0) & (theta < 1e-2 * np.abs(theta).max(initial=0.0))
    theta[at_zero] = 0.1 * max(float(np.abs(theta).max()), 1.0)
    return theta


def subset(design: Design, keep: BoolArray) -> Design:
    """The design on some of its rows; levels that lose all their rows disappear.

    Parameters
    ----------
    design : Design
    keep : (n,) bool array
    """
    if not keep.any():
        raise DataError(
            "Every value of the new response is missing. No row is left to fit. Check its values."
        )
    return replace(
        design,
        y=design.y[keep],
        X=np.ascontiguousarray(design.X[keep]),
        blocks=tuple(_subset_block(block, keep) for block in design.blocks),
        weights=None if design.weights is None else design.weights[keep],
        offset=None if design.offset is None else design.offset[keep],
        rows=design.rows[keep],
    )


def _subset_block(block: RandomBlock, keep: BoolArray) -> RandomBlock:
    codes = block.codes[keep]
    present, renumbered = np.unique(codes, return_inverse=True)
    old = block.grouping
    if len(old.key.components) == 1:
        levels = old.levels[present]
        key = LevelKey((levels,), np.arange(len(present), dtype=np.int64))
    else:
        key = LevelKey(old.key.components, old.key.combinations[present])
        levels = combined_labels(key)
    grouping = Grouping(old.name, levels, renumbered.astype(np.intp), key)
    return replace(block, grouping=grouping, columns=block.columns[keep])
