"""Objective, start, bounds → the minimum and what the search did; knows nothing about models.

The objective is even under sign changes of certain coordinates (`Bounds.mirrors`). Bounds at zero
therefore create false stationary points: the bounded searches leave them by trying the mirrored
side of a bound, the unbounded second-order search walks through and reports the mirrored point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import nlopt
import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.errors import NumericalError, OptionError


class Status(Enum):
    """How a search ended; the value says it in words."""

    CONVERGED = "converged"
    MAX_EVALUATIONS = "stopped: the limit on evaluations was reached"
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
        first of each is bounded below by zero.
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


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Value (scalar), gradient (d,) and Hessian (d, d) of the objective at a point."""

    value: float
    gradient: FloatArray
    hessian: FloatArray


class Objective(Protocol):
    """What is minimized."""

    def __call__(self, x: FloatArray) -> float: ...
    def derivatives(self, x: FloatArray) -> Derivatives: ...


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where a search ended and how it got there.

    Attributes
    ----------
    x : (d,) array
        The best point, inside the bounds.
    value : float
        The objective there.
    status : Status
    evaluations : int
        Evaluations of the objective, with or without derivatives.
    optimizer : str
        Which search.
    trace : (evaluations, d + 1) array
        Every point in the order of evaluation, the objective in the last column.
    """

    x: FloatArray
    value: float
    status: Status
    evaluations: int
    optimizer: str
    trace: FloatArray = field(repr=False)

    @property
    def success(self) -> bool:
        """Whether the search met its own stopping rule (not yet a verdict on the fit)."""
        return self.status in (Status.CONVERGED, Status.STALLED)


class Optimizer(Protocol):
    """A search for the minimum of an objective."""

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum: ...


class _Recorder:
    """Counts, records, and turns a breakdown of the arithmetic into +∞."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.rows: list[FloatArray] = []
        self.best_x: FloatArray | None = None
        self.best = np.inf

    def _record(self, x: FloatArray, value: float) -> float:
        value = value if np.isfinite(value) else np.inf
        self.rows.append(np.append(x, value))
        if value < self.best:
            self.best, self.best_x = value, np.array(x)
        return value

    def __call__(self, x: FloatArray) -> float:
        try:
            value = self._objective(x)
        except NumericalError:
            value = np.inf
        return self._record(x, value)

    def derivatives(self, x: FloatArray) -> Derivatives | None:
        try:
            result = self._objective.derivatives(x)
        except (NumericalError, np.linalg.LinAlgError):
            self._record(x, np.inf)
            return None
        finite = np.isfinite(result.gradient).all() and np.isfinite(result.hessian).all()
        self._record(x, result.value if finite else np.inf)
        return result if finite and np.isfinite(result.value) else None

    def optimum(self, status: Status, name: str, bounds: Bounds) -> Optimum:
        x = self.best_x if self.best_x is not None else self.rows[0][:-1]
        trace = np.array(self.rows)
        return Optimum(bounds.canonical(x), self.best, status, len(self.rows), name, trace)


def _check_positive(owner: str, **values: Any) -> None:
    for name, value in values.items():
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not (number and np.isfinite(value) and value > 0):
            raise OptionError(
                f"{owner}({name}={value!r}) is not possible. It must be a positive number."
            )


