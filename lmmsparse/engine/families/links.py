"""Links: for probabilities log p and log(1 − p) as functions of η, for positive means log μ.

Log densities are sums of these, so that three derivatives of each give three derivatives of the
log density without a difference of nearly equal numbers, however far out η is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import erfcx, expit, log1p, log_ndtr, ndtr, ndtri

from lmmsparse.common.arrays import FloatArray

_LARGEST = 500.0
_ROOT_2, _ROOT_2_OVER_PI = float(np.sqrt(2.0)), float(np.sqrt(2.0 / np.pi))
_TINY = 1e-300
_NEAR_ZERO = 1e-70


class LogOf(NamedTuple):
    """The logarithm of something as a function of η, and its derivatives; the third on request."""

    value: FloatArray
    d1: FloatArray
    d2: FloatArray
    d3: FloatArray | None


class Sides(NamedTuple):
    """Log p and log(1 − p)."""

    p: LogOf
    q: LogOf


def sides(link: str, eta: FloatArray, third: bool) -> Sides:
    """Log p and log(1 − p) under a link for probabilities, to second or third order."""
    if link == "logit":
        return _logit(eta, third)
    if link == "cloglog":
        return _cloglog(eta, third)
    if link == "log":
        return _log(eta, third)
    one = _of_probit if link == "probit" else _of_cauchit
    return Sides(one(eta, third), _mirrored(one(-eta, third)))


def _mirrored(of: LogOf) -> LogOf:
    return LogOf(of.value, -of.d1, of.d2, None if of.d3 is None else -of.d3)


def _logit(eta: FloatArray, third: bool) -> Sides:
    e = np.exp(-np.abs(eta))
    large = 1.0 / (1.0 + e)
    small, up = e * large, eta >= 0.0
    p, q = np.where(up, large, small), np.where(up, small, large)
    log_p = np.minimum(eta, 0.0) - np.log1p(e)
    both = small * large
    d3 = both * (p - q) if third else None
    return Sides(LogOf(log_p, q, -both, d3), LogOf(log_p - eta, -p, -both, d3))


def _of_probit(eta: FloatArray, third: bool) -> LogOf:
    value = log_ndtr(eta)
    with np.errstate(over="ignore"):
        r = _ROOT_2_OVER_PI / erfcx(-eta / _ROOT_2)
    above = r + eta
    far = eta < -30.0
    x, left = -eta[far], np.zeros(0)
    if len(x):
        # Far out r − x is a small difference: Laplace's series for Mills' ratio takes its place.
        i = 1.0 / np.square(x)
        left = i * (2.0 - i * (10.0 - i * (74.0 - i * (706.0 - 8162.0 * i))))
        above[far] = (1.0 - left) / x
        r[far] = x + above[far]
    d2 = -r * above
    if not third:
        return LogOf(value, r, d2, None)
    rest = 1.0 + d2
    rest[far] = left - np.square(above[far])
    return LogOf(value, r, d2, -(d2 * above + r * rest))


def _of_cauchit(eta: FloatArray, third: bool) -> LogOf:
    p = np.arctan2(1.0, -eta) / np.pi
    square = 1.0 + np.square(eta)
    r = 1.0 / (np.pi * square * p)
    back = 2.0 * eta / square
    # r' = −r(r + 2η/(1 + η²)): far below zero the two nearly cancel to 1/η².
    sum_ = r + back
    far = eta < -50.0
    if far.any():
        x = -eta[far]
        i = 1.0 / np.square(x)
        # πp = atan(1/x) = 1/x − 1/(3x³) + …, so that r = (1 − i + i² …)(1 + i/3 − 4i²/45 …)/x.
        sum_[far] = (-1.0 + i * (4.0 / 3.0 - i * (68.0 / 45.0))) / x
        r[far] = 2.0 * x / (1.0 + np.square(x)) + sum_[far]
    d2 = -r * sum_
    d3 = None
    if third:
        d3 = -(d2 * sum_ + r * (d2 + 2.0 * (1.0 - np.square(eta)) / np.square(square)))
    return LogOf(np.log(p), r, d2, d3)


def _cloglog(eta: FloatArray, third: bool) -> Sides:
    e = np.exp(np.clip(eta, -_LARGEST, _LARGEST))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        expm1 = np.expm1(np.minimum(e, 700.0))
        g = e / expm1
        value = np.where(e < 1.0, np.log(-np.expm1(-e)), np.log1p(-np.exp(-e)))
    value = np.where(eta < -30.0, eta - 0.5 * e, value)
    g = np.where(e > 700.0, 0.0, g)
    # 1 − e − g for small e: g = 1 − e/2 + e²/12 − e⁴/720.
    small = e < 1e-2
    left = np.where(small, -e * (0.5 + e / 12.0 - e**3 / 720.0), 1.0 - e - g)
    left = np.where(e > 700.0, 0.0, left)
    d2 = g * left
    d3 = d2 * left + g * np.where(e > 700.0, 0.0, -e - d2) if third else None
    return Sides(LogOf(value, g, d2, d3), LogOf(-e, -e, -e, -e if third else None))


def _log(eta: FloatArray, third: bool) -> Sides:
    inside = eta < 0.0
    at = np.where(inside, eta, -1.0)
    left = -np.expm1(at)
    h = np.exp(at) / left
    value = np.where(inside, np.log(left), -np.inf)
    d2 = -h * (1.0 + h)
    zero = np.zeros_like(eta)
    p = LogOf(np.where(inside, eta, -np.inf), zero + 1.0, zero, zero if third else None)
    return Sides(p, LogOf(value, -h, d2, d2 * (1.0 + 2.0 * h) if third else None))


def probability(link: str, eta: FloatArray) -> FloatArray:
    """P at η."""
    if link == "logit":
        return np.asarray(expit(eta))
    if link == "probit":
        return np.asarray(ndtr(eta))
    if link == "cauchit":
        return np.asarray(np.arctan2(1.0, -eta) / np.pi)
    if link == "cloglog":
        return np.asarray(-np.expm1(-np.exp(np.clip(eta, -_LARGEST, _LARGEST))))
    return np.exp(np.minimum(eta, 0.0))


def probability_slope(link: str, eta: FloatArray) -> FloatArray:
    """∂p/∂η."""
    if link == "log":
        return np.exp(np.minimum(eta, 0.0))
    return np.asarray(probability(link, eta) * sides(link, eta, False).p.d1)


def probability_link(link: str, p: FloatArray) -> FloatArray:
    """η at p."""
    if link == "logit":
        return np.asarray(np.log(p) - log1p(-p))
    if link == "probit":
        return np.asarray(ndtri(p))
    if link == "cauchit":
        return np.tan(np.pi * (p - 0.5))
    if link == "cloglog":
        return np.asarray(np.log(-log1p(-p)))
    return np.log(p)


# Powers a with log μ = a log η.
_POWERS = {"identity": 1.0, "sqrt": 2.0, "inverse": -1.0, "1/mu^2": -0.5}


def log_mean(link: str, eta: FloatArray) -> FloatArray:
    """Log μ at η, NaN where η cannot be."""
    if link == "log":
        return np.minimum(np.maximum(eta, -_LARGEST), _LARGEST)
    if link == "sqrt":  # μ = η² for either sign
        return np.asarray(2.0 * np.log(np.maximum(np.abs(eta), _NEAR_ZERO)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(_POWERS[link] * np.log(np.where(eta > 0.0, eta, np.nan)))


def log_mean_slopes(link: str, eta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The first three derivatives of log μ in η."""
    a = _POWERS[link]
    if link == "sqrt":
        inverse = 1.0 / np.where(np.abs(eta) > _NEAR_ZERO, eta, np.copysign(_NEAR_ZERO, eta))
    else:
        inverse = 1.0 / np.where(eta > 0.0, eta, np.nan)
    d1 = a * inverse
    d2 = -d1 * inverse
    return d1, d2, -2.0 * d2 * inverse


def mean_link(link: str, mu: FloatArray) -> FloatArray:
    """η at a positive μ."""
    log = np.log(np.maximum(mu, _TINY))
    return log if link == "log" else np.exp(log / _POWERS[link])
