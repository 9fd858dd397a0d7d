"""`GeneralizedFit` → profile likelihood: limits along one parameter at a time, and whole curves.

The other parameters are at their best by the search of the fit, with exact derivatives. Where the
profile reaches a level is found by Newton's method on its signed square root.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import chi2_quantile, normal_quantile
from lmmsparse.common.errors import Finding, NumericalError, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import check_jobs, check_level
from lmmsparse.common.progress import run
from lmmsparse.common.threads import one_thread
from lmmsparse.fit.generalized.coordinates import GeneralizedObjective
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.inference.generalized.held import Held, HeldParameter, held_parameter
from lmmsparse.inference.intervals.profile.curve import BetterOptimumError, Curve, trace
from lmmsparse.inference.intervals.profile.profile import Profile, interrupted
from lmmsparse.results.generalized import covariance_names, covariance_values
from lmmsparse.results.parameters import select_rows

_CLOSE = 1e-4  # of ζ
_STEPS = 25
_LARGEST = 1e3  # standard errors
_APART = 1e-6
_PER_CUTOFF = 8.0


def profile_intervals(
    fit: GeneralizedFit,
    level: float,
    which: str | Sequence[str] | None,
    n_jobs: int,
    progress: bool | None,
) -> pd.DataFrame:
    """Limits of all parameters; NaN where the likelihood does not tell."""
    names = [*covariance_names(fit), *fit.design.x_names]
    wanted = names if which is None else select_rows(which, names, fit)
    z = normal_quantile(0.5 + check_level(level) / 2)
    calls = [(fit, names.index(name), z) for name in wanted]
    done = run(
        partial(_limits),
        calls,
        "profile",
        unit="parameters",
        n_jobs=check_jobs(n_jobs),
        progress=progress,
    )
    limits = np.array(done.results).reshape(-1, 2)
    index = pd.Index(wanted[: len(limits)], dtype=object)
    return pd.DataFrame(limits, index=index, columns=["lower", "upper"])


def _known(fit: GeneralizedFit, i: int) -> HeldParameter | None:
    """The parameter, if there is one to hold: not a correlation with a constant."""
    values = covariance_values(fit)
    if i < len(values) and not np.isfinite(values[i]):
        return None
    if fit.family.at_limit(fit.delta) and i == len(values) - 1:
        return None
    return held_parameter(fit, i)


def _limits(fit: GeneralizedFit, i: int, z: float) -> tuple[float, float]:
    held = _known(fit, i)
    if held is None:
        return np.nan, np.nan
    walk = _Walk(held, fit)
    return walk.limit(-z), walk.limit(z)


class _Walk:
    """From an estimate to where the profile has risen by so much."""

    def __init__(self, held: HeldParameter, fit: GeneralizedFit) -> None:
        self._held, self._problem = held, Held(held, fit)
        self._lowest = fit.criterion
        self._objective = GeneralizedObjective(
            held.fit.problem.deviance, held.fit.problem.coordinates, held.fit.u
        )

    def limit(self, z: float) -> float:
        """The value at which the signed square root of the rise is z."""
        held, sign = self._held, 1.0 if z > 0 else -1.0
        v, near = held.value + z * held.scale, held.start
        inside, bound = held.value, held.upper if z > 0 else held.lower
        outside = bound
        if np.isfinite(bound):
            if held.closed:
                at_bound = self._rise(bound, near)
                if at_bound is not None and at_bound[0] < abs(z):
                    return bound
            if sign * (bound - v) <= 0:
                v = 0.5 * (bound + held.value)
        for _ in range(_STEPS):
            got = self._rise(v, near)
            if got is None:
                v = 0.5 * (v + inside)
                continue
            zeta, slope, x = got
            if abs(zeta - abs(z)) < _CLOSE:
                return v + sign * (abs(z) - zeta) / max(abs(slope), 1e-300)
            if zeta < abs(z):
                inside, near = v, x
            else:
                outside = v
            step = (abs(z) - zeta) / slope if slope > 0 else np.inf
            v = v + sign * float(np.clip(step, -4.0 * held.scale, 4.0 * held.scale))
            low, high = min(inside, outside), max(inside, outside)
            if not low < v < high:
                v = 0.5 * (inside + outside)
            if abs(v - held.value) > _LARGEST * held.scale:
                break
        return bound

    def _rise(self, v: float, near: FloatArray) -> tuple[float, float, FloatArray] | None:
        """√(rise of the criterion), its slope away from the estimate, and the point there."""
        try:
            found = self._problem.solve(v, near)
            slope = self._slope(v, found.x)
        except (NumericalError, np.linalg.LinAlgError):
            return None
        zeta = float(np.sqrt(max(found.deviance - self._lowest, 0.0)))
        outwards = slope if v > self._held.value else -slope
        return zeta, outwards / max(2.0 * zeta, 1e-8), found.x

    def _slope(self, v: float, z: FloatArray) -> float:
        """Of the smallest criterion: that of the criterion where the others stay on the plane."""
        held = self._held
        step = _APART * held.scale
        ends = [v - step, v + step]
        if not held.lower < ends[0] or not ends[1] < held.upper:
            return 0.0
        places = [origin + N @ z for origin, N in map(held.plane, ends)]
        origin, N = held.plane(v)
        point = self._objective.point(origin + N @ z)
        gradient = held.fit.problem.coordinates.jacobian.T @ point.gradient
        return float(gradient @ (places[1] - places[0])) / (2.0 * step)


def generalized_profile(
    fit: GeneralizedFit,
    which: str | Sequence[str] | None,
    level: float | None,
    n_jobs: int,
    progress: bool | None,
) -> Profile:
    """Profile −2 log-likelihood along parameters; see the model's `profile`."""
    names = [*covariance_names(fit), *fit.design.x_names]
    wanted = names if which is None else list(dict.fromkeys(select_rows(which, names, fit)))
    if not wanted:
        raise OptionError(
            "which=[] names no parameter. Leave it out for all of them, or give one or several of "
            f"{', '.join(names)}."
        )
    exact = [float(normal_quantile(0.5 + check_level(level) / 2))] if level is not None else []
    cutoff = exact[0] if exact else float(np.sqrt(chi2_quantile(0.99, len(names))))
    exact = exact or [float(normal_quantile(0.5 + share / 2)) for share in (0.95, 0.99)]
    done = run(
        _follow,
        [(fit, names.index(name), cutoff, tuple(exact)) for name in wanted],
        "profile",
        unit="parameters",
        n_jobs=check_jobs(n_jobs),
        progress=progress,
    )
    curves = {name: result[0] for name, result in zip(wanted, done.results, strict=False)}
    along = {name: result[1] for name, result in zip(wanted, done.results, strict=False)}
    findings = [
        Finding("profile-incomplete", "warning", f"The profile of {name} {result[2]}")
        for name, result in zip(wanted, done.results, strict=False)
        if result[2]
    ]
    if done.interrupted:
        findings.append(interrupted(list(curves), wanted))
    announce(tuple(findings))
    return Profile(curves, along, names, cutoff, tuple(findings))


