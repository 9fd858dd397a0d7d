"""Tables of every kind of column: a fit and what follows it, or the package's own words."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Callable, Collection
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
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
    "big-endian": lambda r, n: _codes(r, n).astype(">i4"),
    "big-endian floats": lambda r, n: r.normal(size=n).astype(">f8"),
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
    "text of two": lambda r, n: np.array(["no", "yes"])[_codes(r, n, 2)],
    "positive": lambda r, n: r.gamma(2.0, size=n),
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
    "types": _objects([int, str]),
    "beyond floats": _objects([10**400, 10**400 + 1]),
    "Arrow": lambda r, n: pd.array(np.array(list("abcde"))[_codes(r, n)], "string[pyarrow]"),
    "enormous": _objects([10**30, 10**30 + 1, -(10**40)]),
    "objects": _objects([object(), object()]),
}
USUAL = ["float", "int", "text", "category", "bool"]
ANY = st.sampled_from(USUAL * 16 + sorted(KINDS))
GROUPS = st.sampled_from(["int", "text", "category", "uint8"] * 30 + sorted(KINDS))
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
    made["t"] = np.arange(n)
    table = pd.DataFrame({name: pd.Series(values).array for name, values in made.items()})
    if index == "text":
        table.index = pd.Index([f"row {i}" for i in range(n)])
    elif index == "repeated":
        table.index = pd.Index(np.arange(n) // 2)
    elif index == "multi" and n:
        table.index = pd.MultiIndex.from_arrays([np.arange(n) // 3, np.arange(n) % 3])
    return table


Model = lmm.LinearMixedModel | lmm.GeneralizedLinearMixedModel
QUESTIONS: tuple[Callable[[Any, pd.DataFrame, Path], Any], ...] = (
    lambda m, table, folder: str(m.summary()),
    lambda m, table, folder: m.varcorr.to_frame(),
    lambda m, table, folder: m.coef,
    lambda m, table, folder: m.predict(table.head(5), new_levels="population"),
    lambda m, table, folder: m.augment(table),
    lambda m, table, folder: lmm.anova(m),
    lambda m, table, folder: _stored(m, folder),
    lambda m, table, folder: m.drop1(),
    lambda m, table, folder: m.ranova(),
    lambda m, table, folder: m.emmeans("a"),
    lambda m, table, folder: m.emmeans("b", pairwise=True),
    lambda m, table, folder: m.emtrends(None, "a"),
    lambda m, table, folder: m.joint_tests(),
    lambda m, table, folder: m.confint("wald"),
    lambda m, table, folder: m.residuals_of("response"),
    lambda m, table, folder: m.residuals_of("pearson"),
    lambda m, table, folder: m.refit(m.simulate(1, rng=1).iloc[:, 0].to_numpy()),
    lambda m, table, folder: m.simulate(1, rng=1, newdata=table.head(3)),
    lambda m, table, folder: m.predict(table.iloc[::-1], se=True, interval="confidence"),
    lambda m, table, folder: m.influence(m.fit.design.blocks[0].group) if _few(m) else None,
    lambda m, table, folder: m.r2(),
    lambda m, table, folder: m.tidy(conf_int=True),
    lambda m, table, folder: m.update(". ~ . - b", table),
    lambda m, table, folder: lmm.compare(m, m).to_frame(),
)


def _few(model: Model) -> bool:
    return model.fit.design.blocks[0].n_levels < 8


def _stored(model: Model, folder: Path) -> str:
    model.save(folder / "m.lmm")
    return str(lmm.load(folder / "m.lmm").summary())


def _known(table: pd.DataFrame) -> dict[str, Any]:
    try:
        labels = list(pd.unique(table["g"].dropna()))
    except (TypeError, ValueError):  # of lists and the like
        labels = ["a", "b"]
    return {"g": lmm.Covariance(np.eye(len(labels)) + 0.5, labels)}


Fits = dict[str, Callable[[str, pd.DataFrame], Model]]
PLAIN: Fits = {
    "lmer": lmm.lmer,
    "weights": lambda formula, table: lmm.lmer(formula, table, weights="b"),
    "known": lambda formula, table: lmm.lmer(formula, table, known=_known(table)),
}
RESIDUALS: Fits = {
    text: lambda formula, table, text=text: lmm.lmer(formula, table, residual=text)  # type: ignore[misc]
    for text in ("ar1(a | g)", "car1(a | g)", "cs(1 | g)", "us(b | g)", "ar1(t | g)", "cs(1 | b:g)")
} | {
    "sd": lambda formula, table: lmm.lmer(formula, table, residual_sd="~ a"),
    "both": lambda formula, table: lmm.lmer(
        formula, table, residual="ar1(t | g)", residual_sd="~ a + b"
    ),
    "known": lambda formula, table: lmm.lmer(
        formula, table, residual="ar1(t | g)", known=_known(table)
    ),
}
GENERALIZED: Fits = {
    family: lambda formula, table, family=family: lmm.glmer(formula, table, family)  # type: ignore[misc]
    for family in ("binomial", "poisson", "gamma", "negative_binomial", "inverse_gaussian")
} | {
    "cbind": lambda formula, table: lmm.glmer(
        formula.replace("y ~", "cbind(y, b) ~"), table, "binomial"
    ),
    "trials": lambda formula, table: lmm.glmer(formula, table, "binomial", weights="b"),
    "known": lambda formula, table: lmm.glmer(formula, table, "poisson", known=_known(table)),
}
SETS = {"plain": PLAIN, "residuals": RESIDUALS, "generalized": GENERALIZED}
RESPONSES = {
    "plain": ["float"] * 8 + sorted(KINDS),
    "residuals": ["float"] * 8 + sorted(KINDS),
    "generalized": ["int", "bool", "text of two", "positive"] * 6 + sorted(KINDS),
}


def used(model: Model, table: pd.DataFrame, folder: Path, chosen: Collection[int]) -> None:
    """What people ask of a fit; whatever is refused is refused in the package's words."""
    for i in chosen:
        try:
            QUESTIONS[i](model, table, folder)
        except lmm.LmmError:
            continue


@pytest.mark.parametrize("kind", SETS)
def test_random_tables_end_in_a_fit_or_in_the_packages_own_words(kind: str, tmp_path: Path) -> None:
    with tally(f"tables, {kind}") as counts:

        @budget(25)
        @given(
            seed=st.integers(0, 2**32 - 1),
            kinds=st.tuples(ANY, ANY, GROUPS),
            response=st.sampled_from(RESPONSES[kind]),
            index=st.sampled_from(["plain", "text", "repeated", "multi"]),
            formula=st.sampled_from(FORMULAS),
            name=st.sampled_from(sorted(SETS[kind])),
            chosen=st.sets(st.integers(0, len(QUESTIONS) - 1), max_size=4),
        )
        def run(
            seed: int,
            kinds: tuple[str, str, str],
            response: str,
            index: str,
            formula: str,
            name: str,
            chosen: set[int],
        ) -> None:
            table = frame(seed, kinds, response, index)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", lmm.LmmWarning)
                try:
                    model = SETS[kind][name](formula, table)
                except lmm.LmmError:
                    counts["refused"] += 1
                    return
                used(model, table, tmp_path, sorted(chosen))
            counts["fitted"] += 1

        run()
