"""Likelihood-ratio tests of variances: mixtures of χ² distributions against known weights."""

from __future__ import annotations

import warnings

import models
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning
from lmmsparse.inference.hypotheses.boundary import Boundary, boundary


def _mixture(weights: list[float], first: int, LRT: float) -> float:
    return sum(
        w * (stats.chi2.sf(LRT, first + i) if first + i else 0.0) for i, w in enumerate(weights)
    )


@pytest.mark.parametrize("LRT", [0.5, 2.0, 6.0, 15.0])
@pytest.mark.parametrize("inside", [0, 1, 3])
@pytest.mark.parametrize("slope", [-0.6, 0.0, 0.8])
def test_two_variances(inside: int, LRT: float, slope: float) -> None:
    # A cone of opening angle α in the plane: weights ½ − α/2π, ½, α/2π.
    metric = np.array([[4.0, 2.0 * slope], [2.0 * slope, 1.0]])
    share = np.arccos(slope) / (2 * np.pi)
    expected = _mixture([0.5 - share, 0.5, share], inside, LRT)
    assert Boundary(inside, (1, 1), metric).p(LRT) == pytest.approx(expected, rel=0.02)


@pytest.mark.long
@pytest.mark.parametrize("LRT", [0.5, 2.0, 6.0, 15.0])
@pytest.mark.parametrize("inside", [0, 2])
def test_a_covariance_matrix_of_two_effects(inside: int, LRT: float) -> None:
    # Semidefinite 2 × 2 matrices are a circular cone of half angle 45°.
    weights = [(2 - np.sqrt(2)) / 4, np.sqrt(2) / 4, np.sqrt(2) / 4, (2 - np.sqrt(2)) / 4]
    expected = _mixture(weights, inside, LRT)
    scale = np.array([3.0, np.sqrt(3.0), 1.0])  # the same cone in other units of its effects
    metric = np.diag([1.0, 2.0, 1.0]) * np.outer(scale, scale)
    assert Boundary(inside, (2,), metric).p(LRT) == pytest.approx(expected, rel=0.03)


def test_one_variance() -> None:
    one = Boundary(0, (1,), np.eye(1))
    assert one.p(0.0) == 1.0
    assert one.p(3.0) == pytest.approx(0.5 * stats.chi2.sf(3.0, 1))
    with_covariance = Boundary(1, (1,), np.eye(1))
    assert str(with_covariance) == "½ χ²(1) + ½ χ²(2)"
    expected = 0.5 * stats.chi2.sf(3.0, 1) + 0.5 * stats.chi2.sf(3.0, 2)
    assert with_covariance.p(3.0) == pytest.approx(expected)


