"""What a correlation of residuals within groups promises: R⁻¹ as coefficients times known entries.

Rows of different groups are independent. Within a group, an entry of R⁻¹ depends on φ and on its
*key* only (the gap between two rows, the size of the group, the missing pattern and two visits), so
that entries of one key share a coefficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray, ReadOnly


@dataclass(frozen=True, eq=False)
class Entries(ReadOnly):
    """Entries of R⁻¹ between cells, which are rows or sums of rows.

    Attributes
    ----------
    left, right : (m,) int arrays
        Cells; an entry of two different ones stands for both of its places.
    keys : (m,) int array
        Coefficient of each entry.
    sums : bool
        Whether cells are the sums of rows that share a group and a stratum.
    """

    left: IntArray
    right: IntArray
    keys: IntArray
    sums: bool = False


@dataclass(frozen=True, eq=False)
class Groups(ReadOnly):
    """Which rows belong together.

    Attributes
    ----------
    codes : (n,) int array
        Group of each row.
    times : (n,) array
        Place of each row within its group: occasion, time or number of the visit.
    n_groups : int
    """

    codes: IntArray
    times: FloatArray
    n_groups: int

    @property
    def n(self) -> int:
        return len(self.codes)

    @property
    def order(self) -> IntArray:
        """Rows by group and time, (n,)."""
        return np.lexsort((self.times, self.codes))

    @property
    def sizes(self) -> IntArray:
        """Rows of each group."""
        return np.bincount(self.codes, minlength=self.n_groups)


class Correlation(Protocol):
    """The correlation of residuals, and of `Unstructured` their relative standard deviations too.

    φ has no bounds; `natural` makes of it what a user reads.
    """

    @property
    def groups(self) -> Groups: ...
    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the natural parameters."""
        ...

    @property
    def starts(self) -> Sequence[FloatArray]:
        """φ to search from, the usual one first."""
        ...

    def of_groups(self, groups: Groups) -> Correlation:
        """The same kind of correlation for other rows; φ of the same values may differ."""
        ...

    def natural(self, phi: FloatArray) -> FloatArray: ...
    def from_natural(self, values: FloatArray) -> FloatArray: ...
    def slopes(self, phi: FloatArray) -> FloatArray:
        """∂natural/∂φ, (natural, φ)."""
        ...

    def entries(self, cells: CellsOfGroups) -> Sequence[Entries]:
        """Where R⁻¹ has entries."""
        ...

    def coefficients(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Those of all keys, (keys,), and their derivatives, (parameters, keys)."""
        ...

    def logdet(self, phi: FloatArray) -> tuple[float, FloatArray]:
        """log|R| of all rows, and its gradient."""
        ...

    def matrix(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        """R of rows of one group at some times, (m, m); of many groups at once (g, m, m)."""
        ...

    def matrix_slopes(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        """The derivatives of `matrix` by φ, (parameters, …, m, m)."""
        ...

    def whiten(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        """L⁻¹ times columns (n, m), with R = LL' and L lower triangular in the order of time."""
        ...

    def colour(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        """L times columns (n, m)."""
        ...


@dataclass(frozen=True, eq=False)
class CellsOfGroups(ReadOnly):
    """Sums of rows that share a group and a stratum.

    Attributes
    ----------
    cell : (n,) int array
        Of each row.
    group, stratum : (cells,) int arrays
    first : (cells,) int array
        A row of each.
    """

    cell: IntArray
    group: IntArray
    stratum: IntArray
    first: IntArray

    @classmethod
    def of(cls, codes: IntArray, strata: IntArray) -> CellsOfGroups:
        """The cells of rows with a group and a stratum each."""
        width = int(strata.max(initial=0)) + 1
        both, first, cell = np.unique(
            codes.astype(np.int64) * width + strata, return_index=True, return_inverse=True
        )
        group, stratum = np.divmod(both, width)
        return cls(cell, group.astype(np.intp), stratum.astype(np.intp), first)


def pairs_within(codes: IntArray) -> tuple[IntArray, IntArray]:
    """All pairs i ≥ j of members of the same group, by group; itself included."""
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes[order])
    sizes = sizes[sizes > 0]
    lefts, rights = [], []
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for size in np.unique(sizes):
        own = order[starts[sizes == size][:, None] + np.arange(size)]
        i, j = np.tril_indices(size)
        lefts.append(own[:, i].ravel())
        rights.append(own[:, j].ravel())
    return np.concatenate(lefts), np.concatenate(rights)
