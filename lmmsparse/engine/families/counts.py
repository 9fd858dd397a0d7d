"""Counts: Poisson, and negative binomial with the variance μ + μ²/k."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import betainc, gammaln, pdtr, xlogy

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import is_number
from lmmsparse.common.words import brief
from lmmsparse.engine.families.base import ExpectedWeights, Observations, ScaleSlopes
from lmmsparse.engine.families.positive import InLogMean, PositiveMean
from lmmsparse.engine.families.special import gammaln_ratio, psi_ratio

_POISSON = 30.0  # log k that is as good as infinite
_MANY = 1e3  # counts up to which y log μ has digits enough
_NO_DIGITS = 1e9  # k beyond which k / (k + μ) has lost what μ / k is
_HARDLY_MORE = 8.0  # log(k / μ) at which the variance is hardly more than Poisson's


@dataclass(frozen=True)
class _Counts(PositiveMean):
    """What families of counts share."""

    discrete = True

    def smoothed(self, seen: Observations) -> FloatArray:
        return np.asarray(seen.y + 0.1 * (seen.y == 0) + 0.05)

    def step_below(self, seen: Observations) -> FloatArray | float:
        return 1.0

    def problem(self, seen: Observations) -> str:
        return "counts must not be negative" if np.any(seen.y < 0) else ""


@checked_construction
@dataclass(frozen=True)
class Poisson(_Counts):
    """Counts with variance μ and g(μ) = η.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}

    Examples
    --------
    >>> Poisson().mean(np.array([0.0]))
    array([1.])
    """

    name = "poisson"
    links = ("log", "sqrt", "identity")

    @property
    def canonical(self) -> bool:
        return self.link == "log"

    def _in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> InLogMean:
        y, w = seen.y, seen.weights * mu
        s = seen.weights * (y - mu)
        if seen.largest < _MANY:
            return InLogMean(seen.weights * (y * log_mu - mu - seen.entropy), s, w, w)
        # From the density of μ = y on, so that large counts leave no large numbers behind.
        gap = (mu - y) / np.maximum(y, 1.0)
        near = y * np.log1p(np.maximum(gap, -0.9)) - (mu - y)
        far = y * log_mu - mu - seen.entropy
        value = np.where((np.abs(gap) < 0.5) & (y >= 1.0), near, far)
        return InLogMean(seen.weights * value, s, w, w)

    def constant(self, seen: Observations, delta: float) -> float:
        return float(np.sum(seen.weights * (seen.entropy - gammaln(seen.y + 1.0))))

    def _expected_in_log_mean(
        self, mu: FloatArray, seen: Observations, delta: float
    ) -> ExpectedWeights:
        w = seen.weights * mu
        return ExpectedWeights(w, w, None)

    def variance(self, mu: FloatArray, delta: float) -> FloatArray:
        return mu

    def unit_deviance(self, seen: Observations, mu: FloatArray, delta: float) -> FloatArray:
        y = seen.y
        return np.asarray(2.0 * seen.weights * (xlogy(y, y) - xlogy(y, mu) - (y - mu)))

    def draw(
        self, rng: np.random.Generator, mu: FloatArray, seen: Observations, delta: float
    ) -> FloatArray:
        return np.asarray(rng.poisson(mu), dtype=np.float64)

    def cdf(self, y: FloatArray, mu: FloatArray, seen: Observations, delta: float) -> FloatArray:
        return np.where(y < 0, 0.0, pdtr(np.maximum(np.floor(y), 0.0), mu))


@checked_construction
@dataclass(frozen=True)
class NegativeBinomial(_Counts):
    """Overdispersed counts with variance μ + μ²/k and g(μ) = η.

    Parameters
    ----------
    link : {"log", "sqrt", "identity"}
    theta : float, optional
        k, where it is known; estimated if not given.

    Examples
    --------
    >>> NegativeBinomial(theta=2.0).variance(np.array([4.0]), np.log(2.0))
    array([12.])
    """

    theta: float | None = None

    name = "negative binomial"
    links = ("log", "sqrt", "identity")
    parameter = "theta"
    parameter_formula = "var(y) = mu + mu^2/theta"
    largest_start = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.theta is not None and not (is_number(self.theta) and 0 < self.theta < np.inf):
            raise OptionError(
                f"NegativeBinomial(theta={brief(self.theta)}) must have a positive number. Leave "
                "it out to estimate it."
            )

    @property
    def held_delta(self) -> float | None:
        return None if self.theta is None else float(np.log(self.theta))

    def options(self) -> dict[str, Any]:
        return {"link": self.link, "theta": self.theta}

    def _in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> InLogMean:
        k, y, own = np.exp(delta), seen.y, seen.weights
        both = mu + k
        # y log(μ/(μ + k)) − k log(1 + μ/k) + y log k, whichever of μ and k is larger.
        value = own * (y * (log_mu - np.log1p(mu / k)) - k * np.log1p(mu / k))
        share = mu / both
        w = own * (y + k) * share * (k / both)
        return InLogMean(value, own * (y - mu) * (k / both), w, w * (k - mu) / both)

    def constant(self, seen: Observations, delta: float) -> float:
        rows = gammaln_ratio(seen.y, float(np.exp(delta))) - gammaln(seen.y + 1.0)
        return float(np.sum(seen.weights * rows))

    def _expected_in_log_mean(
        self, mu: FloatArray, seen: Observations, delta: float
    ) -> ExpectedWeights:
        k = np.exp(delta)
        share, rest = mu / (mu + k), k / (mu + k)
        w = seen.weights * mu * rest
        return ExpectedWeights(w, w * rest, w * share)

    def _scale_in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> ScaleSlopes:
        k, y, own = float(np.exp(delta)), seen.y, seen.weights
        both = mu + k
        rows = psi_ratio(y, k) - np.log1p(mu / k) + (mu - y) / both
        s = own * (y - mu) * (k / both) * (mu / both)
        w = own * mu * (k / both) * ((y + 2.0 * k) / both - 2.0 * (k / both) * ((y + k) / both))
        return ScaleSlopes(own * k * rows, s, w)

    def start_delta(self, seen: Observations, mu: FloatArray) -> float:
        w = np.broadcast_to(seen.weights, mu.shape)
        excess = float(np.sum(w * ((seen.y - mu) ** 2 - mu)))
        k = float(np.sum(w * mu**2)) / max(excess, 1e-12)
        return float(np.clip(np.log(k), -3.0, self.largest_start))

    def without_own(self) -> NegativeBinomial | None:
        """The Poisson distribution."""
        return replace(self, theta=float(np.exp(_POISSON))) if self.estimates_delta else None

    def next_to_limit(self, mu: FloatArray) -> float:
        return float(np.log(max(float(np.max(mu, initial=1.0)), 1.0))) + _HARDLY_MORE

    def at_limit(self, delta: float) -> bool:
        return self.estimates_delta and delta >= _POISSON - 1e-6

    def variance(self, mu: FloatArray, delta: float) -> FloatArray:
        return np.asarray(mu + mu**2 / np.exp(delta))

    def unit_deviance(self, seen: Observations, mu: FloatArray, delta: float) -> FloatArray:
        k, y = np.exp(delta), seen.y
        rows = xlogy(y, y) - xlogy(y, mu) - (y + k) * np.log1p((y - mu) / (mu + k))
        return np.asarray(2.0 * seen.weights * rows)

    def draw(
        self, rng: np.random.Generator, mu: FloatArray, seen: Observations, delta: float
    ) -> FloatArray:
        k = np.exp(delta)
        if k > _NO_DIGITS:
            return np.asarray(rng.poisson(mu), dtype=np.float64)
        return np.asarray(rng.negative_binomial(k, k / (k + mu)), dtype=np.float64)

    def cdf(self, y: FloatArray, mu: FloatArray, seen: Observations, delta: float) -> FloatArray:
        k, below = np.exp(delta), np.maximum(np.floor(y), 0.0)
        if k > _NO_DIGITS:
            return np.where(y < 0, 0.0, pdtr(below, mu))
        return np.where(y < 0, 0.0, betainc(k, below + 1.0, k / (k + mu)))
