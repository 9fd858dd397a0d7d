"""`GeneralizedFit` and another response → a fit of the same model, begun where the other ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import DataError, LmmError
from lmmsparse.common.threads import one_thread
from lmmsparse.design.checks import check_design, require
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.fit.generalized.fit import GeneralizedFit, fitted_generalized
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.fit.refit import per_row, subset

_OFF_ZERO = 0.05
_FLAT = 1e-3


@one_thread
def refit_generalized(fit: GeneralizedFit, y: Any) -> GeneralizedFit:
    """Fit the same design to another response; rows where it is missing are left out.

    Raises
    ------
    DataError
        For values of the wrong length or kind.
    """
    design = fit.design
    values = per_row(design, "y", y)
    if np.any(np.isinf(values)):
        raise DataError("y contains infinite values. Remove or correct them.")
    problem = replace(fit.problem, design=replace(design, y=np.array(values)))
    keep = ~np.isnan(values)
    if not keep.all():
        problem = of_rows(problem, keep)
    wrong = problem.family.problem(problem.seen)
    if wrong:
        raise DataError(f"y cannot be a response of this model: {wrong}.")
    if not keep.all():
        return fitted_generalized(problem, fit.optimizer)
    try:
        other = fitted_generalized(problem, fit.optimizer, begin=_begin(fit))
        if other.optimum.success:
            return other
    except LmmError:
        pass
    return fitted_generalized(problem, fit.optimizer)


def of_rows(problem: GeneralizedProblem, keep: BoolArray) -> GeneralizedProblem:
    """The same model of some of its rows; levels without rows disappear.

    Raises
    ------
    DataError, NotIdentifiableError
    """
    design = subset(problem.design, keep)
    require(check_design(design, problem.held))
    trials = None if problem.trials is None else problem.trials[keep]
    return replace(problem, design=design, trials=trials, prepared=None)


@one_thread
def without_rows(fit: GeneralizedFit, keep: BoolArray) -> GeneralizedFit:
    """The same model fitted to some of its rows."""
    return fitted_generalized(of_rows(fit.problem, keep), fit.optimizer)


def _begin(fit: GeneralizedFit) -> tuple[Parameters, FloatArray]:
    """The estimates of the other response, θ off zero."""
    at, template = fit.parameters, fit.template
    theta = np.array(at.theta)
    for group in template.mirrors:  # zero is a stationary point of any response
        if abs(theta[group[0]]) < _FLAT:
            theta[group[0]] = _OFF_ZERO
    begin = Parameters(np.array(at.beta), template.with_held(theta), at.delta)
    return begin, np.zeros(template.q)
