"""Recipes ↔ JSON; what is read is checked against the design that it is to make."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from formulaic.transforms import contrasts as coding

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import DataError, StorageError
from lmmsparse.common.fields import choice, flag, items, mapping, optional, record, text
from lmmsparse.design.columns import ColumnInfo
from lmmsparse.design.design import Design, RandomBlock
from lmmsparse.design.expressions import check_expression
from lmmsparse.design.grouping import LevelKey
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.design.recipe import GroupRecipe, Recipe, check_texts
from lmmsparse.design.residual import PART, ResidualDesign
from lmmsparse.design.successes import as_written
from lmmsparse.design.values import decode, encode
from lmmsparse.engine.covariance.correlated import AR1
from lmmsparse.engine.covariance.structures import CovarianceStructure, make_structure
from lmmsparse.formula.expression import read_expression
from lmmsparse.formula.formula import RandomTerm, parse_formula
from lmmsparse.formula.residual import ResidualCorrelation, parse_residual_sd

_CODINGS: dict[str, type[Any]] = {
    c.__name__: c
    for c in (
        coding.TreatmentContrasts, coding.SumContrasts, coding.HelmertContrasts,
        coding.DiffContrasts, coding.PolyContrasts, coding.SASContrasts, coding.CustomContrasts,
    )
}  # fmt: skip
_KINDS = ("numeric", "categorical", "date", "duration", "other")


class NotStoredError(DataError):
    """A function of the user's own that is wanted from a file."""


@dataclass(frozen=True)
class NotStored:
    """Stands for a function of the user's `context` in a model that was read from a file."""

    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotStoredError(
            f"The formula uses {self.name}, which was passed as context= when the model was "
            "fitted and is not stored in files. Predict for new data before saving, or fit again."
        )


def _encode_contrasts(contrasts: Any) -> dict[str, Any]:
    name = type(contrasts).__name__
    if name not in _CODINGS:
        raise StorageError(
            f"Contrasts of type {name} cannot be stored. Use one of {', '.join(_CODINGS)}."
        )
    options = {}
    for key, value in vars(contrasts).items():
        if not key.startswith("_") and type(value).__name__ not in ("_MissingType", "MissingType"):
            if type(value).__module__.startswith("formulaic"):
                continue
            options[{"contrast_names": "names"}.get(key, key)] = encode(value)
    return {"name": name, "options": options}


def _decode_contrasts(meta: Any) -> Any:
    record(meta, ("name", "options"))
    options = mapping(meta["options"], decode)
    return _CODINGS[choice(meta["name"], _CODINGS)](**options)


def encode_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON; the user's own functions cannot be stored and are only named."""
    m = recipe.matrices
    return {
        "parts": dict(m.parts),
        "variables": {part: list(names) for part, names in m.variables.items()},
        "columns": {
            name: {
                "kind": c.kind,
                "categories": encode(c.categories),
                "coded": c.coded,
                "span": encode(c.span),
                **({} if c.values is None else {"values": encode(c.values)}),
            }
            for name, c in m.columns.items()
        },
        "contrasts": {name: _encode_contrasts(c) for name, c in m.contrasts.items()},
        "transform_state": encode(m.transform_state),
        "categories": {
            part: {expression: encode(levels) for expression, levels in factors.items()}
            for part, factors in m.categories.items()
        },
        "context": sorted(m.context),
        "kept": [bool(k) for k in recipe.kept],
        "groups": [{"name": g.name, "factors": list(g.factors)} for g in recipe.groups],
        "offsets": list(recipe.offsets),
        "offset_column": recipe.offset_column,
        "offset_array": recipe.offset_array,
        "weights_column": recipe.weights_column,
        "relations": encode(recipe.relations),
    }


_RECIPE = (
    "parts", "variables", "columns", "contrasts", "transform_state", "categories", "context",
    "kept", "groups", "offsets", "offset_column", "offset_array", "weights_column",
)  # fmt: skip


