"""`Krylov`: solutions against `Dense`, estimates against what they estimate."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.tangents import derivatives_of_T
from lmmsparse.engine.products import side_by_side
from lmmsparse.engine.solvers.krylov import conjugate, probes
from lmmsparse.engine.solvers.krylov import point as krylov_point

MODELS = (
    "y ~ x + (1 | u) + (1 | i)",
    "y ~ x + (x | u) + (z | i) + (1 | k)",
    "y ~ x + (1 | u) + (0 + x | u) + (1 | i) + (0 + z | i) + (1 | k)",
    "y ~ 0 + (1 | u) + (x + z | i)",
    "y ~ x + (1 | i) + diag(x + z | u) + (1 | k:i)",
)


@cache
def crossed(n: int = 400, users: int = 40, items: int = 15, seed: int = 1) -> pd.DataFrame:
    """Three crossed factors with weights and an offset."""
    r = np.random.default_rng(seed)
    d = pd.DataFrame({"x": r.normal(size=n), "z": r.normal(size=n), "w": r.uniform(0.5, 2, n)})
    d["o"] = r.normal(size=n)
    for name, levels in (("u", users), ("i", items), ("k", 7)):
        d[name] = np.append(np.arange(levels), r.integers(0, levels, n - levels))
    d["y"] = (
        d["x"]
        + d["o"]
        + r.normal(size=users)[d["u"]] * (1 + 0.5 * d["x"])
        + r.normal(size=items)[d["i"]]
        + r.normal(size=n)
    )
    return d


@cache
def fitted(formula: str, reml: bool = True) -> lmm.Fit:
    d = crossed()
    design = lmm.build_design(lmm.parse_formula(formula), d, weights="w", offset="o")
    return lmm.fit_design(design, reml=reml, solver=lmm.Dense())


def away(fit: lmm.Fit) -> np.ndarray:
    """Some θ beside the optimum."""
    return fit.template.with_held(np.asarray(fit.theta) * 1.1 + 0.05)


def exact_system(fit: lmm.Fit, monkeypatch: pytest.MonkeyPatch):
    """All directions deflated: nothing is left to chance."""
    monkeypatch.setattr(probes, "_TOL", 1e-12)
    monkeypatch.setattr(probes, "_TIGHT", 1e-12)
    monkeypatch.setattr(krylov_point, "_TOL", 1e-12)
    system = lmm.Krylov(tol=1e-12).build(fit.products, fit.template)
    system._vectors = np.eye(fit.products.core)
    return system


@pytest.mark.parametrize("formula", MODELS)
def test_solutions_are_those_of_the_definition(formula: str):
    fit = fitted(formula)
    theta, response = away(fit), fit.objective.response
    dense = fit.objective.system
    system = lmm.Krylov(tol=1e-12).build(fit.products, fit.template)
    b = np.random.default_rng(0).normal(size=(fit.products.q, 3))
    np.testing.assert_allclose(
        system.factor(theta).solve(b), dense.factor(theta).solve(b), atol=1e-10
    )
    np.testing.assert_allclose(system.cells.times(b), fit.products.ZtZ @ b, atol=1e-11)
    mine, theirs = system.solve(theta, response), dense.solve(theta, response)
    np.testing.assert_allclose(mine.RX, theirs.RX, atol=1e-11)
    np.testing.assert_allclose(mine.beta, theirs.beta, atol=1e-10)
    assert abs(mine.pwrss / theirs.pwrss - 1) < 1e-11
    modes, exact = system.modes(theta, response), fit.objective.modes(theta)
    np.testing.assert_allclose(modes.u, exact.u, atol=1e-10)
    np.testing.assert_allclose(modes.b, exact.b, atol=1e-10)
    np.testing.assert_allclose(modes.v, exact.v, atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", MODELS)
def test_with_all_directions_deflated_nothing_is_estimated(
    formula: str, reml: bool, monkeypatch: pytest.MonkeyPatch
):
    fit = fitted(formula, reml)
    theta, response = away(fit), fit.objective.response
    system = exact_system(fit, monkeypatch)
    dense, D = fit.objective.system, derivatives_of_T(fit.template, theta)
    assert abs(system.solve(theta, response).logdet_M - dense.factor(theta).logdet) < 1e-9
    mine = system.point(theta, response, reml)
    theirs = dense.point(theta, response, reml)
    for own, want in zip(mine.FT, theirs.FT, strict=True):
        np.testing.assert_allclose(own, want, atol=1e-8)
    np.testing.assert_allclose(mine.VX, theirs.VX, atol=1e-9)
    np.testing.assert_allclose(mine.squares(D), theirs.squares(D), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mine.pwrss_gradient(D), theirs.pwrss_gradient(D), atol=1e-8)
    inverse = dense.factor(theta).inverse_blocks()
    for terms in fit.design.groups.values():
        want = side_by_side(fit.products, inverse, terms)
        np.testing.assert_allclose(system.factor(theta).own_blocks(terms), want, atol=1e-9)


@pytest.mark.parametrize("formula", MODELS[:4])
@pytest.mark.parametrize("where", [0, -1])
def test_traces_where_a_variance_is_almost_nothing(
    formula: str, where: int, monkeypatch: pytest.MonkeyPatch
):
    fit = fitted(formula)
    theta = away(fit)
    theta[where] = 1e-9
    system = exact_system(fit, monkeypatch)
    response = fit.objective.response
    mine = system.point(theta, response, True)
    theirs = fit.objective.system.point(theta, response, True)
    for own, want in zip(mine.FT, theirs.FT, strict=True):
        np.testing.assert_allclose(own, want, atol=1e-7 * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("formula", ["y ~ x + (x | u) + (1 | i)", "y ~ x + (1 | u) + (z | i)"])
def test_the_mean_over_all_signs_is_the_truth(formula: str, monkeypatch: pytest.MonkeyPatch):
    d = crossed(120, 14, 3 if "z" in formula else 6, 2)
    d = d.assign(w=1.0)
    design = lmm.build_design(lmm.parse_formula(formula), d, weights="w")
    fit = lmm.fit_design(design, solver=lmm.Dense())
    every = list(itertools.product([-1.0, 1.0], repeat=fit.products.core))
    monkeypatch.setattr(probes, "signs", lambda seed, number, size: np.array(every[number]))
    monkeypatch.setattr(probes, "_TOL", 1e-12)
    theta, response = away(fit), fit.objective.response
    system = lmm.Krylov(probes=len(every), tol=1e-12).build(fit.products, fit.template)
    exact = fit.objective.system
    assert abs(system.factor(theta).logdet - exact.factor(theta).logdet) < 1e-9
    mine, theirs = system.point(theta, response, True), exact.point(theta, response, True)
    for own, want in zip(mine.FT, theirs.FT, strict=True):
        np.testing.assert_allclose(own, want, atol=1e-8)


def test_errors_are_what_is_said_of_them():
    fit = fitted(MODELS[1])
    theta, response = np.asarray(fit.theta), fit.objective.response
    exact = fit.objective.system.factor(theta).logdet
    point = fit.objective.system.point(theta, response, True)
    logs, traces = [], []
    for seed in range(40):
        system = lmm.Krylov(seed=seed).build(fit.products, fit.template)
        logs.append((system.factor(theta).logdet - exact, system.logdet_sd(theta)))
        mine = system.point(theta, response, True)
        for own, want, errors in zip(mine.FT, point.FT, mine.FT_errors, strict=True):
            sd = np.sqrt(np.einsum("sij,sij->ij", errors, errors) / (32 * 31))
            traces.append(((own - want).ravel(), sd.ravel()))
    error, sd = np.array(logs).T
    assert 0.75 < np.sqrt(np.mean(error**2) / np.mean(sd**2)) < 1.35
    error, sd = (np.concatenate(part) for part in zip(*traces, strict=True))
    assert 0.75 < np.sqrt(np.mean((error / sd) ** 2)) < 1.35


def test_neither_blocks_nor_other_columns_change_a_result(monkeypatch: pytest.MonkeyPatch):
    fit = fitted(MODELS[1])
    theta, response = away(fit), fit.objective.response
    values = []
    for width in (1, 7, 50):
        monkeypatch.setattr(probes, "_BLOCK", width)
        system = lmm.Krylov().build(fit.products, fit.template)
        point = system.point(theta, response, True)
        values.append(np.concatenate([[system.factor(theta).logdet], *map(np.ravel, point.FT)]))
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], rtol=1e-12, atol=1e-12)


def test_a_response_solved_alone_is_the_same(monkeypatch: pytest.MonkeyPatch):
    fit = fitted(MODELS[1])
    theta, response = away(fit), fit.objective.response
    system = lmm.Krylov().build(fit.products, fit.template)
    first = system.solve(theta, response)
    again = system.factor(theta)
    other = replace(response, Zty=0.1 * response.Zty[::-1])
    again.solution(other)
    alone = again.solution(response)
    np.testing.assert_allclose(alone.beta, first.beta, atol=1e-11)
    assert abs(alone.pwrss / first.pwrss - 1) < 1e-12


def test_conjugate_gradients_that_do_not_converge_say_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conjugate, "MOST_STEPS", 5)
    values = np.geomspace(1.0, 1e6, 50)
    b = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(NumericalError, match=r"converged in 5 steps.*largest eigenvalue"):
        conjugate.solve(lambda y: values[:, None] * y, b, 1e-10)


def test_quadrature_of_logarithms():
    r = np.random.default_rng(3)
    Q = np.linalg.qr(r.normal(size=(30, 30)))[0]
    values = r.uniform(0.3, 1.5, 30)
    A = Q * values @ Q.T
    b = np.column_stack([r.normal(size=(30, 3)), np.zeros(30)])
    found = conjugate.solve(lambda y: A @ y, b, 1e-13)
    np.testing.assert_allclose(found.y, np.linalg.solve(A, b), atol=1e-11)
    log = Q * np.log(values) @ Q.T
    np.testing.assert_allclose(
        found.logarithms()[0], np.einsum("ij,ik,kj->j", b, log, b), rtol=1e-9
    )
    np.testing.assert_allclose(found.squares(), np.einsum("ij,ik,kj->j", b, A, b), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 1}, "probes of Krylov must be 2 or more"),
        ({"probes": 2.5}, "probes of Krylov must be a positive whole number"),
        ({"deflate": -1}, "deflate of Krylov"),
        ({"seed": -1}, "seed of Krylov"),
        ({"tol": 0.1}, "tol of Krylov must be at most 1e-4"),
        ({"near": [1.0]}, "near of Krylov"),
        ({"prob": 3}, "prob"),
    ],
)
def test_options(options, message):
    with pytest.raises(lmm.OptionError, match=message):
        lmm.Krylov(**options)
