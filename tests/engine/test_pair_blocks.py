"""Blocks of Z'WZ: counted where columns are ones, and multiplied from without Z'WZ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.arrays import is_ones
from lmmsparse.fit.problem import products_of

FORMULAS = (
    "y ~ x + (1 | a) + (1 | b)",
    "y ~ 1 + (1 + x | a) + (0 + z | a) + (x | b) + (1 | c)",
    "y ~ x + (1 | a) + (1 | b:c) + (0 + z | c)",
)


def _data(n: int = 900) -> pd.DataFrame:
    r = np.random.default_rng(4)
    data = pd.DataFrame({"x": r.normal(size=n), "z": r.normal(size=n), "one": np.ones(n)})
    for name, levels in (("a", 90), ("b", 25), ("c", 6)):
        data[name] = r.integers(0, levels, n)
    return data.assign(y=r.normal(size=n) + r.normal(size=90)[data["a"]])


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("at_once", [40, 10**9])
def test_products_by_pairs(formula: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmmsparse.engine.pair_blocks.AT_ONCE", at_once)
    products, _ = products_of(lmm.build_design(formula, _data()))
    b = np.random.default_rng(0).normal(size=(products.q, 3))
    want = products.ZtZ @ b
    np.testing.assert_allclose(products._times_by_pairs(b), want, atol=1e-12 * np.abs(want).max())
    monkeypatch.setattr("lmmsparse.engine.products.AT_ONCE", at_once)
    np.testing.assert_allclose(products.times(b[:, 0]), want[:, 0], atol=1e-10)


@pytest.mark.parametrize("formula", FORMULAS)
def test_columns_of_ones_are_counted(formula: str) -> None:
    """Weights of one make them numbers like others."""
    data = _data()
    (counted, response), (summed, other) = (
        products_of(lmm.build_design(formula, data, weights=w)) for w in (None, "one")
    )
    assert is_ones(lmm.build_design(FORMULAS[0], data).blocks[0].columns)
    for own, want in zip(counted.pairs, summed.pairs, strict=True):
        np.testing.assert_array_equal(own.rows, want.rows)
        np.testing.assert_array_equal(own.cols, want.cols)
        np.testing.assert_allclose(own.values, want.values, atol=1e-12)
    np.testing.assert_allclose(counted.ZtX, summed.ZtX, atol=1e-12)
    np.testing.assert_allclose(np.abs(counted.basis.R), np.abs(summed.basis.R), atol=1e-12)
    np.testing.assert_allclose(response.Zty, other.Zty, atol=1e-12)
    assert response.yty == pytest.approx(other.yty, rel=1e-13)