def decode_recipe(meta: Any, keys: Sequence[LevelKey]) -> Recipe:
    """The inverse of `encode_recipe`; `keys` are those of the design's blocks, in order."""
    record(meta, _RECIPE, ("relations",))
    parts: tuple[str, ...] = ("fixed", *(f"random{i}" for i in range(len(keys))))
    if isinstance(meta["parts"], dict) and PART in meta["parts"]:
        parts = (PART, *parts)
    columns = mapping(meta["columns"], _decode_column)
    variables = mapping(record(meta["variables"], parts), lambda names: items(names, text))
    if not all(name in columns for names in variables.values() for name in names):
        raise ValueError("the formula uses columns that are not described")
    matrices = MatrixRecipe(
        parts=mapping(record(meta["parts"], parts), text),
        variables=variables,
        columns=columns,
        contrasts=mapping(meta["contrasts"], _decode_contrasts),
        transform_state=_decode_state(meta["transform_state"]),
        categories=mapping(
            record(meta["categories"], parts), lambda factors: mapping(factors, _decode_levels)
        ),
        context={name: NotStored(name) for name in items(meta["context"], text)},
    )
    if not matrices.contrasts.keys() <= columns.keys():
        raise ValueError("contrasts of columns that are not described")
    recipe = Recipe(
        matrices=matrices,
        kept=np.array(items(meta["kept"], flag), dtype=bool),
        groups=tuple(
            _decode_group(group, key)
            for group, key in zip(items(meta["groups"], dict), keys, strict=True)
        ),
        offsets=items(meta["offsets"], text),
        offset_column=optional(meta["offset_column"], text),
        offset_array=flag(meta["offset_array"]),
        weights_column=optional(meta["weights_column"], text),
        relations=optional(meta.get("relations"), _decode_numbers),
    )
    check_texts(recipe)
    return recipe


def _decode_column(meta: Any) -> ColumnInfo:
    record(meta, ("kind", "categories", "coded"), ("span", "values"))
    kind, levels = choice(meta["kind"], _KINDS), _decode_levels(meta["categories"])
    truth = levels == (False, True) and kind == "numeric"
    if (levels is None) != (kind != "categorical") and not truth:
        raise ValueError("levels of what has none, or none of what has")
    span = decode(meta.get("span"))
    if span is not None:
        if not isinstance(span, tuple) or [type(each) for each in span] != [float] * 3:
            raise ValueError("mean and range of a column expected")
        if not span[1] <= span[2] or not np.isfinite(span[1:]).all() == np.isfinite(span[0]):
            raise ValueError("mean and range that do not belong together")
    values = decode(meta.get("values"))
    if values is not None:
        _check_values(values, span)
    return ColumnInfo(kind, levels, flag(meta["coded"]), span, values)


def _check_values(values: Any, span: tuple[float, float, float] | None) -> None:
    """Refuse what are no values of a column, in ascending order and within its range."""
    if not isinstance(values, tuple) or {type(each) for each in values} not in ({int}, {float}):
        raise ValueError("values of a column expected")
    if span is None or not np.isfinite(np.array(values, dtype=np.float64)).all():
        raise ValueError("values of a column of numbers expected")
    if not all(one < next_ for one, next_ in pairwise(values)):
        raise ValueError("values of a column in ascending order expected")
    if not span[1] <= float(values[0]) <= float(values[-1]) <= span[2]:
        raise ValueError("values of a column within its range expected")


def _decode_levels(meta: Any) -> tuple[Any, ...] | None:
    """Levels of a factor, each once; None for what is no factor."""
    levels = decode(meta)
    if levels is None:
        return None
    if not isinstance(levels, tuple) or len(set(levels)) < len(levels) or not levels:
        raise ValueError(f"levels expected, not {meta!r:.80}")
    if any(each is None or each != each for each in levels):
        raise ValueError("a level that is missing")
    return levels


