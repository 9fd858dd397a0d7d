"""`Fit` → a verdict: whether this is the optimum, whether it is singular, what follows.

The verdict is scale-free: by how many units the criterion could still decrease, according to its
exact gradient and its Hessian at the estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse._types import BoolArray, FloatArray
from lmmsparse.errors import Finding
from lmmsparse.fit import Fit
from lmmsparse.not_identified import undetermined_terms
from lmmsparse.optimize import Derivatives, Status
from lmmsparse.render import Section, html_of, text_of
from lmmsparse.search import StandardizedObjective
from lmmsparse.singular import is_singular, singular_finding

TOLERANCE = 1e-4
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False, repr=False)
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

    @property
    def section(self) -> Section:
        """The verdict in one line and what was found below it."""
        verdict = "converged" if self.converged else "not converged"
        shape = " (singular)" if self.singular else ""
        title = (
            f"{verdict}{shape}; expected further decrease of the criterion "
            f"{max(0.0, self.expected_decrease):.1e}; {self.evaluations} evaluations"
        )
        return Section(title, lines=tuple(f"- {finding}" for finding in self.findings))

    def __str__(self) -> str:
        return text_of([self.section])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_of([self.section])


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


def fits_exactly(
    squares: float | FloatArray, yty: float | FloatArray, beta0: FloatArray, n: int
) -> BoolArray:
    """Whether what is left for the residuals cannot be told from rounding errors.

    Parameters
    ----------
    squares : float or (m,) array
        Residual sum of squares r² − ‖u‖², with the residuals at the conditional modes.
    yty : float or (m,) array
        See `Response`.
    beta0 : (p,) or (p, m) array
        See `Response`; ‖β₀‖² + y'Wy is the sum of squares of the response itself.
    n : int
        Rows.

    Notes
    -----
    r² is what sums of n products leave of each other: its error grows like √n times eps y'Wy, and
    a hundred covers what solving with the blocks of Z'WZ adds. The second part is what a response
    of that size loses by being stored.
    Where a model fits exactly, r² tends to zero with 1/θ² and is all ‖u‖², wherever the search
    gives up. The residuals say so at once: they go with 1/θ⁴.
    """
    size = np.einsum("p...,p...->...", beta0, beta0) + yty
    bound = 100.0 * np.sqrt(n) * _EPS * np.asarray(yty) + 4.0 * _EPS**2 * size
    return np.asarray(~(np.asarray(squares) > bound))


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
        bounds = scaled.bounds
        free = bounds.free(x, at.gradient) & fit.template.free
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
    modes, response = fit.modes, fit.objective.response
    squares = modes.solution.pwrss - float(modes.u @ modes.u)
    if fits_exactly(squares, response.yty, response.beta0, fit.objective.products.n):
        notes.append(
            Finding(
                "exact-fit",
                "warning",
                f"The random effects fit the response {fit.design.response!r} (almost) exactly: "
                f"no more than {max(squares, _EPS * response.yty) / response.yty:.1g} of its "
                "variation is left for the residuals. The residual variance and all that depends "
                "on it are lost in rounding. Check whether the response repeats within groups.",
            )
        )
    singular = is_singular(fit)
    if singular and converged:  # elsewhere it says nothing about the optimum
        notes.append(singular_finding(fit, undetermined_terms(fit)))
    return Convergence(
        converged=converged,
        singular=singular,
        expected_decrease=decrease,
        status=fit.optimum.status.value,
        evaluations=fit.optimum.evaluations,
        findings=tuple(notes),
    )