@dataclass(frozen=True)
class TrustRegion:
    """Second-order search: exact gradient, average information plus curvature, trust region.

    Unconstrained; the sign symmetries of the objective make every bound at zero unnecessary.

    Parameters
    ----------
    tol : float
        Stop when the model predicts a smaller decrease than this, in units of the criterion.
    max_eval : int
        Limit on evaluations.
    radius : float
        First trust region radius.

    References
    ----------
    Nocedal & Wright (2006), Numerical Optimization, chapter 4.
    """

    tol: float = 1e-9
    max_eval: int = 300
    radius: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("TrustRegion", tol=self.tol, max_eval=self.max_eval, radius=self.radius)

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize from `start`; `bounds` is used for its mirrors and to report the result."""
        record = _Recorder(objective)
        x = np.array(start, dtype=np.float64)
        here = record.derivatives(x)
        if here is None:
            return record.optimum(Status.FAILED, "TrustRegion", bounds)
        radius, status = self.radius, Status.MAX_EVALUATIONS
        while len(record.rows) < self.max_eval:
            step, predicted = _trust_region_step(here.gradient, here.hessian, radius)
            if predicted < self.tol:
                record(x + step)  # the last step is free: keep it if it is no worse
                status = Status.CONVERGED
                break
            if np.linalg.norm(step) < 1e-12 * (1.0 + np.linalg.norm(x)):
                status = Status.STALLED
                break
            there = record.derivatives(x + step)
            ratio = -1.0 if there is None else (here.value - there.value) / predicted
            if there is not None and abs(here.value - there.value) <= 4e-15 * abs(here.value):
                ratio = 1.0 if predicted < 1e-6 else ratio  # at the noise of the criterion
            if ratio < 0.25:
                radius = 0.25 * float(np.linalg.norm(step))
            elif ratio > 0.75 and np.linalg.norm(step) > 0.9 * radius:
                radius *= 3.0
            if there is not None and ratio > 1e-4:
                x, here = x + step, there
        return record.optimum(status, "TrustRegion", bounds)


def _trust_region_step(g: FloatArray, H: FloatArray, radius: float) -> tuple[FloatArray, float]:
    """The minimizer of g's + ½ s'Hs in a ball, and the decrease it promises."""
    values, vectors = np.linalg.eigh(H)
    a = vectors.T @ g
    scale = max(1.0, float(np.abs(values).max()))
    if values[0] > 1e-12 * scale:
        s = -a / values
        if np.linalg.norm(s) <= radius:
            return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))
    low = max(0.0, -float(values[0]))
    # Hard case: no pull along the most negative curvature, so that it has to be chosen.
    flat = np.abs(values - values[0]) <= 1e-10 * scale
    if np.linalg.norm(a[flat]) <= 1e-10 * (1.0 + np.linalg.norm(a)):
        s = np.where(flat, 0.0, -a / np.where(flat, 1.0, values + low))
        if np.linalg.norm(s) < radius:
            room = np.sqrt(radius**2 - float(s @ s))
            if values[0] < 0:
                s[np.flatnonzero(flat)[0]] = room
            return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))
    # Find the shift with ‖s(shift)‖ = radius by safeguarded bisection in the shift.
    high = low + float(np.linalg.norm(g)) / radius + scale
    lo = low
    for _ in range(200):
        shift = 0.5 * (lo + high)
        s = -a / np.maximum(values + shift, 1e-300)
        norm = float(np.linalg.norm(s))
        if abs(norm - radius) < 1e-3 * radius:
            break
        if norm > radius:
            lo = shift
        else:
            high = shift
    return vectors @ s, float(-(a @ s + 0.5 * values @ s**2))


@dataclass(frozen=True)
class Bobyqa:
    """Powell's BOBYQA (bounded, derivative-free, quadratic models) from NLopt: lme4's default.

    Parameters
    ----------
    ftol_abs, xtol_abs : float
        Stopping tolerances on criterion and parameters.
    max_eval : int
        Limit on evaluations.

    References
    ----------
    Powell (2009), The BOBYQA algorithm for bound constrained optimization without derivatives.
    """

    ftol_abs: float = 1e-8
    xtol_abs: float = 1e-8
    max_eval: int = 100_000

    def __post_init__(self) -> None:
        _check_positive(
            "Bobyqa", ftol_abs=self.ftol_abs, xtol_abs=self.xtol_abs, max_eval=self.max_eval
        )

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize within the bounds, restarting off bounds that are not minima."""
        return _bounded_search(nlopt.LN_BOBYQA, "Bobyqa", self, objective, start, bounds)


