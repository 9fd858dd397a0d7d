"""Confidence intervals by every method, for every small kind of REML fit of the registry."""

from __future__ import annotations

import re
from typing import Any

import models
import numpy as np
import pytest


def _kind(model: dict[str, Any]) -> tuple[Any, ...]:
    """Data, weights, offset and random effects of a model."""
    random = tuple(re.findall(r"\([^()]*\|[^()]*\)", model["formula"]))
    return model["data"], model["weights"], model["offset"], random


SMALL = {
    _kind(model): name
    for name, model in models.MODELS.items()
    if model["reml"] and models.reference(name)["n"] <= 300 and model.get("compare") != "criterion"
}


@pytest.mark.long
@pytest.mark.parametrize("name", SMALL.values())
def test_every_method_gives_ordered_limits_without_a_warning(name: str) -> None:
    # Warnings are errors here.
    model = models.fit(name)
    p = len(model.fixef)
    wald = model.confint("wald")
    names = wald.index.tolist()
    # Of many fixed effects the first and the last.
    some = [*names[: len(names) - p], *dict.fromkeys(names[-p:][:: max(1, p - 1)])]
    by_profile = model.confint(which=some)
    boot = model.confint("boot", n=20, rng=1)
    assert boot.index.tolist() == names
    assert by_profile.index.tolist() == some
    assert names[-p:] == model.fixef.index.tolist()
    assert (by_profile["lower"] <= by_profile["upper"]).all()
    assert (boot["lower"] <= boot["upper"]).all()
    if model.is_singular():
        return
    estimates = np.append(model.tidy("ran_pars")["estimate"].to_numpy(), model.fixef)
    assert len(estimates) == len(names)
    half = 1.959963984540054 * model.se
    np.testing.assert_allclose(wald["lower"].iloc[-p:], model.fixef - half)
    np.testing.assert_allclose(wald["upper"].iloc[-p:], model.fixef + half)
    # ML profiles of fixed effects are about the ML estimates, which differ little.
    fixed = [name for name in some if name in model.fixef]
    middle = by_profile.loc[fixed].mean(axis=1)
    assert (np.abs(middle - model.fixef[fixed]) < 0.5 * model.se[fixed]).all()
    width = (wald["upper"] - wald["lower"])[fixed]
    ratio = (by_profile["upper"] - by_profile["lower"])[fixed] / width
    assert ratio.between(0.75, 2.5).all()
