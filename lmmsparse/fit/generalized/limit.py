"""Where the family's own parameter says nothing: the fit of the family without it.

A negative binomial whose size goes to infinity is the Poisson distribution. The likelihood is flat
there, and a search would walk for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.optimize import Optimum


@dataclass(frozen=True, eq=False)
class Found:
    """Where a search has ended.

    Attributes
    ----------
    optimum : Optimum
        In (β, θ, δ), β in internal columns.
    hessian : (d, d) array
        Second derivatives there.
    u : (q,) array
        The mode of the random effects.
    factorizations : int
    point : LaplacePoint, optional
        The criterion there.
    """

    optimum: Optimum
    hessian: FloatArray
    u: FloatArray
    factorizations: int
    point: LaplacePoint | None = None


Search = Callable[[GeneralizedProblem, Parameters, FloatArray], Found]


def is_near_limit(problem: GeneralizedProblem, at: Parameters, u: FloatArray) -> bool:
    """Whether start values are those of data that may as well have no parameter of their own."""
    family = problem.family
    if family.without_own() is None:
        return False
    return at.delta >= family.largest_start or at.delta >= nearest(problem, at, u)


def nearest(problem: GeneralizedProblem, at: Parameters, u: FloatArray) -> float:
    """δ next to the limit."""
    rows = problem.rows
    factors = rows.template.shifted_factors(at.theta)
    eta = rows.fixed_part(at.beta) + rows.random_part(rows.template.multiply(factors, u))
    return problem.family.next_to_limit(problem.family.mean(eta))


def at_limit(
    problem: GeneralizedProblem, at: Parameters, u: FloatArray, search: Search
) -> tuple[Found, bool]:
    """The fit without the parameter, in all coordinates, and whether δ wants to be there.

    Parameters
    ----------
    problem : GeneralizedProblem
    at : Parameters
    u : (q,) array
    search : callable
        Problem, parameters and modes to begin with → what it finds.
    """
    family = problem.family.without_own()
    assert family is not None
    assert family.held_delta is not None
    delta = family.held_delta
    small = replace(problem, family=family)
    found = search(small, replace(at, delta=delta), u)
    p = problem.design.p
    beta, theta = found.optimum.x[:p], found.optimum.x[p:]
    near = Parameters(beta, theta, nearest(problem, Parameters(beta, theta), found.u))
    try:
        wants = bool(problem.deviance.point(near, found.u).gradient[-1] <= 0.0)
    except NumericalError:
        wants = False
    trace = np.insert(found.optimum.trace, -1, delta, axis=1)
    optimum = replace(
        found.optimum,
        x=np.append(found.optimum.x, delta),
        trace=trace,
        evaluations=found.optimum.evaluations + 1,
    )
    hessian = np.zeros((len(optimum.x), len(optimum.x)))
    hessian[:-1, :-1] = found.hessian
    return replace(found, optimum=optimum, hessian=hessian, point=None), wants
