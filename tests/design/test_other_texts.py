"""Texts beside the formula, and tables of odd kinds: read as what they are, or refused by name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.design.label_numbers import numbers_of
from lmmsparse.formula.residual import parse_residual

N = 60
RNG = np.random.default_rng(8)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.uniform(1, 2, N),
        "f": RNG.choice(list("abc"), N),
        "g": np.arange(N) % 6,
        "t": np.arange(N) // 6 + 1.0,
        "k": RNG.integers(0, 9, N),
        "n": np.full(N, 9),
    }
)
DATA["y"] += DATA["g"]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        yield


def _binomial(formula: str, **columns: Any) -> lmm.GeneralizedLinearMixedModel:
    return lmm.glmer(formula, DATA.assign(**columns), "binomial")


@pytest.mark.parametrize(
    ("response", "columns"),
    [
        ("cbind(`my k`, n - `my k`)", {"my k": DATA["k"]}),
        ("cbind(`a,b`, n - `a,b`)", {"a,b": DATA["k"]}),
        ("cbind(k * (f != ')'), n - k * (f != '('))", {}),
        ("I(k * (f != ')')) / n", {}),
        ("(k) / (n)", {}),
        ("I(k / n)", {"k / n": 0.5}),
        ("k / n", {"k / n": 0.5}),
    ],
)
def test_counts_are_read_whatever_their_names(response: str, columns: dict[str, Any]) -> None:
    want = _binomial("cbind(k, n - k) ~ x + (1 | g)")
    own = _binomial(f"{response} ~ x + (1 | g)", **columns)
    np.testing.assert_allclose(own.fixef, want.fixef, rtol=1e-8)


def test_a_column_named_like_the_response_is_another_one() -> None:
    other = RNG.normal(size=N)
    own = _binomial("k / n ~ `k / n` + (1 | g)", **{"k / n": other})
    want = _binomial("k / n ~ other + (1 | g)", other=other)
    np.testing.assert_allclose(own.fixef, want.fixef, rtol=1e-8)


@pytest.mark.parametrize(
    "response",
    ["cbind(k, n * 1e400)", "cbind(k, [1])", "cbind([k], n)", "cbind(k, 1j)", "cbind(k)"],
)
def test_counts_that_are_none(response: str) -> None:
    with pytest.raises(lmm.LmmError):
        _binomial(f"{response} ~ x + (1 | g)")


def test_an_offset_is_one_expression() -> None:
    want = lmm.glmer("k ~ x + offset(log(n)) + (1 | g)", DATA, "poisson")
    own = lmm.glmer("k ~ x + (1 | g)", DATA, "poisson", offset="log(n)")
    np.testing.assert_allclose(own.fixef, want.fixef, rtol=1e-8)
    with pytest.raises(lmm.FormulaError):
        lmm.glmer("k ~ x + (1 | g)", DATA, "poisson", offset="log(n)) + (1 | f")


@pytest.mark.parametrize(
    ("text", "time", "factors"),
    [
        ("ar1(`a|b` | `g )`)", "`a|b`", ("`g )`",)),
        ("car1(I(t / 2) | g:f)", "I(t / 2)", ("g", "f")),
        ("us((t) | (g))", "t", ("g",)),
        ("cs((1) | g)", "1", ("g",)),
        ("cs(I(f == '|') | g)", "I(f == '|')", ("g",)),
    ],
)
def test_a_residual_structure_is_read_like_a_formula(
    text: str, time: str, factors: tuple[str, ...]
) -> None:
    found = parse_residual(text)
    assert (found.time, found.factors) == (time, factors)


@pytest.mark.parametrize(
    "text",
    ["car1(t / 2 | g)", "ar1(t | )", "ar1(t || g)", "ar1(t | g | f)", "ar1((t | g))", "ar1(-t | g)",
     "ar1(. | g)", "ar1(t | .)", "ar1(t | g, hom=True)", "ar1(True | g)", "ar1(t | g) x"],
)  # fmt: skip
def test_residual_structures_that_are_none(text: str) -> None:
    with pytest.raises(lmm.FormulaError):
        lmm.build_design("y ~ x", DATA, residual=text)


@pytest.mark.parametrize("text", ["~ -x", "~ .", "~ x - x", "~ x - 1", "~ 1 + 1"])
def test_standard_deviations_that_are_none(text: str) -> None:
    with pytest.raises(lmm.FormulaError):
        lmm.build_design("y ~ x + (1 | g)", DATA, residual_sd=text)


@pytest.mark.parametrize("kind", [np.complex128, np.complex64, object])
def test_complex_times_and_responses(kind: Any) -> None:
    odd = DATA.assign(c=(DATA["t"].to_numpy() + 1j).astype(kind))
    for residual in ("car1(c | g)", "ar1(c | g)"):
        with pytest.raises(lmm.DataError, match=r"complex|numbers"):
            lmm.build_design("y ~ x", odd, residual=residual)
    model = lmm.lmer("y ~ x", DATA, residual="car1(t | g)")
    with pytest.raises(lmm.DataError, match=r"complex|numbers"):
        model.predict(odd.assign(t=odd["c"]))
    with pytest.raises(lmm.DataError, match=r"complex|real"):
        lmm.lmer("c ~ x + (1 | g)", odd, chunks=lmm.Chunks(rows=20))


@pytest.mark.parametrize("kind", [">f8", ">i4", ">f4", ">u2", np.longdouble])
def test_numbers_of_other_machines(kind: Any) -> None:
    other = DATA.assign(**{name: DATA[name].to_numpy().astype(kind) for name in ("g", "k")})
    for formula in ("y ~ k + (1 | g)", "y ~ x + (k | g:f)", "k ~ x + (1 | g)"):
        want, own = lmm.lmer(formula, DATA), lmm.lmer(formula, other)
        np.testing.assert_allclose(own.fixef, want.fixef, rtol=1e-10)
        np.testing.assert_allclose(own.predict(other), want.predict(DATA), rtol=1e-10)
        own.augment(other)


@pytest.mark.parametrize(
    "formula",
    ["y ~ u + (1 | g)", "y ~ x + (u | g)", "u ~ x + (1 | g)", "y ~ x + offset(u) + (1 | g)"],
)
def test_whole_numbers_beyond_floating_point(formula: str) -> None:
    values = pd.Series([10**400 + i % 3 for i in range(N)], dtype=object)
    with pytest.raises(lmm.DataError, match=r"1\.8e308|must be numbers"):
        lmm.lmer(formula, DATA.assign(u=values))


def test_texts_that_are_no_unicode() -> None:
    odd = DATA.assign(u=pd.Series(["\ud800", "\udfff"] * (N // 2), dtype=object))
    for formula in ("y ~ u + (1 | g)", "y ~ x + (1 | u)"):
        with pytest.raises(lmm.DataError, match="Unicode"):
            lmm.lmer(formula, odd)
    model = lmm.lmer("y ~ x * f + (1 | g)", DATA)
    with pytest.raises(lmm.LmmError):
        model.emmeans("f", at={"f": ["\ud800"]})
    with pytest.raises(lmm.LmmError):
        lmm.lmer("y ~ x + (1 | g)", DATA, start={"\ud800": 1.0})


def test_labels_of_absurd_numbers_are_labels() -> None:
    assert numbers_of(["v" + "9" * 5000, "v1"]) is None
    assert numbers_of([float("inf"), 1.0]) is None
    assert numbers_of(["v1", "v10", "v2"]) == [1, 10, 2]


def test_transforms_in_chunks_say_what_is_wrong() -> None:
    for call in ("poly()", "scale(x, ddof=1000)", "scale(x, center='a')", "center()"):
        with pytest.raises(lmm.LmmError):
            lmm.lmer(f"y ~ {call} + (1 | g)", DATA, chunks=lmm.Chunks(rows=20))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.longdouble])
def test_known_labels_of_any_width(kind: Any) -> None:
    labels = np.arange(6).astype(kind)
    known = {"g": lmm.Covariance(np.eye(6) + 0.5, list(labels))}
    own = lmm.lmer("y ~ x + (1 | g)", DATA.assign(g=DATA["g"].astype(kind)), known=known)
    want = lmm.lmer(
        "y ~ x + (1 | g)", DATA, known={"g": lmm.Covariance(np.eye(6) + 0.5, list(range(6)))}
    )
    np.testing.assert_allclose(own.fixef, want.fixef, rtol=1e-8)


def test_counts_whose_sum_is_too_large() -> None:
    data = lmm.load_dataset("cbpp")
    with pytest.raises(lmm.DataError, match="infinite values, or numbers beyond"):
        lmm.glmer("cbind(1e308, 1e308) ~ period + (1 | herd)", data, "binomial")
