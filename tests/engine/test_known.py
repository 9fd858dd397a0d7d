"""Known covariances in the criterion: every solver against the n × n definition."""

from __future__ import annotations

from functools import cache
from typing import Any

import known
import numpy as np
import pytest
import scipy.sparse as sp

import lmmsparse as lmm
from lmmsparse.engine.known import DensePrior, RecursivePrior, SparsePrior
from lmmsparse.engine.points import GeneralPoint
from lmmsparse.engine.prior import Prior
from lmmsparse.engine.solvers.blocked import BlockedSystem
from lmmsparse.engine.solvers.small import SmallSystem
from lmmsparse.fit.problem import make_objective, products_of


class ByCvxopt:
    """Stands for `Cholmod` where only cvxopt is there."""

    known_covariances = True

    def build(self, products: Any, template: Any) -> Any:
        from lmmsparse.engine.solvers import cvxopt
        from lmmsparse.engine.solvers.cholmod import CholmodSystem

        class Options:
            def analyze(self, lower: Any, several: bool = True) -> Any:
                return cvxopt.analyze(lower, "amd", "auto"), "cvxopt"

        return CholmodSystem(products, template, Options())


class AllCore:
    """`Blocked` without its shorter way for few random effects."""

    known_covariances = True

    def build(self, products: Any, template: Any) -> Any:
        return BlockedSystem(products, template)


class Small:
    """What `Blocked` takes for few random effects, for any number."""

    known_covariances = True

    def build(self, products: Any, template: Any) -> Any:
        return SmallSystem(products, template)


SOLVERS: dict[str, Any] = {
    "dense": lmm.Dense(),
    "cholmod": lmm.Cholmod(),
    "simplicial": lmm.Cholmod(mode="simplicial"),
    "superlu": lmm.SuperLU(),
    "cvxopt": ByCvxopt(),
    "blocked": lmm.Blocked(),
    "all core": AllCore(),
    "small": Small(),
}


def objective(name: str, solver: str) -> Any:
    if solver == "cvxopt":
        pytest.importorskip("cvxopt")
    design, reml = known.design(name), known.MODELS[name][2]
    return make_objective(design, reml, SOLVERS[solver], *products_of(design))


def thetas(name: str) -> list[known.Array]:
    rng = np.random.default_rng(len(name))
    design = known.design(name)
    lower = np.concatenate([block.structure.lower() for block in design.blocks])
    out = rng.uniform(0.1, 1.5, (3, len(lower)))
    out[:, np.isinf(lower)] -= 0.8
    return list(out)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", known.MODELS)
def test_the_criterion_is_that_of_the_definition(name: str, solver: str) -> None:
    d, design, reml = objective(name, solver), known.design(name), known.MODELS[name][2]
    for theta in thetas(name):
        want = known.criterion(design, reml, theta)
        assert d(theta) == pytest.approx(want, rel=1e-12, abs=1e-10)
        assert d.joint_value(theta, 0.7) == pytest.approx(
            known.criterion(design, reml, theta, 0.7), rel=1e-12, abs=1e-10
        )