@dataclass(frozen=True)
class NelderMead:
    """The Nelder–Mead simplex (bounded, derivative-free) from NLopt.

    Parameters
    ----------
    ftol_abs, xtol_abs : float
        Stopping tolerances on criterion and parameters.
    max_eval : int
        Limit on evaluations.

    References
    ----------
    Nelder & Mead (1965), The Computer Journal 7, 308-313; bounds as in Richardson & Kuester (1973).
    """

    ftol_abs: float = 1e-8
    xtol_abs: float = 1e-8
    max_eval: int = 100_000

    def __post_init__(self) -> None:
        _check_positive(
            "NelderMead", ftol_abs=self.ftol_abs, xtol_abs=self.xtol_abs, max_eval=self.max_eval
        )

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize within the bounds, restarting the simplex until it brings nothing more."""
        return _bounded_search(nlopt.LN_NELDERMEAD, "NelderMead", self, objective, start, bounds)


def _bounded_search(
    algorithm: int,
    name: str,
    options: Bobyqa | NelderMead,
    objective: Objective,
    start: FloatArray,
    bounds: Bounds,
) -> Optimum:
    record = _Recorder(objective)
    start = np.clip(np.asarray(start, dtype=np.float64), bounds.lower, bounds.upper)
    if not np.isfinite(record(start)):
        return record.optimum(Status.FAILED, name, bounds)
    status, x = Status.CONVERGED, start
    while True:
        before = record.best
        status = _run_nlopt(algorithm, options, record, x, bounds)
        if status is Status.MAX_EVALUATIONS or record.best_x is None:
            break
        edge = _off_the_edge(record, bounds)
        if edge is not None:
            x = edge
            continue
        # One search may stop early in many dimensions (a simplex in any): start afresh from its
        # end until that brings nothing more.
        again = len(start) > 3 or algorithm == nlopt.LN_NELDERMEAD
        if not again or before - record.best < 10 * options.ftol_abs:
            break
        x = record.best_x
    return record.optimum(status, name, bounds)


def _run_nlopt(
    algorithm: int,
    options: Bobyqa | NelderMead,
    record: _Recorder,
    start: FloatArray,
    bounds: Bounds,
) -> Status:
    search = nlopt.opt(algorithm, len(start))
    search.set_lower_bounds(bounds.lower)
    search.set_upper_bounds(bounds.upper)
    search.set_ftol_abs(options.ftol_abs)
    search.set_xtol_abs(options.xtol_abs)
    remaining = int(options.max_eval) - len(record.rows)
    if remaining <= 0:
        return Status.MAX_EVALUATIONS
    search.set_maxeval(remaining)

    def value(x: FloatArray, _: Any) -> float:
        # NLopt wants finite numbers: a broken-down evaluation is worse than anything seen.
        result = record(x)
        return result if np.isfinite(result) else abs(record.best) * 10 + 1e10

    search.set_min_objective(value)
    try:
        search.optimize(start)
    except nlopt.RoundoffLimited:
        return Status.STALLED
    except (RuntimeError, ValueError) as error:
        raise NumericalError(
            f"The search stopped with an error of NLopt ({error}). The criterion cannot be "
            "followed from here. Try optimizer=lmm.TrustRegion() or other start values."
        ) from error
    limit = search.last_optimize_result() == nlopt.MAXEVAL_REACHED
    return Status.MAX_EVALUATIONS if limit else Status.CONVERGED


def _off_the_edge(record: _Recorder, bounds: Bounds) -> FloatArray | None:
    """A lower point next to a bound the search has stopped at, on either side of its mirror."""
    x, best = np.array(record.best_x), record.best
    for group in bounds.mirrors:
        first, rest = group[0], list(group[1:])
        size = float(np.abs(x[rest]).max()) if rest else 0.0
        if x[first] - bounds.lower[first] > max(1e-4, 0.05 * size):
            continue
        for side in (1.0, -1.0) if rest else (1.0,):
            for step in (1e-4, 1e-2):
                candidate = x.copy()
                candidate[first] = bounds.lower[first] + step * max(1.0, size)
                candidate[rest] *= side
                if record(candidate) < best - 1e-8:
                    return candidate
    return None
