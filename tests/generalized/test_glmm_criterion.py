"""The Laplace criterion against its definition, and its gradient against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import lmmsparse as lmm
from lmmsparse.engine.families import (
    Binomial,
    Family,
    Gamma,
    Gaussian,
    InverseGaussian,
    NegativeBinomial,
    Observations,
    Poisson,
)
from lmmsparse.engine.generalized.laplace import LaplaceDeviance
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.engine.generalized.quadrature import QuadratureDeviance
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.products import pattern_of
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.fit.problem import make_template, term_columns

FORMULAS = {
    "intercept": "y ~ x + (1 | g)",
    "slope": "y ~ x + (x | g)",
    "crossed": "y ~ x + (1 | g) + (1 | h)",
    "slopes": "y ~ x + (x | g) + (0 + x | h)",
    "diag": "y ~ x + (x || g)",
    "cs": "y ~ x + cs(0 + f | g)",
    "ar1": "y ~ x + ar1(0 + f | g)",
}
FAMILIES: list[Family] = [
    *(Binomial(link) for link in ("logit", "probit", "cloglog", "cauchit")),
    Poisson(),
    Poisson("sqrt"),
    NegativeBinomial(),
    Gamma(),
    Gamma("inverse"),
    InverseGaussian(),
    Gaussian("log"),
]


def made(
    family: Family, formula: str, solver: Any = None, seed: int = 1, n: int = 90
) -> tuple[GeneralizedRows, Parameters]:
    """The rows of a model of made-up data, and a point of its criterion."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "g": rng.integers(0, 12, n).astype(str),
            "h": rng.integers(0, 5, n).astype(str),
            "f": rng.choice(list("abc"), n),
            "y": np.ones(n) + 0.1 * rng.normal(size=n),
        }
    )
    design = lmm.build_design(formula, data)
    template = make_template(design)
    theta = rng.uniform(0.2, 0.6, template.n_theta)
    positive = family.link != "log" and not isinstance(family, Binomial)
    fixed = np.array([1.6, 0.05]) if positive else np.array([0.4, 0.5])
    if positive:
        theta *= 0.3
    b = template.Lambda(theta) @ rng.normal(size=template.q)
    eta = design.X @ fixed + design.Z @ b
    delta = -0.7 if family.parameter else 0.0
    trials = rng.integers(1, 6, n).astype(float) if isinstance(family, Binomial) else None
    empty = Observations(np.ones(n), trials)
    y = family.draw(rng, family.mean(np.abs(eta) if positive else eta), empty, delta)
    terms = term_columns(design)
    Q, basis = design.internal_columns(weighted=False)
    pattern = pattern_of(terms)
    products = pattern.products(Q, basis, np.ones(n))
    solver = choose_solver(products) if solver is None else solver
    system = solver.build(products, template)
    offset = 0.1 * rng.normal(size=n)
    seen = Observations(y, trials)
    rows = GeneralizedRows(family, seen, Q, basis, pattern, template, offset, system)
    return rows, Parameters(basis.R @ fixed, theta, delta)


def by_definition(rows: GeneralizedRows, at: Parameters, expected: bool = False) -> float:
    """−2 log of the Laplace approximation, with dense matrices and a general minimizer."""
    family, seen = rows.family, rows.seen
    Z = np.concatenate([t.transposed.toarray() for t in rows.pattern.terms]).T
    ZL = Z @ rows.template.block_diagonal(rows.template.shifted_factors(at.theta)).toarray()
    fixed = rows.Q.times(at.beta) + rows.offset

    def h(u: np.ndarray) -> tuple[float, np.ndarray]:
        one = family.at(fixed + ZL @ u, seen, at.delta)
        return 0.5 * u @ u - one.value.sum(), u - ZL.T @ one.s

    u = scipy.optimize.minimize(h, np.zeros(ZL.shape[1]), jac=True, method="BFGS").x
    for _ in range(30):
        w = family.at(fixed + ZL @ u, seen, at.delta).w
        u = u - np.linalg.solve(ZL.T @ (w[:, None] * ZL) + np.eye(len(u)), h(u)[1])
    w = family.at(fixed + ZL @ u, seen, at.delta).w
    if expected:
        w = family.expected(fixed + ZL @ u, seen, at.delta).w
    logdet = np.linalg.slogdet(ZL.T @ (w[:, None] * ZL) + np.eye(len(u)))[1]
    return float(2.0 * (h(u)[0] - family.constant(seen, at.delta)) + logdet)


def joined(at: Parameters, family: Family) -> np.ndarray:
    return np.concatenate([at.beta, at.theta, [at.delta] * family.estimates_delta])


def parted(rows: GeneralizedRows, x: np.ndarray) -> Parameters:
    p, d = rows.p, rows.template.n_theta
    delta = float(x[p + d]) if rows.family.estimates_delta else 0.0
    return Parameters(x[:p], x[p : p + d], delta)


