"""A generalized model and R's reference → how far apart they are, one function per quantity.

As in `quantities`: errors on a scale on which 1 means "as large as the thing itself", matched by
name. What a reference does not have (no standard errors for n_agq=0) is not compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import generalized_models as models
import naming
import numpy as np
import pandas as pd
from quantities import Errors, Reference, in_our_order, stacked, worst

AGAINST_R = {
    # Nothing but arithmetic lies between the two: same parameters, same data.
    "criterion_at": 1e-9,
    # In units of −2 log-likelihood, on both sides: another optimum or another formula.
    "minus2loglik": 1e-6,
    "information": 3e-6,
    "counts": 0.0,
    # 1e-8 in the criterion is 1e-4 standard errors.
    "fixef": 1e-3,
    "se": 1e-3,
    "sd": 1e-3,
    "correlations": 2e-3,
    "dispersion": 1e-3,
    "se_dispersion": 1e-3,
    "ranef": 1e-3,
    "cond_var": 1e-3,
    "fitted": 1e-3,
    "deviance": 1e-3,
    "residuals": 1e-3,
    "predictions": 1e-3,
    "prediction_se": 1e-3,
    "marginal": 1e-3,
    "wald": 3e-3,
}


def _order(model: Any, ref: Reference) -> list[int]:
    ours = [naming.effect(str(name)) for name in model.fixef.index]
    theirs = [naming.effect(name) for name in ref["fixef"]["names"]]
    if sorted(ours) != sorted(theirs):
        raise AssertionError(f"fixed effects differ: {ours} here, {theirs} in R")
    return [ours.index(name) for name in theirs]


def criterion_at(model: Any, ref: Reference) -> Errors:
    """−2 log-likelihood at three stated points away from the optimum, relative."""
    order, out = _order(model, ref), {}
    for i, point in enumerate(ref["criterion_at"]):
        beta = np.empty(len(order))
        beta[order] = point["beta"]
        theta = stacked(in_our_order(model, ref, point["theta"]))
        value = model.criterion_at(beta=beta, theta=theta, dispersion=ref["dispersion"])
        out[f"point {i + 1}"] = worst(value, point["value"], max(1.0, abs(point["value"])))
    return out


def minus2loglik(model: Any, ref: Reference) -> Errors:
    """−2 log-likelihood at the optimum."""
    return {"minus2loglik": worst(model.minus2loglik, ref["minus2loglik"])}


def information(model: Any, ref: Reference) -> Errors:
    """Log-likelihood, AIC and BIC."""
    return {
        "loglik": worst(model.loglik, -ref["minus2loglik"] / 2),
        "aic": worst(model.aic, ref["aic"]),
        "bic": worst(model.bic, ref["bic"]),
    }


def counts(model: Any, ref: Reference) -> Errors:
    """Rows and parameters."""
    return {"nobs": worst(model.nobs, ref["n"]), "npar": worst(model.npar, ref["npar"])}


def fixef(model: Any, ref: Reference) -> Errors:
    """Fixed effects, relative to themselves or to their standard error, whichever is larger."""
    beta = np.array(ref["fixef"]["values"], float)
    unit = np.abs(beta)
    if ref["fixef"].get("se"):
        unit = np.maximum(unit, ref["fixef"]["se"])
    return {"fixef": worst(model.fixef.to_numpy()[_order(model, ref)], beta, unit)}


def se(model: Any, ref: Reference) -> Errors:
    """Standard errors of the fixed effects from the joint Hessian, relative."""
    if not ref["fixef"].get("se"):
        return {}
    theirs = np.array(ref["fixef"]["se"])
    return {"se": worst(model.se.to_numpy()[_order(model, ref)], theirs, theirs)}


# Random effects ---------------------------------------------------------------------------------
def _sds(ref: Reference) -> dict[tuple[tuple[str, ...], str], float]:
    return {
        (naming.group(term["group"]), naming.effect(column)): sd or 1.0
        for term in ref["terms"]
        for column, sd in zip(term["columns"], term["sd"], strict=True)
    }


def _varcorr(model: Any, ref: Reference) -> dict[tuple[Any, frozenset[str]], float]:
    known = {naming.group(term["group"]) for term in ref["terms"]}
    table = model.varcorr.to_frame()
    out = {}
    for group, var1, var2, sdcor in table[["group", "var1", "var2", "sdcor"]].itertuples(False):
        names = frozenset(naming.effect(v) for v in (var1, var2) if isinstance(v, str))
        if names:
            out[naming.term_group(group, known), names] = float(sdcor)
    return out


def sd(model: Any, ref: Reference) -> Errors:
    """Standard deviations of the random effects, relative; of effects without variance, as is."""
    ours = _varcorr(model, ref)
    out = {}
    for term in ref["terms"]:
        group = naming.group(term["group"])
        for column, value in zip(term["columns"], term["sd"], strict=True):
            name = naming.effect(column)
            label = f"{term['group']} {column}"
            out[label] = worst(ours[group, frozenset({name})], value, value or 1.0)
    return out


def correlations(model: Any, ref: Reference) -> Errors:
    """Correlations of the random effects."""
    ours, out = _varcorr(model, ref), {}
    for term in ref["terms"]:
        group, columns = naming.group(term["group"]), [naming.effect(c) for c in term["columns"]]
        pairs = [(i, j) for j in range(len(columns)) for i in range(j + 1, len(columns))]
        for (i, j), value in zip(pairs, term["correlations"], strict=True):
            if value is not None and np.isfinite(float(value)):
                names = frozenset({columns[i], columns[j]})
                out[f"{columns[i]} {columns[j]}"] = worst(ours[group, names], value)
    return out


def dispersion(model: Any, ref: Reference) -> Errors:
    """φ, or the negative binomial's size, relative."""
    if ref["dispersion"] is None:
        return {}
    ours = model.family.theta if ref["family"] == "negative_binomial" else model.dispersion
    return {"dispersion": worst(ours, ref["dispersion"], ref["dispersion"])}


