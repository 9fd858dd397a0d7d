"""Design → `Fit`: cross-products, objective, search and solution, in one function and as numbers.

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

from lmmsparse._types import FloatArray
from lmmsparse.covariance import LambdaTemplate
from lmmsparse.crossproducts import (
    CrossProducts,
    TermColumns,
    cross_products,
    orthonormal,
    response_products,
)
from lmmsparse.design import Design
from lmmsparse.errors import DataError, NumericalError, OptionError
from lmmsparse.objective import Modes, ProfiledDeviance
from lmmsparse.optimize import Bounds, Derivatives, Optimizer, Optimum, TrustRegion
from lmmsparse.solvers.base import PLSSolver
from lmmsparse.solvers.choose import choose_solver

_SNAP = 1e-3
_NO_WORSE = 1e-9


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model as arrays.

    Attributes
    ----------
    design : Design
        Response, model matrices and names.
    reml : bool
    optimum : Optimum
        What the search did, in θ.
    optimizer : Optimizer
    solver : PLSSolver
    """

    design: Design
    reml: bool
    optimum: Optimum
    optimizer: Optimizer
    solver: PLSSolver

    @property
    def theta(self) -> FloatArray:
        """Covariance parameters, (n_theta,)."""
        return self.optimum.x

    @cached_property
    def template(self) -> LambdaTemplate:
        """The pattern of Λ."""
        return make_template(self.design)

    @cached_property
    def objective(self) -> ProfiledDeviance:
        """The criterion as a function of θ, with `gradient` and `derivatives`."""
        return make_objective(self.design, self.reml, self.solver)

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
        return self.products.basis.coefficients(internal)

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
        return np.asarray(self.sigma2 * inverse @ inverse.T)

    @property
    def b(self) -> FloatArray:
        """Conditional modes of the random effects, (q,)."""
        return self.modes.b

    @cached_property
    def fitted(self) -> FloatArray:
        """Xβ + Zb + offset, (n,)."""
        design = self.design
        mu = design.X @ self.beta + design.offset_or_zero
        for block, part in zip(design.blocks, self.split(self.b), strict=True):
            mu = mu + np.einsum("nk,nk->n", block.columns, part[block.codes])
        return mu

    def split(self, b: FloatArray) -> list[FloatArray]:
        """A (q,) vector as one (levels, k) array per term."""
        offsets = self.template.offsets
        return [
            b[a:z].reshape(n, -1)
            for a, z, n in zip(offsets[:-1], offsets[1:], self.template.n_levels, strict=True)
        ]

    @cached_property
    def criterion(self) -> float:
        """Deviance (ML) or REML criterion at θ."""
        return self.objective.value_of(self.modes.solution)

    @property
    def npar(self) -> int:
        """P + covariance parameters + 1."""
        return self.design.p + self.template.n_theta + 1

    @cached_property
    def derivatives(self) -> Derivatives:
        """Value, exact gradient and Hessian of the criterion at θ."""
        return self.objective.derivatives(self.theta)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "design": self.design,
            "reml": self.reml,
            "optimum": replace(self.optimum, trace=self.optimum.trace[-1:]),
            "optimizer": self.optimizer,
            "solver": self.solver,
        }


def make_template(design: Design) -> LambdaTemplate:
    """The pattern of Λ for a design."""
    return LambdaTemplate(
        structures=tuple(block.structure for block in design.blocks),
        n_levels=tuple(block.n_levels for block in design.blocks),
    )


def term_columns(design: Design) -> list[TermColumns]:
    """The random-effects terms as the engine sees them."""
    return [TermColumns(b.codes, b.columns, b.n_levels) for b in design.blocks]


def make_objective(design: Design, reml: bool, solver: PLSSolver) -> ProfiledDeviance:
    """Everything up to the search: cross-products, linear algebra, criterion.

    Raises
    ------
    NumericalError
        If the columns of X are linearly dependent.
    """
    template, terms = make_template(design), term_columns(design)
    Q, basis = orthonormal(design.X, design.weights)
    products = cross_products(Q, basis, terms, design.weights)
    response = response_products(design.y, Q, terms, design.weights, design.offset)
    _check_not_exact(design, response.yty)
    return ProfiledDeviance(solver.build(products, template), template, products, response, reml)


