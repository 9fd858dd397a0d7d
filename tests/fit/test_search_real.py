"""Models of real data at the lowest criterion of many searches (`validation/search_real.py`)."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pandas as pd
import pytest
from models import VALIDATION

import lmmsparse as lmm
from lmmsparse.common.errors import LmmWarning

MODELS: list[dict[str, Any]] = json.loads(
    (VALIDATION / "search_real.json").read_text(encoding="utf-8")
)["models"]
# Where several minima are far apart, a search is not sure of the lowest.
CASES = [m for m in MODELS if m["kind"] != "hard: local minimum"]


@pytest.mark.long
@pytest.mark.parametrize("model", CASES, ids=[f"{m['source']}-{m['formula']}" for m in CASES])
def test_the_default_search_is_at_the_best_optimum(model: dict[str, Any]) -> None:
    data = pd.read_csv(VALIDATION / "search_data" / model["data"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        m = lmm.lmer(model["formula"], data, reml=model["reml"], weights=model["weights"])
    codes = {finding.code for finding in m.convergence.findings}
    if model["best"] is None:
        assert "exact-fit" in codes
        return
    # r² is what is left of y'Wy.
    response, squares = m.fit.objective.response, m.fit.modes.solution.pwrss
    rounding = 1e-14 * m.fit.objective.df * response.yty / squares
    assert m.fit.criterion <= model["best"] + 1e-5 + rounding
    assert m.convergence.converged
    assert m.fit.optimum.evaluations <= (50 if model["kind"] == "regular" else 150)
