"""`Fit`: a problem and its optimum, and the solution there, as numbers.

A `Fit` is born fitted and never changes. It pickles and stores small: whatever design and θ
determine is rebuilt on demand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, frozen, is_ones
from lmmsparse.common.calls import not_called
from lmmsparse.design import Design
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.held import Held
from lmmsparse.engine.products import (
    CrossProducts,
)
from lmmsparse.engine.solvers.base import Modes, PLSSolver
from lmmsparse.fit.identification import Unidentified
from lmmsparse.fit.precision import (
    MonteCarloError,
    check_search,
    monte_carlo_error,
    prepared,
    refined,
)
from lmmsparse.fit.problem import Problem
from lmmsparse.fit.start import Start
from lmmsparse.optimize import Derivatives, Optimizer, Optimum


@not_called(
    "lmer() has fitted the model already. Nothing is left to call. Write "
    "m = lmm.lmer(formula, data), and m.fit without parentheses for the arrays of the fit."
)
@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """A fitted model as arrays.

    Attributes
    ----------
    problem : Problem
        The model and its data.
    optimum : Optimum
        What the search did, in θ.
    optimizer : Optimizer
    """

    problem: Problem
    optimum: Optimum
    optimizer: Optimizer

    @property
    def design(self) -> Design:
        """Response, model matrices and names."""
        return self.problem.design

    @property
    def reml(self) -> bool:
        """Whether the criterion is REML's."""
        return self.problem.reml

    @property
    def solver(self) -> PLSSolver:
        """The linear algebra."""
        return self.problem.solver

    @property
    def held(self) -> Held:
        """Covariance parameters the user holds."""
        return self.problem.held

    def __repr__(self) -> str:
        name = "REML criterion" if self.reml else "deviance"
        return (
            f"Fit by {self.solver!r}, {name} {self.criterion:.4f}, of\n{self.design!r}\n"
            f"Linear algebra: {self.objective.system.describe()}"
        )

    @property
    def theta(self) -> FloatArray:
        """Covariance parameters, (n_theta,)."""
        return self.optimum.x

    @property
    def has_residuals(self) -> bool:
        """Whether there is a residual variance, to which covariances are relative."""
        return True

    @property
    def template(self) -> LambdaTemplate:
        """The pattern of Λ."""
        return self.problem.template

    @property
    def objective(self) -> ProfiledDeviance:
        """The criterion as a function of θ, with `gradient` and `derivatives`."""
        return self.problem.objective

    @property
    def products(self) -> CrossProducts:
        """The cross-products the objective works on."""
        return self.objective.products

    @cached_property
    def modes(self) -> Modes:
        """The solution at θ with its factor."""
        return self.objective.modes(self.theta)

    @property
    def estimated(self) -> bool:
        """Whether log-determinants are estimated from random probes."""
        return self.has_residuals and self.objective.estimated

    @cached_property
    def monte_carlo(self) -> MonteCarloError | None:
        """What probes leave open; None where linear algebra is exact."""
        return monte_carlo_error(self.objective, self.theta) if self.estimated else None

    @property
    def Lambda(self) -> sp.csc_array:
        """The relative covariance factor Λ(θ), sparse (q, q)."""
        return self.template.Lambda(self.theta)

    @cached_property
    def beta(self) -> FloatArray:
        """Fixed effects, (p,)."""
        internal = self.objective.response.beta0 + self.modes.solution.beta
        return frozen(self.products.basis.coefficients(internal))

    @cached_property
    def sigma2(self) -> float:
        """Residual variance σ² (of an observation of weight 1)."""
        return self.objective.sigma2(self.modes.solution)

    @property
    def sigma(self) -> float:
        """Residual standard deviation σ."""
        return float(np.sqrt(self.sigma2))

    @cached_property
    def vcov(self) -> FloatArray:
        """Covariance matrix of the fixed effects, σ² (X'V⁻¹X)⁻¹, (p, p)."""
        p = self.design.p
        if p == 0:
            return np.zeros((0, 0))
        RX = self.modes.solution.RX @ self.products.basis.R
        inverse = sla.solve_triangular(RX, np.eye(p), check_finite=False)
        return frozen(np.asarray(self.sigma2 * inverse @ inverse.T))

    @cached_property
    def b(self) -> FloatArray:
        """Conditional modes of the random effects, (q,)."""
        return frozen(self.template.multiply(self.template.factors(self.theta), self.modes.u))

    @cached_property
    def fitted(self) -> FloatArray:
        """Xβ + Zb + offset, (n,)."""
        return self.fitted_on(self.design)

    def fitted_on(self, design: Design) -> FloatArray:
        """The same on the rows of another design, of the same columns and levels."""
        mu = np.asarray(design.fixed @ self.beta)
        if design.offset is not None:
            mu += design.offset
        for block, part in zip(design.blocks, self.split(self.b), strict=True):
            if is_ones(block.columns):
                mu += part[:, 0].take(block.codes)
            else:
                mu += np.einsum("nk,nk->n", block.columns, part[block.codes])
        return frozen(mu)

    def split(self, b: FloatArray) -> list[FloatArray]:
        """A (q,) vector as one (levels, k) array per term."""
        return self.template.by_term(b)

    @cached_property
    def criterion(self) -> float:
        """Deviance (ML) or REML criterion at θ."""
        return self.objective.value_of(self.modes.solution)

    @property
    def unidentified(self) -> Unidentified | None:
        """Combinations of covariance parameters that the data do not determine."""
        return self.problem.unidentified

    @property
    def n_undetermined(self) -> int:
        """How many combinations of covariance parameters the data do not determine."""
        return 0 if self.unidentified is None else len(self.unidentified)

    @property
    def covariance_parameters(self) -> int:
        """Covariance parameters with σ, without those that are held."""
        return int(self.template.free.sum()) + (self.held.sigma is None)

    @property
    def npar(self) -> int:
        """P + covariance parameters + 1, without those that are held or not determined."""
        return self.design.p + self.covariance_parameters - self.n_undetermined

    @cached_property
    def derivatives(self) -> Derivatives:
        """Value, exact gradient and Hessian of the criterion at θ."""
        return self.objective.derivatives(self.theta)

    def __getstate__(self) -> dict[str, Any]:
        optimum = replace(self.optimum, trace=self.optimum.trace[-1:])
        return {"problem": self.problem, "optimum": optimum, "optimizer": self.optimizer}


def fitted(
    problem: Problem,
    start: FloatArray | Start | None,
    optimizer: Optimizer,
    progress: bool = False,
) -> Fit:
    """Search for the optimum of a problem."""
    problem, optimum = _searched(problem, start, optimizer, progress)
    return Fit(problem, optimum, optimizer)


def refitted(
    fit: Fit,
    problem: Problem,
    start: FloatArray | Start | None,
    optimizer: Optimizer,
) -> Fit:
    """Another problem of the same kind, searched."""
    problem, optimum = _searched(problem, start, optimizer)
    return replace(fit, problem=problem, optimum=optimum, optimizer=optimizer)


def _searched(
    problem: Problem,
    start: FloatArray | Start | None,
    optimizer: Optimizer,
    progress: bool = False,
) -> tuple[Problem, Optimum]:
    """The optimum, and the problem with linear algebra as exact as it asks for."""
    check_search(problem.objective, optimizer)
    if problem.objective.estimated:
        problem, start = prepared(problem, start)
    optimum = problem.search(start, optimizer, progress)
    if problem.objective.estimated:
        problem, optimum = refined(problem, optimum, optimizer)
    return problem, optimum
