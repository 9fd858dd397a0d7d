"""Power by simulation: against refits by hand, the t test's analytic power, and other designs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError
from lmmsparse.design.extended import extended
from lmmsparse.inference.power.power import limits

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(scope="module")
def sleep() -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))


def _trial(subjects: int = 24, visits: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    d = pd.DataFrame({"s": np.repeat(np.arange(subjects), visits)})
    d["arm"] = np.where(d["s"] < subjects // 2, "a", "b")  # one arm after the other
    d["visit"] = np.tile(np.arange(visits), subjects)
    d["site"] = d["s"] % 4
    d["y"] = 2 * rng.normal(size=subjects)[d["s"]] + rng.normal(size=len(d))
    return d


def test_analytic_power_of_the_t_test() -> None:
    """Between subjects the test is that of two means of subjects' means."""
    m = lmm.lmer("y ~ arm + (1 | s)", _trial())
    for n in (12, 24, 60):
        found = m.power(
            "arm", along="s", n=n, effect=1.5, theta=[2.0], sigma=1.0, rng=3, n_sim=3000
        ).to_frame().iloc[0]  # fmt: skip
        noncentral = 1.5 / np.sqrt((4.0 + 1.0 / 5.0) * 4.0 / n)
        cut = stats.t.ppf(0.975, n - 2)
        right = stats.nct.sf(cut, n - 2, noncentral) + stats.nct.cdf(-cut, n - 2, noncentral)
        assert abs(found["power"] - right) < 3.5 * np.sqrt(right * (1 - right) / 3000)
        assert found["nobs"] == 5 * n


def test_level_under_the_hypothesis() -> None:
    m = lmm.lmer("y ~ arm + (1 | s)", _trial())
    found = m.power("arm", along="s", n=10, effect=0.0, theta=[2.0], sigma=1.0, rng=1, n_sim=4000)
    assert found["power"].iloc[0] == pytest.approx(0.05, abs=0.012)
    z = m.power(
        "arm", along="s", n=10, effect=0.0, theta=[2.0], sigma=1.0, rng=1, n_sim=4000, test="z"
    )
    assert z["power"].iloc[0] > 0.07  # too often, as the normal approximation is
    assert "normal approximation" in str(z)


@pytest.mark.long
@pytest.mark.parametrize("test", ["satterthwaite", "kenward-roger", "z", "lrt"])
def test_refits_by_hand(sleep: lmm.LinearMixedModel, test: str) -> None:
    """The p-values are those of the tables of the models fitted to the same responses."""
    found = sleep.power("Days", effect=3.0, rng=5, n_sim=12, test=test, alpha=0.3)
    Y = sleep.simulate(12, rng=_own(5), beta={"Days": 3.0})
    p = []
    less = lmm.lmer("Reaction ~ 1 + (Days | Subject)", lmm.load_dataset("sleepstudy"))
    for name in Y:
        one = sleep.refit(Y[name])
        if test == "lrt":
            p.append(lmm.anova(less.refit(Y[name]), one)["Pr(>Chisq)"].iloc[1])
        else:
            ddf = "asymptotic" if test == "z" else test
            p.append(one.coef_table(ddf)["Pr(>|t|)"]["Days"])
    assert round(found["power"].iloc[0] * 12) == sum(np.array(p) < 0.3)


def _own(seed: int) -> np.random.Generator:
    """What the responses of a single design are drawn with."""
    entropy = np.random.default_rng(seed).integers(0, 2**32, size=8, dtype=np.uint64)
    own = np.random.SeedSequence(entropy.tolist()).spawn(1)[0]
    own.spawn(1)
    return np.random.default_rng(own.spawn(1)[0])


@pytest.mark.parametrize("test", ["satterthwaite", "z"])
def test_terms_of_several_coefficients(test: str) -> None:
    cake = lmm.load_dataset("cake")
    m = lmm.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", cake)
    found = m.power("recipe:temp", effect=[0.1, -0.1], rng=2, n_sim=40, test=test)
    names = [name for name in m.fixef.index if "recipe" in name and ":temp" in name]
    L = np.eye(len(m.fixef))[[m.fixef.index.get_loc(name) for name in names]]
    Y = m.simulate(40, rng=_own(2), beta={names[0]: 0.1, names[1]: -0.1})
    ddf = "asymptotic" if test == "z" else test
    p = [m.refit(Y[name]).contrast(L, ddf=ddf)["Pr(>F)"].iloc[0] for name in Y]
    assert round(found["power"].iloc[0] * 40) == sum(np.array(p) < 0.05)
    assert "F test" in str(found) or test == "z"


