"""Labels of levels → the numbers, dates or durations that they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

_NUMBER = re.compile(r"(\D*?)([+-]?\d+(?:\.\d+)?)(\D*)$")
_DIGITS = 1000  # of a number that is one; others are labels
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def numbers_of(levels: Sequence[Any]) -> list[Fraction] | None:
    """The numbers that levels are, but for text that all of them share; None if they are not."""
    if all(isinstance(level, str) for level in levels):
        found = [_NUMBER.match(level.strip()) for level in levels]
        parts = [match.groups() for match in found if match is not None]
        if len(parts) < len(levels) or len({(before, after) for before, _, after in parts}) > 1:
            return None
        if any(len(number) > _DIGITS for _, number, _ in parts):
            return None
        values = [Fraction(number) for _, number, _ in parts]
    else:
        numbers = [_number(level) for level in levels]
        values = [number for number in numbers if number is not None]
    return values if len(set(values)) == len(levels) else None


def _number(level: Any) -> Fraction | None:
    """A number, or a moment as the time since a moment."""
    if isinstance(level, (bool, np.bool_)) or pd.isna(level):
        return None
    if isinstance(level, (np.datetime64, datetime)):
        return _nanoseconds(pd.Timestamp(level).to_datetime64())
    if isinstance(level, (np.timedelta64, timedelta)):
        return _nanoseconds(pd.Timedelta(level).to_timedelta64())
    if isinstance(level, date):
        return Fraction(level.toordinal())
    if isinstance(level, Decimal):
        few = level.is_finite() and abs(level.adjusted()) <= _DIGITS
        return Fraction(level) if few else None
    if isinstance(level, (int, np.integer)):
        return Fraction(int(level))
    finite = isinstance(level, (float, np.floating)) and np.isfinite(level)
    return Fraction(repr(float(level))) if finite else None


def _nanoseconds(moment: np.datetime64 | np.timedelta64) -> Fraction:
    unit, count = np.datetime_data(moment.dtype)
    return Fraction(int(moment.astype(np.int64)) * count * _UNITS[unit])
