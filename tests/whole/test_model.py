"""A fitted model in use: predictions, draws, refits, tables, files, and every kind of data."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import FormulaError, LmmError, LmmWarning

Array = npt.NDArray[np.float64]


@cache
def sleepstudy() -> pd.DataFrame:
    return lmm.load_dataset("sleepstudy")


@cache
def sleep(formula: str = "Reaction ~ Days + (Days | Subject)") -> lmm.LinearMixedModel:
    return lmm.lmer(formula, sleepstudy())


@cache
def data() -> pd.DataFrame:
    """Columns of every kind. Do not modify."""
    rng = np.random.default_rng(1234)
    n = 96
    g = np.repeat(np.arange(12), 8)
    x = rng.normal(size=n)
    y = 2 + x + 1.5 * rng.normal(size=12)[g] + rng.normal(size=12)[g] * x + rng.normal(size=n)
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "w": rng.uniform(0.3, 3, n)})
    frame["o"] = rng.normal(size=n)
    frame["z"] = rng.uniform(1, 2, n)
    frame["f"] = np.tile(["u", "v", "w"], 32)
    frame["k"] = np.where(g % 2 == 0, "even", "odd")
    frame["half"] = g // 2
    frame["b"] = x > 0.2
    frame["q"] = pd.cut(frame["z"], [0.9, 1.25, 1.5, 1.75, 2.1])
    frame["day"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(g, "D")
    frame["my x"] = frame["x"]
    frame["größe"] = frame["y"]
    frame["a.b"] = frame["x"]
    frame["1st"] = frame["x"]
    frame["the group"] = frame["g"]
    frame["ord"] = pd.Categorical(frame["f"], ["v", "u", "w"], ordered=True)
    return frame


def fit(formula: str, frame: Any = None, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, data() if frame is None else frame, **options)


# Predictions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("random", "want"),
    [
        (True, [253.663652, 430.660019]),
        ("~(Days | Subject)", [253.663652, 430.660019]),
        ("~(1 | Subject) + (0 + Days | Subject)", [253.663652, 430.660019]),
        ("~(0 + Days | Subject)", [251.405105, 428.401472]),
        ("~(1 | Subject)", [253.663652, 347.869226]),
        (False, [251.405105, 345.610678]),
        ("~0", [251.405105, 345.610678]),
        ("~1", [251.405105, 345.610678]),
    ],
)
def test_predictions_with_some_random_effects(random: bool | str, want: list[float]) -> None:
    new = pd.DataFrame({"Days": [0, 9], "Subject": [308, 308]})
    found = sleep().predict(new, random=random)
    np.testing.assert_allclose(found, want, atol=2e-3)
    fitted = sleep().predict(random=random)
    rows = sleepstudy().query("Subject == 308 and Days in (0, 9)").index
    np.testing.assert_allclose(fitted.loc[rows], found)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "intercept": ("y ~ x + (1|g)", {}),
    "slope": ("y ~ x + (x|g)", {}),
    "split": ("y ~ x + (x||g)", {}),
    "diagonal": ("y ~ x + diag(f|g)", {}),
    "homogeneous": ("y ~ x + diag(0+f|g, hom=True)", {}),
    "polynomial": ("y ~ poly(x, 2) + (poly(x, 2)|g)", {}),
    "splines": ("y ~ bs(x, df=4) + (1|g)", {}),
    "cubic": ("y ~ cr(x, df=4) + (1|g)", {}),
    "scaled": ("y ~ scale(x) + (scale(x)|g)", {}),
    "centred": ("y ~ center(x) + (0+center(x)|g)", {}),
    "factor": ("y ~ f + (f|k)", {}),
    "factor without intercept": ("y ~ 0 + f + (0+f|k)", {}),
    "sum coding": ("y ~ C(f, contr.sum) + (1|g)", {}),
    "treatment": ("y ~ C(f, Treatment('v')) + (1|g)", {}),
    "number as a factor": ("y ~ C(half) + factor(half) + (1|g)", {}),
    "contrasts": ("y ~ f + (f|k)", {"contrasts": {"f": "sum"}}),
    "helmert": ("y ~ f + (1|g)", {"contrasts": {"f": "helmert"}}),
    "contrast matrix": ("y ~ f + (1|g)", {"contrasts": {"f": [[1.0, 0], [0, 1], [-1, -1]]}}),
    "contrasts of a number": ("y ~ half + (1|g)", {"contrasts": {"half": "poly"}}),
    "ordered": ("y ~ ord + (1|g)", {}),
    "boolean": ("y ~ b + (b|g)", {}),
    "boolean response": ("b ~ z + (1|g)", {}),
    "intervals": ("y ~ q + (1|g)", {}),
    "interval group": ("y ~ x + (1|q)", {}),
    "interval interaction": ("y ~ x + (1|q:k)", {}),
    "dates": ("y ~ x + (1|day)", {}),
    "date interaction": ("y ~ x + (1|day:k)", {}),
    "nested": ("y ~ x + (1|half/g)", {}),
    "crossed": ("y ~ x + (1|half:k) + (1|f)", {}),
    "product group": ("y ~ x + (1|half*k)", {}),
    "two terms": ("y ~ x + (1|g) + (0+f|half) + (0+x|g)", {}),
    "group call": ("y ~ x + (1|interaction(half, k))", {}),
    "group arithmetic": ("y ~ x + (1|I(g % 5))", {}),
    "group method": ("y ~ x + (1|k.str.upper())", {}),
    "column method": ("y ~ x.clip(-1, 1) + (1|g)", {}),
    "spaces": ("y ~ `my x` + (`my x`|`the group`)", {}),
    "accents": ("größe ~ x + (1|g)", {}),
    "dots": ("y ~ a.b + log(a.b + 5) + (a.b|g)", {}),
    "digits": ("y ~ `1st` + (1|g)", {}),
    "functions": ("log(y + 10) ~ np.exp(x) + sqrt(z) + I(z^2) + np.where(x > 0, 1, 0) + (1|g)", {}),
    "interaction": ("y ~ x*f + (1|g)", {}),
    "power": ("y ~ (x + f + z)^2 + (1|g)", {}),
    "dummy": ("y ~ dummy(f) + (0+dummy(f, 'v')|g)", {}),
    "lag": ("y ~ lag(x) + (1|g)", {}),
    "dependent": ("y ~ x + I(2*x) + f + (1|g)", {}),
    "no fixed effects": ("y ~ 0 + (x|g)", {}),
    "weights": ("y ~ x + (1|g)", {"weights": "w"}),
    "ML": ("y ~ x + (1|g)", {"reml": False}),
    "offset column": ("y ~ x + (1|g)", {"offset": "o"}),
    "offset in the formula": ("y ~ x + offset(2 * o + log(z)) + (1|g)", {}),
    "offset call": ("y ~ x + offset(I(o^2)) + (1|g)", {}),
    "dense": ("y ~ x + (1|g)", {"solver": lmm.Dense()}),
    "another search": ("y ~ x + (1|g)", {"optimizer": lmm.Bobyqa(max_eval=5000)}),
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def kind_of(kind: str) -> lmm.LinearMixedModel:
    formula, options = KINDS[kind]
    return fit(formula, **options)


@every_kind
def test_predictions_for_the_same_data_are_the_fitted_values(kind: str) -> None:
    m = kind_of(kind)
    found = m.predict(data()).dropna()
    pd.testing.assert_series_equal(found, m.fitted, check_names=False, atol=1e-8)
    pd.testing.assert_series_equal(m.predict(), m.fitted, check_names=False, atol=1e-12)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"lag"}))  # lag() looks at the row above
def test_few_rows_get_the_same_columns(kind: str) -> None:
    """Bases, codings and levels are those of the fit, whatever the new rows hold."""
    m = kind_of(kind)
    rows = [95, 3, 17]
    np.testing.assert_allclose(m.predict(data().loc[rows]), m.fitted.loc[rows], atol=1e-8)


def test_index_of_predictions() -> None:
    new = sleepstudy().iloc[[5, 2]].set_axis(["b", "a"])
    assert sleep().predict(new).index.tolist() == ["b", "a"]
    assert sleep().predict({"Days": [1], "Subject": [308]}).index.tolist() == [0]
    assert sleep().predict({"Days": 1, "Subject": 308}).tolist() == pytest.approx(
        sleep().predict({"Days": [1], "Subject": [308]}).tolist()
    )


def test_new_and_missing_levels() -> None:
    new = pd.DataFrame({"Days": [0, 0, 0], "Subject": [308, 999, None]})
    m = sleep()
    population = m.predict(new, random=False).iloc[0]
    found = m.predict(new, new_levels="population")
    np.testing.assert_allclose(found, [253.663652, population, population], atol=2e-3)
    found = m.predict(new, new_levels="nan")
    assert found.isna().tolist() == [False, True, True]
    np.testing.assert_allclose(m.predict(new.drop(columns="Subject"), random=False), population)


def test_unneeded_columns_are_not_asked_for() -> None:
    m = kind_of("two terms")
    new = data()[["x", "g"]].head(3)
    np.testing.assert_allclose(
        m.predict(new, random="~(1|g) + (0+x|g)"),
        m.predict(random="~(1|g) + (0+x|g)").head(3),
    )


def test_new_combination_of_known_levels_is_new() -> None:
    m = fit("y ~ x + (1|half:k)", data().query("not (half == 0 and k == 'odd')"))
    new = data().query("half == 0")
    with pytest.raises(LmmError, match="0:odd"):
        m.predict(new)
    found = m.predict(new, new_levels="population")
    odd = new["k"] == "odd"
    np.testing.assert_allclose(found[odd], m.predict(new[odd], random=False))
    np.testing.assert_allclose(found[~odd], m.fitted.loc[new.index[~odd]])


def test_missing_predictors_give_missing_predictions() -> None:
    new = data().head(6).astype({"f": object})
    new.loc[1, "x"], new.loc[2, "f"], new.loc[4, "o"] = np.nan, None, np.nan
    m = fit("y ~ x + f + offset(o) + (x|g)")
    found = m.predict(new)
    assert found.isna().tolist() == [False, True, True, False, True, False]
    np.testing.assert_allclose(found.dropna(), m.fitted.head(6)[found.notna()])
    assert m.predict(new.assign(f=None)).isna().all()


def test_holes_in_the_data_do_not_leak_into_predictions() -> None:
    frame = data().copy()
    frame.loc[[0, 9], "x"] = np.nan
    m = fit("y ~ poly(x, 2) + (1|g)", frame)
    clean = fit("y ~ poly(x, 2) + (1|g)", frame.dropna(subset="x"))
    np.testing.assert_allclose(m.predict(data()), clean.predict(data()))


def test_offsets_of_new_rows() -> None:
    new = data().head(3)
    array = fit("y ~ x + (1|g)", offset=data()["o"].to_numpy())
    column = fit("y ~ x + (1|g)", offset="o")
    for given in (new["o"].to_numpy(), new["o"], "o", list(new["o"])):
        np.testing.assert_allclose(array.predict(new, offset=given), array.fitted.head(3))
    without = column.predict(new, offset=np.zeros(3))
    np.testing.assert_allclose(column.predict(new) - without, new["o"])


# Draws --------------------------------------------------------------------------------------------


def test_draws_are_reproducible() -> None:
    m = sleep()
    one, other = m.simulate(3, rng=5), m.simulate(3, rng=np.random.default_rng(5))
    pd.testing.assert_frame_equal(one, other)
    assert not one.equals(m.simulate(3, rng=6))
    assert one.shape == (180, 3)
    assert one.index.equals(sleepstudy().index)
    assert one.columns.tolist() == ["sim_1", "sim_2", "sim_3"]


def test_variance_of_kept_draws_is_that_of_the_residuals() -> None:
    m = fit("y ~ x + (x|g)", weights="w")
    draws = m.simulate(4000, rng=1, random="keep").to_numpy()
    z = (draws - m.fitted.to_numpy()[:, None]) * np.sqrt(data()["w"].to_numpy())[:, None] / m.sigma
    # Means of 4000 squares: standard error √(2/4000) = 0.022 per row.
    np.testing.assert_allclose((z**2).mean(axis=1), 1.0, atol=5 * 0.0224)
    assert abs((z**2).mean() - 1.0) < 4 * np.sqrt(2 / z.size)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)


@pytest.mark.parametrize("weights", [None, "w"])
def test_covariance_of_new_draws_is_that_of_the_model(weights: str | None) -> None:
    m = fit("y ~ x + (x|g) + (1|half)", weights=weights)
    design = m.fit.design
    ZL = (design.Z @ m.fit.Lambda).toarray()
    V = m.sigma**2 * (ZL @ ZL.T + np.diag(1 / design.weights_or_one))
    draws = m.simulate(6000, rng=2).to_numpy() - m.predict(random=False).to_numpy()[:, None]
    found = draws @ draws.T / 6000
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / 6000)
    assert np.max(np.abs(found - V) / error) < 5.5
    # The quadratic form of every draw is chi-squared.
    form = np.einsum("in,in->n", draws, np.linalg.solve(V, draws))
    assert abs(form.mean() - len(V)) < 4 * np.sqrt(2 * len(V) / 6000)


def test_partly_kept_draws() -> None:
    m = fit("y ~ x + (x|g) + (1|half)")
    draws = m.simulate(5000, rng=3, random="~(x|g)").to_numpy()
    centre = m.predict(random="~(x|g)").to_numpy()
    assert np.max(np.abs(draws.mean(axis=1) - centre)) < 5 * draws.std(axis=1).max() / np.sqrt(5000)
    T = m.fit.template.factors(m.fit.theta)[1][0, 0]
    want = m.sigma**2 * (1 + T**2)
    np.testing.assert_allclose(draws.var(axis=1), want, rtol=5 * np.sqrt(2 / 5000))


def test_draws_for_new_rows() -> None:
    m = fit("y ~ x + (1|g)", weights="w", offset="o")
    new = data().head(8).assign(g=[0, 0, 1, 1, 77, 77, 78, 78]).set_axis(list("abcdefgh"))
    draws = m.simulate(6000, rng=4, newdata=new, random="keep")
    assert draws.index.tolist() == list("abcdefgh")
    centre = m.predict(new, new_levels="population").to_numpy()
    # Unseen levels are drawn or zero, known ones kept: the mean is the same.
    error = draws.to_numpy().std(axis=1) / np.sqrt(6000)
    assert np.all(np.abs(draws.to_numpy().mean(axis=1) - centre) < 5 * error)
    known = draws.to_numpy()[:4]
    np.testing.assert_allclose(
        known.var(axis=1) * new["w"].to_numpy()[:4], m.sigma**2, rtol=5 * np.sqrt(2 / 6000)
    )
    fresh = m.simulate(6000, rng=4, newdata=new).to_numpy()
    correlation = np.corrcoef(fresh)
    between = (m.theta.iloc[0] * m.sigma) ** 2
    w = new["w"].to_numpy()
    for i, j in ((0, 1), (4, 5), (6, 7)):
        want = between / np.sqrt((between + m.sigma**2 / w[i]) * (between + m.sigma**2 / w[j]))
        assert correlation[i, j] == pytest.approx(want, abs=0.07)
    assert abs(correlation[0, 4]) < 0.07
    assert abs(correlation[4, 6]) < 0.07


def test_draws_show_excluded_rows() -> None:
    frame = data().assign(x=data()["x"].where(data().index > 3))
    m = fit("y ~ x + (1|g)", frame, na_action="exclude")
    draws = m.simulate(2, rng=1)
    assert draws.isna().all(axis=1).sum() == 4
    refitted = [m.refit(draws[name]) for name in draws]
    assert all(r.nobs == 92 for r in refitted)


# Refits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["intercept", "slope", "weights", "ML", "offset column", "nested"])
def test_refit_to_the_same_response(kind: str) -> None:
    m = kind_of(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        again = m.refit(m.fit.design.y)
    assert again.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-7)
    np.testing.assert_allclose(again.theta, m.theta, atol=1e-4)
    pd.testing.assert_series_equal(again.fixef, m.fixef, atol=1e-6)
    assert again.reml == m.reml


def test_refit_is_a_fit_of_the_new_response() -> None:
    rng = np.random.default_rng(0)
    m = fit("y ~ x + (x|g)", weights="w")
    y = data()["y"] + rng.normal(size=96)
    other = fit("y ~ x + (x|g)", data().assign(y=y), weights="w")
    for given in (y, y.to_numpy(), list(y), y.to_frame()):
        again = m.refit(given)
        assert again.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-7)
    assert m.fit.criterion != pytest.approx(other.fit.criterion, abs=1e-3)


def test_refit_to_what_the_fixed_effects_fit_exactly_is_refused() -> None:
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    with pytest.raises(lmm.DataError, match="fixed effects fit the response exactly"):
        m.refit(m.fit.design.X @ [250.0, 10.0])


def test_refit_of_a_singular_fit_is_not_trapped() -> None:
    flat = lmm.load_dataset("Dyestuff2")
    with pytest.warns(lmm.SingularFitWarning, match=r"\(1 \| Batch\)"):
        m = lmm.lmer("Yield ~ 1 + (1 | Batch)", flat)
    dyestuff = lmm.load_dataset("Dyestuff")
    assert m.refit(dyestuff["Yield"]).reml_criterion == pytest.approx(319.65427684226, abs=1e-7)
    with pytest.warns(lmm.SingularFitWarning):
        back = lmm.lmer("Yield ~ 1 + (1 | Batch)", dyestuff).refit(flat["Yield"])
    assert back.theta.tolist() == [0.0]


@pytest.mark.parametrize("optimizer", [lmm.TrustRegion(), lmm.Bobyqa()])
@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_refit_does_not_depend_on_units(factor: float, optimizer: Any) -> None:
    frame = sleepstudy().assign(Days=factor * sleepstudy()["Days"])
    m = lmm.lmer("Reaction ~ Days + (Days | Subject)", frame, optimizer=optimizer)
    again = m.refit(frame["Reaction"])
    assert again.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-5)
    assert again.optimum.evaluations <= m.optimum.evaluations


@pytest.mark.parametrize("optimizer", [lmm.TrustRegion(), lmm.Bobyqa(), lmm.NelderMead()])
def test_refit_from_zero(optimizer: Any) -> None:
    with pytest.warns(lmm.SingularFitWarning):
        m = lmm.lmer("Yield ~ 1 + (1 | Batch)", lmm.load_dataset("Dyestuff2"), optimizer=optimizer)
    again = m.refit(lmm.load_dataset("Dyestuff")["Yield"])
    assert again.reml_criterion == pytest.approx(319.65427684226, abs=1e-6)


def test_refit_with_holes_and_weights() -> None:
    m = fit("y ~ x + (x|g)")
    y = data()["y"].where(data().index % 7 > 0)
    other = fit("y ~ x + (x|g)", data()[y.notna()])
    again = m.refit(y)
    assert again.nobs == int(y.notna().sum())
    assert again.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-7)
    pd.testing.assert_series_equal(again.fitted, other.fitted, atol=1e-5)
    with pytest.warns(lmm.DesignWarning, match="weight zero") as caught:
        zero = m.refit(data()["y"], weights=data()["w"] * y.notna())
    assert caught
    weighted = fit("y ~ x + (x|g)", data()[y.notna()], weights="w")
    assert zero.fit.criterion == pytest.approx(weighted.fit.criterion, abs=1e-7)


def test_the_column_of_former_weights_is_not_read_for_new_data() -> None:
    m = fit("y ~ x + (x|g)", weights="w")
    rows = data().head(3)
    assert m.predict(rows, interval="prediction").notna().all(axis=None)
    again = m.refit(data()["y"], weights=data()["w"].to_numpy() ** 2)
    with pytest.raises(lmm.DataError, match="weights given as an array"):
        again.predict(rows, interval="prediction")
    assert m.refit(data()["y"]).predict(rows, interval="prediction").notna().all(axis=None)


def test_refit_loses_a_level() -> None:
    m = fit("y ~ x + (1|half:k) + (1|f)")
    y = data()["y"].where((data()["g"] > 0) & (data()["f"] != "v"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        again = m.refit(y)
    assert again.n_groups == {"half:k": 11, "f": 2}
    assert "0:even" not in again.ranef["half:k"].index
    np.testing.assert_allclose(again.predict(data()[y.notna()]), again.fitted)


def test_refit_loses_a_coefficient() -> None:
    y = data()["y"].where(data()["f"] != "v")
    with pytest.warns(lmm.DesignWarning, match=r"f\[T.v\]"):
        again = fit("y ~ x + f + (1|g)").refit(y)
    assert again.fixef.index.tolist() == ["Intercept", "x", "f[T.w]"]
    other = fit("y ~ x + f + (1|g)", data()[y.notna()])
    assert again.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-7)
    np.testing.assert_allclose(again.predict(data()[y.notna()]), again.fitted)


# Missing values and the index ---------------------------------------------------------------------


def test_excluded_rows_are_shown() -> None:
    names = [f"row {i}" for i in range(96)]
    frame = data().set_axis(names).astype({"g": object})
    frame.loc["row 3", "x"] = np.nan
    frame.loc["row 7", "y"] = np.nan
    frame.loc["row 90", "g"] = None
    omit = fit("y ~ x + (1|g)", frame)
    exclude = fit("y ~ x + (1|g)", frame, na_action="exclude")
    assert omit.nobs == exclude.nobs == 93
    pd.testing.assert_series_equal(omit.fixef, exclude.fixef)
    kept = [name for name in names if name not in ("row 3", "row 7", "row 90")]
    for what in ("fitted", "residuals", "weights", "offset"):
        long, short = getattr(exclude, what), getattr(omit, what)
        assert long.index.tolist() == names
        assert short.index.tolist() == kept
        assert long[long.isna()].index.tolist() == ["row 3", "row 7", "row 90"]
        pd.testing.assert_series_equal(long.dropna(), short)
    assert exclude.predict().isna().sum() == 3
    (finding,) = (f for f in omit.convergence.findings if f.code == "missing-rows")
    for text in ("3 of 96", "x: 1", "y: 1", "g: 1"):
        assert text in finding.message


def test_any_index_is_kept() -> None:
    for index in (
        pd.Index(np.repeat(np.arange(48), 2)),
        pd.date_range("2024", periods=96),
        pd.MultiIndex.from_arrays([np.arange(96), data()["k"]], names=["n", "k"]),
        pd.CategoricalIndex(data()["f"]),
        pd.RangeIndex(5, 5 + 96, name="row"),
    ):
        m = fit("y ~ x + (1|g)", data().set_axis(index))
        assert m.fitted.index.equals(index)
        assert m.residuals.index.names == index.names
        assert m.fit.criterion == pytest.approx(kind_of("intercept").fit.criterion)


# Formulas on data ---------------------------------------------------------------------------------


def test_contrasts_reach_the_random_effects() -> None:
    m = kind_of("contrasts")
    assert m.fixef.index.tolist() == ["Intercept", "f[S.u]", "f[S.v]"]
    assert m.ranef["k"].columns.tolist() == ["Intercept", "f[S.u]", "f[S.v]"]
    assert m.coef["k"].columns.tolist() == ["Intercept", "f[S.u]", "f[S.v]"]
    plain = fit("y ~ f + (f|k)")
    assert m.fit.criterion == pytest.approx(
        plain.fit.criterion + 2 * np.log(3), abs=1e-5
    )  # REML, |det| = 3
    np.testing.assert_allclose(m.fitted, plain.fitted, atol=1e-4)


def test_dot_stands_for_the_other_columns() -> None:
    frame = data()[["y", "x", "g", "f"]]
    m = fit("y ~ . - g + (1|g)", frame)
    assert m.fixef.index.tolist() == ["Intercept", "x", "f[T.v]", "f[T.w]"]
    assert fit("y ~ . + (1|g)", frame).fixef.index.tolist() == [
        "Intercept", "x", "g", "f[T.v]", "f[T.w]"
    ]  # fmt: skip
    spaced = data()[["y", "my x", "the group"]]
    m = fit("y ~ . - `the group` + (1|`the group`)", spaced)
    assert m.fixef.index.tolist() == ["Intercept", "my x"]
    m = fit("log(y + 10) ~ . - g + (1|g)", frame)
    assert "y" not in m.fixef.index


def test_names_of_effects_and_groups() -> None:
    m = kind_of("spaces")
    assert m.fixef.index.tolist() == ["Intercept", "my x"]
    assert list(m.ranef) == ["the group"]
    assert m.theta.index.tolist() == [
        "the group.Intercept", "the group.my x.Intercept", "the group.my x"
    ]  # fmt: skip
    assert "my x" in str(m.summary())
    m = kind_of("nested")
    assert list(m.ranef) == ["half:g", "half"]
    assert m.ranef["half:g"].index.tolist()[:3] == ["0:0", "0:1", "1:2"]


def test_labels_keep_their_type() -> None:
    assert kind_of("intercept").ranef["g"].index.tolist() == list(range(12))
    assert isinstance(kind_of("dates").ranef["day"].index[0], pd.Timestamp)
    assert isinstance(kind_of("interval group").ranef["q"].index[0], pd.Interval)
    assert fit("y ~ x + (1|b)").ranef["b"].index.tolist() == [False, True]


def test_only_observed_combinations_are_levels() -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    frame = pd.DataFrame({"y": rng.normal(size=n), "a": np.arange(n) // 2, "b": np.arange(n) // 2})
    m = fit("y ~ 1 + (1|a:b)", frame)
    assert m.n_groups == {"a:b": 10_000}
    assert m.ranef["a:b"].index[-1] == "9999:9999"


TABLES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": pl.from_pandas,
    "lazy polars": lambda frame: pl.from_pandas(frame).lazy(),
    "polars categories": lambda frame: pl.from_pandas(frame).with_columns(
        pl.col("f").cast(pl.Categorical), pl.col("g").cast(pl.Int16)
    ),
    "polars enum": lambda frame: pl.from_pandas(frame).with_columns(
        pl.col("f").cast(pl.Enum(["u", "v", "w", "never"]))
    ),
    "arrow": pa.Table.from_pandas,
    "arrow dictionary": lambda frame: pa.Table.from_pandas(frame.astype({"f": "category"})),
    "mapping of arrays": lambda frame: {name: frame[name].to_numpy() for name in frame},
    "mapping of lists": lambda frame: {name: frame[name].tolist() for name in frame},
    "mapping of Series": lambda frame: {name: frame[name] for name in frame},
    "nullable": lambda frame: frame.convert_dtypes(),
    "arrow types": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda frame: frame.astype(object),
    "categories": lambda frame: frame.astype({"g": "category", "f": "category"}),
    "small types": lambda frame: frame.astype({"g": "uint8", "b": "boolean"}),
    "columns by number": lambda frame: frame.assign(**{"0": 1}).rename(columns={"0": 0}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_every_kind(kind: str) -> None:
    frame = data()[["y", "x", "g", "f", "b"]]
    want = fit("y ~ x + f + b + (x|g)", frame)
    table = TABLES[kind](frame)
    m = fit("y ~ x + f + b + (x|g)", table)
    assert m.fixef.index.tolist() == want.fixef.index.tolist()
    assert m.fit.criterion == pytest.approx(want.fit.criterion, abs=1e-8)
    np.testing.assert_allclose(m.predict(table), want.fitted, atol=1e-7)
    assert m.ranef["g"].index.tolist() == list(range(12))


@pytest.mark.parametrize("kind", ["nullable", "polars", "arrow", "objects"])
def test_holes_in_tables_of_every_kind(kind: str) -> None:
    frame = data()[["y", "x", "g", "f", "b"]].astype({"f": object, "b": object, "g": object})
    frame.loc[2, "x"], frame.loc[5, "f"], frame.loc[8, "b"] = np.nan, None, None
    frame.loc[11, "g"], frame.loc[13, "y"] = None, np.nan
    want = fit("y ~ x + f + b + (1|g)", frame.dropna())
    assert want.nobs == 91
    typed = frame.convert_dtypes()
    table = TABLES[kind](typed if kind != "objects" else frame)
    m = fit("y ~ x + f + b + (1|g)", table)
    assert m.nobs == 91
    assert m.fit.criterion == pytest.approx(want.fit.criterion, abs=1e-8)
    np.testing.assert_allclose(m.predict(TABLES["pandas"](frame.dropna())), want.fitted, atol=1e-7)


# Files --------------------------------------------------------------------------------------------


def assert_identical(one: lmm.LinearMixedModel, other: lmm.LinearMixedModel) -> None:
    for what in ("fixef", "se", "theta", "fitted", "residuals", "weights", "offset"):
        pd.testing.assert_series_equal(getattr(other, what), getattr(one, what), check_exact=True)
    pd.testing.assert_frame_equal(other.vcov, one.vcov, check_exact=True)
    pd.testing.assert_frame_equal(
        other.varcorr.to_frame(), one.varcorr.to_frame(), check_exact=True
    )
    for what in ("sigma", "loglik", "aic", "bic", "npar", "nobs", "formula", "reml", "n_groups"):
        assert getattr(other, what) == getattr(one, what)
    assert list(other.ranef) == list(one.ranef)
    for group in one.ranef:
        pd.testing.assert_frame_equal(other.ranef[group], one.ranef[group], check_exact=True)
        np.testing.assert_array_equal(other.cond_var[group], one.cond_var[group])
    assert str(other.summary(ddf="none")) == str(one.summary(ddf="none"))
    assert other.convergence.findings == one.convergence.findings
    pd.testing.assert_series_equal(other.predict(data()), one.predict(data()), check_exact=True)
    pd.testing.assert_frame_equal(other.simulate(2, rng=1), one.simulate(2, rng=1))


@every_kind
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    m = kind_of(kind)
    m.save(tmp_path / "model")
    loaded = lmm.load(tmp_path / "model")
    assert_identical(m, loaded)
    loaded.save(str(tmp_path / "again"))
    assert_identical(m, lmm.load(str(tmp_path / "again")))


@every_kind
def test_pickled(kind: str) -> None:
    m = kind_of(kind)
    assert_identical(m, pickle.loads(pickle.dumps(m)))


INDEXES = {
    "text": pd.Index([f"row {i}" for i in range(96)]),
    "repeated": pd.Index(np.repeat(np.arange(48), 2), name="twice"),
    "dates": pd.date_range("2024", periods=96),
    "time zone": pd.date_range("2024", periods=96, tz="Europe/Berlin"),
    "durations": pd.to_timedelta(np.arange(96), "h"),
    "periods": pd.period_range("2024-01", periods=96, freq="M"),
    "intervals": pd.interval_range(0, 96),
    "several": pd.MultiIndex.from_product([range(12), list("abcdefgh")], names=["i", "j"]),
    "numbers": pd.Index(np.linspace(0, 1, 96)),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_index_in_files(kind: str, tmp_path: Path) -> None:
    m = fit("y ~ x + (1|g)", data().set_axis(INDEXES[kind]), na_action="exclude")
    m.save(tmp_path / "model")
    loaded = lmm.load(tmp_path / "model")
    pd.testing.assert_series_equal(loaded.fitted, m.fitted, check_freq=False)
    assert loaded.fitted.index.equals(INDEXES[kind])


LABELS: dict[str, Callable[[Any], Any]] = {
    "float": lambda g: g / 2,
    "text": lambda g: g.astype(str),
    "accents": lambda g: "Größe " + g.astype(str),
    "date": lambda g: [pd.Timestamp("2024-01-01").date() + pd.Timedelta(days=int(v)) for v in g],
    "period": lambda g: pd.PeriodIndex.from_ordinals(g, freq="M"),
    "time zone": lambda g: pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(g, "D"),
    "duration": lambda g: pd.to_timedelta(g, "h"),
    "tuple": lambda g: [(int(v), "a") for v in g],
    "boolean": lambda g: g > 5,
    "reversed categories": lambda g: pd.Categorical(g, range(12)[::-1]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_in_files(kind: str, tmp_path: Path) -> None:
    frame = data().assign(g=LABELS[kind](data()["g"]))
    m = fit("y ~ x + (1|g) + (1|g:k)", frame)
    m.save(tmp_path / "model")
    loaded = lmm.load(tmp_path / "model")
    for group in m.ranef:
        pd.testing.assert_frame_equal(loaded.ranef[group], m.ranef[group])
    pd.testing.assert_series_equal(loaded.predict(frame), m.predict(frame))
    np.testing.assert_allclose(m.predict(frame), m.fitted)


def test_arrays_in_files(tmp_path: Path) -> None:
    frame = data()
    m = lmm.fit_arrays(
        frame["y"], frame[["x"]], [(frame["g"], frame[["x", "z"]])], weights=frame["w"]
    )
    m.save(tmp_path / "model")
    loaded = lmm.load(tmp_path / "model")
    pd.testing.assert_series_equal(loaded.fitted, m.fitted)
    pd.testing.assert_frame_equal(loaded.ranef["g"], m.ranef["g"])
    assert str(loaded) == str(m)


def test_own_functions_are_not_in_files(tmp_path: Path) -> None:
    m = fit("y ~ bend(x) + (1|g)", context={"bend": np.tanh})
    np.testing.assert_allclose(m.predict(data()), m.fitted)
    m.save(tmp_path / "model")
    loaded = lmm.load(tmp_path / "model")
    pd.testing.assert_series_equal(loaded.fitted, m.fitted)
    with pytest.raises(LmmError, match="bend, which was passed as context="):
        loaded.predict(data())


def test_size_does_not_grow_with_what_can_be_rebuilt() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    frame = pd.DataFrame(
        {"y": rng.normal(size=n), "x": rng.normal(size=n), "g": rng.integers(0, 500, n)}
    )
    frame["unused"] = rng.normal(size=n)
    m = fit("y ~ x + (x|g)", frame)
    assert m.cond_var["g"].shape == (500, 2, 2)
    design = m.fit.design
    stored = sum(a.nbytes for a in (design.y, design.X, design.rows))
    stored += sum(b.columns.nbytes + b.codes.nbytes for b in design.blocks)
    assert len(pickle.dumps(m)) < 1.1 * stored + 50_000


CODE = "__import__('pathlib').Path({!r}).touch()"
ATTACKS: dict[str, Callable[[dict[str, Any], str], Any]] = {
    "fixed part": lambda r, code: r["parts"].update(fixed=f"1 + {code}"),
    "inside I()": lambda r, code: r["parts"].update(fixed=f"1 + I({code})"),
    "in braces": lambda r, code: r["parts"].update(fixed=f"1 + {{{code}}}"),
    "inside log()": lambda r, code: r["parts"].update(fixed=f"1 + log(z + {code})"),
    "random part": lambda r, code: r["parts"].update(random0=f"1 + I({code})"),
    "group": lambda r, code: r["groups"][0].update(factors=[code]),
    "offset": lambda r, code: r.update(offsets=[code]),
    "learnt factor": lambda r, code: r["categories"]["fixed"].update({code: None}),
    "own name": lambda r, code: (
        r.update(context=["__import__"]), r["parts"].update(fixed=f"1 + I({code})")
    ),
    "name of a builtin": lambda r, code: (
        r.update(context=["open"]), r["parts"].update(fixed="1 + I(open('evil', 'w'))")
    ),
    "numpy": lambda r, code: r["parts"].update(fixed="1 + np.loadtxt('evil')"),
    "method": lambda r, code: r["parts"].update(fixed="1 + I(z.to_csv('evil'))"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_files_cannot_run_code(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "evil"
    fit("y ~ log(z) + offset(o) + (1|g)").save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    meta = json.loads(parts["model.json"])
    ATTACKS[attack](meta["design"]["recipe"], CODE.format(str(target)))
    parts["model.json"] = json.dumps(meta).encode()
    parts["model.json.sha256"] = hashlib.sha256(parts["model.json"]).hexdigest().encode()
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    (tmp_path / "changed").write_bytes(changed.getvalue())
    with pytest.raises(LmmError):
        lmm.load(tmp_path / "changed").predict(data())
    assert not target.exists()


# The object ---------------------------------------------------------------------------------------


def test_results_are_copies() -> None:
    m = fit("y ~ x + (x|g)")
    results: dict[str, Callable[[], Any]] = {
        "ranef": lambda: m.ranef["g"],
        "coef": lambda: m.coef["g"],
        "varcorr": lambda: m.varcorr.to_frame()[["vcov", "sdcor"]],
        **{
            what: lambda what=what: getattr(m, what)
            for what in ("fixef", "se", "theta", "vcov", "fitted", "residuals", "weights")
        },
    }
    before = {what: result().copy() for what, result in results.items()}
    for result in results.values():
        mine = result()
        mine.iloc[:] = -99.0
    for what, result in results.items():
        np.testing.assert_array_equal(result(), before[what])


def test_data_can_change_after_the_fit() -> None:
    frame = data().copy()
    m = fit("y ~ x + (x|g)", frame, weights=(w := frame["w"].to_numpy().copy()))
    before = str(m.summary(ddf="none"))
    frame["y"] = 0.0
    frame["x"] *= 2
    w[:] = 1.0
    assert str(m.summary(ddf="none")) == before
    assert m.refit(data()["y"]).fit.criterion == pytest.approx(m.fit.criterion, abs=1e-7)


def test_data_are_not_changed() -> None:
    frame = data().astype({"f": object}).copy()
    frame.loc[3, "x"] = np.nan
    before = frame.copy(deep=True)
    m = fit("y ~ poly(z, 2) + f + offset(o) + (x|g) + (1|half:k)", frame, weights="w")
    m.predict(frame, new_levels="population")
    pd.testing.assert_frame_equal(frame, before)


def test_coef() -> None:
    m = sleep()
    want = m.ranef["Subject"] + m.fixef
    pd.testing.assert_frame_equal(m.coef["Subject"], want, check_column_type=False)
    only_random = fit("y ~ 1 + (0 + x|g)").coef["g"]
    assert only_random.columns.tolist() == ["x", "Intercept"]
    np.testing.assert_allclose(only_random["x"], fit("y ~ 1 + (0 + x|g)").ranef["g"]["x"])
    two = kind_of("split").coef["g"]
    assert two.columns.tolist() == ["Intercept", "x"]


def test_principal_components() -> None:
    m = sleep()
    T = m.fit.template.factors(m.fit.theta)[0]
    values = np.linalg.eigvalsh(T @ T.T)[::-1]
    table = m.rank_pca()["Subject"]
    np.testing.assert_allclose(table["sd"], np.sqrt(values))
    np.testing.assert_allclose(table["cumulative"], np.cumsum(values) / values.sum())
    two = kind_of("two terms")
    table = two.rank_pca()["g"]
    sizes = [T[0, 0] for T, b in zip(two.fit.template.factors(two.fit.theta),
             two.fit.design.blocks, strict=True) if b.group == "g"]  # fmt: skip
    np.testing.assert_allclose(table["sd"], sorted(sizes, reverse=True))
    assert table.index.tolist() == ["PC1", "PC2"]


def test_residuals() -> None:
    m = fit("y ~ x + (x|g)", weights="w", offset="o")
    raw = data()["y"] - m.fitted
    np.testing.assert_allclose(m.residuals, raw)
    root = np.sqrt(data()["w"])
    np.testing.assert_allclose(m.residuals_of("pearson"), root * raw)
    np.testing.assert_allclose(m.residuals_of("pearson", scaled=True), root * raw / m.sigma)
    np.testing.assert_allclose(m.residuals_of(scaled=True), raw / m.sigma)
    pd.testing.assert_series_equal(m.weights, data()["w"], check_names=False)
    pd.testing.assert_series_equal(m.offset, data()["o"], check_names=False)


def test_comparison_of_pigs() -> None:
    pigs = lmm.load_dataset("dietox")
    split = lmm.lmer("Weight ~ Time + (1|Pig) + (0+Time|Pig)", pigs)
    full = lmm.lmer("Weight ~ Time + (1+Time|Pig)", pigs)
    small = lmm.lmer("Weight ~ Time + (1|Pig)", pigs)
    table = lmm.anova(full, small, split)
    frame = table.to_frame()
    assert list(frame.columns) == [
        "npar", "AIC", "BIC", "logLik", "deviance", "Chisq", "Df", "Pr(>Chisq)"
    ]  # fmt: skip
    assert frame["npar"].tolist() == [4, 5, 6]
    assert frame["Df"].tolist()[1:] == [1, 1]
    ml = [lmm.lmer(m.formula, pigs, reml=False) for m in (small, split, full)]
    np.testing.assert_allclose(frame["deviance"], [m.deviance for m in ml], atol=1e-6)
    np.testing.assert_allclose(frame["AIC"], [m.aic for m in ml], atol=1e-6)
    np.testing.assert_allclose(frame["BIC"], [m.bic for m in ml], atol=1e-6)
    assert "maximum likelihood" in str(table)
    kept = lmm.anova(small, split, full, refit=False).to_frame()
    np.testing.assert_allclose(kept["Chisq"].iloc[2], 4434.696128 - 4434.094918, atol=1e-5)
    np.testing.assert_allclose(kept["Pr(>Chisq)"].iloc[2], 0.4381, atol=1e-3)
    assert np.isnan(frame["Chisq"].iloc[0])


def test_comparison_of_equal_models() -> None:
    frame = lmm.anova(sleep(), sleep()).to_frame()
    assert frame["Chisq"].iloc[1] == 0
    assert frame["Df"].iloc[1] == 0
    assert np.isnan(frame["Pr(>Chisq)"].iloc[1])


def test_wald_intervals() -> None:
    m = sleep()
    table = m.confint("wald")
    assert table.index.tolist() == [
        "sd_Intercept|Subject", "cor_Days.Intercept|Subject", "sd_Days|Subject", "sigma",
        "Intercept", "Days",
    ]  # fmt: skip
    assert table.iloc[:4].isna().all(axis=None)
    np.testing.assert_allclose(
        table.iloc[4:], [[238.029141, 264.781069], [7.437592, 13.496980]], atol=1e-3
    )
    half = m.confint("wald", level=0.5, which="Days").to_numpy()
    np.testing.assert_allclose(half - 10.467286, [[-1.042621, 1.042621]], atol=1e-4)
    assert m.confint("wald", which="beta_").index.tolist() == ["Intercept", "Days"]
    assert len(m.confint("wald", which=["theta_", "Days"])) == 5


def test_published_comparison() -> None:
    """The notebook's models: no warning of any kind, and its figures."""
    sitka = lmm.load_dataset("Sitka")
    m = lmm.lmer("size ~ Time + (1 + Time | tree)", sitka)
    assert m.reml_criterion == pytest.approx(124.966889, abs=1e-6)
    assert m.convergence.converged
    assert not m.is_singular()
    assert [f.level for f in m.convergence.findings if f.level != "info"] == []
    table = m.varcorr.to_frame()
    np.testing.assert_allclose(
        table["vcov"], [0.646457, 7.31667e-06, -0.00140594, 0.0264416], rtol=1e-4
    )
    plain = lmm.lmer("size ~ Time + (1|tree)", sitka)
    X = np.column_stack([np.ones(len(sitka)), sitka["Time"]])
    arrays = lmm.fit_arrays(sitka["size"], X, [(sitka["tree"], None)])
    assert plain.reml_criterion == pytest.approx(164.776806, abs=1e-6)
    assert arrays.reml_criterion == pytest.approx(plain.reml_criterion, abs=1e-10)


