"""`Fit` and a group → each level's coefficients estimated from its own rows alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.fit.fit import Fit
from lmmsparse.report.plots.levels import LevelEffects, effects_of


@dataclass(frozen=True, eq=False)
class Pooling:
    """Coefficients of the levels of a group under different amounts of pooling.

    Attributes
    ----------
    effects : LevelEffects
    fixed : (k,) array
        The common coefficients (complete pooling), 0 for an effect that is only random.
    partial : (levels, k) array
        Coefficients of the model: fixed part plus random effect.
    alone : (levels, k) array
        Least squares on the rows of each level; NaN where these do not determine them.
    rows : (levels,) int array
        Number of rows.
    """

    effects: LevelEffects
    fixed: FloatArray
    partial: FloatArray
    alone: FloatArray
    rows: IntArray


def pooling(fit: Fit, group: str | None) -> Pooling:
    """Compare partial pooling with no and with complete pooling.

    Notes
    -----
    Least squares within a level are about the group's own effects. Other fixed effects and the
    random effects of other groups are held at their estimates; without any, these are the fits of
    one regression per level.
    """
    effects = effects_of(fit, group)
    design = fit.design
    terms = design.groups[effects.group]
    Z = np.concatenate([design.blocks[t].columns for t in terms], axis=1)
    codes = design.blocks[terms[0]].codes
    levels, k = effects.modes.shape
    w = design.weights_or_one
    # What is left for the group: the response without everything but the group's own effects.
    own = np.einsum("nk,nk->n", Z, effects.modes[codes])
    target = design.y - fit.fitted + own
    ZtZ = np.zeros((levels, k, k))
    Zty = np.zeros((levels, k))
    np.add.at(ZtZ, codes, w[:, None, None] * Z[:, :, None] * Z[:, None, :])
    np.add.at(Zty, codes, (w * target)[:, None] * Z)
    alone = np.full((levels, k), np.nan)
    size = np.sqrt(np.einsum("lkk->lk", ZtZ))
    usable = np.all(size > 0, axis=1)
    scaled = ZtZ[usable] / (size[usable][:, :, None] * size[usable][:, None, :])
    fine = np.linalg.eigvalsh(scaled)[:, 0] > 1e-8
    usable[np.flatnonzero(usable)[~fine]] = False
    alone[usable] = np.linalg.solve(ZtZ[usable], Zty[usable][:, :, None])[:, :, 0]
    known = dict(zip(design.x_names, fit.beta.tolist(), strict=True))
    fixed = np.array([known.get(name, 0.0) for name in effects.names])
    return Pooling(
        effects, fixed, fixed + effects.modes, fixed + alone, np.bincount(codes, minlength=levels)
    )
