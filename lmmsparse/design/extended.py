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
    block = design.blocks[design.groups[group][0]]
    if known := [each.group for each in design.blocks if each.known is not None]:
        raise OptionError(
            f"The levels of {known[0]!r} have a known covariance, which new levels do not have. "
            "Ask for the power of the design as it is, without n=."
        )
    sources = _sources(_profiles(design, block), n_levels, rng)
    order = np.argsort(block.codes, kind="stable").astype(np.intp)
    sizes = np.bincount(block.codes, minlength=block.n_levels)
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
        blocks=tuple(_copied(each, block, rows, copies) for each in design.blocks),
        weights=None if design.weights is None else design.weights[rows],
        offset=None if design.offset is None else design.offset[rows],
        index=pd.RangeIndex(len(rows)),
        rows=np.arange(len(rows)),
        na_action="omit",
    )
    return wider, rows


def _profiles(design: Design, block: RandomBlock) -> FloatArray:
    """Means of the fixed effects' columns by level, (levels, p)."""
    sizes = np.bincount(block.codes, minlength=block.n_levels)
    sums = np.zeros((block.n_levels, design.p))
    np.add.at(sums, block.codes, design.X)
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


def _copied(
    block: RandomBlock, along: RandomBlock, rows: IntArray, copies: IntArray
) -> RandomBlock:
    """A block on the copied rows."""
    codes = block.codes[rows]
    pairs = np.unique(block.codes.astype(np.int64) * along.n_levels + along.codes)
    if len(pairs) == block.n_levels:  # its levels lie within those that are copied
        codes = codes + copies * block.n_levels
    _, codes = np.unique(codes, return_inverse=True)
    levels = pd.RangeIndex(int(codes.max()) + 1)
    grouping = Grouping(block.group, levels, codes.ravel().astype(np.intp), LevelKey.of(levels))
    return replace(block, grouping=grouping, columns=block.columns[rows])
