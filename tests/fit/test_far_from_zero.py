"""Predictors far from zero, such as Julian dates: where counting starts does not matter."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning

JULIAN = 2_460_000.0
FORMULAS = {
    "one factor": "y ~ x + (x | g)",
    "three columns": "y ~ x + z + (x + z | g)",
    "crossed": "y ~ x + (x | g) + (1 | h)",
    "shared group": "y ~ x + (x | g) + (0 + z | g)",
}


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(12)
    g, h = np.repeat(np.arange(24), 12), rng.integers(15, size=288)
    x, z = rng.normal(size=288) * 3, rng.normal(size=288)
    effects = rng.normal(size=(24, 3)) * [2.0, 0.4, 0.7]
    y = 5 + 0.3 * x + effects[g, 0] + effects[g, 1] * x + effects[g, 2] * z
    y += 0.8 * rng.normal(size=15)[h] + rng.normal(size=288)
    return pd.DataFrame({"y": y, "x": np.round(x, 3), "z": z, "g": g, "h": h})


FRAME = _frame()
FAR = FRAME.assign(x=FRAME["x"] + JULIAN)


def _fit(formula: str, frame: pd.DataFrame, solver: object = None) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, frame, solver=solver)


@pytest.fixture(scope="module", params=FORMULAS)
def models(request: pytest.FixtureRequest) -> tuple[lmm.LinearMixedModel, lmm.LinearMixedModel]:
    formula = FORMULAS[request.param]
    return _fit(formula, FRAME), _fit(formula, FAR)


Models = tuple[lmm.LinearMixedModel, lmm.LinearMixedModel]


def test_the_fit(models: Models) -> None:
    near, far = models
    assert far.fit.template.shifts[0] is not None
    assert near.fit.template.shifts[0] is None
    assert not far.convergence.findings
    assert far.optimum.evaluations <= near.optimum.evaluations + 2
    assert far.reml_criterion == pytest.approx(near.reml_criterion, abs=1e-7)
    assert far.sigma == pytest.approx(near.sigma, rel=1e-8)
    names = near.fixef.index[1:]
    np.testing.assert_allclose(far.fixef[names], near.fixef[names], rtol=1e-8)
    np.testing.assert_allclose(far.se[names], near.se[names], rtol=1e-7)
    np.testing.assert_allclose(far.fitted, near.fitted, atol=1e-7)
    gradient = far.fit.objective.gradient(far.theta)
    assert np.isfinite(gradient).all()


def test_random_effects(models: Models) -> None:
    near, far = models
    back = near.ranef["g"].copy()
    b = far.ranef["g"]
    np.testing.assert_allclose(b["x"], back["x"], atol=1e-6)
    np.testing.assert_allclose(b["Intercept"] + JULIAN * b["x"], back["Intercept"], atol=1e-5)
    slope = list(back.columns).index("x")
    np.testing.assert_allclose(
        far.cond_var["g"][:, slope, slope], near.cond_var["g"][:, slope, slope], rtol=1e-6
    )
    sd = [m.varcorr.to_frame().set_index(["var1", "var2"])["sdcor"]["x"] for m in (far, near)]
    np.testing.assert_allclose(sd[0].iloc[0], sd[1].iloc[0], rtol=1e-6)


@pytest.mark.parametrize("ddf", ["satterthwaite", "kenward-roger"])
def test_degrees_of_freedom(models: Models, ddf: str) -> None:
    near, far = (m.coef_table(ddf=ddf).to_frame().iloc[1:] for m in models)
    for column in ("Estimate", "Std. Error", "df", "t value"):
        np.testing.assert_allclose(far[column], near[column], rtol=1e-5)


def test_predictions_and_diagnostics(models: Models) -> None:
    near, far = models
    new = pd.DataFrame({"x": [0.0, 7.0], "z": [0.0, 1.0], "g": [3, 999], "h": [2, 2]})
    options = {"new_levels": "population", "se": True}
    a, b = near.predict(new, **options), far.predict(new.assign(x=new["x"] + JULIAN), **options)
    np.testing.assert_allclose(b["fit"], a["fit"], atol=1e-6)
    np.testing.assert_allclose(b["se"], a["se"], rtol=1e-5)
    np.testing.assert_allclose(far.influence().leverage, near.influence().leverage, rtol=1e-5)
    # Draws differ, as T does; what they are drawn from is the same.
    design, theta = near.fit.design, near.fit.theta
    half = (design.Z @ near.fit.template.Lambda(theta)).toarray()
    sd = near.sigma * np.sqrt(np.einsum("ij,ij->i", half, half) + 1.0)
    for m in models:
        drawn = m.simulate(1500, rng=1)
        np.testing.assert_allclose(drawn.std(axis=1, ddof=1) / sd, 1.0, atol=0.09)
        np.testing.assert_allclose((drawn.mean(axis=1) - near.predict(random=False)) / sd, 0.0,
                                   atol=0.14)  # fmt: skip


def test_refits_and_files(models: Models, tmp_path: Path) -> None:
    near, far = models
    Y = near.simulate(4, rng=5)
    a, b = near.refit_many(Y), far.refit_many(Y)
    np.testing.assert_allclose(b["criterion"], a["criterion"], atol=1e-6)
    np.testing.assert_allclose(b["se_x"], a["se_x"], rtol=1e-4)
    assert list(b["singular"]) == list(a["singular"])
    y = Y.iloc[:, 0]
    assert far.refit(y).reml_criterion == pytest.approx(near.refit(y).reml_criterion, abs=1e-6)
    far.save(tmp_path / "far")
    assert lmm.load(tmp_path / "far").reml_criterion == far.reml_criterion


@pytest.mark.parametrize("name", ["one factor", "three columns"])
def test_profile(name: str) -> None:
    near, far = _fit(FORMULAS[name], FRAME), _fit(FORMULAS[name], FAR)
    which = ["sd_x|g", "sigma", "x"]
    if name == "three columns":
        which.append("cor_z.x|g")
    a, b = (m.confint(which=which) for m in (near, far))
    np.testing.assert_allclose(b, a, rtol=2e-4)


@pytest.mark.parametrize("solver", [lmm.Dense(), lmm.Cholmod()], ids=["Dense", "Cholmod"])
def test_every_solver(solver: object) -> None:
    near = _fit(FORMULAS["crossed"], FRAME)
    far = _fit(FORMULAS["crossed"], FAR, solver)
    assert far.reml_criterion == pytest.approx(near.reml_criterion, abs=1e-7)
    np.testing.assert_allclose(far.cond_var["h"], near.cond_var["h"], rtol=1e-5)


@pytest.mark.parametrize("group", ["g", "g) + (1 | h"], ids=["one factor", "crossed"])
def test_columns_that_repeat_each_other(group: str) -> None:
    """Nothing tells their variances apart, but the fit is that of one of them."""
    alone = _fit("y ~ 1 + (x | " + group + ")", FAR)
    twice = _fit("y ~ 1 + (x + I(2 * x) | " + group + ")", FAR)
    assert "dependent-columns" in [finding.code for finding in twice.convergence.findings]
    assert twice.convergence.converged
    # T is large where nothing holds it, which costs digits.
    assert twice.reml_criterion == pytest.approx(alone.reml_criterion, abs=1e-3)
    assert twice.optimum.evaluations < 50
