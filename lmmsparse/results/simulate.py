"""`Fit` → responses drawn from the fitted model, with new, kept or partly kept random effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.common.options import as_generator, refused, whole_number
from lmmsparse.fit.fit import Fit
from lmmsparse.results.predict import (
    Selection,
    new_frame,
    new_rows,
    new_weights,
    select_effects,
    warn_of_undetermined,
)


def simulate(
    fit: Fit, n: int, rng: Any, random: str = "new", newdata: Any = None
) -> tuple[FloatArray, pd.Index]:
    """Draw responses; see `LinearMixedModel.simulate`.

    Returns
    -------
    values : (rows, n) array
    index : pandas.Index

    Notes
    -----
    y* = Xβ + Zb* + offset + ε with b* ~ N(0, σ²ΛΛ') and ε_i ~ N(0, σ²/w_i).
    """
    n = whole_number("n", n)
    generator = as_generator(rng)
    values, index = drawn_predictors(fit, n, generator, random, newdata)
    weights = fit.design.weights_or_one if newdata is None else new_weights(fit, newdata)
    noise = generator.standard_normal(values.shape)
    values += fit.sigma * noise / np.sqrt(weights)[:, None]
    if newdata is None and fit.design.na_action == "exclude":
        values = np.column_stack([fit.design.pad(column) for column in values.T])
    return values, index


def drawn_predictors(
    fit: Fit, n: int, generator: np.random.Generator, random: str, newdata: Any
) -> tuple[FloatArray, pd.Index]:
    """Xβ + Zb* + offset, (rows, n), without what is padded, and the labels of the results."""
    n = whole_number("n", n)
    kept = kept_effects(fit, random)
    if newdata is None:
        design = fit.design
        X, offset = design.fixed, design.offset_or_zero
        columns = {t: block.columns for t, block in enumerate(design.blocks)}
        codes = {t: block.codes for t, block in enumerate(design.blocks)}
        n_levels = {t: block.n_levels for t, block in enumerate(design.blocks)}
        index = design.output_index()
    else:
        every = [Selection(t, np.arange(b.k)) for t, b in enumerate(fit.design.blocks)]
        rows = new_rows(fit, newdata, every, "population")
        warn_of_undetermined(fit, rows.undetermined)
        X, offset, columns, index = rows.X, rows.offset, rows.columns, rows.index
        codes, n_levels = _new_codes(fit, newdata)
    values = np.repeat((X @ fit.beta + offset)[:, None], n, axis=1)
    modes = fit.split(fit.b)
    drawn: dict[int, FloatArray] = {}
    for t, T in enumerate(fit.template.factors(fit.theta)):
        z = generator.standard_normal((n_levels[t], T.shape[0], n))
        drawn[t] = fit.sigma * np.einsum("rc,lcn->lrn", T, z)
    for t in columns:
        effects = drawn[t]
        if kept[t].any():
            effects = effects.copy()
            known = min(len(modes[t]), n_levels[t])
            effects[known:, kept[t]] = 0.0
            effects[:known, kept[t]] = modes[t][:known, kept[t], None]
        for j in range(columns[t].shape[1]):
            values += columns[t][:, j, None] * effects[codes[t], j]
    return values, index


def kept_effects(fit: Fit, random: str) -> list[Any]:
    """Per block, which effects keep their conditional modes; (k,) bool arrays."""
    if not isinstance(random, str) or (random not in ("new", "keep") and "~" not in random):
        advice = "Draw random effects, keep the estimated ones, or name the terms to keep."
        raise refused("random", "'new', 'keep' or a one-sided formula", random, advice)
    chosen = select_effects(fit, random == "keep" if random in ("new", "keep") else random)
    kept = [np.zeros(block.k, dtype=bool) for block in fit.design.blocks]
    for selection in chosen:
        kept[selection.block][selection.columns] = True
    return kept


def _new_codes(fit: Fit, newdata: Any) -> tuple[dict[int, IntArray], dict[int, int]]:
    """Levels of new data, the fit's own first, unseen ones numbered after them."""
    recipe, frame = new_frame(fit, newdata)
    codes, n_levels = {}, {}
    for t, block in enumerate(fit.design.blocks):
        level, missing, shown = recipe.levels(t, frame)
        if missing.any():
            raise DataError(
                f"The grouping factor {block.group!r} is missing in {int(missing.sum())} rows of "
                "the new data. Fill them in."
            )
        extra, labels = pd.factorize(shown.astype(str))
        fresh = np.where(level < 0, block.n_levels + extra, level)
        codes[t], n_levels[t] = fresh.astype(np.intp), block.n_levels + len(labels)
    return codes, n_levels
