"""Rubin's rules against their formulas, with degrees of freedom of complete data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError
from lmmsparse.inference.hypotheses.pool import rubin


def _completed(m: int = 5) -> list[pd.DataFrame]:
    """Data sets whose missing responses and covariates were drawn."""
    out = []
    for i in range(m):
        rng = np.random.default_rng(i)
        d = lmm.load_dataset("sleepstudy").astype({"Days": float})
        d.loc[::4, "Reaction"] += rng.normal(scale=40.0, size=len(d.loc[::4]))
        d.loc[::7, "Days"] += rng.normal(scale=0.7, size=len(d.loc[::7]))
        out.append(d)
    return out


@pytest.fixture(scope="module")
def fits() -> list[lmm.LinearMixedModel]:
    return [lmm.lmer("Reaction ~ Days + (Days | Subject)", each) for each in _completed()]


def test_rubins_rules(fits: list[lmm.LinearMixedModel]) -> None:
    """As van Buuren states them, for each coefficient."""
    m = len(fits)
    tables = [fit.coef_table().to_frame() for fit in fits]
    found = lmm.pool(fits).to_frame()
    for name in fits[0].fixef.index:
        q = np.array([table.loc[name, "Estimate"] for table in tables])
        u = np.array([table.loc[name, "Std. Error"] for table in tables]) ** 2
        complete = np.mean([table.loc[name, "df"] for table in tables])
        ubar, b = u.mean(), np.var(q, ddof=1)
        t = ubar + (1 + 1 / m) * b
        lam = (1 + 1 / m) * b / t
        riv = (1 + 1 / m) * b / ubar
        old = (m - 1) / lam**2
        observed = (complete + 1) / (complete + 3) * complete * (1 - lam)
        df = old * observed / (old + observed)
        half = stats.t.ppf(0.975, df) * np.sqrt(t)
        right = {
            "Estimate": q.mean(),
            "Std. Error": np.sqrt(t),
            "df": df,
            "t value": q.mean() / np.sqrt(t),
            "Pr(>|t|)": 2 * stats.t.sf(abs(q.mean()) / np.sqrt(t), df),
            "lower.CL": q.mean() - half,
            "upper.CL": q.mean() + half,
            "fmi": (riv + 2 / (df + 3)) / (riv + 1),
            "riv": riv,
            "lambda": lam,
        }
        assert list(found.columns) == list(right)
        np.testing.assert_allclose(found.loc[name], list(right.values()), rtol=1e-10)


def test_without_anything_missing() -> None:
    """Fits of the same data: the table is that of one, but for the observed degrees of freedom."""
    fit = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    own, pooled = fit.coef_table().to_frame(), lmm.pool([fit, fit, fit]).to_frame()
    np.testing.assert_allclose(pooled["Std. Error"], own["Std. Error"])
    np.testing.assert_allclose(pooled["df"], (own["df"] + 1) / (own["df"] + 3) * own["df"])
    np.testing.assert_allclose(pooled[["riv", "lambda"]], 0.0, atol=1e-20)


def test_infinite_degrees_of_complete_data() -> None:
    found = rubin(np.array([[1.0], [2.0], [4.0]]), np.ones((3, 1)), np.array([np.inf]))
    lam = found["lambda"][0]
    assert found["df"][0] == pytest.approx(2 / lam**2)


def test_methods(fits: list[lmm.LinearMixedModel]) -> None:
    kr = lmm.pool(fits, ddf="KR", level=0.9)
    assert "Kenward and Roger" in str(kr)
    assert "Confidence level 0.9." in str(kr)
    u = np.mean([fit.coef_table("kenward-roger")["Std. Error"] ** 2 for fit in fits], axis=0)
    b = np.var([fit.fixef for fit in fits], axis=0, ddof=1)
    np.testing.assert_allclose(kr["Std. Error"] ** 2, u + 1.2 * b)


def test_random_effects(fits: list[lmm.LinearMixedModel]) -> None:
    table = lmm.pool(*fits, effects="ran_pars").to_frame()
    sigma2 = np.mean([fit.sigma**2 for fit in fits])
    assert table.loc["sigma", "Estimate"] == pytest.approx(np.sqrt(sigma2))
    frames = [fit.varcorr.to_frame() for fit in fits]
    mean = np.mean([frame["vcov"] for frame in frames], axis=0)
    assert table.loc["sd_Days|Subject", "Estimate"] == pytest.approx(np.sqrt(mean[1]))
    assert table.loc["cor_Days.Intercept|Subject", "Estimate"] == pytest.approx(
        mean[2] / np.sqrt(mean[0] * mean[1])
    )
    assert ((table["min"] <= table["Estimate"]) & (table["Estimate"] <= table["max"])).all()
    assert "Random effects: sd_Intercept|Subject" in str(lmm.pool(fits))


def test_generalized_models() -> None:
    cbpp = lmm.load_dataset("cbpp")
    fits = []
    for i in range(3):
        changed = cbpp.assign(incidence=np.minimum(cbpp["incidence"] + (cbpp.index % 9 == i),
                                                   cbpp["size"]))  # fmt: skip
        fits.append(
            lmm.glmer("incidence / size ~ period + (1 | herd)", changed, "binomial", weights="size")
        )
    table = lmm.pool(fits).to_frame()
    np.testing.assert_allclose(table["Estimate"], np.mean([fit.fixef for fit in fits], axis=0))
    np.testing.assert_allclose(table["df"], 2 / table["lambda"] ** 2)
    assert list(lmm.pool(fits, effects="ran_pars").to_frame().index) == ["sd_Intercept|herd"]


def test_refusals(fits: list[lmm.LinearMixedModel]) -> None:
    d = lmm.load_dataset("sleepstudy")
    cases = {
        "fixed effects differ in I": lmm.lmer("Reaction ~ Days + I(Days**2) + (Days|Subject)", d),
        "random effects are": lmm.lmer("Reaction ~ Days + (1 | Subject)", d),
        "by REML, the other by": lmm.lmer("Reaction ~ Days + (Days | Subject)", d, reml=False),
        "formulas are": lmm.lmer("log(Reaction) ~ Days + (Days | Subject)", d),
    }
    for message, other in cases.items():
        with pytest.raises(OptionError, match=message):
            lmm.pool([fits[0], other])
    with pytest.raises(OptionError, match="two or more"):
        lmm.pool([fits[0]])
    with pytest.raises(OptionError, match="was given a DataFrame"):
        lmm.pool(fits[0], d)
    with pytest.raises(OptionError, match="effects must be"):
        lmm.pool(fits, effects="all")


def test_what_is_said_of_the_fits(fits: list[lmm.LinearMixedModel]) -> None:
    shorter = lmm.lmer("Reaction ~ Days + (Days | Subject)", _completed(1)[0].iloc[:-3])
    assert "The fits have 177 to 180 rows." in str(lmm.pool([fits[0], shorter]))
    d = lmm.load_dataset("Dyestuff2")
    with pytest.warns(lmm.SingularFitWarning):
        singular = [lmm.lmer("Yield ~ 1 + (1 | Batch)", d) for _ in range(2)]
    assert "Singular: 2 of 2 fits." in str(lmm.pool(singular))
