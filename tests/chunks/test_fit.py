"""A model from chunks is the model from memory: estimates, tests, tables, files."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chunked import CHUNKS, FORMULA, crossed, same_fit

import lmmsparse as lmm
from lmmsparse.chunks import design as chunked_design

DATA = crossed().assign(
    yes=lambda d: d["o"] > 0.2,
    yes2=lambda d: d["w"] > 1.5,
    small=lambda d: d["g"] % 4,
    big=lambda d: pd.array(np.where(d["g"] % 9 == 0, None, d["g"]), dtype="Int64"),
    day=lambda d: pd.Timestamp("2020-01-01") + pd.to_timedelta(d["g"] % 40, "D"),
)
MEMORY = lmm.lmer(FORMULA, DATA)


@pytest.fixture(autouse=True)
def _small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample is a part of the rows, as it is of large data."""
    monkeypatch.setattr(chunked_design, "SAMPLE", 900)


@pytest.fixture(scope="module")
def model() -> lmm.LinearMixedModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_design, "SAMPLE", 900)
        made = lmm.lmer(FORMULA, DATA, chunks=CHUNKS)
    assert made.fit.design.sample is not None
    assert made.fit.design.sample.n < 2000
    return made


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("y ~ x + f + (1 | g)", {}),
        ("y ~ x + f + (1 | g)", {"reml": False}),
        ("y ~ 0 + f + (0 + x | g) + (1 | h)", {}),
        ("y ~ 0 + (1 + x | g)", {"reml": False}),
        ("y ~ x + (1 + x || g) + (1 | h)", {"weights": "w"}),
        ("y ~ x + offset(o) + diag(1 + x | g)", {"weights": "w", "offset": "o"}),
        ("y ~ x + (1 | g:h) + (1 | h)", {}),
        ("y ~ x + (f | g)", {"fixed": {"sigma": 1.0}}),
        ("y ~ x + (1 | h) + (1 | k)", {}),
        ("log(w) ~ x + C(k) + (1 | g)", {"contrasts": {"f": "sum"}}),
        ("y ~ x * f + (1 | g)", {"contrasts": {"f": "sum"}}),
        ("yes ~ x + yes2 + (1 + yes2 | g)", {}),
        ("y ~ x + ar1(0 + f | g)", {}),
        ("y ~ C(small) + big + (1 | day) + (1 | g)", {}),
        ("y ~ square(x) + (1 | g)", {"context": {"square": lambda v: v**2}}),
        ("y ~ poly(x, 3) + (x | g)", {}),
        ("y ~ scale(o) + center(np.log(w)) + (scale(x) | g)", {}),
        ("y ~ bs(x, df=5) + (1 | g)", {}),
        ("y ~ bs(x, knots=[3, 6]) + cr(w, df=3, constraints='center') + (1 | g)", {}),
        ("y ~ cc(x, df=4) + poly(o, 2, raw=True) + (1 | g)", {}),
    ],
)
def test_equal_to_a_fit_in_memory(formula: str, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        reference = lmm.lmer(formula, DATA, **options)
        found = lmm.lmer(formula, DATA, chunks=CHUNKS, **options)
    same_fit(found, reference)
    assert str(found) == str(reference)


def test_predictors_far_from_zero() -> None:
    data = DATA.assign(day=DATA["x"] + 2_450_000.0, y=DATA["y"] + 1e6)
    formula = "y ~ day + f + (1 + day | g)"
    reference, found = lmm.lmer(formula, data), lmm.lmer(formula, data, chunks=CHUNKS)
    theta = reference.fit.theta
    a, b = (m.fit.objective(theta) for m in (found, reference))
    assert np.isclose(a, b, rtol=1e-12, atol=0.0)
    np.testing.assert_allclose(found.fixef, reference.fixef, rtol=1e-8)
    np.testing.assert_allclose(found.sigma, reference.sigma, rtol=1e-8)


def test_missing_values_and_weights_of_zero() -> None:
    r = np.random.default_rng(0)
    data = DATA.copy()
    data.loc[r.integers(0, len(data), 90), "x"] = np.nan
    data.loc[r.integers(0, len(data), 40), "h"] = None
    data.loc[data["g"] == 1010, "x"] = np.nan
    data.loc[r.integers(0, len(data), 30), "w"] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        reference = lmm.lmer(FORMULA, data, weights="w")
        found = lmm.lmer(FORMULA, data, weights="w", chunks=CHUNKS)
    same_fit(found, reference)
    with pytest.raises(lmm.DataError, match="na_action='raise'"):
        lmm.lmer(FORMULA, data, na_action="raise", chunks=CHUNKS)
    with pytest.raises(lmm.OptionError, match="exclude"):
        lmm.lmer(FORMULA, data, na_action="exclude", chunks=CHUNKS)


def test_what_one_row_shows() -> None:
    """A column that is zero but once, and one that repeats another but once."""
    data = DATA.assign(rare=0.0, nearly=2 * DATA["x"] + 1, same=3 * DATA["x"] - 2)
    data.loc[777, "rare"] = 1.0
    data.loc[4321, "nearly"] += 3.0
    for formula in ("y ~ x + rare + (1 | g)", "y ~ x + nearly + (1 | g)"):
        same_fit(lmm.lmer(formula, data, chunks=CHUNKS), lmm.lmer(formula, data))
    with pytest.warns(lmm.DesignWarning, match="linearly dependent"):
        found = lmm.lmer("y ~ x + same + (1 | g)", data, chunks=CHUNKS)
    assert found.fit.design.dropped == ("same",)


@pytest.mark.long
@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.varcorr.to_frame(),
        lambda m: m.coef_table("kenward-roger").to_frame(),
        lambda m: m.coef_table("satterthwaite").to_frame(),
        lambda m: lmm.anova(m, type=1).to_frame(),
        lambda m: lmm.anova(m, type=2).to_frame(),
        lambda m: lmm.anova(m, type=3).to_frame(),
        lambda m: m.ranef["g"],
        lambda m: m.coef["h"],
        lambda m: pd.DataFrame(m.cond_var["g"].reshape(-1, 4)),
        lambda m: m.confint("wald"),
        lambda m: m.confint("profile", which="theta_"),
        lambda m: m.drop1().to_frame(),
        lambda m: m.drop1("F").to_frame(),
        lambda m: m.ranova().to_frame(),
        lambda m: m.emmeans("f").to_frame(),
        lambda m: m.emmeans("f", by="k", weights="proportional").to_frame(),
        lambda m: m.emmeans("k", weights="proportional", pairwise=True).to_frame(),
        lambda m: m.emtrends("f", "x").to_frame(),
        lambda m: m.joint_tests().to_frame(),
        lambda m: m.contrast([[0, 1, 0, 0, 0, 0, 0]]).to_frame(),
        lambda m: m.vcov_varcorr(),
        lambda m: m.r2(),
        lambda m: m.icc(),
        lambda m: m.glance(),
        lambda m: m.tidy("ran_pars"),
        lambda m: m.predict(DATA.head(50), interval="prediction"),
        lambda m: m.all_fit().to_frame()[["criterion"]],
        lambda m: m.rank_pca()["g"],
    ],
)
def test_after_the_fit(model: lmm.LinearMixedModel, ask: Callable[[Any], Any]) -> None:
    found, wanted = ask(model), ask(MEMORY)
    same = pd.testing.assert_frame_equal
    if isinstance(found, pd.Series):
        same = pd.testing.assert_series_equal
    same(found, wanted, rtol=2e-5, atol=1e-6)


