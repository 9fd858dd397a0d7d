"""Formula and data, or arrays → `LinearMixedModel`; several models → their comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lmmsparse.chunks.choose import design_of_data
from lmmsparse.chunks.options import Chunks
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.table import Table
from lmmsparse.common.threads import one_thread
from lmmsparse.design import Design, design_from_arrays
from lmmsparse.design.checks import check_design, require
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.fit.fitting import check_parts, fit_design
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.held import held_parameters
from lmmsparse.formula.formula import parse_formula
from lmmsparse.inference.df.methods import check_ddf
from lmmsparse.inference.generalized.likelihood import likelihood_ratios
from lmmsparse.inference.generalized.wald import term_tests
from lmmsparse.inference.hypotheses.anova import anova_table
from lmmsparse.inference.hypotheses.lrt import likelihood_ratio_table
from lmmsparse.inference.hypotheses.terms import check_type
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.model.mixed import MixedModel
from lmmsparse.model.robust import errors_asked
from lmmsparse.model.update import remembers
from lmmsparse.optimize import Optimizer
from lmmsparse.report.compare import Comparison, compared_models


def _fit(
    design: Design,
    reml: bool,
    start: Any,
    optimizer: Optimizer | None,
    solver: PLSSolver | None,
    fixed: Mapping[str, float] | None,
    progress: bool = False,
) -> LinearMixedModel:
    held = held_parameters(design, fixed)
    require(check_design(design, held))
    fit = fit_design(
        design,
        reml=reml,
        start=start,
        optimizer=optimizer,
        solver=solver,
        fixed=held,
        progress=progress,
    )
    model = LinearMixedModel(fit)
    announce(model.convergence.findings)
    return model


@remembers
@checked_keywords
@one_thread
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
    fixed: Mapping[str, float] | None = None,
    context: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
    residual: str | None = None,
    residual_sd: str | None = None,
    chunks: Chunks | None = None,
    progress: bool = False,
) -> LinearMixedModel:
    """Fit a linear mixed model given by an lme4 formula.

    Parameters
    ----------
    formula : str
        For example ``"y ~ x + (x | subject) + (1 | item)"``.
    data : table
        pandas or polars DataFrame, pyarrow Table, DuckDB relation, or mapping of arrays; read in
        chunks: path or pattern of Parquet or CSV files, Dask DataFrame, `Batches`; or what
        `cross_products` has made of any of these.
    reml : bool
        REML (default) or maximum likelihood.
    weights, offset : str or (rows,) array, optional
        Prior weights (residual variance σ²/w) and an offset, as column name or array. A Series goes
        to the rows by its labels.
    na_action : {"omit", "exclude", "raise"}
        Rows with missing values: left out, left out and shown as NaN in results, or refused.
    contrasts : mapping, optional
        Column → coding, for fixed and random effects alike: ``"sum"``, ``"treatment"``, ``"diff"``
        (MASS's contr.sdif), ``"helmert"``, ``"poly"``; a number for each level, as ``[-0.5, 0.5]``
        or ``{"low": -0.5, "high": 0.5}``; a matrix, or contrasts of formulaic.
    start : (n_theta,) array, Series or mapping, optional
        Start values of the covariance parameters, in the order of `LinearMixedModel.theta`; those
        of a Series or mapping go by its labels.
    optimizer : Optimizer, optional
        `TrustRegion()` by default; `Bobyqa()` and `NelderMead()` need no derivatives.
    solver : PLSSolver, optional
        Chosen by `choose_solver` if not given: `Blocked()`, `Cholmod()` or `Krylov()`.
    fixed : mapping of str to float, optional
        Covariance parameters to hold at values instead of estimating them: ``"sigma"``, and
        elements of `LinearMixedModel.theta` by their names. They count as known in every result.
    context : mapping, optional
        Further names and functions the formula may use.
    known : mapping, optional
        Grouping factor → the covariance of its levels, up to a variance that is estimated: a
        `Pedigree`, `Precision`, `Covariance`, or DataFrame with labels (a covariance). It holds for
        every term of that factor, and levels without rows get predictions.
    residual : str, optional
        Correlation within groups: ``"ar1(occasion | g)"``, ``"car1(time | g)"``, ``"cs(1 | g)"`` or
        ``"us(visit | g)"`` (MMRM). The formula may then have no random effects.
    residual_sd : str, optional
        Formula of the logarithm of the residual standard deviation: ``"~ Sex"`` (one per
        level; σ is that of the first), ``"~ log(x)"`` (a power of x), ``"~ x"`` (exponential).
    chunks : Chunks, optional
        Read any data in chunks: the same estimates, but no rows are kept; see `predict_batches`.
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

    With the residual standard deviation known, one parameter less:

    >>> known = lmm.lmer("Weight ~ Time + (1 | Pig)", pigs, fixed={"sigma": 5.0})
    >>> known.sigma, known.npar
    (5.0, 3)
    """
    check_parts(optimizer, solver)
    design = design_of_data(
        parse_formula(formula),
        data,
        chunks,
        weights=weights,
        offset=offset,
        na_action=na_action,
        contrasts=contrasts,
        context=context,
        known=known,
        residual=residual,
        residual_sd=residual_sd,
    )
    return _fit(design, bool(reml), start, optimizer, solver, fixed, progress)


@checked_keywords
@one_thread
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
    fixed: Mapping[str, float] | None = None,
    known: Mapping[str, Any] | None = None,
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
    reml, weights, offset, start, optimizer, solver, fixed, known
        As for `lmer`; groupings go by the names of their Series.

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
    check_parts(optimizer, solver)
    design = design_from_arrays(y, X, random, weights=weights, offset=offset, known=known)
    return _fit(design, bool(reml), start, optimizer, solver, fixed)


@checked_keywords
def anova(
    *models: MixedModel,
    type: int = 3,
    ddf: str = "satterthwaite",
    refit: bool = True,
    robust: str | None = None,
    cluster: Any = None,
) -> Table:
    """Test the fixed-effects terms of one model, or compare models fitted to the same data.

    Parameters
    ----------
    *models : LinearMixedModel or GeneralizedLinearMixedModel
        One, whose terms are tested by F, or by Wald's χ² if it is generalized; or several, compared
        by likelihood-ratio tests.
    type : {1, 2, 3}
        For one model: sequential hypotheses (1), each term adjusted for those that do not contain
        it (2), or cell means weighted equally (3), whatever the coding of the factors.
    ddf : str
        For one model: denominator degrees of freedom, as for `LinearMixedModel.coef_table`.
    refit : bool
        For several: refit REML fits by maximum likelihood first (the table says so).
    robust, cluster
        For one model: cluster-robust tests, as for its `coef_table`; without sums of squares.

    Returns
    -------
    Table
        One model: rows are terms, columns ``Sum Sq, Mean Sq, NumDF, DenDF, F value, Pr(>F)``, or
        ``Chisq, Df, Pr(>Chisq)``.
        Several: columns ``npar, AIC, BIC, logLik, deviance, Chisq, Df, Pr(>Chisq)`` (and
        ``table["Pr(>Chibarsq)"]``, which allows for variances not being negative), smallest
        model first.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> cake = lmm.load_dataset("cake")
    >>> m = lmm.lmer("angle ~ recipe * temperature + (1 | recipe:replicate)", cake)
    >>> lmm.anova(m).to_frame()["F value"].round(4).to_dict()
    {'recipe': 0.2488, 'temperature': 20.5199, 'recipe:temperature': 1.0062}
    >>> pigs = lmm.load_dataset("dietox")
    >>> small = lmm.lmer("Weight ~ Time + (1 | Pig)", pigs)
    >>> large = lmm.lmer("Weight ~ Time + (1 | Pig) + (0 + Time | Pig)", pigs)
    >>> lmm.anova(small, large).to_frame()["Df"].tolist()[1]
    1.0
    """
    if len(models) == 1 and isinstance(models[0], (list, tuple)):
        models = tuple(models[0])
    for model in models:
        if not isinstance(model, MixedModel):
            raise OptionError(
                f"anova() was given a {model.__class__.__name__}. It compares fitted models. Pass "
                "models made by lmm.lmer, and options by name, for example type=3."
            )
    if not models:
        raise OptionError(
            "anova() was given no model. It tests the terms of one, or compares several. Pass the "
            "models, for example lmm.anova(m) or lmm.anova(m1, m2)."
        )
    labels = [f"m{i + 1}" for i in range(len(models))]
    type, ddf = check_type(type), check_ddf(ddf)
    if (robust is not None or cluster is not None) and len(models) > 1:
        raise OptionError("robust= and cluster= are for the terms of one model. Leave them out.")
    generalized = [m.fit for m in models if isinstance(m.fit, GeneralizedFit)]
    if generalized:
        if len(generalized) < len(models):
            raise OptionError(
                "anova() was given linear and generalized models. Their likelihoods are of "
                "different kinds of responses. Compare models of one kind."
            )
        if len(models) == 1:
            errors = errors_asked(generalized[0], robust, cluster)
            return term_tests(generalized[0], type, errors)
        return likelihood_ratios(generalized, labels)
    if len(models) == 1:
        fit = models[0].fit
        return anova_table(fit, type, ddf, errors_asked(fit, robust, cluster))
    return likelihood_ratio_table([m.fit for m in models], labels, refit)


@checked_keywords
def compare(
    *models: MixedModel,
    names: Sequence[str] | None = None,
    beside: str = "se",
    level: float = 0.95,
    ddf: str = "satterthwaite",
) -> Comparison:
    """Models side by side in one table: estimates, variances, counts, criteria and R².

    Parameters
    ----------
    *models : LinearMixedModel or GeneralizedLinearMixedModel
        Of both kinds, if you like; or one mapping of names to models.
    names : sequence of str, optional
        Heads of their columns, ``m1, m2, …`` if not given.
    beside : {"se", "interval", "p", "none"}
        What stands beside the estimates of fixed effects.
    level : float
        Of the intervals.
    ddf : str
        For intervals and p-values of linear models, as for `LinearMixedModel.coef_table`.

    Returns
    -------
    Comparison
        Prints, and has ``to_frame, to_html, to_latex, to_markdown, to_csv``. Its notes say where
        criteria must not be compared: other data, REML with other fixed effects.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> sleep = lmm.load_dataset("sleepstudy")
    >>> small = lmm.lmer("Reaction ~ Days + (1 | Subject)", sleep)
    >>> large = lmm.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    >>> frame = lmm.compare(small, large, names=["lines", "slopes"]).to_frame()
    >>> frame[frame["term"] == "Days"][["statistic", "lines", "slopes"]].head(2).round(3).to_numpy()
    array([['estimate', 10.467, 10.467],
           ['std_error', 0.804, 1.546]], dtype=object)
    """
    given: Any = models
    if len(models) == 1 and isinstance(models[0], Mapping):
        names = list(models[0]) if names is None else names
        given = tuple(models[0].values())
    elif len(models) == 1 and isinstance(models[0], (list, tuple)):
        given = tuple(models[0])
    for model in given:
        if not isinstance(model, MixedModel):
            raise OptionError(
                f"compare() was given a {model.__class__.__name__}. It puts fitted models side by "
                "side. Pass models made by lmm.lmer or lmm.glmer, and options by name."
            )
    if not given:
        raise OptionError(
            "compare() was given no model. It puts models side by side. Write for example "
            "lmm.compare(m1, m2)."
        )
    return compared_models([(m.fit, m.convergence) for m in given], names, beside, level, ddf)