@cache
def known_gradient(name: str, at: tuple[float, ...], sigma: float | None) -> known.Array:
    design, reml, theta = known.design(name), known.MODELS[name][2], np.array(at)
    out, h = np.empty(len(theta)), 1e-4
    for i in range(len(theta)):
        e = h * (np.arange(len(theta)) == i)
        f = [known.criterion(design, reml, theta + k * e, sigma) for k in (-2, -1, 1, 2)]
        out[i] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    return out


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", known.MODELS)
def test_the_gradient_is_that_of_the_definition(name: str, solver: str) -> None:
    d = objective(name, solver)
    for theta in thetas(name)[:2]:
        for sigma in (None, 0.7):
            want = known_gradient(name, tuple(theta), sigma)
            got = d.gradient(theta, None if sigma is None else sigma**2)
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())
            if sigma is None:
                np.testing.assert_allclose(d.derivatives(theta).gradient, got, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", ["cholmod", "small", "all core"])
@pytest.mark.parametrize("name", known.MODELS)
def test_second_derivatives_are_those_of_the_gradient(name: str, solver: str) -> None:
    d = objective(name, solver)
    theta = thetas(name)[0]
    point = d._point(theta)
    directions = [structure.derivative(theta[part]) for structure, part in _terms(d)]
    hessian, h = np.empty((len(theta), len(theta))), 1e-5
    for i in range(len(theta)):
        e = h * (np.arange(len(theta)) == i)
        hessian[i] = (d.gradient(theta + e) - d.gradient(theta - e)) / (2 * h)
    at = d.derivatives(theta)
    # Average information is the mean of the observed and the expected one.
    squares = point.squares(directions)
    exact = at.hessian + squares - point.traces(directions)
    np.testing.assert_allclose(exact, hessian, rtol=1e-5, atol=1e-5 * np.abs(hessian).max())


def _terms(d: Any) -> Any:
    return zip(d.template.structures, d.template.slices, strict=True)


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s != "dense"])
@pytest.mark.parametrize("name", known.MODELS)
def test_solutions_and_blocks_of_the_inverse_are_those_of_dense_matrices(
    name: str, solver: str
) -> None:
    own, dense = objective(name, solver), objective(name, "dense")
    theta = thetas(name)[1]
    a, b = own.modes(theta), dense.modes(theta)
    for attribute in ("u", "b", "v"):
        np.testing.assert_allclose(
            getattr(a, attribute), getattr(b, attribute), rtol=1e-9, atol=1e-10
        )
    assert a.factor.logdet == pytest.approx(b.factor.logdet, rel=1e-12)
    for mine, theirs in zip(a.factor.inverse_blocks(), b.factor.inverse_blocks(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    # Z'V⁻¹(y − Xβ) and u know the covariance between levels.
    T = own.template.shifted_factors(theta)
    left = own.template.multiply_transposed(T, a.v)
    np.testing.assert_allclose(left, own.products.prior.times(a.u), rtol=1e-9, atol=1e-9)
    point = own._point(theta)
    general = GeneralPoint(own.system, own.products, own.template, theta, own.response, own.reml)
    for mine, theirs in zip(point.FT, general.FT, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9)


def test_other_weights_in_the_same_system_keep_what_is_known() -> None:
    design = known.design("herd")
    for name in ("cholmod", "superlu", "blocked", "dense", "small"):
        d = objective("herd", name)
        products, _ = products_of(known.design("herd"))
        again = d.system.with_products(products)
        theta = thetas("herd")[0]
        assert again.solve(theta, d.response).logdet_M == pytest.approx(
            d.system.solve(theta, d.response).logdet_M, rel=1e-13
        )
    assert design.blocks[0].known is not None


def priors() -> dict[str, tuple[Prior, known.Array]]:
    frame = known.pedigree()
    A = known.relationships(frame)
    pedigree = lmm.Pedigree.from_frame(frame.sample(frac=1.0, random_state=2))
    Q, _ = known.lattice()
    rng = np.random.default_rng(8)
    B = rng.normal(size=(9, 30))
    dense = B @ B.T
    return {
        "pedigree": (pedigree.prior, A.loc[pedigree.labels, pedigree.labels].to_numpy()),
        "sparse": (SparsePrior(sp.csc_array(Q)), np.linalg.inv(Q)),
        "dense": (DensePrior(dense), dense),
    }


@pytest.mark.parametrize("name", ["pedigree", "sparse", "dense"])
def test_what_a_prior_promises(name: str) -> None:
    prior, A = priors()[name]
    n, Q = len(A), np.linalg.inv(A)
    B = np.random.default_rng(1).normal(size=(n, 3))
    close = {"rtol": 1e-9, "atol": 1e-10 * np.abs(A).max()}
    np.testing.assert_allclose(prior.precision.toarray(), Q, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(prior.times(B), Q @ B, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(prior.solve(B), A @ B, **close)
    np.testing.assert_allclose(prior.variances, np.diag(A), **close)
    np.testing.assert_allclose(prior.root(prior.root_transposed(B)), A @ B, **close)
    R = prior.root(np.eye(n))
    np.testing.assert_allclose(R @ R.T, A, **close)
    np.testing.assert_allclose(prior.root_transposed(np.eye(n)), R.T, **close)
    assert prior.logdet == pytest.approx(-np.linalg.slogdet(A)[1], rel=1e-10)
    assert isinstance(prior, (RecursivePrior, SparsePrior, DensePrior))
