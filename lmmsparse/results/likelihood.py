"""`Fit` → log-likelihood, AIC and BIC."""

from __future__ import annotations

import numpy as np

from lmmsparse.fit.fit import Fit


def loglik(fit: Fit) -> float:
    """(Restricted) log-likelihood at the estimates."""
    return -0.5 * fit.criterion


def criteria(fit: Fit) -> tuple[float, float]:
    """AIC and BIC from the criterion that was fitted, as in R."""
    return fit.criterion + 2 * fit.npar, fit.criterion + np.log(fit.design.n) * fit.npar
