"""R² and intraclass correlations of generalized models against Nakagawa and others' formulas."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import polygamma

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning, OptionError

F = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


def fitted(formula: str, data: Any, family: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.glmer(formula, data, family, **options)


@cache
def ticks(fixed: str = "YEAR + scale(HEIGHT)", random: str = "(1 | BROOD) + (1 | LOCATION)") -> Any:
    data = lmm.load_dataset("grouseticks")
    data = data.assign(YEAR=data["YEAR"].astype("category"))
    return fitted(f"TICKS ~ {fixed} + {random}", data, "poisson")


# R's performance 0.10.2 (insight 0.19.0): marginal, conditional, adjusted intraclass correlation.
PERFORMANCE = {
    "logit": (0.08541606123, 0.18731453890, 0.1114151182),
    "probit": (0.07647161552, 0.17115748535, 0.1025262151),
    "cloglog": (0.1316116126, 0.2818783808, 0.1730409693),
}


@pytest.mark.parametrize("link", PERFORMANCE)
def test_binomial_models_have_those_of_performance(link: str, tmp_path: Path) -> None:
    family = lmm.families.Binomial(link)
    m = fitted(F, lmm.load_dataset("cbpp"), family, information="expected")
    m.save(tmp_path / "m.lmm")
    for each in (m, lmm.load(tmp_path / "m.lmm")):
        found = (each.r2()["marginal"], each.r2()["conditional"], each.icc()["herd"])
        assert found == pytest.approx(PERFORMANCE[link], abs=1e-6)


# The formulas for a Poisson model at lme4's estimates: log(1 + 1/λ), 1/λ and ψ₁(λ) with
# λ = exp(β₀ + σ²/2) of the model without predictors.
AT_LME4 = {
    "lognormal": (0.6165353219, 0.9451157002, 0.8568726067),
    "delta": (0.6138027657, 0.9409268375, 0.8470388775),
    "trigamma": (0.6106340330, 0.9360693396, 0.8358082991),
}


@pytest.mark.parametrize("method", AT_LME4)
def test_counts(method: str) -> None:
    m = ticks()
    r2 = m.r2(method)
    found = (r2["marginal"], r2["conditional"], m.icc(method).sum())
    assert found == pytest.approx(AT_LME4[method], abs=2e-6)
    assert list(m.icc().index) == ["BROOD", "LOCATION"]


def test_an_effect_of_every_row_is_residual_variance() -> None:
    m = ticks("YEAR", "(1 | BROOD) + (1 | INDEX)")
    assert m.r2().tolist() == pytest.approx([0.3173475551, 0.8433331892], abs=1e-6)
    assert list(m.icc().index) == ["BROOD"]
    assert m.icc()["BROOD"] == pytest.approx(0.7705028203, abs=1e-6)


def by_hand(m: Any, rest: float) -> list[float]:
    fixed = float(np.var(m.fit.design.X @ m.fixef, ddof=1))
    random = float(m.varcorr.to_frame()["vcov"].sum())
    total = fixed + random + rest
    return [fixed / total, (fixed + random) / total]


def test_gamma_and_negative_binomial_by_their_formulas() -> None:
    cake = lmm.load_dataset("cake")
    m = fitted("angle ~ temp + (1 | recipe:replicate)", cake, "gamma")
    phi = m.dispersion
    values = {"lognormal": np.log1p(phi), "delta": phi, "trigamma": polygamma(1, 1 / phi)}
    for method, rest in values.items():
        assert m.r2(method).tolist() == pytest.approx(by_hand(m, float(rest)), rel=1e-9)
    inverse = fitted("angle ~ temp + (1 | recipe:replicate)", cake, lmm.families.Gamma("inverse"))
    null = inverse.update("angle ~ 1 + (1 | recipe:replicate)", cake)
    mean = float(null.predict(random=False, marginal=True).iloc[0])
    rest = inverse.dispersion / mean**2  # φ λ² (1/λ²)²
    assert inverse.r2().tolist() == pytest.approx(by_hand(inverse, rest), rel=1e-5)

    data = lmm.load_dataset("grouseticks")
    data = data.assign(YEAR=data["YEAR"].astype("category"))
    nb = fitted("TICKS ~ YEAR + (1 | LOCATION)", data, "negative_binomial")
    null = nb.update("TICKS ~ 1 + (1 | LOCATION)", data)
    mean = np.exp(null.fixef["Intercept"] + 0.5 * null.varcorr.to_frame()["vcov"].sum())
    c2 = 1.0 / mean + 1.0 / nb.family.theta
    for method, rest in {"lognormal": np.log1p(c2), "trigamma": polygamma(1, 1 / c2)}.items():
        assert nb.r2(method).tolist() == pytest.approx(by_hand(nb, float(rest)), rel=1e-6)


def test_delta_of_a_binomial_model_is_that_of_one_trial() -> None:
    cbpp = lmm.load_dataset("cbpp")
    m = fitted(F, cbpp, "binomial")
    null = fitted(F.replace("period", "1"), cbpp, "binomial")
    p = float(null.predict(random=False, marginal=True).iloc[0])
    assert m.r2("delta").tolist() == pytest.approx(by_hand(m, 1.0 / (p * (1.0 - p))), rel=1e-6)
    # Nakagawa and others' approximation of the same mean.
    b, v = null.fixef["Intercept"], null.varcorr.to_frame()["vcov"].sum()
    near = 1 / (1 + np.exp(-(b - 0.5 * v * np.tanh(b * (1 + 2 * np.exp(-0.5 * v)) / 6))))
    assert p == pytest.approx(near, abs=2e-3)
    # Without predictors the marginal share is none, and nothing is fitted for it.
    assert null.r2()["marginal"] == pytest.approx(0.0, abs=1e-15)
    assert null.r2("delta")["conditional"] == pytest.approx(v / (v + 1 / (p * (1 - p))), rel=1e-9)


def test_an_offset_is_part_of_the_mean() -> None:
    cbpp = lmm.load_dataset("cbpp")
    m = fitted("incidence ~ period + offset(log(size)) + (1 | herd)", cbpp, "poisson")
    null = fitted("incidence ~ 1 + offset(log(size)) + (1 | herd)", cbpp, "poisson")
    eta = null.fixef["Intercept"] + np.log(cbpp["size"].to_numpy(float))
    mean = float(np.exp(eta + 0.5 * null.varcorr.to_frame()["vcov"].sum()).mean())
    assert m.r2().tolist() == pytest.approx(by_hand(m, np.log1p(1 / mean)), rel=1e-6)


def test_methods_are_those_of_the_family() -> None:
    m = fitted(F, lmm.load_dataset("cbpp"), "binomial")
    assert m.r2("Theoretical").equals(m.r2())
    with pytest.raises(OptionError, match="'theoretical' or 'delta'"):
        m.r2(method="trigamma")
    with pytest.raises(OptionError, match=r"bootstrap\(500"):
        m.icc(se=True)
    linear = lmm.lmer("Reaction ~ Days + (1 | Subject)", lmm.load_dataset("sleepstudy"))
    with pytest.raises(OptionError, match="for generalized models"):
        linear.r2(method="delta")


def test_models_side_by_side_have_them() -> None:
    m = fitted(F, lmm.load_dataset("cbpp"), "binomial")
    frame = lmm.compare(m).to_frame().set_index("statistic")
    assert frame.loc["r2_marginal", "m1"] == pytest.approx(m.r2()["marginal"])
    assert frame.loc["r2_conditional", "m1"] == pytest.approx(m.r2()["conditional"])
