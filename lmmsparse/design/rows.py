"""Table, weights and offset → which rows can be fitted, and what to say about the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import DataError, Finding
from lmmsparse.common.words import listed
from lmmsparse.design.recipe import column_or_array, evaluate_grouping, evaluate_numbers
from lmmsparse.design.variables import Variables, where_missing

_OTHER_ROWS = re.compile(r"\blag\(|\.(shift|diff)\(|\bnp\.diff\(")


@dataclass(frozen=True, eq=False)
class Extras:
    """Weights and offset of all rows, (rows,) arrays or None."""

    weights: FloatArray | None
    offset: FloatArray | None


def extra_columns(
    weights: Any,
    offset: Any,
    offsets: tuple[str, ...],
    frame: pd.DataFrame,
    table: Variables,
    context: Mapping[str, Any],
) -> Extras:
    """Read weights, and the offset as the sum of argument and formula."""
    w = None if weights is None else column_or_array("weights", weights, frame)
    o = None if offset is None else column_or_array("offset", offset, frame)
    for expression in offsets:
        part = evaluate_numbers(expression, table, context)
        o = part if o is None else o + part
    return Extras(w, o)


def fitted_extras(extras: Extras, rows: IntArray) -> Extras:
    """Weights and offset of the rows that are fitted."""
    w = None if extras.weights is None else extras.weights[rows]
    o = None if extras.offset is None else extras.offset[rows]
    if w is not None and np.any(w < 0):
        raise DataError(
            f"weights holds {int(np.sum(w < 0))} negative values. Remove the rows or correct the "
            "weights."
        )
    if w is not None and np.any(np.isinf(w)):
        raise DataError("weights holds infinite values. Use finite weights.")
    if o is not None and np.any(np.isinf(o)):
        raise DataError("The offset holds infinite values. Check it for logarithms of zero.")
    return Extras(w, o)


def complete_rows(
    table: Variables,
    extras: Extras,
    na_action: str,
    context: Mapping[str, Any],
    groups: set[str],
) -> tuple[BoolArray, list[Finding]]:
    """Rows that can be fitted, and what there is to say about the others."""
    missing, zero, counts = rows_left_out(table, extras, context, groups)
    findings = about_missing(len(table), int(missing.sum()), counts, na_action)
    keep = ~missing & ~zero
    return keep, [*findings, *about_zero_weights(int(zero.sum()), bool(keep.any()))]


def rows_left_out(
    table: Variables, extras: Extras, context: Mapping[str, Any], groups: set[str]
) -> tuple[BoolArray, BoolArray, dict[str, int]]:
    """Rows with a missing value, others with weight zero, and missing values by what lacks them."""
    holes = {name: where_missing(column) for name, column in table.items()}
    for expression in sorted(groups):
        if expression.strip("`") not in table.columns:
            values = evaluate_grouping(expression, table, context)
            holes[expression] = where_missing(values)
    for name, numbers in (("weights", extras.weights), ("offset", extras.offset)):
        if numbers is not None:
            holes[name] = np.isnan(numbers)
    missing = np.zeros(len(table), dtype=bool)
    for hole in holes.values():
        missing |= hole
    counts = {name: int(hole.sum()) for name, hole in holes.items() if hole.any()}
    zero = np.zeros(len(table), dtype=bool)
    if extras.weights is not None:
        zero = ~missing & (extras.weights == 0)
    return missing, zero, counts


def about_missing(
    rows: int, missing: int, counts: Mapping[str, int], na_action: str
) -> list[Finding]:
    """What there is to say about rows with missing values."""
    if not missing:
        return []
    where = ", ".join(f"{name}: {count}" for name, count in counts.items())
    if na_action == "raise":
        raise DataError(
            f"{missing} of {rows} rows have missing values ({where}), which na_action='raise' "
            "refuses. Remove or fill them, or use na_action='omit'."
        )
    if missing == rows:
        raise DataError(
            f"Every one of the {missing} rows has a missing value ({where}). Leave out the columns "
            "that are mostly empty, or fill them."
        )
    text = f"{missing} of {rows} rows were left out because of missing values ({where})."
    return [Finding("missing-rows", "info", text)]


def about_zero_weights(zero: int, others: bool) -> list[Finding]:
    """What there is to say about rows with weight zero; `others`: whether there are other rows."""
    if not zero:
        return []
    if not others:
        raise DataError("All weights are zero. Use positive weights.")
    text = f"{zero} rows have weight zero and were left out, as if they were not in the data."
    return [Finding("zero-weights", "warning", text)]


def dropped_by_expression(dropped: Mapping[str, set[int]], n: int, na_action: str) -> list[Finding]:
    """The finding for rows in which an expression came out undefined."""
    count = len(set().union(*dropped.values()))
    text = f"{count} of {n} complete rows {{}} because {listed(dropped)} is undefined there"
    if any(_OTHER_ROWS.search(expression) for expression in dropped):
        text += (
            ". It uses values of other rows, regardless of their group. For values of the same "
            "group make a column with data.groupby(...)[...].shift() first."
        )
    else:
        text += " (for example the logarithm of a negative number)."
    if na_action == "raise":
        raise DataError(
            text.format("cannot be used") + " na_action='raise' refuses such rows. Correct the "
            "values, or use na_action='omit'."
        )
    if count == n:
        raise DataError(
            text.format("cannot be used") + " No row is left to fit. Correct the values or the "
            "expression."
        )
    return [Finding("missing-rows", "warning", text.format("were left out"))]
