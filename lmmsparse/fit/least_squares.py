"""`Design` without random effects → its weighted least-squares fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.design import Design


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """A linear model.

    Attributes
    ----------
    beta : (p,) array
    R : (p, p) array
        Triangular factor of √w X.
    squares : float
        Weighted sum of squared residuals.
    known_sigma : float or None
        The residual standard deviation, if it is not estimated.
    log_weights : float
        Σ log w.
    """

    design: Design
    beta: FloatArray
    R: FloatArray
    squares: float
    known_sigma: float | None = None
    log_weights: float = 0.0

    @property
    def npar(self) -> int:
        return self.design.p + (self.known_sigma is None)

    @property
    def df(self) -> int:
        return self.design.n - self.design.p

    def sigma2(self, reml: bool = True) -> float:
        """The residual variance; without `reml`, the one that maximizes the likelihood."""
        if self.known_sigma is not None:
            return self.known_sigma**2
        return self.squares / (self.df if reml else self.design.n)

    def covariance(self) -> FloatArray:
        """Of the coefficients, (p, p)."""
        inverse = sla.solve_triangular(self.R, np.eye(len(self.R)))
        return np.asarray(self.sigma2() * inverse @ inverse.T)

    def criterion(self, reml: bool) -> float:
        """Deviance or REML criterion."""
        df, sigma2 = self.df if reml else self.design.n, self.sigma2(reml)
        value = df * np.log(2.0 * np.pi * sigma2) + self.squares / sigma2
        value -= self.log_weights
        if reml:
            value += 2.0 * float(np.sum(np.log(np.abs(np.diag(self.R)))))
        return float(value)


def least_squares(design: Design, sigma: float | None = None) -> LeastSquares:
    """Fit a linear model, with σ known or not."""
    if design.facts is not None:
        products, response = design.facts.products, design.facts.response
        R, squares = products.basis.R, response.yty
        beta = products.basis.coefficients(response.beta0)
        return LeastSquares(design, beta, R, squares, sigma, products.sum_log_weights)
    root = np.sqrt(design.weights_or_one)
    y = root * (design.y - design.offset_or_zero)
    Q, R = np.linalg.qr(root[:, None] * design.X)
    along = Q.T @ y
    squares = float(np.sum((y - Q @ along) ** 2))
    log_weights = float(np.sum(np.log(design.weights_or_one)))
    return LeastSquares(design, sla.solve_triangular(R, along), R, squares, sigma, log_weights)
