"""`Fit` and new data → a data frame of the rows and what the fit says about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import LmmError, OptionError
from lmmsparse.common.options import one_of
from lmmsparse.common.words import brief
from lmmsparse.design import as_frame
from lmmsparse.design.expressions import learning_calls
from lmmsparse.design.recipe import evaluate_numbers
from lmmsparse.fit.fit import Fit
from lmmsparse.formula.expression import read_expression
from lmmsparse.formula.references import references
from lmmsparse.results.predict import NEW_LEVELS, predict
from lmmsparse.results.prediction_error import predict_with_error


def told_apart(
    fit: Fit, data: Any, newdata: Any, random: bool | str, new_levels: str
) -> tuple[Any, Any]:
    """The data of the fit and new data, one of which is None.

    A table with another number of rows than the data of the fit is new data, and so is any where
    the data are not kept.
    """
    if data is not None and newdata is not None:
        raise OptionError(
            "augment() was given data and newdata. Pass the data of the fit, or others as newdata=."
        )
    if data is not None and len(as_frame(data)) != fit.design.n_all:
        data, newdata = None, data
    one_of("new_levels", new_levels, NEW_LEVELS)
    if newdata is None and (random is not True or new_levels != "raise"):
        raise OptionError(
            f"random={brief(random)} and new_levels={new_levels!r} go with newdata=. Leave them "
            "out, or pass newdata= too."
        )
    return data, newdata


def augment_new(
    fit: Fit, newdata: Any, se_fit: bool, random: bool | str, new_levels: str
) -> pd.DataFrame:
    """The columns of new data, then ``_fitted, _resid, _se_fit, _fixed`` as far as they apply.

    Of a generalized model all are on the scale of the link, without ``_resid``, and ``_mu`` is the
    mean.
    """
    frame = as_frame(newdata).copy()
    values, _ = predict(fit, newdata, random, new_levels)
    frame["_fitted"] = values
    if not fit.has_residuals:
        frame["_mu"] = fit.family.mean(values)  # type: ignore[attr-defined]
    elif (y := _response(fit, as_frame(newdata))) is not None:
        frame["_resid"] = y - values
    if se_fit:
        frame["_se_fit"] = _errors(fit, newdata, random, new_levels)
    frame["_fixed"], _ = predict(fit, newdata, False, "population")
    return frame


def _errors(fit: Fit, newdata: Any, random: bool | str, new_levels: str) -> FloatArray:
    """Standard errors of predicted means, on the scale of the model."""
    found = predict_with_error(fit, newdata, random, new_levels, None, None, 0.95)
    return found["se"].to_numpy(dtype=np.float64)


def errors_of_fit(fit: Fit) -> FloatArray:
    """Standard errors of the fitted values, on the rows of results."""
    return _errors(fit, None, True, "raise")


def _response(fit: Fit, frame: pd.DataFrame) -> FloatArray | None:
    """The response in new data; None if they do not hold it, or it depends on the fit's data."""
    recipe, name = fit.design.recipe, fit.design.response
    if recipe is None or not set(references(name).names) <= set(frame.columns):
        return None
    if learning_calls(read_expression(name)):
        return None
    try:
        return evaluate_numbers(name, frame, recipe.matrices.context)
    except LmmError:
        return None
