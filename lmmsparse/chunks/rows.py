"""A batch and a recipe → the numbers of its rows: y, X, Z, levels, weights, offset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks.question import Complete
from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.design import Recipe
from lmmsparse.design.labels import positions
from lmmsparse.design.recipe import evaluate_grouping

_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as the model sees them.

    Attributes
    ----------
    y : (n,) array
        The response, without the offset.
    raw : (n,) array
        The response itself.
    X : (n, p) array
    columns : tuple of (n, k) arrays
        Per term, shifted.
    codes : tuple of (n,) int arrays
        Per term; terms of one grouping factor share them.
    weights : (n,) array or None
    offset : (n,) array or None
    astray : (m,) int array
        Rows in which columns that were dropped are not the combinations that they should be.
    """

    y: FloatArray
    raw: FloatArray
    X: FloatArray
    columns: tuple[FloatArray, ...]
    codes: tuple[IntArray, ...]
    weights: FloatArray | None
    offset: FloatArray | None
    astray: IntArray

    def __len__(self) -> int:
        return len(self.y)


def rows_of(
    found: Complete, recipe: Recipe, shifts: tuple[FloatArray | None, ...], response: str
) -> Rows:
    """The numbers of complete rows."""
    frame = found.frame
    raw = _defined(response_of(recipe, response, frame), f"The response {response!r}")
    values = _defined(recipe.matrices.matrix("fixed", frame)[0], "A term of the fixed effects")
    astray = np.flatnonzero(~recipe.determines(values))
    X = values if recipe.kept.all() else values[:, recipe.kept]
    made: dict[str, FloatArray] = {}
    columns, codes = [], []
    of_group: dict[tuple[str, ...], IntArray] = {}
    for i, (group, S) in enumerate(zip(recipe.groups, shifts, strict=True)):
        part = f"random{i}"
        text = recipe.matrices.parts[part]
        if text not in made:
            own = recipe.matrices.matrix(part, frame)[0]
            made[text] = _defined(own, f"A random-effects term of {group.name!r}")
        columns.append(shifted(made[text], S))
        if group.factors not in of_group:
            of_group[group.factors] = level_codes(recipe, i, frame)
        codes.append(of_group[group.factors])
    y = raw if found.offset is None else raw - found.offset
    return Rows(y, raw, X, tuple(columns), tuple(codes), found.weights, found.offset, astray)


def response_of(recipe: Recipe, response: str, frame: pd.DataFrame) -> FloatArray:
    """The response of some rows, by a recipe with the response among its parts, (n,)."""
    name = response.strip("`")
    info = recipe.matrices.columns.get(name)
    if info is not None and info.boolean:
        return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return recipe.matrices.matrix("response", frame)[0][:, 0]


def _defined(values: FloatArray, what: str) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):
        fine = np.isfinite(values.sum())
    if not fine and not np.isfinite(values).all():
        count = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
        raise DataError(
            f"{what} is undefined or infinite in {count} rows, for example by the logarithm of a "
            "negative number. Rows that are left out for that reason are only known when all are "
            "read, so that data in chunks must not have them. Filter them before, or make the "
            "column missing there."
        )
    return values


def shifted(columns: FloatArray, S: FloatArray | None) -> FloatArray:
    """Columns of a term, centred as `RandomBlock.shifted_columns` are; columns = result @ S."""
    if S is None:
        return columns
    one = int(np.argmax((np.eye(len(S)) != S).any(axis=1)))
    step = S[one] - np.eye(len(S))[one]
    moved = columns.copy()
    far = np.flatnonzero(step)
    moved[:, far] -= step[far]
    return moved


def level_codes(recipe: Recipe, i: int, frame: pd.DataFrame) -> IntArray:
    """Level of each row; all must be known."""
    group = recipe.groups[i]
    columns = [evaluate_grouping(f, frame, recipe.matrices.context) for f in group.factors]
    codes = _numbers(group.key.components[0], columns[0]) if len(columns) == 1 else None
    if codes is None:
        codes = group.key.encode(columns)[0]
    if len(codes) and codes.min() < 0:
        raise DataError(
            f"The grouping factor {group.name!r} has levels that were not there when the data were "
            "read first: the source has changed between the passes. Read from data that stay as "
            "they are."
        )
    return codes


def _numbers(levels: pd.Index, values: pd.Series) -> IntArray | None:
    """Codes of whole numbers that lie close together, by a table; None for others."""
    kinds = [getattr(each.dtype, "kind", "") for each in (levels, values)]
    if kinds != ["i", "i"] or not len(levels) or not isinstance(values.dtype, np.dtype):
        return None
    low, high = int(levels[0]), int(levels[-1])
    if high - low > 20 * len(levels) + 1000:
        return None
    table = np.full(high - low + 2, -1, dtype=np.intp)
    table[levels.to_numpy().astype(np.int64) - low] = np.arange(len(levels))
    place = values.to_numpy().astype(np.int64)
    place -= low
    if len(place) and (place.min() < 0 or place.max() > high - low):
        place = np.where((place >= 0) & (place <= high - low), place, high - low + 1)
    return table[place]


def factor_codes(
    factors: Mapping[str, tuple[Any, ...]], frame: pd.DataFrame
) -> tuple[IntArray, int]:
    """The combination of levels of each row, and how many combinations there are."""
    flat, size = np.zeros(len(frame), dtype=np.intp), 1
    for name, levels in factors.items():
        index = pd.Index(list(levels), dtype=object, tupleize_cols=False)
        flat = flat * len(levels) + positions(index, frame[name])
        size *= len(levels)
    return flat, size
