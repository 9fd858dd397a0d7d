"""Every public callable of the package, with arguments that work and keep it short.

They are found, not listed: what the package exports, and the methods of fitted models, of their
plots and of all that these return. `USUAL` holds what a call needs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd

import lmmsparse as lmm

DATA = lmm.load_dataset("sleepstudy")
HERDS = lmm.load_dataset("cbpp")
FORMULA = "Reaction ~ Days + (1 | Subject)"
SHARES = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
FOLDER = Path(tempfile.mkdtemp())
PEDIGREE = pd.DataFrame({"id": list("abc"), "sire": [None, None, "a"], "dam": [None, None, "b"]})
Q3 = np.diag([2.0, 1.5, 1.0])


def _generalized() -> lmm.GeneralizedLinearMixedModel:
    return lmm.glmer(SHARES, HERDS, "binomial")


def _structured() -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days", DATA, residual="cs(Days | Subject)")


def _probed() -> lmm.LinearMixedModel:
    return lmm.lmer(
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        lmm.load_dataset("Penicillin"),
        solver=lmm.Krylov(probes=8),
    )


MODEL = lmm.lmer(FORMULA, DATA)
LARGER = lmm.lmer("Reaction ~ Days + (Days | Subject)", DATA)
GENERALIZED = _generalized()
PRODUCTS = lmm.cross_products(FORMULA, DATA)
PROFILE, BOOTSTRAP = MODEL.profile("sigma"), MODEL.bootstrap(5, rng=1)
THETAS = MODEL.profile("theta_")
MODEL.save(FOLDER / "model.lmm")

OBJECTS: dict[str, Any] = {
    "model": MODEL,
    "plot": MODEL.plot,
    "generalized": GENERALIZED,
    "generalized plot": GENERALIZED.plot,
    "structured": _structured(),
    "probed": _probed(),
    "summed": lmm.lmer(FORMULA, PRODUCTS),
    "anova": lmm.anova(MODEL),
    "lrt": lmm.anova(MODEL, LARGER),
    "compare": lmm.compare(MODEL, LARGER),
    "bootstrap_lrt": lmm.bootstrap_lrt(MODEL, LARGER, n=3, rng=1),
    "coef_table": MODEL.coef_table(),
    "contrast": MODEL.contrast([0, 1]),
    "drop1": MODEL.drop1(),
    "ranova": MODEL.ranova(),
    "emmeans": MODEL.emmeans("Days", at={"Days": [0, 1]}),
    "all_fit": MODEL.all_fit(),
    "varcorr": MODEL.varcorr,
    "summary": MODEL.summary(),
    "generalized summary": GENERALIZED.summary(),
    "profile": PROFILE,
    "bootstrap": BOOTSTRAP,
    "influence": MODEL.influence(),
    "convergence": MODEL.convergence,
    "rank_pca": MODEL.rank_pca(),
    "step": MODEL.step(),
    "cross_products": PRODUCTS,
    "cluster_sums": MODEL.cluster_sums(DATA, chunks=lmm.Chunks(processes=1)),
    "power": MODEL.power("Days", n=[6, 12], rng=1, n_sim=3),
    "families": lmm.families,
    "lmm": lmm,
}
# Made by functions of the package, not by its users.
RESULTS = (
    lmm.Design,
    lmm.Finding,
    lmm.Fit,
    lmm.MixedFormula,
    lmm.Table,
    lmm.VarCorr,
    lmm.LinearMixedModel,
    lmm.GeneralizedLinearMixedModel,
)
_PARTS = ("Family", "Observations", "Pointwise", "family_named")


def _methods(thing: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    if thing in (lmm, lmm.families):
        for name in thing.__all__:
            value = getattr(thing, name)
            raised = isinstance(value, type) and issubclass(value, (Exception, Warning))
            if callable(value) and not raised and value not in RESULTS and name not in _PARTS:
                yield name, value
        return
    inherited = dir(dict) if isinstance(thing, dict) else ()
    for name in dir(thing):
        if (
            name not in inherited
            and not name.startswith("_")
            and inspect.isfunction(getattr(type(thing), name, None))
        ):
            yield name, getattr(thing, name)


CALLS = {f"{own}.{n}": f for own, thing in OBJECTS.items() for n, f in _methods(thing)}
CALLS |= {
    "lmm.lmer structured": lmm.lmer,
    "lmm.lmer known": lmm.lmer,
    "lmm.lmer of sums": lmm.lmer,
    "lmm.glmer of counts": lmm.glmer,
    "lmm.Pedigree.from_frame": lmm.Pedigree.from_frame,
    "lmm.Table.from_frame": lmm.Table.from_frame,
    "model.confint boot": MODEL.confint,
    "model.coef_table robust": MODEL.coef_table,
    "model.predict new": MODEL.predict,
    "generalized.confint boot": GENERALIZED.confint,
}
if find_spec("arviz"):
    from lmmsparse.interop.arviz import to_arviz

    CALLS["interop.to_arviz"] = to_arviz
if find_spec("marginaleffects"):
    from lmmsparse.interop.marginaleffects import for_marginaleffects

    CALLS["interop.for_marginaleffects"] = for_marginaleffects

_GROUP = {"probed": "plate"}
_OF_MODELS: dict[str, dict[str, Any]] = {
    "bootstrap": {"n": 2, "rng": 1},
    "contrast": {"L": [0, 1]},
    "emmeans": {"specs": "Days"},
    "emtrends": {"specs": None, "var": "Days"},
    "predict_batches": {"source": DATA},
    "residual_batches": {"source": DATA},
    "simulate_batches": {"source": DATA, "rng": 1},
    "write_predictions": {"source": DATA, "folder": FOLDER / "out"},
    "power": {"term": "Days", "rng": 1, "n_sim": 2},
    "profile": {"which": "sigma"},
    "confint": {"method": "wald"},
    "confint boot": {"method": "boot", "n": 5, "rng": 1, "kind": "basic"},
    "coef_table robust": {"robust": "CR2", "cluster": "Subject"},
    "predict new": {"newdata": DATA.head(3), "se": True},
    "refit": {"y": DATA["Reaction"]},
    "more_probes": {"n": 16},
    "cluster_sums": {"source": DATA, "chunks": lmm.Chunks(processes=1)},
    "refit_many": {"Y": DATA["Reaction"]},
    "simulate": {"rng": 1},
    "save": {"path": FOLDER / "saved.lmm"},
    "vcov_robust": {"cluster": "Subject"},
}
USUAL: dict[str, dict[str, Any]] = {
    f"{model}.{name}": arguments
    for model in ("model", "structured", "probed", "summed")
    for name, arguments in _OF_MODELS.items()
}
_SHARE = {"y": HERDS["incidence"] / HERDS["size"]}
USUAL |= {
    "lmm.lmer": {"formula": FORMULA, "data": DATA},
    "lmm.lmer structured": {
        "formula": "Reaction ~ Days",
        "data": DATA,
        "residual": "cs(Days | Subject)",
        "residual_sd": "~ Days",
    },
    "lmm.lmer known": {
        "formula": "y ~ x + (1 | id)",
        "data": pd.DataFrame(
            {"y": [1.0, 2, 4, 3, 5, 6], "x": [1, 2, 3, 3, 2, 2], "id": list("abcabc")}
        ),
        "known": {"id": lmm.Precision(Q3, labels=["a", "b", "c"])},
    },
    "lmm.lmer of sums": {"formula": FORMULA, "data": PRODUCTS},
    "lmm.glmer": {"formula": SHARES, "data": HERDS, "family": "binomial"},
    "lmm.glmer of counts": {
        "formula": "incidence ~ period + (1 | herd)",
        "data": HERDS,
        "family": lmm.families.Poisson(),
        "n_agq": 3,
    },
    "lmm.build_design": {"formula": FORMULA, "data": DATA},
    "lmm.cross_products": {"formula": FORMULA, "source": DATA},
    "lmm.fit_design": {"design": MODEL.fit.design},
    "lmm.fit_arrays": {
        "y": DATA["Reaction"],
        "X": np.ones((180, 1)),
        "random": [(DATA["Subject"], None)],
    },
    "lmm.parse_formula": {"text": "y ~ x + (1 | g)"},
    "lmm.load_dataset": {"name": "sleepstudy"},
    "lmm.load": {"path": FOLDER / "model.lmm"},
    "lmm.bootstrap_lrt": {"small": MODEL, "large": LARGER, "n": 2, "rng": 1},
    "lmm.pool": {"models": [MODEL, MODEL]},
    "lmm.choose_solver": {"products": MODEL.fit.products},
    "lmm.Batches": {"function": lambda: iter([DATA])},
    "lmm.Precision": {"Q": Q3, "labels": ["a", "b", "c"]},
    "lmm.Covariance": {"A": Q3, "labels": ["a", "b", "c"]},
    "lmm.Pedigree": {name: PEDIGREE[name] for name in PEDIGREE},
    "lmm.Pedigree.from_frame": {"frame": PEDIGREE},
    "lmm.Table.from_frame": {"frame": DATA.head(3)},
    "generalized.bootstrap": {"n": 2, "rng": 1},
    "generalized.contrast": {"L": [0, 1, 0, 0]},
    "generalized.criterion_at": {"beta": GENERALIZED.fixef, "theta": GENERALIZED.theta},
    "generalized.emmeans": {"specs": "period"},
    "generalized.emtrends": {"specs": None, "var": "period"},
    "generalized.power": {"term": "period", "rng": 1, "n_sim": 2},
    "generalized.profile": {"which": "theta_"},
    "generalized.confint": {"method": "wald"},
    "generalized.confint boot": {"method": "boot", "n": 3, "rng": 1, "kind": "basic"},
    "generalized.check_dispersion": {"n": 5},
    "generalized.refit": _SHARE,
    "generalized.refit_many": {"Y": _SHARE["y"]},
    "generalized.simulate": {"rng": 1},
    "generalized.save": {"path": FOLDER / "saved.lmm"},
    "cross_products.save": {"path": FOLDER / "saved.lmm"},
    "plot.bootstrap": {"bootstrap": BOOTSTRAP},
    "generalized plot.bootstrap": {"bootstrap": GENERALIZED.bootstrap(3, rng=1)},
    "plot.profile": {"profile": PROFILE},
    "plot.profile_pairs": {"profile": THETAS},
    "generalized plot.profile": {"profile": PROFILE},
    "generalized plot.profile_pairs": {"profile": THETAS},
    "interop.to_arviz": {"result": BOOTSTRAP, "n": 5},
    "interop.for_marginaleffects": {"model": MODEL},
}
# Taken before the others, by position.
MODELS: dict[str, tuple[Any, ...]] = {"lmm.anova": (MODEL, LARGER), "lmm.compare": (MODEL, LARGER)}
# What a call passes on to another function, and so has by name only there.
PASSED_ON = {
    "model.confint": ("n_jobs", "progress"),
    "model.confint boot": ("n", "rng", "kind", "n_jobs", "progress"),
    "model.update": ("reml", "weights", "na_action", "optimizer", "solver", "fixed", "known"),
    "generalized.update": ("family", "n_agq", "information", "weights", "start", "solver"),
}


def called(name: str, /, **options: Any) -> Any:
    """What a call returns with its usual arguments and these, to the end where it is a stream."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        out = CALLS[name](*MODELS.get(name, ()), **{**USUAL.get(name, {}), **options})
        return list(out) if inspect.isgenerator(out) else out


