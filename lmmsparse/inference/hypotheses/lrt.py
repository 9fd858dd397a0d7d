"""Several fits of the same data → a table of likelihood-ratio tests between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.distributions import chi2_tail
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.findings import announce
from lmmsparse.common.table import Table
from lmmsparse.design import Design
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.monte_carlo import monte_carlo_note, with_same_probes
from lmmsparse.fit.refit import maximum_likelihood
from lmmsparse.fit.settle import Settled, also_from, carried, findings_about, settle
from lmmsparse.inference.hypotheses.boundary import MIXTURE, boundary
from lmmsparse.inference.hypotheses.nesting import why_not_contained
from lmmsparse.results.likelihood import criteria


def in_order(fits: Sequence[Settled]) -> list[Settled]:
    """Models from small to large, each at least as good as the one before allows.

    θ of every model is tried for its neighbours: where a larger model would end above a smaller
    one, it is searched again from there.
    """
    out = list(fits)
    pairs = list(pairwise(range(len(out))))
    for i, j in [*pairs, *((j, i) for i, j in reversed(pairs)), *pairs]:
        out[j] = also_from(out[j], [carried(out[i].fit, out[j].fit)])
    return out


def likelihood_ratio_table(fits: Sequence[Fit], labels: Sequence[str], refit: bool = True) -> Table:
    """Compare nested models by likelihood-ratio tests, smallest model first.

    Neighbours of which the smaller is not contained in the larger have no p-value, and a note.

    Returns
    -------
    Table
        Columns ``npar, AIC, BIC, logLik, deviance, Chisq, Df, Pr(>Chisq)``; beside it
        ``Pr(>Chibarsq)``, which allows for variances not being negative (NaN where none is on its
        boundary, or that is not known).
    """
    check_same_data(fits)
    notes = []
    if refit:
        if any(fit.reml for fit in fits):
            notes.append("REML fits were refitted by maximum likelihood.")
    else:
        if len({fit.reml for fit in fits}) > 1:
            raise OptionError(
                "Some of the models were fitted by REML and some by ML. Their likelihoods cannot "
                "be compared. Leave out refit=False, or fit all in the same way."
            )
        if fits[0].reml and len({fit.design.x_names for fit in fits}) > 1:
            raise OptionError(
                "The models were fitted by REML and differ in their fixed effects. Their "
                "restricted likelihoods cannot be compared. Leave out refit=False."
            )
    order = sorted(range(len(fits)), key=lambda i: fits[i].npar)
    names = [labels[i] for i in order]
    given = with_same_probes([fits[i] for i in order])
    settled = in_order([maximum_likelihood(fit) if refit else settle(fit) for fit in given])
    own = [not (refit and fit.reml) for fit in given]
    everything = list(zip(names, given, settled, own, strict=True))
    findings = findings_about(
        [(name, each) for name, _, each, mine in everything if not mine],
        [(name, fit, each) for name, fit, each, mine in everything if mine],
    )
    announce(findings)
    notes += [finding.message for finding in findings]
    used = [each.fit for each in settled]
    columns, testable, differences = compared(used, names, why_not_contained, "deviance")
    notes += [*differences, *monte_carlo_note(used)]
    mixture = [np.nan]
    for (small, large), name, value, tested in zip(
        pairwise(used), names[1:], columns["Chisq"][1:], testable[1:], strict=True
    ):
        null = boundary(large, small) if tested else None
        mixture.append(np.nan if null is None else null.p(float(value)))
        if null is not None:
            notes.append(f"{name}: {null.said(float(value))}")
    title = ["Likelihood-ratio tests"]
    title += [
        f"{name}: {fit.design.formula or fit.design.response}"
        + (f"; residuals {fit.design.residual.text}" if fit.design.residual is not None else "")
        for name, fit in zip(names, used, strict=True)
    ]
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        names,
        title="\n".join(title),
        notes=notes,
        beside={MIXTURE: mixture},
    )


def compared(
    fits: Sequence[Fit], names: Sequence[str], why_not: Callable[[Any, Any], str], deviance: str
) -> tuple[dict[str, FloatArray], BoolArray, list[str]]:
    """Columns of a table of neighbours' likelihood ratios, which are tests, and why others are not.

    Parameters
    ----------
    fits : sequence of Fit
        From small to large.
    why_not : callable
        (small, large) → why the one is not contained in the other; empty if it is.
    deviance : str
        The name of the criterion's column.
    """
    criterion = np.array([fit.criterion for fit in fits])
    npar = np.array([float(fit.npar) for fit in fits])
    chisq = np.append(np.nan, np.maximum(0.0, criterion[:-1] - criterion[1:]))
    df = np.append(np.nan, np.diff(npar))
    testable, notes = np.zeros(len(fits), dtype=bool), []
    for i, (small, large) in enumerate(pairwise(fits), start=1):
        why = why_not(small, large) if df[i] > 0 else "both have as many parameters"
        testable[i] = not why
        if why:
            notes.append(
                f"{names[i - 1]} is not contained in {names[i]}, {why}: there is no test, compare "
                "AIC."
            )
    with np.errstate(invalid="ignore"):
        p = np.where(testable, chi2_tail(chisq, np.where(df > 0, df, 1.0)), np.nan)
    aic, bic = (np.array(values) for values in zip(*map(criteria, fits), strict=True))
    columns = {"npar": npar, "AIC": aic, "BIC": bic, "logLik": -0.5 * criterion}
    columns |= {deviance: criterion, "Chisq": chisq, "Df": df, "Pr(>Chisq)": p}
    return columns, testable, notes


def deletions(criterion: FloatArray, npar: FloatArray) -> dict[str, list[float]]:
    """Columns of a table of smaller models below the whole one, which is the first."""
    df = npar[0] - npar
    LRT = np.maximum(0.0, criterion - criterion[0])
    p = np.where(df > 0, chi2_tail(LRT, np.maximum(df, 1.0)), np.nan)
    LRT[0] = df[0] = np.nan
    columns = {"npar": npar, "logLik": -0.5 * criterion, "AIC": criterion + 2.0 * npar}
    columns |= {"LRT": LRT, "Df": df, "Pr(>Chisq)": p}
    return {name: values.tolist() for name, values in columns.items()}


def deletion_table(fits: Sequence[Fit], labels: list[str], notes: Sequence[str] = ()) -> Table:
    """Tests of fixed-effects terms that were left out of the first model, one at a time."""
    columns = deletions(
        np.array([fit.criterion for fit in fits]), np.array([float(fit.npar) for fit in fits])
    )
    shown = {"npar": columns["Df"]} | {n: columns[n] for n in ("AIC", "LRT", "Pr(>Chisq)")}
    title = "Single term deletions, likelihood ratios"
    return Table(shown, ["<none>", *labels], title=title, notes=notes)


def check_same_data(fits: Sequence[Fit]) -> None:
    """Refuse fits of different rows or responses."""
    first = fits[0].design
    for other in (fit.design for fit in fits[1:]):
        if other.n != first.n:
            raise DataError(
                f"The models were fitted to different numbers of rows ({first.n} and {other.n}). "
                "Their likelihoods cannot be compared. Missing values in a predictor are the "
                "usual reason: drop them first, for example data.dropna(subset=[...]) with all "
                "columns used, and fit all models to the same rows."
            )
        if first.facts is not None or other.facts is not None:
            _check_same_facts(first, other)
            continue
        if other.response == first.response and not np.array_equal(other.rows, first.rows):
            raise DataError(
                "The models were fitted to different rows: missing values left out other rows in "
                "each. Their likelihoods cannot be compared. Drop them first, for example "
                "data.dropna(subset=[...]) with all columns used, and fit all models to the rest."
            )
        if not np.array_equal(other.y, first.y) or not np.array_equal(
            other.weights_or_one, first.weights_or_one
        ):
            raise DataError(
                "The models were fitted to different responses or weights. Their likelihoods "
                "cannot be compared. Fit all models to the same response."
            )


def _check_same_facts(first: Design, other: Design) -> None:
    """Refuse designs of other responses or weights where rows are not kept."""
    if first.facts is None or other.facts is None:
        raise DataError(
            "One of the models was fitted in chunks and the other in memory, so that nobody can "
            "tell whether their rows are the same. Fit both in the same way."
        )
    if not np.allclose(first.facts.fingerprint, other.facts.fingerprint, rtol=1e-9, atol=0.0):
        raise DataError(
            "The models were fitted to different rows, responses or weights. Their likelihoods "
            "cannot be compared. Fit all models to the same data."
        )
