"""A fixed-effects matrix that is mostly zeros is kept sparse, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmsparse as lmm
from lmmsparse.engine.columns import orthonormal
from lmmsparse.fit.fitting import fit_design


def _some_filled(n: int, p: int, share: float) -> np.ndarray:
    rng = np.random.default_rng(17)
    return rng.random((n, p)) * (rng.random((n, p)) < share)


N = 900


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(17)
    item = np.concatenate([np.arange(90), rng.integers(90, size=N - 90)])
    group, x = rng.integers(30, size=N), rng.normal(size=N)
    y = (
        rng.normal(size=90)[item]
        + rng.normal(size=30)[group]
        + (0.5 + rng.normal(size=30)[group]) * x
    )
    y += rng.normal(size=N)
    weights = rng.uniform(0.5, 2.0, size=N)
    return pd.DataFrame(
        {"y": y, "x": x, "item": pd.Categorical(item), "g": group, "w": weights, "h": item // 9}
    )


FRAME = _frame()
FORMULA = "y ~ x + item + (1 + x | g)"


@pytest.fixture(scope="module", params=[None, "w"])
def models(request: pytest.FixtureRequest) -> tuple[lmm.LinearMixedModel, lmm.LinearMixedModel]:
    sparse = lmm.lmer(FORMULA, FRAME, weights=request.param)
    dense = replace(sparse.fit.design, fixed=sparse.fit.design.X)
    return sparse, lmm.LinearMixedModel(fit_design(dense))


def test_the_same_fit(models: tuple[lmm.LinearMixedModel, lmm.LinearMixedModel]) -> None:
    sparse, dense = models
    assert isinstance(sparse.fit.design.fixed, sp.csr_array)
    assert sparse.reml_criterion == pytest.approx(dense.reml_criterion, rel=1e-11)
    np.testing.assert_allclose(sparse.theta, dense.theta, rtol=1e-5)
    np.testing.assert_allclose(sparse.fixef, dense.fixef, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(sparse.se, dense.se, rtol=1e-6)
    np.testing.assert_allclose(sparse.fitted, dense.fitted, rtol=1e-6, atol=1e-7)
    theta = np.array([0.7, 0.1, 0.4])
    assert sparse.fit.objective(theta) == pytest.approx(dense.fit.objective(theta), rel=1e-12)
    np.testing.assert_allclose(
        sparse.fit.objective.gradient(theta), dense.fit.objective.gradient(theta), rtol=1e-8
    )


def test_the_same_afterwards(
    models: tuple[lmm.LinearMixedModel, lmm.LinearMixedModel], tmp_path: Path
) -> None:
    sparse, dense = models
    new = FRAME.iloc[:7]
    np.testing.assert_allclose(sparse.predict(new), dense.fitted.iloc[:7], rtol=1e-6)
    np.testing.assert_allclose(
        sparse.predict(se=True)["se"], dense.predict(se=True)["se"], rtol=1e-5
    )
    Y = sparse.simulate(3, rng=2)
    np.testing.assert_allclose(Y, dense.simulate(3, rng=2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        sparse.refit_many(Y)["criterion"], dense.refit_many(Y)["criterion"], rtol=1e-9
    )
    np.testing.assert_allclose(sparse.influence().leverage, dense.influence().leverage, rtol=1e-5)
    sparse.save(tmp_path / "model")
    again = lmm.load(tmp_path / "model")
    np.testing.assert_array_equal(again.fit.design.X, sparse.fit.design.X)
    assert again.reml_criterion == pytest.approx(sparse.reml_criterion, rel=1e-12)


def test_dependent_columns_are_dropped() -> None:
    frame = FRAME.assign(h=pd.Categorical(FRAME["h"]))
    with pytest.warns(lmm.DesignWarning, match="linearly dependent: 9 of"):
        model = lmm.lmer("y ~ item + h + (1 | g)", frame)
    alone = lmm.lmer("y ~ item + (1 | g)", frame)
    assert model.reml_criterion == pytest.approx(alone.reml_criterion, rel=1e-11)


@pytest.mark.parametrize("weighted", [False, True])
def test_orthonormal_columns(weighted: bool) -> None:
    X = sp.csr_array(_some_filled(200, 12, 0.2) + np.eye(200, 12))
    weights = np.random.default_rng(18).uniform(0.1, 3.0, size=200) if weighted else None
    Q, basis = orthonormal(X, weights)
    assert Q.R is not None
    full = Q.times(np.eye(12))
    W = np.eye(200) if weights is None else np.diag(weights)
    np.testing.assert_allclose(full.T @ W @ full, np.eye(12), atol=1e-12)
    np.testing.assert_allclose(full @ basis.R, X.toarray(), atol=1e-12)
    dense = orthonormal(X.toarray(), weights)[1]
    assert basis.logdet == pytest.approx(dense.logdet, rel=1e-12)
    np.testing.assert_allclose(Q.transposed_times(np.ones(200)), full.T @ np.ones(200), atol=1e-12)


def test_nearly_dependent_columns_go_the_dense_way() -> None:
    first = _some_filled(100, 3, 0.3)
    X = np.column_stack([first, first[:, 0] + 1e-5 * first[:, 1] * np.arange(100)])
    assert orthonormal(sp.csr_array(X))[0].R is None
