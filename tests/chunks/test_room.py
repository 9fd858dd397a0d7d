"""What very many levels and cells take, and what is said before memory ends."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from chunked import CHUNKS, crossed, same_fit

import lmmsparse as lmm
from lmmsparse.chunks import cells, design, room
from lmmsparse.chunks.cells import Runs, Table
from lmmsparse.common.arrays import is_ones
from lmmsparse.engine.pairs import TermColumns, counted_pairs, pair_pattern

DATA = crossed(3000, groups=80)
RATINGS = "y ~ 1 + (1 | g) + (1 | h)"


def _ratings(n: int = 4000, users: int = 300, items: int = 60, seed: int = 2) -> pd.DataFrame:
    """Every pair of levels once at most, as in ratings."""
    r = np.random.default_rng(seed)
    key = np.sort(r.choice(users * items, n, replace=False))
    data = pd.DataFrame({"g": key // items, "h": key % items})
    data["y"] = r.normal(size=users)[data["g"]] + r.normal(size=items)[data["h"]]
    data["y"] += r.normal(size=n)
    return data.sample(frac=1.0, random_state=1, ignore_index=True)


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("repeated", [True, False])
def test_krylov_on_chunks(table: bool, repeated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "_TABLE", 10**9 if table else 0)
    data = DATA if repeated else _ratings()
    memory = lmm.lmer(RATINGS, data, solver=lmm.Krylov())
    chunks = lmm.lmer(RATINGS, data, solver=lmm.Krylov(), chunks=CHUNKS)
    same_fit(chunks, memory)
    assert str(chunks) == str(memory)
    exact = lmm.lmer(RATINGS, data)
    assert abs(exact.reml_criterion - chunks.reml_criterion) < 0.2
    for m in (memory, chunks):
        pair = next(pair for pair in m.fit.products.pairs if pair.s != pair.t)
        assert is_ones(pair.values) is not repeated
        assert pair.rows.dtype == pair.cols.dtype == np.int32
        np.testing.assert_allclose(
            m.fit.products.ZtZ.toarray(), exact.fit.products.ZtZ.toarray(), atol=1e-12
        )


@pytest.mark.parametrize("kind", [Runs, Table])
@pytest.mark.parametrize(("width", "share"), [(0, 3), (2, 3), (2, 300)])
def test_sums_of_cells(kind: type, width: int, share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are mostly there once in a batch, and keys of many rows."""
    monkeypatch.setattr(cells, "_KEYS", 1000)  # many ranges
    r = np.random.default_rng(0)
    n_s, n_t = 130, 170
    parts = []
    for _ in range(2):
        made = kind(n_s, n_t, width)
        for _ in range(7):
            key = r.integers(0, n_s * n_t // share, 900)
            values = [r.normal(size=900) for _ in range(width)]
            parts.append((key, values))
            made.add(key, values)
        parts.append(made)
    a, b = (each for each in parts if isinstance(each, kind))
    rows = [each for each in parts if not isinstance(each, kind)]
    keys = np.concatenate([key for key, _ in rows])
    for keep in (True, False):
        found = a.joined(b, keep).met()
        np.testing.assert_array_equal(found.rows.astype(int) * n_t + found.cols, np.unique(keys))
        if width:
            for j in range(width):
                want = np.bincount(keys, np.concatenate([v[j] for _, v in rows]))[np.unique(keys)]
                np.testing.assert_allclose(found.values[:, j], want, atol=1e-12)
        else:
            np.testing.assert_array_equal(found.values[:, 0], np.bincount(keys)[np.unique(keys)])


@pytest.mark.parametrize("cells_of_table", [10**9, 0])
def test_pairs_are_counted_as_they_are_found(
    cells_of_table: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmmsparse.engine.pairs._MOST_CELLS", cells_of_table)
    r = np.random.default_rng(1)
    a, b = (
        TermColumns(r.integers(0, k, 5000).astype(np.int32), np.ones((5000, 1)), k)
        for k in (70_000, 50)
    )
    rows, cols, count = counted_pairs(b, a)
    pattern = pair_pattern((a, b), 1, 0)
    np.testing.assert_array_equal(rows, pattern.rows)
    np.testing.assert_array_equal(cols, pattern.cols)
    np.testing.assert_array_equal(count, np.bincount(pattern.place))


def test_products_of_levels_beyond_32_bits() -> None:
    """Codes take 32 bits, their products do not."""
    a, b = (
        TermColumns(np.array([k - 1, 0, k - 1], dtype=np.int32), np.ones((3, 1)), k)
        for k in (100_000, 90_000)
    )
    pattern = pair_pattern((b, a), 1, 0)
    for rows, cols in (counted_pairs(a, b)[:2], (pattern.rows, pattern.cols)):
        assert rows.tolist() == [0, 99_999]
        assert cols.tolist() == [0, 89_999]


@pytest.mark.parametrize("n", [100, 3000, 200_000])
def test_distinct_pairs_are_estimated(n: int) -> None:
    r = np.random.default_rng(n)
    labels = pd.Index(range(1000)), pd.Index([f"item {i}" for i in range(n // 500 + 1)])
    codes = r.integers(0, 1000, n), r.integers(0, n // 500 + 1, n)
    halves = []
    for part in (slice(0, n // 2), slice(n // 4, None)):  # they overlap
        own = room.Distinct()
        a, b = (room.hashed([c[part]], [values]) for c, values in zip(codes, labels, strict=True))
        own.add(room.met_by(a, b))
        halves.append(own)
    truth = len(np.unique(codes[0] * 1000 + codes[1]))
    found = halves[0].joined(halves[1]).count
    assert abs(found / truth - 1) < (0.05 if truth > 4000 else 1e-12)


def test_cells_that_memory_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    formula = "y ~ x + (1 + x | g) + (1 | h)"
    cells_of = DATA.groupby(["g", "h"]).ngroups
    bytes_of = cells_of * (24 + 24 * 2)
    monkeypatch.setattr(design, "free_memory", lambda: 1.5 * bytes_of)
    with pytest.warns(lmm.DesignWarning, match=r"meet in about .* pairs"):
        m = lmm.lmer(formula, DATA, chunks=CHUNKS)
    same_fit_but_for_memory(m, formula)
    monkeypatch.setattr(design, "free_memory", lambda: 0.9 * bytes_of)
    with pytest.raises(lmm.DataError, match=r"'g' and 'h' meet in about 1,\d00 pairs.*Fit a"):
        lmm.lmer(formula, DATA, chunks=CHUNKS)


def same_fit_but_for_memory(model: lmm.LinearMixedModel, formula: str) -> None:
    assert "memory-tight" in {f.code for f in model.convergence.findings}
    reference = lmm.lmer(formula, DATA)
    assert np.isclose(model.reml_criterion, reference.reml_criterion, rtol=1e-11, atol=0.0)
