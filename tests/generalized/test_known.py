"""Generalized models with known covariances: against Laplace's approximation written densely."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import known
import numpy as np
import pandas as pd
import pytest
import scipy.optimize as opt
from scipy.special import gammaln

import lmmsparse as lmm
from lmmsparse.engine.generalized.laplace_point import Parameters

MODELS = {
    "animal": "z ~ x + (1 | id)",
    "animal and herd": "z ~ x + (1 | id) + (1 | herd)",
    "slopes": "z ~ x + (1 + x | id) + (1 | site)",
    "lattice": "z ~ x + (1 | cell) + (1 | pe)",
}


@cache
def data() -> pd.DataFrame:
    d = known.data().copy()
    rng = np.random.default_rng(2)
    eta = 0.6 * (d["y"] - d["y"].mean()).to_numpy()
    d["z"] = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    d["count"] = rng.poisson(np.exp(0.3 * eta))
    return d


@cache
def fitted(name: str, family: str = "binomial", solver: Any = None) -> Any:
    formula = MODELS[name].replace("z ~", "count ~") if family == "poisson" else MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.SingularFitWarning)
        return lmm.glmer(formula, data(), family, known=known.known_of(formula), solver=solver)


def laplace(m: Any, beta: known.Array, theta: known.Array, y: known.Array, poisson: bool) -> float:
    """−2 log-likelihood by Laplace's approximation, b with its dense covariance."""
    design = m.fit.design
    X, Z, y = design.X, design.Z.toarray(), y
    G = known.covariance_of_effects(design, theta)
    R = np.linalg.cholesky(G)
    A = Z @ R
    u = np.zeros(A.shape[1])

    def parts(u: known.Array) -> tuple[float, known.Array, known.Array]:
        eta = X @ beta + A @ u
        if poisson:
            mu = np.exp(eta)
            value = float(np.sum(y * eta - mu - gammaln(y + 1)))
            return value, y - mu, mu
        p = 1.0 / (1.0 + np.exp(-eta))
        return float(np.sum(y * eta - np.logaddexp(0.0, eta))), y - p, p * (1 - p)

    for _ in range(100):
        _, s, w = parts(u)
        step = np.linalg.solve(A.T @ (w[:, None] * A) + np.eye(len(u)), A.T @ s - u)
        u = u + step
        if np.abs(step).max() < 1e-13:
            break
    value, _, w = parts(u)
    M = A.T @ (w[:, None] * A) + np.eye(len(u))
    return float(u @ u - 2.0 * value + np.linalg.slogdet(M)[1])


@pytest.mark.parametrize("family", ["binomial", "poisson"])
@pytest.mark.parametrize("name", MODELS)
def test_the_criterion_is_that_of_the_definition(name: str, family: str) -> None:
    m = fitted(name, family)
    y = m.fit.design.y
    rng = np.random.default_rng(5)
    for _ in range(2):
        beta = rng.normal(size=2) * 0.3
        theta = np.where(m.fit.template.lower == 0, 0.3, -0.2) + rng.uniform(0, 0.6, len(m.theta))
        want = laplace(m, beta, theta, y, family == "poisson")
        assert m.criterion_at(beta=beta, theta=theta) == pytest.approx(want, rel=1e-11)


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_that_of_the_criterion(name: str) -> None:
    m = fitted(name)
    deviance = m.fit.problem.deviance
    rng = np.random.default_rng(6)
    theta = np.where(m.fit.template.lower == 0, 0.4, -0.2) + rng.uniform(0, 0.6, len(m.theta))
    beta = rng.normal(size=2)
    got = deviance.point(Parameters(beta, theta)).gradient
    x = np.concatenate([beta, theta])

    def value(x: known.Array) -> float:
        return float(deviance(Parameters(x[:2], x[2:])))

    h = 1e-4
    for i in range(len(x)):
        e = h * (np.arange(len(x)) == i)
        at = [value(x + k * e) for k in (-2, -1, 1, 2)]
        want = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)
        assert got[i] == pytest.approx(want, rel=1e-6, abs=1e-6)


@pytest.mark.long
def test_the_optimum_is_that_of_the_definition() -> None:
    m = fitted("animal")
    y = m.fit.design.y

    def value(x: known.Array) -> float:
        return laplace(m, x[:2], np.abs(x[2:]), y, False)

    x = np.concatenate([m.fixef, m.theta])
    found = opt.minimize(value, x, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    assert m.minus2loglik == pytest.approx(found.fun, abs=1e-5)
    np.testing.assert_allclose(x, np.abs(found.x) * np.sign(x), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("solver", [lmm.Dense(), lmm.SuperLU(), lmm.Blocked(), lmm.Cholmod()])
def test_solvers_agree(solver: Any) -> None:
    m, other = fitted("animal and herd"), fitted("animal and herd", "binomial", solver)
    assert other.minus2loglik == pytest.approx(m.minus2loglik, abs=1e-6)
    np.testing.assert_allclose(other.fixef, m.fixef, atol=1e-3)


def test_no_quadrature() -> None:
    with pytest.raises(lmm.OptionError, match="n_agq=1"):
        lmm.glmer(MODELS["animal"], data(), "binomial", known=known.known_of("(1 | id)"), n_agq=5)


def test_animals_without_records_have_predictions() -> None:
    m = fitted("animal")
    own = set(data()["id"])
    absent = [label for label in m.ranef["id"].index if label not in own]
    assert absent
    assert (m.ranef["id"].loc[absent].to_numpy() != 0).any()
    new = pd.DataFrame({"id": absent, "x": 0.0})
    frame = m.predict(new, type="link", se=True)
    assert (frame["se"] > 0).all()
    marginal = m.predict(new, random=False, marginal=True)
    assert ((marginal > 0) & (marginal < 1)).all()


def test_a_model_goes_through_a_file_and_a_bootstrap(tmp_path: Path) -> None:
    m = fitted("animal and herd")
    m.save(tmp_path / "m.lmm")
    again = lmm.load(tmp_path / "m.lmm")
    assert again.minus2loglik == m.minus2loglik
    np.testing.assert_array_equal(again.ranef["id"], m.ranef["id"])
    assert m.simulate(2, rng=1).shape == (150, 2)


@pytest.mark.long
@pytest.mark.parametrize("n_agq", [0, 1])
def test_pearson_degrees_of_freedom_are_the_trace_of_the_hat_matrix(n_agq: int) -> None:
    formula = MODELS["animal and herd"]
    m = lmm.glmer(formula, data(), "binomial", known=known.known_of(formula), n_agq=n_agq)
    Z = m.fit.design.Z.toarray()
    V = Z @ known.covariance_of_effects(m.fit.design, m.fit.theta) @ Z.T
    w = m.fit.point.mode.at.w
    hat = np.trace(np.linalg.solve(np.diag(1.0 / w) + V, V))
    left = m.check_dispersion().to_frame()["df"].iloc[0]
    assert left == pytest.approx(150 - 2 - hat, rel=1e-8)
