"""What generalized models say about data and approximation, and how far their searches go."""

from __future__ import annotations

import warnings
from typing import Any

import generalized_models as models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, FormulaError, LmmWarning
from lmmsparse.engine.generalized.laplace_point import Parameters


def fitted(formula: str, data: pd.DataFrame, family: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.glmer(formula, data, family, **options)


def codes(model: Any) -> list[str]:
    return [finding.code for finding in model.convergence.findings]


def message(model: Any, code: str) -> str:
    return next(f.message for f in model.convergence.findings if f.code == code)


def groups(n: int = 240, levels: int = 24, seed: int = 0) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), n // levels)
    frame = pd.DataFrame({"g": [f"g{i}" for i in g], "x": rng.normal(size=n)})
    frame["b"] = 0.5 * rng.normal(size=levels)[g]
    return frame, rng


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_searches_are_short(name: str) -> None:
    limit = 40 if name == "guprenat" else 20
    assert models.fit(name).convergence.evaluations <= limit


# -- a family's own parameter at its limit ---------------------------------------------------------


@pytest.fixture(scope="module")
def no_overdispersion() -> pd.DataFrame:
    frame, _ = groups()
    return frame.assign(y=np.rint(np.exp(2 + 0.3 * frame["x"] + frame["b"])))


@pytest.mark.parametrize("n_agq", [0, 1, 5])
def test_a_negative_binomial_that_is_poisson(no_overdispersion: pd.DataFrame, n_agq: int) -> None:
    formula = "y ~ x + (1 | g)"
    m = fitted(formula, no_overdispersion, "negative_binomial", n_agq=n_agq)
    p = fitted(formula, no_overdispersion, "poisson", n_agq=n_agq)
    assert m.minus2loglik == pytest.approx(p.minus2loglik, abs=1e-7)
    np.testing.assert_allclose(m.fixef, p.fixef, rtol=1e-6)
    np.testing.assert_allclose(m.se, p.se, rtol=1e-5)
    np.testing.assert_allclose(
        m.parameter_errors.iloc[0].astype(float),
        p.parameter_errors.iloc[0].astype(float),
        rtol=1e-4,
    )
    assert m.npar == p.npar + 1
    assert m.optimum.evaluations <= 12
    assert codes(m) == ["nearly-poisson"]
    assert np.isnan(m.parameter_errors.loc["theta", "Std. Error"])
    assert m.confint("wald").loc["theta"].isna().all()


def test_what_follows_such_a_fit(no_overdispersion: pd.DataFrame, tmp_path: Any) -> None:
    m = fitted("y ~ x + (1 | g)", no_overdispersion, "negative_binomial")
    drawn = m.simulate(200, rng=0, random="keep")
    assert np.var(drawn.to_numpy(), axis=1).mean() == pytest.approx(m.fitted.mean(), rel=0.05)
    assert np.isfinite(m.residuals("quantile")).all()
    again = m.refit(no_overdispersion["y"].to_numpy())
    assert again.minus2loglik == pytest.approx(m.minus2loglik, abs=1e-7)
    m.save(tmp_path / "model")
    loaded = lmm.load(tmp_path / "model")
    assert loaded.minus2loglik == m.minus2loglik
    assert codes(loaded) == codes(m)


def test_little_overdispersion_is_still_found() -> None:
    frame, rng = groups(2000, 40)
    mu = np.exp(3 + 0.2 * frame["x"] + frame["b"])
    frame["y"] = rng.poisson(mu * rng.gamma(400, 1 / 400, len(mu)))
    m = fitted("y ~ x + (1 | g)", frame, "negative_binomial")
    assert 50 < m.family.theta < 1e5
    assert np.abs(m.fit.point.gradient).max() < 1e-3
    assert m.minus2loglik < fitted("y ~ x + (1 | g)", frame, "poisson").minus2loglik - 1e-6


@pytest.mark.parametrize("family", ["gamma", "inverse_gaussian", lmm.families.Gaussian("log")])
def test_random_effects_that_fit_exactly_are_said(family: Any) -> None:
    frame, _ = groups()
    frame["y"] = np.exp(1 + 0.3 * frame["x"] + frame["b"])
    m = fitted("y ~ x + (1 | g)", frame, family)
    assert codes(m) == ["exact-fit"]
    assert m.optimum.evaluations <= 40
    assert m.fixef["x"] == pytest.approx(0.3, abs=1e-6)
    np.testing.assert_allclose(m.fitted, frame["y"], rtol=1e-4)


