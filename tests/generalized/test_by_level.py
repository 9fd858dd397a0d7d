"""One grouping factor level by level against the same formulas on blocks and a solver."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from generalized.test_glmm_criterion import FAMILIES, FORMULAS, made

import lmmsparse as lmm
from lmmsparse.engine.columns import InternalColumns
from lmmsparse.engine.families import Binomial, Family, Gamma, Poisson
from lmmsparse.engine.generalized.laplace import LaplaceDeviance
from lmmsparse.engine.generalized.laplace_levels import LaplaceByLevel
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.engine.generalized.modes import joint_mode
from lmmsparse.engine.generalized.one_factor import OneFactor
from lmmsparse.engine.generalized.rows import GeneralizedRows

ONE = ["intercept", "slope", "diag", "cs", "ar1"]
QUANTITIES = ["value", "gradient", "hessian", "information", "leverage"]


def both(family: Family, formula: str) -> tuple[GeneralizedRows, GeneralizedRows, Parameters]:
    rows, at = made(family, FORMULAS[formula])
    return rows, replace(rows, by_level=True), at


def points(
    rows: GeneralizedRows, levels: GeneralizedRows, at: Parameters
) -> tuple[LaplacePoint, LaplacePoint]:
    one, other = LaplaceDeviance(rows).point(at), LaplaceDeviance(levels).point(at)
    assert type(one) is LaplacePoint
    assert isinstance(other, LaplaceByLevel)
    return one, other


@pytest.mark.parametrize("formula", ONE)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_levels_give_what_blocks_give(family: Family, formula: str) -> None:
    rows, levels, at = both(family, formula)
    one, other = points(rows, levels, at)
    for name in QUANTITIES:
        want = getattr(one, name)
        np.testing.assert_allclose(
            getattr(other, name), want, rtol=1e-9, atol=1e-9 * np.abs(want).max(), err_msg=name
        )
    for own, want in zip(other.traces, one.traces, strict=True):
        np.testing.assert_allclose(own, want, rtol=1e-10, atol=1e-12)
    to = Parameters(at.beta + 0.02, 1.05 * at.theta, at.delta + 0.03 * bool(at.delta))
    np.testing.assert_allclose(other.predicted(to), one.predicted(to), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("formula", ONE)
@pytest.mark.parametrize("family", [Binomial("probit"), Poisson(), Gamma()], ids=str)
def test_joint_modes_are_the_same(family: Family, formula: str) -> None:
    rows, levels, at = both(family, formula)
    u = np.zeros(rows.template.q)
    want = joint_mode(rows, at.beta, at.theta, at.delta, u, 1e-20)
    beta, modes, steps = joint_mode(levels, at.beta, at.theta, at.delta, u, 1e-20)
    np.testing.assert_allclose(beta, want[0], rtol=1e-9)
    np.testing.assert_allclose(modes, want[1], rtol=1e-8, atol=1e-9)
    assert abs(steps - want[2]) <= 1  # the last step may be rounding


def test_sparse_fixed_effects_are_not_filled_in() -> None:
    rows, levels, at = both(Poisson(), "slope")
    R = np.array([[2.0, 0.3], [0.0, 0.7]])
    Q = InternalColumns(sp.csr_array(rows.Q.X @ R), R)
    one, other = points(replace(rows, Q=Q), replace(levels, Q=Q), at)
    for name in QUANTITIES:
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-9, atol=1e-9)


def test_sums_over_many_rows_are_the_same() -> None:
    """Up to a size all rows of a matrix are summed at once."""
    rows, _ = made(Poisson(), FORMULAS["slope"])
    one, rng = OneFactor(rows.pattern.terms), np.random.default_rng(1)
    R = rng.normal(size=(400, rows.n))
    want = np.stack([one.gathered(row) for row in R], axis=1)
    np.testing.assert_allclose(one.gathered_rows(R), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one.gathered_rows(R[:5]), want[:, :5], rtol=1e-12, atol=1e-12)
    assert one.gathered_rows(R[:0]).shape == (2, 0, one.n_levels)


def test_fits_do_not_depend_on_how_levels_are_taken() -> None:
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(15), 6)
    x = rng.normal(size=90)
    y = rng.poisson(np.exp(0.3 + 0.4 * x + rng.normal(0, 0.5, 15)[g]))
    data = pd.DataFrame({"y": y, "x": x, "g": g.astype(str)})
    fits = [
        lmm.glmer("y ~ x + (1 | g)", data, "poisson", solver=solver)
        for solver in (lmm.Blocked(), lmm.Dense())
    ]
    assert fits[0].minus2loglik == pytest.approx(fits[1].minus2loglik, abs=1e-9)
    np.testing.assert_allclose(fits[0].se, fits[1].se, rtol=1e-6)
    np.testing.assert_allclose(fits[0].theta, fits[1].theta, rtol=1e-6)
