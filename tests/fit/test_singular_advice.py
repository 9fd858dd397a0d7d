"""What a singular fit is said to equal is fitted and has the same criterion."""

from __future__ import annotations

import re
import warnings
from functools import cache
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning, SingularFitWarning

EQUAL = re.compile(r"It equals the model .*?: (\S+ ?~ .*?)\.(?:$| m\.rank_pca)")
NEXT = re.compile(r"Next to try: (.*?)\. The data support")


def fitted(formula: str, frame: pd.DataFrame, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, frame, **options)


@cache
def plots(seed: int) -> pd.DataFrame:
    """Sites, plots in them, two factors and two numbers; little varies. Do not modify."""
    rng = np.random.default_rng(seed)
    rows = [(s, p, r) for s in range(8) for p in range(4) for r in range(12)]
    d = pd.DataFrame(rows, columns=["site", "plot", "row"])
    d["temp"], d["rain"] = rng.normal(20, 5, len(d)), rng.normal(size=len(d))
    d["kind"] = np.array(["low", "mid", "top"])[rng.integers(0, 3, len(d))]
    d["old"] = np.where(rng.integers(0, 2, len(d)), "yes", "no")
    d["year"] = rng.integers(1, 4, len(d))
    d["y"] = rng.normal(size=len(d)) + 0.5 * rng.normal(size=8)[d["site"]]
    d["y"] += 0.03 * d["temp"] * rng.normal(size=32)[d["site"] * 4 + d["plot"]]
    return d


FORMULAS = [
    "y ~ temp + (temp | site/plot)",
    "y ~ temp + (temp | site*plot)",
    "y ~ temp + (temp || site/plot)",
    "y ~ temp+(1|site)+(temp|site:plot)",
    "y ~ temp + rain + (temp + rain | site)",
    "y ~ temp + rain + diag(temp + rain | site/plot)",
    "y ~ kind + (kind | site)",
    "y ~ kind + diag(0 + kind | site)",
    "y ~ kind + diag(kind | site) + (1 | site:plot)",
    "y ~ kind * old + (kind * old | site)",
    "y ~ kind * old + diag(kind * old | site/plot)",
    "y ~ temp * old + (temp * old | site) + (1 | plot)",
    "y ~ (rain || site) + temp",
    "y ~ C(year) + diag(C(year) | site)",
    "y ~ rain + I(rain**2) + (rain + I(rain**2) | site/plot)",
    "y ~ rain + diag(rain + I(rain**2) | site)",
    "y ~ old + cs(0 + kind | site)",
    "y ~ 1 + (1 | plot) + (1 | year) + (rain | old)",
]


@cache
def fit_of_plots(formula: str, seed: int, reml: bool = True) -> lmm.LinearMixedModel:
    return fitted(formula, plots(seed), reml=reml)


def check(formula: str, frame: pd.DataFrame, model: lmm.LinearMixedModel, **options: Any) -> None:
    texts = [f.message for f in model.convergence.findings if f.code == "singular"]
    assert texts
    text = texts[0]
    if "equally well" in text:
        return
    equal, following = EQUAL.search(text), NEXT.search(text)
    assert ("It equals" in text) or following or "rank_pca" in text or "cs(" in formula
    if equal:
        same = fitted(equal[1], frame, reml=model.reml, **options)
        assert -2 * same.loglik == pytest.approx(-2 * model.loglik, abs=2e-5)
        assert len(same.theta) < len(model.theta)
    if following:
        smaller = fitted(following[1], frame, reml=model.reml, **options)
        assert len(smaller.theta) < len(model.theta)
        assert -2 * smaller.loglik > -2 * model.loglik - 2e-5
    assert len(text) < 900


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("formula", FORMULAS)
def test_advice_is_true(formula: str, seed: int) -> None:
    model = fit_of_plots(formula, seed)
    if model.convergence.singular and model.convergence.converged:
        check(formula, plots(seed), model)


@pytest.mark.long
@pytest.mark.parametrize("reml", [True, False])
def test_enough_of_them_are_singular(reml: bool) -> None:
    found = [fit_of_plots(formula, 0, reml).convergence.singular for formula in FORMULAS]
    assert sum(found) > len(FORMULAS) // 2


@pytest.mark.long
@pytest.mark.parametrize("name", models.MODELS)
def test_advice_of_the_registry(name: str) -> None:
    model, entry = models.fit(name), models.MODELS[name]
    if not (model.convergence.singular and model.convergence.converged):
        return
    if len(model.fit.design.y) > 10_000:
        return
    check(
        entry["formula"],
        models.frame(entry["data"]),
        model,
        weights=entry["weights"],
        offset=entry["offset"],
    )


def test_a_nested_term_is_named_by_its_part() -> None:
    """(temp | site/plot) makes two terms, of which one is singular."""
    rng = np.random.default_rng(5)
    d = plots(0).copy()
    d["y"] = rng.normal(size=len(d)) + rng.normal(size=8)[d["site"]] * (1 + 0.05 * d["temp"])
    d["y"] += rng.normal(size=32)[d["site"] * 4 + d["plot"]]
    d["y"] += 0.2 * (d["temp"] - 20) * rng.normal(size=32)[d["site"] * 4 + d["plot"]]
    model = fitted("y ~ temp + (temp | site/plot)", d)
    (text,) = [f.message for f in model.convergence.findings if f.code == "singular"]
    assert "in (temp | site) " in text
    assert "in place of (temp | site): y ~ temp + (0 + I(" in text
    assert "Next to try: y ~ temp + (1 | site) + (temp | site:plot)." in text
    check("", d, model)


def test_the_advice_comes_once_and_printouts_say_the_rank() -> None:
    data = pd.read_csv(models.VALIDATION / "data" / "psycho_singular.csv.gz")
    with pytest.warns(SingularFitWarning, match="Next to try"):
        model = lmm.lmer("rt ~ A * B + (A * B | subj) + (A * B | item)", data)
    for text in (str(model), str(model.summary()), model._repr_html_()):
        flat = " ".join(text.split())
        assert flat.count("(A * B | subj) varies in 2 of 4 dimensions") == 1
        assert "Next to try" not in flat
    table = model.rank_pca()["subj"]
    names = list(model.ranef["subj"].columns)
    assert list(table.columns) == ["sd", "cumulative", *names]
    weights = table[names].to_numpy()
    np.testing.assert_allclose(weights @ weights.T, np.eye(4), atol=1e-10)
    T = model.fit.template.factors(model.fit.theta)[0]
    np.testing.assert_allclose(
        (weights.T * table["sd"].to_numpy() ** 2) @ weights, T @ T.T, atol=1e-10
    )
