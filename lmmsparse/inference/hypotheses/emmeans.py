"""`Fit` → estimated marginal means of its factors and comparisons between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.distributions import studentized_range_tail, t_quantile, t_tail
from lmmsparse.common.errors import DataError, OptionError
from lmmsparse.common.options import check_level, mapping, names_in, one_of, refused
from lmmsparse.common.table import Table, as_precise_as, counts
from lmmsparse.design.terms import chosen_values, covariates, factor_levels, grid
from lmmsparse.fit.fit import Fit
from lmmsparse.inference.df.methods import (
    DenominatorDF,
    check_ddf,
    denominator_df,
    open_notes,
    standard_errors,
)
from lmmsparse.inference.hypotheses.anova import METHOD_NAMES

_ADJUSTMENTS = ("tukey", "holm", "bonferroni", "none")


@dataclass(frozen=True, eq=False)
class MarginalMeans:
    """Marginal means as linear functions of the fixed effects.

    Attributes
    ----------
    labels : tuple of str
        One per mean: its levels.
    L : (means, p) array
    estimable : (means,) bool array
        False where the data do not determine the mean.
    defined : (means,) bool array
        False where an expression of the formula is undefined at the values of the covariates.
    shift : float
        Mean of the offset, part of every mean.
    """

    labels: tuple[str, ...]
    L: FloatArray
    estimable: BoolArray
    defined: BoolArray
    shift: float


def marginal_means(
    fit: Fit, specs: str | Sequence[str], at: Mapping[str, Any] | None = None
) -> MarginalMeans:
    """Average the model over a grid of its factors, all cells weighted equally."""
    recipe = fit.design.recipe
    if recipe is None:
        raise OptionError(
            "Marginal means need factors, and a model made from arrays has none. Fit with "
            "lmm.lmer and a formula, or use m.contrast."
        )
    matrices = recipe.matrices
    values: dict[str, tuple[Any, ...]] = dict(factor_levels(matrices, "fixed"))
    values.update({n: (span[0],) for n, span in covariates(matrices, "fixed").items()})
    use = f"Name one or several of {', '.join(map(repr, values))}."
    names = names_in("specs", specs, use)
    at = mapping("at", at, "Write at={'column': [1, 2]}.")
    for name in [*names, *at]:
        if name not in values:
            raise _unknown_predictor(name, list(values))
    if not names or len(set(names)) < len(names):
        kind = "one or several different predictors"
        raise refused("specs", kind, specs, "Name each once.")
    for name, chosen in at.items():
        values[name] = chosen_values(chosen)
        if not values[name]:
            raise DataError(f"at={{{name!r}: ...}} is empty. Give at least one value.")
        if pd.isna(pd.Series(values[name], dtype=object)).any():
            raise DataError(f"at={{{name!r}: ...}} contains a missing value. Leave it out.")
    shown = grid({name: values[name] for name in names})
    # The wanted columns vary slowest, so that every mean is a run of rows.
    rest = {name: levels for name, levels in values.items() if name not in names}
    rows = grid({**rest, **{name: values[name] for name in names}})
    X, _ = matrices.matrix("fixed", rows)
    F = X.reshape(len(shown), -1, X.shape[1]).mean(axis=1)
    kept = recipe.kept
    defined = np.isfinite(F).all(axis=1)
    estimable = recipe.determines(F) & defined
    labels = tuple(", ".join(map(_text, row)) for row in shown.itertuples(index=False))
    shift = float(fit.design.offset_or_zero.mean())
    return MarginalMeans(labels, F[:, kept], estimable, defined, shift)


def _unknown_predictor(name: Any, known: list[str]) -> OptionError:
    """The error for a name of emmeans() that is none, with a hint for R's ways to write them."""
    hint = ""
    if isinstance(name, str) and any(sign in name for sign in "~|:*+"):
        hint = (
            "Give names instead of a formula: emmeans(['a', 'b']) for combinations, "
            "pairwise=True for differences. "
        )
    return OptionError(
        f"{name!r} is not a predictor of the model's fixed effects. {hint}Marginal means are "
        f"for {', '.join(map(repr, known)) or 'models with predictors'}. Name one of them."
    )


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def emmeans_table(
    fit: Fit,
    specs: str | Sequence[str],
    pairwise: bool = False,
    adjust: str = "tukey",
    ddf: str = "satterthwaite",
    at: Mapping[str, Any] | None = None,
    level: float = 0.95,
) -> Table:
    """Marginal means with confidence limits, or all their pairwise differences with tests."""
    one_of("adjust", adjust, _ADJUSTMENTS)
    level, ddf = check_level(level), check_ddf(ddf)
    means = marginal_means(fit, specs, at)
    method = denominator_df(fit, ddf)
    return (
        _pairs(fit, means, method, adjust, ddf)
        if pairwise
        else _means(fit, means, method, level, ddf)
    )


