"""Degrees of freedom, intervals and tests with residual structures, against the definition."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.optimize as so
from residual_models import definition, teeth

import lmmsparse as lmm

Array = np.ndarray[Any, Any]

MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "us": ("y ~ C(visit) * sex", {"residual": "us(visit | child)"}),
    "us_sd": ("y ~ visit", {"residual": "us(visit | child)", "residual_sd": "~ sex"}),
    "ar1": (
        "y ~ visit * sex + (1 | child)",
        {"residual": "ar1(visit | child)", "residual_sd": "~ sex"},
    ),
    "car1": ("y ~ age * sex", {"residual": "car1(age | child)"}),
    "cs": ("y ~ visit * sex", {"residual": "cs(visit | child)", "residual_sd": "~ log(age)"}),
    "sd": ("y ~ visit * sex + (visit | child)", {"residual_sd": "~ sex"}),
}


def _model(name: str, **more: Any) -> Any:
    formula, options = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.SingularFitWarning)
        return lmm.lmer(formula, teeth(), **options, **more)  # type: ignore[arg-type]


def _hessian(criterion: Any, x: Array) -> Array:
    steps = 5e-4 * np.maximum(np.abs(x), 0.3)
    H = np.empty((len(x), len(x)))
    for i in range(len(x)):
        for j in range(i + 1):
            a, b = steps[i] * (np.arange(len(x)) == i), steps[j] * (np.arange(len(x)) == j)
            both = [criterion(x + s * a + t * b) * s * t for s in (1, -1) for t in (1, -1)]
            H[i, j] = H[j, i] = sum(both) / (4 * steps[i] * steps[j])
    return H


def _slopes(f: Any, x: Array) -> list[Array]:
    out = []
    for i in range(len(x)):
        step = 1e-5 * (np.arange(len(x)) == i)
        out.append((f(x + step) - f(x - step)) / 2e-5)
    return out


@pytest.mark.parametrize("name", [name for name in MODELS if name != "sd"])
def test_satterthwaite_by_the_definition(name: str) -> None:
    m = _model(name)
    V, criterion, x = definition(m)
    X = m.fit.design.X

    def covariance(at: Array) -> Array:
        return np.asarray(np.linalg.inv(X.T @ np.linalg.inv(V(at)) @ X))

    A, slopes = 2.0 * np.linalg.inv(_hessian(criterion, x)), _slopes(covariance, x)
    want = []
    for j, variance in enumerate(np.diag(covariance(x))):
        g = np.array([slope[j, j] for slope in slopes])
        want.append(2.0 * variance**2 / (g @ A @ g))
    found = m.coef_table("satterthwaite").to_frame()["df"]
    np.testing.assert_allclose(found, want, rtol=2e-4)


def _kenward_roger(m: Any) -> tuple[Array, Array]:
    """Standard errors and df with V's first derivatives, in whatever parameters."""
    V, _, x = definition(m)
    X = m.fit.design.X
    G = _slopes(V, x)
    W = np.linalg.inv(V(x))
    C = np.linalg.inv(X.T @ W @ X)
    P = W - W @ X @ C @ X.T @ W
    weights = 2.0 * np.linalg.pinv([[np.trace(P @ a @ P @ b) for b in G] for a in G])
    slopes = [-X.T @ W @ a @ W @ X for a in G]
    gain = np.zeros_like(C)
    for i, a in enumerate(G):
        for j, b in enumerate(G):
            Q = X.T @ W @ a @ W @ b @ W @ X
            gain += weights[i, j] * (Q - slopes[i] @ C @ slopes[j])
    adjusted = C + 2.0 * C @ gain @ C
    df = []
    for j in range(len(C)):
        # One contrast: A1 = A2 and ν = 2/A2 up to Kenward and Roger's own refinements, which are 1.
        t = np.array([(C @ s @ C)[j, j] / C[j, j] for s in slopes])
        df.append(2.0 / float(t @ weights @ t))
    return np.sqrt(np.diag(adjusted)), np.array(df)


@pytest.mark.parametrize("name", MODELS)
def test_kenward_roger_by_the_definition(name: str) -> None:
    m = _model(name)
    se, df = _kenward_roger(m)
    found = m.coef_table("kenward-roger").to_frame()
    np.testing.assert_allclose(found["Std. Error"], se, rtol=1e-6)
    np.testing.assert_allclose(found["df"], df, rtol=1e-5)


