"""`MixedFormula` and a table → `Design`: complete rows, X, random-effects blocks, the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lmmsparse.common.arrays import IntArray
from lmmsparse.common.calls import checked_keywords
from lmmsparse.common.errors import DataError, Finding, FormulaError
from lmmsparse.common.options import mapping, one_of
from lmmsparse.design.columns import (
    check_factors,
    check_finite,
    check_response,
    codings,
    response_values,
)
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.expressions import columns_of
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
from lmmsparse.design.tables import as_frame, check_unique
from lmmsparse.design.variables import Variables
from lmmsparse.engine.covariance.correlated import AR1
from lmmsparse.engine.covariance.structures import make_structure
from lmmsparse.formula.formula import MixedFormula, parse_formula
from lmmsparse.formula.references import references, with_columns
from lmmsparse.formula.residual import ResidualCorrelation, parse_residual, parse_residual_sd


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
    one_of("na_action", na_action, ("omit", "exclude", "raise"))
    asked = _asked(formula, data, context, residual, residual_sd)
    covariances = known_of_terms(known, asked.parsed.random)
    fitted, findings = _complete(asked, weights, offset, na_action)
    learnt, fitted = _learnt(asked, contrasts, fitted, na_action, findings)
    extras = fitted_extras(fitted.extras, fitted.rows)
    y = response_values(asked.response, learnt.matrices["response"], fitted.table)
    check_finite("response " + repr(asked.response), y)
    X, names = learnt.matrices["fixed"]
    for j in columns_not_finite(X):
        check_finite(f"fixed-effects column {names[j]!r}", X[:, j])
    independent = independent_columns(X, names)
    lost = tuple(name for name, kept in zip(names, independent, strict=True) if not kept)
    if not clearly_independent(X):
        findings += rank_findings(X, names, lost)
    blocks = _blocks(asked, learnt, fitted.table, covariances)
    order = sorted(range(len(blocks)), key=lambda i: -blocks[i].n_levels)
    blocks = [_with_steps(blocks[i], i, learnt.recipe, asked.frame, findings) for i in order]
    structure = residual_of(
        asked.correlation, asked.sd_text, learnt.matrices.get(PART), fitted.table, asked.own
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
class _Asked:
    """A formula and the data it is about.

    Attributes
    ----------
    own : mapping
        The user's names.
    parts : mapping
        Formula part → text for formulaic, with `.` written out.
    uses : mapping
        Part → columns that it uses.
    correlation : ResidualCorrelation or None
    sd_text : str
        What is given as ``residual_sd=``.
    """

    parsed: MixedFormula
    response: str
    frame: pd.DataFrame
    own: dict[str, Any]
    parts: dict[str, str]
    uses: dict[str, tuple[str, ...]]
    correlation: ResidualCorrelation | None = None
    sd_text: str = ""

    @property
    def groups(self) -> set[str]:
        own = {factor for term in self.parsed.random for factor in term.factors}
        if self.correlation is None:
            return own
        time = () if self.correlation.time == "1" else (self.correlation.time,)
        return {*own, *self.correlation.factors, *time}


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


def _asked(
    formula: str | MixedFormula, data: Any, context: Any, residual: Any, residual_sd: Any
) -> _Asked:
    """Refuse what can be refused before any column is looked at."""
    parsed = formula if isinstance(formula, MixedFormula) else parse_formula(formula)
    if parsed.response is None:
        raise FormulaError(f"The formula {parsed.text!r} has no response. Write it before the ~.")
    correlation = None if residual is None else parse_residual(residual)
    sd = None if residual_sd is None else parse_residual_sd(residual_sd)
    if not parsed.random and correlation is None and sd is None:
        raise FormulaError(
            f"The formula {parsed.text!r} has no random-effects term, such as (1 | group). For a "
            "model without any use ordinary least squares, for example statsmodels' ols(), or give "
            "the residuals a structure with residual= or residual_sd=."
        )
    frame = as_frame(data)
    own = dict(mapping("context", context, "Write for example context={'square': square}."))
    _check_response_alone(parsed.response, parsed, frame)
    parts = _parts(parsed.response, parsed, frame)
    if sd is not None:
        parts[PART] = sd
    _check_index(parsed, parts, frame)
    _check_readable(parts)
    uses = {part: columns_of(text, frame.columns, own) for part, text in parts.items()}
    asked = _Asked(parsed, parsed.response, frame, own, parts, uses, correlation)
    return replace(asked, sd_text=residual_sd.strip() if residual_sd is not None else "")


def _complete(
    asked: _Asked, weights: Any, offset: Any, na_action: str
) -> tuple[_Fitted, list[Finding]]:
    """Complete rows with a weight, and what there is to say about the others."""
    frame, offsets = asked.frame, asked.parsed.offsets
    others = [columns_of(text, frame.columns, asked.own) for text in (*asked.groups, *offsets)]
    needed = set().union(*asked.uses.values(), *others)
    check_unique(frame, needed | {name for name in (weights, offset) if isinstance(name, str)})
    table = Variables.of(frame, sorted(needed))
    extras = extra_columns(weights, offset, offsets, frame, table, asked.own)
    keep, findings = complete_rows(table, extras, na_action, asked.own, asked.groups)
    rows = np.flatnonzero(keep)
    if len(rows) < len(table):
        table = table.take(rows)
    table = put_in_order(table, _sequences(asked.parsed), frame)
    check_response(asked.response, table)
    return _Fitted(table, rows, extras), findings


def _learnt(
    asked: _Asked, contrasts: Any, given: _Fitted, na_action: str, findings: list[Finding]
) -> tuple[_Learnt, _Fitted]:
    """Columns of all parts, without rows in which an expression comes out undefined."""

    def of(fitted: Variables, *which: IntArray) -> tuple[_Learnt, dict[str, set[int]]]:
        check_factors(asked.parts, asked.uses, fitted)
        coded = codings(contrasts, asked.frame.columns, fitted)
        matrices, recipe, dropped = learn(
            asked.parts, asked.uses, given.table, coded, asked.own, *which
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


def _parts(response: str, parsed: MixedFormula, frame: pd.DataFrame) -> dict[str, str]:
    names = set(references(response).names)
    others = " + ".join(f"`{name}`" for name in frame.columns if name not in names)
    parts = {"response": f"0 + {response}", "fixed": with_columns(parsed.fixed, others)}
    for i, term in enumerate(parsed.random):
        parts[f"random{i}"] = with_columns(term.effects, others)
    return parts


def _check_response_alone(response: str, parsed: MixedFormula, frame: pd.DataFrame) -> None:
    """Refuse the response as its own predictor."""
    name = response.strip("`")
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
    asked: _Asked, learnt: _Learnt, table: Variables, known: Mapping[str, LevelCovariance]
) -> list[RandomBlock]:
    """The random-effects terms in formula order."""
    made: dict[tuple[str, ...], Grouping] = {}
    blocks = []
    for i, term in enumerate(asked.parsed.random):
        if term.factors not in made:
            columns = [evaluate_grouping(f, table, asked.own) for f in term.factors]
            made[term.factors] = make_grouping(term.group, columns, known.get(term.group))
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
