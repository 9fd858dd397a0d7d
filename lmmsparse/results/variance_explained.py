"""`Fit` → shares of variance: intraclass correlations, marginal and conditional R²."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.design.facts import Facts
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit


def _random_variances(fit: Fit) -> dict[str, float]:
    """Group → mean over the rows of the variance its random effects add to the response."""
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


def _residual_variance(fit: Fit) -> float:
    if isinstance(fit, ResidualFit):
        return float(np.mean(fit.residual_sd**2))
    if fit.design.facts is not None:
        return fit.sigma2 * fit.design.facts.mean_inverse_weight
    return fit.sigma2 * float(np.mean(1.0 / fit.design.weights_or_one))


def _variance_of_means(facts: Facts, beta: FloatArray) -> float:
    """Of Xβ over the rows, from the triangular factor of X and its column sums."""
    along = np.linalg.solve(facts.R.T, facts.sums)  # Q'1
    means = facts.R @ beta
    left = means - along * float(along @ means) / facts.n
    rest = 1.0 - float(along @ along) / facts.n  # of 1, what the columns do not span
    squares = float(left @ left) + max(rest, 0.0) * float(along @ means) ** 2 / facts.n
    return squares / (facts.n - 1)


def intraclass_correlation(fit: Fit) -> pd.Series:
    """Share of each group in the variance that the fixed effects leave over.

    Notes
    -----
    With random slopes the variance of a group is averaged over the rows of the data
    (Johnson 2014); with weights or unequal residuals so is the residual variance.
    """
    parts = _random_variances(fit)
    total = sum(parts.values()) + _residual_variance(fit)
    index = pd.Index(list(parts), dtype=object)
    return pd.Series([v / total for v in parts.values()], index=index, name="icc")


def r_squared(fit: Fit) -> pd.Series:
    """Marginal R² (fixed effects) and conditional R² (fixed and random effects).

    References
    ----------
    Nakagawa & Schielzeth (2013), Methods in Ecology and Evolution 4, 133-142; Johnson (2014),
    Methods in Ecology and Evolution 5, 944-946.
    """
    facts = fit.design.facts
    if facts is not None:
        explained = _variance_of_means(facts, fit.beta)
    else:
        explained = float(np.var(fit.design.fixed @ fit.beta, ddof=1))
    random = sum(_random_variances(fit).values())
    total = explained + random + _residual_variance(fit)
    shares = [explained / total, (explained + random) / total]
    return pd.Series(shares, index=pd.Index(["marginal", "conditional"], dtype=object), name="r2")