def se_dispersion(model: Any, ref: Reference) -> Errors:
    """Standard error of the logarithm of φ or of the size, relative."""
    if ref.get("se_log_dispersion") is None:
        return {}
    table = model.parameter_errors
    row = table.iloc[-1]  # the family's own parameter comes last
    ours = row.iloc[1] / row.iloc[0]
    return {"se": worst(ours, ref["se_log_dispersion"], ref["se_log_dispersion"])}


def _levels(model: Any, ref: Reference) -> list[tuple[dict[str, Any], Any, int, list[int]]]:
    """Per stored level: the entry, our frame of modes, and the positions of level and columns."""
    out = []
    for entry in ref["ranef"]:
        wanted = naming.group(entry["group"])
        (name,) = (g for g in model.ranef if naming.group(g) == wanted)
        modes = model.ranef[name]
        labels = [naming.level(name, label) for label in modes.index]
        at = labels.index(naming.level(entry["group"], entry["level"]))
        names = [naming.effect(str(c)) for c in modes.columns]
        out.append((entry, name, at, [names.index(naming.effect(c)) for c in entry["columns"]]))
    return out


def _unit(entry: dict[str, Any], ref: Reference) -> Any:
    sds, group = _sds(ref), naming.group(entry["group"])
    return np.array([sds[group, naming.effect(c)] for c in entry["columns"]])


def ranef(model: Any, ref: Reference) -> Errors:
    """Conditional modes in units of their standard deviation."""
    return {
        f"{name} {entry['level']}": worst(
            model.ranef[name].to_numpy()[at, columns], entry["mode"], _unit(entry, ref)
        )
        for entry, name, at, columns in _levels(model, ref)
    }


