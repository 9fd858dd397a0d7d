"""`GeneralizedFit`: a fitted generalized linear mixed model as arrays.

It is a `Fit` on the scale of the link: θ, random effects and their covariances are those of a model
with σ = 1, and what depends on the rows is that of the working linear model at the optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray, frozen
from lmmsparse.common.errors import OptionError
from lmmsparse.common.threads import one_thread
from lmmsparse.design import Design
from lmmsparse.design.arguments import in_order_of_theta
from lmmsparse.engine.criterion import ProfiledDeviance
from lmmsparse.engine.families.base import Family, Observations
from lmmsparse.engine.generalized.laplace_point import LaplacePoint, Parameters
from lmmsparse.engine.held import Held
from lmmsparse.engine.products import CrossProducts
from lmmsparse.engine.responses import Response
from lmmsparse.engine.solvers.base import Modes, PLSSolution, PLSSolver
from lmmsparse.engine.solvers.choose import choose_solver
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.fitting import check_exact, check_parts
from lmmsparse.fit.generalized.errors import covariance
from lmmsparse.fit.generalized.further import best_of_further
from lmmsparse.fit.generalized.joint import search_at_joint_mode
from lmmsparse.fit.generalized.problem import GeneralizedProblem, prepared
from lmmsparse.fit.generalized.search import search
from lmmsparse.fit.held import held_parameters, theta_names
from lmmsparse.fit.start import checked_start
from lmmsparse.optimize import Bounds, Optimizer, StructuredSearch

_UNBOUND = 1e-7  # share of the usual information below which a coefficient has no bound


@dataclass(frozen=True, eq=False, repr=False)
class GeneralizedFit(Fit):
    """A fitted generalized model as arrays.

    Attributes
    ----------
    problem : GeneralizedProblem
    optimum : Optimum
        What the search did, in (β, θ, δ), β in internal columns of X.
    optimizer : Optimizer
    hessian : (d, d) array
        Second derivatives of −2 log-likelihood in (β, θ, δ), β in internal columns.
    u : (q,) array
        The mode of the random effects.
    """

    problem: GeneralizedProblem
    hessian: FloatArray = field(kw_only=True)
    u: FloatArray = field(kw_only=True)

    @property
    def family(self) -> Family:
        return self.problem.family

    @property
    def seen(self) -> Observations:
        return self.problem.seen

    @property
    def has_residuals(self) -> bool:
        return False

    @property
    def parameters(self) -> Parameters:
        """The point of the criterion that the search has found."""
        p, x = self.design.p, self.optimum.x
        d = self.problem.template.n_theta
        held = self.family.held_delta
        delta = float(x[-1]) if self.family.estimates_delta else (0.0 if held is None else held)
        return Parameters(x[:p], x[p : p + d], delta)

    @property
    def theta(self) -> FloatArray:
        return self.parameters.theta

    @property
    def delta(self) -> float:
        """Logarithm of the family's parameter."""
        return self.parameters.delta

    @cached_property
    def point(self) -> LaplacePoint:
        """The criterion at the optimum."""
        return self.problem.deviance.point(self.parameters, self.u)

    @cached_property
    def beta(self) -> FloatArray:
        return frozen(self.problem.rows.basis.coefficients(self.parameters.beta))

    @property
    def sigma2(self) -> float:
        """1: nothing on the scale of the link is relative to a residual variance."""
        return 1.0

    @cached_property
    def criterion(self) -> float:
        """−2 log-likelihood."""
        return self.optimum.value

    @property
    def npar(self) -> int:
        return self.design.p + self.covariance_parameters + self.family.estimates_delta

    @cached_property
    def _covariance(self) -> tuple[FloatArray, BoolArray]:
        return covariance(self.hessian, self._free)

    @property
    def _free(self) -> BoolArray:
        out = np.ones(len(self.hessian), dtype=bool)
        in_theta = slice(self.design.p, self.design.p + self.template.n_theta)
        out[in_theta] = self.template.free & ~self._at_bound
        if self.family.at_limit(self.delta):
            out[-1] = False
        return out

    @cached_property
    def _at_bound(self) -> BoolArray:
        """Which elements of θ are at a bound beyond which the likelihood may rise, (n_theta,)."""
        template = self.template
        bounds = Bounds(template.lower, template.upper, template.mirrors)
        return bounds.held(self.theta) & template.free

    @cached_property
    def joint_covariance(self) -> FloatArray:
        """Covariance of (β, θ, δ), β in the user's columns."""
        p = self.design.p
        out, lost = self._covariance
        back = np.eye(len(out))
        back[:p, :p] = self.problem.rows.basis.coefficients(np.eye(p))
        if not lost[:p].any():
            result = back @ np.where(np.isfinite(out), out, 0.0) @ back.T
            open_ = np.flatnonzero(lost)
        else:
            # Directions without curvature are those of the user's own coefficients.
            forward = np.eye(len(out))
            forward[:p, :p] = self.problem.rows.basis.R
            own = forward.T @ self.hessian @ forward
            free = self._free
            free[:p] &= np.diag(own)[:p] > _UNBOUND / np.square(self.reference_errors)
            result = covariance(own, free)[0]
            open_ = np.flatnonzero(self._free & ~free)
        result[open_, open_] = np.inf
        if self.family.at_limit(self.delta):
            result[-1, -1] = np.inf
        bound = p + np.flatnonzero(self._at_bound)
        result[bound, bound] = np.inf
        return frozen(result)

    @cached_property
    def reference_errors(self) -> FloatArray:
        """Standard errors of β with the weights of a mean response and no random effects, (p,)."""
        rows, family = self.problem.rows, self.family
        mean = np.full(rows.n, float(np.mean(family.smoothed(self.seen))))
        weights = family.expected(family.link_of(mean), self.seen, self.delta).w
        gram = rows.Q.gram_anew(rows.Q.weighted(weights))
        back = rows.basis.coefficients(np.eye(rows.p))
        return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", back, np.linalg.pinv(gram), back)))

    @property
    def vcov(self) -> FloatArray:
        """Covariance matrix of the fixed effects, from the joint Hessian, (p, p)."""
        p = self.design.p
        return self.joint_covariance[:p, :p]

    @property
    def open_coefficients(self) -> list[str]:
        """Fixed effects that the data do not bound."""
        names = self.design.x_names
        return [n for n, v in zip(names, np.diag(self.vcov), strict=True) if not np.isfinite(v)]

    @property
    def products(self) -> CrossProducts:
        """The cross-products of the working model."""
        return self.point.full

    @cached_property
    def modes(self) -> Modes:
        """The mode with its factor; R_X'R_X is the inverse covariance of β, internal columns."""
        mode = self.point.mode
        p = self.design.p
        V = self._covariance[0][:p, :p]
        V = np.where(np.isfinite(V), V, 1e16)
        L = np.zeros((0, 0))
        if p:
            L = np.asarray(np.linalg.cholesky(V[::-1, ::-1])[::-1, ::-1], dtype=np.float64)
        RX = np.asarray(np.linalg.inv(L), dtype=np.float64) if p else L
        T = self.template.shifted_factors(self.theta)
        b = self.template.multiply(T, mode.u)
        solution = PLSSolution(
            mode.factor.logdet, np.asarray(RX), mode.beta, mode.products.prior.square(mode.u)
        )
        return Modes(solution, mode.factor, mode.u, b, mode.v)

    @cached_property
    def objective(self) -> ProfiledDeviance:
        """The criterion of the working linear model, σ held at 1."""
        rows, products = self.problem.rows, self.products
        zero = np.zeros(rows.p)
        response = Response(np.zeros(rows.template.q), zero, 1.0, zero)
        system = rows.system.with_products(products)
        return ProfiledDeviance(system, rows.template, products, response, False, 1.0)

    @cached_property
    def linear_predictor(self) -> FloatArray:
        """Xβ + Zb + offset, (n,)."""
        return frozen(self.point.mode.eta)

    @cached_property
    def fitted(self) -> FloatArray:
        """Means at the mode of the random effects, (n,)."""
        return frozen(self.family.mean(self.linear_predictor))

    def __repr__(self) -> str:
        return (
            f"Fit of a {self.family} model by {self.solver!r}, -2 log-likelihood "
            f"{self.criterion:.4f}, of\n{self.design!r}\n"
            f"Linear algebra: {self.problem.rows.system.describe()}"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "hessian": self.hessian, "u": self.u}


