"""A parameter to be held → the signed root of the deviance's rise as a curve over its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.curves import Interpolant, cubic, monotone, root
from lmmsparse.inference.intervals.profile.search import Point

BETTER = 1e-6
_MAX_POINTS = 60
_TRUSTED = 4.0


class BetterOptimumError(Exception):
    """A point of a curve lies below the optimum the curve was to start from."""

    def __init__(self, point: Point) -> None:
        super().__init__(point)
        self.point = point


@dataclass(frozen=True, eq=False)
class Problem:
    """One parameter to be held.

    Attributes
    ----------
    lower, upper : float
        Its bounds.
    closed : bool
        Whether the lower bound itself is possible.
    scale : float
        Size of a first step.
    best : Point
        The optimum without any constraint.
    solve : callable
        (value, x) → the optimum with the parameter held at the value, searched from x.
    estimates : callable
        Point → θ, σ and the fixed effects there.
    """

    lower: float
    upper: float
    closed: bool
    scale: float
    best: Point
    solve: Callable[[float, FloatArray], Point]
    estimates: Callable[[Point], tuple[FloatArray, float, FloatArray]]


@dataclass(frozen=True, eq=False)
class Curve:
    """The profile of one parameter.

    Attributes
    ----------
    value, zeta : (m,) arrays
        In increasing order of the value; zeta is zero at the estimate.
    lower, upper : float
        Bounds of the parameter.
    """

    value: FloatArray
    zeta: FloatArray
    lower: float
    upper: float
    points: tuple[Point, ...]

    def limit(self, zeta: float) -> float:
        """The value at which the curve reaches `zeta`; the bound where it does not."""
        side = np.flatnonzero(self.zeta <= zeta if zeta < 0 else self.zeta >= zeta)
        if not side.size:
            return self.lower if zeta < 0 else self.upper
        # The crossing nearest to the estimate.
        j = int(side[-1] if zeta < 0 else side[0])
        i = j + 1 if zeta < 0 else j - 1
        a, b = float(self.value[j]), float(self.value[i])
        if self.zeta[j] == zeta:
            return a
        # Beyond the crossing |zeta| may fall again: a monotone curve goes no further.
        inner = slice(j, None) if zeta < 0 else slice(0, j + 1)
        curve = interpolant(self.value, self.zeta, min(i, j), max(i, j), inner)
        return root(lambda v: float(curve(v)) - zeta, a, b)


def interpolant(
    value: FloatArray, zeta: FloatArray, i: int = 0, j: int = -1, inner: slice = slice(None)
) -> Interpolant:
    """A cubic spline; where it is not increasing from node i to j, a monotone one of a part."""
    if len(value) > 3:
        spline = cubic(value, zeta)
        inside = np.linspace(value[i], value[j], 20 * (j - i) if j > i else 20 * len(value))
        if np.all(np.diff(spline(inside)) >= 0):
            return spline
    return monotone(value[inner], np.maximum.accumulate(zeta[inner]))


def trace(problem: Problem, cutoff: float, step: float, exact: tuple[float, ...] = ()) -> Curve:
    """Follow a parameter away from its estimate to both sides.

    Parameters
    ----------
    cutoff : float
        The |zeta| up to which the curve is needed.
    step : float
        The distance in zeta that steps aim at.
    exact : tuple of float
        Values of |zeta| at which the curve itself is to have points.
    """
    best = problem.best
    if np.isnan(best.value):  # the correlation of an effect that does not vary
        ends = np.array([problem.lower, problem.upper])
        return Curve(ends, np.zeros(2), problem.lower, problem.upper, ())
    nodes = [(0.0, best)]
    for direction in (-1, 1):
        side = _Side(problem, direction, nodes[0])
        side.advance(cutoff, step)
        side.fill(2.0 * step)
        for target in exact:
            side.refine(target)
        nodes += [(direction * zeta, point) for zeta, point in side.nodes[1:]]
    nodes.sort(key=lambda node: node[1].value)
    points = tuple(point for _, point in nodes)
    return Curve(
        np.array([point.value for point in points]),
        np.array([zeta for zeta, _ in nodes]),
        problem.lower,
        problem.upper,
        points,
    )


class _Side:
    """The points to one side of the estimate, outwards, with |zeta|."""

    def __init__(self, problem: Problem, direction: int, start: tuple[float, Point]) -> None:
        self._problem = problem
        self._direction = direction
        self._bound = problem.lower if direction < 0 else problem.upper
        self._best = start[1].deviance
        self.nodes = [start]

    def _solve(self, value: float, x: FloatArray) -> tuple[float, Point]:
        point = self._problem.solve(value, x)
        rise = point.deviance - self._best
        if rise < -BETTER:
            raise BetterOptimumError(point)
        return float(np.sqrt(max(rise, 0.0))), point

    def _between(self, i: int, value: float) -> FloatArray:
        """The start of a search at `value`, on the line or parabola through points near i."""
        if len(self.nodes) == 1:
            return self.nodes[0][1].x
        a, b = self.nodes[i][1], self.nodes[i + 1][1]
        share = min((value - a.value) / (b.value - a.value), 3.0)
        line = np.asarray(a.x + share * (b.x - a.x))
        j = i - 1 if i else i + 2
        if share >= 3.0 or j >= len(self.nodes):
            return line
        c = self.nodes[j][1]
        # Newton's form: what the third point is off the line, in proportion.
        apart = (c.value - a.value) / (b.value - a.value)
        off = c.x - (a.x + apart * (b.x - a.x))
        factor = share * (share - 1.0) / (apart * (apart - 1.0))
        return np.asarray(line + factor * off) if abs(factor) < _TRUSTED else line

    def advance(self, cutoff: float, step: float) -> None:
        """Step outwards until |zeta| reaches the cutoff or the parameter its bound."""
        while len(self.nodes) < _MAX_POINTS and self.nodes[-1][0] < cutoff:
            last = self.nodes[-1][1].value
            if abs(last - self._bound) <= 1e-12:
                return
            value = self._next(step)
            node = self._solve(value, self._between(len(self.nodes) - 2, value))
            self.nodes.append(node)

    def _next(self, step: float) -> float:
        zeta = np.array([z for z, _ in self.nodes[-3:]])
        value = np.array([p.value for _, p in self.nodes[-3:]])
        if len(value) == 1:
            move = self._direction * self._problem.scale
        else:
            before = value[-1] - value[-2]
            gain = max(zeta[-1] - zeta[-2], step / 10.0 * 1e-3)
            move = before * min(step / gain, 10.0)
            if len(value) == 3 and zeta[0] < zeta[1] < zeta[2]:
                # Inverse quadratic extrapolation, within reason.
                first, second = np.diff(value) / np.diff(zeta)
                bend = (second - first) / (zeta[2] - zeta[0])
                curved = step * (second + bend * (step + zeta[2] - zeta[1]))
                move = move * float(np.clip(curved / move, 0.3, 3.0))
        there = float(value[-1] + move)
        if self._direction < 0 and self._bound == 0.0:
            if there <= 0.0:
                there = 0.0 if self._problem.closed else 0.3 * float(value[-1])
            return there
        return max(there, self._bound) if self._direction < 0 else min(there, self._bound)

    def fill(self, gap: float) -> None:
        """Put points where |zeta| jumps by more than `gap`."""
        i = 0
        while i < len(self.nodes) - 1 and len(self.nodes) < 2 * _MAX_POINTS:
            a, b = self.nodes[i], self.nodes[i + 1]
            apart = abs(a[1].value - b[1].value) > 1e-6 * abs(a[1].value + b[1].value)
            if abs(b[0] - a[0]) > gap and apart:
                self._insert(i, 0.5 * (a[1].value + b[1].value))
            else:
                i += 1

    def _insert(self, i: int, value: float) -> None:
        self.nodes.insert(i + 1, self._solve(value, self._between(i, value)))

    def refine(self, target: float) -> None:
        """Put points where |zeta| is `target`, until the curve passes through it."""
        for _ in range(3):
            zeta = np.array([z for z, _ in self.nodes])
            beyond = np.flatnonzero(zeta >= target)
            if not beyond.size or np.abs(zeta - target).min() < 1e-6:
                return
            value = self._curve().limit(self._direction * target)
            values = np.array([p.value for _, p in self.nodes])
            i = int(beyond[0]) - 1
            if np.abs(values - value).min() <= 1e-10 * abs(value):
                return
            self._insert(i, value)

    def _curve(self) -> Curve:
        order = self.nodes[:: self._direction]
        return Curve(
            np.array([p.value for _, p in order]),
            np.array([self._direction * z for z, _ in order]),
            self._problem.lower,
            self._problem.upper,
            (),
        )
