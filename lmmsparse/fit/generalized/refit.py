"""`GeneralizedFit` and another response → a fit of the same model, begun where the other ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, LmmError
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.generalized.laplace import Parameters
from lmmsparse.fit.generalized.fit import GeneralizedFit, fitted_generalized
from lmmsparse.fit.refit import per_row

_OFF_ZERO = 0.05
_FLAT = 1e-3


@one_thread
def refit_generalized(fit: GeneralizedFit, y: Any) -> GeneralizedFit:
    """Fit the same design to another response.

    Raises
    ------
    DataError
        For values of the wrong length or kind, and for missing ones.
    """
    design = fit.design
    values = per_row(design, "y", y)
    if not np.isfinite(values).all():
        raise DataError(
            "y holds values that are missing or infinite. A generalized model is refitted to all "
            "rows. Fit with lmm.glmer to leave rows out."
        )
    problem = replace(fit.problem, design=replace(design, y=np.array(values)))
    wrong = problem.family.problem(problem.seen)
    if wrong:
        raise DataError(f"y cannot be a response of this model: {wrong}.")
    try:
        other = fitted_generalized(problem, fit.optimizer, begin=_begin(fit))
        if other.optimum.success:
            return other
    except LmmError:
        pass
    return fitted_generalized(problem, fit.optimizer)


def _begin(fit: GeneralizedFit) -> tuple[Parameters, FloatArray]:
    """The estimates of the other response, θ off zero."""
    at, template = fit.parameters, fit.template
    theta = np.array(at.theta)
    for group in template.mirrors:  # zero is a stationary point of any response
        if abs(theta[group[0]]) < _FLAT:
            theta[group[0]] = _OFF_ZERO
    begin = Parameters(np.array(at.beta), template.with_held(theta), at.delta)
    return begin, np.zeros(template.q)
