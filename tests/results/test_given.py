"""Responses drawn with the user's own parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError


@pytest.fixture(scope="module")
def model() -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))


def test_effects_move_the_mean(model: lmm.LinearMixedModel) -> None:
    own = model.simulate(3, rng=1)
    days = lmm.load_dataset("sleepstudy")["Days"]
    for beta in ({"Days": 20.0}, pd.Series({"Days": 20.0}), [model.fixef["Intercept"], 20.0]):
        moved = model.simulate(3, rng=1, beta=beta)
        change = (20.0 - model.fixef["Days"]) * days
        np.testing.assert_allclose(moved.sub(own, axis=0).T, [change] * 3, atol=1e-9)


def test_sigma_scales_all_that_is_random(model: lmm.LinearMixedModel) -> None:
    mean = model.predict(random=False)
    own = model.simulate(3, rng=1).sub(mean, axis=0)
    twice = model.simulate(3, rng=1, sigma=2 * model.sigma).sub(mean, axis=0)
    np.testing.assert_allclose(twice, 2 * own, rtol=1e-9, atol=1e-9)


def test_theta(model: lmm.LinearMixedModel) -> None:
    none = model.simulate(400, rng=1, theta=[0.0, 0.0, 0.0], sigma=1.0)
    spread = none.sub(model.predict(random=False), axis=0).to_numpy()
    assert spread.std() == pytest.approx(1.0, abs=0.01)
    own = model.simulate(2, rng=1, theta={"Subject.Days": model.theta["Subject.Days"]})
    pd.testing.assert_frame_equal(own, model.simulate(2, rng=1))
    # The random intercepts' variance is (θσ)².
    much = model.simulate(4000, rng=2, theta=[3.0, 0.0, 0.0], sigma=10.0)
    first = much.iloc[::10].to_numpy()
    assert first.std(axis=1).mean() == pytest.approx(np.hypot(30.0, 10.0), rel=0.02)


def test_new_data_and_kept_effects(model: lmm.LinearMixedModel) -> None:
    new = pd.DataFrame({"Days": [0, 9], "Subject": [308, 999]})
    a = model.simulate(2, rng=1, newdata=new, beta={"Days": 0.0}, random="keep")
    b = model.simulate(2, rng=1, newdata=new, random="keep")
    change = np.array([0.0, 9.0]) * model.fixef["Days"]
    np.testing.assert_allclose(b - a, np.column_stack([change, change]), atol=1e-9)


def test_generalized_models() -> None:
    cbpp = lmm.load_dataset("cbpp")
    m = lmm.glmer("incidence / size ~ period + (1 | herd)", cbpp, "binomial", weights="size")
    rare = m.simulate(200, rng=1, beta={"Intercept": -5.0}, theta={"herd.Intercept": 0.0})
    assert rare.iloc[0].mean() == pytest.approx(1 / (1 + np.exp(5.0)), abs=0.005)


def test_refusals(model: lmm.LinearMixedModel) -> None:
    cases = [
        ({"beta": {"Day": 1.0}}, r"'Day', which is not a fixed effect. Did you mean 'Days'"),
        ({"beta": [1.0]}, "has 1 values, but the model has 2"),
        ({"beta": {"Days": np.nan}}, "finite numbers"),
        ({"theta": {"Subject": 1.0}}, "theta names 'Subject'"),
        ({"theta": [1.0]}, "has 1 values, but the model has 3"),
        ({"sigma": 0.0}, "sigma must be a positive number"),
    ]
    for options, message in cases:
        with pytest.raises(OptionError, match=message):
            model.simulate(1, rng=1, **options)
    bounded = lmm.lmer("Reaction ~ Days + cs(Days | Subject)", lmm.load_dataset("sleepstudy"))
    with pytest.raises(OptionError, match="must be between"):
        bounded.simulate(1, rng=1, theta={bounded.theta.index[-1]: 7.0})
