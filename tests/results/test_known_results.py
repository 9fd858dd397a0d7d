"""What follows a fit with known covariances, against dense matrices of all rows."""

from __future__ import annotations

import pickle
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import known
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm

FITTED = ("herd", "repeatability", "random regression", "split", "lattice and animals", "three")


@cache
def fitted(name: str) -> Any:
    formula, weights, reml = known.MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        return lmm.lmer(
            formula, known.data(), weights=weights, reml=reml, known=known.known_of(formula)
        )


class Dense:
    """A fit as n × n matrices."""

    def __init__(self, m: Any) -> None:
        design, s2 = m.fit.design, m.sigma**2
        self.X, self.Z = design.X, design.Z.toarray()
        self.G = s2 * known.covariance_of_effects(design, m.fit.theta)
        self.R = s2 * np.diag(1.0 / design.weights_or_one)
        self.V = self.R + self.Z @ self.G @ self.Z.T
        self.inverse = np.linalg.inv(self.V)
        self.vcov = np.linalg.inv(self.X.T @ self.inverse @ self.X)
        self.beta = self.vcov @ self.X.T @ self.inverse @ design.y
        self.b = self.G @ self.Z.T @ self.inverse @ (design.y - self.X @ self.beta)

    def error_variance(self, x: known.Array, z: known.Array, more: float = 0.0) -> float:
        """Of x'β̂ + z'b̂ − x'β − z'b, with a variance of effects that are not predicted."""
        GZV = z @ self.G @ self.Z.T @ self.inverse
        left = x - GZV @ self.X
        own = z @ self.G @ z - GZV @ self.Z @ self.G @ z
        return float(own + left @ self.vcov @ left + more)


