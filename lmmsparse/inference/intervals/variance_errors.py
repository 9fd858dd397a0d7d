"""`Fit` → covariance matrix of its estimated variances, or of standard deviations and correlations.

Asymptotic, by the inverse Hessian of the criterion in (θ, σ) and the chain rule.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.options import one_of
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.not_identified import clusters
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.singular import null_directions
from lmmsparse.results.parameter_covariance import parameter_covariance
from lmmsparse.results.parameters import parameter_names, parameter_values

SCALES = ("sdcor", "vcov")
_STEP = 1e-5


def variance_errors(fit: Fit, scale: str = "sdcor") -> pd.DataFrame:
    """Covariance matrix of the estimated covariance parameters.

    Returns
    -------
    DataFrame
        (r, r), the residual parameter last; NaN for a term whose covariance is singular or not
        determined, zero for what the user holds.

    References
    ----------
    Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, section 2.3.
    """
    one_of("scale", scale, SCALES)
    scaled = StandardizedObjective(fit.objective)
    phi = fit.phi if isinstance(fit, ResidualFit) else np.zeros(0)
    point, d = np.concatenate([scaled.to_internal(fit.theta), phi, [fit.sigma]]), len(fit.theta)

    def values(at: FloatArray) -> FloatArray:
        out = parameter_values(fit, scaled.to_theta(at[:d]), float(at[-1]), at[d:-1])
        return out if scale == "sdcor" else _variances(fit, out)

    J = np.empty((len(point), len(point)))
    for i, step in enumerate(_STEP * np.maximum(1.0, np.abs(point))):
        move = step * (np.arange(len(point)) == i)
        J[:, i] = (values(point + move) - values(point - move)) / (2.0 * step)
    covariance = np.asarray(J @ parameter_covariance(fit).matrix @ J.T)
    found = clusters(fit)
    unknown = {t for cluster in found for t in cluster.entries}
    if any(cluster.residual for cluster in found):
        covariance[-1] = covariance[:, -1] = np.nan
    for t, (null, part) in enumerate(zip(null_directions(fit), fit.template.slices, strict=True)):
        if len(null) or t in unknown:
            covariance[part] = np.nan
            covariance[:, part] = np.nan
    names = parameter_names(fit)
    if scale == "vcov":
        words = {"sd": "var", "cor": "cov", "rho": "cov"}
        d = len(fit.theta)
        names = [*(_renamed(name, words) for name in names[:d]), *names[d:-1], "sigma2"]
    index = pd.Index(names, dtype=object)
    return pd.DataFrame(covariance, index=index, columns=index)


def _renamed(name: str, words: dict[str, str]) -> str:
    for old, new in words.items():
        if name.startswith((f"{old}_", f"{old}|")):
            return new + name[len(old) :]
    return name


def _variances(fit: Fit, values: FloatArray) -> FloatArray:
    """Variances and covariances from standard deviations and correlations."""
    out = values**2
    residual = slice(fit.template.n_theta, len(values) - 1)
    out[residual] = values[residual]
    for structure, part in zip(fit.template.structures, fit.template.slices, strict=True):
        own = values[part]
        sd = {row: own[i] for i, (row, column) in enumerate(structure.entries) if row == column}
        for i, (row, column) in enumerate(structure.entries):
            if row != column:
                out[part.start + i] = own[i] * sd[row if row in sd else 0] * sd[column]
    return np.asarray(out)
