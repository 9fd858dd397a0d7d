"""β, θ, δ → the conditional mode of the random effects, by Newton's method.

h(u) = −Σℓ + ½u'Qu is minimized; M = Λ'Z'WZΛ + Q with W = −ℓ'' is its Hessian (Q: the identity, or
the known precision of levels). Steps are halved until
h falls. Where observed weights leave M indefinite, steps use expected ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.families.base import Pointwise
from lmmsparse.engine.generalized.rows import GeneralizedRows
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.solvers.base import PLSFactor

TIGHT = 1e-20  # Newton decrement of a mode; log|M| is off by its square root
_LAST = 1e-12  # below this, what does not fall any more is rounding
_STEPS = 200
_HALVINGS, _FEWER = 60, 20
_SHORT, _SHORT_STEPS = 0.01, 5  # Newton steps that a limit of the link cuts short
_FLAT = 1e-11  # of |h|: a promise that rounding hides


@dataclass(frozen=True, eq=False)
class Mode:
    """The conditional mode with the factor of M there.

    Attributes
    ----------
    beta : (p,) array
        Internal coordinates.
    theta : (n_theta,) array
    delta : float
    factors : list of (k, k) arrays
        T of every term, for the columns that cross-products are taken of.
    u : (q,) array
    eta : (n,) array
    at : Pointwise
        The log density there, without its third derivative.
    v : (q,) array
        Z's.
    h : float
    products : CrossProducts
        Z'WZ.
    factor : PLSFactor
    steps : int
        Factorizations.
    """

    beta: FloatArray
    theta: FloatArray
    delta: float
    factors: Sequence[FloatArray]
    u: FloatArray
    eta: FloatArray
    at: Pointwise
    v: FloatArray
    h: float
    products: CrossProducts
    factor: PLSFactor
    steps: int


def factorized(
    rows: GeneralizedRows, theta: FloatArray, weights: FloatArray
) -> tuple[CrossProducts, PLSFactor]:
    """Z'WZ and the factor of M.

    Raises
    ------
    NumericalError
        If M is not positive definite.
    """
    products = rows.products(weights)
    try:
        factor = rows.system.with_products(products).factor(theta)
    except np.linalg.LinAlgError as error:
        raise NumericalError("M is not positive definite.") from error
    if not np.isfinite(factor.logdet):
        raise NumericalError("M is not positive definite.")
    return products, factor


class _Descent:
    """Newton's method in u, or in u and β together."""

    def __init__(
        self, rows: GeneralizedRows, theta: FloatArray, delta: float, beta: FloatArray
    ) -> None:
        self.rows, self.theta, self.delta, self.beta = rows, theta, delta, beta
        self.factors = rows.template.shifted_factors(theta)
        self._short = 0
        self.fixed = rows.fixed_part(beta)

    def to(self, u: FloatArray) -> tuple[FloatArray, Pointwise, float]:
        """η, the log density and h at u."""
        rows = self.rows
        eta = self.fixed + rows.random_part(rows.template.multiply(self.factors, u))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            at = rows.family.at(eta, rows.seen, self.delta)
            h = 0.5 * rows.prior.square(u) - float(np.sum(at.value))
        return eta, at, h if np.isfinite(h) else np.inf

    def started(self, u: FloatArray) -> tuple[FloatArray, FloatArray, Pointwise, float]:
        """The first u at which there is a density."""
        for first in (u, np.zeros_like(u)):
            eta, at, h = self.to(first)
            if np.isfinite(h):
                return first, eta, at, h
        raise NumericalError(
            "The linear predictor has left the values that the link allows. Check the model, or "
            "use a link without such limits."
        )

    def factor(self, eta: FloatArray, at: Pointwise) -> tuple[CrossProducts, PLSFactor, bool]:
        """Z'WZ and a factor to step with, and whether its weights are the observed ones."""
        rows = self.rows
        try:
            return *factorized(rows, self.theta, at.w), True
        except NumericalError:
            if rows.family.canonical:
                raise
        expected = rows.family.expected(eta, rows.seen, self.delta).w
        return *factorized(rows, self.theta, np.maximum(at.w, expected)), False

    def conditional(self, u: FloatArray, tolerance: float) -> Mode:
        """The mode at this β."""
        rows = self.rows
        u, eta, at, h = self.started(u)
        before = np.inf
        for step in range(_STEPS):
            products, factor, observed = self.factor(eta, at)
            v = rows.grouped(at.s)
            gradient = rows.template.multiply_transposed(self.factors, v) - rows.prior.times(u)
            direction = factor.solve(gradient)
            decrement = float(gradient @ direction)
            done = decrement < tolerance or (decrement < _LAST and decrement > 0.1 * before)
            if done and observed:
                return Mode(
                    self.beta, self.theta, self.delta, self.factors, u, eta, at, v, h, products,
                    factor, step + 1,
                )  # fmt: skip
            if done:
                break
            before = decrement
            u, eta, at, h = self._moved(u, h, direction, decrement)
        raise NumericalError(
            "The conditional modes of the random effects could not be found at these parameters."
        )

    def _moved(
        self, u: FloatArray, h: float, direction: FloatArray, decrement: float
    ) -> tuple[FloatArray, FloatArray, Pointwise, float]:
        flat = decrement < _FLAT * (1.0 + abs(h))
        size = 1.0
        for _ in range(_FEWER if self.rows.family.is_limited else _HALVINGS):
            moved = u + size * direction
            eta, at, lower = self.to(moved)
            if lower < h or (flat and np.isfinite(lower)):
                self._short += size < _SHORT
                if self._short > _SHORT_STEPS:
                    break
                return moved, eta, at, lower
            size *= 0.5
        raise NumericalError(self._stuck())

    def _stuck(self) -> str:
        text = (
            "The conditional modes of the random effects could not be found: no step raises the "
            "penalized log-likelihood."
        )
        family = self.rows.family
        if family.is_limited:
            text += (
                f" The {family.link} link keeps means inside limits, and the mode is at one. Use a "
                "link without limits."
            )
        return text


