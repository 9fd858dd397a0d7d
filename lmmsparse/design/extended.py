"""A design and a grouping factor → the same design with more or fewer levels of the factor.

New levels have the rows of those that are there: their predictors, weights and levels of factors
that cross this one or hold it. Factors whose levels lie within those of this one get new levels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.words import listed
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.grouping import Grouping, LevelKey
from lmmsparse.design.rank import independent_columns
from lmmsparse.design.residual import ResidualDesign

_MOST_ROWS = 1e8


def extended(
    design: Design, group: str, n_levels: int, rng: np.random.Generator
) -> tuple[Design, IntArray]:
    """The design with `n_levels` levels of a grouping factor, and the row each row is a copy of.

    Every level is taken as often as any other, but for a rest. That is a systematic sample of the
    levels ordered by the means of their predictors, so that arms of a trial keep their shares.

    Raises
    ------
    OptionError
        If fixed effects cannot be estimated any more.
    """
    along = design.groupings[group]
    if known := [each.group for each in design.blocks if each.known is not None]:
        raise OptionError(
            f"The levels of {known[0]!r} have a known covariance, which new levels do not have. "
            "Ask for the power of the design as it is, without n=."
        )
    if n_levels * design.n / len(along.levels) > _MOST_ROWS:
        raise OptionError(
            f"{n_levels} levels of {group!r} would have about "
            f"{n_levels * design.n / len(along.levels):.2g} rows. Ask for fewer."
        )
    sources = _sources(_profiles(design, along), n_levels, rng)
    order = np.argsort(along.codes, kind="stable").astype(np.intp)
    sizes = np.bincount(along.codes, minlength=len(along.levels))
    first = np.cumsum(sizes) - sizes
    counts = sizes[sources]
    inside = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = order[np.repeat(first[sources], counts) + inside]
    copies = np.repeat(np.arange(n_levels), counts)
    X = design.fixed[rows]
    stays = independent_columns(X, design.x_names)
    if not stays.all():
        lost = [name for name, kept in zip(design.x_names, stays, strict=True) if not kept]
        raise OptionError(
            f"With {n_levels} levels of {group!r} the fixed effects cannot be told apart: "
            f"{listed(lost)}. Ask for more levels."
        )
    wider = replace(
        design,
        y=design.y[rows],
        fixed=X,
        blocks=tuple(_copied(each, along, rows, copies) for each in design.blocks),
        weights=None if design.weights is None else design.weights[rows],
        offset=None if design.offset is None else design.offset[rows],
        index=pd.RangeIndex(len(rows)),
        rows=np.arange(len(rows)),
        na_action="omit",
        residual=_copied_residual(design, along, rows, copies),
    )
    return wider, rows


def _profiles(design: Design, along: Grouping) -> FloatArray:
    """Means of the fixed effects' columns by level, (levels, p)."""
    sizes = np.bincount(along.codes, minlength=len(along.levels))
    sums = np.zeros((len(along.levels), design.p))
    np.add.at(sums, along.codes, design.X)
    return np.asarray(sums / sizes[:, None])


def _sources(profiles: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    """Which level each of n levels has its rows from."""
    m = len(profiles)
    times, rest = divmod(n, m)
    whole = np.tile(np.arange(m), times)
    if not rest:
        return whole
    # Levels that are alike come in random order.
    keys = [rng.permutation(m), *np.round(profiles, 9).T[::-1]]
    at = np.floor((np.arange(rest) + rng.uniform()) * m / rest).astype(np.intp)
    return np.concatenate([whole, np.sort(np.lexsort(keys)[at])])


def _copied(block: RandomBlock, along: Grouping, rows: IntArray, copies: IntArray) -> RandomBlock:
    """A block on the copied rows."""
    codes = block.codes[rows]
    if _within(block.grouping, along):
        codes = codes + copies * block.n_levels
    return replace(block, grouping=_numbered(block.group, codes), columns=block.columns[rows])


def _within(grouping: Grouping, along: Grouping) -> bool:
    """Whether the levels of a factor lie within those that are copied."""
    pairs = np.unique(grouping.codes.astype(np.int64) * len(along.levels) + along.codes)
    return len(pairs) == len(grouping.levels)


def _numbered(name: str, codes: IntArray) -> Grouping:
    """A grouping factor whose levels are numbers."""
    _, codes = np.unique(codes, return_inverse=True)
    levels = pd.RangeIndex(int(codes.max()) + 1)
    return Grouping(name, levels, codes.ravel().astype(np.intp), LevelKey.of(levels))


def _copied_residual(
    design: Design, along: Grouping, rows: IntArray, copies: IntArray
) -> ResidualDesign | None:
    """The covariance of the residuals on the copied rows; copies are independent."""
    residual = design.residual
    if residual is None:
        return None
    grouping, visits = residual.grouping, residual.visits
    if grouping is not None:
        if not _within(grouping, along):
            raise OptionError(
                f"Residuals are correlated within {grouping.name!r}, whose levels do not lie "
                f"within those of {along.name!r}: copied rows would be at the same time. Choose "
                "another factor, or ask for the power of the design as it is, without n=."
            )
        codes = grouping.codes[rows] + copies * len(grouping.levels)
        grouping = _numbered(grouping.name, codes)
    if visits is not None:
        codes = visits.codes[rows]
        if len(np.unique(codes)) < len(visits.levels):
            raise OptionError(
                "With so few levels some visits have no rows, and their standard deviations cannot "
                "be estimated. Ask for more levels."
            )
        visits = replace(visits, codes=codes)
    times = None if residual.times is None else residual.times[rows]
    columns = residual.columns[rows]
    return replace(residual, grouping=grouping, times=times, visits=visits, columns=columns)
