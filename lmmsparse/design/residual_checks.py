"""Groups and times of correlated residuals → refused where a correlation cannot have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import DataError, NotIdentifiableError
from lmmsparse.design.grouping import Grouping
from lmmsparse.formula.residual import ResidualCorrelation


def check_complete(missing: BoolArray, correlation: ResidualCorrelation, what: str) -> None:
    """Refuse groups or times that are missing."""
    if missing.any():
        raise DataError(
            f"{what!r} in residual={correlation.text!r} is missing in {int(missing.sum())} rows "
            "that are fitted. Fill the values in, or leave out these rows."
        )


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


def check_groups(
    correlation: ResidualCorrelation,
    grouping: Grouping,
    times: FloatArray,
    visits: Grouping | None,
) -> None:
    """Refuse groups and times that a correlation cannot have."""
    sizes = np.bincount(grouping.codes)
    text = f"residual={correlation.text!r}"
    if sizes.max() < 2:
        raise NotIdentifiableError(
            f"{text} finds a single row in every group of {grouping.name!r}: there is no pair of "
            "rows to be correlated. Use a grouping factor with repeated observations."
        )
    if correlation.kind == "cs":
        return
    if visits is None:
        checked_times(times, correlation)
    order = np.lexsort((times, grouping.codes))
    codes, times = grouping.codes[order], times[order]
    twice = np.flatnonzero((codes[1:] == codes[:-1]) & (times[1:] == times[:-1]))
    if twice.size:
        at = twice[0]
        when = times[at] if visits is None else visits.levels[int(times[at])]
        shown = f"{when:g}" if isinstance(when, float) else str(when)
        raise DataError(
            f"{text} finds two rows of {grouping.levels[codes[at]]!s} at {correlation.time} = "
            f"{shown} ({twice.size} such pairs in all). A row must have a time of its own within "
            "its group. Correct the times, or add to the grouping what tells the rows apart."
        )
    if correlation.kind == "us" and visits is not None:
        _check_visits(grouping, visits, text)


def _check_visits(grouping: Grouping, visits: Grouping, text: str) -> None:
    v, groups = len(visits.levels), len(grouping.levels)
    if v < 2:
        raise NotIdentifiableError(f"{text} finds a single visit. There must be two or more.")
    if groups <= v:
        raise NotIdentifiableError(
            f"{text} has {v * (v + 1) // 2} parameters for {v} visits of {groups} groups of "
            f"{grouping.name!r}, which are too few: more groups than visits are needed. "
            "Use a structure with fewer parameters, such as ar1() with residual_sd=."
        )
    seen = np.zeros((groups, v))
    seen[grouping.codes, visits.codes] = 1.0
    together = seen.T @ seen
    never = np.argwhere(np.triu(together < 2, 1))
    if never.size:
        i, j = never[0]
        labels = visits.levels
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
    dtype = frame[name].dtype if name in frame.columns else None
    if not isinstance(dtype, pd.CategoricalDtype):
        return
    never = [level for level in dtype.categories if level not in grouping.levels]
    if never:
        raise DataError(
            f"residual={correlation.text!r}: the visit {never[0]!s} of {name!r} is never seen, so "
            "that nothing is known about it. Remove it from the categories, for example with "
            f"data[{name!r}].cat.remove_unused_categories()."
        )


def check_nested(grouping: Grouping | None, blocks: Sequence[Any]) -> None:
    """Refuse groups of correlated rows that stretch over levels of a grouping factor.

    Parameters
    ----------
    blocks : sequence of RandomBlock
    """
    if grouping is None:
        return
    codes = grouping.codes
    first = np.zeros(len(grouping.levels), dtype=np.intp)
    for block in blocks:
        first[codes] = block.codes
        if (first[codes] != block.codes).any():
            raise DataError(
                f"Rows of one group of {grouping.name!r}, which residual= correlates, are "
                f"in several levels of {block.group!r}. Every pair of such levels would have to be "
                "kept, and the matrices would fill. Correlate rows within a level of every "
                f"grouping factor, for example within {block.group}:{grouping.name}."
            )