@pytest.mark.long
def test_balanced_trials_are_exact() -> None:
    """Complete data: contrasts between children have N − 2 degrees of freedom, whatever visits."""
    data = teeth().groupby("child").filter(lambda rows: len(rows) == 4)
    m = lmm.lmer("y ~ C(visit) * sex", data, residual="us(visit | child)")
    n = data["child"].nunique()
    for ddf in ("kenward-roger", "satterthwaite"):
        np.testing.assert_allclose(m.coef_table(ddf).to_frame()["df"], n - 2, rtol=1e-5)
    plain = m.coef_table("none").to_frame()
    np.testing.assert_allclose(
        m.coef_table("kenward-roger").to_frame()["Std. Error"], plain["Std. Error"], rtol=1e-7
    )
    table = lmm.anova(m, ddf="kenward-roger").to_frame()
    assert table.loc["C(visit):sex", "NumDF"] == 3
    assert table.loc["C(visit):sex", "DenDF"] == pytest.approx(n - 2 - 2, rel=1e-5)


def test_an_unstructured_covariance_as_random_effects() -> None:
    """Random effects for every visit, beside residuals of a known small variance: other code."""
    data = teeth().assign(v=lambda d: d["visit"].map("v{}".format))
    m = lmm.lmer("y ~ v * sex", data, residual="us(v | child)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = lmm.lmer("y ~ v * sex + (0 + v | child)", data, fixed={"sigma": 0.3})
    assert m.fit.criterion == pytest.approx(other.fit.criterion, abs=1e-6)
    for ddf in ("kenward-roger", "satterthwaite"):
        tables = [each.coef_table(ddf).to_frame() for each in (m, other)]
        for column in ("Estimate", "Std. Error", "df"):
            np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=2e-4)
    R = other.varcorr.terms[0].covariance + 0.09 * np.eye(4)
    np.testing.assert_allclose(m.residual.covariance, R, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["us", "ar1", "car1", "cs"])
def test_covariance_of_the_parameters(name: str) -> None:
    m = _model(name, reml=False)
    _, criterion, x = definition(m)
    A = 2.0 * np.linalg.inv(_hessian(criterion, x))
    d, structure = len(m.theta), m.fit.structure
    J = structure.slopes(m.fit.phi)
    errors = m.vcov_varcorr()
    np.testing.assert_allclose(
        errors.iloc[d:-1, d:-1], J @ A[d:-1, d:-1] @ J.T, rtol=2e-3, atol=1e-6
    )
    assert errors.loc["sigma", "sigma"] == pytest.approx(A[-1, -1], rel=2e-3)


def _least(m: Any, held: dict[int, float], fixed: int | None = None, at: float = 0.0) -> float:
    """The least deviance with elements of (θ, natural φ, σ), or a fixed effect, held."""
    fit, design = m.fit, m.fit.design
    V, _, x = definition(m)
    d = len(fit.theta)
    X, y = design.X, design.y
    if fixed is not None:
        y, X = y - at * X[:, fixed], np.delete(X, fixed, axis=1)
    start = np.concatenate([fit.theta, fit.natural, [np.log(fit.sigma)]])
    free = np.array([i for i in range(len(x)) if i not in held])

    def value(part: Array) -> float:
        full = start.copy()
        for i, v in held.items():
            full[i] = v
        full[free] = part
        try:
            phi = fit.structure.from_natural(full[d:-1])
            S = V(np.concatenate([full[:d], phi, [np.exp(full[-1])]]))
            W = np.linalg.inv(S)
            r = y - X @ np.linalg.solve(X.T @ W @ X, X.T @ W @ y)
            out = np.linalg.slogdet(S)[1] + r @ W @ r + len(y) * np.log(2 * np.pi)
        except np.linalg.LinAlgError:
            return 1e10
        return float(out) if np.isfinite(out) else 1e10

    found = so.minimize(value, start[free], method="BFGS", options={"gtol": 1e-7})
    found = so.minimize(
        value, found.x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11}
    )
    return float(found.fun)


