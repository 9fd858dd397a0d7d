"""New data → their rows as the covariance of the residuals sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly
from lmmsparse.common.errors import DataError
from lmmsparse.design.grouping import make_grouping
from lmmsparse.design.recipe import Recipe, evaluate_grouping
from lmmsparse.design.residual import PART, ResidualDesign, time_series, time_values
from lmmsparse.design.residual_checks import check_complete


@dataclass(frozen=True, eq=False)
class NewResiduals(ReadOnly):
    """New rows as the covariance of the residuals sees them.

    Attributes
    ----------
    groups : (m,) int array
        Group of the fit, −1 for a new one.
    own : (m,) int array
        Group among the new rows.
    times : (m,) array
        −1 for a label that the fit has not seen.
    columns : (m, k) array
        As `ResidualDesign.columns`.
    """

    groups: IntArray
    own: IntArray
    times: FloatArray
    columns: FloatArray


def new_residuals(design: ResidualDesign, recipe: Recipe, frame: pd.DataFrame) -> NewResiduals:
    """Read groups, times and columns of the standard deviation from new data."""
    n, context = len(frame), recipe.matrices.context
    columns = np.zeros((n, 0))
    if design.names:
        values = recipe.matrices.matrix(PART, frame)[0]
        names = [str(name) for name in recipe.matrices.specification(PART).column_names]
        columns = values[:, [names.index(name) for name in design.names]]
        if not np.isfinite(columns).all():
            raise DataError(
                f"residual_sd={design.sd_text!r} is missing or infinite in rows of the new data. "
                "Correct the values."
            )
    if design.correlation is None or design.grouping is None:
        own = np.arange(n)
        return NewResiduals(np.full(n, -1), own, np.zeros(n), columns)
    factors = [evaluate_grouping(f, frame, context) for f in design.correlation.factors]
    for factor, text in zip(factors, design.correlation.factors, strict=True):
        check_complete(factor.isna().to_numpy(), design.correlation, text)
    groups, _ = design.grouping.key.encode(factors)
    own = make_grouping(design.correlation.group, factors).codes
    times = np.zeros(n)
    if design.visits is not None:
        labels = time_series(design.correlation, frame, context)
        times = design.visits.key.encode([labels])[0].astype(np.float64)
    elif design.listed:
        raise DataError(
            f"{design.correlation.time!r} in residual={design.correlation.text!r} is a "
            "categorical, whose order new data do not have. Fit with numbers for the occasions, "
            "1, 2, 3, …, to predict or simulate other rows."
        )
    elif design.correlation.time != "1":
        times = time_values(design.correlation, frame, context)
    if design.kind == "us" and (times < 0).any():
        raise DataError(
            f"{design.correlation.time!r} holds visits in the new data that the fit has not seen, "
            "of which residual='us(…)' knows no variance. Use visits that the fit has."
        )
    return NewResiduals(groups, own, times, columns)
