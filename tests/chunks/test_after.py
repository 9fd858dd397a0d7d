"""Values of rows, batch by batch, are those of a fit in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chunked import CHUNKS, FORMULA, crossed

import lmmsparse as lmm
from lmmsparse.chunks import after

DATA = crossed(2500, groups=60)
MEMORY = lmm.lmer(FORMULA, DATA, weights="w", offset="o")
CHUNKED = lmm.lmer(
    FORMULA, DATA, weights="w", offset="o", chunks=CHUNKS, start=MEMORY.theta.to_numpy()
)


def _together(parts: Any) -> Any:
    return pd.concat(list(parts))


def test_predictions() -> None:
    found = _together(CHUNKED.predict_batches(DATA, rows=700))
    np.testing.assert_allclose(found, CHUNKED.predict(DATA), rtol=1e-12)
    np.testing.assert_allclose(found, MEMORY.fitted, rtol=1e-7, atol=1e-8)
    assert found.index.equals(DATA.index)
    assert found.name == "predicted"
    population = _together(MEMORY.predict_batches(DATA, random=False, rows=700))
    np.testing.assert_allclose(population, MEMORY.predict(random=False), rtol=1e-12)
    some = _together(MEMORY.predict_batches(DATA, random="~ (1 | h)", rows=700))
    np.testing.assert_allclose(some, MEMORY.predict(random="~ (1 | h)"), rtol=1e-12)


@pytest.mark.parametrize("kind", ["response", "pearson"])
@pytest.mark.parametrize("scaled", [False, True])
def test_residuals(kind: str, scaled: bool) -> None:
    parts = MEMORY.residual_batches(DATA, kind=kind, scaled=scaled, rows=600)
    wanted = MEMORY.residuals_of(kind, scaled)
    np.testing.assert_allclose(_together(parts), wanted, atol=1e-12)


def test_simulations_do_not_depend_on_the_batches() -> None:
    for random in ("new", "keep", "~ (1 | h)"):
        wanted = MEMORY.simulate(3, rng=5, random=random)
        for rows in (400, 5000):
            parts = MEMORY.simulate_batches(DATA, 3, rng=5, random=random, rows=rows)
            pd.testing.assert_frame_equal(_together(parts), wanted, rtol=1e-12)


def test_missing_values_and_new_levels(tmp_path: Path) -> None:
    data = DATA.drop(columns="y").copy()
    data.loc[3, "x"] = np.nan
    data.loc[7, "h"] = "new"
    data.loc[2400, "g"] = 99_999
    data.to_parquet(tmp_path / "new.parquet")
    path = str(tmp_path / "new.parquet")
    with pytest.raises(lmm.DataError, match=r"levels of '[gh]'"):
        _together(MEMORY.predict_batches(path, rows=500))
    for new_levels in ("population", "nan"):
        found = _together(MEMORY.predict_batches(path, new_levels=new_levels, rows=500))
        wanted = MEMORY.predict(data, new_levels=new_levels)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
        assert found.index.equals(pd.RangeIndex(len(data)))
    with pytest.raises(lmm.DataError, match="no column 'y'"):
        next(MEMORY.residual_batches(path))
    full = DATA.assign(x=data["x"], h=data["h"])
    residuals = _together(MEMORY.residual_batches(full, rows=500))
    assert residuals.isna().to_numpy().nonzero()[0].tolist() == [3, 7]
    drawn = _together(MEMORY.simulate_batches(path, 1, rng=1, rows=500))
    assert drawn["sim_1"].isna().to_numpy().nonzero()[0].tolist() == [3]


def test_transformed_responses() -> None:
    m = lmm.lmer("np.log(w) ~ x + f + (1 | g)", DATA, chunks=CHUNKS)
    found = _together(m.residual_batches(DATA, rows=900))
    np.testing.assert_allclose(found, np.log(DATA["w"]) - m.predict(DATA), atol=1e-12)


def test_written_predictions(tmp_path: Path) -> None:
    DATA.to_parquet(tmp_path / "in.parquet")
    out = tmp_path / "out"
    files = MEMORY.write_predictions(tmp_path / "in.parquet", out, columns=["g", "f"], rows=1000)
    assert [file.name for file in files] == [f"part-{i:05d}.parquet" for i in range(3)]
    found = pd.read_parquet(out)
    assert found.columns.tolist() == ["g", "f", "predicted"]
    np.testing.assert_allclose(found["predicted"], MEMORY.fitted, rtol=1e-12)
    assert found["f"].tolist() == DATA["f"].tolist()
    with pytest.raises(lmm.StorageError, match="no empty folder"):
        MEMORY.write_predictions(tmp_path / "in.parquet", out)
    with pytest.raises(lmm.DataError, match="no column 'nothing'"):
        MEMORY.write_predictions(DATA, tmp_path / "more", columns="nothing")


def test_nothing_is_left_of_what_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmmsparse.chunks import write

    calls = []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return after.predict(*args, **kwargs)

    monkeypatch.setattr(write, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MEMORY.write_predictions(DATA, tmp_path / "out", rows=500)
    assert len(calls) == 3
    assert list(tmp_path.iterdir()) == []


def test_models_from_arrays_have_no_columns() -> None:
    m = lmm.fit_arrays(DATA["y"], np.ones((len(DATA), 1)), [(DATA["g"], None)])
    with pytest.raises(lmm.OptionError, match="fitted from arrays"):
        m.predict_batches(DATA)


def test_a_bar_over_the_rows(capfd: pytest.CaptureFixture[str]) -> None:
    list(MEMORY.predict_batches(DATA, rows=500, progress=True))
    assert "predicting" in capfd.readouterr().err
