"""Random formulas end in a design or in one of the package's own errors, quickly."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fuzzing import budget, tally
from hypothesis import given
from hypothesis import strategies as st

import lmmsparse as lmm
from lmmsparse.formula.expression import read_expression
from lmmsparse.formula.update import updated_formula

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
        "rank": np.arange(N) // 4,
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


@contextmanager
def strict() -> Iterator[None]:
    """Warnings of numpy and pandas are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", lmm.LmmWarning)
        yield


def _ends(kind: str, strategy: st.SearchStrategy[Any], use: Callable[[Any], str], few: int) -> None:
    """Use random inputs; anything but a result or an `LmmError` fails the test, and slowness."""
    with tally(f"formulas, {kind}") as counts:

        @budget(few)
        @given(strategy)
        def run(given_: Any) -> None:
            before = time.process_time()
            with strict():
                try:
                    outcome = use(given_)
                except lmm.LmmError as error:
                    outcome = type(error).__name__
            counts[outcome] += 1
            assert time.process_time() - before < SLOW, given_

        run()


def _built(formula: str, **options: Any) -> str:
    design = lmm.build_design(formula, DATA, **options)
    assert np.isfinite(design.X).all()
    assert design.recipe is not None
    try:
        again, _ = design.recipe.fixed(DATA.iloc[design.rows])
    except lmm.LmmError:  # what is computed of other rows, for example
        return "built, not again"
    assert again.shape == design.X.shape
    return "built"


@pytest.mark.parametrize("kind", KINDS)
def test_no_foreign_error(kind: str) -> None:
    _ends(kind, KINDS[kind], _built, 120)


@cache
def _model() -> lmm.LinearMixedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lmm.lmer("y ~ x * f + n + (x | g)", DATA)


def _updated(change: str) -> str:
    formula = updated_formula("y ~ x * f + offset(n) + (x | g) + (1 | b)", change)
    return _built(formula)


def _fitted(pair: tuple[str, str]) -> str:
    lmm.glmer(f"{pair[0]} ~ x + (1 | g)", DATA, pair[1])
    return "fitted"


def _named(pair: tuple[Callable[[str], Any], str]) -> str:
    pair[0](pair[1])
    return "answered"


