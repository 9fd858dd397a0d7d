"""Fits of one model to several completed data sets → one set of estimates, by Rubin's rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import t_quantile, t_tail
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import check_level
from lmmsparse.common.table import Table, as_precise_as, fixed
from lmmsparse.common.words import listed
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.inference.df.methods import check_ddf, denominator_df, method_name, standard_errors
from lmmsparse.results.parameters import parameter_names, parameter_values, residual_values


def pooled_effects(fits: Sequence[Fit], ddf: str, level: float, notes: Sequence[str] = ()) -> Table:
    """Fixed effects by Rubin's rules, with Barnard and Rubin's degrees of freedom.

    Parameters
    ----------
    ddf : str
        Method for the degrees of freedom that complete data would have; the mean over the fits is
        taken.
    notes : sequence of str
        What there is to say of the fits.

    Notes
    -----
    With the mean Ū of the m squared standard errors and the variance B of the estimates the total
    is T = Ū + (1 + 1/m)B, λ = (1 + 1/m)B/T and r = (1 + 1/m)B/Ū. With ν of complete data, the
    degrees of freedom are those of (m − 1)/λ² and ν(ν + 1)(1 − λ)/(ν + 3), harmonically joined.
    """
    ddf, level = check_ddf(ddf), check_level(level)
    each = np.eye(fits[0].design.p)
    betas, errors, dfs = [], [], []
    for fit in fits:
        method = denominator_df(fit, ddf if fit.has_residuals else "asymptotic")
        betas.append(fit.beta)
        errors.append(standard_errors(method, each))
        dfs.append(method.single(each))
    found = rubin(np.array(betas), np.array(errors), np.mean(dfs, axis=0))
    estimate, se, df = found["estimate"], found["se"], found["df"]
    half = t_quantile(0.5 + level / 2.0, df) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        t = estimate / se
    columns = {
        "Estimate": estimate,
        "Std. Error": se,
        "df": df,
        "t value": t,
        "Pr(>|t|)": 2.0 * t_tail(np.abs(t), df),
        "lower.CL": estimate - half,
        "upper.CL": estimate + half,
        "fmi": found["fmi"],
        "riv": found["riv"],
        "lambda": found["lambda"],
    }
    precise = as_precise_as(se[np.isfinite(se)].tolist())
    sized = ("Estimate", "Std. Error", "lower.CL", "upper.CL")
    words = method_name(ddf) if fits[0].has_residuals else "infinite"
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        fits[0].design.x_names,
        title=f"Fixed effects of {len(fits)} fits, pooled by Rubin's rules",
        notes=[
            f"Barnard and Rubin's degrees of freedom, of complete data: {words}. "
            f"Confidence level {level:g}.",
            *notes,
        ],
        formats={
            **dict.fromkeys(sized, precise),
            **dict.fromkeys(("fmi", "riv", "lambda"), fixed(3)),
        },
    )


def rubin(estimates: FloatArray, errors: FloatArray, complete: FloatArray) -> dict[str, FloatArray]:
    """Rubin's rules for each column of m estimates and standard errors, (m, p).

    Parameters
    ----------
    complete : (p,) array
        Degrees of freedom with complete data; may be infinite.
    """
    m = len(estimates)
    within, between = (errors**2).mean(axis=0), estimates.var(axis=0, ddof=1)
    added = (1.0 + 1.0 / m) * between
    total = within + added
    with np.errstate(divide="ignore", invalid="ignore"):
        lam, riv = added / total, added / within
        old = (m - 1.0) / lam**2
        share = np.where(np.isinf(complete), 1.0, (complete + 1.0) / (complete + 3.0))
        observed = share * complete * (1.0 - lam)
        df = 1.0 / (1.0 / old + 1.0 / observed)
        fmi = (riv + 2.0 / (df + 3.0)) / (riv + 1.0)
    return {
        "estimate": estimates.mean(axis=0),
        "se": np.sqrt(total),
        "df": df,
        "fmi": fmi,
        "riv": riv,
        "lambda": lam,
    }


def pooled_parameters(fits: Sequence[Fit], notes: Sequence[str] = ()) -> Table:
    """Standard deviations and correlations of the mean covariance matrices, and their range."""
    each = np.array([parameter_values(fit, fit.theta, fit.sigma) for fit in fits])
    estimate = _of_mean_covariances(fits)
    names = parameter_names(fits[0])
    if not fits[0].has_residuals:
        each, estimate, names = each[:, :-1], estimate[:-1], names[:-1]
    columns = {"Estimate": estimate, "min": each.min(axis=0), "max": each.max(axis=0)}
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        names,
        title=f"Random effects of {len(fits)} fits",
        notes=["Of the mean covariance matrices, with the range over the fits.", *notes],
    )


def _of_mean_covariances(fits: Sequence[Fit]) -> FloatArray:
    """Parameters of every term's mean covariance matrix, means of the residuals', and σ."""
    covariances = []
    for fit in fits:
        T = fit.template.factors(fit.theta)
        covariances.append([fit.sigma2 * factor @ factor.T for factor in T])
    values = []
    for t, structure in enumerate(fits[0].template.structures):
        cov = np.mean([own[t] for own in covariances], axis=0)
        sd = np.sqrt(np.diag(cov))
        for row, column in structure.entries:
            both = sd[row] * sd[column]
            apart = cov[row, column] / both if both > 0 else np.nan
            values.append(sd[row] if row == column else apart)
    residual = np.mean([residual_values(fit) for fit in fits], axis=0)
    return np.array([*values, *residual, np.sqrt(np.mean([fit.sigma2 for fit in fits]))])


def check_alike(fits: Sequence[Fit]) -> list[str]:
    """Refuse fits of different models; what else differs is returned as notes."""
    first = fits[0]
    for i, fit in enumerate(fits[1:], start=2):
        if why := _difference(first, fit):
            raise OptionError(
                f"Model 1 and model {i} are not the same: {why}. Pool fits of one model to "
                "several completed data sets."
            )
    notes = []
    rows = [fit.design.n for fit in fits]
    if min(rows) < max(rows):
        notes.append(f"The fits have {min(rows)} to {max(rows)} rows.")
    return notes


def _difference(one: Fit, other: Fit) -> str:
    """What sets two models apart; empty if nothing does."""
    if type(one) is not type(other):
        return "one is a generalized model"
    family = [getattr(fit, "family", None) for fit in (one, other)]
    if family[0] is not None and str(family[0]) != str(family[1]):
        return f"their families are {family[0]} and {family[1]}"
    if one.design.x_names != other.design.x_names:
        apart = set(one.design.x_names) ^ set(other.design.x_names)
        return f"their fixed effects differ in {listed(sorted(apart) or one.design.x_names)}"
    if theta_names(one.design) != theta_names(other.design):
        return (
            f"their random effects are {listed(theta_names(one.design))} and "
            f"{listed(theta_names(other.design))}"
        )
    if one.design.formula.split() != other.design.formula.split():
        return f"their formulas are {one.design.formula!r} and {other.design.formula!r}"
    if one.reml != other.reml:
        return "one is fitted by REML, the other by maximum likelihood"
    return ""


def spread_of(parameters: Table) -> str:
    """Pooled standard deviations and correlations in a sentence."""
    pairs = zip(parameters.index, parameters.columns["Estimate"], strict=True)
    return "Random effects: " + ", ".join(f"{n} {_short(v)}" for n, v in pairs) + "."


def _short(value: float) -> str:
    return "NaN" if np.isnan(value) else f"{value:.4g}"
