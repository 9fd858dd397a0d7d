"""ML fit and one fixed effect → the least deviance with it held: its column joins the offset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.profile.search import Point, minimize


@dataclass(frozen=True, eq=False)
class FixedEffect:
    """One fixed effect held: its column moves into the offset.

    Parameters
    ----------
    fit : Fit
        Fitted by maximum likelihood.
    """

    fit: Fit
    column: int
    lower: float = -np.inf
    upper: float = np.inf
    closed: bool = False

    @cached_property
    def _split(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The other columns in the internal basis: X₋ = Q G R₋ and x = Q (G c + g ρ)."""
        R = self.fit.products.basis.R
        G, triangle = np.linalg.qr(np.delete(R, self.column, axis=1), mode="complete")
        return G, triangle[:-1], G.T @ R[:, self.column]

    @cached_property
    def _held(self) -> ProfiledDeviance:
        """The model without the column."""
        fit, (G, triangle, _) = self.fit, self._split
        products, G = fit.products, G[:, :-1]
        diagonal = np.abs(np.diag(triangle))
        basis = replace(products.basis, R=triangle, logdet=float(2 * np.log(diagonal).sum()))
        smaller = replace(products, ZtX=products.ZtX @ G, XtX=G.T @ products.XtX @ G, basis=basis)
        system = fit.solver.build(smaller, fit.template)
        return replace(fit.objective, system=system, products=smaller)

    def _at(self, value: float) -> ProfiledDeviance:
        old, (G, _, c) = self.fit.objective.response, self._split
        products = self.fit.products
        # The residual of y − value·x on X₋ is that of y on X plus κ times a unit vector.
        beta0 = G.T @ old.beta0 - value * c
        kappa, unit = float(beta0[-1]), G[:, -1]
        response = replace(
            old,
            Zty=old.Zty + kappa * (products.ZtX @ unit),
            Xty=G[:, :-1].T @ old.Xty,
            yty=old.yty + kappa * kappa + 2.0 * kappa * float(unit @ old.Xty),
            beta0=beta0[:-1],
        )
        return self._held.with_response(response)

    @property
    def scale(self) -> float:
        return 0.25 * float(np.sqrt(self.fit.vcov[self.column, self.column]))

    def best(self) -> Point:
        scaled = StandardizedObjective(self.fit.objective)
        value = float(self.fit.beta[self.column])
        return Point(value, self.fit.criterion, scaled.to_internal(self.fit.theta))

    def solve(self, value: float, x: FloatArray) -> Point:
        scaled = StandardizedObjective(self._at(value))
        return replace(minimize(scaled, x, scaled.bounds), value=value)

    def estimates(self, point: Point) -> tuple[FloatArray, float, FloatArray]:
        objective = self._at(point.value)
        theta = StandardizedObjective(objective).to_theta(point.x)
        solution = objective.solution(theta)
        internal = objective.response.beta0 + solution.beta
        beta = objective.products.basis.coefficients(internal)
        sigma = float(np.sqrt(objective.sigma2(solution)))
        return theta, sigma, np.insert(beta, self.column, point.value)
