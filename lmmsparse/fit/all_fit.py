"""`Fit` → the same criterion minimized by every search, to see whether they agree."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.common.progress import run
from lmmsparse.common.table import Table, counts, fixed
from lmmsparse.common.threads import one_thread
from lmmsparse.fit.coordinates import StandardizedObjective
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.monte_carlo import require_exact
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.start import Start, further_starts, start_values
from lmmsparse.optimize import Bobyqa, NelderMead, Optimizer, TrustRegion, nlopt_missing


@one_thread
def all_fit(fit: Fit, progress: bool | None = None) -> Table:
    """Search with every optimizer, and with the trust region from further starts.

    Parameters
    ----------
    progress : bool, optional
        A bar at once (True), never (False), or after two seconds if somebody watches.

    Returns
    -------
    Table
        One row per search: ``criterion``, θ, the fixed effects, ``evaluations``, ``seconds``. A
        search that breaks down has NaN. After Ctrl-C, the searches that were finished.
    """
    require_exact(fit, "Comparing optimizers needs", "Compare seeds, such as lmm.Krylov(seed=1)")
    design = fit.design
    scaled = StandardizedObjective(fit.objective)
    start = Start("", fit.template.with_held(start_values(scaled, design)))
    searches: list[tuple[str, Optimizer, Start]] = [
        ("TrustRegion", TrustRegion(), start),
    ]
    if not nlopt_missing():
        searches += [("Bobyqa", Bobyqa(), start), ("NelderMead", NelderMead(), start)]
    for other in further_starts(scaled):
        searches.append((f"TrustRegion from {other.name}", TrustRegion(), other))
    names = [f"theta {name}" for name in theta_names(fit.design)]
    if isinstance(fit, ResidualFit):
        names += fit.phi_names
    done = run(
        _one_search,
        [(fit, optimizer, first) for _, optimizer, first in searches],
        "all_fit",
        unit="searches",
        progress=progress,
    )
    columns = ["criterion", *names, *design.x_names, "evaluations", "seconds"]
    values = np.array(done.results)
    best = np.nanmin(values[:, 0])
    spread = float(np.nanmax(values[:, 0]) - best)
    notes = [f"Criteria differ by at most {spread:.1e}."]
    if nlopt_missing():
        notes.append("Bobyqa and NelderMead were left out: `pip install nlopt` brings them.")
    if done.interrupted:
        notes.append(f"Interrupted after {len(values)} of {len(searches)} searches.")
    return Table(
        {name: values[:, j].tolist() for j, name in enumerate(columns)},
        [label for label, _, _ in searches[: len(values)]],
        notes=notes,
        formats={"criterion": fixed(6), "evaluations": counts, "seconds": fixed(3)},
    )


def _one_search(fit: Fit, optimizer: Optimizer, first: Start) -> FloatArray:
    """A row of the table; NaN if the search breaks down."""
    began = time.perf_counter()
    try:
        found = fit.problem.search(first, optimizer)
    except (NumericalError, np.linalg.LinAlgError):
        return np.full(3 + len(fit.optimum.x) + fit.design.p, np.nan)
    seconds = time.perf_counter() - began
    if isinstance(fit, ResidualFit):
        own = replace(fit, optimum=found)
        values = [found.value, *own.theta, *own.natural, *own.beta, found.evaluations, seconds]
        return np.array(values)
    internal = fit.objective.response.beta0 + fit.objective.solution(found.x).beta
    beta = fit.products.basis.coefficients(internal)
    return np.concatenate([[found.value], found.x, beta, [found.evaluations, seconds]])