def test_singular_fits_say_what_is_singular() -> None:
    with pytest.warns(lmm.SingularFitWarning, match=r"Intercept in \(1 \| Batch\) is zero"):
        m = lmm.lmer("Yield ~ 1 + (1 | Batch)", lmm.load_dataset("Dyestuff2"))
    assert m.is_singular()
    assert m.convergence.singular
    assert m.convergence.converged
    assert m.theta.tolist() == [0.0]
    assert (m.ranef["Batch"] == 0).all(axis=None)
    rng = np.random.default_rng(6)
    effects = rng.normal(size=96) + 2 * rng.normal(size=12)[data()["g"]]
    with pytest.warns(
        lmm.SingularFitWarning, match=r"in \(x\|g\) the random effects vary in 1 of 2 dimensions"
    ):
        part = lmm.lmer("y ~ x + (x|g)", data().assign(y=data()["x"] + effects))
    assert part.is_singular()
    assert not part.is_singular(tol=0.0)


def test_units_do_not_decide_what_is_singular() -> None:
    for factor in (1e-9, 1.0, 1e9):
        m = lmm.lmer("y ~ x + (x|g)", data().assign(x=data()["x"] * factor))
        assert not m.is_singular()


def test_printing() -> None:
    assert "Number of obs: 96, groups: g, 12" in str(kind_of("slope").summary(ddf="none"))


