"""Covariance parameters that the data do not determine: found, named, not counted, left out.

Everything said is checked: the other way to write the model is fitted, with the same criterion and
fewer parameters. Designs that determine everything, however badly scaled, must not be suspected.
"""

from __future__ import annotations

import ast
import re
import warnings
from functools import cache
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import DesignWarning, LmmWarning
from lmmsparse.fit.held import held_parameters
from lmmsparse.fit.identification import gram_matrix, standardized_changes, unidentified
from lmmsparse.fit.problem import make_template, products_of

SAME = "The same fit with "


@cache
def data() -> pd.DataFrame:
    """30 groups of 12 rows; f varies within them, b, z, z3 and c do not. Do not modify."""
    rng = np.random.default_rng(1)
    rows = [(i, c, k) for i in range(30) for c in "st" for k in range(6)]
    d = pd.DataFrame(rows, columns=["g", "f", "k"])
    d["b"] = np.where(d["g"] % 2, "u", "v")
    d["c"] = np.array(["x", "y", "z"])[d["g"] % 3]
    d["z"], d["z3"] = 2.0 * (d["g"] % 2), 1.0 * (d["g"] % 3)
    d["h"] = d["g"] // 5
    d["a"], d["x"], d["w"] = *rng.normal(size=(2, len(d))), rng.uniform(1, 3, len(d))
    d["far"], d["tiny"], d["near"] = 1e6 + d["x"], 1e-7 * d["x"], d["x"] + 1e-4 * d["a"]
    d["day"] = d["k"].astype(float)
    u = rng.normal(size=(30, 4)) * [1.2, 0.7, 0.6, 0.8]
    d["y"] = u[d["g"], 0] * (1.0 + (d["b"] == "v")) + (d["f"] == "t") * u[d["g"], 1]
    d["y"] += d["a"] * u[d["g"], 2] + d["x"] * u[d["g"], 3] + rng.normal(size=len(d))
    return d


@cache
def pairs() -> pd.DataFrame:
    """Two rows per group, at x = −1 and x = 1."""
    rng = np.random.default_rng(2)
    d = pd.DataFrame({"g": np.repeat(np.arange(40), 2), "x": np.tile([-1.0, 1.0], 40)})
    d["y"] = 1.5 * rng.normal(size=40)[d["g"]] + rng.normal(size=80)
    return d


@cache
def contrasted() -> pd.DataFrame:
    """The same where rows of a group are unlike each other."""
    d = pairs().copy()
    d["y"] += 3.0 * d["x"] * np.random.default_rng(3).normal(size=40)[d["g"]]
    return d


@cache
def ages() -> pd.DataFrame:
    """Race by age, one race at one age only."""
    rng = np.random.default_rng(4)
    d = pd.DataFrame([(a, r) for a in range(4) for r in "BHW" for _ in range(9)])
    d.columns = ["age", "race"]
    d = d[(d["race"] != "H") | (d["age"] == 2)].reset_index(drop=True)
    d["gain"] = rng.normal(size=len(d)) + 2.0 * rng.normal(size=4)[d["age"]]
    return d


def fitted(formula: str, frame: pd.DataFrame, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, frame, **options)


def said(model: lmm.LinearMixedModel) -> str:
    (text,) = [f.message for f in model.convergence.findings if f.code == "not-identified"]
    return text


def rewritten(text: str) -> tuple[str, dict[str, float]]:
    """The formula that a message says fits as well, and what is to be held in it."""
    found = re.search(rf"{SAME}.*? less, all of them determined: (.*)\.$", text)
    assert found is not None, text
    formula, _, fixed = found[1].partition(", fixed=")
    return formula, ast.literal_eval(fixed) if fixed else {}


