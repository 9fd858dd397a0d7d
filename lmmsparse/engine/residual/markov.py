"""Autoregressive residuals of order one, at whole or any times: R⁻¹ has a neighbour each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.residual.base import CellsOfGroups, Entries, Groups

_CLOSEST = 1e-13


@dataclass(frozen=True, eq=False)
class Autoregressive:
    """Correlation Φ^g of rows that are g apart.

    Parameters
    ----------
    groups : Groups
    continuous : bool
        Whether times are any numbers and Φ is positive; otherwise times are whole.

    Notes
    -----
    With c = Φ^g between neighbours, an entry of R⁻¹ between them is −c/(1 − c²), and one of a row
    with itself is 1 plus c²/(1 − c²) for each neighbour that it has. φ is atanh Φ, or for
    continuous times −log(−γ log Φ), with γ the median gap.
    """

    groups: Groups
    continuous: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        return ("Phi",)

    @property
    def starts(self) -> Sequence[FloatArray]:
        if self.continuous:
            return [np.array([v]) for v in (-0.2, 2.0, -1.5)]
        return [np.array([v]) for v in (0.3, 1.5, -0.3)]

    @cached_property
    def _chain(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Rows that have a predecessor, those, and the gaps between them."""
        order = self.groups.order
        codes, times = self.groups.codes[order], self.groups.times[order]
        later = np.flatnonzero(codes[1:] == codes[:-1]) + 1
        return order[later], order[later - 1], times[later] - times[later - 1]

    @cached_property
    def _gaps(self) -> tuple[FloatArray, IntArray, IntArray]:
        """Distinct gaps, which of them each pair of neighbours has, and how many each."""
        gaps, which = np.unique(self._chain[2], return_inverse=True)
        return gaps, which, np.bincount(which, minlength=len(gaps))

    @cached_property
    def _unit(self) -> float:
        return float(np.median(self._chain[2])) if len(self._chain[2]) else 1.0

    @cached_property
    def _diagonal(self) -> tuple[IntArray, IntArray, IntArray]:
        """Gap before and gap after of every kind of row (−1: none), and the kind of each row."""
        later, before, _ = self._chain
        n, which, m = self.groups.n, self._gaps[1], len(self._gaps[0]) + 1
        back, ahead = np.zeros((2, n), dtype=np.int64)
        back[later], ahead[before] = which + 1, which + 1
        kinds, kind = np.unique(back * m + ahead, return_inverse=True)
        return (kinds // m - 1).astype(np.intp), (kinds % m - 1).astype(np.intp), kind

    def of_groups(self, groups: Groups) -> Autoregressive:
        return replace(self, groups=groups)

    def natural(self, phi: FloatArray) -> FloatArray:
        if self.continuous:
            return np.asarray(np.exp(-_decay(phi) / self._unit))
        return np.tanh(phi)

    def from_natural(self, values: FloatArray) -> FloatArray:
        if self.continuous:
            return np.asarray(-np.log(-self._unit * np.log(values)))
        return np.arctanh(values)

    def slopes(self, phi: FloatArray) -> FloatArray:
        value = self.natural(phi)
        if self.continuous:
            return np.asarray((value * _decay(phi) / self._unit)[:, None])
        return np.asarray((1.0 - value**2)[:, None])

    def _powers(self, phi: FloatArray, gaps: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Φ^g and its derivative by φ."""
        if self.continuous:
            rate = gaps * _decay(phi[0]) / self._unit
            c = np.exp(-rate)
            return c, c * rate
        value = float(np.tanh(phi[0]))
        power = np.where(gaps == 1.0, 1.0, np.sign(value) ** (gaps - 1) * abs(value) ** (gaps - 1))
        return power * value, gaps * power * (1.0 - value**2)

    def _parts(self, phi: FloatArray) -> tuple[FloatArray, ...]:
        """Of every gap: c, 1 − c² and the derivative of c."""
        c, slope = self._powers(phi, self._gaps[0])
        left = (1.0 - c) * (1.0 + c)
        if left.min(initial=1.0) < _CLOSEST:
            raise NumericalError(
                "The residuals of a group are (nearly) the same at this correlation: R cannot be "
                "inverted."
            )
        return c, left, slope

    def entries(self, cells: CellsOfGroups) -> Sequence[Entries]:
        later, before, _ = self._chain
        kind = self._diagonal[2]
        rows = np.arange(self.groups.n)
        shift = len(self._diagonal[0])
        return (
            Entries(rows, rows, kind),
            Entries(later, before, shift + self._gaps[1]),
        )

    def coefficients(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        c, left, slope = self._parts(phi)
        own = np.append(c**2 / left, 0.0)
        own_slope = np.append(2.0 * c * slope / left**2, 0.0)
        back, ahead, _ = self._diagonal
        between, between_slope = -c / left, -slope * (1.0 + c**2) / left**2
        f = np.concatenate([1.0 + own[back] + own[ahead], between])
        return f, np.concatenate([own_slope[back] + own_slope[ahead], between_slope])[None]

    def logdet(self, phi: FloatArray) -> tuple[float, FloatArray]:
        c, left, slope = self._parts(phi)
        counts = self._gaps[2]
        value = float(counts @ np.log(left))
        return value, np.array([float(counts @ (-2.0 * c * slope / left))])

    def matrix(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        gaps = np.abs(times[..., :, None] - times[..., None, :])
        c = self._powers(phi, np.where(gaps == 0, 1.0, gaps))[0]
        return np.asarray(np.where(gaps == 0, 1.0, c))

    def matrix_slopes(self, phi: FloatArray, times: FloatArray) -> FloatArray:
        gaps = np.abs(times[..., :, None] - times[..., None, :])
        slope = self._powers(phi, np.where(gaps == 0, 1.0, gaps))[1]
        return np.asarray(np.where(gaps == 0, 0.0, slope))[None]

    def whiten(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        later, before, _ = self._chain
        c, left, _ = self._parts(phi)
        c, root = c[self._gaps[1], None], np.sqrt(left)[self._gaps[1], None]
        out = np.array(columns, dtype=np.float64)
        out[later] = (columns[later] - c * columns[before]) / root
        return out

    def colour(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        later, before, _ = self._chain
        c, left, _ = self._parts(phi)
        c, root = c[self._gaps[1]], np.sqrt(left)[self._gaps[1]]
        out = np.array(columns, dtype=np.float64)
        for own in self._waves:
            at, from_ = later[own], before[own]
            out[at] = c[own, None] * out[from_] + root[own, None] * columns[at]
        return out

    @cached_property
    def _waves(self) -> list[IntArray]:
        """Pairs of neighbours, those of every group's second row first, then of the third."""
        codes = self.groups.codes[self._chain[0]]
        new = np.ones(len(codes), dtype=bool)
        new[1:] = codes[1:] != codes[:-1]
        starts = np.flatnonzero(new)
        place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
        order = np.argsort(place, kind="stable")
        return np.split(order, np.cumsum(np.bincount(place))[:-1]) if len(codes) else []


def _decay(phi: Any) -> Any:
    """exp(−φ), bounded where a search strays so far that it would overflow."""
    return np.exp(np.minimum(-phi, 500.0))
