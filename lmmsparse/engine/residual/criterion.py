"""(θ, φ) → the criterion with residuals of covariance σ²R(φ), and its exact gradient.

At a φ the criterion is that of `ProfiledDeviance` on cross-products with R⁻¹. Its slope in φ comes
from the change of these products and the same blocks of M⁻¹: nothing of size n appears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.linalg import solve_triangular
from lmmsparse.engine.residual.sets import CrossSets, Weights, inverse_of_b, weights_of
from lmmsparse.engine.solvers.base import PLSSolver, PLSSystem


@dataclass(frozen=True, eq=False)
class JointDeviance:
    """−2 log-likelihood (or restricted likelihood) as a function of θ and φ.

    Parameters
    ----------
    held_sigma : float, optional
        σ, where it is not profiled out but held.

    Notes
    -----
    d(θ, φ) is `ProfiledDeviance`'s with R⁻¹ for W and log|R| for −Σ log w. With
    D = ΛM⁻¹Λ', U = DZ'R⁻¹X, C = (X'V⁻¹X)⁻¹ and the residual y − Xβ − Zb its derivative by φ is
    ∂log|R| + ⟨D + UCU' + bb'/s², Z'∂R⁻¹Z⟩ + ⟨−2UC + 2bβ'/s², Z'∂R⁻¹X⟩ + … , C only for REML: a
    linear function of the changes of all cross-products.
    """

    sets: CrossSets
    system: PLSSystem
    template: LambdaTemplate
    reml: bool
    held_sigma: float | None = None

    @classmethod
    def of(
        cls,
        sets: CrossSets,
        solver: PLSSolver,
        template: LambdaTemplate,
        reml: bool,
        held_sigma: float | None = None,
    ) -> JointDeviance:
        """The criterion of a model on the linear algebra of `solver`."""
        products, _ = sets.products(sets.structure.starts[0])
        return cls(sets, solver.build(products, template), template, reml, held_sigma)

    @property
    def n_phi(self) -> int:
        return self.sets.structure.n_phi

    def with_reml(self, reml: bool) -> JointDeviance:
        """The other criterion of the same model."""
        return replace(self, reml=reml)

    def with_sets(self, sets: CrossSets) -> JointDeviance:
        """The same model for another response."""
        return replace(self, sets=sets)

    def at(self, phi: FloatArray) -> ProfiledDeviance:
        """The criterion as a function of θ with φ held."""
        if not np.isfinite(phi).all():
            raise NumericalError("The parameters of the residuals are not finite.")
        products, response = self.sets.products(phi)
        system = self.system.with_products(products)
        return ProfiledDeviance(
            system, self.template, products, response, self.reml, self.held_sigma
        )

    def __call__(self, theta: FloatArray, phi: FloatArray) -> float:
        """The criterion at θ and φ."""
        return self.at(phi)(theta)

    def gradient(
        self,
        theta: FloatArray,
        phi: FloatArray,
        directions: Sequence[FloatArray | None] | None = None,
        sigma2: float | None = None,
    ) -> FloatArray:
        """The derivatives by θ, then φ; with `sigma2` given, of the criterion with σ² held there.

        Parameters
        ----------
        directions : sequence of (parameters, k, k) arrays or None, optional
            As for `ProfiledDeviance.derivatives`.
        """
        at = self.at(phi)
        own = at.gradient(theta, sigma2, directions)
        return np.concatenate([own, self.slope(at, theta, phi, sigma2)])

    def slope(
        self,
        at: ProfiledDeviance,
        theta: FloatArray,
        phi: FloatArray,
        sigma2: float | None = None,
        shift: tuple[FloatArray, FloatArray] | None = None,
    ) -> FloatArray:
        """The derivative by φ, (n_phi,).

        Parameters
        ----------
        at : ProfiledDeviance
            The criterion at φ, maybe on some directions of the internal columns only.
        shift : (p, m) and (p,) arrays, optional
            These directions N and a point c of the plane of β: β = c + N times what `at` solves
            for. By maximum likelihood only.
        """
        if not len(phi):
            return np.zeros(0)
        by = self._weights(at, theta, sigma2, shift)
        return self.sets.structure.logdet(phi)[1] + self.sets.gradient(phi, by)

    def _weights(
        self,
        at: ProfiledDeviance,
        theta: FloatArray,
        sigma2: float | None,
        shift: tuple[FloatArray, FloatArray] | None,
    ) -> Weights:
        """The derivative of the criterion by every cross-product."""
        products, template = at.products, self.template
        modes = at.modes(theta)
        beta, b = modes.solution.beta, modes.b
        if shift is not None:
            beta = shift[1] + shift[0] @ beta
        s2 = at.sigma2(modes.solution) if sigma2 is None else sigma2
        T = template.shifted_factors(np.asarray(theta, dtype=np.float64))
        D = inverse_of_b(self.sets.patterns, T, modes.factor.inverse_blocks())
        p, q = products.p, products.q
        bs = (b / s2)[:, None]
        left, right = bs, b[:, None]
        of_X, of_ZX = np.outer(beta, beta) / s2, 2.0 * bs * beta
        if self.reml and p:
            root = solve_triangular(modes.solution.RX, np.eye(p))
            solved = modes.factor.solve(template.multiply_transposed(T, products.ZtX))
            half = template.multiply(T, solved) @ root if q else np.zeros((0, p))
            left, right = np.column_stack([left, half]), np.column_stack([right, half])
            of_X += root @ root.T
            of_ZX -= 2.0 * half @ root.T
        of_Z = weights_of(self.sets.patterns, self.sets.offsets, self.sets.sizes, D, left, right)
        return Weights(of_Z, of_ZX, of_X, -2.0 * b / s2, -2.0 * beta / s2, 1.0 / s2)

    def information_slopes(self, theta: FloatArray, phi: FloatArray) -> FloatArray:
        """∂(X'V⁻¹X)/∂φ in internal columns of X, (n_phi, p, p)."""
        at = self.at(phi)
        products, template = at.products, self.template
        modes, T = at.modes(theta), template.shifted_factors(theta)
        solved = modes.factor.solve(template.multiply_transposed(T, products.ZtX))
        U = template.multiply(T, solved)
        out = np.empty((len(phi), products.p, products.p))
        for i, slope in enumerate(self.sets.slopes(phi)):
            cross = slope.ZtX.T @ U
            out[i] = slope.XtX - cross - cross.T + U.T @ slope.times(U)
        return out
