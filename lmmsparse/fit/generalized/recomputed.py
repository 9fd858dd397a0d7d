"""The Hessian of a fit that was read from a file, found again as the search found it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.generalized.laplace_point import Parameters
from lmmsparse.fit.generalized.coordinates import GeneralizedObjective
from lmmsparse.fit.generalized.joint import JointModeObjective, hessian_at_joint_mode
from lmmsparse.fit.generalized.problem import GeneralizedProblem
from lmmsparse.fit.generalized.search import second_derivatives


def hessian_at(problem: GeneralizedProblem, at: Parameters, u: FloatArray) -> FloatArray:
    """Second derivatives of −2 log-likelihood in standardized (β, θ, δ).

    Parameters
    ----------
    problem : GeneralizedProblem
    at : Parameters
        The optimum.
    u : (q,) array
        The mode there.
    """
    family, coordinates = problem.family, problem.coordinates
    if family.at_limit(at.delta) and (limit := family.without_own()) is not None:
        out = np.zeros((coordinates.size, coordinates.size))
        out[:-1, :-1] = hessian_at(replace(problem, family=limit), at, u)
        return out
    x, p = coordinates.x(at), coordinates.p
    if problem.n_agq == 0:
        joint = JointModeObjective(problem, coordinates, at, u)
        return hessian_at_joint_mode(joint, x[p:], joint.point(x[p:]))
    objective = GeneralizedObjective(problem.deviance, coordinates, u)
    point = problem.deviance.point(at, u)
    if coordinates.has_delta and at.delta <= family.least_delta(problem.seen):
        J = coordinates.jacobian
        return np.asarray(J.T @ point.hessian @ J)
    return second_derivatives(objective, x, point)