def _machines(formula: str) -> lmm.LinearMixedModel:
    data = pd.read_csv(models.VALIDATION / "data" / "Machines.csv.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(f"score ~ {formula}", data)


CASES = {
    # larger, smaller: free to both sides, sizes of what is zero
    ("1 + (Machine | Worker)", "1 + (1 | Worker)"): (2, (2,)),
    ("1 + (Machine | Worker)", "1 + (1 | Worker) + (1 | Worker:Machine)"): None,
    ("Machine + (Machine | Worker)", "1 + (1 | Worker)"): (4, (2,)),
    ("1 + (0 + Machine | Worker)", "1 + (1 | Worker)"): (2, (2,)),
    ("1 + (0 + Machine | Worker)", "1 + diag(0 + Machine | Worker)"): None,
    ("1 + (1 | Worker) + (1 | Worker:Machine)", "1 + (1 | Worker)"): (0, (1,)),
    ("1 + (1 | Worker) + (1 | Worker:Machine)", "1 + (1 | Worker:Machine)"): (0, (1,)),
    ("Machine + (1 | Worker)", "1 + (1 | Worker)"): None,
    ("1 + cs(0 + Machine | Worker)", "1 + (1 | Worker)"): None,
}


@pytest.mark.parametrize(("large", "small"), CASES)
def test_what_is_on_the_boundary(large: str, small: str) -> None:
    found = boundary(_machines(large).fit, _machines(small).fit)
    expected = CASES[large, small]
    assert (None if found is None else (found.inside, found.sizes)) == expected


def test_an_effect_more_beside_others() -> None:
    data = lmm.load_dataset("sleepstudy").assign(square=lambda d: (d["Days"] - 4.5) ** 2 / 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        small = lmm.lmer("Reaction ~ Days + (Days | Subject)", data)
        large = lmm.lmer("Reaction ~ Days + (square + Days | Subject)", data)
    null = boundary(large.fit, small.fit)
    assert null is not None
    assert str(null) == "½ χ²(2) + ½ χ²(3)"
    table, reductions = lmm.anova(small, large), large.ranova()
    assert "½ χ²(2) + ½ χ²(3)" in table.notes[-1]
    assert "½ χ²(2) + ½ χ²(3)" in " ".join(reductions.notes)
    # The numbers of the notes are beside the columns.
    assert "Pr(>Chibarsq)" not in [*table.to_frame(), *reductions.to_frame()]
    for each, LRT in ((table, "Chisq"), (reductions, "LRT")):
        p = each["Pr(>Chibarsq)"]
        expected = [_mixture([0.5, 0.5], 2, value) for value in each[LRT].iloc[1:]]
        assert p.index.equals(each.to_frame().index)
        assert np.isnan(p.iloc[0])
        np.testing.assert_allclose(p.iloc[1:], expected, rtol=1e-10)
        assert (p.iloc[1:] <= each["Pr(>Chisq)"].iloc[1:]).all()


def test_no_mixture_where_nothing_is_on_a_boundary() -> None:
    large, small = _machines("Machine + (1 | Worker)"), _machines("1 + (1 | Worker)")
    assert lmm.anova(small, large)["Pr(>Chibarsq)"].isna().all()


def test_the_origin_of_a_predictor_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 6), "y": rng.normal(size=120)})
    data["y"] += np.repeat(rng.normal(size=20), 6)
    data["a"], data["b"] = rng.normal(size=120), rng.normal(size=120)
    p = []
    for origin in (0.0, 500.0):
        moved = data.assign(a=data["a"] + origin)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LmmWarning)
            small = lmm.lmer("y ~ 1 + (1 | g)", moved, reml=False)
            large = lmm.lmer("y ~ 1 + (a + b | g)", moved, reml=False)
        null = boundary(large.fit, small.fit)
        assert null is not None
        p.append([null.p(v) for v in (1.0, 4.0, 9.0)])
    np.testing.assert_allclose(p[0], p[1], rtol=0.02)


def test_with_a_known_residual_variance() -> None:
    data = pd.read_csv(models.VALIDATION / "data" / "Machines.csv.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        large = lmm.lmer("score ~ 1 + (Machine | Worker)", data, fixed={"sigma": 1.0})
        free = lmm.lmer("score ~ 1 + (Machine | Worker)", data)
        small = lmm.lmer("score ~ 1 + (1 | Worker)", data, fixed={"sigma": 1.0})
    null = boundary(large.fit, small.fit)
    assert null is not None
    assert (null.inside, null.sizes) == (2, (2,))
    with_sigma = boundary(free.fit, small.fit)
    assert with_sigma is not None
    assert (with_sigma.inside, with_sigma.sizes) == (3, (2,))
    assert "a mixture of χ²(2) to χ²(5)" in " ".join(large.ranova().notes)


@pytest.mark.long
def test_p_values_of_several_variances_are_uniform() -> None:
    # Under the smaller model, 300 responses: the share of p below 0.2 is 0.2, give or take 3 s.e.
    rng = np.random.default_rng(4)
    data = pd.DataFrame(
        {
            "g": np.repeat(np.arange(60), 6),
            "a": rng.normal(size=360),
            "b": rng.normal(size=360),
            "y": rng.normal(size=360) + np.repeat(rng.normal(size=60), 6),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        small = lmm.lmer("y ~ 1 + (1 | g)", data, reml=False)
        large = lmm.lmer("y ~ 1 + (a + b | g)", data, reml=False)
    null = boundary(large.fit, small.fit)
    assert null is not None
    Y = small.simulate(300, rng=1)
    LRT = small.refit_many(Y)["criterion"] - large.refit_many(Y)["criterion"]
    p = np.array([null.p(max(v, 0.0)) for v in LRT])
    naive = stats.chi2.sf(LRT, 5)
    assert abs(np.mean(p < 0.2) - 0.2) < 3 * np.sqrt(0.16 / 300)
    assert np.mean(naive < 0.2) < 0.2 - 3 * np.sqrt(0.16 / 300)
