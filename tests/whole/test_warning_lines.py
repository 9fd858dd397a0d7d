"""Warnings stand at the line that called the package, however deep inside they come from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.engine.solvers import choose
from lmmsparse.interop.sklearn import LinearMixedModelRegressor

SLEEP = lmm.load_dataset("sleepstudy")
EASY = lmm.lmer("Reaction ~ Days + (1 | Subject)", SLEEP)
NOISE = pd.Series(np.random.default_rng(1).normal(size=len(SLEEP)), index=SLEEP.index)
STOPPED = lmm.NelderMead(max_eval=5)


def _holes() -> pd.DataFrame:
    rng = np.random.default_rng(23)
    d = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "a": rng.choice(list("pq"), 200)})
    d["b"] = rng.choice(list("uv"), 200)
    d["y"] = rng.normal(size=20)[d["g"]] + rng.normal(size=200)
    return d[(d["a"] != "q") | (d["b"] != "v")].reset_index(drop=True)


def _with_holes() -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmm.lmer("y ~ a * b + (1 | g)", _holes())


HOLES = _with_holes()
NEW = pd.DataFrame({"a": ["q"], "b": ["v"], "g": [1]})


def _regressor() -> LinearMixedModelRegressor:
    regressor = LinearMixedModelRegressor("~ a * b + (1 | g)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return regressor.fit(_holes()[["a", "b", "g"]], _holes()["y"])


CALLS: dict[str, Callable[[], Any]] = {
    "lmer, dropped": lambda: lmm.lmer("y ~ a * b + (1 | g)", _holes()),
    "lmer, stopped": lambda: lmm.lmer(
        "Reaction ~ Days + (Days | Subject)", SLEEP, optimizer=STOPPED
    ),
    "fit_arrays": lambda: lmm.fit_arrays(
        SLEEP["Reaction"], np.ones((180, 2)), [(SLEEP["Subject"], None)]
    ),
    "refit": lambda: EASY.refit(NOISE),
    "predict": lambda: HOLES.predict(NEW),
    "predict, limits": lambda: HOLES.predict(NEW, interval="prediction"),
    "simulate": lambda: HOLES.simulate(2, rng=1, newdata=NEW),
    "plot.effects": lambda: HOLES.plot.effects("a", by="b"),
    "regressor": lambda: REGRESSOR.predict(NEW),
    "regressor, fit": lambda: LinearMixedModelRegressor("~ a * b + (1 | g)").fit(
        _holes()[["a", "b", "g"]], _holes()["y"]
    ),
}
REGRESSOR = _regressor()


@pytest.mark.parametrize("name", CALLS)
def test_warnings_are_at_the_line_of_the_user(name: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        CALLS[name]()
    assert said
    for warning in said:
        assert issubclass(warning.category, lmm.LmmWarning)
        assert Path(warning.filename) == Path(__file__), warning
    plt.close("all")


@pytest.mark.parametrize("draw", [lambda m: m.profile(), lambda m: m.plot.profile()])
def test_warnings_of_a_profile(draw: Callable[[lmm.LinearMixedModel], Any]) -> None:
    """That the fit was not the best, which a plot finds out where it makes the profile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.lmer("Reaction ~ Days + (1 | Subject)", SLEEP, reml=False, optimizer=STOPPED)
    with pytest.warns(lmm.ConvergenceWarning) as said:
        draw(m)
    assert [Path(warning.filename) for warning in said] == [Path(__file__)] * len(said)


def test_a_slow_solver_is_said_at_the_line_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "_choose", lambda products, exact: (lmm.Blocked(), True))
    choose._say.cache_clear()
    with pytest.warns(lmm.SlowSolverWarning) as said:
        lmm.lmer("Reaction ~ Days + (1 | Subject)", SLEEP)
    assert [Path(warning.filename) for warning in said] == [Path(__file__)]
