"""Influence by row and by group, against published figures, brute force and explicit refits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm


@pytest.fixture(scope="module")
def sleepstudy() -> pd.DataFrame:
    return lmm.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def intercepts(sleepstudy: pd.DataFrame) -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy)


@pytest.fixture(scope="module")
def slopes(sleepstudy: pd.DataFrame) -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy)


def test_figures_by_row(intercepts: lmm.LinearMixedModel, slopes: lmm.LinearMixedModel) -> None:
    found = intercepts.influence()
    np.testing.assert_allclose(
        found.leverage.head(3), [0.107483311, 0.102096106, 0.098055702], rtol=1e-6
    )
    np.testing.assert_allclose(
        found.rstudent.head(3), [-1.455982709, -1.496645435, -2.117474250], rtol=1e-6
    )
    np.testing.assert_allclose(
        found.cooks_distance.head(3), [0.127645977, 0.127346548, 0.243724627], rtol=1e-6
    )
    assert slopes.influence().leverage.sum() == pytest.approx(29.022124, rel=1e-5)


def test_figures_by_group(intercepts: lmm.LinearMixedModel, slopes: lmm.LinearMixedModel) -> None:
    # lme4 multiplies by (m − p) / (m p) with m deleted groups, here it is 1 / p.
    lme4 = (18 - 2) / 18
    found = intercepts.influence("Subject")
    np.testing.assert_allclose(
        lme4 * found.cooks_distance.head(2), [0.339214603, 0.290309061], rtol=1e-5
    )
    found = slopes.influence(groups="Subject")
    np.testing.assert_allclose(
        lme4 * found.cooks_distance.head(3), [0.0821484, 0.1320208, 0.0982407], rtol=1e-4
    )


@pytest.fixture(scope="module")
def crossed() -> tuple[lmm.LinearMixedModel, np.ndarray]:
    """A weighted, unbalanced, partly crossed model, and its V = W⁻¹ + ZΛΛ'Z'."""
    rng = np.random.default_rng(3)
    n = 90
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "g": rng.integers(0, 12, n),
            "h": rng.integers(0, 7, n),
            "w": rng.uniform(0.5, 3.0, n),
        }
    )
    data["y"] = (
        data["x"]
        + rng.normal(size=12)[data["g"]]
        + rng.normal(size=12)[data["g"]] * data["x"]
        + rng.normal(size=7)[data["h"]]
        + rng.normal(size=n)
    )
    m = lmm.lmer("y ~ x + (x | g) + (1 | h)", data, weights="w", reml=False)
    ZL = m.fit.design.Z.toarray() @ m.fit.Lambda.toarray()
    return m, np.diag(1.0 / data["w"].to_numpy()) + ZL @ ZL.T


def test_leverage_is_the_diagonal_of_the_hat_matrix(
    crossed: tuple[lmm.LinearMixedModel, np.ndarray],
) -> None:
    m, V = crossed
    X, w = m.fit.design.X, m.weights.to_numpy()
    inverse = np.linalg.inv(V)
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    np.testing.assert_allclose(m.influence().leverage, 1.0 - np.diag(P) / w, atol=1e-10)


def test_dfbeta_by_row_is_deletion_at_fixed_theta(
    crossed: tuple[lmm.LinearMixedModel, np.ndarray],
) -> None:
    m, V = crossed
    X, y = m.fit.design.X, m.fit.design.y
    dfbeta = m.influence().dfbeta
    for row in (0, 17, 60):
        keep = np.arange(len(y)) != row
        Vx = np.linalg.solve(V[np.ix_(keep, keep)], X[keep])
        beta = np.linalg.solve(Vx.T @ X[keep], Vx.T @ y[keep])
        np.testing.assert_allclose(dfbeta.iloc[row], beta - m.fixef, atol=1e-9)


def test_deleted_groups_equal_refits_without_them(
    intercepts: lmm.LinearMixedModel, sleepstudy: pd.DataFrame
) -> None:
    found = intercepts.influence("Subject")
    level = found.dfbeta.index[4]
    again = lmm.lmer("Reaction ~ Days + (1 | Subject)", sleepstudy[sleepstudy["Subject"] != level])
    np.testing.assert_allclose(found.dfbeta.loc[level], again.fixef - intercepts.fixef, atol=1e-6)
    d = found.dfbeta.loc[level].to_numpy()
    cook = d @ np.linalg.solve(intercepts.vcov, d) / 2
    assert found.cooks_distance[level] == pytest.approx(cook, rel=1e-9)
    labels = sleepstudy["Subject"].astype(str)
    by_labels = intercepts.influence(labels)
    np.testing.assert_allclose(by_labels.cooks_distance, found.cooks_distance, rtol=1e-9)


def test_a_level_without_which_nothing_can_be_fitted_is_reported() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(6), 5)})
    data["only"] = np.where(data["g"] == 2, "b", "a")
    data["y"] = rng.normal(size=30) + rng.normal(size=6)[data["g"]]
    found = lmm.lmer("y ~ only + (1 | g)", data).influence("g")
    assert list(found.problems) == [2]
    assert found.cooks_distance.isna().sum() == 1


def test_what_groups_do_not_have(intercepts: lmm.LinearMixedModel) -> None:
    found = intercepts.influence("Subject")
    for name in ("leverage", "rstudent"):
        with pytest.raises(lmm.OptionError, match="measure of single rows"):
            getattr(found, name)
    with pytest.raises(lmm.OptionError, match="grouping factors are Subject"):
        intercepts.influence("Nobody")
    with pytest.raises(lmm.DataError, match="3 labels"):
        intercepts.influence([1, 2, 3])


def test_rows_left_out_are_padded(sleepstudy: pd.DataFrame) -> None:
    data = sleepstudy.copy()
    data.loc[data.index[5], "Reaction"] = np.nan
    found = lmm.lmer("Reaction ~ Days + (1 | Subject)", data, na_action="exclude").influence()
    assert list(np.flatnonzero(found.leverage.isna())) == [5]
    assert found.dfbeta.shape == (180, 2)
    assert list(found.to_frame().columns[:3]) == ["leverage", "rstudent", "cooks_distance"]


def test_all_searches_agree(slopes: lmm.LinearMixedModel) -> None:
    table = slopes.all_fit().to_frame()
    assert list(table.index[:3]) == ["TrustRegion", "Bobyqa", "NelderMead"]
    np.testing.assert_allclose(table["criterion"], slopes.reml_criterion, atol=1e-6)
    np.testing.assert_allclose(table["Days"], slopes.fixef["Days"], rtol=1e-5)
    assert (table["evaluations"] > 0).all()


def test_shares_of_variance(slopes: lmm.LinearMixedModel, intercepts: lmm.LinearMixedModel) -> None:
    between = float(intercepts.varcorr.to_frame()["vcov"].iloc[0])
    assert intercepts.icc()["Subject"] == pytest.approx(between / (between + intercepts.sigma**2))


# By lme4's estimates: the variance of Xβ is that of a sample.
R_SQUARED = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", 0.278651058, 0.799219923),
    "nine rows": ("Reaction ~ Days + (1 | Subject)", 0.169029204, 0.764122477),
    "cake": ("angle ~ recipe * temp + (1 | recipe:replicate)", 0.110960875, 0.703632773),
    "Penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", 0.0, 0.936339750),
}


@pytest.mark.parametrize("name", R_SQUARED)
def test_r_squared_is_that_of_performance(name: str) -> None:
    formula, marginal, conditional = R_SQUARED[name]
    data = lmm.load_dataset(name if name in ("Penicillin", "cake") else "sleepstudy")
    if name == "nine rows":
        first = data["Subject"].isin(data["Subject"].unique()[:3])
        data = data[first & data["Days"].isin([0, 4, 8])]
    m = lmm.lmer(formula, data)
    assert m.r2()["marginal"] == pytest.approx(marginal, abs=2e-6)
    assert m.r2()["conditional"] == pytest.approx(conditional, abs=5e-6)


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("reml", [True, False])
def test_r_squared_by_its_definition(weights: str | None, reml: bool, tmp_path: Path) -> None:
    data = lmm.load_dataset("sleepstudy").head(35)
    data["w"], data["far"] = np.linspace(0.5, 2.0, 35), data["Days"] + 1.7e9
    for formula in ("Reaction ~ Days + (Days | Subject)", "Reaction ~ far + (Days | Subject)"):
        m = lmm.lmer(formula, data, weights=weights, reml=reml)
        m.save(tmp_path / "m.lmm")
        fixed = m.predict(random=False).var(ddof=1)
        Sigma = m.varcorr.terms[0].covariance
        Z = np.column_stack([np.ones(35), data["Days"]])
        random = np.einsum("ni,ij,nj->n", Z, Sigma, Z).mean()
        residual = m.sigma**2 * (1.0 if weights is None else (1.0 / data["w"]).mean())
        total = fixed + random + residual
        for each in (m, lmm.load(tmp_path / "m.lmm")):
            r2 = each.r2()
            assert r2["marginal"] == pytest.approx(fixed / total, rel=1e-7)
            assert r2["conditional"] == pytest.approx((fixed + random) / total, rel=1e-7)


def test_without_fixed_effects_there_is_no_cooks_distance(sleepstudy: pd.DataFrame) -> None:
    model = lmm.lmer("Reaction ~ 0 + (Days | Subject)", sleepstudy)
    by_row, by_group = model.influence(), model.influence("Subject")
    assert by_row.cooks_distance.isna().all()
    assert by_group.cooks_distance.isna().all()
    assert by_row.leverage.between(0.0, 1.0).all()
    assert by_row.dfbeta.shape[1] == by_group.dfbeta.shape[1] == 0
