"""Ctrl-C in a long computation: what is finished stays, and is what it would have been."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import lmmsparse as lmm


@pytest.fixture(scope="module")
def model() -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (1 | Subject)", lmm.load_dataset("sleepstudy"))


class _Stops:
    """A statistic after which the user presses Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, model: lmm.LinearMixedModel) -> dict[str, float]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return {"sigma": model.sigma}


def test_a_bootstrap_keeps_the_replicates_it_has(model: lmm.LinearMixedModel) -> None:
    whole = model.bootstrap(40, rng=3, statistic=lambda m: {"sigma": m.sigma})
    with pytest.warns(lmm.InterruptedWarning, match="24 of 40 replicates"):
        part = model.bootstrap(40, rng=3, statistic=_Stops(30))
    assert part.requested == 40
    assert "24 of 40 replicates" in repr(part)
    np.testing.assert_array_equal(part.to_frame(), whole.to_frame()[:24])
    assert np.isfinite(part.confint()).all(axis=None)


def test_without_any_result_there_is_nothing_to_keep(model: lmm.LinearMixedModel) -> None:
    with pytest.raises(KeyboardInterrupt):
        model.bootstrap(40, rng=3, statistic=_Stops(3))


def test_a_profile_keeps_the_parameters_it_has(
    model: lmm.LinearMixedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["lmmsparse.inference.profile"]
    follow = module._follow  # type: ignore[attr-defined]

    def stop(fit: Any, index: int, *rest: Any) -> Any:
        if index == 2:
            raise KeyboardInterrupt
        return follow(fit, index, *rest)

    monkeypatch.setattr(module, "_follow", stop)
    with pytest.warns(lmm.InterruptedWarning, match="2 of 4"):
        part = model.profile()
    assert part.confint().index.tolist() == ["sd_Intercept|Subject", "sigma"]
    assert part.findings[0].code == "interrupted"
    monkeypatch.undo()
    np.testing.assert_allclose(part.confint(), model.profile().confint().iloc[:2])
