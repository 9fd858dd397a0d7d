"""Predictions that allow for the uncertainty of the covariance parameters."""

from __future__ import annotations

import numpy as np
import pytest

import lmmsparse as lmm
from lmmsparse.common.errors import OptionError


@pytest.fixture(scope="module")
def model() -> lmm.LinearMixedModel:
    return lmm.lmer("Reaction ~ Days + (Days | Subject)", lmm.load_dataset("sleepstudy"))


def test_draws_widen_and_converge_to_known_parameters(model: lmm.LinearMixedModel) -> None:
    known = model.predict(se=True)
    drawn = model.predict(se=True, theta_draws=200, rng=1)
    np.testing.assert_array_equal(drawn["fit"], known["fit"])
    # On average, and by little for subjects with ten observations each.
    assert 1.0 < (drawn["se"] / known["se"]).mean() < 1.1
    same = model.predict(se=True, theta_draws=200, rng=1)
    np.testing.assert_array_equal(drawn, same)
    held = lmm.lmer(
        "Reaction ~ Days + (Days | Subject)",
        lmm.load_dataset("sleepstudy"),
        fixed={**model.theta.to_dict(), "sigma": model.sigma},
    )
    for interval in ("confidence", "prediction"):
        np.testing.assert_allclose(
            held.predict(interval=interval, theta_draws=3), model.predict(interval=interval)
        )


def test_weights_missing_rows_and_new_levels() -> None:
    data = lmm.load_dataset("sleepstudy")
    data["w"] = np.linspace(0.5, 2.0, len(data))
    data.loc[[3, 50], "Days"] = np.nan
    model = lmm.lmer(
        "Reaction ~ Days + (1 | Subject)", data, weights="w", na_action="exclude", offset="w"
    )
    frame = model.predict(interval="prediction", theta_draws=20)
    assert frame["upper"].isna().sum() == 2
    new = data.dropna().assign(Subject="new")[:2]
    assert model.predict(new, se=True, theta_draws=5, new_levels="nan")["se"].isna().all()
    wide = model.predict(new, se=True, theta_draws=50, new_levels="population")
    assert (wide["se"] > model.predict(new, random=False, se=True)["se"]).all()


def test_options(model: lmm.LinearMixedModel) -> None:
    for draws in (-1, 2.5, True, "many"):
        with pytest.raises(OptionError, match="theta_draws"):
            model.predict(se=True, theta_draws=draws)
    with pytest.raises(OptionError, match="goes with standard errors"):
        model.predict(theta_draws=10)
