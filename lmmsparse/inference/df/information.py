"""`Fit` → what inference about variances needs of V: the expected information about all of them.

Variance parameters are those of `CovarianceStructure.spans`, relative to σ², the residual one last.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.residual.parts import LARGEST, ClusterParts
from lmmsparse.engine.variance_parts import VarianceParts
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.monte_carlo import require_exact
from lmmsparse.fit.problem import term_columns
from lmmsparse.fit.residual.fit import ResidualFit


def restricted(traces: FloatArray, A: FloatArray, Q: FloatArray, C: FloatArray) -> FloatArray:
    """tr(PG_rPG_s) with P = V⁻¹ − V⁻¹X C X'V⁻¹, from tr(V⁻¹G_rV⁻¹G_s), (r, r)."""
    CA = np.matmul(C, A)
    J = traces - 2.0 * np.einsum("ij,rsji->rs", C, Q, optimize=True)
    return np.asarray(J + np.einsum("rij,sji->rs", CA, CA, optimize=True))


def variance_parts(fit: Fit) -> VarianceParts | ClusterParts:
    """V and its derivatives at the fit: in the space of b, or by clusters of correlated rows."""
    if not isinstance(fit, ResidualFit):
        return VarianceParts(fit.objective, fit.theta, fit.modes)
    Q, _ = fit.design.internal_columns()
    terms, p = term_columns(fit.design), fit.design.p
    X = Q.times(np.eye(p)) if p else np.zeros((fit.design.n, 0))
    parts = ClusterParts(fit.structure, fit.template, terms, X, fit.theta, fit.phi)
    if parts.largest > LARGEST:
        raise OptionError(
            "With correlated or unequal residuals the Kenward–Roger method needs matrices of the "
            f"rows that share a level, directly or through others, and here {parts.largest} rows "
            "do. Use ddf='satterthwaite'."
        )
    return parts


@one_thread
def information(fit: Fit) -> FloatArray:
    """Expected information about all variance parameters, by the criterion of the fit, (r, r)."""
    require_exact(fit, "The expected information needs", "Use the average information")
    parts = variance_parts(fit)
    J = parts.traces()
    if fit.reml and fit.design.p:
        C = sla.cho_solve((fit.modes.solution.RX, False), np.eye(fit.design.p))
        J = restricted(J, parts.slopes(), parts.curvatures(), C)
    return np.asarray(0.25 * (J + J.T))
