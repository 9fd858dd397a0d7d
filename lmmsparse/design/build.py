"""`MixedFormula` and a table → `Design`: complete rows, X, random-effects blocks, the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import IntArray, compact
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import Finding, FormulaError
from lmmsparse.common.options import one_of
from lmmsparse.design.asked import Asked, about_idle, asked_of
from lmmsparse.design.columns import (
    check_factors,
    check_finite,
    check_response,
    codings,
    response_values,
)
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.grouping import Grouping, LevelCovariance, make_grouping
from lmmsparse.design.known import known_of_terms
from lmmsparse.design.matrices import MatrixRecipe, learn
from lmmsparse.design.plain import Columns
from lmmsparse.design.rank import (
    chosen_columns,
    clearly_independent,
    column_relations,
    columns_not_finite,
    independent_columns,
    rank_findings,
)
from lmmsparse.design.recipe import (
    GroupRecipe,
    Recipe,
    evaluate_grouping,
)
from lmmsparse.design.residual import PART, residual_of
from lmmsparse.design.residual_checks import check_declared_visits, check_nested
from lmmsparse.design.rows import (
    Extras,
    complete_rows,
    dropped_by_expression,
    extra_columns,
    fitted_extras,
)
from lmmsparse.design.sequence import positions, put_in_order
from lmmsparse.design.tables import check_unique
from lmmsparse.design.variables import Variables
from lmmsparse.engine.covariance.correlated import AR1
from lmmsparse.engine.covariance.structures import make_structure
from lmmsparse.formula.formula import MixedFormula
from lmmsparse.formula.references import references

Levels = Mapping[tuple[str, ...], Grouping]  # factors of a grouping → all of its levels


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
    known: Mapping[str, Any] | None = None,
    residual: str | None = None,
    residual_sd: str | None = None,
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
    known : mapping, optional
        Grouping factor → `Pedigree`, `Precision`, `Covariance` or labelled DataFrame: the
        covariance of its levels.
    residual, residual_sd : str, optional
        Correlation and standard deviation of the residuals, as for `lmmsparse.lmer`.

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
    options = (weights, offset, na_action, contrasts, context, known, residual, residual_sd)
    return design_with_levels(formula, data, *options)


def design_with_levels(
    formula: str | MixedFormula,
    data: Any,
    weights: Any = None,
    offset: Any = None,
    na_action: str = "omit",
    contrasts: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    known: Mapping[str, Any] | None = None,
    residual: str | None = None,
    residual_sd: str | None = None,
    *,
    levels: Levels | None = None,
    state: Mapping[str, Any] | None = None,
) -> Design:
    """The design of a table that may be a part of others.

    Parameters
    ----------
    levels : mapping, optional
        Groupings, with the levels of all tables; those that are not there have their own.
    state : mapping, optional
        What transforms have learnt from all tables.
    """
    one_of("na_action", na_action, ("omit", "exclude", "raise"))
    asked = asked_of(formula, data, context, residual, residual_sd)
    covariances = known_of_terms(known, asked.parsed.random)
    fitted, findings = _complete(asked, weights, offset, na_action)
    learnt, fitted = _learnt(asked, contrasts, fitted, na_action, findings, state or {})
    extras = fitted_extras(fitted.extras, fitted.rows)
    y = response_values(asked.response, learnt.matrices["response"], fitted.table)
    check_finite("response " + repr(asked.response), y)
    X, names = learnt.matrices["fixed"]
    for j in columns_not_finite(X):
        check_finite(f"fixed-effects column {names[j]!r}", X[:, j])
    independent = np.ones(len(names), dtype=bool)
    lost: tuple[str, ...] = ()
    if not clearly_independent(X):
        independent = independent_columns(X, names)
        lost = tuple(name for name, kept in zip(names, independent, strict=True) if not kept)
        findings += rank_findings(X, names, lost)
    blocks = _blocks(asked, learnt, fitted.table, covariances, levels or {})
    order = sorted(range(len(blocks)), key=lambda i: -blocks[i].n_levels)
    blocks = [_with_steps(blocks[i], i, learnt.recipe, asked.frame, findings) for i in order]
    structure = residual_of(
        asked.correlation,
        asked.sd_text,
        learnt.matrices.get(PART),
        fitted.table,
        asked.frame,
        asked.own,
    )
    if structure is not None:
        check_declared_visits(asked.correlation, asked.frame, structure.visits)
        check_nested(structure.grouping, blocks)
    return Design(
        formula=asked.parsed.text,
        response=asked.response,
        y=y,
        fixed=chosen_columns(X, independent),
        x_names=tuple(name for name, kept in zip(names, independent, strict=True) if kept),
        dropped=lost,
        blocks=tuple(blocks),
        weights=extras.weights,
        offset=extras.offset,
        index=asked.frame.index,
        rows=fitted.rows,
        na_action=na_action,
        findings=tuple(findings),
        recipe=Recipe(
            matrices=learnt.recipe.with_random(order),
            kept=independent,
            groups=tuple(
                GroupRecipe(block.group, asked.parsed.random[i].factors, block.grouping.key)
                for i, block in zip(order, blocks, strict=True)
            ),
            offsets=asked.parsed.offsets,
            offset_column=offset if isinstance(offset, str) else None,
            offset_array=offset is not None and not isinstance(offset, str),
            weights_column=weights if isinstance(weights, str) else None,
            relations=column_relations(X, independent, names),
        ),
        residual=structure,
    )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The rows that are fitted: their columns and positions; weights and offset of all rows."""

    table: Variables
    rows: IntArray
    extras: Extras


