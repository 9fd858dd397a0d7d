"""`GeneralizedFit` → z tests, Wald tests of terms and Wald intervals of all parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import chi2_tail, normal_cdf, normal_quantile
from lmmsparse.common.options import check_level
from lmmsparse.common.table import Table, as_precise_as, counts, fixed, p_values
from lmmsparse.common.words import listed
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.hypotheses.anova import anova_table
from lmmsparse.inference.hypotheses.terms import FixedTerms, check_type
from lmmsparse.inference.intervals.wald import coefficient_table
from lmmsparse.inference.robust.clusters import Robust
from lmmsparse.results.generalized import covariance_names, covariance_values
from lmmsparse.results.parameters import select_rows

_ROMAN = {1: "I", 2: "II", 3: "III"}
_STEP, _ROUNDING = 1e-6, 1e-4
_NEAR_ZERO = 3.0  # standard error of a logarithm above which its limits say nothing


def two_sided(z: FloatArray) -> FloatArray:
    """p-values of two-sided z tests."""
    return np.asarray(2.0 * normal_cdf(-np.abs(z)))


def z_table(fit: GeneralizedFit, level: float | None = None, robust: Robust | None = None) -> Table:
    """Estimates, standard errors, z values and p-values of the fixed effects; limits of a level.

    t tests where standard errors are cluster-robust.
    """
    if robust is not None:
        return coefficient_table(fit, "satterthwaite", level, robust)
    se = np.sqrt(np.diag(fit.vcov))
    z = fit.beta / se
    columns = {"Estimate": fit.beta, "Std. Error": se, "z value": z, "Pr(>|z|)": two_sided(z)}
    if level is not None:
        half = normal_quantile(0.5 + check_level(level) / 2) * se
        columns["lower.CL"], columns["upper.CL"] = fit.beta - half, fit.beta + half
    sized = ("Estimate", "Std. Error", "lower.CL", "upper.CL")
    precise = as_precise_as(se[np.isfinite(se)].tolist())
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        fit.design.x_names,
        formats=dict.fromkeys(sized, precise),
    )


def wald_chi2(fit: GeneralizedFit, L: FloatArray, difference: FloatArray) -> tuple[float, int]:
    """The Wald statistic of Lβ = r and its degrees of freedom."""
    if not len(L):
        return np.nan, 0
    rank = int(np.linalg.matrix_rank(L))
    V = L @ fit.vcov @ L.T
    if not np.isfinite(V).all():
        return np.nan, rank
    middle = np.linalg.pinv(V, rcond=1e-10, hermitian=True)
    return float(difference @ middle @ difference), rank


def term_tests(fit: GeneralizedFit, kind: int, robust: Robust | None = None) -> Table:
    """Wald χ² tests of every fixed-effects term; F tests with cluster-robust standard errors."""
    kind = check_type(kind)
    if robust is not None:
        return anova_table(fit, kind, "satterthwaite", robust)
    terms = FixedTerms(fit.design)
    tests = []
    for i in terms.tested:
        L = terms.hypothesis(i, kind)
        tests.append(wald_chi2(fit, L, L @ fit.beta))
    chisq = np.array([test[0] for test in tests])
    df = np.array([float(test[1]) for test in tests])
    with np.errstate(invalid="ignore"):
        p = np.where(df > 0, chi2_tail(chisq, np.maximum(df, 1.0)), np.nan)
    notes = []
    if kind == 3 and terms.missing_cells:
        notes.append(
            f"Missing cells: {listed(terms.missing_cells)}. Type III hypotheses then depend on "
            "which cells are there."
        )
    return Table(
        {"Chisq": chisq.tolist(), "Df": df.tolist(), "Pr(>Chisq)": p.tolist()},
        [terms.label(i) for i in terms.tested],
        title=f"Type {_ROMAN[kind]} Wald chi-square tests",
        notes=notes,
        formats={"Chisq": fixed(4), "Df": counts, "Pr(>Chisq)": p_values},
    )


def as_normal(table: Table) -> Table:
    """A table of t or F tests with infinite degrees of freedom as one of z or χ² tests."""
    names = {"t value": "z value", "Pr(>|t|)": "Pr(>|z|)", "t.ratio": "z.ratio"}
    columns = dict(table.columns)
    formats = {names.get(name, name): f for name, f in table.formats.items()}
    if "F value" in columns:
        F, num = np.asarray(columns["F value"]), np.asarray(columns["NumDF"])
        own = {"Chisq": (F * num).tolist(), "Df": num.tolist()}
        own["Pr(>Chisq)"] = chi2_tail(F * num, num).tolist()
        formats = {"Chisq": fixed(4), "Df": counts, "Pr(>Chisq)": p_values}
        return Table(own, table.index, table.title, table.notes, formats)
    columns.pop("df", None)
    renamed = {names.get(name, name): values for name, values in columns.items()}
    title = table.title.partition(", infinite degrees of freedom")[0]
    return Table(renamed, table.index, title, table.notes, formats)


def transformed_errors(fit: GeneralizedFit) -> tuple[FloatArray, FloatArray, list[str]]:
    """Covariance parameters on the scales of their intervals, standard errors, and the scales.

    Standard deviations and the family's own on the logarithm, correlations by Fisher's z.
    """
    names = covariance_names(fit)
    scales = ["z" if name.startswith(("cor_", "rho")) else "log" for name in names]
    p, d = fit.design.p, fit.template.n_theta
    theta = np.array(fit.theta)
    structures = fit.template.structures
    lower = np.concatenate([s.lower() for s in structures])
    upper = np.concatenate([s.upper() for s in structures])
    lower = np.where(lower == 0.0, -np.inf, lower)  # signs do not matter

    def on_scale(values: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(np.abs(values))
            fisher = np.arctanh(np.clip(values, -1.0, 1.0))
        return np.where([scale == "z" for scale in scales], fisher, logs)

    center = on_scale(covariance_values(fit))
    J = np.zeros((len(names), d + fit.family.estimates_delta))
    for i in range(d):
        step = _STEP * max(1.0, abs(theta[i]))
        ends, places = [], (min(theta[i] + step, upper[i]), max(theta[i] - step, lower[i]))
        for place in places:
            moved = theta.copy()
            moved[i] = place
            ends.append(on_scale(covariance_values(fit, moved)))
        with np.errstate(invalid="ignore"):
            J[:, i] = (ends[0] - ends[1]) / (places[0] - places[1])
    if fit.family.estimates_delta:
        J[-1, -1] = 1.0
    V = fit.joint_covariance[p:, p:]
    known = np.isfinite(np.diag(V))
    with np.errstate(invalid="ignore"):
        variance = np.einsum("ij,jk,ik->i", J, np.where(np.isfinite(V), V, 0.0), J)
        variance[np.any(~(np.abs(J[:, ~known]) <= _ROUNDING), axis=1)] = np.inf
        se = np.sqrt(np.where(variance >= 0, variance, np.nan))
    return center, se, scales


def parameter_errors(fit: GeneralizedFit) -> pd.DataFrame:
    """Covariance parameters and the family's own with standard errors by the delta method."""
    center, se, scales = transformed_errors(fit)
    values = covariance_values(fit)
    slope = np.where([scale == "z" for scale in scales], 1.0 - values**2, np.abs(values))
    index = pd.Index(covariance_names(fit), dtype=object)
    known = np.isfinite(center) & np.isfinite(se)
    return pd.DataFrame(
        {"Estimate": values, "Std. Error": np.where(known, slope * se, np.nan)}, index=index
    )


def wald_intervals(
    fit: GeneralizedFit, level: float, which: str | Sequence[str] | None
) -> pd.DataFrame:
    """Estimate ± z · standard error; covariance parameters on the scales of `transformed_errors`.

    NaN for what is on its boundary.
    """
    z = normal_quantile(0.5 + check_level(level) / 2)
    center, se, scales = transformed_errors(fit)
    back = [np.tanh if scale == "z" else np.exp for scale in scales]
    known = np.isfinite(center) & np.isfinite(se) & (se < _NEAR_ZERO)
    ends = []
    half = z * np.sqrt(np.diag(fit.vcov))
    for sign in (-1.0, 1.0):
        with np.errstate(over="ignore", invalid="ignore"):
            moved = [f(c + sign * z * s) for f, c, s in zip(back, center, se, strict=True)]
        ends.append(np.concatenate([np.where(known, moved, np.nan), fit.beta + sign * half]))
    names = [*covariance_names(fit), *fit.design.x_names]
    frame = pd.DataFrame({"lower": ends[0], "upper": ends[1]}, index=pd.Index(names, dtype=object))
    return frame if which is None else frame.loc[select_rows(which, names, fit)]
