"""Correlated residuals beside a known covariance of the levels, against n × n matrices."""

from __future__ import annotations

import known
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm


def _data() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(3)
    A = known.relationships(known.pedigree())
    level = np.linalg.cholesky(A.to_numpy()) @ rng.normal(size=len(A))
    measured = A.index[10:]
    noise = rng.normal(size=(len(measured), 4))
    for k in range(1, 4):
        noise[:, k] = 0.5 * noise[:, k - 1] + 0.8 * noise[:, k]
    data = pd.DataFrame(
        {
            "y": np.repeat(2.0 * level[10:], 4) + noise.ravel(),
            "id": np.repeat(measured, 4),
            "t": np.tile(np.arange(4), len(measured)),
        }
    )
    return data, A


def test_an_animal_model_with_correlated_residuals() -> None:
    data, A = _data()
    m = lmm.lmer(
        "y ~ t + (1 | id)", data, known={"id": A}, residual="ar1(t | id)", residual_sd="~ t"
    )
    fit, n = m.fit, len(data)
    Z = pd.get_dummies(data["id"]).reindex(columns=A.index, fill_value=0).to_numpy(float)

    def criterion(theta: np.ndarray, phi: np.ndarray) -> float:
        V = fit.structure.block(phi, np.arange(n)) + theta[0] ** 2 * Z @ A.to_numpy() @ Z.T
        X, y, W = fit.design.X, fit.design.y, np.linalg.inv(V)
        B = X.T @ W @ X
        r = y - X @ np.linalg.solve(B, X.T @ W @ y)
        value = np.linalg.slogdet(V)[1] + np.linalg.slogdet(B)[1]
        return float(value + (n - 2) * (1 + np.log(2 * np.pi * (r @ W @ r) / (n - 2))))

    joint, theta, phi = fit.problem.joint, 1.1 * fit.theta, fit.phi + 0.1
    assert joint(theta, phi) == pytest.approx(criterion(theta, phi), abs=1e-9)
    gradient = joint.gradient(theta, phi)
    assert gradient[0] == pytest.approx(
        (criterion(theta + 1e-5, phi) - criterion(theta - 1e-5, phi)) / 2e-5, rel=1e-6
    )
    for i in range(2):
        h = 1e-5 * (np.arange(2) == i)
        wanted = (criterion(theta, phi + h) - criterion(theta, phi - h)) / 2e-5
        assert gradient[1 + i] == pytest.approx(wanted, rel=1e-6)
    assert m.convergence.converged
    assert m.coef_table("satterthwaite").to_frame()["df"].notna().all()
    assert m.coef_table("kenward-roger").to_frame()["df"].notna().all()