def test_comparing_models(model: lmm.LinearMixedModel) -> None:
    formula = "y ~ x + f * k + (1 | g) + (1 | h)"
    small = lmm.lmer(formula, DATA, chunks=CHUNKS)
    wanted = lmm.anova(lmm.lmer(formula, DATA), MEMORY)
    found = lmm.anova(small, model)
    pd.testing.assert_frame_equal(found.to_frame(), wanted.to_frame(), rtol=1e-5)
    np.testing.assert_allclose(found["Pr(>Chibarsq)"], wanted["Pr(>Chibarsq)"], rtol=1e-4)
    other = lmm.lmer("y ~ x + f + (1 | h)", DATA, chunks=CHUNKS)
    frame = lmm.anova(other, model).to_frame()
    assert frame["Df"].iloc[1] == 6  # f:k and k, and the terms of g
    with pytest.raises(lmm.DataError, match="One of the models"):
        lmm.anova(MEMORY, small)
    with pytest.raises(lmm.DataError, match="different rows, responses"):
        lmm.anova(lmm.lmer(formula, DATA, weights="w", chunks=CHUNKS), model)


def test_step_without_rows(model: lmm.LinearMixedModel) -> None:
    data = DATA.assign(z=np.random.default_rng(5).normal(size=len(DATA)))
    formula = "y ~ x + z + f + (1 + z | g) + (1 | h)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        a = lmm.lmer(formula, data, chunks=CHUNKS).step()
        b = lmm.lmer(formula, data).step()
    assert a.formula == b.formula
    same_fit(a.model, b.model, tol=1e-10)


