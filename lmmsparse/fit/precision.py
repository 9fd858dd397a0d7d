"""A criterion that is estimated → how far that puts θ off, and a search that is nearer.

Where linear algebra is exact there is nothing to do here, and nothing is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.solvers.base import EstimatedSystem
from lmmsparse.engine.solvers.krylov.solver import Krylov
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.problem import Problem
from lmmsparse.fit.search import first_start
from lmmsparse.fit.start import Start
from lmmsparse.optimize import Optimizer, Optimum, Status, TrustRegion

LARGEST_RATIO = 0.01  # of a standard error
LARGEST_SD = 0.05  # of the criterion
_SAFELY = 0.7
_FLAT = 1e-10


@dataclass(frozen=True, eq=False)
class MonteCarloError:
    """What probes leave open at an optimum.

    Attributes
    ----------
    criterion : float
        Standard deviation of the criterion.
    spread : (n_theta, n_theta) array
        Covariance of θ, in standardized coordinates.
    asymptotic : (n_theta, n_theta) array
        The covariance that the data leave it, for comparison.
    """

    criterion: float
    spread: FloatArray
    asymptotic: FloatArray

    @property
    def ratio(self) -> float:
        """The largest Monte Carlo standard deviation, in standard errors."""
        variance = np.diag(self.asymptotic)
        known = variance > 0
        return float(np.sqrt(np.diag(self.spread)[known] / variance[known]).max(initial=0.0))

    @property
    def is_small(self) -> bool:
        """Whether no conclusion could depend on it."""
        return self.ratio <= LARGEST_RATIO and self.criterion <= LARGEST_SD


def monte_carlo_error(objective: ProfiledDeviance, theta: FloatArray) -> MonteCarloError:
    """What probes leave open at θ, where the gradient is (nearly) zero.

    Parameters
    ----------
    theta : (n_theta,) array
    """
    sd, C = objective.monte_carlo(theta)
    J = StandardizedObjective(objective).to_theta(np.eye(len(theta)))
    H = J.T @ objective.derivatives(theta).hessian @ J
    free = np.flatnonzero(objective.template.free)
    values, vectors = np.linalg.eigh(H[np.ix_(free, free)])
    curved = values > _FLAT * np.abs(values).max(initial=0.0)
    inverse = np.zeros_like(H)
    own = (vectors[:, curved] / values[curved]) @ vectors[:, curved].T
    inverse[np.ix_(free, free)] = own
    return MonteCarloError(sd, inverse @ J.T @ C @ J @ inverse, 2.0 * inverse)


def prepared(problem: Problem, start: FloatArray | Start | None) -> tuple[Problem, Start]:
    """The problem with as many deflation vectors as it seems to need, and where to begin."""
    first = first_start(problem.objective, problem.design, start)
    solver = problem.solver
    if not isinstance(solver, Krylov) or len(solver.near) == len(first.theta):
        return problem, first  # a refit, whose probes are to stay the same
    solver = solver.at(first.theta)
    while not solver.is_refined(first.theta):
        system = problem.objective.system
        assert isinstance(system, EstimatedSystem)
        # With deflation vectors this is likely to be the last: the search begins with the same.
        sd = system.logdet_sd if solver.vectors else system.pilot_sd
        if sd(first.theta) <= _SAFELY * LARGEST_SD:
            break
        solver = solver.deflated(first.theta)
        problem = _by(problem, solver)
    return (problem if problem.solver is solver else _by(problem, solver)), first


def refined(problem: Problem, optimum: Optimum, optimizer: Optimizer) -> tuple[Problem, Optimum]:
    """The same optimum with a Monte Carlo error that is small, or as small as can be had.

    Deflation vectors come first, then more probes; after each, the search goes on.
    """
    while optimum.status is Status.CONVERGED:
        solver = problem.solver
        if not isinstance(solver, Krylov):
            break
        if monte_carlo_error(problem.objective, optimum.x).is_small:
            break
        better = solver.refined(optimum.x)
        if better is None:
            break
        problem, optimum = carried_on(problem, better, optimum, optimizer)
    return problem, optimum


def carried_on(
    problem: Problem, solver: Krylov, optimum: Optimum, optimizer: Optimizer
) -> tuple[Problem, Optimum]:
    """The search continued from an optimum, with a more exact solver."""
    problem = _by(problem, solver)
    found = problem.search(optimum.x, optimizer)
    return problem, replace(
        found,
        evaluations=optimum.evaluations + found.evaluations,
        trace=np.concatenate([optimum.trace, found.trace]),
    )


def _by(problem: Problem, solver: Krylov) -> Problem:
    """The same problem with another solver of its kind."""
    objective = problem.objective
    assert isinstance(objective.system, EstimatedSystem)
    system = objective.system.by(solver)
    known = replace(objective, system=system)
    return replace(problem, solver=solver, known=known, like=problem.like or problem)


def check_search(objective: ProfiledDeviance, optimizer: Optimizer) -> None:
    """Refuse a search by values where these are estimates."""
    if objective.estimated and not isinstance(optimizer, TrustRegion):
        raise OptionError(
            f"optimizer={type(optimizer).__name__}() compares values of the criterion, which "
            "solver=lmm.Krylov() estimates less exactly than its gradient. Leave out optimizer=, "
            "or use an exact solver such as lmm.Blocked()."
        )
