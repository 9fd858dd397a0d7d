"""`Fit` → how much the random effects of each group add to the variance of the response."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.fit.fit import Fit


def group_variances(fit: Fit) -> dict[str, float]:
    """Group → mean over the rows of the variance its random effects add.

    To the response of a linear model, to the linear predictor of a generalized one.
    """
    T = fit.template.factors(fit.theta)
    out = dict.fromkeys(fit.design.groups, 0.0)
    facts = fit.design.facts
    for t, (block, factor) in enumerate(zip(fit.design.blocks, T, strict=True)):
        if facts is not None:
            mean = float(np.vdot(facts.grams[t] @ factor, factor)) / facts.n
            out[block.group] += fit.sigma2 * mean
            continue
        own: FloatArray = block.columns @ factor
        each = block.level_variances(block.codes) * np.einsum("nk,nk->n", own, own)
        out[block.group] += fit.sigma2 * float(np.mean(each))
    return out


def groups_of_rows(fit: Fit) -> list[str]:
    """Groups with a level of its own for every row, whose effects are residuals by another name."""
    return [
        name
        for name, terms in fit.design.groups.items()
        if fit.design.blocks[terms[0]].known is None
        and fit.design.blocks[terms[0]].n_levels == fit.design.n
    ]
