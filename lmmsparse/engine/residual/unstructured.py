"""Residuals with a standard deviation of every visit and a correlation of every pair of visits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.residual.base import CellsOfGroups, Entries, Groups, pairs_within

_LARGEST = 30.0


@dataclass(frozen=True, eq=False)
class Unstructured:
    """Any covariance of v visits; R is relative to the variance of the first.

    Attributes
    ----------
    groups : Groups
        Times are the numbers of the visits.
    visits : tuple of str
    begin : (parameters,) array, optional
        φ to search from.

    Notes
    -----
    φ are the logarithms of the standard deviations of all visits but the first, relative to it, and
    the rows of the Cholesky factor of the correlations below the diagonal, as multiples of the
    diagonal entry.
    """

    groups: Groups
    visits: tuple[str, ...]
    begin: FloatArray | None = field(default=None, repr=False)

    @property
    def v(self) -> int:
        return len(self.visits)

    @cached_property
    def _below(self) -> tuple[IntArray, IntArray]:
        """Row and column of every correlation, by row."""
        rows, columns = np.tril_indices(self.v, -1)
        return rows, columns

    @property
    def labels(self) -> tuple[str, ...]:
        """Ratios of standard deviations, then correlations column by column."""
        first = tuple(f"sd.{visit}" for visit in self.visits[1:])
        names = (f"cor.{self.visits[i]}.{self.visits[j]}" for i, j in self._by_column)
        return (*first, *names)

    @cached_property
    def _by_column(self) -> list[tuple[int, int]]:
        return [(i, j) for j in range(self.v) for i in range(j + 1, self.v)]

    @property
    def n_par(self) -> int:
        return self.v - 1 + self.v * (self.v - 1) // 2

    def pair(self, i: int) -> tuple[int, int]:
        """The visits of the i-th correlation of `labels`."""
        later, earlier = self._by_column[i]
        return earlier, later

    @property
    def starts(self) -> Sequence[FloatArray]:
        n = self.v - 1 + len(self._below[0])
        return [np.zeros(n) if self.begin is None else self.begin]

    def _factor(self, phi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Relative standard deviations, the factor of the correlations, and lengths of its rows."""
        if np.abs(phi).max(initial=0.0) > _LARGEST:
            raise NumericalError("The covariance of the visits is out of bounds.")
        sd = np.exp(np.concatenate([[0.0], phi[: self.v - 1]]))
        raw = np.eye(self.v)
        raw[self._below] = phi[self.v - 1 :]
        length = np.linalg.norm(raw, axis=1)
        return sd, raw / length[:, None], length

    def covariance(self, phi: FloatArray) -> FloatArray:
        """R of all visits, (v, v)."""
        sd, L, _ = self._factor(phi)
        return np.asarray((L @ L.T) * np.outer(sd, sd))

    def covariance_slopes(self, phi: FloatArray) -> FloatArray:
        """∂R/∂φ, (parameters, v, v)."""
        sd, L, length = self._factor(phi)
        R = (L @ L.T) * np.outer(sd, sd)
        out = np.zeros((len(phi), self.v, self.v))
        for a in range(1, self.v):
            out[a - 1, a] += R[a]
            out[a - 1, :, a] += R[a]
        for at, (i, j) in enumerate(zip(*self._below, strict=True), start=self.v - 1):
            row = -L[i] * L[i, j]
            row[j] += 1.0
            moved = (L @ row) / length[i] * sd * sd[i]
            moved[i] = 0.0
            out[at, i] += moved
            out[at, :, i] += moved
        return out

    def of_groups(self, groups: Groups) -> Unstructured:
        return replace(self, groups=groups)

    def natural(self, phi: FloatArray) -> FloatArray:
        sd, L, _ = self._factor(phi)
        C = L @ L.T
        return np.array([*sd[1:], *(C[i, j] for i, j in self._by_column)])

    def from_natural(self, values: FloatArray) -> FloatArray:
        sd = np.concatenate([[1.0], values[: self.v - 1]])
        C = np.eye(self.v)
        for (i, j), value in zip(self._by_column, values[self.v - 1 :], strict=True):
            C[i, j] = C[j, i] = value
        return self.of_covariance(C * np.outer(sd, sd))

    def of_covariance(self, R: FloatArray) -> FloatArray:
        """φ of a covariance matrix (v, v), whatever its scale."""
        sd = np.sqrt(np.diag(R))
        L = np.linalg.cholesky(R / np.outer(sd, sd))
        raw = L / np.diag(L)[:, None]
        return np.concatenate([np.log(sd[1:] / sd[0]), raw[self._below]])

    def slopes(self, phi: FloatArray) -> FloatArray:
        R, dR = self.covariance(phi), self.covariance_slopes(phi)
        sd = np.sqrt(np.diag(R))
        dsd = dR[:, np.arange(self.v), np.arange(self.v)] / (2.0 * sd)
        out = np.zeros((len(phi), len(phi)))
        out[: self.v - 1] = dsd[:, 1:].T
        for at, (i, j) in enumerate(self._by_column, start=self.v - 1):
            both = sd[i] * sd[j]
            out[at] = dR[:, i, j] / both - R[i, j] / both * (dsd[:, i] / sd[i] + dsd[:, j] / sd[j])
        return out

    @cached_property
    def _patterns(self) -> tuple[BoolArray, IntArray, IntArray]:
        """Which visits each missing pattern has, that of each group, and how many have each."""
        seen = np.zeros((self.groups.n_groups, self.v), dtype=bool)
        seen[self.groups.codes, self.groups.times.astype(np.intp)] = True
        patterns, which = np.unique(seen, axis=0, return_inverse=True)
        return patterns, which.reshape(-1), np.bincount(which.reshape(-1))

    def _place(self, i: IntArray, j: IntArray) -> IntArray:
        """Number of the entry (i, j), i ≥ j, of a lower triangle."""
        return i * (i + 1) // 2 + j

    def entries(self, cells: CellsOfGroups) -> Sequence[Entries]:
        left, right = pairs_within(self.groups.codes)
        visit = self.groups.times.astype(np.intp)
        swap = visit[left] < visit[right]
        left, right = np.where(swap, right, left), np.where(swap, left, right)
        per = self.v * (self.v + 1) // 2
        pattern = self._patterns[1][self.groups.codes[left]]
        keys = pattern * per + self._place(visit[left], visit[right])
        same = left == right
        return (
            Entries(left[same], right[same], keys[same]),
            Entries(left[~same], right[~same], keys[~same]),
        )

    def _inverses(self, phi: FloatArray) -> Iterator[tuple[int, IntArray, FloatArray, float]]:
        """Per pattern its visits, the inverse of their covariance and its log-determinant."""
        R = self.covariance(phi)
        for m, seen in enumerate(self._patterns[0]):
            at = np.flatnonzero(seen)
            try:
                L = np.linalg.cholesky(R[np.ix_(at, at)])
            except np.linalg.LinAlgError as error:
                raise NumericalError("The covariance of the visits is singular.") from error
            half = np.linalg.inv(L)
            yield m, at, half.T @ half, 2.0 * float(np.log(np.diag(L)).sum())

    def coefficients(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        per, d = self.v * (self.v + 1) // 2, len(phi)
        f, df = np.zeros(len(self._patterns[0]) * per), np.zeros((d, len(self._patterns[0]) * per))
        dR = self.covariance_slopes(phi)
        for m, at, inverse, _ in self._inverses(phi):
            i, j = np.tril_indices(len(at))
            place = m * per + self._place(at[i], at[j])
            f[place] = inverse[i, j]
            moved = -np.matmul(np.matmul(inverse, dR[:, at[:, None], at]), inverse)
            df[:, place] = moved[:, i, j]
        return f, df

    def logdet(self, phi: FloatArray) -> tuple[float, FloatArray]:
        dR, counts = self.covariance_slopes(phi), self._patterns[2]
        value, slope = 0.0, np.zeros(len(phi))
        for m, at, inverse, logdet in self._inverses(phi):
            value += counts[m] * logdet
            slope += counts[m] * np.einsum("ij,kij->k", inverse, dR[:, at[:, None], at])
        return value, slope

    def matrix(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        at = times.astype(np.intp)
        return np.asarray(self.covariance(phi)[at[..., :, None], at[..., None, :]])

    def matrix_slopes(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        at = times.astype(np.intp)
        return np.asarray(self.covariance_slopes(phi)[:, at[..., :, None], at[..., None, :]])

    def whiten(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        return self._by_pattern(phi, columns, inverse=True)

    def colour(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        return self._by_pattern(phi, columns, inverse=False)

    def _by_pattern(self, phi: FloatArray, columns: FloatArray, inverse: bool) -> FloatArray:
        """L or L⁻¹ times the rows of every group, pattern by pattern."""
        R, out = self.covariance(phi), np.empty_like(columns, dtype=np.float64)
        order = self.groups.order
        sizes = self.groups.sizes
        starts = np.cumsum(sizes) - sizes
        patterns, which, _ = self._patterns
        for m, seen in enumerate(patterns):
            at = np.flatnonzero(seen)
            L = np.linalg.cholesky(R[np.ix_(at, at)])
            rows = order[starts[which == m][:, None] + np.arange(len(at))]
            factor = np.linalg.inv(L) if inverse else L
            out[rows] = np.matmul(factor, columns[rows])
        return out