def conditional_mode(
    rows: GeneralizedRows,
    beta: FloatArray,
    theta: FloatArray,
    delta: float,
    u: FloatArray,
    tolerance: float = TIGHT,
) -> Mode:
    """Return the mode of the random effects at given parameters.

    Parameters
    ----------
    rows : GeneralizedRows
    beta : (p,) array
        Internal coordinates.
    theta : (n_theta,) array
    delta : float
    u : (q,) array
        Where to begin.
    tolerance : float
        Of the Newton decrement.

    Raises
    ------
    NumericalError
        If there is none that can be found.
    """
    return _Descent(rows, theta, delta, beta).conditional(u, tolerance)


def joint_mode(
    rows: GeneralizedRows,
    beta: FloatArray,
    theta: FloatArray,
    delta: float,
    u: FloatArray,
    tolerance: float,
) -> tuple[FloatArray, FloatArray, int]:
    """Return β and u that maximize the penalized likelihood together, and the steps taken.

    Expected weights throughout: this is for starts, and for models that are fitted this way.

    Parameters
    ----------
    rows : GeneralizedRows
    beta, theta, delta, u
        Where to begin, and at which θ and δ.
    tolerance : float
        Stop when the Newton decrement is below this.
    """
    descent = _Descent(rows, theta, delta, beta)
    u, eta, at, h = descent.started(u)
    template, factors = rows.template, descent.factors
    for step in range(_STEPS):
        weights = at.w
        if not rows.family.canonical:
            weights = rows.family.expected(eta, rows.seen, delta).w
        products, factor = factorized(rows, theta, weights)
        full = rows.with_fixed(products, weights)
        g_u = template.multiply_transposed(factors, rows.grouped(at.s)) - rows.prior.times(u)
        g_beta = rows.Q.transposed_times(at.s)
        border = template.multiply_transposed(factors, full.ZtX)
        solved = factor.solve(np.column_stack([border, g_u]))
        schur = full.XtX - border.T @ solved[:, :-1]
        d_beta = _solved(schur, g_beta - border.T @ solved[:, -1])
        d_u = solved[:, -1] - solved[:, :-1] @ d_beta
        with np.errstate(over="ignore", invalid="ignore"):
            decrement = float(g_u @ d_u + g_beta @ d_beta)
        if decrement < tolerance:
            return descent.beta, u, step + 1
        size = 1.0
        beta = descent.beta
        for _ in range(_HALVINGS):
            descent.beta = beta + size * d_beta
            descent.fixed = rows.fixed_part(descent.beta)
            moved = u + size * d_u
            eta, at, lower = descent.to(moved)
            if lower < h or (decrement < _FLAT * (1.0 + abs(h)) and np.isfinite(lower)):
                break
            size *= 0.5
        else:
            descent.beta = beta
            return beta, u, step + 1
        u, h = moved, lower
    return descent.beta, u, _STEPS


def _solved(A: FloatArray, b: FloatArray) -> FloatArray:
    """A⁻¹b for a matrix that may be (nearly) singular."""
    if not len(b):
        return b
    values, vectors = np.linalg.eigh(0.5 * (A + A.T))
    floor = 1e-12 * max(float(np.abs(values).max()), 1e-300)
    return np.asarray(vectors @ ((vectors.T @ b) / np.maximum(values, floor)))
