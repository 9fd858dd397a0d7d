"""Cluster-robust covariances of models with correlated residuals, against the definition."""

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    sizes = rng.integers(3, 9, 12)
    g = np.repeat(np.arange(12), sizes)
    t = np.concatenate([np.sort(rng.choice(12, size, replace=False)) for size in sizes])
    x, z = rng.normal(size=(2, len(g)))
    y = 1.0 + 0.5 * x + rng.normal(size=12)[g] + rng.normal(size=len(g))
    order = rng.permutation(len(g))
    return pd.DataFrame({"y": y, "x": x, "z": z, "g": g, "t": t}).iloc[order]


def covariance(model, data):
    """V of the rows, dense."""
    parameters = model.tidy("ran_pars").set_index("term")["estimate"]
    sd = np.asarray(model.fit.residual_sd)
    g, t = data["g"].to_numpy(), data["t"].to_numpy()
    same = g[:, None] == g
    correlation = parameters["Phi"] ** np.abs(t[:, None] - t)
    return np.where(same, parameters["sd__Intercept"] ** 2 + sd[:, None] * sd * correlation, 0.0)


def robust(X, y, V, cluster, kind):
    """Pustejovsky & Tipton (2018), equations 3 to 8, with V as working model."""
    inverse = np.linalg.inv(V)
    bread = np.linalg.inv(X.T @ inverse @ X)
    hat = X @ bread @ X.T @ inverse
    residual = y - hat @ y
    meat = np.zeros((X.shape[1],) * 2)
    for level in np.unique(cluster):
        i = np.flatnonzero(cluster == level)
        A = np.eye(len(i))
        if kind == "CR2":
            D = np.linalg.cholesky(V[np.ix_(i, i)]).T
            left = (np.eye(len(y)) - hat)[i]
            values, vectors = np.linalg.eigh(D @ left @ V @ left.T @ D.T)
            A = D.T @ (vectors / np.sqrt(values)) @ vectors.T @ D
        elif kind == "CR3":
            A = np.linalg.inv(np.eye(len(i)) - hat[np.ix_(i, i)])
        score = X[i].T @ inverse[np.ix_(i, i)] @ A @ residual[i]
        meat += np.outer(score, score)
    return bread @ meat @ bread


@pytest.mark.parametrize("kind", ["CR0", "CR2", "CR3"])
def test_correlated_residuals_of_unequal_spread(data, kind):
    m = lmm.lmer("y ~ x + (1 | g)", data, residual="ar1(t | g)", residual_sd="~ z")
    X = np.column_stack([np.ones(len(data)), data["x"]])
    want = robust(X, data["y"].to_numpy(), covariance(m, data), data["g"].to_numpy(), kind)
    np.testing.assert_allclose(m.vcov_robust("g", kind), want, rtol=1e-8)


def test_without_random_effects_the_groups_of_the_residuals_are_the_clusters(data):
    m = lmm.lmer("y ~ x", data, residual="ar1(t | g)")
    by_default, by_name = m.vcov_robust(), m.vcov_robust("g")
    by_labels = m.vcov_robust(data["g"])
    pd.testing.assert_frame_equal(by_default, by_name)
    pd.testing.assert_frame_equal(by_default, by_labels)
    assert not np.allclose(by_default, m.vcov)


def test_residuals_that_are_correlated_across_clusters_are_refused(data):
    m = lmm.lmer("y ~ x", data, residual="ar1(t | g)")
    with pytest.raises(OptionError, match="Residuals are correlated within 'g'"):
        m.vcov_robust((data["t"] > 5).astype(int))
