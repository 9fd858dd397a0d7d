"""Forms of rows from blocks of the inverse against one solve per row."""

from __future__ import annotations

import models
import numpy as np
import pytest

import lmmsparse as lmm
from lmmsparse.engine import linalg
from lmmsparse.results import row_forms
from lmmsparse.results.row_forms import EffectsOfRows, conditional_forms


def _both(
    fit: lmm.Fit, rows: EffectsOfRows, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, np.ndarray]:
    with monkeypatch.context() as patch:
        patch.setattr(row_forms, "_FEW", 0)
        blocks = conditional_forms(fit, rows)
        patch.setattr(row_forms, "_FEW", rows.m)
        return blocks, conditional_forms(fit, rows)


@pytest.mark.parametrize("elements", [4_000_000, 50])
@pytest.mark.parametrize("name", sorted(models.MODELS)[::5])
def test_blocks_and_solves_agree(name: str, elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For observed pairs of levels, pairs never seen together, and levels that are new."""
    monkeypatch.setattr(linalg, "_ELEMENTS", elements)
    fit = models.fit(name).fit
    rng = np.random.default_rng(3)
    some = rng.choice(fit.design.n, size=60)
    blocks = dict(enumerate(fit.design.blocks))
    columns = {t: block.shifted_columns[some] for t, block in blocks.items()}
    codes = {t: block.codes[some].copy() for t, block in blocks.items()}
    for t in codes:
        codes[t][20:40] = rng.permutation(codes[t][20:40])
        codes[t][40:] = rng.integers(-1, blocks[t].n_levels, size=20)
    got, want = _both(fit, EffectsOfRows(columns, codes), monkeypatch)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10 * want.max())


def test_terms_that_take_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = lmm.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", lmm.load_dataset("Penicillin")).fit
    block = fit.design.blocks[1]
    rows = EffectsOfRows({1: block.columns}, {1: block.codes})
    got, want = _both(fit, rows, monkeypatch)
    np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize("solver", [None, lmm.Cholmod(), lmm.SuperLU(), lmm.Dense()])
def test_rows_with_a_hole_leave_the_others_alone(solver: object) -> None:
    data = lmm.load_dataset("dietox").head(200)
    model = lmm.lmer("Weight ~ Time + (Time | Pig) + (1 | Litter)", data, solver=solver)
    for rows in (9, 90):
        new = data.head(rows).astype({"Time": float})
        whole = model.predict(new, se=True)
        new.loc[new.index[[1, 4]], "Time"] = np.nan
        holes = model.predict(new, se=True)
        assert holes.iloc[[1, 4]].isna().all(axis=None)
        np.testing.assert_allclose(
            holes.drop(index=new.index[[1, 4]]), whole.drop(index=new.index[[1, 4]]), rtol=1e-12
        )
