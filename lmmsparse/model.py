"""`LinearMixedModel`: a `Fit` with names on it, and the functions that make and compare models."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse._types import FloatArray
from lmmsparse.checks import check_design, require
from lmmsparse.convergence import Convergence, is_singular, judge
from lmmsparse.design import Design, build_design, close_match, design_from_arrays
from lmmsparse.errors import (
    ConvergenceWarning,
    DesignWarning,
    Finding,
    NotFittedByError,
    OptionError,
    SingularFitWarning,
)
from lmmsparse.fit import Fit, fit_design
from lmmsparse.formula import parse_formula
from lmmsparse.inference.lrt import information, likelihood_ratio_table, loglik
from lmmsparse.inference.parameters import theta_names
from lmmsparse.inference.wald import coefficient_table, wald_intervals
from lmmsparse.optimize import Optimizer, Optimum
from lmmsparse.predict import predict
from lmmsparse.ranef import conditional_covariances, conditional_modes, effect_names
from lmmsparse.refit import refit_response
from lmmsparse.simulate import simulate
from lmmsparse.solvers.base import PLSSolver
from lmmsparse.storage import load_fit, save_fit
from lmmsparse.summary import Summary, short_print, summarize
from lmmsparse.table import Table
from lmmsparse.varcorr import VarCorr, principal_components, variance_components

_WARNINGS: dict[str, type[Warning]] = {
    "singular": SingularFitWarning,
    "not-converged": ConvergenceWarning,
}


class LinearMixedModel:
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

    def __init__(self, fit: Fit) -> None:
        self._fit = fit

    def __repr__(self) -> str:
        return short_print(self._fit, self.convergence)

    def _repr_html_(self) -> str:
        return self.summary(ddf="none")._repr_html_()

    @property
    def fit(self) -> Fit:
        """The arrays behind the model."""
        return self._fit

    # -- what was fitted ---------------------------------------------------------------------------

    @property
    def formula(self) -> str:
        """The formula as it was written; empty for a model made from arrays."""
        return self._fit.design.formula

    @property
    def reml(self) -> bool:
        """Whether the REML criterion was minimized, rather than the ML deviance."""
        return self._fit.reml

    @property
    def nobs(self) -> int:
        """Number of rows that were fitted."""
        return self._fit.design.n

    @property
    def n_groups(self) -> dict[str, int]:
        """Grouping factor → number of levels."""
        design = self._fit.design
        return {name: design.blocks[t[0]].n_levels for name, t in design.groups.items()}

    # -- estimates ---------------------------------------------------------------------------------

    def _coefficients(self, values: FloatArray, name: str) -> pd.Series:
        index = pd.Index(self._fit.design.x_names, dtype=object)
        return pd.Series(np.array(values), index=index, name=name)

    @property
    def fixef(self) -> pd.Series:
        """Fixed-effects estimates, (p,)."""
        return self._coefficients(self._fit.beta, "Estimate")

    @property
    def se(self) -> pd.Series:
        """Standard errors of the fixed effects, (p,)."""
        return self._coefficients(np.sqrt(np.diag(self._fit.vcov)), "Std. Error")

    @property
    def vcov(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, (p, p)."""
        names = pd.Index(self._fit.design.x_names, dtype=object)
        return pd.DataFrame(np.array(self._fit.vcov), index=names, columns=names)

    @property
    def theta(self) -> pd.Series:
        """Covariance parameters: per term the column-major lower triangle of T, relative to σ."""
        index = pd.Index(theta_names(self._fit), dtype=object)
        return pd.Series(np.array(self._fit.theta), index=index, name="theta")

    @property
    def sigma(self) -> float:
        """Residual standard deviation (of an observation of weight 1)."""
        return self._fit.sigma

    @property
    def varcorr(self) -> VarCorr:
        """Variances, standard deviations and correlations of the random effects."""
        return variance_components(self._fit)

    def _by_level(self, values: Mapping[str, FloatArray]) -> dict[str, pd.DataFrame]:
        design = self._fit.design
        names = effect_names(self._fit)
        return {
            group: pd.DataFrame(
                matrix,
                index=design.blocks[design.groups[group][0]].levels.rename(group),
                columns=pd.Index(names[group], dtype=object),
            )
            for group, matrix in values.items()
        }

    @property
    def ranef(self) -> dict[str, pd.DataFrame]:
        """Conditional modes of the random effects: group → (levels × effects)."""
        return self._by_level(conditional_modes(self._fit))

    @cached_property
    def cond_var(self) -> dict[str, FloatArray]:
        """Conditional covariance of the random effects: group → (levels, k, k)."""
        return conditional_covariances(self._fit)

    @property
    def coef(self) -> dict[str, pd.DataFrame]:
        """`fixef` + `ranef` per level; an effect that is only random has fixed part 0."""
        out = {}
        for group, modes in self.ranef.items():
            fixed = self.fixef
            columns = [c for c in modes.columns if c not in fixed.index] + list(fixed.index)
            frame = pd.DataFrame(
                {c: np.full(len(modes), fixed.get(c, 0.0)) for c in columns}, index=modes.index
            )
            frame[modes.columns] += modes
            out[group] = frame
        return out

    # -- likelihood --------------------------------------------------------------------------------

    @property
    def loglik(self) -> float:
        """Log-likelihood (ML fit) or restricted log-likelihood (REML fit)."""
        return loglik(self._fit)

    @property
    def aic(self) -> float:
        """Akaike's criterion, from the criterion that was fitted."""
        return information(self._fit)[0]

    @property
    def bic(self) -> float:
        """Schwarz's criterion, with log(nobs), from the criterion that was fitted."""
        return float(information(self._fit)[1])

    @property
    def npar(self) -> int:
        """Number of parameters: fixed effects, covariance parameters, σ."""
        return self._fit.npar

    @property
    def df_resid(self) -> int:
        """Nobs − npar."""
        return self.nobs - self.npar

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

    def _per_row(self, values: FloatArray, name: str) -> pd.Series:
        design = self._fit.design
        return pd.Series(np.array(design.pad(values)), index=design.output_index(), name=name)

    @property
    def fitted(self) -> pd.Series:
        """Fitted values Xβ + Zb + offset on the data's index."""
        return self._per_row(self._fit.fitted, "fitted")

    @property
    def residuals(self) -> pd.Series:
        """Response minus fitted values."""
        return self.residuals_of()

    def residuals_of(self, kind: str = "response", scaled: bool = False) -> pd.Series:
        """Residuals of a kind.

        Parameters
        ----------
        kind : {"response", "pearson"}
            y − ŷ, or √w (y − ŷ).
        scaled : bool
            Divide by σ.

        Returns
        -------
        Series

        Raises
        ------
        OptionError
            For another kind.
        """
        design = self._fit.design
        values = design.y - self._fit.fitted
        if kind == "pearson":
            values = values * np.sqrt(design.weights_or_one)
        elif kind != "response":
            raise OptionError(
                f"kind={kind!r} does not exist. Residuals are of kind 'response' or 'pearson'."
            )
        return self._per_row(values / self.sigma if scaled else values, "residuals")

    @property
    def weights(self) -> pd.Series:
        """Prior weights, 1 if none were given."""
        return self._per_row(self._fit.design.weights_or_one, "weights")

    @property
    def offset(self) -> pd.Series:
        """Offset, 0 if none was given."""
        return self._per_row(self._fit.design.offset_or_zero, "offset")

    # -- diagnosis ---------------------------------------------------------------------------------

    def is_singular(self, tol: float = 1e-4) -> bool:
        """Whether some covariance of random effects is singular.

        Parameters
        ----------
        tol : float
            A contribution to the response with a standard deviation below tol · σ counts as zero.
        """
        return is_singular(self._fit, tol)

    def rank_pca(self) -> dict[str, pd.DataFrame]:
        """Principal components of the relative covariance per group: columns ``sd, cumulative``."""
        return principal_components(self._fit)

    @property
    def optimum(self) -> Optimum:
        """What the search did."""
        return self._fit.optimum

    @cached_property
    def convergence(self) -> Convergence:
        """The verdict on the fit, with its findings."""
        return judge(self._fit, tuple(check_design(self._fit.design)))

    # -- inference ---------------------------------------------------------------------------------

    def coef_table(self, ddf: str = "none") -> Table:
        """Fixed effects with standard errors, t values and p-values.

        Parameters
        ----------
        ddf : {"none", "asymptotic"}
            Denominator degrees of freedom of the t tests.
        """
        return coefficient_table(self._fit, ddf)

    def confint(
        self,
        method: str = "wald",
        level: float = 0.95,
        which: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Confidence intervals.

        Parameters
        ----------
        method : {"wald"}
            Wald intervals exist for fixed effects; covariance parameters are NaN.
        level : float
        which : str or sequence of str, optional
            Parameters to give; ``"beta_"`` for all fixed effects, ``"theta_"`` for all others.

        Returns
        -------
        DataFrame
            Columns ``lower, upper``.
        """
        if method != "wald":
            raise OptionError(f"method={method!r} is not available. Use method='wald'.")
        return wald_intervals(self._fit, level, which)

    def summary(self, ddf: str = "none") -> Summary:
        """The full printout.

        Parameters
        ----------
        ddf : {"none", "asymptotic"}
            Denominator degrees of freedom of the t tests.
        """
        return summarize(self._fit, self.convergence, ddf)

    # -- use ---------------------------------------------------------------------------------------

    def predict(
        self,
        newdata: Any = None,
        *,
        random: bool | str = True,
        new_levels: str = "raise",
        offset: Any = None,
    ) -> pd.Series:
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

        Returns
        -------
        Series
            On the index of the data; NaN where a predictor is missing.

        Raises
        ------
        DataError, FormulaError, OptionError
        """
        values, index = predict(self._fit, newdata, random, new_levels, offset)
        return pd.Series(values, index=index, name="predicted")

    def simulate(
        self, n: int = 1, *, rng: Any, random: str = "new", newdata: Any = None
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

        Returns
        -------
        DataFrame
            One row per observation, one column per draw. The residual variance is σ²/w.
        """
        values, index = simulate(self._fit, n, rng, random, newdata)
        names = pd.Index([f"sim_{i + 1}" for i in range(values.shape[1])], dtype=object)
        return pd.DataFrame(values, index=index, columns=names)

    def refit(self, y: Any, weights: Any = None) -> LinearMixedModel:
        """Fit the same design to another response.

        Parameters
        ----------
        y : array
            One value per fitted row, or per row of the original data. Missing values drop rows.
        weights : array, optional
            New prior weights, in the same layout; the old ones if not given.

        Returns
        -------
        LinearMixedModel
        """
        return _finish(refit_response(self._fit, y, weights))

    def save(self, path: str | Path) -> None:
        """Write the model to one file (arrays and JSON; no pickle), readable by `load`."""
        save_fit(self._fit, path)


def _finish(fit: Fit) -> LinearMixedModel:
    """Wrap a fit and give its findings of level "warning" as warnings."""
    model = LinearMixedModel(fit)
    for finding in model.convergence.findings:
        _warn(finding)
    return model


def _warn(finding: Finding) -> None:
    if finding.level == "warning":
        warnings.warn(finding.message, _WARNINGS.get(finding.code, DesignWarning), stacklevel=4)


def _fit(
    design: Design,
    reml: bool,
    start: Any,
    optimizer: Optimizer | None,
    solver: PLSSolver | None,
) -> LinearMixedModel:
    require(check_design(design))
    return _finish(fit_design(design, reml=reml, start=start, optimizer=optimizer, solver=solver))


def _check_parts(optimizer: Any, solver: Any, reml: Any) -> None:
    if optimizer is not None and not hasattr(optimizer, "minimize"):
        raise OptionError(
            f"optimizer={optimizer!r} is not an optimizer. Pass an object such as lmm.Bobyqa(), "
            "lmm.NelderMead() or lmm.TrustRegion()."
        )
    if solver is not None and not hasattr(solver, "build"):
        raise OptionError(
            f"solver={solver!r} is not a solver. Pass an object such as lmm.Cholmod() or "
            "lmm.Dense()."
        )
    if not isinstance(reml, (bool, np.bool_)):
        raise OptionError(f"reml={reml!r} is neither True nor False.")


def lmer(
    formula: str,
    data: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    start: Any = None,
    optimizer: Optimizer | None = None,
    solver: PLSSolver | None = None,
    context: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> LinearMixedModel:
    """Fit a linear mixed model given by an lme4 formula.

    Parameters
    ----------
    formula : str
        For example ``"y ~ x + (x | subject) + (1 | item)"``.
    data : table
        pandas or polars DataFrame, pyarrow Table, or mapping of arrays.
    reml : bool
        REML (default) or maximum likelihood.
    weights, offset : str or (rows,) array, optional
        Prior weights (residual variance σ²/w) and an offset, as column name or array.
    na_action : {"omit", "exclude", "raise"}
        Rows with missing values: left out, left out and shown as NaN in results, or refused.
    contrasts : mapping, optional
        Column → formulaic contrasts, for fixed and random effects alike.
    start : (n_theta,) array, optional
        Start values of the covariance parameters, in the order of `LinearMixedModel.theta`.
    optimizer : Optimizer, optional
        `TrustRegion()` by default; `Bobyqa()` and `NelderMead()` need no derivatives.
    solver : PLSSolver, optional
        `Cholmod()` by default.
    context : mapping, optional
        Further names and functions the formula may use.
    progress : bool
        Print the search to the standard error stream.

    Returns
    -------
    LinearMixedModel

    Raises
    ------
    FormulaError
        The formula cannot be read.
    DataError
        The data do not fit the formula.
    NotIdentifiableError
        The data cannot tell the parameters apart.

    Warns
    -----
    SingularFitWarning, ConvergenceWarning, DesignWarning

    References
    ----------
    Bates, Mächler, Bolker & Walker (2015), Journal of Statistical Software 67(1).

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> pigs = lmm.load_dataset("dietox")
    >>> m = lmm.lmer("Weight ~ Time + (1 | Pig) + (0 + Time | Pig)", pigs)
    >>> round(m.reml_criterion, 4)
    4434.6961
    """
    _check_parts(optimizer, solver, reml)
    design = build_design(
        parse_formula(formula),
        data,
        weights=weights,
        offset=offset,
        na_action=na_action,
        contrasts=contrasts,
        context=context,
    )
    return _fit(design, bool(reml), start, optimizer, solver)


def fit_arrays(
    y: Any,
    X: Any,
    random: Sequence[tuple[Any, Any]],
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    start: Any = None,
    optimizer: Optimizer | None = None,
    solver: PLSSolver | None = None,
) -> LinearMixedModel:
    """Fit a linear mixed model given by arrays instead of a formula.

    Parameters
    ----------
    y : (n,) array
    X : (n, p) array or DataFrame
        Include a column of ones for an intercept.
    random : list of (groups, Z)
        Per term the group label of each row, (n,), and its columns, (n, k), or None for a random
        intercept. Names come from pandas inputs.
    reml, weights, offset, start, optimizer, solver
        As for `lmer`.

    Returns
    -------
    LinearMixedModel

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> import numpy as np
    >>> sitka = lmm.load_dataset("Sitka")
    >>> X = np.column_stack([np.ones(len(sitka)), sitka["Time"]])
    >>> m = lmm.fit_arrays(sitka["size"], X, [(sitka["tree"], None)])
    >>> round(m.reml_criterion, 4)
    164.7768
    """
    _check_parts(optimizer, solver, reml)
    design = design_from_arrays(y, X, random, weights=weights, offset=offset)
    return _fit(design, bool(reml), start, optimizer, solver)


def load(path: str | Path) -> LinearMixedModel:
    """Read a model that `LinearMixedModel.save` has written.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    LinearMixedModel
        With identical results; nothing in the file is executed.

    Raises
    ------
    StorageError
        If the file is not a saved model or is damaged.
    """
    return LinearMixedModel(load_fit(path))


def anova(*models: LinearMixedModel, refit: bool = True) -> Table:
    """Compare models fitted to the same data by likelihood-ratio tests.

    Parameters
    ----------
    *models : LinearMixedModel
        Two or more.
    refit : bool
        Refit REML fits by maximum likelihood first (the default, and it is said in the table).

    Returns
    -------
    Table
        Columns ``npar, AIC, BIC, logLik, deviance, Chisq, Df, Pr(>Chisq)``, smallest model first.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> pigs = lmm.load_dataset("dietox")
    >>> small = lmm.lmer("Weight ~ Time + (1 | Pig)", pigs)
    >>> large = lmm.lmer("Weight ~ Time + (1 | Pig) + (0 + Time | Pig)", pigs)
    >>> lmm.anova(small, large).to_frame()["Df"].tolist()[1]
    1.0
    """
    for model in models:
        if not isinstance(model, LinearMixedModel):
            raise OptionError(
                f"anova() was given a {type(model).__name__}. It compares fitted models. Pass "
                "models made by lmm.lmer."
            )
    if len(models) < 2:
        raise OptionError(
            f"anova() was given {len(models)} model{'' if len(models) == 1 else 's'}. It compares "
            "two or more. Pass the models to compare, for example lmm.anova(m1, m2)."
        )
    labels = [f"m{i + 1}" for i in range(len(models))]
    return likelihood_ratio_table([m.fit for m in models], labels, refit)


__all__ = ["LinearMixedModel", "anova", "close_match", "fit_arrays", "lmer", "load"]
