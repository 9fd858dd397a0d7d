"""refit_many: the answers of refit, column by column; what fails stays with its column."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import DataError, LmmWarning, OptionError
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.many import batched as refit_batched
from lmmsparse.fit.many import refit as refit_many
from lmmsparse.fit.many.batched import BatchedRefits, can_batch
from lmmsparse.fit.many.criteria import ManyDeviances
from lmmsparse.fit.settle import Settled
from lmmsparse.fit.verdict import judge
from lmmsparse.optimize.batched import ManyDerivatives, minimize_many, trust_region_steps
from lmmsparse.optimize.trust_region import _trust_region_step

CRITERION = 1e-8


def quiet(call: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a call whose warnings are not the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        return call(*args, **kwargs)


def unbalanced() -> pd.DataFrame:
    """Three random effects at most, 12 groups of different sizes, weights and an offset."""
    rng = np.random.default_rng(5)
    g = np.concatenate([np.repeat(np.arange(12), 4), rng.integers(0, 12, 40)])
    x, z = rng.normal(2, 1, len(g)), rng.normal(size=len(g))
    y = 1 + 0.5 * x + rng.normal(size=12)[g] + 0.7 * x * rng.normal(size=12)[g]
    frame = pd.DataFrame({"y": y + rng.normal(size=len(g)), "x": x, "z": z, "g": g})
    frame["w"], frame["o"] = rng.uniform(0.3, 3, len(g)), 10 * rng.normal(size=len(g))
    return frame


DESIGNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "slope": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {}),
    "slope, ML": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {"reml": False}),
    "intercept": ("sleepstudy", "Reaction ~ Days + (1 | Subject)", {}),
    "two terms on one factor": ("sleepstudy", "Reaction ~ Days + (Days || Subject)", {}),
    "no fixed effects": ("sleepstudy", "Reaction ~ 0 + (Days | Subject)", {}),
    "factor slope": ("Machines", "score ~ Machine + (Machine | Worker)", {}),
    "unbalanced": ("own", "y ~ x + z + (x | g)", {}),
    "weights and offset": ("own", "y ~ x + (x | g)", {"weights": "w", "offset": "o"}),
    "weights, ML": ("own", "y ~ x + (1 | g) + (0 + z | g)", {"weights": "w", "reml": False}),
    "diagonal": ("own", "y ~ x + diag(x + z | g)", {}),
    "hom diagonal": ("own", "y ~ x + diag(x + z | g, hom=True)", {}),
}
HELD: dict[str, tuple[str, str, dict[str, Any]]] = {
    "slope": ("sleepstudy", "Reaction ~ Days + (Days | Subject)", {"fixed": {"sigma": 25.3}}),
    "intercept variance": (
        "sleepstudy",
        "Reaction ~ Days + (Days || Subject)",
        {"fixed": {"Subject.Intercept": 1.2}},
    ),
    "a column": (
        "own",
        "y ~ x + (x + z | g)",
        {"fixed": {"g.Intercept": 0.5, "g.x.Intercept": 0.2}, "weights": "w", "offset": "o"},
    ),
    "no correlation": ("own", "y ~ x + (x | g)", {"fixed": {"g.x.Intercept": 0.0}}),
    "without variance": (
        "own",
        "y ~ x + (x | g)",
        {"fixed": {"g.Intercept": 0.0, "g.x.Intercept": 0.0, "sigma": 1.1}, "reml": False},
    ),
    "everything": (
        "own",
        "y ~ x + (1 | g) + (0 + x | g)",
        {"fixed": {"g.Intercept": 0.7, "g.x": 0.4, "sigma": 0.9}},
    ),
    "all of theta": (
        "Machines",
        "score ~ Machine + (1 | Worker)",
        {"fixed": {"Worker.Intercept": 1.5}},
    ),
}
ONE_BY_ONE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "crossed": ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", {}),
    "nested": ("Pastes", "strength ~ 1 + (1 | batch/cask)", {}),
    "other search": ("own", "y ~ x + (1 | g)", {"optimizer": lmm.Bobyqa()}),
    "other algebra": ("own", "y ~ x + (1 | g)", {"solver": lmm.Dense()}),
}


def fitted(design: tuple[str, str, dict[str, Any]]) -> lmm.LinearMixedModel:
    """A model of one of the tables above."""
    data, formula, options = design
    frame = unbalanced() if data == "own" else models.frame(data)
    return quiet(lmm.lmer, formula, frame, **options)


@pytest.fixture(scope="module")
def sleep() -> lmm.LinearMixedModel:
    return fitted(DESIGNS["slope"])


def assert_same(table: pd.DataFrame, model: lmm.LinearMixedModel, Y: pd.DataFrame) -> None:
    """Every row of the table is what `refit` says about its column."""
    assert list(table.index) == list(Y.columns)
    for row, y in zip(table.to_dict("records"), Y.to_numpy().T, strict=True):
        one = quiet(model.refit, y)
        assert row["problem"] == ""
        assert row["criterion"] == pytest.approx(one.fit.criterion, rel=0, abs=CRITERION)
        assert row["sigma"] == pytest.approx(one.sigma, rel=1e-5)
        scale = max(1.0, one.theta.abs().max())
        for name, value in one.theta.items():
            assert row[name] == pytest.approx(value, rel=0, abs=1e-4 * scale)
        for name, value in one.fixef.items():
            # Both stop at an expected decrease of 1e-9: √(2e-9) standard errors at most.
            assert row[name] == pytest.approx(value, rel=0, abs=5e-5 * one.se[name])
            assert row[f"se_{name}"] == pytest.approx(one.se[name], rel=1e-4)
        assert row["converged"] is one.convergence.converged is True
        assert row["singular"] is one.convergence.singular


@pytest.mark.parametrize("name", [*DESIGNS, *ONE_BY_ONE])
def test_equals_refits_one_by_one(name: str) -> None:
    model = fitted((DESIGNS | ONE_BY_ONE)[name])
    assert can_batch(model.fit) is (name in DESIGNS)
    Y = model.simulate(8, rng=2)
    noise = np.random.default_rng(3).normal(size=(len(Y), 4))  # singular more often than not
    Y = pd.concat([Y, pd.DataFrame(noise, index=Y.index)], axis=1)
    if name == "other search":  # accurate to its own stopping rule only
        Y = Y.iloc[:, :2]
    assert_same(model.refit_many(Y), model, Y)


@pytest.mark.parametrize("name", HELD)
def test_held_parameters_are_batched(name: str) -> None:
    model = fitted(HELD[name])
    assert can_batch(model.fit)
    Y = model.simulate(6, rng=2)
    noise = np.random.default_rng(3).normal(size=(len(Y), 3))
    Y = pd.concat([Y, pd.DataFrame(noise, index=Y.index)], axis=1)
    table = model.refit_many(Y)
    assert_same(table, model, Y)
    for parameter, value in HELD[name][2]["fixed"].items():
        assert (table[parameter] == value).all()


def test_a_bound_beside_a_held_element_is_kept_one_by_one() -> None:
    fixed = {"fixed": {"g.x.Intercept": 0.3}}
    model = fitted(("own", "y ~ x + (x | g)", fixed))
    assert not can_batch(model.fit)
    assert_same(model.refit_many(model.simulate(3, rng=1)), model, model.simulate(3, rng=1))


def test_own_response_gives_the_fit(sleep: lmm.LinearMixedModel) -> None:
    table = sleep.refit_many(models.frame("sleepstudy")["Reaction"])
    row = table.loc["Reaction"]
    assert row["criterion"] == pytest.approx(sleep.reml_criterion, abs=CRITERION)
    np.testing.assert_allclose(row[sleep.theta.index].astype(float), sleep.theta, rtol=1e-5)
    np.testing.assert_allclose(row[sleep.fixef.index].astype(float), sleep.fixef, rtol=1e-8)
    # lme4: 1743.628, sigma 25.592, standard errors 6.825 and 1.546.
    assert row["criterion"] == pytest.approx(1743.6283, abs=1e-4)
    assert row["sigma"] == pytest.approx(25.5918, abs=1e-4)
    assert row["se_Intercept"] == pytest.approx(6.8246, abs=1e-4)
    assert row["se_Days"] == pytest.approx(1.5458, abs=1e-4)


def test_an_affine_change_of_the_response(sleep: lmm.LinearMixedModel) -> None:
    y = models.frame("sleepstudy")["Reaction"].to_numpy()
    table = sleep.refit_many(np.column_stack([y, 5.0 - 1e3 * y]))
    df = sleep.nobs - 2
    change = table["criterion"][1] - table["criterion"][0]
    assert change == pytest.approx(2 * df * np.log(1e3), abs=1e-7)
    assert table["sigma"][1] == pytest.approx(1e3 * table["sigma"][0], rel=1e-6)
    assert table["Intercept"][1] == pytest.approx(5 - 1e3 * table["Intercept"][0], rel=1e-8)


def test_columns_and_index(sleep: lmm.LinearMixedModel) -> None:
    table = sleep.refit_many(sleep.simulate(3, rng=1))
    estimates = ["criterion", *sleep.theta.index, "sigma", "Intercept", "Days"]
    rest = ["se_Intercept", "se_Days", "converged", "singular", "problem"]
    assert list(table.columns) == [*estimates, *rest]
    assert list(table.index) == ["sim_1", "sim_2", "sim_3"]
    assert table["converged"].dtype == table["singular"].dtype == bool
    assert list(sleep.refit_many(sleep.simulate(3, rng=1).to_numpy()).index) == [0, 1, 2]
    assert sleep.refit_many(np.zeros((180, 0))).shape == (0, len(table.columns))


@pytest.mark.parametrize("name", ["slope", "unbalanced", "crossed"])
def test_order_and_chunks_do_not_matter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted((DESIGNS | ONE_BY_ONE)[name])
    Y = model.simulate(9, rng=4)
    whole = model.refit_many(Y)
    backwards = model.refit_many(Y.iloc[:, ::-1]).iloc[::-1]
    monkeypatch.setattr(refit_batched, "_CHUNK", 1)
    single = model.refit_many(Y)
    monkeypatch.setattr(refit_many, "_CHUNK", 4 * len(Y))
    pieces = model.refit_many(Y)
    for other in (backwards, single, pieces):
        numbers = whole.columns[:-3]
        np.testing.assert_allclose(other[numbers], whole[numbers], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(other["criterion"], whole["criterion"], rtol=0, atol=CRITERION)


@pytest.mark.parametrize("name", ["slope", "crossed"])
def test_missing_values_drop_rows_of_their_own_column(name: str) -> None:
    model = fitted((DESIGNS | ONE_BY_ONE)[name])
    Y = model.simulate(4, rng=6)
    Y.iloc[[3, 17, 40], 1] = np.nan
    Y.iloc[:12, 3] = np.nan
    assert_same(model.refit_many(Y), model, Y)


def test_rows_of_the_original_data() -> None:
    frame = models.frame("sleepstudy").copy()
    frame.loc[[5, 50], "Reaction"] = np.nan
    model = lmm.lmer("Reaction ~ Days + (Days | Subject)", frame)
    full = np.random.default_rng(1).normal(size=(180, 2)) * 30 + frame[["Days"]].to_numpy()
    fitted_rows = full[frame["Reaction"].notna().to_numpy()]
    pd.testing.assert_frame_equal(model.refit_many(full), model.refit_many(fitted_rows))


@pytest.mark.parametrize("name", ["slope", "crossed"])
def test_what_fails_stays_with_its_column(name: str) -> None:
    model = fitted((DESIGNS | ONE_BY_ONE)[name])
    Y = model.simulate(9, rng=7)
    good = model.refit_many(Y)
    design = model.fit.design
    Y.iloc[:, 1] = 3.5
    Y.iloc[4, 2] = np.inf
    Y.iloc[:, 3] = design.X @ np.arange(2.0, 2.0 + design.p)  # no residual at all
    Y.iloc[:, 4] = np.nan
    Y.iloc[1:, 5] = np.nan
    Y.iloc[:, 6] = design.blocks[0].codes.astype(float) ** 2  # the random effects say it all
    table = model.refit_many(Y)
    failed = [1, 2, 3, 4, 5, 6]
    assert (table["problem"].iloc[failed] != "").all()
    assert not table["converged"].iloc[failed].any()
    assert table.iloc[failed, :-3].isna().all(axis=None)
    for column, word in ((1, "same value"), (2, "infinite"), (4, "missing"), (6, "exactly")):
        assert word in table["problem"].iloc[column]
    rest = [0, 7, 8]
    assert (table["problem"].iloc[rest] == "").all()
    np.testing.assert_allclose(table["criterion"].iloc[rest], good["criterion"].iloc[rest])


@pytest.mark.long
@pytest.mark.parametrize("name", ["slope", "unbalanced", "no fixed effects", "crossed", "nested"])
def test_an_exact_fit_is_found_whatever_the_units(name: str) -> None:
    model = fitted((DESIGNS | ONE_BY_ONE)[name])
    block, rng = model.fit.design.blocks[0], np.random.default_rng(6)
    effects = rng.normal(size=(3, block.n_levels, block.columns.shape[1]))
    lines = np.stack([(b[block.codes] * block.columns).sum(axis=1) for b in effects])
    base = [block.codes.astype(float) ** 2, *lines]
    units = [(1.0, 0.0), (1e-3, 0.0), (1e5, 0.0)]
    if name != "no fixed effects":  # there a mean is variation like any other
        units += [(1.0, 1e4), (1e-3, 1e6), (1e-6, 1e6)]
    if name in ONE_BY_ONE:
        base, units = base[:2], units[1::2]
    exact = np.column_stack([shift + scale * y for scale, shift in units for y in base])
    table = model.refit_many(exact)
    assert table["problem"].str.contains("exactly").all()
    assert table["sigma"].isna().all()
    for y in exact.T[:: 5 if name in DESIGNS else 3]:
        one = quiet(model.refit, y)
        assert "exact-fit" in [finding.code for finding in one.convergence.findings]
    # A hundred-millionth of the variation left to the residuals is enough, if y can hold it.
    held = [(scale, shift, y) for scale, shift in units if scale != 1e-6 for y in base]
    noise = rng.normal(size=(len(lines[0]), len(held)))
    noise *= 1e-4 * np.array([scale * y.std() for scale, _, y in held])
    near = np.column_stack([shift + scale * y for scale, shift, y in held]) + noise
    table = model.refit_many(near)
    assert (table["problem"] == "").all()
    np.testing.assert_allclose(table["sigma"] / noise.std(axis=0), 1.0, rtol=0.35)
    step = 5 if name in DESIGNS else 3
    for y, sigma in zip(near.T[::step], table["sigma"][::step], strict=True):
        one = quiet(model.refit, y)
        assert "exact-fit" not in [finding.code for finding in one.convergence.findings]
        assert one.convergence.converged
        # Searches end where rounding errors of the criterion begin, here at some 1e-6.
        assert one.sigma == pytest.approx(sigma, rel=1e-3)


def test_a_search_that_stops_early_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lmm.lmer("y ~ x + (x | g)", unbalanced())
    Y = 1e3 * np.random.default_rng(0).normal(size=(len(unbalanced()), 5))
    expected = model.refit_many(Y)
    model = type(model)(replace(model.fit, optimizer=lmm.TrustRegion(max_eval=2)))
    table = model.refit_many(Y)
    assert table["converged"].all()
    np.testing.assert_allclose(table["criterion"], expected["criterion"], atol=1e-4)
    # Where nothing else is tried, it is said.
    monkeypatch.setattr("lmmsparse.fit.many.refit.settle", lambda fit: Settled(fit, judge(fit)))
    table = model.refit_many(Y)
    assert not table["converged"].all()
    early = table[~table["converged"]]
    assert early["problem"].str.contains("limit on evaluations").all()
    assert early["criterion"].notna().all()


def test_constant_once_the_offset_is_subtracted() -> None:
    model = fitted(DESIGNS["weights and offset"])
    table = model.refit_many(unbalanced()[["o", "x"]] + 2)
    assert "offset is subtracted" in table.loc["o", "problem"]


def test_processes_give_the_same_in_the_same_order() -> None:
    model = fitted(ONE_BY_ONE["crossed"])
    Y = model.simulate(5, rng=8)
    pd.testing.assert_frame_equal(model.refit_many(Y, n_jobs=2), model.refit_many(Y), rtol=1e-6)


def test_arguments_that_cannot_be_used(sleep: lmm.LinearMixedModel) -> None:
    with pytest.raises(DataError, match="179 rows"):
        sleep.refit_many(np.zeros((179, 2)))
    with pytest.raises(DataError, match="dimensions"):
        sleep.refit_many(np.zeros((180, 2, 2)))
    with pytest.raises(DataError, match="numbers"):
        sleep.refit_many(pd.DataFrame({"a": ["x"] * 180}))
    for n_jobs in (0, 1.5, True, "2"):
        with pytest.raises(OptionError, match="n_jobs"):
            sleep.refit_many(np.zeros((180, 1)), n_jobs=n_jobs)  # type: ignore[arg-type]


# -- the parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DESIGNS, *(f"held: {name}" for name in HELD)])
def test_derivatives_are_those_of_the_objective(name: str) -> None:
    model = fitted(HELD[name[6:]] if name.startswith("held") else DESIGNS[name])
    batch = BatchedRefits(model.fit)
    Y = model.simulate(3, rng=9).to_numpy()
    ((_, responses, _),) = refit_many._products(model.fit, Y)
    deviances = ManyDeviances(batch._shared, responses)
    free = model.fit.template.free
    whole = np.random.default_rng(1).normal(size=(3, len(free)))
    held = StandardizedObjective(model.fit.objective).to_internal(model.fit.template.start)
    whole[:, ~free] = held[~free]
    x, which = whole[:, free], np.arange(3)
    many = deviances.derivatives(x, which)
    np.testing.assert_array_equal(deviances.values(x, which), many.value)
    for j in range(3):
        objective = model.fit.objective.with_response(responses.one(j))
        one = StandardizedObjective(objective).derivatives(whole[j])
        gradient, hessian = one.gradient[free], one.hessian[np.ix_(free, free)]
        size = np.abs(one.hessian).max()
        assert many.value[j] == pytest.approx(one.value, rel=1e-11)
        assert many.noise[j] == pytest.approx(one.noise, rel=1e-6)
        np.testing.assert_allclose(many.gradient[j], gradient, rtol=0, atol=1e-8 * size)
        np.testing.assert_allclose(many.hessian[j], hessian, rtol=0, atol=1e-7 * size)


def test_equal_levels_are_merged(sleep: lmm.LinearMixedModel) -> None:
    levels = BatchedRefits(sleep.fit)._shared.levels
    assert len(levels.count) == 3  # one direction of X, two for what is left of y
    assert levels.count.sum() == 18
    odd = lmm.lmer("Reaction ~ Days + (Days | Subject)", models.frame("sleepstudy").iloc[2:])
    levels = BatchedRefits(odd.fit)._shared.levels
    assert len(levels.count) == 4
    assert list(levels.alone) == [0]


def test_steps_are_those_of_the_single_search() -> None:
    rng = np.random.default_rng(0)
    H = rng.normal(size=(60, 4, 4))
    H = H + H.swapaxes(1, 2) + 4 * rng.integers(0, 2, (60, 1, 1)) * np.eye(4)
    H[:5] = np.diag([-1.0, 1.0, 2.0, 3.0])
    g = rng.normal(size=(60, 4))
    g[:5, 0] = 0.0  # the hard case: the way down has to be chosen
    radius = 10 ** rng.uniform(-2, 2, 60)
    steps, promised = trust_region_steps(g, H, radius)
    for j in range(60):
        step, decrease = _trust_region_step(g[j], H[j], float(radius[j]))
        assert promised[j] == pytest.approx(decrease, rel=1e-8)
        np.testing.assert_allclose(np.abs(steps[j]), np.abs(step), rtol=1e-6, atol=1e-9)


class Valleys:
    """Members a (x₂ − x₁²)² + (1 − x₁)², and one that cannot be evaluated."""

    a = np.array([1.0, 10.0, 100.0, np.nan])

    def values(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        return self.a[which] * (x[:, 1] - x[:, 0] ** 2) ** 2 + (1 - x[:, 0]) ** 2

    def derivatives(self, x: np.ndarray, which: np.ndarray) -> ManyDerivatives:
        a, (u, v) = self.a[which], x.T
        gradient = np.stack([-4 * a * u * (v - u**2) - 2 * (1 - u), 2 * a * (v - u**2)], axis=1)
        H = [[12 * a * u**2 - 4 * a * v + 2, -4 * a * u], [-4 * a * u, 2 * a + 0 * u]]
        hessian = np.moveaxis(np.array(H), 2, 0)
        return ManyDerivatives(self.values(x, which), gradient, hessian, np.zeros(len(x)))


def test_members_leave_one_by_one() -> None:
    found = minimize_many(Valleys(), np.tile([-1.2, 1.0], (4, 1)), lmm.TrustRegion())
    assert [status.name for status in found.status] == ["CONVERGED"] * 3 + ["FAILED"]
    np.testing.assert_allclose(found.x[:3], 1.0, atol=1e-4)
    assert (found.expected_decrease[:3] < 1e-9).all()
    assert np.isinf(found.value[3])
