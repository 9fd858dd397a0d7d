"""update(): the same model as one that is fitted anew, from what is known of the first."""

from __future__ import annotations

import gc
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from models import frame
from numpy.testing import assert_allclose

import lmmsparse as lmm

SLEEP = frame("sleepstudy")
FORMULA = "Reaction ~ Days + (1 | Subject)"
CBPP = lmm.load_dataset("cbpp")
HERDS = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def same(a: Any, b: Any) -> None:
    assert a.formula == b.formula
    assert_allclose(a.fixef, b.fixef, rtol=1e-6)
    assert_allclose(a.theta, b.theta, rtol=1e-5)
    assert a.loglik == pytest.approx(b.loglik, abs=1e-7)


def test_another_formula_and_other_options() -> None:
    m = lmm.lmer(FORMULA, SLEEP)
    found = m.update(". ~ . - (1 | Subject) + (Days | Subject)")
    same(found, lmm.lmer("Reaction ~ Days + (Days | Subject)", SLEEP))
    same(m.update(reml=False), lmm.lmer(FORMULA, SLEEP, reml=False))
    same(m.update("np.log(.) ~ ."), lmm.lmer("np.log(Reaction) ~ Days + (1 | Subject)", SLEEP))
    same(found.update(". ~ . + I(Days**2)").update(". ~ . - Days"), lmm.lmer(
        "Reaction ~ I(Days**2) + (Days | Subject)", SLEEP))  # fmt: skip


def test_options_of_the_first_fit_stay() -> None:
    w = np.linspace(0.5, 2.0, 180)
    options: dict[str, Any] = {"weights": w, "reml": False, "fixed": {"sigma": 30.0}}
    options["context"] = {"twice": lambda v: 2 * v}
    m = lmm.lmer("Reaction ~ twice(Days) + (1 | Subject)", SLEEP, **options)
    wanted = lmm.lmer("Reaction ~ twice(Days) + (Days | Subject)", SLEEP, **options)
    same(m.update(". ~ . - (1 | Subject) + (Days | Subject)"), wanted)
    free = {**options, "fixed": None}
    same(m.update(fixed=None), lmm.lmer("Reaction ~ twice(Days) + (1 | Subject)", SLEEP, **free))


def test_other_data() -> None:
    m = lmm.lmer(FORMULA, SLEEP)
    same(m.update(data=SLEEP.iloc[:120]), lmm.lmer(FORMULA, SLEEP.iloc[:120]))


def test_generalized_models() -> None:
    m = lmm.glmer(HERDS, CBPP, "binomial", n_agq=5)
    wanted = lmm.glmer(
        "cbind(incidence, size - incidence) ~ 1 + (1 | herd)", CBPP, "binomial", n_agq=5
    )
    same(m.update(". ~ . - period"), wanted)
    same(m.update(family=lmm.families.Binomial("probit")), lmm.glmer(
        HERDS, CBPP, lmm.families.Binomial("probit"), n_agq=5))  # fmt: skip


def test_a_table_that_is_gone_or_was_changed() -> None:
    data = SLEEP.copy()
    m = lmm.lmer(FORMULA, data)
    data["Reaction"] = data["Reaction"] + 1.0
    with pytest.raises(lmm.DataError, match="has changed"):
        m.update(reml=False)
    del data
    gc.collect()
    with pytest.raises(lmm.OptionError, match="do not keep their data"):
        m.update(reml=False)
    with pytest.raises(lmm.OptionError, match="do not keep their data"):
        lmm.lmer(FORMULA, SLEEP.to_dict("list")).update(reml=False)
    same(m.update(reml=False, data=SLEEP), lmm.lmer(FORMULA, SLEEP, reml=False))