def _evaluate(
    fit: Fit, L: FloatArray, estimable: BoolArray, method: DenominatorDF
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Estimate, standard error and degrees of freedom of rows of L, NaN if not estimable."""
    se = standard_errors(method, L)
    out = [L @ fit.beta, se, method.single(L)]
    missing = np.where(estimable, 0.0, np.nan)
    return out[0] + missing, out[1] + missing, out[2] + missing


def _note(estimable: BoolArray, defined: BoolArray) -> list[str]:
    notes = []
    if not np.all(estimable[defined]):
        notes.append("NaN: the data do not determine it, as combinations of levels do not occur.")
    if not np.all(defined):
        notes.append(
            "NaN: an expression of the formula is undefined at these values of the covariates, "
            "their means if not given. Give others with at=."
        )
    return notes


def _means(fit: Fit, means: MarginalMeans, method: DenominatorDF, level: float, ddf: str) -> Table:
    estimate, se, df = _evaluate(fit, means.L, means.estimable, method)
    estimate = estimate + means.shift
    half = t_quantile(0.5 + level / 2.0, df) * se
    notes = [f"Equal weights over the grid of factors; confidence level {level:g}."]
    if means.shift:
        notes.append(f"The offset is at its mean, {means.shift:g}.")
    columns = {
        "emmean": estimate,
        "SE": se,
        "df": df,
        "lower.CL": estimate - half,
        "upper.CL": estimate + half,
    }
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        means.labels,
        title=f"Estimated marginal means, {METHOD_NAMES[ddf]}",
        notes=[
            *notes,
            *_note(means.estimable, means.defined),
            *open_notes(method, means.L[means.estimable]),
        ],
        formats={
            **dict.fromkeys(("emmean", "SE", "lower.CL", "upper.CL"), as_precise_as(se.tolist())),
            "df": counts,
        },
    )


def _pairs(fit: Fit, means: MarginalMeans, method: DenominatorDF, adjust: str, ddf: str) -> Table:
    pairs = list(combinations(range(len(means.labels)), 2))
    if not pairs:
        raise OptionError(
            "Comparisons need two or more marginal means, and there is one. Name a factor in "
            "specs, or give several values in at."
        )
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    estimable = means.estimable[first] & means.estimable[second]
    L = means.L[first] - means.L[second]
    estimate, se, df = _evaluate(fit, L, estimable, method)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = estimate / se
    p = adjusted_p(t, df, adjust, int(means.estimable.sum()))
    columns = {"estimate": estimate, "SE": se, "df": df, "t.ratio": t, "p.value": p}
    said = {
        "tukey": f"p-values adjusted by Tukey's method for {int(means.estimable.sum())} means.",
        "holm": f"p-values adjusted by Holm's method for {int(estimable.sum())} comparisons.",
        "bonferroni": f"p-values adjusted by Bonferroni's method for {int(estimable.sum())} "
        "comparisons.",
        "none": "p-values not adjusted.",
    }
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        [f"{means.labels[i]} - {means.labels[j]}" for i, j in pairs],
        title=f"Differences of estimated marginal means, {METHOD_NAMES[ddf]}",
        notes=[
            said[adjust],
            *_note(estimable, means.defined[first] & means.defined[second]),
            *open_notes(method, L[estimable]),
        ],
        formats={
            **dict.fromkeys(("estimate", "SE"), as_precise_as(se.tolist())),
            "df": counts,
        },
    )


def adjusted_p(t: FloatArray, df: FloatArray, adjust: str, means: int) -> FloatArray:
    """Two-sided p-values of all differences between some means.

    Parameters
    ----------
    t, df : (m,) array
        NaN for differences that are not estimable.
    adjust : {"tukey", "holm", "bonferroni", "none"}
    means : int
        How many means are compared.
    """
    if adjust == "tukey" and means > 2:
        return studentized_range_tail(np.sqrt(2.0) * np.abs(t), means, df)
    p = 2.0 * t_tail(np.abs(t), df)
    if adjust == "bonferroni":
        return np.asarray(np.minimum(1.0, p * np.sum(~np.isnan(p))))
    if adjust != "holm":
        return np.asarray(p)
    out = np.full(len(p), np.nan)
    order = np.argsort(p)
    order = order[~np.isnan(p[order])]
    steps = p[order] * (len(order) - np.arange(len(order)))
    out[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return out
