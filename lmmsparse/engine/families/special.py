"""Differences of gamma functions that keep their digits where both are large."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, psi

from lmmsparse.common.arrays import FloatArray

_FROM = 50.0


def _rest(x: FloatArray) -> FloatArray:
    """What log Γ(x) is beyond (x − ½) log x − x + ½ log 2π, for x ≥ 50."""
    i = 1.0 / np.square(x)
    return np.asarray((1.0 / 12.0 - i * (1.0 / 360.0 - i / 1260.0)) / x)


def _rest_slope(x: FloatArray) -> FloatArray:
    """What ψ(x) is beyond log x − 1/(2x), for x ≥ 50."""
    i = 1.0 / np.square(x)
    return np.asarray(-i * (1.0 / 12.0 - i * (1.0 / 120.0 - i / 252.0)))


def gammaln_ratio(y: FloatArray, k: float) -> FloatArray:
    """Log Γ(y + k) − log Γ(k) − y log k for y ≥ 0."""
    if k < _FROM:
        return np.asarray(gammaln(y + k) - gammaln(k) - y * np.log(k))
    size, at = y + k, np.asarray(k)
    return np.asarray((size - 0.5) * np.log1p(y / k) - y + _rest(size) - _rest(at))


def psi_ratio(y: FloatArray, k: float) -> FloatArray:
    """ψ(y + k) − ψ(k) for y ≥ 0."""
    if k < _FROM:
        return np.asarray(psi(y + k) - psi(k))
    size = y + k
    by_halves = 0.5 * y / (k * size)
    return np.asarray(np.log1p(y / k) + by_halves + _rest_slope(size) - _rest_slope(np.asarray(k)))


def stirling(x: FloatArray) -> FloatArray:
    """X log x − x − log Γ(x)."""
    x = np.asarray(x, dtype=np.float64)
    near = np.minimum(x, _FROM)
    far = np.maximum(x, _FROM)
    asymptotic = 0.5 * np.log(far / (2.0 * np.pi)) - _rest(far)
    return np.where(x < _FROM, near * np.log(near) - near - gammaln(near), asymptotic)


def stirling_slope(x: FloatArray) -> FloatArray:
    """Log x − ψ(x), the derivative of `stirling`."""
    x = np.asarray(x, dtype=np.float64)
    near, far = np.minimum(x, _FROM), np.maximum(x, _FROM)
    return np.where(x < _FROM, np.log(near) - psi(near), 0.5 / far - _rest_slope(far))
