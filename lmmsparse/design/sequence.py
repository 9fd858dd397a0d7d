"""The factor of an autoregressive term → the order of its levels and the steps between them.

A categorical says both itself, levels without rows included. Numbers, and text that is a number
but for what all levels share, are as far apart as the numbers are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise
from math import gcd, lcm
from typing import Any, Literal

import numpy as np
import pandas as pd

from lmmsparse.common.errors import Finding
from lmmsparse.common.words import listed
from lmmsparse.design.label_numbers import numbers_of
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.design.terms import formula_terms
from lmmsparse.design.variables import Variables, codes_and_categories

# What a step between neighbours may be of the common one, and the whole sequence: beyond, ρ is too
# near 1 for a search.
_MOST_STEPS, _LARGEST = 1000, 10**6


def put_in_order(table: Variables, names: Iterable[str], frame: pd.DataFrame) -> Variables:
    """The table with levels of text in the order of the numbers they are, where they are that."""
    changed = {}
    for name in names:
        if name not in table.columns or isinstance(frame[name].dtype, pd.CategoricalDtype):
            continue
        column = table[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            continue
        levels = list(codes_and_categories(column)[1])
        numbers = numbers_of(levels)
        if numbers is not None and numbers != sorted(numbers):
            order = np.argsort(np.array(numbers, dtype=object), kind="stable")
            changed[name] = column.cat.reorder_categories([levels[i] for i in order])
    return Variables({**table.columns, **changed}, len(table)) if changed else table


def positions(
    recipe: MatrixRecipe, part: str, frame: pd.DataFrame, source: str
) -> tuple[tuple[int, ...] | None, list[Finding]]:
    """Where the effects of an autoregressive term stand in their sequence.

    Parameters
    ----------
    part : str
        Its formula part.
    frame : DataFrame
        The data as they were given.
    source : str
        The term as the user wrote it.

    Returns
    -------
    positions : tuple of int, or None
        None where they follow each other.
    findings : list of Finding
        What was taken for granted.
    """
    terms = formula_terms(recipe, part)
    if len(terms) != 1 or len(terms[0].factors) != 1:
        return None, []
    (expression,) = terms[0].factors
    levels = list(recipe.levels[expression] or ())
    if len(levels) != len(terms[0].columns):
        return None, []
    columns = [name for name in recipe.columns_in(expression) if name in frame.columns]
    declared = frame[columns[0]].dtype if len(columns) == 1 else None
    if isinstance(declared, pd.CategoricalDtype) and set(levels) <= set(declared.categories):
        return _as_declared(declared, levels, source, expression)
    numbers = numbers_of(levels)
    if numbers is None or numbers != sorted(numbers):
        known = len(levels) < 3 or all(isinstance(level, (bool, np.bool_)) for level in levels)
        return None, [] if known else _taken("by alphabet", source, expression, levels)
    steps = _in_steps(numbers)
    if min(b - a for a, b in pairwise(steps)) > _MOST_STEPS or steps[-1] > _LARGEST:
        return None, _taken("without steps", source, expression, levels)
    at = _from_zero(steps)
    text = isinstance(levels[0], str)
    return at, _taken("by value", source, expression, levels) if at or text else []


def _as_declared(
    declared: pd.CategoricalDtype, levels: Sequence[Any], source: str, expression: str
) -> tuple[tuple[int, ...] | None, list[Finding]]:
    """The places that a categorical gives its levels, those without rows included."""
    every = list(declared.categories)
    at = [every.index(level) for level in levels]
    if at != sorted(at):  # as the formula has them
        return None, []
    numbers = None if declared.ordered else numbers_of(every)
    steps = [] if numbers is None else [b - a for a, b in pairwise(numbers)]
    said: list[Finding] = []
    if any(step > 0 for step in steps) and any(step < 0 for step in steps):
        said = _taken("as listed", source, expression, every)
    elif len(set(steps)) > 1:
        said = _taken("in steps", source, expression, every)
    return _from_zero(at), said


def _in_steps(numbers: Sequence[Fraction]) -> list[int]:
    """Numbers as multiples of their largest common step."""
    scale = lcm(*(number.denominator for number in numbers))
    whole = [int(number * scale) for number in numbers]
    step = gcd(*(value - whole[0] for value in whole)) or 1
    return [(value - whole[0]) // step for value in whole]


def _from_zero(at: Sequence[int]) -> tuple[int, ...] | None:
    first = tuple(value - at[0] for value in at)
    return None if first == tuple(range(len(at))) else first


_TAKEN = {
    "by value": "are as far apart as their values ({}). For equal steps, or other ones, make the "
    "column a categorical that has all levels in their order.",
    "as listed": "follow each other as the categorical lists them: {}. Their numbers have another "
    "order. Reorder the categories, or say that their order is meant: column.cat.as_ordered().",
    "in steps": "({}) follow each other in equal steps, as the categorical lists them. If their "
    "numbers count, give it all levels, those between too.",
    "without steps": "({}) are taken to follow each other in equal steps: what is between them is "
    "no small multiple of a common step. Round them to such a step first.",
    "by alphabet": "follow each other in alphabetical order: {}. For another order make the column "
    "a categorical with its levels in order, pandas.Categorical(values, levels).",
}


def _taken(how: str, source: str, expression: str, levels: Sequence[Any]) -> list[Finding]:
    """What is said of the order and the steps that were taken for granted."""
    order = how in ("as listed", "by alphabet")  # which is seen in more of the levels
    text = _TAKEN[how].format(listed(map(str, levels), 12 if order else 8))
    level: Literal["info", "warning"] = "info" if how in ("by value", "in steps") else "warning"
    return [Finding("sequence", level, f"In {source} the levels of {expression} {text}")]
