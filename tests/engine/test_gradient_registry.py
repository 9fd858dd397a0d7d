"""Gradient and second derivatives of every model of the registry against central differences."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from models import MODELS, frame

from lmmsparse.design import build_design
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.fit.charts import ChartedObjective
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.problem import make_objective, products_of

Array = npt.NDArray[np.float64]

LARGE = ("insteval", "star", "chem97", "egsingle")  # one place is enough
PLACES = ("start", "inside", "one zero", "first zero", "all zero")


@cache
def objective(name: str) -> StandardizedObjective:
    """The criterion of a model in standardized coordinates, where differences are accurate."""
    model = MODELS[name]
    design = build_design(
        model["formula"], frame(model["data"]), weights=model["weights"], offset=model["offset"]
    )
    products, response = products_of(design)
    solver = choose_solver(products)
    return StandardizedObjective(make_objective(design, model["reml"], solver, products, response))


def place(name: str, where: str) -> Array:
    """A point in standardized coordinates."""
    template = objective(name).template
    x = template.start.copy()
    if where == "start":
        return x
    rng = np.random.default_rng(len(name))
    x = 0.6 * x + 0.3 * rng.normal(size=len(x))
    diagonal = np.flatnonzero(template.lower == 0)
    x[diagonal] = 0.2 + np.abs(x[diagonal])
    if where == "one zero":
        x[diagonal[-1]] = 0.0
    elif where == "first zero":  # with entries below it that are not
        x[diagonal[0]] = 0.0
    elif where == "all zero":
        x[:] = 0.0
    return x


def differences(f: StandardizedObjective, x: Array, way: Array, h: float = 1e-3) -> float:
    """The derivative of f along a way, without its h² error."""
    near, far = ((f(x + step * way) - f(x - step * way)) / (2.0 * step) for step in (h, 2.0 * h))
    return (4.0 * near - far) / 3.0


CASES = [
    (name, where)
    for name in MODELS
    for where in PLACES
    if where == "one zero" or not name.startswith(LARGE)
]


@pytest.mark.parametrize(("name", "where"), CASES)
def test_gradient(name: str, where: str) -> None:
    f = objective(name)
    x = place(name, where)
    at = f.derivatives(x)
    d = len(x)
    ways = np.eye(d)
    if d > 6:  # all of a large gradient by a few combinations of it
        ways = np.random.default_rng(1).normal(size=(4, d)) / np.sqrt(d)
    numeric = np.array([differences(f, x, way) for way in ways])
    size = 1.0 + np.abs(at.gradient).max()
    np.testing.assert_allclose(ways @ at.gradient, numeric, atol=1e-6 * size)
    assert at.value == pytest.approx(f(x), rel=0, abs=1e-13 * abs(at.value) + 1e-9)


EXACT = (
    "sleepstudy_slope_reml",
    "machines_double_bar_reml",
    "machines_weights_ml",
    "pixel_ml",
    "ties_slopes_reml",
    "early_reml",
)
CHARTED = (
    "sleepstudy_slope_reml",
    "dietox_poly_reml",
    "ties_slopes_reml",
    "psycho_maximal_ml",
    "psycho_zero_correlation_reml",
)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", EXACT)
def test_second_derivatives(name: str, where: str) -> None:
    """Where the objective has exact ones to give, they are."""
    f = objective(name)
    x = place(name, where)
    at = f.derivatives(x)
    assert at.exact is not None
    d, h = len(x), 1e-5
    rows = [
        (f.derivatives(x + h * e).gradient - f.derivatives(x - h * e).gradient) / (2.0 * h)
        for e in np.eye(d)
    ]
    size = 1.0 + np.abs(at.exact).max()
    np.testing.assert_allclose(at.exact, np.array(rows), atol=1e-5 * size)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", CHARTED)
def test_charts(name: str, where: str) -> None:
    """Derivatives along a chart are those of the criterion where its moves lead."""
    f = objective(name)
    charted = ChartedObjective(f.objective, f.to_theta(np.eye(f.template.n_theta)))
    x = place(name, where)
    at = charted.derivatives(x)
    rng = np.random.default_rng(2)
    for _ in range(3):
        way = rng.normal(size=len(x)) / np.sqrt(len(x))
        h = 1e-3

        def along(step: float, way: Array = way) -> float:
            return charted(at.moved(x, step * way))

        slopes = [(along(s) - along(-s)) / (2.0 * s) for s in (h, 2.0 * h)]
        size = 1.0 + np.abs(at.gradient).max()
        assert way @ at.gradient == pytest.approx((4 * slopes[0] - slopes[1]) / 3, abs=1e-6 * size)
        if at.exact is not None:
            bends = [(along(s) - 2.0 * at.value + along(-s)) / s**2 for s in (h, 2.0 * h)]
            size = 1.0 + np.abs(at.exact).max()
            bend = (4 * bends[0] - bends[1]) / 3
            assert way @ at.exact @ way == pytest.approx(bend, abs=1e-4 * size)
