"""`Fit` and another response → a new `Fit` of the same design, reusing what does not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.errors import DataError, Finding
from lmmsparse.common.options import array_of
from lmmsparse.common.threads import one_thread
from lmmsparse.common.words import listed
from lmmsparse.design import Design, LevelKey, RandomBlock
from lmmsparse.design.arguments import numbers
from lmmsparse.design.checks import check_design, require
from lmmsparse.design.grouping import Grouping, combined_labels
from lmmsparse.design.rank import chosen_columns, column_relations, independent_columns
from lmmsparse.design.reduced import Reduction
from lmmsparse.design.without_rows import with_block
from lmmsparse.engine.held import Held
from lmmsparse.engine.responses import response_products
from lmmsparse.fit.exact import check_not_exact
from lmmsparse.fit.fit import Fit, refitted
from lmmsparse.fit.fitting import fit_design
from lmmsparse.fit.problem import term_columns
from lmmsparse.fit.residual.fit import ResidualFit
from lmmsparse.fit.settle import Settled, off_zero, settle
from lmmsparse.optimize import Optimizer


def per_row(design: Design, what: str, values: Any) -> FloatArray:
    """Values on the fitted rows, given for them or for all rows of the original data."""
    array_of(what, values)
    if np.ndim(values) == 2 and np.shape(values)[1] == 1:
        values = values.iloc[:, 0] if isinstance(values, pd.DataFrame) else np.asarray(values)[:, 0]
    if isinstance(values, str):
        raise DataError(
            f"{what} is text, {values!r}. The data of the fit are not kept, so that a column "
            f"cannot be found by its name. Pass its values, for example data[{values!r}]."
        )
    if np.ndim(values) != 1:
        raise DataError(
            f"{what} must have one dimension, not {np.ndim(values)}. Pass one value per row."
        )
    array = numbers(what, design.in_rows(what, values))
    if len(array) == design.n:
        return array
    if len(array) == len(design.index):
        return array[design.rows]
    raise DataError(
        f"{what} has {len(array)} values. The model was fitted to {design.n} rows"
        + (f" of {len(design.index)}" if len(design.index) != design.n else "")
        + ", and each needs one. Pass one value per row."
    )


@one_thread
def refit_response(fit: Fit, y: Any, weights: Any = None) -> Settled:
    """Fit the design of `fit` to another response, starting from its θ.

    Where that does not lead to an optimum, other starts and searches are tried.

    Parameters
    ----------
    y : array
        One value per fitted row, or per row of the original data.
    weights : array, optional
    """
    design = fit.design
    values = per_row(design, "y", y)
    w = design.weights if weights is None else per_row(design, "weights", weights)
    if w is not None and (np.any(w < 0) or np.any(np.isinf(w))):
        raise DataError(
            "weights contains negative or infinite values. Use positive, finite weights."
        )
    if np.any(np.isinf(values)):
        raise DataError("y contains infinite values. Remove or correct them.")
    renewed = replace(design, y=values, weights=w)
    if weights is not None and design.recipe is not None:
        # The column that held the former weights says nothing about new data any more.
        renewed = replace(renewed, recipe=replace(design.recipe, weights_column=None))
    keep = ~np.isnan(values)
    if w is not None:
        keep &= ~np.isnan(w) & (w > 0)
    start = warm_start(fit)
    if not keep.all():
        renewed = subset(renewed, keep)
    if weights is not None and w is not None and np.any(w == 0):
        text = (
            f"{int(np.sum(w == 0))} rows have weight zero and were left out, as if they were not "
            "in the data."
        )
        finding = Finding("zero-weights", "warning", text)
        renewed = replace(renewed, findings=(*renewed.findings, finding))
    require(check_design(renewed, fit.held))
    if not keep.all() or weights is not None:
        return settle(again(fit, renewed, start=start))
    if isinstance(fit, ResidualFit):
        return settle(refitted(fit, fit.problem.of_response(renewed), start, fit.optimizer))
    terms = term_columns(design)
    Q, _ = design.internal_columns()
    response = response_products(values, Q, terms, design.weights, design.offset)
    check_not_exact(renewed, response.yty)
    problem = fit.problem.with_response(renewed, response)
    return settle(refitted(fit, problem, start, fit.optimizer))


def again(
    fit: Fit,
    design: Design,
    *,
    reml: bool | None = None,
    held: Held | None = None,
    start: FloatArray | None = None,
) -> Fit:
    """Another design fitted as this one was, but for what is given."""
    return fit_design(
        design,
        reml=fit.reml if reml is None else reml,
        start=start,
        optimizer=fit.optimizer,
        solver=fit.solver,
        fixed=fit.held if held is None else held,
    )


@one_thread
def maximum_likelihood(fit: Fit, optimizer: Optimizer | None = None) -> Settled:
    """The same model by maximum likelihood, on its cross-products and at its optimum."""
    if not fit.reml:
        return settle(fit)
    problem = fit.problem.by_maximum_likelihood()
    refit = refitted(fit, problem, None, optimizer or fit.optimizer)
    return settle(refit, [fit.theta])


def warm_start(fit: Fit) -> FloatArray:
    """θ of the fit, moved off zero so that a singular fit is not a trap for the next response.

    φ of the residuals follows it, where there is one.
    """
    theta = off_zero(fit.objective, fit.theta)
    return np.concatenate([theta, fit.phi]) if isinstance(fit, ResidualFit) else theta


def subset(design: Design, keep: BoolArray) -> Design:
    """The design on some of its rows; levels that lose all their rows disappear.

    Parameters
    ----------
    keep : (n,) bool array
    """
    if not keep.any():
        raise DataError(
            "Every value of the new response is missing, so that no row is left to fit. Check its "
            "values."
        )
    X, blocks = design.fixed[keep], tuple(_subset_block(block, keep) for block in design.blocks)
    stays = independent_columns(X, design.x_names)
    names = np.array(design.x_names, dtype=object)
    lost = tuple(str(name) for name in names[~stays])
    findings = design.findings
    if lost:
        text = (
            f"The fixed effects are linearly dependent in the rows that are left: {listed(lost)} "
            "cannot be told apart from the others and was dropped. Fit without such terms."
        )
        findings = (*findings, Finding("rank-deficient", "warning", text))
    recipe = design.recipe
    if recipe is not None:
        kept = recipe.kept.copy()
        kept[np.flatnonzero(kept)] = stays
        relations = recipe.relations
        if lost:
            every = np.zeros((X.shape[0], len(kept)))
            every[:, recipe.kept] = X if isinstance(X, np.ndarray) else X.toarray()
            if relations is not None:
                every[:, ~recipe.kept] = X @ relations
            relations = column_relations(every, kept)
        groups = tuple(
            replace(group, key=block.grouping.key)
            for group, block in zip(recipe.groups, blocks, strict=True)
        )
        recipe = replace(recipe, kept=kept, groups=groups, relations=relations)
    return replace(
        design,
        y=design.y[keep],
        fixed=chosen_columns(X, stays),
        x_names=tuple(str(name) for name in names[stays]),
        dropped=(*design.dropped, *lost),
        blocks=blocks,
        findings=findings,
        recipe=recipe,
        residual=None if design.residual is None else design.residual.taken(keep),
        weights=None if design.weights is None else design.weights[keep],
        offset=None if design.offset is None else design.offset[keep],
        rows=design.rows[keep],
    )


def _subset_block(block: RandomBlock, keep: BoolArray) -> RandomBlock:
    codes = block.codes[keep]
    if block.known is not None:  # levels without rows are levels
        grouping = replace(block.grouping, codes=codes)
        return replace(block, grouping=grouping, columns=block.columns[keep])
    present, renumbered = np.unique(codes, return_inverse=True)
    old = block.grouping
    if len(old.key.components) == 1:
        levels = old.levels[present]
        key = LevelKey.of(levels)
    else:
        key = LevelKey(old.key.components, old.key.combinations[present])
        levels = combined_labels(key)
    grouping = Grouping(old.name, levels, renumbered.astype(np.intp), key)
    return replace(block, grouping=grouping, columns=block.columns[keep])


def reduced_fit(fit: Fit, reduction: Reduction) -> Fit | Design:
    """The smaller model; its design where no random effect is left."""
    at, whole = reduction.position, fit.design.some
    blocks = list(whole.blocks)
    blocks[at : at + 1] = [] if reduction.block is None else [reduction.block]
    # A formula for it is not needed, and takes longer than many a fit.
    design = replace(whole, blocks=tuple(blocks), formula="", recipe=None)
    if fit.design.sample is not None:
        design = with_block(fit.design, design, at)
    if not blocks and design.residual is None:
        return design
    return again(fit, design, held=still_fixed(fit, reduction))


def still_fixed(fit: Fit, reduction: Reduction) -> Held:
    """What is held, at its places in the θ of the smaller model; nothing of the block is."""
    end = fit.template.slices[reduction.position].stop
    before = fit.template.slices[reduction.position].start
    own = 0 if reduction.block is None else reduction.block.structure.n_par
    moved = [(i if i < before else i - end + before + own, value) for i, value in fit.held.theta]
    return replace(fit.held, theta=tuple(moved))
