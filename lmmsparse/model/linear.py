"""`LinearMixedModel`: a `Fit` with names on it; methods are lines over functions of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from lmmsparse.chunks.options import Chunks
from lmmsparse.common.calls import checked_keywords, explained_members, not_called
from lmmsparse.common.errors import NotFittedByError, OptionError
from lmmsparse.common.table import Table
from lmmsparse.design.checks import check_design
from lmmsparse.engine.solvers.choose import solver_findings
from lmmsparse.fit.all_fit import all_fit
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.monte_carlo import monte_carlo_findings, more_probes
from lmmsparse.fit.not_identified import not_identified
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.residual.identification import residual_findings
from lmmsparse.fit.verdict import Convergence, judge
from lmmsparse.inference.intervals.confint import check_method
from lmmsparse.inference.intervals.variance_errors import variance_errors
from lmmsparse.model.inference import LinearInference
from lmmsparse.model.robust import summed
from lmmsparse.model.rows import LinearRows
from lmmsparse.report.new_rows import augment_new, told_apart
from lmmsparse.report.plots import ModelPlots
from lmmsparse.report.summary import short_print
from lmmsparse.report.tidy import augment, glance, tidy
from lmmsparse.results.cluster_sums import ClusterSums
from lmmsparse.results.influence import Influence, influence
from lmmsparse.results.monte_carlo import monte_carlo_table
from lmmsparse.results.residual_covariance import ResidualCovariance, residual_covariance
from lmmsparse.results.rows_needed import IN_MEMORY, PREDICT, with_rows
from lmmsparse.results.variance_explained import intraclass_correlation, r_squared


@not_called("A fitted model is no function. Write m.predict(newdata).")
@explained_members
class LinearMixedModel(LinearInference, LinearRows):
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
        super().__init__(fit)

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

    @checked_keywords
    def cluster_sums(
        self, source: Any, cluster: str | None = None, *, chunks: Chunks | None = None
    ) -> ClusterSums:
        """Sum the rows of the data by cluster, for robust standard errors, reading them once more.

        Pass the result as ``cluster=`` to `vcov_robust`, `coef_table` and others. A model that was
        fitted in chunks does this by itself as long as it knows its source: one that was loaded,
        or made from cross-products, does not.

        Parameters
        ----------
        source : path, table or Batches
            The data of the fit, as `lmer` takes them.
        cluster : str, optional
            A grouping factor of the model, or a column of the data; as for `vcov_robust`.
        chunks : Chunks, optional
            Rows at a time and number of processes.

        Returns
        -------
        ClusterSums

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> sleep = lmm.load_dataset("sleepstudy")
        >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", sleep)
        >>> sums = m.cluster_sums(sleep, "Subject", chunks=lmm.Chunks(rows=50))
        >>> sums
        Sums over 18 clusters by Subject
        >>> m.coef_table(robust="CR2", cluster=sums)["Std. Error"].round(4).to_dict()
        {'Intercept': 6.8246, 'Days': 1.5458}
        """
        return summed(self._fit, source, cluster, chunks)

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
        return influence(with_rows(self._fit, "m.influence", IN_MEMORY), groups, progress)

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
        return augment(with_rows(self._fit, "m.augment", PREDICT), data, se_fit)
