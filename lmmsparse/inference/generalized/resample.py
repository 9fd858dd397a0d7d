"""`GeneralizedFit` → a statistic on refits to responses drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import LmmWarning
from lmmsparse.common.options import check_counts, refused
from lmmsparse.common.threads import filtered
from lmmsparse.fit.generalized.fit import GeneralizedFit
from lmmsparse.fit.generalized.refit import refit_generalized
from lmmsparse.fit.verdict import TOLERANCE
from lmmsparse.inference.intervals.bootstrap import BATCH, Bootstrap, as_series, gathered
from lmmsparse.results.generalized import (
    covariance_names,
    covariance_values,
    simulate_generalized,
)

Statistic = Callable[[Any], Any]


def estimates(fit: GeneralizedFit) -> pd.Series:
    """All parameters: standard deviations, correlations, the family's own, fixed effects."""
    names = pd.Index([*covariance_names(fit), *fit.design.x_names], dtype=object)
    return pd.Series(np.concatenate([covariance_values(fit), fit.beta]), index=names)


def bootstrap_generalized(
    fit: GeneralizedFit,
    n: int,
    rng: Any,
    make_model: Callable[[Any], Any],
    statistic: Statistic | None = None,
    n_jobs: int = 1,
    progress: bool | None = None,
) -> Bootstrap:
    """Refit a model to responses drawn from it with new random effects."""
    check_counts(n, n_jobs)
    if statistic is not None and not callable(statistic):
        advice = "Write for example statistic=lambda m: m.fixef."
        raise refused("statistic", "a function of a model", statistic, advice)
    original = estimates(fit) if statistic is None else as_series(statistic(make_model(fit)))
    own = (make_model, statistic, original.index)
    return gathered(_replicates, fit, own, original, n, rng, BATCH // 16, n_jobs, progress)


def _replicates(
    fit: GeneralizedFit,
    seeds: list[np.random.SeedSequence],
    make_model: Callable[[Any], Any],
    statistic: Statistic | None,
    names: pd.Index,
) -> tuple[FloatArray, list[str], BoolArray]:
    values, reasons = np.full((len(seeds), len(names)), np.nan), [""] * len(seeds)
    off = np.zeros(len(seeds), dtype=bool)
    with filtered(("ignore", LmmWarning)):
        for i, seed in enumerate(seeds):
            # Whatever goes wrong, in the refit or in the user's own function, is put down.
            try:
                y, _ = simulate_generalized(fit, 1, np.random.default_rng(seed), "new", None)
                other = refit_generalized(fit, y[:, 0])
                found = estimates(other)
                if statistic is not None:
                    found = as_series(statistic(make_model(other)))
                values[i] = found.reindex(names) if found.index.is_unique else found
                decrease = other.optimum.expected_decrease
                off[i] = decrease is None or decrease > TOLERANCE
            except MemoryError:
                raise
            except Exception as error:
                reasons[i] = f"{type(error).__name__}: {error}"
    return values, reasons, off
