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
from lmmsparse.design.arguments import check_real
from lmmsparse.design.variables import tidy_column

_SAME = 1e-11
_NOTHING: FloatArray = np.zeros(5)


@dataclass
class Seen:
    """Per column a number of each row, summed alone and times the response, and their squares.

    The number of a level is drawn from its label.
    """

    sums: dict[str, FloatArray] = field(default_factory=dict)

    def add(self, name: str, values: FloatArray, y: FloatArray, yy: float) -> None:
        own = np.array([values.sum(), values @ y, values @ values, yy, len(y)])
        self.sums[name] = self.sums.get(name, _NOTHING) + own

    def joined(self, other: Seen) -> Seen:
        names = {**self.sums, **other.sums}
        return Seen({n: self.sums.get(n, _NOTHING) + other.sums.get(n, _NOTHING) for n in names})

    def differs(self, other: Seen) -> str | None:
        """A column of which the others have seen something else."""
        for name, mine in self.sums.items():
            theirs = other.sums.get(name, _NOTHING)
            squares, of_y, n = np.maximum(mine, theirs)[2:]
            size = np.sqrt([n * squares, squares * of_y])  # at least, of sums of absolute values
            off = np.abs(mine - theirs)[:2] > _SAME * size
            if off.any():
                return name
        return None


def of_labels(codes: Sequence[IntArray], labels: Sequence[pd.Index]) -> FloatArray:
    """Numbers between −1 and 1 that stand for the level of every row, by their labels."""
    if len(labels) == 1:
        return _numbers(hashed([np.arange(len(labels[0]))], labels)).take(codes[0])
    return _numbers(hashed(codes, labels))


def _numbers(hashes: Hashes) -> FloatArray:
    return np.asarray((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0)


def response_in(found: Complete, question: Question) -> FloatArray:
    """The response as it stands in the data, or ones where it is computed."""
    name = question.asked.response.strip("`")
    if name in found.frame and pd.api.types.is_numeric_dtype(found.frame[name].dtype):
        check_real(f"The response {name!r}", found.frame[name])
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
    yy = float(y @ y)
    for name, numbers in groupings.items():
        seen.add(name, numbers, y, yy)
    for name in question.predictors:
        column = frame[name]
        if not isinstance(column.dtype, pd.CategoricalDtype):
            column = tidy_column(column)
        if not isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.kind in "iufb":
            seen.add(name, column.to_numpy(dtype=np.float64, na_value=np.nan), y, yy)
        else:
            codes, values = coded(column, name in found.batch.text) if of is None else of(name)
            seen.add(name, of_labels([codes], [values.labels]), y, yy)
    for name, extra in (("weights", found.weights), ("offset", found.offset)):
        if extra is not None:
            seen.add(name, extra, y, yy)
