"""Formula parts and a frame → model matrices, and a recipe that makes the same columns of new data.

The seam to formulaic: its errors are translated here, its learnt state (bases, categories) is kept
as plain values, so that a recipe can be stored without pickle and rebuilt without the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec
from formulaic.parser.types import Factor, Term
from formulaic.transforms.contrasts import C, Contrasts

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import DataError
from lmmsparse.common.words import close_match
from lmmsparse.design.arguments import check_real
from lmmsparse.design.columns import ColumnInfo, describe, some_values
from lmmsparse.design.expressions import columns_of, labels_in
from lmmsparse.design.materialize import materialized
from lmmsparse.design.new_columns import match_column
from lmmsparse.design.plain import Columns, plain_columns
from lmmsparse.design.variables import Variables, where_missing, with_levels_of
from lmmsparse.formula.limits import remembered
from lmmsparse.formula.parts import Variable, read_part
from lmmsparse.formula.references import references


@dataclass(frozen=True, eq=False)
class MatrixRecipe:
    """How the columns of every formula part are made.

    Attributes
    ----------
    parts : mapping
        Part → formula text.
    variables : mapping
        Part → names of the data columns it needs.
    columns : mapping
        Data column → `ColumnInfo`.
    contrasts : mapping
        Data column → formulaic contrasts, for columns whose coding is prescribed.
    transform_state : mapping
        What formulaic's stateful transforms have learnt.
    categories : mapping
        Part → factor expression → levels (None for a numeric factor).
    context : mapping
        The user's own names; not stored in files.
    """

    parts: Mapping[str, str]
    variables: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, ColumnInfo]
    contrasts: Mapping[str, Contrasts]
    transform_state: dict[str, Any]
    categories: Mapping[str, Mapping[str, tuple[Any, ...] | None]]
    context: Mapping[str, Any]

    @cached_property
    def _specs(self) -> dict[str, ModelSpec]:
        """Specifications rebuilt on one synthetic row: all that matters was learnt before."""
        levels = self.levels
        return {
            part: self._specification(text, self.variables[part], levels)
            for part, text in self.parts.items()
        }

    @property
    def levels(self) -> dict[str, tuple[Any, ...] | None]:
        """Factor expression → levels, of all parts: each is learnt in the first that uses it."""
        return {e: levels for part in self.categories.values() for e, levels in part.items()}

    def names_of(self, text: str) -> tuple[str, ...]:
        """Names of the columns another formula part would have, on the variables of the fit."""
        names = columns_of(text, self.columns, self.context)
        spec = self._specification(text, names, self.levels)
        return tuple(str(name) for name in spec.column_names)

    def specification(self, part: str) -> ModelSpec:
        """Formulaic's specification of a part, as it was fitted."""
        return self._specs[part]

    def overparametrized(self, part: str) -> ModelSpec:
        """The part with an indicator for every level of every factor in every term."""
        return self._specification(
            self.parts[part], self.variables[part], self.levels, full_rank=False
        )

    def values(self, spec: ModelSpec, part: str, newdata: pd.DataFrame) -> FloatArray:
        """The columns of a specification of a part on complete rows of new data."""
        return _values(self._materialize(spec, self.prepare(part, newdata)[0]))

    def columns_in(self, expression: str) -> tuple[str, ...]:
        """Data columns that an expression of the formula uses."""
        if expression in self.columns:
            return (expression,)
        return tuple(name for name in references(expression).names if name in self.columns)

    @property
    def numbers_with_levels(self) -> set[str]:
        """Numeric columns of which expressions make levels, such as C(year) or C(x > 0)."""
        made = [e for e, levels in self.levels.items() if levels is not None]
        names = {name for e in made if e not in self.columns for name in self.columns_in(e)}
        columns = self.columns
        return {n for n in names if columns[n].span is not None and columns[n].categories is None}

    def with_random(self, order: Sequence[int]) -> MatrixRecipe:
        """The recipe with some of its random-effects parts, in a new order."""

        def moved(mapping: Mapping[str, Any]) -> dict[str, Any]:
            kept = {f"random{new}": mapping[f"random{old}"] for new, old in enumerate(order)}
            return {p: mapping[p] for p in ("fixed", "residual_sd") if p in mapping} | kept

        # Levels are learnt in the first part that uses a factor: others may need them.
        own = {"fixed", "response", "residual_sd"}
        lost = self.categories.keys() - own - {f"random{i}" for i in order}
        categories = moved(self.categories)
        for part in lost:
            categories["fixed"] = {**self.categories[part], **categories["fixed"]}
        return replace(
            self,
            parts=moved(self.parts),
            variables=moved(self.variables),
            categories=categories,
        )

    def _specification(
        self,
        text: str,
        variables: tuple[str, ...],
        categories: Mapping[str, tuple[Any, ...] | None],
        full_rank: bool = True,
    ) -> ModelSpec:
        row: dict[str, Any] = {}
        for name in variables:
            info = self.columns[name]
            if info.kind == "categorical":
                assert info.categories is not None
                row[name] = pd.Categorical(list(info.categories[:1]), list(info.categories))
            elif info.kind in ("date", "duration"):
                row[name] = np.ones(1, "M8[ns]" if info.kind == "date" else "m8[ns]")
            elif info.boolean:
                row[name] = np.ones(1, dtype=bool)
            else:
                row[name] = np.full(1, 1.0 if info.span is None else info.span[0])
        for expression, levels in categories.items():  # numbers as levels: one that is known
            for name in self.columns_in(expression):
                if levels and name in row and self.columns[name].kind == "numeric":
                    row[name] = np.array(levels[:1])
        encoder_state = {
            expression: (
                Factor.Kind.NUMERICAL if levels is None else Factor.Kind.CATEGORICAL,
                {} if levels is None else {"categories": list(levels)},
            )
            for expression, levels in categories.items()
        }
        formula = _parsed({"part": text}).part
        spec = ModelSpec(
            formula=formula,
            transform_state=dict(self.transform_state),
            encoder_state=encoder_state,
            ensure_full_rank=full_rank,
            na_action="ignore",
            output="numpy",
        )
        synthetic = pd.DataFrame(row, index=range(1))
        return self._materialize(spec, synthetic, strict=False).model_spec

    def _materialize(
        self,
        spec: ModelSpec,
        frame: pd.DataFrame,
        strict: bool = True,
        unseen: BoolArray | None = None,
    ) -> Any:
        """Evaluate a specification, with columns that have a coding of their own in it."""
        coded = [name for name in frame.columns if self.columns[name].coded]
        truths = {name: frame[name].astype(bool) for name in coded if self.columns[name].boolean}
        codings = {name: C(frame[name], self.contrasts.get(name)) for name in coded}
        data = frame.assign(**truths) if truths else frame
        return materialized(spec, data, codings, self.context, strict=strict, unseen=unseen)

    def prepare(self, part: str, newdata: pd.DataFrame) -> tuple[pd.DataFrame, BoolArray]:
        """The columns a part needs, coded as when the model was fitted, and rows with a hole."""
        names, labels = self.variables[part], labels_in([self.parts[part]])
        missing = np.zeros(len(newdata), dtype=bool)
        out = {}
        for name in names:
            if name not in newdata.columns:
                raise DataError(
                    f"The new data have no column {name!r}, a predictor of the "
                    f"model.{close_match(name, newdata.columns)} Add it to the new data."
                )
            column = newdata[name].reset_index(drop=True)
            out[name] = match_column(name, column, self.columns[name], name in labels)
            missing |= where_missing(out[name])
        return pd.DataFrame(out, index=range(len(newdata))), missing

    def matrix(
        self, part: str, newdata: pd.DataFrame, may_be_unseen: bool = False
    ) -> tuple[FloatArray, BoolArray]:
        """The part's columns for new data, NaN in rows with a missing value, and those rows.

        Parameters
        ----------
        may_be_unseen : bool
            Whether rows in which an expression has a level that it did not have in the fit are NaN
            too, rather than refused.
        """
        frame, missing = self.prepare(part, newdata)
        whole = not missing.any()
        if not whole:
            frame = frame.loc[~missing].reset_index(drop=True)
        table = Variables({str(name): frame[name] for name in frame}, len(frame))
        plain = plain_columns(list(_parsed({"part": self.parts[part]}).part), table, self.columns)
        if plain is None:
            spec = self._specs[part]
            empty = not len(frame) or not spec.column_names
            nothing = np.zeros((len(frame), len(spec.column_names)))
            unseen = np.zeros(len(frame), dtype=bool) if may_be_unseen else None
            made = None if empty else self._materialize(spec, frame, not may_be_unseen, unseen)
            values = nothing if made is None else _values(made)
            if unseen is not None:
                values[unseen] = np.nan
        else:
            values = np.asarray(plain[0][0])
        if whole:
            return values, missing
        out = np.full((len(newdata), values.shape[1]), np.nan)
        out[~missing] = values
        return out, missing


