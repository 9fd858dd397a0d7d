"""Cluster-robust standard errors of generalized models: scores, sandwich, tables, refusals."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

import lmmsparse as lmm
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.engine.generalized.scores import informations, scores

SCHOOLS = 14


@cache
def data() -> pd.DataFrame:
    """Classes in schools."""
    rng = np.random.default_rng(3)
    s = np.repeat(np.arange(SCHOOLS), 20)
    h = np.repeat(np.arange(SCHOOLS * 4), 5)
    n = len(s)
    frame = pd.DataFrame({"s": s, "h": h, "x": rng.normal(size=n)})
    eta = 0.3 + 0.5 * frame["x"] + 0.7 * rng.normal(size=SCHOOLS)[s]
    eta += 0.5 * rng.normal(size=SCHOOLS * 4)[h]
    frame["count"] = rng.poisson(rng.gamma(3.0, np.exp(eta) / 3.0))
    frame["yes"] = (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(int)
    frame["positive"] = rng.gamma(2.0, np.exp(eta) / 2.0)
    frame["w"] = rng.integers(1, 4, n).astype(float)
    return frame


CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nested": ("count ~ x + (1 | s) + (1 | h)", "poisson", {}),
    "slopes": ("count ~ x + (x | s) + (1 | h)", "poisson", {"weights": "w"}),
    "one factor": ("yes ~ x + (x | s)", "binomial", {}),
    "two terms": ("count ~ x + (x || s)", "poisson", {}),
    "dispersion": ("positive ~ x + (1 | s) + (1 | h)", "gamma(log)", {}),
    "expected": ("positive ~ x + (1 | s)", "gamma(log)", {"information": "expected"}),
    "negative binomial": ("count ~ x + (1 | s)", "negative_binomial", {}),
    "quadrature": ("yes ~ x + (1 | s)", "binomial", {"n_agq": 7}),
    "quadrature, slopes": ("yes ~ x + (x | s)", "binomial", {"n_agq": 5}),
    "quadrature, dispersion": ("count ~ x + (1 | s)", "negative_binomial", {"n_agq": 5}),
}


@cache
def model(name: str) -> Any:
    formula, family, options = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmm.glmer(formula, data(), family, **options)


def aside(m: Any) -> Parameters:
    """A point where no score is near zero."""
    at, own = m.fit.parameters, m.fit.family.estimates_delta
    return Parameters(1.1 * at.beta + 0.1, 0.8 * at.theta + 0.05, at.delta + 0.1 * own)


@pytest.mark.parametrize("name", CASES)
def test_scores_add_up_to_the_gradient(name: str) -> None:
    m, codes = model(name), data()["s"].to_numpy()
    point = m.fit.problem.deviance.point(aside(m))
    total = scores(point, codes, SCHOOLS).sum(axis=0)
    np.testing.assert_allclose(total, point.gradient, atol=1e-12 * np.abs(total).max())


@pytest.mark.parametrize("name", CASES)
def test_a_score_is_what_a_cluster_adds_to_the_slope(name: str) -> None:
    """By differences of the likelihood with and without one school."""
    m = model(name)
    formula, family, options = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rest = lmm.glmer(formula, data()[data()["s"] != 5], family, **options)
    at, basis = aside(m), m.fit.problem.rows.basis
    p, d = len(at.beta), len(at.theta)
    x = np.concatenate([basis.coefficients(at.beta), at.theta, [at.delta]])
    own = scores(m.fit.problem.deviance.point(at), data()["s"].to_numpy(), SCHOOLS)[5]
    own[:p] = own[:p] @ basis.R

    def added(x: np.ndarray) -> float:
        own_scale = np.exp(x[-1]) if m.fit.family.estimates_delta else None
        each = [one.criterion_at(x[:p], x[p : p + d], own_scale) for one in (m, rest)]
        return float(each[0] - each[1])

    for i, got in enumerate(own):
        step = np.zeros(len(x))
        step[i] = 1e-5
        found = (added(x + step) - added(x - step)) / 2e-5
        assert got == pytest.approx(found, abs=1e-6 * np.abs(own).max())


@pytest.mark.parametrize("name", CASES)
def test_the_sandwich(name: str) -> None:
    """All kinds, from the definition in the columns of the user."""
    m, codes = model(name), data()["s"].to_numpy()
    own, p = scores(m.fit.point, codes, SCHOOLS), m.fit.design.p
    R = m.fit.problem.rows.basis.R
    own[:, :p] = own[:, :p] @ R
    bread, ratio = m.fit.joint_covariance / 2.0, SCHOOLS / (SCHOOLS - 1.0)
    V = (bread @ own.T @ own @ bread)[:p, :p]
    np.testing.assert_allclose(m.vcov_robust("s", "CR0"), V, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(m.vcov_robust(data()["s"], "CR1"), ratio * V, rtol=1e-9, atol=1e-14)
    parts = R.T @ informations(m.fit.point, codes, SCHOOLS) @ R
    root = scipy.linalg.sqrtm(parts.sum(axis=0)).real
    inverse = np.linalg.inv(root)
    for kind, power in (("CR2", -0.5), ("CR3", -1.0)):
        adjusted = own.copy()
        for j in range(SCHOOLS):
            left = np.eye(p) - inverse @ parts[j] @ inverse
            adjust = scipy.linalg.fractional_matrix_power(left, power).real
            adjusted[j, :p] = root @ adjust @ inverse @ own[j, :p]
        V = (bread @ adjusted.T @ adjusted @ bread)[:p, :p]
        np.testing.assert_allclose(m.vcov_robust("s", kind), V, rtol=1e-8, atol=1e-13)


def test_degrees_of_freedom() -> None:
    """Those of the linear model with the working weights and responses, its θ and σ held."""
    m = model("slopes")
    point = m.fit.point
    working = data().assign(w=point.mode.at.w, z=point.mode.eta + point.mode.at.s / point.mode.at.w)
    held = {**dict(zip(m.theta.index, m.theta, strict=True)), "sigma": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        linear = lmm.lmer("z ~ x + (x | s) + (1 | h)", working, weights="w", fixed=held, reml=False)
    for kind in ("CR0", "CR3"):
        one, other = (each.coef_table(robust=kind, cluster="s") for each in (m, linear))
        np.testing.assert_allclose(one["df"], other["df"], rtol=1e-6)


def test_cbpp() -> None:
    """lme4's likelihood with and without each herd, and its Hessian, by differences."""
    cbpp = lmm.load_dataset("cbpp")
    m = lmm.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, "binomial")
    se = np.sqrt(np.diag(m.vcov_robust("herd", "CR1")))
    np.testing.assert_allclose(se, [0.296287, 0.470261, 0.531228, 0.374518], rtol=2e-5)


