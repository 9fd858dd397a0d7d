"""A `Fit` that was read from a file is the one that was stored: criterion and effects agree."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.threads import one_thread
from lmmsparse.fit.exact import fits_exactly
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.verdict import explained

# Other processors and libraries round otherwise: what criteria of one model may differ by, per
# observation and per unit of the criterion.
_ROUNDING = 1e-6
_NEAR = 1e-4  # and effects, per unit of their standard errors and deviations
_FIXED = "its fixed effects are not those that were stored"
_RANDOM = "its random effects are not those that were stored"


@one_thread
def check_solution(fit: Fit, effects: tuple[FloatArray, FloatArray] | None) -> None:
    """Refuse a model whose criterion and effects are not those that were stored.

    What is computed for this is kept: nearly all uses of a model begin with it.

    Parameters
    ----------
    effects : tuple of arrays or None
        Fixed effects (p,) and conditional modes (q,).
    """
    found, stored = fit.criterion, fit.optimum.value
    close = abs(found - stored) <= _ROUNDING * (fit.design.n + abs(stored))
    modes, response = fit.modes, fit.objective.response
    squares = modes.solution.pwrss - fit.products.prior.square(modes.u)
    beta0 = explained(fit)
    size = response.yty + float(beta0 @ beta0)
    if not np.isfinite([found, squares, size]).all():
        raise ValueError("values so large that nothing can be computed")
    if fits_exactly(squares, response.yty, beta0, fit.design.n):  # all else is lost in rounding
        if effects is not None:
            _check_exact(fit, effects, np.sqrt(size / fit.design.n))
        return
    if not close:
        raise ValueError(f"its criterion is {found:.6g}, not {stored:.6g} as stored")
    if effects is None:
        return
    beta, b = effects
    if not (np.abs(fit.beta - beta) <= _NEAR * np.sqrt(np.diag(fit.vcov))).all():
        raise ValueError(_FIXED)
    sds = [fit.sigma * np.linalg.norm(T, axis=1) for T in fit.template.factors(fit.theta)]
    for own, want, sd in zip(fit.split(fit.b), fit.split(b), sds, strict=True):
        if not (np.abs(own - want) <= _NEAR * sd).all():
            raise ValueError(_RANDOM)


def _check_exact(fit: Fit, effects: tuple[FloatArray, FloatArray], size: float) -> None:
    """The same where standard errors are nothing: in units of the response."""
    beta, b = effects
    R = fit.products.basis.R
    if np.linalg.norm(R @ (fit.beta - beta)) > _NEAR * (np.linalg.norm(R @ beta) + size):
        raise ValueError(_FIXED)
    if (np.abs(fit.b - b) > _NEAR * (np.abs(b).max(initial=0.0) + size)).any():
        raise ValueError(_RANDOM)
