"""How large what a formula asks for may become: far beyond what people write, and bounded.

A formula may come from somebody else. Each of these is checked before anything of the size is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from lmmsparse.common.errors import FormulaError

CHARACTERS = 50_000  # of a formula
WRITTEN_OUT = 1_000_000  # of one part of it, with all columns in the place of "."
WORDS = 10_000  # names, numbers and signs of a formula
CALLS = 500  # of a formula
DOTS = 10  # places where "." stands for many columns
NESTING = 50  # brackets inside brackets
PIECES = 2_000  # names, numbers and signs of one expression
DEPTH = 50  # operations inside operations; sums and products of many count once
TEXT = 1_000  # characters of a text inside a formula, and of those it makes
INTERACTIONS = 2_000  # terms of more than one variable
PRODUCTS = 200_000  # pairs of terms that are looked at for them
ORDER = 12  # variables of one term
FACTORS = 7  # factors of one term that has no terms below it
GROUPINGS = 100  # random-effects terms
COLUMNS = 10_000  # of one part of a formula
CELLS = 500_000_000  # numbers of one part of a formula: rows times columns
LEVELS = 2_000  # of a factor, where the formula says how many or how they are coded
DEGREE = 50  # of a polynomial
KNOTS = 200  # of a spline, and its degrees of freedom
DECIMALS = 300  # places that are rounded to
REPEATS = 100  # differences of differences
VALUES = 100_000  # of an array that is not one value per row


REMEMBERED = 4_000  # characters of a text whose reading is kept
P = ParamSpec("P")
T = TypeVar("T")


def remembered(function: Callable[P, T]) -> Callable[P, T]:
    """Keep what a function gives for the last short texts; the same come back in every refit."""
    kept = cast(Callable[..., T], lru_cache(maxsize=256)(function))

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        short = sum(map(_length, args)) <= REMEMBERED
        return kept(*args, **kwargs) if short else function(*args, **kwargs)

    return call


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_length, value)) if isinstance(value, tuple) else 0


def beyond(what: str, limit: str, remedy: str) -> str:
    """What is said of `what` that is larger than a formula may ask for, and what to do instead."""
    return (
        f"{what}. A formula is limited to {limit}, so that it cannot exhaust the machine. {remedy}"
    )


def too_much(what: str, limit: str, remedy: str) -> NoReturn:
    """Raise the error for what is larger than a formula may ask for."""
    raise FormulaError(beyond(what, limit, remedy))


def not_too_deep(function: Callable[P, T]) -> Callable[P, T]:
    """Make a `FormulaError` of texts that are nested too deeply to be read."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except RecursionError as error:
            raise FormulaError(
                "The formula is nested too deeply. Remove what is not needed."
            ) from error

    return call


def check_characters(text: str) -> None:
    """Refuse a formula that is too long."""
    if len(text) > CHARACTERS:
        too_much(
            f"The formula has {len(text):,} characters",
            f"{CHARACTERS:,}",
            'Choose the columns of the data and write "." for all of them.',
        )
