"""Objective without derivatives → minimum within bounds, by NLopt's BOBYQA and Nelder–Mead.

Bounds at zero create false stationary points, because the objective is even under sign changes of
some coordinates (`Bounds.mirrors`). The searches leave them by trying both sides of the mirror.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.errors import MissingPackageError, NumericalError
from lmmsparse.optimize.base import Bounds, Objective, Optimum, Recorder, Status, check_positive


@cache
def nlopt_missing() -> str:
    """Why NLopt cannot be used; nothing if it can."""
    try:
        import nlopt  # noqa: F401
    except (ImportError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


@checked_construction
@dataclass(frozen=True)
class Bobyqa:
    """Powell's BOBYQA (bounded, derivative-free, quadratic models) from NLopt: lme4's default.

    Parameters
    ----------
    ftol_abs, xtol_abs : float
        Stopping tolerances on criterion and parameters.
    max_eval : int
        Limit on evaluations.

    Notes
    -----
    Needs the package nlopt, which `pip install nlopt` brings.

    References
    ----------
    Powell (2009), The BOBYQA algorithm for bound constrained optimization without derivatives.
    """

    ftol_abs: float = 1e-8
    xtol_abs: float = 1e-8
    max_eval: int = 100_000

    def __post_init__(self) -> None:
        check_positive(
            "Bobyqa", ftol_abs=self.ftol_abs, xtol_abs=self.xtol_abs, max_eval=self.max_eval
        )

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize within the bounds, restarting off bounds that are not minima."""
        return _bounded_search("LN_BOBYQA", self, objective, start, bounds)


@checked_construction
@dataclass(frozen=True)
class NelderMead:
    """The Nelder–Mead simplex (bounded, derivative-free) from NLopt.

    Parameters
    ----------
    ftol_abs, xtol_abs : float
        Stopping tolerances on criterion and parameters.
    max_eval : int
        Limit on evaluations.

    Notes
    -----
    Needs the package nlopt, which `pip install nlopt` brings.

    References
    ----------
    Nelder & Mead (1965), The Computer Journal 7, 308-313; bounds as in Richardson & Kuester (1973).
    """

    ftol_abs: float = 1e-8
    xtol_abs: float = 1e-8
    max_eval: int = 100_000

    def __post_init__(self) -> None:
        check_positive(
            "NelderMead", ftol_abs=self.ftol_abs, xtol_abs=self.xtol_abs, max_eval=self.max_eval
        )

    def minimize(self, objective: Objective, start: FloatArray, bounds: Bounds) -> Optimum:
        """Minimize within the bounds, restarting the simplex until it brings nothing more."""
        return _bounded_search("LN_NELDERMEAD", self, objective, start, bounds)


def _bounded_search(
    algorithm: str,
    options: Bobyqa | NelderMead,
    objective: Objective,
    start: FloatArray,
    bounds: Bounds,
) -> Optimum:
    record, name = Recorder(objective), type(options).__name__
    if nlopt_missing():
        raise MissingPackageError(
            f"{name} needs the package nlopt, which cannot be used ({nlopt_missing()}). Run `pip "
            "install nlopt`, or leave out optimizer= for the default search, which does not."
        )
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
        again = len(start) > 3 or algorithm == "LN_NELDERMEAD"
        if not again or before - record.best < 10 * options.ftol_abs:
            break
        x = record.best_x
    return record.optimum(status, name, bounds)


def _run_nlopt(
    algorithm: str,
    options: Bobyqa | NelderMead,
    record: Recorder,
    start: FloatArray,
    bounds: Bounds,
) -> Status:
    import nlopt

    search = nlopt.opt(getattr(nlopt, algorithm), len(start))
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
    # NLopt takes the size of a coordinate for its first step, and so never moves one near zero.
    search.set_initial_step(np.maximum(np.abs(search.get_initial_step(start)), 0.1))
    try:
        search.optimize(start)
    except nlopt.RoundoffLimited:
        return Status.STALLED
    except (RuntimeError, ValueError) as error:
        raise NumericalError(
            f"The search stopped with an error of NLopt ({error}). Try "
            "optimizer=lmm.TrustRegion() or other start values."
        ) from error
    limit = search.last_optimize_result() == nlopt.MAXEVAL_REACHED
    return Status.MAX_EVALUATIONS if limit else Status.CONVERGED


def _off_the_edge(record: Recorder, bounds: Bounds) -> FloatArray | None:
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
