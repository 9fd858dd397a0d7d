"""The factor of an autoregressive term → the order of its levels and the steps between them.

A categorical says both itself, levels without rows included. Numbers, and text that is a number
but for what all levels share, are as far apart as the numbers are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.design.frame import Variables, codes_and_categories, listed
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.design.terms import formula_terms
from lmmsparse.errors import Finding

_NUMBER = re.compile(r"(\D*?)([+-]?\d+(?:\.\d+)?)(\D*)$")
_LARGEST = 10**6


def put_in_order(table: Variables, names: Iterable[str], frame: pd.DataFrame) -> Variables:
    """The table with levels of text in the order of the numbers they are, where they are that.

    Parameters
    ----------
    table : Variables
    names : iterable of str
        Factors of autoregressive terms.
    frame : DataFrame
        The data as they were given.
    """
    changed = {}
    for name in names:
        if name not in table.columns or isinstance(frame[name].dtype, pd.CategoricalDtype):
            continue
        column = table[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            continue
        levels = list(codes_and_categories(column)[1])
        numbers = _numbers(levels)
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
    recipe : MatrixRecipe
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
    if len(terms) != 1 or len(terms[0].factors) != 1 or terms[0].numbers:
        return None, []
    (expression,) = terms[0].factors
    levels = list(recipe.levels[expression] or ())
    if len(levels) != len(terms[0].columns):
        return None, []
    if expression in frame.columns and isinstance(frame[expression].dtype, pd.CategoricalDtype):
        every = list(frame[expression].cat.categories)
        return _from_zero([every.index(level) for level in levels]), []
    numbers = _numbers(levels)
    if numbers is not None and numbers == sorted(numbers):
        at = _from_zero(_in_steps(numbers))
        text = isinstance(levels[0], str)
        return at, [_taken_as_numbers(source, expression, levels)] if at or text else []
    if any(isinstance(level, str) for level in levels):
        return None, [_taken_in_order(source, expression, levels)]
    return None, []


def _numbers(levels: Sequence[Any]) -> list[Fraction] | None:
    """The numbers that levels are, but for text that all of them share; None if they are not."""
    if all(isinstance(level, str) for level in levels):
        found = [_NUMBER.match(level.strip()) for level in levels]
        parts = [match.groups() for match in found if match is not None]
        if len(parts) < len(levels) or len({(before, after) for before, _, after in parts}) > 1:
            return None
        values = [Fraction(number) for _, number, _ in parts]
    else:
        kinds = (int, float, np.integer, np.floating)
        if any(isinstance(v, (bool, np.bool_)) or not isinstance(v, kinds) for v in levels):
            return None
        values = [Fraction(repr(float(level))) for level in levels]
    return values if len(set(values)) == len(values) else None


def _in_steps(numbers: Sequence[Fraction]) -> list[int]:
    """Numbers as multiples of their largest common step."""
    scale = lcm(*(number.denominator for number in numbers))
    whole = [int(number * scale) for number in numbers]
    step = gcd(*(value - whole[0] for value in whole)) or 1
    return [(value - whole[0]) // step for value in whole]


def _from_zero(at: Sequence[int]) -> tuple[int, ...] | None:
    first = tuple(min(value - at[0], _LARGEST + i) for i, value in enumerate(at))
    return None if first == tuple(range(len(at))) else first


def _taken_as_numbers(source: str, expression: str, levels: Sequence[Any]) -> Finding:
    return Finding(
        "sequence",
        "info",
        f"In {source} the levels of {expression} are as far apart as their numbers "
        f"({listed(map(str, levels))}). For equal steps, or other ones, make the column a "
        "categorical that has all levels in their order.",
    )


def _taken_in_order(source: str, expression: str, levels: Sequence[Any]) -> Finding:
    return Finding(
        "sequence",
        "warning",
        f"In {source} the levels of {expression} follow each other in alphabetical order: "
        f"{listed(map(str, levels), 12)}. Text does not say which come after which. Make the "
        f"column a categorical with its levels in order, pandas.Categorical(values, levels).",
    )