@pytest.mark.parametrize("family", ["gamma", "inverse_gaussian", lmm.families.Gaussian("log")])
def test_fixed_effects_that_fit_exactly_are_refused(family: Any) -> None:
    frame, _ = groups()
    frame["y"] = np.exp(1 + 0.3 * frame["x"])
    with pytest.raises(DataError, match="fit the response exactly"):
        fitted("y ~ x + (1 | g)", frame, family)


LIMITED = {
    "poisson": lmm.families.Poisson("identity"),
    "negative binomial": lmm.families.NegativeBinomial("identity"),
    "binomial": lmm.families.Binomial("log"),
}


@pytest.mark.parametrize(
    "kind", ["poisson", "negative binomial", pytest.param("binomial", marks=pytest.mark.long)]
)
def test_the_limit_of_a_link_ends_a_search(kind: str) -> None:
    """Observations of zero pull their means down to zero, where the likelihood has no slope."""
    rng, n = np.random.default_rng(3), 200
    g, x, b = np.repeat(np.arange(20), 10), rng.normal(size=n), rng.normal(0, 0.4, 20)
    if kind == "binomial":
        y = (rng.random(n) < np.minimum(np.exp(-0.3 + 0.2 * x + 0.3 * b[g]), 0.97)).astype(float)
    else:
        y = rng.poisson(np.exp(0.3 + 0.5 * x + b[g])).astype(float)
    frame = pd.DataFrame({"x": x, "y": y, "g": g.astype(str)})
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        m = lmm.glmer("y ~ x + (1 | g)", frame, LIMITED[kind])
    assert m.convergence.findings[-1].code == "link-limit"
    assert [w.category for w in given] == [lmm.ConvergenceWarning]
    assert not m.convergence.converged
    assert m.optimum.evaluations <= 40
    assert np.isfinite(m.minus2loglik)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_starts_of_the_working_model_beyond_the_link_are_left(seed: int) -> None:
    rng, n = np.random.default_rng(seed), 300
    x, b, g = rng.normal(size=n), rng.normal(0, 0.4, 30), np.repeat(np.arange(30), 10)
    frame = pd.DataFrame({"x": x, "g": g.astype(str)})
    for _ in range(3):
        frame["y"] = rng.gamma(2, np.exp(0.5 + 0.4 * x + b[g]) / 2)
        m = fitted("y ~ x + (1 | g)", frame, lmm.families.InverseGaussian("1/mu^2"))
        assert m.converged
        assert np.abs(m.fit.point.gradient).max() < 1e-2


def test_close_gamma_fits_keep_their_digits() -> None:
    """Log y − log μ + 1 − y/μ is nothing but rounding near y = μ, unless taken together."""
    y, delta = np.array([1.0]), -28.0
    gap = 1e-7
    seen = lmm.engine.families.Observations(y)
    at = lmm.families.Gamma().at(np.array([-gap]), seen, delta)
    nu = np.exp(-delta)
    assert at.value[0] == pytest.approx(-nu * (gap**2 / 2 + gap**3 / 6), rel=1e-7)
    assert at.s[0] == pytest.approx(nu * (gap + gap**2 / 2), rel=1e-8)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_scale_of_a_continuous_response_does_not_matter(scale: float) -> None:
    frame, rng = groups()
    frame["y"] = np.exp(1 + 0.3 * frame["x"] + frame["b"]) + 0.1 * rng.normal(size=len(frame))
    one = fitted("y ~ x + (1 | g)", frame, lmm.families.Gaussian("log"))
    other = fitted("y ~ x + (1 | g)", frame.assign(y=scale * frame["y"]), one.family)
    assert other.dispersion == pytest.approx(scale**2 * one.dispersion, rel=1e-6)
    assert other.optimum.evaluations <= 8


# -- the approximation -----------------------------------------------------------------------------


def test_too_few_nodes_are_said_and_by_how_much() -> None:
    data = models.frame("toenail")
    formula = "y ~ treatment * time + (1 | patientID)"
    coarse = fitted(formula, data, "binomial", n_agq=9)
    assert "too-few-nodes" in codes(coarse)
    assert "19 nodes in place of 9" in message(coarse, "too-few-nodes")
    assert "0.24" in message(coarse, "too-few-nodes")
    assert codes(fitted(formula, data, "binomial", n_agq=61)) == []


