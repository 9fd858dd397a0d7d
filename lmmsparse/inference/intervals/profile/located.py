"""An ML criterion with its optimum, and the same with the effects of a term in another order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.structures import CovarianceStructure
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.intervals.profile.search import (
    Point,
    SigmaHeld,
    minimize,
    minimize_on_plane,
)


@dataclass(frozen=True, eq=False)
class Located:
    """An ML criterion and its optimum.

    Attributes
    ----------
    theta : (n_theta,) array
    term : int
        The one that the parameter belongs to.
    back : tuple of int
        Where each effect of the term stands in the fit's own order; empty if there.
    """

    objective: ProfiledDeviance
    theta: FloatArray
    term: int = 0
    back: tuple[int, ...] = ()

    @cached_property
    def scaled(self) -> StandardizedObjective:
        return StandardizedObjective(self.objective)

    @property
    def x(self) -> FloatArray:
        """The optimum in the coordinates of the search."""
        return self.scaled.to_internal(self.theta)

    @property
    def unit(self) -> FloatArray:
        return np.eye(len(self.theta))

    @cached_property
    def sigma(self) -> float:
        """σ at the optimum."""
        return float(np.sqrt(self.objective.sigma2(self.objective.solution(self.theta))))

    @property
    def template(self) -> LambdaTemplate:
        return self.objective.template

    @property
    def structure(self) -> CovarianceStructure:
        return self.template.structures[self.term]

    @property
    def part(self) -> slice:
        return self.template.slices[self.term]

    def optimum(self, value: float) -> Point:
        return Point(value, self.objective(self.theta), self.x)

    def on_plane(self, C: FloatArray, x: FloatArray, origin: FloatArray | None = None) -> Point:
        return minimize_on_plane(self.scaled, C, x, origin)

    def with_sigma(self, held: SigmaHeld, value: float, x: FloatArray) -> Point:
        return replace(minimize(held, x, self.scaled.bounds), value=value)

    def estimates(
        self, point: Point, sigma: float | None = None
    ) -> tuple[FloatArray, float, FloatArray]:
        """θ in the order of the fit, σ and β; with `sigma` given, σ is no function of θ alone."""
        theta = self.scaled.to_theta(point.x)
        solution = self.objective.solution(theta)
        if sigma is None:
            sigma = float(np.sqrt(self.objective.sigma2(solution)))
        internal = self.objective.response.beta0 + solution.beta
        beta = self.objective.products.basis.coefficients(internal)
        if self.back:
            theta = theta.copy()
            theta[self.part] = turned(self.structure.factor(theta[self.part]), self.back)
        return theta, sigma, beta


def turned(T: FloatArray, order: tuple[int, ...]) -> FloatArray:
    """The parameters of an unstructured term with effect i of the result being order[i] of T."""
    k = len(order)
    R = np.asarray(np.linalg.qr(T[list(order)].T, mode="r"))
    L = R.T * np.where(np.diag(R) < 0, -1.0, 1.0)
    return np.concatenate([L[c:, c] for c in range(k)])


def reordered(fit: Fit, term: int, order: tuple[int, ...]) -> Located:
    """The criterion and its optimum with the effects of a term in another order."""
    if order == tuple(range(len(order))):
        return Located(fit.objective, fit.theta, term, order)
    products, response, template = fit.products, fit.objective.response, fit.template
    take, part = list(order), template.slices[term]
    theta = fit.theta.copy()
    theta[part] = turned(template.structures[term].factor(theta[part]), order)
    a, z = template.offsets[term], template.offsets[term + 1]
    rows = np.arange(products.q)
    rows[a:z] = rows[a:z].reshape(-1, len(take))[:, take].ravel()
    pairs = []
    for pair in products.pairs:
        values = pair.values
        if pair.s == term:
            values = values[:, take, :]
        if pair.t == term:
            values = values[:, :, take]
        pairs.append(replace(pair, values=np.ascontiguousarray(values)))
    moved = replace(products, pairs=tuple(pairs), ZtX=products.ZtX[rows])
    shifts = list(template.shifts)
    own = shifts[term]
    if own is not None:
        shifts[term] = own[np.ix_(take, take)]
        template = replace(template, shifts=tuple(shifts))
    objective = replace(
        fit.objective,
        template=template,
        system=fit.solver.build(moved, template),
        products=moved,
        response=replace(response, Zty=response.Zty[rows]),
    )
    return Located(objective, theta, term, tuple(int(i) for i in np.argsort(order)))