def test_crossed_and_nested_factors() -> None:
    """New subjects meet the same items, and bring trials of their own."""
    rng = np.random.default_rng(1)
    d = pd.DataFrame([(s, i, t) for s in range(6) for i in range(4) for t in range(2)],
                     columns=["s", "i", "t"])  # fmt: skip
    d["x"] = d["t"] - 0.5
    d["y"] = rng.normal(size=len(d))
    effects = [rng.normal(size=6), rng.normal(size=4), rng.normal(size=24)]
    for values, codes in zip(effects, (d["s"], d["i"], 4 * d["s"] + d["i"]), strict=True):
        d["y"] += 2 * values[codes]
    m = lmm.lmer("y ~ x + (1 | s) + (1 | i) + (1 | s:i)", d)
    design, rows = extended(m.fit.design, "s", 15, np.random.default_rng(0))
    levels = {block.group: block.n_levels for block in design.blocks}
    assert levels == {"s": 15, "i": 4, "s:i": 60}
    assert len(rows) == 15 * 8
    found = m.power("x", along="s", n=[4, 15], effect=0.8, rng=1, n_sim=12)
    assert found["power"].iloc[0] < found["power"].iloc[1]
    assert found["nobs"].tolist() == [32, 120]


def test_extended_designs_are_those_of_longer_tables() -> None:
    data = _trial().assign(w=lambda d: 1.0 + d["visit"] % 3)
    m = lmm.lmer("y ~ arm * visit + (visit | s) + (1 | site)", data, weights="w")
    for n in (9, 24, 50):
        design, rows = extended(m.fit.design, "s", n, np.random.default_rng(3))
        codes = {block.group: block.codes for block in design.blocks}
        table = data.iloc[rows].assign(s=codes["s"], y=np.sin(np.arange(len(rows)) ** 1.5))
        again = lmm.build_design(lmm.parse_formula(m.formula), table, weights="w")
        np.testing.assert_array_equal(design.X, again.X)
        np.testing.assert_array_equal(design.Z.toarray(), again.Z.toarray())
        np.testing.assert_array_equal(design.weights, again.weights)
        # Both arms keep their share, though the first half of the data is one of them.
        share = (table.groupby("s")["arm"].first() == "a").mean()
        assert share == pytest.approx(0.5, abs=0.5 / n + 1e-9)


def test_nested_within_what_is_extended() -> None:
    m = lmm.lmer("strength ~ 1 + (1 | batch/cask)", lmm.load_dataset("Pastes"))
    design, _ = extended(m.fit.design, "batch", 25, np.random.default_rng(0))
    assert {b.group: b.n_levels for b in design.blocks} == {"batch:cask": 75, "batch": 25}
    design, _ = extended(m.fit.design, "batch:cask", 60, np.random.default_rng(0))
    assert {b.group: b.n_levels for b in design.blocks} == {"batch:cask": 60, "batch": 10}


def test_a_curve(sleep: lmm.LinearMixedModel) -> None:
    found = sleep.power("Days", along="Subject", n=[20, 10, 40], effect=4.0, rng=1, n_sim=200)
    frame = found.to_frame()
    assert list(frame.columns) == [
        "Subject", "nobs", "power", "lower", "upper", "simulations", "unconverged", "singular",
        "failed",
    ]  # fmt: skip
    assert frame["Subject"].tolist() == [20, 10, 40]
    assert frame["power"].is_monotonic_increasing is False
    assert frame.sort_values("Subject")["power"].is_monotonic_increasing
    assert ((frame["lower"] <= frame["power"]) & (frame["power"] <= frame["upper"])).all()
    axes = found.plot()
    assert axes.get_xlabel() == "Levels of Subject"
    assert found.plot(axes) is axes
    assert "Effect: Days = 4" in str(found)
    again = sleep.power("Days", along="Subject", n=[20, 10, 40], effect=4.0, rng=1, n_sim=200,
                        n_jobs=2)  # fmt: skip
    pd.testing.assert_frame_equal(again.to_frame(), frame)


def test_generalized_models() -> None:
    cbpp = lmm.load_dataset("cbpp")
    m = lmm.glmer("incidence / size ~ period + (1 | herd)", cbpp, "binomial", weights="size")
    found = m.power("period[T.2]", along="herd", n=[5, 30], effect=-1.0, rng=1, n_sim=12)
    assert found["power"].iloc[1] > found["power"].iloc[0]
    assert "normal approximation" in str(found)
    ratio = m.power("period", effect=[-1.0, -1.0, -1.5], rng=1, n_sim=5, test="lrt")
    assert ratio["power"].iloc[0] > 0.5
    by_hand = m.power("period[T.2]", effect=-0.5, rng=5, n_sim=5, alpha=0.3)
    Y = m.simulate(5, rng=_own(5), beta={"period[T.2]": -0.5})
    p = [m.refit(Y[name]).coef_table()["Pr(>|z|)"]["period[T.2]"] for name in Y]
    assert round(by_hand["power"].iloc[0] * 5) == sum(np.array(p) < 0.3)
    with pytest.raises(OptionError, match="'satterthwaite' is for linear mixed models"):
        m.power("period", rng=1, test="satterthwaite")


def test_dropped_rows_and_offsets() -> None:
    data = _trial()
    data.loc[[3, 7], "y"] = np.nan
    data["o"] = data["visit"] * 0.1
    m = lmm.lmer("y ~ arm + offset(o) + (1 | s)", data, na_action="exclude")
    found = m.power("arm", effect=1.0, rng=1, n_sim=50)
    assert found["nobs"].tolist() == [118]
    assert found["failed"].tolist() == [0]
    wider = m.power("arm", along="s", n=48, effect=1.0, rng=1, n_sim=50)
    assert wider["nobs"].tolist() == [236]


