"""`Fit` → its covariance parameters as standard deviations and correlations: names and values."""

from __future__ import annotations

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.fit import Fit


def parameter_names(fit: Fit) -> list[str]:
    """Names in θ's order, ``"sigma"`` last: ``sd_Days|Subject``, ``cor_Days.Intercept|Subject``.

    A standard deviation that all effects share is ``sd|g``, the parameter of a correlation
    structure ``rho|g``.
    A name that two terms would share gets a number: ``sd_Intercept|g``, ``sd_Intercept|g.1``.
    """
    names: list[str] = []
    for block in fit.design.blocks:
        structure = block.structure
        for label, (row, column) in zip(structure.labels, structure.entries, strict=True):
            if label:
                name = f"{label}|{block.group}"
            elif row == column:
                name = f"sd_{block.names[row]}|{block.group}"
            else:
                name = f"cor_{block.names[row]}.{block.names[column]}|{block.group}"
            count = sum(n == name or n.startswith(f"{name}.") for n in names)
            names.append(f"{name}.{count}" if count else name)
    return [*names, "sigma"]


def theta_names(fit: Fit) -> list[str]:
    """Names of θ itself in lme4's manner: ``Subject.Intercept``, ``Subject.Days.Intercept``."""
    names = []
    for block in fit.design.blocks:
        structure = block.structure
        for label, (row, column) in zip(structure.labels, structure.entries, strict=True):
            effects = [block.names[row]] + ([block.names[column]] if row != column else [])
            names.append(".".join([block.group, *([label] if label else effects)]))
    return names


def parameter_values(fit: Fit, theta: FloatArray, sigma: float) -> FloatArray:
    """The parameters of `parameter_names` at θ and σ; NaN for correlations with a constant.

    Parameters
    ----------
    fit : Fit
        Whose design it is.
    theta : (n_theta,) array
    sigma : float
    """
    values = []
    template = fit.template
    for structure, T in zip(template.structures, template.factors(theta), strict=True):
        cov = T @ T.T
        sd = np.sqrt(np.diag(cov))
        for row, column in structure.entries:
            if row == column:
                values.append(sigma * sd[row])
            else:
                both = sd[row] * sd[column]
                values.append(cov[row, column] / both if both > 0 else np.nan)
    return np.array([*values, sigma])
