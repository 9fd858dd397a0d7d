"""`Fit` with one grouping factor and many responses → their estimates, all searched together."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, ObjectArray
from lmmsparse.engine.covariance.structures import Diagonal, Unstructured
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import side_by_side
from lmmsparse.engine.responses import ManyResponses
from lmmsparse.fit.coordinates import StandardizedObjective, standardizer
from lmmsparse.fit.exact import fits_exactly
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.identification import generic_theta
from lmmsparse.fit.many.criteria import ManyDeviances, SharedDesign
from lmmsparse.fit.many.levels import merge_levels
from lmmsparse.fit.refit import warm_start
from lmmsparse.fit.search import NO_WORSE, SNAP
from lmmsparse.fit.verdict import TOLERANCE, expected_decrease
from lmmsparse.optimize import Bounds, TrustRegion
from lmmsparse.optimize.batched import ManyOptima, minimize_many

_CHUNK = 60_000

BROKEN_DOWN = (
    "The criterion could not be evaluated at the start values. The response may hold values that "
    "are far too large or too small. Check them."
)
FITTED_EXACTLY = (
    "The model fits the response (almost) exactly: what is left for the residuals is lost in "
    "rounding. Check whether the response repeats within groups or was computed from predictors."
)


@dataclass(frozen=True, eq=False)
class Estimates:
    """What is estimated from m responses; NaN where a response has a problem that prevents it.

    Attributes
    ----------
    criterion, sigma : (m,) arrays
    theta : (m, n_theta) array
    beta, se : (m, p) arrays
        Fixed effects and their standard errors.
    converged, singular : (m,) bool arrays
    problem : (m,) array of str
        What went wrong; empty if nothing did.
    """

    criterion: FloatArray
    theta: FloatArray
    sigma: FloatArray
    beta: FloatArray
    se: FloatArray
    converged: BoolArray
    singular: BoolArray
    problem: ObjectArray

    @staticmethod
    def none(m: int, n_theta: int, p: int) -> Estimates:
        """Room for m responses, none of them estimated."""
        return Estimates(
            criterion=np.full(m, np.nan),
            theta=np.full((m, n_theta), np.nan),
            sigma=np.full(m, np.nan),
            beta=np.full((m, p), np.nan),
            se=np.full((m, p), np.nan),
            converged=np.zeros(m, dtype=bool),
            singular=np.zeros(m, dtype=bool),
            problem=np.full(m, "", dtype=object),
        )

    def put(self, where: slice | IntArray, part: Estimates) -> None:
        """Fill in the estimates of some responses."""
        for field in fields(self):
            getattr(self, field.name)[where] = getattr(part, field.name)

    def clear(self, where: BoolArray) -> None:
        """Take back what cannot be trusted."""
        for values in (self.criterion, self.theta, self.sigma, self.beta, self.se):
            values[where] = np.nan
        self.converged[where] = self.singular[where] = False


def not_converged(decrease: float, status: str) -> str:
    """Say that a search ended before the optimum."""
    return (
        "The search has not reached the optimum: the criterion can be expected to fall by another "
        f"{decrease:.2g} ({status}). The estimates may be off. Fit this response by itself."
    )


class BatchedRefits:
    """Refits of a model whose M is block diagonal.

    Parameters
    ----------
    fit : Fit
        One for which `can_batch` is true.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        scaled = StandardizedObjective(fit.objective)
        free = fit.template.free
        map_ = scaled.to_theta(np.eye(fit.template.n_theta))
        self._start = scaled.to_internal(warm_start(fit))
        # θ of the free coordinates, and what is held of it.
        self._map = map_[:, free]
        self._origin = map_[:, ~free] @ self._start[~free]
        self._start = self._start[free]
        place = np.cumsum(free) - 1
        self._mirrors = [[int(place[i]) for i in group] for group in fit.template.mirrors]
        # Random effects of all terms are made orthogonal on average: no collinearity costs digits.
        gram = side_by_side(fit.products, fit.products.blocks).sum(axis=0) / fit.products.n
        J = standardizer(gram)
        sizes = np.sqrt(np.diag(gram))[:, None] * J
        levels = merge_levels(fit.products, J)
        along = np.column_stack([self._origin, self._map])
        D: FloatArray = np.tensordot(along, _derivative(fit.template), axes=(0, 0))
        D = np.asarray(np.linalg.solve(J, D), dtype=np.float64)
        self._shared = SharedDesign(
            fit.products, levels, D[0], D[1:], fit.reml, sizes, fit.held.sigma
        )

    @property
    def part(self) -> int:
        """How many responses at a time leave the arrays small."""
        K, p, L = self._shared.levels.X.shape
        return int(max(1, _CHUNK // (max(K, p) * L)))

    def deviances(self, responses: ManyResponses) -> ManyDeviances:
        """The criteria of responses, in coordinates of what is free of θ."""
        return ManyDeviances(self._shared, responses)

    def coordinates(self, theta: FloatArray) -> FloatArray:
        """θ of m responses, (m, n_theta), in these coordinates, (m, d)."""
        x, *_ = np.linalg.lstsq(self._map, (theta - self._origin).T, rcond=None)
        return np.asarray(x.T)

    def refit(self, responses: ManyResponses) -> Estimates:
        """Refit all responses, so many at a time that the arrays stay small."""
        out = Estimates.none(len(responses), len(self._origin), self._fit.products.p)
        for a in range(0, len(responses), self.part):
            part = slice(a, a + self.part)
            out.put(part, self._together(responses.some(part)))
        return out

    def _together(self, responses: ManyResponses) -> Estimates:
        options = self._fit.optimizer
        if not isinstance(options, TrustRegion):
            raise TypeError("Only the second-order search advances many responses together.")
        m, basis, held = len(responses), self._fit.products.basis, self._fit.held.sigma
        deviances = self.deviances(responses)
        found = minimize_many(deviances, np.tile(self._start, (m, 1)), options)
        x = self._canonical(deviances, found)
        solved = deviances.solutions(x, np.arange(m))
        decrease = _left_to_gain(deviances, found, x)
        theta = self._fit.template.with_held((self._origin + x @ self._map.T + 0.0).T).T
        back = basis.coefficients(np.eye(basis.R.shape[0]))
        variance = np.einsum("ij,jkm,ik->mi", back, solved.inverse, back, optimize=True)
        out = Estimates(
            criterion=solved.value,
            theta=theta,
            sigma=np.sqrt(solved.s2) if held is None else np.where(solved.s2 > 0, held, np.nan),
            beta=(responses.beta0.T + solved.beta) @ back.T,
            se=np.sqrt(solved.s2[:, None] * variance),
            converged=decrease <= np.maximum(TOLERANCE, 1e-13 * np.abs(solved.value)),
            singular=self._singular(theta),
            problem=np.full(m, "", dtype=object),
        )
        for j in np.flatnonzero(~out.converged):
            out.problem[j] = not_converged(float(decrease[j]), found.status[j].value)
        squares = deviances.residual_squares(x, np.arange(m))
        exact = fits_exactly(squares, responses.yty, responses.beta0, self._fit.products.n)
        out.problem[exact] = FITTED_EXACTLY
        out.problem[~np.isfinite(found.value)] = BROKEN_DOWN
        out.clear(~np.isfinite(found.value) | (out.problem == FITTED_EXACTLY))
        return out

    def _canonical(self, deviances: ManyDeviances, found: ManyOptima) -> FloatArray:
        """The optima with diagonals that are not negative, and zero where that costs nothing."""
        x, value = found.x.copy(), found.value.copy()
        for group in self._mirrors:
            below = np.flatnonzero(x[:, group[0]] < 0)
            x[below[:, None], group] *= -1.0
        for group in self._mirrors:
            first, rest = group[0], group[1:]
            small = np.flatnonzero((x[:, first] > 0) & (x[:, first] <= SNAP))
            if not small.size:
                continue
            trial = x[small]
            trial[:, first] = 0.0
            trial[:, rest] = np.where(np.abs(trial[:, rest]) < 1e-6, 0.0, trial[:, rest])
            at_zero = deviances.values(trial, small)
            good = at_zero <= value[small] + NO_WORSE
            x[small[good]], value[small[good]] = trial[good], at_zero[good]
        return x

    def _singular(self, theta: FloatArray) -> BoolArray:
        """`is_singular` of every response."""
        products, template = self._fit.products, self._fit.template
        out = np.zeros(len(theta), dtype=bool)
        own = [pair.values for pair in products.pairs if pair.s == pair.t]
        for t, (structure, part, blocks) in enumerate(
            zip(template.structures, template.slices, own, strict=True)
        ):
            size = np.sqrt(np.einsum("lii->i", blocks) / products.n)
            D = size[:, None] * template.shifted(t, structure.derivative(structure.start()))
            finite = np.isfinite(theta[:, part]).all(axis=1)
            null = _without_variance(theta[finite][:, part], D)
            if template.free[part].all():
                out[finite] |= null > 0
            else:  # what the user's own values leave without variance is no finding
                out[finite] |= null > _without_variance(generic_theta(template)[None, part], D)
        return out


def can_batch(fit: Fit) -> bool:
    """Whether all responses of a model can be searched together."""
    template, structures = fit.template, fit.template.structures
    bounds = Bounds(template.lower, template.upper, template.mirrors)
    return (
        getattr(fit.solver, "level_by_level", False)
        and isinstance(fit.optimizer, TrustRegion)
        and all(isinstance(s, (Unstructured, Diagonal)) for s in structures)
        and fit.products.one_factor
        # Beside an element that is held, a diagonal one may not cross zero.
        and not np.isfinite(np.array(bounds.limits)[:, template.free]).any()
        and fit.problem.away is None  # steps of many searches are not kept off anything
    )


def _without_variance(theta: FloatArray, D: FloatArray) -> IntArray:
    """How many directions do not vary in each of m covariances, from T = Σ θ_i D_i, (m,)."""
    s = np.linalg.svd(np.tensordot(theta, D, axes=1), compute_uv=False)
    return np.asarray(np.sum(s < TOLERANCE, axis=1))


def _left_to_gain(deviances: ManyDeviances, found: ManyOptima, x: FloatArray) -> FloatArray:
    """By how much each criterion can be expected to fall; infinite where that is not known."""
    out = np.nan_to_num(found.expected_decrease, nan=np.inf)
    ask = np.flatnonzero(np.isinf(out) & np.isfinite(found.value))
    if ask.size:
        at = deviances.derivatives(x[ask], ask)
        for i, j in enumerate(ask):
            if at.usable()[i]:
                out[j] = expected_decrease(at.gradient[i], at.hessian[i])
    return out


def _derivative(template: LambdaTemplate) -> FloatArray:
    """∂T/∂θ for the terms side by side, (n_theta, K, K); T is linear in θ."""
    K = sum(structure.k for structure in template.structures)
    D, at = np.zeros((template.n_theta, K, K)), 0
    for t, (structure, part) in enumerate(zip(template.structures, template.slices, strict=True)):
        own = slice(at, at + structure.k)
        D[part, own, own] = template.shifted(t, structure.derivative(structure.start()))
        at += structure.k
    return D
