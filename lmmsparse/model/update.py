"""A fitted model and what is to change → the model fitted again from a formula and a table."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.words import listed
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.held import theta_names
from lmmsparse.formula.formula import parse_formula
from lmmsparse.formula.update import updated_formula
from lmmsparse.report.tidy import rows_as_fitted

P = ParamSpec("P")
M = TypeVar("M")

# Not arguments of the model, but of one search.
_OF_THE_CALL = ("formula", "data", "start", "progress")


@dataclass(frozen=True, eq=False)
class Made:
    """How a model was made: the table, as long as somebody else holds it, and the options."""

    data: Callable[[], Any]
    options: Mapping[str, Any]


_made: weakref.WeakKeyDictionary[Fit, Made] = weakref.WeakKeyDictionary()
_makers: dict[str, Callable[..., Any]] = {}


def remembers(function: Callable[P, M]) -> Callable[P, M]:
    """Decorate a function that fits a formula so that its models can be updated.

    The table is not kept: only where it is, while it exists.
    """
    names = list(inspect.signature(function).parameters)

    @wraps(function)
    def remembered(*args: P.args, **kwargs: P.kwargs) -> M:
        model = function(*args, **kwargs)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        options = {name: v for name, v in given.items() if name not in _OF_THE_CALL}
        _made[model.fit] = Made(_reference(given["data"]), options)  # type: ignore[attr-defined]
        return model

    _makers[function.__name__] = remembered
    return remembered


def _reference(data: Any) -> Callable[[], Any]:
    paths = data if isinstance(data, (list, tuple)) else [data]
    if paths and all(isinstance(each, (str, Path)) for each in paths):
        return lambda: data
    try:
        return weakref.ref(data)
    except TypeError:  # a dictionary of columns
        return lambda: None


def made_from(fit: Fit) -> tuple[Any, Any]:
    """The data of a fit, if they are still there and None otherwise, and its ``chunks=``."""
    made = _made.get(fit)
    return (None, None) if made is None else (made.data(), made.options.get("chunks"))


def update_model(fit: Fit, formula: Any, data: Any, options: Mapping[str, Any]) -> Any:
    """Fit again; see `MixedModel.update`."""
    if not fit.design.formula:
        raise OptionError(
            "The model was made from arrays and has no formula to update. Call lmm.fit_arrays "
            "again."
        )
    maker = _makers["glmer" if isinstance(fit, GeneralizedFit) else "lmer"]
    known = [n for n in inspect.signature(maker).parameters if n not in ("formula", "data")]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise OptionError(
            f"update() has no option {unknown[0]!r}. Its options are those of {maker.__name__}: "
            f"{', '.join(known)}."
        )
    text = fit.design.formula if formula is None else updated_formula(fit.design.formula, formula)
    made = _made.get(fit)
    old = made.options if made is not None else _from_fit(fit, options)
    if data is None:
        data = _same_data(fit, made)
    if old.get("known"):  # of factors that are still there
        groups = {term.group for term in parse_formula(text).random}
        old = {**old, "known": {name: v for name, v in old["known"].items() if name in groups}}
    return maker(text, data, **{**old, **options})


def _same_data(fit: Fit, made: Made | None) -> Any:
    data = None if made is None else made.data()
    if data is None:
        raise OptionError(
            "Models do not keep their data, and the table this one was fitted to is not there any "
            "more. Write m.update(formula, data)."
        )
    if fit.design.facts is None and hasattr(data, "columns") and hasattr(data, "iloc"):
        try:
            rows_as_fitted(fit, data)
        except DataError as error:
            raise DataError(
                "The table the model was fitted to has changed since. Pass the one that is meant: "
                "m.update(formula, data)."
            ) from error
    return data


def _from_fit(fit: Fit, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a model that was loaded, or fitted to another response."""
    design, recipe = fit.design, fit.design.recipe
    options: dict[str, Any] = {"na_action": design.na_action}
    if isinstance(fit, GeneralizedFit):
        options |= {"family": fit.family, "n_agq": fit.problem.n_agq}
        options["information"] = fit.problem.information
    else:
        options["reml"] = fit.reml
    if recipe is not None:
        options["contrasts"] = dict(recipe.matrices.contrasts) or None
        options["context"] = dict(recipe.matrices.context) or None
        options["offset"] = recipe.offset_column
        options["weights"] = recipe.weights_column
    if design.residual is not None:
        correlation = design.residual.correlation
        options["residual"] = None if correlation is None else correlation.text
        options["residual_sd"] = design.residual.sd_text if design.residual.names else None
    known = {block.group: block.known for block in design.blocks if block.known is not None}
    options["known"] = known or None
    lost = []
    if recipe is not None and recipe.offset_array and "offset" not in given:
        lost.append("offset")
    if _weighted(fit) and options.get("weights") is None and "weights" not in given:
        lost.append("weights")
    if lost:
        given_as = listed(f"{name}=" for name in lost)
        raise OptionError(
            f"The model was fitted with {given_as} and does not keep what was given. Pass "
            f"{lost[0]}= again, or {lost[0]}=None to leave it out."
        )
    names = theta_names(design)
    held = {names[i]: value for i, value in fit.held.theta}
    held |= dict(fit.held.residual)
    if fit.held.sigma is not None and fit.has_residuals:
        held["sigma"] = fit.held.sigma
    return {**options, "fixed": held or None}


def _weighted(fit: Fit) -> bool:
    """Whether ``weights=`` was given; trials may be part of the formula."""
    if not isinstance(fit, GeneralizedFit):
        return fit.design.weights is not None
    if fit.seen.trials is None or fit.design.response.startswith("cbind("):
        return fit.seen.prior is not None
    return fit.seen.prior is not None or "/" not in fit.design.response
