"""Fits with residual structures: against nlme, searches, refits, files, and what is held."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest
from residual_models import definition, teeth, whitener

import lmmsparse as lmm
from lmmsparse.optimize import QuasiNewton

NLME = json.loads((models.VALIDATION / "residual.json").read_text(encoding="utf-8"))


def _orthodont(holes: bool = True) -> pd.DataFrame:
    data = pd.read_csv(models.VALIDATION / "data" / "Orthodont.csv.gz")
    data["visit"] = (data["age"] - 6) // 2
    lost = np.array([3, 8, 10, 25, 41, 42, 77, 100]) - 1
    return data.drop(index=lost).reset_index(drop=True) if holes else data


def _exported(name: str) -> pd.DataFrame:
    data = pd.read_csv(models.VALIDATION / "data" / f"{name}.csv.gz")
    if name == "BodyWeight":
        data["weight0"] = data.groupby("Rat")["weight"].transform("first")
    return data


CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "mares": (
        "Ovary",
        "follicles ~ sin(2 * np.pi * Time) + cos(2 * np.pi * Time) + (1 | Mare)",
        {"residual": "ar1(occasion | Mare)"},
    ),
    "rats": (
        "BodyWeight",
        "weight ~ Time * C(Diet) + (Time | Rat)",
        {"residual": "car1(Time | Rat)"},
    ),
    "rats_power": (
        "BodyWeight",
        "weight ~ Time * C(Diet) + (Time | Rat)",
        {"residual_sd": "~ log(weight0)"},
    ),
    "ar1": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", {"residual": "ar1(Days | Subject)"}),
    "exponential": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", {"residual_sd": "~ Days"}),
    "car1": ("Sitka", "size ~ Time + treat + (1 | tree)", {"residual": "car1(Time | tree)"}),
    "car1_alone": ("dietox", "Weight ~ Time", {"residual": "car1(Time | Pig)"}),
    "power": ("Sitka", "size ~ Time + treat + (1 | tree)", {"residual_sd": "~ log(Time)"}),
    "symmetry": ("Sitka", "size ~ Time + treat", {"residual": "cs(1 | tree)"}),
    "unstructured": ("", "distance ~ Sex * C(age)", {"residual": "us(age | Subject)"}),
    "heterogeneous": (
        "",
        "distance ~ age * Sex",
        {"residual": "ar1(visit | Subject)", "residual_sd": "~ C(age)"},
    ),
    "ar1_strata": (
        "",
        "distance ~ age * Sex + (1 | Subject)",
        {"residual": "ar1(visit | Subject)", "residual_sd": "~ Sex"},
    ),
}


def _fit(name: str, reml: bool = True) -> Any:
    data, formula, options = CASES[name]
    if data in ("Ovary", "BodyWeight"):
        frame = _exported(data)
    else:
        frame = lmm.load_dataset(data) if data else _orthodont()
    return lmm.lmer(formula, frame, reml=reml, **options)  # type: ignore[arg-type]


def _natural(m: Any, want: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Correlations and standard deviations as nlme has them, and ours."""
    own = m.residual.parameters
    theirs: list[float] = list(np.atleast_1d(want.get("correlation", [])))
    ours = [v for name, v in own.items() if name in ("Phi", "Rho") or name.startswith("cor.")]
    variance = want.get("variance", {})
    if set(variance) <= {"power", "expon"}:
        theirs += list(variance.values())
        ours += [v for name, v in own.items() if name.startswith("logsd.")]
    return theirs, ours


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_against_nlme(name: str, reml: bool) -> None:
    m, want = _fit(name, reml), NLME[name]["REML" if reml else "ML"]
    assert m.convergence.converged
    assert m.fit.criterion == pytest.approx(want["criterion"], abs=2e-6)
    if name in ("unstructured", "heterogeneous", "ar1_strata"):
        return  # levels in another order: the same model in other coefficients
    np.testing.assert_allclose(m.fixef, list(want["beta"].values()), rtol=1e-5)
    if reml:  # nlme's errors of an ML fit have n − p in them
        np.testing.assert_allclose(m.se, want["se"], rtol=1e-4)
    assert m.sigma == pytest.approx(want["sigma"], rel=1e-4)
    theirs, ours = _natural(m, want)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    if "random" in want:
        assert m.varcorr.terms[0].sd[0] == pytest.approx(want["random"], rel=1e-3)


@pytest.mark.parametrize("name", ["unstructured", "heterogeneous"])
def test_standard_deviations_of_nlme(name: str) -> None:
    m, want = _fit(name), NLME[name]["REML"]
    ratios = [want["variance"][age] for age in ("8", "10", "12", "14")]
    np.testing.assert_allclose(m.residual.sd / m.residual.sd.iloc[0], ratios, rtol=1e-3)
    theirs, ours = _natural(m, want)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("name", ["ar1", "power", "exponential"])
