"""The criterion over (θ, φ) against its definition by n × n matrices, structure by structure."""

from __future__ import annotations

import numpy as np
import pytest
from residual_models import DEVIATIONS, KINDS, Case, case

import lmmsparse as lmm
from lmmsparse.engine.residual.base import Groups
from lmmsparse.engine.residual.markov import Autoregressive


def _by_differences(c: Case) -> np.ndarray:
    x, d = np.concatenate([c.theta, c.phi]), len(c.theta)
    out = np.empty(len(x))
    for i in range(len(x)):
        ends = []
        for h in (1e-5, -1e-5):
            there = x.copy()
            there[i] += h
            ends.append(c.criterion(there[:d], there[d:]))
        out[i] = (ends[0] - ends[1]) / 2e-5
    return out


@pytest.mark.parametrize("random", ["", "a", "b", "ab"])
@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("reml", "weights"), [(True, True), (False, False), (True, False)])
def test_value_and_gradient(
    kind: str, deviation: str, random: str, reml: bool, weights: bool
) -> None:
    c = case(kind, deviation, random, weights, reml)
    assert c.joint(c.theta, c.phi) == pytest.approx(c.criterion(c.theta, c.phi), rel=1e-11)
    gradient, wanted = c.joint.gradient(c.theta, c.phi), _by_differences(c)
    if len(wanted):
        size = 1.0 + np.abs(wanted).max()
        np.testing.assert_allclose(gradient / size, wanted / size, atol=2e-8)


@pytest.mark.parametrize(
    "solver", [lmm.Blocked(), lmm.Cholmod(), lmm.Dense(), lmm.SuperLU()], ids=repr
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_solver(kind: str, solver: object) -> None:
    c = case(kind, "strata", "ab", True, True, solver)  # type: ignore[arg-type]
    assert c.joint(c.theta, c.phi) == pytest.approx(c.criterion(c.theta, c.phi), rel=1e-11)
    wanted = _by_differences(c)
    size = 1.0 + np.abs(wanted).max()
    gradient = c.joint.gradient(c.theta, c.phi)
    np.testing.assert_allclose(gradient / size, wanted / size, atol=2e-8)


@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_factors_and_inverses(kind: str, deviation: str) -> None:
    c = case(kind, deviation, weights=True)
    s, phi, n = c.structure, c.phi, c.structure.n
    R, one = c.R(phi), np.eye(n)
    np.testing.assert_allclose(s.block(phi, np.arange(n)), R, atol=1e-13)
    white = s.whiten(phi, one)
    np.testing.assert_allclose(white @ R @ white.T, one, atol=1e-12)
    np.testing.assert_allclose(s.colour(phi, white), one, atol=1e-12)
    np.testing.assert_allclose(s.precision_times(phi, R), one, atol=1e-11)
    np.testing.assert_allclose(s.precision_diagonal(phi), np.diag(np.linalg.inv(R)), rtol=1e-11)
    np.testing.assert_allclose(s.sd(phi) ** 2, np.diag(R), rtol=1e-13)
    assert s.logdet(phi)[0] == pytest.approx(np.linalg.slogdet(R)[1], abs=1e-11)


@pytest.mark.parametrize("deviation", DEVIATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_slopes(kind: str, deviation: str) -> None:
    c = case(kind, deviation, weights=True)
    s, phi, rows = c.structure, c.phi, np.arange(c.structure.n)
    np.testing.assert_allclose(s.from_natural(s.natural(phi)), phi, atol=1e-12)
    slopes, natural = s.block_slopes(phi, rows), s.slopes(phi)
    for i in range(len(phi)):
        step = 1e-6 * (np.arange(len(phi)) == i)
        wanted = (s.block(phi + step, rows) - s.block(phi - step, rows)) / 2e-6
        np.testing.assert_allclose(slopes[i], wanted, atol=1e-8)
        wanted = (s.natural(phi + step) - s.natural(phi - step)) / 2e-6
        np.testing.assert_allclose(natural[:, i], wanted, atol=1e-8)


def test_few_classes_are_summed_once() -> None:
    """An evaluation then does not depend on the number of rows."""
    assert case("ar1", groups=400).joint.sets.summed_once
    assert case("cs", "strata", groups=400).joint.sets.summed_once
    assert not case("car1", groups=400).joint.sets.summed_once
    assert not case("ar1", "covariate", groups=400).joint.sets.summed_once


def test_correlations_of_either_sign_and_nearly_one() -> None:
    codes = np.repeat(np.arange(3), 4)
    law = Autoregressive(Groups(codes, np.tile([0.0, 1.0, 3.0, 4.0], 3), 3))
    for value in (-0.9, -1e-3, 0.0, 0.3, 0.999999):
        phi = law.from_natural(np.array([value]))
        R = law.matrix(phi, np.array([0.0, 1.0, 3.0, 4.0]))
        assert law.logdet(phi)[0] == pytest.approx(3 * np.linalg.slogdet(R)[1], rel=1e-6, abs=1e-12)