def test_kept_and_loaded(model: lmm.LinearMixedModel, tmp_path: Any) -> None:
    path = tmp_path / "model.lmm"
    model.save(path)
    for again in (lmm.load(path), pickle.loads(pickle.dumps(model))):
        assert again.fit.criterion == model.fit.criterion
        assert str(again.summary()) == str(model.summary())
        pd.testing.assert_frame_equal(again.drop1("F").to_frame(), model.drop1("F").to_frame())


def test_the_summary_says_of_which_rows_residuals_are(model: lmm.LinearMixedModel) -> None:
    own, other = str(model.summary()), str(MEMORY.summary())
    assert model.fit.design.sample is not None
    assert f"Scaled residuals of {model.fit.design.sample.n} rows:" in own
    assert own.partition("Random effects:")[2] == other.partition("Random effects:")[2]


@pytest.mark.long
@pytest.mark.parametrize("formula", [FORMULA, "y ~ x + (1 | g)"])
def test_the_number_of_processes_does_not_matter(formula: str) -> None:
    data = crossed(4000)
    fits = [
        lmm.lmer(formula, data, chunks=lmm.Chunks(rows=250, processes=processes)).fit
        for processes in (1, 4)
    ]
    a, b = (fit.products for fit in fits)
    assert np.array_equal(a.ZtX, b.ZtX)
    assert all(np.array_equal(x.values, y.values) for x, y in zip(a.pairs, b.pairs, strict=True))
    assert np.array_equal(a.basis.R, b.basis.R)
    assert np.array_equal(fits[0].theta, fits[1].theta)
    assert np.array_equal(fits[0].beta, fits[1].beta)


def test_many_cells_are_gathered_in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmmsparse.chunks import cells

    monkeypatch.setattr(cells, "_TABLE", 0)
    same_fit(lmm.lmer(FORMULA, DATA, chunks=CHUNKS), MEMORY)
    monkeypatch.setattr(cells, "_ROW_BITS", 0)
    same_fit(lmm.lmer(FORMULA, DATA, chunks=CHUNKS), MEMORY)


def test_a_sample_that_is_not_like_the_rest() -> None:
    """The predictor is a thousand times as large where the sample has few rows."""
    data = DATA.assign(big=np.where(np.arange(len(DATA)) % 97 == 5, 1e6, 1.0) * DATA["x"])
    formula = "y ~ big + x + (1 | g)"
    same_fit(lmm.lmer(formula, data, chunks=CHUNKS), lmm.lmer(formula, data))


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("y ~ I(x - np.mean(x)) + (1 | g)", "depends on other rows"),
        ("y ~ x.rank() + (1 | g)", "depends on other rows"),
        ("y ~ mine(x) + (1 | g)", "depends on other rows"),
        ("y ~ x + (np.cumsum(x) | g)", "depends on other rows"),
        ("y ~ lag(x) + (1 | g)", "undefined"),
        ("y ~ np.log(x - 5) + (1 | g)", "undefined"),
        ("y ~ scale(center(x)) + (1 | g)", "learns from what"),
    ],
)
def test_what_cannot_be_read_in_chunks(formula: str, why: str) -> None:
    with pytest.raises(lmm.LmmError, match=why):
        lmm.lmer(formula, DATA, chunks=CHUNKS, context={"mine": lambda v: v - v.mean()})


