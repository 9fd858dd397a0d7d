"""`Fit` → shares of variance: intraclass correlations, marginal and conditional R²."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.design.facts import Facts
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.results.group_variances import group_variances, groups_of_rows
from lmmsparse.results.observation_variance import check_method, observation_variance


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


def _parts(fit: Fit, method: Any) -> tuple[dict[str, float], float]:
    """The variance of each group, and that of the residuals."""
    groups = group_variances(fit)
    if not isinstance(fit, GeneralizedFit):
        return groups, _residual_variance(fit)
    rest = observation_variance(fit, check_method(fit.family, method))
    for name in groups_of_rows(fit):
        rest += groups.pop(name)
    return groups, rest


def intraclass_correlation(fit: Fit, method: Any = None) -> pd.Series:
    """Share of each group in the variance that the fixed effects leave over.

    Parameters
    ----------
    method : str, optional
        Of a generalized model, see `observation_variance`.

    Notes
    -----
    With random slopes the variance of a group is averaged over the rows of the data
    (Johnson 2014); with weights or unequal residuals so is the residual variance.
    """
    parts, rest = _parts(fit, method)
    total = sum(parts.values()) + rest
    index = pd.Index(list(parts), dtype=object)
    shares = [v / total for v in parts.values()]
    return pd.Series(shares, index=index, name="icc", dtype=np.float64)


def r_squared(fit: Fit, method: Any = None) -> pd.Series:
    """Marginal R² (fixed effects) and conditional R² (fixed and random effects).

    Parameters
    ----------
    method : str, optional
        Of a generalized model, see `observation_variance`.

    References
    ----------
    Nakagawa & Schielzeth (2013), Methods in Ecology and Evolution 4, 133-142; Johnson (2014),
    Methods in Ecology and Evolution 5, 944-946; Nakagawa, Johnson & Schielzeth (2017), Journal of
    the Royal Society Interface 14, 20170213.
    """
    facts = fit.design.facts
    if facts is not None:
        explained = _variance_of_means(facts, fit.beta)
    else:
        explained = float(np.var(fit.design.fixed @ fit.beta, ddof=1))
    parts, rest = _parts(fit, method)
    random = sum(parts.values())
    total = explained + random + rest
    shares = [explained / total, (explained + random) / total]
    return pd.Series(shares, index=pd.Index(["marginal", "conditional"], dtype=object), name="r2")
