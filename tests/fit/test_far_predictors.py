"""Fixed predictors far from zero against their spread: the fit of the centred predictor."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "x": np.round(rng.normal(size=200) * 30)})
    d["h"] = np.tile(np.arange(8), 25)
    d["f"] = rng.choice(list("abc"), 200)
    d["z"] = rng.normal(size=200)
    d["w"] = rng.uniform(0.5, 2.0, 200)
    d["y"] = rng.normal(size=20)[d["g"]] + 0.05 * d["x"] + rng.normal(size=200)
    d["y"] += rng.normal(size=8)[d["h"]] + d["z"] * rng.normal(size=20)[d["g"]]
    return d


@pytest.mark.parametrize("far", [1.7e9, -3e11])
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ {} + (1 | g)",
        "y ~ f + {} + z + (1 | g) + (1 | h)",
        "y ~ 0 + f + {} + (1 | g)",
        "y ~ {} + (z | g)",
    ],
)
def test_the_fit_is_that_of_the_centred_predictor(formula: str, reml: bool, far: float) -> None:
    d = _data()
    d["s"] = d["x"] + far
    right = lmm.lmer(formula.format("x"), d, weights="w", reml=reml)
    with warnings.catch_warnings():
        warnings.simplefilter("error", lmm.DesignWarning)
        m = lmm.lmer(formula.format("s"), d, weights="w", reml=reml)
    # Without intercept nothing is taken off, and digits of the data are all there are.
    tolerance = 1e-6 if "0 +" in formula else 1e-9
    assert m.fixef["s"] == pytest.approx(right.fixef["x"], rel=tolerance)
    assert m.se["s"] == pytest.approx(right.se["x"], rel=tolerance)
    assert m.loglik == pytest.approx(right.loglik, abs=1e-4 if "0 +" in formula else 1e-7)
    assert m.varcorr.terms[0].sd[0] == pytest.approx(right.varcorr.terms[0].sd[0], rel=1e-5)
    for ddf in ("satterthwaite", "kenward-roger") if reml else ("satterthwaite",):
        ours, theirs = (model.coef_table(ddf=ddf).to_frame() for model in (m, right))
        assert ours.loc["s", "df"] == pytest.approx(theirs.loc["x", "df"], rel=1e-4)
    for kind in (1, 2, 3):
        ours, theirs = (lmm.anova(model, type=kind).to_frame() for model in (m, right))
        assert ours.loc["s", "F value"] == pytest.approx(theirs.loc["x", "F value"], rel=1e-5)
    scale = 1e-14 * abs(far)
    np.testing.assert_allclose(m.fitted, right.fitted, atol=scale)
    np.testing.assert_allclose(m.predict(d), right.predict(d), atol=scale)
    np.testing.assert_allclose(
        m.predict(d.head(), se=True)["se"], right.predict(d.head(), se=True)["se"], rtol=1e-5
    )


@pytest.mark.parametrize("term", ["{} * f", "{} * z", "f / {}"])
def test_interactions_are_kept_and_said(term: str) -> None:
    """Slopes are right; coefficients at zero have lost their digits, which is said."""
    d = _data()
    d["s"] = d["x"] + 1.7e9
    right = lmm.lmer(f"y ~ {term.format('x')} + (1 | g)", d)
    with pytest.warns(lmm.DesignWarning, match="far from zero compared with its spread"):
        m = lmm.lmer(f"y ~ {term.format('s')} + (1 | g)", d)
    assert m.fit.design.p == right.fit.design.p
    assert m.loglik == pytest.approx(right.loglik, abs=1e-6)
    own = [name for name in m.fixef.index if name.split(":")[0] == "s" or name.endswith(":s")]
    np.testing.assert_allclose(
        m.fixef[own], right.fixef[[n.replace("s", "x") for n in own]], rtol=1e-6
    )


def test_predictors_that_repeat_others_far_from_zero_are_dropped() -> None:
    d = _data()
    d["s"], d["t"] = d["x"] + 1.7e9, d["z"] + 3e9
    d["sum"] = d["s"] + d["t"]
    with pytest.warns(lmm.DesignWarning, match="so far from zero"):
        m = lmm.lmer("y ~ s + t + sum + (1 | g)", d)
    assert m.fit.design.dropped == ("sum",)
    d["same"], d["near"] = 0.1 * 3.0 + 0.0 * d["z"], d["x"] + 1e-9 * d["z"]
    d.loc[3, "same"] = 0.3
    with pytest.warns(lmm.DesignWarning):
        assert lmm.lmer("y ~ x + same + near + (1 | g)", d).fit.design.dropped == ("same", "near")


@pytest.mark.parametrize("far", [1e15, 1e17])
def test_what_doubles_cannot_hold_is_said(far: float) -> None:
    d = _data()
    d["s"] = d["x"] + far
    with pytest.warns(lmm.DesignWarning, match="s is so far from zero.*Subtract a typical value"):
        m = lmm.lmer("y ~ s + (1 | g)", d)
    assert m.fit.design.dropped == ("s",)


def test_models_from_arrays() -> None:
    d = _data()
    groups = [(d["g"], None)]
    right = lmm.fit_arrays(d["y"], np.column_stack([np.ones(200), d["x"]]), groups)
    m = lmm.fit_arrays(d["y"], np.column_stack([np.ones(200), d["x"] + 1.7e9]), groups)
    assert m.fixef.iloc[1] == pytest.approx(right.fixef.iloc[1], rel=1e-9)
