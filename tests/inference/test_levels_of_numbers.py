"""Factors that a formula makes of numbers are tested and averaged over like columns of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm

RNG = np.random.default_rng(3)
N = 240
DATA = pd.DataFrame(
    {
        "g": np.repeat(np.arange(48), 5),
        "x": RNG.normal(size=N),
        "f": np.arange(N) // 5 % 4,
        "k": np.arange(N) % 3,
        "y": RNG.normal(size=N),
    }
)
DATA["y"] += 0.4 * DATA["f"] * (DATA["k"] - 1) + DATA["x"] + RNG.normal(size=48)[DATA["g"]]
DATA["ft"], DATA["kt"] = DATA["f"].astype(str), DATA["k"].astype(str)
DATA["fk"] = DATA["ft"] + "." + DATA["kt"]
DATA["odd"] = (DATA["f"] % 2).astype(str)
DATA["up"] = np.where(DATA["x"] > 0, "b", "a")
DATA["whole"] = "n" + (DATA["x"].round() + 9).astype(int).astype(str).str.zfill(2)

CODED = "as.factor(f)", "C(f)", "factor(`f`)"
MADE = {
    "interaction(f, k)": "fk",
    "C(f % 2)": "odd",
    "C(f + 1)": "ft",
    "C(x > 0)": "up",
    "C(round(x))": "whole",
}


def fitted(terms: str) -> Any:
    return lmm.lmer(f"y ~ {terms} + (1 | g)", DATA)


def same(one: Any, other: Any) -> None:
    """The same numbers in two tables, whatever the labels."""
    for name in one.columns:
        if np.asarray(one[name]).dtype.kind == "f":
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("coded", CODED)
def test_numbers_as_a_factor(coded: str) -> None:
    one, other = fitted(f"{coded} * x + factor(k)"), fitted("ft * x + kt")
    for kind in (2, 3):
        same(lmm.anova(one, type=kind), lmm.anova(other, type=kind))
    same(one.emmeans("f"), other.emmeans("ft"))
    same(one.emmeans("f", pairwise=True), other.emmeans("ft", pairwise=True))
    same(one.joint_tests(), other.joint_tests())
    assert list(one.emmeans("f")["f"]) == [0, 1, 2, 3]


@pytest.mark.parametrize("made", MADE)
def test_levels_that_are_computed(made: str) -> None:
    one, other = fitted(made), fitted(MADE[made])
    same(lmm.anova(one), lmm.anova(other))
    if made != "interaction(f, k)":
        same(one.joint_tests(), other.joint_tests())
    assert np.isfinite(one.emmeans("x" if "x" in made else "f")["emmean"]).all()


def test_a_covariate_stays_at_its_mean() -> None:
    m = fitted("x + C(x > 0)")
    assert m.emmeans("x")["x"].iloc[0] == pytest.approx(DATA["x"].mean())


def test_combinations_that_do_not_occur() -> None:
    rare = DATA[(DATA["f"] > 0) | (DATA["k"] == 0)]
    for terms, name in (("interaction(ft, kt)", "ft"), ("interaction(f, k)", "f")):
        m = lmm.lmer(f"y ~ x + {terms} + (1 | g)", rare)
        other = lmm.lmer("y ~ x + fk + (1 | g)", rare)
        same(lmm.anova(m), lmm.anova(other))
        means = m.emmeans(name)
        if name == "ft":
            assert np.isnan(means["emmean"]).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ("factor(f)", r"In the new data 'factor\(f\)' has the level 7, which .*levels: 0, 1, 2, 3"),
        ("C(f % 3)", None),
        ("interaction(f, k)", r"'interaction\(f, k\)' has the level '7.0'"),
        ("ft", "Column 'ft' of the new data has the level '7'"),
    ],
)
def test_a_level_that_the_fit_did_not_have(terms: str, found: str | None) -> None:
    m, new = fitted(terms), DATA.head(3).assign(f=[0, 1, 7], k=0, ft=["0", "1", "7"])
    if found is None:
        assert np.isfinite(m.predict(new)).all()
        return
    with pytest.raises(lmm.DataError, match=found):
        m.predict(new)


def test_levels_that_leave_some_out() -> None:
    with pytest.raises(lmm.FormulaError, match="leaves out some levels of the data"):
        fitted("C(f, levels=[0, 1])")


def test_models_from_files_know_the_values(tmp_path: Path) -> None:
    for terms in ("interaction(f, k)", "C(round(x))"):
        m = fitted(terms)
        m.save(tmp_path / "m.lmm")
        again = lmm.load(tmp_path / "m.lmm")
        same(lmm.anova(again), lmm.anova(m))
        same(again.joint_tests(), m.joint_tests())


def test_generalized_models() -> None:
    data = DATA.assign(n=RNG.poisson(np.exp(0.3 + 0.2 * DATA["f"])))
    one = lmm.glmer("n ~ factor(f) + x + (1 | g)", data, "poisson")
    other = lmm.glmer("n ~ ft + x + (1 | g)", data, "poisson")
    same(one.anova(), other.anova())
    same(one.emmeans("f", type="response"), other.emmeans("ft", type="response"))
    same(one.joint_tests(), other.joint_tests())