@pytest.mark.parametrize("test", ["satterthwaite", "lrt"])
def test_correlated_residuals(test: str) -> None:
    data = _trial().assign(x=lambda d: d["visit"] / 4.0)
    m = lmm.lmer("y ~ x + arm", data, residual="ar1(visit | s)", residual_sd="~ x")
    found = m.power("x", effect=0.4, rng=5, n_sim=6, alpha=0.3, test=test)
    Y = m.simulate(6, rng=_own(5), beta={"x": 0.4})
    less = lmm.lmer("y ~ arm", data, residual="ar1(visit | s)", residual_sd="~ x")
    p = []
    for name in Y:
        if test == "lrt":
            p.append(lmm.anova(less.refit(Y[name]), m.refit(Y[name]))["Pr(>Chisq)"].iloc[1])
        else:
            p.append(m.refit(Y[name]).coef_table()["Pr(>|t|)"]["x"])
    assert round(found["power"].iloc[0] * 6) == sum(np.array(p) < 0.3)


def test_more_subjects_with_correlated_residuals() -> None:
    data = _trial().assign(x=lambda d: d["visit"] / 4.0)
    trial = lmm.lmer("y ~ x + arm", data, residual="us(visit | s)")
    found = trial.power("arm", n=[12, 30], effect=2.0, rng=1, n_sim=3)
    assert found["nobs"].tolist() == [60, 150]
    assert found["failed"].tolist() == [0, 0]
    independent = lmm.lmer("y ~ x + arm", data, residual_sd="~ x")
    with pytest.raises(OptionError, match="no grouping factor"):
        independent.power("x", n=30, rng=1)
    own = lmm.lmer("y ~ x + arm + (1 | s)", data, residual="ar1(visit | s)")
    found = own.power("x", along="s", n=[8, 40], effect=0.7, rng=1, n_sim=10)
    assert found["nobs"].tolist() == [40, 200]
    assert found["power"].iloc[1] > found["power"].iloc[0]
    design, rows = extended(own.fit.design, "s", 30, np.random.default_rng(0))
    s = {block.group: block.codes for block in design.blocks}["s"]
    assert design.residual is not None
    np.testing.assert_array_equal(design.residual.grouping.codes, s)
    np.testing.assert_array_equal(design.residual.times, data["visit"].to_numpy()[rows])


def test_known_covariances() -> None:
    data = _trial()
    A = pd.DataFrame(np.eye(24) + 0.3, index=range(24), columns=range(24))
    m = lmm.lmer("y ~ arm + (1 | s)", data, known={"s": A})
    assert m.power("arm", effect=2.0, rng=1, n_sim=10)["failed"].item() == 0
    with pytest.raises(OptionError, match="have a known covariance"):
        m.power("arm", along="s", n=30, effect=2.0, rng=1)


def test_limits_are_exact() -> None:
    for x, n in ((0, 10), (3, 10), (10, 10), (711, 1000)):
        right = stats.binomtest(x, n).proportion_ci(0.9, method="exact")
        np.testing.assert_allclose(limits(x, n, 0.9), right, rtol=1e-9, atol=1e-12)


def test_the_estimate_as_effect_is_said(sleep: lmm.LinearMixedModel) -> None:
    assert "The effect is the estimate" in str(sleep.power("Days", rng=1, n_sim=10))


def test_refusals(sleep: lmm.LinearMixedModel) -> None:
    penicillin = lmm.load_dataset("Penicillin")
    crossed = lmm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", penicillin)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (sleep, {"term": "Day"}, "term must be a fixed effect"),
        (sleep, {"term": "Days", "along": "Item", "n": 5}, "along must be a grouping factor"),
        (sleep, {"term": "Days", "along": "Subject"}, "needs numbers of levels"),
        (sleep, {"term": "Days", "n": [1]}, "2 or more"),
        (sleep, {"term": "Days", "effect": [1, 2]}, "effect must hold 1 value"),
        (sleep, {"term": "Days", "effect": {"Intercept": 1.0}}, "does not name a coefficient"),
        (sleep, {"term": "Days", "test": "wilcoxon"}, "test must be"),
        (sleep, {"term": "Days", "alpha": 5}, "alpha must be"),
        (sleep, {"term": "Days", "n_sim": 0}, "n_sim must be"),
        (crossed, {"term": "Intercept", "n": 5}, "pass along="),
    ]
    for model, options, message in cases:
        with pytest.raises(OptionError, match=message):
            model.power(rng=1, **options)
    ml = lmm.lmer(sleep.formula, lmm.load_dataset("sleepstudy"), reml=False)
    with pytest.raises(OptionError, match="defined for REML fits"):
        ml.power("Days", rng=1, test="KR")
    few = lmm.lmer("y ~ factor(site) + (1 | s)", _trial())
    with pytest.raises(OptionError, match="cannot be told apart"):
        few.power("factor(site)", along="s", n=2, rng=1)
    with pytest.raises(OptionError, match="There is one design"):
        sleep.power("Days", rng=1, n_sim=5).plot()