def _check_not_exact(design: Design, residual_squares: float) -> None:
    centred = design.y - design.offset_or_zero
    weights = 1.0 if design.weights is None else design.weights
    spread = float(np.sum(weights * (centred - centred.mean()) ** 2))
    if residual_squares <= 1e-24 * (spread + float(np.sum(weights * centred**2))):
        raise DataError(
            "The fixed effects fit the response exactly: no variation is left to divide between "
            "random effects and residuals. Check whether the response was computed from the "
            "predictors, or leave out fixed effects."
        )


def fit_design(
    design: Design,
    *,
    reml: bool = True,
    start: FloatArray | None = None,
    optimizer: Optimizer | None = None,
    solver: PLSSolver | None = None,
) -> Fit:
    """Fit a linear mixed model to a design.

    Parameters
    ----------
    design : Design
        From `build_design`.
    reml : bool
        REML criterion (default) or maximum likelihood.
    start : (n_theta,) array, optional
        Start values of θ.
    optimizer : Optimizer, optional
        The search; default `TrustRegion()`.
    solver : PLSSolver, optional
        The linear algebra; chosen by `choose_solver` if not given.

    Returns
    -------
    Fit
    """
    solver = solver if solver is not None else choose_solver(make_template(design))
    objective = make_objective(design, reml, solver)
    chosen = optimizer if optimizer is not None else TrustRegion()
    optimum = search(objective, design, start, chosen)
    result = Fit(design, reml, optimum, chosen, solver)
    # The objective exists already; a Fit would otherwise build it a second time.
    result.__dict__["objective"] = objective
    return result


def search(
    objective: ProfiledDeviance,
    design: Design,
    start: FloatArray | None,
    optimizer: Optimizer,
) -> Optimum:
    """Minimize the criterion in standardized coordinates and report in θ.

    Parameters
    ----------
    objective : ProfiledDeviance
    design : Design
        Only asked for start values.
    start : (n_theta,) array or None
    optimizer : Optimizer
    """
    template = objective.template
    bounds = Bounds(template.lower, template.upper, template.mirrors)
    scaled = StandardizedObjective(objective)
    first = start_values(objective, design) if start is None else _check_start(start, template)
    found = optimizer.minimize(scaled, scaled.to_internal(first), bounds)
    trace = np.array(found.trace)
    trace[:, :-1] = scaled.to_theta(trace[:, :-1].T).T
    if not np.isfinite(found.value):
        raise NumericalError(
            "The criterion could not be evaluated at the start values. The data may hold values "
            "that are far too large or too small. Check the predictors, or pass other start values."
        )
    x, value = _snap_to_zero(scaled, found.x, found.value, bounds)
    theta = bounds.canonical(scaled.to_theta(x))
    extra = int(value != found.value or not np.array_equal(x, found.x))
    return replace(found, x=theta, value=value, trace=trace, evaluations=found.evaluations + extra)


class StandardizedObjective:
    """The criterion in coordinates in which every random-effects column has unit size.

    For a term with columns M let K be lower triangular with K'K = M'WM/n. Then T = K⁻¹ T̃ with T̃
    lower triangular, a linear map of θ̃ to θ that keeps every bound at zero; the model is the same
    and the units of the predictors disappear from the search.
    """

    def __init__(self, objective: ProfiledDeviance) -> None:
        self._objective = objective
        template, products = objective.template, objective.products
        self._map = np.eye(template.n_theta)
        grams = [
            pair.values.sum(axis=0) / products.n for pair in products.pairs if pair.s == pair.t
        ]
        for structure, part, gram in zip(template.structures, template.slices, grams, strict=True):
            inverse = _standardizer(gram)
            # Columns of the map: where each unit entry of T̃ goes in T.
            D = structure.derivative(structure.start())
            rows, cols = np.array(structure.entries).T
            if structure.n_par == structure.k * (structure.k + 1) // 2:
                moved = np.matmul(inverse, D)
            else:
                moved = np.matmul(np.diag(np.diag(inverse)), D)
            self._map[part, part] = moved[:, rows, cols].T
        self._inverse = sla.solve_triangular(self._map, np.eye(template.n_theta), lower=True)

    def to_theta(self, x: FloatArray) -> FloatArray:
        """Internal coordinates (d,) or (d, m) → θ."""
        return np.asarray(self._map @ x)

    def to_internal(self, theta: FloatArray) -> FloatArray:
        """θ → internal coordinates."""
        return np.asarray(self._inverse @ theta)

    def __call__(self, x: FloatArray) -> float:
        return self._objective(self._map @ x)

    def derivatives(self, x: FloatArray) -> Derivatives:
        at = self._objective.derivatives(self._map @ x)
        return Derivatives(
            at.value, self._map.T @ at.gradient, self._map.T @ at.hessian @ self._map
        )