def _decode_state(meta: Any) -> dict[str, Any]:
    """What transforms have learnt: of every expression a mapping, all numbers finite."""
    state = decode(meta)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError("what transforms have learnt is no mapping")
    for learnt in state.values():
        if not isinstance(learnt, dict) or not _finite(learnt):
            raise ValueError("what a transform has learnt is not possible")
    return state


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_finite(each) for each in value.values())
    if isinstance(value, (list, tuple)):
        return all(_finite(each) for each in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return bool(np.isfinite(value).all())
    return not isinstance(value, float) or bool(np.isfinite(value))


def _decode_numbers(meta: Any) -> FloatArray:
    values = decode(meta)
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or not _finite(values):
        raise ValueError("an array of finite numbers expected")
    return values


def _decode_group(meta: Any, key: LevelKey) -> GroupRecipe:
    record(meta, ("name", "factors"))
    return GroupRecipe(text(meta["name"]), items(meta["factors"], text, len(key.components)), key)


def check_recipe(design: Design) -> None:
    """Refuse a recipe that does not make the columns of its design."""
    recipe = design.recipe
    if recipe is None:
        if design.formula:
            raise ValueError("a formula without its recipe")
        return
    kept, relations = recipe.kept, recipe.relations
    if len(kept) != design.p + len(design.dropped) or kept.sum() != design.p:
        raise ValueError("columns of X that are neither kept nor dropped")
    if relations is not None and relations.shape != (design.p, len(design.dropped)):
        raise ValueError("relations between columns of X that are not there")
    if [group.name for group in recipe.groups] != [block.group for block in design.blocks]:
        raise ValueError("grouping factors of other names")
    if recipe.weights_column is not None and design.weights is None:
        raise ValueError("a column of weights without weights")
    makes_offset = bool(recipe.offsets) or recipe.offset_array or recipe.offset_column is not None
    if makes_offset != (design.offset is not None):
        raise ValueError("an offset that nothing makes")
    parsed = parse_formula(design.formula)
    responses = (parsed.response, as_written(parsed))  # the latter of a binomial model
    if parsed.offsets != recipe.offsets or design.response not in responses:
        raise ValueError("a formula of another model")
    _check_terms(design, recipe, parsed.random)
    _check_levels(recipe.matrices)
    residual = design.residual
    if (PART in recipe.matrices.parts) != (residual is not None and bool(residual.names)):
        raise ValueError("columns of residual_sd that nothing uses, or none")
    if residual is not None and residual.correlation is not None:
        _check_correlation(residual.correlation, residual, recipe)
    with suppress(NotStoredError):
        _check_columns(design, recipe, parsed.fixed)


def _check_correlation(
    asked: ResidualCorrelation, residual: ResidualDesign, recipe: Recipe
) -> None:
    """Refuse a correlation in other groups or at other times than those of the rows."""
    grouping, visits = residual.grouping, residual.visits
    assert grouping is not None
    same = asked.group == grouping.name and len(asked.factors) == len(grouping.key.components)
    if not same or (visits is not None and visits.name != asked.time):
        raise ValueError("a correlation of residuals in other groups, or at other times")
    for expression in (asked.time, *asked.factors):
        read = read_expression(expression)
        check_expression(expression, read.names, recipe.matrices.context)


def _shape(block: RandomBlock) -> CovarianceStructure:
    """The structure without the positions that only data give."""
    structure = block.structure
    return replace(structure, at=None) if isinstance(structure, AR1) else structure


def _check_terms(design: Design, recipe: Recipe, terms: Sequence[RandomTerm]) -> None:
    """Every block is one random term of the formula; the largest factors stand first."""
    left = list(terms)
    for i, (block, group) in enumerate(zip(design.blocks, recipe.groups, strict=True)):
        for term in left:
            text = recipe.matrices.parts[f"random{i}"]
            same = (term.effects, term.group, term.factors) == (text, group.name, group.factors)
            same = same and term.split == block.split
            if same and make_structure(term.structure, block.k, term.hom) == _shape(block):
                left.remove(term)
                break
        else:
            raise ValueError(f"the term {block.source!r:.80} is not that of the formula")
    if left:
        raise ValueError("a formula of more terms")


def _check_levels(matrices: MatrixRecipe) -> None:
    """A column that is a factor by itself has the same levels wherever it stands."""
    for factors in matrices.categories.values():
        for expression, levels in factors.items():
            column = matrices.columns.get(expression)
            if column is not None and levels is not None and levels != column.categories:
                raise ValueError(f"levels of {expression!r:.80} that do not agree")


def _check_columns(design: Design, recipe: Recipe, fixed: str) -> None:
    matrices = recipe.matrices
    learnt = {call: sorted(state) for call, state in matrices.transform_state.items()}
    names = matrices.specification("fixed").column_names
    if tuple(np.array(names, dtype=object)[recipe.kept]) != design.x_names:
        raise ValueError("a recipe of other fixed effects")
    same = fixed == matrices.parts["fixed"] or "." in fixed.split(" ")
    if not same and matrices.names_of(fixed) != tuple(names):
        raise ValueError("a formula of other fixed effects")
    for i, block in enumerate(design.blocks):
        if tuple(matrices.specification(f"random{i}").column_names) != block.names:
            raise ValueError("a recipe of other random effects")
    if design.residual is not None and design.residual.names:
        own, text = design.residual.names, parse_residual_sd(design.residual.sd_text)
        found = tuple(map(str, matrices.specification(PART).column_names))
        if tuple(name for name in found if name != "Intercept") != own:
            raise ValueError("a recipe of another residual_sd")
        same = text == matrices.parts[PART] or "." in text.split(" ")
        if not same and matrices.names_of(text) != found:
            raise ValueError("a text of another residual_sd")
    if learnt != {call: sorted(state) for call, state in matrices.transform_state.items()}:
        raise ValueError("a recipe that has not learnt everything")
