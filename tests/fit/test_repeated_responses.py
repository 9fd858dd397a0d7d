"""Responses that repeat within groups leave nothing of which residuals' structure can be told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm

RNG = np.random.default_rng(5)
G = np.repeat(np.arange(10), 8)
DATA = pd.DataFrame({"g": G, "t": np.tile(np.arange(8), 10), "x": RNG.normal(size=80)})
DATA["w"] = RNG.uniform(0.5, 2.0, 80)
DATA["noise"] = RNG.normal(size=80)
DATA["level"] = 1.0 + 2.0 * DATA["x"] + RNG.normal(size=10)[G]
DATA["lines"] = DATA["level"] + RNG.normal(size=10)[G] * DATA["x"]
STRUCTURES = (
    {"residual": "ar1(t | g)"},
    {"residual": "cs(t | g)"},
    {"residual": "us(t | g)"},
    {"residual": "car1(t | g)", "residual_sd": "~ x"},
)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("random", ["", " + (1 | g)"])
def test_a_response_that_repeats_within_groups_is_refused(structure, random) -> None:
    with pytest.raises(lmm.DataError, match="fit the response exactly: nothing is left of which"):
        lmm.lmer(f"level ~ x{random}", DATA, **structure)


def test_whatever_the_weights_and_the_unit() -> None:
    far = DATA.assign(level=1e6 + 1e-3 * DATA["level"])
    for data, options in ((DATA, {"weights": "w"}), (far, {}), (far, {"reml": False})):
        with pytest.raises(lmm.DataError, match="response repeats within 'g'"):
            lmm.lmer("level ~ x + (1 | g)", data, residual="ar1(t | g)", **options)


def test_lines_of_every_group() -> None:
    with pytest.raises(lmm.DataError, match="response repeats within 'g'"):
        lmm.lmer("lines ~ x + (x | g)", DATA, residual_sd="~ x")
    m = lmm.lmer("lines ~ x + (1 | g)", DATA, residual_sd="~ x")
    assert m.convergence.converged


def test_refits() -> None:
    noisy = DATA.assign(y=DATA["level"] + DATA["noise"])
    m = lmm.lmer("y ~ x + (1 | g)", noisy, residual_sd="~ x")
    with pytest.raises(lmm.DataError, match="response repeats within 'g'"):
        m.refit(DATA["level"])


def test_what_only_looks_like_it_is_fitted() -> None:
    """A little noise, a held variance."""
    nearly = DATA.assign(level=DATA["level"] + 1e-3 * DATA["noise"])
    m = lmm.lmer("level ~ x + (1 | g)", nearly, residual="ar1(t | g)")
    assert m.convergence.converged
    assert m.sigma == pytest.approx(1e-3, rel=0.3)
    held = lmm.lmer("level ~ x + (1 | g)", DATA, residual_sd="~ x", fixed={"sigma": 1.0})
    assert held.convergence.converged
