"""Positive responses with a dispersion φ: gamma, inverse Gaussian, Gaussian with other links."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.special import gammainc, log_ndtr, ndtr

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.families.base import ExpectedWeights, Observations, ScaleSlopes
from lmmsparse.engine.families.positive import InLogMean, PositiveMean
from lmmsparse.engine.families.special import stirling, stirling_slope

_EXACT = 1e-12  # share of a response's variation that may be rounding


@dataclass(frozen=True)
class _Dispersed(PositiveMean):
    """A family with var(y) = φ V(μ) / weight; ν = weight / φ multiplies what depends on μ."""

    parameter = "dispersion"

    @abstractmethod
    def _constant_slope(self, seen: Observations, nu: FloatArray | float) -> FloatArray:
        """∂/∂δ of every row's part of `constant`, (n,)."""

    def _scale_in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> ScaleSlopes:
        own = self._in_log_mean(log_mu, mu, seen, delta)
        constant = self._constant_slope(seen, seen.weights * np.exp(-delta))
        return ScaleSlopes(constant - own.value, -own.s, -own.w)

    def dispersion(self, delta: float) -> float:
        return float(np.exp(delta))

    def smoothed(self, seen: Observations) -> FloatArray:
        return seen.y

    def start_delta(self, seen: Observations, mu: FloatArray) -> float:
        least = max(_EXACT * self._spread(seen, np.full(seen.n, np.mean(seen.y))), 1e-300)
        return float(np.log(max(self._spread(seen, mu), least)))

    def least_delta(self, seen: Observations) -> float:
        spread = self._spread(seen, np.full(seen.n, np.mean(seen.y)))
        return float(np.log(max(_EXACT * spread, 1e-300)))

    def _spread(self, seen: Observations, mu: FloatArray) -> float:
        squares = seen.weights * (seen.y - mu) ** 2 / self.variance(mu, 0.0)
        return float(np.mean(squares))

    def problem(self, seen: Observations) -> str:
        return "values must be positive" if np.any(seen.y <= 0) else ""


@checked_construction
@dataclass(frozen=True)
class Gamma(_Dispersed):
    """Positive responses with variance φμ² and g(μ) = η; 1/φ is the shape.

    Parameters
    ----------
    link : {"log", "inverse", "identity"}
        The default is log; R's is inverse.

    Examples
    --------
    >>> Gamma().link
    'log'
    """

    name = "gamma"
    links = ("log", "inverse", "identity")
    parameter_formula = "var(y) = dispersion * mu^2, shape = 1/dispersion"

    def _in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> InLogMean:
        nu = seen.weights * np.exp(-delta)
        # log r and r − 1 with r = y/μ, so that a close fit leaves no large numbers behind.
        log_r = seen.log_y - log_mu
        less = np.expm1(log_r)
        w = nu * (1.0 + less)
        return InLogMean(nu * (log_r - less), nu * less, w, -w)

    def constant(self, seen: Observations, delta: float) -> float:
        nu = np.broadcast_to(seen.weights * np.exp(-delta), seen.y.shape)
        return float(np.sum(stirling(nu) - seen.log_y))

    def _constant_slope(self, seen: Observations, nu: FloatArray | float) -> FloatArray:
        return np.broadcast_to(-nu * stirling_slope(np.asarray(nu)), seen.y.shape)

    def _expected_in_log_mean(
        self, mu: FloatArray, seen: Observations, delta: float
    ) -> ExpectedWeights:
        nu = seen.weights * np.exp(-delta) + np.zeros_like(mu)
        return ExpectedWeights(nu, np.zeros_like(mu), -nu)

    def variance(self, mu: FloatArray, delta: float) -> FloatArray:
        return np.square(mu)

    def unit_deviance(self, seen: Observations, mu: FloatArray, delta: float) -> FloatArray:
        r = seen.y / mu
        return np.asarray(2.0 * seen.weights * (r - 1.0 - np.log(r)))

    def draw(
        self, rng: np.random.Generator, mu: FloatArray, seen: Observations, delta: float
    ) -> FloatArray:
        shape = seen.weights * np.exp(-delta)
        return np.asarray(rng.gamma(shape, mu / shape))

    def cdf(self, y: FloatArray, mu: FloatArray, seen: Observations, delta: float) -> FloatArray:
        shape = seen.weights * np.exp(-delta)
        return np.asarray(gammainc(shape, shape * np.maximum(y, 0.0) / mu))


