"""Models fitted with `Krylov`: beside exact fits, their Monte Carlo errors, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.fit import precision

SLOPES = "y ~ x + (x | u) + (1 | i)"


def ratings(n: int = 3000, users: int = 150, items: int = 120, seed: int = 3) -> pd.DataFrame:
    """Crossed ratings of items of very different popularity."""
    r = np.random.default_rng(seed)
    d = pd.DataFrame({"u": np.append(np.arange(users), r.integers(0, users, n - users))})
    popular = np.exp(1.5 * r.normal(size=items))
    d["i"] = r.choice(items, n, p=popular / popular.sum())
    d["x"] = r.normal(size=n)
    d["w"] = r.uniform(0.5, 2.0, n)
    effects = r.normal(size=(users, 2)) * (0.5, 0.3)
    d["y"] = 3.0 + 0.1 * d["x"] + effects[d["u"], 0] + effects[d["u"], 1] * d["x"]
    d["y"] += 0.6 * r.normal(size=items)[d["i"]] + r.normal(size=n) / np.sqrt(d["w"])
    return d


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return ratings()


@pytest.fixture(scope="module")
def exact(data: pd.DataFrame) -> lmm.LinearMixedModel:
    return lmm.lmer(SLOPES, data, weights="w", solver=lmm.Blocked())


@pytest.fixture(scope="module")
def model(data: pd.DataFrame) -> lmm.LinearMixedModel:
    return lmm.lmer(SLOPES, data, weights="w", solver=lmm.Krylov())


def test_estimates_are_within_their_monte_carlo_error(model, exact):
    table = model.monte_carlo.to_frame()
    frame = exact.monte_carlo.to_frame()
    error = (table["estimate"] - frame["estimate"]).abs()
    assert (error < 4.5 * table["Monte Carlo sd"] + 1e-7).all()
    assert (error[:-1] < 0.003 * frame["std. error"][:-1]).all()
    assert error["criterion"] < 0.1
    assert (frame["Monte Carlo sd"] == 0).all()
    np.testing.assert_allclose(table["std. error"][:-1], frame["std. error"][:-1], rtol=0.1)
    assert np.abs((model.fixef - exact.fixef) / exact.se).max() < 1e-4
    np.testing.assert_allclose(model.se, exact.se, rtol=1e-4)


def test_at_the_same_theta_what_the_data_say_is_exact(model, exact):
    theta = np.asarray(exact.theta)
    mine, theirs = (m.fit.objective.modes(theta) for m in (model, exact))
    assert abs(mine.solution.pwrss / theirs.solution.pwrss - 1) < 1e-9
    np.testing.assert_allclose(mine.solution.beta, theirs.solution.beta, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mine.b, theirs.b, atol=1e-8)


def test_the_same_seed_gives_the_same_fit(model, data):
    again = lmm.lmer(SLOPES, data, weights="w", solver=lmm.Krylov())
    np.testing.assert_allclose(again.theta, model.theta, rtol=1e-12)
    other = lmm.lmer(SLOPES, data, weights="w", solver=lmm.Krylov(seed=1))
    assert np.abs(other.theta - model.theta).max() > 1e-12


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (1 | u) + (1 | i) + (1 | g)",
        "y ~ x + (1 | u) + (0 + x | u) + (x | i)",
        "y ~ x + diag(x | u) + diag(x | i)",
    ],
)
def test_other_random_effects(formula: str, reml: bool):
    d, r = ratings(seed=5).assign(o=0.3), np.random.default_rng(6)
    d["y"] += 0.5 * r.normal(size=120)[d["i"]] * d["x"]
    d["g"] = pd.Categorical(np.random.default_rng(1).choice(list("abcd"), len(d)))
    fits = [
        lmm.lmer(formula, d, offset="o", reml=reml, solver=solver)
        for solver in (lmm.Krylov(), lmm.Blocked())
    ]
    mine, theirs = (m.monte_carlo.to_frame() for m in fits)
    error = (mine["estimate"] - theirs["estimate"]).abs()
    assert (error[:-1] < 0.02 * theirs["std. error"][:-1] + 1e-6).all()
    assert error["criterion"] < 0.2
    assert fits[0].converged


def test_variances_of_zero():
    d = ratings(seed=7)
    d["y"] = d["x"] + np.random.default_rng(2).normal(size=len(d))
    with pytest.warns(lmm.SingularFitWarning):
        mine = lmm.lmer("y ~ x + (1 | u) + (x | i)", d, solver=lmm.Krylov())
    with pytest.warns(lmm.SingularFitWarning):
        theirs = lmm.lmer("y ~ x + (1 | u) + (x | i)", d, solver=lmm.Blocked())
    assert abs(mine.reml_criterion - theirs.reml_criterion) < 0.05
    np.testing.assert_allclose(mine.sigma, theirs.sigma, rtol=1e-4)
    assert mine.is_singular()


def ring(scale: float) -> pd.DataFrame:
    """Users meet items near their own place on a circle: many directions that hardly connect."""
    r = np.random.default_rng(0)
    n, users, items = 6000, 400, 300
    u = np.append(np.arange(users), r.integers(0, users, n - users))
    i = np.floor((u / users + r.uniform(-0.01, 0.01, n)) % 1 * items).astype(int)
    d = pd.DataFrame({"u": u, "i": i, "x": r.normal(size=n)})
    effects = 0.45 * r.normal(size=users)[u] + 0.6 * r.normal(size=items)[i]
    d["y"] = scale * effects + 0.85 * r.normal(size=n)
    return d


def test_more_is_spent_where_more_is_needed():
    d = ring(10.0)
    mine = lmm.lmer("y ~ x + (1 | u) + (1 | i)", d, solver=lmm.Krylov())
    theirs = lmm.lmer("y ~ x + (1 | u) + (1 | i)", d, solver=lmm.Blocked())
    error, solver = mine.fit.monte_carlo, mine.fit.solver
    assert solver.vectors > 0
    assert error.ratio <= precision.LARGEST_RATIO
    assert error.criterion <= precision.LARGEST_SD
    assert abs(mine.reml_criterion - theirs.reml_criterion) < 4 * error.criterion


@pytest.mark.long
def test_with_nothing_to_spend_the_error_is_said(data):
    few = lmm.Krylov(probes=256, deflate=0)
    with pytest.warns(lmm.DesignWarning, match=r"more than .*m\.more_probes\(512\)"):
        m = lmm.lmer("y ~ x + (1 | u) + (1 | i)", ring(10.0), solver=few)
    finding = next(f for f in m.convergence.findings if f.code == "monte-carlo")
    assert finding.level == "warning"
    assert m.fit.solver.probes == 256


def test_more_probes(model, exact):
    more = model.more_probes(256)
    assert more.fit.solver.probes == 256
    before, after = model.monte_carlo["Monte Carlo sd"], more.monte_carlo["Monte Carlo sd"]
    assert (after < 0.6 * before).all()
    assert abs(more.reml_criterion - exact.reml_criterion) < 4 * after["criterion"]
    with pytest.raises(lmm.OptionError, match="n=32 is the number of probes in all"):
        model.more_probes(32)
    with pytest.raises(lmm.OptionError, match="its linear algebra is exact"):
        exact.more_probes(64)
    with pytest.raises(lmm.OptionError, match="whole number"):
        model.more_probes("many")


def test_a_model_keeps_its_probes(model, tmp_path):
    model.save(tmp_path / "model.lmm")
    more = model.more_probes(40)
    more.save(tmp_path / "more.lmm")
    for one, path in ((model, "model.lmm"), (more, "more.lmm")):
        for other in (lmm.load(tmp_path / path), pickle.loads(pickle.dumps(one))):
            assert other.fit.solver == one.fit.solver
            assert other.reml_criterion == one.reml_criterion
            pd.testing.assert_frame_equal(
                other.monte_carlo.to_frame(), one.monte_carlo.to_frame(), rtol=1e-9
            )


def test_predictions_and_modes(model, exact, data):
    for group in ("u", "i"):
        assert np.abs(model.ranef[group] - exact.ranef[group]).max().max() < 1e-3
        mine, theirs = model.cond_var[group], exact.cond_var[group]
        size = np.sqrt(np.einsum("lii,ljj->lij", theirs, theirs))
        assert np.abs((mine - theirs) / size).max() < 0.1
        assert np.abs((mine - theirs) / size).mean() < 0.01
    new = data.iloc[:60].assign(u=np.arange(60))
    mine, theirs = (m.predict(new, interval="confidence") for m in (model, exact))
    np.testing.assert_allclose(mine["fit"], theirs["fit"], atol=1e-3)
    np.testing.assert_allclose(mine["se"], theirs["se"], rtol=1e-3)


def test_degrees_of_freedom_and_tests(model, exact, data):
    for mine, theirs in ((model, exact), (model.refit(data["y"] + data["x"]), exact)):
        np.testing.assert_allclose(mine.coef_table()["df"], theirs.coef_table()["df"], rtol=0.05)
    small = [lmm.lmer("y ~ 1 + (x | u) + (1 | i)", data, weights="w", solver=s)
             for s in (lmm.Krylov(), lmm.Blocked())]  # fmt: skip
    tables = [lmm.anova(a, b) for a, b in zip(small, (model, exact), strict=True)]
    chisq = [table["Chisq"].iloc[1] for table in tables]
    assert abs(chisq[0] - chisq[1]) < 2e-3  # much less than the sd of either criterion
    assert "same probes" in str(tables[0])
    mine, theirs = model.drop1().to_frame(), exact.drop1().to_frame()
    np.testing.assert_allclose(mine["LRT"].iloc[1:], theirs["LRT"].iloc[1:], atol=2e-3)
    mine, theirs = model.ranova().to_frame(), exact.ranova().to_frame()
    np.testing.assert_allclose(mine["LRT"].iloc[1:], theirs["LRT"].iloc[1:], atol=0.2)


def test_models_with_the_same_random_effects_get_the_same_probes(model, exact, data):
    small = lmm.lmer("y ~ 1 + (x | u) + (1 | i)", data, weights="w", solver=lmm.Krylov(probes=8))
    want = lmm.anova(
        lmm.lmer("y ~ 1 + (x | u) + (1 | i)", data, weights="w", solver=lmm.Blocked()), exact
    )
    found = lmm.anova(small, model)
    assert abs(found["Chisq"].iloc[1] - want["Chisq"].iloc[1]) < 2e-3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.coef_table("kenward-roger"), "Kenward–Roger.*ddf='satterthwaite'"),
        (lambda m: m.confint(), "profile.*method='wald'.*method='boot'"),
        (lambda m: m.profile("sigma"), "profile.*exact linear algebra"),
        (lambda m: m.influence(), "Influence needs exact linear algebra"),
        (lambda m: m.influence("u"), "Influence needs exact linear algebra"),
        (lambda m: m.all_fit(), "Comparing optimizers needs exact"),
        (lambda m: m.predict(se=True), "at most 2000 rows"),
    ],
)
def test_what_is_refused(model, call, message):
    with pytest.raises(lmm.OptionError, match=message):
        call(model)


def test_what_cannot_be_fitted(data):
    with pytest.raises(lmm.OptionError, match=r"optimizer=NelderMead\(\) compares values"):
        lmm.lmer(SLOPES, data, solver=lmm.Krylov(), optimizer=lmm.NelderMead())
    counts = data.assign(y=1 + data["i"] % 3)
    with pytest.raises(lmm.OptionError, match="Generalized models need exact linear algebra"):
        lmm.glmer("y ~ x + (1 | u) + (1 | i)", counts, "poisson", solver=lmm.Krylov())
    with pytest.raises(lmm.OptionError, match=r"residual.*need exact linear algebra"):
        lmm.lmer(SLOPES, data, residual_sd="~ x", solver=lmm.Krylov())


def test_one_grouping_factor_is_fitted_exactly(data):
    mine = lmm.lmer("y ~ x + (x | u)", data, solver=lmm.Krylov())
    theirs = lmm.lmer("y ~ x + (x | u)", data)
    assert mine.reml_criterion == theirs.reml_criterion
    assert (mine.monte_carlo["Monte Carlo sd"] == 0).all()
    assert not any(f.code == "monte-carlo" for f in mine.convergence.findings)


def test_printouts_show_the_digits_that_are_there(model):
    text = str(model.summary())
    assert "Monte Carlo error" in text
    assert "m.monte_carlo" in text
    sd = model.fit.monte_carlo.criterion
    shown = str(model).split("convergence: ")[1].split()[0]
    assert sd > 0.001
    assert 10.0 ** -len(shown.split(".")[1]) <= sd < 10.0 ** (1 - len(shown.split(".")[1]))
    assert {"_hat", "_cooksd"}.isdisjoint(model.augment().columns)


def test_held_parameters(data):
    fits = [
        lmm.lmer("y ~ x + (1 | u) + (1 | i)", data, solver=solver, fixed={"sigma": 1.1})
        for solver in (lmm.Krylov(), lmm.Blocked())
    ]
    se = np.sqrt(np.diag(fits[1].vcov_varcorr()))[:-1]
    error = (fits[0].monte_carlo["estimate"] - fits[1].monte_carlo["estimate"]).abs()
    assert (error.to_numpy()[:2] < 0.01 * se).all()
    held = {name: float(value) for name, value in fits[1].theta.items()}
    every = lmm.lmer("y ~ x + (1 | u) + (1 | i)", data, solver=lmm.Krylov(), fixed=held)
    assert every.monte_carlo["Monte Carlo sd"].iloc[0] == 0
