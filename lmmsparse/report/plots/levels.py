"""`Fit` and the name of a grouping factor → its levels' random effects, ready to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, ObjectArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import brief, close_match, listed
from lmmsparse.fit.fit import Fit
from lmmsparse.results.by_group import own_name
from lmmsparse.results.ranef import conditional_covariances, conditional_modes, effect_names


@dataclass(frozen=True, eq=False)
class LevelEffects:
    """The random effects of a group.

    Attributes
    ----------
    names : tuple of str
        The k effects.
    labels : (levels,) array
    modes : (levels, k) array
        Conditional modes.
    conditional_sd : (levels, k) array
        Standard deviations given the data.
    variance : (levels, k) array
        Estimated variances between levels.
    """

    group: str
    names: tuple[str, ...]
    labels: ObjectArray
    modes: FloatArray
    conditional_sd: FloatArray
    variance: FloatArray


def chosen_group(fit: Fit, group: str | None) -> str:
    """The group that is meant; it may be left out where there is one only."""
    groups = fit.design.groups
    if not groups:
        raise OptionError(
            "The model has no random effects, which this plot is about. Use m.plot.residuals() or "
            "m.plot.effects()."
        )
    if group is None:
        if len(groups) > 1:
            raise OptionError(
                "The model has several grouping factors, and the plot is about one. Name it: "
                f"{listed(groups)}."
            )
        return next(iter(groups))
    group = own_name(group, groups)
    if not isinstance(group, str) or group not in groups:
        raise OptionError(
            f"group={brief(group)} is not a grouping factor of the model."
            f"{close_match(brief(group), groups)} Its grouping factors are {listed(groups)}. Name "
            "one of these."
        )
    return group


def effects_of(fit: Fit, group: str | None) -> LevelEffects:
    """The random effects of one group."""
    group = chosen_group(fit, group)
    terms = fit.design.groups[group]
    first = fit.design.blocks[terms[0]]
    factors = fit.template.factors(fit.theta)
    spread = conditional_covariances(fit)[group]
    return LevelEffects(
        group=group,
        names=effect_names(fit)[group],
        labels=np.asarray(first.levels, dtype=object),
        modes=conditional_modes(fit)[group],
        conditional_sd=np.sqrt(np.maximum(np.einsum("lkk->lk", spread), 0.0)),
        variance=fit.sigma2
        * np.multiply.outer(
            np.ones(first.n_levels) * first.level_variances(np.arange(first.n_levels)),
            np.concatenate([np.einsum("ij,ij->i", factors[t], factors[t]) for t in terms]),
        ),
    )
