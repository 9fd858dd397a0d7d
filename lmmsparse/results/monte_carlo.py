"""`Fit` → a table of what random probes leave open: per covariance parameter, and the criterion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.table import Table, number, significant
from lmmsparse.common.threads import one_thread
from lmmsparse.engine.covariance.tangents import derivatives_of_T
from lmmsparse.engine.solvers.krylov.solver import Krylov
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.results.parameter_covariance import parameter_covariance
from lmmsparse.results.parameters import parameter_names, parameter_values

_STEP = 1e-5


@one_thread
def monte_carlo_table(fit: Fit) -> Table:
    """Estimate, standard error, Monte Carlo standard deviation and their ratio.

    Returns
    -------
    Table
        Rows are standard deviations and correlations, ``sigma`` and ``criterion``.
    """
    estimates = parameter_values(fit, fit.theta, fit.sigma)
    J, along = _jacobian(fit)
    d, error = len(fit.theta), fit.monte_carlo
    C = parameter_covariance(fit).matrix
    se = np.sqrt(np.maximum(np.einsum("ri,ij,rj->r", J, C, J), 0.0))
    sd, of_criterion = np.zeros(len(J)), 0.0
    if error is not None:
        total = J[:, :d] + np.outer(J[:, -1], along)
        sd = np.sqrt(np.maximum(np.einsum("ri,ij,rj->r", total, error.spread, total), 0.0))
        of_criterion = error.criterion
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(se > 0, sd / se, np.nan)
    each = dict.fromkeys(("std. error", "Monte Carlo sd", "ratio"), _each)
    return Table(
        {
            "estimate": [*estimates.tolist(), fit.criterion],
            "std. error": [*se.tolist(), np.nan],
            "Monte Carlo sd": [*sd.tolist(), of_criterion],
            "ratio": [*ratio.tolist(), np.nan],
        },
        [*parameter_names(fit), "criterion"],
        title=_title(fit),
        formats={"estimate": _estimates, **each},
    )


def _estimates(values: Sequence[float]) -> list[str]:
    return [number(v, 4) if abs(v) >= 1e3 else f"{v:.6g}" for v in values]


def _each(values: Sequence[float]) -> list[str]:
    return ["" if np.isnan(v) else significant([v], 2)[0] for v in values]


def _title(fit: Fit) -> str:
    if not isinstance(fit.solver, Krylov) or not fit.estimated:
        return "Exact linear algebra: nothing is left to chance"
    vectors = fit.solver.vectors
    return (
        f"Monte Carlo error of {fit.solver.probes} probes"
        f"{f' and {vectors} deflation vectors' if vectors else ''}"
    )


def _jacobian(fit: Fit) -> tuple[FloatArray, FloatArray]:
    """Derivatives of the parameters by (standardized θ, φ, σ), and of σ̂ by standardized θ."""
    scaled = StandardizedObjective(fit.objective)
    phi = fit.phi if isinstance(fit, ResidualFit) else np.zeros(0)
    point, d = np.concatenate([scaled.to_internal(fit.theta), phi, [fit.sigma]]), len(fit.theta)
    J = np.empty((len(point), len(point)))
    for i, step in enumerate(_STEP * np.maximum(1.0, np.abs(point))):
        move = step * (np.arange(len(point)) == i)
        up, down = (
            parameter_values(fit, scaled.to_theta(at[:d]), float(at[-1]), at[d:-1])
            for at in (point + move, point - move)
        )
        J[:, i] = (up - down) / (2.0 * step)
    J = np.where(np.isfinite(J), J, 0.0)
    if fit.held.sigma is not None:
        return J, np.zeros(d)
    slope = np.empty(d)
    directions = derivatives_of_T(fit.template, fit.theta)
    for part, D, v, u in zip(
        fit.template.slices, directions, fit.split(fit.modes.v), fit.split(fit.modes.u), strict=True
    ):
        slope[part] = -2.0 * (D.reshape(len(D), -1) @ (v.T @ u).ravel())
    slope = slope @ scaled.to_theta(np.eye(d))
    return J, slope / (2.0 * fit.objective.df * fit.sigma)