def test_tables_agree_with_one_another() -> None:
    m = model("nested")
    V, how = m.vcov_robust("s"), {"robust": "CR2", "cluster": "s"}
    se = np.sqrt(np.diag(V))
    table = m.coef_table(level=0.9, **how)
    np.testing.assert_allclose(table["Std. Error"], se)
    np.testing.assert_allclose(table["t value"], m.fixef / se)
    tidied = m.tidy("fixed", conf_int=True, level=0.9, **how)
    np.testing.assert_allclose(tidied["std_error"], se)
    np.testing.assert_allclose(tidied["df"], table["df"])
    np.testing.assert_allclose(tidied["conf_low"], table["lower.CL"])
    assert "(CR2 standard errors by s, Satterthwaite's degrees of freedom)" in str(m.summary(**how))
    assert "CR2 standard errors by s: 14 clusters." in str(table)
    one = m.contrast({"x": 1}, **how)
    np.testing.assert_allclose(one["Std. Error"], se[1])
    np.testing.assert_allclose(one["df"], table["df"].iloc[1])
    F = float(m.fixef["x"] ** 2 / V.iloc[1, 1])
    for terms in (m.anova(**how), lmm.anova(m, **how)):
        np.testing.assert_allclose(terms["F value"], F)
        np.testing.assert_allclose(terms["DenDF"], table["df"].iloc[1])
    slopes = m.emtrends(None, "x", **how)
    np.testing.assert_allclose(slopes["SE"], se[1])
    means = m.emmeans("x", at={"x": [0.0]}, type="response", **how)
    np.testing.assert_allclose(means["SE"], se[0] * np.exp(m.fixef["Intercept"]))
    np.testing.assert_allclose(means["df"], table["df"].iloc[0])
    np.testing.assert_allclose(m.joint_tests(**how)["F.ratio"], F)


