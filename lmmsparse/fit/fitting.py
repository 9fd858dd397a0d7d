"""Design → `Fit`: cross-products, objective and search, in one function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import refused
from lmmsparse.common.threads import one_thread
from lmmsparse.design import Design
from lmmsparse.design.arguments import in_order_of_theta
from lmmsparse.engine.held import Held
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.engine.solvers.krylov.solver import Krylov
from lmmsparse.fit.fit import Fit, fitted
from lmmsparse.fit.held import held_parameters, theta_names
from lmmsparse.fit.problem import Problem, make_objective, products_of
from lmmsparse.fit.residual.fit import fit_residual
from lmmsparse.optimize import Optimizer, TrustRegion


def check_parts(optimizer: Any, solver: Any) -> None:
    """Refuse what is no search, and what is no linear algebra."""
    if optimizer is not None and not _has(optimizer, "minimize"):
        objects = "Pass lmm.TrustRegion(), lmm.Bobyqa() or lmm.NelderMead()."
        raise refused("optimizer", "an optimizer", optimizer, objects)
    if solver is not None and not _has(solver, "build"):
        raise refused(
            "solver", "a solver", solver, "Pass lmm.Blocked(), lmm.Cholmod() or lmm.Dense()."
        )


def check_exact(solver: PLSSolver | None, what: str) -> None:
    """Refuse linear algebra that only estimates what a kind of model needs exactly."""
    if isinstance(solver, Krylov):
        raise OptionError(
            f"{what} need exact linear algebra, and solver=lmm.Krylov() estimates "
            "log-determinants. Leave solver= out, or use lmm.Blocked() or lmm.Cholmod()."
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
    if start is not None:
        start = in_order_of_theta("start", start, theta_names(design))
    chosen = optimizer if optimizer is not None else TrustRegion()
    if design.residual is not None:
        check_exact(solver, "Models with residual= or residual_sd=")
        return fit_residual(design, reml, start, chosen, solver, held, progress)
    products, response = products_of(design)
    solver = solver if solver is not None else choose_solver(products)
    objective = make_objective(design, reml, solver, products, response, held)
    problem = Problem(design, reml, solver, held, objective)
    return fitted(problem, start, chosen, progress)
