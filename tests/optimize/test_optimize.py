"""The searches: the same optimum by every way, honest reports, and the traps of bounds."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning, NumericalError
from lmmsparse.optimize import Bounds, Derivatives, Optimizer, Optimum, Status

Array = npt.NDArray[np.float64]

SEARCHES: dict[str, Optimizer] = {
    "TrustRegion": lmm.TrustRegion(),
    "Bobyqa": lmm.Bobyqa(),
    "NelderMead": lmm.NelderMead(),
}
every_search = pytest.mark.parametrize("name", SEARCHES)
bounded = pytest.mark.parametrize("name", ["Bobyqa", "NelderMead"])


# Models -------------------------------------------------------------------------------------------


@cache
def machines() -> pd.DataFrame:
    """Six workers on three machines, three times each; effects of machines vary by worker."""
    rng = np.random.default_rng(14)
    worker, machine = np.repeat(np.arange(6), 9), np.tile(np.repeat(np.arange(3), 3), 6)
    root = np.array([[4.0, 0.0, 0.0], [-1.0, 5.0, 0.0], [0.5, 3.0, 2.0]])
    effects = rng.normal(size=(6, 3)) @ root.T
    score = 52 + 8 * (machine == 1) + 14 * (machine == 2) + effects[worker, machine]
    return pd.DataFrame(
        {"score": score + rng.normal(size=54), "machine": machine.astype(str), "worker": worker}
    )


@cache
def maximal(k: int) -> pd.DataFrame:
    """Subjects crossed with items, k effects varying over both."""
    rng = np.random.default_rng(31)
    subject, item = (v.ravel() for v in np.meshgrid(np.arange(24), np.arange(16), indexing="ij"))
    X = rng.choice([-1.0, 1.0], size=(len(subject), k))
    X[:, 0] = 1.0
    y = X @ np.ones(k)
    for group, levels in ((subject, 24), (item, 16)):
        root = np.tril(rng.normal(size=(k, k))) * 0.6
        y += np.einsum("nk,nk->n", X, (rng.normal(size=(levels, k)) @ root.T)[group])
    names = {f"x{j}": X[:, j] for j in range(1, k)}
    return pd.DataFrame(
        {"y": y + rng.normal(size=len(y)), "subject": subject, "item": item, **names}
    )


def maximal_formula(k: int) -> str:
    effects = " + ".join(f"x{j}" for j in range(1, k))
    return f"y ~ {effects} + ({effects} | subject) + ({effects} | item)"


@cache
def falling_off_the_edge() -> pd.DataFrame:
    """The intercepts of the sites do not vary, their slopes do."""
    rng = np.random.default_rng(3)
    site, x = np.repeat(np.arange(8), 10), np.tile(np.linspace(-1, 1, 10), 8)
    slopes = rng.normal(size=8)
    site_effect = 0.4 * slopes  # correlation one
    y = site_effect[site] + slopes[site] * x + 0.5 * rng.normal(size=80)
    return pd.DataFrame({"y": y, "x": x, "site": site})


PROBLEMS: dict[str, tuple[str, Any]] = {
    "intercept": ("Reaction ~ Days + (1 | Subject)", lambda: lmm.load_dataset("sleepstudy")),
    "slope": ("Reaction ~ Days + (Days | Subject)", lambda: lmm.load_dataset("sleepstudy")),
    "crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)",
                lambda: lmm.load_dataset("Penicillin")),
    "nested": ("strength ~ 1 + (1 | batch / cask)", lambda: lmm.load_dataset("Pastes")),
    "factor slopes": ("score ~ machine + (machine | worker)", machines),
    "boundary": ("y ~ x + (x | site)", falling_off_the_edge),
    "no variance": ("Yield ~ 1 + (1 | Batch)", lambda: lmm.load_dataset("Dyestuff2")),
    "six parameters twice": (maximal_formula(3), lambda: maximal(3)),
}  # fmt: skip


def fit(formula: str, data: pd.DataFrame, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return lmm.lmer(formula, data, **options)


@cache
def solved(problem: str, search: str, reml: bool = True) -> lmm.LinearMixedModel:
    formula, data = PROBLEMS[problem]
    return fit(formula, data(), optimizer=SEARCHES[search], reml=reml)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        *(("Bobyqa", problem) for problem in PROBLEMS),
        *(("NelderMead", problem) for problem in PROBLEMS if problem != "six parameters twice"),
    ],
)
def test_searches_agree(name: str, problem: str, reml: bool) -> None:
    one, other = solved(problem, "TrustRegion", reml), solved(problem, name, reml)
    assert other.fit.criterion == pytest.approx(one.fit.criterion, abs=1e-5)
    assert one.fit.criterion <= other.fit.criterion + 1e-7
    assert other.convergence.converged
    assert other.optimum.success
    np.testing.assert_allclose(other.fixef, one.fixef, atol=2e-3 * float(one.se.max()))


def test_known_optima() -> None:
    assert solved("slope", "TrustRegion").reml_criterion == pytest.approx(1743.6282719585, abs=1e-8)
    assert solved("nested", "TrustRegion").reml_criterion == pytest.approx(
        246.99074585349, abs=1e-8
    )
    assert solved("no variance", "TrustRegion").reml_criterion == pytest.approx(
        161.828277812, abs=1e-8
    )
    assert solved("no variance", "Bobyqa").theta.tolist() == [0.0]


def test_maximal_model_is_quick() -> None:
    """Twenty covariance parameters, where bounded searches without derivatives get stuck."""
    m = fit(maximal_formula(4), maximal(4))
    assert len(m.theta) == 20
    assert m.convergence.converged
    assert m.optimum.evaluations < 60
    assert m.convergence.expected_decrease < 1e-6
    slow = fit(maximal_formula(4), maximal(4), start=np.tile([1, 0, 0, 0, 1, 0, 0, 1, 0, 1], 2))
    assert slow.fit.criterion == pytest.approx(m.fit.criterion, abs=1e-6)


@every_search
def test_start_at_a_singular_point(name: str) -> None:
    sleepstudy = lmm.load_dataset("sleepstudy")
    for start in ([1.0, 0.0, 0.0], [0.0, 0.5, 1.0], [0.5, -1.0, 0.0]):
        m = fit("Reaction ~ Days + (Days | Subject)", sleepstudy, start=start,
                optimizer=SEARCHES[name])  # fmt: skip
        assert m.reml_criterion == pytest.approx(1743.6282719585, abs=1e-5)
        assert np.all(m.theta.to_numpy()[[0, 2]] >= 0)


@every_search
def test_report(name: str) -> None:
    m = solved("slope", name)
    trace = m.optimum.trace
    assert m.optimum.optimizer == name
    assert m.optimum.status is Status.CONVERGED
    assert trace.shape[1] == 4
    assert abs(m.optimum.evaluations - len(trace)) <= 1
    assert m.optimum.value == pytest.approx(m.fit.criterion, abs=1e-9)
    assert m.optimum.value <= trace[:, -1].min() + 1e-9
    for point in trace[:: max(1, len(trace) // 5)]:
        assert m.fit.objective(point[:-1]) == pytest.approx(point[-1], abs=1e-9)


@pytest.mark.parametrize("search", [lmm.TrustRegion(max_eval=2), lmm.Bobyqa(max_eval=10),
                                    lmm.NelderMead(max_eval=10)])  # fmt: skip
def test_limit_is_kept_and_told(search: Any) -> None:
    with pytest.warns(lmm.ConvergenceWarning, match="has not reached the optimum"):
        m = lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"),
                     optimizer=search)  # fmt: skip
    assert m.optimum.status is Status.MAX_EVALUATIONS
    assert not m.optimum.success
    assert not m.convergence.converged
    assert m.optimum.evaluations <= search.max_eval + 1
    again = fit(m.formula, lmm.load_dataset("sleepstudy"), start=m.theta)
    assert again.convergence.converged


# Plain functions ----------------------------------------------------------------------------------


class Quadratic:
    """½ (x − c)'A(x − c) + 3."""

    def __init__(self, A: Any, c: Any) -> None:
        self.A, self.c = np.asarray(A, float), np.asarray(c, float)

    def __call__(self, x: Array) -> float:
        return self.derivatives(x).value

    def derivatives(self, x: Array) -> Derivatives:
        g = self.A @ (x - self.c)
        return Derivatives(3 + 0.5 * float((x - self.c) @ g), g, self.A)


