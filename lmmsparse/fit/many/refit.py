"""`Fit` and many responses → a table of estimates, one row per response.

Where M is block diagonal all responses are searched together, and those that do not reach their
optimum once more by themselves; other models are refitted one by one on the products and the
symbolic work of the fit. Both start from the fit's θ and give what `refit` gives. What goes wrong
with one response stays with that response.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import DataError, LmmError
from lmmsparse.common.options import array_of, check_jobs
from lmmsparse.common.progress import growing, run
from lmmsparse.common.threads import one_thread
from lmmsparse.design import Design
from lmmsparse.design.arguments import numbers
from lmmsparse.engine.responses import ManyResponses, many_response_products
from lmmsparse.fit.fit import Fit, refitted
from lmmsparse.fit.held import theta_names
from lmmsparse.fit.many.batched import (
    FITTED_EXACTLY,
    BatchedRefits,
    Estimates,
    can_batch,
    not_converged,
)
from lmmsparse.fit.problem import term_columns
from lmmsparse.fit.refit import refit_response, warm_start
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.residual.many import refit_residuals
from lmmsparse.fit.settle import Settled, settle

_CHUNK = 1_000_000
_PART = 16


@one_thread
def refit_many(fit: Fit, Y: Any, n_jobs: int = 1, progress: bool | None = None) -> pd.DataFrame:
    """Fit the design of `fit` to every column of `Y`.

    Parameters
    ----------
    Y : (rows, m) array or DataFrame
        One row per fitted row, or per row of the original data.
    n_jobs : int
        Processes for the responses that are refitted one by one.
    progress : bool, optional
        A bar for these at once (True), never (False), or after two seconds if somebody watches.

    Returns
    -------
    DataFrame
        See `LinearMixedModel.refit_many`.
    """
    check_jobs(n_jobs)
    values, index = response_columns(fit.design, Y)
    if isinstance(fit, ResidualFit):
        return refit_residuals(fit, values, index, n_jobs, progress)
    out = Estimates.none(values.shape[1], fit.template.n_theta, fit.design.p)
    complete = _look(fit.design, values, out)
    usable = out.problem == ""
    together = usable & complete & can_batch(fit)
    if together.any():
        which = np.flatnonzero(together)
        out.put(which, _together(fit, values if together.all() else values[:, which]))
    failed = together & ~out.converged & (out.problem != FITTED_EXACTLY)
    which = np.flatnonzero((usable & ~together) | failed)
    if which.size:
        parts = [which[part] for part in growing(which.size, _PART)]
        done = run(
            _one_by_one,
            [(fit, values[:, part]) for part in parts],
            "refit_many",
            unit="responses",
            n_jobs=n_jobs,
            progress=progress,
            sizes=[len(part) for part in parts],
        )
        for part, estimates in zip(parts, done.results, strict=False):
            out.put(part, estimates)
        for part in parts[len(done.results) :]:
            out.problem[part[~failed[part]]] = "Interrupted before it was fitted."
    return _frame(fit, out, index)


def response_columns(design: Design, Y: Any) -> tuple[FloatArray, pd.Index]:
    """The responses on the fitted rows, (n, m), and their names."""
    frame = Y.to_frame() if isinstance(Y, pd.Series) else Y
    if not isinstance(frame, pd.DataFrame):
        array = array_of("Y", frame)
        if array.ndim not in (1, 2):
            raise DataError(
                f"Y must have one or two dimensions, not {array.ndim}. Pass one row per "
                "observation and one column per response."
            )
        frame = pd.DataFrame(array[:, None] if array.ndim == 1 else array)
    if isinstance(Y, (pd.Series, pd.DataFrame)):
        frame = design.in_rows("Y", frame)
    values = numbers("Y", frame)
    if len(values) == design.n:
        return values, frame.columns
    if len(values) == len(design.index):
        return values[design.rows], frame.columns
    raise DataError(
        f"Y has {len(values)} rows. The model was fitted to {design.n} rows"
        + (f" of {len(design.index)}" if len(design.index) != design.n else "")
        + ", and each needs one. Pass one row per observation and one column per response."
    )


def _look(design: Design, Y: FloatArray, out: Estimates) -> BoolArray:
    """Note which responses cannot be fitted at all, and return which have no missing values."""
    with np.errstate(invalid="ignore"):
        centred = Y if design.offset is None else Y - design.offset[:, None]
        low, high = centred.min(axis=0, initial=np.inf), centred.max(axis=0, initial=-np.inf)
        largest = np.maximum(np.abs(low), np.abs(high))
        constant = high - low <= 1e-14 * largest
    out.problem[constant] = (
        "The response has the same value in all rows"
        + (" once the offset is subtracted" if design.offset is not None else "")
        + ". There is no variation to model. Check the column."
    )
    out.problem[np.isinf(largest)] = (
        "The response holds infinite values. Nothing can be fitted to them. Remove or correct them."
    )
    return np.asarray(~np.isnan(low))


def _together(fit: Fit, Y: FloatArray) -> Estimates:
    """Refit complete responses in batches."""
    batch = BatchedRefits(fit)
    out = Estimates.none(Y.shape[1], fit.template.n_theta, fit.design.p)
    for part, responses, exact in _products(fit, Y):
        estimates = batch.refit(responses)
        estimates.problem[exact] = FITTED_EXACTLY
        estimates.clear(exact)
        out.put(part, estimates)
    return out


def _one_by_one(fit: Fit, Y: FloatArray) -> Estimates:
    """Refit each response by a search of its own."""
    out = Estimates.none(Y.shape[1], fit.template.n_theta, fit.design.p)
    complete = ~np.isnan(Y).any(axis=0)
    for j in np.flatnonzero(~complete):
        try:
            _note(out, int(j), refit_response(fit, Y[:, j]))
        except (LmmError, np.linalg.LinAlgError) as error:
            out.problem[j] = str(error)
    whole = np.flatnonzero(complete)
    start = warm_start(fit)
    for part, responses, exact in _products(fit, Y[:, whole]):
        for i, j in enumerate(whole[part]):
            if exact[i]:
                out.problem[j] = FITTED_EXACTLY
                continue
            design = replace(fit.design, y=Y[:, j])
            problem = fit.problem.with_response(design, responses.one(i))
            try:
                _note(out, int(j), settle(refitted(fit, problem, start, fit.optimizer)))
            except (LmmError, np.linalg.LinAlgError) as error:
                out.problem[j] = str(error)
    return out


def _products(fit: Fit, Y: FloatArray) -> Iterator[tuple[slice, ManyResponses, BoolArray]]:
    """The cross-products of so many responses at a time, and which X alone fits exactly."""
    design = fit.design
    terms = term_columns(design)
    Q, _ = design.internal_columns()
    size = max(1, _CHUNK // design.n)
    for a in range(0, Y.shape[1], size):
        part = Y[:, a : a + size]
        responses = many_response_products(part, Q, terms, design.weights, design.offset)
        exact = responses.yty <= 1e-24 * np.einsum("pm,pm->m", responses.beta0, responses.beta0)
        yield slice(a, a + size), responses, exact


def _note(out: Estimates, j: int, settled: Settled) -> None:
    """Put down the estimates of one refit."""
    fit, verdict = settled.fit, settled.verdict
    if settled.exact:
        out.problem[j] = FITTED_EXACTLY
        return
    if not verdict.converged:
        out.problem[j] = not_converged(verdict.expected_decrease, verdict.status)
    out.criterion[j], out.sigma[j], out.theta[j] = fit.criterion, fit.sigma, fit.theta
    out.beta[j], out.se[j] = fit.beta, np.sqrt(np.diag(fit.vcov))
    out.converged[j], out.singular[j] = verdict.converged, verdict.singular


def _frame(fit: Fit, estimates: Estimates, index: pd.Index) -> pd.DataFrame:
    names = fit.design.x_names
    columns = [
        "criterion",
        *theta_names(fit.design),
        "sigma",
        *names,
        *(f"se_{name}" for name in names),
    ]
    numbers = np.column_stack(
        [estimates.criterion, estimates.theta, estimates.sigma, estimates.beta, estimates.se]
    )
    verdicts = pd.DataFrame(
        {
            "converged": estimates.converged,
            "singular": estimates.singular,
            "problem": estimates.problem.astype(str),
        },
        index=index,
    )
    table = pd.DataFrame(numbers, index=index, columns=pd.Index(columns, dtype=object))
    return pd.concat([table, verdicts], axis=1)