@pytest.mark.parametrize("way", ["file", "pickle", "refit"])
def test_models_that_nobody_made_by_a_call(way: str, tmp_path: Path) -> None:
    data = SLEEP.assign(w=np.linspace(0.5, 2.0, 180), f=np.where(SLEEP["Days"] % 2, "a", "b"))
    options: dict[str, Any] = {"weights": "w", "contrasts": {"f": [-0.5, 0.5]}}
    first = lmm.lmer("Reaction ~ Days + f + (1 | Subject)", data, reml=False, **options)
    if way == "file":
        first.save(tmp_path / "m.lmm")
        m: Any = lmm.load(tmp_path / "m.lmm")
    elif way == "pickle":
        m = pickle.loads(pickle.dumps(first))
    else:
        m = first.refit(data["Reaction"])
    with pytest.raises(lmm.OptionError, match="do not keep their data"):
        m.update(". ~ . - Days")
    wanted = lmm.lmer("Reaction ~ f + (1 | Subject)", data, reml=False, **options)
    same(m.update(". ~ . - Days", data), wanted)


def test_arrays_are_asked_for_again(tmp_path: Path) -> None:
    w = np.linspace(0.5, 2.0, 180)
    m = lmm.lmer(FORMULA, SLEEP, weights=w)
    m.save(tmp_path / "m.lmm")
    loaded: Any = lmm.load(tmp_path / "m.lmm")
    with pytest.raises(lmm.OptionError, match="Pass weights= again"):
        loaded.update(". ~ . - Days", SLEEP)
    same(loaded.update(data=SLEEP, weights=w), m)
    same(loaded.update(data=SLEEP, weights=None), lmm.lmer(FORMULA, SLEEP))
    g = lmm.glmer(HERDS, CBPP, "binomial")
    g.save(tmp_path / "g.lmm")
    same(lmm.load(tmp_path / "g.lmm").update(data=CBPP), g)


def test_wrong_calls() -> None:
    m = lmm.lmer(FORMULA, SLEEP)
    with pytest.raises(lmm.OptionError, match="update\\(\\) has no option 'REML'"):
        m.update(REML=False)
    with pytest.raises(lmm.FormulaError, match="It has Days"):
        m.update(". ~ . - Age")
    y, X = SLEEP["Reaction"].to_numpy(), np.ones((180, 1))
    with pytest.raises(lmm.OptionError, match="made from arrays"):
        lmm.fit_arrays(y, X, [(SLEEP["Subject"], None)]).update(reml=False)


def test_covariances_stay_or_are_asked_for(tmp_path: Path) -> None:
    options: dict[str, Any] = {"residual": "ar1(Days | Subject)", "residual_sd": "~ Days"}
    m = lmm.lmer(FORMULA, SLEEP, **options)
    wanted = lmm.lmer("np.log(Reaction) ~ Days + (1 | Subject)", SLEEP, **options)
    same(m.update("np.log(.) ~ ."), wanted)
    m.save(tmp_path / "m.lmm")
    same(lmm.load(tmp_path / "m.lmm").update("np.log(.) ~ .", SLEEP), wanted)
    levels = SLEEP["Subject"].unique()
    known = {"Subject": pd.DataFrame(np.eye(18) + 0.3, index=levels, columns=levels)}
    related = lmm.lmer(FORMULA, SLEEP, known=known)
    wanted = lmm.lmer("Reaction ~ 1 + (1 | Subject)", SLEEP, known=known)
    same(related.update(". ~ . - Days"), wanted)
    related.save(tmp_path / "k.lmm")
    loaded: Any = lmm.load(tmp_path / "k.lmm")
    same(loaded.update(". ~ . - Days", SLEEP), wanted)
    at = np.arange(18.0)
    near = pd.DataFrame(np.exp(-np.abs(at[:, None] - at) / 3), index=levels, columns=levels)
    data = SLEEP.assign(pe=SLEEP["Subject"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.SingularFitWarning)
        two: Any = lmm.lmer(
            "Reaction ~ Days + (1 | Subject) + (1 | pe)", data, known={"Subject": near}
        )
    free = two.update(". ~ . - (1 | Subject)", data)
    same(free, lmm.lmer("Reaction ~ Days + (1 | pe)", data))
