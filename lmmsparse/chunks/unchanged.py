"""Sums that tell whether both passes have seen the same rows, in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lmmsparse.chunks.levels import Values, coded
from lmmsparse.chunks.question import Complete, Question
from lmmsparse.chunks.room import Hashes, hashed
from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.design.variables import tidy_column

_SAME = 1e-11
_NOTHING: FloatArray = np.zeros(4)


@dataclass
class Seen:
    """Per column a number of each row, summed alone and times the response, and their sizes.

    The number of a level is drawn from its label.
    """

    sums: dict[str, FloatArray] = field(default_factory=dict)

    def add(self, name: str, values: FloatArray, y: FloatArray) -> None:
        size = np.abs(values)
        own = np.array([values.sum(), values @ y, size.sum(), size @ np.abs(y)])
        self.sums[name] = self.sums.get(name, _NOTHING) + own

    def joined(self, other: Seen) -> Seen:
        names = {**self.sums, **other.sums}
        return Seen({n: self.sums.get(n, _NOTHING) + other.sums.get(n, _NOTHING) for n in names})

    def differs(self, other: Seen) -> str | None:
        """A column of which the others have seen something else."""
        for name, mine in self.sums.items():
            theirs = other.sums.get(name, _NOTHING)
            off = np.abs(mine - theirs)[:2] > _SAME * np.maximum(mine, theirs)[2:]
            if off.any():
                return name
        return None


def of_labels(codes: Sequence[IntArray], labels: Sequence[pd.Index]) -> FloatArray:
    """Numbers between −1 and 1 that stand for levels, by their labels."""
    return numbers_of(hashed(codes, labels))


def numbers_of(hashes: Hashes) -> FloatArray:
    """Numbers between −1 and 1."""
    return np.asarray((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0)


def response_in(found: Complete, question: Question) -> FloatArray:
    """The response as it stands in the data, or ones where it is computed."""
    name = question.asked.response.strip("`")
    if name in found.frame and pd.api.types.is_numeric_dtype(found.frame[name].dtype):
        return found.frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.ones(len(found.rows))


def see(
    seen: Seen,
    found: Complete,
    question: Question,
    groupings: Mapping[str, FloatArray],
    of: Callable[[str], tuple[IntArray, Values]] | None = None,
) -> None:
    """Add some rows.

    Parameters
    ----------
    groupings : mapping
        Name of a grouping → the number of the level of each row.
    of : callable, optional
        Codes and labels of a column; made anew if not given.
    """
    y, frame = response_in(found, question), found.frame
    for name, numbers in groupings.items():
        seen.add(name, numbers, y)
    for name in question.predictors:
        column = frame[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            column = tidy_column(column)
        if not isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.kind in "iufb":
            seen.add(name, column.to_numpy(dtype=np.float64, na_value=np.nan), y)
        else:
            codes, values = coded(column, name in found.batch.text) if of is None else of(name)
            seen.add(name, of_labels([np.arange(len(values.labels))], [values.labels])[codes], y)
    for name, extra in (("weights", found.weights), ("offset", found.offset)):
        if extra is not None:
            seen.add(name, extra, y)
