"""Bootstrap: reproducible, of any statistic, and with the spread the theory asks for."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError
from lmmsparse.inference.intervals.resample import Resampler


@cache
def slope() -> Any:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))


def fixed_effects(model: Any) -> pd.Series:
    return model.fixef


def often_fails(model: Any) -> float:
    if model.sigma < 25.6:
        raise ArithmeticError("too small")
    return float(model.sigma)


@pytest.mark.parametrize("kind", ["parametric", "semiparametric"])
def test_replicates_depend_on_the_generator_only(kind: str) -> None:
    one = slope().bootstrap(6, rng=1, kind=kind)
    np.testing.assert_array_equal(
        one.to_frame(), slope().bootstrap(6, rng=1, kind=kind, n_jobs=2).to_frame()
    )
    np.testing.assert_array_equal(
        one.to_frame(), slope().bootstrap(6, rng=np.random.default_rng(1), kind=kind).to_frame()
    )
    assert not np.allclose(one.to_frame(), slope().bootstrap(6, rng=2, kind=kind).to_frame())


def test_the_default_statistic_is_every_parameter() -> None:
    found = slope().bootstrap(4, rng=1)
    assert found.original.index.tolist() == slope().confint("wald").index.tolist()
    assert found.to_frame().columns.tolist() == found.original.index.tolist()
    assert found.to_frame().shape == (4, 6)
    assert found.original["sigma"] == slope().sigma
    table = slope().varcorr.to_frame()
    np.testing.assert_allclose(
        found.original[["sd_Intercept|Subject", "sd_Days|Subject", "cor_Days.Intercept|Subject"]],
        table["sdcor"].to_numpy()[:3],
    )


@pytest.mark.long
def test_a_statistic_sees_refits_of_the_same_responses() -> None:
    default = slope().bootstrap(5, rng=3).to_frame()
    own = slope().bootstrap(5, rng=3, statistic=fixed_effects, n_jobs=2).to_frame()
    np.testing.assert_allclose(own, default[["Intercept", "Days"]], rtol=1e-6)


@pytest.mark.parametrize(
    ("statistic", "names"),
    [
        (lambda m: m.sigma, ["t1"]),
        (lambda m: m.fixef.to_numpy(), ["t1", "t2"]),
        (lambda m: {"a": m.sigma, "b": 1.0}, ["a", "b"]),
    ],
)
def test_a_statistic_may_be_a_number_an_array_or_a_mapping(
    statistic: Any, names: list[str]
) -> None:
    found = slope().bootstrap(3, rng=1, statistic=statistic)
    assert found.to_frame().columns.tolist() == names
    assert found.n_failed == 0


def test_failures_are_counted_and_kept_with_a_reason() -> None:
    with pytest.raises(ArithmeticError):  # of the fit itself: the statistic is wrong
        slope().bootstrap(3, rng=1, statistic=often_fails)
    found = slope().bootstrap(12, rng=1, statistic=lambda m: 1.0 / max(m.sigma - 25.0, 0.0))
    frame = found.to_frame()
    assert len(frame) == 12
    assert 0 < found.n_failed < 12
    assert found.failures.index.tolist() == frame.index[frame["t1"].isna()].tolist()
    assert found.failures.str.startswith("ZeroDivisionError").all()
    assert found.confint().notna().all().all()


def test_intervals_are_what_their_names_say() -> None:
    found = slope().bootstrap(400, rng=5)
    values = found.to_frame()["Days"]
    percentile = found.confint(0.9).loc["Days"]
    share = ((values > percentile["lower"]) & (values < percentile["upper"])).mean()
    assert share == pytest.approx(0.9, abs=0.01)
    basic = found.confint(0.9, kind="basic").loc["Days"]
    assert basic["lower"] == pytest.approx(2 * slope().fixef["Days"] - percentile["upper"])
    normal = found.confint(0.9, kind="normal").loc["Days"]
    assert normal["upper"] - normal["lower"] == pytest.approx(2 * 1.6448536 * values.std())
    assert normal.mean() == pytest.approx(2 * slope().fixef["Days"] - values.mean())


@pytest.mark.parametrize("kind", ["parametric", "semiparametric"])
def test_replicates_spread_as_the_standard_errors_say(kind: str) -> None:
    frame = slope().bootstrap(1500, rng=11, kind=kind).to_frame()
    # A standard deviation from 1500 draws has a relative standard error of 1.8 %.
    assert frame["Days"].std() == pytest.approx(slope().se["Days"], rel=0.08)
    assert frame["Intercept"].std() == pytest.approx(slope().se["Intercept"], rel=0.08)


def test_resampled_residuals_have_the_estimated_variance_and_respect_weights() -> None:
    d = lmm.load_dataset("sleepstudy")
    d["w"] = np.where(np.arange(len(d)) % 2, 4.0, 0.25)
    m = lmm.lmer("Reaction ~ Days + (1 | Subject)", d, weights="w")
    resampler = Resampler(m.fit, "semiparametric")
    rng = np.random.default_rng(2)
    drawn = np.array([resampler.draw(rng) for _ in range(4000)])
    sd = m.varcorr.to_frame()["sdcor"].to_numpy()
    expected = sd[0] ** 2 + sd[1] ** 2 / d["w"].to_numpy()
    for half in (slice(0, None, 2), slice(1, None, 2)):
        # Means over 90 rows of variances from 4000 draws; rows of a subject go together.
        assert drawn.var(axis=0)[half].mean() == pytest.approx(expected[half].mean(), rel=0.03)
    fixed = m.fit.design.X @ m.fixef.to_numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), fixed, atol=5 * np.sqrt(expected.max() / 4000))


def test_missing_rows_do_not_disturb() -> None:
    d = lmm.load_dataset("sleepstudy")
    d.loc[[3, 50], "Reaction"] = np.nan
    for action in ("omit", "exclude"):
        m = lmm.lmer("Reaction ~ Days + (1 | Subject)", d, na_action=action)
        for kind in ("parametric", "semiparametric"):
            assert m.bootstrap(3, rng=1, kind=kind).n_failed == 0


def test_confint_knows_the_bootstrap() -> None:
    table = slope().confint("boot", n=200, rng=7)
    assert table.index.tolist() == slope().confint("wald").index.tolist()
    pd.testing.assert_frame_equal(table, slope().bootstrap(200, rng=7).confint())
    again = slope().confint("boot", n=20, which="beta_", kind="basic")
    pd.testing.assert_frame_equal(again, slope().confint("boot", n=20, which="beta_", kind="basic"))
    assert again.index.tolist() == ["Intercept", "Days"]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: m.bootstrap(0, rng=1), "not 0"),
        (lambda m: m.bootstrap(2.5, rng=1), "not 2.5"),
        (lambda m: m.bootstrap(2, rng=1, n_jobs=0), "n_jobs must"),
        (lambda m: m.bootstrap(2, rng=1, kind="wild"), "'wild'"),
        (lambda m: m.bootstrap(2, rng="x"), "rng must"),
        (lambda m: m.bootstrap(2, rng=1).confint(kind="bca"), "'bca'"),
        (lambda m: m.confint("bagging"), "'boot'"),
    ],
)
def test_impossible_options_are_refused(call: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text.replace("(", r"\(")):
        call(slope())


def test_progress_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    slope().bootstrap(3, rng=1, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_bootstrapped_likelihood_ratios() -> None:
    d = lmm.load_dataset("Dyestuff")
    d["x"] = np.tile([0.0, 1.0, 2.0, 3.0, 4.0], 6)
    small, large = lmm.lmer("Yield ~ (1 | Batch)", d), lmm.lmer("Yield ~ x + (1 | Batch)", d)
    table = lmm.bootstrap_lrt(small, large, 300, rng=1).to_frame()
    assert table.index.tolist() == ["LRT", "bootstrap"]
    usual = lmm.anova(small, large).to_frame().iloc[1]
    assert table.loc["LRT", "Chisq"] == pytest.approx(usual["Chisq"], abs=1e-6)
    # One fixed effect in a balanced design: close to the chi-square approximation.
    p = usual["Pr(>Chisq)"]
    assert table.loc["bootstrap", "Pr(>Chisq)"] == pytest.approx(p, abs=0.09)
    again = lmm.bootstrap_lrt(small, large, 300, rng=1, n_jobs=2).to_frame()
    pd.testing.assert_frame_equal(table, again)
    with pytest.raises(OptionError, match="smaller model first"):
        lmm.bootstrap_lrt(large, small, 10, rng=1)


def test_a_bootstrapped_variance_test_is_not_conservative() -> None:
    small = lmm.lmer("Reaction ~ Days + (1 | Subject)", lmm.load_dataset("sleepstudy"))
    large = lmm.lmer("Reaction ~ Days + (Days || Subject)", lmm.load_dataset("sleepstudy"))
    table = lmm.bootstrap_lrt(small, large, 99, rng=1).to_frame()
    assert table.loc["bootstrap", "Pr(>Chisq)"] == pytest.approx(0.01)