OPEN = {
    # formula: number of open combinations, words of the message
    "y ~ b + (b | g)": (1, "the variance of b[T.v] and its covariance with Intercept in (b | g)"),
    "y ~ b + (0 + b | g)": (1, "b does not vary within g"),
    "y ~ b + cs(0 + b | g)": (1, "cs(0 + b | g): b does not vary within g"),
    "y ~ c + (c | g)": (3, "c does not vary within g"),
    "y ~ z + (z | g)": (1, "z does not vary within g, and there are only 2 kinds of levels"),
    "y ~ f + (1 | g) + (0 + f | g)": (1, "the variance of (1 | g) and"),
    "y ~ f + (f || g)": (1, "their columns repeat each other"),
    "y ~ f + (1 | g:f) + (0 + f | g)": (1, "the variance of (1 | g:f) and"),
    "y ~ f + (1 | g:f) + (f | g)": (1, "another can add as well"),
    "y ~ x + (x | g) + (0 + I(2 * x) | g)": (1, "Only one combination of these 2"),
    "y ~ x + (1 | g) + (0 + I(x - 1) + I(x + 1) | g)": (1, "within g, their columns repeat"),
    "y ~ a + b + (a + b | g)": (1, "Only the variance plus 2 times the covariance"),
    "y ~ a * b + (a * b | g)": (4, "7 of the variances and covariances of (a * b | g)"),
    "y ~ a * c + (a * c | g)": (12, "c does not vary within g"),
    "y ~ b + (b | g) + (a | h)": (1, "b does not vary within g"),
}


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", OPEN)
def test_what_is_not_determined_is_said_and_can_be_written_without(
    formula: str, reml: bool
) -> None:
    m, words = OPEN[formula]
    model = fitted(formula, data(), reml=reml)
    text = said(model)
    assert words in text
    assert model.fit.n_undetermined == m
    k = len(model.theta) + 1
    assert model.npar == len(model.fixef) + k - m
    assert f"AIC and df count {k - m} of {k} variances and covariances" in text
    assert model.aic == pytest.approx(-2 * model.loglik + 2 * model.npar)
    assert model.convergence.converged
    other, fixed = rewritten(text)
    simpler = fitted(other, data(), reml=reml, fixed=fixed or None)
    assert simpler.fit.n_undetermined == 0
    assert simpler.npar == model.npar
    assert len(simpler.theta) - len(fixed) == len(model.theta) - m
    assert -2 * simpler.loglik == pytest.approx(-2 * model.loglik, abs=2e-6)
    np.testing.assert_allclose(simpler.fitted, model.fitted, atol=2e-4)


@pytest.mark.parametrize("frame", [pairs, contrasted], ids=["alike", "unlike"])
def test_as_many_effects_as_rows(frame: Any) -> None:
    model = fitted("y ~ x + (1 | g) + (0 + x | g)", frame())
    text = said(model)
    assert "the variance of (1 | g), the variance of (0 + x | g) and the residual variance" in text
    assert "as many random effects as rows" in text
    assert "fitted values and residuals; fixed effects" in text
    assert model.npar == len(model.fixef) + 2
    other, _ = rewritten(text)
    assert other == f"y ~ x + ({'1' if frame is pairs else '0 + x'} | g)"
    simpler = fitted(other, frame())
    assert simpler.reml_criterion == pytest.approx(model.reml_criterion, abs=1e-6)
    np.testing.assert_allclose(simpler.se, model.se, rtol=1e-4)
    # With the residual standard deviation known, both variances are determined.
    known = fitted("y ~ x + (1 | g) + (0 + x | g)", frame(), fixed={"sigma": 1.0})
    assert known.fit.n_undetermined == 0


def test_an_effect_in_one_level_that_the_fixed_effect_takes() -> None:
    model = fitted("gain ~ race + (race | age)", ages())
    text = said(model)
    assert "REML cannot estimate the variance of race[T.H]" in text
    assert "race[T.H] occurs in one level of age only (2)" in text
    assert model.fit.n_undetermined == 3
    assert np.isfinite(model.varcorr.to_frame()["sdcor"].dropna()).all()
    assert model.varcorr.terms[0].sd.max() < 100
    other, _ = rewritten(text)
    simpler = fitted(other, ages())
    assert simpler.npar == model.npar
    assert simpler.reml_criterion == pytest.approx(model.reml_criterion, abs=1e-6)
    ml = fitted("gain ~ race + (race | age)", ages(), reml=False)
    assert ml.fit.n_undetermined == 0