def test_arrays_beside_chunks_are_refused() -> None:
    for name in ("weights", "offset"):
        with pytest.raises(lmm.OptionError, match="name of a column"):
            lmm.lmer(FORMULA, DATA, chunks=CHUNKS, **{name: np.ones(len(DATA))})
    with pytest.raises(lmm.OptionError, match="Chunks"):
        lmm.lmer(FORMULA, DATA, chunks=1000)
    for bad in ({"rows": 0}, {"processes": 1.5}, {"client": "localhost"}):
        with pytest.raises(lmm.OptionError):
            lmm.Chunks(**bad)


def test_what_needs_rows_is_refused_by_name(model: lmm.LinearMixedModel) -> None:
    for ask, instead in [
        (lambda m: m.fitted, "predict_batches"),
        (lambda m: m.residuals, "residual_batches"),
        (lambda m: m.residuals_of("pearson"), "residual_batches"),
        (lambda m: m.weights, "column"),
        (lambda m: m.offset, "column"),
        (lambda m: m.predict(), "predict_batches"),
        (lambda m: m.predict(se=True), "predict_batches"),
        (lambda m: m.simulate(rng=1), "simulate_batches"),
        (lambda m: m.influence(), "memory"),
        (lambda m: m.influence("g"), "memory"),
        (lambda m: m.augment(), "predict_batches"),
        (lambda m: m.refit(DATA["y"]), "column"),
        (lambda m: m.refit_many(DATA[["y"]]), "column"),
        (lambda m: m.bootstrap(2, rng=1), "profile"),
        (lambda m: m.confint("boot"), "profile"),
        (lambda m: lmm.bootstrap_lrt(m, m, 2, 1), "anova"),
        (lambda m: m.plot.shrinkage("g"), "caterpillar"),
        (lambda m: m.power("x", along="g", n=[200], rng=1), r"with more levels: m\.power"),
        (lambda m: m.fit.design.X, "predict_batches"),
        (lambda m: m.fit.design.Z, "predict_batches"),
    ]:
        with pytest.raises(lmm.RowsNotKeptError, match=instead):
            ask(model)


def test_updated_models(tmp_path: Any) -> None:
    data = DATA.drop(columns=["yes", "yes2", "big", "day"])
    data.to_parquet(tmp_path / "data.parquet")
    for source, options in [(str(tmp_path / "data.parquet"), {}), (data, {"chunks": CHUNKS})]:
        small = lmm.lmer("y ~ x + (1 | g)", source, **options).update(". ~ . + f")
        assert small.fit.design.facts is not None
        same_fit(small, lmm.lmer("y ~ x + f + (1 | g)", data))


@pytest.mark.parametrize("name", ["known", "residual", "residual_sd"])
def test_structures_that_need_rows_together_are_refused(name: str) -> None:
    given = {"known": {"g": np.eye(3)}, "residual": "cs(1 | g)", "residual_sd": "~ f"}[name]
    with pytest.raises(lmm.OptionError, match=f"^{name}= is not there"):
        lmm.lmer("y ~ x + (1 | g)", DATA, chunks=CHUNKS, **{name: given})


def test_residuals_are_drawn_of_the_sample(model: lmm.LinearMixedModel) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    sample = model.fit.design.sample
    assert sample is not None
    ax = model.plot.residuals(smooth=False)
    assert f"{sample.n:,} of {model.nobs:,} rows" in ax.get_ylabel()
    fitted, residuals = ax.collections[0].get_offsets().T
    np.testing.assert_allclose(fitted + residuals, sample.y, atol=1e-9)
    np.testing.assert_allclose(fitted, model.fit.fitted_on(sample), atol=1e-9)
    for each in (model.plot.qq(), model.plot.scale_location(smooth=False)):
        assert "rows" in each.get_ylabel()
    whole = MEMORY.plot.residuals(smooth=False).collections[0].get_offsets()
    np.testing.assert_allclose(whole[:, 0], MEMORY.fitted, atol=1e-9)
    plt.close("all")
