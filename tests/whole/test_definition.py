"""Every number of a fit against its definition, computed densely from X, Z, Λ and the weights."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import scipy.linalg as sla
from scipy import stats

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning
from lmmsparse.design import design_from_arrays
from lmmsparse.engine.columns import orthonormal
from lmmsparse.engine.responses import response_products
from lmmsparse.engine.solvers.blocked import Blocked
from lmmsparse.engine.solvers.selected_inverse import SelectedInverse
from lmmsparse.fit.problem import make_objective, products_of, term_columns

Array = npt.NDArray[np.float64]

# Name → formula, weights, offset, reml.
DESIGNS: dict[str, tuple[str, str | None, str | None, bool]] = {
    "intercept": ("y ~ x + (1 | a)", None, None, True),
    "slope": ("y ~ x + (x | a)", None, None, True),
    "slope, ML": ("y ~ x + (x | a)", None, None, False),
    "split": ("y ~ x + (x || a)", None, None, True),
    "diagonal": ("y ~ x + diag(f | a)", None, None, True),
    "homogeneous": ("y ~ x + diag(0 + f | a, hom=True)", None, None, False),
    "factor slope": ("y ~ f + (f | a)", None, None, True),
    "nested": ("y ~ x + (1 | a / b)", None, None, True),
    "nested slopes": ("y ~ x + (x | a / b)", None, None, False),
    "crossed": ("y ~ x + (1 | a) + (1 | c)", None, None, True),
    "crossed slopes": ("y ~ x + (x | a) + (x | c) + (1 | b)", None, None, True),
    "weights": ("y ~ x + (x | a) + (1 | c)", "w", None, True),
    "weights, ML": ("y ~ x + (x | a) + (1 | c)", "w", None, False),
    "offset": ("y ~ x + (1 | a) + (1 | c)", None, "o", True),
    "weights and offset": ("y ~ x + f + (x || a) + (1 | a:b)", "w", "o", True),
    "no fixed effects": ("y ~ 0 + (x | a)", None, None, True),
    "no fixed effects, ML": ("y ~ 0 + (1 | a) + (1 | c)", "w", "o", False),
    "many fixed effects": ("y ~ f * poly(x, 3) + (1 | a)", None, None, True),
    "two terms, one group": ("y ~ x + (1 | a) + (0 + f | c) + (0 + x | a)", "w", None, True),
}


@cache
def data() -> pd.DataFrame:
    rng = np.random.default_rng(99)
    n = 90
    a, b, c = rng.integers(0, 7, n), rng.integers(0, 3, n), rng.integers(0, 6, n)
    x = rng.normal(size=n)
    f = np.array(["lo", "mid", "top"])[rng.integers(0, 3, n)]
    y = 1 + x + rng.normal(size=7)[a] + rng.normal(size=7)[a] * x + 0.5 * rng.normal(size=6)[c]
    return pd.DataFrame(
        {
            "y": y + rng.normal(size=n),
            "x": x,
            "f": f,
            "a": a,
            "b": b,
            "c": c,
            "w": rng.uniform(0.2, 4.0, n),
            "o": rng.normal(size=n),
        }
    )


@cache
def model(name: str, solver: Any = None) -> lmm.LinearMixedModel:
    formula, weights, offset, reml = DESIGNS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, data(), weights=weights, offset=offset, reml=reml, solver=solver)


def some_theta(m: lmm.LinearMixedModel, seed: int = 1) -> Array:
    """A random point inside the bounds."""
    template = m.fit.template
    theta = np.random.default_rng(seed).normal(size=template.n_theta)
    return np.where(template.lower == 0, np.abs(theta) + 0.1, theta)


def covariance(m: lmm.LinearMixedModel, theta: Array) -> Array:
    """V = ZΛΛ'Z' + W⁻¹, the covariance of the response over σ²."""
    design = m.fit.design
    ZL = (design.Z @ m.fit.template.Lambda(theta)).toarray()
    return np.asarray(ZL @ ZL.T + np.diag(1.0 / design.weights_or_one))


def defined(m: lmm.LinearMixedModel, theta: Array) -> tuple[float, Array, float, Array]:
    """Criterion, β, σ² and vcov of generalized least squares."""
    design, V = m.fit.design, covariance(m, theta)
    y, X = design.y - design.offset_or_zero, design.X
    Vi = np.linalg.inv(V)
    XtVX = X.T @ Vi @ X
    beta = np.linalg.solve(XtVX, X.T @ Vi @ y)
    rss = float((y - X @ beta) @ Vi @ (y - X @ beta))
    df = design.n - design.p * m.reml
    s2 = rss / df
    normal = stats.multivariate_normal(np.zeros(design.n), s2 * V)
    value = -2.0 * normal.logpdf(y - X @ beta)
    if m.reml:  # minus the log-likelihood of β̂ integrated out
        value += np.linalg.slogdet(XtVX / s2)[1] - design.p * np.log(2 * np.pi)
    return float(value), beta, s2, s2 * np.linalg.inv(XtVX)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", DESIGNS)
def test_criterion(name: str, seed: int) -> None:
    m = model(name)
    theta = some_theta(m, seed)
    assert m.fit.objective(theta) == pytest.approx(defined(m, theta)[0], rel=1e-10)
    assert (
        m.fit.objective.with_reml(not m.reml)(theta)
        != pytest.approx(m.fit.objective(theta), abs=1e-6)
        or m.fit.design.p == 0
    )


@pytest.mark.parametrize("name", DESIGNS)
def test_estimates(name: str) -> None:
    m = model(name)
    value, beta, s2, vcov = defined(m, m.theta.to_numpy())
    assert m.fit.criterion == pytest.approx(value, rel=1e-10)
    np.testing.assert_allclose(m.fixef, beta, atol=1e-8)
    np.testing.assert_allclose(m.sigma**2, s2, rtol=1e-8)
    np.testing.assert_allclose(m.vcov, vcov, atol=1e-8)


@pytest.mark.parametrize("name", DESIGNS)
def test_random_effects(name: str) -> None:
    """b̂ = σ²ΛΛ'Z'(σ²V)⁻¹(y − Xβ̂), and the fitted values that follow."""
    m = model(name)
    design, theta = m.fit.design, m.theta.to_numpy()
    Lambda, Z = m.fit.Lambda.toarray(), design.Z.toarray()
    residual = design.y - design.offset_or_zero - design.X @ m.fixef.to_numpy()
    b = Lambda @ Lambda.T @ Z.T @ np.linalg.solve(covariance(m, theta), residual)
    np.testing.assert_allclose(m.fit.b, b, atol=1e-8)
    fitted = design.X @ m.fixef.to_numpy() + Z @ b + design.offset_or_zero
    np.testing.assert_allclose(m.fitted, fitted, atol=1e-8)
    for group, modes in m.ranef.items():
        at = 0
        for block, part in zip(design.blocks, m.fit.split(b), strict=True):
            if block.group == group:
                np.testing.assert_allclose(modes.iloc[:, at : at + block.k], part, atol=1e-8)
                at += block.k
        assert at == modes.shape[1]


@pytest.mark.parametrize("name", DESIGNS)
def test_henderson(name: str) -> None:
    """The inverse of the mixed-model equations: Var(b̂ − b, β̂), and cond_var when β is known."""
    m = model(name)
    design, s2 = m.fit.design, m.sigma**2
    W, Z, X = np.diag(design.weights_or_one), design.Z.toarray(), design.X
    Lambda = m.fit.Lambda.toarray()
    ZL = Z @ Lambda
    q = ZL.shape[1]
    known = s2 * Lambda @ np.linalg.inv(ZL.T @ W @ ZL + np.eye(q)) @ Lambda.T
    for group, terms in design.groups.items():
        offsets, sizes = m.fit.template.offsets, [design.blocks[t].k for t in terms]
        for level in range(design.blocks[terms[0]].n_levels):
            at = np.concatenate(
                [offsets[t] + level * k + np.arange(k) for t, k in zip(terms, sizes, strict=True)]
            )
            np.testing.assert_allclose(m.cond_var[group][level], known[np.ix_(at, at)], atol=1e-9)
    left = np.block([[ZL.T @ W @ ZL + np.eye(q), ZL.T @ W @ X], [X.T @ W @ ZL, X.T @ W @ X]])
    joint = s2 * np.linalg.inv(left)
    np.testing.assert_allclose(m.vcov, joint[q:, q:], atol=1e-8)


@pytest.mark.parametrize("at", ["regular", "singular", "zero", "negative"])
@pytest.mark.parametrize("name", DESIGNS)
def test_gradient(name: str, at: str) -> None:
    m = model(name)
    objective, template = m.fit.objective, m.fit.template
    theta = some_theta(m, 3)
    diagonal = np.flatnonzero(template.lower == 0)
    if at == "singular":
        theta[diagonal[-1]] = 0.0
    elif at == "zero":
        theta[:] = 0.0
    elif at == "negative":
        theta[diagonal] *= -1
    step = 1e-5
    numeric = [
        (objective(theta + step * e) - objective(theta - step * e)) / (2 * step)
        for e in np.eye(len(theta))
    ]
    size = 1.0 + np.abs(numeric).max()
    np.testing.assert_allclose(objective.gradient(theta), numeric, atol=2e-6 * size)
    np.testing.assert_allclose(objective.derivatives(theta).gradient, numeric, atol=2e-6 * size)


@pytest.mark.parametrize("name", ["slope", "slope, ML", "weights", "nested"])
def test_hessian_in_expectation(name: str) -> None:
    """Averaged over responses of the model, AI + curvature is the Hessian at the truth."""
    m = model(name)
    theta = some_theta(m, 5)
    design, rng = m.fit.design, np.random.default_rng(8)
    root = np.linalg.cholesky(covariance(m, theta))
    terms = term_columns(design)
    Q, _ = orthonormal(design.fixed, design.weights)
    exact, cheap = [], []
    step = 1e-4
    for _ in range(25):
        y = design.X @ np.ones(design.p) + root @ rng.normal(size=design.n)
        response = response_products(y, Q, terms, design.weights)
        objective = m.fit.objective.with_response(response)
        up = [objective.gradient(theta + step * e) for e in np.eye(len(theta))]
        down = [objective.gradient(theta - step * e) for e in np.eye(len(theta))]
        exact.append((np.array(up) - np.array(down)) / (2 * step))
        cheap.append(objective.derivatives(theta).hessian)
    difference = np.array(exact) - np.array(cheap)
    error = difference.std(axis=0) / np.sqrt(len(difference))
    scale = np.sqrt(np.outer(*(2 * [np.abs(np.diag(np.mean(exact, axis=0)))])))
    # Equal up to terms of order 1/n in the curvature and to the noise of the average.
    assert np.all(np.abs(difference.mean(axis=0)) < 5 * error + 0.15 * scale)


SOLVERS = [
    lmm.Cholmod(),
    lmm.Cholmod(ordering="amd", mode="simplicial"),
    lmm.Cholmod(ordering="amd", mode="supernodal"),
    lmm.Cholmod(ordering="metis", mode="supernodal"),
    lmm.Cholmod(ordering="nesdis"),
    lmm.Cholmod(ordering="natural", mode="simplicial"),
    lmm.Cholmod(ordering="natural", mode="supernodal"),
    lmm.SuperLU(),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize(
    "name", ["crossed slopes", "weights", "two terms, one group", "no fixed effects", "nested"]
)
def test_every_solver_is_the_dense_one(name: str, solver: lmm.Cholmod | lmm.SuperLU) -> None:
    one, other = model(name, lmm.Dense()), model(name, solver)
    rng = np.random.default_rng(2)
    for theta in (some_theta(one), 0 * some_theta(one), one.theta.to_numpy()):
        a, b = one.fit.objective.modes(theta), other.fit.objective.modes(theta)
        assert b.solution.logdet_M == pytest.approx(a.solution.logdet_M, rel=1e-11, abs=1e-11)
        assert b.solution.pwrss == pytest.approx(a.solution.pwrss, rel=1e-11)
        np.testing.assert_allclose(b.solution.RX, a.solution.RX, atol=1e-10)
        np.testing.assert_allclose(b.u, a.u, atol=1e-9)
        blocks = zip(b.factor.inverse_blocks(), a.factor.inverse_blocks(), strict=True)
        for mine, dense in blocks:
            np.testing.assert_allclose(mine, dense, atol=1e-11)
        right = rng.normal(size=(len(a.u), 3))
        np.testing.assert_allclose(b.factor.solve(right), a.factor.solve(right), atol=1e-10)
        mine, dense = (m.fit.objective.derivatives(theta) for m in (other, one))
        np.testing.assert_allclose(mine.gradient, dense.gradient, atol=1e-8)
        np.testing.assert_allclose(mine.hessian, dense.hessian, atol=1e-7)


@pytest.mark.parametrize("name", DESIGNS)
def test_default_solver_is_the_dense_one(name: str) -> None:
    one, other = model(name, lmm.Dense()), model(name)
    assert other.fit.criterion == pytest.approx(one.fit.criterion, abs=1e-9)
    np.testing.assert_allclose(other.theta, one.theta, atol=1e-5)
    for group in one.ranef:
        np.testing.assert_allclose(other.cond_var[group], one.cond_var[group], atol=1e-5)


@pytest.mark.parametrize("name", ["crossed", "crossed slopes", "nested slopes", "weights"])
def test_factors_stay_valid(name: str) -> None:
    """A factor is not touched by later evaluations at other θ."""
    m = model(name)
    theta = some_theta(m, 4)
    factor = m.fit.objective.system.factor(theta)
    right = np.ones(m.fit.template.q)
    before = factor.solve(right)
    m.fit.objective(2 * theta)
    np.testing.assert_array_equal(factor.solve(right), before)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("never", ["", "_MOST_PLACES", "_MOST_MEETINGS"])
def test_levels_that_meet_most_of_the_core(
    k: int, never: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few popular levels among many that are not go another way through the same algebra.

    So do those of large data, whose places are too many to keep.
    """
    if never:
        monkeypatch.setattr("lmmsparse.engine.solvers.border." + never, 0)
    rng = np.random.default_rng(k)
    a = np.concatenate([np.repeat(np.arange(3), 110), rng.integers(3, 400, size=1200)])
    b = np.concatenate([np.tile(np.arange(110), 3), rng.integers(110, size=1200)])
    x = rng.normal(size=len(a))
    Z = np.column_stack([np.ones(len(a)), x])[:, :k]
    design = design_from_arrays(rng.normal(size=len(a)), x[:, None], [(a, Z), (b, None)])
    products, response = products_of(design)
    one, other = (
        make_objective(design, True, solver, products, response)
        for solver in (lmm.Dense(), Blocked())
    )
    border = other.system.border
    assert len(border._heavy) == 3  # the test is about these
    assert not border._dense
    theta = np.array([0.8, 0.3, 0.5, 0.9] if k == 2 else [0.8, 0.9])
    for T in (theta, 0.0 * theta):
        mine, dense = other.derivatives(T), one.derivatives(T)
        assert mine.value == pytest.approx(dense.value, rel=1e-12)
        np.testing.assert_allclose(mine.gradient, dense.gradient, atol=1e-8)
        np.testing.assert_allclose(mine.hessian, dense.hessian, atol=1e-7)
        blocks = (m.system.factor(T).inverse_blocks() for m in (other, one))
        for block, want in zip(*blocks, strict=True):
            np.testing.assert_allclose(block, want, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_selected_inverse(seed: int) -> None:
    """Entries of M⁻¹ on the pattern of L for random sparse matrices."""
    rng = np.random.default_rng(seed)
    q = int(rng.integers(2, 40))
    A = np.where(rng.random((q, q)) < 0.1, rng.normal(size=(q, q)), 0.0)
    L = np.linalg.cholesky(A @ A.T + q * np.eye(q))
    filled = np.abs(L) > 1e-14
    for j in range(q):  # close the pattern under elimination
        rows = np.flatnonzero(filled[j + 1 :, j]) + j + 1
        filled[np.ix_(rows, rows)] |= np.tril(np.ones((len(rows), len(rows)), dtype=bool))
    columns = [np.flatnonzero(filled[:, j]) for j in range(q)]
    indptr = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate(columns)
    values = np.concatenate([L[rows, j] for j, rows in enumerate(columns)])
    inverse = sla.cho_solve((L, True), np.eye(q))
    want = np.concatenate([inverse[rows, j] for j, rows in enumerate(columns)])
    np.testing.assert_allclose(SelectedInverse(indptr, indices)(values), want, atol=1e-12)


def test_selected_inverse_with_a_large_supernode() -> None:
    q = 700
    A = np.random.default_rng(1).normal(size=(q, q))
    L = np.linalg.cholesky(A @ A.T + q * np.eye(q))
    columns = [np.arange(j, q) for j in range(q)]
    indptr = np.cumsum([0, *map(len, columns)])
    values = np.concatenate([L[j:, j] for j in range(q)])
    inverse = sla.cho_solve((L, True), np.eye(q))
    want = np.concatenate([inverse[j:, j] for j in range(q)])
    found = SelectedInverse(indptr, np.concatenate(columns))(values)
    np.testing.assert_allclose(found, want, atol=1e-12)


@pytest.mark.parametrize("name", DESIGNS)
def test_number_of_parameters(name: str) -> None:
    m = model(name)
    entries = [block.structure.n_par for block in m.fit.design.blocks]
    assert len(m.theta) == m.fit.template.n_theta == sum(entries)
    assert m.npar == len(m.fixef) + sum(entries) + 1
    assert m.theta.index.is_unique
    assert m.df_resid == m.nobs - m.npar
    assert m.aic == pytest.approx(-2 * m.loglik + 2 * m.npar)
    assert m.bic == pytest.approx(-2 * m.loglik + np.log(m.nobs) * m.npar)


@pytest.mark.parametrize("name", DESIGNS)
def test_it_is_a_minimum(name: str) -> None:
    m = model(name)
    assert m.convergence.converged
    assert m.convergence.expected_decrease < 1e-6
    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.05, 0.5):
        for _ in range(5):
            theta = m.theta.to_numpy() + scale * rng.normal(size=len(m.theta))
            assert m.fit.objective(theta) >= m.fit.criterion - 1e-8


