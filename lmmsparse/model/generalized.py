"""`GeneralizedLinearMixedModel`: a `GeneralizedFit` with names on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import numpy as np
import pandas as pd

from lmmsparse.common.calls import checked_keywords, explained_members, not_called
from lmmsparse.common.errors import Finding, NotFittedByError, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import check_level, refused
from lmmsparse.common.table import Table
from lmmsparse.design.checks import check_design
from lmmsparse.engine.families import NegativeBinomial
from lmmsparse.engine.families.base import Family
from lmmsparse.engine.solvers.choose import solver_findings
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.many import refit_many_generalized
from lmmsparse.fit.generalized.refit import refit_generalized
from lmmsparse.fit.generalized.verdict import Doubts, doubts, judge_generalized
from lmmsparse.fit.verdict import Convergence
from lmmsparse.inference.generalized.likelihood import criterion_at
from lmmsparse.inference.generalized.wald import (
    parameter_errors,
)
from lmmsparse.inference.intervals.confint import check_method
from lmmsparse.inference.power.power import power
from lmmsparse.model.generalized_inference import GeneralizedInference
from lmmsparse.report.generalized import (
    augment_generalized,
    deviance,
    glance_generalized,
    short_print_generalized,
    tidy_generalized,
)
from lmmsparse.report.new_rows import augment_new, told_apart
from lmmsparse.report.plots import GeneralizedPlots
from lmmsparse.report.power import Power
from lmmsparse.results.generalized import (
    dispersion_table,
    predict_generalized,
    residuals,
    simulate_generalized,
)
from lmmsparse.results.generalized_influence import influence_generalized
from lmmsparse.results.given import given_parameters
from lmmsparse.results.influence import Influence
from lmmsparse.results.variance_explained import intraclass_correlation, r_squared


def announce_doubts(model: GeneralizedLinearMixedModel, told: Sequence[Finding] = ()) -> None:
    """Give warnings of what there is to warn of; what only informs can wait until it is asked for.

    Parameters
    ----------
    told : sequence of Finding
        Those that were given before.
    """
    fit = model.fit
    announce([*check_design(fit.design, fit.held), *model._doubts.findings], told)


@not_called("A fitted model is no function. Write m.predict(newdata).")
@explained_members
class GeneralizedLinearMixedModel(GeneralizedInference):
    """A fitted generalized linear mixed model.

    Made by `glmer` or `load`; never changes afterwards.

    Parameters
    ----------
    fit : GeneralizedFit
        The numbers.

    Notes
    -----
    g(E(y given b)) = Xβ + Zb + offset, b ~ N(0, ΛΛ'). θ and everything made of it is on the scale
    of the link; var(y given b) = φ V(μ) / w with the dispersion φ and weights w.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> cake = lmm.load_dataset("cake")
    >>> m = lmm.glmer("angle ~ temp + (1 | recipe:replicate)", cake, "gamma")
    >>> m.fixef.round(4).to_dict()
    {'Intercept': 2.4446, 'temp': 0.005}
    """

    _fit: GeneralizedFit
    _instead: ClassVar[dict[str, str]] = {
        "step": "It is for linear mixed models. Write m.drop1() and m.ranova().",
        "vcov_varcorr": "Write m.parameter_errors.",
        "all_fit": "Fit again with optimizer=, for example lmm.Bobyqa().",
    }

    @checked_keywords
    def __init__(self, fit: GeneralizedFit) -> None:
        if not isinstance(fit, GeneralizedFit):
            raise OptionError(
                f"GeneralizedLinearMixedModel was given a {type(fit).__name__}. Write "
                "lmm.glmer(formula, data, family) to fit a model."
            )
        super().__init__(fit)

    def __repr__(self) -> str:
        return short_print_generalized(self._fit, self.convergence)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # -- estimates ---------------------------------------------------------------------------------

    @property
    def family(self) -> Family:
        """Distribution and link; that of a negative binomial model has the estimated `theta`."""
        family = self._fit.family
        if isinstance(family, NegativeBinomial):
            return replace(family, theta=float(np.exp(self._fit.delta)))
        return family

    @property
    def dispersion(self) -> float:
        """φ with var(y) = φ V(μ) / weight: 1 for binomial and counts, 1/shape for gamma."""
        return self._fit.family.dispersion(self._fit.delta)

    @property
    def parameter_errors(self) -> pd.DataFrame:
        """Standard deviations, correlations and the family's own with standard errors."""
        return parameter_errors(self._fit)

    @property
    def minus2loglik(self) -> float:
        """−2 log-likelihood at the estimates, with every constant."""
        return self._fit.criterion

    @property
    def deviance(self) -> float:
        """Sum of squared deviance residuals, given the random effects; not −2 log-likelihood."""
        return deviance(self._fit)

    def _gaussian(self, name: str, instead: str) -> NoReturn:
        raise NotFittedByError(
            f"{name} is for linear mixed models: a generalized model has no residual variance on "
            f"the scale of its random effects. {instead}"
        )

    @property
    def sigma(self) -> float:
        """Not defined: see `dispersion`.

        Raises
        ------
        NotFittedByError
        """
        self._gaussian("sigma", "Use m.dispersion.")

    @property
    def reml(self) -> bool:
        """False: generalized models are fitted by maximum likelihood."""
        return False

    @property
    def reml_criterion(self) -> float:
        """Not defined: see `minus2loglik`.

        Raises
        ------
        NotFittedByError
        """
        self._gaussian("REML", "Use m.minus2loglik.")

    @checked_keywords
    def criterion_at(self, beta: Any, theta: Any, dispersion: float | None = None) -> float:
        """−2 log-likelihood at any parameters.

        Parameters
        ----------
        beta, theta : mapping, Series or array
            A mapping or Series goes by names, and what it leaves out is as estimated.
        dispersion : float, optional
            Dispersion, or theta of a negative binomial; that of the fit if not given.
        """
        fit = self._fit
        given = given_parameters(fit, beta, theta, bounded=False)
        return criterion_at(fit, given.beta, given.theta, dispersion)

    @cached_property
    def _doubts(self) -> Doubts:
        return doubts(self._fit)

    @cached_property
    def convergence(self) -> Convergence:
        """The verdict on the fit, with its findings."""
        fit = self._fit
        found = check_design(fit.design, fit.held)
        found = [*found, *solver_findings(fit.products, fit.solver)]
        return judge_generalized(fit, tuple(found), self._doubts)

    @checked_keywords
    def r2(self, method: str | None = None) -> pd.Series:
        """Nakagawa's R²: ``marginal`` (fixed effects), ``conditional`` (with random effects).

        Parameters
        ----------
        method : {"theoretical", "lognormal", "delta", "trigamma"}, optional
            What stands for the residual variance on the scale of the link: that of the latent
            variable (logit, probit, cloglog; the default there), or from the variance at the mean
            of the model without predictors: lognormal (log; the default there), trigamma (counts
            and gamma, log), delta (any link). Binomial responses count as single trials, effects of
            every row as residuals.

        References
        ----------
        Nakagawa, Johnson & Schielzeth (2017), Journal of the Royal Society Interface 14, 20170213.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> f = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        >>> lmm.glmer(f, lmm.load_dataset("cbpp"), "binomial").r2().round(4).to_dict()
        {'marginal': 0.0854, 'conditional': 0.1873}
        """
        return r_squared(self._fit, method)

    @checked_keywords
    def icc(self, method: str | None = None) -> pd.Series:
        """Each group's share of the variance besides fixed effects; `method` as for `r2`."""
        return intraclass_correlation(self._fit, method)

    # -- data --------------------------------------------------------------------------------------

    @property
    def fitted(self) -> pd.Series:
        """Means at the conditional modes, on the data's index."""
        return self._per_row(self._fit.fitted, "fitted")

    @property
    def linear_predictor(self) -> pd.Series:
        """Xβ + Zb + offset, on the data's index."""
        return self._per_row(self._fit.linear_predictor, "linear_predictor")

    @checked_keywords
    def residuals(self, type: str = "deviance", *, rng: Any = None) -> pd.Series:
        """Residuals of a kind, at the conditional modes.

        Parameters
        ----------
        type : {"deviance", "pearson", "response", "working", "quantile"}
            Signed roots of the deviance; y − μ divided by √(V(μ)/weight); y − μ; (y − μ) ∂η/∂μ;
            normal quantiles of the distribution function, randomized for discrete responses.
        rng : numpy Generator or int, optional
            For randomized quantiles; seed 0 if not given.
        """
        return self._per_row(residuals(self._fit, type, rng), "residuals")

    @checked_keywords
    def residuals_of(self, kind: str = "deviance", *, rng: Any = None) -> pd.Series:
        """The same by the name that linear models have; see `residuals`."""
        return self.residuals(kind, rng=rng)

    @checked_keywords
    def check_dispersion(self, n: int = 250, *, rng: Any = 0) -> Table:
        """Whether responses vary as much as the family says.

        Parameters
        ----------
        n : int
            Responses to draw for the simulated reference.
        rng : numpy Generator or int

        Returns
        -------
        Table
            Rows ``Pearson, simulation``, columns ``ratio, df, p.value``; above 1: overdispersion.
        """
        return dispersion_table(self._fit, n, rng)

    @property
    def plot(self) -> GeneralizedPlots:
        """Plots: ``m.plot.effects()``, ``m.plot.caterpillar()`` and others; needs matplotlib."""
        return GeneralizedPlots(self._fit)

    # -- data frames -------------------------------------------------------------------------------

    @checked_keywords
    def tidy(
        self,
        effects: str | Sequence[str] = ("fixed", "ran_pars"),
        *,
        conf_int: bool = False,
        level: float = 0.95,
        conf_method: str = "wald",
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """One row per parameter, with the column names of R's broom.mixed.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals"} or several of them
        conf_int : bool
            Add ``conf_low, conf_high``.
        level : float
        conf_method : str
            As `confint` has it.
        robust, cluster
            As for `coef_table`; limits of fixed effects are then Wald's.
        """
        method = check_method(conf_method)
        found = lambda: self.confint(method, level)  # noqa: E731
        errors = self._robust(robust, cluster)
        return tidy_generalized(self._fit, effects, level if conf_int else None, found, errors)

    @checked_keywords
    def glance(self) -> pd.DataFrame:
        """One row about the model: ``nobs, family, link, dispersion, logLik, AIC, BIC, …``."""
        return glance_generalized(self._fit)

    @checked_keywords
    def augment(
        self,
        data: Any = None,
        newdata: Any = None,
        *,
        se_fit: bool = False,
        random: bool | str = True,
        new_levels: str = "raise",
    ) -> pd.DataFrame:
        """One row per observation: the variables, then what the fit says about the row.

        Parameters
        ----------
        data : table, optional
            The data of the fit, in any order of the rows, to keep all of their columns.
        newdata : table, optional
            Others: their columns, then ``_fitted, _fixed`` on the scale of the link, ``_mu``.
            A table of another length than the data of the fit is taken for such.
        se_fit : bool
            Add ``_se_fit``, standard errors of ``_fitted``.
        random, new_levels
            For new data, as for `predict`.
        """
        data, newdata = told_apart(self._fit, data, newdata, random, new_levels)
        if newdata is not None:
            return augment_new(self._fit, newdata, se_fit, random, new_levels)
        return augment_generalized(self._fit, data, se_fit)

    # -- use ---------------------------------------------------------------------------------------

    @checked_keywords
    def predict(
        self,
        newdata: Any = None,
        *,
        type: str = "response",
        random: bool | str = True,
        new_levels: str = "raise",
        offset: Any = None,
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        marginal: bool = False,
    ) -> pd.Series | pd.DataFrame:
        """Predictions for the data of the fit or for new data.

        Parameters
        ----------
        newdata : table, optional
            The columns the model uses; the response is not needed.
        type : {"response", "link"}
            Means, or linear predictors.
        random : bool or str
            All random effects (True), none (False), or those of a one-sided formula.
        new_levels : {"raise", "population", "nan"}
            What to do with levels of a grouping factor the fit has not seen, or missing ones.
        offset : str or (rows,) array, optional
            Offset of the new rows, in place of the fit's ``offset=`` argument.
        se : bool
            Also give standard errors and confidence limits.
        interval : {"confidence"}, optional
            Limits for the predicted mean, mapped from the scale of the link.
        level : float
        marginal : bool
            With ``random=False``: the mean over all levels of the grouping factors, random effects
            integrated out, rather than the mean of a level whose random effects are zero.

        Returns
        -------
        Series, or DataFrame with columns ``fit, se, lower, upper``
        """
        return predict_generalized(
            self._fit,
            newdata,
            type,
            random,
            new_levels,
            offset,
            se,
            interval,
            check_level(level),
            marginal,
        )

    @checked_keywords
    def power(
        self,
        term: str,
        n: int | Sequence[int] | None = None,
        along: str | None = None,
        effect: Any = None,
        *,
        rng: Any,
        test: str | None = None,
        alpha: float = 0.05,
        n_sim: int = 1000,
        level: float = 0.95,
        theta: Any = None,
        n_jobs: int = 1,
        progress: bool | None = None,
    ) -> Power:
        """How often a test would find an effect, by fits to simulated responses.

        Parameters
        ----------
        term : str
            A fixed effect, or a term of the formula.
        n : int or sequence of int, optional
            Numbers of levels of `along`; by default the design as it is.
        along : str, optional
            The grouping factor that gets more or fewer levels. New ones have the rows of those in
            the data, evenly taken; factors within it get new levels too.
        effect : float, mapping or sequence, optional
            The effect to be found: the coefficient's value, one per coefficient of the term, or
            names → values, also of other fixed effects. By default the estimates.
        rng : numpy Generator or int
            The result depends on it only, not on `n_jobs`.
        test : {"z", "lrt"}
            Wald tests (by default), or likelihood ratios. The models are fitted one by one.
        alpha : float
            Level of the test.
        n_sim : int
            Simulations for every number of levels.
        level : float
            Of the limits of the Monte Carlo error.
        theta
            Covariance parameters for the simulations, as for `simulate`.
        n_jobs : int
            Processes.
        progress : bool, optional
            A bar at once (True), never (False), or by default after two seconds if standard error
            is a terminal or a notebook.

        Returns
        -------
        Power
            ``.table``, ``.to_frame()``, ``.plot()``: per number of levels ``nobs, power, lower,
            upper, simulations, unconverged, singular, failed``.
        """
        options = (test, alpha, n_sim, level, theta, None, n_jobs, progress)
        return Power(*power(self._fit, term, n, along, effect, rng, *options))

    @checked_keywords
    def simulate(
        self,
        n: int = 1,
        *,
        rng: Any,
        random: str = "new",
        newdata: Any = None,
        beta: Any = None,
        theta: Any = None,
    ) -> pd.DataFrame:
        """Draw responses from the fitted model; binomial ones as proportions of their trials.

        Parameters
        ----------
        n : int
            How many.
        rng : numpy Generator or int
        random : str
            ``"new"`` random effects, ``"keep"`` the estimated ones, or a one-sided formula of the
            terms to keep.
        newdata : table, optional
        beta, theta : mapping, Series or array, optional
            Fixed effects, and covariance parameters as in `theta`, in place of the estimates; a
            mapping need not name all.
        """
        at = given_parameters(self._fit, beta, theta)
        values, index = simulate_generalized(self._fit, n, rng, random, newdata, at)
        names = pd.Index([f"sim_{i + 1}" for i in range(values.shape[1])], dtype=object)
        return pd.DataFrame(values, index=index, columns=names)

    @checked_keywords
    def refit(self, y: Any) -> GeneralizedLinearMixedModel:
        """Fit the same design to another response, with trials and weights as they are.

        Parameters
        ----------
        y : array
            One value per fitted row, or per row of the original data; proportions for binomial
            models, as `simulate` gives them. Rows where it is missing are left out.
        """
        if isinstance(y, str):
            raise refused("y", "an array", y, "Pass the values of the response.")
        model = GeneralizedLinearMixedModel(refit_generalized(self._fit, y))
        announce_doubts(model, self._fit.design.findings)
        return model

    @checked_keywords
    def refit_many(self, Y: Any, n_jobs: int = 1, progress: bool | None = None) -> pd.DataFrame:
        """Fit the same design to many responses; no warnings, the verdicts are in the table.

        Parameters
        ----------
        Y : (rows, m) array or DataFrame
            One response per column, as `simulate` gives them. Rows where one is missing are left
            out of its refit.
        n_jobs, progress
            As for `confint`.

        Returns
        -------
        DataFrame
            One row per column of `Y`: ``criterion`` (−2 log-likelihood), θ, the family's own
            parameter, the fixed effects and their standard errors ``se_<name>``, ``converged``,
            ``singular`` and ``problem``: why a response could not be fitted, empty otherwise.
        """
        return refit_many_generalized(self._fit, Y, n_jobs, progress)

    @checked_keywords
    def influence(self, groups: Any = None, progress: bool | None = None) -> Influence:
        """How much each level of a grouping moves the fixed effects, by refits without it.

        Parameters
        ----------
        groups : str or (rows,) array
            A grouping factor of the model, or labels of the rows.
        progress : bool, optional
            As for `confint`.

        Returns
        -------
        Influence
            ``cooks_distance, dfbeta, problems``.
        """
        return influence_generalized(self._fit, groups, progress)
