"""Which solver is chosen where the core is too large to be looked at closely."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmsparse as lmm
from lmmsparse.engine.solvers import choose
from lmmsparse.fit.problem import products_of


def products_for(d: pd.DataFrame, formula: str = "y ~ 1 + (1 | u) + (1 | i)"):
    d = d.assign(y=np.random.default_rng(0).normal(size=len(d)))
    return products_of(lmm.build_design(lmm.parse_formula(formula), d))[0]


def crossed(n: int, users: int, items: int) -> pd.DataFrame:
    r = np.random.default_rng(1)
    return pd.DataFrame({"u": r.integers(0, users, n), "i": r.integers(0, items, n)})


def within(n: int, users: int, items: int) -> pd.DataFrame:
    """Users meet the few items of their own place."""
    r = np.random.default_rng(1)
    u = r.integers(0, users, n)
    return pd.DataFrame({"u": u, "i": u * (items // 5) // users * 5 + r.integers(0, 5, n)})


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choose, "_LARGE_CORE", 150)
    monkeypatch.setattr(choose, "_MOST_OPERATIONS", 250.0**3)


def test_a_filled_core_within_limits_is_factored_densely():
    assert isinstance(lmm.choose_solver(products_for(crossed(20_000, 300, 200))), lmm.Blocked)


def test_a_filled_core_beyond_limits_is_not_factored():
    products = products_for(crossed(20_000, 300, 280))
    assert lmm.choose_solver(products) == lmm.Krylov()
    assert not isinstance(lmm.choose_solver(products, exact=True), lmm.Krylov)


def test_a_core_that_does_not_fit_in_memory_is_not_factored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choose, "half_of_memory", lambda: 1e5)
    assert lmm.choose_solver(products_for(crossed(20_000, 300, 200))) == lmm.Krylov()


def test_a_core_of_many_parts_is_factored_as_it_is():
    products = products_for(within(20_000, 3000, 1000))
    assert isinstance(lmm.choose_solver(products), (lmm.Cholmod, lmm.SuperLU))


def test_too_many_meetings_to_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choose, "_COUNT_OF_LARGE", 10.0)
    assert lmm.choose_solver(products_for(crossed(20_000, 300, 280))) == lmm.Krylov()
    assert isinstance(lmm.choose_solver(products_for(crossed(20_000, 300, 200))), lmm.Blocked)


def test_it_is_said_that_it_was_chosen():
    d = crossed(20_000, 300, 280)
    r = np.random.default_rng(2)
    d["y"] = r.normal(size=300)[d["u"]] + r.normal(size=280)[d["i"]] + r.normal(size=len(d))
    m = lmm.lmer("y ~ 1 + (1 | u) + (1 | i)", d)
    assert m.fit.solver.probes == 32
    said = [f for f in m.convergence.findings if f.code == "monte-carlo"]
    assert [f.level for f in said] == ["info"]
    assert "280 random effects" in said[0].message


def test_generalized_models_are_fitted_exactly():
    d = crossed(4000, 300, 280)
    r = np.random.default_rng(2)
    eta = 0.5 * r.normal(size=300)[d["u"]] + 0.5 * r.normal(size=280)[d["i"]]
    d["y"] = r.poisson(np.exp(1.0 + eta))
    m = lmm.glmer("y ~ 1 + (1 | u) + (1 | i)", d, "poisson")
    assert lmm.choose_solver(m.fit.products) == lmm.Krylov()
    assert not isinstance(m.fit.solver, lmm.Krylov)


@pytest.mark.parametrize("kind", ["band", "random", "hubs"])
def test_the_bound_is_one(kind: str):
    r = np.random.default_rng(0)
    n = 200
    i, j = r.integers(0, n, (2, 300))
    if kind == "band":
        order = r.permutation(n)
        i, j = order[np.r_[: n - 2, : n - 1]], order[np.r_[2:n, 1:n]]
    if kind == "hubs":
        i, j = np.concatenate([np.arange(n), np.arange(n)]), np.repeat([0, 1], n)
    A = sp.csc_array((np.ones(len(i)), (i, j)), shape=(n, n))
    A = sp.csc_array(A + A.T + sp.eye_array(n))
    operations, stored = choose.elimination_bound(A, 1.0)
    _, counts, _ = choose._filled(choose.CoreGraph(A, np.ones(n), n))
    assert counts @ counts <= operations
    assert counts.sum() <= stored
    assert operations < {"band": 10, "random": 60, "hubs": 30}[kind] * (counts @ counts)
