"""Singular fits: which direction is null and the model that the fit equals; errors of variances."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning, OptionError
from lmmsparse.fit.singular import null_directions


def _fit(formula: str, data: pd.DataFrame, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, data, **options)


def _said(model: lmm.LinearMixedModel) -> str:
    (text,) = [f.message for f in model.convergence.findings if f.code == "singular"]
    return text


def _early() -> pd.DataFrame:
    return pd.read_csv(models.VALIDATION / "data" / "Early.csv.gz")


def test_a_correlation_of_one_is_one_effect() -> None:
    data = _early()
    model = _fit("cog ~ tos * trt + (tos | id)", data)
    text = _said(model)
    assert "in (tos | id) the random effects vary in 1 of 2 dimensions, a correlation of −1" in text
    written = re.search(r"with (\(0 \+ I\(.*\) \| id\)) in place of \(tos \| id\)", text)
    assert written is not None
    simpler = _fit(f"cog ~ tos * trt + {written[1]}", data)
    assert simpler.reml_criterion == pytest.approx(model.reml_criterion, abs=1e-6)
    assert simpler.npar == model.npar - 2
    (null,) = null_directions(model.fit)
    assert np.abs(model.ranef["id"].to_numpy() @ null[0]).max() < 1e-6


def test_units_change_the_weights_and_nothing_else() -> None:
    data = _early().assign(tos=lambda d: 1000.0 * d["tos"])
    model = _fit("cog ~ tos * trt + (tos | id)", data)
    text = _said(model)
    written = re.search(r"with (\(0 \+ I\(.*?\) \| id\)) in place of", text)
    assert written is not None
    simpler = _fit(f"cog ~ tos * trt + {written[1]}", data)
    assert simpler.reml_criterion == pytest.approx(model.reml_criterion, abs=1e-6)
    null = null_directions(model.fit)[0][0]
    assert null[0] / null[1] == pytest.approx(0.25 / 1000, rel=0.02)


def test_an_effect_without_variance_can_be_left_out() -> None:
    data = lmm.load_dataset("sleepstudy")
    rng = np.random.default_rng(3)
    data["x"] = rng.normal(size=len(data))
    data["Reaction"] += 40.0 * np.tile(np.repeat([1, -1], 5), 18) * data["x"]
    model = _fit("Reaction ~ Days + diag(x + Days | Subject)", data)
    assert "in diag(x + Days | Subject) the variance of x is zero" in _said(model)
    assert "with (Days | Subject)" not in _said(model)
    written = re.search(r"with (diag\(Days \| Subject\)) in place", _said(model))
    assert written is not None
    simpler = _fit(f"Reaction ~ Days + {written[1]}", data)
    assert simpler.reml_criterion == pytest.approx(model.reml_criterion, abs=1e-6)


def test_no_variance_at_all() -> None:
    model = _fit("Yield ~ 1 + (1 | Batch)", lmm.load_dataset("Dyestuff2"))
    assert "the estimated variance of Intercept in (1 | Batch) is zero" in _said(model)
    assert model.vcov_varcorr().iloc[0].isna().all()
    assert np.isfinite(model.vcov_varcorr().iloc[1, 1])


def test_several_directions() -> None:
    data = pd.read_csv(models.VALIDATION / "data" / "psycho_singular.csv.gz")
    model = _fit("rt ~ A * B + (A * B | subj) + (A * B | item)", data)
    for null, group in zip(null_directions(model.fit), ("subj", "item"), strict=True):
        assert len(null) == 2
        b = model.ranef[group].to_numpy()
        assert np.abs(b @ null.T).max() < 2e-2 * np.abs(b).max()
    said = _said(model)
    for term in ("(A * B | subj)", "(A * B | item)"):
        assert f"in {term} the random effects vary in 2 of 4 dimensions" in said
    assert "Next to try: rt ~ A * B + (A + B | subj) + (A + B | item)." in said
    assert len(said) < 500


def test_variances_of_variances_in_a_balanced_design() -> None:
    # 6 groups of 5: mean squares between and within are independent multiples of χ².
    model = lmm.lmer("Yield ~ 1 + (1 | Batch)", lmm.load_dataset("Dyestuff"))
    between, within = model.varcorr.to_frame()["vcov"]
    residual = 2 * within**2 / 24
    batch = (2 * (within + 5 * between) ** 2 / 5 + residual) / 25
    found = model.vcov_varcorr("vcov")
    assert found.index.tolist() == ["var_Intercept|Batch", "sigma2"]
    np.testing.assert_allclose(np.diag(found), [batch, residual], rtol=1e-5)
    assert found.iloc[0, 1] == pytest.approx(-residual / 5, rel=1e-5)
    sd = model.vcov_varcorr()
    assert sd.loc["sigma", "sigma"] == pytest.approx(residual / (4 * within), rel=1e-5)


@pytest.mark.parametrize(
    "term", ["(Days | Subject)", "cs(0 + part | Subject)", "diag(Days|Subject)"]
)
def test_variances_of_variances_by_the_hessian(term: str) -> None:
    data = lmm.load_dataset("sleepstudy").assign(part=lambda d: (d["Days"] // 4).astype(str))
    model = lmm.lmer(f"Reaction ~ Days + {term}", data)
    fit, d = model.fit, len(model.theta)

    def value(point: Any) -> float:
        return fit.objective.joint_value(point[:d], float(point[d]))

    point = np.append(fit.theta, fit.sigma)
    h = 1e-4 * np.maximum(point, 0.1)
    H = np.empty((d + 1, d + 1))
    for i in range(d + 1):
        for j in range(d + 1):
            a, b = h[i] * np.eye(d + 1)[i], h[j] * np.eye(d + 1)[j]
            corners = [s * t * value(point + s * a + t * b) for s in (1, -1) for t in (1, -1)]
            H[i, j] = sum(corners) / (4 * h[i] * h[j])
    covariance = 2.0 * np.linalg.inv(H)

    def variances(at: Any) -> Any:
        out = []
        for T in fit.template.factors(at[:d]):
            C = at[d] ** 2 * T @ T.T
            for structure in fit.template.structures:
                out += [C[r, c] for r, c in structure.entries]
        return np.array([*out, at[d] ** 2])

    J = np.array(
        [(variances(point + s) - variances(point - s)) / (2 * s.sum()) for s in np.diag(h)]
    ).T
    expected = J @ covariance @ J.T
    np.testing.assert_allclose(
        model.vcov_varcorr("vcov"), expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max() * 1e-3
    )


def test_what_is_fixed_has_no_error() -> None:
    data = lmm.load_dataset("sleepstudy")
    model = lmm.lmer("Reaction ~ Days + (Days || Subject)", data, fixed={"sigma": 25.0})
    table = model.vcov_varcorr()
    assert (table.loc["sigma"] == 0).all()
    assert (np.diag(table)[:2] > 0).all()
    with pytest.raises(OptionError):
        model.vcov_varcorr("variance")


@pytest.mark.parametrize(("limit", "side"), [(-0.5, 1.0), (1.0, -1.0)])
def test_a_correlation_close_to_its_bound_is_singular(limit: float, side: float) -> None:
    """As close as `tol` to either bound, where standard deviations are not yet that small."""
    rng = np.random.default_rng(2)
    g, t = np.repeat(np.arange(20), 6), np.tile(np.repeat(np.arange(3), 2), 20)
    y = rng.normal(size=(20, 3))[g, t] + rng.normal(size=120)
    data = pd.DataFrame({"y": y, "t": t.astype(str), "g": g})
    fit = lmm.lmer("y ~ 1 + cs(0 + t | g, hom=True)", data).fit
    for distance, singular in ((5e-5, True), (2e-4, False)):
        theta = np.array([1.0, limit + side * distance])
        m = lmm.LinearMixedModel(replace(fit, optimum=replace(fit.optimum, x=theta)))
        T = m.fit.template.factors(theta)[0]
        assert np.linalg.svd(T, compute_uv=False)[-1] > 5e-3
        assert m.is_singular(1e-4) == singular
        assert m.is_singular(1e-3)
