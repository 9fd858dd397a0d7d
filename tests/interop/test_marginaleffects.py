"""The package marginaleffects on our models, against the same quantities from this package."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bridged import bridged

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, DesignWarning, OptionError

me = bridged("marginaleffects")
import polars as pl  # noqa: E402

from lmmsparse.interop.marginaleffects import for_marginaleffects  # noqa: E402

# Of polars, about what marginaleffects calls.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
if int(pl.__version__.split(".")[0]) >= 2:
    pytest.skip("marginaleffects uses what polars 2 removed", allow_module_level=True)


@cache
def cake() -> Any:
    return lmm.load_dataset("cake")


@cache
def model() -> lmm.LinearMixedModel:
    return lmm.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", cake())


def test_predictions_are_ours() -> None:
    got = me.predictions(for_marginaleffects(model(), cake()))
    want = model().predict(cake(), random=False, se=True)
    np.testing.assert_allclose(got["estimate"], want["fit"], rtol=1e-10)
    np.testing.assert_allclose(got["std_error"], want["se"], rtol=1e-5)


def test_means_are_those_of_emmeans() -> None:
    got = me.avg_predictions(for_marginaleffects(model(), cake()), by="recipe")
    want = model().emmeans("recipe").to_frame()
    np.testing.assert_allclose(got["estimate"], want["emmean"], rtol=1e-10)
    np.testing.assert_allclose(got["std_error"], want["SE"], rtol=1e-5)


@pytest.mark.parametrize("vcov", [True, "kenward-roger"])
def test_comparisons_are_contrasts(vcov: Any) -> None:
    got = me.avg_comparisons(
        for_marginaleffects(model(), cake()), variables="recipe", vcov=vcov, eps_vcov=1.0
    )
    temp = float(cake()["temp"].mean())
    ddf = "satterthwaite" if vcov is True else vcov
    for row, level in enumerate("BC"):
        L = {f"recipe[T.{level}]": 1, f"recipe[T.{level}]:temp": temp}
        want = model().contrast(L, ddf=ddf).to_frame().iloc[0]
        assert got["estimate"][row] == pytest.approx(want["Estimate"], rel=1e-9)
        assert got["std_error"][row] == pytest.approx(want["Std. Error"], rel=1e-9)


def test_slopes_are_contrasts() -> None:
    got = me.avg_slopes(
        for_marginaleffects(model(), cake()), variables="temp", by="recipe", eps_vcov=1.0
    )
    for row, level in enumerate("ABC"):
        L = {"temp": 1} | ({} if level == "A" else {f"recipe[T.{level}]:temp": 1})
        want = model().contrast(L).to_frame().iloc[0]
        assert got["estimate"][row] == pytest.approx(want["Estimate"], rel=1e-7)
        assert got["std_error"][row] == pytest.approx(want["Std. Error"], rel=1e-7)


def test_transformed_predictors_and_grids() -> None:
    data = lmm.load_dataset("sleepstudy")
    m = lmm.lmer("Reaction ~ poly(Days, 2) + (1 | Subject)", data)
    known = for_marginaleffects(m, data)
    grid = me.datagrid(Days=[0, 4], model=known)
    got = me.predictions(known, newdata=grid)
    want = m.predict({"Days": [0, 4]}, random=False)
    np.testing.assert_allclose(got["estimate"], want, rtol=1e-10)


def test_random_effects_and_offsets_take_part() -> None:
    got = me.predictions(for_marginaleffects(model(), cake(), random=True))
    np.testing.assert_allclose(got["estimate"], model().fitted, rtol=1e-10)
    data = cake().assign(shift=np.arange(len(cake())) / 100)
    m = lmm.lmer("angle ~ temp + offset(shift) + (1 | recipe:replicate)", data)
    got = me.predictions(for_marginaleffects(m, data))
    want = m.predict(data, random=False, se=True)
    np.testing.assert_allclose(got["estimate"], want["fit"], rtol=1e-10)
    np.testing.assert_allclose(got["std_error"], want["se"], rtol=1e-5)


def test_rows_that_were_left_out_are_left_out() -> None:
    data = cake().copy()
    data["temp"] = data["temp"].astype(float)
    data.loc[data.index[:7], "temp"] = np.nan
    m = lmm.lmer("angle ~ temp + (1 | recipe:replicate)", data)
    got = me.predictions(for_marginaleffects(m, data))
    np.testing.assert_allclose(got["estimate"], m.predict(random=False), rtol=1e-10)


def test_what_cannot_be_used_is_explained() -> None:
    with pytest.raises(OptionError, match=r"lmm\.lmer"):
        for_marginaleffects("m", cake())
    with pytest.raises(DataError, match="3 rows"):
        for_marginaleffects(model(), cake().head(3))


def test_new_data_may_hold_groups_whose_levels_are_numbers() -> None:
    data = lmm.load_dataset("sleepstudy")
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", data)
    got = me.predictions(for_marginaleffects(m, data), newdata=data.head(3))
    np.testing.assert_allclose(got["estimate"], m.predict(data.head(3), random=False))


def test_rows_in_another_order_go_by_their_labels() -> None:
    data = lmm.load_dataset("sleepstudy").assign(weight=np.linspace(0.5, 2.0, 180))
    data.loc[4, "Days"] = np.nan
    formula = "Reaction ~ Days + offset(weight) + (Days | Subject)"
    m = lmm.lmer(formula, data)
    back = data.sample(frac=1.0, random_state=1)
    got = me.predictions(for_marginaleffects(m, back, random=True))
    want = m.fitted.reindex(back.index).dropna()
    np.testing.assert_allclose(got["estimate"], want, rtol=1e-10)
    numbered = back.reset_index(drop=True)  # labels that say another order than there is
    with pytest.raises(DataError, match="differs from the response"):
        for_marginaleffects(m, numbered)


def test_other_matrices_are_refused() -> None:
    data = lmm.load_dataset("sleepstudy")
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", data)
    with pytest.raises(OptionError, match="vcov='HC3'"):
        me.predictions(for_marginaleffects(m, data), vcov="HC3")


def test_what_the_data_do_not_determine_has_no_number() -> None:
    rng = np.random.default_rng(23)
    data = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "a": rng.choice(list("pqr"), 200)})
    data["b"] = rng.choice(list("uv"), 200)
    data["y"] = rng.normal(size=20)[data["g"]] + rng.normal(size=200)
    data = data[(data["a"] != "r") | (data["b"] != "v")].reset_index(drop=True)
    with pytest.warns(DesignWarning):
        m = lmm.lmer("y ~ a * b + (1 | g)", data)
    known = for_marginaleffects(m, data)
    cells = pd.DataFrame({"a": list("pqrpqr"), "b": list("uuuvvv"), "y": 0.0, "g": 1})
    with pytest.warns(DesignWarning, match="1 of 6 rows") as said:
        got = me.predictions(known, newdata=pl.from_pandas(cells))
    ours = [Path(w.filename) for w in said if w.category is DesignWarning]
    assert ours == [Path(__file__)]
    want = m.emmeans(["a", "b"]).to_frame()
    np.testing.assert_allclose(got["estimate"], want["emmean"])
    np.testing.assert_allclose(got["std_error"], want["SE"], rtol=1e-5)
    with pytest.warns(DesignWarning):
        found = me.comparisons(known, variables="b", by="a")
    assert np.isnan(found["estimate"].to_numpy().astype(float)).tolist() == [False, False, True]
