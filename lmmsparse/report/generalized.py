"""`GeneralizedFit` and its verdict → summary and data frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.render import Grid, Section
from lmmsparse.common.table import as_precise_as, number
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.verdict import Convergence
from lmmsparse.inference.df.methods import method_name
from lmmsparse.inference.generalized.wald import parameter_errors, z_table
from lmmsparse.inference.robust.clusters import Robust
from lmmsparse.report.new_rows import errors_of_fit
from lmmsparse.report.summary import Summary, composed, printed, quantiles_of
from lmmsparse.report.tidy import (
    fitted_frame,
    fixed_rows,
    parameter_rows,
    random_values,
    stacked,
    wanted_effects,
    with_limits,
)
from lmmsparse.results.generalized import residuals
from lmmsparse.results.likelihood import criteria, loglik

_FIXED = {
    "Estimate": "estimate",
    "Std. Error": "std_error",
    "z value": "statistic",
    "Pr(>|z|)": "p_value",
}


def approximation(fit: GeneralizedFit) -> str:
    """How the likelihood was integrated, in words."""
    n_agq = fit.problem.n_agq
    if n_agq > 1:
        return f"adaptive Gauss-Hermite quadrature, {n_agq} nodes"
    if n_agq == 0:
        return "Laplace approximation, fixed effects at the joint mode"
    expected = fit.problem.information == "expected" and not fit.family.canonical
    return "Laplace approximation" + (" with expected information" if expected else "")


def _heading(fit: GeneralizedFit) -> tuple[str, ...]:
    design = fit.design
    formula = design.formula or (
        f"{design.response} ~ {' + '.join(design.x_names) or '0'} + "
        + " + ".join(block.source for block in design.blocks)
    )
    lines = [
        f"Generalized linear mixed model fit by maximum likelihood ({approximation(fit)})",
        f"Family: {fit.family}",
        f"Formula: {' '.join(formula.split())}",
    ]
    if fit.problem.n_agq == 0:
        lines.append("Standard errors take the covariance parameters as known")
    if fit.problem.success:
        lines.insert(2, f"Models the probability of {fit.problem.success}")
    if fit.seen.prior is not None:
        lines.append("Weights: prior weights")
    return tuple(lines)


def _criteria(fit: GeneralizedFit) -> Grid:
    aic, bic = criteria(fit)
    row = [aic, bic, loglik(fit), fit.criterion]
    cells = [number(v, 1) if max(map(abs, row)) >= 100 else number(v, 3) for v in row]
    head = ("AIC", "BIC", "logLik", "-2*log(L)", "df.resid")
    return Grid(head, ((*cells, str(fit.design.n - fit.npar)),), left=0)


def _own_parameter(fit: GeneralizedFit) -> tuple[str, ...]:
    family = fit.family
    if not family.parameter:
        return ()
    value = as_precise_as([float(np.exp(fit.delta))])([float(np.exp(fit.delta))])[0]
    held = "" if family.estimates_delta else ", held"
    return (f"{family.parameter.capitalize()}: {value}{held} ({family.parameter_formula})",)


def summarize_generalized(
    fit: GeneralizedFit, convergence: Convergence, robust: Robust | None = None
) -> Summary:
    """Compose the summary."""
    scaled = residuals(fit, "pearson") / np.sqrt(fit.family.dispersion(fit.delta))
    first = (
        Section(lines=_heading(fit)),
        Section(grid=_criteria(fit)),
        Section("Scaled residuals (Pearson):", quantiles_of(scaled)),
    )
    how = "" if robust is None else f" ({method_name('satterthwaite', robust)})"
    table, own = z_table(fit, robust=robust), _own_parameter(fit)
    return composed(
        fit, convergence, first, own, f"Fixed effects{how}:", table, correlated=robust is None
    )


def short_print_generalized(fit: GeneralizedFit, convergence: Convergence) -> str:
    """What ``print(model)`` shows."""
    first = (*_heading(fit), "-2*log(L) at convergence")
    return printed(fit, convergence, first, _own_parameter(fit))


def tidy_generalized(
    fit: GeneralizedFit,
    effects: str | Sequence[str],
    level: float | None,
    intervals: Callable[[], pd.DataFrame],
    robust: Robust | None = None,
) -> pd.DataFrame:
    """One row per parameter or random effect; see `lmmsparse.report.tidy.tidy`.

    Parameters
    ----------
    robust : Robust, optional
        Cluster-robust standard errors of fixed effects, whose limits are then Wald's.
    """
    wanted = wanted_effects(effects, level)
    limits = intervals() if level is not None and set(wanted) & {"fixed", "ran_pars"} else None
    frames = []
    for kind in wanted:
        if kind == "fixed":
            frames.append(_fixed(fit, limits, level, robust))
        elif kind == "ran_pars":
            frames.append(_parameters(fit, limits))
        else:
            frames.append(random_values(fit, level))
    return stacked(frames, ("estimate", "std_error", "statistic", "df", "p_value"))


def _fixed(
    fit: GeneralizedFit, limits: pd.DataFrame | None, level: float | None, robust: Robust | None
) -> pd.DataFrame:
    if robust is not None:
        return fixed_rows(z_table(fit, robust=robust).to_frame(), level, None)
    table = z_table(fit).to_frame()
    names = list(fit.design.x_names)
    columns = {new: table[old].to_numpy() for old, new in _FIXED.items()}
    frame = pd.DataFrame({"effect": ["fixed"] * len(names), "term": names, **columns})
    return with_limits(frame, limits, names)


def _parameters(fit: GeneralizedFit, limits: pd.DataFrame | None) -> pd.DataFrame:
    rows, keys = parameter_rows(fit)
    errors = parameter_errors(fit)["Std. Error"]
    if fit.family.estimates_delta:
        name = fit.family.parameter
        rows.append(("Family", name, float(np.exp(fit.delta))))
        keys.append(name)
    frame = pd.DataFrame(rows, columns=["group", "term", "estimate"])
    frame.insert(0, "effect", "ran_pars")
    frame["std_error"] = [errors.get(key, np.nan) if key else np.nan for key in keys]
    return with_limits(frame, limits, keys)


def glance_generalized(fit: GeneralizedFit) -> pd.DataFrame:
    """One row about the whole model."""
    aic, bic = criteria(fit)
    return pd.DataFrame(
        {
            "nobs": [fit.design.n],
            "family": [fit.family.name],
            "link": [fit.family.link],
            "dispersion": [fit.family.dispersion(fit.delta)],
            "logLik": [loglik(fit)],
            "AIC": [float(aic)],
            "BIC": [float(bic)],
            "deviance": [deviance(fit)],
            "df_residual": [fit.design.n - fit.npar],
        }
    )


def deviance(fit: GeneralizedFit) -> float:
    """Sum of squared deviance residuals at the modes."""
    return float(np.sum(fit.family.unit_deviance(fit.seen, fit.fitted, fit.delta)))


def augment_generalized(fit: GeneralizedFit, data: Any, se_fit: bool = False) -> pd.DataFrame:
    """One row per observation: the variables, then what the fit says about the row."""
    design = fit.design
    frame, order = fitted_frame(fit, data)
    fixed = design.fixed @ fit.beta + design.offset_or_zero
    new = {
        "_fitted": fit.linear_predictor,
        "_resid": residuals(fit, "deviance"),
        "_fixed": fixed,
        "_mu": fit.fitted,
        "_offset": design.offset_or_zero,
        "_weights": design.weights_or_one,
    }
    columns = {name: design.pad(np.asarray(values)) for name, values in new.items()}
    if se_fit:
        columns["_se_fit"] = errors_of_fit(fit)
    for name, padded in columns.items():
        frame[name] = padded if order is None else padded[order]
    return frame
