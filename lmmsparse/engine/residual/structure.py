"""Correlation, log-linear standard deviations and weights → R(φ), by row and by class of entries.

R = S C S / w with C the correlation (or relative covariance) within groups, S = diag exp(Dγ) and
prior weights w. φ has the parameters of C first, then γ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, ReadOnly
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.residual.base import CellsOfGroups, Correlation, Entries

_LARGEST = 340.0  # of a logarithm of a standard deviation


@dataclass(frozen=True, eq=False)
class Classes(ReadOnly):
    """Entries of R⁻¹ with the class of each: those of a class have the same coefficient.

    Attributes
    ----------
    left, right : (m,) int arrays
        Rows, or cells where `sums`.
    of : (m,) int array
        Class of each entry.
    keys, left_strata, right_strata : (classes,) int arrays
    twice : (classes,) bool array
        Whether an entry stands for two places.
    """

    left: IntArray
    right: IntArray
    of: IntArray
    keys: IntArray
    left_strata: IntArray
    right_strata: IntArray
    twice: BoolArray
    sums: bool

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, eq=False)
class _Values:
    """Coefficients and log-determinant at a φ."""

    phi: FloatArray
    coefficients: list[tuple[FloatArray, FloatArray]]
    logdet: tuple[float, FloatArray]


@dataclass(frozen=True, eq=False)
class ResidualStructure(ReadOnly):
    """R as a function of φ.

    Attributes
    ----------
    correlation : Correlation
    columns : (n, k) array
        D: what the logarithm of the standard deviation is linear in, without a constant.
    weights : (n,) array or None
    """

    correlation: Correlation
    columns: FloatArray
    weights: FloatArray | None = None

    @property
    def n(self) -> int:
        return int(self.columns.shape[0])

    @property
    def n_correlation(self) -> int:
        """Parameters of the correlation."""
        return len(self.correlation.labels)

    @property
    def n_phi(self) -> int:
        return self.n_correlation + int(self.columns.shape[1])

    @cached_property
    def scales(self) -> FloatArray:
        """Spread of each column of D: a unit of the search."""
        spread = self.columns.std(axis=0)
        return np.where(spread > 0, spread, 1.0)

    @cached_property
    def centre(self) -> FloatArray:
        """The mean of each column of D."""
        return np.asarray(self.columns.mean(axis=0))

    @property
    def starts(self) -> Sequence[FloatArray]:
        nothing = np.zeros(self.columns.shape[1])
        return [np.concatenate([start, nothing]) for start in self.correlation.starts]

    def split(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Parameters of the correlation, and γ."""
        return phi[: self.n_correlation], phi[self.n_correlation :]

    def natural(self, phi: FloatArray) -> FloatArray:
        """What a user reads: correlations, and γ as it is."""
        own, gamma = self.split(phi)
        return np.concatenate([self.correlation.natural(own), gamma])

    def from_natural(self, values: FloatArray) -> FloatArray:
        own, gamma = self.split(values)
        return np.concatenate([self.correlation.from_natural(own), gamma])

    def slopes(self, phi: FloatArray) -> FloatArray:
        """∂natural/∂φ."""
        out = np.eye(self.n_phi)
        m = self.n_correlation
        out[:m, :m] = self.correlation.slopes(phi[:m])
        return out

    @cached_property
    def _strata(self) -> tuple[FloatArray, IntArray]:
        """Distinct rows of D, and which of them each row has."""
        which = np.zeros(self.n, dtype=np.int64)
        for column in self.columns.T:
            values, codes = np.unique(column, return_inverse=True)
            mixed = which * len(values) + codes
            which = np.unique(mixed, return_inverse=True)[1]
        first = np.unique(which, return_index=True)[1]
        return self.columns[first], which.astype(np.intp)

    @property
    def strata(self) -> IntArray:
        """Which rows have the same standard deviation, (n,)."""
        return self._strata[1]

    @cached_property
    def cells(self) -> CellsOfGroups:
        """Sums of rows of one group and stratum."""
        return CellsOfGroups.of(self.correlation.groups.codes, self.strata)

    @cached_property
    def classes(self) -> tuple[Classes, ...]:
        """All entries of R⁻¹ on and below the diagonal."""
        cells = self.cells
        return tuple(self._classes(entries) for entries in self.correlation.entries(cells))

    def _classes(self, entries: Entries) -> Classes:
        strata = self.cells.stratum if entries.sums else self.strata
        a, b = strata[entries.left], strata[entries.right]
        width = len(self._strata[0])
        # Which of the two is left does not matter.
        a, b = np.maximum(a, b), np.minimum(a, b)
        twice = entries.left != entries.right
        mixed = (a.astype(np.int64) * width + b) * 2 + twice
        pairs, first = np.unique(mixed, return_inverse=True)
        keys, which = np.unique(
            entries.keys.astype(np.int64) * len(pairs) + first, return_inverse=True
        )
        key, pair = np.divmod(keys, len(pairs))
        both, double = np.divmod(pairs[pair], 2)
        high, low = np.divmod(both, width)
        order = np.argsort(which, kind="stable")
        return Classes(
            entries.left[order],
            entries.right[order],
            which[order],
            key.astype(np.intp),
            high.astype(np.intp),
            low.astype(np.intp),
            double.astype(bool),
            entries.sums,
        )

    def coefficients(self, phi: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        """Of `classes`, the coefficient of every class, and its derivatives (n_phi, classes)."""
        return self._at(phi).coefficients

    def logdet(self, phi: FloatArray) -> tuple[float, FloatArray]:
        """log|R|, and its gradient."""
        return self._at(phi).logdet

    def _at(self, phi: FloatArray) -> _Values:
        """What is known at φ; the last is kept, as value and slope are asked for in turn."""
        last = self._last.get("values")
        if last is None or not np.array_equal(last.phi, phi):
            last = _Values(phi.copy(), self._coefficients(phi), self._logdet(phi))
            self._last["values"] = last
        return last

    @cached_property
    def _last(self) -> dict[str, _Values]:
        return {}

    def _coefficients(self, phi: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        own, gamma = self.split(phi)
        f, df = self.correlation.coefficients(own)
        rows = self._strata[0]
        out = []
        for part in self.classes:
            D = rows[part.left_strata] + rows[part.right_strata]
            scale = self._exponential(-(D @ gamma))
            value = f[part.keys] * scale
            slope = np.concatenate([df[:, part.keys] * scale, -(D * value[:, None]).T])
            out.append((value, slope))
        return out

    @staticmethod
    def _exponential(logs: FloatArray) -> FloatArray:
        if np.abs(logs).max(initial=0.0) > 2.0 * _LARGEST:
            raise NumericalError(
                "Where the columns of residual_sd= are zero, the standard deviation of the "
                "residuals, which is sigma, is out of bounds. Subtract a typical value from a "
                "column that is far from zero, for example I(year - 2000)."
            )
        return np.exp(logs)

    def _logdet(self, phi: FloatArray) -> tuple[float, FloatArray]:
        own, gamma = self.split(phi)
        value, slope = self.correlation.logdet(own)
        sums = 2.0 * self.columns.sum(axis=0)
        value += float(sums @ gamma)
        if self.weights is not None:
            value -= float(np.log(self.weights).sum())
        return value, np.concatenate([slope, sums])

    def sd(self, phi: FloatArray) -> FloatArray:
        """Standard deviations relative to σ, of rows as they are weighted, (n,)."""
        own, gamma = self.split(phi)
        out = self._exponential(self.columns @ gamma)
        times = self.correlation.groups.times[:, None]
        out = out * np.sqrt(self.correlation.matrix(own, times)[:, 0, 0])
        return out if self.weights is None else np.asarray(out / np.sqrt(self.weights))

    def scale(self, phi: FloatArray) -> FloatArray:
        """Standard deviations that S and the weights make, (n,)."""
        scale = self._exponential(self.columns @ self.split(phi)[1])
        return np.asarray(scale if self.weights is None else scale / np.sqrt(self.weights))

    def whiten(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        """L⁻¹ columns with R = LL', L lower triangular in the order of time within groups."""
        own = self.split(phi)[0]
        return self.correlation.whiten(own, columns / self.scale(phi)[:, None])

    def colour(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        """L columns, (n, m)."""
        own = self.split(phi)[0]
        return np.asarray(self.correlation.colour(own, columns) * self.scale(phi)[:, None])

    def precision_times(self, phi: FloatArray, columns: FloatArray) -> FloatArray:
        """R⁻¹ columns, (n, m)."""
        own, scale = self.split(phi)[0], self.scale(phi)[:, None]
        f = self.correlation.coefficients(own)[0]
        scaled, out = columns / scale, np.zeros_like(columns, dtype=np.float64)
        for part in self.classes:
            value = f[part.keys][part.of][:, None]
            source = self._summed(scaled) if part.sums else scaled
            into = np.zeros((len(source), columns.shape[1]))
            np.add.at(into, part.left, value * source[part.right])
            off = part.left != part.right
            np.add.at(into, part.right[off], (value * source[part.left])[off])
            out += into[self.cells.cell] if part.sums else into
        return np.asarray(out / scale)

    def precision_diagonal(self, phi: FloatArray) -> FloatArray:
        """The diagonal of R⁻¹, (n,)."""
        f = self.correlation.coefficients(self.split(phi)[0])[0]
        out = np.zeros(self.n)
        for part in self.classes:
            same = part.left == part.right
            own = np.bincount(
                part.left[same],
                f[part.keys][part.of][same],
                minlength=len(self.cells.first) if part.sums else self.n,
            )
            out += own[self.cells.cell] if part.sums else own
        return np.asarray(out / self.scale(phi) ** 2)

    def _summed(self, columns: FloatArray) -> FloatArray:
        """Sums over the rows of every cell."""
        out = np.zeros((len(self.cells.first), columns.shape[1]))
        np.add.at(out, self.cells.cell, columns)
        return out

    def block(self, phi: FloatArray, rows: IntArray) -> FloatArray:
        """R between rows, (…, m) → (…, m, m)."""
        own, groups = self.split(phi)[0], self.correlation.groups
        C = self.correlation.matrix(own, groups.times[rows])
        return np.asarray(np.where(self._together(rows), C * self._outer(phi, rows), 0.0))

    def block_slopes(self, phi: FloatArray, rows: IntArray) -> FloatArray:
        """The derivatives of `block` by φ, (n_phi, …, m, m)."""
        own, groups = self.split(phi)[0], self.correlation.groups
        dC = self.correlation.matrix_slopes(own, groups.times[rows])
        of_C = np.where(self._together(rows), dC * self._outer(phi, rows), 0.0)
        D = np.moveaxis(self.columns[rows], -1, 0)
        of_D = self.block(phi, rows) * (D[..., :, None] + D[..., None, :])
        return np.concatenate([of_C, of_D])

    def _together(self, rows: IntArray) -> BoolArray:
        """Which pairs of rows share a group."""
        codes = self.correlation.groups.codes[rows]
        return np.asarray(codes[..., :, None] == codes[..., None, :])

    def _outer(self, phi: FloatArray, rows: IntArray) -> FloatArray:
        scale = self.scale(phi)[rows]
        return np.asarray(scale[..., :, None] * scale[..., None, :])
