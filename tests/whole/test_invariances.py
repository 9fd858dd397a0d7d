"""What must not change when a model is written, ordered, scaled or weighted in another way."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning

Array = npt.NDArray[np.float64]

few = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 10_000)
NESTED = "y ~ x + f + (x | a) + (1 | a:b)"


def simulated(seed: int, n: int = 120) -> pd.DataFrame:
    """Unbalanced nested and crossed groups with a slope, a factor, weights and an offset."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.integers(0, 8, n), rng.integers(0, 3, n), rng.integers(0, 5, n)
    x = rng.normal(size=n)
    effects = rng.normal(size=(8, 2)) @ np.array([[1.2, 0.5], [0.0, 0.8]])
    y = 3 + 2 * x + effects[a, 0] + effects[a, 1] * x + rng.normal(size=5)[c]
    y += 0.7 * rng.normal(size=(8, 3))[a, b] + rng.normal(size=n)
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "f": np.array(["lo", "mid", "top"])[rng.integers(0, 3, n)],
            "a": a,
            "b": np.array(["p", "q", "r"])[b],
            "c": c,
            "w": rng.uniform(0.3, 3.0, n),
            "o": rng.normal(size=n),
        }
    )


def fit(formula: str, data: pd.DataFrame, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)  # singular fits are as invariant as others
        return lmm.lmer(formula, data, **options)


def assert_same(one: lmm.LinearMixedModel, other: lmm.LinearMixedModel, shift: float = 0.0) -> None:
    """Both are the same model of the same rows, whatever the names and the order of terms."""
    assert other.fit.criterion == pytest.approx(one.fit.criterion + shift, abs=2e-6)
    np.testing.assert_allclose(other.sigma, one.sigma, rtol=1e-4)
    np.testing.assert_allclose(other.se, one.se, rtol=2e-4)
    np.testing.assert_allclose(other.fixef, one.fixef, atol=2e-4 * float(one.se.max()))
    np.testing.assert_allclose(
        np.sort(other.fitted), np.sort(one.fitted), atol=2e-3 * float(one.sigma)
    )


def variances(m: lmm.LinearMixedModel) -> Array:
    return np.sort(m.varcorr.to_frame()["vcov"].to_numpy())


# Order and names ----------------------------------------------------------------------------------


@few
@given(seeds, seeds)
def test_row_order(seed: int, order: int) -> None:
    data = simulated(seed)
    shuffled = data.sample(frac=1, random_state=order)
    one, other = fit(NESTED, data, weights="w"), fit(NESTED, shuffled, weights="w")
    assert_same(one, other)
    pd.testing.assert_series_equal(
        other.fitted.loc[one.fitted.index], one.fitted, atol=2e-3 * one.sigma
    )
    for group, modes in one.ranef.items():
        pd.testing.assert_frame_equal(other.ranef[group], modes, atol=2e-3, rtol=1e-3)


@few
@given(seeds)
def test_level_names_and_their_order(seed: int) -> None:
    data = simulated(seed)
    rng = np.random.default_rng(seed)
    new = {level: f"level {k}" for level, k in zip(range(8), rng.permutation(8), strict=True)}
    one = fit(NESTED, data)
    other = fit(NESTED, data.assign(a=data["a"].map(new)))
    assert_same(one, other)
    modes = other.ranef["a"].rename(index={v: k for k, v in new.items()}).sort_index()
    np.testing.assert_allclose(modes, one.ranef["a"], atol=2e-3)


@few
@given(seeds)
def test_kind_of_labels(seed: int) -> None:
    data = simulated(seed)
    one = fit("y ~ x + (x | a) + (1 | c)", data)
    for convert in (str, "float64", "category", "string", "Int64"):
        changed = data.astype({"a": convert, "c": convert})
        other = fit("y ~ x + (x | a) + (1 | c)", changed)
        assert_same(one, other)
        np.testing.assert_allclose(other.ranef["a"], one.ranef["a"], atol=1e-9)


@few
@given(seeds)
def test_unused_categories_do_not_count(seed: int) -> None:
    data = simulated(seed)
    levels = pd.CategoricalDtype([9, *range(7, -1, -1), 100])
    one, other = fit(NESTED, data), fit(NESTED, data.assign(a=data["a"].astype(levels)))
    assert_same(one, other)
    assert other.n_groups == one.n_groups
    assert other.ranef["a"].index.tolist() == list(range(7, -1, -1))


