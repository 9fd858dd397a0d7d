"""`Fit` and new data → predictions, with all, some or none of the random effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import DataError, DesignWarning, FormulaError, OptionError
from lmmsparse.common.findings import warn
from lmmsparse.common.options import one_of, refused
from lmmsparse.common.words import close_match, listed
from lmmsparse.design import Recipe, as_frame, check_unique
from lmmsparse.fit.fit import Fit
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.formula.formula import parse_formula
from lmmsparse.results.correlated_rows import beside, neighbours_of

NEW_LEVELS = ("raise", "population", "nan")


@dataclass(frozen=True, eq=False)
class Selection:
    """Which random effects take part: the columns chosen of one block.

    Attributes
    ----------
    columns : (m,) int array
    """

    block: int
    columns: IntArray


def select_effects(fit: Fit, random: bool | str) -> list[Selection]:
    """Interpret ``random=``: True (all), False (none) or a one-sided formula."""
    blocks = fit.design.blocks
    if random is True:
        return [Selection(i, np.arange(block.k)) for i, block in enumerate(blocks)]
    if random is False:
        return []
    if not isinstance(random, str):
        advice = "Write, for example, random='~(1|Subject)'."
        raise refused("random", "True, False or a one-sided formula", random, advice)
    chosen: dict[int, set[int]] = {}
    for term in parse_formula(random, one_sided=True).random:
        terms = fit.design.groups.get(term.group)
        if terms is None:
            raise FormulaError(
                f"random= names the grouping factor {term.group!r}, which the model does not have."
                f"{close_match(term.group, fit.design.groups)} Its grouping factors are "
                f"{listed(fit.design.groups)}. Name one of these.",
                random,
                term.position,
                len(term.source),
            )
        have = [name for t in terms for name in blocks[t].names]
        names = _effect_names(fit, term.effects)
        strange = [term.effects] if names is None else [n for n in names if n not in have]
        if names is None or strange:
            raise FormulaError(
                f"random= asks for the effect {strange[0]!r} of {term.group!r}, which the model "
                f"does not have. Its effects there are {listed(have)}. Name one of these.",
                random,
                term.position,
                len(term.source),
            )
        for t in terms:
            at = {blocks[t].names.index(name) for name in names if name in blocks[t].names}
            chosen.setdefault(t, set()).update(at)
    return [Selection(t, np.array(sorted(chosen[t]))) for t in sorted(chosen) if chosen[t]]


def _effect_names(fit: Fit, effects: str) -> tuple[str, ...] | None:
    """Names of the columns of a left side; None if it uses what the model does not have."""
    recipe = fit.design.recipe
    if recipe is not None:
        try:
            return recipe.matrices.names_of(effects)
        except DataError:
            return None
    names = [piece.strip() for piece in effects.split("+")]
    renamed = {"1": "Intercept"}
    return tuple(renamed.get(name, name) for name in names if name != "0")


@dataclass(frozen=True, eq=False)
class NewRows:
    """New data as the model sees them.

    Attributes
    ----------
    X : (m, p) array
        NaN in rows with a missing predictor and in those that are undetermined.
    offset : (m,) array
    columns : dict
        Block → (m, k) array.
    codes : dict
        Block → level of each row, −1 where the level is new or missing.
    unknown : (m,) bool array
        Rows with a new or missing level of a selected group.
    undetermined : (m,) bool array
        Rows whose fixed part the data of the fit do not determine.
    """

    X: FloatArray
    offset: FloatArray
    columns: dict[int, FloatArray]
    codes: dict[int, IntArray]
    unknown: BoolArray
    undetermined: BoolArray
    index: pd.Index


def new_frame(fit: Fit, newdata: Any) -> tuple[Recipe, pd.DataFrame]:
    """The recipe of a model and new data as a DataFrame."""
    recipe = fit.design.recipe
    if recipe is None:
        raise OptionError(
            "The model was fitted from arrays and cannot find its columns in a table. Compute X @ "
            "m.fixef and add the rows of m.ranef, or fit with lmm.lmer and a formula."
        )
    frame = as_frame(newdata)
    if not frame.columns.is_unique:
        check_unique(frame, recipe.names)
    return recipe, frame


def new_weights(fit: Fit, newdata: Any) -> FloatArray:
    """Prior weights of new data, 1 if the fit had none."""
    recipe, frame = new_frame(fit, newdata)
    return np.ones(len(frame)) if fit.design.weights is None else recipe.weights(frame)


def new_rows(
    fit: Fit,
    newdata: Any,
    selections: list[Selection],
    new_levels: str,
    offset: Any = None,
    correlated: bool = False,
) -> NewRows:
    """Build the model's columns for new data; only the selected groups are looked up.

    Parameters
    ----------
    correlated : bool
        Whether residuals of the fit that are correlated with a row's own are part of its mean.
    """
    recipe, frame = new_frame(fit, newdata)
    columns, codes = {}, {}
    unknown = np.zeros(len(frame), dtype=bool)
    for selection in selections:
        t = selection.block
        columns[t] = recipe.random(t, frame)
        level, missing = recipe.codes(t, frame)
        bad = missing | (level < 0)
        if bad.any() and new_levels == "raise":
            shown = recipe.levels(t, frame)[2]
            raise _level_error(fit.design.blocks[t].group, missing, level, shown)
        unknown |= bad
        codes[t] = np.where(bad, -1, level)
    X, undetermined = recipe.fixed(frame)
    _check_finite(X, fit.design.x_names)
    for t, values in columns.items():
        _check_finite(values, fit.design.blocks[t].names)
    shift = recipe.offset(frame, offset)
    if correlated and isinstance(fit, ResidualFit):
        found = neighbours_of(fit, recipe, frame, new_weights(fit, newdata))
        X, shift, columns = beside(fit, found, X, shift, columns, codes)
    return NewRows(
        X=X,
        offset=shift,
        columns=columns,
        codes=codes,
        unknown=unknown,
        undetermined=undetermined,
        index=frame.index,
    )


def _check_finite(values: FloatArray, names: tuple[str, ...]) -> None:
    infinite = np.isinf(values).sum(axis=0)
    if infinite.any():
        j = int(np.argmax(infinite))
        raise DataError(
            f"The column {names[j]!r} is infinite in {infinite[j]} rows of the new data. Correct "
            "the values, or make them missing."
        )


def check_variances_known(fit: Fit, codes: Mapping[int, IntArray]) -> None:
    """Refuse new levels of a factor whose known covariance says nothing about others.

    Parameters
    ----------
    codes : mapping of int to (m,) int array
        Block → level of each row, −1 where it is new.
    """
    for t, levels in codes.items():
        block = fit.design.blocks[t]
        if block.known is None or block.known.variance_of_others is not None:
            continue
        if (levels < 0).any():
            raise DataError(
                f"The new data have levels of {block.group!r} that its {block.known.kind} does not "
                "have, so that their variance is not known. Predict them without se= and "
                "interval=, or fit with a covariance that has them: levels need no rows."
            )


def level_variances(fit: Fit, t: int, newdata: Any) -> FloatArray | float:
    """What multiplies the variance of the effects of a block, per row of the fit or of new data."""
    block = fit.design.blocks[t]
    if block.known is None or newdata is None:
        return block.level_variances(block.codes)
    variances = block.known.prior.variances
    if np.ptp(variances) == 0.0 and block.known.variance_of_others in (None, variances[0]):
        return float(variances[0])
    recipe, frame = new_frame(fit, newdata)
    codes, _, _ = recipe.levels(t, frame)
    check_variances_known(fit, {t: codes})
    return block.level_variances(codes)


def warn_of_undetermined(fit: Fit, undetermined: BoolArray) -> None:
    """Say how many rows of new data the fixed effects cannot give a mean for."""
    if undetermined.any():
        warn(
            f"{int(undetermined.sum())} of {len(undetermined)} rows of the new data are NaN: the "
            "data of the fit do not determine their mean, as fixed effects were dropped "
            f"({listed(fit.design.dropped)}). Predict for combinations that the fit had, or leave "
            "out the interaction.",
            DesignWarning,
        )


def _level_error(group: str, missing: BoolArray, level: IntArray, shown: pd.Series) -> DataError:
    remedy = (
        "Use new_levels='population' to predict such rows without the group's random effects, or "
        "'nan' to leave them open."
    )
    if missing.any():
        return DataError(
            f"The grouping factor {group!r} is missing in {int(missing.sum())} rows of the new "
            f"data. Their random effects are unknown. {remedy}"
        )
    unseen = pd.unique(shown[level < 0].astype(str))
    new = listed(unseen)
    return DataError(
        f"The new data have levels of {group!r} that the fit has not seen: {new}. Their random "
        f"effects are unknown. {remedy}"
    )


def predict(
    fit: Fit,
    newdata: Any = None,
    random: bool | str = True,
    new_levels: str = "raise",
    offset: Any = None,
) -> tuple[FloatArray, pd.Index]:
    """Xβ + Zb + offset for the data of the fit or for new data; NaN where they do not tell.

    Returns
    -------
    values : (m,) array
    index : pandas.Index
        Labels of the rows.
    """
    one_of("new_levels", new_levels, NEW_LEVELS)
    selections = select_effects(fit, random)
    b = fit.split(fit.b)
    if newdata is None:
        if offset is not None:
            raise OptionError(
                "offset= goes with newdata=, as the data of the fit keep their own offset. Pass "
                "newdata= too."
            )
        design = fit.design
        values = design.fixed @ fit.beta + design.offset_or_zero
        for selection in selections:
            block, at = design.blocks[selection.block], selection.columns
            part = b[selection.block][:, at]
            values = values + np.einsum("nk,nk->n", block.columns[:, at], part[block.codes])
        return design.pad(values), design.output_index()
    rows = new_rows(fit, newdata, selections, new_levels, offset, random is True)
    warn_of_undetermined(fit, rows.undetermined)
    values = predicted(fit, rows, selections)
    if new_levels == "nan":
        values = np.where(rows.unknown, np.nan, values)
    return values, rows.index


def predicted(fit: Fit, rows: NewRows, selections: list[Selection]) -> FloatArray:
    """Xβ + Zb + offset of the rows, (m,)."""
    values: FloatArray = rows.X @ fit.beta + rows.offset
    b = fit.split(fit.b)
    for selection in selections:
        t, at = selection.block, selection.columns
        codes = rows.codes[t]
        part = np.where(codes[:, None] >= 0, b[t][codes][:, at], 0.0)
        values = values + np.einsum("nk,nk->n", rows.columns[t][:, at], part)
    return values
