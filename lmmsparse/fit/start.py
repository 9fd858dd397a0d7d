"""Where searches begin: the start values, and further starts where one search may not be enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import refused
from lmmsparse.design import Design
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.products import CrossProducts

_LARGEST_CORE = 120
_LARGEST_WORK = 100_000
_IN_SPAN = 1e-8
_NO_VARIANCE = 1e-4
_SMALL, _LARGE = 0.1, 30.0  # in units of the residual's standard deviation
_NEAR_LIMIT = 0.9
LOST = 1e4
_EXACT = 1e-8


class Coordinates(Protocol):
    """The coordinates of a search, in which a random effect of size one is as large as σ."""

    @property
    def objective(self) -> ProfiledDeviance: ...
    @property
    def template(self) -> LambdaTemplate: ...
    def to_theta(self, x: FloatArray) -> FloatArray: ...
    def to_internal(self, theta: FloatArray) -> FloatArray: ...


@dataclass(frozen=True, eq=False)
class Start:
    """A point to search from.

    Attributes
    ----------
    theta : (n_theta,) array
    moments : bool
        Whether to begin at the moment estimates taken there, if these are better.
    """

    name: str
    theta: FloatArray
    moments: bool = False


def is_lost(x: FloatArray) -> bool:
    """Whether a search has gone where the criterion is flat and has lost its digits.

    Random effects are more than 10,000 times as large as the residuals there: the data do not
    bound their variance, or the residuals are nothing but rounding errors.

    Parameters
    ----------
    x : (n_theta,) array
        Standardized coordinates.
    """
    return bool(np.abs(x).max(initial=0.0) > LOST)


def further_starts(coordinates: Coordinates) -> Iterator[Start]:
    """Starts in other valleys than unit size, the most useful first.

    A random effect that carries a mean can have one minimum where it has (nearly) no variance and
    another where that is large; correlations can be caught on either side of zero.
    """
    template = coordinates.template
    unit, free = template.start, template.free
    bounded = free & np.isfinite(template.upper)
    sides = free & (unit == 0.0) & ~bounded
    theta = coordinates.to_theta

    def point(size: float, correlation: float = 0.0) -> FloatArray:
        return template.with_held(theta(size * np.where(sides, correlation, unit)))

    yield Start("a tenth of unit size", point(_SMALL))
    if bounded.any():  # where moments are of no use
        yield Start(f"{_LARGE:g} times unit size", point(_LARGE))
    else:
        yield Start(f"moments at {_LARGE:g} times unit size", point(_LARGE), True)
    if not np.allclose(theta(unit), unit):
        yield Start("theta = 1", template.with_held(unit))
    if bounded.any():
        yield from starts_at_limits(coordinates)
    elif sides.any():
        yield Start(
            f"moments at {_LARGE:g} times unit size, negative correlations", point(_LARGE, -1), True
        )
        yield Start("a tenth of unit size, positive correlations", point(_SMALL, 1))


def starts_at_limits(coordinates: Coordinates) -> Iterator[Start]:
    """Starts on either side of no correlation, where correlations are parameters with limits."""
    template = coordinates.template
    bounded = template.free & np.isfinite(template.upper)
    for side, limits in (("negative", template.lower), ("positive", template.upper)):
        x = template.start.copy()
        x[bounded] = _NEAR_LIMIT * limits[bounded]
        yield Start(f"{side} correlations", template.with_held(coordinates.to_theta(x)))


def is_cheap(products: CrossProducts) -> bool:
    """Whether an evaluation of the criterion costs a millisecond or two at most.

    The measure counts operations, so that every machine does the same searches.
    """
    w = sum(products.sizes)
    return products.core <= _LARGEST_CORE and products.q * w * (w + products.p) <= _LARGEST_WORK


def lacks_fixed_effects(products: CrossProducts) -> bool:
    """Whether the fixed effects leave a mean of some random effect to the random effects alone."""
    p, offsets = products.p, products.offsets
    if not p:
        return True
    columns, squares = [], []
    for pair in products.pairs:
        if pair.s == pair.t:
            a, z, k = offsets[pair.s], offsets[pair.s + 1], products.sizes[pair.s]
            columns.append(products.ZtX[a:z].reshape((z - a) // k, k, p).sum(axis=0))
            squares.append(pair.values.sum(axis=0).diagonal())
    along, total = np.concatenate(columns), np.concatenate(squares)
    within = (along * np.linalg.solve(products.XtX, along.T).T).sum(axis=1)
    return bool(np.any(total - within > _IN_SPAN * total))


def lacks_variance(objective: ProfiledDeviance, theta: FloatArray) -> bool:
    """Whether some combination of the effects of a term has (almost) no variance.

    Parameters
    ----------
    theta : (n_theta,) array
    """
    template = objective.template
    for T, scale in zip(template.factors(theta), objective.column_scales, strict=True):
        sizes = (
            np.abs(T[0]) / scale
            if len(T) == 1
            else np.linalg.svd(T / scale[:, None], compute_uv=False)
        )
        if sizes[-1] < _NO_VARIANCE:
            return True
    return False


def start_values(coordinates: Coordinates, design: Design) -> FloatArray:
    """θ to start from: from the means of the levels for random intercepts only, or unit size.

    Of levels whose covariance is known: unit size, which is that of their effects on the rows.
    """
    if _random_intercepts(design):
        found = _from_means(coordinates.objective)
        if found is not None:
            return found
    return coordinates.to_theta(coordinates.template.start)


def _random_intercepts(design: Design) -> bool:
    """Whether every term is a random intercept, of a factor of its own."""
    if design.facts is not None:
        return design.facts.between is not None
    blocks = design.blocks
    simple = all(b.columns.shape[1] == 1 and np.ptp(b.columns) == 0 for b in blocks)
    return simple and all(b.known is None for b in blocks) and len(design.groups) == len(blocks)


def _from_means(objective: ProfiledDeviance) -> FloatArray | None:
    """Standard deviations of the level means of the least-squares residuals, over what is left."""
    products, response = objective.products, objective.response
    between, sizes = [], []
    for pair in products.pairs:
        if pair.s == pair.t:
            size = pair.values[:, 0, 0]
            sums = response.Zty[products.offsets[pair.s] : products.offsets[pair.s + 1]]
            between.append(float(sums @ (sums / size)))
            sizes.append(float(size.sum()) / products.n)
    within = response.yty - sum(between)
    if within <= _EXACT * sum(between):  # nothing is left for the residuals
        return None
    return np.sqrt(np.array(between) / (within * np.array(sizes)))


_ONE_EACH = "Give one finite number per parameter, in the order of m.theta."


def numbers_to_start(start: Any) -> FloatArray:
    """Numbers that a user gives to begin with, in one row."""
    try:
        if np.iscomplexobj(start):
            raise TypeError("complex numbers")
        return np.asarray(start, dtype=np.float64).ravel()
    except Exception as error:  # also those of objects of somebody else's
        raise refused("start", "numbers", start, _ONE_EACH) from error


def checked_start(start: FloatArray, template: LambdaTemplate) -> FloatArray:
    """The start values of a user."""
    theta = numbers_to_start(start)
    if theta.shape != (template.n_theta,):
        raise OptionError(
            f"start has {theta.size} values, but the model has {template.n_theta} covariance "
            f"parameters. {_ONE_EACH}"
        )
    if not np.isfinite(theta).all():
        raise OptionError(f"start contains NaN or infinite values. {_ONE_EACH}")
    theta = template.with_held(theta)
    outside = np.flatnonzero((theta < template.lower) | (theta > template.upper))
    if outside.size:
        i = int(outside[0])
        raise OptionError(
            f"start[{i}] must be between {template.lower[i]:g} and {template.upper[i]:g}, not "
            f"{theta[i]:g}."
        )
    return theta