def by_differences(value: Any, x: np.ndarray, h: float = 3e-3) -> np.ndarray:
    """A gradient by differences of sixth order."""
    out = np.empty(len(x))
    for i in range(len(x)):
        e = np.eye(len(x))[i]
        terms = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))
        out[i] = sum(c * (value(x + k * h * e) - value(x - k * h * e)) for k, c in terms) / h
    return out


def check_gradient(deviance: LaplaceDeviance, rows: GeneralizedRows, at: Parameters) -> None:
    point = deviance.point(at)
    x = joined(at, rows.family)
    found = by_differences(lambda z: deviance(parted(rows, z), point.mode.u), x)
    np.testing.assert_allclose(point.gradient, found, atol=1e-7 * np.abs(found).max())


@pytest.mark.parametrize("expected", [False, True], ids=["observed", "expected"])
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_criterion_is_its_definition(family: Family, expected: bool) -> None:
    rows, at = made(family, FORMULAS["slopes"])
    value = LaplaceDeviance(rows, expected)(at)
    assert value == pytest.approx(by_definition(rows, at, expected), rel=1e-10)


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_gradient_is_exact(family: Family, formula: str) -> None:
    rows, at = made(family, formula)
    for expected in (False,) if family.canonical else (False, True):
        check_gradient(LaplaceDeviance(rows, expected), rows, at)


@pytest.mark.parametrize("formula", ["slope", "slopes", "crossed"])
def test_every_solver_gives_the_same(formula: str) -> None:
    family = NegativeBinomial()
    solvers = [lmm.Dense(), lmm.Blocked(), lmm.Cholmod(), lmm.SuperLU()]
    points = []
    for solver in solvers:
        rows, at = made(family, FORMULAS[formula], solver)
        points.append(LaplaceDeviance(rows).point(at))
    for point in points[1:]:
        assert point.value == pytest.approx(points[0].value, rel=1e-12)
        np.testing.assert_allclose(point.gradient, points[0].gradient, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(point.hessian, points[0].hessian, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_prediction_of_the_mode_is_of_first_order(family: Family) -> None:
    rows, at = made(family, FORMULAS["slopes"])
    point = LaplaceDeviance(rows).point(at)
    way = np.random.default_rng(3).normal(size=len(joined(at, family)))
    errors = []
    for h in (2e-3, 1e-3):
        to = parted(rows, joined(at, family) + h * way)
        u = LaplaceDeviance(rows).point(to).mode.u
        errors.append(np.abs(point.predicted(to) - u).max())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_hessian_is_near_the_hessian_where_data_are_many() -> None:
    """With Gaussian-like counts the working model is the model."""
    rows, at = made(Poisson(), FORMULAS["crossed"], n=400)
    point = LaplaceDeviance(rows).point(at)

    def gradient(x: np.ndarray) -> np.ndarray:
        return LaplaceDeviance(rows).point(parted(rows, x), point.mode.u).gradient

    x = joined(at, rows.family)
    exact = np.array([(gradient(x + 1e-4 * e) - gradient(x - 1e-4 * e)) / 2e-4 for e in np.eye(4)])
    np.testing.assert_allclose(point.hessian[:2, :2], exact[:2, :2], rtol=0.05)


ONE_FACTOR = ("intercept", "slope", "diag")


@pytest.mark.parametrize("formula", ONE_FACTOR)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_quadrature_with_one_node_is_laplace(family: Family, formula: str) -> None:
    rows, at = made(family, FORMULAS[formula])
    one, other = LaplaceDeviance(rows).point(at), QuadratureDeviance(rows, nodes=1).point(at)
    assert other.value == pytest.approx(one.value, rel=1e-12)
    np.testing.assert_allclose(other.gradient, one.gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("nodes", [2, 5])
@pytest.mark.parametrize("formula", ONE_FACTOR)
@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_gradient_of_quadrature_is_exact(family: Family, formula: str, nodes: int) -> None:
    rows, at = made(family, FORMULAS[formula])
    check_gradient(QuadratureDeviance(rows, nodes=nodes), rows, at)


@pytest.mark.long
def test_quadrature_is_the_integral() -> None:
    """Against a plain sum over a fine grid, level by level."""
    rows, at = made(Binomial("cloglog"), FORMULAS["intercept"])
    term, family = rows.pattern.terms[0], rows.family
    u = np.linspace(-9, 9, 4001)
    total = family.constant(rows.seen, 0.0)
    for level in range(term.n_levels):
        own = term.codes == level
        seen = Observations(rows.seen.y[own], rows.seen.trials[own])
        fixed = rows.fixed_part(at.beta)[own]
        value = [family.at(fixed + at.theta[0] * z, seen, 0.0).value.sum() for z in u]
        density = np.exp(np.array(value) - 0.5 * u**2) / np.sqrt(2 * np.pi)
        total += np.log(np.trapezoid(density, u))
    assert QuadratureDeviance(rows, nodes=31)(at) == pytest.approx(-2.0 * total, rel=1e-10)


def test_quadrature_refuses_what_it_cannot_do() -> None:
    rows, _ = made(Poisson(), FORMULAS["crossed"])
    with pytest.raises(lmm.LmmError, match="several grouping factors"):
        QuadratureDeviance(rows, nodes=5)
