"""Which factors of a term are coded by all their levels: formulaic's rule, without its products."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from formulaic import Formula, ModelSpec
from formulaic.materializers import PandasMaterializer

import lmmsparse as lmm
from lmmsparse.design.materialize import Materializer

_LETTERS = "abcd"


def _frame() -> pd.DataFrame:
    rows = list(itertools.product("uvw", "pq", "mn", "st"))
    frame = pd.DataFrame(rows * 2, columns=list(_LETTERS))
    return frame.assign(x=np.random.default_rng(0).normal(size=len(frame)))


@pytest.mark.parametrize(
    "formula",
    [
        "a * b * c * d",
        "0 + a * b * c",
        "a:b",
        "0 + a:b",
        "b + a:b",
        "b + c + a:b:c",
        "a:x + b:a",
        "x:a + x:b + x",
        "0 + x:a + a:b:x",
        "x + a:x + a:b:x",
        "a + a:b:c + b:c",
        "a:b + b:c + c:a",
        "(a + b + c + d) ** 3",
        "0 + a:b + a:c + a:b:c:d",
        "a / b / c",
        "a:b:c + a + b + c",
        "0 + x + a:x:b",
    ],
)
def test_columns_are_those_of_formulaic(formula: str) -> None:
    frame = _frame()
    made = []
    for materializer in (PandasMaterializer(frame), Materializer(frame, {}, {})):
        spec = ModelSpec.from_spec(Formula(formula, _ordering="none"), output="numpy")
        made.append(materializer.get_model_matrix(spec))
    want, found = made
    assert found.model_spec.column_names == want.model_spec.column_names
    np.testing.assert_array_equal(np.asarray(found), np.asarray(want))


def test_products_that_are_there_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("all products of a term were made")

    monkeypatch.setattr(Materializer, "_get_scoped_terms_spanned_by_evaled_factors", refuse)
    frame = _frame().assign(y=lambda d: d["x"] ** 2, g=lambda d: np.arange(len(d)) % 6)
    text = " * ".join(f"C({name})" for name in _LETTERS)
    for fixed in (text, f"({text.replace('*', '+')}) ** 4"):
        assert lmm.build_design(f"y ~ {fixed} + (1 | g)", frame).X.shape == (48, 24)