def _standardizer(gram: FloatArray) -> FloatArray:
    """K⁻¹ for K lower triangular with K'K = gram; diagonal scaling where gram is singular."""
    size = np.sqrt(np.diag(gram))
    if not np.all(size > 0):
        return np.diag(1.0 / np.where(size > 0, size, 1.0))
    correlation = gram / np.outer(size, size)
    try:
        upper = np.linalg.cholesky(correlation[::-1, ::-1])
    except np.linalg.LinAlgError:
        return np.diag(1.0 / size)
    K = upper.T[::-1, ::-1]
    if np.min(np.diag(K)) < 1e-6:
        return np.diag(1.0 / size)
    inverse = sla.solve_triangular(K, np.eye(len(K)), lower=True)
    return np.asarray(inverse / size[:, None])


def start_values(objective: ProfiledDeviance, design: Design) -> FloatArray:
    """θ to start from: moment estimates (lme4's) for random intercepts only, or unit size."""
    blocks = design.blocks
    simple = all(b.columns.shape[1] == 1 and np.ptp(b.columns) == 0 for b in blocks)
    if simple and len({b.group for b in blocks}) == len(blocks):
        y = design.y
        between = []
        for block in blocks:
            counts = np.bincount(block.codes, minlength=block.n_levels)
            means = np.bincount(block.codes, y, minlength=block.n_levels) / counts
            between.append(float(np.var(means[block.codes], ddof=1)))
        within = float(np.var(y, ddof=1)) - sum(between)
        if within > 0:
            scale = np.array([abs(float(b.columns[0, 0])) for b in blocks])
            return np.asarray(np.sqrt(np.array(between) / within) / scale)
    unit = StandardizedObjective(objective)
    return unit.to_theta(objective.template.start)


def _check_start(start: FloatArray, template: LambdaTemplate) -> FloatArray:
    theta = np.asarray(start, dtype=np.float64).ravel()
    if theta.shape != (template.n_theta,):
        raise OptionError(
            f"start has {theta.size} values, but the model has {template.n_theta} covariance "
            "parameters. Give one value per parameter, in the order of m.theta."
        )
    if not np.isfinite(theta).all():
        raise OptionError("start holds values that are not finite. Give finite numbers.")
    outside = np.flatnonzero((theta < template.lower) | (theta > template.upper))
    if outside.size:
        i = int(outside[0])
        raise OptionError(
            f"start[{i}] = {theta[i]:g} is outside its bounds ({template.lower[i]:g} to "
            f"{template.upper[i]:g}). Diagonal entries of the covariance factor cannot be "
            "negative. Give a value inside."
        )
    return theta


def _snap_to_zero(
    objective: StandardizedObjective, x: FloatArray, value: float, bounds: Bounds
) -> tuple[FloatArray, float]:
    """Set tiny diagonal entries to exactly zero where that does not raise the criterion."""
    for group in bounds.mirrors:
        first = group[0]
        if x[first] == 0.0 or x[first] > _SNAP:
            continue
        trial = x.copy()
        trial[first] = 0.0
        rest = list(group[1:])
        trial[rest] = np.where(np.abs(trial[rest]) < 1e-6, 0.0, trial[rest])
        at_zero = objective(trial)
        if at_zero <= value + _NO_WORSE:
            x, value = trial, min(at_zero, value) if at_zero < value else at_zero
    return x, value