class Mirrored:
    """(x₀² + x₁² − 2)² + (x₀x₁ + 0.5)² / 2: even in the pair, a saddle at zero."""

    def __call__(self, x: Array) -> float:
        return self.derivatives(x).value

    def derivatives(self, x: Array) -> Derivatives:
        s, t = x @ x - 2, x[0] * x[1] + 0.5
        dt = np.array([x[1], x[0]])
        g = 4 * s * x + t * dt
        H = 8 * np.outer(x, x) + 4 * s * np.eye(2) + np.outer(dt, dt) + t * np.eye(2)[::-1]
        return Derivatives(float(s**2 + t**2 / 2), g, H)


FREE = Bounds(np.full(2, -np.inf), np.full(2, np.inf))
HALF = Bounds(np.array([0.0, -np.inf]), np.full(2, np.inf), ((0, 1),))


@every_search
def test_quadratic(name: str) -> None:
    f = Quadratic([[4.0, 1.0], [1.0, 2.0]], [1.5, -0.75])
    found = SEARCHES[name].minimize(f, np.zeros(2), FREE)
    np.testing.assert_allclose(found.x, f.c, atol=1e-4)
    assert found.value == pytest.approx(3.0, abs=1e-7)
    assert found.success


def test_newton_step_ends_a_quadratic_at_once() -> None:
    found = lmm.TrustRegion().minimize(Quadratic(np.eye(2), [0.3, 0.4]), np.zeros(2), FREE)
    assert found.evaluations <= 3