@one_thread
def _follow(
    fit: GeneralizedFit, i: int, cutoff: float, exact: tuple[float, ...]
) -> tuple[Curve, list[FloatArray], str]:
    """The curve of a parameter, all estimates along it, and what went wrong."""
    estimates = np.concatenate([covariance_values(fit), fit.beta])
    nothing = Curve(estimates[[i]], np.zeros(1), np.nan, np.nan, ())
    held = _known(fit, i)
    if held is None:
        return nothing, [estimates], ""
    followed = Held(held, fit)
    try:
        curve = trace(followed.problem, cutoff, cutoff / _PER_CUTOFF, exact)
    except BetterOptimumError as found:
        lower = fit.criterion - found.point.deviance
        why = (
            f"has met a better optimum, by {lower:.3g}, than that of the fit. Fit again from other "
            "start= values."
        )
        return nothing, [estimates], why
    except (NumericalError, np.linalg.LinAlgError):
        why = "could not be followed: the likelihood cannot be evaluated where it leads."
        return nothing, [estimates], why
    along = []
    for point in curve.points:
        values = followed.estimates(point)
        values[i] = point.value  # a correlation that is not determined by θ
        along.append(values)
    off = sum(not point.converged for point in curve.points)
    why = f"may be off at {off} of {len(curve.points)} values: its searches stopped short."
    return curve, along, why if off else ""
