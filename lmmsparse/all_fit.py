"""`Fit` → the same criterion minimized by every search, to see whether they agree."""

from __future__ import annotations

import time

import numpy as np

from lmmsparse._types import FloatArray
from lmmsparse.errors import NumericalError
from lmmsparse.fit import Fit
from lmmsparse.held import theta_names
from lmmsparse.optimize import Bobyqa, NelderMead, Optimizer, TrustRegion
from lmmsparse.search import search, start_values
from lmmsparse.table import Table, counts, fixed
from lmmsparse.threads import one_thread


@one_thread
def all_fit(fit: Fit) -> Table:
    """Search with every optimizer, and with the trust region from perturbed starts.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    Table
        One row per search: ``criterion``, θ, the fixed effects, ``evaluations``, ``seconds``. A
        search that breaks down has NaN.
    """
    template, design = fit.template, fit.design
    start = start_values(fit.objective, design)
    searches: list[tuple[str, Optimizer, FloatArray]] = [
        ("TrustRegion", TrustRegion(), start),
        ("Bobyqa", Bobyqa(), start),
        ("NelderMead", NelderMead(), start),
        ("TrustRegion, start × 10", TrustRegion(), _inside(fit, 10.0 * start)),
        ("TrustRegion, start / 10", TrustRegion(), _inside(fit, 0.1 * start)),
    ]
    names = [f"theta {name}" for name in theta_names(fit.design)]
    rows = []
    for _, optimizer, first in searches:
        began = time.perf_counter()
        try:
            found = search(fit.objective, design, first, optimizer)
        except (NumericalError, np.linalg.LinAlgError):
            rows.append(np.full(3 + template.n_theta + design.p, np.nan))
            continue
        seconds = time.perf_counter() - began
        internal = fit.objective.response.beta0 + fit.objective.solution(found.x).beta
        beta = fit.products.basis.coefficients(internal)
        rows.append(np.concatenate([[found.value], found.x, beta, [found.evaluations, seconds]]))
    columns = ["criterion", *names, *design.x_names, "evaluations", "seconds"]
    values = np.array(rows)
    best = np.nanmin(values[:, 0])
    spread = float(np.nanmax(values[:, 0]) - best)
    return Table(
        {name: values[:, j].tolist() for j, name in enumerate(columns)},
        [label for label, _, _ in searches],
        notes=[f"Criteria differ by at most {spread:.1e}."],
        formats={"criterion": fixed(6), "evaluations": counts, "seconds": fixed(3)},
    )


def _inside(fit: Fit, theta: FloatArray) -> FloatArray:
    return np.asarray(np.clip(theta, fit.template.lower, fit.template.upper))
