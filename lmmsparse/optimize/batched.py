"""Many objectives of the same parameters, start → their minima, all searches advancing together.

The search is that of `TrustRegion`, step for step; only the arrays have a leading axis, and a
member leaves as soon as it has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from lmmsparse.optimize.base import Status
from lmmsparse.optimize.trust_region import TrustRegion


@dataclass(frozen=True, eq=False)
class ManyDerivatives:
    """Values (m,), gradients (m, d) and Hessians (m, d, d) of m objectives, each at its point.

    `noise` (m,) are the rounding errors of the values.
    """

    value: FloatArray
    gradient: FloatArray
    hessian: FloatArray
    noise: FloatArray

    def __getitem__(self, which: IntArray | BoolArray) -> ManyDerivatives:
        return ManyDerivatives(
            self.value[which], self.gradient[which], self.hessian[which], self.noise[which]
        )

    def usable(self) -> BoolArray:
        """Where everything is finite, (m,)."""
        return np.asarray(
            np.isfinite(self.value)
            & np.isfinite(self.gradient).all(axis=1)
            & np.isfinite(self.hessian).all(axis=(1, 2))
        )


class ManyObjectives(Protocol):
    """What is minimized; a member that cannot be evaluated has values that are not finite."""

    def values(self, x: FloatArray, which: IntArray) -> FloatArray:
        """The members `which` (m,) at the points x (m, d)."""
        ...

    def derivatives(self, x: FloatArray, which: IntArray) -> ManyDerivatives: ...


@dataclass(frozen=True, eq=False)
class ManyOptima:
    """Where m searches ended.

    Attributes
    ----------
    x : (m, d) array
        The best points.
    value : (m,) array
        The objectives there; infinite where a search could not start.
    status : (m,) array of Status
    expected_decrease : (m,) array
        How much lower the last derivatives say the objective can get; NaN unless converged.
    """

    x: FloatArray
    value: FloatArray
    status: ObjectArray
    expected_decrease: FloatArray


def minimize_many(
    objectives: ManyObjectives, start: FloatArray, options: TrustRegion
) -> ManyOptima:
    """Minimize every member from its row of `start`, (m, d), without constraints.

    Parameters
    ----------
    start : (m, d) array
    options : TrustRegion
        Tolerance, limit on evaluations (of each member) and first radius.
    """
    m = len(start)
    x = np.array(start, dtype=np.float64)
    best_x, best = x.copy(), np.full(m, np.inf)
    status = np.full(m, Status.MAX_EVALUATIONS, dtype=object)
    expected, radius = np.full(m, np.nan), np.full(m, options.radius)

    def keep_best(which: IntArray, points: FloatArray, values: FloatArray) -> None:
        better = values < best[which]
        best[which[better]] = values[better]
        best_x[which[better]] = points[better]

    active = np.arange(m)
    here = objectives.derivatives(x, active)
    usable = here.usable()
    status[~usable] = Status.FAILED
    active, here = active[usable], here[usable]
    keep_best(active, x[active], here.value)
    for _ in range(int(options.max_eval) - 1):
        if not active.size:
            break
        step, predicted = trust_region_steps(here.gradient, here.hessian, radius[active])
        length = np.linalg.norm(step, axis=1)
        done = predicted < np.maximum(options.tol, here.noise)
        stalled = ~done & (length < 1e-12 * (1.0 + np.linalg.norm(x[active], axis=1)))
        status[active[stalled]] = Status.STALLED
        if done.any():  # the last step is free: keep it if it is no worse
            ended = active[done]
            status[ended], expected[ended] = Status.CONVERGED, predicted[done]
            last = x[ended] + step[done]
            keep_best(ended, last, objectives.values(last, ended))
        go = ~(done | stalled)
        if not go.any():
            break
        active, here = active[go], here[go]
        step, predicted, length = step[go], predicted[go], length[go]
        points = x[active] + step
        there = objectives.derivatives(points, active)
        usable = there.usable()
        keep_best(active[usable], points[usable], there.value[usable])
        decrease = np.where(usable, here.value - there.value, -predicted)
        ratio = decrease / predicted
        lost = np.abs(decrease) <= np.maximum(4e-15 * np.abs(here.value), here.noise)
        lost &= predicted < np.maximum(1e-6, 10.0 * here.noise)
        ratio[usable & lost] = 1.0
        now = radius[active]
        widen = (ratio > 0.75) & (length > 0.9 * now)
        radius[active] = np.where(ratio < 0.25, 0.25 * length, np.where(widen, 3.0 * now, now))
        accepted = usable & (ratio > 1e-4)
        x[active[accepted]] = points[accepted]
        here = ManyDerivatives(
            np.where(accepted, there.value, here.value),
            np.where(accepted[:, None], there.gradient, here.gradient),
            np.where(accepted[:, None, None], there.hessian, here.hessian),
            np.where(accepted, there.noise, here.noise),
        )
    return ManyOptima(best_x, best, status, expected)


def trust_region_steps(
    g: FloatArray, H: FloatArray, radius: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The minimizers of g's + ½ s'Hs in balls, (m, d), and the decreases they promise, (m,).

    Parameters
    ----------
    g : (m, d) array
    H : (m, d, d) array
    radius : (m,) array
    """
    if not g.shape[1]:  # nothing is free
        return g, np.zeros(len(g))
    values, vectors = np.linalg.eigh(H)
    a = np.einsum("mji,mj->mi", vectors, g)
    scale = np.maximum(1.0, np.abs(values).max(axis=1))
    lowest = values[:, 0]
    convex = lowest > 1e-12 * scale
    s = -a / np.where(convex[:, None], values, 1.0)
    s_norm = np.linalg.norm(s, axis=1)
    rest = np.flatnonzero(~(convex & (s_norm <= radius)))
    if rest.size:
        s[rest] = _bounded_steps(a[rest], values[rest], scale[rest], radius[rest])
    predicted = -np.einsum("mi,mi->m", a + 0.5 * values * s, s)
    return np.einsum("mij,mj->mi", vectors, s), predicted


