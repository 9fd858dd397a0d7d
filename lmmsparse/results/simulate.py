"""`Fit` → responses drawn from the fitted model, with new, kept or partly kept random effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import FloatArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.common.options import as_generator, refused, whole_number
from lmmsparse.design.residual_new import new_residuals
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.results.correlated_rows import new_structure
from lmmsparse.results.given import Given, given_parameters
from lmmsparse.results.predict import (
    Selection,
    check_variances_known,
    new_frame,
    new_rows,
    new_weights,
    select_effects,
    warn_of_undetermined,
)


def simulate(
    fit: Fit,
    n: int,
    rng: Any,
    random: str = "new",
    newdata: Any = None,
    at: Given | None = None,
) -> tuple[FloatArray, pd.Index]:
    """Draw responses; see `LinearMixedModel.simulate`.

    Parameters
    ----------
    at : Given, optional
        Parameters in place of the estimates.

    Returns
    -------
    values : (rows, n) array
    index : pandas.Index

    Notes
    -----
    y* = Xβ + Zb* + offset + ε with b* ~ N(0, σ²ΛQ⁻¹Λ') and ε_i ~ N(0, σ²/w_i), or ε ~ N(0, σ²R).
    New rows have residuals that are correlated among themselves, not with those of the fit.
    """
    n = whole_number("n", n)
    generator = as_generator(rng)
    at = at or given_parameters(fit)
    values, index = drawn_predictors(fit, n, generator, random, newdata, at)
    noise = generator.standard_normal(values.shape)
    if isinstance(fit, ResidualFit):
        values += at.sigma * _correlated(fit, noise, newdata)
    else:
        weights = fit.design.weights_or_one if newdata is None else new_weights(fit, newdata)
        values += at.sigma * noise / np.sqrt(weights)[:, None]
    if newdata is None and fit.design.na_action == "exclude":
        values = np.column_stack([fit.design.pad(column) for column in values.T])
    return values, index


def _correlated(fit: ResidualFit, noise: FloatArray, newdata: Any) -> FloatArray:
    """L times white noise with R = LL', of new rows among themselves."""
    if newdata is None:
        return fit.structure.colour(fit.phi, noise)
    recipe, frame = new_frame(fit, newdata)
    assert fit.design.residual is not None
    new = new_residuals(fit.design.residual, recipe, frame)
    structure, phi = new_structure(fit, new, new_weights(fit, newdata))
    return structure.colour(phi, noise)


def drawn_predictors(
    fit: Fit,
    n: int,
    generator: np.random.Generator,
    random: str,
    newdata: Any,
    at: Given | None = None,
) -> tuple[FloatArray, pd.Index]:
    """Xβ + Zb* + offset, (rows, n), without what is padded, and the labels of the results."""
    n = whole_number("n", n)
    kept = kept_effects(fit, random)
    at = at or given_parameters(fit)
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
    values = np.repeat((X @ at.beta + offset)[:, None], n, axis=1)
    modes = fit.split(fit.b) if any(each.any() for each in kept) else []
    drawn: dict[int, FloatArray] = {}
    for t, T in enumerate(fit.template.factors(at.theta)):
        z = generator.standard_normal((n_levels[t], T.shape[0], n))
        known = fit.design.blocks[t].known
        if known is not None:
            size = len(known.labels)  # levels after these are independent of them and of each other
            z[:size] = known.prior.root(z[:size].reshape(size, -1)).reshape(z[:size].shape)
            z[size:] *= np.sqrt(known.variance_of_others or np.nan)
        drawn[t] = at.sigma * np.einsum("rc,lcn->lrn", T, z)
    for t in columns:
        effects = drawn[t]
        if kept[t].any():
            effects = effects.copy()
            seen = min(len(modes[t]), n_levels[t])
            effects[seen:, kept[t]] = 0.0
            effects[:seen, kept[t]] = modes[t][:seen, kept[t], None]
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
        check_variances_known(fit, {t: level})
        extra, labels = pd.factorize(shown.astype(str))
        fresh = np.where(level < 0, block.n_levels + extra, level)
        codes[t], n_levels[t] = fresh.astype(np.intp), block.n_levels + len(labels)
    return codes, n_levels
