"""`ResidualFit` and many responses → a table of estimates, one row per response."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import LmmError
from lmmsparse.common.progress import growing, run
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.refit import refit_response
from lmmsparse.fit.residual.fit import ResidualFit

_PART = 16


def refit_residuals(
    fit: ResidualFit, Y: FloatArray, index: pd.Index, n_jobs: int, progress: bool | None
) -> pd.DataFrame:
    """Refit every column of `Y` by itself; see `LinearMixedModel.refit_many`."""
    names = fit.design.x_names
    columns = [
        "criterion",
        *theta_names(fit.design),
        *fit.phi_names,
        "sigma",
        *names,
        *(f"se_{name}" for name in names),
    ]
    numbers = np.full((Y.shape[1], len(columns)), np.nan)
    converged, singular = np.zeros((2, Y.shape[1]), dtype=bool)
    problem = np.full(Y.shape[1], "Interrupted before it was fitted.", dtype=object)
    parts = [part for part in growing(Y.shape[1], _PART)]
    done = run(
        _some,
        [(fit, Y[:, part]) for part in parts],
        "refit_many",
        unit="responses",
        n_jobs=n_jobs,
        progress=progress,
        sizes=[Y[:, part].shape[1] for part in parts],
    )
    for part, found in zip(parts, done.results, strict=False):
        numbers[part], converged[part], singular[part], problem[part] = found
    table = pd.DataFrame(numbers, index=index, columns=pd.Index(columns, dtype=object))
    verdicts = {"converged": converged, "singular": singular, "problem": problem.astype(str)}
    return pd.concat([table, pd.DataFrame(verdicts, index=index)], axis=1)


def _some(fit: ResidualFit, Y: FloatArray) -> tuple[FloatArray, np.ndarray, np.ndarray, np.ndarray]:
    """Estimates of some responses, and what is said of them."""
    width = 2 + len(fit.theta) + len(fit.phi) + 2 * fit.design.p
    numbers = np.full((Y.shape[1], width), np.nan)
    converged, singular = np.zeros((2, Y.shape[1]), dtype=bool)
    problem = np.full(Y.shape[1], "", dtype=object)
    for j, y in enumerate(Y.T):
        try:
            settled = refit_response(fit, y)
        except (LmmError, np.linalg.LinAlgError) as error:
            problem[j] = str(error)
            continue
        own, problem[j] = settled.fit, settled.trouble
        assert isinstance(own, ResidualFit)
        se = np.sqrt(np.diag(own.vcov))
        if own.design.p == fit.design.p:
            numbers[j] = [own.criterion, *own.theta, *own.natural, own.sigma, *own.beta, *se]
        converged[j], singular[j] = settled.verdict.converged, settled.verdict.singular
    return numbers, converged, singular, problem