def test_unknown_terms_do_not_change_the_model() -> None:
    m = sleep()
    with pytest.raises(FormulaError):
        m.predict(random="~(1|Plot)")
    pd.testing.assert_series_equal(m.predict(), m.fitted, check_names=False)


def test_the_same_formula_on_data_of_another_kind() -> None:
    first = fit("y ~ half + (1|g)")
    second = fit("y ~ half + (1|g)", data().astype({"half": str}))
    assert first.fixef.index.tolist() == ["Intercept", "half"]
    assert len(second.fixef) == 6
    pd.testing.assert_series_equal(fit("y ~ half + (1|g)").fixef, first.fixef)


@pytest.mark.parametrize(
    "kind", [dict, pd.Series, lambda named: pd.Series(named).astype("Float64")]
)
@pytest.mark.parametrize("fixed", [None, {"Subject.Days.Intercept": 0.0}])
def test_start_values_with_names_go_by_their_names(kind: Any, fixed: Any) -> None:
    data, formula = lmm.load_dataset("sleepstudy"), "Reaction ~ Days + (Days | Subject)"
    theta = lmm.lmer(formula, data, fixed=fixed).theta
    start = kind(theta.iloc[::-1].to_dict())
    m = lmm.lmer(formula, data, start=start, fixed=fixed, optimizer=lmm.TrustRegion())
    assert m.fit.optimum.evaluations <= 2
    np.testing.assert_allclose(m.theta, theta, atol=1e-6)
    by_place = lmm.lmer(formula, data, start=pd.Series(theta.to_numpy()), fixed=fixed)
    assert by_place.fit.optimum.evaluations <= 2
    for wrong in (theta.iloc[:2], theta.rename(str.upper), {"Subject": 1.0}):
        with pytest.raises(lmm.OptionError, match=r"Subject\.Days\.Intercept"):
            lmm.lmer(formula, data, start=wrong, fixed=fixed)
