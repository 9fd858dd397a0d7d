"""Which solver is chosen where the core can be looked at, and what the choice believes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.engine.solvers import choose
from lmmsparse.fit.problem import products_of

CROSSED, SLOPES = "y ~ 1 + (1 | u) + (1 | i)", "y ~ x + (1 | u) + (x | i) + (1 | k)"


def products_for(u: np.ndarray, i: np.ndarray, formula: str = CROSSED):
    r = np.random.default_rng(0)
    n = len(u)
    d = pd.DataFrame({"y": r.normal(size=n), "x": r.normal(size=n), "u": u, "i": i})
    return products_of(lmm.build_design(formula, d.assign(k=r.integers(0, 9, n))))[0]


def even(n: int, users: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    r = np.random.default_rng(1)
    return r.integers(0, users, n), r.integers(0, items, n)


def with_hubs(n: int, users: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """A few users meet nearly all items, the others two or three."""
    u, i = even(n, users, items)
    return np.append(u, np.repeat(np.arange(20), items)), np.append(
        i, np.tile(np.arange(items), 20)
    )


@pytest.mark.parametrize("with_cholmod", [True, False])
@pytest.mark.parametrize(
    ("u_and_i", "formula"),
    [(even(900, 400, 150), CROSSED), (with_hubs(900, 400, 150), SLOPES)],
    ids=["even", "hubs and slopes"],
)
def test_the_factor_is_as_it_is_believed_to_be(
    u_and_i: tuple[np.ndarray, np.ndarray],
    formula: str,
    with_cholmod: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    if not with_cholmod:
        monkeypatch.setattr(choose, "library", lambda: "")
    products = products_for(*u_and_i, formula)
    graph = choose.core_graph(products, products.lead)
    assert graph is not None
    parent, counts, effects = choose._filled(graph)
    # In the same order; with all off-diagonal elements negative, none of L's can cancel.
    M = -graph.meets.astype(bool).astype(float).toarray()
    np.fill_diagonal(M, 2.0 * len(M))
    order = choose._fill_reducing(graph.meets)
    stored = np.linalg.cholesky(M[np.ix_(order, order)]) != 0.0
    assert effects.tolist() == graph.effects[order].tolist()
    assert counts.tolist() == (effects @ stored).tolist()
    below = np.tril(stored, -1)
    first = np.where(below.any(axis=0), below.argmax(axis=0), np.arange(len(M)))
    assert parent.tolist() == first.tolist()


def test_levels_that_meet_nearly_all_are_left_to_the_end():
    products = products_for(*with_hubs(2500, 3000, 1000))
    graph = choose.core_graph(products, products.lead)
    assert graph is not None
    assert len(graph.effects) == graph.core + 20
    assert graph.density < 0.05
    costs = choose.fit_costs(products, products.lead, graph)
    assert costs["Cholmod"] < 0.5 * costs["Blocked"]
    assert isinstance(lmm.choose_solver(products), (lmm.Cholmod, lmm.SuperLU))


def test_a_core_in_which_most_levels_meet_is_not_looked_at():
    products = products_for(*even(9000, 600, 300))
    assert choose.core_graph(products, products.lead) is None
    assert isinstance(lmm.choose_solver(products), lmm.Blocked)
