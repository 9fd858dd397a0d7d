"""A search and coordinates that are held → the minimum over the others, in all coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.optimize.base import Bounds, Derivatives, Objective, Optimizer, Optimum, Status


@dataclass(frozen=True, eq=False)
class OnPlane:
    """An objective on a plane, at origin + N x.

    Parameters
    ----------
    objective : Objective
        Without `Derivatives.frame`.
    origin : (d,) array
    N : (d, m) array
    """

    objective: Objective
    origin: FloatArray
    N: FloatArray

    def full(self, x: FloatArray) -> FloatArray:
        """The point in all coordinates."""
        return np.asarray(self.origin + self.N @ x)

    def __call__(self, x: FloatArray) -> float:
        return self.objective(self.full(x))

    def derivatives(self, x: FloatArray) -> Derivatives:
        return self.objective.derivatives(self.full(x)).along(self.N)


def minimize_free(
    optimizer: Optimizer, objective: Objective, start: FloatArray, bounds: Bounds, free: BoolArray
) -> Optimum:
    """Minimize over the free coordinates; the others stay where they start.

    Parameters
    ----------
    objective : Objective
        In coordinates of its own, without `Derivatives.frame` unless all are free.
    start : (d,) array
    bounds : Bounds
        Mirrors with coordinates that are held must have been left out.
    free : (d,) bool array
    """
    if free.all():
        return optimizer.minimize(objective, start, bounds)
    if not free.any():
        value = objective(start)
        trace = np.append(start, value)[None]
        name = type(optimizer).__name__
        return Optimum(start, value, Status.CONVERGED, 1, name, trace, 0.0)
    smaller = OnPlane(objective, np.where(free, 0.0, start), np.eye(len(start))[:, free])
    place = np.cumsum(free) - 1
    mirrors = tuple(tuple(int(place[i]) for i in group) for group in bounds.mirrors)
    found = optimizer.minimize(
        smaller, start[free], Bounds(bounds.lower[free], bounds.upper[free], mirrors)
    )
    trace = np.tile(np.append(start, np.nan), (len(found.trace), 1))
    trace[:, np.append(free, True)] = found.trace
    return replace(found, x=smaller.full(found.x), trace=trace)
