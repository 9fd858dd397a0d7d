"""Design → `Fit`: cross-products, objective, search and solution, in one function and as numbers.

A `Fit` is born fitted and never changes. It pickles and stores small: whatever design and θ
determine is rebuilt on demand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp

from lmmsparse.common.arrays import FloatArray, frozen
from lmmsparse.common.calls import checked_keywords, not_called
from lmmsparse.common.options import refused
from lmmsparse.common.threads import one_thread
from lmmsparse.design import Design
from lmmsparse.design.arguments import in_order_of_theta
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.held import Held
from lmmsparse.engine.products import (
    CrossProducts,
)
from lmmsparse.engine.solvers.base import Modes, PLSSolver
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.fit.held import held_parameters, theta_names
from lmmsparse.fit.identification import Unidentified
from lmmsparse.fit.problem import Problem, make_objective, products_of
from lmmsparse.fit.start import Start
from lmmsparse.optimize import Derivatives, Optimizer, Optimum, TrustRegion


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
        mu = design.fixed @ self.beta + design.offset_or_zero
        for block, part in zip(design.blocks, self.split(self.b), strict=True):
            mu = mu + np.einsum("nk,nk->n", block.columns, part[block.codes])
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
    return Fit(problem, problem.search(start, optimizer, progress), optimizer)


def check_parts(optimizer: Any, solver: Any) -> None:
    """Refuse what is no search, and what is no linear algebra."""
    if optimizer is not None and not _has(optimizer, "minimize"):
        objects = "Pass lmm.TrustRegion(), lmm.Bobyqa() or lmm.NelderMead()."
        raise refused("optimizer", "an optimizer", optimizer, objects)
    if solver is not None and not _has(solver, "build"):
        raise refused(
            "solver", "a solver", solver, "Pass lmm.Blocked(), lmm.Cholmod() or lmm.Dense()."
        )


def _has(option: Any, method: str) -> bool:
    """Whether an object, not a class, has a method."""
    return hasattr(option, method) and not isinstance(option, type)


@checked_keywords
@one_thread
def fit_design(
    design: Design,
    *,
    reml: bool = True,
    start: Any = None,
    optimizer: Optimizer | None = None,
    solver: PLSSolver | None = None,
    fixed: Mapping[str, float] | Held | None = None,
    progress: bool = False,
) -> Fit:
    """Fit a linear mixed model to a design.

    Parameters
    ----------
    design : Design
        From `build_design`.
    reml : bool
        REML criterion (default) or maximum likelihood.
    start : (n_theta,) array, Series or mapping, optional
        Start values of θ; those of a Series or mapping go by the names of θ.
    optimizer : Optimizer, optional
        The search; default `TrustRegion()`.
    solver : PLSSolver, optional
        The linear algebra; chosen by `choose_solver` if not given.
    fixed : mapping, optional
        Covariance parameters to hold, by the names of θ, and ``"sigma"``; see `Held`.
    progress : bool
        Print every evaluation to the standard error stream.

    Returns
    -------
    Fit
    """
    if not isinstance(design, Design):
        raise refused("design", "a Design", design, "Pass what lmm.build_design returns.")
    check_parts(optimizer, solver)
    held = held_parameters(design, fixed)
    products, response = products_of(design)
    solver = solver if solver is not None else choose_solver(products)
    objective = make_objective(design, reml, solver, products, response, held)
    problem = Problem(design, reml, solver, held, objective)
    if start is not None:
        start = in_order_of_theta("start", start, theta_names(design))
    chosen = optimizer if optimizer is not None else TrustRegion()
    return fitted(problem, start, chosen, progress)
