"""`Fit` → data frames with broom.mixed's column names, dots replaced by underscores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import IntArray
from lmmsparse.common.distributions import normal_quantile, t_quantile
from lmmsparse.common.errors import DataError
from lmmsparse.common.options import check_level, names_in, one_of
from lmmsparse.common.words import alternatives
from lmmsparse.design import as_frame
from lmmsparse.design.arguments import places
from lmmsparse.design.tables import check_unique
from lmmsparse.design.variables import tidy_column
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.wald import coefficient_table
from lmmsparse.inference.robust.clusters import Robust
from lmmsparse.report.new_rows import errors_of_fit
from lmmsparse.results.influence import influence_of_rows
from lmmsparse.results.likelihood import criteria, loglik
from lmmsparse.results.parameters import parameter_names, residual_names, residual_values
from lmmsparse.results.ranef import conditional_covariances, conditional_modes, effect_names
from lmmsparse.results.residuals import residuals
from lmmsparse.results.varcorr import variance_components

EFFECTS = ("fixed", "ran_pars", "ran_vals")
_FIXED = {
    "Estimate": "estimate",
    "Std. Error": "std_error",
    "t value": "statistic",
    "df": "df",
    "Pr(>|t|)": "p_value",
}


def tidy(
    fit: Fit,
    effects: str | Sequence[str],
    ddf: str,
    level: float | None,
    conf_method: str,
    intervals: Callable[[], pd.DataFrame],
    robust: Robust | None = None,
) -> pd.DataFrame:
    """One row per parameter or random effect; see `LinearMixedModel.tidy`.

    Parameters
    ----------
    conf_method : str
        ``"wald"``: limits of fixed effects are estimate ± t · std_error with the df of the table
        (z without any).
    robust : Robust, optional
        Cluster-robust standard errors of fixed effects.
    intervals : callable
        Gives the limits of all parameters by name; only called where they are wanted.
    """
    wanted = wanted_effects(effects, level)
    # Wald limits of fixed effects go with the tests beside them; all others are joined by name.
    by_test = conf_method == "wald"
    needed = {"ran_pars"} if by_test else {"fixed", "ran_pars"}
    limits = intervals() if level is not None and set(wanted) & needed else None
    frames = []
    for kind in wanted:
        if kind == "fixed":
            table = coefficient_table(fit, ddf, robust=robust).to_frame()
            frames.append(fixed_rows(table, level if by_test else None, limits))
        elif kind == "ran_pars":
            frames.append(_parameters(fit, limits))
        else:
            frames.append(random_values(fit, level))
    return stacked(frames, _FIXED.values())


def wanted_effects(effects: str | Sequence[str], level: float | None) -> list[str]:
    """The kinds of rows that are wanted, and a level that is none or a share."""
    wanted = names_in("effects", effects, f"Choose {alternatives(EFFECTS)}.") or [""]
    for kind in wanted:
        one_of("effects", kind, EFFECTS)
    if level is not None:
        check_level(level)
    return wanted


def stacked(frames: Sequence[pd.DataFrame], statistics: Iterable[str]) -> pd.DataFrame:
    """One frame, or several below each other with their columns in the usual order."""
    if len(frames) == 1:
        return frames[0]
    order = ["effect", "group", "level", "term", *statistics, "conf_low", "conf_high"]
    joined = pd.concat(frames, ignore_index=True)
    return joined[[name for name in order if name in joined.columns]]


def with_limits(
    frame: pd.DataFrame, limits: pd.DataFrame | None, names: Sequence[str | None]
) -> pd.DataFrame:
    """Join confidence limits by the names of the parameters."""
    if limits is not None:
        found = limits.reindex(pd.Index([name if name else "" for name in names], dtype=object))
        frame["conf_low"] = found["lower"].to_numpy()
        frame["conf_high"] = found["upper"].to_numpy()
    return frame


def fixed_rows(
    table: pd.DataFrame, level: float | None, limits: pd.DataFrame | None
) -> pd.DataFrame:
    """Fixed effects from their table of t tests, with limits of a level or others."""
    columns = {new: table[old].to_numpy() for old, new in _FIXED.items() if old in table.columns}
    names = list(table.index)
    frame = pd.DataFrame({"effect": ["fixed"] * len(names), "term": names, **columns})
    if level is not None:
        df = frame["df"] if "df" in frame.columns else np.inf
        half = t_quantile(0.5 + level / 2.0, df) * frame["std_error"]
        frame["conf_low"] = frame["estimate"] - half
        frame["conf_high"] = frame["estimate"] + half
    return with_limits(frame, limits, names)


def _parameters(fit: Fit, limits: pd.DataFrame | None) -> pd.DataFrame:
    rows, keys = parameter_rows(fit)
    for name, value in zip(residual_names(fit), residual_values(fit), strict=True):
        rows.append(("Residual", name, value))
        keys.append(name)
    rows.append(("Residual", "sd__Observation", fit.sigma))
    keys.append("sigma")
    frame = pd.DataFrame(rows, columns=["group", "term", "estimate"])
    frame.insert(0, "effect", "ran_pars")
    return with_limits(frame, limits, keys)


def parameter_rows(fit: Fit) -> tuple[list[tuple[str, str, float]], list[str | None]]:
    """Group, term and estimate of standard deviations and correlations, and their names."""
    names = parameter_names(fit)
    rows: list[tuple[str, str, float]] = []
    keys: list[str | None] = []
    terms = variance_components(fit).terms
    for block, part, term in zip(fit.design.blocks, fit.template.slices, terms, strict=True):
        key = dict(zip(block.structure.entries, names[part], strict=True))
        sd, correlation = term.sd, term.correlation
        for i, name in enumerate(term.names):
            rows.append((term.group, f"sd__{name}", float(sd[i])))
            keys.append(key.get((i, i), key[0, 0]))
        for j in range(len(sd) if term.correlated else 0):
            for i in range(j + 1, len(sd)):
                label = f"cor__{term.names[j]}.{term.names[i]}"
                rows.append((term.group, label, float(correlation[i, j])))
                keys.append(key.get((i, j)))
    return rows, keys


def random_values(fit: Fit, level: float | None) -> pd.DataFrame:
    """One row per conditional mode."""
    names = effect_names(fit)
    spread = conditional_covariances(fit)
    if not fit.design.blocks:
        return pd.DataFrame(columns=["effect", "group", "level", "term", "estimate", "std_error"])
    frames = []
    for group, modes in conditional_modes(fit).items():
        labels = fit.design.blocks[fit.design.groups[group][0]].levels
        levels, k = modes.shape
        se = np.sqrt(np.einsum("lii->li", spread[group]))
        frames.append(
            pd.DataFrame(
                {
                    "effect": ["ran_vals"] * (levels * k),
                    "group": [group] * (levels * k),
                    "level": np.tile(np.asarray(labels, dtype=object), k),
                    "term": np.repeat(np.asarray(names[group], dtype=object), levels),
                    "estimate": modes.T.ravel(),
                    "std_error": se.T.ravel(),
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    if level is not None:
        half = normal_quantile(0.5 + level / 2.0) * frame["std_error"]
        frame["conf_low"] = frame["estimate"] - half
        frame["conf_high"] = frame["estimate"] + half
    return frame


def glance(fit: Fit) -> pd.DataFrame:
    """One row about the whole model; see `LinearMixedModel.glance`."""
    aic, bic = criteria(fit)
    return pd.DataFrame(
        {
            "nobs": [fit.design.n],
            "sigma": [fit.sigma],
            "logLik": [loglik(fit)],
            "AIC": [float(aic)],
            "BIC": [float(bic)],
            "REMLcrit" if fit.reml else "deviance": [fit.criterion],
            "df_residual": [fit.design.n - fit.npar],
        }
    )


def augment(fit: Fit, data: Any = None, se_fit: bool = False) -> pd.DataFrame:
    """One row per observation: the variables, then what the fit says about the row.

    Returns
    -------
    DataFrame
        New columns ``_fitted, _resid, _hat, _cooksd, _fixed, _mu, _offset, _sqrtXwt, _sqrtrwt,
        _weights, _wtres``, and ``_se_fit`` where it is wanted; no ``_hat`` and ``_cooksd`` where
        leverages cannot be computed.
    """
    design = fit.design
    frame, order = fitted_frame(fit, data)
    weights = design.weights_or_one
    root = np.sqrt(weights)
    new = {
        "_fitted": fit.fitted,
        "_resid": residuals(fit),
        "_fixed": design.fixed @ fit.beta + design.offset_or_zero,
        "_mu": fit.fitted,
        "_offset": design.offset_or_zero,
        "_sqrtXwt": root,
        "_sqrtrwt": root,
        "_weights": weights,
        "_wtres": residuals(fit, "pearson"),
    }
    columns = {name: design.pad(values) for name, values in new.items()}
    names = list(new)
    if not fit.estimated:  # otherwise there is no leverage to have
        measures = influence_of_rows(fit)
        columns["_hat"] = measures.leverage.to_numpy()
        columns["_cooksd"] = measures.cooks_distance.to_numpy()
        names[2:2] = ["_hat", "_cooksd"]
    if se_fit:
        columns["_se_fit"] = errors_of_fit(fit)
        names.insert(1, "_se_fit")
    for name in names:
        frame[name] = columns[name] if order is None else columns[name][order]
    return frame


def fitted_frame(fit: Fit, data: Any) -> tuple[pd.DataFrame, IntArray | None]:
    """The variables of the rows that results have, and where their results are if not in order."""
    return (_variables(fit), None) if data is None else _rows_of(fit, data)


def _variables(fit: Fit) -> pd.DataFrame:
    design = fit.design
    columns: dict[str, Any] = {design.response: design.pad(design.y)}
    X = design.X
    for j, name in enumerate(design.x_names):
        if name != "Intercept":
            columns.setdefault(name, design.pad(X[:, j]))
    out = pd.DataFrame(columns, index=design.output_index())
    for group, terms in design.groups.items():
        block = design.blocks[terms[0]]
        if group in out.columns:
            continue
        labels = pd.Series(block.levels.take(block.codes), index=design.rows)
        if design.na_action == "exclude":
            labels = labels.reindex(np.arange(len(design.index)))
        out[group] = labels.array
    return out


def fitted_rows(fit: Fit, data: Any) -> pd.DataFrame:
    """The rows of the data that were fitted, in their order there."""
    frame, _, row_of = _matched(fit, data)
    return frame.iloc[np.sort(row_of[fit.design.rows])]


def rows_as_fitted(fit: Fit, data: Any) -> pd.DataFrame:
    """The rows of the data that were fitted, in the order of the fit."""
    frame, _, row_of = _matched(fit, data)
    return frame.iloc[row_of[fit.design.rows]]


def _rows_of(fit: Fit, data: Any) -> tuple[pd.DataFrame, IntArray | None]:
    """The rows of the data that results have, and where their results are; None: in their order."""
    frame, moved, row_of = _matched(fit, data)
    place = np.full(len(frame), -1)
    design = fit.design
    kept = np.arange(len(frame)) if design.na_action == "exclude" else design.rows
    place[row_of[kept]] = np.arange(len(kept))
    there = place >= 0
    return frame[there].copy(), place[there] if moved else None


def _matched(fit: Fit, data: Any) -> tuple[pd.DataFrame, bool, IntArray]:
    """The data, whether they are in another order, and the row of them of each row of the fit's."""
    design, frame = fit.design, as_frame(data)
    if len(frame) != len(design.index):
        raise DataError(
            f"The data have {len(frame)} rows, but those of the fit had {len(design.index)}. Pass "
            "the data the model was fitted to."
        )
    at = places("The table", frame.index, design.index)
    row_of = np.arange(len(frame), dtype=np.intp) if at is None else at
    _check_response(fit, frame, row_of)
    return frame, at is not None, row_of


def _check_response(fit: Fit, frame: pd.DataFrame, row_of: IntArray) -> None:
    """Refuse data whose response is another: its residuals would be wrong."""
    name = fit.design.response.strip("`")
    if name not in frame.columns:
        return
    check_unique(frame, [name])
    values = tidy_column(frame[name])
    if not pd.api.types.is_numeric_dtype(values.dtype):
        return
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)[row_of[fit.design.rows]]
    other = int(np.sum(numbers != fit.design.y))
    if other:
        raise DataError(
            f"The column {name!r} differs from the response of the model in {other} of its "
            f"{len(numbers)} rows. Pass the data of the fit; after refit(y), "
            f"data.assign({name}=y)."
        )
