"""`Fit` → a verdict: whether this is the optimum, whether it is singular, what follows.

The verdict is scale-free: by how many units the criterion could still decrease, according to its
exact gradient and its Hessian at the estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.calls import not_called
from lmmsparse.common.errors import Finding
from lmmsparse.common.render import Section, Shown
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.exact import fits_exactly
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.not_identified import undetermined_terms
from lmmsparse.fit.singular import is_singular, singular_finding
from lmmsparse.fit.start import LOST, is_lost
from lmmsparse.optimize import (
    Derivatives,
    Objective,
    Optimum,
    Status,
    nlopt_missing,
    second_by_differences,
)

TOLERANCE = 1e-4
RECENT = 20
_CARRIES_A_MEAN = (
    "Usually random effects carry a mean for which there is no fixed effect. Add the fixed effects "
    "of all random effects, or simplify the random effects."
)
_WITHOUT_NLOPT = " Two searches that need the package nlopt were not tried: pip install nlopt."
_EPS = float(np.finfo(np.float64).eps)


@not_called("The verdict is a member, not a method. Write m.convergence without parentheses.")
@dataclass(frozen=True, eq=False, repr=False)
class Convergence(Shown):
    """The verdict on a fit.

    Attributes
    ----------
    converged : bool
        Whether the criterion cannot be lowered noticeably from here.
    singular : bool
        Whether some random-effects covariance is not of full rank.
    expected_decrease : float
        How much a Newton step promises to lower the criterion (−2 log-likelihood units).
    status : str
        How the search ended, in words.
    evaluations : int
        Evaluations of the criterion.
    findings : tuple of Finding
        Everything noticed about data, design and fit.
    further_evaluations : int
        Evaluations of searches from other starts, which led to no lower criterion.
    """

    converged: bool
    singular: bool
    expected_decrease: float
    status: str
    evaluations: int
    findings: tuple[Finding, ...]
    further_evaluations: int = 0

    @property
    def section(self) -> Section:
        """The verdict in one line and what was found below it."""
        verdict = "converged" if self.converged else "not converged"
        shape = " (singular)" if self.singular else ""
        more = self.further_evaluations
        further = f", {more} more from further starts" if more else ""
        title = (
            f"{verdict}{shape}; expected further decrease of the criterion "
            f"{max(0.0, self.expected_decrease):.1e}; {self.evaluations} evaluations{further}"
        )
        return Section(title, lines=tuple(f"- {finding}" for finding in self.findings))

    @property
    def _sections(self) -> tuple[Section, ...]:
        return (self.section,)


def expected_decrease(gradient: FloatArray, hessian: FloatArray) -> float:
    """½ g'H⁻¹g over directions of positive curvature.

    Directions without curvature count by what a unit step along them would bring, so that a slope
    on which the criterion falls without end is never mistaken for a minimum.
    """
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    scale = max(1.0, float(np.abs(values).max()))
    curved = values > 1e-10 * scale
    newton = 0.5 * float(np.sum(along[curved] ** 2 / values[curved]))
    return newton + float(np.sum(np.abs(along[~curved])))


def decrease_by_derivatives(fit: Fit) -> float:
    """How much lower the criterion can get, by its gradient and exact second derivatives.

    They are taken in charts, where no point is singular; where correlations are parameters with
    limits or something is held, in standardized coordinates, of those that are free to move.
    """
    scaled = StandardizedObjective(fit.objective, fit.problem.away)
    x, bounds = scaled.to_internal(fit.theta), scaled.bounds
    charted = bool(np.all(np.isinf(bounds.limits)))
    target: Objective = scaled.charted() if charted else scaled
    at = target.derivatives(x).with_second()
    hessian = at.exact
    if hessian is None:
        hessian = second_by_differences(target.derivatives, x, at, bounds)
    if hessian is None:
        hessian = at.hessian
    if charted:
        return expected_decrease(at.gradient, hessian) + _fall_from_saddle(target, x, at, hessian)
    free = bounds.free(x, at.gradient) & fit.template.free
    return expected_decrease(at.gradient[free], hessian[np.ix_(free, free)])


def _fall_from_saddle(
    objective: Objective, x: FloatArray, at: Derivatives, hessian: FloatArray
) -> float:
    """How far the criterion falls along its most negative curvature, where the slope may be zero.

    A search that keeps to bounds can stop at such a point: where variances are zero, the criterion
    is even in the columns of T, and its gradient vanishes.
    """
    values, vectors = np.linalg.eigh(hessian)
    if not len(values) or values[0] > -1e-6 * max(1.0, float(np.abs(values).max())):
        return 0.0
    ways = [sign * step * vectors[:, 0] for sign in (1, -1) for step in (0.01, 0.1, 0.3, 1, 3)]
    return max(0.0, *(at.value - objective(at.moved(x, way)) for way in ways))


def recent_fall(optimum: Optimum) -> float | None:
    """How much the last `RECENT` evaluations have lowered the criterion; None if not known."""
    values = np.minimum.accumulate(optimum.trace[:, -1])
    return float(values[-RECENT] - values[-1]) if len(values) >= RECENT else None


def _not_converged(fit: Fit, decrease: float) -> Finding:
    optimum = fit.optimum
    fall = recent_fall(optimum) if optimum.status is Status.MAX_EVALUATIONS else None
    expected = f"the criterion can be expected to fall by another {decrease:.2g}"
    if fall is not None:
        expected += f"; the last {RECENT} evaluations lowered it by {fall:.2g}"
    return Finding(
        "not-converged",
        "warning",
        f"The search has not reached the optimum: {expected} "
        f"({optimum.optimizer}: {optimum.status.value}). Estimates and standard errors may be "
        "off. Refit with another optimizer, for example optimizer=lmm.TrustRegion(), or from "
        f"start=m.theta.{_WITHOUT_NLOPT if nlopt_missing() else ''}",
    )


def _is_lost(fit: Fit) -> bool:
    if fit.objective.largest_size(fit.theta) <= LOST:
        return False
    return is_lost(StandardizedObjective(fit.objective).to_internal(fit.theta))


def _lost(fit: Fit) -> Finding:
    digits = fit.objective.lost_digits(fit.theta)
    return Finding(
        "not-converged",
        "warning",
        "The random effects have grown to more than 10,000 times the size of the residuals, where "
        f"the criterion is nearly flat and rounding may put it off by {digits:.1g}: this cannot be "
        f"told from an optimum. {_CARRIES_A_MEAN}",
    )


def _large_effects(fit: Fit) -> Finding:
    return Finding(
        "large-effects",
        "warning",
        "The random effects are more than 10,000 times as large as the residuals, and rounding may "
        f"put the criterion off by {fit.objective.lost_digits(fit.theta):.1g}. Check whether the "
        f"response is known that well. {_CARRIES_A_MEAN}",
    )


def explained(fit: Fit) -> FloatArray:
    """β₀ in the unit of the cross-products, which where residuals have a structure is another."""
    beta0 = fit.objective.response.beta0
    if fit.design.residual is None:
        return beta0
    return np.sqrt(np.maximum([beta0 @ fit.products.XtX @ beta0], 0.0))


def _exact_fit(fit: Fit) -> Finding | None:
    modes, response = fit.modes, fit.objective.response
    squares = modes.solution.pwrss - fit.products.prior.square(modes.u)
    if not fits_exactly(squares, response.yty, explained(fit), fit.objective.products.n):
        return None
    return Finding(
        "exact-fit",
        "warning",
        f"The random effects fit the response {fit.design.response!r} (almost) exactly: "
        f"no more than {max(squares, _EPS * response.yty) / response.yty:.1g} of its "
        "variation is left for the residuals. The residual variance and all that depends "
        "on it are lost in rounding. Check whether the response repeats within groups.",
    )


def judge(fit: Fit, findings: tuple[Finding, ...] = ()) -> Convergence:
    """Judge a fit by its derivatives.

    Parameters
    ----------
    findings : tuple of Finding
        What the checks of the design have found, to be kept with the verdict.
    """
    optimum, noise = fit.optimum, 1e-13 * abs(fit.criterion)
    decrease = optimum.expected_decrease
    if decrease is None:
        decrease = decrease_by_derivatives(fit)
    stopped = optimum.status is Status.MAX_EVALUATIONS
    converged = decrease <= max(TOLERANCE, noise)
    notes = list(findings)
    exact = _exact_fit(fit)
    if exact is not None:
        notes.append(exact)
    elif fit.objective.lost_digits(fit.theta) > TOLERANCE and _is_lost(fit):
        converged = False
        notes.append(_lost(fit))
    elif not converged:
        notes.append(_not_converged(fit, decrease))
    elif _is_lost(fit):
        notes.append(_large_effects(fit))
    elif stopped:
        notes.append(
            Finding(
                "evaluation-limit",
                "info",
                f"The search ended at its limit of {optimum.evaluations} evaluations, but at "
                "an optimum.",
            )
        )
    singular = is_singular(fit)
    if singular and converged:  # elsewhere it says nothing about the optimum
        notes.append(singular_finding(fit, undetermined_terms(fit)))
    return Convergence(
        converged=converged,
        singular=singular,
        expected_decrease=decrease,
        status=optimum.status.value,
        evaluations=optimum.evaluations,
        findings=tuple(notes),
        further_evaluations=optimum.further_evaluations,
    )