usual = st.sampled_from(
    [
        "x", "f", "poly(x, 2)", "C(f)", "factor(n)", "bs(x, df=4)", "np.log(x + 2)", "x:f", "x*n",
        "interaction(f, b)", "b", "scale(n)", "I(x**2)", "`my col`", "center(x):C(f, contr.sum)",
    ]
)  # fmt: skip
times = st.sampled_from(["rank", "rank", "x", "n", "I(rank // 2)", "1", "`my col`"])
correlations = st.tuples(
    st.sampled_from(["ar1", "car1", "cs", "us"]),
    st.one_of(times, times, expressions),
    st.sampled_from(["|", "|", "|", "|", "||", ","]),
    st.one_of(st.just("g"), st.just("g"), terms),
).map(lambda p: f"{p[0]}({p[1]} {p[2]} {p[3]})")
responses = st.one_of(
    st.sampled_from(["cbind(n, 5 - n)", "n / 5", "b", "f == 'a'", "n", "I(x + 2)", "I(n > 2)"]),
    st.tuples(expressions, expressions).map(lambda p: f"cbind({p[0]}, {p[1]})"),
    st.tuples(st.sampled_from(["n", "b", "g"]), expressions).map(
        lambda p: f"cbind({p[0]}, {p[1]})"
    ),
    st.tuples(expressions, expressions).map(lambda p: f"{p[0]} / ({p[1]})"),
    expressions,
)
changes = st.one_of(
    st.tuples(st.sampled_from(["+", "-"]), st.one_of(usual, terms)).map(
        lambda p: f". ~ . {p[0]} {p[1]}"
    ),
    st.tuples(expressions, bars).map(lambda p: f"{p[0]} ~ . + {p[1]} - (x | g)"),
    terms.map(lambda text: f"log(.) ~ (.):({text})"),
    terms.map(lambda text: f"~ {text}"),
    formulas,
)
ASKED: tuple[Callable[[str], Any], ...] = (
    lambda text: _model().predict(DATA, random=f"~ ({text} | g)"),
    lambda text: _model().predict(DATA, random=f"~ (1 | {text})"),
    lambda text: _model().predict(DATA, random=text),
    lambda text: _model().emmeans(text),
    lambda text: _model().emmeans("f", by=text),
    lambda text: _model().emmeans("f", at={text: [1]}),
    lambda text: _model().emmeans("f", at={"x": [text]}),
    lambda text: _model().emmeans("f", contrasts=text),
    lambda text: _model().emtrends("f", text),
    lambda text: _model().contrast({text: 1.0}),
    lambda text: _model().confint("wald", which=text),
    lambda text: _model().coef_table(robust="CR0", cluster=text),
    lambda text: lmm.build_design("y ~ f + (1 | g)", DATA, contrasts={text: "sum"}),
    lambda text: lmm.build_design("y ~ f + (1 | g)", DATA, contrasts={"f": text}),
    lambda text: lmm.build_design("y ~ f + (1 | g)", DATA, weights=text),
)
OTHERS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], str], int]] = {
    "residual": (correlations, lambda text: _built("y ~ x", residual=text), 40),
    "residual_sd": (
        st.one_of(usual, terms, expressions.map(lambda text: f"I({text})")),
        lambda text: _built("y ~ x", residual_sd=f"~ {text}"),
        40,
    ),
    "responses": (
        st.tuples(responses, st.sampled_from(["binomial", "binomial", "poisson", "gamma"])),
        _fitted,
        25,
    ),
    "changes": (changes, _updated, 40),
    "asked": (st.tuples(st.sampled_from(ASKED), st.one_of(names, terms, expressions)), _named, 50),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_no_foreign_error_elsewhere(kind: str) -> None:
    _ends(kind, *OTHERS[kind])


def _cells(data: pd.DataFrame, every: int) -> Any:
    return np.arange(data.size).reshape(data.shape) % every == 0


NEW: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "as text": lambda d: d.astype(str),
    "as objects": lambda d: d.astype(object),
    "as categories": lambda d: d.astype("category"),
    "nullable": lambda d: d.convert_dtypes(),
    "Arrow": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "with gaps": lambda d: d.astype(object).mask(_cells(d, 3)),
    "all missing": lambda d: d.astype(object).mask(_cells(d, 1)),
    "no rows": lambda d: d.head(0),
    "one row": lambda d: d.head(1),
    "other names": lambda d: d.rename(columns={"x": "f", "f": "x", "n": "day", "day": "n"}),
    "numbers": lambda d: d.assign(**dict.fromkeys(d.columns, 1.5)),
    "complex": lambda d: d.assign(**dict.fromkeys(d.columns, 1j)),
    "infinite": lambda d: d.assign(x=np.inf, n=-np.inf),
    "repeated": lambda d: d.set_axis(np.zeros(len(d), dtype=int)),
}


def _predicted(pair: tuple[str, str]) -> str:
    recipe = lmm.build_design(pair[0], DATA).recipe
    assert recipe is not None
    new = NEW[pair[1]](DATA)
    outcome = "read"
    for read in (
        lambda: recipe.fixed(new)[0],
        lambda: recipe.random(0, new),
        lambda: recipe.levels(0, new)[0],
        lambda: recipe.offset(new),
    ):
        try:
            assert len(read()) == len(new)
        except lmm.LmmError:
            outcome = "partly read"
    return outcome


def test_new_data_of_other_types() -> None:
    whole = st.tuples(terms, expressions, bars).map(
        lambda p: f"y ~ {p[0]} + offset({p[1]}) + {p[2]}"
    )
    plain = st.tuples(usual, usual, usual).map(
        lambda p: f"y ~ {p[0]} + {p[1]} + offset(n) + ({p[2]} | g)"
    )
    some = st.one_of(*(KINDS[kind] for kind in ("fixed", "grouping", "effects", "offset")), whole)
    both = st.one_of(plain, some)
    _ends("new data", st.tuples(both, st.sampled_from(sorted(NEW))), _predicted, 40)


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
