"""Cross-products and systems renewed for other weights are those made anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.engine.products import cross_products, pattern_of
from lmmsparse.engine.responses import response_products
from lmmsparse.fit.problem import make_template, term_columns

FORMULAS = {
    "one factor": "y ~ x + (x | g)",
    "one factor, two terms": "y ~ x + (1 | g) + (0 + x | g)",
    "crossed": "y ~ x + (x | g) + (1 | h)",
    "nested": "y ~ 1 + (1 | h/g)",
    "three factors": "y ~ x + (1 | g) + (x | h) + (1 | k)",
}
SOLVERS = [lmm.Dense(), lmm.Blocked(), lmm.Cholmod(), lmm.SuperLU()]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 400
    frame = pd.DataFrame({"x": rng.normal(size=n), "y": rng.normal(size=n)})
    for name, levels in (("g", 40), ("h", 12), ("k", 5)):
        frame[name] = rng.integers(levels, size=n).astype(str)
    return frame


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS.keys())
def test_products_by_a_pattern_are_those_found_in_one_go(formula: str, data: pd.DataFrame) -> None:
    design = lmm.build_design(formula, data)
    terms, weights = term_columns(design), np.random.default_rng(5).uniform(0.2, 3.0, design.n)
    Q, basis = design.internal_columns()
    pattern = pattern_of(terms)
    for w in (None, weights):
        renewed, anew = pattern.products(Q, basis, w), cross_products(Q, basis, terms, w)
        np.testing.assert_array_equal(renewed.ZtZ.toarray(), anew.ZtZ.toarray())
        np.testing.assert_array_equal(renewed.ZtX, anew.ZtX)
        np.testing.assert_array_equal(renewed.XtX, anew.XtX)
    W, Z, X = np.diag(weights), design.Z.toarray(), design.fixed @ np.linalg.inv(basis.R)
    last = pattern.products(Q, basis, weights)
    np.testing.assert_allclose(last.ZtZ.toarray(), Z.T @ W @ Z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(last.ZtX, Z.T @ W @ X, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS.keys())
def test_systems_of_other_numbers_take_turns(formula: str, solver: Any, data: pd.DataFrame) -> None:
    design = lmm.build_design(formula, data)
    template = make_template(design)
    pattern, rng = pattern_of(term_columns(design)), np.random.default_rng(7)
    Q, basis = design.internal_columns()
    theta = rng.normal(size=template.n_theta)
    several = []
    for weights in (None, rng.uniform(0.2, 3.0, design.n), rng.uniform(0.01, 30.0, design.n)):
        products = pattern.products(Q, basis, weights)
        response = response_products(design.y, Q, pattern.terms, weights)
        system = several[0][0].with_products(products) if several else None
        system = system or solver.build(products, template)
        several.append((system, solver.build(products, template), response))
    b = rng.normal(size=template.q)
    for _ in range(2):  # in turn: what one overwrites must not reach another
        for system, anew, response in several:
            one, other = system.solve(theta, response), anew.solve(theta, response)
            np.testing.assert_allclose(one.logdet_M, other.logdet_M, rtol=1e-13)
            np.testing.assert_allclose(one.pwrss, other.pwrss, rtol=1e-12)
            np.testing.assert_allclose(one.beta, other.beta, rtol=1e-9, atol=1e-13)
            factor, expected = system.factor(theta), anew.factor(theta)
            assert factor.logdet == pytest.approx(other.logdet_M, rel=1e-13)
            np.testing.assert_allclose(factor.solve(b), expected.solve(b), rtol=1e-10, atol=1e-13)
            for mine, theirs in zip(
                factor.inverse_blocks(), expected.inverse_blocks(), strict=True
            ):
                np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-14)
            at, there = (s.point(theta, response, True) for s in (system, anew))
            for mine, theirs in zip(at.FT, there.FT, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-10)
