"""How sure a linear mixed model is of its parameters: tests, intervals, means, smaller models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.table import Table
from lmmsparse.inference.hypotheses.contrast import contrast
from lmmsparse.inference.hypotheses.drop1 import drop1_table
from lmmsparse.inference.hypotheses.ranova import ranova_table
from lmmsparse.inference.hypotheses.step import Step, step
from lmmsparse.inference.intervals.bootstrap import Bootstrap, bootstrap
from lmmsparse.inference.intervals.confint import confidence_intervals
from lmmsparse.inference.intervals.profile.profile import Profile, profile
from lmmsparse.inference.intervals.wald import coefficient_table
from lmmsparse.inference.means.basis import linear_basis
from lmmsparse.inference.means.joint import joint_tests_table
from lmmsparse.inference.means.tables import Wanted, emmeans_table, emtrends_table
from lmmsparse.inference.power.power import power
from lmmsparse.inference.robust.clusters import Robust, check_kind, clusters_of
from lmmsparse.inference.robust.robust import robust_covariance
from lmmsparse.model.mixed import MixedModel
from lmmsparse.model.robust import clusters_asked, errors_asked
from lmmsparse.report.power import Power
from lmmsparse.report.summary import Summary, summarize
from lmmsparse.results.rows_needed import PILOT, with_rows


class LinearInference(MixedModel):
    """Methods of a linear mixed model that tell how sure its estimates are."""

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
            that holds all others. Of a model fitted in chunks, which are read once more, any
            column; or what `cluster_sums` returns.
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
        kind, clusters = check_kind("kind", kind), clusters_asked(self._fit, cluster)
        robust = Robust(kind, clusters_of(self._fit, clusters))
        return self._covariance(robust_covariance(self._fit, robust))

    def _robust(self, robust: Any, cluster: Any) -> Robust | None:
        return errors_asked(self._fit, robust, cluster)

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
        return confidence_intervals(self._fit, method, level, which, type(self), options)

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
        statistic: Callable[[Self], Any] | None = None,
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
        return bootstrap(self._fit, n, rng, type(self), statistic, kind, n_jobs, progress)

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
        fit = with_rows(self._fit, "m.power", PILOT)
        return Power(*power(fit, term, n, along, effect, rng, *options))

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
        regrid: str | bool | None = None,
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
        regrid : {"response"}, optional
            Map predictions to the response before they are averaged and compared, as R's emmeans
            does: differences are then of probabilities, of rates, or in the unit of the response,
            with standard errors by the delta method.
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
        wanted = Wanted(by, pairwise, contrasts, reverse, ref, adjust, weights, at, level, regrid)
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
        regrid: str | bool | None = None,
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
        regrid : {"response"}, optional
            Slopes of the mean of the response, such as of a probability.

        Returns
        -------
        Table
            As `emmeans`, with ``<var>.trend`` for ``emmean``; on the scale of the model
            unless `regrid` is given.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> cake = lmm.load_dataset("cake")
        >>> m = lmm.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", cake)
        >>> m.emtrends("recipe", "temp").to_frame()["temp.trend"].round(3).to_dict()
        {'A': 0.154, 'B': 0.165, 'C': 0.156}
        """
        wanted = Wanted(by, pairwise, contrasts, reverse, ref, adjust, weights, at, level, regrid)
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
        return step(self._fit, type(self), ddf, *alphas, *reduce, keep, progress)

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
