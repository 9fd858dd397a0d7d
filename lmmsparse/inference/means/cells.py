"""`Design` → how many rows are in each combination of the levels of its fixed factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import RowsNotKeptError
from lmmsparse.common.words import listed
from lmmsparse.design import Design
from lmmsparse.design.facts import Facts
from lmmsparse.design.terms import factor_levels, fixed_terms
from lmmsparse.inference.hypotheses.terms import Indicators, indicators

_ROWS = 20_000
_ZERO = 1e-9


def cell_counts(design: Design, factors: Mapping[str, tuple[Any, ...]]) -> tuple[FloatArray, int]:
    """Rows of the data in every combination of levels.

    Parameters
    ----------
    factors : mapping
        Factor → the levels that are wanted, in the order of the result's axes.

    Returns
    -------
    counts : array
        One axis per factor.
    unknown : int
        Rows in which X does not show the level of some factor, as all its terms are zero there.
    """
    assert design.recipe is not None
    if design.facts is not None:
        return _by_facts(design, design.facts, factors), 0
    every = factor_levels(design.recipe.matrices, "fixed")
    codes = level_codes(design, {name: every[name] for name in factors})
    flat = np.zeros(design.n, dtype=np.int64)
    inside, unknown = np.ones(design.n, dtype=bool), np.zeros(design.n, dtype=bool)
    for name, levels in factors.items():
        place = np.array([_position(level, levels) for level in (*every[name], None)])
        at = place[codes[name]]
        unknown |= codes[name] < 0
        inside &= at >= 0
        flat = flat * len(levels) + np.maximum(at, 0)
    shape = tuple(len(levels) for levels in factors.values())
    size = int(np.prod(shape, dtype=np.int64))
    counts = np.bincount(flat[inside], minlength=size).astype(np.float64)
    return counts.reshape(shape), int(unknown.sum())


def _by_facts(design: Design, facts: Facts, factors: Mapping[str, tuple[Any, ...]]) -> FloatArray:
    """The same of a design whose rows are not kept, but were counted."""
    assert design.recipe is not None
    names = next((names for names in facts.cells if set(factors) <= set(names)), None)
    if names is None:
        raise RowsNotKeptError(
            "This needs the number of rows in every combination of the levels of "
            f"{listed(factors)}, which was not counted when the model was fitted in chunks. Only "
            "columns that are factors by themselves are, up to a million combinations. Make them "
            "such in the data, or give weights= for the levels."
        )
    counts: FloatArray = facts.cells[names]
    rest = tuple(i for i, name in enumerate(names) if name not in factors)
    counts = counts.sum(axis=rest)
    own = [name for name in names if name in factors]
    counts = counts.transpose([own.index(name) for name in factors])
    every = factor_levels(design.recipe.matrices, "fixed")
    for axis, (name, levels) in enumerate(factors.items()):
        at = np.array([_position(level, every[name]) for level in levels])
        counts = counts.take(at, axis=axis)
    return counts


def level_codes(design: Design, levels: Mapping[str, tuple[Any, ...]]) -> dict[str, IntArray]:
    """Level of some fixed factors in every row, by its position; −1 if unknown.

    The data are not at hand: the level is that whose indicator, or its product with numbers, is not
    zero in the columns of X.
    """
    codes = {name: np.full(design.n, -1, dtype=np.int64) for name in levels}
    found = indicators(design)
    terms, _ = fixed_terms(design)
    for i in sorted(range(len(terms)), key=lambda i: len(terms[i].numbers)):
        wanted = [n for n in levels if n in terms[i].variables and (codes[n] < 0).any()]
        own = np.flatnonzero(np.array(found.owner) == i)
        met = {name: _levels_met(found, own, name, levels[name]) for name in wanted}
        wanted = [name for name in wanted if (met[name] >= 0).all()]
        if wanted:
            column = _largest_column(design, found.M[:, own])
            for name in wanted:
                code = np.where(column >= 0, met[name][column], -1)
                codes[name] = np.where(codes[name] < 0, code, codes[name])
    return codes


def _position(level: Any, levels: tuple[Any, ...]) -> int:
    return next((j for j, other in enumerate(levels) if level is not None and other == level), -1)


def _levels_met(found: Indicators, own: IntArray, name: str, levels: tuple[Any, ...]) -> IntArray:
    """The level of a factor at which each of some columns is not zero; −1 if there are several."""
    codes = np.array([_position(level, levels) for level in found.rows[name].tolist()])
    out = []
    for j in own:
        met = np.unique(codes[found.columns[:, j] != 0])
        out.append(int(met[0]) if len(met) == 1 else -1)
    return np.array(out, dtype=np.int64)


def _largest_column(design: Design, M: FloatArray) -> IntArray:
    """Which column of X M is the largest of each row, (n,); −1 where all are zero."""
    out = np.full(design.n, -1, dtype=np.int64)
    largest = 0.0
    for start in range(0, design.n, _ROWS):
        block = np.abs(np.asarray(design.fixed[start : start + _ROWS] @ M))
        largest = max(largest, float(block.max(initial=0.0)))
        there = block.max(axis=1, initial=0.0) > _ZERO * largest
        out[start : start + _ROWS] = np.where(there, block.argmax(axis=1), -1)
    return out
