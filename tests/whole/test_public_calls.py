"""All public callables: keywords and arguments that do not exist, values that mean nothing.

They are found, not listed: what the package exports, and the methods of a fitted model, of its
plots and of all that these return.
"""

from __future__ import annotations

import inspect
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm

DATA = lmm.load_dataset("sleepstudy")
MODEL = lmm.lmer("Reaction ~ Days + (1 | Subject)", DATA)
LARGER = lmm.lmer("Reaction ~ Days + (Days | Subject)", DATA)
SHARES = lmm.glmer(
    "cbind(incidence, size - incidence) ~ period + (1 | herd)", lmm.load_dataset("cbpp"), "binomial"
)
OBJECTS: dict[str, Any] = {
    "model": MODEL,
    "plot": MODEL.plot,
    "generalized plot": SHARES.plot,
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
    "profile": MODEL.profile("sigma"),
    "bootstrap": MODEL.bootstrap(3, rng=1),
    "influence": MODEL.influence(),
    "convergence": MODEL.convergence,
    "rank_pca": MODEL.rank_pca(),
    "step": MODEL.step(),
    "cluster_sums": MODEL.cluster_sums(DATA, chunks=lmm.Chunks(processes=1)),
    "cross_products": lmm.cross_products("Reaction ~ Days + (1 | Subject)", DATA),
    "power": MODEL.power("Days", n=[6, 12], rng=1, n_sim=3),
    "lmm": lmm,
}
# Made by functions of the package, not by its users.
RESULTS = (lmm.Design, lmm.Finding, lmm.Fit, lmm.MixedFormula, lmm.Table, lmm.VarCorr)


