"""A grouping expression and data → level of each row, level labels, and the key to new data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, IntArray, ReadOnly, compact
from lmmsparse.common.errors import DataError
from lmmsparse.common.words import listed
from lmmsparse.design.labels import alike, positions, python_value, same_but_for_type
from lmmsparse.design.variables import close_numbers, codes_and_categories, without_unused
from lmmsparse.engine.prior import Prior


@dataclass(frozen=True, eq=False)
class LevelKey(ReadOnly):
    """How values are recognized as levels: labels per factor, and the observed combinations.

    Attributes
    ----------
    components : tuple of pandas.Index
        Levels of each factor of an interaction (one for a plain factor).
    combinations : (levels, factors) int array
        The level of each factor in each observed combination, in lexicographic order.
    """

    components: tuple[pd.Index, ...]
    combinations: IntArray

    @classmethod
    def of(cls, levels: pd.Index) -> LevelKey:
        """The key to a single factor."""
        return cls((levels,), np.arange(len(levels), dtype=np.int64)[:, None])

    def encode(self, columns: Sequence[pd.Series]) -> tuple[IntArray, BoolArray]:
        """Level of each row (−1 for an unknown one) and whether a value is missing, both (n,)."""
        missing = np.zeros(len(columns[0]), dtype=bool)
        for column in columns:
            missing |= column.isna().to_numpy()
        codes = [positions(*pair) for pair in zip(self.components, columns, strict=True)]
        known, place = self.combinations[:, 0], codes[0]
        for j in range(1, len(codes)):  # two at a time: the product of all may be beyond 64 bits
            m = len(self.components[j])
            pairs, known = np.unique(
                known.astype(np.int64) * m + self.combinations[:, j], return_inverse=True
            )
            mixed = place.astype(np.int64) * m + codes[j]
            place = np.minimum(np.searchsorted(pairs, mixed), len(pairs) - 1)
            unknown = (pairs[place] != mixed) | (mixed < 0) | (codes[j] < 0)
            place = np.where(unknown, -1, place)
        return place.astype(np.intp), missing


class LevelCovariance(Protocol):
    """What is known of the covariance of a factor's levels.

    Attributes
    ----------
    kind : str
        What to call it.
    variance_of_others : float or None
        Of a level that it does not have; None where that is not known.
    labels : pandas.Index
    prior : Prior
    """

    @property
    def kind(self) -> str: ...
    @property
    def variance_of_others(self) -> float | None: ...
    @property
    def labels(self) -> pd.Index: ...
    @property
    def prior(self) -> Prior: ...


def same_covariance(a: LevelCovariance | None, b: LevelCovariance | None) -> bool:
    """Whether the same is known of the levels of two factors."""
    if a is b or a is None or b is None:
        return a is b
    P, Q = a.prior.precision, b.prior.precision
    return bool(
        a.labels.equals(b.labels)
        and np.array_equal(P.indptr, Q.indptr)
        and np.array_equal(P.indices, Q.indices)
        and np.allclose(P.data, Q.data, rtol=1e-10, atol=0.0)
    )


@dataclass(frozen=True, eq=False)
class Grouping(ReadOnly):
    """A grouping factor: labels of its levels, level of each fitted row (n,), key to new data.

    Where the covariance of the levels is known, they are all that it has, with rows or without.
    """

    name: str
    levels: pd.Index
    codes: IntArray
    key: LevelKey
    known: LevelCovariance | None = None


def make_grouping(
    name: str, columns: Sequence[pd.Series], known: LevelCovariance | None = None
) -> Grouping:
    """Turn one column, or several whose observed combinations count, into a grouping factor.

    Unused levels are dropped; levels of an interaction are ordered with the first factor slowest.

    Parameters
    ----------
    known : LevelCovariance, optional
        The covariance of the levels, and thus which there are.
    """
    if known is not None:
        codes = compact(positions(known.labels, columns[0]), len(known.labels))
        _check_all_known(name, columns[0], codes, known)
        return Grouping(name, known.labels, codes, LevelKey.of(known.labels), known)
    components, coded = [], []
    for column in columns:
        levels, codes = _factorize(name, column)
        components.append(levels)
        coded.append(codes)
    codes, combinations = coded[0], np.arange(len(components[0]), dtype=np.int64)[:, None]
    for levels, others in zip(components[1:], coded[1:], strict=True):
        # Two at a time: the product of all may be beyond 64 bits.
        mixed = codes.astype(np.int64) * len(levels) + others
        pairs, codes = np.unique(mixed, return_inverse=True)
        before, last = np.divmod(pairs, len(levels))
        combinations = np.column_stack([combinations[before], last])
    key = LevelKey(tuple(components), combinations)
    labels = components[0] if len(components) == 1 else combined_labels(key)
    return Grouping(name, labels, compact(codes, len(labels)), key)


def _check_all_known(name: str, column: pd.Series, codes: IntArray, known: LevelCovariance) -> None:
    """Refuse levels of the data that a known covariance does not have."""
    unseen = column[codes < 0]
    if not len(unseen):
        return
    twins = same_but_for_type(known.labels, unseen)
    if twins:
        here = f"in its {known.kind}"
        raise DataError(alike(f"The grouping factor {name!r}", "in the data", here, *twins))
    labels = [repr(python_value(v)) for v in pd.unique(unseen.astype(object))]
    what = {"pedigree": "a row, with empty parents if they are unknown,"}
    raise DataError(
        f"The {known.kind} of {name!r} does not have all levels of the data: {listed(labels)}. Add "
        f"{what.get(known.kind, 'a row and a column')} for each, or leave their rows out of the "
        "data."
    )


def combined_labels(key: LevelKey) -> pd.Index:
    """Labels such as ``"1:x"`` of the observed combinations."""
    labels: Any = None
    for levels, codes in zip(key.components, key.combinations.T, strict=True):
        text = np.array([_label(value) for value in levels], dtype=object)[codes]
        labels = text if labels is None else labels + ":" + text
    index: pd.Index = pd.Index(labels, dtype=object, tupleize_cols=False)
    return index


def _label(value: object) -> str:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _factorize(name: str, column: pd.Series) -> tuple[pd.Index, IntArray]:
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, levels = codes_and_categories(without_unused(column))
        return levels, codes
    if np.ndim(column) != 1:
        raise DataError(
            f"The grouping factor {name!r} has more than one column. Name a single column."
        )
    close = close_numbers(column)
    if close is not None:
        return pd.Index(close[1]), close[0]
    kinds = sorted({type(v).__name__ for v in column}) if column.dtype == object else []
    mixed = "str" in kinds and len(kinds) > 1
    try:
        codes, levels = pd.factorize(column, sort=not mixed)
        if mixed:
            raise TypeError("text and other labels")
    except TypeError as error:
        raise DataError(
            f"The grouping factor {name!r} mixes values of different types ({listed(kinds)}). "
            "Convert the column to one type, for example with .astype(str)."
        ) from error
    return pd.Index(levels, tupleize_cols=False), codes
