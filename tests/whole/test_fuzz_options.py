"""Options with values of every kind: what cannot be used is refused in the package's own words."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fuzzing import budget, tally
from hypothesis import given
from hypothesis import strategies as st

import lmmsparse as lmm
from lmmsparse.report.plots import ModelPlots

DATA = lmm.load_dataset("sleepstudy")
FORMULA = "Reaction ~ Days + (1 | Subject)"
MODEL = lmm.lmer(FORMULA, DATA)
SMALL = lmm.lmer("Reaction ~ 1 + (1 | Subject)", DATA, reml=False)
PROFILE = MODEL.profile(which="sigma")
BOOTSTRAP = MODEL.bootstrap(5, rng=1)


class Hostile:
    """An object of somebody else's whose every question is an error."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("incomparable")

    __hash__ = None  # type: ignore[assignment]


STRANGE: list[Any] = [
    None,
    True,
    np.False_,
    0,
    1,
    -3,
    2**70,
    np.int64(2),
    0.5,
    np.float32(0.25),
    np.nan,
    np.inf,
    1 + 2j,
    "",
    "x",
    "~",
    "Days",
    "a\0b",
    b"wald",
    np.str_("wald"),
    [],
    (),
    ["Days"],
    [["Days"]],
    {},
    {"Days": 1},
    {"Days"},
    np.zeros(0),
    np.zeros(3),
    np.zeros((3, 3)),
    np.array(1.0),
    np.array("Days"),
    np.array([None, "x"], dtype=object),
    pd.Series([1.0, 2.0]),
    pd.Series(["Days"]),
    pd.DataFrame({"Days": [1.0, 2.0]}),
    pd.NA,
    pd.NaT,
    pd.Timestamp("2020-01-01"),
    object(),
    int,
    len,
    lambda *a, **k: np.zeros(3),
    iter(["Days"]),
    slice(3),
    Ellipsis,
    Hostile(),
    MODEL,
]

# Calls that work, with arguments that keep them short: each is tried with one or two others.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "lmer": (lmm.lmer, {"formula": FORMULA, "data": DATA}),
    "build_design": (lmm.build_design, {"formula": FORMULA, "data": DATA}),
    "fit_design": (lmm.fit_design, {"design": MODEL.fit.design}),
    "fit_arrays": (
        lmm.fit_arrays,
        {
            "y": DATA["Reaction"],
            "X": np.ones((180, 1)),
            "random": [(DATA["Subject"], None)],
        },
    ),
    "parse_formula": (lmm.parse_formula, {"text": FORMULA}),
    "load_dataset": (lmm.load_dataset, {"name": "sleepstudy"}),
    "anova": (lmm.anova, {}),
    "bootstrap_lrt": (
        lmm.bootstrap_lrt,
        {"small": SMALL, "large": MODEL.refit(DATA["Reaction"]), "n": 2, "rng": 1},
    ),
    "TrustRegion": (lmm.TrustRegion, {}),
    "Bobyqa": (lmm.Bobyqa, {}),
    "NelderMead": (lmm.NelderMead, {}),
    "Cholmod": (lmm.Cholmod, {}),
    "bootstrap": (MODEL.bootstrap, {"n": 2, "rng": 1}),
    "contrast": (MODEL.contrast, {"L": [0, 1]}),
    "emmeans": (MODEL.emmeans, {"specs": "Days"}),
    "emtrends": (MODEL.emtrends, {"specs": None, "var": "Days"}),
    "predict": (MODEL.predict, {}),
    "predict new": (MODEL.predict, {"newdata": DATA.head(3), "se": True}),
    "profile": (MODEL.profile, {"which": "sigma"}),
    "confint": (MODEL.confint, {"method": "wald"}),
    "confint boot": (MODEL.confint, {"method": "boot", "n": 5, "rng": 1, "kind": "basic"}),
    "refit": (MODEL.refit, {"y": DATA["Reaction"]}),
    "refit_many": (MODEL.refit_many, {"Y": DATA["Reaction"]}),
    "simulate": (MODEL.simulate, {"rng": 1}),
    "power": (MODEL.power, {"term": "Days", "rng": 1, "n_sim": 2}),
    "pool": (lmm.pool, {"models": [MODEL, MODEL]}),
    "vcov_robust": (MODEL.vcov_robust, {"cluster": "Subject"}),
    "coef_table robust": (MODEL.coef_table, {"robust": "CR2", "cluster": "Subject"}),
    "Profile.confint": (PROFILE.confint, {}),
    "Bootstrap.confint": (BOOTSTRAP.confint, {}),
    "plot.bootstrap": (MODEL.plot.bootstrap, {"bootstrap": BOOTSTRAP}),
    "plot.profile": (MODEL.plot.profile, {"profile": PROFILE}),
    "plot.profile_pairs": (MODEL.plot.profile_pairs, {"profile": MODEL.profile("theta_")}),
    **{
        f"plot.{name}": (getattr(MODEL.plot, name), {})
        for name, _ in inspect.getmembers(ModelPlots, inspect.isfunction)
        if not name.startswith("_") and name not in ("bootstrap", "profile", "profile_pairs")
    },
}
CALLS |= {
    name: (getattr(MODEL, name), {})
    for name, _ in inspect.getmembers(lmm.LinearMixedModel, inspect.isfunction)
    if not name.startswith("_") and name not in (*CALLS, "save")
}
# Not options: a function that is called is trusted, a bar is no number, and these cost minutes.
SKIPPED = {
    ("bootstrap", "statistic"),
    ("bootstrap", "n"),
    ("bootstrap_lrt", "n"),
    ("confint boot", "n"),
    ("power", "n_sim"),
}
EXTRA = {"confint": ("n", "rng", "kind", "n_jobs", "progress"), "confint boot": ("n_jobs",)}


