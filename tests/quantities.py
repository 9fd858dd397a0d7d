"""A fitted model and lme4's reference → how far apart they are, one function per quantity.

Every function returns labelled errors on a scale on which 1 means "as large as the thing itself":
effects in units of their standard deviation, predictions in units of σ. Everything is matched by
name, never by position: the two programs order terms, columns and levels differently.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
import naming
import numpy as np
import numpy.typing as npt
import pandas as pd

import lmmsparse as lmm

Reference = dict[str, Any]
Errors = dict[str, float]
Array = npt.NDArray[np.float64]


def worst(ours: Any, theirs: Any, unit: Any = 1.0) -> float:
    """Largest |ours − theirs| / unit."""
    a, b = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    if a.shape != b.shape:
        raise AssertionError(f"shapes differ: {a.shape} here, {b.shape} in lme4")
    if a.size == 0:
        return 0.0
    return float(np.max(np.abs(a - b) / unit))


# Terms, and θ by name ---------------------------------------------------------------------------
def _blocks(model: lmm.LinearMixedModel) -> list[tuple[tuple[str, ...], list[str]]]:
    return [
        (naming.group(block.group), [naming.effect(name) for name in block.names])
        for block in model.fit.design.blocks
    ]


def _terms(ref: Reference) -> list[tuple[tuple[str, ...], list[str]]]:
    return [
        (naming.group(term["group"]), [naming.effect(name) for name in term["columns"]])
        for term in ref["terms"]
    ]


def _factors(theta: Any, sizes: list[int]) -> list[Array]:
    """The relative Cholesky factors of the terms: θ fills each lower triangle column by column."""
    out, start = [], 0
    for k in sizes:
        T = np.zeros((k, k))
        length = k * (k + 1) // 2
        T.T[np.triu_indices(k)] = theta[start : start + length]
        out.append(T)
        start += length
    return out


def in_our_order(model: lmm.LinearMixedModel, ref: Reference, theta: Any) -> list[Array]:
    """lme4's θ as factors of our terms, in our order of terms and effects."""
    terms = _terms(ref)
    factors = _factors(theta, [len(columns) for _, columns in terms])
    out = []
    for group, names in _blocks(model):
        (at,) = (
            i for i, (g, columns) in enumerate(terms) if g == group and set(columns) == set(names)
        )
        T = factors[at][[terms[at][1].index(name) for name in names]]
        if names != terms[at][1]:  # rows moved: triangular again by a rotation
            T = np.linalg.qr(T.T, mode="r").T
            T = T * np.where(np.diag(T) < 0, -1.0, 1.0)
        out.append(T)
    return out


def stacked(factors: list[Array]) -> Array:
    return np.concatenate([T.T[np.triu_indices(len(T))] for T in factors])


def _sizes(model: lmm.LinearMixedModel) -> list[int]:
    return [len(names) for _, names in _blocks(model)]


