"""Families with positive means, written in log μ; any link enters by the chain rule."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.families.base import (
    ExpectedWeights,
    Family,
    Observations,
    Pointwise,
    ScaleSlopes,
)
from lmmsparse.engine.families.links import log_mean, log_mean_slopes, mean_link


class InLogMean(NamedTuple):
    """ℓ, ∂ℓ, −∂²ℓ and ∂(−∂²ℓ) by log μ, (n,) each."""

    value: FloatArray
    s: FloatArray
    w: FloatArray
    t: FloatArray


@dataclass(frozen=True)
class PositiveMean(Family):
    """A family whose log density is known as a function of log μ."""

    @abstractmethod
    def _in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> InLogMean: ...

    @abstractmethod
    def _expected_in_log_mean(
        self, mu: FloatArray, seen: Observations, delta: float
    ) -> ExpectedWeights: ...

    def _scale_in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> ScaleSlopes:
        raise NotImplementedError

    @property
    def is_limited(self) -> bool:
        return self.link not in ("log", "sqrt")

    def at(
        self, eta: FloatArray, seen: Observations, delta: float, third: bool = False
    ) -> Pointwise:
        log_mu = log_mean(self.link, eta)
        own = self._in_log_mean(log_mu, np.exp(log_mu), seen, delta)
        if self.link == "log":
            return Pointwise(own.value, own.s, own.w, own.t)
        d1, d2, d3 = log_mean_slopes(self.link, eta)
        s, w = own.s * d1, own.w * d1**2 - own.s * d2
        t = own.t * d1**3 + 3.0 * own.w * d1 * d2 - own.s * d3
        value = np.where(np.isnan(own.value), -np.inf, own.value)
        return Pointwise(value, s, w, t)

    def expected(self, eta: FloatArray, seen: Observations, delta: float) -> ExpectedWeights:
        mu = np.exp(log_mean(self.link, eta))
        own = self._expected_in_log_mean(mu, seen, delta)
        if self.link == "log":
            return own
        d1, d2, _ = log_mean_slopes(self.link, eta)
        slope = None if own.in_delta is None else own.in_delta * d1**2
        return ExpectedWeights(own.w * d1**2, own.t * d1**3 + 2.0 * own.w * d1 * d2, slope)

    def scale_slopes(self, eta: FloatArray, seen: Observations, delta: float) -> ScaleSlopes:
        log_mu = log_mean(self.link, eta)
        own = self._scale_in_log_mean(log_mu, np.exp(log_mu), seen, delta)
        if self.link == "log":
            return own
        d1, d2, _ = log_mean_slopes(self.link, eta)
        return ScaleSlopes(own.by_row, own.s * d1, own.w * d1**2 - own.s * d2)

    def mean(self, eta: FloatArray) -> FloatArray:
        return np.exp(log_mean(self.link, eta))

    def mean_slope(self, eta: FloatArray) -> FloatArray:
        mu = self.mean(eta)
        return mu if self.link == "log" else np.asarray(mu * log_mean_slopes(self.link, eta)[0])

    def link_of(self, mu: FloatArray) -> FloatArray:
        return mean_link(self.link, mu)
