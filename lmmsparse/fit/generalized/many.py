"""`GeneralizedFit` and many responses → a table with a row for each refit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import LmmError
from lmmsparse.common.options import check_jobs
from lmmsparse.common.progress import run
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.refit import refit_generalized
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.many.refit import response_columns
from lmmsparse.fit.singular import is_singular
from lmmsparse.fit.verdict import TOLERANCE


def refit_many_generalized(
    fit: GeneralizedFit, Y: Any, n_jobs: int = 1, progress: bool | None = None
) -> pd.DataFrame:
    """Refit a model to every column of Y; see the model's `refit_many`."""
    values, index = response_columns(fit.design, Y)
    done = run(
        _refitted,
        [(fit, values[:, j]) for j in range(values.shape[1])],
        "refit_many",
        unit="responses",
        n_jobs=check_jobs(n_jobs),
        progress=progress,
    )
    rows = list(done.results)
    lost = (np.full(_width(fit), np.nan), False, False, "Interrupted before it was fitted.")
    rows += [lost] * (values.shape[1] - len(rows))
    own = [fit.family.parameter] if fit.family.estimates_delta else []
    names = list(fit.design.x_names)
    columns = ["criterion", *theta_names(fit.design), *own, *names, *(f"se_{n}" for n in names)]
    numbers = np.array([row[0] for row in rows]).reshape(len(rows), len(columns))
    frame = pd.DataFrame(numbers, index=index, columns=pd.Index(columns, dtype=object))
    for k, name in enumerate(("converged", "singular", "problem"), start=1):
        frame[name] = np.array([row[k] for row in rows])
    return frame


def _width(fit: GeneralizedFit) -> int:
    return 1 + fit.template.n_theta + fit.family.estimates_delta + 2 * fit.design.p


def _refitted(fit: GeneralizedFit, y: FloatArray) -> tuple[FloatArray, bool, bool, str]:
    out = np.full(_width(fit), np.nan)
    try:
        other = refit_generalized(fit, y)
    except (LmmError, np.linalg.LinAlgError) as error:
        return out, False, False, str(error)
    d, own = fit.template.n_theta, fit.family.estimates_delta
    out[0], out[1 : 1 + d] = other.criterion, other.theta
    if own:
        out[1 + d] = np.exp(other.delta)
    at, p = 1 + d + own, fit.design.p
    kept = [fit.design.x_names.index(name) for name in other.design.x_names]
    out[at + np.array(kept, dtype=int)] = other.beta
    out[at + p + np.array(kept, dtype=int)] = np.sqrt(np.diag(other.vcov))
    decrease = other.optimum.expected_decrease
    converged = decrease is not None and decrease <= TOLERANCE
    lost = [name for name in fit.design.x_names if name not in other.design.x_names]
    problem = f"without the missing rows {', '.join(lost)} cannot be estimated" if lost else ""
    return out, converged, is_singular(other), problem