@dataclass(frozen=True, eq=False)
class _Learnt:
    """The columns of every part on the fitted rows, and how they are made."""

    matrices: dict[str, Columns]
    recipe: MatrixRecipe


def _complete(
    asked: Asked, weights: Any, offset: Any, na_action: str
) -> tuple[_Fitted, list[Finding]]:
    """Complete rows with a weight, and what there is to say about the others."""
    frame, offsets = asked.frame, asked.parsed.offsets
    needed = asked.needed
    check_unique(frame, needed | {name for name in (weights, offset) if isinstance(name, str)})
    table = Variables.of(frame, sorted(needed))
    extras = extra_columns(weights, offset, offsets, frame, table, asked.own)
    keep, findings = complete_rows(table, extras, na_action, asked.own, asked.groups)
    n = len(table)
    rows = compact(np.arange(n) if keep.all() else np.flatnonzero(keep), n)
    if len(rows) < n:
        table = table.take(rows)
    table = put_in_order(table, _sequences(asked.parsed), frame)
    check_response(asked.response, table)
    return _Fitted(table, rows, extras), [*about_idle(asked.parsed), *findings]


def _learnt(
    asked: Asked,
    contrasts: Any,
    given: _Fitted,
    na_action: str,
    findings: list[Finding],
    state: Mapping[str, Any],
) -> tuple[_Learnt, _Fitted]:
    """Columns of all parts, without rows in which an expression comes out undefined."""

    def of(
        fitted: Variables, rows: IntArray | None = None, sample: IntArray | None = None
    ) -> tuple[_Learnt, dict[str, set[int]]]:
        check_factors(asked.parts, asked.uses, fitted)
        coded = codings(contrasts, asked.frame.columns, fitted)
        matrices, recipe, dropped = learn(
            asked.parts, asked.uses, given.table, coded, asked.own, rows, sample, state
        )
        return _Learnt(matrices, recipe), dropped

    learnt, dropped = of(given.table)
    if not dropped:
        return learnt, given
    findings += dropped_by_expression(dropped, len(given.table), na_action)
    kept = np.setdiff1d(np.arange(len(given.table)), sorted(set().union(*dropped.values())))
    table = given.table.take(kept)
    learnt, dropped = of(table, kept, kept)
    if dropped:  # where what is learnt without these rows would leave out further ones
        learnt, _ = of(table, kept)
    return learnt, _Fitted(table, given.rows[kept], given.extras)


def _sequences(parsed: MixedFormula) -> list[str]:
    """Factors of autoregressive terms that stand there by themselves."""
    terms = [term for term in parsed.random if term.structure == "ar1"]
    return [name for term in terms for name in references(term.effects).columns]


def _with_steps(
    block: RandomBlock, i: int, recipe: MatrixRecipe, frame: pd.DataFrame, findings: list[Finding]
) -> RandomBlock:
    """An autoregressive term with the steps between its levels, and what is said about them."""
    if not isinstance(block.structure, AR1):
        return block
    at, said = positions(recipe, f"random{i}", frame, block.source)
    findings += said
    return replace(block, structure=replace(block.structure, at=at))


def _blocks(
    asked: Asked,
    learnt: _Learnt,
    table: Variables,
    known: Mapping[str, LevelCovariance],
    levels: Levels,
) -> list[RandomBlock]:
    """The random-effects terms in formula order."""
    made: dict[tuple[str, ...], Grouping] = {}
    blocks = []
    for i, term in enumerate(asked.parsed.random):
        if term.factors not in made:
            columns = [evaluate_grouping(f, table, asked.own) for f in term.factors]
            own = levels.get(term.factors)
            made[term.factors] = (
                make_grouping(term.group, columns, known.get(term.group))
                if own is None
                else replace(own, codes=own.key.encode(columns)[0])
            )
        values, names = learnt.matrices[f"random{i}"]
        assert isinstance(values, np.ndarray)
        if values.shape[1] == 0:
            raise FormulaError(
                f"The random-effects term {term.source} has no columns. It must have an intercept "
                "or a predictor on the left of the bar.",
                asked.parsed.text,
                term.position,
                len(term.source),
            )
        for j, name in enumerate(names):
            check_finite(f"random-effects column {name!r} of {term.source}", values[:, j])
        structure = make_structure(term.structure, values.shape[1], term.hom)
        blocks.append(
            RandomBlock(made[term.factors], names, values, structure, term.source, term.split)
        )
    return blocks
