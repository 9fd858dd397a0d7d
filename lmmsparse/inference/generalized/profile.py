"""`GeneralizedFit` → profile-likelihood limits, along one parameter at a time.

Every parameter is a coordinate of the criterion, or becomes one when its effect is put first in its
term; the others are at their best by the search of the fit, with exact derivatives. Where the
profile reaches the level is found by Newton's method on its signed square root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.distributions import normal_quantile
from lmmsparse.common.errors import NumericalError
from lmmsparse.common.options import check_jobs, check_level
from lmmsparse.common.progress import run
from lmmsparse.engine.covariance.structures import Diagonal
from lmmsparse.engine.covariance.triangular import lower_triangular
from lmmsparse.fit.generalized.coordinates import GeneralizedObjective
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.optimize import Bounds, OnPlane, Status, StructuredSearch
from lmmsparse.results.generalized import covariance_names
from lmmsparse.results.parameters import select_rows

_CLOSE = 1e-4  # of ζ
_STEPS = 25
_LARGEST = 1e3  # standard errors


@dataclass(frozen=True, eq=False)
class _Way:
    """A parameter c'x of the criterion's coordinates.

    Attributes
    ----------
    fit : GeneralizedFit
        With the parameter's effect first in its term.
    c : (d,) array
    least : float
        Its smallest value.
    of_log : bool
        Whether the parameter is the exponential of c'x.
    """

    fit: GeneralizedFit
    c: FloatArray
    least: float
    of_log: bool


def profile_intervals(
    fit: GeneralizedFit,
    level: float,
    which: str | Sequence[str] | None,
    n_jobs: int,
    progress: bool | None,
) -> pd.DataFrame:
    """Limits of all parameters; NaN for correlations."""
    names = [*covariance_names(fit), *fit.design.x_names]
    wanted = names if which is None else select_rows(which, names, fit)
    z = normal_quantile(0.5 + check_level(level) / 2)
    calls = [(fit, name, names.index(name), z) for name in wanted]
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


def _limits(fit: GeneralizedFit, name: str, i: int, z: float) -> tuple[float, float]:
    way = _way(fit, i)
    if way is None:
        return np.nan, np.nan
    walk = _Walk(way)
    return walk.limit(-z), walk.limit(z)


def _way(fit: GeneralizedFit, i: int) -> _Way | None:
    """The parameter with number i in the order of the intervals."""
    d, p = fit.template.n_theta, fit.design.p
    coordinates = fit.problem.coordinates
    c = np.zeros(coordinates.size)
    if i >= d + fit.family.estimates_delta:
        j = i - d - fit.family.estimates_delta
        c[:p] = coordinates.unit * fit.problem.rows.basis.coefficients(np.eye(p))[j]
        return _Way(fit, c, -np.inf, False)
    if i == d and fit.family.estimates_delta:
        c[-1] = 1.0
        return _Way(fit, c, -np.inf, True)
    t = next(t for t, part in enumerate(fit.template.slices) if part.start <= i < part.stop)
    structure, part = fit.template.structures[t], fit.template.slices[t]
    row, column = structure.entries[i - part.start]
    if row != column or not fit.template.free[part].all():
        return None
    if isinstance(structure, Diagonal):
        c[coordinates.in_theta] = coordinates.map[i]
        return _Way(fit, c, 0.0, False)
    if not structure.closed:
        return None
    if row > 0:
        fit = _with_first(fit, t, row)
        coordinates = fit.problem.coordinates
    c[coordinates.in_theta] = coordinates.map[part.start]
    return _Way(fit, c, 0.0, False)


def _with_first(fit: GeneralizedFit, t: int, effect: int) -> GeneralizedFit:
    """The same fit with another effect first in a term."""
    block = fit.design.blocks[t]
    order = [effect, *(j for j in range(block.k) if j != effect)]
    moved = replace(
        block, names=tuple(block.names[j] for j in order), columns=block.columns[:, order]
    )
    blocks = list(fit.design.blocks)
    blocks[t] = moved
    problem = replace(fit.problem, design=replace(fit.design, blocks=tuple(blocks)))
    structure, part = fit.template.structures[t], fit.template.slices[t]
    T = lower_triangular(structure.factor(fit.theta[part])[order])
    rows, columns = np.array(structure.entries).T
    theta = np.array(fit.theta)
    theta[part] = T[rows, columns]
    at = fit.parameters
    x = np.concatenate([at.beta, theta, [at.delta] * fit.family.estimates_delta])
    out = replace(
        fit, problem=problem, optimum=replace(fit.optimum, x=x), u=np.zeros(fit.template.q)
    )
    point = out.problem.deviance.point(out.parameters)
    return replace(out, u=np.array(point.mode.u), hessian=_numerical_hessian(out))


def _numerical_hessian(fit: GeneralizedFit) -> FloatArray:
    """The working model's Hessian, which is good enough for first steps."""
    point = fit.point
    out = np.array(point.hessian)
    if fit.family.estimates_delta:
        out[-1, -1] = fit.hessian[-1, -1]
    return out


