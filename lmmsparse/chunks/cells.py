"""Sums over the rows in which a level of one term meets one of another, gathered part by part."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray

_TABLE = 4_000_000  # numbers of a table with a place for every pair of levels
RANGES = 16
_ROW_BITS = 62


class Cells(Protocol):
    """Blocks of Z_s'WZ_t of the levels that meet."""

    def add(self, key: IntArray, values: list[FloatArray]) -> None: ...
    def joined(self, other: Cells) -> Cells: ...
    def blocks(self) -> tuple[IntArray, FloatArray]: ...


def cells_for(n_s: int, n_t: int, width: int) -> Cells:
    """A table where there are few pairs of levels, sorted runs otherwise.

    Parameters
    ----------
    width : int
        Numbers per pair.
    """
    if n_s * n_t * (width + 1) <= _TABLE:
        return Table(n_s * n_t, width)
    return Runs(n_s * n_t, width)


class Table:
    """A place for every pair of levels."""

    def __init__(self, size: int, width: int) -> None:
        self.count = np.zeros(size, dtype=np.int64)
        self.values = np.zeros((width, size))

    def add(self, key: IntArray, values: list[FloatArray]) -> None:
        size = len(self.count)
        self.count += np.bincount(key, minlength=size)
        for own, of_rows in zip(self.values, values, strict=True):
            own += np.bincount(key, of_rows, minlength=size)

    def joined(self, other: Cells) -> Cells:
        assert isinstance(other, Table)
        out = Table(0, 0)
        out.count, out.values = self.count + other.count, self.values + other.values
        return out

    def blocks(self) -> tuple[IntArray, FloatArray]:
        """Pairs of levels in increasing order and their numbers, (m, width)."""
        found = np.flatnonzero(self.count)
        return found, np.ascontiguousarray(self.values[:, found].T)


class Runs:
    """Sorted keys with their sums, in runs that are merged as they grow.

    The keys are cut at fixed places, so that what is merged at a time stays small.
    """

    def __init__(self, size: int, width: int) -> None:
        self._size, self._width = size, width
        self._ends = np.array([size * i // RANGES for i in range(1, RANGES)])
        self._runs: list[list[_Run]] = [[] for _ in range(RANGES)]

    def add(self, key: IntArray, values: list[FloatArray]) -> None:
        order, ordered = _sorted(key, self._size)
        new = np.ones(len(key), dtype=bool)
        new[1:] = ordered[1:] != ordered[:-1]
        first = np.flatnonzero(new)
        sums = np.empty((self._width, len(first)))
        for own, of_rows in zip(sums, values, strict=True):
            np.add.reduceat(of_rows[order], first, out=own)
        keys = ordered[first]
        cuts = [0, *np.searchsorted(keys, self._ends).tolist(), len(keys)]
        for runs, a, z in zip(self._runs, cuts, cuts[1:], strict=False):
            if z > a:
                _push(runs, (keys[a:z].copy(), sums[:, a:z].copy()))

    def joined(self, other: Cells) -> Cells:
        assert isinstance(other, Runs)
        out = Runs(self._size, self._width)
        for new, mine, theirs in zip(out._runs, self._runs, other._runs, strict=True):
            both = [each for each in (_whole(mine), _whole(theirs)) if each is not None]
            new[:] = [_merged(*both)] if len(both) == 2 else both
        return out

    def blocks(self) -> tuple[IntArray, FloatArray]:
        """Pairs of levels in increasing order and their numbers, (m, width)."""
        wholes = []
        for runs in self._runs:
            whole = _whole(runs)
            runs.clear()
            if whole is not None:
                wholes.append(whole)
        m = sum(len(keys) for keys, _ in wholes)
        all_keys, values = np.empty(m, dtype=np.intp), np.empty((m, self._width))
        at = 0
        while wholes:
            keys, sums = wholes.pop(0)
            all_keys[at : at + len(keys)] = keys
            values[at : at + len(keys)] = sums.T
            at += len(keys)
        return all_keys, values


_Run = tuple[IntArray, FloatArray]


def _sorted(key: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """The rows in the order of their keys, and these; rows of one key stay in their order."""
    bits = max(1, len(key).bit_length())
    if size.bit_length() + bits <= _ROW_BITS:  # number and row in one word: sorted at once
        packed = (key.astype(np.int64) << bits) | np.arange(len(key))
        packed.sort()
        order = packed & ((1 << bits) - 1)
        return order, packed >> bits
    order = np.argsort(key, kind="stable")
    return order, key[order]


def _push(runs: list[_Run], run: _Run) -> None:
    """Add a run; it is merged with those before it that are not twice as long."""
    while runs and len(runs[-1][0]) < 2 * len(run[0]):
        run = _merged(runs.pop(), run)
    runs.append(run)


def _whole(runs: list[_Run]) -> _Run | None:
    """All runs as one, the shortest merged first."""
    if not runs:
        return None
    *others, whole = runs
    for run in reversed(others):
        whole = _merged(run, whole)
    return whole


def _merged(a: _Run, b: _Run) -> _Run:
    keys = np.concatenate([a[0], b[0]])
    order = np.argsort(keys, kind="stable")  # in linear time, as both are sorted
    keys = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    first = np.flatnonzero(new)
    sums = np.empty((len(a[1]), len(first)))
    for own, x, y in zip(sums, a[1], b[1], strict=True):
        np.add.reduceat(np.concatenate([x, y])[order], first, out=own)
    return keys[first], sums
