"""Fits of several models → why their criteria must not be compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.design import Design
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.generalized.fit import GeneralizedFit


def not_comparable(named: Sequence[tuple[str, Fit]]) -> list[str]:
    """Why criteria of some of the models say nothing about each other."""
    notes = []
    fits = [fit for _, fit in named]
    rows = dict.fromkeys(fit.design.n for fit in fits)
    if len(rows) > 1:
        said = ", ".join(f"{fit.design.n} rows ({name})" for name, fit in named)
        notes.append(f"The models were not fitted to the same data: {said}.")
    elif any(not _same_response(a, b) for a, b in combinations(fits, 2)):
        said = ", ".join(f"{fit.design.response} ({name})" for name, fit in named)
        notes.append(f"The models were not fitted to the same response: {said}.")
    by_reml = [(name, fit) for name, fit in named if fit.reml]
    if 0 < len(by_reml) < len(named):
        which = ", ".join(name for name, _ in by_reml)
        notes.append(f"Not all models were fitted by the same criterion: {which} by REML.")
    pairs = [(a, b) for (_, a), (_, b) in combinations(by_reml, 2)]
    if any(a.design.n == b.design.n and not _same_columns(a, b) for a, b in pairs):
        notes.append(
            "REML criteria of models with different fixed effects, or other codings of them, are "
            "not of the same kind: fit with reml=False."
        )
    densities = {not (isinstance(f, GeneralizedFit) and f.family.discrete) for f in fits}
    if len(densities) > 1:
        notes.append("Some models have probabilities of counts, others have densities.")
    if notes:
        notes.append("Their logLik, AIC and BIC must therefore not be compared.")
    return notes


def _same_response(a: Fit, b: Fit) -> bool:
    """Whether two fits have the same values in any order of the rows, as far as can be told."""
    if a.design.facts is not None or b.design.facts is not None:
        return bool(np.allclose(_range(a.design), _range(b.design), rtol=1e-12, atol=0.0))
    return bool(np.array_equal(_sorted_rows(a), _sorted_rows(b)))


def _range(design: Design) -> tuple[float, float]:
    """The smallest and the largest response, the offset subtracted."""
    if design.facts is not None:
        return design.facts.low, design.facts.high
    values = design.y - design.offset_or_zero
    return float(values.min()), float(values.max())


def _sorted_rows(fit: Fit) -> FloatArray:
    """Responses in order; of generalized models with their trials, which are data."""
    y = fit.design.y
    if not isinstance(fit, GeneralizedFit):
        return np.sort(y)
    trials = getattr(fit.seen, "trials", None)
    weights = np.ones_like(y) if trials is None else np.asarray(trials)
    order = np.lexsort((weights, y))
    return y[order] if trials is None else np.concatenate([y[order], weights[order]])


def _same_columns(a: Fit, b: Fit) -> bool:
    """Whether two fits of as many rows have the same X, without which REML is another criterion."""
    if a.design.x_names != b.design.x_names:
        return False
    one, two = _gram(a.design), _gram(b.design)
    return bool(np.allclose(one, two, rtol=1e-9, atol=1e-12 * float(np.abs(one).max(initial=0.0))))


def _gram(design: Design) -> FloatArray:
    """X'X."""
    X = design.X if design.facts is None else design.facts.R
    return np.asarray(X.T @ X)