ARRAY_MODELS = {
    "slope": lambda d, X: [(d["a"], pd.DataFrame({"Intercept": 1.0, "x": d["x"]}))],
    "crossed": lambda d, X: [(d["a"], None), (d["c"], None)],
    "weights": lambda d, X: [(d["a"], X), (d["c"], None)],
    "split": lambda d, X: [(d["a"], None), (d["a"], d["x"])],
}


@pytest.mark.filterwarnings("ignore::lmmsparse.errors.SingularFitWarning")
@pytest.mark.parametrize("name", ARRAY_MODELS)
def test_arrays_are_the_formula(name: str) -> None:
    formula, weights, offset, reml = DESIGNS[name]
    one, frame = model(name), data()
    X = one.fit.design.X
    other = lmm.fit_arrays(
        frame["y"],
        pd.DataFrame(X, columns=one.fixef.index),
        ARRAY_MODELS[name](frame, X),
        reml=reml,
        weights=None if weights is None else frame[weights],
        offset=None if offset is None else frame[offset],
    )
    assert other.formula == ""
    assert one.formula == formula
    pd.testing.assert_series_equal(other.fixef, one.fixef)
    np.testing.assert_array_equal(other.theta, one.theta)
    pd.testing.assert_series_equal(other.fitted, one.fitted)
    pd.testing.assert_frame_equal(other.vcov, one.vcov)
    assert other.n_groups == one.n_groups
    for group in one.ranef:
        np.testing.assert_array_equal(other.ranef[group], one.ranef[group])


def test_balanced_closed_form() -> None:
    """One-way balanced layout: REML is the analysis of variance."""
    dyestuff = lmm.load_dataset("Dyestuff")
    m = lmm.lmer("Yield ~ 1 + (1 | Batch)", dyestuff)
    means = dyestuff.groupby("Batch", observed=True)["Yield"].mean()
    within = dyestuff["Yield"] - dyestuff["Batch"].map(means).astype(float)
    msw = float((within**2).sum() / (30 - 6))
    msb = float(5 * means.var(ddof=1))
    table = m.varcorr.to_frame()
    np.testing.assert_allclose(table["vcov"], [(msb - msw) / 5, msw], rtol=1e-6)
    np.testing.assert_allclose([msw, (msb - msw) / 5], [2451.25, 1764.05])
    np.testing.assert_allclose(m.se, np.sqrt(msb / 30), rtol=1e-6)
