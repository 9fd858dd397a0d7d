"""Averages of a model → tables of means or slopes, and of the differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.distributions import t_quantile
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import check_level, one_of
from lmmsparse.common.table import Table, as_precise_as, degrees
from lmmsparse.common.words import brief
from lmmsparse.inference.df.methods import method_notes, standard_errors
from lmmsparse.inference.means.adjust import (
    adjusted_p,
    adjustment_notes,
    check_adjust,
    critical_value,
    method_for,
)
from lmmsparse.inference.means.averages import Averages
from lmmsparse.inference.means.basis import (
    Basis,
    as_ratios,
    difference_notes,
    on_response,
    regrid_notes,
    regrid_scale,
    scale_notes,
)
from lmmsparse.inference.means.contrasts import check_contrasts, comparisons
from lmmsparse.inference.means.grid import ReferenceGrid, Weights

_SAME = 1e-6


@dataclass(frozen=True, eq=False)
class Wanted:
    """The options that means and slopes share, as they were given."""

    by: Any = None
    pairwise: bool = False
    contrasts: Any = None
    reverse: bool = False
    ref: Any = None
    adjust: Any = "tukey"
    weights: Weights = "equal"
    at: Mapping[str, Any] | None = None
    level: float = 0.95
    regrid: Any = None


def emmeans_table(
    basis: Basis, specs: str | Sequence[str], wanted: Wanted, kind: str = "link"
) -> Table:
    """Marginal means with confidence limits, or comparisons of them with tests."""
    one_of("type", kind, ("link", "response"), "It is the scale of the means.")
    adjust, level = check_adjust(wanted.adjust), check_level(wanted.level)
    contrasts = _contrasts(wanted)
    reference = ReferenceGrid(basis.fit, wanted.at, scale=regrid_scale(basis, wanted.regrid))
    names = reference.names("specs", specs)
    if not names:
        raise OptionError("specs must name one or several different predictors, not none.")
    by = _by(reference, wanted.by, names)
    averages = reference.average(names, by, wanted.weights)
    if contrasts is None:
        return _means(basis, averages, level, kind)
    return _comparisons(basis, averages, contrasts, wanted, adjust, level, kind, "means")


def emtrends_table(basis: Basis, specs: Any, variable: Any, wanted: Wanted) -> Table:
    """Slopes along a covariate with confidence limits, or comparisons of them with tests."""
    adjust, level = check_adjust(wanted.adjust), check_level(wanted.level)
    contrasts = _contrasts(wanted)
    reference = ReferenceGrid(basis.fit, wanted.at, "Slopes", regrid_scale(basis, wanted.regrid))
    names = [] if specs is None else reference.names("specs", specs)
    if not isinstance(variable, str):
        raise OptionError(
            f"var must be the name of a covariate, not {brief(variable)}. Name one of "
            f"{', '.join(map(repr, reference.spans)) or 'none: the model has no covariate'}."
        )
    by = _by(reference, wanted.by, names)
    averages = reference.average(names, by, wanted.weights, variable)
    if contrasts is None:
        return _slopes(basis, averages, variable, level)
    return _comparisons(basis, averages, contrasts, wanted, adjust, level, "link", "slopes")


def _contrasts(wanted: Wanted) -> Any:
    contrasts = check_contrasts(wanted.contrasts, wanted.pairwise)
    if wanted.ref is not None and contrasts != "trt.vs.ctrl":
        raise OptionError("ref names what others are compared with by contrasts='trt.vs.ctrl'.")
    return contrasts


def _by(reference: ReferenceGrid, by: Any, specs: Sequence[str]) -> list[str]:
    names = [] if by is None else reference.names("by", by)
    if both := [name for name in names if name in specs]:
        raise OptionError(
            f"{both[0]!r} is in specs and in by. Means are compared within the levels of by: leave "
            "it out of one of them."
        )
    return names


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """Estimates, standard errors and degrees of freedom; NaN where they cannot be given."""

    estimate: FloatArray
    se: FloatArray
    df: FloatArray
    notes: list[str]


def _evaluate(basis: Basis, averages: Averages, W: FloatArray) -> _Evaluated:
    """Linear combinations of averages, one per row of W."""
    fit, recipe = basis.fit, basis.fit.design.recipe
    assert recipe is not None
    L = W @ averages.F[:, recipe.kept]
    takes = W != 0
    defined = ~(takes & ~averages.defined).any(axis=1)
    occurs = ~(takes & ~averages.occurs).any(axis=1)
    # Averages on the response know already which of their cells are not determined.
    relations = recipe.relations if averages.values is None else None
    estimable = _determined(averages.F, W, recipe.kept, relations) & occurs
    there = np.where(defined & estimable, 0.0, np.nan)
    if averages.values is None:
        estimate = L @ fit.beta + W.sum(axis=1) * averages.shift + there
    else:
        estimate = W @ averages.values + there
    se, df = standard_errors(basis.method, L) + there, basis.method.single(L) + there
    notes = []
    if not estimable[defined].all():
        notes.append("NaN: the data do not determine it, as combinations of levels do not occur.")
    if not defined.all():
        notes.append(
            "NaN: an expression of the formula is undefined at these values of the covariates, "
            "their means if not given. Give others with at=."
        )
    notes += method_notes(basis.method, L[defined & estimable])
    return _Evaluated(estimate, se, df, notes)


def _determined(
    F: FloatArray, W: FloatArray, kept: BoolArray, relations: FloatArray | None
) -> BoolArray:
    """Combinations of averages that can be estimated, see `Recipe.determines`.

    Differences may be where the averages themselves are not.
    """
    if relations is None:
        return np.ones(len(W), dtype=bool)
    own, dropped = F[:, kept], F[:, ~kept]
    gap = np.abs(W @ (dropped - own @ relations))
    size = np.abs(W) @ (np.abs(dropped) + np.abs(own) @ np.abs(relations))
    return np.asarray(~np.any(gap > _SAME * size, axis=1))


def _means(basis: Basis, averages: Averages, level: float, kind: str) -> Table:
    found = _evaluate(basis, averages, np.eye(len(averages.F)))
    half = t_quantile(0.5 + level / 2.0, found.df) * found.se
    mapped = averages.values is not None
    columns = {
        "response" if mapped else "emmean": found.estimate,
        "SE": found.se,
        **basis.df(found.df),
        "lower.CL": found.estimate - half,
        "upper.CL": found.estimate + half,
    }
    notes = [*averages.notes, f"Confidence level {level:g}."]
    if averages.shift:
        notes.append(f"The offset is at its mean, {averages.shift:g}.")
    if kind == "response" and not mapped:
        columns = on_response(basis, columns)
    notes += regrid_notes(basis) if mapped else scale_notes(basis, kind)
    title = f"Estimated marginal means{basis.title}"
    return _table(columns, averages.labels, _rows(averages), title, [*notes, *found.notes])


def _slopes(basis: Basis, averages: Averages, variable: str, level: float) -> Table:
    found = _evaluate(basis, averages, np.eye(len(averages.F)))
    half = t_quantile(0.5 + level / 2.0, found.df) * found.se
    columns = {
        f"{variable}.trend": found.estimate,
        "SE": found.se,
        **basis.df(found.df),
        "lower.CL": found.estimate - half,
        "upper.CL": found.estimate + half,
    }
    said = scale_notes(basis, "link") if averages.values is None else regrid_notes(basis)
    notes = [*averages.notes, f"Confidence level {level:g}.", *said]
    title = f"Slopes along {variable}{basis.title}"
    return _table(columns, averages.labels, _rows(averages), title, [*notes, *found.notes])


def _rows(averages: Averages) -> list[str]:
    """A label for every row."""
    return [averages.text(i) or "overall" for i in range(len(averages.F))]


def _comparisons(
    basis: Basis,
    averages: Averages,
    contrasts: Any,
    wanted: Wanted,
    adjust: str,
    level: float,
    kind: str,
    what: str,
) -> Table:
    names: list[str] = []
    firsts: list[int] = []
    families: list[tuple[slice, list[int]]] = []
    W = np.zeros((0, len(averages.F)))
    for group in averages.groups():
        texts = [averages.text(i, averages.names) for i in group]
        alone = averages.labels[averages.names[0]] if len(averages.names) == 1 else None
        values = texts if alone is None else [alone[i] for i in group]
        own, weights = comparisons(contrasts, texts, values, wanted.reverse, wanted.ref)
        wide = np.zeros((len(own), len(averages.F)))
        wide[:, group] = weights
        families.append((slice(len(names), len(names) + len(own)), group))
        names, firsts, W = [*names, *own], [*firsts, *[group[0]] * len(own)], np.vstack([W, wide])
    if not names:
        raise OptionError(
            f"Comparisons need two or more {'marginal means' if what == 'means' else 'slopes'}, "
            "and there is one. Name a factor in specs, or give several values in at."
        )
    found = _evaluate(basis, averages, W)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = found.estimate / found.se
    used = method_for(adjust, contrasts == "pairwise")
    p, half = np.full(len(t), np.nan), np.full(len(t), np.nan)
    n_means, n_comparisons = [], []
    for rows, group in families:
        there = ~np.isnan(found.estimate[rows])
        n_comparisons.append(int(there.sum()))
        n_means.append(int((W[rows][there][:, group] != 0).any(axis=0).sum()))
        p[rows] = adjusted_p(t[rows], found.df[rows], used, n_means[-1])
        wide = critical_value(found.df[rows], level, used, n_means[-1], n_comparisons[-1])
        half[rows] = wide * found.se[rows]
    columns = {
        "estimate": found.estimate,
        "SE": found.se,
        **basis.df(found.df),
        "lower.CL": found.estimate - half,
        "upper.CL": found.estimate + half,
        **basis.tests(t),
        "p.value": p,
    }
    notes = [*averages.notes]
    notes += adjustment_notes(adjust, used, n_means, n_comparisons, what)
    notes.append(f"Confidence level {level:g}.")
    if averages.values is not None:
        notes += regrid_notes(basis)
    else:
        if kind == "response":
            columns, names = as_ratios(basis, columns, names, W)
        notes += difference_notes(basis, kind, W)
    said: dict[str, list[Any]] = {"contrast": names}
    said.update({n: [averages.labels[n][i] for i in firsts] for n in averages.by})
    within = [averages.text(i, averages.by) for i in firsts]
    index = [", ".join(filter(None, pair)) for pair in zip(names, within, strict=True)]
    title = f"Differences of {'estimated marginal means' if what == 'means' else 'slopes'}"
    if isinstance(contrasts, Mapping):
        title = title.replace("Differences", "Contrasts")
    return _table(columns, said, index, f"{title}{basis.title}", [*notes, *found.notes])


def _table(
    columns: Mapping[str, FloatArray],
    labels: Mapping[str, Sequence[Any]],
    index: Sequence[str],
    title: str,
    notes: Sequence[str],
) -> Table:
    se = columns["SE"]
    tests = ("df", "t.ratio", "z.ratio", "p.value")
    precise = as_precise_as(se[np.isfinite(se)].tolist())
    return Table(
        {name: values.tolist() for name, values in columns.items()},
        index,
        title=title,
        notes=notes,
        formats={**{n: precise for n in columns if n not in tests}, "df": degrees},
        labels={(f"{n}_" if n in columns else n): values for n, values in labels.items()},
    )
