"""How many pairs of levels meet, and whether their sums fit in memory: said before it runs out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lmmsparse.common.arrays import IntArray
from lmmsparse.common.errors import DataError, Finding

_SIZE = 4096  # hashes that are kept: the count is right to a few per cent
_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_PER_CELL, _PER_NUMBER = 24, 24  # bytes: here, in the model and in its linear algebra
_TIGHT, _SURELY = 0.5, 0.25  # of the memory that is free
Hashes = NDArray[np.uint64]


@dataclass
class Distinct:
    """About how many different hashes there were, from the smallest of them.

    References
    ----------
    Bar-Yossef, Jayram, Kumar, Sivakumar & Trevisan (2002), RANDOM 2002, LNCS 2483, 1-10.
    """

    smallest: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))

    def add(self, hashes: Hashes) -> None:
        if len(self.smallest) == _SIZE:
            hashes = hashes[hashes < self.smallest[-1]]
        if len(hashes):
            self.smallest = np.unique(np.concatenate([self.smallest, hashes]))[:_SIZE]

    def joined(self, other: Distinct) -> Distinct:
        return Distinct(np.unique(np.concatenate([self.smallest, other.smallest]))[:_SIZE])

    @property
    def count(self) -> float:
        if len(self.smallest) < _SIZE:
            return float(len(self.smallest))
        return (_SIZE - 1) * 2.0**64 / float(self.smallest[-1])


def hashed(codes: Sequence[IntArray], labels: Sequence[pd.Index]) -> Hashes:
    """A hash of the level of every row, the same in all parts of the data."""
    out: Hashes | None = None
    for own, values in zip(codes, labels, strict=True):
        mine = _mixed(_of_labels(values)).take(own)
        out = mine if out is None else met_by(out, mine)
    assert out is not None
    return out


def _of_labels(labels: pd.Index) -> Hashes:
    """By value, whatever type holds it."""
    if isinstance(labels, pd.DatetimeIndex):
        return np.asarray(labels.as_unit("ns").asi8).view(np.uint64)
    if isinstance(labels.dtype, np.dtype) and labels.dtype.kind in "iufb":
        return labels.to_numpy().astype(np.float64).view(np.uint64)
    text = np.array([str(label) for label in labels], dtype=object)
    try:
        return np.asarray(pd.util.hash_array(text, categorize=False))
    except UnicodeEncodeError:  # texts that are refused later
        return np.zeros(len(text), dtype=np.uint64)


def _mixed(h: Hashes) -> Hashes:
    """Steele, Lea & Flood's finalizer."""
    h = (h ^ (h >> np.uint64(30))) * _MIX[1]
    h = (h ^ (h >> np.uint64(27))) * _MIX[2]
    return np.asarray(h ^ (h >> np.uint64(31)))


def met_by(a: Hashes, b: Hashes) -> Hashes:
    """A hash of the pair of levels of every row."""
    return _mixed(a * _MIX[0] + b)


def free_memory() -> float:
    """Bytes that this machine has to spare, infinite where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return 1024.0 * float(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


@dataclass(frozen=True)
class Meeting:
    """Two terms whose levels meet.

    Attributes
    ----------
    groups : tuple of str
        Their grouping factors.
    cells : float
        Pairs of levels that meet, about.
    numbers : int
        That are summed per pair; 0 where rows are counted only.
    """

    groups: tuple[str, str]
    cells: float
    numbers: int

    @property
    def bytes(self) -> float:
        """What they take from the sums to the end of the search, about."""
        return self.cells * (_PER_CELL + _PER_NUMBER * self.numbers)


def fits_surely(rows: int | None, effects: int, free: float) -> bool:
    """Whether so many rows cannot make more cells than memory holds.

    Parameters
    ----------
    effects : int
        Per level of the term that has most of them.
    """
    return rows is not None and Meeting(("", ""), rows, effects**2).bytes <= _SURELY * free


def about_room(meetings: Sequence[Meeting], free: float) -> list[Finding]:
    """What there is to say of memory before rows are summed.

    Parameters
    ----------
    free : float
        Bytes that the machine has to spare.

    Raises
    ------
    DataError
        Where they will not do.
    """
    needed = sum(each.bytes for each in meetings)
    if needed <= _TIGHT * free:
        return []
    most = max(meetings, key=lambda each: each.bytes)
    said = (
        f"The levels of {most.groups[0]!r} and {most.groups[1]!r} meet in about "
        f"{float(f'{most.cells:.2g}'):,.0f} pairs, whose sums take about {needed / 2**30:.2g} GiB "
        f"in this process; {free / 2**30:.2g} GiB are free."
    )
    remedy = (
        f" Fit a sample of the levels of {most.groups[0]!r} with all of their rows, leave out a "
        "term, or use a machine with more memory."
    )
    if needed > free:
        raise DataError(said + remedy)
    return [Finding("memory-tight", "warning", said + " If this process is killed:" + remedy)]
