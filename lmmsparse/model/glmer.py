"""Formula, data and family → `GeneralizedLinearMixedModel`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lmmsparse.chunks.source import refuse_chunks
from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import DataError, FormulaError, OptionError
from lmmsparse.common.options import is_whole, one_of, refused
from lmmsparse.common.threads import one_thread
from lmmsparse.design import Design, as_frame, build_design
from lmmsparse.design.checks import check_design, require
from lmmsparse.design.successes import FORMS, as_written, binomial_response
from lmmsparse.engine.families import Binomial, Family, family_named
from lmmsparse.engine.families.base import Observations
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.fit.fitting import check_parts
from lmmsparse.fit.generalized.fit import beside_sigma, fit_generalized
from lmmsparse.fit.generalized.problem import INFORMATION
from lmmsparse.formula.expression import read_expression
from lmmsparse.formula.formula import parse_formula
from lmmsparse.model.generalized import GeneralizedLinearMixedModel, announce_doubts
from lmmsparse.model.update import remembers
from lmmsparse.optimize import Optimizer

_LARGEST_OFFSET = 1e15


@remembers
@checked_keywords
@one_thread
def glmer(
    formula: str,
    data: Any,
    family: Any = None,
    *,
    weights: Any = None,
    offset: Any = None,
    n_agq: int = 1,
    information: str = "observed",
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    start: Any = None,
    optimizer: Optimizer | None = None,
    solver: PLSSolver | None = None,
    fixed: Mapping[str, float] | None = None,
    context: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> GeneralizedLinearMixedModel:
    """Fit a generalized linear mixed model given by an lme4 formula.

    Parameters
    ----------
    formula : str
        For example ``"y ~ x + (1 | subject)"``. A binomial response is 0/1 numbers, truth values, a
        column of two texts or categories (the second is the success), ``cbind(successes,
        failures)``, ``successes / trials``, or proportions with the trials as `weights`.
    data : table
        pandas or polars DataFrame, pyarrow Table, DuckDB relation, or mapping of arrays.
    family : str or family
        ``"binomial"``, ``"poisson"``, ``"gamma"``, ``"inverse_gaussian"``, ``"negative_binomial"``,
        or an object of `lmmsparse.families` with another link.
    weights : str or (rows,) array, optional
        Trials of binomial proportions; otherwise prior weights, which multiply the log-likelihood
        or divide the dispersion.
    offset : str or (rows,) array, optional
        Column, expression such as ``"log(exposure)"``, or array, added to the linear predictor.
    n_agq : int
        1: Laplace approximation. More: nodes per random effect of adaptive quadrature, for one
        grouping factor with up to three effects. 0: β at the joint mode, a rougher criterion;
        standard errors then take θ as known.
    information : {"observed", "expected"}
        Whose Hessian the Laplace approximation uses. Observed is its definition; expected is what
        lme4 has for links that are not canonical.
    na_action, contrasts, start, optimizer, solver, fixed, context, known, progress
        As for `lmer`.

    Returns
    -------
    GeneralizedLinearMixedModel

    Raises
    ------
    FormulaError, DataError, OptionError, NotIdentifiableError

    Warns
    -----
    SingularFitWarning, ConvergenceWarning, DesignWarning

    Notes
    -----
    β, θ and the logarithm of the family's own parameter maximize the likelihood together, by a
    second-order search with exact gradients. The log-likelihood has every constant.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> cake = lmm.load_dataset("cake")
    >>> m = lmm.glmer("angle ~ temp + (1 | recipe:replicate)", cake, lmm.families.Gamma())
    >>> round(m.minus2loglik, 3), round(m.dispersion, 4)
    (1665.512, 0.0191)
    """
    if family is None:
        raise OptionError(
            "glmer() needs a family, for example family='binomial'. For a Gaussian response use "
            "lmm.lmer."
        )
    if not isinstance(formula, str):
        parse_formula(formula)  # which says so
    refuse_chunks("lmm.glmer", data)
    chosen = family_named(family)
    check_parts(optimizer, solver)
    one_of("information", information, INFORMATION, "It is whose Hessian is used.")
    n_agq = _nodes(n_agq)
    if information == "expected" and n_agq > 1:
        raise OptionError(
            "information='expected' is about the Laplace approximation. It goes with n_agq=1 or 0."
        )
    frame = as_frame(data)
    if isinstance(offset, str) and offset not in frame.columns:
        formula, offset = f"{formula} + offset({read_expression(offset).text})", None
    parsed = parse_formula(formula)
    if parsed.response is not None and not parsed.random:
        raise FormulaError(
            f"The formula {parsed.text!r} has no random-effects term, such as (1 | group). For a "
            "model without any use a generalized linear model, for example statsmodels' glm()."
        )
    named = as_written(parsed)
    trials, success, findings = None, "", []
    if isinstance(chosen, Binomial) and parsed.response is not None:
        read = binomial_response(parsed, frame, weights, context)
        parsed, frame, trials = read.formula, read.data, read.trials
        success, findings = read.success, read.findings
        weights = weights if read.weights is None or _same(weights, read) else read.weights
    design = build_design(
        parsed,
        frame,
        weights=weights,
        offset=offset,
        na_action=na_action,
        contrasts=contrasts,
        context=context,
        known=known,
    )
    # The response may have been worked out as a column of its own.
    design = replace(
        design, response=named or design.response, findings=(*design.findings, *findings)
    )
    own = None if trials is None else trials[design.rows]
    _check_response(chosen, design, own)
    held = beside_sigma(design, fixed)
    require(check_design(design, held))
    fit = fit_generalized(
        design,
        chosen,
        trials=own,
        success=success,
        n_agq=n_agq,
        information=information,
        start=start,
        optimizer=optimizer,
        solver=solver,
        fixed=held,
        progress=progress,
    )
    model = GeneralizedLinearMixedModel(fit)
    announce_doubts(model)
    return model


def _same(weights: Any, read: Any) -> bool:
    """Whether the weights of the design are the column that was named."""
    return isinstance(weights, str) and read.trials is read.weights


def _nodes(n_agq: Any) -> int:
    if not is_whole(n_agq) or not 0 <= int(n_agq) <= 101:
        advice = "1 is the Laplace approximation, more are nodes of adaptive quadrature."
        raise refused("n_agq", "a whole number from 0 to 101", n_agq, advice)
    return int(n_agq)


def _check_response(family: Family, design: Design, trials: FloatArray | None) -> None:
    """Refuse a response that the family cannot have.

    Raises
    ------
    DataError
    """
    y = design.y
    if design.offset is not None and np.abs(design.offset).max(initial=0.0) > _LARGEST_OFFSET:
        raise DataError(
            f"The offset holds values up to {np.abs(design.offset).max():.3g}, which is too large "
            "for a linear predictor. Check the column; for a log link it is a logarithm."
        )
    wrong = family.problem(Observations(y, trials))
    if wrong:
        raise DataError(
            f"The response {design.response!r} cannot be {family.name}: {wrong} (smallest "
            f"{y.min():g}, largest {y.max():g})."
            + (f" {FORMS}" if isinstance(family, Binomial) else "")
        )
    if family.discrete and not np.any(y > 0):
        raise DataError(
            f"The response {design.response!r} is zero in all {design.n} rows. There is nothing "
            "to estimate: its probability or rate would be zero. Check the column and how rows "
            "were selected."
        )
    if isinstance(family, Binomial) and np.all(y >= 1.0):
        raise DataError(
            f"Every trial of the response {design.response!r} is a success. There is nothing to "
            "estimate: its probability would be one. Check which value is the success."
        )
