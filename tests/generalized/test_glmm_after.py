"""After a generalized fit: profiles, refits with missing values, many responses, influence."""

from __future__ import annotations

import warnings
from typing import Any

import generalized_models as models
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning, OptionError
from lmmsparse.inference.generalized.held import Held, held_parameter
from lmmsparse.results.generalized import covariance_names

mpl.use("Agg")
Z = 1.959963984540054


def fitted(formula: str, data: pd.DataFrame, family: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.glmer(formula, data, family, **options)


def drawn(n: int = 300, levels: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(levels), n // levels)
    x, z = rng.normal(size=(2, n))
    b = rng.multivariate_normal(
        np.zeros(3), [[0.5, 0.2, 0.1], [0.2, 0.3, 0], [0.1, 0, 0.2]], levels
    )
    eta = 0.3 + 0.2 * x + b[g, 0] + b[g, 1] * x + b[g, 2] * z
    return pd.DataFrame(
        {
            "g": g.astype(str),
            "x": x,
            "z": z,
            "y": rng.poisson(np.exp(eta)),
            "w": rng.gamma(3, np.exp(eta) / 3),
            "t": np.tile([f"t{i}" for i in range(5)], n // 5),
        }
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (x + z | g)",
        "y ~ x + (x || g)",
        "y ~ x + cs(0 + t | g)",
        "y ~ x + cs(0 + t | g, hom=True)",
        "y ~ x + ar1(0 + t | g)",
    ],
)
def test_a_held_parameter_has_its_value_and_the_criterion_is_the_models(formula: str) -> None:
    m = fitted(formula, drawn(), "poisson")
    limits = m.confint("profile", which="theta_")
    assert limits.notna().all().all()
    for i, name in enumerate(covariance_names(m.fit)):
        held = held_parameter(m.fit, i)
        assert held is not None
        for side in ("lower", "upper"):
            value = limits.loc[name, side]
            if value in (held.lower, held.upper):
                continue
            followed = Held(held, m.fit)
            point = followed.solve(value, held.start)
            theta, beta, _ = followed.parameters(point)
            assert followed.estimates(point)[i] == pytest.approx(value, abs=1e-9)
            assert m.criterion_at(beta, theta) == pytest.approx(point.deviance, abs=1e-7)
            rise = np.sqrt(point.deviance - m.minus2loglik)
            assert rise == pytest.approx(Z, abs=1e-5)


def test_a_correlation_at_its_bound_leaves_the_rest_determined() -> None:
    """Against glmmTMB, whose correlation goes to one without reaching it."""
    m = fitted("Y ~ N + cs(0 + N | B)", lmm.load_dataset("oats"), "gamma")
    assert m.minus2loglik == pytest.approx(615.489775, abs=1e-5)
    assert m.theta.iloc[-1] == 1.0
    np.testing.assert_allclose(m.se, [0.0706956, 0.0528346, 0.0546982, 0.0542828], rtol=2e-3)
    errors = m.parameter_errors["Std. Error"]
    assert np.isnan(errors.filter(like="rho")).all()
    assert np.isfinite(errors.filter(like="sd_")).all()


def test_the_limit_of_a_correlation_by_its_definition() -> None:
    data = models.frame("contraception")
    m = fitted("use ~ age + (urban | district)", data, "binomial")
    name = "cor_urban[T.Y].Intercept|district"
    rho = m.confint("profile", which=name).loc[name, "lower"]

    def criterion(at: np.ndarray) -> float:
        a, r = np.exp(at[:2])
        theta = [a, r * rho, r * np.sqrt(1 - rho**2)]
        return m.criterion_at(at[2:], theta)

    begin = np.r_[np.log([0.6, 0.7]), m.fixef]
    least = minimize(criterion, begin, method="Nelder-Mead", options={"maxiter": 2000}).fun
    assert least - m.minus2loglik == pytest.approx(Z**2, abs=1e-3)


@pytest.mark.parametrize("n_agq", [1, 7])
def test_profile_object(n_agq: int) -> None:
    m = fitted("w ~ x + (1 | g)", drawn(), "gamma", n_agq=n_agq)
    profile = m.profile(level=0.95)
    pd.testing.assert_frame_equal(profile.confint(), m.confint("profile"), rtol=1e-5)
    frame = profile.to_frame()
    assert [*frame.columns[:3]] == ["parameter", "value", "zeta"]
    assert [*frame.columns[3:]] == ["sd_Intercept|g", "dispersion", "Intercept", "x"]
    at = frame[(frame["parameter"] == "dispersion") & (frame["zeta"] == 0)].iloc[0]
    assert at["dispersion"] == pytest.approx(m.dispersion)
    assert at["x"] == pytest.approx(m.fixef["x"])
    axes = m.plot.profile(profile)
    labels = ["SD of Intercept | g", "dispersion", "Intercept", "x"]
    assert [ax.get_xlabel() for ax in axes] == labels
    with pytest.raises(OptionError, match="higher than the profile reaches"):
        profile.confint(0.999)
    with pytest.raises(OptionError, match="names no parameter"):
        m.profile([])


def test_what_a_profile_cannot_follow() -> None:
    data = drawn().assign(y=lambda d: np.rint(np.exp(0.2 * d["x"] + 1.0)))
    m = fitted("y ~ x + (x | g)", data, "negative_binomial")
    limits = m.confint("profile", which="theta_")
    assert limits.loc["sd_Intercept|g", "lower"] == 0.0
    assert limits.loc["theta"].isna().all()
    assert m.profile("theta", level=0.95).confint().isna().all().all()


def test_a_refit_leaves_out_rows_without_a_response() -> None:
    data = models.frame("cbpp")
    m = fitted("cbind(incidence, size - incidence) ~ period + (1 | herd)", data, "binomial")
    y = m.simulate(1, rng=1).iloc[:, 0].to_numpy().copy()
    y[[0, 5, 20]] = np.nan
    other = m.refit(y)
    by_hand = fitted(
        "y ~ period + (1 | herd)", data.assign(y=y).dropna(), "binomial", weights="size"
    )
    assert other.nobs == 53
    assert other.minus2loglik == pytest.approx(by_hand.minus2loglik, abs=1e-8)
    np.testing.assert_allclose(other.fitted, by_hand.fitted, rtol=1e-5)


def test_a_refit_without_a_level() -> None:
    data = drawn()
    m = fitted("y ~ x + (1 | g)", data, "poisson")
    y = data["y"].where(data["g"] != "3")
    other = m.refit(y)
    assert other.n_groups["g"] == 29
    by_hand = fitted("y ~ x + (1 | g)", data[data["g"] != "3"], "poisson")
    assert other.minus2loglik == pytest.approx(by_hand.minus2loglik, abs=1e-8)


def test_many_responses_are_refits() -> None:
    m = fitted("w ~ x + (x | g)", drawn(), "gamma")
    Y = m.simulate(3, rng=1)
    Y.iloc[0, 1] = np.nan
    Y.iloc[4, 2] = -1.0
    table = m.refit_many(Y)
    assert [*table.index] == [*Y.columns]
    for name in Y.columns[:2]:
        one = m.refit(Y[name])
        row = table.loc[name]
        assert row["criterion"] == pytest.approx(one.minus2loglik, abs=1e-7)
        assert row["dispersion"] == pytest.approx(one.dispersion, rel=1e-6)
        np.testing.assert_allclose(row[list(one.theta.index)].astype(float), one.theta, rtol=1e-5)
        np.testing.assert_allclose(row[list(one.fixef.index)].astype(float), one.fixef, rtol=1e-5)
        np.testing.assert_allclose(row[["se_Intercept", "se_x"]].astype(float), one.se, rtol=1e-4)
        assert row["converged"]
        assert row["problem"] == ""
    assert "positive" in table.loc["sim_3", "problem"]
    assert np.isnan(table.loc["sim_3", "criterion"])


def test_influence_of_groups_is_by_refits_without_them() -> None:
    data = models.frame("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    m = fitted(formula, data, "binomial")
    found = m.influence("herd")
    without = fitted(formula, data[data["herd"] != "h11"], "binomial")
    moved = without.fixef - m.fixef
    np.testing.assert_allclose(found.dfbeta.loc["h11"], moved, rtol=1e-5)
    cook = moved @ np.linalg.solve(m.vcov, moved) / 4
    assert found.cooks_distance["h11"] == pytest.approx(cook, rel=1e-5)
    with pytest.raises(OptionError, match=r"m.influence\('herd'\)"):
        m.influence()
