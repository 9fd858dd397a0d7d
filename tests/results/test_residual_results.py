"""Predictions, simulations and influence with residual structures, against n × n matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from residual_models import covariance, teeth

import lmmsparse as lmm

Array = np.ndarray[Any, Any]

MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "ar1": (
        "y ~ visit * sex + (1 | child)",
        {"residual": "ar1(visit | child)", "residual_sd": "~ sex"},
    ),
    "car1": ("y ~ age * sex", {"residual": "car1(age | child)"}),
    "cs": ("y ~ visit * sex", {"residual": "cs(visit | child)", "residual_sd": "~ sex"}),
    "us": ("y ~ C(visit) * sex", {"residual": "us(visit | child)"}),
    "sd": ("y ~ visit * sex + (visit | child)", {"residual_sd": "~ log(age)"}),
    "weights": ("y ~ visit * sex + (1 | child)", {"residual": "ar1(visit | child)"}),
}


def _model(name: str) -> Any:
    formula, options = MODELS[name]
    data = _data()
    weights = "w" if name == "weights" else None
    return lmm.lmer(formula, data, weights=weights, **options)  # type: ignore[arg-type]


def _data() -> pd.DataFrame:
    data = teeth()
    return data.assign(w=1.0 + (np.arange(len(data)) % 3))


def _whole() -> pd.DataFrame:
    """All visits of all children: those that were missed are new rows of known children."""
    data = _data()
    grid = (
        data[["child", "sex"]]
        .drop_duplicates()
        .merge(pd.DataFrame({"visit": range(1, 5)}), "cross")
    )
    whole = grid.merge(data, on=["child", "sex", "visit"], how="left")
    whole["age"] = whole["age"].fillna(6.2 + 2 * whole["visit"])
    return whole.fillna({"w": 2.0})


def _joint(name: str) -> tuple[Any, pd.DataFrame, Array, Array, Array]:
    """The model of all rows, new ones among them: frame, X, V and mask of the known ones."""
    m, whole = _model(name), _whole()
    known = whole["y"].notna().to_numpy()
    formula, options = MODELS[name]
    every = whole.assign(y=whole["y"].fillna(whole["y"].mean()))
    weights = "w" if name == "weights" else None
    twin = lmm.build_design(
        lmm.parse_formula(formula),
        every,
        weights=weights,
        **options,  # type: ignore[arg-type]
    )
    structure = twin.residual.structure(twin.weights)
    law, own = structure.correlation, m.fit.structure.correlation
    phi = np.concatenate(
        [
            law.from_natural(own.natural(m.fit.structure.split(m.fit.phi)[0])),
            m.fit.structure.split(m.fit.phi)[1],
        ]
    )
    R = m.sigma**2 * structure.block(phi, np.arange(twin.n))
    Z = twin.Z.toarray()
    T = m.fit.template.factors(m.fit.theta)
    G = np.zeros((0, 0))
    if T:
        G = m.sigma**2 * np.kron(np.eye(twin.blocks[0].n_levels), T[0] @ T[0].T)
    return m, whole, twin.X, R + Z @ G @ Z.T, known


@pytest.mark.parametrize("name", MODELS)
def test_a_missed_visit_is_predicted_from_the_others(name: str) -> None:
    m, whole, X, V, known = _joint(name)
    y = whole["y"].to_numpy()[known]
    W = np.linalg.inv(V[np.ix_(known, known)])
    A = np.linalg.inv(X[known].T @ W @ X[known])
    beta = A @ X[known].T @ W @ y
    gain = V[np.ix_(~known, known)] @ W
    want = X[~known] @ beta + gain @ (y - X[known] @ beta)
    found = m.predict(whole[~known], interval="prediction")
    np.testing.assert_allclose(found["fit"], want, rtol=1e-9)
    np.testing.assert_allclose(m.predict(whole[~known]), want, rtol=1e-9)
    left = X[~known] - gain @ X[known]
    error = V[np.ix_(~known, ~known)] - gain @ V[np.ix_(known, ~known)] + left @ A @ left.T
    half = 1.959963984540054 * np.sqrt(np.diag(error))
    np.testing.assert_allclose(found["upper"] - found["fit"], half, rtol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_the_fit_are_predicted_as_fitted(name: str) -> None:
    m = _model(name)
    np.testing.assert_allclose(m.predict(_data()), m.fitted, rtol=1e-10)
    population = m.predict(_data(), random=False)
    np.testing.assert_allclose(population, m.fit.design.X @ m.fixef.to_numpy(), rtol=1e-10)
    both = m.predict(interval="prediction"), m.predict(_data(), interval="prediction")
    np.testing.assert_allclose(both[0], both[1], rtol=1e-8)


@pytest.mark.parametrize("name", MODELS)
def test_limits_for_the_population(name: str) -> None:
    m = _model(name)
    V, _, _ = covariance(m)
    X = m.fit.design.X
    variance = np.einsum("ni,ij,nj->n", X, m.vcov.to_numpy(), X) + np.diag(V)
    found = m.predict(random=False, interval="prediction")
    half = 1.959963984540054 * np.sqrt(variance)
    np.testing.assert_allclose(found["upper"] - found["fit"], half, rtol=1e-9)


def test_new_children_are_correlated_with_nobody() -> None:
    m = _model("ar1")
    new = _data().assign(child="somebody").iloc[[0, 1, 4]]
    found = m.predict(new, new_levels="population")
    np.testing.assert_allclose(found, m.predict(new, random=False), rtol=1e-12)
    with pytest.raises(lmm.DataError, match="has not seen"):
        m.predict(new)


def test_a_visit_that_the_fit_has_not_seen() -> None:
    m = _model("us")
    with pytest.raises(lmm.LmmError, match=r"5|not seen"):
        m.predict(_data().iloc[:3].assign(visit=5))
    later = _model("ar1").predict(_data().iloc[:3].assign(visit=[9, 10, 11]))
    assert np.isfinite(later).all()


@pytest.mark.parametrize("name", MODELS)
def test_simulated_covariance(name: str) -> None:
    m = _model(name)
    V, R, _ = covariance(m)
    draws = m.simulate(4000, rng=1).to_numpy()
    found = np.cov(draws)
    size = np.sqrt(np.outer(np.diag(V), np.diag(V)))
    assert np.abs((found - V) / size).max() < 6 / np.sqrt(4000)
    kept = m.simulate(4000, rng=2, random="keep").to_numpy()
    size = np.sqrt(np.outer(np.diag(R), np.diag(R)))
    assert np.abs((np.cov(kept) - R) / size).max() < 6 / np.sqrt(4000)
    np.testing.assert_allclose(
        kept.mean(axis=1), m.fitted, atol=6 * np.sqrt(np.diag(R).max() / 4000)
    )
    new = m.simulate(4000, rng=3, newdata=_data()).to_numpy()
    assert np.abs((np.cov(new) - V) / np.sqrt(np.outer(np.diag(V), np.diag(V)))).max() < 0.1


@pytest.mark.parametrize("name", MODELS)
def test_influence_of_rows_by_deletion(name: str) -> None:
    m = _model(name)
    V, R, _ = covariance(m)
    X, y = m.fit.design.X, m.fit.design.y
    W = np.linalg.inv(V)
    C = np.linalg.inv(X.T @ W @ X)
    P = W - W @ X @ C @ X.T @ W
    found = m.influence()
    hat = np.eye(len(y)) - R @ P
    np.testing.assert_allclose(found.leverage, np.diag(hat), atol=1e-9)
    np.testing.assert_allclose(found.rstudent, (P @ y) / np.sqrt(np.diag(P)), rtol=1e-7)
    for i in (0, 17, 60):
        keep = np.arange(len(y)) != i
        Wi = np.linalg.inv(V[np.ix_(keep, keep)])
        beta = np.linalg.solve(X[keep].T @ Wi @ X[keep], X[keep].T @ Wi @ y[keep])
        np.testing.assert_allclose(found.dfbeta.iloc[i], beta - m.fixef, atol=1e-8)


@pytest.mark.long
def test_influence_of_children() -> None:
    data = _data()
    for name in ("ar1", "us"):
        m = _model(name)
        found = m.influence("child")
        formula, options = MODELS[name]
        rest = data[data["child"] != "c03"]
        want = lmm.lmer(formula, rest, **options).fixef - m.fixef  # type: ignore[arg-type]
        np.testing.assert_allclose(found.dfbeta.loc["c03"], want, atol=2e-4)


def test_variances_by_stratum_and_visit() -> None:
    m = _model("ar1")
    ratio = np.exp(m.residual.parameters["logsd.sex[T.male]"])
    assert m.residual.sd.index.tolist() == ["female", "male"]
    np.testing.assert_allclose(m.residual.sd, [m.sigma, m.sigma * ratio])
    assert m.residual.correlation is None
    us = _model("us")
    R = us.sigma**2 * us.fit.structure.block(us.fit.phi, np.flatnonzero(_data()["child"] == "c01"))
    np.testing.assert_allclose(us.residual.covariance, R)
    assert lmm.lmer("y ~ visit + (1 | child)", _data()).residual is None


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_shown_everywhere(name: str) -> None:
    m = _model(name)
    shown = m.residual.structure.split(", sd ")[0].removeprefix("sd ")
    for text in (str(m.summary()), repr(m), str(m.varcorr)):
        assert shown in text
    assert "esidual" in m.summary().to_markdown()
    frame = m.varcorr.to_frame()
    assert frame["group"].iloc[-1] == "Residual"
    assert frame["sdcor"].iloc[-1] == m.sigma
    tidy = m.tidy("ran_pars")
    for parameter, value in m.residual.parameters.items():
        assert tidy.loc[tidy["term"] == parameter, "estimate"].item() == value
    assert m.glance()["sigma"].item() == m.sigma
    assert m.npar == len(m.fixef) + len(m.theta) + len(m.residual.parameters) + 1
    assert len(m.augment()) == m.nobs
    assert 0 < m.r2()["marginal"] < 1
    m.all_fit()
    m._repr_html_()