def _methods(thing: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    if thing is lmm:
        for name in lmm.__all__:
            value = getattr(lmm, name)
            raised = isinstance(value, type) and issubclass(value, (Exception, Warning))
            if callable(value) and not raised and value not in RESULTS:
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

# Enough to be called: what is tried replaces one of these.
USUAL: dict[str, dict[str, Any]] = {
    "lmm.lmer": {"formula": "Reaction ~ Days + (1 | Subject)", "data": DATA},
    "lmm.build_design": {"formula": "Reaction ~ Days + (1 | Subject)", "data": DATA},
    "lmm.cross_products": {"formula": "Reaction ~ Days + (1 | Subject)", "source": DATA},
    "lmm.fit_design": {"design": MODEL.fit.design},
    "lmm.fit_arrays": {
        "y": DATA["Reaction"],
        "X": np.ones((180, 1)),
        "random": [(DATA["Subject"], None)],
    },
    "lmm.parse_formula": {"text": "y ~ x + (1 | g)"},
    "lmm.load_dataset": {"name": "sleepstudy"},
    "lmm.bootstrap_lrt": {"small": MODEL, "large": LARGER, "n": 2, "rng": 1},
    "lmm.pool": {"models": [MODEL, MODEL]},
    "lmm.choose_solver": {"products": MODEL.fit.products},
    "model.bootstrap": {"n": 2, "rng": 1},
    "model.contrast": {"L": [0, 1]},
    "model.emmeans": {"specs": "Days"},
    "model.emtrends": {"specs": None, "var": "Days"},
    "model.cluster_sums": {"source": DATA, "chunks": lmm.Chunks(processes=1)},
    "model.predict_batches": {"source": DATA},
    "model.residual_batches": {"source": DATA},
    "model.simulate_batches": {"source": DATA, "rng": 1},
    "model.write_predictions": {"source": DATA, "folder": Path(tempfile.mkdtemp()) / "out"},
    "model.power": {"term": "Days", "rng": 1, "n_sim": 3},
    "model.profile": {"which": "sigma"},
    "model.confint": {"method": "wald"},
    "model.refit": {"y": DATA["Reaction"]},
    "model.more_probes": {"n": 64},
    "model.refit_many": {"Y": DATA["Reaction"]},
    "model.simulate": {"rng": 1},
    "plot.bootstrap": {"bootstrap": OBJECTS["bootstrap"]},
    "plot.profile": {"profile": OBJECTS["profile"]},
    "plot.profile_pairs": {"profile": MODEL.profile("theta_")},
    "generalized plot.profile": {"profile": OBJECTS["profile"]},
    "generalized plot.profile_pairs": {"profile": MODEL.profile("theta_")},
}
# A function is trusted, and a path may be any text.
TRUSTED = {"statistic", "path", "folder"}
VALUES: tuple[Any, ...] = (
    None, -1, 0, 1.5, float("nan"), True, "", "no such thing", b"x", [], ["a", 1], {"a": 1},
    object(), np.zeros((2, 2, 2)), pd.Series([1.0]), pd.DataFrame(), pd.NA, 2j, np.array(["a"]),
)  # fmt: skip


def test_the_walk_meets_them_all() -> None:
    """A method of a kind of result that nobody put on the list would not be seen."""
    met = {type(thing) for thing in OBJECTS.values()}
    for name, call in CALLS.items():
        if name.startswith("model.") and name not in ("model.save", "model.more_probes"):
            value = call(**USUAL.get(name, {}))
            own = type(value).__module__.startswith("lmmsparse.")
            assert not own or type(value) in met, name
    assert len(CALLS) > 70


@pytest.mark.parametrize("name", CALLS)
def test_keywords_and_arguments_that_do_not_exist(name: str) -> None:
    with pytest.raises(lmm.OptionError, match=r"no_such_option|was given an argument"):
        CALLS[name](**USUAL.get(name, {}), no_such_option=1)
    parameters = inspect.signature(CALLS[name]).parameters.values()
    if all(p.kind is not inspect.Parameter.VAR_POSITIONAL for p in parameters):
        with pytest.raises(lmm.OptionError):
            CALLS[name](*[None] * 30)


@pytest.mark.parametrize("name", CALLS)
def test_values_that_mean_nothing(name: str) -> None:
    """Every argument takes a value or refuses it in the package's words, and leaves no figure."""
    call, usual = CALLS[name], USUAL.get(name, {})
    models = (MODEL, LARGER) if name in ("lmm.anova", "lmm.compare") else ()
    for parameter in inspect.signature(call).parameters.values():
        by_name = parameter.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        if not by_name or parameter.name in TRUSTED:
            continue
        for value in VALUES:
            before = plt.get_fignums()
            try:
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    call(*models, **{**usual, parameter.name: value})
            except lmm.LmmError:
                assert plt.get_fignums() == before, "an empty figure is left"
            except Exception as error:
                pytest.fail(f"{name}({parameter.name}={value!r}): {type(error).__name__}: {error}")
            plt.close("all")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_models_that_are_none(value: Any) -> None:
    for arguments in ((value,), (MODEL, value), (value, MODEL)):
        with pytest.raises(lmm.LmmError):
            lmm.anova(*arguments)


# What users of other packages write ---------------------------------------------------------------

MEMBERS = [name for name in dir(lmm.LinearMixedModel) if not name.startswith("_")]
ELSEWHERE = {
    "fixef": "Write m.fixef.",
    "ranef": "Write m.ranef.",
    "coef": "Write m.coef.",
    "sigma": "Write m.sigma.",
    "summary": r"Write m.summary\(\).",
    "predict": r"Write m.predict\(\).",
    "confint": r"Write m.confint\(\).",
    "simulate": r"Write m.simulate\(rng=1\).",
    "contrast": r"Write m.contrast\(L\).",
    "refit": r"Write m.refit\(y\).",
    "AIC": "Write m.aic.",
    "logLik": "Write m.loglik.",
    "isSingular": r"Write m.is_singular\(\).",
    "allFit": r"Write m.all_fit\(\).",
    "bootMer": r"Write m.bootstrap\(n, rng=1\).",
    "rand": r"Write m.ranova\(\).",
    "ls_means": r"Write m.emmeans\(...\).",
    "KRmodcomp": "ddf='kenward-roger'",
    "PBmodcomp": r"Write lmm.bootstrap_lrt\(",
    "lme": r"Write lmm.lmer\(formula, data\)",
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_functions_of_other_packages_say_what_to_write(name: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'.*{ELSEWHERE[name]}"):
        getattr(lmm, name)


@pytest.mark.parametrize("name", [name for name in MEMBERS if not hasattr(lmm, name)])
def test_what_is_said_of_a_member_can_be_written(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"\bm\.{name}\b|Write lmm\.") as caught:
        getattr(lmm, name)
    written = str(caught.value).rpartition("Write ")[2].removesuffix(".")
    if written.startswith("m.") and "(" not in written:
        assert hasattr(MODEL, written.removeprefix("m.")) or name == "deviance"  # of ML fits


def test_other_names_stay_plain() -> None:
    for name in ("no_such_thing", "_fit", "__path_of__", "mro"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'$"):
            getattr(lmm, name)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: MODEL.fit(), r"has fitted the model already.*m = lmm\.lmer\("),
        (lambda: MODEL.ranef(), r"m\.ranef, m\.coef or m\.cond_var without parentheses"),
        (lambda: MODEL.coef(), "without parentheses"),
        (lambda: MODEL.cond_var(), "without parentheses"),
        (lambda: MODEL.varcorr(), r"m\.varcorr without parentheses"),
        (lambda: MODEL.convergence(), r"m\.convergence without parentheses"),
        (lambda: MODEL.plot(), r"m\.plot\.caterpillar\(\)"),
        (lambda: lmm.VarCorr(MODEL), r"Write m\.varcorr\."),
        (lambda: lmm.VarCorr(), r"Write m\.varcorr\."),
    ],
)
def test_members_that_are_called(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(lmm.OptionError, match=said):
        call()