def test_enough_nodes_say_nothing() -> None:
    m = fitted("cbind(incidence, failures) ~ period + (1 | herd)", models.frame("cbpp"), "binomial",
               n_agq=9)  # fmt: skip
    assert codes(m) == []


@pytest.mark.parametrize("n_agq", [1, 15])
def test_levels_that_agree_have_no_bound_and_are_no_separation(n_agq: int) -> None:
    rng = np.random.default_rng(1)
    pairs = pd.DataFrame(
        {
            "pair": np.repeat([f"p{i}" for i in range(60)], 2),
            "x": rng.normal(size=120),
            "y": np.repeat(rng.binomial(1, 0.4, 60), 2),
        }
    )
    m = fitted("y ~ x + (1 | pair)", pairs, "binomial", n_agq=n_agq)
    assert "levels-agree" in codes(m)
    assert not {"separation", "too-few-nodes"} & {*codes(m)}


def test_large_effects_are_no_separation() -> None:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(200), 8)
    x = rng.normal(size=1600)
    eta = 12 * rng.normal(size=200)[g] + 6 * x
    frame = pd.DataFrame({"g": g.astype(str), "x": x, "y": (rng.logistic(size=1600) < eta) * 1})
    assert "separation" not in codes(fitted("y ~ x + (1 | g)", frame, "binomial"))


# -- second derivatives ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-10, 1e-8])
def test_curvature_where_a_variance_is_zero(size: float) -> None:
    data = models.frame("contraception")
    m = fitted("use ~ age + (age | district)", data, "binomial")
    at = m.fit.parameters
    theta = np.array(at.theta)
    theta[2] = size
    hessian = m.fit.problem.deviance.point(Parameters(at.beta, theta, 0.0)).hessian
    theta[2] = 1e-5
    usual = m.fit.problem.deviance.point(Parameters(at.beta, theta, 0.0)).hessian
    at_theta = at.beta.size + 2
    assert hessian[at_theta, at_theta] == pytest.approx(usual[at_theta, at_theta], rel=1e-4)


def test_what_one_parameter_lacks_does_not_spread(no_overdispersion: pd.DataFrame) -> None:
    m = fitted("y ~ x + (1 | g)", no_overdispersion, "negative_binomial")
    V = m.fit.joint_covariance
    assert np.isinf(V[-1, -1])
    assert np.isfinite(V[:-1, :-1]).all()


# -- what is said about responses ------------------------------------------------------------------


@pytest.mark.parametrize("response", ["cbind(incidence, size - incidence)", "incidence / size"])
def test_a_response_that_is_worked_out_is_called_as_it_is_written(response: str) -> None:
    data = models.frame("cbpp")[["herd", "period", "incidence", "size"]]
    m = fitted(f"{response} ~ period + (1 | herd)", data, "binomial")
    assert m.fit.design.response == response
    assert m.augment().columns[0] == response
    with pytest.raises(DataError) as error:
        fitted(f"{response} ~ time + (1 | herd)", data, "binomial")
    assert "The columns are herd, period, incidence, size." in str(error.value)
    with pytest.raises(DataError) as error:
        fitted(f"{response} ~ period + (1 | farm)", data, "binomial")
    assert response not in str(error.value)
    holes = data.assign(size=data["size"].where(data.index > 2))
    with pytest.raises(DataError, match="missing values") as error:
        fitted(f"{response} ~ period + (1 | herd)", holes, "binomial", na_action="raise")
    assert f"({response}: 3)" in str(error.value)


def test_a_dot_leaves_out_what_the_response_is_made_of() -> None:
    data = models.frame("cbpp")[["herd", "period", "incidence", "size"]]
    whole = fitted("incidence / size ~ period + (1 | herd)", data, "binomial")
    dotted = fitted("cbind(incidence, size - incidence) ~ . - herd + (1 | herd)", data, "binomial")
    assert dotted.minus2loglik == pytest.approx(whole.minus2loglik, abs=1e-8)


def test_no_random_effects_is_not_called_least_squares() -> None:
    data = models.frame("cbpp")
    with pytest.raises(FormulaError, match=r"glm\(\)"):
        fitted("incidence ~ period", data, "poisson")


