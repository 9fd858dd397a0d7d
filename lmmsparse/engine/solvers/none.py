"""No random effects → generalized least squares: what is left of a `PLSSystem` without levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import PLSSolution, eliminate


class NoFactor:
    """`PLSFactor` of a matrix without rows."""

    logdet = 0.0

    def solve(self, b: FloatArray) -> FloatArray:
        return b

    def inverse_blocks(self) -> list[FloatArray]:
        return []


class NoPoint:
    """`Point` of a model without random effects."""

    def __init__(
        self, theta: FloatArray, solution: PLSSolution, products: CrossProducts, s2: float
    ) -> None:
        self.theta, self.solution, self.s2 = theta, solution, s2
        self.T: list[FloatArray] = []
        self._p = products.p

    @property
    def VX(self) -> FloatArray:
        return np.zeros((0, self._p))

    @property
    def FT(self) -> list[FloatArray]:
        return []

    def pwrss_gradient(self, directions: Sequence[FloatArray]) -> FloatArray:
        return np.zeros(0)

    def squares(self, directions: Sequence[FloatArray]) -> FloatArray:
        return np.zeros((0, 0))

    def traces(self, directions: Sequence[FloatArray]) -> FloatArray:
        return np.zeros((0, 0))

    def moment_estimate(self) -> FloatArray | None:
        return None


@dataclass(frozen=True, eq=False)
class NoSystem:
    """`PLSSystem` of a model without random effects."""

    products: CrossProducts

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        p = self.products.p
        return eliminate(0.0, np.zeros((p + 1, p + 1)), self.products, response)

    def factor(self, theta: FloatArray) -> NoFactor:
        return NoFactor()

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> NoPoint:
        solution = self.solve(theta, response)
        s2 = solution.pwrss / self.products.df(reml) if sigma2 is None else sigma2
        return NoPoint(theta, solution, self.products, s2)

    def with_products(self, products: CrossProducts) -> NoSystem:
        return replace(self, products=products)

    def describe(self) -> str:
        return "generalized least squares, no random effects"


@dataclass(frozen=True)
class NoEffects:
    """Linear algebra of a model without random effects."""

    def build(self, products: CrossProducts, template: LambdaTemplate) -> NoSystem:
        return NoSystem(products)
