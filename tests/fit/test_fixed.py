"""Covariance parameters that the user holds: the criterion, and that every result respects them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import interpolate, optimize

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError
from lmmsparse.results.parameters import known_parameters

SLOPE = "Reaction ~ Days + (Days | Subject)"
APART = "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)"


def _fit(formula: str, fixed: Mapping[str, float] | None, **options: Any) -> lmm.LinearMixedModel:
    return lmm.lmer(formula, lmm.load_dataset("sleepstudy"), fixed=fixed, **options)


def _dense(model: lmm.LinearMixedModel, theta: Any, sigma: float, y: Any = None) -> float:
    """The criterion of a model from its covariance matrix."""
    design = model.fit.design
    half = design.Z.toarray() @ model.fit.template.Lambda(np.asarray(theta)).toarray()
    V = sigma**2 * (half @ half.T + np.diag(1.0 / design.weights_or_one))
    Vi, X = np.linalg.inv(V), design.X
    inner = X.T @ Vi @ X
    y = design.y - design.offset_or_zero if y is None else y
    r = y - X @ np.linalg.solve(inner, X.T @ Vi @ y)
    df = design.n - (design.p if model.reml else 0)
    value = np.linalg.slogdet(V)[1] + r @ Vi @ r + df * np.log(2 * np.pi)
    return float(value + (np.linalg.slogdet(inner)[1] if model.reml else 0.0))


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "fixed",
    [
        {"sigma": 30.0},
        {"Subject.Intercept": 0.5},
        {"Subject.Days.Intercept": 0.3},
        {"Subject.Days": 0.1, "sigma": 20.0},
        {"Subject.Days": 0.0},
        {"Subject.Intercept": 0.5, "Subject.Days.Intercept": 0.1, "Subject.Days": 0.3},
        {"Subject.Intercept": 0.5, "Subject.Days.Intercept": 0.1, "Subject.Days": 0.3, "sigma": 9},
    ],
)
def test_the_optimum_with_some_held(fixed: dict[str, float], reml: bool) -> None:
    model = _fit(SLOPE, fixed, reml=reml)
    theta, free = model.fit.theta.copy(), model.fit.template.free
    for name, value in fixed.items():
        assert (model.sigma if name == "sigma" else model.theta[name]) == value
    criterion = model.fit.criterion
    assert criterion == pytest.approx(_dense(model, theta, model.sigma), rel=1e-10)
    assert model.npar == 6 - len(fixed)
    assert model.convergence.converged

    def value(x: Any) -> float:
        at = theta.copy()
        at[free] = x[: free.sum()]
        return _dense(model, at, fixed.get("sigma", float(x[-1])))

    best = np.append(theta[free], model.sigma)
    for i, step in enumerate(0.02 * np.maximum(best, 0.1)):
        if i == free.sum() and "sigma" in fixed:
            continue
        for sign in (-1, 1):  # the best from both sides, or from inside where it is zero
            if best[i] > 0 or sign > 0:
                assert value(best + sign * step * (np.arange(len(best)) == i)) > criterion


@pytest.mark.parametrize("optimizer", [lmm.Bobyqa(), lmm.NelderMead(), lmm.TrustRegion()])
def test_every_search_agrees(optimizer: Any) -> None:
    fixed = {"Subject.Days.Intercept": 0.3}
    here, there = _fit(SLOPE, fixed, optimizer=optimizer), _fit(SLOPE, fixed)
    assert here.reml_criterion == pytest.approx(there.reml_criterion, abs=1e-7)
    np.testing.assert_allclose(here.theta, there.theta, rtol=1e-3)


@pytest.mark.parametrize("name", ["Subject.Intercept", "Subject.Days.Intercept", "sigma"])
def test_holding_an_estimate_changes_no_estimate(name: str) -> None:
    free = _fit(SLOPE, None)
    value = free.sigma if name == "sigma" else free.theta[name]
    held = _fit(SLOPE, {name: value})
    assert held.reml_criterion == pytest.approx(free.reml_criterion, abs=1e-8)
    np.testing.assert_allclose(held.theta, free.theta, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(held.vcov, free.vcov, rtol=1e-6)
    assert held.npar == free.npar - 1
    assert held.aic == pytest.approx(free.aic - 2.0)


def test_structures_and_weights() -> None:
    data = lmm.load_dataset("sleepstudy").assign(day=lambda d: d["Days"].astype(str))
    data["w"] = np.random.default_rng(3).uniform(0.5, 2.0, len(data))
    formula = "Reaction ~ Days + ar1(0 + day | Subject)"
    free = lmm.lmer(formula, data, weights="w")
    held = lmm.lmer(formula, data, weights="w", fixed={"Subject.rho": 0.5, "sigma": 12.0})
    assert held.theta["Subject.rho"] == 0.5
    value = _dense(held, held.theta, 12.0)
    assert held.reml_criterion == pytest.approx(value, rel=1e-10)
    assert held.reml_criterion > free.reml_criterion
    assert held.convergence.converged
    assert held.npar == free.npar - 2


def test_every_result_respects_them(tmp_path: Path) -> None:
    fixed = {"Subject.Intercept": 1.0, "sigma": 25.0}
    model = _fit(APART, fixed)
    assert "Not estimated but fixed: Subject.Intercept = 1, sigma = 25" in str(model.summary())
    for copy in (
        model.refit(model.simulate(1, rng=1)["sim_1"]),
        pickle.loads(pickle.dumps(model)),
    ):
        assert copy.sigma == 25.0
        assert copy.theta.iloc[0] == 1.0
        assert copy.npar == model.npar == 3
    model.save(tmp_path / "model")
    assert str(lmm.load(tmp_path / "model").summary()) == str(model.summary())
    refits = model.refit_many(model.simulate(20, rng=1))
    assert (refits["sigma"] == 25.0).all()
    assert (refits["Subject.Intercept"] == 1.0).all()
    assert refits["converged"].all()
    assert refits["Subject.Days"].std() > 0
    boot = model.bootstrap(30, rng=1)
    assert boot.n_failed == 0
    assert boot.to_frame()["sigma"].eq(25.0).all()
    for method in ("profile", "boot"):
        options = {"n": 30, "rng": 1} if method == "boot" else {}
        limits = model.confint(method, **options)
        assert limits.loc["sigma"].tolist() == [25.0, 25.0]
        assert limits.loc["sd_Intercept|Subject"].tolist() == [25.0, 25.0]
        assert limits.loc["sd_Days|Subject", "lower"] < 6 < limits.loc["sd_Days|Subject", "upper"]
    assert model.glance()["df_residual"].item() == 177
    dropped = model.drop1().to_frame()
    small = lmm.lmer(
        "Reaction ~ 1 + (1 | Subject) + (0 + Days | Subject)",
        lmm.load_dataset("sleepstudy"),
        fixed=fixed,
        reml=False,
    )
    assert dropped.loc["Days", "AIC"] == pytest.approx(small.aic, abs=1e-5)
    data = lmm.load_dataset("sleepstudy")
    without = lmm.lmer(model.formula, data[data["Subject"] != 308], fixed=fixed)
    change = model.influence("Subject").dfbeta.loc[308]
    np.testing.assert_allclose(change, without.fixef - model.fixef, rtol=1e-5)
    searches = model.all_fit().to_frame()
    np.testing.assert_allclose(searches["criterion"], model.fit.criterion, atol=1e-6)
    np.testing.assert_allclose(searches["Days"], model.fixef["Days"], rtol=1e-5)


def test_a_hypothesis_about_a_variance_parameter() -> None:
    held, free = _fit(APART, {"sigma": 20.0}, reml=False), _fit(APART, None, reml=False)
    table = lmm.anova(held, free).to_frame()
    assert table["Df"].iloc[1] == 1.0
    assert table["Chisq"].iloc[1] == pytest.approx(held.deviance - free.deviance, abs=1e-6)
    zeta = free.profile("sigma").to_frame()
    at = interpolate.CubicSpline(zeta["value"], zeta["zeta"])(20.0)
    assert at**2 == pytest.approx(held.deviance - free.deviance, rel=1e-3)


def test_with_everything_known_tests_are_normal() -> None:
    theta = _fit(SLOPE, None).theta.to_dict()
    model = _fit(SLOPE, {**theta, "sigma": 25.0})
    assert model.npar == 2
    for ddf in ("satterthwaite", "kenward-roger"):
        table = model.coef_table(ddf).to_frame()
        assert np.isinf(table["df"]).all()
        np.testing.assert_allclose(table["Std. Error"], model.se)
        assert np.isinf(model.contrast(np.eye(2), ddf=ddf).to_frame()["DenDF"].item())


def test_satterthwaite_by_finite_differences() -> None:
    model = _fit(SLOPE, {"Subject.Days.Intercept": 0.1, "sigma": 22.0})
    theta, free = model.fit.theta.copy(), np.flatnonzero(model.fit.template.free)

    def at(x: Any) -> Any:
        out = theta.copy()
        out[free] = x
        return out

    def variance(x: Any) -> Any:
        half = model.fit.design.Z.toarray() @ model.fit.template.Lambda(at(x)).toarray()
        V = 22.0**2 * (half @ half.T + np.eye(180))
        X = model.fit.design.X
        return np.diag(np.linalg.inv(X.T @ np.linalg.solve(V, X)))

    x, h = theta[free], 1e-4
    steps = np.eye(2) * h
    H = np.array(
        [
            [
                sum(
                    s * t * _dense(model, at(x + s * a + t * b), 22.0)
                    for s in (1, -1)
                    for t in (1, -1)
                )
                for a in steps
            ]
            for b in steps
        ]
    ) / (4 * h * h)
    J = np.array([(variance(x + a) - variance(x - a)) / (2 * h) for a in steps])
    df = 2 * variance(x) ** 2 / np.einsum("ki,kl,li->i", J, 2 * np.linalg.inv(H), J)
    np.testing.assert_allclose(model.coef_table().to_frame()["df"], df, rtol=1e-4)


@pytest.mark.parametrize("name", ["sd_Intercept|Subject", "sd_Days|Subject"])
def test_profile_of_a_standard_deviation_beside_a_known_sigma(name: str) -> None:
    model = _fit(SLOPE, {"sigma": 25.0}, reml=False)
    frame = model.profile(name).to_frame()
    assert (frame["sigma"] == 25.0).all()
    np.testing.assert_allclose(frame[name], frame["value"], rtol=1e-8, atol=1e-12)
    row = 0 if "Intercept" in name else 1
    for i in (0, len(frame) - 1):
        value = frame["value"].iloc[i] / 25.0
        if value == 0:
            continue

        def deviance(x: Any, value: float = value) -> float:
            if row == 0:
                theta = np.array([value, x[0], x[1]])
            else:
                theta = np.array([x[0], value * np.sin(x[1]), value * np.cos(x[1])])
            return float(model.fit.objective(theta))

        found = optimize.minimize(deviance, [0.5, 0.1], method="Nelder-Mead")
        expected = np.sqrt(found.fun - model.deviance)
        assert abs(frame["zeta"].iloc[i]) == pytest.approx(expected, rel=1e-4)


def test_known_parameters_follow_from_the_rows_of_T() -> None:
    assert known_parameters(_fit(SLOPE, {"sigma": 25.0}).fit).tolist() == [
        False, False, False, True, False, False,
    ]  # fmt: skip
    row = {"Subject.Days.Intercept": 0.1, "Subject.Days": 0.2}
    assert known_parameters(_fit(SLOPE, row).fit)[:4].tolist() == [False, True, False, False]
    row["sigma"] = 25.0
    assert known_parameters(_fit(SLOPE, row).fit)[:4].tolist() == [False, True, True, True]
    zero = {"Subject.Days.Intercept": 0.0, "Subject.Days": 0.0}
    assert known_parameters(_fit(SLOPE, zero).fit)[:4].tolist() == [False, True, True, False]


def test_a_zero_that_was_asked_for_is_no_singular_fit() -> None:
    model = _fit(APART, {"Subject.Days": 0.0})
    assert not model.is_singular()
    assert model.reml_criterion == pytest.approx(
        _fit("Reaction ~ Days + (1 | Subject)", None).reml_criterion, abs=1e-8
    )


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"Subject.Intercpt": 1.0}, "Did you mean 'Subject.Intercept'"),
        ({"Days": 1.0}, "is a fixed effect"),
        ({"sigma": 0.0}, "must be a positive number, not 0"),
        ({"sigma": "one"}, "finite number"),
        ({"Subject.Intercept": np.nan}, "finite number"),
        ({"Subject.Intercept": -1.0}, "must be between 0 and inf, not -1"),
        (["sigma"], "must be a mapping"),
    ],
)
def test_what_cannot_be_held_is_refused(fixed: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        _fit(SLOPE, fixed)


@pytest.mark.long
def test_a_profile_that_mixes_held_and_free_is_refused() -> None:
    model = _fit(SLOPE, {"Subject.Days.Intercept": 0.1})
    with pytest.raises(OptionError, match=r"cor_Days.Intercept.Subject cannot be profiled"):
        model.profile()
    limits = model.confint(which=["sd_Days|Subject", "sigma", "Days"])
    assert (limits["lower"] < limits["upper"]).all()


STRUCTURES = {
    "cs": "Reaction ~ Days + cs(0 + part | Subject)",
    "cs, one variance": "Reaction ~ Days + cs(0 + part | Subject, hom=True)",
    "ar1": "Reaction ~ Days + ar1(0 + part | Subject)",
    "ar1, own variances": "Reaction ~ Days + ar1(0 + part | Subject, hom=False)",
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_profiles_are_fits_with_the_parameter_held(name: str) -> None:
    data = lmm.load_dataset("sleepstudy").assign(part=lambda d: (d["Days"] // 3).astype(str))
    free = lmm.lmer(STRUCTURES[name], data, reml=False)
    frame = free.profile(["rho|Subject", "sigma"], level=0.99).to_frame()
    for parameter, held in (("rho|Subject", "Subject.rho"), ("sigma", "sigma")):
        own = frame[frame["parameter"] == parameter]
        assert len(own) > 8
        for i in (0, len(own) // 3, len(own) - 1):
            value = float(own["value"].iloc[i])
            fixed = lmm.lmer(STRUCTURES[name], data, reml=False, fixed={held: value})
            rise = fixed.deviance - free.deviance
            assert own["zeta"].iloc[i] ** 2 == pytest.approx(rise, rel=1e-4, abs=1e-6)


def test_studies_with_known_variances_need_one_row_each() -> None:
    """The random-effects meta-analysis, against its own likelihood."""
    effect = np.array([70.0, 11.9, -4.1, 10.2, -1.0, 0.9, 27.0, 18.2])
    se = np.array([14.9, 10.2, 16.3, 11.0, 9.4, 11.4, 10.4, 17.6])
    data = pd.DataFrame({"study": list("ABCDEFGH"), "effect": effect, "w": se**-2})
    with pytest.raises(lmm.NotIdentifiableError, match="fixed="):
        lmm.lmer("effect ~ 1 + (1 | study)", data, weights="w")
    m = lmm.lmer("effect ~ 1 + (1 | study)", data, weights="w", fixed={"sigma": 1.0})

    def criterion(tau2: float) -> float:
        v = tau2 + se**2
        mean = np.sum(effect / v) / np.sum(1 / v)
        fit = np.sum(np.log(2 * np.pi * v) + (effect - mean) ** 2 / v)
        return float(fit + np.log(np.sum(1 / v)) - np.log(2 * np.pi))

    tau2 = float(m.theta.iloc[0] ** 2)
    assert criterion(tau2) == pytest.approx(m.reml_criterion, rel=1e-12)
    assert min(criterion(tau2 * c) for c in (0.99, 1.01)) > m.reml_criterion
    assert m.refit(effect + 1).fixef.iloc[0] == pytest.approx(m.fixef.iloc[0] + 1)