def test_normalized_residuals_of_nlme(name: str) -> None:
    want = NLME[name]["REML"]["normalized"]
    np.testing.assert_allclose(
        _fit(name).residuals_of("normalized")[: len(want)], want, rtol=2e-3, atol=2e-3
    )


def test_normalized_residuals_by_the_definition() -> None:
    m = lmm.lmer("y ~ visit * sex", teeth(), residual="us(visit | child)")
    R = m.sigma**2 * m.fit.structure.block(m.fit.phi, np.arange(m.nobs))
    want = whitener(R) @ m.residuals
    np.testing.assert_allclose(m.residuals_of("normalized"), want, rtol=1e-9)
    np.testing.assert_allclose(
        m.residuals_of("pearson", scaled=True), m.residuals / np.sqrt(np.diag(R)), rtol=1e-12
    )


MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "ar1": ("y ~ visit * sex + (1 | child)", {"residual": "ar1(visit | child)"}),
    "car1": ("y ~ age * sex + (1 | child)", {"residual": "car1(age | child)"}),
    "cs": ("y ~ visit * sex", {"residual": "cs(visit | child)", "residual_sd": "~ sex"}),
    "us": ("y ~ visit * sex", {"residual": "us(visit | child)"}),
    "sd": ("y ~ visit * sex + (visit | child)", {"residual_sd": "~ sex"}),
    "mixed": (
        "y ~ visit * sex + (1 | child)",
        {"residual": "ar1(visit | child)", "residual_sd": "~ log(age)"},
    ),
}


def _model(name: str, **more: Any) -> Any:
    formula, options = MODELS[name]
    return lmm.lmer(formula, teeth(), **options, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_lower_nearby(name: str, reml: bool) -> None:
    m = _model(name, reml=reml)
    _, criterion, x = definition(m)
    n = m.nobs - (len(m.fixef) if reml else 0)
    best = criterion(x)
    assert m.fit.criterion == pytest.approx(best + n * np.log(2 * np.pi), abs=1e-7)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2, 0.1, 0.5):
        for _ in range(10):
            step = size * rng.normal(size=len(x)) * np.maximum(np.abs(x), 0.3)
            assert criterion(np.append((x + step)[:-1], abs((x + step)[-1]))) > best - 1e-7


@pytest.mark.long
@pytest.mark.parametrize("optimizer", [lmm.Bobyqa(), lmm.NelderMead(), QuasiNewton()], ids=repr)
@pytest.mark.parametrize("name", ["ar1", "sd"])
def test_other_searches_agree(name: str, optimizer: Any) -> None:
    want = _model(name).fit.criterion
    m = _model(name, optimizer=optimizer)
    assert m.fit.criterion == pytest.approx(want, abs=1e-4)


@pytest.mark.filterwarnings("ignore::lmmsparse.SingularFitWarning")
@pytest.mark.parametrize("name", MODELS)
def test_files_and_pickles(name: str, tmp_path: Path) -> None:
    m = _model(name)
    m.save(tmp_path / "model.lmm")
    for other in (lmm.load(tmp_path / "model.lmm"), pickle.loads(pickle.dumps(m))):
        assert other.fit.criterion == m.fit.criterion
        pd.testing.assert_series_equal(other.fixef, m.fixef)
        pd.testing.assert_series_equal(other.residual.parameters, m.residual.parameters)
        pd.testing.assert_frame_equal(
            other.coef_table("kenward-roger").to_frame(), m.coef_table("kenward-roger").to_frame()
        )
        new = teeth().iloc[:5].assign(child="unknown")
        np.testing.assert_array_equal(
            other.predict(new, new_levels="population"), m.predict(new, new_levels="population")
        )
        y = m.simulate(1, rng=3).iloc[:, 0]
        assert other.refit(y).fit.criterion == pytest.approx(m.refit(y).fit.criterion, abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", MODELS)
def test_refits_are_fits(name: str) -> None:
    m, data = _model(name), teeth()
    y = m.simulate(1, rng=8).iloc[:, 0]
    formula, options = MODELS[name]
    want = lmm.lmer(formula, data.assign(y=y), **options)  # type: ignore[arg-type]
    assert m.refit(y).fit.criterion == pytest.approx(want.fit.criterion, abs=1e-5)
    holes = y.copy()
    holes.iloc[[0, 7, 50]] = np.nan
    want = lmm.lmer(formula, data.assign(y=holes), **options)  # type: ignore[arg-type]
    assert m.refit(holes).fit.criterion == pytest.approx(want.fit.criterion, abs=1e-5)
    table = m.refit_many(pd.DataFrame({"a": y, "b": data["y"]}))
    assert table["criterion"].iloc[1] == pytest.approx(m.fit.criterion, abs=1e-5)
    assert table["converged"].all()
    for parameter, value in m.residual.parameters.items():
        assert table[parameter].iloc[1] == pytest.approx(value, abs=1e-3)


def test_weights_combine() -> None:
    data = teeth().assign(w=np.random.default_rng(0).uniform(0.5, 3.0, len(teeth())))
    options = {"residual": "ar1(visit | child)", "residual_sd": "~ sex"}
    m = lmm.lmer("y ~ visit + (1 | child)", data, weights="w", **options)  # type: ignore[arg-type]
    _, criterion, x = definition(m)
    n = m.nobs - 2
    assert m.fit.criterion == pytest.approx(criterion(x) + n * np.log(2 * np.pi), abs=1e-8)
    again = lmm.lmer("y ~ visit + (1 | child)", data, **options).refit(data["y"], data["w"])  # type: ignore[arg-type]
    assert again.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-6)


