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
    exact = fits_exactly(squares, response.yty, explained(fit), fit.design.n)
    if exact:  # the criterion is lost in rounding
        return
    if not close:
        raise ValueError(f"its criterion is {found:.6g}, not {stored:.6g} as stored")
    if effects is None:
        return
    beta, b = effects
    if not (np.abs(fit.beta - beta) <= _NEAR * np.sqrt(np.diag(fit.vcov))).all():
        raise ValueError("its fixed effects are not those that were stored")
    sds = [fit.sigma * np.linalg.norm(T, axis=1) for T in fit.template.factors(fit.theta)]
    for own, want, sd in zip(fit.split(fit.b), fit.split(b), sds, strict=True):
        if not (np.abs(own - want) <= _NEAR * sd).all():
            raise ValueError("its random effects are not those that were stored")
