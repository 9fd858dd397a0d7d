"""Mixed models with pedigrees whose solutions are printed in a textbook, or fitted by lme4.

Mrode (2014), Linear Models for the Prediction of Animal Breeding Values, third edition.
"""

from __future__ import annotations

import json
from typing import Any

import models
import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm

LME4 = json.loads((models.VALIDATION / "known.json").read_text(encoding="utf-8"))


def test_mrode_animal_model() -> None:
    """Example 3.1: weight gain of beef calves, σ²_a = 20, σ²_e = 40."""
    pedigree = lmm.Pedigree([4, 5, 6, 7, 8], [1, 3, 1, 4, 3], [None, 2, 2, 5, 6])
    d = pd.DataFrame(
        {
            "calf": [4, 5, 6, 7, 8],
            "sex": ["m", "f", "f", "m", "m"],
            "gain": [4.5, 2.9, 3.9, 3.5, 5.0],
        }
    )
    held = {"sigma": 40**0.5, "calf.Intercept": (20 / 40) ** 0.5}
    m = lmm.lmer("gain ~ 0 + sex + (1 | calf)", d, known={"calf": pedigree}, fixed=held)
    np.testing.assert_allclose(m.fixef[["sex[m]", "sex[f]"]], [4.358, 3.404], atol=1e-3)
    animals = m.ranef["calf"]["Intercept"].loc[list(range(1, 9))]
    printed = [0.098, -0.019, -0.041, -0.009, -0.186, 0.177, -0.249, 0.183]
    np.testing.assert_allclose(animals, printed, atol=1e-3)


def test_mrode_repeatability_model() -> None:
    """Example 4.1: fat yield of cows, σ²_a = 20, σ²_pe = 12, σ²_e = 28."""
    pedigree = lmm.Pedigree([4, 5, 6, 7, 8], [1, 3, 1, 3, 1], [2, 2, 5, 4, 7])
    d = pd.DataFrame(
        {
            "cow": [4, 4, 5, 5, 6, 6, 7, 7, 8, 8],
            "hys": [1, 3, 1, 4, 2, 3, 1, 3, 2, 4],
            "fat": [201.0, 280, 150, 200, 160, 190, 180, 250, 285, 300],
        }
    )
    d["pe"] = d["cow"]
    held = {
        "sigma": 28**0.5,
        "cow.Intercept": (20 / 28) ** 0.5,
        "pe.Intercept": (12 / 28) ** 0.5,
    }
    formula = "fat ~ 0 + factor(hys) + (1 | cow) + (1 | pe)"
    m = lmm.lmer(formula, d, known={"cow": pedigree}, fixed=held)
    animals = m.ranef["cow"]["Intercept"].loc[list(range(1, 9))]
    printed = [10.148, -3.084, -7.063, 13.581, -18.207, -18.387, 9.328, 24.194]
    np.testing.assert_allclose(animals, printed, atol=2e-3)
    lasting = m.ranef["pe"]["Intercept"].loc[[4, 5, 6, 7, 8]]
    np.testing.assert_allclose(lasting, [8.417, -7.146, -17.229, -1.390, 17.347], atol=2e-3)


@pytest.mark.parametrize("answer", LME4["models"], ids=lambda a: f"{a['formula']}-{a['reml']}")
def test_lme4_on_columns_times_a_root_of_the_covariance(answer: dict[str, Any]) -> None:
    pedigree = lmm.Pedigree.from_frame(
        pd.DataFrame(LME4["pedigree"]), id="id", sire="sire", dam="dam"
    )
    m = lmm.lmer(answer["formula"], LME4["data"], reml=answer["reml"], known={"id": pedigree})
    assert m.optimum.value == pytest.approx(answer["criterion"], abs=1e-6)
    np.testing.assert_allclose(m.fixef, answer["beta"], rtol=1e-5)
    np.testing.assert_allclose(m.se, answer["se"], rtol=1e-4)
    np.testing.assert_allclose(m.varcorr.to_frame()["vcov"], answer["vcov"], rtol=2e-3, atol=1e-4)
