"""What derivatives need at θ, from every linear algebra: the same as from dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.engine.covariance.tangents import derivatives_of_T
from lmmsparse.engine.points import GeneralPoint
from lmmsparse.engine.solvers.blocked import BlockedSystem
from lmmsparse.engine.solvers.bordered import BorderedSystem, is_bordered
from lmmsparse.engine.solvers.levels import LevelSystem
from lmmsparse.engine.solvers.scalars import ScalarSystem
from lmmsparse.engine.solvers.small import SmallSystem

FORMULAS = {
    "one factor": "y ~ x + (x | g)",
    "one factor, two terms": "y ~ x + (1 | g) + (0 + x | g)",
    "no fixed effects": "y ~ 0 + (x | g)",
    "crossed": "y ~ x + (x | g) + (1 | h)",
    "nested": "y ~ 1 + (1 | h/g)",
    "crossed intercepts": "y ~ x + (1 | g) + (0 + x | h)",
    "three factors": "y ~ x + (1 | g) + (1 | h) + (1 | k)",
    "one intercept": "y ~ x + (1 | g)",
    "three effects": "y ~ x + k + (x + z | g)",
    "slopes of a factor": "y ~ x + (0 + k | g) + (1 | h)",
    "equal variances": "y ~ x + cs(0 + k | g) + diag(x | h)",
}
SYSTEMS = {
    "blocked": BlockedSystem,
    "bordered": BorderedSystem,
    "small": SmallSystem,
    "scalars": ScalarSystem,
    "levels": LevelSystem,
}


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    n = 200
    frame = pd.DataFrame({name: rng.normal(size=n) for name in "xyz"})
    for name, levels in (("g", 14), ("h", 6), ("k", 3)):
        frame[name] = rng.integers(levels, size=n).astype(str)
    return frame


def _thetas(template: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    plain = np.clip(rng.uniform(0.2, 1.0, template.n_theta), template.lower, template.upper)
    small = plain.copy()
    small[list(template.mirrors[0])] = 0.0
    return {"plain": plain, "without a variance": small, "large": np.where(plain > 0, 40.0, plain)}


@pytest.mark.long
@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS.keys())
def test_points_are_those_of_dense_matrices(
    formula: str, name: str, reml: bool, data: pd.DataFrame
) -> None:
    fit = lmm.fit_design(lmm.build_design(formula, data), reml=reml, solver=lmm.Dense())
    products, template, response = fit.products, fit.template, fit.objective.response
    if name == "levels" and not products.one_factor:
        pytest.skip("several factors")
    if name == "scalars" and max(products.sizes) > 1:
        pytest.skip("several effects per level")
    if name == "bordered" and not is_bordered(products):
        pytest.skip("several effects per level, or no border")
    system = SYSTEMS[name](products, template)
    for theta in _thetas(template).values():
        theta = np.clip(theta, template.lower, template.upper)
        D = derivatives_of_T(template, theta)
        dense = fit.objective.system.point(theta, response, reml)
        assert isinstance(dense, GeneralPoint)
        point = system.point(theta, response, reml)
        size = max(1.0, float(np.abs(theta).max()) ** 2)
        for quantity in (
            lambda p: p.solution.logdet_M,
            lambda p: p.solution.beta,
            lambda p: p.s2,
            lambda p: p.VX,
            lambda p: np.concatenate([FT.ravel() for FT in p.FT]),
            lambda p: p.pwrss_gradient(D),  # noqa: B023
            lambda p: p.squares(D),  # noqa: B023
            lambda p: p.traces(D),  # noqa: B023
        ):
            mine, theirs = np.asarray(quantity(point)), np.asarray(quantity(dense))
            scale = max(1e-3, float(np.abs(theirs).max(initial=0.0)))
            np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-11 * scale * size)
        mine, theirs = point.moment_estimate(), dense.moment_estimate()
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)
        b = np.random.default_rng(2).normal(size=(template.q, 2))
        factor, other = system.factor(theta), fit.objective.system.factor(theta)
        np.testing.assert_allclose(factor.solve(b), other.solve(b), rtol=1e-8, atol=1e-10)
        assert factor.logdet == pytest.approx(other.logdet, rel=1e-12)
        for mine, theirs in zip(factor.inverse_blocks(), other.inverse_blocks(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-11)


def test_the_algebra_is_said(data: pd.DataFrame) -> None:
    design = lmm.build_design("y ~ x + (x | g) + (1 | h)", data)
    said = repr(lmm.fit_design(design))
    assert "dense Cholesky of 34 random effects" in said
