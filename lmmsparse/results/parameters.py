"""`Fit` → its covariance parameters as standard deviations and correlations: names and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import names_in
from lmmsparse.design.terms import coefficients_of
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit


def _described(fit: Fit) -> Iterator[tuple[str, str, str, str]]:
    """Label, effect of the row, effect of the column and group of every covariance parameter."""
    for block in fit.design.blocks:
        structure, names = block.structure, block.names
        for label, (row, column) in zip(structure.labels, structure.entries, strict=True):
            yield label, names[row], names[column], block.group


def parameter_names(fit: Fit) -> list[str]:
    """Names in θ's order, ``"sigma"`` last: ``sd_Days|Subject``, ``cor_Days.Intercept|Subject``.

    A standard deviation that all effects share is ``sd|g``, the parameter of a correlation
    structure ``rho|g``.
    A name that two terms would share gets a number: ``sd_Intercept|g``, ``sd_Intercept|g.1``.
    """
    names: list[str] = []
    for label, row, column, group in _described(fit):
        own = f"sd_{row}" if row == column else f"cor_{row}.{column}"
        name = f"{label or own}|{group}"
        count = sum(n == name or n.startswith(f"{name}.") for n in names)
        names.append(f"{name}.{count}" if count else name)
    return [*names, *residual_names(fit), "sigma"]


def residual_names(fit: Fit) -> tuple[str, ...]:
    """Names of the parameters of the residuals' covariance, which stand before ``"sigma"``."""
    return fit.phi_names if isinstance(fit, ResidualFit) else ()


def residual_values(fit: Fit) -> list[float]:
    """Their estimates."""
    return fit.natural.tolist() if isinstance(fit, ResidualFit) else []


def parameter_labels(fit: Fit) -> dict[str, str]:
    """Every name in words for an axis: ``"SD of Days | Subject"``; fixed effects keep theirs."""
    common, labels = {"sd": "SD", "rho": "Correlation"}, []
    for label, row, column, group in _described(fit):
        own = f"SD of {row}" if row == column else f"Correlation of {column} and {row}"
        labels.append(f"{common.get(label, label) or own} | {group}")
    labels += [f"Residual {name}" for name in residual_names(fit)]
    out = dict(zip(parameter_names(fit), [*labels, "Residual SD"], strict=True))
    return {**out, **{name: name for name in fit.design.x_names}}


def parameter_values(
    fit: Fit, theta: FloatArray, sigma: float, phi: FloatArray | None = None
) -> FloatArray:
    """The parameters of `parameter_names` at θ and σ; NaN for correlations with a constant.

    Parameters
    ----------
    fit : Fit
        Whose design it is.
    theta : (n_theta,) array
    phi : (n_phi,) array, optional
        Of the residuals' covariance; that of the fit if not given.
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
    if isinstance(fit, ResidualFit):
        values += list(fit.structure.natural(fit.phi if phi is None else phi))
    return np.array([*values, sigma])


def known_parameters(fit: Fit) -> BoolArray:
    """Which parameters, fixed effects at the end, have the value that the user has given them.

    A standard deviation is known with σ and all elements of its row of T, or if these are zero; a
    correlation with the elements of both rows.
    """
    known: list[bool] = []
    for structure, part in zip(fit.template.structures, fit.template.slices, strict=True):
        held, par = ~fit.template.free[part], fit.theta[part]
        rows = np.array([row for row, _ in structure.entries])
        for i, (row, column) in enumerate(structure.entries):
            own = np.arange(len(rows)) == i
            if structure.closed:
                # The first column of T is of one sign: only the other row matters beside it.
                own = (rows == row) | ((rows == column) & (column > 0))
            fixed = bool(held[own].all())
            absolute = row == column and fit.held.sigma is None and bool(par[own].any())
            known.append(fixed and not absolute)
    if isinstance(fit, ResidualFit):
        known += (~fit.problem.free_phi).tolist()
    known.append(fit.held.sigma is not None)
    return np.array([*known, *[False] * fit.design.p])


def select_rows(which: str | Sequence[str], names: list[str], fit: Fit) -> list[str]:
    """Resolve ``which=``: names, terms, ``"beta_"`` for all fixed effects, ``"theta_"`` for others.

    A term of the fixed effects stands for its coefficients.
    """
    use = f"Give one or several of {', '.join(names)}."
    wanted = names_in("which", which, use)
    p = len(fit.design.x_names)
    out: list[str] = []
    for name in wanted:
        if name == "beta_":
            out += names[len(names) - p :]
        elif name == "theta_":
            out += names[: len(names) - p]
        elif name in names:
            out.append(name)
        elif of_term := coefficients_of(fit.design, name):
            out += of_term
        else:
            raise OptionError(
                f"which={name!r} is not a parameter of the model. Its parameters are "
                f"{', '.join(names)}. Name one of these or a term of the fixed effects, or 'beta_' "
                "for all of them, 'theta_' for all others."
            )
    return out
