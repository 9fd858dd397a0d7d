"""Two nested fits → their likelihood-ratio test with a bootstrapped null distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import DataError, NumericalError, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.options import check_counts
from lmmsparse.common.progress import run
from lmmsparse.common.table import Table
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.many.batched import can_batch
from lmmsparse.fit.many.refit import refit_many
from lmmsparse.fit.refit import maximum_likelihood, refit_response
from lmmsparse.fit.settle import findings_about
from lmmsparse.inference.hypotheses.lrt import in_order, likelihood_ratio_table
from lmmsparse.inference.intervals.bootstrap import BATCH, chunks_of_seeds, not_at_optimum
from lmmsparse.inference.intervals.resample import Resampler
from lmmsparse.optimize import TrustRegion
from lmmsparse.results.rows_needed import with_rows

_ROUNDING = 1e-9


def bootstrap_lrt_of_fits(
    small: Fit, large: Fit, n: int, rng: Any, n_jobs: int = 1, progress: bool | None = None
) -> Table:
    """Test a small model within a large one by parametric bootstrap; see `bootstrap_lrt`.

    Returns
    -------
    Table
        Rows ``LRT`` (chi-square distribution) and ``bootstrap``; columns ``Chisq, Df, Pr(>Chisq)``.
        Without p-values, and with a note, where the small model is not contained in the large one.

    Notes
    -----
    p = (1 + number of replicates whose statistic is at least the observed one) / (1 + replicates).
    Nothing is assumed about the distribution, so that variances on their boundary are no problem.

    References
    ----------
    Davison & Hinkley (1997), Bootstrap Methods and their Application, section 4.2.
    """
    check_counts(n, n_jobs)
    for fit in (small, large):
        with_rows(fit, "bootstrap_lrt", "Use lmm.anova(m1, m2).")
    settled = in_order(
        [maximum_likelihood(small, TrustRegion()), maximum_likelihood(large, TrustRegion())]
    )
    used = [each.fit for each in settled]
    if used[0].npar >= used[1].npar:
        raise OptionError(
            f"The first model has {used[0].npar} parameters and the second {used[1].npar}. Pass "
            "the smaller model first."
        )
    compared = likelihood_ratio_table(used, ["small", "large"])
    observed = compared.to_frame().iloc[1]
    if not np.array_equal(small.design.offset_or_zero, large.design.offset_or_zero):
        raise DataError(
            "The models have different offsets. A response of one cannot be given to the other. "
            "Fit both with the same offset."
        )
    names = ("the small model", "the large model")
    both = list(zip(names, (small, large), settled, strict=True))
    findings = findings_about(
        [(name, each) for name, fit, each in both if fit.reml], [b for b in both if not b[1].reml]
    )
    if np.isnan(observed["Pr(>Chisq)"]):
        announce(findings)
        notes = [*compared.notes, *(finding.message for finding in findings)]
        return _table(observed, np.nan, notes)
    together = can_batch(used[0]) and can_batch(used[1])
    chunks = chunks_of_seeds(used[0], n, rng, BATCH if together else BATCH // 16)
    drawn = run(
        _statistics,
        [(used[0], used[1], seeds) for seeds in chunks],
        "bootstrap",
        unit="replicates",
        n_jobs=n_jobs,
        progress=progress,
        sizes=[len(seeds) for seeds in chunks],
    )
    statistics = np.concatenate([part for part, _ in drawn.results])
    n_off = int(sum(off.sum() for _, off in drawn.results))
    usable = statistics[~np.isnan(statistics)]
    if not usable.size:
        raise NumericalError(
            f"All {len(statistics)} refits failed. There is no distribution to compare with: look "
            "at m.bootstrap(n, rng=...).failures of the two models."
        )
    # Ties are equal up to the accuracy of a search.
    beyond = int(np.sum(usable >= observed["Chisq"] - 1e-8))
    p = (1 + beyond) / (1 + len(usable))
    notes = [f"{len(usable)} responses drawn from the smaller model."]
    if drawn.interrupted:
        notes.append(f"Interrupted after {len(statistics)} of {n} responses.")
    if len(usable) < len(statistics):
        notes.append(f"{len(statistics) - len(usable)} refits failed and are not counted.")
    findings += (not_at_optimum(n_off, len(statistics)),) if n_off else ()
    announce(findings)
    notes += [finding.message for finding in findings]
    return _table(observed, p, notes)


def _table(observed: pd.Series, p: float, notes: list[str]) -> Table:
    return Table(
        {
            "Chisq": [float(observed["Chisq"])] * 2,
            "Df": [float(observed["Df"])] * 2,
            "Pr(>Chisq)": [float(observed["Pr(>Chisq)"]), p],
        },
        ["LRT", "bootstrap"],
        title="Likelihood-ratio test by parametric bootstrap",
        notes=notes,
    )


def _statistics(
    small: Fit, large: Fit, seeds: list[np.random.SeedSequence]
) -> tuple[FloatArray, BoolArray]:
    """The likelihood-ratio statistics of responses drawn from the small model, and which are off.

    NaN where a refit failed. Off are those of refits that did not reach their optimum. Where the
    large model seems to fit worse, both are searched again from each other's θ.
    """
    resampler = Resampler(small, "parametric")
    Y = np.column_stack([resampler.draw(np.random.default_rng(seed)) for seed in seeds])
    tables = [refit_many(fit, Y, progress=False) for fit in (small, large)]
    low, high = (table["criterion"].to_numpy() for table in tables)
    statistics = low - high
    off = ~np.logical_and(*(table["converged"].to_numpy(dtype=bool) for table in tables))
    off &= ~np.isnan(statistics)
    for j in np.flatnonzero(off | (statistics < -_ROUNDING * (1.0 + np.abs(high)))):
        pair = in_order([refit_response(fit, Y[:, j]) for fit in (small, large)])
        statistics[j] = pair[0].fit.criterion - pair[1].fit.criterion
        off[j] = any(each.trouble for each in pair)
    return np.maximum(statistics, 0.0), off
