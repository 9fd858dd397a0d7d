"""`Fit` → conditional modes of the random effects and their conditional covariances, by group."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray, frozen
from lmmsparse.common.threads import one_thread
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
    computed (Bates et al. 2015, section 2.2 and eq. 58).
    """
    T = fit.template.factors(fit.theta)
    inverse = fit.modes.factor.inverse_blocks()
    blocks = {(pair.s, pair.t): S for pair, S in zip(fit.products.pairs, inverse, strict=True)}
    out = {}
    for group, terms in fit.design.groups.items():
        sizes = [fit.design.blocks[t].k for t in terms]
        starts = np.cumsum([0, *sizes])
        levels = fit.design.blocks[terms[0]].n_levels
        joined = np.empty((levels, starts[-1], starts[-1]))
        for i, s in enumerate(terms):
            for j, t in enumerate(terms[: i + 1]):
                low = fit.sigma2 * np.matmul(np.matmul(T[s], blocks[s, t]), T[t].T)
                rows = slice(starts[i], starts[i + 1])
                cols = slice(starts[j], starts[j + 1])
                joined[:, rows, cols] = low
                joined[:, cols, rows] = np.swapaxes(low, 1, 2)
        out[group] = frozen(joined)
    return out
