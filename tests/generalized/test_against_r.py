"""Generalized models against R's stored results: tight at given points, loose at the optimum."""

from __future__ import annotations

import pytest
from generalized_models import MODELS, fit, reference
from generalized_quantities import AGAINST_R, QUANTITIES

# One small model of every kind; `validation/check_generalized.py` compares them all.
CHEAP = [
    "bacteria",
    "bacteria_probit",
    "bacteria_slope",
    "bacteria_weights",
    "cake_gamma",
    "cbpp",
    "cbpp_agq0",
    "cbpp_agq9",
    "cbpp_cauchit",
    "cbpp_cloglog",
    "cbpp_observations",
    "cbpp_proportion",
    "epil_nb",
    "epil_slope",
    "machines_gaussian_log",
    "owls",
    "warpbreaks_identity",
]


@pytest.mark.parametrize("name", CHEAP)
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_agrees_with_r(name: str, quantity: str) -> None:
    tolerance = AGAINST_R[quantity]
    errors = QUANTITIES[quantity](fit(name), reference(name))
    apart = {label: f"{error:.2e}" for label, error in errors.items() if not error <= tolerance}
    assert not apart, f"{quantity} of {name} differs by more than {tolerance:g}: {apart}"


@pytest.mark.parametrize("name", CHEAP)
def test_converged_in_few_evaluations(name: str) -> None:
    verdict = fit(name).convergence
    assert verdict.converged
    assert verdict.evaluations <= 40


@pytest.mark.parametrize("name", MODELS)
def test_reference_is_that_of_the_registry(name: str) -> None:
    ours, theirs = MODELS[name], reference(name)
    keys = ("name", "data", "formula", "family", "link")
    assert {key: ours[key] for key in keys} == {key: theirs[key] for key in keys}


@pytest.mark.parametrize("name", MODELS)
def test_programs_agree_on_the_reference(name: str) -> None:
    """What is stored was computed twice where two programs have the model.

    lme4 keeps the factor of the last step but one of its inner search: up to 1e-4 off.
    """
    for program, bound in (("glmmTMB", 3e-6), ("lme4", 1e-4)):
        if program == "lme4" and MODELS[name].get("weights") == "w":
            continue  # it has other constants where weights are not trials
        found = reference(name)["agreement"].get(program) or {}
        for key in ("optimum", "points"):
            assert abs(found.get(key) or 0.0) < bound, (program, key)
