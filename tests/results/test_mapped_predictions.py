"""Predictions of a transformed response, mapped back to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmsparse as lmm

SLEEP = lmm.load_dataset("sleepstudy")
NEW = pd.DataFrame({"Days": [0, 10, 10], "Subject": [308, 308, 999]}, index=list("abc"))


@pytest.mark.parametrize(
    ("left", "back", "slope"),
    [
        ("log(Reaction)", np.exp, np.exp),
        ("np.sqrt(Reaction)", np.square, lambda e: 2 * e),
        ("I(1000 / Reaction)", lambda e: 1000 / e, lambda e: 1000 / e**2),
        ("Reaction", lambda e: e, np.ones_like),
    ],
)
def test_values_errors_and_limits(left: str, back, slope, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    m = lmm.lmer(f"{left} ~ Days + (Days | Subject)", SLEEP)
    m.save(tmp_path / "m.lmm")
    for model in (m, lmm.load(tmp_path / "m.lmm")):
        pd.testing.assert_series_equal(
            model.predict(type="response"), back(model.predict()), rtol=1e-12
        )
        how = {"new_levels": "population", "interval": "prediction", "level": 0.9}
        own = model.predict(NEW, **how)
        mapped = model.predict(NEW, type="response", **how)
        assert list(mapped.index) == list("abc")
        assert list(mapped.columns) == ["fit", "se", "lower", "upper"]
        np.testing.assert_allclose(mapped["fit"], back(own["fit"]), rtol=1e-12)
        np.testing.assert_allclose(mapped["se"], slope(own["fit"]) * own["se"], rtol=1e-10)
        ends = np.sort(np.column_stack([back(own["lower"]), back(own["upper"])]))
        np.testing.assert_allclose(mapped[["lower", "upper"]], ends, rtol=1e-12)
        assert (mapped["lower"] < mapped["fit"]).all()


def test_missing_predictors_stay_missing() -> None:
    m = lmm.lmer("log(Reaction) ~ Days + (Days | Subject)", SLEEP)
    new = NEW.assign(Days=[0, np.nan, 10])
    found = m.predict(new, type="response", random=False)
    assert found.isna().tolist() == [False, True, False]


def test_what_cannot_be_mapped_is_said() -> None:
    m = lmm.lmer("f(Reaction) ~ Days + (1 | Subject)", SLEEP, context={"f": np.log})
    with pytest.raises(lmm.OptionError, match=r"way back from f\(Reaction\)"):
        m.predict(type="response")
    with pytest.raises(lmm.OptionError, match="'link' or 'response'"):
        m.predict(type="prob")
