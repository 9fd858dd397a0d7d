"""`Fit` → a verdict: whether this is the optimum, whether it is singular, what follows.

The verdict is scale-free: by how many units the criterion could still decrease, according to its
exact gradient and its Hessian at the estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.design import listed
from lmmsparse.errors import Finding
from lmmsparse.fit import Fit
from lmmsparse.optimize import Bounds, Derivatives, Status
from lmmsparse.search import StandardizedObjective
from lmmsparse.varcorr import singular_directions, variance_components

TOLERANCE = 1e-4
NOTHING_LEFT = 1e-11


@dataclass(frozen=True, eq=False)
class Convergence:
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
    """

    converged: bool
    singular: bool
    expected_decrease: float
    status: str
    evaluations: int
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        verdict = "converged" if self.converged else "not converged"
        shape = " (singular)" if self.singular else ""
        lines = [
            f"{verdict}{shape}; expected further decrease of the criterion "
            f"{max(0.0, self.expected_decrease):.1e}; {self.evaluations} evaluations"
        ]
        lines += [f"- {finding}" for finding in self.findings]
        return "\n".join(lines)


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


def _fall_from_saddle(objective: StandardizedObjective, x: FloatArray, at: Derivatives) -> float:
    """How far the criterion falls along its most negative curvature, where the slope may be zero.

    A search that keeps to bounds can stop at such a point: where variances are zero, the criterion
    is even in the columns of T, and its gradient vanishes.
    """
    values, vectors = np.linalg.eigh(at.hessian)
    if values[0] > -1e-6 * max(1.0, float(np.abs(values).max())):
        return 0.0
    steps = [sign * step * vectors[:, 0] for sign in (1, -1) for step in (0.01, 0.1, 0.3, 1, 3)]
    return max(0.0, *(at.value - objective(x + step) for step in steps))


def judge(fit: Fit, findings: tuple[Finding, ...] = ()) -> Convergence:
    """Judge a fit by its derivatives.

    Parameters
    ----------
    fit : Fit
    findings : tuple of Finding
        What the checks of the design have found, to be kept with the verdict.
    """
    found = fit.optimum.expected_decrease
    if found is None:
        scaled = StandardizedObjective(fit.objective)
        x = scaled.to_internal(fit.theta)
        at = scaled.derivatives(x)
        bounds = Bounds(fit.template.lower, fit.template.upper, fit.template.mirrors)
        free = bounds.free(x, at.gradient)
        found = expected_decrease(at.gradient[free], at.hessian[np.ix_(free, free)])
        if np.all(np.isinf(bounds.limits)):
            found += _fall_from_saddle(scaled, x, at)
    decrease, noise = found, 1e-13 * abs(fit.criterion)
    converged = decrease <= max(TOLERANCE, noise)
    notes = list(findings)
    if not converged:
        notes.append(
            Finding(
                "not-converged",
                "warning",
                f"The search has not reached the optimum: the criterion can be expected to fall "
                f"by another {decrease:.2g} ({fit.optimum.optimizer}: {fit.optimum.status.value}). "
                "Estimates and standard errors may be off. Refit with another optimizer, for "
                "example optimizer=lmm.TrustRegion(), or from start=m.theta.",
            )
        )
    elif fit.optimum.status is Status.MAX_EVALUATIONS:
        notes.append(
            Finding(
                "evaluation-limit",
                "info",
                f"The search ended at its limit of {fit.optimum.evaluations} evaluations, but at "
                "an optimum.",
            )
        )
    left = fit.modes.solution.pwrss / fit.objective.response.yty
    if left < NOTHING_LEFT:
        notes.append(
            Finding(
                "exact-fit",
                "warning",
                f"The random effects fit the response {fit.design.response!r} (almost) exactly: "
                f"{left:.1g} of its variation is left for the residuals. The residual variance and "
                "all that depends on it are lost in rounding. Check whether the response repeats "
                "within groups.",
            )
        )
    singular = is_singular(fit)
    if singular and converged:  # elsewhere it says nothing about the optimum
        notes.append(_singular_finding(fit))
    return Convergence(
        converged=converged,
        singular=singular,
        expected_decrease=decrease,
        status=fit.optimum.status.value,
        evaluations=fit.optimum.evaluations,
        findings=tuple(notes),
    )


def is_singular(fit: Fit, tol: float = 1e-4) -> bool:
    """Whether any term's covariance is singular, whatever the units of its predictors.

    Parameters
    ----------
    fit : Fit
    tol : float
        A standard deviation (of a term's contribution to the response, in units of σ) below this
        counts as zero.
    """
    return any(singular_directions(fit, tol))


def _singular_finding(fit: Fit) -> Finding:
    parts, simpler = [], []
    terms = variance_components(fit).terms
    for block, term, directions in zip(
        fit.design.blocks, terms, singular_directions(fit), strict=True
    ):
        if not directions:
            continue
        names = ", ".join(block.names)
        if len(directions) == block.k:
            what = "variance of" if block.k == 1 else "variances of"
            verb = "is" if block.k == 1 else "are"
            parts.append(f"the estimated {what} {names} in {block.source} {verb} zero")
            simpler.append(f"the model without {names} in {block.source}")
        elif block.k == 2 and term.correlated and term.sd.min() > 1e-4 * term.sd.max():
            sign = "+1" if term.covariance[0, 1] > 0 else "−1"
            first, second = block.names
            parts.append(
                f"in {block.source} the correlation of {first} and {second} is {sign}, so that "
                "one direction does not vary"
            )
            simpler.append(f"uncorrelated effects, or fewer, in {block.source}")
        else:
            verb = "does" if len(directions) == 1 else "do"
            parts.append(f"in {block.source} {listed(directions, 3)} {verb} not vary")
            simpler.append(f"fewer or uncorrelated effects in {block.source}")
    return Finding(
        "singular",
        "warning",
        f"The fit is singular: {'; '.join(parts)}. The data support fewer random effects than the "
        "model has. The optimum is a valid one; tests of the affected terms are conservative. "
        f"Simpler would be {'; '.join(simpler)}.",
    )