def test_many_refits_are_those_of_the_simpler_model() -> None:
    model = fitted("gain ~ race + (race | age)", ages())
    simpler = fitted(rewritten(said(model))[0], ages())
    Y = model.simulate(12, rng=1)
    found, right = model.refit_many(Y), simpler.refit_many(Y)
    assert found["converged"].all()
    for column in ("criterion", "sigma", "Intercept", "race[T.W]", "se_Intercept", "se_race[T.W]"):
        np.testing.assert_allclose(found[column], right[column], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["criterion"], right["criterion"], atol=1e-6)
    # The standard error of the race that occurs at one age depends on the choice: no huge one.
    assert found["se_race[T.H]"].max() < 10.0


def test_weights_count_and_rows_without_weight_do_not() -> None:
    d = data()
    weighted = fitted("y ~ b + (b | g)", d, weights="w")
    assert said(weighted)
    # b varies within groups only in rows of weight zero.
    odd = d.assign(b=np.where(d["k"] == 0, "u", d["b"]), w=np.where(d["k"] == 0, 0.0, d["w"]))
    assert fitted("y ~ b + (b | g)", odd).fit.n_undetermined == 0
    assert fitted("y ~ b + (b | g)", odd, weights="w").fit.n_undetermined == 1
    # And after a refit with other weights.
    with pytest.warns(DesignWarning):
        again = fitted("y ~ b + (b | g)", odd).refit(odd["y"], weights=odd["w"])
    assert again.fit.n_undetermined == 1


def test_what_is_held_is_not_open() -> None:
    d = data()
    held = fitted("y ~ b + (b | g)", d, fixed={"g.b[T.v].Intercept": 0.3})
    assert held.fit.n_undetermined == 0
    assert "not-identified" not in [f.code for f in held.convergence.findings]
    both = fitted("y ~ f + (1 | g) + (0 + f | g)", d, fixed={"g.Intercept": 0.2})
    assert both.fit.n_undetermined == 0
    # A first column of T that is nothing leaves two elements for one variance.
    two = fitted("y ~ x + (x | g)", d, fixed={"g.Intercept": 0.0})
    assert two.fit.n_undetermined == 1


def test_what_is_open_has_no_standard_error() -> None:
    table = fitted("y ~ a + b + (b | g) + (1 | f)", data()).vcov_varcorr()
    nothing = table.isna().all(axis=1)
    assert nothing[[name for name in table.index if "|g" in name]].all()
    assert table.loc["sigma", "sigma"] > 0
    pair = fitted("y ~ x + (1 | g) + (0 + x | g)", pairs()).vcov_varcorr()
    assert pair.isna().all(axis=None)


def test_a_singular_choice_is_not_said_to_equal_another_model() -> None:
    model = fitted("y ~ x + (x | g) + (0 + I(2 * x) | g)", data())
    for finding in model.convergence.findings:
        assert "It equals" not in finding.message


def test_the_printout_says_it_in_a_line() -> None:
    model = fitted("y ~ b + (b | g)", data())
    for text in (str(model), str(model.summary()), model._repr_html_()):
        flat = " ".join(text.split())
        assert flat.count("The data cannot tell apart the variance of b[T.v]") == 1
        assert "AIC and df count 3 of 4" in flat
        assert SAME not in flat


def test_fitting_warns_and_a_saved_model_still_knows(tmp_path: Any) -> None:
    with pytest.warns(DesignWarning, match="cannot tell apart"):
        model = lmm.lmer("y ~ b + (b | g)", data())
    model.save(tmp_path / "m.lmm")
    again = lmm.load(tmp_path / "m.lmm")
    assert again.npar == model.npar
    assert said(again) == said(model)
    with pytest.warns(DesignWarning, match="cannot tell apart"):
        other = model.refit(data()["y"] + 1.0)
    assert other.npar == model.npar