@pytest.mark.parametrize("name", FITTED)
def test_estimates_are_those_of_dense_matrices(name: str) -> None:
    m = fitted(name)
    dense = Dense(m)
    np.testing.assert_allclose(m.fixef, dense.beta, rtol=1e-8)
    np.testing.assert_allclose(m.vcov, dense.vcov, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(m.fit.b, dense.b, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        m.fitted, dense.X @ dense.beta + dense.Z @ dense.b, rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("name", FITTED)
def test_conditional_covariances_of_all_levels(name: str) -> None:
    m = fitted(name)
    dense, template = Dense(m), m.fit.template
    whole = dense.G - dense.G @ dense.Z.T @ dense.inverse @ dense.Z @ dense.G
    for group, terms in m.fit.design.groups.items():
        levels = m.fit.design.blocks[terms[0]].n_levels
        at = np.concatenate(
            [
                template.offsets[t]
                + np.arange(levels)[:, None] * template.structures[t].k
                + np.arange(template.structures[t].k)
                for t in terms
            ],
            axis=1,
        )
        assert len(m.cond_var[group]) == levels == len(m.ranef[group])
        for level in range(levels):
            want = whole[np.ix_(at[level], at[level])]
            np.testing.assert_allclose(m.cond_var[group][level], want, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("rows", [7, 90])
def test_predictions_of_levels_without_rows_and_their_errors(name: str, rows: int) -> None:
    m = fitted(name)
    dense, design, template = Dense(m), m.fit.design, m.fit.template
    rng = np.random.default_rng(3)
    levels = {b.group: list(b.levels) for b in design.blocks}
    new = pd.DataFrame({g: rng.choice(each, rows) for g, each in levels.items()})
    if "herd" in new:
        new["herd"] = new["herd"].astype(int)
    new["x"], new["w"] = rng.normal(size=rows), 2.0
    frame = m.predict(new, se=True, interval="prediction")
    without = m.predict(new, random=False, se=True, interval="prediction")
    for i in range(rows):
        z = np.zeros(template.q)
        for t, block in enumerate(design.blocks):
            level = levels[block.group].index(new[block.group].iloc[i])
            effects = [1.0 if n == "Intercept" else new["x"].iloc[i] for n in block.names]
            at = template.offsets[t] + level * block.k
            z[at : at + block.k] = effects
        x = np.array([1.0, new["x"].iloc[i]])
        assert frame["fit"].iloc[i] == pytest.approx(x @ dense.beta + z @ dense.b, rel=1e-7)
        variance = dense.error_variance(x, z)
        assert frame["se"].iloc[i] == pytest.approx(np.sqrt(variance), rel=1e-7)
        w = 2.0 if design.weights is not None else 1.0
        half = 1.959963984540054 * np.sqrt(variance + m.sigma**2 / w)
        assert frame["upper"].iloc[i] - frame["fit"].iloc[i] == pytest.approx(half, rel=1e-7)
        # Effects that are not predicted have the variance of their own level.
        total = x @ dense.vcov @ x + z @ dense.G @ z + m.sigma**2 / w
        half = 1.959963984540054 * np.sqrt(total)
        assert without["upper"].iloc[i] - without["fit"].iloc[i] == pytest.approx(half, rel=1e-7)


def test_new_levels() -> None:
    m = fitted("herd")
    new = pd.DataFrame({"id": ["stranger"], "x": [0.5], "herd": [1], "w": [1.0]})
    with pytest.raises(lmm.DataError, match="not seen"):
        m.predict(new)
    frame = m.predict(new, new_levels="population", se=True)
    own = m.varcorr.terms[0].covariance[0, 0]
    without = m.predict(new, random="~(1 | herd)", se=True)
    assert frame["fit"].iloc[0] == pytest.approx(without["fit"].iloc[0], rel=1e-12)
    want = np.sqrt(without["se"].iloc[0] ** 2 + own)
    assert frame["se"].iloc[0] == pytest.approx(want, rel=1e-9)
    assert np.isfinite(m.simulate(3, rng=1, newdata=new)).all().all()
    lattice = lmm.lmer("y ~ x + (1 | cell)", known.data(), known=known.known_of("(1 | cell)"))
    new = pd.DataFrame({"cell": ["elsewhere", "r0c0"], "x": [0.5, 0.5]})
    values = lattice.predict(new, new_levels="population")
    assert values.iloc[0] == pytest.approx(float(lattice.fixef @ [1.0, 0.5]))
    with pytest.raises(lmm.DataError, match="variance is not known"):
        lattice.predict(new, new_levels="population", se=True)
    assert np.isnan(lattice.predict(new, new_levels="nan", se=True)["se"].iloc[0])
    with pytest.raises(lmm.DataError, match="variance is not known"):
        lattice.simulate(2, rng=1, newdata=new)


@pytest.mark.parametrize("name", ["random regression", "lattice and animals"])
def test_draws_have_the_covariance_of_the_model(name: str) -> None:
    m = fitted(name)
    V, n = Dense(m).V, 20_000
    draws = m.simulate(n, rng=1).to_numpy()
    draws = draws - m.fit.design.X @ m.fit.beta[:, None]
    R = np.linalg.cholesky(V)
    white = np.linalg.solve(R, draws)
    S = white @ white.T / n
    assert np.abs(S - np.eye(len(S))).max() < 6.0 / np.sqrt(n)


def test_draws_for_new_rows_are_of_relatives() -> None:
    m = fitted("herd")
    A = known.relationships(known.pedigree())
    ids = ["a0", "a59", "a30"]
    new = pd.DataFrame({"id": ids, "x": 0.0, "herd": [0, 1, 2], "w": 1e9})
    draws = m.simulate(40_000, rng=2, newdata=new, random="~(1 | herd)").to_numpy()
    want = m.varcorr.terms[0].covariance[0, 0] * A.loc[ids, ids].to_numpy()
    np.testing.assert_allclose(np.cov(draws), want, atol=0.05 * want.max())


@pytest.mark.parametrize("name", FITTED)
def test_satterthwaite_and_kenward_roger_by_n_times_n_matrices(name: str) -> None:
    m = fitted(name)
    dense = Dense(m)
    design, s2 = m.fit.design, m.sigma**2
    # Derivatives of V by every variance and covariance, the residual's last.
    G, at = [], 0
    for block in design.blocks:
        A, k = known.covariance_of_levels(block), block.k
        q = A.shape[0] * k
        Z = dense.Z[:, at : at + q]
        at += q
        places = [(i, j) for j in range(k) for i in range(j, k)]
        if not block.structure.correlated:
            places = [(i, i) for i in range(k)]
        for i, j in places:
            E = np.zeros((k, k))
            E[i, j] = E[j, i] = 1.0
            G.append(Z @ np.kron(A, E) @ Z.T)
    G.append(dense.R / s2)
    V, X, Phi = dense.inverse, dense.X, dense.vcov
    P = V - V @ X @ Phi @ X.T @ V
    if not m.reml:
        return
    J = np.array([[0.5 * np.trace(P @ a @ P @ b) for b in G] for a in G])
    W = np.linalg.inv(J)
    A = [-X.T @ V @ a @ V @ X for a in G]
    Q = [[X.T @ V @ a @ V @ b @ V @ X for b in G] for a in G]
    gain = sum(
        W[i, j] * (Q[i][j] - A[i] @ Phi @ A[j]) for i in range(len(G)) for j in range(len(G))
    )
    adjusted = Phi + 2.0 * Phi @ gain @ Phi
    if m.is_singular():
        return
    table = m.coef_table(ddf="kenward-roger").to_frame()
    np.testing.assert_allclose(table["Std. Error"], np.sqrt(np.diag(adjusted)), rtol=1e-6)
    for c in range(X.shape[1]):
        lam = np.eye(X.shape[1])[c]
        M = [np.outer(lam, lam) / (lam @ Phi @ lam) @ Phi @ a @ Phi for a in A]
        A1 = sum(
            W[i, j] * np.trace(M[i]) * np.trace(M[j]) for i in range(len(G)) for j in range(len(G))
        )
        # For one row A1 = A2, and the degrees of freedom are 2 / A2.
        assert table["df"].iloc[c] == pytest.approx(2.0 / A1, rel=1e-5)
    # Satterthwaite: the observed information of the criterion, by differences.
    satterthwaite = m.coef_table().to_frame()["df"]
    phi = np.append(m.fit.theta, m.sigma)
    reml = m.reml

    def criterion(at: known.Array) -> float:
        return known.criterion(design, reml, at[:-1], at[-1])

    def variance(at: known.Array) -> known.Array:
        C = known.covariance_of_effects(design, at[:-1])
        own = at[-1] ** 2 * (np.diag(1.0 / design.weights_or_one) + dense.Z @ C @ dense.Z.T)
        return np.diag(np.linalg.inv(X.T @ np.linalg.solve(own, X)))

    d, h = len(phi), 1e-4 * np.maximum(np.abs(phi), 0.1)
    E = np.diag(h)
    H = np.array(
        [
            [
                sum(s * r * criterion(phi + s * E[i] + r * E[j]) for s in (1, -1) for r in (1, -1))
                / (4 * h[i] * h[j])
                for j in range(d)
            ]
            for i in range(d)
        ]
    )
    g = np.array([(variance(phi + E[i]) - variance(phi - E[i])) / (2 * h[i]) for i in range(d)])
    spread = np.einsum("ic,ij,jc->c", g, 2.0 * np.linalg.inv(H), g)
    np.testing.assert_allclose(satterthwaite, 2.0 * variance(phi) ** 2 / spread, rtol=2e-3)


def test_leverage_is_the_diagonal_of_the_hat_matrix() -> None:
    m = fitted("three")
    dense = Dense(m)
    n = m.nobs
    hat = np.array(
        [
            (
                lambda e: (
                    (
                        dense.X @ dense.vcov @ dense.X.T @ dense.inverse
                        + dense.Z
                        @ dense.G
                        @ dense.Z.T
                        @ dense.inverse
                        @ (np.eye(n) - dense.X @ dense.vcov @ dense.X.T @ dense.inverse)
                    )
                    @ e
                )
            )(np.eye(n)[i])[i]
            for i in range(0, n, 10)
        ]
    )
    np.testing.assert_allclose(m.influence().leverage.to_numpy()[::10], hat, rtol=1e-8)


def test_shares_of_variance_count_relationships() -> None:
    m = fitted("lattice and animals")
    dense, design = Dense(m), m.fit.design
    total = float(np.mean(np.diag(dense.V)))
    assert m.icc().sum() == pytest.approx(1.0 - float(np.mean(np.diag(dense.R))) / total, rel=1e-10)
    explained = float(np.var(design.X @ m.fit.beta, ddof=1))
    assert m.r2()["conditional"] == pytest.approx(
        1.0 - float(np.mean(np.diag(dense.R))) / (explained + total), rel=1e-10
    )


def test_the_same_after_a_file_and_a_pickle(tmp_path: Path) -> None:
    for name in ("three", "random regression"):
        m = fitted(name)
        m.save(tmp_path / "m.lmm")
        for again in (lmm.load(tmp_path / "m.lmm"), pickle.loads(pickle.dumps(m))):
            assert again.reml_criterion == pytest.approx(m.reml_criterion, abs=1e-9)
            for group in m.ranef:
                pd.testing.assert_frame_equal(again.ranef[group], m.ranef[group], rtol=1e-6)
            pd.testing.assert_frame_equal(
                again.coef_table().to_frame(), m.coef_table().to_frame(), rtol=1e-6
            )
            new = known.data().head(3)
            np.testing.assert_allclose(again.predict(new), m.predict(new), rtol=1e-8)
            np.testing.assert_allclose(again.simulate(1, rng=1), m.simulate(1, rng=1), rtol=1e-8)
            assert str(again.summary()) == str(m.summary())


def test_refits() -> None:
    m = fitted("herd")
    y = known.data()["y"].to_numpy()
    twice = m.refit(2.0 * y)
    assert twice.sigma == pytest.approx(2.0 * m.sigma, rel=1e-4)
    table = m.refit_many(np.column_stack([y, 2.0 * y]))
    assert table["converged"].all()
    assert table["sigma"].iloc[1] == pytest.approx(twice.sigma, rel=1e-4)
    # Rows that are missing take no level away.
    gap = y.copy()
    gap[known.data()["id"].to_numpy() == "a40"] = np.nan
    less = m.refit(gap)
    assert less.n_groups["id"] == 60
    assert less.ranef["id"].loc["a40", "Intercept"] != 0.0
    formula, weights, reml = known.MODELS["herd"]
    again = lmm.lmer(
        formula,
        known.data().assign(y=gap),
        weights=weights,
        reml=reml,
        known=known.known_of(formula),
    )
    assert less.reml_criterion == pytest.approx(again.reml_criterion, abs=1e-6)


@pytest.mark.parametrize("kind", ["parametric", "semiparametric"])
def test_bootstrap(kind: str) -> None:
    frame = fitted("herd").bootstrap(3, rng=1, kind=kind).to_frame()
    assert np.isfinite(frame.to_numpy()).all()


def test_profile_and_tests_of_terms() -> None:
    m = fitted("herd")
    limits = m.confint(method="profile", which="theta_")
    sd = m.varcorr.to_frame()["sdcor"].to_numpy()
    assert ((limits["lower"] < sd) & (sd < limits["upper"])).all()
    table = m.ranova().to_frame()
    small = lmm.lmer(
        "y ~ x + (1 | id)",
        known.data(),
        weights="w",
        known=known.known_of("(1 | id)"),
    )
    assert table["logLik"].iloc[2] == pytest.approx(small.loglik, abs=1e-6)
    both = lmm.anova(small, m, refit=False).to_frame()
    assert both["Chisq"].iloc[1] == pytest.approx(2.0 * (m.loglik - small.loglik), abs=1e-6)
    assert "Pr(>F)" in m.drop1(test="F").to_frame()


def test_a_model_with_a_known_covariance_is_not_within_one_without() -> None:
    d = known.data()
    unknown = lmm.lmer("y ~ x + (1 | id) + (1 | herd)", d)
    own = lmm.lmer("y ~ x + (1 | id)", d, known=known.known_of("(1 | id)"))
    said = str(lmm.anova(own, unknown, refit=False))
    assert "random effects of the one are not among those of the other" in said


def test_held_parameters_are_those_of_the_definition() -> None:
    formula = "y ~ x + (1 | id) + (1 | herd)"
    m = lmm.lmer(
        formula,
        known.data(),
        known=known.known_of(formula),
        fixed={"sigma": 0.9, "id.Intercept": 1.1},
    )
    design = m.fit.design
    assert m.theta["id.Intercept"] == 1.1
    want = known.criterion(design, True, m.fit.theta, 0.9)
    assert m.reml_criterion == pytest.approx(want, abs=1e-9)
    higher = known.criterion(design, True, m.fit.theta + np.array([0.0, 0.05]), 0.9)
    lower = known.criterion(design, True, m.fit.theta - np.array([0.0, 0.05]), 0.9)
    assert want < min(higher, lower)


def test_the_scale_of_a_known_covariance_is_of_no_account() -> None:
    d, A = known.data(), known.relationships(known.pedigree())
    formula = "y ~ x + (1 | id)"
    m = lmm.lmer(formula, d, known={"id": A})
    for scale in (1e-8, 1e8):
        other = lmm.lmer(formula, d, known={"id": scale * A})
        assert other.reml_criterion == pytest.approx(m.reml_criterion, abs=1e-7)
        assert other.optimum.evaluations == m.optimum.evaluations
        assert other.is_singular() == m.is_singular()
        np.testing.assert_allclose(
            other.varcorr.terms[0].covariance * scale, m.varcorr.terms[0].covariance, rtol=1e-5
        )


def test_the_identity_is_no_knowledge() -> None:
    d = known.data()
    labels = sorted(d["pe"].unique())
    m = lmm.lmer("y ~ x + (x | pe)", d)
    same = lmm.lmer("y ~ x + (x | pe)", d, known={"pe": lmm.Precision(np.eye(55), labels)})
    assert same.reml_criterion == pytest.approx(m.reml_criterion, abs=1e-8)
    np.testing.assert_allclose(same.se, m.se, rtol=1e-5)
    np.testing.assert_allclose(same.ranef["pe"], m.ranef["pe"], rtol=1e-3, atol=1e-4)
    a, b = (each.coef_table().to_frame() for each in (m, same))
    np.testing.assert_allclose(a["df"], b["df"], rtol=1e-3)
    own, other = (lmm.anova(each, ddf="kenward-roger").to_frame() for each in (m, same))
    np.testing.assert_allclose(own["DenDF"], other["DenDF"], rtol=1e-3)


def test_two_traits_with_a_covariance_between_them() -> None:
    """T ⊗ A: genetic correlation of two traits of an animal."""
    rng = np.random.default_rng(9)
    A = known.relationships(known.pedigree())
    ids = A.index.to_numpy()
    L = np.linalg.cholesky(A.to_numpy())
    u = L @ rng.normal(size=(60, 2)) @ np.linalg.cholesky([[1.0, 0.6], [0.6, 1.0]]).T
    rows = np.repeat(np.arange(60), 4)
    trait = np.tile(["one", "one", "two", "two"], 60)
    y = np.where(trait == "one", u[rows, 0], 3.0 + u[rows, 1]) + 0.7 * rng.normal(size=240)
    d = pd.DataFrame({"y": y, "id": ids[rows], "trait": trait})
    m = lmm.lmer("y ~ trait + (0 + trait | id)", d, known=known.known_of("(1 | id)"))
    want = known.criterion(m.fit.design, True, m.fit.theta)
    assert m.reml_criterion == pytest.approx(want, abs=1e-8)
    assert 0.0 < m.varcorr.terms[0].correlation[1, 0] < 1.0


def test_plots_take_every_levels_own_variance() -> None:
    pytest.importorskip("matplotlib")
    m = fitted("herd")
    m.plot.qq("id")
    m.plot.caterpillar("id")
