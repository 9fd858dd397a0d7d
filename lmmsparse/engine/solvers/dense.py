"""Cross-products → the penalized least-squares problem with dense matrices: the definition.

Slow on purpose and short on purpose; every other solver is tested against this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import checked_construction
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.points import GeneralPoint
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import PLSSolution, eliminate


@checked_construction
@dataclass(frozen=True)
class Dense:
    """Dense Cholesky factorization of M: right for a few hundred random effects.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> sleepstudy = lmm.load_dataset("sleepstudy")
    >>> m = lmm.lmer("Reaction ~ Days + (Days | Subject)", sleepstudy, solver=lmm.Dense())
    >>> round(m.reml_criterion, 4)
    1743.6283
    """

    known_covariances: ClassVar[bool] = True

    def build(self, products: CrossProducts, template: LambdaTemplate) -> DenseSystem:
        """Prepare the linear algebra of one model."""
        return DenseSystem(products, template)


class DenseSystem:
    """`PLSSystem` on dense matrices."""

    def __init__(self, products: CrossProducts, template: LambdaTemplate) -> None:
        self._products = products
        self._template = template
        self._ZtZ = products.ZtZ.toarray()
        self._Q = products.prior.dense(products.q)

    def describe(self) -> str:
        return f"dense Cholesky, q = {self._products.q}"

    def _Lambda(self, theta: FloatArray) -> FloatArray:
        template = self._template
        return np.asarray(template.block_diagonal(template.shifted_factors(theta)).toarray())

    def _cholesky(self, theta: FloatArray) -> FloatArray:
        Lambda = self._Lambda(theta)
        M = Lambda.T @ self._ZtZ @ Lambda + self._Q
        return np.linalg.cholesky(M)

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        L = self._cholesky(theta)
        Lambda = self._Lambda(theta)
        border = Lambda.T @ np.column_stack([self._products.ZtX, response.Zty])
        C = sla.solve_triangular(L, border, lower=True)
        return eliminate(2 * float(np.log(np.diag(L)).sum()), C.T @ C, self._products, response)

    def factor(self, theta: FloatArray) -> DenseFactor:
        return DenseFactor(self._cholesky(theta), self._products)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> GeneralPoint:
        return GeneralPoint(self, self._products, self._template, theta, response, reml, sigma2)

    def with_products(self, products: CrossProducts) -> DenseSystem:
        return DenseSystem(products, self._template)


class DenseFactor:
    """`PLSFactor` on a dense matrix."""

    def __init__(self, L: FloatArray, products: CrossProducts) -> None:
        self._L = L
        self._products = products

    @property
    def logdet(self) -> float:
        return 2.0 * float(np.log(np.diag(self._L)).sum())

    def solve(self, b: FloatArray) -> FloatArray:
        return np.asarray(sla.cho_solve((self._L, True), b, check_finite=False))

    def inverse_blocks(self) -> list[FloatArray]:
        inverse = self.solve(np.eye(self._products.q))
        return [inverse[self._products.coordinates(pair)] for pair in self._products.pairs]
