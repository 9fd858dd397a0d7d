"""What a search is given and what it returns; nothing here knows about models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from math import isfinite
from typing import Any, Protocol

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, ReadOnly
from lmmsparse.common.errors import NumericalError
from lmmsparse.common.options import positive, refused

_NO_PART = 1e-10
_ASIDE = 1e-4  # the step of differences
_CLEAR = 1.0  # a difference of values that no error of estimation hides


class Status(Enum):
    """How a search ended; the value says it in words."""

    CONVERGED = "converged"
    MAX_EVALUATIONS = "stopped: the limit on evaluations was reached"
    LIMIT = "stopped: the criterion falls towards points at which it cannot be evaluated"
    STALLED = "stopped: no further decrease is possible in floating point"
    FAILED = "failed: the criterion could not be evaluated at the start"


@dataclass(frozen=True, eq=False)
class Bounds:
    """The box of a search and the symmetries of its objective.

    Attributes
    ----------
    lower, upper : (d,) arrays
    mirrors : tuple of tuple of int
        Sets of coordinates whose signs can be flipped together without changing the objective; the
        first of each is bounded below by zero. A search may cross the bounds of these coordinates.
    """

    lower: FloatArray
    upper: FloatArray
    mirrors: tuple[tuple[int, ...], ...] = ()

    def canonical(self, x: FloatArray) -> FloatArray:
        """The equivalent point inside the box."""
        out = np.array(x, dtype=np.float64)
        for group in self.mirrors:
            if out[group[0]] < 0:
                out[list(group)] *= -1.0
        return np.clip(out, self.lower, self.upper) + 0.0

    @cached_property
    def limits(self) -> tuple[FloatArray, FloatArray]:
        """Lower and upper bounds without those that a mirror makes unnecessary, each (d,)."""
        mirrored = [i for group in self.mirrors for i in group]
        lower, upper = self.lower.astype(np.float64), self.upper.astype(np.float64)
        lower[mirrored], upper[mirrored] = -np.inf, np.inf
        return lower, upper

    @cached_property
    def unlimited(self) -> bool:
        """Whether no coordinate has a limit."""
        lower, upper = self.limits
        return not (np.isfinite(lower).any() or np.isfinite(upper).any())

    def held(self, x: FloatArray) -> BoolArray:
        """Which coordinates are at one of their `limits`, (d,)."""
        lower, upper = self.limits
        return np.asarray((x <= lower) | (x >= upper))

    def free(self, x: FloatArray, gradient: FloatArray) -> BoolArray:
        """Which coordinates are not held at a limit beyond which the objective falls, (d,)."""
        lower, upper = self.limits
        held = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))
        return np.asarray(~held)


class Frame(Protocol):
    """Coordinates around a point, in which a step from it is taken."""

    def moved(self, step: FloatArray) -> FloatArray:
        """The point a step away."""
        ...

    def carried(self, step: FloatArray, there: Any) -> FloatArray:
        """P, (d, d), that takes directions at the end of a step to the frame `there`.

        A gradient g there is P'g in the coordinates here.
        """
        ...


@dataclass(frozen=True, eq=False)
class Derivatives:
    """The objective at a point, to second order.

    Attributes
    ----------
    value : float
    gradient : (d,) array
    hessian : (d, d) array
        Good for steps from far away; near a minimum it may be approximate.
    exact : (d, d) array or None
        Second derivatives, where the objective has them to give.
    second : callable or None
        Makes `exact`, where that costs too much to be done at every point.
    frame : Frame or None
        The coordinates of gradient and Hessians, if they are others than those of the point.
    noise : float
        How far rounding may have put `value` off.
    by_gradient : bool
        Whether the gradient is known better than differences of the value: where the value is an
        estimate, and its minimum not quite where the gradient is zero.
    """

    value: float
    gradient: FloatArray
    hessian: FloatArray
    exact: FloatArray | None = None
    second: Callable[[], FloatArray] | None = None
    frame: Frame | None = None
    noise: float = 0.0
    by_gradient: bool = False

    def along(self, J: FloatArray) -> Derivatives:
        """The same in coordinates z of which these are J z."""
        exact, second = self.exact, self.second
        return Derivatives(
            self.value,
            J.T @ self.gradient,
            J.T @ self.hessian @ J,
            None if exact is None else J.T @ exact @ J,
            None if second is None else lambda: np.asarray(J.T @ second() @ J),
            noise=self.noise,
            by_gradient=self.by_gradient,
        )

    def within(self, frame: Frame) -> Derivatives:
        """The same, said to be in the coordinates of a frame."""
        return Derivatives(
            self.value,
            self.gradient,
            self.hessian,
            self.exact,
            self.second,
            frame,
            self.noise,
            self.by_gradient,
        )

    def kept_off(self, rows: FloatArray) -> Derivatives:
        """The same with curvature along directions that the objective does not depend on.

        The gradient has no part there, so that a step has none; where it cannot go another way, at
        a singular point, it still may.

        Parameters
        ----------
        rows : (m, d) array
            A step s goes that way by rows · s.
        """
        _, size, V = np.linalg.svd(rows, full_matrices=False)
        V = V[size > _NO_PART * size.max(initial=0.0)]

        def stiffer(hessian: FloatArray) -> FloatArray:
            usual = float(np.abs(np.diag(hessian)).mean())
            return np.asarray(hessian + max(usual, 1.0) * V.T @ V)

        exact, second = self.exact, self.second
        return replace(
            self,
            hessian=stiffer(self.hessian),
            exact=None if exact is None else stiffer(exact),
            second=None if second is None else lambda: stiffer(second()),
        )

    def with_second(self) -> Derivatives:
        """The same with second derivatives, if the objective has them to give."""
        if self.exact is not None or self.second is None:
            return self
        return replace(self, exact=self.second())

    def moved(self, x: FloatArray, step: FloatArray) -> FloatArray:
        """The point a step away from x, where these derivatives were taken."""
        return x + step if self.frame is None else self.frame.moved(step)

    def fall(self, step: FloatArray, there: Derivatives) -> float:
        """How much lower the objective is where a step leads."""
        if not self.by_gradient or abs(self.value - there.value) > _CLEAR:
            return self.value - there.value
        gradient = self.carried(step, there).T @ there.gradient
        return float(-0.5 * (self.gradient + gradient) @ step)

    def carried(self, step: FloatArray, there: Derivatives) -> FloatArray:
        """P of `Frame.carried`, (d, d), for derivatives taken where the step leads."""
        if self.frame is None or there.frame is None:
            return np.eye(len(step))
        return self.frame.carried(step, there.frame)


def second_by_differences(
    derivatives: Callable[[FloatArray], Derivatives | None],
    x: FloatArray,
    here: Derivatives,
    bounds: Bounds,
) -> FloatArray | None:
    """Second derivatives from the gradient a little way off in every coordinate, (d, d).

    Parameters
    ----------
    derivatives : callable
        Evaluated d times; None where it breaks down, as then is the answer.
    x : (d,) array
    here : Derivatives
        At x.
    """
    upper = bounds.limits[1]
    columns = []
    for i in range(len(x)):
        step = np.zeros(len(x))
        step[i] = _ASIDE if x[i] + _ASIDE <= upper[i] else -_ASIDE
        there = derivatives(here.moved(x, step))
        if there is None:
            return None
        gradient = here.carried(step, there).T @ there.gradient
        columns.append((gradient - here.gradient) / step[i])
    exact = np.array(columns)
    return np.asarray(0.5 * (exact + exact.T))


class Objective(Protocol):
    """What is minimized."""

    def __call__(self, x: FloatArray) -> float: ...
    def derivatives(self, x: FloatArray) -> Derivatives: ...


@dataclass(frozen=True, eq=False)
class Optimum(ReadOnly):
    """Where a search ended and how it got there.

    Attributes
    ----------
    x : (d,) array
        The best point, inside the bounds.
    value : float
        The objective there.
    status : Status
    evaluations : int
        Evaluations of the objective, with or without derivatives, on the way there.
    optimizer : str
        Which search.
    trace : (evaluations, d + 1) array
        Every point in the order of evaluation, the objective in the last column.
    expected_decrease : float or None
        How much lower the search's last exact derivatives say the objective can get; None for a
        search without derivatives.
    further_evaluations : int
        Evaluations of other searches, whose starts led to no lower value.
    start : str
        Where the search began, if not at the start values.
    """

    x: FloatArray
    value: float
    status: Status
    evaluations: int
    optimizer: str
    trace: FloatArray = field(repr=False)
    expected_decrease: float | None = None
    further_evaluations: int = 0
    start: str = ""

    @property
    def success(self) -> bool:
        """Whether the search met its own stopping rule (not yet a verdict on the fit)."""
        return self.status in (Status.CONVERGED, Status.STALLED)


class Optimizer(Protocol):
    """A search for the minimum of an objective."""

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum: ...


class Recorder:
    """Counts, records, and turns a breakdown of the arithmetic into +∞."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.rows: list[tuple[FloatArray, float]] = []
        self.best_x: FloatArray | None = None
        self.best = np.inf

    def _record(self, x: FloatArray, value: float) -> float:
        value = value if isfinite(value) else np.inf
        point = np.array(x)
        self.rows.append((point, value))
        if value < self.best:
            self.best, self.best_x = value, point
        return value

    def __call__(self, x: FloatArray) -> float:
        try:
            value = self._objective(x)
        except NumericalError:
            value = np.inf
        return self._record(x, value)

    def keep(self, x: FloatArray, value: float) -> None:
        """Take a point for the best, whatever the values say."""
        self.best, self.best_x = value, np.array(x)

    def derivatives(self, x: FloatArray) -> Derivatives | None:
        try:
            result = self._objective.derivatives(x)
        except (NumericalError, np.linalg.LinAlgError):
            self._record(x, np.inf)
            return None
        # A sum is finite only if all of its terms are.
        total = result.value + float(result.gradient.sum()) + float(result.hessian.sum())
        if result.exact is not None:
            total += float(result.exact.sum())
        self._record(x, result.value if isfinite(total) else np.inf)
        return result if isfinite(total) else None

    def optimum(
        self, status: Status, name: str, bounds: Bounds, expected: float | None = None
    ) -> Optimum:
        x = self.best_x if self.best_x is not None else self.rows[0][0]
        trace = np.column_stack(
            [np.array([x for x, _ in self.rows]), [value for _, value in self.rows]]
        )
        found = bounds.canonical(x)
        return Optimum(found, self.best, status, len(self.rows), name, trace, expected)


def check_positive(owner: str, **values: Any) -> None:
    """Refuse options that are not positive numbers."""
    for name, value in values.items():
        number = positive(f"{name} of {owner}", value, "Leave it out for the default.")
        if name == "max_eval" and number != int(number):
            raise refused(f"{name} of {owner}", "a whole number", value)
