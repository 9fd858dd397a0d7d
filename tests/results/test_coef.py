"""Coefficients per level: the fixed part of an effect in whatever way it is written."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    d = pd.DataFrame({"g": np.repeat(np.arange(30), 20), "f": rng.choice(list("pqr"), 600)})
    for name in "abc":
        d[name] = rng.normal(size=600)
    d["y"] = rng.normal(size=30)[d["g"]] + rng.normal(size=600) + d["a"] * d["b"]
    d["y"] += rng.normal(size=30)[d["g"]] * d["a"] * d["b"]
    return d


@pytest.mark.parametrize(
    ("fixed", "random", "pairs"),
    [
        ("b:a", "a:b", {"b:a": "a:b"}),
        ("a + b:c:a", "0 + c:a:b", {"b:c:a": "c:a:b"}),
        ("f", "0 + f", {"f[T.q]": "f[q]", "f[T.r]": "f[r]"}),
        ("a:f", "0 + f:a", {"a:f[q]": "f[q]:a"}),
    ],
)
def test_one_effect_has_one_column(fixed: str, random: str, pairs: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lmm.lmer(f"y ~ {fixed} + ({random} | g)", _data())
    coef, ranef = m.coef["g"], m.ranef["g"]
    for name, other in pairs.items():
        assert other not in coef.columns
        np.testing.assert_allclose(coef[name], m.fixef[name] + ranef[other])
    assert coef.columns.is_unique
