"""M at one θ, solved by conjugate gradients; log|M| by probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import Modes, PLSSolution, eliminate
from lmmsparse.engine.solvers.krylov.blocks import own_blocks, rough_blocks
from lmmsparse.engine.solvers.krylov.cells import Cells
from lmmsparse.engine.solvers.krylov.deflation import orthonormal
from lmmsparse.engine.solvers.krylov.elimination import Elimination
from lmmsparse.engine.solvers.krylov.probes import Probed, probe


@dataclass(frozen=True)
class Effort:
    """How much is spent on what is left to chance.

    Attributes
    ----------
    probes : int
    vectors : int
        Deflation vectors beside the constants.
    near : tuple of float
        θ at which these are found.
    """

    probes: int
    vectors: int
    near: tuple[float, ...]
    seed: int
    tol: float


class KrylovFactor:
    """`PLSFactor` that solves by conjugate gradients; what it has found out is kept.

    Attributes
    ----------
    T : list of (k, k) arrays
        Of every term.
    """

    def __init__(
        self,
        products: CrossProducts,
        template: LambdaTemplate,
        cells: Cells,
        vectors: FloatArray,
        effort: Effort,
        theta: FloatArray,
    ) -> None:
        self._products, self._template = products, template
        self._effort, self._vectors, self.theta = effort, vectors, theta
        self.T = template.shifted_factors(theta)
        self.M = Elimination(cells, self.T, effort.tol)
        self._probed: Probed | None = None
        self._of_X: tuple[FloatArray, FloatArray] | None = None
        self._of_y: tuple[Response, FloatArray, FloatArray] | None = None
        self._data_steps = 0
        self.last_point: tuple[Any, Any] | None = None

    @property
    def steps(self) -> tuple[int, int]:
        """Of conjugate gradients, for the data and for the probes."""
        return self._data_steps, 0 if self._probed is None else self._probed.steps

    @property
    def probed(self) -> Probed:
        """What probes have said."""
        probed = self._probed
        if probed is None:
            W = orthonormal(self.M, self._vectors)
            probed = self._probed = probe(self.M, W, self._effort.probes, self._effort.seed)
        return probed

    @property
    def logdet(self) -> float:
        return self.M.logdet + float(self.probed.logdet.value)

    def solve(self, b: FloatArray) -> FloatArray:
        return self.M.solve(b.reshape(len(b), -1)).reshape(b.shape)

    def solve_roughly(self, b: FloatArray, tol: float) -> FloatArray:
        """The same to a tolerance."""
        return self.M.solve(b, tol)

    def inverse_blocks(self) -> list[FloatArray]:
        raise OptionError(
            "This needs the inverse of the whole system, of which solver=lmm.Krylov() has no more "
            "than estimates. Fit with an exact solver, for example solver=lmm.Blocked()."
        )

    def rough_blocks(self) -> list[FloatArray]:
        """What stands for `inverse_blocks` where that only has to be about right."""
        own = rough_blocks(self.M)
        return [own[pair.s] if pair.s == pair.t else np.zeros(0) for pair in self._products.pairs]

    def own_blocks(self, terms: Sequence[int]) -> FloatArray:
        """Estimates of M⁻¹'s blocks of every level of terms that share a factor, (levels, K, K)."""
        W = orthonormal(self.M, self._vectors)
        return own_blocks(self.M, W, self._effort.probes, self._effort.seed, terms)

    def solution(self, response: Response) -> PLSSolution:
        """The penalized least-squares problem solved."""
        _, squares = self._solved(response)
        return eliminate(self.logdet, squares, self._products, response)

    def effects(self, response: Response) -> tuple[FloatArray, FloatArray]:
        """U = M⁻¹Λ'Z'W[X e] and Z'V⁻¹[X e], (q, p + 1) each."""
        U = self._solved(response)[0]
        right = np.column_stack([self._products.ZtX, response.Zty])
        return U, right - self.M.cells.times(self._template.multiply(self.T, U))

    def modes(self, response: Response) -> Modes:
        """The solution with the conditional modes."""
        solution, (U, V) = self.solution(response), self.effects(response)
        u = U[:, -1] - U[:, :-1] @ solution.beta
        v = V[:, -1] - V[:, :-1] @ solution.beta
        return Modes(solution, self, u, self._template.multiply(self.T, u), v)

    def _solved(self, response: Response) -> tuple[FloatArray, FloatArray]:
        last = self._of_y  # other threads may put another in its place
        if last is None or last[0] is not response:
            last = self._of_y = (response, *self._solve_for(response))
        return last[1:]

    def _solve_for(self, response: Response) -> tuple[FloatArray, FloatArray]:
        template, T = self._template, self.T
        right = np.column_stack([self._products.ZtX, response.Zty])
        c = template.multiply_transposed(T, right)
        of_X = self._of_X
        if of_X is None:
            U, squares = self.M.solve_with_squares(c)
            self._data_steps = self.M.steps
            self._of_X = U[:, :-1], squares[:-1, :-1]
            return U, squares
        U_X, squares_X = of_X
        u, square = self.M.solve_with_squares(np.ascontiguousarray(c[:, -1:]))
        p = U_X.shape[1]
        squares = np.empty((p + 1, p + 1))
        squares[:p, :p], squares[p, p] = squares_X, square[0, 0]
        squares[:p, p] = squares[p, :p] = 0.5 * (U_X.T @ c[:, p] + c[:, :p].T @ u[:, 0])
        return np.column_stack([U_X, u]), squares