def _bounded_steps(
    a: FloatArray, values: FloatArray, scale: FloatArray, radius: FloatArray
) -> FloatArray:
    """The steps, in eigenvectors, where the whole Newton step is too long or does not exist."""
    lowest = values[:, 0]
    low = np.maximum(0.0, -lowest)
    # Hard case: no pull along the most negative curvature, so that it has to be chosen.
    flat = np.abs(values - lowest[:, None]) <= 1e-10 * scale[:, None]
    a_norm = np.linalg.norm(a, axis=1)
    pull = np.linalg.norm(np.where(flat, a, 0.0), axis=1)
    s = np.where(flat, 0.0, -a / np.where(flat, 1.0, values + low[:, None]))
    squares = np.einsum("mi,mi->m", s, s)
    hard = (pull <= 1e-10 * (1.0 + a_norm)) & (squares < radius**2)
    down = hard & (lowest < 0)
    s[down, 0] = np.sqrt(radius[down] ** 2 - squares[down])
    # Elsewhere find the shift with ‖s(shift)‖ = radius by bisection.
    todo = np.flatnonzero(~hard)
    lo, high = low.copy(), low + a_norm / radius + scale
    for _ in range(200):
        if not todo.size:
            break
        shift = 0.5 * (lo[todo] + high[todo])
        s[todo] = -a[todo] / np.maximum(values[todo] + shift[:, None], 1e-150)
        norm = np.linalg.norm(s[todo], axis=1)
        long = norm > radius[todo]
        lo[todo[long]], high[todo[~long]] = shift[long], shift[~long]
        todo = todo[np.abs(norm - radius[todo]) >= 1e-3 * radius[todo]]
    return s
