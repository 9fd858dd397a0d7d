"""Kenward and Roger's method against its definition by n × n matrices."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.pair_sums import by_columns
from lmmsparse.engine.variance_parts import VarianceParts

Array = np.ndarray[Any, Any]


def _definition(V: Array, X: Array, derivatives: list[Array]) -> tuple[Array, Array, Array]:
    """Adjusted and plain covariance of β̂ and W, for Σ = V linear in parameters with these slopes.

    Kenward & Roger (1997), with P_i = −X'V⁻¹G_iV⁻¹X, Q_ij = X'V⁻¹G_iV⁻¹G_jV⁻¹X and the expected
    information of the restricted likelihood.
    """
    Vi = np.linalg.inv(V)
    Phi = np.linalg.inv(X.T @ Vi @ X)
    P = Vi - Vi @ X @ Phi @ X.T @ Vi
    r = len(derivatives)
    info = np.array(
        [[0.5 * np.trace(P @ G @ P @ H) for G in derivatives] for H in derivatives]
    ).reshape(r, r)
    W = np.linalg.inv(info)
    slopes = [-X.T @ Vi @ G @ Vi @ X for G in derivatives]
    gain = np.zeros_like(Phi)
    for i, G in enumerate(derivatives):
        for j, H in enumerate(derivatives):
            Q = X.T @ Vi @ G @ Vi @ H @ Vi @ X
            gain += W[i, j] * (Q - slopes[i] @ Phi @ slopes[j])
    return Phi + 2.0 * Phi @ gain @ Phi, Phi, W


def _test(L: Array, Phi: Array, W: Array, slopes: list[Array]) -> tuple[float, float]:
    """Scale and denominator degrees of freedom, from the definition."""
    q = len(L)
    Theta = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    A1 = A2 = 0.0
    for i, Pi in enumerate(slopes):
        for j, Pj in enumerate(slopes):
            first, second = Theta @ Phi @ Pi @ Phi, Theta @ Phi @ Pj @ Phi
            A1 += W[i, j] * np.trace(first) * np.trace(second)
            A2 += W[i, j] * np.trace(first @ second)
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    c1, c2, c3 = (v / (3 * q + 2 * (1 - g)) for v in (g, q - g, q + 2 - g))
    E = 1.0 / (1.0 - A2 / q)
    V = 2.0 / q * (1.0 + c1 * B) / ((1.0 - c2 * B) ** 2 * (1.0 - c3 * B))
    rho = V / (2.0 * E**2)
    df = 4.0 + (q + 2) / (q * rho - 1.0)
    return df / (E * (df - 2.0)), df


def _term_derivatives(model: lmm.LinearMixedModel) -> list[list[Array]]:
    """Per term, ∂V by each distinct element of the covariance of its effects."""
    design = model.fit.design
    out = []
    for block in design.blocks:
        D = np.eye(block.n_levels)[block.codes]
        Zs = [D * block.columns[:, [j]] for j in range(block.k)]
        pairs = [
            (i, j)
            for i in range(block.k)
            for j in (range(i + 1) if block.structure.correlated else (i,))
        ]
        out.append([Zs[i] @ Zs[j].T + (Zs[j] @ Zs[i].T if i != j else 0.0) for i, j in pairs])
    return out


def _covariance(model: lmm.LinearMixedModel) -> Array:
    fit = model.fit
    half = fit.design.Z.toarray() @ fit.Lambda.toarray()
    V: Array = fit.sigma2 * (half @ half.T + np.diag(1.0 / fit.design.weights_or_one))
    return V


def _agree(model: lmm.LinearMixedModel, derivatives: list[Array], L: Array) -> None:
    X = model.fit.design.X
    V = _covariance(model)
    adjusted, Phi, W = _definition(V, X, derivatives)
    table = model.coef_table("kenward-roger").to_frame()
    np.testing.assert_allclose(table["Std. Error"], np.sqrt(np.diag(adjusted)), rtol=1e-7)
    Vi = np.linalg.inv(V)
    slopes = [-X.T @ Vi @ G @ Vi @ X for G in derivatives]
    df = [_test(row[None], Phi, W, slopes)[1] for row in np.eye(X.shape[1])]
    np.testing.assert_allclose(table["df"], df, rtol=1e-6)
    scale, den = _test(L, Phi, W, slopes)
    middle = np.linalg.inv(L @ adjusted @ L.T)
    b = L @ model.fixef.to_numpy()
    row = model.contrast(L, ddf="kenward-roger").to_frame().iloc[0]
    assert row["F value"] == pytest.approx(scale * b @ middle @ b / len(L), rel=1e-6)
    assert row["DenDF"] == pytest.approx(den, rel=1e-6)


def _weighted(name: str) -> pd.DataFrame:
    data = lmm.load_dataset(name)
    return data.assign(w=np.random.default_rng(5).uniform(0.3, 3.0, len(data)))


CASES = {
    "crossed": ("diameter ~ w + (1 | plate) + (1 | sample)", "Penicillin"),
    "nested": ("strength ~ w + (1 | batch/cask)", "Pastes"),
    "slopes": ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
    "independent": ("Reaction ~ Days + (Days || Subject)", "sleepstudy"),
    "diagonal": ("Y ~ N + diag(0 + V | B)", "oats"),
}


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.SingularFitWarning")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_by_the_definition(name: str, weighted: bool) -> None:
    formula, data = CASES[name]
    model = lmm.lmer(formula, _weighted(data), weights="w" if weighted else None)
    derivatives = [G for term in _term_derivatives(model) for G in term]
    derivatives.append(np.diag(1.0 / model.fit.design.weights_or_one))
    L = np.eye(model.fit.design.p)[:2]
    _agree(model, derivatives, L)


def test_with_a_known_residual_variance() -> None:
    formula, data = CASES["slopes"]
    model = lmm.lmer(formula, _weighted(data), weights="w", fixed={"sigma": 25.0})
    _agree(model, _term_derivatives(model)[0], np.eye(2))


@pytest.mark.parametrize("sigma", [None, 25.0])
def test_with_known_ratios_of_variances(sigma: float | None) -> None:
    data = _weighted("sleepstudy").assign(g=lambda d: d["Subject"].astype(str).str[-1])
    formula = "Reaction ~ Days + (Days | Subject) + (1 | g)"
    held = {"Subject.Intercept": 1.0, "Subject.Days.Intercept": 0.1, "Subject.Days": 0.2}
    fixed = held if sigma is None else {**held, "sigma": sigma}
    model = lmm.lmer(formula, data, weights="w", fixed=fixed)
    first, second = _term_derivatives(model)
    derivatives = list(second)
    if sigma is None:  # the held term grows with the residual variance
        T = np.array([[1.0, 0.0], [0.1, 0.2]])
        C = T @ T.T
        moving = C[0, 0] * first[0] + C[1, 0] * first[1] + C[1, 1] * first[2]
        derivatives.append(np.diag(1.0 / data["w"].to_numpy()) + moving)
    _agree(model, derivatives, np.eye(2))


def _far() -> pd.DataFrame:
    data = _weighted("sleepstudy").assign(day=lambda d: d["Days"] + 400.0)
    return data.assign(g=data["Subject"].astype(str).str[-1])


# Means of predictors far from zero are taken off before cross-products are formed.


def test_the_origin_of_a_predictor_does_not_matter() -> None:
    far, near = (
        lmm.lmer(f"Reaction ~ {x} + ({x} | Subject) + (1 | g)", _far(), weights="w")
        for x in ("day", "Days")
    )
    assert far.fit.design.blocks[0].shift is not None
    tables = [m.coef_table("kenward-roger").to_frame().iloc[1] for m in (far, near)]
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-7)


def test_known_ratios_with_a_predictor_far_from_zero() -> None:
    data = _far()
    ratios = {"Subject.Intercept": 1.0, "Subject.day.Intercept": 0.1, "Subject.day": 0.2}
    formula = "Reaction ~ day + (day | Subject) + (1 | g)"
    model = lmm.lmer(formula, data, weights="w", fixed=ratios)
    assert model.fit.design.blocks[0].shift is not None
    first, second = _term_derivatives(model)
    T = np.array([[1.0, 0.0], [0.1, 0.2]])
    C = T @ T.T
    moving = C[0, 0] * first[0] + C[1, 0] * first[1] + C[1, 1] * first[2]
    derivatives = [*second, np.diag(1.0 / data["w"].to_numpy()) + moving]
    V, X = _covariance(model), model.fit.design.X
    adjusted, Phi, W = _definition(V, X, derivatives)
    table = model.coef_table("kenward-roger").to_frame()
    assert table["Std. Error"].iloc[1] == pytest.approx(np.sqrt(adjusted[1, 1]), rel=1e-6)
    Vi = np.linalg.inv(V)
    slopes = [-X.T @ Vi @ G @ Vi @ X for G in derivatives]
    df = _test(np.eye(2)[1:], Phi, W, slopes)[1]
    assert table["df"].iloc[1] == pytest.approx(df, rel=1e-5)


def test_what_is_not_linear_is_refused() -> None:
    data = lmm.load_dataset("sleepstudy")
    fixed = {"Subject.Days.Intercept": 0.0}
    model = lmm.lmer("Reaction ~ Days + (Days | Subject)", data, fixed=fixed)
    with pytest.raises(OptionError, match=r"some, but not all, elements of .Days"):
        model.coef_table("kenward-roger")


TRACES = [
    "y ~ x + (1 | g) + (1 | h)",
    "y ~ x + (x | g) + (a | h)",
    "y ~ x + (1 | g) + (0 + x | g) + (z | h)",
    "y ~ x + (x | h / a)",
    "y ~ x + cs(0 + a | g) + (1 | h) + (1 | a)",
    "y ~ x + diag(x + z | g) + (x + z | h)",
]


@pytest.mark.parametrize("formula", TRACES)
@pytest.mark.parametrize("size", [0.6, 20.0, 1e-4, 0.0])
def test_elimination_gives_the_traces_of_all_columns(
    formula: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    n = 160
    data = pd.DataFrame(rng.normal(size=(n, 3)), columns=["x", "z", "y"])
    data["g"], data["h"] = rng.integers(0, 14, n), rng.integers(0, 6, n)
    data["a"], data["w"] = rng.choice(list("pqr"), n), rng.uniform(0.4, 2.5, n)
    data["y"] += rng.normal(size=14)[data["g"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.errors.LmmWarning)
        free = lmm.lmer(formula, data, weights="w")
        fixed = {name: size * (1 + 0.1 * i) for i, name in enumerate(free.theta.index)}
        fixed |= {name: 0.3 for name in fixed if name.endswith("rho")}
        if size == 0.0:  # singular: one of the variances only
            fixed |= {name: 0.7 for name in list(fixed)[1:]}
        model = lmm.lmer(formula, data, weights="w", fixed=fixed)
    fit = model.fit
    parts = VarianceParts(fit.objective, fit.theta, fit.modes)
    columns = by_columns(fit.products, fit.template.shifted_factors(fit.theta), parts.times_N)
    found = parts.traces()
    with monkeypatch.context() as patched:
        patched.setattr("lmmsparse.engine.variance_parts.pair_sums", lambda *_: columns)
        expected = parts.traces()
    assert not np.array_equal(found, expected)  # another way
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_squares_of_the_largest_factor_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand levels beside a few hundred: the work is that of the few hundred."""
    rng = np.random.default_rng(0)
    n = 60_000
    g, h, x = rng.integers(0, 20_000, n), rng.integers(0, 300, n), rng.normal(size=n)
    y = 1 + x + rng.normal(size=20_000)[g] + rng.normal(size=300)[h] + rng.normal(size=n)
    model = lmm.lmer("y ~ x + (1 | g) + (1 | h)", pd.DataFrame({"y": y, "x": x, "g": g, "h": h}))
    monkeypatch.delattr("lmmsparse.engine.pair_sums.by_columns")
    table = model.coef_table("kenward-roger").to_frame()
    by_satterthwaite = model.coef_table().to_frame()["df"]
    np.testing.assert_allclose(table["df"], by_satterthwaite, rtol=0.01)


