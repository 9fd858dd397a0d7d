"""Confidence intervals by every method, for every small REML fit of the registry."""

from __future__ import annotations

import models
import numpy as np
import pytest

SMALL = [
    name
    for name, model in models.MODELS.items()
    if model["reml"] and models.reference(name)["n"] <= 300 and model.get("compare") != "criterion"
]


@pytest.mark.parametrize("name", SMALL)
def test_every_method_gives_ordered_limits_without_a_warning(name: str) -> None:
    # Warnings are errors here.
    model = models.fit(name)
    p = len(model.fixef)
    by_profile = model.confint()
    wald = model.confint("wald")
    boot = model.confint("boot", n=20, rng=1)
    names = by_profile.index.tolist()
    assert wald.index.tolist() == boot.index.tolist() == names
    assert names[-p:] == model.fixef.index.tolist()
    assert (by_profile["lower"] <= by_profile["upper"]).all()
    assert (boot["lower"] <= boot["upper"]).all()
    if model.is_singular():
        return
    estimates = np.append(model.tidy("ran_pars")["estimate"].to_numpy(), model.fixef)
    assert len(estimates) == len(names)
    # ML profiles of fixed effects are about the ML estimates, which differ little.
    middle = by_profile.iloc[-p:].mean(axis=1)
    assert (np.abs(middle - model.fixef) < 0.5 * model.se).all()
    width = (wald["upper"] - wald["lower"]).iloc[-p:]
    ratio = (by_profile["upper"] - by_profile["lower"]).iloc[-p:] / width
    assert ratio.between(0.75, 2.5).all()
