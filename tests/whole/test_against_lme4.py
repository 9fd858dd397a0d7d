"""Every model of the registry against lme4's stored results, one test per quantity."""

from __future__ import annotations

import pytest
from models import MODELS, fit, reference
from quantities import QUANTITIES, quantities_of
from tolerances import AGAINST_LME4

# Model by model, so that workers and readers meet each fit once.
CASES = [(name, quantity) for name in MODELS for quantity in quantities_of(name)]


@pytest.mark.parametrize(("name", "quantity"), CASES, ids=lambda value: value)
def test_agrees_with_lme4(name: str, quantity: str) -> None:
    tolerance = AGAINST_LME4[quantity]
    errors = QUANTITIES[quantity](fit(name), reference(name))
    apart = {label: f"{error:.2e}" for label, error in errors.items() if not error <= tolerance}
    assert not apart, f"{quantity} of {name} differs by more than {tolerance:g}: {apart}"


@pytest.mark.parametrize("name", MODELS)
def test_reference_is_that_of_the_registry(name: str) -> None:
    ours, theirs = MODELS[name], reference(name)
    keys = ("name", "data", "formula", "reml", "weights", "offset")
    assert {key: ours[key] for key in keys} == {key: theirs[key] for key in keys}


@pytest.mark.parametrize("name", MODELS)
def test_converged(name: str) -> None:
    assert fit(name).convergence.converged
