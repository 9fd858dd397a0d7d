"""`Fit` → conditional modes of the random effects and their conditional covariances, by group."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray, frozen
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.products import side_by_side
from lmmsparse.engine.solvers.base import EstimatedFactor
from lmmsparse.fit.fit import Fit
from lmmsparse.formula.tokens import effect_key


def conditional_modes(fit: Fit) -> dict[str, FloatArray]:
    """Conditional modes b = Λu per grouping factor, terms that share one side by side.

    Returns
    -------
    dict
        Group → (levels, k) array.
    """
    parts = fit.split(fit.b)
    return {
        group: np.concatenate([parts[t] for t in terms], axis=1)
        for group, terms in fit.design.groups.items()
    }


def effect_names(fit: Fit) -> dict[str, tuple[str, ...]]:
    """Names of the columns of `conditional_modes`, per group."""
    return {
        group: tuple(name for t in terms for name in fit.design.blocks[t].names)
        for group, terms in fit.design.groups.items()
    }


def coefficients_by_level(fit: Fit) -> dict[str, tuple[list[str], FloatArray]]:
    """Fixed effects plus random effects of each level.

    The same effect may have its factors in another order, or another coding, in both parts.

    Returns
    -------
    dict
        Group → names of the effects, those that are only random first, and (levels, effects).
    """
    fixed = list(fit.design.x_names)
    names = {effect_key(name): name for name in fixed}
    out = {}
    for group, modes in conditional_modes(fit).items():
        own = [names.get(effect_key(name), name) for name in effect_names(fit)[group]]
        every = [*dict.fromkeys(name for name in own if name not in fixed), *fixed]
        values = np.zeros((len(modes), len(every)))
        values[:, len(every) - len(fixed) :] = fit.beta
        for name, column in zip(own, modes.T, strict=True):
            values[:, every.index(name)] += column
        out[group] = (every, values)
    return out


@one_thread
def conditional_covariances(fit: Fit) -> dict[str, FloatArray]:
    """Covariance of the random effects of each level given the data, β and θ.

    Returns
    -------
    dict
        Group → (levels, k, k) array, columns as in `conditional_modes`.

    Notes
    -----
    Var(b | y) = σ² Λ M⁻¹ Λ' with M = Λ'Z'WZΛ + I; only the blocks of M⁻¹ on the pattern of Z'WZ are
    computed (Bates et al. 2015, section 2.2 and eq. 58). Where they are estimated from random
    probes (`Krylov`), each is off by about a hundredth.
    """
    factors, factor = fit.template.factors(fit.theta), fit.modes.factor
    estimated = isinstance(factor, EstimatedFactor)
    inverse = [] if estimated else factor.inverse_blocks()
    out = {}
    for group, terms in fit.design.groups.items():
        T = sla.block_diag(*(factors[t] for t in terms))
        if isinstance(factor, EstimatedFactor):
            S = factor.own_blocks(terms)
        else:
            S = side_by_side(fit.products, inverse, terms)
        out[group] = frozen(fit.sigma2 * np.matmul(np.matmul(T, S), T.T))
    return out