def fitted_generalized(
    problem: GeneralizedProblem,
    optimizer: Optimizer,
    start: FloatArray | None = None,
    progress: bool = False,
    begin: tuple[Parameters, FloatArray] | None = None,
) -> GeneralizedFit:
    """Search for the optimum of a problem."""
    if problem.n_agq == 0:
        theta = start if begin is None else begin[0].theta
        found = search_at_joint_mode(problem, theta, optimizer, progress)
    else:
        found = search(problem, start, optimizer, progress, begin)
        if start is None and begin is None:
            found = best_of_further(problem, found, optimizer)
    fit = GeneralizedFit(problem, found.optimum, optimizer, hessian=found.hessian, u=found.u)
    if found.point is not None:
        vars(fit)["point"] = found.point  # it need not be found again
    return fit


def beside_sigma(design: Design, fixed: Mapping[str, float] | Held | None) -> Held:
    """What is held, with σ = 1.

    Raises
    ------
    OptionError
        If σ is held by the user: there is none.
    """
    held = held_parameters(design, fixed)
    if held.sigma is not None and held.sigma != 1.0:
        raise OptionError(
            "fixed= names 'sigma', but a generalized model has no residual standard deviation. "
            "Hold elements of theta only."
        )
    return replace(held, sigma=1.0)


@one_thread
def fit_generalized(
    design: Design,
    family: Family,
    *,
    trials: FloatArray | None = None,
    success: str = "",
    n_agq: int = 1,
    information: str = "observed",
    start: Any = None,
    optimizer: Optimizer | None = None,
    solver: PLSSolver | None = None,
    fixed: Mapping[str, float] | Held | None = None,
    progress: bool = False,
) -> GeneralizedFit:
    """Fit a generalized linear mixed model to a design.

    Parameters
    ----------
    design : Design
        A binomial response as proportions, weights as trials times prior weights.
    family : Family
    trials : (n,) array, optional
    success : str
    n_agq, information, start, optimizer, solver, fixed, progress
        As for `lmmsparse.glmer`.
    """
    check_parts(optimizer, solver)
    check_exact(solver, "Generalized models")
    held = beside_sigma(design, fixed)
    made = prepared(design)
    solver = solver if solver is not None else choose_solver(made.products, exact=True)
    problem = GeneralizedProblem(
        design,
        False,
        solver,
        held,
        family=family,
        trials=trials,
        n_agq=n_agq,
        information=information,
        success=success,
        prepared=made,
    )
    if start is not None:
        start = in_order_of_theta("start", start, theta_names(design))
        start = checked_start(start, problem.template)
    chosen = optimizer if optimizer is not None else StructuredSearch()
    return fitted_generalized(problem, chosen, start, progress)
