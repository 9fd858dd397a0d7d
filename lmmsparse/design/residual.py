"""``residual=`` and ``residual_sd=`` with data → who is correlated with whom, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray, ReadOnly
from lmmsparse.common.errors import DataError, NotIdentifiableError
from lmmsparse.common.words import listed
from lmmsparse.design.arguments import numbers
from lmmsparse.design.columns import check_finite
from lmmsparse.design.grouping import Grouping, make_grouping
from lmmsparse.design.label_numbers import numbers_of
from lmmsparse.design.plain import Columns
from lmmsparse.design.recipe import evaluate, evaluate_grouping
from lmmsparse.design.residual_checks import check_complete, check_groups, checked_times
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
    listed : bool
        Whether times are places among the categories of a categorical.
    """

    correlation: ResidualCorrelation | None
    grouping: Grouping | None
    times: FloatArray | None
    visits: Grouping | None
    columns: FloatArray
    names: tuple[str, ...]
    sd_text: str = ""
    begin: FloatArray | None = field(default=None, repr=False)
    listed: bool = False

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


def residual_of(
    correlation: ResidualCorrelation | None,
    sd_text: str,
    sd: Columns | None,
    table: Tabular,
    frame: pd.DataFrame,
    context: Mapping[str, Any],
) -> ResidualDesign | None:
    """The covariance of the residuals, where one is asked for.

    Parameters
    ----------
    sd : columns and names, or None
        Of ``residual_sd=``, with the intercept.
    frame : DataFrame
        The data as they were given.
    """
    if correlation is None and sd is None:
        return None
    return _made(correlation, sd_text, sd, table, frame, context)


def _made(
    correlation: ResidualCorrelation | None,
    sd_text: str,
    sd: Columns | None,
    table: Tabular,
    frame: pd.DataFrame,
    context: Mapping[str, Any],
) -> ResidualDesign:
    """Evaluate the parts on the rows that are fitted, and refuse what cannot be."""
    n = len(table)
    columns, names = _sd_columns(sd, sd_text, n)
    if correlation is None:
        return ResidualDesign(None, None, None, None, columns, names, sd_text)
    factors = [evaluate_grouping(f, table, context) for f in correlation.factors]
    for factor, text in zip(factors, correlation.factors, strict=True):
        check_complete(factor.isna().to_numpy(), correlation, text)
    grouping = make_grouping(correlation.group, factors)
    visits, listed = None, _is_listed(correlation, frame)
    if correlation.time == "1":
        times = np.zeros(n)
    elif correlation.kind in ("cs", "us"):
        visits = _visits(correlation, table, context)
        times = visits.codes.astype(np.float64)
    else:
        times = time_values(correlation, table, context, listed)
    listed = listed and visits is None
    out = ResidualDesign(
        correlation, grouping, times, visits, columns, names, sd_text, listed=listed
    )
    check_groups(correlation, grouping, times, visits)
    return out


def _sd_columns(sd: Columns | None, text: str, n: int) -> tuple[FloatArray, tuple[str, ...]]:
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


def time_series(
    correlation: ResidualCorrelation, table: Tabular, context: Mapping[str, Any]
) -> pd.Series:
    """What stands to the left of the bar, as it is in the data."""
    values = evaluate(correlation.time, table, context)
    series = pd.Series(values).reset_index(drop=True)
    if len(series) != len(table):
        raise DataError(
            f"{correlation.time!r} in residual={correlation.text!r} has {len(series)} values for "
            f"{len(table)} rows. It must have one per row."
        )
    check_complete(series.isna().to_numpy(), correlation, correlation.time)
    return series


def _visits(
    correlation: ResidualCorrelation, table: Tabular, context: Mapping[str, Any]
) -> Grouping:
    return make_grouping(correlation.time, [time_series(correlation, table, context)])


def _is_listed(correlation: ResidualCorrelation, frame: pd.DataFrame) -> bool:
    """Whether the times are a categorical whose categories, no numbers, say the order."""
    name = correlation.time.strip("`")
    if name not in frame.columns or not isinstance(frame[name].dtype, pd.CategoricalDtype):
        return False
    return not _are_numbers(frame[name].cat.categories)


def _are_numbers(labels: pd.Index) -> bool:
    try:
        numbers("labels", labels)
    except DataError:
        return False
    return True


def time_values(
    correlation: ResidualCorrelation,
    table: Tabular,
    context: Mapping[str, Any],
    listed: bool = False,
) -> FloatArray:
    """Occasions or times of rows as numbers.

    Parameters
    ----------
    listed : bool
        Whether categories stand in their order. Those of text are in that of the alphabet; text
        that holds a number each, such as v1, v2, …, v10, counts as that number.
    """
    series = tidy_column(time_series(correlation, table, context))
    where = f"{correlation.time!r} in residual={correlation.text!r}"
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes, categories = codes_and_categories(series)
        if listed:
            place = np.arange(len(categories), dtype=np.float64)
        elif (found := numbers_of(list(categories))) is not None:
            place = np.array([float(each) for each in found])
        else:
            raise DataError(
                f"{where} is text, whose order is not known. Number the occasions 1, 2, 3, …, or "
                "make it a categorical with its levels in order, pandas.Categorical(values, "
                "levels)."
            )
        return checked_times(place[codes], correlation)
    if getattr(series.dtype, "kind", "") in "mM":
        raise DataError(f"{where} must be numbers. Turn dates into days since the start.")
    advice = "Turn dates into days since the start, and text into occasions 1, 2, 3, …"
    return checked_times(numbers(where, series, advice), correlation)
