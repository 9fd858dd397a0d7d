"""What a file holds of a generalized fit beside that of a linear one ↔ the fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lmmsparse.common.archive import Arrays
from lmmsparse.common.arrays import FloatArray, ObjectArray
from lmmsparse.common.fields import choice, number, optional, record, text, whole
from lmmsparse.design import Design
from lmmsparse.engine.families import (
    Binomial,
    Family,
    Gamma,
    Gaussian,
    InverseGaussian,
    NegativeBinomial,
    Poisson,
)
from lmmsparse.engine.held import Held
from lmmsparse.engine.solvers.base import PLSSolver
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.problem import INFORMATION, GeneralizedProblem
from lmmsparse.fit.generalized.recomputed import hessian_at
from lmmsparse.optimize.base import Optimizer, Optimum

_FAMILIES: dict[str, type[Family]] = {
    c.__name__: c for c in (Binomial, Poisson, NegativeBinomial, Gamma, InverseGaussian, Gaussian)
}
_FIELDS = ("family", "link", "n_agq", "information", "success")
_MOST_NODES = 101
_BEYOND = 1e-6  # by how much searches of earlier versions went beyond a bound
# Second derivatives are found again by the same differences: by how much they may differ.
_ROUNDING, _NEAR = 1e-6, 1e-4
_FLAT = 1e-2
_CRITERION = 1e-8  # per observation and per unit of the criterion


def encode_generalized(fit: GeneralizedFit, arrays: dict[str, ObjectArray]) -> dict[str, Any]:
    """The family and how the likelihood is taken; arrays are added to `arrays`."""
    problem, family = fit.problem, fit.family
    arrays["hessian"], arrays["u"] = fit.hessian, fit.u
    if problem.trials is not None:
        arrays["trials"] = problem.trials
    theta = {"theta": family.theta} if isinstance(family, NegativeBinomial) else {}
    return {
        "family": type(family).__name__,
        "link": family.link,
        **theta,
        "n_agq": problem.n_agq,
        "information": problem.information,
        "success": problem.success,
    }


def decode_family(meta: Any) -> Family:
    """The family of a file."""
    record(meta, _FIELDS, ("theta",))
    kind = _FAMILIES[choice(meta["family"], _FAMILIES)]
    link = choice(meta["link"], kind.links)
    if kind is NegativeBinomial:
        theta = optional(meta.get("theta"), lambda value: number(value, 1e-300))
        return NegativeBinomial(link, theta)
    if "theta" in meta:
        raise ValueError("a size for a family without one")
    return kind(link)


def decode_generalized(
    meta: Any,
    arrays: Arrays,
    design: Design,
    solver: PLSSolver,
    held: Held,
    optimum: Optimum,
    optimizer: Optimizer,
) -> GeneralizedFit:
    """The fit of a file, of which the common parts have been read."""
    family = decode_family(meta)
    trials: FloatArray | None = None
    if "trials" in arrays:
        trials = arrays.numbers("trials", design.n)
        if not (trials > 0).all() or not isinstance(family, Binomial):
            raise ValueError("trials that cannot be")
    if held.sigma != 1.0:
        raise ValueError("a residual standard deviation of a generalized model")
    problem = GeneralizedProblem(
        design,
        False,
        solver,
        held,
        family=family,
        trials=trials,
        n_agq=whole(meta["n_agq"], 0, _MOST_NODES),
        information=choice(meta["information"], INFORMATION),
        success=text(meta["success"]),
    )
    if family.problem(problem.seen):
        raise ValueError("a response that the family cannot have")
    d = len(optimum.x)
    hessian = arrays.numbers("hessian", d, d)
    u = arrays.numbers("u", problem.template.q)
    return GeneralizedFit(problem, optimum, optimizer, hessian=hessian, u=u)


def wider_bounds(
    lower: FloatArray, upper: FloatArray, p: int, family: Family
) -> tuple[FloatArray, FloatArray]:
    """Bounds of (β, θ, δ) from those of θ."""
    fixed = np.full(p, np.inf)
    own = np.full(int(family.estimates_delta), np.inf)
    lower = lower - _BEYOND
    return np.concatenate([-fixed, lower, -own]), np.concatenate([fixed, upper, own])


def checked_generalized(
    fit: GeneralizedFit, effects: tuple[FloatArray, FloatArray]
) -> GeneralizedFit:
    """A fit whose criterion, effects and Hessian follow from what else was stored.

    Raises
    ------
    ValueError
        If they are others.
    """
    found, stored = fit.point.value, fit.optimum.value
    if not abs(found - stored) <= _CRITERION * (fit.design.n + abs(stored)):
        raise ValueError(f"its criterion is {found:.6g}, not {stored:.6g} as stored")
    fit = _with_own_hessian(fit)
    beta, b = effects
    se = np.sqrt(np.diag(fit.vcov))
    if not (np.abs(fit.beta - beta) <= 1e-4 * np.where(np.isfinite(se), se, np.inf)).all():
        raise ValueError("its fixed effects are not those that were stored")
    if not np.allclose(fit.b, b, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(b).max()))):
        raise ValueError("its random effects are not those that were stored")
    return fit


def _with_own_hessian(fit: GeneralizedFit) -> GeneralizedFit:
    """The fit, with the Hessian that it has at its optimum where another one was stored.

    Raises
    ------
    ValueError
        If the stored one is of another model.
    """
    J = fit.problem.coordinates.jacobian
    found, stored = hessian_at(fit.problem, fit.parameters, fit.u), J.T @ fit.hessian @ J
    size = np.sqrt(np.abs(np.diag(found)))
    off = np.abs(found - stored)
    if (off <= _ROUNDING * np.outer(size, size)).all():
        return fit
    size = np.maximum(size, _FLAT * size.max())  # little is known of flat directions
    if not (off <= _NEAR * np.outer(size, size)).all():
        raise ValueError("its second derivatives are not those that were stored")
    back = np.linalg.inv(J)
    other = replace(fit, hessian=back.T @ found @ back)
    vars(other)["point"] = fit.point
    return other
