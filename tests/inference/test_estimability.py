"""What the data do not determine: terms that determine each other, cells without data."""

from __future__ import annotations

import warnings
from itertools import permutations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm


def _quiet(formula: str, data: pd.DataFrame, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmm.lmer(formula, data, **options)


def _strains(seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [(s, t) for s in "abcdef" for t in range(6) for _ in range(2)]
    d = pd.DataFrame(rows, columns=["strain", "trial"])
    genotypes = ["g2", "g2", "g1", "g1", "g3", "g3"]
    doses = [1.0, 2.0, 4.0, 8.0, 9.0, 12.0]
    d["genotype"] = d["strain"].map(dict(zip("abcdef", genotypes, strict=True)))
    d["dose"] = d["strain"].map(dict(zip("abcdef", doses, strict=True)))
    d["sex"] = rng.choice(["m", "w"], len(d))
    d["x"] = rng.normal(size=len(d))
    d["y"] = rng.normal(size=6)[d["trial"]] + rng.normal(size=len(d)) + 0.3 * d["dose"]
    return d


# Terms of the formula → numerator degrees of freedom of types 2 and 3.
ALIASED = {
    ("genotype", "strain"): {"genotype": 0, "strain": 3},
    ("dose", "strain"): {"dose": 0, "strain": 4},
    ("dose", "genotype", "strain"): {"dose": 0, "genotype": 0, "strain": 2},
    ("genotype", "strain", "sex", "x"): {"genotype": 0, "strain": 3, "sex": 1, "x": 1},
    ("genotype", "strain", "genotype:sex"): {"genotype": 0, "strain": 3, "genotype:sex": 3},
}


@pytest.mark.parametrize("terms", ALIASED, ids="+".join)
@pytest.mark.parametrize("levels", ["abcdef", "fedcba", "bdface"])
def test_what_another_term_determines_has_no_degrees_of_freedom(
    terms: tuple[str, ...], levels: str
) -> None:
    """Whatever the order of levels and terms; the others are tested as drop1 tests them."""
    d = _strains()
    d = d.assign(strain=pd.Categorical(d["strain"], list(levels)))
    orders = [*permutations(terms)]
    for order in orders[:: 1 + len(orders) // 4]:
        m = _quiet(f"y ~ {' + '.join(order)} + (1 | trial)", d)
        right = m.drop1("F").to_frame()
        for kind in (2, 3):
            ours = lmm.anova(m, type=kind).to_frame()
            assert ours["NumDF"].to_dict() == ALIASED[terms]
            for name in right.index[1:]:
                assert ours.loc[name, "F value"] == pytest.approx(
                    right.loc[name, "F value"], rel=1e-8, nan_ok=True
                )


def test_degrees_of_freedom_do_not_depend_on_units_or_coding() -> None:
    d = _strains()
    d["dose"] *= 1e-7
    for contrasts in (None, {"strain": "sum"}, {"strain": "helmert", "sex": "sum"}):
        m = _quiet("y ~ dose + strain * sex + (1 | trial)", d, contrasts=contrasts)
        plain = _quiet("y ~ strain * sex + (1 | trial)", d)
        for kind in (2, 3):
            ours = lmm.anova(m, type=kind).to_frame()
            right = lmm.anova(plain, type=kind).to_frame()
            assert ours.loc["dose", "NumDF"] == 0
            assert ours.loc["sex", "NumDF"] == 1
            assert ours.loc["sex", "F value"] == pytest.approx(right.loc["sex", "F value"])
            assert ours.loc["strain:sex", "F value"] == pytest.approx(
                right.loc["strain:sex", "F value"]
            )


def test_type_three_of_cells_that_are_not_connected() -> None:
    """With cells (p, u) and (q, v) alone, a and b are one effect: none is tested by itself."""
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"g": np.tile(range(8), 10), "a": np.repeat(list("pq"), 40)})
    d["b"] = d["a"].map({"p": "u", "q": "v"})
    d["y"] = rng.normal(size=8)[d["g"]] + rng.normal(size=80)
    for formula in ("y ~ a * b + (1 | g)", "y ~ b * a + (1 | g)"):
        table = lmm.anova(_quiet(formula, d), type=3).to_frame()
        assert table.loc[["a", "b"], "NumDF"].tolist() == [0, 0]


def test_anova_of_an_expression_that_is_undefined_in_rows_left_out() -> None:
    r = np.random.default_rng(0)
    d = pd.DataFrame({"y": r.normal(size=60), "x": r.uniform(1, 2, 60), "g": r.integers(0, 6, 60)})
    d["f"] = np.array(list("abc"))[r.integers(0, 3, 60)]
    d.loc[:2, "x"] = -30
    formula = "y ~ np.log(x) + f + (1 | g)"
    m, right = _quiet(formula, d), _quiet(formula, d.iloc[3:])
    for kind in (1, 2, 3):
        pd.testing.assert_frame_equal(
            lmm.anova(m, type=kind).to_frame(), lmm.anova(right, type=kind).to_frame(), rtol=1e-9
        )
    pd.testing.assert_frame_equal(m.emmeans("f").to_frame(), right.emmeans("f").to_frame())
    assert str(m.step()) == str(right.step())


def test_anova_of_an_expression_that_is_undefined_between_the_data() -> None:
    r = np.random.default_rng(2)
    d = pd.DataFrame({"x": r.choice([-3.0, -2.0, 2.0, 3.0], 80), "g": r.integers(0, 8, 80)})
    d["f"] = r.choice(list("abc"), 80)
    d["y"] = r.normal(size=80)
    d["z"] = np.sqrt(d["x"] ** 2 - 3.9)
    ours = lmm.anova(_quiet("y ~ np.sqrt(x**2 - 3.9) * f + (1 | g)", d)).to_frame()
    right = lmm.anova(_quiet("y ~ z * f + (1 | g)", d)).to_frame()
    np.testing.assert_allclose(ours.to_numpy(), right.to_numpy(), rtol=1e-6)


def test_anova_of_a_range_wider_than_the_largest_number() -> None:
    r = np.random.default_rng(3)
    d = pd.DataFrame({"y": r.normal(size=60), "g": r.integers(0, 6, 60)})
    d["f"] = r.choice(list("abc"), 60)
    d["x"] = np.r_[-1.7e308, np.tile([1.0, -1.0], 29), 1.7e308]
    table = lmm.anova(_quiet("y ~ f + I(np.sign(x)) + (1 | g)", d)).to_frame()
    assert table["NumDF"].tolist() == [2, 1]


def _cells(order: str = "pqr") -> pd.DataFrame:
    rng = np.random.default_rng(23)
    d = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "a": rng.choice(list("pqr"), 200)})
    d["b"] = rng.choice(list("uv"), 200)
    d["x"] = rng.normal(size=200)
    d["y"] = rng.normal(size=20)[d["g"]] + rng.normal(size=200) + 2 * (d["b"] == "v")
    d = d[(d["a"] != "r") | (d["b"] != "v")].reset_index(drop=True)
    return d.assign(a=pd.Categorical(d["a"], list(order)))


