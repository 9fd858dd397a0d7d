"""Tables of every kind of column: a fit and what follows it, or the package's own words."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fuzzing import budget, tally
from hypothesis import given
from hypothesis import strategies as st

import lmmsparse as lmm

Rng = np.random.Generator
Make = Callable[[Rng, int], Any]


def _objects(choices: list[Any]) -> Make:
    def make(rng: Rng, n: int) -> Any:
        column = np.empty(n, dtype=object)
        column[:] = [choices[i] for i in rng.integers(0, len(choices), n)]
        return pd.Series(column, dtype=object)

    return make


def _codes(rng: Rng, n: int, k: int = 5) -> Any:
    return rng.integers(0, k, n)


KINDS: dict[str, Make] = {
    "float": lambda r, n: r.normal(size=n),
    "float32": lambda r, n: r.normal(size=n).astype(np.float32),
    "float16": lambda r, n: r.normal(size=n).astype(np.float16),
    "longdouble": lambda r, n: r.normal(size=n).astype(np.longdouble),
    "huge": lambda r, n: r.normal(size=n) * 10.0 ** r.integers(-300, 300),
    "far": lambda r, n: r.normal(size=n) + 10.0 ** r.integers(3, 15),
    "with infinity": lambda r, n: np.where(r.random(n) < 0.1, np.inf, r.normal(size=n)),
    "with gaps": lambda r, n: np.where(r.random(n) < 0.2, np.nan, r.normal(size=n)),
    "all missing": lambda r, n: np.full(n, np.nan),
    "constant": lambda r, n: np.full(n, 3.0),
    "int": lambda r, n: _codes(r, n),
    "uint8": lambda r, n: _codes(r, n).astype(np.uint8),
    "large ids": lambda r, n: 2**62 + _codes(r, n).astype(np.int64),
    "Int64": lambda r, n: pd.array([None if c == 0 else int(c) for c in _codes(r, n)], "Int64"),
    "Float64": lambda r, n: pd.array(np.where(r.random(n) < 0.1, None, 1.5), "Float64"),
    "boolean": lambda r, n: pd.array([None if c == 0 else bool(c % 2) for c in _codes(r, n)]),
    "bool": lambda r, n: r.random(n) < 0.5,
    "complex": lambda r, n: r.normal(size=n) + 1j,
    "text": lambda r, n: np.array(list("abcde"))[_codes(r, n)],
    "string": lambda r, n: pd.array([None if c == 0 else f"s{c}" for c in _codes(r, n)], "string"),
    "numbers as text": lambda r, n: _codes(r, n).astype(str),
    "odd text": _objects(["", " ", "`", "a:b", "a\0", "é", "\n", "'", "NaN", "🐷"]),
    "bytes": _objects([b"1", b"01", b"2"]),
    "category": lambda r, n: pd.Categorical.from_codes(_codes(r, n) - 1, list("wxyz")),
    "ordered": lambda r, n: pd.Categorical.from_codes(_codes(r, n), list("vwxyz"), ordered=True),
    "unused": lambda r, n: pd.Categorical.from_codes(_codes(r, n, 2), list("vwxyz")),
    "dates": lambda r, n: pd.Timestamp("2024-01-01") + pd.to_timedelta(_codes(r, n), "D"),
    "zoned": lambda r, n: (
        pd.Timestamp("2024-01-01") + pd.to_timedelta(_codes(r, n), "h")
    ).tz_localize("UTC"),
    "spans": lambda r, n: pd.to_timedelta(_codes(r, n), "D"),
    "periods": lambda r, n: pd.period_range("2024-01", periods=5, freq="M")[_codes(r, n)],
    "intervals": lambda r, n: pd.cut(r.normal(size=n), np.linspace(-4, 4, 5)),
    "sparse": lambda r, n: pd.arrays.SparseArray(_codes(r, n, 2).astype(float)),
    "mixed": _objects([1, "1", 1.0, None]),
    "mixed numbers": _objects([1, 2.5, np.int8(3), True, Fraction(1, 3), Decimal("0.1")]),
    "decimals": _objects([Decimal(1), Decimal("2.50"), Decimal("NaN")]),
    "days": _objects([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2), None]),
    "tuples": _objects([(1, 2), (1, 3)]),
    "lists": _objects([[1], [2]]),
    "dicts": _objects([{}, {"a": 1}]),
    "enormous": _objects([10**30, 10**30 + 1, -(10**40)]),
    "objects": _objects([object(), object()]),
}
USUAL = ["float", "int", "text", "category", "bool"]
FORMULAS = (
    "y ~ a + (1 | g)",
    "y ~ a * b + (1 | g)",
    "y ~ 0 + a + (0 + b | g)",
    "y ~ a + (a | g) + (1 | b)",
    "y ~ C(a) + (1 | g:b)",
    "y ~ I(a) + offset(b) + (1 | g)",
    "y ~ 1 + (a || g)",
    "y ~ center(a) + (1 | g)",
    "I(y) ~ a == b + (1 | g)",
)


def frame(seed: int, kinds: tuple[str, str, str], response: str, index: str) -> pd.DataFrame:
    """Forty rows: g groups, a and b anything, y anything."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([0, 1, 2, 7, *[40] * 12]))
    a, b, g = kinds
    made = {"a": KINDS[a](rng, n), "b": KINDS[b](rng, n), "g": KINDS[g](rng, n)}
    made["y"] = KINDS[response](rng, n)
    table = pd.DataFrame({name: pd.Series(values).array for name, values in made.items()})
    if index == "text":
        table.index = pd.Index([f"row {i}" for i in range(n)])
    elif index == "repeated":
        table.index = pd.Index(np.arange(n) // 2)
    elif index == "multi" and n:
        table.index = pd.MultiIndex.from_arrays([np.arange(n) // 3, np.arange(n) % 3])
    return table


def used(model: lmm.LinearMixedModel, table: pd.DataFrame, folder: Path) -> None:
    """What people ask of a fit; whatever is refused is refused in the package's words."""
    path = folder / "m.lmm"
    calls: list[Callable[[], Any]] = [
        lambda: str(model.summary()),
        lambda: model.varcorr.to_frame(),
        lambda: model.coef,
        lambda: model.predict(table.head(5), new_levels="population"),
        lambda: model.augment(table),
        lambda: lmm.anova(model),
        lambda: model.save(path),
        lambda: str(lmm.load(path).summary()) if path.exists() else None,
    ]
    for call in calls:
        try:
            call()
        except lmm.LmmError:
            continue


@budget(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.tuples(*[st.sampled_from(USUAL * 8 + sorted(KINDS))] * 3),
    response=st.sampled_from(["float"] * 8 + sorted(KINDS)),
    index=st.sampled_from(["plain", "text", "repeated", "multi"]),
    formula=st.sampled_from(FORMULAS),
)
def _fuzz(seed: int, kinds: tuple[str, str, str], response: str, index: str, formula: str) -> None:
    table = frame(seed, kinds, response, index)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            model = lmm.lmer(formula, table)
        except lmm.LmmError:
            COUNTS["refused"] += 1
            return
        used(model, table, FOLDER)
    COUNTS["fitted"] += 1


def test_random_tables_end_in_a_fit_or_in_the_packages_own_words(tmp_path: Path) -> None:
    global COUNTS, FOLDER
    FOLDER = tmp_path
    with tally("tables") as COUNTS:
        _fuzz()
