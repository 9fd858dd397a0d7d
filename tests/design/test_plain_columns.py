"""What is built without formulaic is what formulaic builds."""

from __future__ import annotations

import models
import numpy as np
import pandas as pd
import pytest

from lmmsparse.design import build_design, matrices
from lmmsparse.design.columns import describe
from lmmsparse.design.plain import plain_columns
from lmmsparse.design.variables import Variables

RNG = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {
        "y": RNG.normal(size=30),
        "x": np.arange(30) % 7,
        "z": RNG.normal(size=30),
        "my age": RNG.integers(20, 60, size=30),
        "f": pd.Categorical(RNG.choice(list("pqr"), size=30)),
        "n": pd.Categorical(np.arange(30) % 3 + 1),
        "t": pd.Categorical(np.arange(30) % 2, ordered=True),
        "w": pd.Categorical(np.arange(30) % 12),
        "b": np.arange(30) % 2 == 0,
    }
)
PLAIN = (
    "0 + y",
    "1",
    "0",
    "1 + x",
    "0 + x + z",
    "1 + x*z",
    "0 + x:z",
    "1 + x + z + x:z:`my age`",
    "1 + `my age`*x",
    "1 + f + x",
    "1 + x + f + n + t",
    "1 + z:x + x:z",
    "1 + (x + z + `my age`)**2",
    "1 + f*n",
    "1 + n*f",
    "1 + f*n*t",
    "1 + f*x",
    "1 + f*z*n",
    "1 + z*x*f*`my age`",
    "1 + w*f",
    "1 + w*t*z",
    "1 + (f + n + t)**2",
    "1 + f + n + x:z + f:n",
    "0 + x + x:f",
)
NOT_PLAIN = (
    "0 + f",
    "1 + f:x",
    "1 + f:n",
    "1 + f + f:n",
    "1 + f + n + t + f:n:t",
    "0 + f*n",
    "1 + b",
    "1 + b*f",
    "1 + np.log(`my age`)",
    "1 + C(x)",
    "1 + f*C(n)",
)


def _by_formulaic(text: str, monkeypatch: pytest.MonkeyPatch) -> tuple:
    with monkeypatch.context() as patch:
        patch.setattr(matrices, "plain_columns", lambda *a, **k: None)
        return _learn(text)


def _learn(text: str) -> tuple:
    table = Variables.of(FRAME, FRAME)
    built, recipe, _ = matrices.learn({"fixed": text}, {"fixed": tuple(FRAME)}, table, {}, {})
    return *built["fixed"], recipe


@pytest.mark.parametrize("text", PLAIN)
def test_the_same_columns(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values, names, recipe = _learn(text)
    want, want_names, want_recipe = _by_formulaic(text, monkeypatch)
    assert names == want_names
    np.testing.assert_array_equal(values, want)
    assert recipe.levels == want_recipe.levels
    if names:
        again, _ = recipe.matrix("fixed", FRAME.iloc[5:9])
        np.testing.assert_array_equal(again, want[5:9])


@pytest.mark.parametrize("text", [*PLAIN, *NOT_PLAIN])
def test_what_is_plain(text: str) -> None:
    terms = list(matrices._parsed({"fixed": text}).fixed)
    columns = {name: describe(FRAME[name], name, set(FRAME), {}) for name in FRAME}
    assert (plain_columns(terms, Variables.of(FRAME, FRAME), columns) is not None) == (
        text in PLAIN
    )


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_every_model_of_the_registry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.MODELS[name]
    frame = models.frame(model["data"])
    design = build_design(model["formula"], frame)
    with monkeypatch.context() as patch:
        patch.setattr(matrices, "plain_columns", lambda *a, **k: None)
        want = build_design(model["formula"], frame)
    assert design.x_names == want.x_names
    np.testing.assert_array_equal(design.X, want.X)
    np.testing.assert_array_equal(design.y, want.y)
    for block, other in zip(design.blocks, want.blocks, strict=True):
        assert block.names == other.names
        np.testing.assert_array_equal(block.columns, other.columns)


def test_an_infinite_number_is_zero_where_its_level_is_not() -> None:
    """As it is where a factor has many levels; 0 times infinity is no number."""
    data = pd.DataFrame({"y": np.arange(12.0), "x": np.arange(12.0), "f": list("abc") * 4})
    data["g"] = np.repeat(np.arange(4), 3)
    recipe = build_design("y ~ x + x:f + (1 | g)", data).recipe
    assert recipe is not None
    X, _ = recipe.matrices.matrix("fixed", data.assign(x=np.inf).head(3))
    inf = np.inf
    np.testing.assert_array_equal(X, [[1, inf, 0, 0], [1, inf, inf, 0], [1, inf, 0, inf]])
