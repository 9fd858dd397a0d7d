"""Two or more models → a test by bootstrap, or estimates pooled over completed data sets."""

from __future__ import annotations

from typing import Any

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import one_of, several
from lmmsparse.common.table import Table
from lmmsparse.inference.hypotheses.bootstrap_lrt import bootstrap_lrt_of_fits
from lmmsparse.inference.hypotheses.pool import (
    check_alike,
    pooled_effects,
    pooled_parameters,
    spread_of,
)
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.model.mixed import MixedModel


@checked_keywords
def pool(
    models: Any,
    *others: MixedModel,
    effects: str = "fixed",
    ddf: str = "satterthwaite",
    level: float = 0.95,
) -> Table:
    """Pool fits of one model to several completed data sets, after multiple imputation.

    Parameters
    ----------
    models, *others : LinearMixedModel or GeneralizedLinearMixedModel
        Two or more, one after the other or as a list.
    effects : {"fixed", "ran_pars"}
        Fixed effects by Rubin's rules; or standard deviations and correlations, which are those of
        the mean covariance matrices, with their range.
    ddf : str
        For linear models: degrees of freedom that complete data would have, as for
        `LinearMixedModel.coef_table`. Barnard and Rubin's, which allow for the imputation, are made
        of them.
    level : float
        Of the limits.

    Returns
    -------
    Table
        ``Estimate, Std. Error, df, t value, Pr(>|t|), lower.CL, upper.CL, fmi, riv, lambda``: the
        last three are the fraction of missing information, the relative increase in variance due
        to it, and its share of the variance. Or ``Estimate, min, max``.

    References
    ----------
    Rubin (1987), Multiple Imputation for Nonresponse in Surveys; Barnard & Rubin (1999), Biometrika
    86, 948-955.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> data = lmm.load_dataset("sleepstudy")
    >>> completed = [data.assign(Days=data["Days"] + shift) for shift in (0.0, 0.1, -0.1)]
    >>> fits = [lmm.lmer("Reaction ~ Days + (1 | Subject)", each) for each in completed]
    >>> lmm.pool(fits)["Std. Error"].round(3).to_dict()
    {'Intercept': 9.82, 'Days': 0.804}
    """
    every = [*several(models), *others]
    for model in every:
        if not isinstance(model, MixedModel):
            raise OptionError(
                f"pool() was given a {type(model).__name__}. It pools fitted models. Pass them one "
                "after the other, or in a list."
            )
    if len(every) < 2:
        raise OptionError(
            "pool() needs two or more models, of as many completed data sets. One tells nothing of "
            "how much the imputations differ."
        )
    one_of("effects", effects, ("fixed", "ran_pars"))
    fits = [model.fit for model in every]
    notes = check_alike(fits)
    off = sum(not model.converged for model in every)
    singular = sum(model.is_singular() for model in every)
    notes += [f"Not at their optimum: {off} of {len(every)} fits."] if off else []
    notes += [f"Singular: {singular} of {len(every)} fits."] if singular else []
    parameters = pooled_parameters(fits, notes)
    if effects == "ran_pars":
        return parameters
    return pooled_effects(fits, ddf, level, [spread_of(parameters), *notes])


@checked_keywords
def bootstrap_lrt(
    small: LinearMixedModel,
    large: LinearMixedModel,
    n: int,
    rng: Any,
    n_jobs: int = 1,
    progress: bool | None = None,
) -> Table:
    """Likelihood-ratio test of a model within a larger one, by parametric bootstrap.

    Parameters
    ----------
    small, large : LinearMixedModel
        Fitted to the same data; REML fits are refitted by maximum likelihood.
    n : int
        Number of responses drawn from the small model.
    rng : numpy Generator or int
        The result depends on it only, not on `n_jobs`.
    n_jobs : int
        Processes.
    progress : bool, optional
        A bar at once (True), never (False), or after two seconds if somebody watches.

    Returns
    -------
    Table
        Rows ``LRT`` (chi-square distribution) and ``bootstrap``; columns ``Chisq, Df, Pr(>Chisq)``.
    """
    for model in (small, large):
        if not isinstance(model, LinearMixedModel):
            raise OptionError(
                f"bootstrap_lrt() was given a {model.__class__.__name__}. It compares fitted "
                "models. Pass models made by lmm.lmer."
            )
    return bootstrap_lrt_of_fits(small.fit, large.fit, n, rng, n_jobs, progress)
