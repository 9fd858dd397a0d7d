"""Likelihood-ratio tests: only of a model that is contained in the other."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.inference.hypotheses.nesting import why_not_contained


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    d = pd.DataFrame([(g, f, r) for g in range(24) for f in "abc" for r in range(4)])
    d.columns = ["g", "f", "r"]
    n = len(d)
    d["x"], d["z"], d["w"] = rng.normal(size=n), rng.normal(size=n) + 50, rng.uniform(1, 2, n)
    d["h"], d["one"] = rng.integers(0, 9, n), 1.0
    d["y"] = d["x"] + 2 * rng.normal(size=24)[d["g"]] + rng.normal(size=9)[d["h"]]
    d["y"] += d["x"] * rng.normal(size=24)[d["g"]] + rng.normal(size=n)
    d["fg"] = d["f"] + d["g"].astype(str)
    d["y"] += d["fg"].map(dict(zip(d["fg"].unique(), rng.normal(size=72), strict=True)))
    d["seconds"] = d["x"] + 1.7e9
    return d


def _fit(formula: str, data: pd.DataFrame, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmm.lmer(formula, data, reml=False, **options)


# Smaller and larger model, both after "y ~ ".
CONTAINED = [
    ("1 + (1 | g)", "x + (1 | g)"),
    ("x + (1 | g)", "f * x + (1 | g)"),
    ("I(2 * x - 3) + (1 | g)", "x + f + (1 | g)"),
    ("I(x + z) + (1 | g)", "x + z + (1 | g)"),
    ("x + (1 | g)", "x + (x | g)"),
    ("x + (x || g)", "x + (x | g)"),
    ("x + (0 + I(x + 7) | g)", "x + (x | g)"),
    ("x + (z || g)", "x + (z | g)"),
    ("x + (1 | g)", "x + (1 | g) + (1 | h)"),
    ("x + (1 | h)", "x + (0 + f | g) + (1 | h)"),
    ("x + (1 | g)", "x + (0 + f | g)"),
    ("x + (1 | g) + (1 | g:f)", "x + (0 + f | g)"),
    ("x + (1 | g) + (1 | f:g)", "x + (f | g)"),
    ("x + cs(0 + f | g, hom=True)", "x + (f | g)"),
    ("x + cs(0 + f | g, hom=True)", "x + cs(0 + f | g)"),
    ("x + diag(0 + f | g, hom=True)", "x + cs(0 + f | g)"),
    ("x + diag(0 + f | g)", "x + cs(0 + f | g)"),
    ("x + diag(0 + f | g)", "x + (0 + f | g)"),
    ("x + ar1(0 + f | g)", "x + ar1(0 + f | g, hom=False)"),
    ("x + ar1(0 + f | g)", "x + (0 + f | g)"),
    ("x + ar1(0 + f | g, hom=False)", "x + (0 + f | g)"),
    ("x + (1 | g)", "x + ar1(0 + f | g)"),
    ("1 + ar1(0 + f | g)", "x + ar1(0 + f | g) + (1 | h)"),
    ("1 + (1 | g)", "seconds + (1 | g)"),
]
NOT_CONTAINED = [
    ("x + (1 | g)", "z + f + (1 | g)"),
    ("seconds + (1 | g)", "z + f + (1 | g)"),
    ("0 + x + (1 | g)", "z + f + (1 | g)"),
    ("x + (1 | h)", "x + (x | g)"),
    ("x + (0 + z | g)", "x + (x | g)"),
    ("x + (0 + I(x + 7) | g)", "x + (x || g)"),
    ("x + (x | g)", "x + (1 | g) + (0 + x | g) + (1 | h) + (1 | f:g)"),
    ("x + (1 | g:f)", "x + (x | g)"),
    ("x + diag(0 + f | g)", "x + (1 | g) + (1 | f:g) + (1 | h) + (0 + x | g)"),
    ("x + ar1(0 + f | g)", "x + (1 | g) + (1 | f:g) + (1 | h)"),
    ("f + (1 | g)", "f + x + diag(0 + f | g)"),
]
UNKNOWN = [("x + cs(0 + f | g, hom=True)", "x + ar1(0 + f | g, hom=False)")]


@pytest.mark.parametrize(("small", "large"), CONTAINED)
def test_contained(small: str, large: str, data: pd.DataFrame) -> None:
    one, two = (_fit(f"y ~ {formula}", data) for formula in (small, large))
    assert why_not_contained(one.fit, two.fit) == ""
    assert why_not_contained(two.fit, one.fit) != ""
    table = lmm.anova(one, two)
    assert np.isfinite(table.to_frame()["Pr(>Chisq)"].iloc[1])
    assert not any("not contained" in note for note in table.notes)


@pytest.mark.parametrize(("small", "large"), [*NOT_CONTAINED, *UNKNOWN])
def test_not_contained(small: str, large: str, data: pd.DataFrame) -> None:
    one, two = (_fit(f"y ~ {formula}", data) for formula in (small, large))
    assert one.npar < two.npar
    table = lmm.anova(two, one)
    assert table.to_frame()["Pr(>Chisq)"].isna().all()
    assert np.isfinite(table.to_frame()["AIC"]).all()
    (note,) = [note for note in table.notes if "not contained" in note]
    assert ("cannot be told" in note) == ((small, large) in UNKNOWN)


@pytest.mark.parametrize(("small", "large"), [*CONTAINED[::3], *NOT_CONTAINED[::3]])
def test_weights_do_not_decide(small: str, large: str, data: pd.DataFrame) -> None:
    one, two = (_fit(f"y ~ {formula}", data, weights="w") for formula in (small, large))
    assert (why_not_contained(one.fit, two.fit) == "") == ((small, large) in CONTAINED)


def test_offsets(data: pd.DataFrame) -> None:
    """A slope of one is contained in a slope; an offset that no slope explains is not."""
    free, held = _fit("y ~ x + (1 | g)", data), _fit("y ~ offset(x) + (1 | g)", data)
    other = _fit("y ~ offset(z) + (1 | g)", data)
    assert np.isfinite(lmm.anova(held, free).to_frame()["Pr(>Chisq)"].iloc[1])
    assert np.isnan(lmm.anova(other, free).to_frame()["Pr(>Chisq)"].iloc[1])


def test_held_parameters(data: pd.DataFrame) -> None:
    plain = _fit("y ~ 1 + (1 | g)", data)
    held = _fit("y ~ x + z + (1 | g)", data, fixed={"g.Intercept": 0.7})
    assert "held" in why_not_contained(plain.fit, held.fit)
    smaller = _fit("y ~ x + (1 | g)", data, fixed={"g.Intercept": 0.7})
    assert why_not_contained(smaller.fit, held.fit) == ""
    assert why_not_contained(smaller.fit, _fit("y ~ x + (1 | g)", data).fit) == ""


def test_models_in_a_row_are_compared_in_pairs(data: pd.DataFrame) -> None:
    models = [_fit(f"y ~ {f} + (1 | g)", data) for f in ("1", "x", "z + f", "x + z + f")]
    frame = lmm.anova(*models).to_frame()
    assert np.isfinite(frame["Pr(>Chisq)"]).tolist() == [False, True, False, True]


@pytest.mark.parametrize(("small", "large"), NOT_CONTAINED[::4])
def test_nothing_is_drawn_from_models_that_are_not_contained(
    small: str, large: str, data: pd.DataFrame
) -> None:
    table = lmm.bootstrap_lrt(
        _fit(f"y ~ {small}", data), _fit(f"y ~ {large}", data), n=10**6, rng=1
    )
    assert table.to_frame()["Pr(>Chisq)"].isna().all()
    assert np.isfinite(table.to_frame()["Chisq"]).all()
    assert "small is not contained in large" in table.notes[0]
