"""`ResidualFit` and new rows → what residuals of the fit say about theirs.

A residual at a new time is correlated with those of its group: given them it is a'e plus what is
left of its variance, with a = R⁻¹c. The prediction is then that of the row x − X'a, z − Z'a, with
a'(y − offset) beside it, which needs no formulas of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.design.recipe import Recipe
from lmmsparse.design.residual_new import NewResiduals, new_residuals
from lmmsparse.engine.residual.base import Groups
from lmmsparse.engine.residual.structure import ResidualStructure
from lmmsparse.fit.residual.fit import ResidualFit


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What a row's group says about it.

    Attributes
    ----------
    rows : list of int arrays
        Rows of the fit of every row's group; none where nothing is said.
    shares : list of arrays
        a of every row.
    variance : (m,) array
        What is left of the residual variance, divided by σ².
    unconditional : (m,) array
        All of it.
    """

    rows: list[IntArray]
    shares: list[FloatArray]
    variance: FloatArray
    unconditional: FloatArray


def neighbours(fit: ResidualFit, new: NewResiduals, weights: FloatArray) -> Neighbours:
    """Of rows at times at which the fit has no row of their group."""
    structure, (own, gamma) = fit.structure, fit.structure.split(fit.phi)
    law = structure.correlation
    scale = np.exp(new.columns @ gamma) / np.sqrt(weights)
    known_times = np.maximum(new.times, 0.0)
    unit = law.matrix(own, known_times[:, None])[:, 0, 0]
    unconditional = scale**2 * unit
    variance = unconditional.copy()
    rows: list[IntArray] = [np.zeros(0, dtype=np.intp)] * len(scale)
    shares: list[FloatArray] = [np.zeros(0)] * len(scale)
    residual = fit.design.residual
    if residual is None or residual.correlation is None or residual.correlation.time == "1":
        return Neighbours(rows, shares, variance, unconditional)
    order = np.argsort(law.groups.codes, kind="stable")
    starts = np.searchsorted(law.groups.codes[order], np.arange(law.groups.n_groups + 1))
    for group in np.unique(new.groups[new.groups >= 0]):
        mine = order[starts[group] : starts[group + 1]]
        R = structure.block(fit.phi, mine)
        for i in np.flatnonzero(new.groups == group):
            if new.times[i] in law.groups.times[mine]:
                continue
            times = np.append(law.groups.times[mine], new.times[i])
            c = law.matrix(own, times)[-1, :-1] * scale[i]
            c = c * structure.scale(fit.phi)[mine]
            a = np.linalg.solve(R, c)
            rows[i], shares[i] = mine, a
            variance[i] -= float(a @ c)
    return Neighbours(rows, shares, variance, unconditional)


def neighbours_of(
    fit: ResidualFit, recipe: Recipe, frame: pd.DataFrame, weights: FloatArray
) -> Neighbours:
    """Of the rows of new data."""
    assert fit.design.residual is not None
    return neighbours(fit, new_residuals(fit.design.residual, recipe, frame), weights)


def beside(
    fit: ResidualFit,
    found: Neighbours,
    X: FloatArray,
    offset: FloatArray,
    columns: Mapping[int, FloatArray],
    codes: Mapping[int, IntArray],
) -> tuple[FloatArray, FloatArray, dict[int, FloatArray]]:
    """X, offset and random-effects columns of rows as their groups' residuals make them."""
    design = fit.design
    X, offset = np.array(X), np.array(offset)
    out = {t: np.array(values) for t, values in columns.items()}
    y = design.y - design.offset_or_zero
    for i, (mine, a) in enumerate(zip(found.rows, found.shares, strict=True)):
        if not len(mine):
            continue
        if any(codes[t][i] != design.blocks[t].codes[mine[0]] for t in out):
            continue
        X[i] -= a @ design.fixed[mine]
        offset[i] += a @ y[mine]
        for t, values in out.items():
            values[i] -= a @ design.blocks[t].columns[mine]
    return X, offset, out


def new_structure(
    fit: ResidualFit, new: NewResiduals, weights: FloatArray
) -> tuple[ResidualStructure, FloatArray]:
    """R of the new rows among themselves, as a function of φ, and φ."""
    own, gamma = fit.structure.split(fit.phi)
    law = fit.structure.correlation
    groups = Groups(new.own, new.times, int(new.own.max(initial=-1)) + 1)
    moved = law.of_groups(groups)
    phi = np.concatenate([moved.from_natural(law.natural(own)), gamma])
    return ResidualStructure(moved, new.columns, weights), phi
