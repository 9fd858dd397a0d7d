"""Satterthwaite's method where differences of gradients take long: the Hessian from its parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chunked import crossed

import lmmsparse as lmm
from lmmsparse.engine import criterion
from lmmsparse.results.parameter_covariance import parameter_covariance

DATA = crossed(1500, groups=60)
DATA["j"] = np.random.default_rng(0).integers(0, 400, len(DATA))
SOLVER = lmm.Blocked()


def _both(formula: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """A model, and what differences and parts say of its parameters and fixed effects."""
    m = lmm.lmer(formula, DATA, solver=SOLVER, **options)
    assert not m.fit.objective.costs_much
    wanted = parameter_covariance(m.fit), m.coef_table()
    for name in ("_LONG", "_LONG_EXACT"):
        monkeypatch.setattr(criterion, name, -1.0)
    assert m.fit.objective.costs_much
    return m, wanted, (parameter_covariance(m.fit), m.coef_table())


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + (1 + x | g) + (1 | h)",
        "y ~ x + cs(1 + x | g) + (1 | h)",
        "y ~ x + f + (1 + x | g)",
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"weights": "w", "reml": False}, {"fixed": {"sigma": 1.1}}]
)
def test_exact_traces(formula: str, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, wanted, found = _both(formula, monkeypatch, **options)
    size = np.abs(wanted[0].matrix).max()
    np.testing.assert_allclose(found[0].matrix, wanted[0].matrix, atol=1e-6 * size)
    np.testing.assert_allclose(found[1]["df"], wanted[1]["df"], rtol=1e-5)
    assert found[0].chance is None
    assert found[1].notes == wanted[1].notes


@pytest.mark.parametrize("options", [{}, {"weights": "w", "reml": False}])
def test_traces_from_random_vectors(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    m, wanted, found = _both("y ~ x + (1 + x | g) + (1 | j)", monkeypatch, **options)
    chance = found[0].chance
    assert chance is not None
    H = [np.linalg.inv(each[0].matrix)[:-1, :-1] * 2.0 for each in (wanted, found)]
    sd = np.sqrt(np.sum(chance**2, axis=0) / (len(chance) * (len(chance) - 1)))
    assert (np.abs(H[1] - H[0]) <= 4.0 * sd + 1e-6 * np.abs(H[0]).max()).all()
    off = np.abs(found[1]["df"] / wanted[1]["df"] - 1.0)
    note = found[1].notes[-1]
    assert "estimated with 32 random vectors" in note
    assert off.max() <= 0.04 * float(note.split("at most ")[1].split(" %")[0])
    assert note in str(m.summary())
    np.testing.assert_array_equal(found[1]["df"], m.coef_table()["df"])


def test_small_models_are_not_large() -> None:
    for formula in ("y ~ x + (1 | g) + (1 | j)", "y ~ x + (1 | g)"):
        m = lmm.lmer(formula, DATA, solver=SOLVER)
        assert 0.0 < m.fit.objective.system.seconds < 0.01
        assert not m.fit.objective.costs_much
