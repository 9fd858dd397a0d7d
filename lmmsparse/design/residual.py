"""``residual=`` and ``residual_sd=`` with data → who is correlated with whom, and what sd goes by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, ReadOnly
from lmmsparse.common.errors import DataError, NotIdentifiableError
from lmmsparse.common.words import listed
from lmmsparse.design.columns import check_finite
from lmmsparse.design.grouping import Grouping, make_grouping
from lmmsparse.design.recipe import Recipe, evaluate, evaluate_grouping
from lmmsparse.design.variables import Tabular, codes_and_categories, tidy_column
from lmmsparse.engine.residual.base import Correlation, Groups
from lmmsparse.engine.residual.exchangeable import Exchangeable, Independent
from lmmsparse.engine.residual.markov import Autoregressive
from lmmsparse.engine.residual.structure import ResidualStructure
from lmmsparse.engine.residual.unstructured import Unstructured
from lmmsparse.formula.residual import ResidualCorrelation

PART = "residual_sd"


@dataclass(frozen=True, eq=False)
class ResidualDesign(ReadOnly):
    """The covariance of the residuals as formula and data ask for it.

    Attributes
    ----------
    correlation : ResidualCorrelation or None
    grouping : Grouping or None
        Rows of different groups are independent.
    times : (n,) array or None
        Occasions or times, or the numbers of the visits.
    visits : Grouping or None
        Labels of the times, where these are no numbers: of us(), and of cs() if it names a time.
    columns : (n, k) array
        What the logarithm of the standard deviation is linear in, without the intercept.
    names : tuple of str
        Their names.
    sd_text : str
        ``residual_sd=`` as the user wrote it.
    begin : (parameters,) array or None
        Start values of an unstructured correlation.
    """

    correlation: ResidualCorrelation | None
    grouping: Grouping | None
    times: FloatArray | None
    visits: Grouping | None
    columns: FloatArray
    names: tuple[str, ...]
    sd_text: str = ""
    begin: FloatArray | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The structure in words of the formula."""
        parts = [] if self.correlation is None else [self.correlation.text]
        return ", ".join(parts + ([f"sd {self.sd_text}"] if self.names else []))

    @property
    def kind(self) -> str:
        return "" if self.correlation is None else self.correlation.kind

    @cached_property
    def law(self) -> Correlation:
        """The correlation within groups."""
        if self.grouping is None:
            return Independent.of(len(self.columns))
        assert self.times is not None
        groups = Groups(self.grouping.codes, self.times, len(self.grouping.levels))
        if self.kind == "cs":
            return Exchangeable(groups)
        if self.kind == "us":
            assert self.visits is not None
            return Unstructured(groups, tuple(map(str, self.visits.levels)), self.begin)
        return Autoregressive(groups, self.kind == "car1")

    def structure(self, weights: FloatArray | None) -> ResidualStructure:
        """R as a function of φ."""
        return ResidualStructure(self.law, self.columns, weights)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Of the correlation, then one ``logsd.…`` per column of ``residual_sd=``."""
        return (*self.law.labels, *(f"logsd.{name}" for name in self.names))

    def taken(self, keep: BoolArray) -> ResidualDesign:
        """The same on some of the rows."""
        grouping = None if self.grouping is None else _taken(self.grouping, keep)
        times = None if self.times is None else self.times[keep]
        visits = None if self.visits is None else _taken(self.visits, keep)
        if visits is not None and self.visits is not None:
            times = visits.codes.astype(np.float64)
        if self.kind == "us" and len(visits.levels) < len(self.visits.levels):  # type: ignore[union-attr]
            raise DataError(
                "A visit has no rows among those that are left, so that its standard deviation "
                "cannot be estimated. Fit a model without it."
            )
        return replace(
            self, grouping=grouping, times=times, visits=visits, columns=self.columns[keep]
        )


def _taken(grouping: Grouping, keep: BoolArray) -> Grouping:
    codes = grouping.codes[keep]
    present, renumbered = np.unique(codes, return_inverse=True)
    key = replace(grouping.key, combinations=grouping.key.combinations[present])
    return Grouping(grouping.name, grouping.levels[present], renumbered.astype(np.intp), key)


def make_residual(
    correlation: ResidualCorrelation | None,
    sd_text: str,
    sd: tuple[FloatArray, Sequence[str]] | None,
    table: Tabular,
    context: Mapping[str, Any],
) -> ResidualDesign:
    """Evaluate the parts on the rows that are fitted, and refuse what cannot be.

    Parameters
    ----------
    sd : (n, k) array and names, or None
        Columns of ``residual_sd=`` with the intercept.
    """
    n = len(table)
    columns, names = _sd_columns(sd, sd_text, n)
    if correlation is None:
        return ResidualDesign(None, None, None, None, columns, names, sd_text)
    factors = [evaluate_grouping(f, table, context) for f in correlation.factors]
    for factor, text in zip(factors, correlation.factors, strict=True):
        _check_complete(factor.isna().to_numpy(), correlation, text)
    grouping = make_grouping(correlation.group, factors)
    visits = None
    if correlation.time == "1":
        times = np.zeros(n)
    elif correlation.kind in ("cs", "us"):
        visits = _visits(correlation, table, context)
        times = visits.codes.astype(np.float64)
    else:
        times = time_values(correlation, table, context)
    out = ResidualDesign(correlation, grouping, times, visits, columns, names, sd_text)
    check_residual(out)
    return out


def _sd_columns(
    sd: tuple[FloatArray, Sequence[str]] | None, text: str, n: int
) -> tuple[FloatArray, tuple[str, ...]]:
    if sd is None:
        return np.zeros((n, 0)), ()
    values, names = sd
    for name, column in zip(names, np.asarray(values).T, strict=True):
        if np.isinf(column).any():
            raise DataError(
                f"The column {name!r} of residual_sd={text!r} is infinite in "
                f"{int(np.isinf(column).sum())} rows, as a logarithm of zero is. Add a constant "
                "within it, or leave out such rows."
            )
        check_finite(f"column {name!r} of residual_sd", column)
    constant = [j for j, name in enumerate(names) if name == "Intercept"]
    columns = np.delete(np.asarray(values, dtype=np.float64), constant, axis=1)
    own = tuple(str(name) for j, name in enumerate(names) if j not in constant)
    centred = columns - columns.mean(axis=0)
    size = np.linalg.norm(centred, axis=0)
    flat = [own[j] for j in np.flatnonzero(size <= 1e-10 * np.linalg.norm(columns, axis=0))]
    if flat:
        raise NotIdentifiableError(
            f"The column {flat[0]!r} of residual_sd={text!r} is the same in all rows, so that its "
            "effect cannot be told from sigma. Leave it out."
        )
    unit = centred / size
    if np.linalg.eigvalsh(unit.T @ unit)[0] < 1e-10:
        raise NotIdentifiableError(
            f"The columns of residual_sd={text!r} ({listed(own)}) are linearly dependent. Their "
            "effects cannot be told apart. Leave out what repeats others."
        )
    return np.asfortranarray(columns), own


def _check_complete(missing: BoolArray, correlation: ResidualCorrelation, what: str) -> None:
    if missing.any():
        raise DataError(
            f"{what!r} in residual={correlation.text!r} is missing in {int(missing.sum())} rows "
            "that are fitted. Fill the values in, or leave out these rows."
        )


def _series(
    correlation: ResidualCorrelation, table: Tabular, context: Mapping[str, Any]
) -> pd.Series:
    values = evaluate(correlation.time, table, context)
    series = pd.Series(values).reset_index(drop=True)
    if len(series) != len(table):
        raise DataError(
            f"{correlation.time!r} in residual={correlation.text!r} has {len(series)} values for "
            f"{len(table)} rows. It must have one per row."
        )
    _check_complete(series.isna().to_numpy(), correlation, correlation.time)
    return series


def _visits(
    correlation: ResidualCorrelation, table: Tabular, context: Mapping[str, Any]
) -> Grouping:
    return make_grouping(correlation.time, [_series(correlation, table, context)])


@dataclass(frozen=True, eq=False)
class NewResiduals(ReadOnly):
    """New rows as the covariance of the residuals sees them.

    Attributes
    ----------
    groups : (m,) int array
        Group of the fit, −1 for a new one.
    own : (m,) int array
        Group among the new rows.
    times : (m,) array
        −1 for a label that the fit has not seen.
    columns : (m, k) array
        As `ResidualDesign.columns`.
    """

    groups: IntArray
    own: IntArray
    times: FloatArray
    columns: FloatArray


def new_residuals(design: ResidualDesign, recipe: Recipe, frame: pd.DataFrame) -> NewResiduals:
    """Read groups, times and columns of the standard deviation from new data."""
    n, context = len(frame), recipe.matrices.context
    columns = np.zeros((n, 0))
    if design.names:
        values = recipe.matrices.matrix(PART, frame)[0]
        names = [str(name) for name in recipe.matrices.specification(PART).column_names]
        columns = values[:, [names.index(name) for name in design.names]]
        if not np.isfinite(columns).all():
            raise DataError(
                f"residual_sd={design.sd_text!r} is missing or infinite in rows of the new data. "
                "Correct the values."
            )
    if design.correlation is None or design.grouping is None:
        own = np.arange(n)
        return NewResiduals(np.full(n, -1), own, np.zeros(n), columns)
    factors = [evaluate_grouping(f, frame, context) for f in design.correlation.factors]
    for factor, text in zip(factors, design.correlation.factors, strict=True):
        _check_complete(factor.isna().to_numpy(), design.correlation, text)
    groups, _ = design.grouping.key.encode(factors)
    own = make_grouping(design.correlation.group, factors).codes
    times = np.zeros(n)
    if design.visits is not None:
        labels = _series(design.correlation, frame, context)
        times = design.visits.key.encode([labels])[0].astype(np.float64)
    elif design.correlation.time != "1":
        times = time_values(design.correlation, frame, context)
    if design.kind == "us" and (times < 0).any():
        raise DataError(
            f"{design.correlation.time!r} holds visits in the new data that the fit has not seen, "
            "of which residual='us(…)' knows no variance. Use visits that the fit has."
        )
    return NewResiduals(groups, own, times, columns)


def time_values(
    correlation: ResidualCorrelation, table: Tabular, context: Mapping[str, Any]
) -> FloatArray:
    """Occasions or times of rows as numbers."""
    series = _series(correlation, table, context)
    where = f"{correlation.time!r} in residual={correlation.text!r}"
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes, categories = codes_and_categories(series)
        try:
            numbers = np.asarray(categories, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.arange(len(categories), dtype=np.float64)
        return checked_times(numbers[codes], correlation)
    try:
        values = np.asarray(tidy_column(series), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where} must be numbers. Turn dates into days since the start, and text into "
            "occasions 1, 2, 3, …"
        ) from error
    if series.dtype.kind in "mM":
        raise DataError(f"{where} must be numbers. Turn dates into days since the start.")
    return checked_times(values, correlation)


def checked_times(values: FloatArray, correlation: ResidualCorrelation) -> FloatArray:
    """Refuse times that a correlation cannot have."""
    where = f"{correlation.time!r} in residual={correlation.text!r}"
    if not np.isfinite(values).all():
        raise DataError(f"{where} holds infinite values. Correct them.")
    if (values < 0).any():
        raise DataError(
            f"{where} is negative in {int((values < 0).sum())} rows. Count times from the first "
            "occasion: subtract the smallest."
        )
    if correlation.kind == "ar1" and (values != np.round(values)).any():
        strange = values[values != np.round(values)][0]
        raise DataError(
            f"{where} must be whole numbers, as ar1() counts occasions, and {strange:g} is none. "
            "Use car1() for times."
        )
    return values


def check_residual(design: ResidualDesign) -> None:
    """Refuse groups and times that a correlation cannot have."""
    grouping, correlation = design.grouping, design.correlation
    assert grouping is not None and correlation is not None
    sizes = np.bincount(grouping.codes)
    text = f"residual={correlation.text!r}"
    if sizes.max() < 2:
        raise NotIdentifiableError(
            f"{text} finds a single row in every group of {grouping.name!r}: there is no pair of "
            "rows to be correlated. Use a grouping factor with repeated observations."
        )
    assert design.times is not None
    if correlation.kind == "cs":
        return
    if design.visits is None:
        checked_times(design.times, correlation)
    order = np.lexsort((design.times, grouping.codes))
    codes, times = grouping.codes[order], design.times[order]
    twice = np.flatnonzero((codes[1:] == codes[:-1]) & (times[1:] == times[:-1]))
    if twice.size:
        at = twice[0]
        when = times[at] if design.visits is None else design.visits.levels[int(times[at])]
        shown = f"{when:g}" if isinstance(when, float) else str(when)
        raise DataError(
            f"{text} finds two rows of {grouping.levels[codes[at]]!s} at {correlation.time} = "
            f"{shown} ({twice.size} such pairs in all). A row must have a time of its own within "
            "its group. Correct the times, or add to the grouping what tells the rows apart."
        )
    if design.kind == "us":
        _check_visits(design, text)


def _check_visits(design: ResidualDesign, text: str) -> None:
    assert design.visits is not None and design.grouping is not None
    v, groups = len(design.visits.levels), len(design.grouping.levels)
    if v < 2:
        raise NotIdentifiableError(f"{text} finds a single visit. There must be two or more.")
    if groups <= v:
        raise NotIdentifiableError(
            f"{text} has {v * (v + 1) // 2} parameters for {v} visits of {groups} groups of "
            f"{design.grouping.name!r}, which are too few: more groups than visits are needed. "
            "Use a structure with fewer parameters, such as ar1() with residual_sd=."
        )
    seen = np.zeros((groups, v))
    seen[design.grouping.codes, design.visits.codes] = 1.0
    together = seen.T @ seen
    never = np.argwhere(np.triu(together < 2, 1))
    if never.size:
        i, j = never[0]
        labels = design.visits.levels
        raise NotIdentifiableError(
            f"{text}: the visits {labels[i]} and {labels[j]} are seen together in "
            f"{int(together[i, j])} groups, too few to estimate their correlation. Leave out a "
            "visit, or use a structure with fewer parameters."
        )


def check_declared_visits(
    correlation: ResidualCorrelation | None, frame: pd.DataFrame, grouping: Grouping | None
) -> None:
    """Refuse visits that a categorical declares and no fitted row has."""
    if correlation is None or correlation.kind != "us" or grouping is None:
        return
    name = correlation.time.strip("`")
    if name not in frame.columns or not isinstance(frame[name].dtype, pd.CategoricalDtype):
        return
    never = [level for level in frame[name].dtype.categories if level not in grouping.levels]
    if never:
        raise DataError(
            f"residual={correlation.text!r}: the visit {never[0]!s} of {name!r} is never seen, so "
            "that nothing is known about it. Remove it from the categories, for example with "
            f"data[{name!r}].cat.remove_unused_categories()."
        )


def check_nested(residual: ResidualDesign, blocks: Sequence[Any]) -> None:
    """Refuse groups of correlated rows that stretch over levels of a grouping factor."""
    if residual.grouping is None:
        return
    codes = residual.grouping.codes
    first = np.zeros(len(residual.grouping.levels), dtype=np.intp)
    for block in blocks:
        first[codes] = block.codes
        if (first[codes] != block.codes).any():
            raise DataError(
                f"Rows of one group of {residual.grouping.name!r}, which residual= correlates, are "
                f"in several levels of {block.group!r}. Every pair of such levels would have to be "
                "kept, and the matrices would fill. Correlate rows within a level of every "
                f"grouping factor, for example within {block.group}:{residual.grouping.name}."
            )
