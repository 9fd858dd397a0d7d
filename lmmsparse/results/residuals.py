"""`Fit` → its residuals, of several kinds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.options import one_of
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit


def _response(fit: Fit) -> FloatArray:
    """Y − ŷ."""
    return fit.design.y - fit.fitted


def _pearson(fit: Fit) -> FloatArray:
    """√w (y − ŷ), or y − ŷ over its standard deviation relative to σ."""
    if isinstance(fit, ResidualFit):
        return np.asarray(_response(fit) / fit.structure.sd(fit.phi))
    w = fit.design.weights
    return _response(fit) if w is None else np.sqrt(w) * _response(fit)


def _normalized(fit: Fit) -> FloatArray:
    """L⁻¹ (y − ŷ)/σ with R = LL': independent and of variance one if the model holds."""
    if not isinstance(fit, ResidualFit):
        return np.asarray(_pearson(fit) / fit.sigma)
    white = fit.structure.whiten(fit.phi, _response(fit)[:, None])[:, 0]
    return np.asarray(white / fit.sigma)


KINDS: dict[str, Callable[[Fit], FloatArray]] = {
    "response": _response,
    "pearson": _pearson,
    "normalized": _normalized,
}


def of_the_rows_kept(fit: Fit, kind: str = "response") -> FloatArray:
    """Residuals of all rows, or of the sample where not all rows are kept."""
    design = fit.design.some
    if design is fit.design:
        return residuals(fit, kind)
    values = design.y - fit.fitted_on(design)
    return values if kind == "response" else np.sqrt(design.weights_or_one) * values


def residuals(fit: Fit, kind: str = "response") -> FloatArray:
    """Residuals of the fitted rows, (n,)."""
    return KINDS[one_of("kind", kind, tuple(KINDS))](fit)
