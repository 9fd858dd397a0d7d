"""Columns of ones are kept once, however a model comes to be."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.arrays import is_ones

N = 4000
DATA = pd.DataFrame({"g": np.arange(N) % 25, "h": np.arange(N) // 7 % 9})
DRAWN = np.random.default_rng(3)
DATA["y"] = DRAWN.normal(size=25)[DATA["g"]] + DRAWN.normal(size=9)[DATA["h"]]
DATA["y"] += DRAWN.normal(size=N)


@pytest.mark.parametrize("formula", ["y ~ 1 + (1 | g)", "y ~ 1 + (1 | g) + (1 | h)"])
def test_a_copy_computes_the_same_digits_on_no_more_memory(formula: str, tmp_path: Path):
    m = lmm.lmer(formula, DATA)
    m.save(tmp_path / "m.lmm")
    there = np.linspace(0.4, 1.3, len(m.theta))
    at = m.fit.objective.derivatives(there)
    for copy in (pickle.loads(pickle.dumps(m.fit)), lmm.load(tmp_path / "m.lmm").fit):
        for ones in (copy.design.fixed, *(block.columns for block in copy.design.blocks)):
            assert is_ones(ones)
            assert ones.shape == (N, 1)
        again = copy.objective.derivatives(there)
        assert again.value == at.value
        np.testing.assert_array_equal(again.gradient, at.gradient)
        np.testing.assert_array_equal(again.hessian, at.hessian)
    of_columns = [len(pickle.dumps(block)) for block in m.fit.design.blocks]
    assert max(of_columns) < 8 * N  # the codes, in four bytes each, and little else