@pytest.mark.parametrize("term", ["(1 | Subject)", "(Days | Subject)"])
def test_without_fixed_effects_the_table_is_empty(term: str) -> None:
    model = lmm.lmer(f"Reaction ~ 0 + {term}", lmm.load_dataset("sleepstudy"))
    assert model.coef_table("kenward-roger").to_frame().empty
    assert "No fixed effects" in str(model.summary("kenward-roger"))


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.LmmWarning")
@pytest.mark.parametrize("far", [0.0, 1e6])
@pytest.mark.parametrize(
    ("formula", "without", "open_rows"),
    [
        ("y ~ x + f + g + (1 | g) + (1 | h)", "y ~ x + f + g + (1 | h)", "gI"),
        ("y ~ x + f + g + (x | g) + (1 | h)", "y ~ x + f + g + (0 + x | g) + (1 | h)", "gI"),
        ("y ~ x * g + f + (x | g) + (1 | h)", "y ~ x * g + f + (1 | h)", "gIx"),
    ],
)
def test_what_reml_leaves_open_has_no_standard_error(
    formula: str, without: str, open_rows: str, far: float
) -> None:
    """Effects that share their columns with random ones; all others are as without these."""
    rng = np.random.default_rng(2)
    n = 150
    data = pd.DataFrame({"x": rng.normal(size=n), "f": rng.choice(list("pqr"), n)})
    data["g"], data["h"] = rng.choice(list("ABCDE"), n), rng.integers(0, 12, n)
    data["y"] = data["x"] + rng.normal(size=12)[data["h"]] + rng.normal(size=n)
    data["x"] += far
    model = lmm.lmer(formula, data)
    if "(x | g)" in formula and "x * g" not in formula:
        # The slopes are determined, their covariance with the intercepts is not.
        table = model.coef_table("kenward-roger").to_frame()
        assert table.loc[["g[T.B]", "g[T.C]"], "Std. Error"].isna().all()
        assert table.loc[["f[T.q]", "f[T.r]"], ["Std. Error", "df"]].notna().all(axis=None)
        return
    other = lmm.lmer(without, data)
    shown = model.coef_table("kenward-roger")
    found = shown.to_frame()
    expected = other.coef_table("kenward-roger").to_frame()
    is_open = np.array([name[0] in open_rows for name in found.index])
    lost = found.loc[is_open].drop(columns="Estimate")
    if far and open_rows == "gI":  # a million from the data, one more variance is none
        lost = lost.drop(index="Intercept")
    assert lost.isna().all(axis=None)
    np.testing.assert_allclose(found.loc[~is_open], expected.loc[~is_open], rtol=1e-4)
    assert "REML leaves open" in str(shown)
    assert "REML leaves open" in str(model.summary("kenward-roger"))
    by_term = lmm.anova(model, ddf="kenward-roger").to_frame()
    reference = lmm.anova(other, ddf="kenward-roger").to_frame()
    np.testing.assert_allclose(by_term.loc["f"], reference.loc["f"], rtol=1e-4)
    assert by_term.loc["g", ["DenDF", "F value", "Pr(>F)"]].isna().all()
    pairs = model.emmeans("f", pairwise=True, ddf="kenward-roger").to_frame()
    wanted = other.emmeans("f", pairwise=True, ddf="kenward-roger").to_frame()
    numbers = slice("estimate", None)
    np.testing.assert_allclose(pairs.loc[:, numbers], wanted.loc[:, numbers], rtol=1e-4)
    means = model.emmeans("f", ddf="kenward-roger")
    assert means.to_frame()["SE"].isna().all()
    assert "REML leaves open" in str(means)
    L = np.array([name.startswith("g[") for name in found.index], dtype=float)
    assert np.isnan(model.contrast(L, ddf="kenward-roger").to_frame()["Std. Error"].iloc[0])
