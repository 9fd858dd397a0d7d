"""What people who come from R write, and numbers at the edge: right, or said not to be."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, special, stats

import lmmsparse as lmm
from lmmsparse.engine.families import Binomial, Family, Poisson
from lmmsparse.results.generalized import marginal_mean


def cbpp() -> pd.DataFrame:
    return lmm.load_dataset("cbpp")


def codes(m: Any) -> set[str]:
    return {finding.code for finding in m.convergence.findings}


def quietly(*args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        return lmm.glmer(*args, **options)


def test_weights_beside_a_quotient_are_its_trials() -> None:
    once = quietly("incidence / size ~ period + (1 | herd)", cbpp(), "binomial")
    twice = quietly("incidence / size ~ period + (1 | herd)", cbpp(), "binomial", weights="size")
    assert twice.minus2loglik == pytest.approx(once.minus2loglik, abs=1e-9)
    assert once.minus2loglik == pytest.approx(184.052564, abs=1e-6)
    other = quietly(
        "incidence / size ~ period + (1 | herd)", cbpp().assign(w=2.0), "binomial", weights="w"
    )
    assert "weights-beside-trials" in codes(other)


def test_proportions_without_trials_are_said() -> None:
    data = cbpp()
    data["prop"] = data["incidence"] / data["size"]
    m = quietly("prop ~ period + (1 | herd)", data, "binomial")
    told = next(f for f in m.convergence.findings if f.code == "not-whole")
    assert told.level == "warning"
    assert "weights=" in told.message


def test_start_is_any_sequence() -> None:
    formula = "incidence / size ~ period + (1 | herd)"
    m = quietly(formula, cbpp(), "binomial", start=[0.1])
    assert m.minus2loglik == pytest.approx(184.052564, abs=1e-6)
    with pytest.raises(lmm.OptionError, match="start must be numbers"):
        lmm.glmer(formula, cbpp(), "binomial", start="low")


def test_residuals_have_the_name_that_linear_models_have() -> None:
    m = quietly("incidence / size ~ period + (1 | herd)", cbpp(), "binomial")
    for kind in ("deviance", "pearson", "response", "working", "quantile"):
        pd.testing.assert_series_equal(m.residuals_of(kind), m.residuals(kind))


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("zip", "glmmTMB"),
        ("zero-inflated", "glmmTMB"),
        ("tweedie", "glmmTMB"),
        ("quasipoisson", "negative_binomial"),
        ("ordinal", "ordinal"),
        ("cauchy", "Pass one of"),
    ],
)
def test_families_that_are_not_here(family: str, said: str) -> None:
    with pytest.raises(lmm.OptionError, match=said):
        lmm.glmer("incidence ~ period + (1 | herd)", cbpp(), family)


def test_a_log_link_needs_a_positive_mean() -> None:
    cake = lmm.load_dataset("cake")
    cake["angle"] -= 40
    with pytest.raises(lmm.DataError, match="mean must be positive"):
        lmm.glmer("angle ~ temp + (1 | replicate)", cake, lmm.families.Gaussian("log"))


@pytest.mark.parametrize("sd", [0.0, 0.3, 2.0, 15.0, 80.0])
@pytest.mark.parametrize(
    "family", [Binomial(), Binomial("cloglog"), Binomial("cauchit"), Poisson()]
)
def test_means_over_random_effects_by_integration(family: Family, sd: float) -> None:
    if isinstance(family, Poisson) and sd > 2:
        pytest.skip("no number holds it")
    for eta in (-3.0, 0.5, 7.0):
        mine = marginal_mean(family, np.array([eta]), np.array([sd]))[0]
        inverse = {
            "logit": special.expit,
            "cloglog": lambda x: -np.expm1(-np.exp(min(x, 300.0))),
            "cauchit": stats.cauchy.cdf,
            "log": np.exp,
        }[family.link]
        points = [] if sd == 0 else [-eta / sd]
        want, _ = integrate.quad(
            lambda z: inverse(eta + sd * z) * stats.norm.pdf(z),  # noqa: B023
            -9.5,
            9.5,
            points=points,
            limit=400,
            epsabs=1e-12,
        )
        assert mine == pytest.approx(want, rel=1e-6, abs=1e-10)
