"""Cross-products → the penalized least-squares problem by conjugate gradients and probes."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import Modes, PLSSolution
from lmmsparse.engine.solvers.krylov.cells import Cells
from lmmsparse.engine.solvers.krylov.deflation import constants, orthonormal, ritz_vectors
from lmmsparse.engine.solvers.krylov.elimination import Elimination
from lmmsparse.engine.solvers.krylov.factor import Effort, KrylovFactor
from lmmsparse.engine.solvers.krylov.point import KrylovPoint
from lmmsparse.engine.solvers.krylov.probes import probe

_PILOT = 12
_SAME = 4e-15  # what θ may lose on its way through other coordinates


class KrylovSystem:
    """`PLSSystem` that solves by conjugate gradients and estimates log|M| by probes.

    The last θ is kept with all that is known there.
    """

    def __init__(
        self,
        products: CrossProducts,
        template: LambdaTemplate,
        effort: Effort,
        cells: Cells | None = None,
    ) -> None:
        self.products, self.template, self.effort = products, template, effort
        self.cells = Cells(products) if cells is None else cells
        self._vectors = self._deflation_vectors()
        self._last: tuple[FloatArray, KrylovFactor] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (KrylovSystem, (self.products, self.template, self.effort))

    def _deflation_vectors(self) -> FloatArray:
        known, effort = constants(self.cells), self.effort
        if not effort.vectors or len(effort.near) != self.template.n_theta:
            return known
        T = self.template.shifted_factors(np.array(effort.near))
        M = Elimination(self.cells, T, effort.tol)
        more = ritz_vectors(M, known, effort.vectors, effort.seed)
        return np.concatenate([known, more], axis=1)

    def by(self, solver: Any) -> KrylovSystem:
        return KrylovSystem(self.products, self.template, solver.effort, self.cells)

    def logdet_sd(self, theta: FloatArray) -> float:
        return self.factor(theta).probed.logdet_sd(self.effort.probes)

    def pilot_sd(self, theta: FloatArray) -> float:
        M = Elimination(self.cells, self.template.shifted_factors(theta), self.effort.tol)
        found = probe(M, orthonormal(M, self._vectors), _PILOT, self.effort.seed)
        return found.logdet_sd(self.effort.probes)

    def with_products(self, products: CrossProducts) -> KrylovSystem:
        return KrylovSystem(products, self.template, self.effort)

    def describe(self) -> str:
        effort, cells = self.effort, self.cells
        text = (
            f"elimination of {cells.n_levels} levels with {cells.width} effects each; core of "
            f"{cells.n_core} by conjugate gradients, its log-determinant by {effort.probes} probes "
            f"and {self._vectors.shape[1]} deflation vectors"
        )
        last = self._last  # other threads may put another in its place
        if last is not None and last[1].steps[0]:
            text += "; {} steps for the data, {} for the probes".format(*last[1].steps)
        return text

    def factor(self, theta: FloatArray) -> KrylovFactor:
        last = self._last  # other threads may put another in its place
        if last is None or not np.allclose(last[0], theta, rtol=_SAME, atol=0.0):
            theta = np.array(theta)
            parts = self.products, self.template, self.cells, self._vectors, self.effort
            last = self._last = (theta, KrylovFactor(*parts, theta))
        return last[1]

    def solve(self, theta: FloatArray, response: Response) -> PLSSolution:
        return self.factor(theta).solution(response)

    def modes(self, theta: FloatArray, response: Response) -> Modes:
        """The solution at θ with the conditional modes."""
        return self.factor(theta).modes(response)

    def point(
        self, theta: FloatArray, response: Response, reml: bool, sigma2: float | None = None
    ) -> KrylovPoint:
        key, factor = (response, reml, sigma2), self.factor(theta)
        last = factor.last_point  # a search and what follows ask for the same one
        if last is None or last[0][0] is not response or last[0][1:] != key[1:]:
            point = KrylovPoint(factor, self.products, self.template, response, reml, sigma2)
            last = factor.last_point = key, point
        return last[1]
