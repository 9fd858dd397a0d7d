"""How sure a generalized linear mixed model is of its parameters: tests, intervals, means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import pandas as pd

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.options import check_counts, one_of
from lmmsparse.common.table import Table
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.generalized.likelihood import deletions, reductions
from lmmsparse.inference.generalized.means import generalized_basis
from lmmsparse.inference.generalized.profile import generalized_profile, profile_intervals
from lmmsparse.inference.generalized.resample import bootstrap_generalized
from lmmsparse.inference.generalized.wald import (
    as_normal,
    term_tests,
    wald_intervals,
    z_table,
)
from lmmsparse.inference.hypotheses.contrast import contrast
from lmmsparse.inference.intervals.bootstrap import INTERVALS, Bootstrap
from lmmsparse.inference.intervals.confint import check_interval_level, check_method
from lmmsparse.inference.intervals.profile.profile import Profile
from lmmsparse.inference.means.joint import joint_tests_table
from lmmsparse.inference.means.tables import Wanted, emmeans_table, emtrends_table
from lmmsparse.inference.robust.clusters import (
    Robust,
    check_kind,
    clusters_of,
    robust_errors,
)
from lmmsparse.inference.robust.robust import robust_covariance
from lmmsparse.model.mixed import MixedModel
from lmmsparse.report.generalized import (
    summarize_generalized,
)
from lmmsparse.report.summary import Summary
from lmmsparse.results.parameters import select_rows


class GeneralizedInference(MixedModel):
    """Methods of a generalized linear mixed model that tell how sure its estimates are."""

    _fit: GeneralizedFit

    @checked_keywords
    def coef_table(
        self, level: float | None = None, *, robust: str | None = None, cluster: Any = None
    ) -> Table:
        """Fixed effects with standard errors and z tests.

        Parameters
        ----------
        level : float, optional
            Adds confidence limits, ``lower.CL, upper.CL``.
        robust : {"CR0", "CR1", "CR2", "CR3"}, optional
            Cluster-robust standard errors, as in `vcov_robust`, and t tests with Satterthwaite's
            degrees of freedom of the working linear model.
        cluster : str or array, optional
            The clusters, as for `vcov_robust`.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> f = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        >>> m = lmm.glmer(f, lmm.load_dataset("cbpp"), "binomial")
        >>> table = m.coef_table(robust="CR1", cluster="herd")
        >>> table["Std. Error"].round(3).tolist()
        [0.296, 0.47, 0.531, 0.375]
        >>> table["df"].round(1).tolist()
        [13.5, 11.5, 11.7, 9.5]
        """
        return z_table(self._fit, level, self._robust(robust, cluster))

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
            Without adjustment; times m/(m − 1) for m clusters; adjusted for what the estimates take
            from the scores, as Kauermann and Carroll do, or as Mancl and DeRouen.

        Returns
        -------
        DataFrame

        Notes
        -----
        The sandwich H⁻¹ Σ s s' H⁻¹ of the scores of the clusters, in all parameters: the likelihood
        is that of the fit, by Laplace's approximation or quadrature; adjustments are those of the
        working linear model at the optimum. Where the model of the random effects or the
        distribution is wrong, so may be what the coefficients mean, which no standard error mends.
        With few clusters all of them vary much: `coef_table`, `contrast`, `emmeans` and `anova`
        take ``robust=`` and give tests with the degrees of freedom that this costs.

        References
        ----------
        Kauermann & Carroll (2001), Journal of the American Statistical Association 96, 1387-1396;
        Mancl & DeRouen (2001), Biometrics 57, 126-134; Rabe-Hesketh & Skrondal (2006), Journal of
        the Royal Statistical Society A 169, 805-827.
        """
        robust = Robust(check_kind("kind", kind), clusters_of(self._fit, cluster))
        return self._covariance(robust_covariance(self._fit, robust))

    def _robust(self, robust: Any, cluster: Any) -> Robust | None:
        return robust_errors(self._fit, robust, cluster)

    @checked_keywords
    def confint(
        self,
        method: str = "profile",
        level: float = 0.95,
        which: str | Sequence[str] | None = None,
        *,
        n: int = 500,
        rng: Any = 0,
        kind: str = "percentile",
        n_jobs: int = 1,
        progress: bool | None = None,
    ) -> pd.DataFrame:
        """Confidence intervals.

        Parameters
        ----------
        method : {"profile", "wald", "boot"}
            Profile likelihood; Wald, on the logarithm for standard deviations and by Fisher's z for
            correlations; parametric bootstrap.
        level : float
        which : str or sequence of str, optional
            Parameters to give, or terms of the fixed effects; ``"beta_"`` for all fixed effects,
            ``"theta_"`` for all others.
        n, rng, kind
            For the bootstrap: replicates, generator or seed, and kind of interval.
        n_jobs : int
            Processes.
        progress : bool, optional
            A bar at once (True), never (False), or by default after two seconds if standard error
            is a terminal or a notebook.

        Returns
        -------
        DataFrame
            Columns ``lower, upper``.
        """
        method, level = check_method(method), check_interval_level(level)
        check_counts(n, n_jobs)
        one_of("kind", kind, INTERVALS)
        if method == "wald":
            return wald_intervals(self._fit, level, which)
        if method == "profile":
            return profile_intervals(self._fit, level, which, n_jobs, progress)
        replicates = self.bootstrap(n, rng=rng, n_jobs=n_jobs, progress=progress)
        frame = replicates.confint(level, kind)
        return frame if which is None else frame.loc[select_rows(which, [*frame.index], self._fit)]

    @checked_keywords
    def profile(
        self,
        which: str | Sequence[str] | None = None,
        level: float | None = None,
        *,
        n_jobs: int = 1,
        progress: bool | None = None,
    ) -> Profile:
        """Profile −2 log-likelihood along parameters.

        Parameters
        ----------
        which : str or sequence of str, optional
            As for `confint`.
        level : float, optional
            Follow the curves only as far as intervals of this level need; if not given, as far as
            joint regions of all parameters do.
        n_jobs, progress
            As for `confint`.

        Returns
        -------
        Profile
            ``.confint(level)``, ``.to_frame()``; ``m.plot.profile(it)`` draws it.
        """
        return generalized_profile(self._fit, which, level, n_jobs, progress)

    @checked_keywords
    def bootstrap(
        self,
        n: int,
        *,
        rng: Any,
        statistic: Callable[[Self], Any] | None = None,
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
            Model → mapping, Series, array or number; all parameters if not given.
        n_jobs : int
            Processes.
        progress : bool, optional
            As for `confint`.
        """
        make = type(self)
        return bootstrap_generalized(self._fit, n, rng, make, statistic, n_jobs, progress)

    @checked_keywords
    def contrast(
        self,
        L: Any,
        rhs: Any = 0.0,
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
        level : float
            Of the limits.
        robust, cluster
            As for `coef_table`.

        Returns
        -------
        Table
            One row: ``Estimate, Std. Error, z value, Pr(>|z|), lower.CL, upper.CL``; several rows,
            tested jointly: ``Chisq, Df, Pr(>Chisq)``. With ``robust=`` as for
            `LinearMixedModel.contrast`.
        """
        errors = self._robust(robust, cluster)
        if errors is not None:
            return contrast(self._fit, L, rhs, "satterthwaite", level, errors)
        return as_normal(contrast(self._fit, L, rhs, "asymptotic", level))

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
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Estimated marginal means: predictions averaged over the other factors.

        Parameters
        ----------
        specs, by, pairwise, contrasts, reverse, ref, adjust, weights, at, level
            As for `LinearMixedModel.emmeans`.
        type : {"link", "response"}
            Means on the scale of the link, or mapped to the response; differences of logits and
            logarithms then become odds ratios and ratios.
        regrid : {"response"}, optional
            Average and compare on the response: differences are of probabilities or rates.
        robust, cluster
            As for `coef_table`.

        Returns
        -------
        Table
            As for `LinearMixedModel.emmeans`, with ``z.ratio`` and without ``df``.

        Examples
        --------
        >>> import lmmsparse as lmm
        >>> f = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        >>> m = lmm.glmer(f, lmm.load_dataset("cbpp"), "binomial")
        >>> found = m.emmeans("period", contrasts="trt.vs.ctrl", regrid="response")
        >>> (100 * found["estimate"]).round(1).to_dict()
        {'2 - 1': -11.4, '3 - 1': -12.4, '4 - 1': -15.0}
        """
        wanted = Wanted(by, pairwise, contrasts, reverse, ref, adjust, weights, at, level, regrid)
        basis = generalized_basis(self._fit, self._robust(robust, cluster))
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
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Slopes along a covariate, averaged over the other factors.

        Parameters
        ----------
        specs, var, by, pairwise, contrasts, reverse, ref, adjust, weights, at, level
            As for `LinearMixedModel.emtrends`.
        regrid : {"response"}, optional
            Slopes of the probability or rate, rather than on the scale of the link.
        robust, cluster
            As for `coef_table`.
        """
        wanted = Wanted(by, pairwise, contrasts, reverse, ref, adjust, weights, at, level, regrid)
        basis = generalized_basis(self._fit, self._robust(robust, cluster))
        return emtrends_table(basis, specs, var, wanted)

    @checked_keywords
    def joint_tests(
        self,
        by: str | Sequence[str] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
        robust: str | None = None,
        cluster: Any = None,
    ) -> Table:
        """Test for every term that its marginal means are alike on the scale of the link.

        Parameters
        ----------
        by, at
            As for `LinearMixedModel.joint_tests`.
        robust, cluster
            As for `coef_table`.

        Returns
        -------
        Table
            ``model term``, a column per factor of `by`, ``df1, df2, F.ratio, p.value``; the second
            degrees of freedom are infinite.
        """
        basis = generalized_basis(self._fit, self._robust(robust, cluster))
        return joint_tests_table(basis, by, at)

    @checked_keywords
    def anova(self, type: int = 3, *, robust: str | None = None, cluster: Any = None) -> Table:
        """Wald χ² tests of the fixed-effects terms.

        Parameters
        ----------
        type : {1, 2, 3}
            As for `lmmsparse.anova`.
        robust, cluster
            As for `coef_table`.
        """
        return term_tests(self._fit, type, self._robust(robust, cluster))

    @checked_keywords
    def drop1(self, *, progress: bool | None = None) -> Table:
        """Test each fixed-effects term that no other builds on by likelihood ratio.

        Parameters
        ----------
        progress : bool, optional
            As for `confint`.
        """
        return deletions(self._fit, progress)

    @checked_keywords
    def ranova(self, *, progress: bool | None = None) -> Table:
        """Test the random effects: each term reduced by one effect, or left out.

        Parameters
        ----------
        progress : bool, optional
            As for `confint`.
        """
        return reductions(self._fit, progress)

    @checked_keywords
    def summary(self, *, robust: str | None = None, cluster: Any = None) -> Summary:
        """The full printout.

        Parameters
        ----------
        robust, cluster
            As for `coef_table`.
        """
        errors = self._robust(robust, cluster)
        return summarize_generalized(self._fit, self.convergence, errors)
