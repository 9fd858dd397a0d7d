"""The first pass: rows, levels, means of numeric columns, a sample, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.chunks.batch import Batch, Partition
from lmmsparse.chunks.levels import Combinations, Values, coded, combinations_in
from lmmsparse.chunks.question import Complete, Question, argument_of
from lmmsparse.chunks.room import Distinct, hashed, met_by
from lmmsparse.chunks.unchanged import Seen, of_labels, see
from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.design.recipe import evaluate_grouping, evaluate_numbers
from lmmsparse.design.variables import Variables, tidy_column
from lmmsparse.formula.expression import bare

SAMPLE = 100_000
_MOST_CELLS = 50_000


@dataclass
class Moments:
    """Count, mean, sum of squared deviations, smallest and largest of some numbers."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    @classmethod
    def of(cls, values: FloatArray) -> Moments:
        if not len(values):
            return cls()
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean())
            centred = values - mean
            squares = float(centred @ centred)
        return cls(len(values), mean, squares, float(values.min()), float(values.max()))

    def joined(self, other: Moments) -> Moments:
        """Of both (Chan, Golub & LeVeque)."""
        if not self.n or not other.n:
            return other if not self.n else self
        n, step = self.n + other.n, other.mean - self.mean
        return Moments(
            n,
            self.mean + step * other.n / n,
            self.squares + other.squares + step**2 * self.n * other.n / n,
            min(self.low, other.low),
            max(self.high, other.high),
        )


@dataclass
class Pieces:
    """Rows that are kept as a sample: every m-th, and those that show something new."""

    most: int
    stride: int = 1
    seen: int = 0
    frames: list[pd.DataFrame] = field(default_factory=list)
    places: list[IntArray] = field(default_factory=list)
    others: list[pd.DataFrame] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Every m-th row, counted from the first of the partition."""
        n = len(batch)
        while sum(map(len, self.places)) + n // self.stride > 2 * self.most:
            self.stride *= 2
            for i, places in enumerate(self.places):
                stay = np.flatnonzero(places % self.stride == 0)
                self.frames[i], self.places[i] = self.frames[i].iloc[stay], places[stay]
        at = np.arange((-self.seen) % self.stride, n, self.stride)
        self.frames.append(batch.decoded(at))
        self.places.append(at + self.seen)
        self.seen += n

    def joined(self, other: Pieces) -> Pieces:
        """Of two partitions."""
        return Pieces(
            self.most,
            self.stride,
            self.seen + other.seen,
            [*self.frames, *other.frames],
            [*self.places, *other.places],
            [*self.others, *other.others],
        )


@dataclass
class Learnt:
    """What the first pass has found in some partitions.

    Attributes
    ----------
    rows, missing, zero : int
        All rows, those with a missing value, and others with weight zero.
    counts : dict
        Missing values by column.
    levels : dict
        Factors of a grouping → combinations of their values.
    factors : dict
        Columns that are factors among the predictors → their values.
    cells : set
        Combinations of their levels that were met.
    numbers : dict
        Numeric column, or argument of a call that learns → moments.
    pieces : Pieces
        The sample.
    meetings : dict
        Factors of two groupings → about how many of their levels meet.
    seen : Seen
        What another pass has to find again.
    """

    rows: int = 0
    missing: int = 0
    zero: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    levels: dict[tuple[str, ...], Combinations] = field(default_factory=dict)
    factors: dict[str, Values] = field(default_factory=dict)
    cells: set[tuple[Any, ...]] = field(default_factory=set)
    numbers: dict[str, Moments] = field(default_factory=dict)
    pieces: Pieces = field(default_factory=lambda: Pieces(SAMPLE))
    meetings: dict[tuple[Any, Any], Distinct] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    @property
    def n(self) -> int:
        """Rows that can be fitted."""
        return self.rows - self.missing - self.zero


def learn(partition: Partition, question: Question, most: int) -> Learnt:
    """Read a partition once.

    Parameters
    ----------
    most : int
        Rows of the sample, about.
    """
    out = Learnt(pieces=Pieces(most))
    for batch in partition.batches():
        _add(out, question, batch)
    if out.pieces.stride == 1:  # all rows are there
        out.pieces.others.clear()
    return out


def _add(out: Learnt, question: Question, batch: Batch) -> None:
    found = question.complete(batch)
    out.rows += len(batch)
    out.missing += found.missing
    out.zero += found.zero
    for name, count in found.counts.items():
        out.counts[name] = out.counts.get(name, 0) + count
    if not len(found.rows):
        return
    codes: dict[str, tuple[IntArray, Values]] = {}

    def of(name: str) -> tuple[IntArray, Values]:
        if name not in codes:
            column = _tidy(found.frame[name]) if name in found.frame else None
            if column is None:
                column = evaluate_grouping(name, found.frame, question.context)
            _check_whole(name, column)
            codes[name] = coded(column, name in found.batch.text)
        return codes[name]

    for factors in question.groupings:
        met = combinations_in([of(_bare(name, found.frame)) for name in factors])
        before = out.levels.get(factors)
        out.levels[factors] = met if before is None else before.joined(met, factors)
    here = {
        factors: _coded([of(_bare(name, found.frame)) for name in factors])
        for factors in question.groupings
    }
    if question.counts_meetings:
        hashes = {factors: hashed(*own) for factors, own in here.items()}
        for both in combinations(here, 2):
            met_here = met_by(*(hashes[factors] for factors in both))
            out.meetings.setdefault(both, Distinct()).add(met_here)
    numbers = {question.groupings[factors]: of_labels(*own) for factors, own in here.items()}
    see(out.seen, found, question, numbers, of)
    extra = _numbers(out, question, found)
    extra += _factors(out, question, found, of)
    out.pieces.add(found.batch)
    if extra:
        out.pieces.others.append(found.batch.decoded(np.unique(extra)))


def _check_whole(name: str, column: pd.Series) -> None:
    """Refuse labels that have lost digits, as long ones do that a reader takes for decimals."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind == "f" and np.abs(column).max() >= 2**53:
        raise DataError(
            f"The column {name!r} holds labels beyond 2**53 as decimal numbers, which do not tell "
            "neighbours apart. Read it as text or whole numbers: pass pyarrow.dataset.dataset("
            "path, schema=...), or write the data as Parquet."
        )


