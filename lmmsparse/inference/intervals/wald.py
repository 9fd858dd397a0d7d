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
from lmmsparse.inference.df.methods import check_ddf, denominator_df, method_notes, standard_errors
from lmmsparse.inference.robust.clusters import Robust
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
    """Estimate ± z · standard error for the fixed effects; NaN for covariance parameters.

    Returns
    -------
    DataFrame
        Columns ``lower, upper``; covariance parameters first.

    Notes
    -----
    A variance has no useful standard error near its boundary; Wald intervals are therefore given
    for fixed effects only.
    """
    z = normal_quantile(0.5 + check_level(level) / 2)
    half = z * np.sqrt(np.diag(fit.vcov))
    covariance = parameter_names(fit)
    empty = np.full(len(covariance), np.nan)
    frame = pd.DataFrame(
        {
            "lower": np.concatenate([empty, fit.beta - half]),
            "upper": np.concatenate([empty, fit.beta + half]),
        },
        index=pd.Index([*covariance, *fit.design.x_names], dtype=object),
    )
    return frame if which is None else frame.loc[select_rows(which, list(frame.index), fit)]
