"""Options with values of every kind: what cannot be used is refused in the package's own words."""

from __future__ import annotations

import re
import tempfile
import zlib
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fuzzing import budget, tally
from hypothesis import given
from hypothesis import strategies as st
from public import CALLS, HERDS, MODEL, annotation_of, called, options_of

import lmmsparse as lmm


class Hostile:
    """An object of somebody else's whose every question is an error."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("incomparable")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __iter__(self) -> Any:
        raise RuntimeError("no items")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    __hash__ = None  # type: ignore[assignment]


STRANGE: list[Any] = [
    None,
    True,
    np.False_,
    0,
    1,
    -3,
    2**70,
    np.int64(2),
    0.5,
    np.float32(0.25),
    np.nan,
    np.inf,
    1 + 2j,
    "",
    "x",
    "~",
    "Days",
    "a\0b",
    b"wald",
    np.str_("wald"),
    [],
    (),
    ["Days"],
    [["Days"]],
    {},
    {"Days": 1},
    {1: "Days"},
    {"Days"},
    np.zeros(0),
    np.zeros(3),
    np.zeros((3, 3)),
    np.zeros((2, 2, 2)),
    np.array(1.0),
    np.array("Days"),
    np.array([None, "x"], dtype=object),
    pd.Series([1.0, 2.0]),
    pd.Series(["Days"]),
    pd.DataFrame({"Days": [1.0, 2.0]}),
    pd.DataFrame(),
    pd.NA,
    pd.NaT,
    pd.Timestamp("2020-01-01"),
    object(),
    int,
    len,
    lambda *a, **k: np.zeros(3),
    iter(["Days"]),
    slice(3),
    Ellipsis,
    Hostile(),
    MODEL,
    HERDS,
]
# Not options: a function that is called is trusted, and these cost minutes.
SKIPPED = {
    ("bootstrap", "statistic"),
    ("bootstrap", "n"),
    ("bootstrap_lrt", "n"),
    ("confint boot", "n"),
    ("power", "n_sim"),
}
PATHS = ("path", "folder")


def costly(name: str, option: str, value: Any) -> bool:
    """Whether a call would be accepted and take long: a large number that counts something."""
    large = isinstance(value, (int, np.integer)) and abs(int(value)) > 1000
    counts = option in ("n", "theta_draws", "probes", "deflate", "vectors", "n_jobs", "processes")
    written = option in PATHS and isinstance(value, str)  # any text is the name of a file
    plain = callable(value) or isinstance(value, (int, float, np.generic))
    return written or (large and counts) or (plain and (name.rpartition(".")[2], option) in SKIPPED)


# What an annotation promises, of the values above.
DEMANDED: dict[str, tuple[type, ...]] = {
    "bool": (bool, np.bool_),
    "bool | None": (bool, np.bool_, type(None)),
    "int": (int, np.integer),
    "float": (int, float, np.integer, np.floating),
    "float | None": (int, float, np.integer, np.floating, type(None)),
    "str": (str,),
    "str | None": (str, type(None)),
    "str | Path": (str,),
    "bool | str": (bool, np.bool_, str),
}
# Said to be a word, and more is understood.
WIDER = {("lmm.lmer", "formula"), ("lmm.build_design", "formula"), ("lmm.anova", "type")}


def outcome(name: str, options: dict[str, Any]) -> str:
    """How a call ends; an error of anybody else's is not caught."""
    if name.endswith("write_predictions") and "folder" not in options:
        options = {**options, "folder": Path(tempfile.mkdtemp()) / "out"}
    try:
        called(name, **options)
    except lmm.LmmError:
        return "refused"
    finally:
        plt.close("all")
    return "accepted"


def check(name: str, option: str, value: Any) -> None:
    """A strange value is used, or refused in the package's own words."""
    if costly(name, option, value):
        return
    label = "an object whose questions are errors"
    shown = f"{name}({option}={label if isinstance(value, Hostile) else repr(value)})"
    try:
        found = outcome(name, {option: value})
    except Exception as error:
        pytest.fail(f"{shown}: {type(error).__name__}: {error}")
    demanded = DEMANDED.get(annotation_of(name, option))
    if demanded and (name, option) not in WIDER and not isinstance(value, demanded):
        assert found == "refused", f"{shown} is accepted"


def some(name: str, option: str, count: int) -> list[Any]:
    """Values for an option: others for each, and the same in every run."""
    rng = np.random.default_rng(zlib.crc32(f"{name}.{option}".encode()))
    return [STRANGE[i] for i in rng.permutation(len(STRANGE))[:count]]


# Where a call that is accepted takes a while.
SLOW = re.compile(
    r"check$|lmm\.(lmer|glmer|cross_products)|_batches|write_|update|power|probed|arviz"
)


@pytest.mark.parametrize("name", CALLS)
def test_some_strange_values_are_refused_or_used(name: str) -> None:
    for option in options_of(name):
        for value in some(name, option, 1 if SLOW.search(name) else 2):
            check(name, option, value)


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_strange_values_are_refused_or_used(name: str) -> None:
    for option in options_of(name):
        for value in STRANGE:
            check(name, option, value)


values = st.one_of(
    st.sampled_from(STRANGE),
    st.booleans(),
    st.integers(-5, 5),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.text(max_size=5), st.floats(), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=5), st.floats(), max_size=3),
    st.sampled_from(
        ["wald", "new", "keep", "F", "none", "population", "exclude", "sdcor", "tukey", "response"]
    ),
)


@budget(60)
@given(data=st.data())
def _fuzz(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CALLS)))
    names = (
        data.draw(st.lists(st.sampled_from(options_of(name)), max_size=3, unique=True))
        if options_of(name)
        else []
    )
    options = {option: data.draw(values) for option in names}
    if not any(costly(name, option, value) for option, value in options.items()):
        COUNTS[outcome(name, options)] += 1


def test_random_options_end_in_the_packages_own_words() -> None:
    global COUNTS
    with tally("options") as COUNTS:
        _fuzz()
