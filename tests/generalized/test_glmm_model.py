"""What a fitted generalized model can be asked: responses, predictions, tests, files."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generalized_models import frame
from scipy.special import expit, ndtr

import lmmsparse as lmm

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp() -> lmm.GeneralizedLinearMixedModel:
    return lmm.glmer(CBPP, frame("cbpp"), "binomial")


@pytest.fixture(scope="module")
def counts() -> lmm.GeneralizedLinearMixedModel:
    return lmm.glmer("y ~ trt + Visit + (Visit | subject)", frame("epil"), "poisson")


def made_up(n: int = 300, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = rng.integers(0, 30, n)
    x = rng.normal(size=n)
    eta = -0.3 + 0.5 * x + 0.8 * rng.normal(size=30)[g]
    y = (rng.uniform(size=n) < expit(eta)).astype(int)
    exposure = rng.uniform(1, 5, n)
    count = rng.poisson(exposure * np.exp(eta))
    frame = {"g": g.astype(str), "x": x, "y": y, "count": count, "exposure": exposure}
    return pd.DataFrame(frame)


# -- the criterion elsewhere -----------------------------------------------------------------------


def test_the_criterion_goes_by_names_and_refuses_what_does_not_fit(
    counts: lmm.GeneralizedLinearMixedModel,
) -> None:
    m, beta, theta = counts, counts.fixef, counts.theta
    assert m.criterion_at(beta, theta) == pytest.approx(m.minus2loglik, abs=1e-9)
    assert m.criterion_at(beta[::-1], theta[::-1]) == m.criterion_at(beta, theta)
    assert m.criterion_at({}, -theta.to_numpy()) == pytest.approx(m.minus2loglik, abs=1e-8)
    moved = m.criterion_at({"Visit": -0.2}, 1.1 * theta)
    plain = beta.to_numpy().copy()
    plain[list(beta.index).index("Visit")] = -0.2
    assert moved == m.criterion_at(plain, (1.1 * theta).to_list())
    assert moved == m.criterion_at(pd.Series(plain), (1.1 * theta).to_numpy(), 1.0)
    assert moved > m.minus2loglik
    for wrong in (
        {"beta": plain[:-1], "theta": theta},
        {"beta": plain, "theta": [0.3]},
        {"beta": plain * np.nan, "theta": theta},
        {"beta": {"nothing": 1.0}, "theta": theta},
        {"beta": plain, "theta": theta, "dispersion": 2.0},
        {"beta": plain, "theta": theta, "dispersion": -1.0},
    ):
        with pytest.raises(lmm.OptionError):
            m.criterion_at(**wrong)


# -- responses -------------------------------------------------------------------------------------


def test_all_forms_of_a_binary_response_are_the_same_model() -> None:
    data = made_up()
    plain = lmm.glmer("y ~ x + (1 | g)", data, "binomial")
    truth = data["y"] == 1
    forms: dict[str, Any] = {
        "bool": truth,
        "text": np.where(truth, "yes", "no"),
        "category": pd.Categorical(np.where(truth, "a", "b"), categories=["b", "a"]),
        "nullable": truth.astype("boolean"),
        "float": truth.astype(float),
    }
    for name, values in forms.items():
        m = lmm.glmer("z ~ x + (1 | g)", data.assign(z=values), "bernoulli")
        assert m.minus2loglik == pytest.approx(plain.minus2loglik, abs=1e-9), name
        np.testing.assert_allclose(m.fixef, plain.fixef, rtol=1e-8)
    assert "probability of z = yes" in str(
        lmm.glmer("z ~ x + (1 | g)", data.assign(z=forms["text"]), "binomial").summary()
    )
    m = lmm.glmer("I(y > 0) ~ x + (1 | g)", data, "binomial")
    assert m.minus2loglik == pytest.approx(plain.minus2loglik, abs=1e-9)


def test_swapping_success_and_failure_changes_signs_only() -> None:
    data = frame("cbpp")
    for link in ("logit", "probit"):
        family = lmm.families.Binomial(link)
        one = lmm.glmer("cbind(incidence, failures) ~ period + (1 | herd)", data, family)
        other = lmm.glmer("cbind(failures, incidence) ~ period + (1 | herd)", data, family)
        assert other.minus2loglik == pytest.approx(one.minus2loglik, abs=1e-8)
        np.testing.assert_allclose(other.fixef, -one.fixef, rtol=1e-6)
        np.testing.assert_allclose(other.ranef["herd"], -one.ranef["herd"], rtol=1e-5, atol=1e-7)


def test_binomial_rows_split_into_bernoulli_rows(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    data = frame("cbpp")
    ones = data.loc[data.index.repeat(data["incidence"])].assign(y=1)
    zeros = data.loc[data.index.repeat(data["failures"])].assign(y=0)
    m = lmm.glmer("y ~ period + (1 | herd)", pd.concat([ones, zeros]), "binomial")
    np.testing.assert_allclose(m.fixef, cbpp.fixef, rtol=1e-6)
    np.testing.assert_allclose(m.se, cbpp.se, rtol=1e-5)
    constant = cbpp.fit.family.constant(cbpp.fit.seen, 0.0)
    assert m.minus2loglik == pytest.approx(cbpp.minus2loglik + 2 * constant, abs=1e-6)


@pytest.mark.parametrize(
    ("formula", "family", "match"),
    [
        ("incidence ~ period + (1 | herd)", "binomial", "cbind.*trials.*weights"),
        ("herd ~ period + (1 | obs)", "binomial", "15 different values"),
        ("cbind(incidence) ~ period + (1 | herd)", "binomial", "two columns"),
        ("cbind(size, 0 - incidence) ~ period + (1 | herd)", "binomial", "negative number"),
        ("zero ~ period + (1 | herd)", "poisson", "zero in all"),
        ("zero ~ period + (1 | herd)", "binomial", "zero in all"),
        ("one ~ period + (1 | herd)", "binomial", "is a success"),
        ("zero ~ period + (1 | herd)", "gamma", "must be positive"),
        ("negative ~ period + (1 | herd)", "poisson", "must not be negative"),
        ("prop ~ period + (1 | herd)", None, r"lmm\.lmer"),
        ("prop ~ period + (1 | herd)", "gaussian", r"lmm\.lmer"),
    ],
)
def test_responses_that_cannot_be(formula: str, family: Any, match: str) -> None:
    data = frame("cbpp").assign(zero=0, one=1, negative=lambda d: -d["size"])
    with pytest.raises(lmm.LmmError, match=match):
        lmm.glmer(formula, data, family)


def test_options_that_cannot_be() -> None:
    data = frame("cbpp")
    for options, match in (
        ({"n_agq": -1}, "whole number"),
        ({"n_agq": 2.5}, "whole number"),
        ({"n_agq": 5, "information": "expected"}, "goes with n_agq"),
        ({"information": "fisher"}, "observed"),
    ):
        with pytest.raises(lmm.OptionError, match=match):
            lmm.glmer(CBPP, data, "binomial", **options)
    with pytest.raises(lmm.OptionError, match="several grouping factors"):
        lmm.glmer(f"{CBPP} + (1 | obs)", data, "binomial", n_agq=5)


def test_missing_values_and_rows_without_trials() -> None:
    data = frame("cbpp").astype({"incidence": float})
    data.loc[3, "incidence"] = np.nan
    data.loc[5, ["incidence", "size"]] = 0
    with pytest.warns(lmm.DesignWarning, match="weight zero"):
        m = lmm.glmer(CBPP, data, "binomial")
    whole = lmm.glmer(CBPP, data.drop(index=[3, 5]), "binomial")
    assert m.nobs == 54
    assert m.minus2loglik == pytest.approx(whole.minus2loglik, abs=1e-9)


def test_offset_as_column_expression_and_in_the_formula() -> None:
    data = made_up().assign(log_e=lambda d: np.log(d["exposure"]))
    models = [
        lmm.glmer("count ~ x + (1 | g)", data, "poisson", offset="log_e"),
        lmm.glmer("count ~ x + (1 | g)", data, "poisson", offset="log(exposure)"),
        lmm.glmer("count ~ x + offset(log(exposure)) + (1 | g)", data, "poisson"),
        lmm.glmer("count ~ x + (1 | g)", data, "poisson", offset=data["log_e"].to_numpy()),
    ]
    for m in models[1:]:
        assert m.minus2loglik == pytest.approx(models[0].minus2loglik, abs=1e-9)
    new = data.head(4).assign(exposure=10.0, log_e=np.log(10.0))
    for m in models[:3]:
        np.testing.assert_allclose(
            m.predict(new), m.predict(data.head(4)) * 10.0 / data["exposure"].head(4)
        )


def test_weights_that_are_not_whole_are_prior_weights() -> None:
    data = made_up().assign(w=lambda d: np.linspace(0.5, 1.5, len(d)))
    with pytest.warns(lmm.DesignWarning, match="no numbers of trials"):
        m = lmm.glmer("y ~ x + (1 | g)", data, "binomial", weights="w")
    assert any(f.code == "not-whole" for f in m.convergence.findings)
    with pytest.raises(lmm.LmmError, match="cannot be drawn"):
        m.simulate(rng=1)
    # Whole weights are as many rows.
    doubled = lmm.glmer("y ~ x + (1 | g)", pd.concat([data, data]), "binomial")
    twice = lmm.glmer("y ~ x + (1 | g)", data.assign(w=2), "binomial", weights="w")
    assert twice.minus2loglik == pytest.approx(doubled.minus2loglik, abs=1e-8)


# -- invariances -----------------------------------------------------------------------------------


def test_scale_shift_and_order_do_not_matter() -> None:
    data = made_up()
    one = lmm.glmer("count ~ x + (x | g)", data, "poisson")
    moved = data.assign(x=1e3 * data["x"] + 1e5).sample(frac=1, random_state=1)
    other = lmm.glmer("count ~ x + (x | g)", moved, "poisson")
    assert other.minus2loglik == pytest.approx(one.minus2loglik, abs=1e-6)
    assert other.fixef["x"] * 1e3 == pytest.approx(one.fixef["x"], rel=1e-5)
    assert other.se["x"] * 1e3 == pytest.approx(one.se["x"], rel=1e-4)
    np.testing.assert_allclose(other.fitted.sort_index(), one.fitted, rtol=1e-4)


def test_gamma_is_equivariant_in_the_response() -> None:
    data = made_up().assign(z=lambda d: np.random.default_rng(1).gamma(3, np.exp(d["x"]) / 3))
    one = lmm.glmer("z ~ x + (1 | g)", data, "gamma")
    other = lmm.glmer("z ~ x + (1 | g)", data.assign(z=data["z"] * 1e8), "gamma")
    assert other.fixef["Intercept"] - one.fixef["Intercept"] == pytest.approx(np.log(1e8), rel=1e-8)
    assert other.dispersion == pytest.approx(one.dispersion, rel=1e-6)
    shift = 2 * len(data) * np.log(1e8)
    assert other.minus2loglik == pytest.approx(one.minus2loglik + shift, abs=1e-5)


def test_huge_counts_are_a_linear_mixed_model_of_logarithms() -> None:
    rng = np.random.default_rng(0)
    data = made_up()
    b = 0.5 * rng.normal(size=30)[data["g"].astype(int)]
    noise = 0.2 * rng.normal(size=len(data))
    data["huge"] = rng.poisson(np.exp(20 + 0.3 * data["x"] + b + noise))
    data["row"] = np.arange(len(data)).astype(str)
    m = lmm.glmer("huge ~ x + (1 | row) + (1 | g)", data, "poisson")
    line = lmm.lmer("np.log(huge) ~ x + (1 | g)", data, reml=False)
    np.testing.assert_allclose(m.fixef, line.fixef, rtol=1e-5)
    np.testing.assert_allclose(m.se, line.se, rtol=1e-2)  # θ is known there
    assert m.theta["row.Intercept"] == pytest.approx(line.sigma, rel=1e-4)


# -- predictions -----------------------------------------------------------------------------------


def test_predictions_on_both_scales(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    data = frame("cbpp")
    link = cbpp.predict(data, type="link")
    np.testing.assert_allclose(cbpp.predict(data), expit(link))
    np.testing.assert_allclose(cbpp.predict(data), cbpp.fitted, rtol=1e-12)
    both = cbpp.predict(data.head(5), random=False, interval="confidence")
    eta = cbpp.predict(data.head(5), random=False, type="link", se=True)
    np.testing.assert_allclose(both["lower"], expit(eta["lower"]))
    p = expit(eta["fit"])
    np.testing.assert_allclose(both["se"], p * (1 - p) * eta["se"])
    X = np.column_stack([np.ones(4), np.eye(4)[:, 1:]])
    np.testing.assert_allclose(
        eta["se"].iloc[:4], np.sqrt(np.einsum("ij,jk,ik->i", X, cbpp.vcov, X)), rtol=1e-8
    )


def test_error_of_a_prediction_with_random_effects(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    """z'ΛM⁻¹Λ'z, and the error of β that is left once u has followed it."""
    fit = cbpp.fit
    Z, X, w = fit.design.Z.toarray(), fit.design.X, fit.point.mode.at.w
    ZL = Z * cbpp.theta.iloc[0]
    M = ZL.T @ (w[:, None] * ZL) + np.eye(15)
    left = X - ZL @ np.linalg.solve(M, ZL.T @ (w[:, None] * X))
    V = np.einsum("ij,jk,ik->i", left, cbpp.vcov, left)
    V += np.einsum("ij,jk,ik->i", ZL, np.linalg.inv(M), ZL)
    found = cbpp.predict(type="link", se=True)["se"]
    np.testing.assert_allclose(found, np.sqrt(V), rtol=1e-7)
    np.testing.assert_allclose(
        cbpp.cond_var["herd"][:, 0, 0], cbpp.theta.iloc[0] ** 2 * np.diag(np.linalg.inv(M))
    )


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_marginal_means_are_integrals(link: str) -> None:
    m = lmm.glmer(CBPP, frame("cbpp"), lmm.families.Binomial(link))
    new = frame("cbpp").head(4)
    eta = m.predict(new, random=False, type="link").to_numpy()
    u = np.linspace(-8, 8, 8001)
    density = np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)
    means = m.fit.family.mean((eta[:, None] + m.theta.iloc[0] * u).ravel()).reshape(4, -1)
    expected = np.trapezoid(means * density, u, axis=1)
    np.testing.assert_allclose(m.predict(new, random=False, marginal=True), expected, rtol=1e-8)
    if link == "probit":
        exact = ndtr(eta / np.sqrt(1 + m.theta.iloc[0] ** 2))
        np.testing.assert_allclose(expected, exact, rtol=1e-8)


def test_new_levels_and_refusals(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    new = frame("cbpp").head(2).assign(herd="elsewhere")
    with pytest.raises(lmm.DataError, match="elsewhere"):
        cbpp.predict(new)
    population = cbpp.predict(new, new_levels="population")
    np.testing.assert_allclose(population, cbpp.predict(new, random=False))
    with pytest.raises(lmm.OptionError, match="simulate"):
        cbpp.predict(new, interval="prediction")
    with pytest.raises(lmm.OptionError, match="random=False"):
        cbpp.predict(marginal=True)


def test_residuals(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    data, mu = frame("cbpp"), cbpp.fitted
    y, n = data["prop"], data["size"]
    np.testing.assert_allclose(cbpp.residuals("response"), y - mu, atol=1e-12)
    np.testing.assert_allclose(cbpp.residuals("pearson"), (y - mu) * np.sqrt(n / (mu * (1 - mu))))
    np.testing.assert_allclose(cbpp.residuals("working"), (y - mu) / (mu * (1 - mu)))
    assert np.sum(cbpp.residuals() ** 2) == pytest.approx(cbpp.deviance)
    assert cbpp.deviance == pytest.approx(73.4717, abs=1e-3)
    quantile = cbpp.residuals("quantile", rng=3)
    pd.testing.assert_series_equal(quantile, cbpp.residuals("quantile", rng=3))
    with pytest.raises(lmm.OptionError):
        cbpp.residuals("other")


def test_quantile_residuals_are_normal_where_the_model_is_right() -> None:
    data = made_up(4000)
    m = lmm.glmer("count ~ x + (1 | g)", data, "poisson", offset="log(exposure)")
    r = np.sort(m.residuals("quantile", rng=1))
    normal = np.sort(np.random.default_rng(0).normal(size=len(r)))
    assert np.abs(r - normal)[200:-200].max() < 0.12


def test_simulated_responses_keep_their_trials(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    draws = cbpp.simulate(200, rng=1)
    successes = draws.to_numpy() * frame("cbpp")["size"].to_numpy()[:, None]
    np.testing.assert_allclose(successes, np.rint(successes), atol=1e-9)
    kept = cbpp.simulate(2000, rng=1, random="keep").mean(axis=1)
    np.testing.assert_allclose(kept, cbpp.fitted, atol=0.03)
    pd.testing.assert_frame_equal(draws, cbpp.simulate(200, rng=1))
    again = cbpp.refit(draws["sim_1"])
    direct = lmm.glmer(
        "sim ~ period + (1 | herd)",
        frame("cbpp").assign(sim=draws["sim_1"]),
        "binomial",
        weights="size",
    )
    assert again.minus2loglik == pytest.approx(direct.minus2loglik, abs=1e-7)


def test_check_dispersion_finds_what_is_there() -> None:
    rng = np.random.default_rng(5)
    data = made_up(600)
    data["over"] = rng.negative_binomial(1.0, 1.0 / (1.0 + np.exp(1 + 0.3 * data["x"])))
    poisson = lmm.glmer("over ~ x + (1 | g)", data, "poisson")
    table_ = poisson.check_dispersion(200, rng=1).to_frame()
    assert table_.loc["Pearson", "ratio"] > 2
    assert table_.loc["simulation", "p.value"] < 0.02
    assert any(f.code == "overdispersion" for f in poisson.convergence.findings)
    nb = lmm.glmer("over ~ x + (1 | g)", data, "negative_binomial")
    assert nb.check_dispersion(200, rng=1).to_frame().loc["simulation", "p.value"] > 0.02
    assert nb.family.theta == pytest.approx(1.0, abs=0.25)


# -- inference -------------------------------------------------------------------------------------


def test_profile_limits_are_where_the_profile_says(
    cbpp: lmm.GeneralizedLinearMixedModel,
) -> None:
    """Against the likelihood with the parameter held: an offset for β, `fixed=` for the sd."""
    limits = cbpp.confint(which=["sd_Intercept|herd", "period[T.p2]"])
    np.testing.assert_allclose(limits.loc["sd_Intercept|herd"], [0.34607, 1.09997], atol=2e-4)
    rise = 1.959964**2
    data = frame("cbpp")
    for end in ("lower", "upper"):
        sd = float(limits.loc["sd_Intercept|herd", end])
        held = lmm.glmer(CBPP, data, "binomial", fixed={"herd.Intercept": sd})
        assert held.minus2loglik - cbpp.minus2loglik == pytest.approx(rise, abs=1e-3)
        beta = float(limits.loc["period[T.p2]", end])
        moved = data.assign(
            o=beta * (data["period"] == "p2"), p3=data["period"] == "p3", p4=data["period"] == "p4"
        )
        held = lmm.glmer(
            "cbind(incidence, failures) ~ I(p3 * 1) + I(p4 * 1) + (1 | herd)",
            moved,
            "binomial",
            offset="o",
        )
        assert held.minus2loglik - cbpp.minus2loglik == pytest.approx(rise, abs=1e-3)


def test_profile_of_every_standard_deviation(counts: lmm.GeneralizedLinearMixedModel) -> None:
    limits = counts.confint(which=["sd_Intercept|subject", "sd_Visit|subject"])
    swapped = lmm.glmer("y ~ trt + Visit + (0 + Visit + o | subject)", _with_ones(), "poisson")
    assert swapped.minus2loglik == pytest.approx(counts.minus2loglik, abs=1e-6)
    other = swapped.confint(which=["sd_o|subject", "sd_Visit|subject"])
    np.testing.assert_allclose(limits.to_numpy(), other.to_numpy(), rtol=1e-3)


def _with_ones() -> pd.DataFrame:
    return frame("epil").assign(o=1.0)


def test_wald_intervals_and_errors(counts: lmm.GeneralizedLinearMixedModel) -> None:
    frame = counts.confint("wald")
    sd = counts.varcorr.terms[0].sd[0]
    lower, upper = frame.loc["sd_Intercept|subject"]
    assert np.sqrt(lower * upper) == pytest.approx(sd, rel=1e-6)
    error = counts.parameter_errors.loc["sd_Intercept|subject", "Std. Error"]
    assert np.log(upper / lower) == pytest.approx(2 * 1.959964 * error / sd, rel=1e-5)
    assert frame.loc["cor_Visit.Intercept|subject", "lower"] > -1


def test_tests_of_terms(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    wald = cbpp.anova().to_frame()
    b, V = cbpp.fixef.to_numpy()[1:], cbpp.vcov.to_numpy()[1:, 1:]
    assert wald.loc["period", "Chisq"] == pytest.approx(b @ np.linalg.solve(V, b))
    pd.testing.assert_frame_equal(wald, lmm.anova(cbpp).to_frame())
    small = lmm.glmer("cbind(incidence, failures) ~ 1 + (1 | herd)", frame("cbpp"), "binomial")
    large = lmm.glmer("cbind(incidence, failures) ~ period + (1 | herd)", frame("cbpp"), "binomial")
    ratio = lmm.anova(large, small).to_frame()
    deleted = cbpp.drop1(progress=False).to_frame()
    assert ratio["Chisq"].iloc[1] == pytest.approx(deleted.loc["period", "LRT"], abs=1e-6)
    assert ratio["Df"].iloc[1] == 3
    random = cbpp.ranova(progress=False).to_frame()
    assert random["LRT"].iloc[1] == pytest.approx(14.0058, abs=1e-3)  # against R's glm
    z = cbpp.contrast({"period[T.p2]": 1, "period[T.p3]": -1}).to_frame()
    limits = ["lower.CL", "upper.CL"]
    assert list(z.columns) == ["Estimate", "Std. Error", "z value", "Pr(>|z|)", *limits]
    joint = cbpp.contrast(np.eye(4)[1:]).to_frame()
    assert joint["Chisq"].iloc[0] == pytest.approx(wald.loc["period", "Chisq"])
    with pytest.raises(lmm.LmmError, match="linear and generalized"):
        lmm.anova(cbpp, lmm.lmer("prop ~ period + (1 | herd)", frame("cbpp")))


def test_marginal_means_on_the_scale_of_the_response(
    cbpp: lmm.GeneralizedLinearMixedModel,
) -> None:
    link, means = cbpp.emmeans("period"), cbpp.emmeans("period", type="response")
    np.testing.assert_allclose(means["response"], expit(link["emmean"]))
    np.testing.assert_allclose(means["upper.CL"], expit(link["upper.CL"]))
    odds = cbpp.emmeans("period", type="response", pairwise=True)
    b = cbpp.fixef.to_numpy()
    assert odds["odds.ratio"].iloc[0] == pytest.approx(np.exp(-b[1]))
    assert "z.ratio" in odds.to_frame().columns


def test_bootstrap_is_reproducible(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    one = cbpp.bootstrap(12, rng=4, progress=False)
    assert one.n_failed == 0
    pd.testing.assert_frame_equal(
        one.to_frame(), cbpp.bootstrap(12, rng=4, progress=False).to_frame()
    )
    own = cbpp.bootstrap(5, rng=4, statistic=lambda m: m.fixef["Intercept"], progress=False)
    np.testing.assert_allclose(own.to_frame()["t1"], one.to_frame()["Intercept"].head(5))


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["binomial", "negative_binomial", "gamma"])
def test_files_and_pickles_are_the_model(family: str, tmp_path: Path) -> None:
    data = made_up().assign(z=lambda d: d["count"] + 0.5)
    response = {"binomial": "y", "negative_binomial": "count", "gamma": "z"}[family]
    m = lmm.glmer(f"{response} ~ x + (1 | g)", data, family)
    m.save(tmp_path / "model")
    for other in (lmm.load(tmp_path / "model"), pickle.loads(pickle.dumps(m))):
        assert isinstance(other, lmm.GeneralizedLinearMixedModel)
        assert other.minus2loglik == m.minus2loglik
        assert type(other.family) is type(m.family)
        np.testing.assert_array_equal(other.fixef, m.fixef)
        np.testing.assert_array_equal(other.se, m.se)
        np.testing.assert_allclose(other.fitted, m.fitted, rtol=1e-9)
        np.testing.assert_allclose(other.predict(data.head(3)), m.predict(data.head(3)), rtol=1e-9)
        assert str(other.summary()) == str(m.summary())


def test_file_with_trials(cbpp: lmm.GeneralizedLinearMixedModel, tmp_path: Path) -> None:
    cbpp.save(tmp_path / "model")
    other = lmm.load(tmp_path / "model")
    pd.testing.assert_frame_equal(other.simulate(rng=1), cbpp.simulate(rng=1))


def test_what_is_linear_only_refuses_by_name(cbpp: lmm.GeneralizedLinearMixedModel) -> None:
    with pytest.raises(lmm.NotFittedByError, match=r"m\.dispersion"):
        _ = cbpp.sigma
    with pytest.raises(lmm.NotFittedByError, match=r"m\.minus2loglik"):
        _ = cbpp.reml_criterion
    with pytest.raises(AttributeError, match="linear mixed models"):
        getattr(cbpp, "step")  # noqa: B009
    with pytest.raises(lmm.OptionError, match="no residual standard deviation"):
        lmm.glmer(CBPP, frame("cbpp"), "binomial", fixed={"sigma": 2.0})
    with pytest.raises(lmm.LmmError, match=r"lmm\.glmer"):
        lmm.GeneralizedLinearMixedModel(
            lmm.lmer("prop ~ period + (1 | herd)", frame("cbpp")).fit  # type: ignore[arg-type]
        )


def test_tidy_glance_augment(counts: lmm.GeneralizedLinearMixedModel) -> None:
    tidy = counts.tidy(conf_int=True)
    assert {"estimate", "std_error", "statistic", "p_value", "conf_low"} <= set(tidy.columns)
    assert counts.glance()["family"].iloc[0] == "poisson"
    assert counts.glance()["AIC"].iloc[0] == pytest.approx(counts.aic)
    rows = counts.augment(frame("epil"))
    np.testing.assert_allclose(np.exp(rows["_fitted"]), rows["_mu"])
    some, told = frame("epil").iloc[[2, 100]], counts.augment(se_fit=True)
    new = counts.augment(newdata=some, se_fit=True)
    for name in ("_fitted", "_mu", "_fixed", "_se_fit"):
        np.testing.assert_allclose(new[name], told[name].loc[some.index])
    assert "_resid" not in new
    assert len(counts.tidy("ran_vals")) == 59 * 2


# -- findings --------------------------------------------------------------------------------------


def findings_of(formula: str, data: pd.DataFrame, family: Any, **options: Any) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.glmer(formula, data, family, **options)
    return {f.code: f.message for f in m.convergence.findings}


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_separation_names_its_coefficient(link: str) -> None:
    data = made_up(400)
    data["arm"] = (np.arange(400) % 10 == 0).astype(int)
    data["z"] = np.where(data["arm"] == 1, 0, data["y"])
    family = lmm.families.Binomial(link)
    with pytest.warns(lmm.DesignWarning, match="does not bound arm"):
        m = lmm.glmer("z ~ x + arm + (1 | g)", data, family)
    rest = lmm.glmer("z ~ x + (1 | g)", data[data["arm"] == 0], family)
    np.testing.assert_allclose(m.fixef[["Intercept", "x"]], rest.fixef, rtol=1e-4)
    np.testing.assert_allclose(m.se[["Intercept", "x"]], rest.se, rtol=1e-3)


def test_other_findings() -> None:
    data = made_up(400)
    data["row"] = np.arange(400).astype(str)
    assert "one-trial-per-level" in findings_of("y ~ x + (1 | row)", data, "binomial")
    rng = np.random.default_rng(1)
    data["poisson"] = rng.poisson(np.exp(0.3 + 0.2 * data["x"]))
    assert "nearly-poisson" in findings_of("poisson ~ x + (1 | g)", data, "nbinom2")
    halves = data.assign(half=data["count"] + 0.5)
    assert "not-whole" in findings_of("half ~ x + (1 | g)", halves, "poisson")
    pairs = pd.DataFrame(
        {"g": np.repeat(np.arange(100), 2), "y": np.repeat(rng.integers(0, 2, 100), 2)}
    )
    assert "laplace-too-coarse" in findings_of("y ~ 1 + (1 | g)", pairs, "binomial")
    toenail = frame("toenail")
    assert "laplace-too-coarse" in findings_of(
        "y ~ treatment * time + (1 | patientID)", toenail, "binomial"
    )
    assert "laplace-too-coarse" not in findings_of(CBPP, frame("cbpp"), "binomial")
