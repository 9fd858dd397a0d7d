"""Words that other packages have for the same: understood, with the same result."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError, UnknownGroupError


@pytest.fixture(scope="module")
def m() -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("KR", "kenward-roger"),
        ("Kenward-Roger", "kenward-roger"),
        ("kenward_roger", "kenward-roger"),
        ("Satterthwaite", "satterthwaite"),
        ("asymp", "asymptotic"),
        ("z", "asymptotic"),
    ],
)
def test_degrees_of_freedom(written: str, meant: str, m: lmm.LinearMixedModel) -> None:
    assert str(m.coef_table(written)) == str(m.coef_table(meant))
    assert str(lmm.anova(m, ddf=written)) == str(lmm.anova(m, ddf=meant))


def test_intervals(m: lmm.LinearMixedModel) -> None:
    pd.testing.assert_frame_equal(m.confint(method="Wald"), m.confint(method="wald"))
    pd.testing.assert_frame_equal(
        m.confint("bootstrap", n=20, rng=1), m.confint("boot", n=20, rng=1)
    )
    g = lmm.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        lmm.load_dataset("cbpp"),
        "binomial",
    )
    pd.testing.assert_frame_equal(g.confint(method="Wald"), g.confint(method="wald"))
    assert g.converged
    for wrong in ("KW", "", "w", 3, None):
        with pytest.raises(OptionError, match="must be"):
            m.confint(method=wrong)


def test_members(m: lmm.LinearMixedModel) -> None:
    assert m.converged is True
    assert m.aicc == pytest.approx(m.aic + 2 * 6 * 7 / (180 - 6 - 1), rel=1e-15)
    short = lmm.load_dataset("sleepstudy").iloc[:21]
    tiny = lmm.lmer("Reaction ~ Days + (1 | Subject)", short)
    assert tiny.aicc > tiny.aic


@pytest.mark.parametrize("written", ["Sum", "SUM", "contr.sum", "contr.Sum", "sum"])
def test_sum_coding(written: str) -> None:
    cake = lmm.load_dataset("cake")
    formula = "angle ~ recipe + (1 | recipe:replicate)"
    names = lmm.lmer(formula, cake, contrasts={"recipe": written}).fixef
    expected = lmm.lmer(formula.replace("recipe +", "C(recipe, contr.sum) +"), cake).fixef
    np.testing.assert_allclose(names, expected, rtol=1e-12)


def test_successive_differences_and_halves() -> None:
    cake = lmm.load_dataset("cake")
    formula = "angle ~ recipe + (1 | recipe:replicate)"
    m = lmm.lmer(formula, cake, contrasts={"recipe": "contr.sdif"})
    means = cake.groupby("recipe", observed=True)["angle"].mean().to_numpy()
    np.testing.assert_allclose(m.fixef, [means.mean(), *np.diff(means)], rtol=1e-9)
    two = cake[cake["recipe"] != "C"].assign(recipe=lambda d: d["recipe"].astype(str))
    h = lmm.lmer(formula, two, contrasts={"recipe": {"difference": [-0.5, 0.5]}})
    np.testing.assert_allclose(h.fixef, [means[:2].mean(), means[1] - means[0]], rtol=1e-9)


def test_nested_groups_are_found_by_lme4s_name() -> None:
    pastes = lmm.load_dataset("Pastes")
    m = lmm.lmer("strength ~ 1 + (1 | batch/cask)", pastes)
    for values in (m.ranef, m.coef, m.cond_var):
        assert values["cask:batch"] is not None
        np.testing.assert_array_equal(values["cask:batch"], values["batch:cask"])
        with pytest.raises(UnknownGroupError):
            values["cask:cask"]
    assert m.influence("cask:batch").cooks_distance.shape == (30,)
    assert m.plot.caterpillar("cask:batch") is not None
