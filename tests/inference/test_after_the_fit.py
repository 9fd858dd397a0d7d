"""Inference and refits against their definitions: weights, ML, what is held, rows left out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, LmmWarning
from lmmsparse.engine.solvers.blocked import Blocked
from lmmsparse.engine.solvers.cholmod import Cholmod
from lmmsparse.engine.solvers.dense import Dense
from lmmsparse.engine.solvers.superlu import SuperLU
from lmmsparse.fit.verdict import expected_decrease
from lmmsparse.inference.df.information import information
from lmmsparse.inference.df.satterthwaite import Satterthwaite
from lmmsparse.inference.hypotheses.boundary import boundary
from lmmsparse.inference.intervals.bootstrap import Bootstrap

Array = npt.NDArray[np.float64]


def data(n: int = 80, seed: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 8, n), rng.integers(0, 5, n)
    x = rng.normal(size=n)
    y = 1.0 + 0.4 * x + rng.normal(size=8)[g] + 0.6 * rng.normal(size=5)[h]
    return pd.DataFrame(
        {
            "y": y + rng.normal(size=n),
            "x": x,
            "z": rng.normal(size=n),
            "f": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
            "g": np.array(list("ABCDEFGH"))[g],
            "h": np.array(list("pqrst"))[h],
            "w": rng.uniform(0.3, 3.0, n),
            "o": rng.normal(size=n),
        }
    )


def fitted(formula: str, table: pd.DataFrame | None = None, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, data() if table is None else table, **options)


def dense(m: Any, theta: Array | None = None) -> tuple[Array, Array, Array]:
    """V over σ², X and y − o of a model."""
    design = m.fit.design
    half = (
        design.Z.toarray()
        @ m.fit.template.Lambda(m.fit.theta if theta is None else theta).toarray()
    )
    V = half @ half.T + np.diag(1.0 / design.weights_or_one)
    return V, design.X, design.y - design.offset_or_zero


def deviance(m: Any, theta: Array, sigma: float) -> float:
    """−2 (restricted) log-likelihood at any θ and σ, β profiled."""
    V, X, y = dense(m, theta)
    V = sigma**2 * V
    Vi = np.linalg.inv(V)
    inner = X.T @ Vi @ X
    r = y - X @ np.linalg.solve(inner, X.T @ Vi @ y)
    value = np.linalg.slogdet(V)[1] + r @ Vi @ r
    return float(value + (np.linalg.slogdet(inner)[1] if m.reml else 0.0))


def hessian(function: Any, at: Array, step: float = 1e-3) -> Array:
    """Second derivatives by central differences, the error of second order taken off."""
    k = len(at)

    def second(h: float) -> Array:
        out, E = np.zeros((k, k)), h * np.eye(k)
        for i in range(k):
            for j in range(i + 1):
                signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
                total = sum(a * b * function(at + a * E[i] + b * E[j]) for a, b in signs)
                out[i, j] = out[j, i] = total / (4.0 * h * h)
        return out

    return (4.0 * second(step) - second(2.0 * step)) / 3.0


# Degrees of freedom and F


@pytest.mark.parametrize("ddf", ["asymptotic", "residual"])
def test_joint_F_with_constant_degrees_of_freedom(ddf: str) -> None:
    m = fitted("y ~ x + f + (1 | g)", weights="w")
    V, X, y = dense(m)
    covariance = m.sigma**2 * np.linalg.inv(X.T @ np.linalg.solve(V, X))
    beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, y))
    b, C = beta[2:], covariance[2:, 2:]
    F, df = b @ np.linalg.solve(C, b) / 2.0, len(y) - 4.0
    p = stats.f.sf(F, 2, df) if ddf == "residual" else stats.chi2.sf(2.0 * F, 2)
    row = lmm.anova(m, ddf=ddf).to_frame().loc["f"]
    assert row["F value"] == pytest.approx(F, rel=1e-8)
    assert row["Pr(>F)"] == pytest.approx(p, rel=1e-7)
    joint = m.contrast(np.eye(4)[2:], ddf=ddf).to_frame().iloc[0]
    assert joint["F value"] == pytest.approx(F, rel=1e-8)
    assert joint["Pr(>F)"] == pytest.approx(p, rel=1e-7)
    single = m.coef_table(ddf=ddf).to_frame().loc["x"]
    t = beta[1] / np.sqrt(covariance[1, 1])
    tail = stats.t.sf(abs(t), df) if ddf == "residual" else stats.norm.sf(abs(t))
    assert single["Pr(>|t|)" if "Pr(>|t|)" in single else "Pr(>|z|)"] == pytest.approx(
        2.0 * tail, rel=1e-7
    )


@pytest.mark.parametrize(
    ("nu", "expected"),
    [
        ((4.0, 8.0), 5.0),  # E = 4/2 + 8/6, 2 E / (E − 2)
        ((8.0, 4.0), 5.0),
        ((7.0, 7.0), 7.0),
        ((1.5, 8.0), 2.0),
        ((2.0, 30.0), 2.0),
        ((3.0, np.inf), 4.0),  # E = 3 + 1
        ((np.inf, np.inf), np.inf),
    ],
)
def test_joint_degrees_of_freedom_of_fai_and_cornelius(
    nu: tuple[float, float], expected: float
) -> None:
    """E is the sum of ν/(ν − 2), the mean of F(1, ν); lmerTest takes 2 where a ν is no more."""
    v = np.array([1.0, 3.0])
    slopes = np.diag(v * np.sqrt(2.0 / np.array(nu)))
    method = Satterthwaite(np.diag(v), np.eye(1), slopes[None])
    np.testing.assert_allclose(method.single(np.eye(2)), nu, rtol=1e-12)
    assert method.joint(np.eye(2)) == (1.0, pytest.approx(expected, rel=1e-12))
    mixed = np.array([[1.0, 0.0], [0.0, 2.0]])  # the same hypothesis
    assert method.joint(mixed) == (1.0, pytest.approx(expected, rel=1e-12))


def test_rows_that_contradict_each_other() -> None:
    m = fitted("y ~ x + z + (1 | g)")
    with pytest.raises(DataError, match="contradict each other"):
        m.contrast([[0, 1, 0], [0, 2, 0]], rhs=[1.0, 3.0])
    twice = m.contrast([[0, 1, 0], [0, 2, 0], [0, 0, 1]], rhs=[0.2, 0.4, 0.0]).to_frame().iloc[0]
    once = m.contrast([[0, 1, 0], [0, 0, 1]], rhs=[0.2, 0.0]).to_frame().iloc[0]
    assert twice["F value"] == pytest.approx(once["F value"], rel=1e-8)
    assert once["NumDF"] == twice["NumDF"] == 2
    with pytest.raises(DataError, match="weights in L are zero"):
        m.contrast([[0, 0, 0]])


# Tests of random effects


@pytest.mark.parametrize("reml", [True, False])
def test_no_random_effect_left(reml: bool) -> None:
    m = fitted("y ~ x + f + (1 | g)", weights="w", offset="o", reml=reml)
    design = m.fit.design
    w, y = design.weights, design.y - design.offset
    root = np.sqrt(w)
    beta = np.linalg.lstsq(root[:, None] * design.X, root * y, rcond=None)[0]
    squares = float(np.sum(w * (y - design.X @ beta) ** 2))
    n, p = design.X.shape
    df = n - p if reml else n
    criterion = df * np.log(2 * np.pi * squares / df) + df - np.sum(np.log(w))
    if reml:
        criterion += np.linalg.slogdet(design.X.T @ (w[:, None] * design.X))[1]
    row = m.ranova().to_frame().iloc[1]
    assert row["logLik"] == pytest.approx(-0.5 * criterion, rel=1e-10)
    assert row["LRT"] == pytest.approx(criterion - m.fit.criterion, rel=1e-8)
    assert row["Pr(>Chisq)"] == pytest.approx(stats.chi2.sf(row["LRT"], 1), rel=1e-8)


def test_reductions_keep_what_is_fixed_in_other_terms() -> None:
    held = {"h.Intercept": 0.9}
    m = fitted("y ~ z + (x | g) + (1 | h)", fixed=held)
    table = m.ranova().to_frame()
    smaller = fitted("y ~ z + (1 | g) + (1 | h)", fixed=held)
    assert smaller.theta["h.Intercept"] == 0.9
    row = table.loc["x in (x | g)"]
    assert row["logLik"] == pytest.approx(-0.5 * smaller.fit.criterion, abs=1e-7)
    assert row["npar"] == smaller.fit.npar
    free = fitted("y ~ z + (1 | g) + (1 | h)")
    assert abs(smaller.fit.criterion - free.fit.criterion) > 1e-3


def test_comparison_refits_keep_what_is_fixed() -> None:
    held = {"g.Intercept": 0.5, "sigma": 1.2}
    one, two = (fitted(f"y ~ {x} + (1 | g)", fixed=held) for x in ("x", "x + f"))
    table = lmm.anova(one, two).to_frame()
    criteria = [deviance(fitted(f"y ~ {x} + (1 | g)", reml=False), np.array([0.5]), 1.2)
                for x in ("x", "x + f")]  # fmt: skip
    assert table["Chisq"].iloc[1] == pytest.approx(criteria[0] - criteria[1], rel=1e-8)
    assert table["Df"].iloc[1] == 2


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "formula", ["y ~ x + (1 | g) + (1 | h)", "y ~ x + (x | g)", "y ~ x + diag(x | g, hom=True)"]
)
def test_information_about_variances_by_its_definition(formula: str, reml: bool) -> None:
    """½ tr(PG_rPG_s) with P of the criterion, for elements of the covariance matrices over σ²."""
    m = fitted(formula, reml=reml, weights="w")
    V, X, _ = dense(m)
    Vi = np.linalg.inv(V)
    P = Vi - Vi @ X @ np.linalg.inv(X.T @ Vi @ X) @ X.T @ Vi if reml else Vi
    G = []
    for block in m.fit.design.blocks:
        same = block.codes[:, None] == block.codes
        C = block.columns
        if block.structure.n_par == 1 and block.k > 1:
            G.append(same * (C @ C.T))
            continue
        for i in range(block.k):
            for j in range(i + 1):
                pair = np.outer(C[:, i], C[:, j])
                G.append(same * (pair if i == j else pair + pair.T))
    G.append(np.diag(1.0 / m.fit.design.weights_or_one))
    expected = 0.5 * np.array([[np.trace(P @ a @ P @ b) for a in G] for b in G])
    found = information(m.fit)
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())


def test_equal_variances_have_one_boundary() -> None:
    m = fitted("y ~ 1 + diag(0 + f | g, hom=True)")
    null = boundary(m.fit, fitted("y ~ 1 + (1 | h)").fit.design)
    assert null is None or null.sizes == (1,)
    row = m.ranova().to_frame().iloc[1]
    beside = m.ranova().beside["Pr(>Chibarsq)"][1]
    assert beside == pytest.approx(0.5 * stats.chi2.sf(row["LRT"], 1), rel=1e-9)


def test_a_statistic_of_zero_has_p_one() -> None:
    """Where the larger model gains nothing, no replicate is below it."""
    table = data(60)
    table["y"] -= table.groupby("h")["y"].transform("mean")
    small = fitted("y ~ x + (1 | g)", table)
    large = fitted("y ~ x + (1 | g) + (1 | h)", table)
    found = lmm.bootstrap_lrt(small, large, n=19, rng=1).to_frame()
    assert found.loc["bootstrap", "Chisq"] == pytest.approx(0.0, abs=1e-9)
    assert found.loc["bootstrap", "Pr(>Chisq)"] == 1.0


# Influence


@pytest.mark.parametrize(
    "options",
    [
        {"reml": False},
        {"fixed": {"g.Intercept": 0.7}},
        {"fixed": {"sigma": 1.3}, "reml": False, "weights": "w"},
    ],
)
def test_refits_without_a_group_keep_what_is_fixed(options: dict[str, Any]) -> None:
    m = fitted("y ~ x + (1 | g) + (1 | h)", **options)
    found = m.influence("h")
    for label in ("p", "s"):
        other = fitted("y ~ x + (1 | g) + (1 | h)", data().query("h != @label"), **options)
        np.testing.assert_allclose(
            found.dfbeta.loc[label], other.fixef - m.fixef, rtol=2e-5, atol=1e-7
        )
    change = found.dfbeta.loc["p"].to_numpy()
    cook = change @ np.linalg.solve(m.vcov.to_numpy(), change) / 2.0
    assert found.cooks_distance["p"] == pytest.approx(cook, rel=1e-8)


def test_labels_of_all_rows_and_of_the_fitted_ones() -> None:
    table = data()
    table.loc[[0, 7, 30], "x"] = np.nan
    m = fitted("y ~ x + (1 | g)", table)
    by_name = m.influence("g").dfbeta
    every = m.influence(table["g"].to_numpy())
    some = m.influence(table["g"].drop([0, 7, 30]).to_numpy())
    for found in (every, some):
        assert found.dfbeta.index.tolist() == sorted(table["g"].unique())
        np.testing.assert_allclose(found.dfbeta, by_name, rtol=1e-6, atol=1e-9)
    words = {"p": "z first", "q": "y", "r": "b", "s": "c", "t": "a last"}
    shuffled = m.influence(table["h"].map(words).to_numpy())
    assert shuffled.dfbeta.index.tolist() == ["a last", "b", "c", "y", "z first"]
    without = fitted("y ~ x + (1 | g)", table[table["h"] != "t"])
    np.testing.assert_allclose(
        shuffled.dfbeta.loc["a last"], without.fixef - m.fixef, rtol=2e-5, atol=1e-7
    )


# Means


def _with_an_empty_cell() -> pd.DataFrame:
    table = data(120)
    table["k"] = np.array(["u", "v"])[np.random.default_rng(1).integers(0, 2, len(table))]
    table["y"] += 1.3 * (table["f"] == "a")
    return table[~((table["f"] == "c") & (table["k"] == "v"))].reset_index(drop=True)


def test_adjustments_count_what_can_be_estimated() -> None:
    """Five of six means, and ten of fifteen comparisons."""
    m = fitted("y ~ f * k + (1 | g)", _with_an_empty_cell())
    none = m.emmeans(["f", "k"], pairwise=True, adjust="none").to_frame()
    there = none["estimate"].notna()
    assert there.sum() == 10
    t, df = none["t.ratio"][there], none["df"][there]
    p = none["p.value"][there]
    assert np.sum((p > 1e-4) & (p < 1 / 15)) >= 2  # the number of comparisons shows
    np.testing.assert_allclose(p, 2.0 * stats.t.sf(np.abs(t), df), rtol=1e-9)
    tukey = m.emmeans(["f", "k"], pairwise=True, adjust="tukey")
    expected = stats.studentized_range.sf(np.sqrt(2.0) * np.abs(t), 5, df)
    np.testing.assert_allclose(tukey.to_frame()["p.value"][there], expected, rtol=1e-5)
    assert "for 5 means" in str(tukey)
    bonferroni = m.emmeans(["f", "k"], pairwise=True, adjust="bonferroni")
    np.testing.assert_allclose(
        bonferroni.to_frame()["p.value"][there], np.minimum(1.0, 10.0 * p), rtol=1e-9
    )
    assert "for 10 comparisons" in str(bonferroni)
    holm = m.emmeans(["f", "k"], pairwise=True, adjust="holm").to_frame()["p.value"][there]
    steps = np.maximum.accumulate(np.sort(p) * np.arange(10, 0, -1))
    np.testing.assert_allclose(np.sort(holm), np.minimum(1.0, steps), rtol=1e-9)


# Bootstrap


def _replicates(values: Array, estimate: float) -> Bootstrap:
    frame = pd.DataFrame({"t": np.random.default_rng(3).permutation(values)})
    return Bootstrap(pd.Series({"t": estimate}), pd.Series(dtype=object), len(values), frame)


def test_bootstrap_table_is_what_it_says() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    row = _replicates(values, 3.0)._moments().to_frame().loc["t"]
    np.testing.assert_allclose(row, [3.0, 1.0, np.sqrt(38.0 / 3.0)], rtol=1e-12)


def test_percentiles_are_those_of_davison_and_hinkley() -> None:
    """The (R + 1)p-th smallest of R replicates, between two of them in proportion."""
    found = _replicates(np.arange(1.0, 40.0) ** 2, 300.0)
    np.testing.assert_allclose(found.confint(0.95).loc["t"], [1.0, 39.0**2])
    np.testing.assert_allclose(found.confint(0.90).loc["t"], [4.0, 38.0**2])
    between = 0.5 * np.array([1.0 + 4.0, 38.0**2 + 39.0**2])
    np.testing.assert_allclose(found.confint(0.925).loc["t"], between, rtol=1e-12)
    basic = found.confint(0.90, kind="basic").loc["t"]
    np.testing.assert_allclose(basic, [600.0 - 38.0**2, 600.0 - 4.0])
    values = np.arange(1.0, 40.0) ** 2
    half = stats.norm.ppf(0.95) * values.std(ddof=1)
    normal = found.confint(0.90, kind="normal").loc["t"]
    np.testing.assert_allclose(normal, 600.0 - values.mean() + np.array([-half, half]))


# Shares of variance


def test_r2_and_icc_by_definition() -> None:
    m = fitted("y ~ x + f + (x | g) + (1 | h)", weights="w")
    design = m.fit.design
    parts = {}
    for block, T in zip(design.blocks, m.fit.template.factors(m.fit.theta), strict=True):
        C = block.columns
        parts[block.group] = m.sigma**2 * np.mean(np.diag(C @ T @ T.T @ C.T))
    residual = m.sigma**2 * np.mean(1.0 / design.weights)
    explained = np.var(design.X @ m.fit.beta, ddof=1)
    random = sum(parts.values())
    total = explained + random + residual
    np.testing.assert_allclose(
        m.r2(), [explained / total, (explained + random) / total], rtol=1e-10
    )
    for group, value in parts.items():
        assert m.icc()[group] == pytest.approx(value / (random + residual), rel=1e-10)


# Draws of θ


@pytest.mark.parametrize("reml", [True, False])
def test_predictions_with_drawn_parameters_by_brute_force(
    reml: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean, variance and quantiles of the mixture over the draws, from V of each draw."""
    import lmmsparse.results.prediction_error as module

    m = fitted("y ~ x + (1 | g)", data(60), reml=reml)
    V, X, y = dense(m)
    new = data(60).iloc[:5].assign(g=["A", "B", "new", "C", "new"])
    known = (new["g"] != "new").to_numpy()
    Xn = np.column_stack([np.ones(5), new["x"]])
    levels = m.fit.design.blocks[0].levels.tolist()
    Zn = np.array([[float(level == g) for level in levels] for g in new["g"]])
    Z = m.fit.design.Z.toarray()
    kept = []
    original = module._drawn_fits

    def seen(*args: Any) -> Any:
        for fit, sigma2 in original(*args):
            kept.append((fit.theta.copy(), sigma2))
            yield fit, sigma2

    monkeypatch.setattr(module, "_drawn_fits", seen)
    found = m.predict(
        new, interval="prediction", level=0.9, theta_draws=40, rng=8, new_levels="population"
    )
    assert len(kept) == 40
    means, variances, totals = [], [], []
    for theta, s2 in kept:
        t2 = float(theta[0]) ** 2
        V = t2 * Z @ Z.T + np.eye(len(y))
        Vi = np.linalg.inv(V)
        C = np.linalg.inv(X.T @ Vi @ X)
        beta = C @ X.T @ Vi @ y
        pull = t2 * Zn @ Z.T @ Vi
        means.append(Xn @ beta + pull @ (y - X @ beta))
        gap = Xn - pull @ X
        own = np.where(known, t2 - np.einsum("ij,ij->i", pull @ Z, t2 * Zn), t2)
        variances.append(s2 * (own + np.einsum("ip,pq,iq->i", gap, C, gap)))
        totals.append(variances[-1] + s2)
    mean = np.array(means)
    se = np.sqrt(np.mean(variances, axis=0) + mean.var(axis=0))
    np.testing.assert_allclose(found["se"], se, rtol=1e-7)
    sd = np.sqrt(totals)
    for limit, share in (("lower", 0.05), ("upper", 0.95)):
        below = stats.norm.cdf(
            (
                found[limit].to_numpy()
                - found["fit"].to_numpy()
                + m.predict(new, new_levels="population").to_numpy()
                - mean
            )
            / sd
        )
        np.testing.assert_allclose(below.mean(axis=0), share, atol=1e-7)
    # The draws themselves: along the axes of the covariance of (θ, log σ), by the deviance.
    at = np.append(m.fit.theta, np.log(m.sigma))
    covariance = 2.0 * np.linalg.inv(hessian(lambda v: deviance(m, v[:-1], np.exp(v[-1])), at))
    values, vectors = np.linalg.eigh(covariance)
    steps = np.array([[theta[0], 0.5 * np.log(s2)] for theta, s2 in kept]) - at
    z = np.random.default_rng(8).standard_normal((40, 2))
    inside = steps[:, 0] > -at[0]
    assert inside.sum() >= 38
    along = steps @ vectors / np.sqrt(values)
    np.testing.assert_allclose(np.abs(along[inside]), np.abs(z[inside]), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ x + (1 | g) + (1 | h)"])
def test_draws_spread_as_the_errors_of_the_parameters_say(formula: str) -> None:
    """2,000 draws know a standard deviation to 1.6 %."""
    from lmmsparse.results.prediction_error import _drawn_fits

    m = fitted(formula, data(240, seed=2), reml=True)
    at = np.append(m.fit.theta, np.log(m.sigma))
    covariance = 2.0 * np.linalg.inv(hessian(lambda v: deviance(m, v[:-1], np.exp(v[-1])), at))
    draws = np.array(
        [[*fit.theta, 0.5 * np.log(sigma2)] for fit, sigma2 in _drawn_fits(m.fit, 2000, 4)]
    )
    inside = np.all(draws[:, :-1] > 0, axis=1)
    assert inside.mean() > 0.99
    spread = np.cov(draws.T)
    np.testing.assert_allclose(np.sqrt(np.diag(spread)), np.sqrt(np.diag(covariance)), rtol=0.05)
    own, expected = (s[0, -1] / np.sqrt(s[0, 0] * s[-1, -1]) for s in (spread, covariance))
    assert own == pytest.approx(expected, abs=0.06)
    np.testing.assert_allclose(
        draws.mean(axis=0), at, atol=0.06 * np.sqrt(np.diag(covariance)).max()
    )


# Solvers, searches, checks


@pytest.mark.parametrize(
    "solver", [Blocked(), Dense(), SuperLU(), Cholmod()], ids=lambda s: type(s).__name__
)
def test_factors_of_every_solver_stay_valid(solver: Any) -> None:
    """A factor that results hold is not overwritten when the criterion is evaluated elsewhere."""
    m = fitted("y ~ x + (x | g) + (1 | h)", solver=solver)
    B = np.random.default_rng(0).normal(size=(m.fit.template.q, 3))
    factor = m.fit.objective.modes(m.fit.theta).factor
    before = factor.solve(B).copy()
    elsewhere = m.fit.theta + 0.7
    m.fit.objective(elsewhere)
    m.fit.objective.modes(elsewhere).factor.solve(B)
    np.testing.assert_array_equal(factor.solve(B), before)
    Lambda = m.fit.Lambda.toarray()
    Z, w = m.fit.design.Z.toarray(), m.fit.design.weights_or_one
    M = Lambda.T @ Z.T @ (w[:, None] * Z) @ Lambda + np.eye(len(B))
    np.testing.assert_allclose(before, np.linalg.solve(M, B), rtol=1e-8, atol=1e-10)


def test_a_slope_without_curvature_counts() -> None:
    assert expected_decrease(np.array([1.0, 0.0]), np.diag([2.0, 0.0])) == pytest.approx(0.25)
    assert expected_decrease(np.array([1.0, 3.0]), np.diag([2.0, 0.0])) == pytest.approx(3.25)
    assert expected_decrease(np.array([0.0, 3.0]), np.diag([2.0, -1.0])) == pytest.approx(3.0)


def test_units_of_weights_do_not_decide_what_is_singular() -> None:
    for factor in (1e-12, 1.0, 1e12):
        table = data()
        table["w"] *= factor
        assert not fitted("y ~ x + (1 | g)", table, weights="w").is_singular()
        table["y"] -= table.groupby("g")["y"].transform("mean")
        assert fitted("y ~ x + (1 | g)", table, weights="w").is_singular()


def test_a_group_that_is_a_fixed_factor_is_told() -> None:
    found = fitted("y ~ g + (1 | g)").convergence.findings
    assert "random-within-fixed" in {finding.code for finding in found}
    found = fitted("y ~ x + (1 | g)").convergence.findings
    assert "random-within-fixed" not in {finding.code for finding in found}


def test_dependent_columns_with_a_row_of_zeros() -> None:
    """Columns that are zero in some rows are columns all the same."""
    table = data().assign(one=lambda d: (d["x"] > 0) * d["x"], two=lambda d: 2.0 * d["one"])
    found = fitted("y ~ x + (0 + one + two | g)", table).convergence.findings
    assert "dependent-columns" in {finding.code for finding in found}


def test_four_levels_are_few() -> None:
    for levels, few in ((4, True), (5, False)):
        table = data().assign(q=lambda d, k=levels: np.arange(len(d)) % k)
        found = fitted("y ~ x + (1 | q)", table).convergence.findings
        assert ("few-levels" in {finding.code for finding in found}) == few


def test_refit_of_arrays_with_other_weights() -> None:
    table = data()
    X = np.column_stack([np.ones(len(table)), table["x"]])
    m = lmm.fit_arrays(table["y"].to_numpy(), X, [(table["g"], None)])
    again = m.refit(table["y"].to_numpy() + 1.0, weights=table["w"].to_numpy())
    direct = fitted("I(y + 1) ~ x + (1 | g)", weights="w")
    assert again.fit.criterion == pytest.approx(direct.fit.criterion, abs=1e-7)
    np.testing.assert_allclose(again.fixef, direct.fixef, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{}, {"weights": "w", "offset": "o"}, {"fixed": {"sigma": 0.9}, "weights": "w"}],
    ids=", ".join,
)
def test_fixed_effects_go_after_the_last_random_one(options: dict[str, Any]) -> None:
    """Backward elimination goes on by least squares, with F as ordinary regression has it."""
    table = data()
    table["y"] = 0.8 * table["x"] + np.random.default_rng(8).normal(size=len(table))
    w = table["w"].to_numpy() if "weights" in options else np.ones(len(table))
    target = table["y"] - (table["o"] if "offset" in options else 0.0)
    m = fitted("y ~ x + z + f + (1 | g)", table, **options)
    left = m.step(alpha_random=1e-9, alpha_fixed=1e-4)
    assert left.model is None
    assert left.formula == "y ~ x"

    def squares(*names: str) -> tuple[float, int]:
        X = pd.get_dummies(table[["x", "z", "f"]], drop_first=True, dtype=float).assign(one=1.0)
        X = X[["one", *(c for c in X if c.split("_")[0] in names)]].to_numpy()
        root = np.sqrt(w)
        beta = np.linalg.lstsq(root[:, None] * X, root * target.to_numpy(), rcond=None)[0]
        return float(np.sum(w * (target.to_numpy() - X @ beta) ** 2)), X.shape[1]

    shown, inside = left.fixed.to_frame(), ["x", "z", "f"]
    assert (shown["Eliminated"] > 0).sum() == 2
    for name in [*shown.index[shown["Eliminated"] > 0], "x"]:
        (full, p), (less, q) = squares(*inside), squares(*(n for n in inside if n != name))
        df = np.inf if "fixed" in options else len(table) - p
        F = (less - full) / (p - q) / (0.9**2 if "fixed" in options else full / df)
        row = shown.loc[name]
        tail = stats.f.sf(F, p - q, df) if np.isfinite(df) else stats.chi2.sf(F * (p - q), p - q)
        assert row["F value"] == pytest.approx(F, rel=1e-7)
        assert row["DenDF"] == df
        assert row["Pr(>F)"] == pytest.approx(tail, rel=1e-6)
        inside.remove(name)