# Criterion and θ --------------------------------------------------------------------------------
def criterion_at(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """The criterion at three or four stated θ, relative."""
    out = {}
    for point in ref["criterion_at"]:
        theta = stacked(in_our_order(model, ref, point["theta"]))
        value = point["criterion"]
        out[point["label"]] = worst(model.fit.objective(theta), value, max(1.0, abs(value)))
    return out


def criterion(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """How far our criterion lies above lme4's; a lower one is no error."""
    ours = model.reml_criterion if ref["reml"] else model.deviance
    above = ours - ref["criterion"]
    return {"above lme4's": 0.0 if above < 0 else above}


def theta(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """θ row by row, relative to the row's length: the relative standard deviation of the effect.

    At a singular optimum θ is a square root of something that is zero; TT' is compared instead.
    """
    ours = _factors(np.asarray(model.theta), _sizes(model))
    theirs = in_our_order(model, ref, ref["theta"]["values"])
    out = {}
    for (group, names), S, T in zip(_blocks(model), ours, theirs, strict=True):
        for i, name in enumerate(names):
            size = np.linalg.norm(T[i]) or 1.0
            if ref["singular"]:
                sizes = np.array([np.linalg.norm(row) or 1.0 for row in T])
                error = worst(S[i] @ S.T, T[i] @ T.T, size * sizes)
            else:
                error = worst(S[i], T[i], size)
            out[f"{':'.join(group)} {name}"] = error
    return out


def singular(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Whether the fit is called singular where lme4's θ has a vanishing column, and only there."""
    return {"is_singular": float(model.is_singular() != ref["singular"])}


# Fixed effects ----------------------------------------------------------------------------------
def _fixed(model: lmm.LinearMixedModel, ref: Reference) -> tuple[list[int], Array, Array]:
    ours = [naming.effect(str(name)) for name in model.fixef.index]
    theirs = [naming.effect(name) for name in ref["fixef"]["names"]]
    if sorted(ours) != sorted(theirs):
        raise AssertionError(f"fixed effects differ: {ours} here, {theirs} in lme4")
    order = [ours.index(name) for name in theirs]
    return order, np.array(ref["fixef"]["values"], float), np.array(ref["fixef"]["se"], float)


def fixef(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Fixed effects, relative to themselves or to their standard error, whichever is larger."""
    order, beta, se = _fixed(model, ref)
    return {"fixef": worst(model.fixef.to_numpy()[order], beta, np.maximum(np.abs(beta), se))}


def se(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Standard errors of the fixed effects, relative."""
    order, _, se_ = _fixed(model, ref)
    return {"se": worst(model.se.to_numpy()[order], se_, se_)}


def vcov(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Covariance matrix of the fixed effects, on the scale of correlations."""
    order, _, se_ = _fixed(model, ref)
    if not order:
        return {"vcov": float(model.vcov.shape != (0, 0))}
    ours = model.vcov.to_numpy()[np.ix_(order, order)]
    return {"vcov": worst(ours, ref["fixef"]["vcov"], np.outer(se_, se_))}


# Scalars ----------------------------------------------------------------------------------------
def sigma(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """The residual standard deviation, relative."""
    return {"sigma": worst(model.sigma, ref["sigma"], ref["sigma"])}


def information(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Log-likelihood, AIC and BIC, in their own units; lme4 counts what is not determined too."""
    more = model.fit.n_undetermined
    return {
        "loglik": worst(model.loglik, ref["logLik"]),
        "aic": worst(model.aic + 2 * more, ref["AIC"]),
        "bic": worst(model.bic + np.log(model.nobs) * more, ref["BIC"]),
    }


def counts(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Rows, levels, parameters and residual degrees of freedom: whole numbers, equal or not."""
    more = model.fit.n_undetermined  # lme4 counts it too
    ours = {naming.group(name): n for name, n in model.n_groups.items()}
    theirs = {naming.group(entry["group"]): entry["n_levels"] for entry in ref["ranef"]}
    return {
        "nobs": worst(model.nobs, ref["n"]),
        "npar": worst(model.npar + more, ref["df"]),
        "df_resid": worst(model.df_resid - more, ref["df_resid"]),
        "n_groups": float(ours != theirs),
    }


# Random effects ---------------------------------------------------------------------------------
def _components(rows: Any, known: set[tuple[str, ...]]) -> dict[Any, tuple[float, float]]:
    out = {}
    for group, var1, var2, cov, sdcor in rows:
        names = frozenset(naming.effect(v) for v in (var1, var2) if isinstance(v, str))
        out[naming.term_group(group, known), names] = (cov, np.nan if sdcor is None else sdcor)
    return out


def _reference_components(ref: Reference) -> dict[Any, tuple[float, float]]:
    table = ref["varcorr"]
    known = {group for group, _ in _terms(ref)}
    columns = (table[name] for name in ("grp", "var1", "var2", "vcov", "sdcor"))
    return _components(zip(*columns, strict=True), known)


def _sd(ref: Reference) -> dict[tuple[tuple[str, ...], str], float]:
    """(group, effect) → standard deviation, the residual one where it is zero."""
    out = {}
    for (group, names), (cov, _) in _reference_components(ref).items():
        if len(names) == 1:
            out[group, next(iter(names))] = float(np.sqrt(cov)) or ref["sigma"]
    return out


def varcorr(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Variances and covariances in units of the standard deviations; correlations as they are."""
    theirs = _reference_components(ref)
    known = {group for group, _ in _terms(ref)}
    table = model.varcorr.to_frame()[["group", "var1", "var2", "vcov", "sdcor"]]
    ours = _components(table.itertuples(index=False), known)
    if ours.keys() != theirs.keys():
        raise AssertionError(f"components differ: {set(ours) ^ set(theirs)}")
    sd, out = _sd(ref), {}
    for key, (cov, sdcor) in theirs.items():
        group, names = key
        label = f"{':'.join(group)} {' '.join(sorted(names))}".strip()
        if not names:  # the residual variance
            out[label] = worst(ours[key], (cov, sdcor), (cov, sdcor))
            continue
        units = [sd[group, name] for name in names]
        unit = units[0] * units[-1]
        out[f"vcov of {label}"] = worst(ours[key][0], cov, unit)
        if len(names) == 1:
            out[f"sd of {label}"] = worst(ours[key][1], sdcor, units[0])
        elif all(theirs[group, frozenset({name})][0] > 0 for name in names):
            out[f"correlation of {label}"] = worst(ours[key][1], sdcor)
    return out


def _modes(model: lmm.LinearMixedModel, entry: dict[str, Any]) -> tuple[str, Array, pd.DataFrame]:
    """Our name of lme4's group, our level positions in its order, our modes with plain names."""
    wanted = naming.group(entry["group"])
    (name,) = (g for g in model.ranef if naming.group(g) == wanted)
    modes = model.ranef[name]
    modes = modes.set_axis([naming.effect(str(c)) for c in modes.columns], axis=1)
    labels = pd.Index([naming.level(name, label) for label in modes.index])
    positions = labels.get_indexer([naming.level(entry["group"], x) for x in entry["levels"]])
    if np.any(positions < 0):
        raise AssertionError(f"levels of {name} are missing here")
    return name, positions, modes


def ranef(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Conditional modes in units of their standard deviation; sums over all levels per level."""
    sd, out = _sd(ref), {}
    for entry in ref["ranef"]:
        name, positions, modes = _modes(model, entry)
        columns = [naming.effect(c) for c in entry["columns"]]
        if set(columns) != set(modes.columns):
            raise AssertionError(f"effects of {name}: {list(modes.columns)} here, {columns} in R")
        unit = np.array([sd[naming.group(name), c] for c in columns])
        ours = modes[columns].to_numpy()
        out[name] = worst(ours[positions], entry["modes"], unit)
        n = entry["n_levels"]
        out[f"{name}, sum"] = worst(ours.sum(axis=0), entry["modes_sum"], unit * n)
        squares = (ours**2).sum(axis=0)
        out[f"{name}, squares"] = worst(squares, entry["modes_sum_of_squares"], unit**2 * n)
    return out


def cond_var(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Conditional covariances in units of the standard deviations, within terms only."""
    sd, out = _sd(ref), {}
    for entry in ref["ranef"]:
        name, positions, modes = _modes(model, entry)
        variance = np.asarray(model.cond_var[name])
        for part in entry["cond_var"]:
            columns = [naming.effect(c) for c in part["columns"]]
            at = [list(modes.columns).index(c) for c in columns]
            unit = np.array([sd[naming.group(name), c] for c in columns])
            ours = variance[:, at][:, :, at]
            label = f"{name} {' '.join(columns)}"
            out[label] = worst(ours[positions], part["values"], np.outer(unit, unit))
            total = np.outer(unit, unit) * entry["n_levels"]
            out[f"{label}, sum"] = worst(ours.sum(axis=0), part["sum"], total)
    return out


# Rows -------------------------------------------------------------------------------------------
def _rows(ours: pd.Series, theirs: dict[str, Any], unit: float) -> Errors:
    values = ours.to_numpy()
    if len(values) != theirs["n"]:
        raise AssertionError(f"{len(values)} rows here, {theirs['n']} in lme4")
    total = float(np.sum(values**2))
    size = max(theirs["sum_of_squares"], unit**2 * theirs["n"])
    return {
        "rows": worst(values[: len(theirs["first"])], theirs["first"], unit),
        "sum": worst(values.sum(), theirs["sum"], unit * theirs["n"]),
        "sum of squares": worst(total, theirs["sum_of_squares"], size),
    }


def fitted(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Fitted values in units of σ."""
    return _rows(model.fitted, ref["fitted"], ref["sigma"])


def residuals(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Residuals in units of σ."""
    return _rows(model.residuals, ref["residuals"], ref["sigma"])


def predictions(model: lmm.LinearMixedModel, ref: Reference) -> Errors:
    """Predictions for new rows in units of σ: population, all terms, some terms, a new level."""
    theirs = ref["predictions"]

    def error(newdata: dict[str, list[Any]], values: list[float], **options: Any) -> float:
        new = models.as_declared(pd.DataFrame(newdata), ref["data"])
        return worst(model.predict(new, **options), values, ref["sigma"])

    new = theirs["newdata"]
    out = {
        "population": error(new, theirs["population"], random=False),
        "conditional": error(new, theirs["conditional"]),
    }
    if "partial" in theirs:
        part = theirs["partial"]
        out[part["formula"]] = error(new, part["values"], random=part["formula"])
    if "new_level" in theirs:
        strange = theirs["new_level"]
        out["new level"] = error(strange["newdata"], strange["values"], new_levels="population")
    return out


QUANTITIES: dict[str, Callable[[lmm.LinearMixedModel, Reference], Errors]] = {
    f.__name__: f
    for f in (
        criterion_at,
        criterion,
        theta,
        singular,
        fixef,
        se,
        vcov,
        sigma,
        information,
        counts,
        varcorr,
        ranef,
        cond_var,
        fitted,
        residuals,
        predictions,
    )
}

# What two parameterizations of one model have in common where θ itself is not identified.
IDENTIFIED = {
    "criterion_at", "criterion", "fixef", "se", "vcov", "sigma", "information", "counts",
    "fitted", "residuals", "predictions",
}  # fmt: skip


def quantities_of(name: str) -> list[str]:
    """The quantities that can be compared for the registry's model `name`."""
    if models.MODELS[name].get("compare", "all") == "all":
        return list(QUANTITIES)
    return [quantity for quantity in QUANTITIES if quantity in IDENTIFIED]
