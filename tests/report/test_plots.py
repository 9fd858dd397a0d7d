"""Plots: what is drawn against the numbers, and small grey pictures of how it looks.

``LMMSPARSE_WRITE=1 pytest tests/report/test_plots.py`` writes the pictures anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from models import fit, frame
from numpy.testing import assert_allclose
from scipy import optimize, stats

import lmmsparse as lmm
from lmmsparse.report.plots.densities import density_of
from lmmsparse.report.plots.figure import wrapped
from lmmsparse.report.plots.pairs import contour
from lmmsparse.report.plots.profiles import curves_of
from lmmsparse.report.plots.qq import normal_band
from lmmsparse.report.plots.residuals import lowess
from lmmsparse.report.plots.shrinkage import pooling

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(autouse=True)
def _no_figure_stays_open() -> Iterator[None]:
    yield
    plt.close("all")


def sleep() -> lmm.LinearMixedModel:
    return fit("sleepstudy_slope_reml")


@cache
def profiled(name: str) -> Any:
    return fit(name).profile()


@cache
def replicated(name: str) -> Any:
    return fit(name).bootstrap(200, rng=3)


def cloud(ax: Any) -> np.ndarray[Any, Any]:
    """All points of a panel, (points, 2)."""
    return np.vstack(
        [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) > 1]
    )


def segments(ax: Any) -> np.ndarray[Any, Any]:
    lines = [c for c in ax.collections if isinstance(c, matplotlib.collections.LineCollection)]
    return np.vstack([np.asarray(line.get_segments()) for line in lines if line.get_segments()])


def curve(ax: Any) -> np.ndarray[Any, Any]:
    """The curve with the most points, (points, 2)."""
    lines = [np.asarray(line.get_xydata(), dtype=float) for line in ax.get_lines()]
    return max(lines, key=len)


# Residuals ----------------------------------------------------------------------------------------


def test_residuals_and_smoother() -> None:
    m = sleep()
    ax = m.plot.residuals()
    assert_allclose(cloud(ax), np.column_stack([m.fitted, m.residuals]))
    assert_allclose(curve(ax), np.column_stack(lowess(m.fitted.to_numpy(), m.residuals.to_numpy())))
    assert "Reaction" in ax.get_xlabel()
    assert "Reaction" in ax.get_ylabel()
    assert len(m.plot.residuals(smooth=False).get_lines()) == 1


def test_weighted_residuals_are_on_a_common_scale() -> None:
    m = fit("sleepstudy_weights_reml")
    ax = m.plot.residuals()
    assert_allclose(cloud(ax)[:, 1], m.residuals_of("pearson"))
    assert "weight" in ax.get_ylabel()


def test_scale_location() -> None:
    m = fit("sleepstudy_weights_reml")
    points = cloud(m.plot.scale_location())
    assert_allclose(points, np.column_stack([m.fitted, np.sqrt(np.abs(m.influence().rstudent))]))


def test_rows_that_were_left_out_are_left_out() -> None:
    data = frame("sleepstudy").copy()
    data.loc[data.index[[3, 50]], "Reaction"] = np.nan
    formula = "Reaction ~ Days + (Days | Subject)"
    kept = lmm.lmer(formula, data.dropna())
    padded = lmm.lmer(formula, data, na_action="exclude")
    for name in ("residuals", "scale_location", "qq"):
        drawn = [cloud(getattr(m.plot, name)()) for m in (kept, padded)]
        assert_allclose(drawn[0], drawn[1], rtol=1e-6, atol=1e-6)


def test_lowess_is_that_of_r() -> None:
    speed = "4 4 7 7 8 9 10 10 10 11 11 12 12 12 12 13 13 13 13 14 14 14 14 15 15 15 16 16 17 17 17"
    speed += " 18 18 18 18 19 19 19 20 20 20 20 20 22 23 24 24 24 24 25"
    dist = "2 10 4 22 16 10 18 26 34 17 28 14 20 24 28 26 34 34 46 26 36 60 80 20 26 54 32 40 32"
    dist += " 40 50 42 56 76 84 36 46 68 32 48 52 56 64 66 54 70 92 93 120 85"
    x, y = (np.array(text.split(), dtype=float) for text in (speed, dist))
    grid, smooth = lowess(x, y)
    assert_allclose(grid, np.unique(x))
    want = [
        4.965459, 13.1245, 15.85863, 18.57969, 21.28031, 24.12928, 27.11955, 30.02728, 32.96251,
        36.75773, 40.43507, 43.46349, 46.88548, 50.79315, 56.49122, 67.58582, 73.0797, 78.64316,
        84.3287,
    ]  # fmt: skip
    assert_allclose(smooth, want, rtol=1e-6)


def test_lowess_follows_a_line_whatever_the_outlier_and_takes_ties() -> None:
    x = np.repeat(np.arange(12.0), 4)
    y = 3.0 - 2.0 * x
    y[20] += 1e3
    grid, smooth = lowess(x, y)
    assert_allclose(smooth, 3.0 - 2.0 * grid, atol=1e-6)
    # Nine of ten values equal: neighbourhoods without width.
    grid, smooth = lowess(np.r_[np.zeros(90), np.arange(10.0)], np.r_[np.ones(90), np.zeros(10)])
    assert np.isfinite(smooth).all()
    assert smooth[0] == pytest.approx(1.0)


# Quantiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 18, 400, 3_000])
def test_normal_band_holds_its_level_for_the_whole_sample(n: int) -> None:
    band = normal_band(n, 0.9)
    assert np.all(band.lower < band.expected)
    assert np.all(band.expected < band.upper)
    assert_allclose(band.expected, -band.expected[::-1], atol=1e-8)
    draws = np.sort(np.random.default_rng(8).normal(size=(2_000, n)), axis=1)[:, band.ranks]
    inside = np.all((draws > band.lower) & (draws < band.upper), axis=1).mean()
    # Ranks between those that set the level cost a little; 2,000 draws have an error of 0.007.
    assert 0.87 < inside < 0.93


def test_qq_of_residuals() -> None:
    m = sleep()
    points = cloud(m.plot.qq())
    assert_allclose(points[:, 1], np.sort(m.influence().rstudent))
    assert_allclose(points[:, 0], normal_band(180, 0.95).expected)


def test_qq_of_random_effects_is_standardized() -> None:
    m = sleep()
    axes = m.plot.qq("Subject")
    assert [ax.get_title() for ax in axes] == ["Intercept | Subject", "Days | Subject"]
    variance = m.varcorr.to_frame()["vcov"][1] - m.cond_var["Subject"][:, 1, 1]
    want = np.sort(m.ranef["Subject"]["Days"] / np.sqrt(variance))
    assert_allclose(cloud(axes[1])[:, 1], want)


def test_standardized_random_effects_have_variance_one() -> None:
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(1_500), rng.integers(1, 5, 1_500))
    y = 10 + rng.normal(size=1_500)[g] + rng.normal(size=len(g))
    m = lmm.lmer("y ~ (1 | g)", pd.DataFrame({"y": y, "g": g}))
    points = cloud(m.plot.qq("g"))
    slope = np.polyfit(points[:, 0], points[:, 1], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


def test_a_level_outside_the_band_is_named() -> None:
    rng = np.random.default_rng(2)
    g = np.repeat([f"level {i}" for i in range(40)], 10)
    y = np.repeat(np.r_[rng.normal(size=39), 15.0], 10) + 0.1 * rng.normal(size=400)
    ax = lmm.lmer("y ~ (1 | g)", pd.DataFrame({"y": y, "g": g})).plot.qq("g")
    assert ax.texts[0].get_text() == "level 39"
    assert len(ax.texts) <= 5


# Random effects -----------------------------------------------------------------------------------


def test_caterpillar() -> None:
    m = sleep()
    axes = m.plot.caterpillar(level=0.9)
    modes = m.ranef["Subject"].sort_values("Intercept")
    names = [text.get_text() for text in axes[0].get_yticklabels()]
    assert names == [str(level) for level in modes.index]
    at = m.ranef["Subject"].index.get_indexer(modes.index)
    half = stats.norm.ppf(0.95) * np.sqrt(m.cond_var["Subject"][at, 1, 1])
    drawn = segments(axes[1])
    drawn = drawn[np.argsort(drawn[:, 0, 1])]
    assert_allclose(drawn[:, 0, 0], modes["Days"] - half)
    assert_allclose(drawn[:, 1, 0], modes["Days"] + half)
    by_days = m.plot.caterpillar("Subject", order="Days")
    assert np.all(np.diff(sorted(cloud(by_days[1]), key=lambda p: p[1]), axis=0)[:, 0] >= 0)


def test_many_levels_are_few_artists_without_names() -> None:
    m = fit("insteval_reml")
    ax = m.plot.caterpillar("s")
    assert len(cloud(ax)) == 2_972
    assert len(ax.collections) <= 4
    assert not ax.get_yticklabels()
    assert "2,972 levels" in ax.get_ylabel()
    assert len(cloud(m.plot.qq("s"))) <= 1_000
    assert len(cloud(m.plot.shrinkage("s"))) == 2_972


def test_shrinkage_has_one_regression_per_level() -> None:
    m = sleep()
    pooled = pooling(m.fit, None)
    for row, (_, part) in zip(
        pooled.alone, frame("sleepstudy").groupby("Subject", observed=True), strict=True
    ):
        assert_allclose(row, np.polyfit(part["Days"], part["Reaction"], 1)[::-1], rtol=1e-8)
    assert_allclose(pooled.partial, m.coef["Subject"])
    ax = m.plot.shrinkage()
    assert_allclose(np.asarray(ax.collections[1].get_offsets()), pooled.alone)
    assert_allclose(np.asarray(ax.collections[2].get_offsets()), pooled.partial)


def test_shrinkage_with_weights_holds_other_terms_and_counts_levels() -> None:
    m = fit("penicillin_weights_offset_reml")
    pooled = pooling(m.fit, "plate")
    data = frame("Penicillin_w")
    rest = (
        m.fitted - m.ranef["plate"]["Intercept"].reindex(data["plate"]).to_numpy() - m.fixef.iloc[0]
    )
    left = data["diameter"] - rest
    means = (left * m.weights).groupby(data["plate"]).sum() / m.weights.groupby(data["plate"]).sum()
    assert_allclose(pooled.alone[:, 0], means[m.ranef["plate"].index])
    few = frame("sleepstudy").iloc[[*range(60), 61, 75]]
    lonely = lmm.lmer("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", few)
    assert "8 levels, 6 with" in lonely.plot.shrinkage().get_title()


def test_a_variance_of_zero_is_said() -> None:
    m = fit("dyestuff2_reml")
    assert "does not vary" in m.plot.qq("Batch").texts[0].get_text()
    assert_allclose(cloud(m.plot.caterpillar())[:, 0], 0.0)
    assert_allclose(cloud(m.plot.shrinkage())[:, 1], m.fixef.iloc[0])


# Profiles -----------------------------------------------------------------------------------------


def test_profile_kinds_agree_with_the_profile() -> None:
    m, found = sleep(), profiled("sleepstudy_slope_reml")
    points = found.to_frame()
    limits = found.confint()
    axes = {kind: m.plot.profile(found, kind=kind) for kind in ("zeta", "density", "deviance")}
    for j, name in enumerate(limits.index):
        part = points[points["parameter"] == name]
        x, zeta = curve(axes["zeta"][j]).T
        assert_allclose(np.interp(part["value"], x, zeta), part["zeta"], atol=0.01)
        assert_allclose(curve(axes["deviance"][j])[:, 1], zeta**2, atol=1e-10)
        band = (
            axes["zeta"][j]
            .patches[0]
            .get_extents()
            .transformed(axes["zeta"][j].transData.inverted())
        )
        assert_allclose([band.x0, band.x1], limits.loc[name], rtol=1e-6)
        x, density = curve(axes["density"][j]).T
        inside = (x >= limits.loc[name, "lower"]) & (x <= limits.loc[name, "upper"])
        whole = stats.norm.cdf(part["zeta"].iloc[-1]) - stats.norm.cdf(part["zeta"].iloc[0])
        assert np.trapezoid(density, x) == pytest.approx(whole, abs=1e-3)
        assert np.trapezoid(density[inside], x[inside]) == pytest.approx(0.95, abs=0.02)


def test_the_two_profiles_of_the_published_notebook_take_one_call_each() -> None:
    m = fit("sitka_slope_reml")
    for name, label in (("Intercept", "SD of Intercept | tree"), ("Time", "SD of Time | tree")):
        ax = m.plot.profile(f"sd_{name}|tree", kind="deviance")
        assert ax.get_xlabel() == label
        low, high = m.confint(which=f"sd_{name}|tree").iloc[0]
        x, rise = curve(ax).T
        assert_allclose(np.interp([low, high], x, rise), 3.8415, atol=0.02)


def test_profile_of_a_variance_at_zero() -> None:
    m = fit("dyestuff2_reml")
    axes = m.plot.profile(profiled("dyestuff2_reml"))
    assert curve(axes[0])[0] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert np.isfinite(curve(axes[0])).all()
    (pair, *_) = m.plot.profile_pairs(profiled("dyestuff2_reml"))
    assert min(curve(pair)[:, 0]) == pytest.approx(0.0, abs=1e-6)


def dyestuff_rise(sd: float, sigma: float, mean: float) -> float:
    """−2 log-likelihood of the one-way model by its definition (six batches of five), less the
    least one."""
    batches = np.array(frame("Dyestuff").sort_values("Batch", kind="stable")["Yield"]).reshape(6, 5)
    law = stats.multivariate_normal(np.full(5, mean), sigma**2 * np.eye(5) + sd**2)
    return float(-2.0 * law.logpdf(batches).sum() - fit("dyestuff_ml").deviance)


# Between the four points where a contour touches its box the method interpolates; towards a bound
# of a parameter it has less to go by.
@pytest.mark.parametrize(("level", "tolerance"), [(0.5, 0.05), (0.8, 0.09), (0.95, 0.2)])
def test_contours_against_the_deviance_itself(level: float, tolerance: float) -> None:
    """On a contour the least deviance over the third parameter has risen by χ²(level, 2)."""
    sd, sigma, mean = curves_of(profiled("dyestuff_ml"))
    wanted = stats.chi2.ppf(level, 2)
    middle = float(frame("Dyestuff")["Yield"].mean())  # the best mean, whatever the variances
    ring = contour(sd, sigma, np.sqrt(wanted))
    assert_allclose(ring[0], ring[-1], rtol=1e-6)
    inner = ring[ring[:, 0] > 1.0][::6]
    assert len(inner) > 20
    assert_allclose([dyestuff_rise(a, s, middle) for a, s in inner], wanted, rtol=tolerance)
    ring = contour(sigma, mean, np.sqrt(wanted))[::15]
    rises = [
        optimize.minimize_scalar(dyestuff_rise, bounds=(0, 250), args=(s, mu), method="bounded").fun
        for s, mu in ring
    ]
    assert_allclose(rises, wanted, rtol=0.08)


def test_pairs_share_a_triangle() -> None:
    axes = sleep().plot.profile_pairs(profiled("sleepstudy_slope_reml"), levels=(0.9,))
    assert len(axes) == 15
    assert axes[-1].get_xlabel() == "Intercept"
    two = sleep().plot.profile_pairs(["sigma", "Days"], levels=0.9)
    assert (two.get_xlabel(), two.get_ylabel()) == ("Residual SD", "Days")


# Effects and bootstrap ----------------------------------------------------------------------------


def test_effects_are_the_marginal_means() -> None:
    m = fit("cake_linear_reml")
    recipe, temp = m.plot.effects(ddf="kenward-roger", level=0.9)
    means = m.emmeans("recipe", ddf="kenward-roger", level=0.9).to_frame()
    assert_allclose(curve(recipe)[:, 1], means["emmean"])
    assert_allclose(segments(recipe)[:, :, 1], means[["lower.CL", "upper.CL"]])
    assert [text.get_text() for text in recipe.get_xticklabels()] == ["A", "B", "C"]
    x, y = curve(temp).T
    ends = m.emmeans("temp", at={"temp": [x[0], x[-1]]}).to_frame()["emmean"]
    assert_allclose(y[[0, -1]], ends)
    assert (x[0], x[-1]) == (175, 225)


def test_effects_on_the_scale_of_the_response() -> None:
    m = lmm.lmer("np.log(angle) ~ recipe + (1 | replicate)", lmm.load_dataset("cake"))
    ax = m.plot.effects(type="response")
    means = m.emmeans("recipe", type="response").to_frame()
    assert_allclose(curve(ax)[:, 1], means["response"])
    assert_allclose(segments(ax)[:, :, 1], means[["lower.CL", "upper.CL"]])
    assert ax.get_ylabel() == "Mean angle, mapped back\nwith 95 % confidence limits"


def test_effects_by_another_predictor() -> None:
    m = fit("sitka_treat_reml")
    ax = m.plot.effects("Time", by="treat")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["control", "ozone"]
    means = m.emmeans("treat", at={"Time": 258.0}).to_frame()["emmean"]
    assert_allclose([line.get_ydata()[-1] for line in ax.get_lines()], means, rtol=1e-6)
    ax = m.plot.effects("treat", by="Time", at={"Time": [160, 200]})
    assert len(ax.get_legend().get_texts()) == 2


def test_levels_are_connected_where_there_are_several_curves() -> None:
    m = fit("cake_factor_reml")

    def styles(ax: Any) -> list[str]:
        return [line.get_linestyle() for line in ax.get_lines()]

    assert styles(m.plot.effects("temperature", by="recipe")) == ["-"] * 3
    assert styles(m.plot.effects("temperature", by="recipe", lines=False)) == ["None"] * 3
    assert styles(m.plot.effects("temperature")) == ["None"]
    assert styles(m.plot.effects("temperature", lines=True)) == ["-"]


def dots(ax: Any) -> np.ndarray[Any, Any]:
    """The positions of all dots below the means."""
    return np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets()) > 1])


def test_responses_are_drawn_where_they_belong() -> None:
    data = frame("sleepstudy")
    # In any order of the rows: they are those of the fit by their labels.
    ax = sleep().plot.effects(data=data.sample(frac=1.0, random_state=2))
    assert_allclose(np.sort(dots(ax), axis=0), np.sort(data[["Days", "Reaction"]], axis=0))
    assert_allclose(dots(ax), data[["Days", "Reaction"]])
    cake = lmm.load_dataset("cake")
    m = lmm.lmer("np.log(angle) ~ recipe * temp + (1 | recipe:replicate)", cake)
    for kind, y in (("response", cake["angle"]), ("link", np.log(cake["angle"]))):
        ax = m.plot.effects("recipe", data=cake, type=kind)
        assert_allclose(np.sort(dots(ax)[:, 1]), np.sort(y))
        near = np.round(dots(ax)[:, 0])
        assert [int((near == i).sum()) for i in range(3)] == [90] * 3
    ax = m.plot.effects("temp", by="recipe", data=cake)
    colours = [line.get_color() for line in ax.get_lines()]
    clouds = [c for c in ax.collections if len(c.get_offsets()) > 1]
    assert [matplotlib.colors.to_hex(c.get_facecolor()[0]) for c in clouds] == colours


def test_other_data_are_refused() -> None:
    for data, says in (
        (frame("sleepstudy").iloc[:100], "100 rows"),
        (frame("sleepstudy").drop(columns="Days"), "no column 'Days'"),
    ):
        with pytest.raises(lmm.DataError, match=says):
            sleep().plot.effects(data=data)


def test_responses_of_models_with_an_offset_are_not_drawn() -> None:
    data = frame("sleepstudy").assign(o=np.arange(180.0))
    m = lmm.lmer("Reaction ~ Days + offset(o) + (1 | Subject)", data)
    with pytest.raises(lmm.OptionError, match="has an offset"):
        m.plot.effects(data=data)


# Generalized models -------------------------------------------------------------------------------


def counts() -> lmm.GeneralizedLinearMixedModel:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(30), 12), "x": np.tile(np.arange(12) / 4, 30)})
    data["y"] = rng.poisson(np.exp(0.5 + 0.4 * data["x"] + rng.normal(0, 0.4, 30)[data["g"]]))
    return lmm.glmer("y ~ x + (1 | g)", data, "poisson")


def herds() -> tuple[lmm.GeneralizedLinearMixedModel, pd.DataFrame]:
    cbpp = lmm.load_dataset("cbpp")
    return lmm.glmer(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, "binomial"
    ), cbpp


def test_effects_of_generalized_models_are_their_marginal_means() -> None:
    m, cbpp = herds()
    for kind, column, label in (
        ("response", "response", "Probability of incidence"),
        ("link", "emmean", "Logit of the probability of\nincidence"),
    ):
        ax = m.plot.effects(type=kind)
        means = m.emmeans("period", type=kind).to_frame()
        assert_allclose(curve(ax)[:, 1], means[column])
        assert_allclose(segments(ax)[:, :, 1], means[["lower.CL", "upper.CL"]])
        assert ax.get_ylabel() == f"{label}\nwith 95 % confidence limits"
    ax = m.plot.effects(data=cbpp)
    assert_allclose(np.sort(dots(ax)[:, 1]), np.sort(cbpp["incidence"] / cbpp["size"]))
    with pytest.raises(lmm.OptionError, match="type='response' too"):
        m.plot.effects(data=cbpp, type="link")


def test_residuals_of_generalized_models_are_quantile_residuals() -> None:
    m = counts()
    own = m.residuals("quantile", rng=3)
    assert_allclose(cloud(m.plot.residuals(rng=3)), np.column_stack([m.linear_predictor, own]))
    assert_allclose(np.sort(cloud(m.plot.qq(rng=3))[:, 1]), np.sort(own))
    assert_allclose(cloud(m.plot.scale_location(rng=3))[:, 1], np.sqrt(np.abs(own)))
    ax = m.plot.caterpillar()
    assert_allclose(np.sort(m.ranef["g"]["Intercept"]), [y for y, _ in _middles(ax)])
    assert ax.get_xlabel() == "Effect on the linear predictor (log)"
    with pytest.raises(AttributeError, match=r"m\.plot\.caterpillar"):
        m.plot.shrinkage  # noqa: B018


def _middles(ax: Any) -> list[Any]:
    return sorted(
        tuple(p)
        for c in ax.collections
        for p in np.asarray(c.get_offsets())
        if len(c.get_offsets()) > 1
    )


def test_a_check_is_one_figure() -> None:
    axes = sleep().check()
    assert len({id(ax.figure) for ax in axes}) == 1
    assert [ax.get_title() for ax in axes][-2:] == ["Intercept | Subject", "Days | Subject"]
    largest = sleep().influence().cooks_distance.nlargest(3).index
    assert {text.get_text() for text in axes[4].texts} == {str(i) for i in largest}
    observed = axes[3].get_lines()[-1]
    assert observed.get_label() == "observed"
    density = stats.gaussian_kde(frame("sleepstudy")["Reaction"])
    assert_allclose(observed.get_ydata(), density(observed.get_xdata()), rtol=1e-6)
    _, own = plt.subplots(2, 4)
    assert sleep().check(ax=own.ravel()[:7])[0] is own[0, 0]
    assert len(plt.get_fignums()) == 2
    same = [sleep().check(rng=1)[3].get_lines()[0].get_ydata() for _ in range(2)]
    assert_allclose(*same)


def test_a_check_of_counts_and_of_shares() -> None:
    m = counts()
    bars = m.check()[3].patches
    y = m.fit.design.y
    assert_allclose(
        [b.get_height() for b in bars], np.sqrt([(y == k).sum() for k in range(len(bars))])
    )
    m, cbpp = herds()
    points = m.check()[3].collections[-1].get_offsets()
    whole = np.average(points[:, 1], weights=None)
    assert 0 < whole < 1
    # Bins hold all trials: with one bin this is the share of all.
    order = np.argsort(m.fitted.to_numpy(), kind="stable")
    first = order[: -(-len(order) // len(points))]
    assert points[0, 1] == pytest.approx(
        cbpp["incidence"].iloc[first].sum() / cbpp["size"].iloc[first].sum()
    )


def test_bootstrap_densities() -> None:
    m, found = fit("dyestuff2_reml"), replicated("dyestuff2_reml")
    axes = m.plot.bootstrap(found)
    share = (found.to_frame()["sd_Intercept|Batch"] < 1e-6).mean()
    assert f"{share:.0%} of replicates on the bound" in axes[0].get_title()
    x, density = curve(axes[0]).T
    assert x.min() >= 0
    assert np.trapezoid(density, x) == pytest.approx(1 - share, abs=0.01)
    assert len(np.atleast_1d(m.plot.bootstrap(found, which="sigma"))) == 1


def test_density_does_not_leak_over_a_bound() -> None:
    values = np.random.default_rng(0).exponential(size=5_000)
    x, density, at_bound = density_of(values, (0.0, np.inf))
    assert at_bound == 0.0
    assert np.trapezoid(density, x) == pytest.approx(1.0, abs=2e-3)
    assert density[0] == pytest.approx(1.0, abs=0.2)  # 0.5 if it leaked


# Axes, errors, style ------------------------------------------------------------------------------


def test_own_axes() -> None:
    figure, ax = plt.subplots()
    assert sleep().plot.residuals(ax=ax) is ax
    _, pair = plt.subplots(2, 1)
    assert list(sleep().plot.caterpillar(ax=pair)) == list(pair)
    assert len(plt.get_fignums()) == 2
    with pytest.raises(lmm.OptionError, match="1 axes, but the plot has 2 panels"):
        sleep().plot.qq("Subject", ax=ax)
    with pytest.raises(lmm.OptionError, match="not Figure"):
        sleep().plot.residuals(ax=figure)


def test_global_settings_stay() -> None:
    before = dict(matplotlib.rcParams)
    sleep().plot.residuals()
    sleep().plot.profile_pairs(profiled("sleepstudy_slope_reml"))
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: p.caterpillar("Subjekt"), "Did you mean 'Subject'"),
        (lambda p: p.caterpillar(order="Day"), "not 'Day'"),
        (lambda p: p.qq(level=95), "between 0 and 1"),
        (lambda p: p.qq(gruop="Subject"), "Did you mean group="),
        (lambda p: p.profile(kind="splom"), "'zeta'"),
        (lambda p: p.profile(3), "not int"),
        (lambda p: p.profile("sd_Days"), "sd_Days\\|Subject"),
        (lambda p: p.profile_pairs("sigma"), "needs two"),
        (lambda p: p.profile_pairs(levels=(0.999999,)), "was followed to"),
        (lambda p: p.effects("Day"), "not a predictor"),
        (lambda p: p.effects(3), "specs must be a name or several, not 3"),
        (lambda p: p.effects("Days", by="Days"), "nothing to draw"),
        (lambda p: p.effects(lines="yes"), "True or False"),
        (lambda p: p.shrinkage(effects=["Days", "Age"]), "Intercept"),
        (lambda p: p.bootstrap(7), "m.bootstrap"),
    ],
)
def test_wrong_calls(call: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(lmm.OptionError, match=says):
        call(sleep().plot)


def test_which_group_is_asked() -> None:
    with pytest.raises(lmm.OptionError, match="no predictors"):
        fit("penicillin_reml").plot.effects()
    with pytest.raises(lmm.OptionError, match="several grouping factors"):
        fit("penicillin_reml").plot.caterpillar()


def test_names_are_taken_literally() -> None:
    data = frame("sleepstudy").rename(columns={"Reaction": "cost $_{x}$", "Days": "a_b"})
    m = lmm.lmer("`cost $_{x}$` ~ a_b + (a_b | Subject)", data)
    ax = m.plot.residuals()
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == r"Fitted cost \$_{x}\$"
    m.plot.effects().figure.canvas.draw()


def test_models_from_arrays() -> None:
    data = frame("sleepstudy")
    X = np.column_stack([np.ones(180), data["Days"]])
    m = lmm.fit_arrays(data["Reaction"].to_numpy(), X, [(data["Subject"].to_numpy(), X)])
    for plot in (m.plot.residuals, m.plot.qq, m.plot.caterpillar, m.plot.shrinkage):
        plot()
    with pytest.raises(lmm.OptionError, match="made from arrays"):
        m.plot.effects()


def test_matplotlib_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import lmmsparse, sys; print([n for n in sys.modules if n.startswith('matplotlib')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(lmm.MissingPackageError, match="pip install matplotlib"):
        sleep().plot.residuals()


# Pictures -----------------------------------------------------------------------------------------

DRAWN: dict[str, Callable[[], Any]] = {
    "residuals": lambda: sleep().plot.residuals(),
    "scale_location": lambda: sleep().plot.scale_location(),
    "qq": lambda: sleep().plot.qq(),
    "qq_group": lambda: sleep().plot.qq("Subject"),
    "caterpillar": lambda: sleep().plot.caterpillar(),
    "caterpillar_many": lambda: fit("insteval_reml").plot.caterpillar("d"),
    "profile_zeta": lambda: sleep().plot.profile(profiled("sleepstudy_slope_reml")),
    "profile_density": lambda: sleep().plot.profile(
        profiled("sleepstudy_slope_reml"), kind="density"
    ),
    "profile_deviance": lambda: sleep().plot.profile(
        profiled("sleepstudy_slope_reml"), kind="deviance"
    ),
    "profile_pairs": lambda: sleep().plot.profile_pairs(profiled("sleepstudy_slope_reml")),
    "effects": lambda: fit("cake_linear_reml").plot.effects(),
    "check": lambda: sleep().check(),
    "check_counts": lambda: counts().check(),
    "shrinkage": lambda: sleep().plot.shrinkage(),
    "shrinkage_one": lambda: fit("penicillin_reml").plot.shrinkage("plate"),
    "bootstrap": lambda: sleep().plot.bootstrap(replicated("sleepstudy_slope_reml")),
}
_WIDE, _HIGH = 96, 72


def small_grey(ax: Any) -> np.ndarray[Any, Any]:
    """A figure of 96 × 72 grey values in 0..1: fine detail, and with it fonts, averages out."""
    figure = np.atleast_1d(ax)[0].figure
    figure.set_size_inches(9.6, 7.2)
    figure.set_dpi(100)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].mean(axis=2) / 255.0
    high, wide = pixels.shape[0] // _HIGH, pixels.shape[1] // _WIDE
    return pixels.reshape(_HIGH, high, _WIDE, wide).mean(axis=(1, 3))


@pytest.mark.parametrize("name", DRAWN)
def test_picture(name: str) -> None:
    now = small_grey(DRAWN[name]())
    path = PICTURES / f"{name}.png"
    if os.environ.get("LMMSPARSE_WRITE"):
        path.parent.mkdir(exist_ok=True)
        whole = np.round(np.repeat(now[..., None], 3, axis=2) * 255).astype(np.uint8)
        matplotlib.image.imsave(path, whole)
    stored = matplotlib.image.imread(path)[..., 0]
    # Layout may shift by a pixel between versions of matplotlib: compare after a little blur.
    assert np.abs(blurred(now) - blurred(stored)).mean() < 0.012
    assert np.corrcoef(blurred(now).ravel(), blurred(stored).ravel())[0, 1] > 0.95


def blurred(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = [np.roll(picture, (i, j), axis=(0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return np.mean(shifted, axis=0)


def test_pictures_tell_plots_apart() -> None:
    """The comparison is not so lenient that one plot passes for another."""
    stored = {name: matplotlib.image.imread(PICTURES / f"{name}.png")[..., 0] for name in DRAWN}
    for a, first in stored.items():
        for b, second in stored.items():
            close = np.corrcoef(blurred(first).ravel(), blurred(second).ravel())[0, 1] > 0.95
            assert (a == b) or not close, (a, b)


def test_long_labels_break_between_the_factors_of_an_interaction() -> None:
    label = "SD of Relatedness[S.related]:Frequency[S.high] | Subject"
    assert wrapped(label, 34).split("\n") == [
        "SD of Relatedness[S.related]:",
        "Frequency[S.high]",
        "| Subject",
    ]
    assert wrapped("SD of Days | Subject", 34) == "SD of Days | Subject"
    assert wrapped("a" * 50, 34).split("\n") == ["a" * 34, "a" * 16]


def test_a_check_without_leverages_says_less_and_no_wrong() -> None:
    data = lmm.load_dataset("Penicillin")
    formula = "diameter ~ 1 + (1 | plate) + (1 | sample)"
    m = lmm.lmer(formula, data, solver=lmm.Krylov())
    axes = m.check()
    assert axes[2].get_ylabel() == "Residual / σ"
    own = np.sort(m.residuals / m.sigma)
    assert_allclose(np.sort(cloud(axes[2])[:, 1]), own, rtol=1e-6)
    assert [ax.get_title() for ax in axes][-2:] == ["Intercept | plate", "Intercept | sample"]
    assert "m1 has a Monte Carlo error" in " ".join(lmm.compare(m).notes)
    with pytest.raises(lmm.OptionError, match="exact linear algebra"):
        m.plot.scale_location()
