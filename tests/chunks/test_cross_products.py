"""Cross-products are made once, saved and fitted: the fits are those of the data in chunks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chunked import CHUNKS, FORMULA, crossed

import lmmsparse as lmm
from lmmsparse.chunks import design as chunked_design


def _with_gaps() -> pd.DataFrame:
    r = np.random.default_rng(5)
    data = crossed()
    data.loc[r.integers(0, len(data), 90), "x"] = np.nan
    data.loc[r.integers(0, len(data), 40), "h"] = None
    data.loc[r.integers(0, len(data), 30), "w"] = 0.0
    return data


DATA = _with_gaps()
OPTIONS: dict[str, Any] = {"weights": "w", "offset": "o", "contrasts": {"f": "sum"}}


@pytest.fixture(scope="module")
def products() -> Any:
    """Of a model with weights, an offset and missing values; the sample is a part of the rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_design, "SAMPLE", 900)
        return lmm.cross_products(FORMULA, DATA, chunks=CHUNKS, **OPTIONS)


@pytest.fixture(scope="module")
def file(products: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("products") / "p.lmm"
    products.save(path)
    return path


def _fit(data: Any, formula: str = FORMULA, **options: Any) -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lmm.LmmWarning)
        return lmm.lmer(formula, data, **options)


def _same(a: lmm.LinearMixedModel, b: lmm.LinearMixedModel) -> None:
    assert a.fit.optimum.value == b.fit.optimum.value
    assert a.theta.equals(b.theta)
    assert a.fixef.equals(b.fixef)
    for name, effects in a.ranef.items():
        assert effects.equals(b.ranef[name])
    assert a.convergence.findings == b.convergence.findings
    assert str(a.summary()) == str(b.summary())


def test_what_it_says(products: Any) -> None:
    used = DATA.dropna()
    assert products.formula == FORMULA
    assert products.nobs == (used["w"] > 0).sum()
    assert products.n_groups == {"g": 150, "h": 30}
    said = f"Cross-products of {FORMULA}: {products.nobs:,} rows, g (150 levels), h (30 levels)"
    assert repr(products) == said


def test_the_fit_is_that_of_the_data(
    products: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_design, "SAMPLE", 900)
    reference, loaded = _fit(DATA, chunks=CHUNKS, **OPTIONS), lmm.load(file)
    assert repr(loaded) == repr(products)
    for given in (products, loaded):
        _same(_fit(given), reference)
    spaces = FORMULA.replace(" ", "")
    assert _fit(products, spaces).fit.optimum.value == reference.fit.optimum.value


@pytest.mark.parametrize(
    "options",
    [
        {"reml": False, "optimizer": lmm.Bobyqa()},
        {"fixed": {"sigma": 1.0}, "solver": lmm.Blocked()},
        {"start": [0.8, 0.1, 0.3, 0.9]},
    ],
)
def test_options_of_the_search(options: dict[str, Any]) -> None:
    data = DATA.head(1500)
    products = lmm.cross_products(FORMULA, data, chunks=CHUNKS)
    _same(_fit(products, **options), _fit(data, chunks=CHUNKS, **options))


def test_files_and_updates(tmp_path: Path) -> None:
    DATA.to_parquet(tmp_path / "a.parquet")
    formula = "y ~ x + (1 | g) + (1 | h)"
    products = lmm.cross_products(formula, tmp_path / "a.parquet")
    products.save(tmp_path / "p.lmm")
    reference = lmm.lmer(formula, tmp_path / "a.parquet")
    m = lmm.lmer(formula, lmm.load(tmp_path / "p.lmm"))
    _same(m, reference)
    m.save(tmp_path / "m.lmm")
    assert isinstance(lmm.load(tmp_path / "m.lmm"), lmm.LinearMixedModel)
    products = lmm.cross_products(formula, tmp_path / "a.parquet")
    _same(m.update(data=products, reml=False), reference.update(reml=False))


def test_damage(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    damaged = tmp_path / "damaged.lmm"
    for at in np.linspace(0, len(whole) - 1, 25).astype(int):
        damaged.write_bytes(whole[:at])
        with pytest.raises(lmm.StorageError):
            lmm.load(damaged)
    for at in np.linspace(200, 0.9 * len(whole), 10).astype(int):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(lmm.StorageError):
            lmm.load(damaged)


@pytest.mark.parametrize(
    "other", [FORMULA.replace(" + (1 | h)", ""), FORMULA.replace("x +", "o +"), "y ~ x + (1 | g)"]
)
def test_another_formula(products: Any, other: str) -> None:
    with pytest.raises(lmm.FormulaError) as caught:
        lmm.lmer(other, products)
    assert repr(FORMULA) in str(caught.value)
    assert repr(other) in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        {"weights": "w"},
        {"weights": np.ones(len(DATA))},
        {"offset": "o"},
        {"na_action": "raise"},
        {"contrasts": {"f": "sum"}},
        {"context": {"square": np.square}},
        {"known": {"g": np.eye(2)}},
        {"residual": "ar1(x | g)"},
        {"residual_sd": "~ f"},
        {"chunks": CHUNKS},
    ],
)
def test_options_that_are_summed_already(products: Any, option: dict[str, Any]) -> None:
    with pytest.raises(lmm.OptionError, match=f"^{next(iter(option))}= cannot be given"):
        lmm.lmer(FORMULA, products, **option)


def test_refusals(products: Any) -> None:
    with pytest.raises(lmm.DataError, match="summed already"):
        lmm.cross_products(FORMULA, products)
    with pytest.raises(lmm.DataError, match="does not take cross-products"):
        lmm.glmer(FORMULA, products, "poisson")
    with pytest.raises(lmm.DataError, match="na_action='raise'"):
        lmm.cross_products(FORMULA, DATA, na_action="raise")
    with pytest.raises(lmm.OptionError, match="exclude"):
        lmm.cross_products(FORMULA, DATA, na_action="exclude")
    with pytest.raises(lmm.OptionError, match=r"lmm\.Chunks"):
        lmm.cross_products(FORMULA, DATA, chunks=100)  # type: ignore[arg-type]


@pytest.mark.parametrize("contrasts", [-1, True, pd.Series([1.0]), "sum", np.zeros((2, 2))])
def test_contrasts_that_are_none(contrasts: Any) -> None:
    with pytest.raises(lmm.OptionError, match="contrasts must be a mapping"):
        lmm.cross_products(FORMULA, DATA, contrasts=contrasts)
    with pytest.raises(lmm.OptionError, match="contrasts must be a mapping"):
        lmm.lmer(FORMULA, DATA, contrasts=contrasts, chunks=CHUNKS)
