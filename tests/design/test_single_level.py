"""A single level: what it can tell (several effects that share a variance) and what not."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import lmmsparse as lmm

NAMES = [f"z{i}" for i in range(8)]
SUM = " + ".join(NAMES)


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    d = pd.DataFrame({name: rng.normal(size=100) for name in NAMES})
    d["one"], d["g"] = "a", rng.integers(0, 10, 100)
    d["y"] = rng.normal(size=100) + d[NAMES].to_numpy() @ rng.normal(size=8)
    d["y"] += rng.normal(size=10)[d["g"]]
    return d


def _reml(d: pd.DataFrame, V: np.ndarray) -> float:
    """The REML criterion of a model with an intercept."""
    y, W = d["y"].to_numpy(), np.linalg.inv(V)
    a = W.sum()
    r = y - (W @ y).sum() / a
    n = len(y)
    return float(np.linalg.slogdet(V)[1] + np.log(a) + r @ W @ r + (n - 1) * np.log(2 * np.pi))


def test_effects_that_share_a_variance_are_a_smooth() -> None:
    d = _data()
    m = lmm.lmer(f"y ~ 1 + diag(0 + {SUM} | one, hom=True)", d)
    Z = d[NAMES].to_numpy()

    def criterion(p: np.ndarray) -> float:
        return _reml(d, np.exp(2 * p[0]) * Z @ Z.T + np.exp(2 * p[1]) * np.eye(100))

    best = minimize(criterion, [0.0, 0.0], method="Nelder-Mead", options={"fatol": 1e-11})
    assert m.fit.criterion == pytest.approx(best.fun, abs=1e-7)
    assert m.varcorr.terms[0].sd[0] == pytest.approx(np.exp(best.x[0]), rel=1e-3)
    assert m.ranef["one"].shape == (1, 8)
    np.testing.assert_allclose(m.predict(d.head(3)), m.fitted.head(3), rtol=1e-10)


@pytest.mark.parametrize("term", ["cs(0 + {} | one, hom=True)", "ar1(0 + {} | one)"])
def test_so_are_effects_that_share_two_parameters(term: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.SingularFitWarning)
        m = lmm.lmer(f"y ~ 1 + {term.format(SUM)} + (1 | g)", _data())
    assert m.convergence.converged


@pytest.mark.parametrize(
    "term",
    [
        "(1 | one)",
        "(0 + z1 | one)",
        "(z1 | one)",
        f"diag(0 + {SUM} | one)",
        f"cs(0 + {SUM} | one)",
        "cs(0 + z1 + z2 | one, hom=True)",
    ],
)
def test_as_many_parameters_as_effects_are_refused(term: str) -> None:
    with pytest.raises(lmm.NotIdentifiableError, match="'one' has a single level"):
        lmm.lmer(f"y ~ 1 + {term}", _data())


def test_a_variance_that_is_held_needs_no_levels() -> None:
    d = _data()
    m = lmm.lmer("y ~ 1 + (0 + z1 | one) + (1 | g)", d, fixed={"one.z1": 1.5})
    z, g = d["z1"].to_numpy(), d["g"].to_numpy()
    b, s = m.theta["g.Intercept"], m.sigma
    V = s**2 * (1.5**2 * np.outer(z, z) + b**2 * (g[:, None] == g) + np.eye(100))
    assert m.fit.criterion == pytest.approx(_reml(d, V), abs=1e-8)
    assert m.refit(d["y"] + 1.0).fit.criterion == pytest.approx(m.fit.criterion, abs=1e-6)
    with pytest.raises(lmm.NotIdentifiableError, match="single level"):
        lmm.lmer("y ~ 1 + (0 + z1 | one) + (1 | g)", d, fixed={"g.Intercept": 1.0})
