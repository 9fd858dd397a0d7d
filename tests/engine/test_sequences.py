"""Autoregressive terms: where the levels stand, with gaps, as text and as numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import lmmsparse as lmm
from lmmsparse.common.fields import options
from lmmsparse.engine.covariance.correlated import AR1

SEEN = (1, 2, 3, 4, 5, 6, 10)


def _data(seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    L = np.linalg.cholesky(0.7 ** np.abs(np.subtract.outer(np.arange(10), np.arange(10))))
    d = pd.DataFrame([(g, t) for g in range(50) for t in range(1, 11)], columns=["g", "time"])
    d["y"] = np.concatenate([2 * L @ rng.normal(size=10) for _ in range(50)])
    d["y"] += 0.5 * rng.normal(size=500)
    return d[d["time"].isin(SEEN)].reset_index(drop=True)


def _best(d: pd.DataFrame, at: tuple[int, ...]) -> tuple[float, float]:
    """ρ and the restricted log-likelihood by the definition, for levels at some positions."""
    Y = d["y"].to_numpy().reshape(50, len(at))
    steps = np.abs(np.subtract.outer(at, at))

    def criterion(p: np.ndarray) -> float:
        V = np.exp(2 * p[1]) * np.tanh(p[0]) ** steps + np.exp(2 * p[2]) * np.eye(len(at))
        W = np.linalg.inv(V)
        a = 50 * W.sum()
        r = Y - (Y @ W).sum() / a
        logs = 50 * np.linalg.slogdet(V)[1] + np.log(a) + (len(d) - 1) * np.log(2 * np.pi)
        return float((logs + np.einsum("ij,jk,ik", r, W, r)) / 2)

    best = minimize(
        criterion, [0.5, 0.5, -0.5], method="Nelder-Mead", options={"fatol": 1e-11, "xatol": 1e-9}
    )
    return float(np.tanh(best.x[0])), -float(best.fun)


COLUMNS: dict[str, Callable[[pd.Series], object]] = {
    "categorical with unused levels": lambda t: pd.Categorical(t, range(1, 11)),
    "ordered": lambda t: pd.Categorical(t, range(1, 11), ordered=True),
    "text": lambda t: t.astype(str),
    "visits": lambda t: "t" + t.astype(str),
    "in half steps": lambda t: (t / 2).astype(str),
    "from minus": lambda t: (t - 4).astype(str),
    "categorical text": lambda t: pd.Categorical(
        t.astype(str) + "th", [f"{i}th" for i in range(1, 11)]
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_gaps_count(kind: str) -> None:
    d = _data()
    m = lmm.lmer("y ~ 1 + ar1(0 + t | g)", d.assign(t=COLUMNS[kind](d["time"])))
    rho, loglik = _best(d, SEEN)
    assert m.loglik == pytest.approx(loglik, abs=1e-6)
    C = m.varcorr.terms[0].correlation
    assert C[0, 1] == pytest.approx(rho, abs=1e-3)
    assert C[5, 6] == pytest.approx(rho**4, abs=1e-3)
    said = [f.message for f in m.convergence.findings if f.code == "sequence"]
    assert bool(said) == ("categorical" not in kind and kind != "ordered")


def test_numbers_inside_a_call_count_too() -> None:
    d = _data()
    m = lmm.lmer("y ~ 1 + ar1(0 + C(time) | g)", d)
    assert m.loglik == pytest.approx(_best(d, SEEN)[1], abs=1e-6)


def test_a_categorical_of_what_occurs_has_equal_steps() -> None:
    d = _data()
    m = lmm.lmer("y ~ 1 + ar1(0 + t | g)", d.assign(t=pd.Categorical(d["time"], SEEN)))
    assert m.loglik == pytest.approx(_best(d, tuple(range(7)))[1], abs=1e-6)


def test_text_is_in_the_order_of_its_numbers() -> None:
    d = _data()
    d["s"] = d["time"].astype(str)
    m = lmm.lmer("y ~ s + ar1(0 + s | g)", d)
    assert list(m.ranef["g"].columns) == [f"s[{t}]" for t in SEEN]
    alone = lmm.lmer("y ~ C(s) + cs(0 + s | g)", d)  # other terms keep the order of text
    assert list(alone.ranef["g"].columns)[:3] == ["s[1]", "s[10]", "s[2]"]


def test_other_text_has_an_order_that_is_said() -> None:
    d = _data()
    words = dict(zip(SEEN, ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], strict=True))
    d["day"] = d["time"].map(words)
    with (
        pytest.warns(lmm.DesignWarning, match="alphabetical order: fri, mon, sat"),
        pytest.warns(lmm.SingularFitWarning),  # as it is the wrong order
    ):
        lmm.lmer("y ~ 1 + ar1(0 + day | g)", d)
    d["day"] = pd.Categorical(d["day"], words.values())
    assert np.isfinite(lmm.lmer("y ~ 1 + ar1(0 + day | g)", d).loglik)


@pytest.mark.parametrize("hom", [True, False])
@pytest.mark.parametrize("rho", [-0.6, -0.01, 0.0, 0.3, 0.95])
def test_factor_and_derivatives(hom: bool, rho: float) -> None:
    at = (0, 2, 3, 9)
    structure = AR1(4, hom, at)
    sd = np.array([1.3] if hom else [1.3, 0.5, 2.0, 0.9])
    par = np.append(sd, rho)
    T = structure.factor(par)
    expected = rho ** np.abs(np.subtract.outer(at, at)) * np.outer(sd * np.ones(4), sd * np.ones(4))
    np.testing.assert_allclose(T @ T.T, expected, atol=1e-12)
    assert not np.triu(T, 1).any()
    for j, own in enumerate(structure.derivative(par)):
        step = np.zeros(len(par))
        step[j] = 1e-6
        numeric = (structure.factor(par + step) - structure.factor(par - step)) / 2e-6
        np.testing.assert_allclose(own, numeric, atol=1e-8)


def test_positions_are_saved(tmp_path: Path) -> None:
    d = _data()
    d["t"] = pd.Categorical(d["time"], range(1, 11))
    m = lmm.lmer("y ~ 1 + ar1(0 + t | g)", d)
    m.save(tmp_path / "m.lmm")
    loaded = lmm.load(tmp_path / "m.lmm")
    assert loaded.fit.design.blocks[0].structure == m.fit.design.blocks[0].structure
    assert loaded.loglik == pytest.approx(m.loglik)
    assert loaded.refit(d["y"]).loglik == pytest.approx(m.loglik)
    assert loaded.predict(d.head(7)).to_numpy() == pytest.approx(m.fitted.head(7).to_numpy())


@pytest.mark.parametrize("at", [[0, 1], [0, 1, 1], [2, 1, 0], [0, 1, "2"], [0, 1, 10**30], 3])
def test_positions_that_are_none_are_refused_in_a_file(at: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        AR1(**options({"k": 3, "hom": True, "at": at}, AR1))


@pytest.mark.long
@pytest.mark.parametrize("step", [3, 4, 10, 31, 365])
def test_steps_that_are_all_long_are_searched_too(step: int) -> None:
    """At ρ = 0 the criterion is flat where no two levels are neighbours."""
    d = _data()
    times = step * d["time"] + (d["time"] == 3)
    m = lmm.lmer("y ~ 1 + ar1(0 + C(t) | g)", d.assign(t=times))
    at = tuple(step * t + (t == 3) for t in SEEN)
    assert m.loglik == pytest.approx(_best_of_long_steps(d, at), abs=1e-5)
    again = m.refit(d["y"] + 1.0)
    assert again.loglik == pytest.approx(m.loglik, abs=1e-5)


def _best_of_long_steps(d: pd.DataFrame, at: tuple[int, ...]) -> float:
    """The restricted log-likelihood, searched along the correlation over the shortest step."""
    Y = d["y"].to_numpy().reshape(50, len(at))
    steps = np.abs(np.subtract.outer(at, at)) / np.diff(at).min()

    def criterion(p: np.ndarray) -> float:
        V = np.exp(2 * p[1]) * (1 / (1 + np.exp(-p[0]))) ** steps + np.exp(2 * p[2]) * np.eye(
            len(at)
        )
        W = np.linalg.inv(V)
        a = 50 * W.sum()
        r = Y - (Y @ W).sum() / a
        logs = 50 * np.linalg.slogdet(V)[1] + np.log(a) + (len(d) - 1) * np.log(2 * np.pi)
        return float((logs + np.einsum("ij,jk,ik", r, W, r)) / 2)

    options = {"fatol": 1e-11, "xatol": 1e-9, "maxiter": 4000}
    return -float(minimize(criterion, [0.5, 0.5, -0.5], method="Nelder-Mead", options=options).fun)


DAY = pd.Timestamp("2020-01-01", tz="Europe/Berlin")
MOMENTS: dict[str, Callable[[pd.Series], object]] = {
    "dates": lambda t: pd.Timestamp("2020-01-01") + pd.to_timedelta(t, "D"),
    "seconds": lambda t: (pd.Timestamp("2020-01-01") + pd.to_timedelta(t, "D")).dt.as_unit("s"),
    "zone": lambda t: DAY + pd.to_timedelta(t, "h"),
    "durations": lambda t: pd.to_timedelta(t, "h"),
}


@pytest.mark.parametrize("kind", MOMENTS)
def test_moments_are_as_far_apart_as_they_are(kind: str) -> None:
    d = _data()
    m = lmm.lmer("y ~ 1 + ar1(0 + C(t) | g)", d.assign(t=MOMENTS[kind](d["time"])))
    assert m.fit.design.blocks[0].structure.at == (0, 1, 2, 3, 4, 5, 9)
    assert m.loglik == pytest.approx(_best(d, SEEN)[1], abs=1e-6)


@pytest.mark.parametrize("expression", ["t", "C(t)"])
def test_a_categorical_says_its_places_inside_a_call_too(expression: str) -> None:
    d = _data()
    letters = list("abcdefghij")
    d["t"] = pd.Categorical([letters[t - 1] for t in d["time"]], letters)
    m = lmm.lmer(f"y ~ 1 + ar1(0 + {expression} | g)", d)
    assert m.loglik == pytest.approx(_best(d, SEEN)[1], abs=1e-6)
    assert not m.convergence.findings


def test_text_that_became_a_categorical_keeps_the_alphabet_which_is_said() -> None:
    d = _data()
    d["t"] = d["time"].astype(str).astype("category")
    with pytest.warns(lmm.DesignWarning, match="as the categorical lists them: 1, 10, 2, 3"):
        lmm.lmer("y ~ 1 + ar1(0 + t | g)", d)
    d["t"] = d["t"].cat.as_ordered()
    assert np.isfinite(lmm.lmer("y ~ 1 + ar1(0 + t | g)", d).loglik)


def test_slopes_of_levels_stand_where_the_levels_do() -> None:
    d = _data().assign(one=1.0)
    d["t"] = pd.Categorical(d["time"], range(1, 11))
    m = lmm.lmer("y ~ 1 + ar1(0 + t:one | g)", d)
    assert m.loglik == pytest.approx(_best(d, SEEN)[1], abs=1e-6)


def test_numbers_without_a_common_step_are_said() -> None:
    d = _data()
    d["t"] = d["time"] + 1e-7 * np.sqrt(d["time"])
    with pytest.warns(lmm.DesignWarning, match="no small multiple of a common step"):
        m = lmm.lmer("y ~ 1 + ar1(0 + C(t) | g)", d)
    assert m.loglik == pytest.approx(_best(d, tuple(range(7)))[1], abs=1e-6)
