"""Sums over the rows in which a level of one term meets one of another, gathered part by part."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lmmsparse.common.arrays import FloatArray, IntArray, compact

_TABLE = 4_000_000  # numbers of a table with a place for every pair of levels
RANGES = 16
_ROW_BITS = 62
_FEW = 1.25  # rows of a key
_KEYS = 2**32


class Met(NamedTuple):
    """Pairs of levels that meet, in increasing order, and their numbers.

    Attributes
    ----------
    rows, cols : (m,) int arrays
        Levels of the one term and of the other.
    values : (m, width) array
    """

    rows: IntArray
    cols: IntArray
    values: FloatArray


class Cells(Protocol):
    """Blocks of Z_s'WZ_t of the levels that meet; without a width, rows are counted."""

    @property
    def width(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def add(self, key: IntArray, values: list[FloatArray]) -> None: ...
    def joined(self, other: Cells, keep: bool = True) -> Cells: ...
    def met(self) -> Met: ...


def cells_for(n_s: int, n_t: int, width: int) -> Cells:
    """A table where there are few pairs of levels, sorted runs otherwise.

    Parameters
    ----------
    width : int
        Numbers per pair; 0 where rows are counted only.
    """
    if n_s * n_t * (width + 1) <= _TABLE:
        return Table(n_s, n_t, width)
    return Runs(n_s, n_t, width)


class Table:
    """A place for every pair of levels."""

    def __init__(self, n_s: int, n_t: int, width: int) -> None:
        self._shape, self.width = (n_s, n_t), width
        self._count = np.zeros(n_s * n_t, dtype=np.int64)
        self._values = np.zeros((width, n_s * n_t))

    @property
    def nbytes(self) -> int:
        return self._count.nbytes + self._values.nbytes

    def add(self, key: IntArray, values: list[FloatArray]) -> None:
        size = len(self._count)
        self._count += np.bincount(key, minlength=size)
        for own, of_rows in zip(self._values, values, strict=True):
            own += np.bincount(key, of_rows, minlength=size)

    def joined(self, other: Cells, keep: bool = True) -> Cells:
        assert isinstance(other, Table)
        out = Table(0, 0, self.width)
        out._shape = self._shape
        out._count, out._values = self._count + other._count, self._values + other._values
        return out

    def met(self) -> Met:
        """What has met so far."""
        found = np.flatnonzero(self._count)
        numbers = self._values if len(self._values) else self._count[None]
        return Met(*_levels(found, self._shape), _numbers(numbers[:, found].T))


class Runs:
    """Sorted keys with their sums, in runs that are merged as they grow.

    The keys are cut at fixed places, so that what is merged at a time stays small, and within a
    range they take 32 bits.
    """

    def __init__(self, n_s: int, n_t: int, width: int) -> None:
        size, self._shape, self.width = n_s * n_t, (n_s, n_t), width
        ranges = max(RANGES, -(-size // (_KEYS - 1)))
        self._starts = np.array([size * i // ranges for i in range(ranges)])
        self._runs: list[list[_Run]] = [[] for _ in range(ranges)]

    @property
    def nbytes(self) -> int:
        return sum(run.nbytes for runs in self._runs for run in runs)

    def add(self, key: IntArray, values: list[FloatArray]) -> None:
        if self.width:
            order, ordered = _sorted(key, self._shape[0] * self._shape[1])
        else:
            ordered = np.sort(key)
        new = np.ones(len(key), dtype=bool)
        new[1:] = ordered[1:] != ordered[:-1]
        first = np.flatnonzero(new)
        if self.width:
            sums: NDArray[Any] = np.empty((self.width, len(first)))
            further = np.flatnonzero(~new) if _FEW * len(first) > len(key) else None
            for own, of_rows in zip(sums, values, strict=True):
                if further is None:
                    np.add.reduceat(of_rows[order], first, out=own)
                else:  # most keys are there once
                    of_rows.take(order[first], out=own, mode="clip")
                    at = np.searchsorted(first, further, side="right") - 1
                    np.add.at(own, at, of_rows[order[further]])
        else:
            sums = np.diff(first, append=len(key)).astype(np.uint32)[None]
        keys = ordered[first]
        cuts = [*np.searchsorted(keys, self._starts).tolist(), len(keys)]
        for runs, start, a, z in zip(self._runs, self._starts, cuts, cuts[1:], strict=False):
            if z > a:
                _push(runs, _Run((keys[a:z] - start).astype(np.uint32), sums[:, a:z].copy()))

    def joined(self, other: Cells, keep: bool = True) -> Cells:
        """With those of other rows.

        Parameters
        ----------
        keep : bool
            Whether both stay what they are, which takes more memory.
        """
        assert isinstance(other, Runs)
        out = Runs(*self._shape, self.width)
        for new, mine, theirs in zip(out._runs, self._runs, other._runs, strict=True):
            both = [each for each in (_whole(mine), _whole(theirs)) if each is not None]
            if not keep:
                mine.clear()
                theirs.clear()
            new[:] = [_merged(*both)] if len(both) == 2 else both
        return out

    def met(self) -> Met:
        """What has met; nothing is left here."""
        m = 0
        for runs in self._runs:
            whole = _whole(runs)
            runs[:] = [] if whole is None else [whole]
            m += 0 if whole is None else len(whole.keys)
        ones = not self.width and all((run.sums == 1).all() for each in self._runs for run in each)
        rows, cols = (compact(np.zeros(0, dtype=np.intp), n).dtype for n in self._shape)
        out = Met(
            np.empty(m, dtype=rows),
            np.empty(m, dtype=cols),
            np.broadcast_to(np.ones((1, 1)), (m, 1)) if ones else np.empty((m, self.width or 1)),
        )
        at = 0
        for runs, start in zip(self._runs, self._starts, strict=True):
            for run in runs:
                part = slice(at, at + len(run.keys))
                out.rows[part], out.cols[part] = np.divmod(run.keys + start, self._shape[1])
                if not ones:
                    out.values[part] = run.sums.T
                at = part.stop
            runs.clear()
        return out


class _Run(NamedTuple):
    """Keys in increasing order, within a range, and what is summed."""

    keys: NDArray[np.uint32]
    sums: NDArray[Any]

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.sums.nbytes


def _levels(key: IntArray, shape: tuple[int, int]) -> tuple[IntArray, IntArray]:
    rows, cols = np.divmod(key, max(1, shape[1]))
    return compact(rows, shape[0]), compact(cols, shape[1])


def _numbers(values: NDArray[Any]) -> FloatArray:
    """(m, width) numbers; counts that are all one take the memory of one."""
    if values.dtype.kind == "f" or not (values == 1).all():
        return np.ascontiguousarray(values, dtype=np.float64)
    return np.broadcast_to(np.ones((1, 1)), values.shape)


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
    while runs and len(runs[-1].keys) < 2 * len(run.keys):
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
    keys = np.concatenate([a.keys, b.keys])
    order = np.argsort(keys, kind="stable")  # in linear time, as both are sorted
    keys = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    first, twice = np.flatnonzero(new), np.flatnonzero(~new)
    # A key is in a run once: the second of two stands behind the first, which is in place already.
    places, more = twice - np.arange(1, len(twice) + 1), order[twice]
    leading = order[first]
    sums = np.empty((len(a.sums), len(first)), dtype=a.sums.dtype)
    for own, x, y in zip(sums, a.sums, b.sums, strict=True):
        both = np.concatenate([x, y])
        both.take(leading, out=own, mode="clip")
        own[places] += both[more]
    return _Run(keys[first], sums)
