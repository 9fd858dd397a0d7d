"""Rows in which an expression is undefined: the model, and all that follows, is of the others."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, OptionError


def _data() -> pd.DataFrame:
    """Rows 0–3 have x < 0, one of them has z far outside the range of the others."""
    rng = np.random.default_rng(4)
    n = 90
    data = pd.DataFrame(
        {
            "x": rng.uniform(1.0, 2.0, n),
            "z": rng.uniform(1.0, 3.0, n),
            "o": rng.uniform(1.0, 3.0, n),
            "f": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
            "k": rng.integers(0, 3, n),
            "g": np.array(list("ABCDEF"))[rng.integers(0, 6, n)],
        }
    )
    b = pd.Series(rng.normal(size=6), index=list("ABCDEF"))
    data["y"] = data["x"] + data["g"].map(b) + rng.normal(size=n)
    data.loc[:3, "x"] = [-30.0, -0.2, -1.0, -7.0]
    data.loc[1, "z"] = 50.0
    return data


def _quiet(call, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


def _numbers(table: object) -> np.ndarray:
    frame = table if isinstance(table, pd.DataFrame) else table.to_frame()
    return frame.select_dtypes("number").to_numpy(dtype=float)


QUESTIONS = {
    "type 3": lambda m: lmm.anova(m),
    "type 2": lambda m: lmm.anova(m, type=2),
    "type 1": lambda m: lmm.anova(m, type=1),
    "Kenward–Roger": lambda m: lmm.anova(m, ddf="kenward-roger"),
    "drop1": lambda m: m.drop1(),
    "ranova": lambda m: m.ranova(),
    "step": lambda m: m.step().model.coef_table(),
    "coefficients": lambda m: m.coef_table(),
}


def _same(one: lmm.LinearMixedModel, other: lmm.LinearMixedModel, *names: str) -> None:
    assert one.fit.design.x_names == other.fit.design.x_names
    np.testing.assert_allclose(one.fit.design.X, other.fit.design.X, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.fit.design.y, other.fit.design.y, rtol=0, atol=1e-12)
    for name in names or ("type 2", "coefficients"):
        question = QUESTIONS[name]
        np.testing.assert_allclose(
            _numbers(_quiet(question, one)),
            _numbers(_quiet(question, other)),
            rtol=1e-6,
            atol=1e-8,
            err_msg=name,
        )


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ np.log(x) + f + (1 | g)",
        "y ~ np.log(x) * f + (1 | g)",
        "y ~ np.sqrt(x):z + f + (1 | g)",
        "y ~ C(np.round(2 * np.log(x))) + z + (1 | g)",
        "y ~ f + z + (0 + np.log(x) | g)",
        "y ~ f + z + offset(np.log(x)) + (1 | g)",
        "y ~ f + poly(z, 2) + np.log(x) + (1 | g)",
        "y ~ f + scale(x) + np.log(x) + (1 | g)",
        "y ~ f + bs(x, df=4) + z + (0 + np.log(x) | g)",
        "y ~ f + cr(z, df=3, constraints='center') + np.log(x) + (1 | g)",
        "y ~ f + scale(np.log(x)) + (1 | g)",
        "y ~ f + poly(np.log(x), 2) + (1 | g)",
        "y ~ f + bs(np.log(x), df=4) + (1 | g)",
        "y ~ C(k) + np.log(x) + (1 | g)",
        "scale(y) ~ f + np.log(x) + (1 | g)",
    ],
)
@pytest.mark.parametrize("level", ["shared", "their own"])
def test_the_model_is_that_of_the_rows_used(formula, level):
    data = _data()
    if level == "their own":
        data.loc[2, ["f", "g"]], data.loc[2, "k"] = "only here", 9
    one = _quiet(lmm.lmer, formula, data)
    other = _quiet(lmm.lmer, formula, data.iloc[4:].reset_index(drop=True))
    _same(one, other)
    if "f" in formula:
        _same(one, other, "type 3")
        np.testing.assert_allclose(
            _numbers(one.emmeans("f")), _numbers(other.emmeans("f")), rtol=1e-6, equal_nan=True
        )
    new = data.iloc[4:9]
    np.testing.assert_allclose(one.predict(new), other.predict(new), rtol=1e-6)


@pytest.mark.parametrize(
    "formula", ["y ~ np.log(x) * f + scale(z) + (1 | g)", "y ~ z + scale(np.log(x)) + (x | g)"]
)
def test_all_questions_are_about_the_rows_used(formula):
    data = _data()
    other = _quiet(lmm.lmer, formula, data.iloc[4:].reset_index(drop=True))
    _same(_quiet(lmm.lmer, formula, data), other, *QUESTIONS)


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "float32", "int16", "double[pyarrow]"])
def test_types_of_columns(dtype):
    data = _data()
    data["x"], data["z"] = (20.0 * data["x"]).round(), (10.0 * data["z"]).round()
    formula = "y ~ f + np.log(x) + scale(x) + poly(z, 2) + (1 | g)"
    other = _quiet(lmm.lmer, formula, data.iloc[4:].reset_index(drop=True))
    data = data.astype({"x": dtype, "z": dtype})
    _same(_quiet(lmm.lmer, formula, data), other)


def test_what_is_undefined_for_two_reasons():
    """An infinite value in a row that something else leaves out is not learnt from."""
    data = _data()
    data.loc[4, ["x", "z"]] = 0.0, -1.0
    formula = "y ~ scale(np.log(x)) + np.log(z) + f + (1 | g)"
    one = _quiet(lmm.lmer, formula, data)
    _same(one, _quiet(lmm.lmer, formula, data.iloc[5:].reset_index(drop=True)))
    data.loc[4, "z"] = 1.0
    with pytest.raises(DataError, match="holds 1 values that are not finite"):
        _quiet(lmm.lmer, formula, data)


def test_expressions_that_look_at_other_rows():
    """The neighbour of the first row that is fitted is one that is not."""
    data = _data()
    m = _quiet(lmm.lmer, "y ~ np.log(x) + scale(lag(z)) + (1 | g)", data)
    lagged = data["z"].shift().iloc[4:]
    expected = (lagged - lagged.mean()) / lagged.std()
    np.testing.assert_allclose(m.fit.design.X[:, 2], expected, atol=1e-12)


def test_what_is_learnt_from_the_rows_it_leaves_out():
    """The mean of the rows above the mean would leave out further rows: it is that of all."""
    data = _data()
    m = _quiet(lmm.lmer, "y ~ np.sqrt(center(z)) + (1 | g)", data)
    above = data["z"] - data["z"].mean()
    expected = np.sqrt(above[above >= 0])
    np.testing.assert_allclose(m.fit.design.X[:, 1], expected, atol=1e-12)


def test_weights_and_offset_of_rows_left_out():
    data = _data().assign(w=1.0, o=1.0)
    data.loc[:3, "w"], data.loc[:3, "o"] = -1.0, 0.0
    formula = "y ~ np.log(x) + offset(np.log(o)) + (1 | g)"
    one = _quiet(lmm.lmer, formula, data, weights="w")
    _same(one, _quiet(lmm.lmer, formula, data.iloc[4:].reset_index(drop=True), weights="w"))
    data.loc[4, "w"] = -1.0
    with pytest.raises(DataError, match="weights holds 1 negative values"):
        _quiet(lmm.lmer, formula, data, weights="w")
    data.loc[4, ["w", "o"]] = 1.0, 0.0
    with pytest.raises(DataError, match="offset holds infinite values"):
        _quiet(lmm.lmer, formula, data, weights="w")


def test_codings_are_for_the_levels_that_are_fitted():
    data = _data()
    data.loc[2, "f"] = "only here"
    formula = "y ~ np.log(x) + f + (1 | g)"
    one = _quiet(lmm.lmer, formula, data, contrasts={"f": "sum"})
    other = data.iloc[4:].reset_index(drop=True)
    _same(one, _quiet(lmm.lmer, formula, other, contrasts={"f": "sum"}))
    wrong = {"f": np.vstack([np.eye(3), -np.ones(3)])}
    with pytest.raises(OptionError, match="4 rows, but it has 3 levels"):
        _quiet(lmm.lmer, formula, data, contrasts=wrong)


@pytest.mark.parametrize("term", ["bs({}, df=4)", "poly({}, 2)", "scale({})", "cr({}, df=4)"])
def test_new_rows_in_which_it_is_undefined(term):
    """They have no prediction, alone or among others."""
    data = _data()
    m = _quiet(lmm.lmer, f"y ~ {term.format('np.log(x)')} + (1 | g)", data)
    predicted = _quiet(m.predict, data.iloc[:8])
    assert predicted.iloc[:4].isna().all()
    np.testing.assert_allclose(predicted.iloc[4:], m.fitted.iloc[:4], rtol=1e-9)
    assert _quiet(m.predict, data.iloc[:3]).isna().all()
    data.loc[0, "x"] = 0.0
    with pytest.raises(DataError, match="infinite in 1 rows"):
        _quiet(m.predict, data.iloc[:8])


@pytest.mark.parametrize(
    ("term", "precomputed"),
    [
        ("np.sqrt(s ** 2 - 1)", lambda d: np.sqrt(d["s"] ** 2 - 1)),
        ("np.log(late - early)", lambda d: np.log(d["late"] - d["early"])),
        ("I(1 / far)", lambda d: 1.0 / d["far"]),
        ("I(np.sign(huge))", lambda d: np.sign(d["huge"])),
        ("lag(z)", lambda d: d["z"].shift()),
    ],
)
def test_expressions_defined_in_part_of_a_range(term, precomputed):
    """Hypotheses of all types are those for the column computed before."""
    data = _data()
    n = len(data)
    data["s"] = np.linspace(-3.0, 3.0, n)
    data["early"] = np.linspace(1e5, 2e5, n)
    data["late"] = data["early"] + data["x"].clip(lower=-1.0)
    data["far"] = np.where(np.arange(n) < 5, np.inf, data["x"])
    data["huge"] = np.where(np.arange(n) % 3 == 0, -1e308, 1e308)
    data = data.loc[1 if term == "lag(z)" else 4 :].reset_index(drop=True)
    data.loc[0, "late"] = data.loc[0, "early"] - 1.0
    with np.errstate(all="ignore"):
        data["c"] = precomputed(data)
    one = _quiet(lmm.lmer, f"y ~ f * {term} + (1 | g)", data)
    other = _quiet(lmm.lmer, "y ~ f * c + (1 | g)", data)
    assert one.fit.design.n == other.fit.design.n
    for question in ("type 1", "type 2", "type 3", "step"):
        np.testing.assert_allclose(
            _numbers(_quiet(QUESTIONS[question], one)),
            _numbers(_quiet(QUESTIONS[question], other)),
            rtol=1e-6,
            atol=1e-9,
            err_msg=question,
        )


def test_means_at_values_where_an_expression_is_undefined():
    data = _data().iloc[4:].assign(s=lambda d: np.linspace(-3.0, 3.0, len(d)))
    m = _quiet(lmm.lmer, "y ~ f + np.sqrt(s ** 2 - 1) + (1 | g)", data)
    for pairwise in (False, True):
        table = m.emmeans("f", pairwise=pairwise)
        assert table.to_frame()["SE"].isna().all()
        assert "undefined at these values of the covariates" in str(table)
        assert "do not occur" not in str(table)
        given = m.emmeans("f", pairwise=pairwise, at={"s": 2.0})
        assert given.to_frame().notna().all(axis=None)
        assert "undefined" not in str(given)


def test_against_lmertest():
    """R drops rows in which log(x) is NaN."""
    m = _quiet(lmm.lmer, "y ~ np.log(x) * f + (1 | g)", _data())
    expected = {
        2: ([11.40854920721, 1.71191477371, 3.36231574838], 75.3116974630),
        3: ([11.73870530455, 1.71191477371, 3.36231574838], 75.3328802466),
    }
    for kind, (F, df) in expected.items():
        table = lmm.anova(m, type=kind).to_frame()
        np.testing.assert_allclose(table["F value"], F, rtol=2e-5)
        np.testing.assert_allclose(table["DenDF"].iloc[0], df, rtol=2e-5)