def learn(
    parts: Mapping[str, str],
    variables: Mapping[str, tuple[str, ...]],
    table: Variables,
    contrasts: Mapping[str, Contrasts],
    context: Mapping[str, Any],
    rows: IntArray | None = None,
    sample: IntArray | None = None,
    known: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Columns], MatrixRecipe, dict[str, set[int]]]:
    """Build all parts of a formula on one frame and remember how.

    Parameters
    ----------
    parts : mapping
        Part → formula text with an explicit intercept.
    variables : mapping
        Part → data columns it uses.
    contrasts : mapping
        Column → contrasts, also of columns that no part uses.
    rows : int array or None
        Rows that are fitted; the others are there for expressions that look at their neighbours.
    sample : int array or None
        Rows that transforms learn from; None for all.
    known : mapping, optional
        What transforms have learnt before.

    Returns
    -------
    matrices : dict
        Part → (values (n', columns), column names) of `rows`.
    dropped : dict
        Expression → positions of further rows in which it came out missing, where there are any.
        If so the matrices are of no use.
    """
    fitted = table if rows is None else table.take(rows)
    used = sorted(set().union(*variables.values()))
    contrasts = {name: value for name, value in contrasts.items() if name in used}
    bare = {name for text in parts.values() for name in references(text).columns}
    columns = {name: describe(fitted[name], name, bare, contrasts) for name in used}
    formulas = _parsed(parts)
    matrices: dict[str, Columns] = {}
    categories: dict[str, dict[str, tuple[Any, ...] | None]] = {}
    state: dict[str, Any] = {}
    dropped: dict[str, set[int]] = {}
    for part in parts:
        terms = list(getattr(formulas, part))
        plain = plain_columns(terms, fitted, columns, sparse=part == "fixed")
        if plain is not None:
            matrices[part], categories[part] = plain
    rest = {part: text for part, text in parts.items() if part not in matrices}
    if rest:
        coded = {
            name: C(with_levels_of(rows, table[name].astype("category")), contrasts.get(name))
            for name, info in columns.items()
            if info.coded
        }
        spec = ModelSpec.from_spec(
            _parsed(rest), output="numpy", na_action="drop", transform_state=dict(known or {})
        )
        data = table.frame(used, labels_in(rest.values()), rows)
        built = materialized(spec, data, coded, context, dropped, rows=rows, sample=sample)
        for part in rest:
            matrix = getattr(built, part)
            learnt = matrix.model_spec
            names = tuple(str(name) for name in learnt.column_names)
            matrices[part] = (_values(matrix) if names else np.zeros((len(fitted), 0)), names)
            state.update(learnt.transform_state)
            categories[part] = {
                expression: tuple(s["categories"]) if kind is Factor.Kind.CATEGORICAL else None
                for expression, (kind, s) in learnt.encoder_state.items()
                if kind is not Factor.Kind.CATEGORICAL or "categories" in s
            }
    recipe = MatrixRecipe(
        dict(parts), dict(variables), columns, dict(contrasts), state, categories, dict(context)
    )
    for name in recipe.numbers_with_levels:
        columns[name] = replace(columns[name], values=some_values(fitted[name]) or None)
    return matrices, recipe, dropped


def _values(matrix: Any) -> FloatArray:
    values = getattr(matrix, "__wrapped__", matrix)
    check_real("A term of the formula", values)
    try:
        return np.asfortranarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"A term of the formula does not give numbers ({error}). Turn dates and times, for "
            "example, into numbers first, such as days since the start."
        ) from error


def _parsed(parts: Mapping[str, str]) -> Any:
    return _parse_parts(tuple(parts.items()))


@remembered
def _parse_parts(parts: tuple[tuple[str, str], ...]) -> Any:
    """Several parts as formulaic holds them; the same formulas come back in every refit."""
    return Formula(**{part: [_term(term) for term in read_part(text)] for part, text in parts})


def _term(variables: tuple[Variable, ...]) -> Term:
    if not variables:
        return Term([Factor("1", eval_method="literal")])
    return Term(
        Factor(v.text, eval_method="lookup" if v.is_column else "python") for v in variables
    )
