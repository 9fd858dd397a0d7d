"""Profile likelihood: against lme4's intervals, and against its definition."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

import lmmsparse as lmm
from lmmsparse.common.errors import ConvergenceWarning, OptionError
from lmmsparse.fit.refit import maximum_likelihood
from lmmsparse.inference.intervals.profile.curve import Curve
from lmmsparse.inference.intervals.profile.profile import profile
from lmmsparse.results.parameters import parameter_names, parameter_values

# lme4 1.1-31, confint(method = "profile"), 95 %; rows in the order of our table. The last number is
# the agreement to expect: lme4 interpolates its curve, and where that is its limit the definition
# below says which of the two is right.
LME4: dict[str, tuple[str, str, list[list[float]], float]] = {
    "dyestuff": (
        "Yield ~ 1 + (1 | Batch)",
        "Dyestuff",
        [[12.1985352, 84.0630467], [38.2299849, 67.6576962], [1486.4515, 1568.5484944]],
        2e-4,
    ),
    "dyestuff2": (
        "Yield ~ 1 + (1 | Batch)",
        "Dyestuff2",
        [[0.0, 2.08404349], [2.89283102, 4.81583255], [4.31210022, 7.01909235]],
        2e-4,
    ),
    "penicillin": (
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        "Penicillin",
        [
            [0.633565967, 1.182103991],
            [1.095789188, 3.556291637],
            [0.4858454, 0.629453478],
            [21.266627384, 24.677817616],
        ],
        1e-4,
    ),
    "pastes": (
        "strength ~ 1 + (1 | batch / cask)",
        "Pastes",
        [
            [2.157933708, 4.05358894],
            [0.0, 2.9465911],
            [0.652023359, 1.0854481],
            [58.66365, 61.44302],
        ],
        1e-4,
    ),
    "intercept": (
        "Reaction ~ Days + (1 | Subject)",
        "sleepstudy",
        [
            [26.00712, 52.93598],
            [27.81384721, 34.5910499],
            [231.992326, 270.817884],
            [8.886551, 12.048021],
        ],
        1e-5,
    ),
    "slope": (
        "Reaction ~ Days + (Days | Subject)",
        "sleepstudy",
        [
            [14.381473, 37.715992],
            [-0.4815008, 0.6849863],
            [3.801164, 8.753385],
            [22.898267, 28.857997],
            [237.680696, 265.129515],
            [7.358653, 13.575919],
        ],
        1e-4,
    ),
    "independent": (
        "Reaction ~ Days + (Days || Subject)",
        "sleepstudy",
        [
            [15.258647, 37.786471],
            [3.964074, 8.769159],
            [22.880555, 28.787598],
            [237.572148, 265.238062],
            [7.334067, 13.600505],
        ],
        1e-5,
    ),
}


@cache
def model(formula: str, data: str, reml: bool = True) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.errors.SingularFitWarning)
        return lmm.lmer(formula, lmm.load_dataset(data), reml=reml)


@pytest.mark.parametrize("name", LME4)
@pytest.mark.parametrize("reml", [True, False])
def test_intervals_are_those_of_lme4(name: str, reml: bool) -> None:
    formula, data, expected, tolerance = LME4[name]
    ours = model(formula, data, reml).confint()
    assert ours.columns.tolist() == ["lower", "upper"]
    np.testing.assert_allclose(ours.to_numpy(), expected, rtol=tolerance)


def test_rows_are_covariance_parameters_then_sigma_then_fixed_effects() -> None:
    m = model(*LME4["slope"][:2])
    assert m.confint().index.tolist() == [
        "sd_Intercept|Subject",
        "cor_Days.Intercept|Subject",
        "sd_Days|Subject",
        "sigma",
        "Intercept",
        "Days",
    ]
    some = m.confint(which=["Days", "sigma"])
    assert some.index.tolist() == ["Days", "sigma"]
    assert m.confint(which="beta_").index.tolist() == ["Intercept", "Days"]


def least_deviance(fit: Any, name: str, value: float) -> float:
    """The constrained optimum by a general-purpose search over θ and log σ, and a dense GLS."""
    design, template = fit.design, fit.template
    names = [*parameter_names(fit), *design.x_names]
    index = names.index(name)
    y, X = design.y - design.offset_or_zero, design.X
    if index > template.n_theta:
        column = index - template.n_theta - 1
        y, X = y - value * X[:, column], np.delete(X, column, axis=1)
    terms = [(b.codes[:, None] == b.codes, b.columns) for b in design.blocks]
    noise, right = np.diag(1.0 / design.weights_or_one), np.column_stack([X, y])

    def deviance(phi: np.ndarray) -> float:
        V = noise.copy()
        for (same, C), T in zip(terms, template.factors(phi[:-1]), strict=True):
            V += same * ((C @ T) @ (C @ T).T)
        L = np.linalg.cholesky(V)
        half = solve_triangular(L, right, lower=True, check_finite=False)
        A, b = half[:, :-1], half[:, -1]
        rest = b - A @ np.linalg.lstsq(A, b, rcond=None)[0]
        logdet = 2.0 * np.log(np.diag(L)).sum()
        tau = 2.0 * phi[-1]
        squares = rest @ rest / np.exp(tau)
        return float(logdet + squares + design.n * (np.log(2 * np.pi) + tau))

    constraints = []
    if index <= template.n_theta:
        constraints.append(
            {
                "type": "eq",
                "fun": lambda phi: parameter_values(fit, phi[:-1], np.exp(phi[-1]))[index] - value,
            }
        )
    # Off zero, where every search would stay.
    start = np.append(np.where(fit.theta == 0, 0.3, fit.theta), np.log(fit.sigma))
    bounds = [*zip(template.lower, template.upper, strict=True), (None, None)]
    found = minimize(
        deviance,
        start,
        method="SLSQP",
        bounds=bounds,
        constraints=constraints,
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return float(found.fun)


@cache
def three_effects() -> Any:
    rng = np.random.default_rng(3)
    groups, n = 14, 14 * 9
    g = np.repeat(np.arange(groups), 9)
    x, z = rng.normal(size=n), rng.normal(size=n)
    b = rng.normal(size=(groups, 3)) @ np.array([[1.0, 0.5, -0.3], [0, 0.8, 0.4], [0, 0, 0.6]])
    y = 2 + x + b[g, 0] + b[g, 1] * x + b[g, 2] * z + rng.normal(size=n)
    w = rng.uniform(0.5, 2.0, size=n)
    data = pd.DataFrame({"y": y, "x": x, "z": z, "g": g, "w": w, "o": 0.3 * z})
    return lmm.lmer("y ~ x + (x + z | g)", data, weights="w", offset="o")


@pytest.mark.parametrize("which", ["three effects", "dyestuff", "dyestuff2", "slope"])
def test_zeta_is_the_root_of_the_rise_in_the_deviance(which: str) -> None:
    m = three_effects() if which == "three effects" else model(*LME4[which][:2])
    fit = maximum_likelihood(m.fit).fit
    limits = m.confint()
    z = stats.norm.ppf(0.975)
    for name, (lower, upper) in limits.iloc[:: 2 if which == "three effects" else 1].iterrows():
        for limit in (lower, upper):
            if limit in (0.0, -1.0, 1.0) or not np.isfinite(limit):
                continue
            rise = least_deviance(fit, str(name), limit) - fit.criterion
            assert np.sqrt(rise) == pytest.approx(z, rel=2e-4), name


def test_an_open_side_is_the_bound() -> None:
    d = lmm.load_dataset("Dyestuff2")
    with pytest.warns(lmm.errors.SingularFitWarning):
        m = lmm.lmer("Yield ~ (1 | Batch)", d)
    assert m.confint(which="theta_").loc["sd_Intercept|Batch", "lower"] == 0.0
    assert m.confint(level=0.5).loc["sd_Intercept|Batch", "lower"] == 0.0


def test_the_correlation_with_an_effect_that_does_not_vary_is_anything() -> None:
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(6), 5), np.tile(np.arange(5.0), 6)
    y = rng.normal(size=30) - 0.0
    y -= np.repeat(y.reshape(6, 5).mean(axis=1), 5)  # no differences between groups at all
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.errors.SingularFitWarning)
        m = lmm.lmer("y ~ x + (x | g)", pd.DataFrame({"y": y, "x": x, "g": g}))
    limits = m.confint()
    assert not limits.isna().any().any()
    assert limits.loc["sd_Intercept|g", "lower"] == 0.0


def least_with_correlation(fit: Any, rho: float) -> float:
    """The least deviance over both standard deviations of (x | g), zero included, from anywhere."""
    size = np.sqrt((fit.design.blocks[0].columns ** 2).mean(axis=0))

    def deviance(sd: np.ndarray) -> float:
        first, second = sd / size
        return fit.objective(
            np.array([first, second * rho, second * np.sqrt(max(0.0, 1.0 - rho**2))])
        )

    found = [
        minimize(
            deviance,
            start,
            method="Nelder-Mead",
            bounds=[(0, None)] * 2,
            options={"xatol": 1e-4, "fatol": 1e-8},
        ).fun
        for start in ([0.3, 0.3], [1, 1], [1, 0.01], [0.01, 1], [0, 1], [1, 0])
    ]
    return float(min(found))


def small_slopes(seed: int) -> Any:
    """Few groups with little variance: estimates of ±1 and within, all undetermined or nearly."""
    rng = np.random.default_rng(seed)
    groups, n = int(rng.integers(5, 14)), int(rng.integers(3, 7))
    g, x = np.repeat(np.arange(groups), n), rng.normal(size=groups * n)
    sd, rho = rng.choice([0, 0.15, 0.4, 1], 2), rng.choice([-0.95, 0, 0.6, 0.95])
    z = rng.normal(size=(groups, 2)) @ np.array([[1.0, rho], [0.0, np.sqrt(1 - rho**2)]]) * sd
    y = z[g, 0] + z[g, 1] * x + rng.normal(size=groups * n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.errors.SingularFitWarning)
        return lmm.lmer("y ~ x + (x | g)", pd.DataFrame({"y": y, "x": x, "g": g}), reml=False)


@pytest.mark.long
@pytest.mark.parametrize("seed", ["orthodont", 1, 6, 7, 14, 19, 22])
def test_a_correlation_is_free_where_an_effect_does_not_vary(seed: Any) -> None:
    m = models.fit("orthodont_sex_ml") if seed == "orthodont" else small_slopes(seed)
    name = str(m.confint(which="theta_").index[1])
    found = m.profile(name)
    frame = found.to_frame()
    assert frame["zeta"].is_monotonic_increasing
    assert frame["value"].iloc[0] == -1.0 or frame["zeta"].iloc[0] < -2
    np.testing.assert_array_equal(frame[name], frame["value"])
    some = frame.iloc[[*range(0, len(frame) - 1, 2), -1]]
    for value, zeta in zip(some["value"], some["zeta"], strict=True):
        rise = least_with_correlation(m.fit, value) - m.fit.criterion
        assert zeta**2 == pytest.approx(rise, abs=1e-5), value
    limits, text = found.confint().loc[name], str(found)
    for side, bound in (("lower", -1.0), ("upper", 1.0)):
        is_open = limits[side] == bound
        assert is_open == (frame["zeta"].abs().iloc[0 if side == "lower" else -1] < 1.9599)
    assert (f"Without a limit: {name}" in text) == limits.abs().eq(1.0).any()
    assert ("leaves it undetermined" in text) == ("Without a limit" in text)


@pytest.mark.long
@pytest.mark.parametrize("seed", [8, 10])
def test_a_common_correlation_with_deviations_that_come_and_go(seed: int) -> None:
    """Where one standard deviation is zero there can be another, better minimum without it."""
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(6, 15))
    g, t = np.repeat(np.arange(groups), 6), np.tile(np.repeat(np.arange(3), 2), groups)
    sd, rho = rng.choice([0, 0.3, 0.6, 1.0]), rng.choice([-0.3, 0, 0.5, 0.9])
    L = np.linalg.cholesky((1 - rho + 1e-9) * np.eye(3) + rho)
    y = (sd * rng.normal(size=(groups, 3)) @ L.T)[g, t] + rng.normal(size=len(g))
    data = pd.DataFrame({"y": y, "t": t.astype(str), "g": g})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.errors.LmmWarning)
        m = lmm.lmer("y ~ 1 + cs(0 + t | g)", data, reml=False)
    frame = m.profile("rho|g").to_frame().iloc[::2]
    for value, zeta in zip(frame["value"], frame["zeta"], strict=True):
        found = [
            minimize(
                lambda sd, value=value: m.fit.objective(np.append(sd, value)),
                start,
                method="L-BFGS-B",
                bounds=[(0, None)] * 3,
            ).fun
            for start in ([0.7, 0.1, 0.9], [0.8, 0, 1], [0, 0.3, 1], [0.5, 0.5, 0], [1, 1, 1])
        ]
        assert zeta**2 < min(found) - m.fit.criterion + 1e-5, value


@pytest.mark.long
def test_the_frame_holds_the_curve_and_everything_along_it() -> None:
    m = model(*LME4["slope"][:2])
    found = m.profile()
    frame = found.to_frame()
    assert frame.columns[:3].tolist() == ["parameter", "value", "zeta"]
    assert frame.columns[3:].tolist() == m.confint().index.tolist()
    cutoff = np.sqrt(stats.chi2.ppf(0.99, 6))
    for name, part in frame.groupby("parameter"):
        assert part["value"].is_monotonic_increasing
        assert part["zeta"].is_monotonic_increasing
        assert np.diff(part["zeta"]).max() < cutoff / 3
        np.testing.assert_allclose(part[name], part["value"], rtol=1e-6, atol=1e-9)
        at = part.loc[part["zeta"] == 0.0]
        assert len(at) == 1
        assert part["zeta"].max() > cutoff or name.startswith("cor")
    np.testing.assert_allclose(found.confint(), m.confint(), rtol=1e-5)
    wide = found.confint(0.99)
    assert (wide["lower"] < m.confint()["lower"]).all()
    np.testing.assert_allclose(wide, m.confint(level=0.99), rtol=1e-4, atol=1e-5)


def test_a_level_the_curves_do_not_reach_is_refused() -> None:
    narrow = model(*LME4["dyestuff"][:2]).profile("sigma", level=0.5)
    narrow.confint(0.5)
    with pytest.raises(OptionError, match=r"m\.profile\(level=0\.9\)"):
        narrow.confint(0.9)


def test_units_change_nothing() -> None:
    d = lmm.load_dataset("sleepstudy")
    plain = model(*LME4["slope"][:2]).confint()
    d["Reaction"] *= 1e3
    d["Days"] *= 1e-4
    scaled = lmm.lmer("Reaction ~ Days + (Days | Subject)", d).confint()
    factor = np.array([1e3, 1.0, 1e7, 1e3, 1e3, 1e7])[:, None]
    np.testing.assert_allclose(scaled / factor, plain, rtol=1e-5)


@pytest.mark.long
def test_effects_in_another_order_give_the_same_intervals() -> None:
    m = three_effects()
    data = pd.DataFrame(
        {
            "y": m.fit.design.y,
            "x": m.fit.design.X[:, 1],
            "z": m.fit.design.blocks[0].columns[:, 2],
            "g": m.fit.design.blocks[0].codes,
            "w": m.fit.design.weights,
            "o": m.fit.design.offset,
        }
    )
    other = lmm.lmer("y ~ x + (z + x | g)", data, weights="w", offset="o").confint()
    pairs = {"cor_z.x|g": "cor_x.z|g"}
    ours = m.confint().rename(index=pairs)
    np.testing.assert_allclose(ours, other.loc[ours.index], rtol=1e-4, atol=1e-5)


def test_processes_change_nothing() -> None:
    m = model(*LME4["dyestuff"][:2])
    np.testing.assert_array_equal(m.confint(n_jobs=2), m.confint())


def test_a_better_optimum_is_adopted_and_announced() -> None:
    m = model(*LME4["slope"][:2], reml=False)
    # A fit that stopped early stands for one in a local minimum.
    with pytest.warns(ConvergenceWarning):
        early = lmm.lmer(
            "Reaction ~ Days + (Days | Subject)",
            lmm.load_dataset("sleepstudy"),
            reml=False,
            start=[0.3, 0.1, 0.05],
            optimizer=lmm.Bobyqa(max_eval=3),
        )
    with pytest.warns(ConvergenceWarning, match="lower deviance"):
        found = profile(early.fit)
    assert [finding.code for finding in found.findings] == ["better-optimum"]
    np.testing.assert_allclose(found.confint(), m.confint(), rtol=1e-5)


def test_progress_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    model(*LME4["dyestuff"][:2]).profile("sigma", progress=True)
    assert "1/1" in capsys.readouterr().err


def test_sitka_has_its_two_variance_profiles() -> None:
    m = model("size ~ Time + (Time | tree)", "Sitka")
    frame = m.profile(["sd_Intercept|tree", "sd_Time|tree"]).to_frame()
    assert frame["parameter"].unique().tolist() == ["sd_Intercept|tree", "sd_Time|tree"]
    assert frame.groupby("parameter")["zeta"].apply(np.ptp).min() > 6


@pytest.mark.long
@pytest.mark.parametrize("term", ["cs(0 + t | g)", "ar1(0 + t | g)", "diag(0 + t | g, hom=True)"])
def test_structured_terms_have_profiles(term: str) -> None:
    rng = np.random.default_rng(5)
    g, t = np.repeat(np.arange(20), 6), np.tile(np.repeat(np.arange(3), 2), 20)
    b = rng.normal(size=(20, 1)) + 0.7 * rng.normal(size=(20, 3))
    data = pd.DataFrame({"y": b[g, t] + 0.5 * rng.normal(size=120), "t": t.astype(str), "g": g})
    m = lmm.lmer(f"y ~ 1 + {term}", data)
    fit = maximum_likelihood(m.fit).fit
    for name, row in m.confint(which="theta_").iterrows():
        for limit in row:
            if 0 < abs(limit) < 1:
                rise = least_deviance(fit, str(name), limit) - fit.criterion
                assert np.sqrt(rise) == pytest.approx(1.959964, rel=5e-4), name


def test_a_curve_that_falls_again_beyond_its_crossing() -> None:
    """Where an effect's variance goes to zero its correlation is free: |zeta| jumps down."""
    value = np.array([-1.0, -0.96, -0.95, -0.9, -0.7, -0.5, -0.3, 0.0])
    zeta = np.array([-0.9, -0.9, -3.0, -1.9, -0.8, 0.0, 0.5, 1.2])
    curve = Curve(value, zeta, -1.0, 1.0, ())
    assert -0.95 < curve.limit(-1.96) < -0.9
    assert curve.limit(1.0) == pytest.approx(-0.08, abs=0.03)
    assert curve.limit(1.96) == 1.0
