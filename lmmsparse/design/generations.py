"""Sires and dams by position → who comes before whom, cycles, and inbreeding, by generations.

References
----------
Henderson (1976), Biometrics 32, 69-83.
Meuwissen & Luo (1992), Genetics Selection Evolution 24, 305-313.
Colleau (2002), Genetics Selection Evolution 34, 409-421.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.engine.known import triangular_factor

_ROWS, _COLUMNS = 4096, 128  # that are made at a time
# Seconds of one machine; what counts is their ratio.
_PER_ELEMENT, _PER_SOLUTION = 4e-8, 2e-8
_LITTLE = 0.05  # seconds by which either way may be the slower one


def generations(sire: IntArray, dam: IntArray) -> IntArray:
    """One more than the larger of both parents', 0 without parents; −1 on cycles and below, (n,).

    Parameters
    ----------
    sire, dam : (n,) int arrays
        Positions, −1 where unknown.
    """
    n = len(sire)
    waiting = (sire >= 0).astype(np.intp) + (dam >= 0)
    child = np.tile(np.arange(n), 2)
    parent = np.concatenate([sire, dam])
    known = parent >= 0
    shape = (n, n)
    children = sp.csr_array(
        (np.ones(int(known.sum()), dtype=np.int32), (parent[known], child[known])), shape=shape
    )
    out = np.full(n, -1, dtype=np.intp)
    ready, at = np.flatnonzero(waiting == 0), 0
    while len(ready):
        out[ready] = at
        of_ready = children[ready]
        # A parent on both sides counts twice.
        waiting -= np.bincount(of_ready.indices, of_ready.data, minlength=n).astype(np.intp)
        touched = np.unique(of_ready.indices)
        ready, at = touched[waiting[touched] == 0], at + 1
    return out


def cycle(sire: IntArray, dam: IntArray, generation: IntArray) -> list[int]:
    """Positions of animals each of which is a parent of the next, and the last of the first."""
    at = int(np.flatnonzero(generation < 0)[0])
    seen: dict[int, int] = {}
    way: list[int] = []
    while at not in seen:
        seen[at] = len(way)
        way.append(at)
        at = next(int(p) for p in (sire[at], dam[at]) if p >= 0 and generation[p] < 0)
    return way[seen[at] :][::-1]


def half_of_parents(sire: IntArray, dam: IntArray) -> sp.csr_array:
    """P with P_ij = ½ where j is a parent of i, (n, n)."""
    n = len(sire)
    rows, cols = np.tile(np.arange(n), 2), np.concatenate([sire, dam])
    known = cols >= 0
    data = np.full(int(known.sum()), 0.5)
    return sp.csr_array(sp.coo_array((data, (rows[known], cols[known])), shape=(n, n)))


def mendelian_variances(sire: IntArray, dam: IntArray, F: FloatArray) -> FloatArray:
    """Variance that the parents leave to their offspring, (n,), from inbreeding coefficients."""
    padded = np.append(F, -1.0)  # an unknown parent is as one of F = −1
    return np.asarray(0.5 - 0.25 * (padded[sire] + padded[dam]))


def inbreeding(sire: IntArray, dam: IntArray, generation: IntArray) -> FloatArray:
    """Inbreeding coefficients, (n,): half the relationship of both parents.

    Notes
    -----
    With T = (I − P)⁻¹ and A = TDT', two ways lead to A between mates. Row i of T is the mean of its
    parents' rows and a one on the diagonal: the rows of a generation are one sparse product, and
    those of parents are kept until their last offspring is born. Where animals have many ancestors,
    columns of A of the sires (or the dams, if they are fewer) are solved for instead. Full sibs
    share their inbreeding.
    """
    n = len(sire)
    F, d = np.zeros(n), np.ones(n)
    mates = [*_mates(sire, dam, generation)]
    rows = _Rows(sire, dam, generation)
    columns = _Columns(sire, dam, generation)
    costs = [columns.cost(g, each) for g, each in enumerate(mates)]
    by_rows = True
    for g, each in enumerate(mates):
        if g:
            d[each.born] = mendelian_variances(sire, dam, F)[each.born]
            left = len(mates) - g
            by_rows = by_rows and rows.cost(each) * left <= _LITTLE + sum(costs[g:])
            way = rows if by_rows else columns
            F[each.mated] = 0.5 * way.relationships(g, each.sires, each.dams, d)[each.family]
        if by_rows:
            rows.follow(g, each.born)
    F[np.abs(F) < 1e-12] = 0.0
    return F


class _Mates(NamedTuple):
    """The animals of a generation, those with two known parents, and these parents, once each."""

    born: IntArray
    mated: IntArray
    sires: IntArray
    dams: IntArray
    family: IntArray


def _mates(sire: IntArray, dam: IntArray, generation: IntArray) -> Iterator[_Mates]:
    both, n = (sire >= 0) & (dam >= 0), np.int64(len(sire))
    order, ends = np.argsort(generation, kind="stable"), np.cumsum(np.bincount(generation))
    for born in np.split(order, ends[:-1]):
        mated = born[both[born]]
        pairs, family = np.unique(sire[mated] * n + dam[mated], return_inverse=True)
        yield _Mates(born, mated, pairs // n, pairs % n, family)


class _Rows:
    """Rows of T of the animals that still have offspring to come."""

    def __init__(self, sire: IntArray, dam: IntArray, generation: IntArray) -> None:
        n = len(sire)
        self._sire, self._dam = sire, dam
        self._last = np.full(n, -1, dtype=np.intp)
        for parent in (sire, dam):
            known = parent >= 0
            np.maximum.at(self._last, parent[known], generation[known])
        self._T = sp.csr_array((0, n))
        self._kept = np.zeros(0, dtype=np.intp)
        self._place = np.full(n, -1, dtype=np.intp)

    def cost(self, mates: _Mates) -> float:
        """About the seconds that a generation takes."""
        per_row = self._T.nnz / max(1, self._T.shape[0])
        return float(_PER_ELEMENT * (self._T.nnz + 2 * len(mates.sires) * per_row))

    def relationships(self, g: int, sires: IntArray, dams: IntArray, d: FloatArray) -> FloatArray:
        """A between mates, (pairs,)."""
        out = np.empty(len(sires))
        for a in range(0, len(sires), _ROWS):
            some = slice(a, a + _ROWS)
            left, right = (self._T[self._place[each[some]]] for each in (sires, dams))
            out[some] = left.multiply(right) @ d
        return out

    def follow(self, g: int, born: IntArray) -> None:
        """Forget who has had all offspring, and take up those that were born and will have some."""
        still, born = self._kept[self._last[self._kept] > g], born[self._last[born] > g]
        m, n = len(born), len(self._last)
        rows, cols = np.tile(np.arange(m), 2), np.concatenate([self._sire[born], self._dam[born]])
        known = cols >= 0
        half = np.full(int(known.sum()), 0.5)
        mean = sp.csr_array(
            (half, (rows[known], self._place[cols[known]])), shape=(m, self._T.shape[0])
        )
        own = sp.csr_array((np.ones(m), (np.arange(m), born)), shape=(m, n))
        parts = [self._T[self._place[still]], mean @ self._T + own]
        self._T = sp.csr_array(sp.vstack(parts, format="csr"))
        self._kept = np.concatenate([still, born])
        self._place[self._kept] = np.arange(len(self._kept))


class _Columns:
    """Columns of A among all parents so far, by Colleau's two triangular systems."""

    def __init__(self, sire: IntArray, dam: IntArray, generation: IntArray) -> None:
        n = len(sire)
        is_parent = np.zeros(n, dtype=bool)
        is_parent[sire[sire >= 0]] = is_parent[dam[dam >= 0]] = True
        order = np.argsort(generation, kind="stable")
        self._parents = order[is_parent[order]]
        self._before = np.searchsorted(
            generation[self._parents], np.arange(int(generation.max(initial=0)) + 1)
        )
        self._place = np.full(n, -1, dtype=np.intp)
        self._place[self._parents] = np.arange(len(self._parents))
        own = (np.where(p >= 0, self._place[p], -1)[self._parents] for p in (sire, dam))
        self._half = half_of_parents(*own)

    def cost(self, g: int, mates: _Mates) -> float:
        """About the seconds that a generation takes."""
        fewer = min(len(np.unique(each)) for each in (mates.sires, mates.dams))
        return float(_PER_SOLUTION * self._before[g] * fewer)

    def relationships(self, g: int, sires: IntArray, dams: IntArray, d: FloatArray) -> FloatArray:
        """A between mates, (pairs,)."""
        m = int(self._before[g])
        triangular = triangular_factor(sp.csc_array(self._half[:m, :m]))
        D = d[self._parents[:m], None]
        few, many = self._place[sires], self._place[dams]
        if len(np.unique(few)) > len(np.unique(many)):
            few, many = many, few
        whose, at = np.unique(few, return_inverse=True)
        out = np.empty(len(sires))
        for a in range(0, len(whose), _COLUMNS):
            part = whose[a : a + _COLUMNS]
            unit = np.zeros((m, len(part)), order="F")
            unit[part, np.arange(len(part))] = 1.0
            A = triangular.solve(D * triangular.solve(unit, "T"))
            mine = np.flatnonzero((at >= a) & (at < a + len(part)))
            out[mine] = A[many[mine], at[mine] - a]
        return out
