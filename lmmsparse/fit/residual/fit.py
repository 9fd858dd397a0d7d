"""`ResidualFit`: a fitted model whose residuals have the covariance σ²R(φ).

It is a `Fit`: at φ̂ the criterion is a function of θ on cross-products with R⁻¹, and what needs θ
only asks that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, frozen
from lmmsparse.common.errors import OptionError
from lmmsparse.design import Design
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.held import Held
from lmmsparse.engine.residual.criterion import JointDeviance
from lmmsparse.engine.residual.structure import ResidualStructure
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.engine.solvers.none import NoEffects
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.problem import check_knows
from lmmsparse.fit.residual.identification import undetermined_residuals
from lmmsparse.fit.residual.problem import ResidualProblem, with_start
from lmmsparse.optimize import Derivatives, Optimizer, Optimum


@dataclass(frozen=True, eq=False, repr=False)
class ResidualFit(Fit):
    """A fitted model with a covariance of the residuals, as arrays.

    Attributes
    ----------
    problem : ResidualProblem
    optimum : Optimum
        What the search did, in (θ, φ).
    """

    problem: ResidualProblem

    @property
    def theta(self) -> FloatArray:
        return self.optimum.x[: self.template.n_theta]

    @property
    def phi(self) -> FloatArray:
        """Parameters of R, (n_phi,); see `natural`."""
        return self.optimum.x[self.template.n_theta :]

    @property
    def structure(self) -> ResidualStructure:
        """R as a function of φ."""
        return self.problem.structure

    @property
    def natural(self) -> FloatArray:
        """Correlations, ratios of standard deviations, and effects on their logarithm."""
        return self.structure.natural(self.phi)

    @property
    def phi_names(self) -> tuple[str, ...]:
        """Names of `natural`."""
        assert self.design.residual is not None
        return self.design.residual.parameter_names

    @cached_property
    def objective(self) -> ProfiledDeviance:
        """The criterion as a function of θ at φ̂."""
        return self.problem.joint.at(self.phi)

    @property
    def covariance_parameters(self) -> int:
        return super().covariance_parameters + int(self.problem.free_phi.sum())

    @cached_property
    def undetermined(self) -> list[tuple[str, ...]]:
        """Sets of covariance parameters of which the data determine a combination only."""
        return undetermined_residuals(self.problem, self.theta, self.phi)

    @property
    def n_undetermined(self) -> int:
        return len(self.undetermined)

    @cached_property
    def derivatives(self) -> Derivatives:
        return self.objective.derivatives(self.theta)

    @cached_property
    def residual_sd(self) -> FloatArray:
        """Standard deviation of the residual of every row, (n,)."""
        return frozen(self.sigma * self.structure.sd(self.phi))

    @cached_property
    def whitened(self) -> Design:
        """The model whose residuals are independent and alike: L⁻¹ times every row.

        Rows of a group stay in their level of every factor, so that only the columns change.
        """
        design, phi = self.design, self.phi

        def white(columns: FloatArray) -> FloatArray:
            return np.asfortranarray(self.structure.whiten(phi, columns))

        y = white((design.y - design.offset_or_zero)[:, None])[:, 0]
        return replace(
            design,
            y=y,
            fixed=white(design.X),
            blocks=tuple(replace(b, columns=white(b.columns)) for b in design.blocks),
            weights=None,
            offset=None,
            residual=None,
            recipe=None,
            formula="",
        )


def solver_for(problem: ResidualProblem, solver: PLSSolver | None) -> ResidualProblem:
    """The problem with its linear algebra."""
    if not problem.design.blocks:
        return problem
    products = problem.joint.sets.products(problem.starts[0])[0]
    if solver is None:
        solver = choose_solver(products, exact=True)
    else:
        check_knows(solver, problem.design, products)
    own = replace(problem, solver=solver)
    joint = JointDeviance.of(
        problem.joint.sets, solver, problem.joint.template, problem.reml, problem.held.sigma
    )
    return replace(own, known_joint=joint)


def held_phi(design: Design, held: Held) -> tuple[tuple[int, float], ...]:
    """Positions and values in φ of what is held by name.

    Raises
    ------
    OptionError
        If a value is not possible, or parameters cannot be held one by one.
    """
    residual, out = design.residual, []
    assert residual is not None
    if not held.residual:
        return ()
    law, names = residual.law, list(residual.parameter_names)
    for name, value in held.residual:
        i = names.index(name)
        if i >= len(law.labels):
            out.append((i, value))
            continue
        if residual.kind == "us":
            raise OptionError(
                f"{name!r} in fixed= is a parameter of us(), whose correlations and standard "
                "deviations depend on each other and cannot be held one by one. Hold sigma or "
                "elements of theta, or use another structure."
            )
        with np.errstate(all="ignore"):
            phi = law.from_natural(np.array([value]))
        if not np.isfinite(phi).all():
            raise OptionError(
                f"{name!r} in fixed= must be a correlation that {residual.kind}() can have, not "
                f"{value:g}."
            )
        out.append((i, float(phi[0])))
    return tuple(sorted(out))


def fit_residual(
    design: Design,
    reml: bool,
    start: Any,
    optimizer: Optimizer,
    solver: PLSSolver | None,
    held: Held,
    progress: bool = False,
) -> ResidualFit:
    """Fit a design with a covariance of the residuals; arguments as for `fit_design`."""
    design = with_start(design)
    own = held_phi(design, held)
    problem = ResidualProblem(design, reml, NoEffects(), held, held_phi=own)
    problem = solver_for(problem, solver)
    return ResidualFit(problem, problem.search(start, optimizer, progress), optimizer)


def residual_fit(
    design: Design,
    reml: bool,
    solver: PLSSolver,
    held: Held,
    optimum: Optimum,
    optimizer: Optimizer,
) -> ResidualFit:
    """A fit whose optimum is known."""
    design = with_start(design)
    problem = ResidualProblem(design, reml, solver, held, held_phi=held_phi(design, held))
    return ResidualFit(problem, optimum, optimizer)