def _least_on(m: Any, parameter: str, at: float) -> float:
    """The least deviance with a correlation of us() held, by a search with a constraint."""
    fit = m.fit
    _, criterion, x = definition(m)
    d, i = len(fit.theta), fit.phi_names.index(parameter)
    constraint = {"type": "eq", "fun": lambda z: fit.structure.natural(z[d:-1])[i] - at}
    found = so.minimize(
        criterion,
        x,
        method="SLSQP",
        constraints=constraint,
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return float(found.fun + m.nobs * np.log(2 * np.pi))


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("car1", "Phi"),
        ("car1", "sigma"),
        ("car1", "age"),
        ("cs", "Rho"),
        ("cs", "logsd.log(age)"),
        ("ar1", "Phi"),
        ("ar1", "sd_Intercept|child"),
        ("us_sd", "cor.4.2"),
        ("us_sd", "sd.3"),
        ("us_sd", "visit"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_profile_intervals(name: str, parameter: str) -> None:
    """At both ends the deviance has risen by 3.84, all else at its best."""
    m = _model(name, reml=False)
    limits = m.confint("profile", which=parameter).loc[parameter]
    names = [*m.theta.index, *m.residual.parameters.index, "sigma"]
    for limit in limits:
        if parameter in m.fixef.index:
            j = list(m.fixef.index).index(parameter)
            least = _least(m, {}, j, limit)
        elif parameter.startswith("sd_"):
            continue
        elif parameter.startswith("cor."):
            least = _least_on(m, parameter, limit)
        else:
            value = np.log(limit) if parameter == "sigma" else limit
            least = _least(m, {names.index(parameter): value})
        assert least - m.deviance == pytest.approx(3.841459, abs=2e-2)
    estimate = {**m.fixef, **m.residual.parameters, "sigma": m.sigma}.get(parameter)
    if estimate is not None:
        assert limits["lower"] < estimate < limits["upper"]


def test_wald_and_bootstrap_intervals() -> None:
    m = _model("car1")
    wald = m.confint("wald")
    assert wald.index.tolist() == ["Phi", "sigma", *m.fixef.index]
    assert wald.loc["sigma"].isna().all()
    profiled = m.confint("profile", which="Phi").loc["Phi"]
    np.testing.assert_allclose(wald.loc["Phi"], profiled, atol=0.05)
    us = _model("us").confint("wald")
    assert (us["upper"] > us["lower"])[us.index.str.startswith(("sd.", "cor."))].all()
    found = m.confint("boot", n=40, rng=1)
    assert found.index.tolist() == wald.index.tolist()
    assert found.loc["Phi", "lower"] < m.residual.parameters["Phi"] < found.loc["Phi", "upper"]
    with pytest.raises(lmm.OptionError, match="semiparametric"):
        m.bootstrap(2, rng=1, kind="semiparametric")
    with pytest.raises(lmm.OptionError, match="theta_draws"):
        m.predict(interval="confidence", theta_draws=3)


def test_structures_are_compared() -> None:
    data = teeth()
    fits = [
        lmm.lmer("y ~ visit * sex", data, **options)  # type: ignore[arg-type]
        for options in (
            {"residual": "ar1(visit | child)"},
            {"residual": "ar1(visit | child)", "residual_sd": "~ sex"},
        )
    ]
    table = lmm.anova(*fits).to_frame()
    assert table["npar"].tolist() == [6, 7]
    assert table["Df"].iloc[1] == 1
    ml = [lmm.lmer("y ~ visit * sex", data, reml=False, residual="ar1(visit | child)").deviance]
    assert table["deviance"].iloc[0] == pytest.approx(ml[0], abs=1e-5)
    assert 0 < table["Pr(>Chisq)"].iloc[1] < 1
    us = lmm.lmer("y ~ visit * sex", data, residual="us(visit | child)")
    within = lmm.anova(fits[0], us)
    assert within.to_frame()["Df"].iloc[1] == 8
    assert 0 < within.to_frame()["Pr(>Chisq)"].iloc[1] <= 1
    apart = lmm.anova(fits[1], us)
    assert np.isnan(apart.to_frame()["Pr(>Chisq)"].iloc[1])
    assert "standard deviations of residuals" in str(apart)
    plain = lmm.lmer("y ~ visit * sex + (1 | child)", data)
    assert np.isnan(lmm.anova(plain, us).to_frame()["Pr(>Chisq)"].iloc[1])


@pytest.mark.long
def test_deletions_keep_the_structure() -> None:
    data = teeth()
    options = {"residual": "ar1(visit | child)", "residual_sd": "~ sex"}
    m = lmm.lmer("y ~ visit * sex + (1 | child)", data, **options)  # type: ignore[arg-type]
    small = lmm.lmer("y ~ visit + sex + (1 | child)", data, reml=False, **options)  # type: ignore[arg-type]
    table = m.drop1().to_frame()
    assert table.loc["visit:sex", "AIC"] == pytest.approx(small.aic, abs=1e-4)
    without = lmm.lmer("y ~ visit * sex", data, **options)  # type: ignore[arg-type]
    ranova = m.ranova().to_frame()
    assert ranova.loc["(1 | child)", "logLik"] == pytest.approx(without.loglik, abs=1e-5)
    assert ranova.loc["(1 | child)", "Df"] == 1
    step = m.step(alpha_random=1e-9)
    assert step.model.residual is not None


def test_means_know_the_structure() -> None:
    m = _model("us")
    table = m.emmeans("visit", ddf="kenward-roger").to_frame()
    assert len(table) == 4
    assert (table["df"] < 27).all()
    pairs = m.emmeans("sex", by="visit", pairwise=True, ddf="kenward-roger")
    assert pairs is not None