def options_of(name: str) -> list[str]:
    """The arguments that a call takes by name."""
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    own = inspect.signature(CALLS[name]).parameters.values()
    return [*(p.name for p in own if p.kind not in kinds), *PASSED_ON.get(name, ())]


def annotation_of(name: str, option: str) -> str:
    """What is said to be the type of an argument."""
    parameter = inspect.signature(CALLS[name]).parameters.get(option)
    return "" if parameter is None else str(parameter.annotation)


def checked_functions() -> dict[str, Any]:
    """All functions of the package whose arguments are checked: what it holds for public."""
    found = {}
    for each in pkgutil.walk_packages(lmm.__path__, "lmmsparse."):
        foreign = each.name.startswith("lmmsparse.interop.")
        if each.name.endswith("__main__") or (foreign and not find_spec(each.name.split(".")[2])):
            continue
        module = importlib.import_module(each.name)
        for value in vars(module).values():
            if getattr(value, "__module__", None) != each.name:
                continue
            for own in [value, *vars(value).values()] if inspect.isclass(value) else [value]:
                function = getattr(own, "__func__", own)
                if inspect.isfunction(function) and is_checked(function):
                    found[f"{each.name.rpartition('.')[2]}:{function.__qualname__}"] = function
    return found


def is_checked(function: Any) -> bool:
    """Whether a function asks for its arguments' names and values before it is entered."""
    while function is not None and function.__code__.co_name != "checked":
        function = getattr(function, "__wrapped__", None)
    return function is not None