@few
@given(seeds)
def test_reference_level_is_a_reparameterization(seed: int) -> None:
    data = simulated(seed)
    other = data.assign(f=pd.Categorical(data["f"], ["top", "lo", "mid"]))
    first, second = fit(NESTED, data, reml=False), fit(NESTED, other, reml=False)
    assert second.fit.criterion == pytest.approx(first.fit.criterion, abs=2e-6)
    np.testing.assert_allclose(second.fitted, first.fitted, atol=2e-3)


@few
@given(seeds, st.permutations(["x", "f", "(x | a)", "(1 | a:b)", "(1 | c)"]))
def test_term_order(seed: int, terms: list[str]) -> None:
    data = simulated(seed)
    one = fit("y ~ x + f + (x | a) + (1 | a:b) + (1 | c)", data)
    other = fit("y ~ " + " + ".join(terms), data)
    assert other.fit.criterion == pytest.approx(one.fit.criterion, abs=2e-6)
    np.testing.assert_allclose(other.fixef[one.fixef.index], one.fixef, atol=1e-4)
    np.testing.assert_allclose(variances(other), variances(one), atol=2e-3)
    np.testing.assert_allclose(other.fitted, one.fitted, atol=2e-3)


@few
@given(seeds)
def test_order_of_effects(seed: int) -> None:
    data = simulated(seed)
    one, other = fit("y ~ x + (1 + x | a)", data), fit("y ~ x + (0 + x + one | a)", data.assign(
        one=1.0))  # fmt: skip
    assert_same(one, other)
    np.testing.assert_allclose(variances(other), variances(one), atol=2e-3)


# Ways to write one model --------------------------------------------------------------------------

SPELLINGS = [
    ("y ~ x + (1 | a/b)", "y ~ x + (1 | a) + (1 | a:b)"),
    ("y ~ x + (x | a/b)", "y ~ x + (x | a) + (x | a:b)"),
    ("y ~ x + (x || a)", "y ~ x + (1 | a) + (0 + x | a)"),
    ("y ~ x + (x || a)", "y ~ x + diag(x | a)"),
    ("y ~ x + (x | a)", "y ~ 1 + x + (1 + x | a)"),
    ("y ~ x + (0 + x | a)", "y ~ x + (x - 1 | a)"),
    ("y ~ x + (0 + x | a)", "y ~ x + (-1 + x | a)"),
    ("y ~ x + (1 | a:b)", "y ~ x + (1 | interaction(a, b))"),
    ("y ~ x + (1 | a)", "y ~ x + (1 | factor(a))"),
    ("y ~ x + (1 | a * b)", "y ~ x + (1 | a) + (1 | b) + (1 | a:b)"),
    ("y ~ x + (1 | a + c)", "y ~ x + (1 | a) + (1 | c)"),
    ("y ~ x * f + (1 | a)", "y ~ x + f + x:f + (1 | a)"),
    ("y ~ x + I(x^2) + (1 | a)", "y ~ x + I(x**2) + (1 | a)"),
    ("y ~ poly(x, 2) + (1 | a)", "y ~ x + I(x**2) + (1 | a)"),
]


@pytest.mark.parametrize(("one", "other"), SPELLINGS)
def test_spelling(one: str, other: str) -> None:
    data = simulated(7, 200)
    first, second = fit(one, data, reml=False), fit(other, data, reml=False)
    assert second.fit.criterion == pytest.approx(first.fit.criterion, abs=2e-6)
    np.testing.assert_allclose(second.fitted, first.fitted, atol=2e-3)
    np.testing.assert_allclose(variances(second), variances(first), atol=2e-3)
    assert second.npar == first.npar


# Units --------------------------------------------------------------------------------------------


@few
@given(seeds, st.floats(-1e4, 1e4), st.sampled_from([1e-6, -0.01, 3.0, -250.0, 1e7]), st.booleans())
def test_location_and_scale_of_the_response(seed: int, at: float, by: float, reml: bool) -> None:
    data = simulated(seed)
    one = fit(NESTED, data, reml=reml, weights="w")
    other = fit(NESTED, data.assign(y=at + by * data["y"]), reml=reml, weights="w")
    df = one.nobs - reml * len(one.fixef)
    shift = 2 * df * np.log(abs(by))
    assert other.fit.criterion == pytest.approx(one.fit.criterion + shift, abs=1e-3)
    np.testing.assert_allclose(other.sigma, abs(by) * one.sigma, rtol=1e-4)
    np.testing.assert_allclose(other.se, abs(by) * one.se, rtol=1e-3)
    want = by * one.fixef + at * (one.fixef.index == "Intercept")
    np.testing.assert_allclose(other.fixef, want, atol=1e-3 * abs(by), rtol=1e-9)