def options_of(name: str) -> list[str]:
    """The arguments that a call takes by name."""
    function, _ = CALLS[name]
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = [p.name for p in inspect.signature(function).parameters.values() if p.kind not in kinds]
    return [*found, *EXTRA.get(name, ())]


def outcome(name: str, options: dict[str, Any]) -> str:
    """How a call ends; an error of anybody else's is not caught."""
    function, usual = CALLS[name]
    models = (MODEL,) if name == "anova" else ()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            function(*models, **{**usual, **options})
    except lmm.LmmError:
        return "refused"
    finally:
        plt.close("all")
    return "accepted"


def costly(name: str, option: str, value: Any) -> bool:
    """Whether a call would be accepted and take long: a large number that counts something."""
    large = isinstance(value, (int, np.integer)) and abs(int(value)) > 1000
    return (name, option) in SKIPPED or (large and option in ("n", "theta_draws"))


@pytest.mark.parametrize("name", sorted(CALLS))
def test_strange_values_are_refused_or_used(name: str) -> None:
    for option in options_of(name):
        for value in STRANGE:
            if not costly(name, option, value):
                try:
                    outcome(name, {option: value})
                except Exception as error:
                    label = "an object whose questions are errors"
                    shown = label if isinstance(value, Hostile) else repr(value)
                    pytest.fail(f"{name}({option}={shown}): {type(error).__name__}: {error}")


@budget(60)
@given(data=st.data())
def _fuzz(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CALLS)))
    names = (
        data.draw(st.lists(st.sampled_from(options_of(name)), max_size=3, unique=True))
        if options_of(name)
        else []
    )
    options = {option: data.draw(values) for option in names}
    if not any(costly(name, option, value) for option, value in options.items()):
        COUNTS[outcome(name, options)] += 1


values = st.one_of(
    st.sampled_from(STRANGE),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.text(max_size=5), st.floats(), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=5), st.floats(), max_size=3),
    st.sampled_from(
        ["wald", "new", "keep", "F", "none", "population", "exclude", "sdcor", "tukey"]
    ),
)


def test_random_options_end_in_the_packages_own_words() -> None:
    global COUNTS
    with tally("options") as COUNTS:
        _fuzz()
