"""Successes among trials, as proportions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, gammaln, xlogy

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.engine.families.base import ExpectedWeights, Family, Observations, Pointwise
from lmmsparse.engine.families.links import (
    probability,
    probability_link,
    probability_slope,
    sides,
)


@checked_construction
@dataclass(frozen=True)
class Binomial(Family):
    """Successes among trials: a probability p with g(p) = η.

    Parameters
    ----------
    link : {"logit", "probit", "cloglog", "cauchit", "log"}

    Examples
    --------
    >>> Binomial(link="probit").mean(np.array([0.0]))
    array([0.5])
    """

    name = "binomial"
    links = ("logit", "probit", "cloglog", "cauchit", "log")
    discrete = True

    @property
    def canonical(self) -> bool:
        return self.link == "logit"

    @property
    def is_limited(self) -> bool:
        return self.link == "log"

    def at(
        self, eta: FloatArray, seen: Observations, delta: float, third: bool = False
    ) -> Pointwise:
        if self.link == "logit":
            return _logit(eta, seen)
        one, other = sides(self.link, eta, third)
        a, b = seen.successes, seen.failures
        with np.errstate(invalid="ignore"):
            value = np.where(a > 0, a * one.value, 0.0) + np.where(b > 0, b * other.value, 0.0)
        s = a * one.d1 + b * other.d1
        w = -(a * one.d2 + b * other.d2)
        if one.d3 is None or other.d3 is None:
            return Pointwise(value, s, w, None)
        return Pointwise(value, s, w, -(a * one.d3 + b * other.d3))

    def constant(self, seen: Observations, delta: float) -> float:
        if seen.trials is None:
            return 0.0
        m, a = seen.trials, seen.trials * seen.y
        rows = gammaln(m + 1.0) - gammaln(a + 1.0) - gammaln(m - a + 1.0)
        return float(np.sum(rows * seen.prior_or_one))

    def expected(self, eta: FloatArray, seen: Observations, delta: float) -> ExpectedWeights:
        one, other = sides(self.link, eta, False)
        w = -seen.weights * one.d1 * other.d1
        return ExpectedWeights(w, -seen.weights * (one.d2 * other.d1 + one.d1 * other.d2), None)

    def mean(self, eta: FloatArray) -> FloatArray:
        return probability(self.link, eta)

    def mean_slope(self, eta: FloatArray) -> FloatArray:
        return probability_slope(self.link, eta)

    def link_of(self, mu: FloatArray) -> FloatArray:
        return probability_link(self.link, mu)

    def smoothed(self, seen: Observations) -> FloatArray:
        m = seen.trials_or_one
        return np.asarray((m * seen.y + 0.5) / (m + 1.0))

    def variance(self, mu: FloatArray, delta: float) -> FloatArray:
        return np.asarray(mu * (1.0 - mu))

    def unit_deviance(self, seen: Observations, mu: FloatArray, delta: float) -> FloatArray:
        y = seen.y
        one = xlogy(y, y) - xlogy(y, mu)
        other = xlogy(1.0 - y, 1.0 - y) - xlogy(1.0 - y, 1.0 - mu)
        return np.asarray(2.0 * seen.weights * (one + other))

    def draw(
        self, rng: np.random.Generator, mu: FloatArray, seen: Observations, delta: float
    ) -> FloatArray:
        trials = np.rint(seen.trials_or_one).astype(np.int64)
        return np.asarray(rng.binomial(trials, mu) / trials)

    def cdf(self, y: FloatArray, mu: FloatArray, seen: Observations, delta: float) -> FloatArray:
        trials = np.rint(seen.trials_or_one).astype(np.int64)
        successes = np.rint(trials * y)
        inside = bdtr(np.clip(successes, 0.0, trials), trials, np.clip(mu, 0.0, 1.0))
        return np.where(successes < 0, 0.0, np.where(successes >= trials, 1.0, inside))

    def step_below(self, seen: Observations) -> FloatArray | float:
        return 1.0 / np.maximum(np.rint(seen.trials_or_one), 1.0)

    def problem(self, seen: Observations) -> str:
        if np.any((seen.y < 0) | (seen.y > 1)):
            return "proportions must be between 0 and 1"
        return ""


def _logit(eta: FloatArray, seen: Observations) -> Pointwise:
    """The same as of the sides, which all have log(1 + exp(−|η|)) and p(1 − p) in common."""
    m, a, b = seen.weights, seen.successes, seen.failures
    away = np.abs(eta)
    e = np.exp(-away)
    large = 1.0 / (1.0 + e)
    small, up = e * large, eta >= 0.0
    p, q = np.where(up, large, small), np.where(up, small, large)
    # a log p + b log(1 − p), where the likelier of the two is near zero.
    value = np.where(up, -b, a) * eta - m * np.log1p(e)
    w = m * (small * large)
    return Pointwise(value, a * q - b * p, w, w * (q - p))