def test_the_outermost_factor_is_the_default() -> None:
    m = model("nested")
    np.testing.assert_array_equal(m.vcov_robust(), m.vcov_robust("s"))


def test_a_right_model_has_about_the_same_errors() -> None:
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(400), 6)
    d = pd.DataFrame({"g": g, "x": rng.normal(size=len(g))})
    d["y"] = rng.poisson(np.exp(0.5 + 0.3 * d["x"] + 0.5 * rng.normal(size=400)[g]))
    m = lmm.glmer("y ~ x + (1 | g)", d, "poisson")
    ratio = np.sqrt(np.diag(m.vcov_robust("g")) / np.diag(m.vcov))
    np.testing.assert_allclose(ratio, 1.0, atol=0.12)
    # Overdispersed within groups: the model's errors are too small, the clusters' are not.
    d["y"] = rng.negative_binomial(1.0, 1.0 / (1.0 + d["y"].clip(lower=0.2)))
    m = lmm.glmer("y ~ x + (1 | g)", d, "poisson")
    assert np.sqrt(np.diag(m.vcov_robust("g")) / np.diag(m.vcov))[1] > 1.2


def test_units_do_not_matter() -> None:
    one = model("dispersion").vcov_robust("s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scaled = data().assign(x=1000.0 * data()["x"] + 5e4)
        m = lmm.glmer("positive ~ x + (1 | s) + (1 | h)", scaled, "gamma(log)")
    assert m.vcov_robust("s").iloc[1, 1] == pytest.approx(1e-6 * one.iloc[1, 1], rel=1e-4)


def test_few_clusters() -> None:
    d = data().query("s < 4").assign(f=lambda d: d["s"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.glmer("count ~ factor(f) + x + (1 | h)", d, "poisson")
        terms = m.anova(robust="CR2", cluster=d["s"])
        table = m.coef_table(robust="CR2", cluster=d["s"])
    assert np.isnan(terms["F value"]["factor(f)"])
    assert terms["F value"]["x"] > 0
    assert "too few clusters" in str(terms)
    assert "few clusters tell" in str(table)
    with pytest.warns(lmm.DesignWarning, match="There are 4 clusters of"):
        m.vcov_robust(d["s"])


def test_informations_add_up() -> None:
    for name in ("slopes", "quadrature, slopes"):
        point, codes = model(name).fit.point, data()["s"].to_numpy()
        total = informations(point, codes, SCHOOLS).sum(axis=0)
        np.testing.assert_allclose(total, point.information, rtol=1e-12, atol=1e-12)


def test_refusals() -> None:
    m = model("nested")
    with pytest.raises(lmm.OptionError, match="kind must be 'CR0', 'CR1', 'CR2' or 'CR3'"):
        m.vcov_robust("s", kind="HC3")
    with pytest.raises(lmm.OptionError, match="Pass robust='CR2' too"):
        m.coef_table(cluster="s")
    with pytest.raises(lmm.OptionError, match="'s'"):
        m.vcov_robust("h")
    with pytest.raises(lmm.OptionError, match="are for the terms of one model"):
        lmm.anova(m, model("slopes"), robust="CR1")
    quick = lmm.glmer("yes ~ x + (1 | s)", data(), "binomial", n_agq=0)
    with pytest.raises(lmm.OptionError, match="Fit with n_agq=1"):
        quick.vcov_robust("s")


def test_a_coefficient_without_a_bound_has_no_error() -> None:
    d = data().assign(f=np.where(data()["x"] > 1.5, "all", "some"))
    d.loc[d["f"] == "all", "yes"] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.glmer("yes ~ f + (1 | s)", d, "binomial")
        V = m.vcov_robust("s")
        table = m.coef_table(robust="CR1")
        means = m.emmeans("f", robust="CR1")
    assert np.isinf(np.diag(V)).all()
    assert np.isinf(table["Std. Error"]).all()
    assert np.isinf(means["SE"]["all"])
    assert np.isnan(m.anova(robust="CR1")["F value"]["f"])
