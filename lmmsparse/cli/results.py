"""A fitted model and what was asked of it → text, Markdown or JSON."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from typing import Any

from lmmsparse import __version__
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.table import Table
from lmmsparse.common.words import close_match
from lmmsparse.inference.df.methods import check_ddf
from lmmsparse.model.generalized import GeneralizedLinearMixedModel
from lmmsparse.model.linear import LinearMixedModel
from lmmsparse.model.lmer import anova

_SHARES = {"r2": "R²", "icc": "Intraclass correlation"}
_TESTS = {
    "df": "df",
    "t value": "statistic",
    "z value": "statistic",
    "Pr(>|t|)": "p_value",
    "Pr(>|z|)": "p_value",
    "lower.CL": "lower",
    "upper.CL": "upper",
}


class Results:
    """All that was asked for, computed.

    Parameters
    ----------
    model : LinearMixedModel or GeneralizedLinearMixedModel
    data : DataFrame
    options : Namespace
        What was typed.
    """

    def __init__(
        self,
        model: LinearMixedModel | GeneralizedLinearMixedModel,
        data: Any,
        options: argparse.Namespace,
    ) -> None:
        how = _tests(model, data, options)
        self._model, self._with_ranef = model, options.ranef
        self._summary = model.summary(**how)
        self._table = model.coef_table(level=options.level, **how)
        self._how = {"ddf": check_ddf(options.ddf or _usual(model)), "robust": options.robust}
        self._how |= {"cluster": options.cluster, "level": options.level}
        self._parts: dict[str, Any] = {}
        self._frames: dict[str, Any] = {}
        if options.anova:
            self._parts["anova"] = anova(model, **how)
        for factors in options.emmeans:
            means, _, by = factors.partition("|")
            self._parts[f"emmeans {factors.strip()}"] = model.emmeans(
                _names(means),
                _names(by) or None,
                pairwise=options.pairwise,
                contrasts=options.contrasts,
                reverse=options.reverse,
                adjust=options.adjust or "tukey",
                at={name: _values(data, name, text) for name, text in options.at},
                weights=options.emmeans_weights or "equal",
                type=options.type or "link",
                regrid="response" if options.regrid else None,
                level=options.level,
                **how,
            )
        if options.r2:
            self._frames["R²"] = model.r2()
            self._frames["Intraclass correlation"] = model.icc()
        if options.ci is not None:
            title = f"Confidence intervals ({options.ci}, {options.level:.4g})"
            self._frames[title] = model.confint(method=options.ci, level=options.level)
        self._intervals = None if options.ci is None else self._frames[title]
        self._shares = {name: self._frames[long] for name, long in _SHARES.items() if options.r2}
        if options.ranef:
            for group, table in model.ranef.items():
                self._frames[f"Random effects of {group}"] = table

    def as_text(self) -> str:
        """The summary, and below it what else was asked for."""
        parts = [str(part) for part in (self._summary, *self._parts.values())]
        parts += [str(Table.from_frame(f, title=f"{title}:")) for title, f in self._frames.items()]
        return "\n\n".join(parts)

    def as_markdown(self) -> str:
        """The same as GitHub's Markdown."""
        parts = [part.to_markdown() for part in (self._summary, *self._parts.values())]
        for title, frame in self._frames.items():
            parts.append(Table.from_frame(frame, title=title).to_markdown())
        return "\n\n".join(parts)

    def as_json(self) -> str:
        """All numbers, under names for programs."""
        found = as_dictionary(self._model, self._table, ranef=self._with_ranef)
        found["tests"] = self._how
        found |= {name: _plain(shares.to_dict()) for name, shares in self._shares.items()}
        for name, part in self._parts.items():
            kind, _, factors = name.partition(" ")
            frame = part.to_frame()
            if kind == "anova":
                found["anova"] = _plain(_records(frame, "term"))
            else:
                means = found.setdefault("emmeans", [])
                means.append({"factors": factors, "rows": _plain(frame.to_dict("records"))})
        if self._intervals is not None:
            found["confint"] = _plain(_records(self._intervals, "parameter"))
        return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def _tests(model: Any, data: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The options of tests that were given."""
    given = {} if options.ddf is None else {"ddf": options.ddf}
    if options.robust is None:
        return given
    cluster = options.cluster
    if cluster is not None and cluster not in model.n_groups:
        if cluster not in data:
            raise DataError(
                f"--cluster names {cluster!r}, which is no column of the data."
                f"{close_match(cluster, data.columns)}"
            )
        cluster = data[cluster]
    return {**given, "robust": options.robust, "cluster": cluster}


def _usual(model: Any) -> str:
    return "satterthwaite" if isinstance(model, LinearMixedModel) else "asymptotic"


def _values(data: Any, name: str, text: str) -> list[Any]:
    """Values after --at: numbers where the column has numbers."""
    words: list[Any] = [word.strip() for word in text.split(",") if word.strip()]
    column = data.get(name)
    if column is None or column.dtype.kind not in "iuf":
        return words
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise OptionError(f"--at {name}={text} must hold numbers, as the column does.") from None
    return [int(value) if value.is_integer() else value for value in numbers]


def _records(frame: Any, name: str) -> list[dict[Any, Any]]:
    rows: list[dict[Any, Any]] = frame.rename_axis(name).reset_index().to_dict("records")
    return rows


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def as_dictionary(
    model: LinearMixedModel | GeneralizedLinearMixedModel, table: Table, *, ranef: bool = False
) -> dict[str, Any]:
    """What a fitted model found, in lists, dictionaries, numbers and strings only.

    Parameters
    ----------
    model : LinearMixedModel or GeneralizedLinearMixedModel
        A fitted model.
    table : Table
        Its coefficients with tests and limits.
    ranef : bool
        Whether to include the conditional modes of the random effects.

    Returns
    -------
    dict
        ``lmmsparse`` (version), ``formula``, ``reml``, ``nobs``, ``n_groups`` (group → levels),
        ``criterion`` (the REML criterion or −2 log-likelihood), ``loglik``, ``aic``, ``bic``,
        ``npar``, ``df_resid``, ``sigma``, ``theta`` (name → value), ``fixef`` (a list of ``term,
        estimate, se, df, statistic, p_value, lower, upper``, by the tests that were asked for),
        ``vcov`` (the model's own, rows in the order of ``fixef``), ``varcorr`` (a list of ``group,
        var1, var2, vcov, sdcor``), ``converged``, ``singular``, ``evaluations``, ``findings`` (a
        list of ``code, level, message``) and with `ranef` also ``ranef`` (group → a list of
        ``level`` and ``effects``, name → value). A generalized model has ``family``, ``link``,
        ``dispersion`` and ``family_theta`` (of a negative binomial) instead of ``sigma``. Numbers
        that are not finite are None.
    """
    fixef = []
    for i, term in enumerate(table.index):
        own = {new: table.columns[old][i] for old, new in _TESTS.items() if old in table.columns}
        start = {"estimate": table.columns["Estimate"][i], "se": table.columns["Std. Error"][i]}
        fixef.append({"term": term, **start, **own})
    verdict = model.convergence
    found: dict[str, Any] = {
        "lmmsparse": __version__,
        "formula": model.formula,
        "reml": model.reml,
        "nobs": model.nobs,
        "n_groups": dict(model.n_groups),
        "criterion": model.fit.criterion,
        "loglik": model.loglik,
        "aic": model.aic,
        "bic": model.bic,
        "npar": model.npar,
        "df_resid": model.df_resid,
        **_scale(model),
        "theta": model.theta.to_dict(),
        "fixef": fixef,
        "vcov": model.vcov.to_numpy().tolist(),
        "varcorr": model.varcorr.to_frame().to_dict("records"),
        "converged": verdict.converged,
        "singular": verdict.singular,
        "evaluations": verdict.evaluations,
        "findings": [asdict(finding) for finding in verdict.findings],
    }
    if ranef:
        found["ranef"] = {
            group: [
                {"level": level, "effects": effects}
                for level, effects in zip(table.index, table.to_dict("records"), strict=True)
            ]
            for group, table in model.ranef.items()
        }
    return _plain(found)  # type: ignore[no-any-return]


def _scale(model: LinearMixedModel | GeneralizedLinearMixedModel) -> dict[str, Any]:
    """The residual standard deviation, or the family with what it has in its place."""
    if isinstance(model, LinearMixedModel):
        return {"sigma": model.sigma}
    family = model.family
    return {
        "family": family.name,
        "link": family.link,
        "dispersion": model.dispersion,
        "family_theta": getattr(family, "theta", None),
    }


def _plain(value: Any) -> Any:
    """The same value in the types JSON has."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
