"""Cluster-robust standard errors of generalized models: scores, sandwich, tables, refusals."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.engine.generalized.scores import scores

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
    m = model(name)
    own = scores(m.fit.point, data()["s"].to_numpy(), SCHOOLS)
    p = m.fit.design.p
    own[:, :p] = own[:, :p] @ m.fit.problem.rows.basis.R
    bread = m.fit.joint_covariance / 2.0
    want = (bread @ own.T @ own @ bread)[:p, :p]
    got = m.vcov_robust("s", "CR0")
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)
    ratio = SCHOOLS / (SCHOOLS - 1.0)
    np.testing.assert_allclose(m.vcov_robust(data()["s"]), ratio * want, rtol=1e-10, atol=1e-14)


def test_tables_agree_with_one_another() -> None:
    m = model("nested")
    V, how = m.vcov_robust("s"), {"robust": "CR1", "cluster": "s"}
    se = np.sqrt(np.diag(V))
    table = m.coef_table(level=0.9, **how)
    np.testing.assert_allclose(table["Std. Error"], se)
    np.testing.assert_allclose(table["z value"], m.fixef / se)
    tidied = m.tidy("fixed", conf_int=True, level=0.9, **how)
    np.testing.assert_allclose(tidied["std_error"], se)
    np.testing.assert_allclose(tidied["conf_low"], table["lower.CL"])
    assert "(CR1 standard errors by s)" in str(m.summary(**how))
    assert "CR1 standard errors by s: 14 clusters." in str(table)
    assert "p-values tend to be too small" in str(table)
    one = m.contrast({"x": 1}, **how)
    np.testing.assert_allclose(one["Std. Error"], se[1])
    chi2 = float(m.fixef["x"] ** 2 / V.iloc[1, 1])
    for terms in (m.anova(**how), lmm.anova(m, **how)):
        np.testing.assert_allclose(terms["Chisq"], chi2)
    slopes = m.emtrends(None, "x", **how)
    np.testing.assert_allclose(slopes["SE"], se[1])
    means = m.emmeans("x", at={"x": [0.0]}, type="response", **how)
    np.testing.assert_allclose(means["SE"], se[0] * np.exp(m.fixef["Intercept"]))
    np.testing.assert_allclose(m.joint_tests(**how)["F.ratio"], chi2)


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


def test_more_coefficients_than_clusters_tell_of() -> None:
    d = data().assign(f=data()["s"] % 4).query("s < 4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.glmer("count ~ factor(f) + x + (1 | h)", d, "poisson")
        table = m.anova(robust="CR1", cluster=d["s"])
    assert np.isnan(table["Chisq"]["factor(f)"])
    assert "too few clusters" in str(table)
    with pytest.warns(lmm.DesignWarning, match="There are 4 clusters of"):
        m.vcov_robust(d["s"])


def test_refusals() -> None:
    m = model("nested")
    with pytest.raises(lmm.OptionError, match="as linear models have them"):
        m.coef_table(robust="CR2")
    with pytest.raises(lmm.OptionError, match="must be 'CR0' or 'CR1'"):
        m.vcov_robust("s", kind="HC3")
    with pytest.raises(lmm.OptionError, match="Pass robust='CR1' too"):
        m.coef_table(cluster="s")
    with pytest.raises(lmm.OptionError, match="'s'"):
        m.vcov_robust("h")
    with pytest.raises(lmm.OptionError, match="are for the terms of one model"):
        lmm.anova(m, model("slopes"), robust="CR1")
    quick = lmm.glmer("yes ~ x + (1 | s)", data(), "binomial", n_agq=0)
    with pytest.raises(lmm.OptionError, match="Fit with n_agq=1"):
        quick.vcov_robust("s")


def test_a_coefficient_without_a_bound_has_no_error() -> None:
    d = data().assign(f=np.where(data()["s"] < 2, "none", "some"))
    d.loc[d["f"] == "none", "count"] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.glmer("count ~ f + x + (1 | s)", d, "poisson")
        V = m.vcov_robust("s")
    assert np.isinf(np.diag(V)).any()
    assert np.isfinite(V.loc["x", "x"])