@pytest.mark.parametrize("order", ["pqr", "qpr", "rqp"])
def test_a_cell_without_data_is_not_predicted(order: str) -> None:
    m = _quiet("y ~ a * b + x + (1 | g)", _cells(order))
    new = pd.DataFrame({"a": ["r", "r", "p"], "b": ["v", "u", "v"], "x": 0.3, "g": [1, 2, 3]})
    holes = [True, False, False]
    calls = {
        "predict": lambda: m.predict(new),
        "se": lambda: m.predict(new, se=True)["se"],
        "limits": lambda: m.predict(new, interval="prediction")["lower"],
        "draws": lambda: m.predict(new, interval="confidence", theta_draws=5)["upper"],
        "simulate": lambda: m.simulate(1, rng=1, newdata=new).iloc[:, 0],
    }
    for name, call in calls.items():
        with pytest.warns(lmm.DesignWarning, match="1 of 3 rows") as said:
            values = call()
        assert len(said) == 1, name
        assert said[0].filename == __file__
        assert values.isna().tolist() == holes, name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rest = m.predict(new.iloc[1:], random=False)
    right = _quiet("y ~ a * b + x + (1 | g)", _cells()).predict(new.iloc[1:], random=False)
    np.testing.assert_allclose(rest, right, rtol=1e-8)


def test_fitted_cells_are_predicted_whatever_was_dropped() -> None:
    """New data that are the old ones give the fitted values, also with predictors that repeat."""
    d = _cells()
    d["twice"] = 2.0 * d["x"] - 7.0
    d["near"] = d["x"] + 1e-9 * np.sin(np.arange(len(d)))
    for formula in ("y ~ a * b + (1 | g)", "y ~ a * b + x + twice + near + (1 | g)"):
        m = _quiet(formula, d)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(m.predict(d), m.fitted, atol=1e-7)
    new = d.head(2).assign(twice=[5.0, 5.0])
    with pytest.warns(lmm.DesignWarning, match="2 of 2 rows"):
        assert m.predict(new).isna().all()


