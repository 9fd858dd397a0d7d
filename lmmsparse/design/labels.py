"""Labels of new data → levels of the fit: what is equal, and what looks equal and is not."""

from __future__ import annotations

import datetime
import math
import numbers
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.design.variables import codes_and_categories


def positions(levels: pd.Index, values: pd.Series) -> IntArray:
    """Place of each value among the levels, (n,), −1 where it is none of them or missing.

    Numbers are equal if they are the same number, whatever type holds it (3, 3.0, Decimal(3)), and
    moments if they are the same moment in any time zone. Text, numbers, bytes and dates are never
    equal to each other.
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, categories = codes_and_categories(values)
        place = np.append(positions(levels, pd.Series(categories)), -1)
        return np.asarray(place[codes], dtype=np.intp)
    if values.dtype == levels.dtype:
        found = levels.get_indexer(pd.Index(values, tupleize_cols=False))
    else:  # Python's own comparison is exact; pandas would compare large numbers as doubles
        found = _objects(levels).get_indexer(_objects(values))
    return np.where(values.isna().to_numpy(), -1, found).astype(np.intp)


def _objects(values: pd.Index | pd.Series) -> pd.Index:
    index: pd.Index = pd.Index(
        np.asarray(values.astype(object), dtype=object), dtype=object, tupleize_cols=False
    )
    return index


def check_types(what: str, levels: pd.Index, unseen: pd.Series) -> None:
    """Refuse labels (`unseen`) that are levels of the fit but for their type."""
    labels = [python_value(v) for v in pd.unique(unseen.dropna().astype(object))]
    known = [python_value(v) for v in levels]
    kinds = {_kind(value) for value in known}
    strange = [value for value in labels if _kind(value) not in kinds]
    if not strange:
        return
    same = {_text(value): value for value in known}
    for value in strange:
        if _text(value) in same:
            level = same[_text(value)]
            raise DataError(
                f"{what} holds {value!r} ({type(value).__name__}) in the new data and {level!r} "
                f"({type(level).__name__}) in those of the fit. Labels of different types are "
                "different levels: convert the column to the type it had in the fit."
            )


def same_but_for_type(levels: pd.Index, unseen: pd.Series) -> tuple[Any, Any] | None:
    """A label and a level that read alike and are of different types; None if there are none."""
    known = {_text(value): value for value in map(python_value, levels)}
    for value in map(python_value, pd.unique(unseen.dropna().astype(object))):
        level = known.get(_text(value))
        if level is not None and _kind(level) != _kind(value):
            return value, level
    return None


def alike(what: str, here: str, there: str, value: Any, level: Any) -> str:
    """The message for a label and another that read alike and are of different types."""
    return (
        f"{what} has {value!r} ({type(value).__name__}) {here} and {level!r} "
        f"({type(level).__name__}) {there}. Labels of different types are different: convert one "
        "of the columns to the type of the other."
    )


def python_value(value: Any) -> Any:
    """A label as Python shows it: 3 for np.int64(3)."""
    return value.item() if isinstance(value, (np.number, np.bool_, np.str_)) else value


def _kind(value: Any) -> str:
    kinds: dict[str, Any] = {
        "text": str,
        "bytes": (bytes, bytearray),
        "number": numbers.Number,
        "duration": datetime.timedelta,
        "moment": datetime.datetime,
    }
    found = (name for name, types in kinds.items() if isinstance(value, types))
    return next(found, type(value).__name__)


def _text(value: Any) -> str:
    """How a label reads, whatever its type: 3, 3.0 and '3.0' alike."""
    if isinstance(value, (bytes, bytearray)):
        value = bytes(value).decode("latin-1")
    if isinstance(value, datetime.date):
        value = value.isoformat()
    text = str(value).strip().replace("T", " ").removesuffix(" 00:00:00")
    try:
        number = float(text)
        exact = int(text) if text.lstrip("+-").isdigit() else number
    except (ValueError, OverflowError):
        return text
    if not math.isfinite(number):
        return text
    return str(int(exact)) if exact == int(exact) else repr(number)