def _coded(columns: list[tuple[IntArray, Values]]) -> tuple[list[IntArray], list[pd.Index]]:
    return [codes for codes, _ in columns], [values.labels for _, values in columns]


def _bare(name: str, frame: pd.DataFrame) -> str:
    plain = name.strip("`")
    return plain if plain in frame.columns else name


def _tidy(column: pd.Series) -> pd.Series:
    """The column in the type that it has in a fit in memory; categories as they are."""
    return column if isinstance(column.dtype, pd.CategoricalDtype) else tidy_column(column)


def _numbers(out: Learnt, question: Question, found: Complete) -> list[int]:
    """Moments of numeric columns and of what transforms learn from; rows with extreme values."""
    extra = []
    frame = found.frame
    for name in question.predictors:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype.kind not in "iufb":
            continue
        values = column.to_numpy(dtype=np.float64)
        moments = Moments.of(values)
        before = out.numbers.get(name, Moments())
        if moments.low < before.low:
            extra.append(int(values.argmin()))
        if moments.high > before.high:
            extra.append(int(values.argmax()))
        out.numbers[name] = before.joined(moments)
    if question.learnt:
        table = Variables({str(name): frame[name] for name in frame}, len(frame))
        for argument in {argument_of(call) for call in question.learnt}:
            if bare(argument) in frame.columns or _learns(argument, question):
                continue
            values = evaluate_numbers(argument, table, question.context)
            key = f"({argument})"
            moments = Moments.of(values[np.isfinite(values)])
            out.numbers[key] = out.numbers.get(key, Moments()).joined(moments)
    return extra


def _learns(expression: str, question: Question) -> bool:
    """Whether an expression contains a call that learns itself."""
    return any(call in expression for call in question.learnt)


def _factors(
    out: Learnt,
    question: Question,
    found: Complete,
    of: Callable[[str], tuple[IntArray, Values]],
) -> list[int]:
    """Levels of the predictors; rows with combinations of them that were not met before."""
    frame = found.frame
    names = [
        name
        for name in question.predictors
        if name in question.labels
        or isinstance(frame[name].dtype, pd.CategoricalDtype)
        or frame[name].dtype.kind not in "iuf"
    ]
    if not names:
        return []
    codes, values = zip(*(of(name) for name in names), strict=True)
    for name, own in zip(names, values, strict=True):
        before = out.factors.get(name)
        out.factors[name] = own if before is None else before.joined(own, name)
    wanted: list[int] = []
    if len(out.cells) <= _MOST_CELLS:
        firsts = _first_rows(codes, values)
        wanted += _new(out.cells, ("all",), firsts, codes, values)
    else:
        for name, mine, its in zip(names, codes, values, strict=True):
            wanted += _new(out.cells, (name,), _first_rows([mine], [its]), [mine], [its])
    return wanted


def _first_rows(codes: Any, values: Any) -> IntArray:
    """The first row of every combination."""
    sizes = [len(v.labels) for v in values]
    if np.prod(sizes, dtype=np.float64) < 2**22:
        key = np.ravel_multi_index(tuple(codes), tuple(sizes))
        first = np.full(int(np.prod(sizes)), -1, dtype=np.intp)
        first[key[::-1]] = np.arange(len(key) - 1, -1, -1)
        return np.sort(first[first >= 0])
    key = codes[0]
    for own, size in zip(codes[1:], sizes[1:], strict=True):
        key = np.unique(key.astype(np.int64) * size + own, return_inverse=True)[1]
    return np.sort(np.unique(key, return_index=True)[1])


def _new(
    met: set[Any], mark: tuple[str, ...], rows: IntArray, codes: Any, values: Any
) -> list[int]:
    """Rows with combinations that were not met before."""
    out = []
    labels = [v.labels.take(own[rows]).tolist() for own, v in zip(codes, values, strict=True)]
    for row, *cell in zip(rows.tolist(), *labels, strict=True):
        key = (mark, *cell)
        if key not in met:
            met.add(key)
            out.append(row)
    return out


def joined(a: Learnt, b: Learnt) -> Learnt:
    """What was found in the partitions of both, those of `a` first."""
    levels, factors, numbers, counts = (
        {**mine} for mine in (a.levels, a.factors, a.numbers, a.counts)
    )
    for group, found in b.levels.items():
        levels[group] = levels[group].joined(found, group) if group in levels else found
    for name, values in b.factors.items():
        factors[name] = factors[name].joined(values, name) if name in factors else values
    for name, moments in b.numbers.items():
        numbers[name] = numbers.get(name, Moments()).joined(moments)
    for name, count in b.counts.items():
        counts[name] = counts.get(name, 0) + count
    return Learnt(
        a.rows + b.rows,
        a.missing + b.missing,
        a.zero + b.zero,
        counts,
        levels,
        factors,
        a.cells | b.cells,
        numbers,
        a.pieces.joined(b.pieces),
        {
            both: a.meetings.get(both, Distinct()).joined(b.meetings.get(both, Distinct()))
            for both in {**a.meetings, **b.meetings}
        },
        a.seen.joined(b.seen),
    )