def test_curves_without_data_are_not_drawn() -> None:
    m = _quiet("y ~ a * b + (1 | g)", _cells())
    with pytest.warns(lmm.DesignWarning, match="1 of 6 means"):
        m.plot.effects("a", by="b")
    plt.close("all")


def test_cells_that_lose_their_data_in_a_refit_are_not_predicted() -> None:
    d = _cells()
    rng = np.random.default_rng(2)
    d = pd.concat([d, d.head(3).assign(a="r", b="v")], ignore_index=True)
    d["a"] = pd.Categorical(d["a"], list("pqr"))
    m = lmm.lmer("y ~ a * b + (1 | g)", d)
    y = m.fit.design.y + 0.1 * rng.normal(size=len(d))
    y[-3:] = np.nan
    new = pd.DataFrame({"a": ["r", "p"], "b": ["v", "v"], "g": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = m.refit(y)
    assert again.fit.design.dropped == ("a[T.r]:b[T.v]",)
    assert "a[T.r]:b[T.v]" not in again.fixef.index
    with pytest.warns(lmm.DesignWarning, match="1 of 2 rows"):
        assert again.predict(new).isna().tolist() == [True, False]


def test_contrasts_of_dropped_effects_are_refused() -> None:
    m = _quiet("y ~ a * b + (1 | g)", _cells())
    with pytest.raises(lmm.OptionError, match=r"'a\[T\.r\]:b\[T\.v\]', which was dropped"):
        m.contrast({"a[T.r]:b[T.v]": 1.0})


def test_means_and_predictions_agree() -> None:
    """A mean is the mean of what is predicted for its cells, where all of these are determined."""
    m = _quiet("y ~ a * b * x + (1 | g)", _cells())
    cells = pd.DataFrame([(a, b) for b in "uv" for a in "pqr"], columns=["a", "b"])
    cells["x"] = m.fit.design.recipe.matrices.columns["x"].span[0]
    with pytest.warns(lmm.DesignWarning, match="1 of 6 rows"):
        predicted = m.predict(cells, random=False)
    means = m.emmeans(["a", "b"]).to_frame()["emmean"]
    np.testing.assert_allclose(means, predicted, rtol=1e-9)
    by_a = predicted.groupby(cells["a"].to_numpy()).apply(lambda v: v.mean(skipna=False))
    np.testing.assert_allclose(m.emmeans("a").to_frame()["emmean"], by_a, rtol=1e-9)
    differences = m.emmeans(["a", "b"], pairwise=True).to_frame()["estimate"]
    assert differences.isna().tolist() == ["r, v" in pair for pair in differences.index]


# F of lmerTest 3 (types 2 and 3) for the data below.
F_VALUES = {
    2: [12.0273, 41.9053, 0.8567, 30.2709, 0.1809, 0.0001, 1.0620],
    3: [13.1537, 35.7649, 0.3148, 30.2709, 0.1887, 0.0037, 1.0620],
}


@pytest.mark.parametrize("kind", F_VALUES)
@pytest.mark.parametrize("order", ["pqr", "rqp"])
def test_cells_without_data_are_tested_as_lmertest_does(kind: int, order: str) -> None:
    rng = np.random.default_rng(23)
    d = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "a": rng.choice(list("pqr"), 200)})
    d["b"], d["x"] = rng.choice(list("uv"), 200), rng.normal(size=200)
    d["y"] = rng.normal(size=20)[d["g"]] + rng.normal(size=200)
    d["y"] += 2 * (d["b"] == "v") * (d["a"] == "p")
    d = d[(d["a"] != "r") | (d["b"] != "v")]
    m = _quiet("y ~ a * b * x + (1 | g)", d.assign(a=pd.Categorical(d["a"], list(order))))
    table = lmm.anova(m, type=kind).to_frame()
    assert table["NumDF"].tolist() == [2, 1, 1, 1, 2, 1, 1]
    np.testing.assert_allclose(table["F value"], F_VALUES[kind], atol=1e-4, rtol=1e-4)


def test_the_slope_along_a_constant_is_not_determined() -> None:
    """There is no step along it, and numpy has nothing to say about that."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=60), "z": rng.normal(size=60), "x": 3.0})
    data["g"] = np.repeat(np.arange(12), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        m = lmm.lmer("y ~ x + z + (1 | g)", data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = m.emtrends(None, "x")
    assert np.isnan(table["x.trend"]).all()
    assert "do not determine" in str(table)
