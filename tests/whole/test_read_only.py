"""Arrays of a fitted model cannot be written; those of the user stay theirs."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import lmmsparse as lmm


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    d = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "x": rng.normal(size=200)})
    d["h"] = np.tile(np.arange(10), 20)
    d["y"] = rng.normal(size=20)[d["g"]] + d["x"] * rng.normal(size=20)[d["g"]]
    d["y"] += rng.normal(size=200) + rng.normal(size=10)[d["h"]]
    d["w"], d["o"] = rng.uniform(0.5, 2, 200), rng.normal(size=200)
    return d


def _fitted(d: pd.DataFrame) -> lmm.LinearMixedModel:
    return lmm.lmer("y ~ x + (x | g) + (1 | h)", d, weights="w", offset="o")


def _arrays(thing: Any, path: str, seen: set[int]) -> Iterator[tuple[str, np.ndarray]]:
    """All arrays of the dataclasses below an object."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        yield path, thing
    elif sp.issparse(thing):
        yield path, thing.data
    elif isinstance(thing, tuple | list):
        for i, item in enumerate(thing):
            yield from _arrays(item, f"{path}[{i}]", seen)
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            yield from _arrays(getattr(thing, field.name), f"{path}.{field.name}", seen)


def _saved(m: lmm.LinearMixedModel, tmp_path: Path) -> lmm.LinearMixedModel:
    m.save(tmp_path / "m.lmm")
    return lmm.load(tmp_path / "m.lmm")


HOW: dict[str, Callable[[lmm.LinearMixedModel, Path], lmm.LinearMixedModel]] = {
    "fitted": lambda m, path: m,
    "refitted": lambda m, path: m.refit(m.fit.design.y + 1.0),
    "pickled": lambda m, path: pickle.loads(pickle.dumps(m)),
    "copied": lambda m, path: copy.deepcopy(m),
    "loaded": _saved,
}


@pytest.mark.parametrize("how", HOW)
def test_arrays_cannot_be_written(how: str, tmp_path: Path) -> None:
    fit = HOW[how](_fitted(_data()), tmp_path).fit
    seen: set[int] = set()
    found = dict(_arrays(fit.design, "design", seen))
    found.update(_arrays(fit.optimum, "optimum", seen))
    found.update(_arrays(fit.products, "products", seen))
    found.update(_arrays(fit.modes.solution, "solution", seen))
    template = fit.template
    for name in ("free", "start", "lower", "upper"):
        found[f"template.{name}"] = getattr(template, name)
    found["ZtZ"] = fit.products.ZtZ.data
    found.update(_arrays(fit.objective.response, "response", seen))
    found.update({name: getattr(fit, name) for name in ("beta", "vcov", "fitted", "theta")})
    assert {"design.y", "design.fixed", "design.weights", "design.offset"} <= set(found)
    assert {"design.blocks[0].columns", "design.blocks[0].grouping.codes"} <= set(found)
    assert [name for name, array in found.items() if array.flags.writeable] == []
    with pytest.raises(ValueError, match="read-only"):
        fit.design.y[0] = 9.0


def test_results_are_the_users_own() -> None:
    m = _fitted(_data())
    before = m.fitted.copy()
    for result in (m.fitted, m.residuals, m.fixef, m.theta, m.se):
        result += 1.0
    with pytest.raises(ValueError, match="read-only"):
        m.cond_var["g"][0] = 9.0
    modes, vcov = m.ranef["g"], m.vcov
    modes.iloc[0], vcov.iloc[0, 0] = 5.0, 5.0
    pd.testing.assert_series_equal(m.fitted, before)


def test_arrays_of_the_user_stay_writeable_and_apart() -> None:
    d = _data()
    y, w = d["y"].to_numpy(copy=True), d["w"].to_numpy(copy=True)
    X = np.column_stack([np.ones(200), d["x"]])
    Z, groups = d[["x"]].to_numpy(copy=True), d["g"].to_numpy(copy=True)
    for matrix in (X, np.asfortranarray(X)):
        m = lmm.fit_arrays(y, matrix, [(groups, Z)], weights=w)
        again = m.refit(y, weights=w)
        before = [m.residuals.copy(), m.loglik, again.loglik]
        for array in (y, matrix, Z, w):
            assert array.flags.writeable
            array += 0.5
        groups[0] += 1
        pd.testing.assert_series_equal(m.residuals, before[0])
        assert [m.loglik, again.loglik] == before[1:]
        assert m.refit(m.fit.design.y).loglik == pytest.approx(m.loglik)
    data = _data()
    model = _fitted(data)
    before = model.residuals.copy()
    data["y"] = data["y"] + 1.0
    data.loc[:, "x"] = 0.0
    pd.testing.assert_series_equal(model.residuals, before)


def test_sparse_columns_cannot_be_written() -> None:
    rng = np.random.default_rng(2)
    d = pd.DataFrame({"f": [f"l{i}" for i in np.repeat(np.arange(100), 6)]})
    d["g"], d["y"] = np.tile(np.arange(30), 20), rng.normal(size=600)
    d["y"] += rng.normal(size=30)[d["g"]]
    fixed = lmm.lmer("y ~ C(f) + (1 | g)", d).fit.design.fixed
    fixed = lmm.lmer("y ~ f + (1 | g)", d).fit.design.fixed if not sp.issparse(fixed) else fixed
    assert sp.issparse(fixed)
    with pytest.raises(ValueError, match="read-only"):
        fixed.data[0] = 9.0