class _Walk:
    """The profile of one parameter."""

    def __init__(self, way: _Way) -> None:
        self.way = way
        fit = way.fit
        self.coordinates = coordinates = fit.problem.coordinates
        self.x = coordinates.x(fit.parameters)
        self.value = fit.point.value
        J = coordinates.jacobian
        H = J.T @ fit.hessian @ J
        values, vectors = np.linalg.eigh(H)
        values = np.maximum(values, 1e-8 * max(float(values.max()), 1e-300))
        V = (vectors / values) @ vectors.T * 2.0
        self.moves = V @ way.c / float(way.c @ V @ way.c)
        self.se = float(np.sqrt(way.c @ V @ way.c))
        self.center = float(way.c @ self.x)
        # Directions that leave the parameter as it is.
        size = way.c / np.linalg.norm(way.c)
        self.N = np.linalg.svd(size[None])[2][1:].T

    def _shown(self, v: float) -> float:
        return float(np.exp(v)) if self.way.of_log else v

    def at(self, v: float, near: FloatArray) -> tuple[float, float, FloatArray]:
        """The smallest criterion at a value, its slope, and where that is."""
        origin = near + self.moves * (v - float(self.way.c @ near))
        objective = GeneralizedObjective(
            self.way.fit.problem.deviance, self.coordinates, self.way.fit.u
        )
        objective.best = None
        free = Bounds(np.full(self.N.shape[1], -np.inf), np.full(self.N.shape[1], np.inf))
        if self.N.shape[1]:
            plane = OnPlane(objective, origin, self.N)
            found = StructuredSearch().minimize(plane, np.zeros(self.N.shape[1]), free)
            if found.status is Status.FAILED:
                raise NumericalError("The profile could not be evaluated.")
            x = plane.full(found.x)
        else:
            x = origin
        point = objective.point(x)
        slope = float((self.coordinates.jacobian.T @ point.gradient) @ self.moves)
        return point.value, slope, x

    def limit(self, z: float) -> float:
        """The value at which the signed square root of the rise is z."""
        sign = 1.0 if z > 0 else -1.0
        v, near, least = self.center + z * self.se, self.x, self.way.least
        inside, outside = self.center, sign * np.inf
        if sign < 0 and np.isfinite(least):
            lowest = self._rise(least, near)
            if lowest is not None and lowest[0] < abs(z):
                return least
            v = max(v, 0.5 * (least + self.center))
            outside = least
        for _ in range(_STEPS):
            got = self._rise(v, near)
            if got is None:
                v = 0.5 * (v + inside)
                continue
            zeta, slope, x = got
            if abs(zeta - abs(z)) < _CLOSE:
                v += sign * (abs(z) - zeta) / max(abs(slope), 1e-300)
                return self._shown(v)
            if zeta < abs(z):
                inside, near = v, x
            else:
                outside = v
            step = (abs(z) - zeta) / slope if slope > 0 else np.inf
            v = v + sign * float(np.clip(step, -4.0 * self.se, 4.0 * self.se))
            low, high = min(inside, outside), max(inside, outside)
            if not low < v < high:
                v = 0.5 * (inside + outside)
            if abs(v - self.center) > _LARGEST * self.se:
                break
        return self._shown(sign * np.inf)

    def _rise(self, v: float, near: FloatArray) -> tuple[float, float, FloatArray] | None:
        """√(rise of the criterion), its slope away from the estimate, and the point there."""
        try:
            value, slope, x = self.at(v, near)
        except (NumericalError, np.linalg.LinAlgError):
            return None
        zeta = float(np.sqrt(max(value - self.value, 0.0)))
        outwards = slope if v > self.center else -slope
        return zeta, outwards / max(2.0 * zeta, 1e-8), x