DETERMINED = [
    "y ~ x + (x | g)",
    "y ~ x + (x || g)",
    "y ~ (1 | g) + (1 | h)",
    "y ~ (1 | h/g)",
    "y ~ f + (f | g)",
    "y ~ f + (f | g) + (1 | h)",
    "y ~ f + (1 | g/f)",
    "y ~ z3 + (z3 | g)",
    "y ~ c + diag(0 + c | g)",
    "y ~ b + diag(0 + b | g)",
    "y ~ far + (far | g)",
    "y ~ far + (far || g)",
    "y ~ x + (1 | g) + (0 + far | g)",
    "y ~ tiny + (tiny | g)",
    "y ~ tiny + (tiny || g)",
    "y ~ near + (x + near | g)",
    "y ~ day + (day + I(day**2) | g)",
    "y ~ day + (day + I(day**2) + I(day**3) | g)",
    "y ~ I(1000 * day) + (I(1000 * day) + I((1000 * day)**2) | g)",
    "y ~ day + (day + I(day**2) | g) + (day + I(day**2) | h)",
    "y ~ f + cs(0 + f | g)",
    "y ~ f + cs(0 + f | g, hom=True) + (1 | h)",
    "y ~ day + ar1(0 + C(k) | g)",
    "y ~ day + ar1(0 + C(k) | g, hom=False)",
    "y ~ day + cs(0 + C(k) | g)",
    "y ~ day + diag(0 + C(k) | g, hom=True) + (1 | g)",
    "y ~ x * f + (x * f | g) + (x * f | h)",
    "y ~ a * f + (a * f | g)",
]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", DETERMINED)
def test_what_is_determined_is_not_suspected(formula: str, reml: bool) -> None:
    design = lmm.build_design(lmm.parse_formula(formula), data())
    products, _ = products_of(design)
    assert unidentified(design, make_template(design), products, reml) is None


def test_of_the_registry_only_one_is_open() -> None:
    found = set()
    for name, model in models.MODELS.items():
        design = lmm.build_design(
            lmm.parse_formula(model["formula"]),
            models.frame(model["data"]),
            weights=model["weights"],
            offset=model["offset"],
        )
        products, _ = products_of(design)
        if unidentified(design, make_template(design), products, model["reml"]) is not None:
            found.add(name)
    assert found == {"machines_double_bar_reml"}


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("formula", "weights", "fixed"),
    [
        ("y ~ x + (1 | g) + (1 | h)", None, {}),
        ("y ~ x + (0 + a | g) + (1 | k)", "w", {}),
        ("y ~ x + (x | g)", "w", {}),
        ("y ~ x + (far | g) + (f | h)", None, {}),
        ("y ~ x + cs(0 + f | g) + (x || h)", "w", {}),
        ("y ~ x + ar1(0 + C(k) | h)", None, {}),
        ("y ~ x + (far | g)", None, {"g.far.Intercept": 0.1}),
        ("y ~ x + diag(0 + x + a + f | h, hom=True)", None, {}),
    ],
)
def test_thegram_matrix_is_that_of_its_definition(
    formula: str, weights: str | None, fixed: dict[str, float], reml: bool
) -> None:
    d = data().iloc[:144]
    design = lmm.build_design(lmm.parse_formula(formula), d, weights=weights)
    held = held_parameters(design, fixed)
    template = make_template(design, held)
    products, _ = products_of(design)
    root, V = np.sqrt(design.weights_or_one)[:, None], []
    for pair in products.pairs:
        if pair.s != pair.t:
            continue
        block = design.blocks[pair.s]
        standard, E = standardized_changes(template, products, pair)
        columns = root * block.shifted_columns @ standard
        Z = np.zeros((design.n, block.n_levels * block.k))
        for j in range(block.k):
            Z[np.arange(design.n), block.codes * block.k + j] = columns[:, j]
        V += [Z @ np.kron(np.eye(block.n_levels), change) @ Z.T for change in E]
    V.append(np.eye(design.n))
    Q, _ = np.linalg.qr(root * design.X)
    P = np.eye(design.n) - Q @ Q.T if reml else np.eye(design.n)
    sizes = np.array([np.linalg.norm(A) for A in V])
    expected = np.array([[np.vdot(P @ A @ P, B) for A in V] for B in V])
    G = gram_matrix(template, products, reml)
    np.testing.assert_allclose(G, expected / np.outer(sizes, sizes), atol=1e-11)