def test_further_starts_are_said_and_only_where_there_is_need() -> None:
    frame, rng = groups()
    frame["y"] = rng.poisson(np.exp(1 + 0.3 * frame["x"] + frame["b"]))
    regular = fitted("y ~ x + (1 | g)", frame, "poisson")
    assert regular.optimum.further_evaluations == 0
    lacking = fitted("y ~ 1 + (0 + x | g)", frame, "poisson")
    assert lacking.optimum.further_evaluations > 0
    assert lacking.optimum.evaluations <= 20
    given = fitted("y ~ 1 + (0 + x | g)", frame, "poisson", start=[0.5])
    assert given.optimum.further_evaluations == 0
    assert given.minus2loglik == pytest.approx(lacking.minus2loglik, abs=1e-6)


def test_a_start_that_leads_astray_is_left() -> None:
    frame, rng = groups()
    mu = np.exp(7 + 0.5 * frame["x"] + frame["b"])
    frame["y"] = rng.gamma(2, mu / 2)
    m = fitted("y ~ 0 + (x | g)", frame, "gamma")
    assert m.convergence.converged
    assert m.varcorr.to_frame()["sdcor"].iloc[0] == pytest.approx(7, rel=0.1)


def printed(model: Any) -> list[str]:
    return [" ".join(str(text).split()) for text in (model, model.summary())]


def test_what_was_found_is_printed_once() -> None:
    ticks = lmm.load_dataset("grouseticks")
    m = fitted("TICKS ~ 1 + (1 | LOCATION)", ticks, "poisson")
    assert "overdispersion" in codes(m)
    for text in printed(m):
        assert text.count(message(m, "overdispersion")) == 1


def test_weights_that_are_no_trials_are_warned_of() -> None:
    data, rng = groups()
    data["y"] = (rng.uniform(size=len(data)) < 1 / (1 + np.exp(-4 * data["b"]))).astype(int)
    data["w"] = rng.uniform(0.5, 2.0, len(data))
    with pytest.warns(lmm.DesignWarning, match="Survey weights"):
        m = lmm.glmer("y ~ x + (1 | g)", data, "binomial", weights="w")
    for text in printed(m):
        assert text.count("no numbers of trials") == 1
    data["k"] = 1 + np.arange(len(data)) % 3
    whole = fitted("y ~ x + (1 | g)", data, "binomial", weights="k")
    repeated = fitted("y ~ x + (1 | g)", data.loc[data.index.repeat(data["k"])], "binomial")
    np.testing.assert_allclose(whole.fixef, repeated.fixef, rtol=1e-6)
    assert all("counts as three like it" in text for text in printed(whole))
    ones = fitted("y ~ x + (1 | g)", data.assign(k=1), "binomial", weights="k")
    assert "weights-are-trials" not in codes(ones)
    parts = fitted("cbind(a, b) ~ x + (1 | g)", data.assign(a=0.5 + data["y"], b=1.0), "binomial")
    found = next(f for f in parts.convergence.findings if f.code == "not-whole")
    assert found.level == "warning"
    assert "these are counts" in found.message


def test_dispersion_of_a_model_that_always_draws_the_same() -> None:
    """Of responses that a predictor separates entirely there is no spread to compare with."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(np.arange(12), 5)})
    data["f"] = np.where(data["x"] > 0, "yes", "no")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = lmm.glmer("f ~ x + (1 | g)", data, "binomial").check_dispersion(20)
    assert np.isnan(table["ratio"]["simulation"])
    assert np.isnan(table["p.value"]["simulation"])
    assert "all responses that the model draws are alike" in str(table)


@pytest.mark.parametrize("far", [1e6, 1e11, 1e14])
def test_offsets_far_from_zero_end_in_a_fit_or_a_finding(far: float) -> None:
    """Steps for second derivatives are long enough to change a coefficient of that size."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"o": far + rng.normal(size=60), "g": np.repeat(np.arange(12), 5)})
    eta = data["o"] - far + 2.0 * rng.normal(size=12)[data["g"]]
    data["y"] = (rng.random(60) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", LmmWarning)
        try:
            m = lmm.glmer("y ~ offset(o) + (1 | g)", data, "binomial")
        except lmm.LmmError:
            return
    near = lmm.glmer("y ~ offset(o) + (1 | g)", data.assign(o=data["o"] - far), "binomial")
    if m.convergence.converged:
        assert m.minus2loglik == pytest.approx(near.minus2loglik, abs=1e-3 + 1e-13 * far)
