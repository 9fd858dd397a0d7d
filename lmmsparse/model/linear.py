"""`LinearMixedModel`: a `Fit` with names on it; methods are lines over functions of the fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from lmmsparse.common.calls import checked_keywords, explained_members
from lmmsparse.common.errors import NotFittedByError, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import check_level, is_whole
from lmmsparse.common.table import Table
from lmmsparse.common.words import brief
from lmmsparse.design.checks import check_design
from lmmsparse.engine.solvers.choose import solver_findings
from lmmsparse.fit.all_fit import all_fit
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.many.refit import refit_many
from lmmsparse.fit.monte_carlo import monte_carlo_findings, more_probes
from lmmsparse.fit.not_identified import not_identified
from lmmsparse.fit.refit import refit_response
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.residual.identification import residual_findings
from lmmsparse.fit.verdict import Convergence, judge
from lmmsparse.inference.hypotheses.contrast import contrast
from lmmsparse.inference.hypotheses.drop1 import drop1_table
from lmmsparse.inference.hypotheses.ranova import ranova_table
from lmmsparse.inference.hypotheses.step import Step, step
from lmmsparse.inference.intervals.bootstrap import Bootstrap, bootstrap
from lmmsparse.inference.intervals.confint import check_method, confidence_intervals
from lmmsparse.inference.intervals.profile.profile import Profile, profile
from lmmsparse.inference.intervals.variance_errors import variance_errors
from lmmsparse.inference.intervals.wald import coefficient_table
from lmmsparse.inference.means.joint import joint_tests_table
from lmmsparse.inference.means.tables import (
    Wanted,
    emmeans_table,
    emtrends_table,
    linear_basis,
)
from lmmsparse.inference.power.power import power
from lmmsparse.inference.robust.clusters import Robust, check_kind, robust_errors
from lmmsparse.inference.robust.robust import robust_covariance
from lmmsparse.model.mixed import MixedModel
from lmmsparse.report.new_rows import augment_new, told_apart
from lmmsparse.report.plots import ModelPlots
from lmmsparse.report.power import Power
from lmmsparse.report.summary import Summary, short_print, summarize
from lmmsparse.report.tidy import augment, glance, tidy
from lmmsparse.results.given import given_parameters
from lmmsparse.results.influence import Influence, influence
from lmmsparse.results.monte_carlo import monte_carlo_table
from lmmsparse.results.predict import predict
from lmmsparse.results.prediction_error import predict_with_error
from lmmsparse.results.residual_covariance import ResidualCovariance, residual_covariance
from lmmsparse.results.residuals import residuals
from lmmsparse.results.simulate import simulate
from lmmsparse.results.variance_explained import intraclass_correlation, r_squared


@explained_members
class LinearMixedModel(MixedModel):
    """A fitted linear mixed model.

    Made by `lmer`, `fit_arrays` or `load`; never changes afterwards.

    Parameters
    ----------
    fit : Fit
        The numbers.

    Notes
    -----
    y = Xβ + Zb + offset + ε, b ~ N(0, σ²ΛΛ'), ε_i ~ N(0, σ²/w_i).

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), Journal of Statistical Software 67(1).

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    >>> m.fixef.round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """

    @checked_keywords
    def __init__(self, fit: Fit) -> None:
        if not isinstance(fit, Fit) or not fit.has_residuals:
            raise OptionError(
                f"LinearMixedModel was given a {type(fit).__name__}. It wraps what lmm.fit_design "
                "returns. Write lmm.lmer(formula, data) to fit a model."
            )
        self._fit = fit

    def __repr__(self) -> str:
        return short_print(self._fit, self.convergence)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # -- what was fitted ---------------------------------------------------------------------------

    @property
    def reml(self) -> bool:
        """Whether the REML criterion was minimized, rather than the ML deviance."""
        return self._fit.reml

    # -- estimates ---------------------------------------------------------------------------------

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of an observation of weight 1)."""
        return self._fit.sigma

    @property
    def residual(self) -> ResidualCovariance | None:
        """Covariance of the residuals, with ``parameters``; None where they are independent."""
        return residual_covariance(self._fit)

    @checked_keywords
    def vcov_varcorr(self, scale: str = "sdcor") -> pd.DataFrame:
        """Asymptotic covariance matrix of the estimated covariance parameters.

        Parameters
        ----------
        scale : {"sdcor", "vcov"}
            Of standard deviations and correlations (rows as in `confint`), or of variances and
            covariances.

        Returns
        -------
        DataFrame
            The residual parameter last; NaN for terms whose covariance is singular or not
            determined. Variances are far from normal with few groups: prefer `confint`.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> m = lmm.lmer("Yield ~ 1 + (1 | Batch)", lmm.load_dataset("Dyestuff"))
        >>> variance = m.vcov_varcorr("vcov").loc["sigma2", "sigma2"]
        >>> round(float(variance / (2 * m.sigma**4 / 24)), 6)  # 24 degrees of freedom
        1.0
        """
        return variance_errors(self._fit, scale)

    # -- likelihood --------------------------------------------------------------------------------

    @property
    def deviance(self) -> float:
        """−2 log-likelihood of an ML fit.

        Raises
        ------
        NotFittedByError
            For a REML fit.
        """
        if self.reml:
            raise NotFittedByError(
                "The model was fitted by REML, so that it has no ML deviance. The two criteria are "
                "not comparable. Use m.reml_criterion, or fit with lmer(..., reml=False)."
            )
        return self._fit.criterion

    @property
    def reml_criterion(self) -> float:
        """The REML criterion (−2 restricted log-likelihood) of a REML fit.

        Raises
        ------
        NotFittedByError
            For an ML fit.
        """
        if not self.reml:
            raise NotFittedByError(
                "The model was fitted by maximum likelihood, so that it has no REML criterion. The "
                "two criteria are not comparable. Use m.deviance, or fit with lmer(..., reml=True)."
            )
        return self._fit.criterion

    # -- data --------------------------------------------------------------------------------------

    @property
    def fitted(self) -> pd.Series:
        """Fitted values Xβ + Zb + offset on the data's index."""
        return self._per_row(self._fit.fitted, "fitted")

    @property
    def residuals(self) -> pd.Series:
        """Response minus fitted values."""
        return self.residuals_of()

    @checked_keywords
    def residuals_of(self, kind: str = "response", scaled: bool = False) -> pd.Series:
        """Residuals of a kind.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized"}
            y − ŷ; √w (y − ŷ), or y − ŷ over its own standard deviation relative to σ where these
            differ; or divided by the factor of the residuals' covariance matrix, so that they are
            independent with variance one if the model holds.
        scaled : bool
            Divide by σ, which normalized residuals are in any case.

        Returns
        -------
        Series

        Raises
        ------
        OptionError
            For another kind.
        """
        values = residuals(self._fit, kind)
        scaled = scaled and kind != "normalized"
        return self._per_row(values / self.sigma if scaled else values, "residuals")

    # -- diagnosis ---------------------------------------------------------------------------------

    @cached_property
    def convergence(self) -> Convergence:
        """The verdict on the fit, with its findings."""
        fit = self._fit
        found = check_design(fit.design, fit.held)
        found = [*found, *not_identified(fit, found), *solver_findings(fit.products, fit.solver)]
        if isinstance(fit, ResidualFit):
            found += residual_findings(fit.design, fit.undetermined)
        return judge(fit, (*found, *monte_carlo_findings(fit)))

    @property
    def monte_carlo(self) -> Table:
        """What `Krylov`'s random vectors leave open, per covariance parameter and the criterion.

        Columns ``estimate, std. error, Monte Carlo sd, ratio``; zero where linear algebra is exact.
        """
        return monte_carlo_table(self._fit)

    @checked_keywords
    def more_probes(self, n: int) -> LinearMixedModel:
        """The same fit by `Krylov` with a smaller Monte Carlo error, which goes with 1/√n.

        Parameters
        ----------
        n : int
            Probes in all.
        """
        return LinearMixedModel(more_probes(self._fit, n))

    @checked_keywords
    def influence(self, groups: Any = None, progress: bool | None = None) -> Influence:
        """How much single rows, or whole groups, move the estimates.

        Parameters
        ----------
        groups : str or array, optional
            A grouping factor of the model (or one label per row): the model is refitted without
            each of its levels. By default single rows, with θ held.
        progress : bool, optional
            A bar at once (True), never (False), or by default after two seconds if standard error
            is a terminal or a notebook.

        Returns
        -------
        Influence
            ``leverage, rstudent`` (by row only), ``cooks_distance``, ``dfbeta``.
        """
        return influence(self._fit, groups, progress)

    @checked_keywords
    def all_fit(self, *, progress: bool | None = None) -> Table:
        """Minimize the criterion with every optimizer, and from other starts.

        Parameters
        ----------
        progress : bool, optional
            As for `influence`.

        Returns
        -------
        Table
            Per search ``criterion``, θ, the fixed effects, ``evaluations`` and ``seconds``.
        """
        return all_fit(self._fit, progress)

    @checked_keywords
    def icc(self) -> pd.Series:
        """Intraclass correlation: each group's share of the variance besides fixed effects."""
        return intraclass_correlation(self._fit)

    @checked_keywords
    def r2(self) -> pd.Series:
        """Nakagawa's R²: ``marginal`` (fixed effects), ``conditional`` (with random effects)."""
        return r_squared(self._fit)

    @property
    def plot(self) -> ModelPlots:
        """Plots: ``m.plot.residuals()``, ``m.plot.caterpillar()`` and others; needs matplotlib."""
        return ModelPlots(self._fit)

    # -- data frames -------------------------------------------------------------------------------

    @checked_keywords
    def tidy(
        self,
        effects: str | Sequence[str] = "fixed",
        conf_int: bool = False,
        *,
        level: float = 0.95,
        conf_method: str = "wald",
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
    ) -> pd.DataFrame:
        """One row per parameter, with broom.mixed's column names.

        Parameters
        ----------
        effects : {"fixed", "ran_pars", "ran_vals"} or several of them
            Fixed effects, standard deviations and correlations, or conditional modes.
        conf_int : bool
            Add ``conf_low, conf_high``.
        level : float
        conf_method : str
            As `confint` has it, but Wald limits of fixed effects use the t distribution with the
            table's df; conditional modes always have Wald intervals.
        ddf, robust, cluster
            As for `coef_table`.

        Returns
        -------
        DataFrame
            Columns ``effect, group, level, term, estimate, std_error, statistic, df, p_value`` as
            far as they apply.
        """
        limits = level if conf_int else None
        found = lambda: self.confint(conf_method, level)  # noqa: E731
        errors = self._robust(robust, cluster)
        return tidy(self._fit, effects, ddf, limits, check_method(conf_method), found, errors)

    @checked_keywords
    def glance(self) -> pd.DataFrame:
        """One row about the model: ``nobs, sigma, logLik, AIC, BIC, REMLcrit, df_residual``."""
        return glance(self._fit)

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
        """One row per observation: variables, then ``_fitted, _resid, _hat, _cooksd, …``.

        Parameters
        ----------
        data : table, optional
            The data of the fit, in any order of the rows, to keep all of their columns.
        newdata : table, optional
            Others: their columns, then ``_fitted, _resid`` (with a response), ``_fixed``.
            A table of another length than the data of the fit is taken for such.
        se_fit : bool
            Add ``_se_fit``, standard errors of ``_fitted``.
        random, new_levels
            For new data, as for `predict`.
        """
        data, newdata = told_apart(self._fit, data, newdata, random, new_levels)
        if newdata is not None:
            return augment_new(self._fit, newdata, se_fit, random, new_levels)
        return augment(self._fit, data, se_fit)

    # -- inference ---------------------------------------------------------------------------------

    @checked_keywords
    def coef_table(
        self,
        ddf: str = "satterthwaite",
        level: float | None = None,
        *,
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Fixed effects with standard errors, t values and p-values.

        Parameters
        ----------
        ddf : {"satterthwaite", "kenward-roger", "residual", "asymptotic", "none"}
            Denominator degrees of freedom of the t tests. Kenward–Roger also adjusts the standard
            errors; ``"none"`` leaves out p-values.
        level : float, optional
            Adds confidence limits that go with these tests, ``lower.CL, upper.CL``.
        robust : {"CR0", "CR1", "CR2", "CR3"}, optional
            Cluster-robust standard errors, as in `vcov_robust`, with Satterthwaite's degrees of
            freedom.
        cluster : str or array, optional
            The clusters, as for `vcov_robust`; by default the grouping factor that holds all
            others.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
        >>> m.coef_table(robust="CR2", cluster="Subject")["Std. Error"].round(4).to_dict()
        {'Intercept': 6.8246, 'Days': 1.5458}
        """
        return coefficient_table(self._fit, ddf, level, self._robust(robust, cluster))

    @checked_keywords
    def vcov_robust(self, cluster: Any = None, kind: str = "CR2") -> pd.DataFrame:
        """Covariance matrix of the fixed effects that allows for any correlation within clusters.

        Parameters
        ----------
        cluster : str or array, optional
            A grouping factor of the model, or one label per row (of the data or of the fit). Every
            level of every grouping factor must lie in one cluster. By default the grouping factor
            that holds all others.
        kind : {"CR0", "CR1", "CR2", "CR3"}
            Without adjustment; times m/(m − 1) for m clusters; Bell and McCaffrey's, unbiased where
            the fitted model is right; close to the jackknife's.

        Returns
        -------
        DataFrame

        Notes
        -----
        With few clusters all of them vary much. `coef_table`, `contrast`, `emmeans` and
        `lmm.anova` take ``robust=`` and give tests with the degrees of freedom that this costs.

        References
        ----------
        Pustejovsky & Tipton (2018), Journal of Business & Economic Statistics 36, 672-683.
        """
        return self._covariance(robust_covariance(self._fit, check_kind("kind", kind), cluster))

    def _robust(self, robust: Any, cluster: Any) -> Robust | None:
        return robust_errors(self._fit.design, robust, cluster)

    @checked_keywords
    def confint(
        self,
        method: str = "profile",
        level: float = 0.95,
        which: str | Sequence[str] | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Confidence intervals.

        Parameters
        ----------
        method : {"profile", "wald", "boot"}
            Profile likelihood of the ML deviance; Wald (fixed effects only); parametric bootstrap.
        level : float
        which : str or sequence of str, optional
            Parameters to give, or terms of the fixed effects; ``"beta_"`` for all fixed effects,
            ``"theta_"`` for all others.
        **options
            ``n_jobs`` and ``progress``; for the bootstrap also ``n`` (500 replicates), ``rng``
            (seed 0) and ``kind`` (``"percentile"``, ``"basic"`` or ``"normal"``).

        Returns
        -------
        DataFrame
            Columns ``lower, upper``. A side on which the data set no limit is the bound of the
            parameter: 0, ±1 or infinite.
        """
        return confidence_intervals(self._fit, method, level, which, LinearMixedModel, options)

    @checked_keywords
    def profile(
        self,
        which: str | Sequence[str] | None = None,
        level: float | None = None,
        n_jobs: int = 1,
        progress: bool | None = None,
    ) -> Profile:
        """Profile the ML deviance along parameters; a REML fit is refitted by ML first.

        Parameters
        ----------
        which : str or sequence of str, optional
            Parameters, or terms of the fixed effects; ``"beta_"`` for all fixed effects,
            ``"theta_"`` for all others.
        level : float, optional
            The confidence level the curves have to reach; by default far enough for a joint region
            of 99 %.
        n_jobs : int
            Processes to share the parameters between.
        progress : bool, optional
            As for `influence`.
        """
        return profile(self._fit, which, level, n_jobs, progress)

    @checked_keywords
    def bootstrap(
        self,
        n: int,
        *,
        rng: Any,
        statistic: Callable[[LinearMixedModel], Any] | None = None,
        kind: str = "parametric",
        n_jobs: int = 1,
        progress: bool | None = None,
    ) -> Bootstrap:
        """Refit the model to responses drawn from it.

        Parameters
        ----------
        n : int
            Number of replicates.
        rng : numpy Generator or int
            The result depends on it only, not on `n_jobs`.
        statistic : callable, optional
            Model → mapping, Series, array or number. By default standard deviations, correlations,
            ``sigma`` and fixed effects.
        kind : {"parametric", "semiparametric"}
            New random effects and residuals from the model, or the fit's own, centred, scaled to
            the estimated variances and drawn with replacement.
        n_jobs : int
            Processes.
        progress : bool, optional
            As for `influence`.
        """
        return bootstrap(self._fit, n, rng, LinearMixedModel, statistic, kind, n_jobs, progress)

    @checked_keywords
    def contrast(
        self,
        L: Any,
        rhs: Any = 0.0,
        ddf: str = "satterthwaite",
        level: float = 0.95,
        *,
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Test hypotheses Lβ = rhs about the fixed effects.

        Parameters
        ----------
        L : (p,) or (m, p) array, or mapping
            Weights of the fixed effects; a mapping of names to weights is one row. A term with one
            coefficient may stand for it.
        rhs : float or (m,) array
        ddf : str
            As for `coef_table`.
        level : float
            Of the limits.
        robust, cluster
            As for `coef_table`.

        Returns
        -------
        Table
            One row: ``Estimate, Std. Error, df, t value, Pr(>|t|), lower.CL, upper.CL``; several
            rows, tested jointly: ``F value, NumDF, DenDF, Pr(>F)``.
        """
        return contrast(self._fit, L, rhs, ddf, level, self._robust(robust, cluster))

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
        sigma: float | None = None,
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
        test : {"satterthwaite", "kenward-roger", "lrt", "z"}
            t or F tests (Satterthwaite's degrees of freedom by default), likelihood ratios of ML
            fits, or the normal approximation.
        alpha : float
            Level of the test.
        n_sim : int
            Simulations for every number of levels.
        level : float
            Of the limits of the Monte Carlo error.
        theta, sigma
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

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
        >>> found = m.power("Days", along="Subject", n=[6, 18], effect=5.0, rng=1, n_sim=200)
        >>> found["power"].round(1).tolist()
        [0.5, 0.9]
        """
        options = (test, alpha, n_sim, level, theta, sigma, n_jobs, progress)
        return Power(*power(self._fit, term, n, along, effect, rng, *options))

    @checked_keywords
    def emmeans(
        self,
        specs: str | Sequence[str],
        by: str | Sequence[str] | None = None,
        *,
        pairwise: bool = False,
        contrasts: str | Mapping[str, Any] | None = None,
        reverse: bool = False,
        ref: Any = None,
        adjust: str | None = "tukey",
        type: str = "link",
        weights: str | Mapping[str, Any] = "equal",
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Estimated marginal means: predictions averaged over the other factors.

        Parameters
        ----------
        specs : str or sequence of str
            Factors whose means are wanted; several: all combinations of their levels.
        by : str or sequence of str, optional
            Further factors, within whose levels means are compared.
        pairwise : bool
            Give all differences between the means, with limits and tests.
        contrasts : {"pairwise", "trt.vs.ctrl", "consec"} or mapping, optional
            All differences, those from a reference, those from the level before; or names →
            weights of the means, ``{"name": {"level": 1, ...}}`` or one number per mean.
        reverse : bool
            Turn every difference round.
        ref : level or position, optional
            The reference; the first mean if not given.
        adjust : {"tukey", "holm", "bonferroni", "sidak", "fdr", "none"}
            How tests and limits of differences allow for their number, in each group of `by`.
            Tukey's method is for all pairs: elsewhere Šidák's takes its place. Limits that go with
            ``"holm"`` and ``"fdr"`` are Bonferroni's.
        type : {"link", "response"}
            On the scale of the model, or mapped back where the formula transforms the response:
            ``log(y)``, ``np.sqrt(y)``. Differences of logarithms then become ratios, of logits
            odds ratios; others stay what they are.
        weights : {"equal", "proportional"} or mapping
            Of the levels that are averaged over: alike, as often as they occur in the data, or
            factor → weights of its levels.
        at : mapping, optional
            Column → values for covariates, otherwise at their mean, or levels of factors.
        level : float
        ddf, robust, cluster
            As for `coef_table`.

        Returns
        -------
        Table
            A column per factor, then ``emmean`` (or ``response``), ``SE, df, lower.CL, upper.CL``;
            of differences ``contrast``, a column per factor of `by`, ``estimate`` (or ``ratio``,
            ``odds.ratio``), ``SE, df, lower.CL, upper.CL, t.ratio, p.value``. NaN where
            combinations of levels that do not occur leave it undetermined.

        Notes
        -----
        A factor whose levels each occur within one level of another is nested in it: its means are
        shown with the other's level, and averages are over the levels that occur.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> cake = lmm.load_dataset("cake")
        >>> m = lmm.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
        >>> m.emmeans("recipe").to_frame()["emmean"].round(3).to_dict()
        {'A': 33.122, 'B': 31.644, 'C': 31.6}
        """
        wanted = Wanted(by, pairwise, contrasts, reverse, ref, adjust, weights, at, level)
        basis = linear_basis(self._fit, ddf, self._robust(robust, cluster))
        return emmeans_table(basis, specs, wanted, type)

    @checked_keywords
    def emtrends(
        self,
        specs: str | Sequence[str] | None,
        var: str,
        by: str | Sequence[str] | None = None,
        *,
        pairwise: bool = False,
        contrasts: str | Mapping[str, Any] | None = None,
        reverse: bool = False,
        ref: Any = None,
        adjust: str | None = "tukey",
        weights: str | Mapping[str, Any] = "equal",
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Slopes along a covariate for the levels of factors, averaged over the others.

        Parameters
        ----------
        specs : str, sequence of str or None
            Factors whose slopes are wanted; None for one over all.
        var : str
            The covariate. Of a curve it is the slope at its mean, or at the values in `at`.
        by, pairwise, contrasts, reverse, ref, adjust, weights, at, level, ddf, robust, cluster
            As for `emmeans`.

        Returns
        -------
        Table
            As `emmeans`, with ``<var>.trend`` for ``emmean``; on the scale of the model.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> cake = lmm.load_dataset("cake")
        >>> m = lmm.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", cake)
        >>> m.emtrends("recipe", "temp").to_frame()["temp.trend"].round(3).to_dict()
        {'A': 0.154, 'B': 0.165, 'C': 0.156}
        """
        wanted = Wanted(by, pairwise, contrasts, reverse, ref, adjust, weights, at, level)
        basis = linear_basis(self._fit, ddf, self._robust(robust, cluster))
        return emtrends_table(basis, specs, var, wanted)

    @checked_keywords
    def joint_tests(
        self,
        by: str | Sequence[str] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
        ddf: str = "satterthwaite",
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Test for every term that its marginal means are alike, jointly by F.

        Parameters
        ----------
        by : str or sequence of str, optional
            Factors, in each combination of whose levels the tests are done.
        at : mapping, optional
            As for `emmeans`; covariates without values are tested by their slope at the mean.
        ddf, robust, cluster
            As for `coef_table`; robust tests are Hotelling's T² with approximate degrees of
            freedom.

        Returns
        -------
        Table
            ``model term``, a column per factor of `by`, ``df1, df2, F.ratio, p.value``.
        """
        basis = linear_basis(self._fit, ddf, self._robust(robust, cluster))
        return joint_tests_table(basis, by, at)

    @checked_keywords
    def drop1(
        self, test: str = "chisq", ddf: str = "satterthwaite", progress: bool | None = None
    ) -> Table:
        """Test each fixed-effects term that no other term builds on.

        Parameters
        ----------
        test : {"chisq", "F"}
            Likelihood ratios of ML fits, or F tests.
        ddf : str
            For F tests, as for `coef_table`.
        progress : bool, optional
            As for `influence`, for refits.

        Returns
        -------
        Table
            First row ``<none>``; ``npar, AIC, LRT, Pr(>Chisq)`` or
            ``NumDF, DenDF, F value, Pr(>F)``.
        """
        return drop1_table(self._fit, test, ddf, progress)

    @checked_keywords
    def ranova(self, *, progress: bool | None = None) -> Table:
        """Test the random effects: each term reduced by one effect, or left out.

        Parameters
        ----------
        progress : bool, optional
            As for `influence`.

        Returns
        -------
        Table
            First row ``<none>``; ``npar, logLik, AIC, LRT, Df, Pr(>Chisq)`` by the fit's criterion.
            Notes, and ``table["Pr(>Chibarsq)"]``, allow for variances not being negative.
        """
        return ranova_table(self._fit, progress)

    @checked_keywords
    def step(
        self,
        *,
        ddf: str = "satterthwaite",
        alpha_random: float = 0.1,
        alpha_fixed: float = 0.05,
        reduce_random: bool = True,
        reduce_fixed: bool = True,
        keep: str | Sequence[str] = (),
        progress: bool | None = None,
    ) -> Step:
        """Eliminate terms one by one, the least significant first: random effects, then fixed ones.

        Parameters
        ----------
        ddf : str
            Degrees of freedom of the F tests, as for `coef_table`.
        alpha_random, alpha_fixed : float
            Terms with larger p-values go (likelihood ratios as in `ranova`, F tests as in `drop1`).
        reduce_random, reduce_fixed : bool
            Whether to eliminate random effects, and fixed effects.
        keep : str or sequence of str
            Fixed-effects terms that stay.
        progress : bool, optional
            As for `influence`, for every round of tests of random effects.

        Returns
        -------
        Step
            ``random, fixed`` (tables), ``formula`` and ``model`` of what is left.

        Notes
        -----
        p-values and intervals of a model that was found this way are too optimistic.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> sleep = lmm.load_dataset("sleepstudy")
        >>> m = lmm.lmer("Reaction ~ Days + I(Days**2) + (Days | Subject)", sleep)
        >>> m.step().formula
        'Reaction ~ Days + (Days | Subject)'
        """
        alphas, reduce = (alpha_random, alpha_fixed), (reduce_random, reduce_fixed)
        return step(self._fit, LinearMixedModel, ddf, *alphas, *reduce, keep, progress)

    @checked_keywords
    def summary(
        self, ddf: str = "satterthwaite", *, robust: str | None = None, cluster: Any = None
    ) -> Summary:
        """The full printout.

        Parameters
        ----------
        ddf, robust, cluster
            As for `coef_table`.
        """
        return summarize(self._fit, self.convergence, ddf, self._robust(robust, cluster))

    # -- use ---------------------------------------------------------------------------------------

    @checked_keywords
    def predict(
        self,
        newdata: Any = None,
        *,
        random: bool | str = True,
        new_levels: str = "raise",
        offset: Any = None,
        se: bool = False,
        interval: str | None = None,
        level: float = 0.95,
        theta_draws: int = 0,
        rng: Any = None,
    ) -> pd.Series | pd.DataFrame:
        """Predictions for the data of the fit or for new data.

        Parameters
        ----------
        newdata : table, optional
            The columns the model uses; the response is not needed.
        random : bool or str
            All random effects (True), none (False), or those of a one-sided formula such as
            ``"~(1|Subject)"``.
        new_levels : {"raise", "population", "nan"}
            What to do with levels of a grouping factor the fit has not seen, or missing ones.
        offset : str or (rows,) array, optional
            Offset of the new rows, in place of the fit's ``offset=`` argument.
        se : bool
            Also give standard errors and confidence limits.
        interval : {"confidence", "prediction"}, optional
            Limits for the predicted mean, or for a new observation.
        level : float
            Confidence level of the limits.
        theta_draws : int
            With standard errors or limits: average over so many draws of the covariance parameters
            from their asymptotic distribution (200 are plenty), which widens the limits by their
            uncertainty. By default they are taken as known, as in lme4.
        rng : numpy Generator or int, optional
            For these draws; seed 0 if not given.

        Returns
        -------
        Series, or DataFrame with columns ``fit, se, lower, upper``
            On the index of the data; NaN where a predictor is missing.

        Raises
        ------
        DataError, FormulaError, OptionError
        """
        if se or interval is not None:
            return predict_with_error(
                self._fit,
                newdata,
                random,
                new_levels,
                offset,
                interval,
                check_level(level),
                theta_draws,
                rng,
            )
        if not is_whole(theta_draws) or theta_draws != 0:
            raise OptionError(
                f"theta_draws={brief(theta_draws)} goes with standard errors or limits. The "
                "prediction itself does not depend on it. Pass se=True or interval= too."
            )
        values, index = predict(self._fit, newdata, random, new_levels, offset)
        return pd.Series(values, index=index, name="predicted")

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
        sigma: float | None = None,
    ) -> pd.DataFrame:
        """Draw responses from the fitted model.

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
        sigma : float, optional
            Residual standard deviation in place of the estimate. θ is relative to it: with the same
            θ the standard deviations of the random effects change in the same proportion.

        Returns
        -------
        DataFrame
            One row per observation, one column per draw. The residual variance is σ²/w.
        """
        at = given_parameters(self._fit, beta, theta, sigma)
        values, index = simulate(self._fit, n, rng, random, newdata, at)
        names = pd.Index([f"sim_{i + 1}" for i in range(values.shape[1])], dtype=object)
        return pd.DataFrame(values, index=index, columns=names)

    @checked_keywords
    def refit(self, y: Any, weights: Any = None) -> LinearMixedModel:
        """Fit the same design to another response.

        Parameters
        ----------
        y : array
            One value per fitted row, or per row of the original data. Missing values drop rows. A
            Series goes to the rows by its labels.
        weights : array, optional
            New prior weights, in the same layout; the old ones if not given.

        Returns
        -------
        LinearMixedModel
        """
        model = LinearMixedModel(refit_response(self._fit, y, weights).fit)
        announce(model.convergence.findings, self._fit.design.findings)
        return model

    @checked_keywords
    def refit_many(self, Y: Any, n_jobs: int = 1, progress: bool | None = None) -> pd.DataFrame:
        """Fit the same design to many responses; no warnings, the verdicts are in the table.

        Parameters
        ----------
        Y : (rows, m) array or DataFrame
            One response per column, one row per fitted row or per row of the original data; a
            DataFrame by its row labels. A column with missing values is refitted without these
            rows.
        n_jobs : int
            Processes for responses that are refitted one by one: those with missing values, and
            all of models with several grouping factors. −1 for all processors. The responses of a
            model with one grouping factor are searched together, in this process.
        progress : bool, optional
            A bar for these at once (True), never (False), or by default after two seconds if
            standard error is a terminal or a notebook. After Ctrl-C the others have a `problem`.

        Returns
        -------
        DataFrame
            One row per column of `Y`: ``criterion``, θ (named as in `theta`), ``sigma``, the fixed
            effects and their standard errors ``se_<name>``, ``converged``, ``singular`` and
            ``problem``. A response that cannot be fitted has NaN, and in ``problem`` the reason,
            which is empty otherwise.

        Raises
        ------
        DataError
            If `Y` has the wrong number of rows or does not hold numbers.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
        >>> table = m.refit_many(m.simulate(200, rng=1))
        >>> table.shape, bool(table["converged"].all())
        ((200, 12), True)
        """
        return refit_many(self._fit, Y, n_jobs, progress)