def test_an_offset_is_subtracted() -> None:
    data = teeth().assign(o=lambda d: 0.3 * d["age"])
    m = lmm.lmer("y ~ visit", data, residual="ar1(visit | child)", offset="o")
    want = lmm.lmer(
        "z ~ visit", data.assign(z=data["y"] - data["o"]), residual="ar1(visit | child)"
    )
    assert m.fit.criterion == pytest.approx(want.fit.criterion, abs=1e-8)
    np.testing.assert_allclose(m.fitted, want.fitted + data["o"], rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("ar1", {"Phi": 0.25}),
        ("car1", {"Phi": 0.8, "sigma": 1.1}),
        ("cs", {"Rho": -0.1}),
        ("mixed", {"logsd.log(age)": 0.5, "child.Intercept": 0.7}),
        ("us", {"sigma": 0.9}),
    ],
)
def test_what_is_held(name: str, held: dict[str, float], tmp_path: Path) -> None:
    m = _model(name, fixed=held)
    free = _model(name)
    assert m.npar == free.npar - len(held)
    values = {**m.residual.parameters, "sigma": m.sigma, **m.theta}
    for parameter, value in held.items():
        assert values[parameter] == pytest.approx(value, rel=1e-12)
    assert m.fit.criterion >= free.fit.criterion - 1e-9
    assert "Not estimated but fixed" in str(m.summary())
    errors = m.vcov_varcorr()
    for parameter in held.keys() & set(errors.index):
        assert errors.loc[parameter, parameter] == 0.0
    m.save(tmp_path / "held.lmm")
    assert lmm.load(tmp_path / "held.lmm").npar == m.npar
    y = m.simulate(1, rng=0).iloc[:, 0]
    again = {**m.refit(y).residual.parameters, "sigma": m.refit(y).sigma, **m.refit(y).theta}
    for parameter, value in held.items():
        assert again[parameter] == pytest.approx(value, rel=1e-12)


def test_a_correlation_of_zero_is_the_model_without() -> None:
    plain = lmm.lmer("y ~ visit + (1 | child)", teeth())
    m = lmm.lmer(
        "y ~ visit + (1 | child)", teeth(), residual="ar1(visit | child)", fixed={"Phi": 0.0}
    )
    assert m.fit.criterion == pytest.approx(plain.fit.criterion, abs=1e-7)
    np.testing.assert_allclose(m.vcov, plain.vcov, rtol=1e-4)
    np.testing.assert_allclose(
        m.coef_table("kenward-roger").to_frame()["df"],
        plain.coef_table("kenward-roger").to_frame()["df"],
        rtol=1e-3,
    )


def test_a_shared_correlation_is_a_random_intercept() -> None:
    plain = lmm.lmer("y ~ visit + (1 | child)", teeth())
    m = lmm.lmer("y ~ visit", teeth(), residual="cs(1 | child)")
    assert m.fit.criterion == pytest.approx(plain.fit.criterion, abs=1e-7)
    np.testing.assert_allclose(m.se, plain.se, rtol=1e-5)
    sd = plain.varcorr.terms[0].sd[0]
    assert m.sigma == pytest.approx(np.hypot(sd, plain.sigma), rel=1e-5)
    assert m.npar == plain.npar


def test_what_the_data_cannot_tell_apart_is_said() -> None:
    with pytest.warns(lmm.DesignWarning, match="cannot tell .*Rho.*apart"):
        m = lmm.lmer("y ~ visit + (1 | child)", teeth(), residual="cs(1 | child)")
    codes = [finding.code for finding in m.convergence.findings]
    assert "residual-not-identified" in codes
    assert m.npar == 2 + 2  # the variance between children and within them
    with pytest.warns(lmm.DesignWarning, match=r"cannot tell .*Leave out \(1 \| child\)"):
        lmm.lmer("y ~ visit + (1 | child)", teeth(), residual="us(visit | child)")
    m = lmm.lmer("y ~ visit + (1 | child)", teeth(), residual="ar1(visit | child)")
    assert "residual-not-identified" not in [f.code for f in m.convergence.findings]