def test_response_that_hardly_varies() -> None:
    data = simulated(3)
    one, other = fit(NESTED, data), fit(NESTED, data.assign(y=1000 + 1e-6 * data["y"]))
    np.testing.assert_allclose(other.theta, one.theta, atol=1e-3)
    np.testing.assert_allclose(other.se, 1e-6 * one.se, rtol=1e-3)


@few
@given(seeds, st.booleans())
def test_linear_map_of_the_predictors(seed: int, reml: bool) -> None:
    data = simulated(seed)
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(len(data)), data["x"], rng.normal(size=(len(data), 2))])
    A = rng.normal(size=(4, 4)) + 2 * np.eye(4)
    terms = [(data["a"], np.column_stack([np.ones(len(data)), data["x"]])), (data["c"], None)]

    def model(matrix: Array) -> lmm.LinearMixedModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LmmWarning)
            return lmm.fit_arrays(data["y"], matrix, terms, reml=reml, weights=data["w"])

    one, other = model(X), model(X @ A)
    shift = 2 * np.linalg.slogdet(A)[1] if reml else 0.0
    assert other.fit.criterion == pytest.approx(one.fit.criterion + shift, abs=2e-6)
    np.testing.assert_allclose(A @ other.fixef, one.fixef, atol=1e-4)
    np.testing.assert_allclose(A @ other.vcov.to_numpy() @ A.T, one.vcov, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-9, 1e-3, 1e6, 1e9])
@pytest.mark.parametrize("reml", [True, False])
def test_unit_of_a_predictor(factor: float, reml: bool) -> None:
    data = simulated(11)
    formula = "y ~ x + (x | a) + (1 | c)"
    one = lmm.lmer(formula, data, reml=reml)
    other = lmm.lmer(formula, data.assign(x=factor * data["x"]), reml=reml)
    shift = 2 * np.log(factor) if reml else 0.0
    assert other.fit.criterion == pytest.approx(one.fit.criterion + shift, abs=2e-6)
    assert other.convergence.singular == one.convergence.singular
    np.testing.assert_allclose(other.fitted, one.fitted, atol=1e-3)
    np.testing.assert_allclose(other.fixef["x"] * factor, one.fixef["x"], rtol=1e-5)
    np.testing.assert_allclose(other.ranef["a"]["x"] * factor, one.ranef["a"]["x"], atol=1e-3)
    np.testing.assert_allclose(other.optimum.evaluations, one.optimum.evaluations, atol=3)


@pytest.mark.parametrize("origin", [10.0, 2000.0, -1e4])
def test_origin_of_a_slope(origin: float) -> None:
    data = simulated(12)
    one = lmm.lmer("y ~ x + (x | a)", data)
    other = lmm.lmer("y ~ x + (x | a)", data.assign(x=data["x"] + origin))
    assert other.fit.criterion == pytest.approx(one.fit.criterion, abs=2e-6)
    np.testing.assert_allclose(other.fitted, one.fitted, atol=1e-3)
    np.testing.assert_allclose(other.ranef["a"]["x"], one.ranef["a"]["x"], atol=1e-3)


# Weights and offset -------------------------------------------------------------------------------


@few
@given(seeds, st.sampled_from([1e-6, 0.5, 100.0, 1e8]), st.booleans())
def test_weights_times_a_constant(seed: int, c: float, reml: bool) -> None:
    data = simulated(seed)
    one = fit(NESTED, data, weights="w", reml=reml)
    other = fit(NESTED, data, weights=c * data["w"], reml=reml)
    assert other.fit.criterion == pytest.approx(one.fit.criterion, abs=2e-6)
    np.testing.assert_allclose(other.sigma, np.sqrt(c) * one.sigma, rtol=1e-4)
    np.testing.assert_allclose(other.fixef, one.fixef, atol=1e-4)
    np.testing.assert_allclose(other.vcov, one.vcov, atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(other.ranef["a"], one.ranef["a"], atol=2e-3)
    np.testing.assert_allclose(other.cond_var["a"], one.cond_var["a"], atol=2e-3)


@few
@given(seeds, seeds)
def test_zero_weight_is_a_dropped_row(seed: int, chosen: int) -> None:
    data = simulated(seed)
    out = np.random.default_rng(chosen).choice(len(data), 7, replace=False)
    weights = data["w"].to_numpy().copy()
    weights[out] = 0.0
    with pytest.warns(lmm.DesignWarning, match="7 rows have weight zero"):
        one = lmm.lmer("y ~ x + (1 | a)", data, weights=weights)
    rest = data.drop(index=data.index[out])
    other = lmm.lmer("y ~ x + (1 | a)", rest, weights="w")
    assert one.nobs == other.nobs == 113
    assert one.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-9)
    pd.testing.assert_series_equal(one.fitted, other.fitted)
    assert np.isfinite(one.loglik)


