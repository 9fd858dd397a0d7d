"""`Fit` → its residuals, of several kinds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.options import one_of
from lmmsparse.fit.fit import Fit


def _response(fit: Fit) -> FloatArray:
    """Y − ŷ."""
    return fit.design.y - fit.fitted


def _pearson(fit: Fit) -> FloatArray:
    """√w (y − ŷ)."""
    return np.sqrt(fit.design.weights_or_one) * _response(fit)


KINDS: dict[str, Callable[[Fit], FloatArray]] = {"response": _response, "pearson": _pearson}


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