@every_search
def test_badly_scaled_quadratic(name: str) -> None:
    f = Quadratic(np.diag([1e4, 1e-2]), [0.5, 0.5])
    found = SEARCHES[name].minimize(f, np.array([1.0, -3.0]), FREE)
    assert found.value == pytest.approx(3.0, abs=1e-6)


def test_bounds_hold() -> None:
    f = Quadratic(np.eye(2), [-1.0, 2.0])
    box = Bounds(np.array([0.0, -1.0]), np.array([5.0, 1.0]))
    for search in (lmm.Bobyqa(), lmm.NelderMead()):
        found = search.minimize(f, np.array([2.0, 0.0]), box)
        np.testing.assert_allclose(found.x, [0.0, 1.0], atol=1e-6)
        assert np.all(found.trace[:, 0] >= 0)
        assert np.all(found.trace[:, 1] <= 1)


@pytest.mark.parametrize("start", [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, -1.0), (2.0, 0.1)])
@every_search
def test_mirrors_and_saddles(name: str, start: tuple[float, float]) -> None:
    """The minimum has x₀x₁ < 0: within the bound only with x₁ < 0."""
    found = SEARCHES[name].minimize(Mirrored(), np.array(start), HALF)
    assert found.x[0] >= 0
    assert found.value == pytest.approx(0.0, abs=1e-6)
    assert found.x[0] * found.x[1] == pytest.approx(-0.5, abs=1e-3)


def test_canonical_flips_whole_groups() -> None:
    bounds = Bounds(np.array([0, -np.inf, 0]), np.full(3, np.inf), ((0, 1), (2,)))
    np.testing.assert_array_equal(bounds.canonical(np.array([-1.0, 2.0, 3.0])), [1, -2, 3])
    np.testing.assert_array_equal(bounds.canonical(np.array([1.0, 2.0, -3.0])), [1, 2, 3])
    assert np.signbit(bounds.canonical(np.array([-0.0, 1.0, 0.0]))).sum() == 0


class Broken(Quadratic):
    """Cannot be evaluated to the right of a wall."""

    def derivatives(self, x: Array) -> Derivatives:
        if x[0] > 1:
            raise NumericalError("no value")
        return super().derivatives(x)


@every_search
def test_breakdowns_are_walls(name: str) -> None:
    f = Broken(np.eye(2), [0.9, 0.0])
    found = SEARCHES[name].minimize(f, np.array([-2.0, 1.0]), FREE)
    np.testing.assert_allclose(found.x, [0.9, 0.0], atol=1e-3)
    assert np.isfinite(found.value)


@every_search
def test_no_value_at_the_start(name: str) -> None:
    found = SEARCHES[name].minimize(Broken(np.eye(2), [0, 0]), np.array([2.0, 0.0]), FREE)
    assert found.status is Status.FAILED
    assert not found.success


@bounded
def test_coordinates_near_zero_are_moved(name: str) -> None:
    """NLopt's own first step is the size of the coordinate: a rounding error would freeze it."""
    f = Quadratic([[4.0, 1.0], [1.0, 2.0]], [1.5, -0.75])
    found = SEARCHES[name].minimize(f, np.array([1.0, 1e-17]), FREE)
    np.testing.assert_allclose(found.x, f.c, atol=1e-4)


def test_saddle_at_a_bound_is_not_called_an_optimum() -> None:
    """All variances zero: the gradient vanishes, but the criterion falls sideways."""
    rng = np.random.default_rng(157)
    site, x = np.repeat(np.arange(12), 5), rng.normal(size=60)
    effects = rng.normal(size=12)
    data = pd.DataFrame({"y": effects[site] * (1 + x) + rng.normal(size=60), "x": x, "site": site})
    with pytest.warns(lmm.ConvergenceWarning):
        m = lmm.lmer("y ~ x + (x | site)", data, start=[0.0, 0.0, 0.0], optimizer=Lazy())
    assert not m.convergence.converged
    assert m.convergence.expected_decrease > 1.0


class Lazy:
    """Stays where it is."""

    def minimize(self, objective: Any, start: Array, bounds: Bounds) -> Any:
        value = objective(start)
        trace = np.append(start, value)[None]
        return Optimum(start, value, Status.CONVERGED, 1, "Lazy", trace)
