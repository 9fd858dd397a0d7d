"""All public callables: keywords and arguments that do not exist, and habits of other packages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from public import CALLS, DATA, MODEL, OBJECTS, USUAL, called, checked_functions, options_of

import lmmsparse as lmm

# Made by functions of the package, which say so where somebody else does it.
NOT_CALLED = (
    "generalized:GeneralizedLinearMixedModel.__init__",
    "linear:LinearMixedModel.__init__",
    "structured:StructuredSearch.__init__",
    "varcorr:VarCorr.__init__",
)


# Models that lack some methods, and say so first.
OTHERS = ("probed", "summed", "struct")


def test_the_walk_meets_all_functions() -> None:
    """What the package holds for public is on the list, whatever it belongs to."""
    met = set()
    for call in CALLS.values():
        function = getattr(call, "__func__", call)
        met.add(function.__init__ if inspect.isclass(function) else function)
    assert {name for name, f in checked_functions().items() if f not in met} == set(NOT_CALLED)


def test_the_walk_meets_all_results() -> None:
    """A kind of result that nobody put on the list has methods that would not be seen."""
    met = {type(thing) for thing in OBJECTS.values()}
    for name in CALLS:
        if re.match(r"(model|generalized|structured|summed)\.", name):
            try:
                value = called(name)
            except lmm.LmmError:
                continue
            own = type(value).__module__.startswith("lmmsparse.")
            assert not own or type(value) in met, name


@pytest.mark.parametrize("name", CALLS)
def test_keywords_and_arguments_that_do_not_exist(name: str) -> None:
    with pytest.raises(lmm.OptionError, match=r"no_such_option|was given an argument"):
        CALLS[name](**USUAL.get(name, {}), no_such_option=1)
    parameters = inspect.signature(CALLS[name]).parameters.values()
    if all(p.kind is not inspect.Parameter.VAR_POSITIONAL for p in parameters):
        with pytest.raises(lmm.OptionError):
            CALLS[name](*[None] * 30)


LEVELS = [name for name in CALLS if "level" in options_of(name) and name[:6] not in OTHERS]


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("level", [1.0, 95, "0.95", np.zeros(2), None], ids=str)
def test_a_level_is_looked_at_whether_or_not_it_is_used(name: str, level: Any) -> None:
    if level is not None or inspect.signature(CALLS[name]).parameters["level"].default is not None:
        with pytest.raises(lmm.OptionError, match="level"):
            called(name, level=level)


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, object(), DATA, np.zeros(2)], ids=type)
def test_models_that_are_none(value: Any) -> None:
    for arguments in ((value,), (MODEL, value), (value, MODEL)):
        with pytest.raises(lmm.LmmError):
            lmm.anova(*arguments)
        with pytest.raises(lmm.LmmError):
            lmm.compare(*arguments)


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
