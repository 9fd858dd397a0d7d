"""(θ, φ) → coordinates of a search, and the criterion with derivatives in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.residual.criterion import JointDeviance
from lmmsparse.fit.charts import ChartedObjective
from lmmsparse.fit.coordinates import standardizing_map
from lmmsparse.optimize import Bounds, Derivatives
from lmmsparse.optimize.base import Frame

_LARGEST = 300.0


class JointObjective:
    """The criterion in standardized θ and scaled φ.

    θ is relative to σ, which is that of rows in which D is zero, perhaps far from all of them. In
    the search it is relative to the standard deviation at the mean of D, so that it need not follow
    γ.

    Parameters
    ----------
    charted : bool
        Whether θ moves in charts, which only models without limits and held parameters can.
    """

    def __init__(self, joint: JointDeviance, phi: FloatArray, charted: bool) -> None:
        self.joint, self._charted = joint, charted
        self.template = template = joint.template
        self._map = standardizing_map(template, joint.at(phi).products)
        self._inverse = np.linalg.inv(self._map)
        structure = joint.sets.structure
        self._unit = np.ones(structure.n_phi)
        self._unit[structure.n_correlation :] = 1.0 / structure.scales
        self._gamma = slice(structure.n_correlation, structure.n_phi)
        self._centre = structure.centre * (joint.held_sigma is None)
        # Which elements of θ are relative to σ, and not held.
        self._relative = template.free & np.isinf(template.upper)
        self._moves = bool(self.d and self._centre.any() and self._relative.any())

    def _size(self, phi: FloatArray) -> FloatArray:
        """What elements of θ are multiplied by, (n_theta,)."""
        if not self._moves:
            return np.ones(self.d)
        log = float(np.clip(self._centre @ phi[self._gamma], -_LARGEST, _LARGEST))
        return np.where(self._relative, np.exp(log), 1.0)

    @property
    def d(self) -> int:
        """Elements of θ."""
        return self.template.n_theta

    def x(self, theta: FloatArray, phi: FloatArray) -> FloatArray:
        """θ and φ → coordinates."""
        return np.concatenate([self._inverse @ (theta / self._size(phi)), phi / self._unit])

    def parameters(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coordinates → θ and φ."""
        phi = x[self.d :] * self._unit
        return self._size(phi) * (self._map @ x[: self.d]), phi

    @property
    def bounds(self) -> Bounds:
        template, open_ = self.template, np.full(len(self._unit), np.inf)
        lower, upper = template.lower.copy(), template.upper.copy()
        held = ~template.free
        lower[held] = upper[held] = (self._inverse @ template.start)[held]
        return Bounds(
            np.concatenate([lower, -open_]), np.concatenate([upper, open_]), template.mirrors
        )

    def __call__(self, x: FloatArray) -> float:
        return self.joint(*self.parameters(x))

    def derivatives(self, x: FloatArray) -> Derivatives:
        """Average information in θ, and differences of the exact gradient for what φ adds."""
        d, (theta, phi) = self.d, self.parameters(x)
        at = self.joint.at(phi)
        own = self._in_theta(at, x[:d], phi)
        slope = self._slope(at, theta, phi)
        gradient = np.concatenate([own.gradient, slope * self._unit])
        steps = 1e-4 * self._unit
        rows = np.empty((len(phi), len(x)))
        for i, h in enumerate(steps):
            there = phi.copy()
            there[i] += h
            moved = self.joint.at(there)
            of_theta = self._gradient_in_theta(moved, x[:d], there)
            theta_there = self._size(there) * (self._map @ x[:d])
            of_phi = self._slope(moved, theta_there, there) * self._unit
            rows[i] = (np.concatenate([of_theta, of_phi]) - gradient) / 1e-4
        second = own.second
        return replace(
            own,
            frame=None if own.frame is None else _JointFrame(own.frame, x, d),
            gradient=gradient,
            hessian=self._joined(own.hessian, rows),
            exact=None if own.exact is None else self._joined(own.exact, rows),
            second=None if second is None else lambda: self._joined(second(), rows),
        )

    def _joined(self, of_theta: FloatArray, rows: FloatArray) -> FloatArray:
        d = self.d
        out = np.empty((len(of_theta) + len(rows),) * 2)
        out[:d, :d], out[d:, :d], out[:d, d:] = of_theta, rows[:, :d], rows[:, :d].T
        out[d:, d:] = 0.5 * (rows[:, d:] + rows[:, d:].T)
        return out

    def _slope(self, at: ProfiledDeviance, theta: FloatArray, phi: FloatArray) -> FloatArray:
        """The derivative by φ, with θ following γ."""
        out = self.joint.slope(at, theta, phi)
        if self._moves:
            along = float(at.gradient(theta) @ np.where(self._relative, theta, 0.0))
            out[self._gamma] += along * self._centre
        return out

    def _in_theta(self, at: ProfiledDeviance, x: FloatArray, phi: FloatArray) -> Derivatives:
        to_theta = self._size(phi)[:, None] * self._map
        if self._charted:
            return ChartedObjective(at, to_theta).derivatives(x)
        return at.derivatives(to_theta @ x).along(to_theta)

    def _gradient_in_theta(
        self, at: ProfiledDeviance, x: FloatArray, phi: FloatArray
    ) -> FloatArray:
        if not self.d:
            return np.zeros(0)
        to_theta = self._size(phi)[:, None] * self._map
        if self._charted:
            return ChartedObjective(at, to_theta).gradient(x)
        return np.asarray(to_theta.T @ at.gradient(to_theta @ x))


class _JointFrame:
    """A frame of θ, beside which φ moves as it is."""

    def __init__(self, of_theta: Frame, x: FloatArray, d: int) -> None:
        self.of_theta, self._x, self._d = of_theta, x, d

    def moved(self, step: FloatArray) -> FloatArray:
        d = self._d
        return np.concatenate([self.of_theta.moved(step[:d]), self._x[d:] + step[d:]])

    def carried(self, step: FloatArray, there: _JointFrame) -> FloatArray:
        d = self._d
        out = np.eye(len(step))
        out[:d, :d] = self.of_theta.carried(step[:d], there.of_theta)
        return out


def free_coordinates(joint: JointDeviance, free_phi: BoolArray) -> BoolArray:
    """Which coordinates a search varies."""
    return np.concatenate([joint.template.free, free_phi])