@checked_construction
@dataclass(frozen=True)
class InverseGaussian(_Dispersed):
    """Positive responses with variance φμ³ and g(μ) = η.

    Parameters
    ----------
    link : {"log", "1/mu^2", "inverse", "identity"}
        The default is log; R's is 1/mu^2.

    Examples
    --------
    >>> InverseGaussian().variance(np.array([2.0]), 0.0)
    array([8.])
    """

    name = "inverse gaussian"
    links = ("log", "1/mu^2", "inverse", "identity")
    parameter_formula = "var(y) = dispersion * mu^3"

    def _in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> InLogMean:
        nu = seen.weights * np.exp(-delta)
        own = nu / mu
        r = seen.y / mu
        value = -0.5 * own * np.square(r - 1.0) / r
        return InLogMean(value, own * (r - 1.0), own * (2.0 * r - 1.0), own * (1.0 - 4.0 * r))

    def constant(self, seen: Observations, delta: float) -> float:
        nu = seen.weights * np.exp(-delta)
        return float(0.5 * np.sum(np.log(nu / (2.0 * np.pi)) - 3.0 * np.log(seen.y)))

    def _constant_slope(self, seen: Observations, nu: FloatArray | float) -> FloatArray:
        return np.full(seen.n, -0.5)

    def _expected_in_log_mean(
        self, mu: FloatArray, seen: Observations, delta: float
    ) -> ExpectedWeights:
        w = seen.weights * np.exp(-delta) / mu
        return ExpectedWeights(w, -w, -w)

    def variance(self, mu: FloatArray, delta: float) -> FloatArray:
        return np.asarray(mu**3)

    def unit_deviance(self, seen: Observations, mu: FloatArray, delta: float) -> FloatArray:
        return np.asarray(seen.weights * (seen.y - mu) ** 2 / (seen.y * mu**2))

    def draw(
        self, rng: np.random.Generator, mu: FloatArray, seen: Observations, delta: float
    ) -> FloatArray:
        return np.asarray(rng.wald(mu, seen.weights * np.exp(-delta)))

    def cdf(self, y: FloatArray, mu: FloatArray, seen: Observations, delta: float) -> FloatArray:
        nu = seen.weights * np.exp(-delta)
        at = np.maximum(y, 1e-300)
        root = np.sqrt(nu / at)
        with np.errstate(over="ignore"):
            second = np.exp(2.0 * nu / mu + log_ndtr(-root * (at / mu + 1.0)))
        return np.where(y <= 0, 0.0, ndtr(root * (at / mu - 1.0)) + second)


@checked_construction
@dataclass(frozen=True)
class Gaussian(_Dispersed):
    """Normal responses with positive means and g(μ) = η, for links other than the identity.

    Parameters
    ----------
    link : {"log", "inverse", "sqrt"}

    Examples
    --------
    >>> Gaussian(link="log").mean(np.array([0.0]))
    array([1.])
    """

    name = "gaussian"
    links = ("log", "inverse", "sqrt")
    parameter_formula = "var(y) = dispersion"

    def __post_init__(self) -> None:
        if isinstance(self.link, str) and self.link in ("", "identity"):
            raise OptionError(
                "A Gaussian family with the identity link is a linear mixed model. Fit it with "
                "lmm.lmer, or give a link, for example lmm.families.Gaussian(link='log')."
            )
        super().__post_init__()

    def _in_log_mean(
        self, log_mu: FloatArray, mu: FloatArray, seen: Observations, delta: float
    ) -> InLogMean:
        nu, y = seen.weights * np.exp(-delta), seen.y
        square, cross = nu * np.square(mu), nu * y * mu
        value = -0.5 * nu * np.square(y - mu)
        return InLogMean(value, nu * (y - mu) * mu, 2.0 * square - cross, 4.0 * square - cross)

    def constant(self, seen: Observations, delta: float) -> float:
        nu = np.broadcast_to(seen.weights * np.exp(-delta), seen.y.shape)
        return float(0.5 * np.sum(np.log(nu / (2.0 * np.pi))))

    def _constant_slope(self, seen: Observations, nu: FloatArray | float) -> FloatArray:
        return np.full(seen.n, -0.5)

    def _expected_in_log_mean(
        self, mu: FloatArray, seen: Observations, delta: float
    ) -> ExpectedWeights:
        w = seen.weights * np.exp(-delta) * np.square(mu)
        return ExpectedWeights(w, 2.0 * w, -w)

    def smoothed(self, seen: Observations) -> FloatArray:
        return np.maximum(seen.y, 0.01 * float(np.mean(np.abs(seen.y))))

    def variance(self, mu: FloatArray, delta: float) -> FloatArray:
        return np.ones_like(mu)

    def unit_deviance(self, seen: Observations, mu: FloatArray, delta: float) -> FloatArray:
        return np.asarray(seen.weights * (seen.y - mu) ** 2)

    def draw(
        self, rng: np.random.Generator, mu: FloatArray, seen: Observations, delta: float
    ) -> FloatArray:
        sd = np.sqrt(np.exp(delta) / seen.weights)
        return np.asarray(mu + sd * rng.standard_normal(len(mu)))

    def cdf(self, y: FloatArray, mu: FloatArray, seen: Observations, delta: float) -> FloatArray:
        return np.asarray(ndtr((y - mu) * np.sqrt(seen.weights * np.exp(-delta))))

    def problem(self, seen: Observations) -> str:
        if self.link == "log" and not np.mean(seen.y) > 0:
            return "its mean must be positive for the log link"
        return ""
