"""`Fit` with one grouping factor and many responses → their estimates, all searched together."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from lmmsparse._types import BoolArray, FloatArray, IntArray, ObjectArray
from lmmsparse.batched_objective import ManyDeviances, SharedDesign
from lmmsparse.convergence import NOTHING_LEFT, TOLERANCE, expected_decrease
from lmmsparse.covariance import Diagonal, LambdaTemplate, Unstructured
from lmmsparse.fit import Fit
from lmmsparse.merged_levels import level_blocks, merge_levels
from lmmsparse.optimize import TrustRegion
from lmmsparse.optimize.batched import ManyOptima, minimize_many
from lmmsparse.refit import warm_start
from lmmsparse.responses import ManyResponses
from lmmsparse.search import NO_WORSE, SNAP, StandardizedObjective, standardizer
from lmmsparse.solvers.blocked import Blocked, lead_terms

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
        self._map = scaled.to_theta(np.eye(fit.template.n_theta))
        self._start = scaled.to_internal(warm_start(fit))
        # Random effects of all terms are made orthogonal on average: no collinearity costs digits.
        J = standardizer(level_blocks(fit.products).sum(axis=0) / fit.products.n)
        levels = merge_levels(fit.products, J)
        D = np.linalg.solve(J, np.tensordot(self._map, _derivative(fit.template), axes=(0, 0)))
        self._shared = SharedDesign(fit.products, levels, np.asarray(D, dtype=np.float64), fit.reml)

    def refit(self, responses: ManyResponses) -> Estimates:
        """Refit all responses, so many at a time that the arrays stay small."""
        out = Estimates.none(len(responses), len(self._start), self._fit.products.p)
        K, p, L = self._shared.levels.X.shape
        size = max(1, _CHUNK // (max(K, p) * L))
        for a in range(0, len(responses), size):
            part = slice(a, a + size)
            out.put(part, self._together(responses.some(part)))
        return out

    def _together(self, responses: ManyResponses) -> Estimates:
        options = self._fit.optimizer
        if not isinstance(options, TrustRegion):
            raise TypeError("Only the second-order search advances many responses together.")
        m, basis = len(responses), self._fit.products.basis
        deviances = ManyDeviances(self._shared, responses)
        found = minimize_many(deviances, np.tile(self._start, (m, 1)), options)
        x = self._canonical(deviances, found)
        solved = deviances.solutions(x, np.arange(m))
        decrease = _left_to_gain(deviances, found, x)
        theta = x @ self._map.T + 0.0
        sigma2 = solved.pwrss / self._shared.df
        back = basis.coefficients(np.eye(basis.R.shape[0]))
        variance = np.einsum("ij,jkm,ik->mi", back, solved.inverse, back, optimize=True)
        out = Estimates(
            criterion=solved.value,
            theta=theta,
            sigma=np.sqrt(sigma2),
            beta=(responses.beta0.T + solved.beta) @ back.T,
            se=np.sqrt(sigma2[:, None] * variance),
            converged=decrease <= np.maximum(TOLERANCE, 1e-13 * np.abs(solved.value)),
            singular=self._singular(theta),
            problem=np.full(m, "", dtype=object),
        )
        for j in np.flatnonzero(~out.converged):
            out.problem[j] = not_converged(float(decrease[j]), found.status[j].value)
        out.problem[~(solved.pwrss / responses.yty >= NOTHING_LEFT)] = FITTED_EXACTLY
        out.problem[~np.isfinite(found.value)] = BROKEN_DOWN
        out.clear(~np.isfinite(found.value) | (out.problem == FITTED_EXACTLY))
        return out

    def _canonical(self, deviances: ManyDeviances, found: ManyOptima) -> FloatArray:
        """The optima with diagonals that are not negative, and zero where that costs nothing."""
        x, value = found.x.copy(), found.value.copy()
        for group in self._fit.template.mirrors:
            below = np.flatnonzero(x[:, group[0]] < 0)
            x[below[:, None], list(group)] *= -1.0
        for group in self._fit.template.mirrors:
            first, rest = group[0], list(group[1:])
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
            D = template.shifted(t, structure.derivative(structure.start()))
            T = size[:, None] * np.tensordot(theta[:, part], D, axes=1)
            finite = np.isfinite(T).all(axis=(1, 2))
            out[finite] |= np.linalg.svd(T[finite], compute_uv=False)[:, -1] < TOLERANCE
        return out


def can_batch(fit: Fit) -> bool:
    """Whether all responses of a model can be searched together."""
    structures = fit.template.structures
    return (
        isinstance(fit.solver, Blocked)
        and isinstance(fit.optimizer, TrustRegion)
        and all(isinstance(s, (Unstructured, Diagonal)) for s in structures)
        and len(lead_terms(fit.products)) == len(structures)
    )


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
