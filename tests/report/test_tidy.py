"""Data frames for further use: the column names of broom.mixed, values joined by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm


@pytest.fixture(scope="module")
def sleepstudy() -> pd.DataFrame:
    return lmm.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def model(sleepstudy: pd.DataFrame) -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)


def test_fixed(model: lmm.LinearMixedModel) -> None:
    frame = model.tidy(conf_int=True)
    assert list(frame.columns) == [
        "effect", "term", "estimate", "std_error", "statistic", "df", "p_value", "conf_low",
        "conf_high",
    ]  # fmt: skip
    assert list(frame["term"]) == ["Intercept", "Days"]
    np.testing.assert_allclose(frame["std_error"], model.se)
    # broom.mixed 0.2.9.4 with lmerTest
    np.testing.assert_allclose(frame["conf_low"], [237.006447, 7.205955], rtol=3e-6)
    np.testing.assert_allclose(frame["conf_high"], [265.80376, 13.72862], rtol=3e-6)
    profiled = model.tidy(conf_int=True, conf_method="profile")
    np.testing.assert_allclose(
        profiled[["conf_low", "conf_high"]], model.confint(which="beta_"), rtol=1e-10
    )
    plain = model.tidy(conf_int=True, ddf="none")
    limits = model.confint("wald", which="beta_")
    np.testing.assert_allclose(plain["conf_low"], limits["lower"])
    assert "p_value" not in model.tidy(ddf="none").columns


def test_parameters(model: lmm.LinearMixedModel) -> None:
    frame = model.tidy("ran_pars")
    assert list(frame.columns) == ["effect", "group", "term", "estimate"]
    assert list(frame["term"]) == [
        "sd__Intercept", "sd__Days", "cor__Intercept.Days", "sd__Observation",
    ]  # fmt: skip
    assert list(frame["group"]) == ["Subject"] * 3 + ["Residual"]
    np.testing.assert_allclose(
        frame["estimate"],
        [24.740451, 5.922133, 0.0655512, 25.591796],
        rtol=1e-4,
    )


def test_limits_are_joined_by_name(
    model: lmm.LinearMixedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wald = model.confint("wald")
    made_up = pd.DataFrame(
        {"lower": [f"low {name}" for name in wald.index], "upper": 0.0}, index=wald.index
    )
    shuffled = made_up.iloc[::-1]
    monkeypatch.setattr(lmm.LinearMixedModel, "confint", lambda *_: shuffled)
    frame = model.tidy("ran_pars", conf_int=True).set_index("term")
    assert frame["conf_low"].to_dict() == {
        "sd__Intercept": "low sd_Intercept|Subject",
        "sd__Days": "low sd_Days|Subject",
        "cor__Intercept.Days": "low cor_Days.Intercept|Subject",
        "sd__Observation": "low sigma",
    }


def test_values(model: lmm.LinearMixedModel) -> None:
    frame = model.tidy("ran_vals", conf_int=True)
    assert len(frame) == 36
    days = frame[frame["term"] == "Days"].set_index("level")
    np.testing.assert_allclose(days["estimate"], model.ranef["Subject"]["Days"])
    np.testing.assert_allclose(days["std_error"] ** 2, model.cond_var["Subject"][:, 1, 1])
    half = 1.959963984540054 * days["std_error"]
    np.testing.assert_allclose(days["conf_low"], days["estimate"] - half, rtol=1e-10)
    np.testing.assert_allclose(days["conf_high"], days["estimate"] + half, rtol=1e-10)


def test_several_kinds_in_one_frame(model: lmm.LinearMixedModel) -> None:
    frame = model.tidy(["ran_pars", "fixed"])
    assert list(frame["effect"]) == ["ran_pars"] * 4 + ["fixed"] * 2
    with pytest.raises(lmm.OptionError, match="ran_coefs"):
        model.tidy("ran_coefs")


def test_glance(model: lmm.LinearMixedModel, sleepstudy: pd.DataFrame) -> None:
    row = model.glance()
    assert list(row.columns) == [
        "nobs", "sigma", "logLik", "AIC", "BIC", "REMLcrit", "df_residual",
    ]  # fmt: skip
    assert row["REMLcrit"].item() == pytest.approx(1743.6282719585)
    assert row["df_residual"].item() == 174
    ml = lmm.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy, reml=False).glance()
    assert ml["deviance"].item() == pytest.approx(1794.0786430052)


def test_augment(model: lmm.LinearMixedModel, sleepstudy: pd.DataFrame) -> None:
    frame = model.augment()
    assert list(frame.columns) == [
        "Reaction", "Days", "Subject", "_fitted", "_resid", "_hat", "_cooksd", "_fixed", "_mu",
        "_offset", "_sqrtXwt", "_sqrtrwt", "_weights", "_wtres",
    ]  # fmt: skip
    np.testing.assert_allclose(frame["_fitted"] + frame["_resid"], sleepstudy["Reaction"])
    np.testing.assert_allclose(frame["_hat"], model.influence().leverage)
    np.testing.assert_allclose(frame["_fixed"], model.predict(random=False))
    assert frame.index.equals(sleepstudy.index)


def test_augment_new_data(model: lmm.LinearMixedModel, sleepstudy: pd.DataFrame) -> None:
    rows = sleepstudy.iloc[[3, 170]].assign(extra=["a", "b"])
    own = model.augment(se_fit=True)
    for told in (model.augment(newdata=rows, se_fit=True), model.augment(rows, se_fit=True)):
        assert list(told.columns) == [
            "Reaction", "Days", "Subject", "extra", "_fitted", "_resid", "_se_fit", "_fixed",
        ]  # fmt: skip
        for name in ("_fitted", "_resid", "_se_fit", "_fixed"):
            np.testing.assert_allclose(told[name], own[name].loc[rows.index])
    new = pd.DataFrame({"Days": [0, 5], "Subject": [308, 999]})
    with pytest.raises(lmm.DataError, match="levels of 'Subject'"):
        model.augment(new)
    told = model.augment(new, new_levels="population")
    assert list(told.columns) == ["Days", "Subject", "_fitted", "_fixed"]
    assert told["_fitted"][1] == told["_fixed"][1]
    fixed = model.augment(new, random=False)
    np.testing.assert_allclose(fixed["_fitted"], fixed["_fixed"])
    with pytest.raises(lmm.OptionError, match="data and newdata"):
        model.augment(sleepstudy, new)
    with pytest.raises(lmm.OptionError, match="go with newdata="):
        model.augment(random=False)


def test_residuals_of_new_data_are_of_the_response(sleepstudy: pd.DataFrame) -> None:
    m = lmm.lmer("log(Reaction) ~ Days + (1 | Subject)", sleepstudy)
    told = m.augment(sleepstudy.head(3))
    np.testing.assert_allclose(told["_resid"], np.log(told["Reaction"]) - told["_fitted"])
    scaled = lmm.lmer("scale(Reaction) ~ Days + (1 | Subject)", sleepstudy)
    assert "_resid" not in scaled.augment(sleepstudy.head(3))  # three rows have another mean


def test_augment_keeps_the_columns_of_the_data(sleepstudy: pd.DataFrame) -> None:
    data = sleepstudy.assign(extra=np.arange(180))
    data.loc[data.index[3], "Days"] = np.nan
    m = lmm.lmer("Reaction ~ Days + (1 | Subject)", data)
    frame = m.augment(data)
    assert len(frame) == 179
    assert 3 not in set(frame["extra"])
    pd.testing.assert_frame_equal(m.augment(data.iloc[1:]), m.augment(newdata=data.iloc[1:]))
    whole = lmm.lmer("Reaction ~ Days + (1 | Subject)", data, na_action="exclude")
    assert whole.augment(data)["_fitted"].isna().sum() == 1
    assert list(np.flatnonzero(whole.augment()["Subject"].isna())) == [3]
