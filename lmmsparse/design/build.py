"""`MixedFormula` and a table → `Design`: complete rows, X, random-effects blocks, the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import BoolArray, FloatArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import DataError, Finding, FormulaError, OptionError
from lmmsparse.common.options import one_of
from lmmsparse.common.words import listed
from lmmsparse.design.columns import (
    check_factors,
    check_finite,
    check_response,
    codings,
    response_values,
)
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.expressions import columns_of
from lmmsparse.design.grouping import make_grouping
from lmmsparse.design.matrices import MatrixRecipe, learn
from lmmsparse.design.rank import (
    FixedColumns,
    chosen_columns,
    clearly_independent,
    column_relations,
    columns_not_finite,
    far_from_zero,
    independent_columns,
)
from lmmsparse.design.recipe import (
    GroupRecipe,
    Recipe,
    evaluate_grouping,
)
from lmmsparse.design.rows import complete_rows, dropped_by_expression, extra_columns, fitted_extras
from lmmsparse.design.sequence import positions, put_in_order
from lmmsparse.design.tables import Variables, as_frame, check_unique
from lmmsparse.engine.covariance.correlated import AR1
from lmmsparse.engine.covariance.structures import make_structure
from lmmsparse.formula.formula import MixedFormula, parse_formula
from lmmsparse.formula.references import references, with_columns
from lmmsparse.formula.tokens import effect_key


@checked_keywords
def build_design(
    formula: str | MixedFormula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
) -> Design:
    """Evaluate a mixed-model formula on data.

    Parameters
    ----------
    formula : str or MixedFormula
        lme4's syntax.
    data : table
        pandas or polars DataFrame, pyarrow Table, or mapping of arrays.
    weights, offset : str or (rows,) array, optional
        Column name or one number per row of `data`.
    na_action : {"omit", "exclude", "raise"}
        What to do with rows that lack a value.
    contrasts : mapping, optional
        Column → formulaic contrasts (or ``"sum"``, ``"helmert"``, …), for fixed and random effects.
    context : mapping, optional
        Further names the formula may use.

    Returns
    -------
    Design

    Raises
    ------
    FormulaError, DataError, OptionError
        Whatever does not fit, in the user's words.

    Examples
    --------
    >>> import lmmsparse as lmm
    >>> design = lmm.build_design("Reaction ~ Days + (Days | Subject)",
    ...                           lmm.load_dataset("sleepstudy"))
    >>> design.X.shape, design.Z.shape
    ((180, 2), (180, 36))
    """
    one_of(
        "na_action",
        na_action,
        ("omit", "exclude", "raise"),
        "It says what happens to rows with missing values: left out, left out and shown as NaN in "
        "results, or refused.",
    )
    parsed = formula if isinstance(formula, MixedFormula) else parse_formula(formula)
    if not parsed.random:
        raise FormulaError(
            f"The formula {parsed.text!r} has no random-effects term, such as (1 | group). For a "
            "model without any use ordinary least squares, for example statsmodels' ols()."
        )
    assert parsed.response is not None
    frame = as_frame(data)
    own = _own_names(context)
    _check_response_alone(parsed, frame)
    parts = _parts(parsed, frame)
    _check_index(parsed, parts, frame)
    _check_readable(parts)
    uses = {part: columns_of(text, frame.columns, own) for part, text in parts.items()}
    groups = {f for term in parsed.random for f in term.factors}
    needed = {name for names in uses.values() for name in names}
    for expression in [*groups, *parsed.offsets]:
        needed |= set(columns_of(expression, frame.columns, own))
    check_unique(frame, needed | {name for name in (weights, offset) if isinstance(name, str)})
    table = Variables.of(frame, sorted(needed))
    extras = extra_columns(weights, offset, parsed.offsets, frame, table, own)
    keep, findings = complete_rows(table, extras, na_action, own, groups)
    rows = np.flatnonzero(keep)
    if len(rows) < len(table):
        table = table.take(rows)
    table = put_in_order(table, _sequences(parsed), frame)
    check_response(parsed.response, table)
    bare = {name for text in parts.values() for name in references(text).columns}
    used = sorted({name for names in uses.values() for name in names})

    def learnt(fitted: Variables, *which: Any) -> Any:
        check_factors(parts, uses, fitted)
        coded = codings(contrasts, frame.columns, fitted)
        coded = {name: value for name, value in coded.items() if name in used}
        return learn(parts, uses, table, used, bare, coded, own, *which)

    matrices, recipe, dropped = learnt(table)
    if dropped:
        findings += dropped_by_expression(dropped, len(table), na_action)
        kept = np.setdiff1d(np.arange(len(table)), sorted(set().union(*dropped.values())))
        fitted = table.take(kept)
        matrices, recipe, dropped = learnt(fitted, kept, kept)
        if dropped:  # where what is learnt without these rows would leave out further ones
            matrices, recipe, _ = learnt(fitted, kept)
        rows, table = rows[kept], fitted
    extras = fitted_extras(extras, rows)
    y = response_values(parsed.response, matrices["response"], table)
    X, names = matrices["fixed"]
    check_finite("response " + repr(parsed.response), y)
    for j in columns_not_finite(X):
        check_finite(f"fixed-effects column {names[j]!r}", X[:, j])
    independent = independent_columns(X, names)
    lost = tuple(name for name, kept in zip(names, independent, strict=True) if not kept)
    if not clearly_independent(X):
        findings += _rank_findings(X, names, lost)
    blocks, order = _blocks(parsed, matrices, table, own)
    blocks = _with_steps(parsed, recipe, blocks, order, frame, findings)
    return Design(
        formula=parsed.text,
        response=parsed.response,
        y=y,
        fixed=chosen_columns(X, independent),
        x_names=tuple(name for name, kept in zip(names, independent, strict=True) if kept),
        dropped=lost,
        blocks=tuple(blocks),
        weights=extras.weights,
        offset=extras.offset,
        index=frame.index,
        rows=rows,
        na_action=na_action,
        findings=tuple(findings),
        recipe=_recipe(parsed, recipe, (X, independent, names), blocks, order, weights, offset),
    )


def _recipe(
    parsed: MixedFormula,
    matrices: Any,
    fixed: tuple[FloatArray, BoolArray, tuple[str, ...]],
    blocks: list[RandomBlock],
    order: list[int],
    weights: Any,
    offset: Any,
) -> Recipe:
    def renamed(mapping: Mapping[str, Any]) -> dict[str, Any]:
        out = {"fixed": mapping["fixed"]}
        out.update({f"random{new}": mapping[f"random{old}"] for new, old in enumerate(order)})
        return out

    ordered = type(matrices)(
        parts=renamed(matrices.parts),
        variables=renamed(matrices.variables),
        columns=matrices.columns,
        contrasts=matrices.contrasts,
        transform_state=matrices.transform_state,
        categories=renamed(matrices.categories),
        context=matrices.context,
    )
    groups = tuple(
        GroupRecipe(block.group, parsed.random[old].factors, block.grouping.key)
        for block, old in zip(blocks, order, strict=True)
    )
    column = offset if isinstance(offset, str) else None
    array = offset is not None and column is None
    weighted = weights if isinstance(weights, str) else None
    relations = column_relations(*fixed)
    return Recipe(ordered, fixed[1], groups, parsed.offsets, column, array, weighted, relations)


def _parts(parsed: MixedFormula, frame: pd.DataFrame) -> dict[str, str]:
    """Formula part → text for formulaic, with `.` written out."""
    assert parsed.response is not None
    response = set(references(parsed.response).names)
    others = " + ".join(f"`{name}`" for name in frame.columns if name not in response)

    parts = {"response": f"0 + {parsed.response}", "fixed": with_columns(parsed.fixed, others)}
    for i, term in enumerate(parsed.random):
        parts[f"random{i}"] = with_columns(term.effects, others)
    return parts


def _check_response_alone(parsed: MixedFormula, frame: pd.DataFrame) -> None:
    """Refuse the response as its own predictor."""
    assert parsed.response is not None
    name = parsed.response.strip("`")
    if name not in frame.columns:
        return
    for text, where in [
        (parsed.fixed, "the fixed effects"),
        *((term.effects, term.source) for term in parsed.random),
    ]:
        if name in references(text).columns:
            raise FormulaError(
                f"The response {name!r} is also among the predictors, in {where}. Leave it out "
                "there."
            )


def _check_index(parsed: MixedFormula, parts: Mapping[str, str], frame: pd.DataFrame) -> None:
    """Refuse names of the index, which are no columns."""
    labels = {name for name in frame.index.names if isinstance(name, str)} - set(frame.columns)
    texts = [*parts.values(), *parsed.offsets, *(f for t in parsed.random for f in t.factors)]
    for name in sorted(labels):
        if any(name in references(text).names for text in texts):
            raise DataError(
                f"The formula names {name!r}, which is the index of the data, not a column. Make "
                "it one with data.reset_index()."
            )


def _check_readable(parts: Mapping[str, str]) -> None:
    """Refuse columns named like what means something else in a formula, backquotes or not."""
    for name in {"1", "."} & {name for text in parts.values() for name in references(text).names}:
        raise DataError(
            f"A column named {name!r} cannot be used in a formula, where it stands for "
            f"{'the intercept' if name == '1' else 'all other columns'}, even in backquotes. "
            f"Rename it: data.rename(columns={{{name!r}: 'x1'}})."
        )


def _own_names(context: Any) -> dict[str, Any]:
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise OptionError(
            "context must be a mapping from names to what they stand for, not of type "
            f"{type(context).__name__}. Write for example context={{'square': square}}."
        )
    return dict(context)


def _rank_findings(X: FixedColumns, names: tuple[str, ...], lost: tuple[str, ...]) -> list[Finding]:
    """What is dropped, and predictors so far from zero that digits are lost."""
    out = []
    is_far = far_from_zero(X, names)
    far = [name for name, distant in zip(names, is_far, strict=True) if distant]
    gone, stays = [n for n in far if n in lost], [n for n in far if n not in lost]
    if gone:
        text = (
            f"{len(lost)} of {len(names)} columns of the fixed effects were dropped "
            f"({listed(lost)}). {listed(gone)} {'is' if len(gone) == 1 else 'are'} so far from "
            "zero, compared with the spread, that double precision cannot separate the columns. "
            "Subtract a typical value in the data before fitting, for example the smallest. What "
            "is dropped then too repeats other columns."
        )
        out.append(Finding("rank-deficient", "warning", text))
    elif lost:
        text = (
            f"The fixed effects are linearly dependent: {len(lost)} of {len(names)} columns were "
            f"dropped ({listed(lost)}). The fit does not depend on the choice, but their "
            "coefficients cannot be told apart from the others'. Remove terms that repeat others, "
            "or combinations of factor levels that do not occur."
        )
        out.append(Finding("rank-deficient", "warning", text))
    products = [name for name in stays if len(effect_key(name)) > 1]
    if products:
        text = (
            f"The predictor in {listed(products)} is far from zero compared with its spread. "
            "Coefficients and tests of the terms it interacts with are about zero, far outside "
            "the data, and their digits are lost. Subtract a typical value in the data before "
            "fitting, for example the smallest."
        )
        out.append(Finding("far-from-zero", "warning", text))
    return out


def _sequences(parsed: MixedFormula) -> list[str]:
    """Factors of autoregressive terms that stand there by themselves."""
    terms = [term for term in parsed.random if term.structure == "ar1"]
    return [name for term in terms for name in references(term.effects).columns]


def _with_steps(
    parsed: MixedFormula,
    recipe: MatrixRecipe,
    blocks: list[RandomBlock],
    order: list[int],
    frame: pd.DataFrame,
    findings: list[Finding],
) -> list[RandomBlock]:
    """Autoregressive terms with the steps between their levels, and what is said about them."""
    out = []
    for block, i in zip(blocks, order, strict=True):
        if isinstance(block.structure, AR1):
            at, said = positions(recipe, f"random{i}", frame, block.source)
            findings += said
            block = replace(block, structure=replace(block.structure, at=at))
        out.append(block)
    return out


def _blocks(
    parsed: MixedFormula,
    matrices: Mapping[str, tuple[FloatArray, tuple[str, ...]]],
    table: Variables,
    context: Mapping[str, Any],
) -> tuple[list[RandomBlock], list[int]]:
    """Blocks by decreasing number of levels, ties in formula order, and that order."""
    made: dict[tuple[str, ...], Any] = {}
    blocks = []
    for i, term in enumerate(parsed.random):
        if term.factors not in made:
            columns = [evaluate_grouping(f, table, context) for f in term.factors]
            made[term.factors] = make_grouping(term.group, columns)
        values, names = matrices[f"random{i}"]
        if values.shape[1] == 0:
            raise FormulaError(
                f"The random-effects term {term.source} has no columns. It must have an intercept "
                "or a predictor on the left of the bar.",
                parsed.text,
                term.position,
                len(term.source),
            )
        for j, name in enumerate(names):
            check_finite(f"random-effects column {name!r} of {term.source}", values[:, j])
        structure = make_structure(term.structure, values.shape[1], term.hom)
        blocks.append(
            RandomBlock(made[term.factors], names, values, structure, term.source, term.split)
        )
    order: list[int] = sorted(range(len(blocks)), key=lambda i: -blocks[i].n_levels)
    return [blocks[i] for i in order], order
