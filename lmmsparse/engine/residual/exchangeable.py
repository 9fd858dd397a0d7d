"""Residuals that are all correlated alike within a group, and residuals that are independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import expit

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.residual.base import CellsOfGroups, Entries, Groups, pairs_within


@dataclass(frozen=True, eq=False)
class Independent:
    """No correlation: every row is a group."""

    groups: Groups

    @classmethod
    def of(cls, n: int) -> Independent:
        return cls(Groups(np.arange(n), np.zeros(n), n))

    @property
    def labels(self) -> tuple[str, ...]:
        return ()

    @property
    def starts(self) -> Sequence[FloatArray]:
        return [np.zeros(0)]

    def of_groups(self, groups: Groups) -> Independent:
        return replace(self, groups=groups)

    def natural(self, phi: FloatArray) -> FloatArray:
        return np.zeros(0)

    def from_natural(self, values: FloatArray) -> FloatArray:
        return np.zeros(0)

    def slopes(self, phi: FloatArray) -> FloatArray:
        return np.zeros((0, 0))

    def entries(self, cells: CellsOfGroups) -> Sequence[Entries]:
        rows = np.arange(self.groups.n)
        return (Entries(rows, rows, np.zeros(self.groups.n, dtype=np.intp)),)

    def coefficients(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        return np.ones(1), np.zeros((0, 1))

    def logdet(self, phi: FloatArray) -> tuple[float, FloatArray]:
        return 0.0, np.zeros(0)

    def matrix(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        m = times.shape[-1]
        return np.broadcast_to(np.eye(m), (*times.shape, m))

    def matrix_slopes(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        m = times.shape[-1]
        return np.zeros((0, *times.shape, m))

    def whiten(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        return np.array(columns, dtype=np.float64)

    def colour(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        return np.array(columns, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Exchangeable:
    """Correlation ρ between any two rows of a group (compound symmetry).

    Notes
    -----
    R⁻¹ = [I − ρ/(1 + (m − 1)ρ) J]/(1 − ρ) in a group of m rows; ρ is above −1/(m − 1) of the
    largest. φ is its logit between these limits.
    """

    groups: Groups

    @property
    def labels(self) -> tuple[str, ...]:
        return ("Rho",)

    @cached_property
    def _sizes(self) -> tuple[FloatArray, IntArray, IntArray]:
        """Distinct sizes of groups, that of each group, and how many groups have each."""
        sizes, which = np.unique(self.groups.sizes, return_inverse=True)
        return sizes.astype(np.float64), which, np.bincount(which)

    @cached_property
    def lowest(self) -> float:
        """The limit that ρ is above."""
        return -1.0 / max(float(self._sizes[0].max()) - 1.0, 1.0)

    @property
    def starts(self) -> Sequence[FloatArray]:
        return [self.from_natural(np.array([v])) for v in (0.2, 0.7, 0.5 * self.lowest)]

    def of_groups(self, groups: Groups) -> Exchangeable:
        return replace(self, groups=groups)

    def natural(self, phi: FloatArray) -> FloatArray:
        return np.asarray(self.lowest + (1.0 - self.lowest) * expit(phi))

    def from_natural(self, values: FloatArray) -> FloatArray:
        share = (values - self.lowest) / (1.0 - self.lowest)
        return np.asarray(np.log(share) - np.log1p(-share))

    def slopes(self, phi: FloatArray) -> FloatArray:
        share = expit(phi)
        return np.asarray(((1.0 - self.lowest) * share * (1.0 - share))[:, None])

    def _parts(self, phi: FloatArray) -> tuple[float, float, FloatArray, float]:
        """ρ, 1 − ρ, 1 + (m − 1)ρ of every size, and the slope of ρ."""
        rho, slope = float(self.natural(phi)[0]), float(self.slopes(phi)[0, 0])
        all_ = 1.0 + (self._sizes[0] - 1.0) * rho
        if 1.0 - rho < 1e-13 or all_.min() < 1e-13:
            raise NumericalError(
                "The residuals of a group are (nearly) determined by each other at this "
                "correlation: R cannot be inverted."
            )
        return rho, 1.0 - rho, all_, slope

    def entries(self, cells: CellsOfGroups) -> Sequence[Entries]:
        rows = np.arange(self.groups.n)
        left, right = pairs_within(cells.group)
        keys = 1 + self._sizes[1][cells.group[left]]
        return (
            Entries(rows, rows, np.zeros(self.groups.n, dtype=np.intp)),
            Entries(left, right, keys, sums=True),
        )

    def coefficients(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        rho, rest, all_, slope = self._parts(phi)
        m = self._sizes[0]
        f = np.append(1.0 / rest, -rho / (rest * all_))
        df = np.append(1.0 / rest**2, -(1.0 + (m - 1.0) * rho**2) / (rest * all_) ** 2)
        return f, (slope * df)[None]

    def logdet(self, phi: FloatArray) -> tuple[float, FloatArray]:
        _, rest, all_, slope = self._parts(phi)
        m, counts = self._sizes[0] - 1.0, self._sizes[2]
        value = float(counts @ (m * np.log(rest) + np.log(all_)))
        return value, np.array([slope * float(counts @ (m / all_ - m / rest))])

    def matrix(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        m, rho = times.shape[-1], float(self.natural(phi)[0])
        one = np.where(np.eye(m, dtype=bool), 1.0, rho)
        return np.broadcast_to(one, (*times.shape, m))

    def matrix_slopes(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        m, slope = times.shape[-1], float(self.slopes(phi)[0, 0])
        one = np.where(np.eye(m, dtype=bool), 0.0, slope)
        return np.broadcast_to(one, (1, *times.shape, m))

    def whiten(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        """Row by row: what the sum of the rows before predicts is subtracted."""
        out, rho = np.empty_like(columns, dtype=np.float64), float(self.natural(phi)[0])
        before = np.zeros((self.groups.n_groups, columns.shape[1]))
        for k, rows in enumerate(self._waves):
            share, left = self._step(rho, k)
            codes = self.groups.codes[rows]
            out[rows] = (columns[rows] - share * before[codes]) / np.sqrt(left)
            before[codes] += columns[rows]
        return out

    def colour(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        out, rho = np.empty_like(columns, dtype=np.float64), float(self.natural(phi)[0])
        before = np.zeros((self.groups.n_groups, columns.shape[1]))
        for k, rows in enumerate(self._waves):
            share, left = self._step(rho, k)
            codes = self.groups.codes[rows]
            out[rows] = share * before[codes] + np.sqrt(left) * columns[rows]
            before[codes] += out[rows]
        return out

    @staticmethod
    def _step(rho: float, k: int) -> tuple[float, float]:
        """What k rows before say about the next: weight of their sum, variance that is left."""
        share = rho / (1.0 + (k - 1.0) * rho)
        return share, 1.0 - k * rho * share

    @cached_property
    def _waves(self) -> list[IntArray]:
        """The first rows of all groups, then the second ones, and so on."""
        order = self.groups.order
        codes = self.groups.codes[order]
        sizes = self.groups.sizes
        starts = np.cumsum(sizes) - sizes
        place = np.arange(len(codes)) - starts[codes]
        by_place = order[np.argsort(place, kind="stable")]
        return np.split(by_place, np.cumsum(np.bincount(place))[:-1])
