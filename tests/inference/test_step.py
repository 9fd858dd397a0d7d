"""Backward elimination: lmerTest's figures, and the reduced model against its formula."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lmertest import CASES, TIGHT, label_of, model_of

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning, OptionError
from lmmsparse.design.reduced import formula_of

RANDOM = {"npar": 0.0, "logLik": 1e-6, "AIC": 1e-6, "LRT": TIGHT, "Df": 0.0, "Pr(>Chisq)": 1e-3}
FIXED = {
    "Sum Sq": TIGHT,
    "Mean Sq": TIGHT,
    "NumDF": 0.0,
    "DenDF": TIGHT,
    "F value": TIGHT,
    "Pr(>F)": 1e-3,
}


def _agree(ours: lmm.Table, theirs: dict[str, Any], columns: dict[str, float]) -> None:
    frame = ours.to_frame()
    frame.index = pd.Index([label_of(str(t)) for t in frame.index])
    rows = [label_of(t) for t in theirs["rows"]]
    assert sorted(frame.index) == sorted(rows)
    frame = frame.loc[rows]  # (1 | a/b) is written out in another order
    order = [0.0 if v is None else v for v in np.atleast_1d(theirs["columns"]["Eliminated"])]
    assert frame["Eliminated"].fillna(0.0).tolist() == order
    for column, tolerance in columns.items():
        if column not in theirs["columns"]:
            continue
        expected = np.array(np.atleast_1d(theirs["columns"][column]), dtype=np.float64)
        known = ~np.isnan(expected)
        values = frame[column].to_numpy()[known]
        np.testing.assert_allclose(
            values, expected[known], rtol=tolerance, atol=1e-6, err_msg=column
        )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["eliminate"]])
def test_elimination_as_lmerTest(name: str) -> None:
    theirs = CASES[name]["step"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        ours = model_of(name).step()
    _agree(ours.random, theirs["random"], RANDOM)
    if ours.model is None:
        assert name == "dyestuff2"
        assert ours.formula == "Yield ~ 1"
    elif theirs["fixed"]["rows"]:
        _agree(ours.fixed, theirs["fixed"], FIXED)


def data_of() -> pd.DataFrame:
    data = lmm.load_dataset("sleepstudy").rename(columns={"Days": "the days"})
    rng = np.random.default_rng(0)
    odd = data["Subject"].astype(int) % 2
    return data.assign(
        f=np.where(odd, "u", "v"),
        g=rng.integers(0, 6, 180),
        h=rng.integers(0, 3, 180).astype(str),
        w=rng.uniform(0.5, 2.0, 180),
    )


FORMULAS = [
    "log(Reaction) ~ `the days`*f + I(`the days`**2) + offset(0.1*`the days`) "
    "+ (`the days` + f||Subject)",
    "Reaction ~ 0 + f + h + `the days` + (0+h|g) + (1|Subject/h)",
    "Reaction ~ poly(`the days`,3)*f + scale(g) + (`the days`|Subject)+(1|g)",
    "Reaction ~ f:h + g + cs(0+h|Subject)",
    "Reaction ~ C(g)*h + diag(0+h|Subject)",
    "Reaction ~ 0 + h:`the days` + f + ar1(0+h|Subject,hom=False)",
    "Reaction ~ 0 + `the days` + (f*h|g)",
    "Reaction ~ (`the days`+f+h)**2 + (f+h|g)",
    "Reaction ~ 1 + (1|Subject) + (0+`the days`|Subject)",
]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::lmmsparse.errors.LmmWarning")
@pytest.mark.parametrize("formula", FORMULAS)
def test_the_model_left_is_that_of_its_formula(formula: str, tmp_path: Any) -> None:
    data = data_of()
    model = lmm.lmer(formula, data, weights="w")
    same = lmm.lmer(formula_of(model.fit.design), data, weights="w")
    assert same.reml_criterion == pytest.approx(model.reml_criterion, abs=1e-8)
    left = model.step(alpha_random=0.05, alpha_fixed=0.01)
    if left.model is None:
        assert "|" not in left.formula
        return
    again = lmm.lmer(left.formula, data, weights="w")
    assert left.model.reml_criterion == pytest.approx(again.reml_criterion, abs=1e-8)
    np.testing.assert_allclose(left.model.fixef, again.fixef, rtol=1e-6)
    assert left.model.fixef.index.tolist() == again.fixef.index.tolist()
    np.testing.assert_allclose(left.model.predict(data[:20]), again.predict(data[:20]), rtol=1e-7)
    np.testing.assert_allclose(
        lmm.anova(left.model).to_frame(), lmm.anova(again).to_frame(), rtol=1e-4
    )
    left.model.save(tmp_path / "model")
    stored = lmm.load(tmp_path / "model")
    np.testing.assert_array_equal(stored.predict(data[:20]), left.model.predict(data[:20]))


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.LmmWarning")
def test_options() -> None:
    model = lmm.lmer("Reaction ~ `the days` + g + h + (`the days` | Subject)", data_of())
    assert model.step(keep="g").fixed.to_frame().loc["g", "Eliminated"] == 0
    untouched = model.step(reduce_fixed=False, reduce_random=False)
    assert untouched.random.to_frame()["Eliminated"].iloc[1:].eq(0).all()
    assert untouched.fixed.to_frame()["Eliminated"].eq(0).all()
    assert untouched.model.reml_criterion == pytest.approx(model.reml_criterion)
    by_kr = model.step(ddf="kenward-roger", reduce_random=False, alpha_fixed=1e-9).fixed
    assert "Kenward" in str(by_kr)
    last = lmm.anova(lmm.lmer("Reaction ~ `the days` + (`the days` | Subject)", data_of()),
                     ddf="kenward-roger").to_frame()  # fmt: skip
    np.testing.assert_allclose(by_kr.to_frame().iloc[-1, 1:], last.iloc[0], rtol=1e-5)
    assert "Model found: Reaction ~ `the days` + (`the days` | Subject)" in repr(model.step())
    for options in ({"alpha_fixed": 5}, {"keep": "nothing"}, {"ddf": "exact"}, {"alpha": 0.1}):
        with pytest.raises(OptionError):
            model.step(**options)


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.SingularFitWarning")
def test_what_is_fixed_stays_fixed() -> None:
    data = data_of()
    model = lmm.lmer(
        "Reaction ~ `the days` + g + (1 | Subject) + (0 + `the days` | Subject) + (1 | h)",
        data,
        fixed={"sigma": 25.0, "Subject.Intercept": 1.0},
    )
    left = model.step()
    assert left.model.sigma == 25.0
    assert left.model.theta["Subject.Intercept"] == 1.0
    assert left.formula == "Reaction ~ `the days` + (1 | Subject) + (0 + `the days` | Subject)"
    assert "not tested, as parameters of it are fixed" in " ".join(model.ranova().notes)


def test_a_model_made_from_arrays() -> None:
    data = data_of()
    X = data[["the days", "g"]].assign(one=1.0)
    model = lmm.fit_arrays(data["Reaction"], X, [(data["Subject"], None)])
    left = model.step()
    assert left.formula == ""
    assert left.model.fixef.index.tolist() == ["the days", "one"]


@pytest.mark.parametrize("name", ["lambda", "None", "np", "a:b"])
def test_columns_with_names_that_mean_something_in_python(name: str) -> None:
    plain = lmm.load_dataset("sleepstudy")
    plain["z"] = np.random.default_rng(3).normal(size=len(plain))
    data = plain.rename(columns={"Days": name})
    left = lmm.lmer(f"Reaction ~ `{name}` + z + (`{name}` | Subject)", data).step()
    want = lmm.lmer("Reaction ~ Days + z + (Days | Subject)", plain).step()
    assert left.formula == f"Reaction ~ `{name}` + (`{name}` | Subject)"
    assert left.model.reml_criterion == pytest.approx(want.model.reml_criterion, abs=1e-8)
