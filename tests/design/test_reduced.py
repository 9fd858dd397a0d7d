"""Designs with a term left out: with a formula, without one, and of the random effects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.design import Design, build_design
from lmmsparse.design.reduced import (
    formula_order,
    leaving_out,
    reductions_of,
    without_fixed,
    without_random,
)
from lmmsparse.design.terms import INTERCEPT, fixed_terms
from lmmsparse.formula.formula import parse_formula


def data(missing: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 160
    frame = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.uniform(1.0, 5.0, n),
            "z": rng.normal(size=n),
            "f": rng.choice(list("abc"), n),
            "k": rng.choice(list("pq"), n),
            "u": rng.choice([1, 2, 3], n),
            "day": 2_450_000 + rng.integers(0, 300, n),
            "g": rng.integers(0, 12, n),
        }
    )
    return frame[~((frame["f"] == "a") & (frame["k"] == "q"))] if missing else frame


def design_of(formula: str, frame: pd.DataFrame) -> Design:
    return build_design(parse_formula(formula), frame)


def span(X: np.ndarray) -> np.ndarray:
    """The projection on the columns, each measured by its length."""
    Q, _ = np.linalg.qr(X / np.linalg.norm(X, axis=0))
    return np.asarray(Q @ Q.T)


FIXED = [
    "x + f",
    "x * f",
    "f * k",
    "0 + f + k",
    "0 + f:k",
    "0 + x:f + k",
    "poly(x, 3) + f",
    "C(f, contr.sum) * k",
    "f / k",
    "day * f",
    "C(u) + np.log(x) + I(x**2)",
    "lag(x) + f",
]


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.LmmWarning")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("formula", FIXED)
def test_both_ways_to_leave_out_a_fixed_term(formula: str, missing: bool) -> None:
    """The cheap way, without a formula, makes a model of the same means as the smaller formula."""
    design = design_of(f"y ~ {formula} + (1 | g)", data(missing))
    terms, _ = fixed_terms(design)
    for i, term in enumerate(terms):
        if term.label == INTERCEPT or any(term.is_marginal_to(other) for other in terms):
            continue
        cheap, named = leaving_out(design, i), without_fixed(design, i)
        assert cheap.p == named.p
        np.testing.assert_allclose(span(cheap.X), span(named.X), atol=1e-9)
        written = design_of(named.formula, data(missing))
        assert written.x_names == named.x_names
        if written.n == design.n:  # without lag() the first row is one of them
            np.testing.assert_allclose(span(written.X), span(named.X), atol=1e-9)


RANDOM = ["x", "f", "0 + f", "f * x", "0 + f:x", "poly(x, 2)", "day + f", "np.log(x) + z", "C(u)"]


@pytest.mark.parametrize("term", [f"({t} | g)" for t in RANDOM] + ["diag(0 + f | g)", "(f || g)"])
def test_reductions_are_those_of_the_smaller_formula(term: str) -> None:
    design = design_of(f"y ~ x + {term}", data())
    for position in formula_order(design):
        for reduction in reductions_of(design, position):
            smaller = without_random(design, reduction)
            if reduction.block is None:
                assert len(smaller.blocks) == len(design.blocks) - 1
                continue
            block = smaller.blocks[position]
            assert (block.names, block.structure) == (
                reduction.block.names,
                reduction.block.structure,
            )
            size = np.abs(block.columns).max()
            np.testing.assert_allclose(block.columns, reduction.block.columns, atol=1e-9 * size)


def test_a_table_and_a_step_leave_out_the_same() -> None:
    """drop1 and step go two ways to the same smaller model."""
    frame = data()
    m = lmm.lmer("y ~ x + f * k + (1 | g)", frame, reml=False)
    table = m.drop1(progress=False)
    for label, formula in (("x", "y ~ f * k + (1 | g)"), ("f:k", "y ~ x + f + k + (1 | g)")):
        smaller = lmm.lmer(formula, frame, reml=False)
        assert table["LRT"][label] == pytest.approx(smaller.deviance - m.deviance, abs=1e-7)