@few
@given(seeds)
def test_whole_weights_are_repeated_rows_for_the_fixed_effects(seed: int) -> None:
    data = simulated(seed)
    counts = np.random.default_rng(seed).integers(1, 4, len(data))
    weighted = fit("y ~ x + (x | a)", data, weights=counts, reml=False)
    repeated = data.loc[np.repeat(data.index, counts)]
    theta = weighted.theta.to_numpy()
    other = fit("y ~ x + (x | a)", repeated, reml=False).fit.objective
    np.testing.assert_allclose(
        other.solution(theta).RX.T @ other.solution(theta).RX,
        _in_basis_of(other, weighted.fit.objective, theta),
        rtol=1e-9,
        atol=1e-9,
    )


def _in_basis_of(one: Any, other: Any, theta: Array) -> Array:
    """X'V⁻¹X of `other` in the internal columns of `one`."""
    R = other.products.basis.R @ np.linalg.inv(one.products.basis.R)
    RX = other.solution(theta).RX @ R
    return np.asarray(RX.T @ RX)


@few
@given(seeds, st.booleans())
def test_offset_three_ways(seed: int, reml: bool) -> None:
    data = simulated(seed)
    shifted = fit(NESTED, data.assign(y=data["y"] - data["o"]), weights="w", reml=reml)
    ways = [
        fit(NESTED, data, offset="o", weights="w", reml=reml),
        fit(NESTED, data, offset=data["o"].to_numpy(), weights="w", reml=reml),
        fit(NESTED + " + offset(o)", data, weights="w", reml=reml),
        fit(NESTED + " + offset(o / 2)", data, offset=data["o"] / 2, weights="w", reml=reml),
    ]
    for m in ways:
        assert m.fit.criterion == pytest.approx(shifted.fit.criterion, abs=1e-8)
        np.testing.assert_allclose(m.theta, shifted.theta, atol=1e-6)
        np.testing.assert_allclose(m.fitted - data["o"], shifted.fitted, atol=1e-6)
        np.testing.assert_allclose(m.residuals, shifted.residuals, atol=1e-6)


def test_offset_in_the_span_of_the_predictors_only_moves_them() -> None:
    data = simulated(5)
    one = fit(NESTED, data)
    other = fit(NESTED, data.assign(o=4 + 3 * data["x"]), offset="o")
    assert other.fit.criterion == pytest.approx(one.fit.criterion, abs=1e-8)
    moved = one.fixef - 3.0 * (one.fixef.index == "x") - 4.0 * (one.fixef.index == "Intercept")
    np.testing.assert_allclose(other.fixef, moved, atol=1e-8)
    np.testing.assert_allclose(other.fitted, one.fitted, atol=1e-8)


# Missing rows -------------------------------------------------------------------------------------


@few
@given(seeds, st.sampled_from(["y", "x", "f", "a", "b"]))
def test_missing_value_is_a_dropped_row(seed: int, column: str) -> None:
    data = simulated(seed)
    out = np.random.default_rng(seed).choice(len(data), 9, replace=False)
    holes = data.astype({column: object})
    holes.loc[out, column] = None
    one, other = fit(NESTED, holes), fit(NESTED, data.drop(index=out))
    assert one.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-9)
    pd.testing.assert_series_equal(one.fitted, other.fitted)


def test_undefined_expression_is_a_dropped_row() -> None:
    data = simulated(2)
    keep = (data["x"] > 0) & (data["y"] > 0)
    formula = "log(y) ~ sqrt(x) + f + (1 | a)"
    one, other = fit(formula, data), fit(formula, data[keep])
    assert one.nobs == int(keep.sum())
    assert one.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-9)
    pd.testing.assert_series_equal(one.fitted, other.fitted)


def test_level_that_only_undefined_rows_have() -> None:
    data = simulated(2)
    data.loc[data["f"] == "top", "y"] = -1.0
    keep = data["y"] > 0
    one, other = fit("log(y) ~ f + (f | a)", data), fit("log(y) ~ f + (f | a)", data[keep])
    assert list(one.fixef.index) == list(other.fixef.index) == ["Intercept", "f[T.mid]"]
    assert one.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-9)
