"""Random formulas end in a design or in one of the package's own errors, quickly."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd
import pytest
from fuzzing import budget, tally
from hypothesis import given
from hypothesis import strategies as st

import lmmsparse as lmm
from lmmsparse.formula.expression import read_expression

N = 24
RNG = np.random.default_rng(7)
DATA = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.uniform(-1, 2, N),
        "n": RNG.integers(0, 5, N),
        "f": RNG.choice(list("abc"), N),
        "g": np.arange(N) % 4,
        "b": np.arange(N) % 2 == 0,
        "day": pd.date_range("2020-01-01", periods=N),
        "my col": RNG.normal(size=N),
    }
)
SLOW = 5.0  # seconds of processor time

names = st.sampled_from(["x", "n", "f", "g", "b", "day", "`my col`", "y", "np", "1", "0", ".", "q"])
texts = st.sampled_from(["'a'", '"b"', "''", r"'\`'", "'('", "'contr.sum'", r"'\x60'", "'a|b'"])
numbers = st.sampled_from(["0", "1", "2", "-1", "3", "0.5", "10**9", "1e308", "1e999", "10**400"])
constants = st.sampled_from(["None", "True", "False", "NA", "TRUE", "[]", "()", "{}", "np.nan"])
functions = st.sampled_from(
    [
        "I", "C", "factor", "log", "exp", "sqrt", "np.log", "np.where", "np.array", "np.isin",
        "np.linspace", "np.clip", "np.max", "np.quantile", "np.diff", "np.select", "np.power",
        "poly", "bs", "cr", "cc", "scale", "center", "standardize", "lag", "hashed", "dummy",
        "interaction", "numeric", "round", "offset", "contr.sum", "Treatment", "contr.poly",
        "np.add.outer", "eval", "np.load", "diag", "cs", "ar1", "us", "np.matmul", "np.divmod",
    ]
)  # fmt: skip
keywords = st.sampled_from(
    ["df", "degree", "levels", "raw", "knots", "axis", "hom", "dtype", "level", "regex", "_state"]
)
methods = st.sampled_from(
    [
        ".mean()", ".str.upper()", ".str.contains('a')", ".dt.day", ".cat.codes", ".values", ".T",
        ".astype('str')", ".shift(1)", ".rank()", ".isin(['a', 1])", ".clip(0, 1)", ".fillna(0)",
        ".diff()", ".to_csv('evil')", ".__class__", "[0]", "[:, 0]", "[x > 0]", "[::2]", ".sum()",
        ".str.replace('', 'aaaa')", ".quantile([0.5, 0.5])", ".eq(1)", ".between(0, 1)",
    ]
)  # fmt: skip
operators = st.sampled_from(
    ["+", "-", "*", "/", "**", "^", "%", "//", "==", "<", ">=", "&", ",", " if 1 else ", " in ",
     " and ", " is ", ":"]
)  # fmt: skip


def _calls(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    keyword = st.tuples(keywords, inner).map("=".join)
    arguments = st.lists(st.one_of(inner, inner, keyword), max_size=3).map(", ".join)
    return st.one_of(
        st.tuples(functions, arguments).map(lambda pair: f"{pair[0]}({pair[1]})"),
        st.tuples(inner, operators, inner).map("".join),
        st.tuples(inner, methods).map("".join),
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-{text}"),
    )


expressions = st.recursive(
    st.one_of(names, names, names, texts, numbers, constants), _calls, max_leaves=7
)
terms = st.recursive(
    st.one_of(
        names,
        names,
        st.tuples(functions, expressions).map(lambda pair: f"{pair[0]}({pair[1]})"),
        expressions.map(lambda text: f"I({text})"),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", ":", "*", "/", "%in%"]), inner).map(" ".join),
        st.tuples(inner, st.sampled_from(["^2", "**3", "^20", "^0"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=4,
)
bars = st.tuples(
    st.sampled_from(["", "", "", "diag", "cs", "ar1", "us"]),
    st.one_of(st.just("1"), st.just("1"), terms),
    st.sampled_from(["|", "|", "|", "||", ", "]),
    st.one_of(st.just("g"), st.just("g"), terms),
    st.sampled_from(["", "", "", ", hom=True", ", (1) | g"]),
).map(lambda p: f"{p[0]}({p[1]} {p[2]} {p[3]}{p[4]})")
formulas = st.tuples(
    st.one_of(st.just("y"), st.just("y"), st.just("y"), expressions), terms, bars
).map(lambda p: f"{p[0]} ~ {p[1]} + {p[2]}")


def damaged(formula: str, at: int, sign: str) -> str:
    at %= len(formula) + 1
    return formula[:at] + sign + formula[at + len(sign) % 2 :]


KINDS: dict[str, st.SearchStrategy[str]] = {
    "whole": formulas,
    "fixed": terms.map(lambda text: f"y ~ {text} + (1 | g)"),
    "grouping": terms.map(lambda text: f"y ~ x + (1 | {text})"),
    "effects": terms.map(lambda text: f"y ~ x + ({text} | g)"),
    "offset": expressions.map(lambda text: f"y ~ x + offset({text}) + (1 | g)"),
    "response": expressions.map(lambda text: f"{text} ~ x + (1 | g)"),
    "damaged": st.builds(
        damaged,
        formulas,
        st.integers(0, 60),
        st.text(max_size=3) | st.sampled_from(list("`'\\~|([.,")),
    ),
    "letters": st.text(alphabet="xyfgn01.~|+-*/^:()[]`'\\, ", max_size=40).map(
        lambda text: f"y ~ {text} + (1 | g)"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_foreign_error(kind: str) -> None:
    with tally(f"formulas, {kind}") as counts:

        @budget(120)
        @given(KINDS[kind])
        def run(formula: str) -> None:
            before = time.process_time()
            counts[_outcome(formula)] += 1
            assert time.process_time() - before < SLOW, formula

        run()


def _outcome(formula: str) -> str:
    """What becomes of a formula; anything but a design or an `LmmError` fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            design = lmm.build_design(formula, DATA)
        except lmm.LmmError as error:
            return type(error).__name__
    assert np.isfinite(design.X).all()
    assert design.recipe is not None
    try:
        again, _ = design.recipe.fixed(DATA.iloc[design.rows])
    except lmm.LmmError:  # what is computed of other rows, for example
        return "built, not again"
    assert again.shape == design.X.shape
    return "built"


def test_what_is_read_is_read_again() -> None:
    with tally("expressions") as counts:

        @budget(300)
        @given(expressions)
        def run(text: str) -> None:
            try:
                read = read_expression(text)
            except lmm.LmmError as error:
                counts[type(error).__name__] += 1
                return
            again = read_expression(read.text)
            assert again.text == read.text
            assert again.names == read.names
            assert again.called == read.called
            counts["read"] += 1

        run()
