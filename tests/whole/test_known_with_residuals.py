"""Known covariances of levels beside structures of the residuals."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import known
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.inference.df.information import variance_parts


@cache
def data() -> pd.DataFrame:
    d = known.data().copy()
    d["sex"] = np.where(np.arange(len(d)) % 3, "f", "m")
    d["visit"] = d.groupby("id").cumcount()
    return d


@cache
def fitted(name: str) -> Any:
    options: dict[str, dict[str, str]] = {
        "unequal": {"residual_sd": "~ sex"},
        "ar1": {"residual": "ar1(visit | id)"},
    }
    formula = "y ~ x + (1 + x | id) + (1 | herd)" if name == "unequal" else "y ~ x + (1 | id)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        return lmm.lmer(formula, data(), known=known.known_of("(1 | id)"), **options[name])


def covariance(name: str, theta: known.Array, phi: known.Array) -> known.Array:
    """V / σ², dense."""
    m = fitted(name)
    design, d = m.fit.design, data()
    Z = design.Z.toarray()
    if name == "unequal":
        R = np.diag(np.where(d["sex"] == "m", np.exp(2.0 * phi[0]), 1.0))
    else:
        rho = float(np.tanh(phi[0]))
        lag = np.abs(np.subtract.outer(d["visit"].to_numpy(), d["visit"].to_numpy()))
        together = d["id"].to_numpy()[:, None] == d["id"].to_numpy()
        R = np.where(together, np.float_power(rho, lag), 0.0)
    return np.asarray(R + Z @ known.covariance_of_effects(design, theta) @ Z.T)


def criterion(name: str, theta: known.Array, phi: known.Array) -> float:
    design = fitted(name).fit.design
    X, df = design.X, design.n - design.p
    L = np.linalg.cholesky(covariance(name, theta, phi))
    WX, Wy = np.linalg.solve(L, X), np.linalg.solve(L, design.y)
    beta = np.linalg.lstsq(WX, Wy, rcond=None)[0]
    r2 = float(np.sum((Wy - WX @ beta) ** 2))
    value = 2.0 * np.log(np.diag(L)).sum() + np.linalg.slogdet(WX.T @ WX)[1]
    return float(value + df * (1.0 + np.log(2.0 * np.pi * r2 / df)))


@pytest.mark.parametrize("name", ["unequal", "ar1"])
def test_criterion_and_gradient_are_those_of_the_definition(name: str) -> None:
    joint = fitted(name).fit.problem.joint
    d = joint.template.n_theta
    rng = np.random.default_rng(1)
    for _ in range(2):
        theta, phi = rng.uniform(0.3, 1.0, d), rng.uniform(0.1, 0.5, 1)
        assert joint(theta, phi) == pytest.approx(criterion(name, theta, phi), rel=1e-11)
        x, h = np.append(theta, phi), 1e-4
        got = joint.gradient(theta, phi)
        for i in range(d + 1):
            e = h * (np.arange(d + 1) == i)
            f = [criterion(name, *np.split(x + k * e, [d])) for k in (-2, -1, 1, 2)]
            want = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
            assert got[i] == pytest.approx(want, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("name", ["unequal", "ar1"])
def test_estimates_and_what_kenward_roger_needs(name: str) -> None:
    m = fitted(name)
    design, fit = m.fit.design, m.fit
    assert m.reml_criterion == pytest.approx(criterion(name, fit.theta, fit.phi), abs=1e-8)
    V = covariance(name, fit.theta, fit.phi)
    inverse = np.linalg.inv(V)
    vcov = m.sigma**2 * np.linalg.inv(design.X.T @ inverse @ design.X)
    np.testing.assert_allclose(m.vcov, vcov, rtol=1e-7)
    G = known.covariance_of_effects(design, fit.theta)
    b = G @ design.Z.toarray().T @ inverse @ (design.y - design.X @ fit.beta)
    np.testing.assert_allclose(fit.b, b, rtol=1e-6, atol=1e-8)
    # The first parameter is the variance of the intercepts of id.
    Z = (design.blocks[0].codes[:, None] == np.arange(60)).astype(float)
    first = Z @ known.covariance_of_levels(design.blocks[0]) @ Z.T
    traces = variance_parts(fit).traces()
    want = np.trace(inverse @ first @ inverse @ first)
    assert traces[0, 0] == pytest.approx(want, rel=1e-8)
    table = m.coef_table(ddf="kenward-roger").to_frame()
    assert (table["df"] > 0).all()


def test_a_known_covariance_is_kept_by_the_smaller_model() -> None:
    m = fitted("unequal")
    small = lmm.lmer("y ~ x + (1 + x | id) + (1 | herd)", data(), known=known.known_of("(1 | id)"))
    assert m.reml_criterion <= small.reml_criterion + 1e-6