def cond_var(model: Any, ref: Reference) -> Errors:
    """Conditional variances in units of the standard deviations."""
    out = {}
    for entry, name, at, columns in _levels(model, ref):
        unit = np.outer(_unit(entry, ref), _unit(entry, ref))
        ours = np.asarray(model.cond_var[name])[at][np.ix_(columns, columns)]
        out[f"{name} {entry['level']}"] = worst(ours, entry["cond_var"], unit)
    return out


# Rows -------------------------------------------------------------------------------------------
def _relative(ours: Any, theirs: Any) -> float:
    theirs = np.asarray(theirs, float)
    return worst(ours, theirs, np.maximum(np.abs(theirs), 1e-3))


def fitted(model: Any, ref: Reference) -> Errors:
    """Means at the modes, relative."""
    theirs = ref["fitted"]
    return {"fitted": _relative(model.fitted.to_numpy()[: len(theirs)], theirs)}


def deviance(model: Any, ref: Reference) -> Errors:
    """Sum of squared deviance residuals at the modes, relative."""
    return {"deviance": worst(model.deviance, ref["deviance"], abs(ref["deviance"]))}


def residuals(model: Any, ref: Reference) -> Errors:
    """Four kinds of residuals, relative to the largest of the rows compared."""
    out = {}
    for kind, theirs in ref["residuals"].items():
        ours = model.residuals(type=kind).to_numpy()[: len(theirs)]
        out[kind] = worst(ours, theirs, np.max(np.abs(theirs)))
    return out


def _new(ref: Reference) -> pd.DataFrame:
    return models.as_declared(pd.DataFrame(ref["predictions"]["rows"]), ref["data"])


def predictions(model: Any, ref: Reference) -> Errors:
    """New rows without and with random effects, on both scales."""
    new, theirs, out = _new(ref), ref["predictions"], {}
    for key, kind, random in (
        ("link", "link", False),
        ("response", "response", False),
        ("conditional_link", "link", True),
        ("conditional_response", "response", True),
    ):
        value = np.asarray(theirs[key], float)
        unit = np.maximum(np.abs(value), 1.0 if kind == "link" else 1e-3)
        out[key] = worst(model.predict(new, type=kind, random=random), value, unit)
    return out


def prediction_se(model: Any, ref: Reference) -> Errors:
    """Standard errors of the population's predictor, relative."""
    if not ref["predictions"].get("se_link"):
        return {}
    ours = model.predict(_new(ref), type="link", random=False, se=True)["se"]
    return {"se": _relative(ours, ref["predictions"]["se_link"])}


def marginal(model: Any, ref: Reference) -> Errors:
    """Means of new rows over the distribution of the random effects, relative."""
    theirs = ref["predictions"]["marginal_response"]
    if theirs is None:  # the mean of 1 / predictor does not exist
        return {}
    ours = model.predict(_new(ref), type="response", random=False, marginal=True)
    return {"marginal": _relative(ours, theirs)}


def wald(model: Any, ref: Reference) -> Errors:
    """Wald χ² of the coefficients of every term, jointly: contrasts, relative."""
    order, out = _order(model, ref), {}
    names = ref["fixef"]["names"]
    for test in ref.get("wald") or []:
        at = [order[names.index(name)] for name in test["columns"]]
        rows = np.eye(len(order))[at]
        frame = model.contrast(rows if len(rows) > 1 else rows[0]).to_frame()
        ours = frame["Chisq"].iloc[0] if "Chisq" in frame else frame["z value"].iloc[0] ** 2
        out[test["term"]] = worst(ours, test["chisq"], max(test["chisq"], 1e-2))
    return out


QUANTITIES: dict[str, Callable[[Any, Reference], Errors]] = {
    f.__name__: f
    for f in (
        criterion_at,
        minus2loglik,
        information,
        counts,
        fixef,
        se,
        sd,
        correlations,
        dispersion,
        se_dispersion,
        ranef,
        cond_var,
        fitted,
        deviance,
        residuals,
        predictions,
        prediction_se,
        marginal,
        wald,
    )
}
