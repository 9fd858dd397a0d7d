"""`Fit` → coefficient table and Wald intervals from the estimates and their covariance matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import normal_quantile, t_quantile, t_tail
from lmmsparse.common.options import check_level
from lmmsparse.common.table import Table, as_precise_as
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.inference.df.methods import check_ddf, denominator_df, method_notes, standard_errors
from lmmsparse.inference.robust.clusters import Robust
from lmmsparse.results.parameter_covariance import parameter_covariance
from lmmsparse.results.parameters import parameter_names, select_rows


def coefficient_table(
    fit: Fit, ddf: str, level: float | None = None, robust: Robust | None = None
) -> Table:
    """Estimates, standard errors, t values and, unless ``ddf="none"``, p-values.

    Parameters
    ----------
    ddf : str
        Method for the degrees of freedom, see `denominator_df`; ``"kenward-roger"`` also adjusts
        the standard errors.
    level : float, optional
        Of limits that go with the tests; none if not given.
    robust : Robust, optional
        Cluster-robust standard errors.
    """
    ddf = check_ddf(ddf)
    method = denominator_df(fit, ddf, robust)
    each = np.eye(fit.design.p)
    se = standard_errors(method, each)
    t = fit.beta / se
    columns: dict[str, FloatArray] = {"Estimate": fit.beta, "Std. Error": se}
    if ddf != "none":
        df = method.single(each)
        columns["df"] = df
    columns["t value"] = t
    if ddf != "none":
        columns["Pr(>|t|)"] = 2.0 * t_tail(np.abs(t), df)
    if level is not None:
        half = t_quantile(0.5 + check_level(level) / 2, df if ddf != "none" else np.inf) * se
        columns["lower.CL"], columns["upper.CL"] = fit.beta - half, fit.beta + half
    sized = ("Estimate", "Std. Error", "lower.CL", "upper.CL")
    formats = dict.fromkeys(sized, as_precise_as(se.tolist()))
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        fit.design.x_names,
        notes=method_notes(method, each),
        formats=formats,
    )


def wald_intervals(fit: Fit, level: float, which: str | Sequence[str] | None) -> pd.DataFrame:
    """Estimate ± z · standard error for fixed effects and for parameters of residuals' covariance.

    Returns
    -------
    DataFrame
        Columns ``lower, upper``; covariance parameters first.

    Notes
    -----
    A variance has no useful standard error near its boundary; Wald intervals of variances and of
    random effects' correlations are therefore NaN. Those of correlations of residuals are made on
    Fisher's scale, of ratios of standard deviations on that of their logarithm.
    """
    z = normal_quantile(0.5 + check_level(level) / 2)
    half = z * np.sqrt(np.diag(fit.vcov))
    covariance = parameter_names(fit)
    empty = np.full((2, len(covariance)), np.nan)
    if isinstance(fit, ResidualFit) and len(fit.phi):
        empty[:, len(fit.theta) : -1] = _of_residuals(fit, float(z))
    frame = pd.DataFrame(
        {
            "lower": np.concatenate([empty[0], fit.beta - half]),
            "upper": np.concatenate([empty[1], fit.beta + half]),
        },
        index=pd.Index([*covariance, *fit.design.x_names], dtype=object),
    )
    return frame if which is None else frame.loc[select_rows(which, list(frame.index), fit)]


def _of_residuals(fit: ResidualFit, z: float) -> FloatArray:
    """Limits of the natural parameters of the residuals, (2, n_phi)."""
    d, natural = len(fit.theta), fit.natural
    J = fit.structure.slopes(fit.phi)
    covariance = parameter_covariance(fit).matrix[d:-1, d:-1]
    error = np.sqrt(np.maximum(np.diag(J @ covariance @ J.T), 0.0))
    out = np.stack([natural - z * error, natural + z * error])
    for i, name in enumerate(fit.phi_names):
        if name.startswith("sd."):
            step = np.exp(z * error[i] / natural[i])
            out[:, i] = natural[i] / step, natural[i] * step
        elif not name.startswith("logsd."):
            step = z * error[i] / (1.0 - natural[i] ** 2)
            out[:, i] = np.tanh(np.arctanh(natural[i]) + np.array([-step, step]))
    return out
