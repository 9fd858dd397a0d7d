"""How closely we must agree with lme4, quantity by quantity, and why no closer.

Errors are on the scales `quantities` defines. The references are Newton-polished: their θ is good
to about eight digits, their criterion to about twelve.
"""

from __future__ import annotations

AGAINST_LME4 = {
    # Nothing but arithmetic lies between the two: same θ, same data.
    "criterion_at": 1e-9,
    # In units of −2 log-likelihood, one-sided. A thousandth of what could matter to anybody.
    "criterion": 1e-6,
    # The criterion is flat at its minimum: 1e-8 in it is 1e-4 standard errors in θ.
    "theta": 1e-3,
    "varcorr": 1e-3,
    # Yes or no.
    "singular": 0.0,
    "counts": 0.0,
    # θ enters only through the weights that observations get.
    "fixef": 1e-5,
    "se": 1e-5,
    "vcov": 2e-5,
    "sigma": 1e-5,
    # Two numbers that are each within 1e-6 of the optimum, and rounding of values near 2.4e5.
    "information": 2e-6,
    # Shrinkage depends on θ directly.
    "ranef": 1e-4,
    "cond_var": 1e-4,
    "fitted": 1e-4,
    "residuals": 1e-4,
    # Extrapolation of a third of a standard deviation beyond the data.
    "predictions": 1e-4,
}
