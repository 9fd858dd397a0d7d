"""`MatrixRecipe` → the terms of a formula part, their columns, and rows to examine them on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.design.design import Design
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.formula.tokens import quote_name

INTERCEPT = "1"
_REDRAWS = 30
_NEARER = 0.8


@dataclass(frozen=True, eq=False)
class FormulaTerm:
    """One term of a formula part.

    Attributes
    ----------
    label : str
        As formulaic writes it; ``"1"`` for the intercept.
    factors, numbers : frozenset of str
        Its categorical and its numeric expressions.
    variables : frozenset of str
        Data columns it uses.
    columns : tuple of int
        Its columns in the model matrix of the part.
    """

    label: str
    factors: frozenset[str]
    numbers: frozenset[str]
    variables: frozenset[str]
    columns: tuple[int, ...]

    def is_contained_in(self, other: FormulaTerm) -> bool:
        """Whether the other term has the same numeric expressions and further factors."""
        return self.factors < other.factors and self.numbers == other.numbers

    def is_marginal_to(self, other: FormulaTerm) -> bool:
        """Whether the other term has all its expressions and further ones."""
        return (self.factors | self.numbers) < (other.factors | other.numbers)


def formula_terms(recipe: MatrixRecipe, part: str) -> tuple[FormulaTerm, ...]:
    """The terms of a part in the order of their columns."""
    levels = recipe.levels
    terms = []
    start = 0
    for entry in recipe.specification(part).structure or ():
        names = [str(factor.expr) for factor in entry.term.factors]
        names = [name for name in names if name in levels]
        stop = start + len(entry.columns)
        terms.append(
            FormulaTerm(
                label=str(entry.term),
                factors=frozenset(n for n in names if levels[n] is not None),
                numbers=frozenset(n for n in names if levels[n] is None),
                variables=frozenset(v for n in names for v in recipe.columns_in(n)),
                columns=tuple(range(start, stop)),
            )
        )
        start = stop
    return tuple(terms)


def part_text(recipe: MatrixRecipe, part: str, keep: Collection[int]) -> str:
    """A part with some of its terms only, as formula text that says whether it has an intercept."""
    entries = recipe.specification(part).structure or ()
    pieces = ["0"]
    for i, entry in enumerate(entries):
        if i not in keep:
            continue
        if str(entry.term) == INTERCEPT:
            pieces[0] = "1"
            continue
        factors = [str(factor.expr) for factor in entry.term.factors]
        pieces.append(
            ":".join(
                quote_name(name, quoted=True) if name in recipe.columns else name
                for name in factors
            )
        )
    return " + ".join(pieces)


def _expressions(recipe: MatrixRecipe, part: str) -> list[str]:
    """Expressions of a part, each once, in order of appearance."""
    entries = recipe.specification(part).structure or ()
    names = [str(factor.expr) for entry in entries for factor in entry.term.factors]
    return [name for name in dict.fromkeys(names) if name in recipe.levels]


def factor_levels(recipe: MatrixRecipe, part: str) -> dict[str, tuple[Any, ...]]:
    """Data columns that a part uses as factors → their levels, in order of appearance.

    A number is a factor if it stands inside a categorical expression, such as ``C(year)``.
    """
    out: dict[str, tuple[Any, ...]] = {}
    for expression in _expressions(recipe, part):
        levels = recipe.levels[expression]
        for name in recipe.columns_in(expression):
            categories = recipe.columns[name].categories
            if categories is not None:
                out[name] = categories
            elif levels is not None and _is_coding_of(expression, name):
                out[name] = levels
    return out


def _is_coding_of(expression: str, name: str) -> bool:
    """Whether the levels of an expression are the values of a column: ``C(name, ...)``."""
    pattern = rf"(C|factor)\(\s*`?{re.escape(name)}`?\s*(,.*)?\)"
    return re.fullmatch(pattern, expression) is not None


def covariates(recipe: MatrixRecipe, part: str) -> dict[str, tuple[float, float, float]]:
    """Numeric columns of a part that are not factors → their mean, minimum and maximum."""
    factors = factor_levels(recipe, part)
    out = {}
    for name in recipe.variables[part]:
        span = recipe.columns[name].span
        if name not in factors and span is not None:
            out[name] = span
    return out


def chosen_values(given: Any) -> tuple[Any, ...]:
    """One value or several, as the user gives them for a column."""
    one = isinstance(given, str) or np.ndim(given) == 0
    return (given,) if one else tuple(np.asarray(given, dtype=object).tolist())


def grid(values: Mapping[str, tuple[Any, ...]]) -> pd.DataFrame:
    """All combinations of the values of some columns; the first column varies fastest."""
    names = list(values)
    rows = [row[::-1] for row in product(*(values[name] for name in reversed(names)))]
    return pd.DataFrame(
        {name: _column([row[j] for row in rows]) for j, name in enumerate(names)},
        index=range(len(rows)),
    )


def _column(values: list[Any]) -> Any:
    try:
        return pd.Series(values)
    except UnicodeEncodeError:  # pandas' own kind of text does not hold all of Python's
        return pd.Series(values, dtype=object)


def typical_rows(recipe: MatrixRecipe, part: str) -> pd.DataFrame:
    """Rows on which every relation that holds between columns of a part can be seen.

    Each term meets all combinations of its factors several times; everything else is random.
    """
    rng = np.random.default_rng(20)
    factors, numbers = factor_levels(recipe, part), covariates(recipe, part)
    terms = formula_terms(recipe, part)
    # Levels that are computed from numbers cannot be chosen; many draws meet them all.
    computed = [
        len(recipe.levels[expression] or ())
        for expression in frozenset().union(*(term.factors for term in terms))
        if any(name in numbers for name in recipe.columns_in(expression))
    ]
    frames = []
    for term in terms:
        own = {name: factors[name] for name in factors if name in term.variables}
        cells = prod(len(levels) for levels in own.values())
        times = 2 + len(numbers) + ceil(len(term.columns) / cells)
        times += 20 * prod(computed) if computed else 0
        frame = pd.concat([grid(own) if own else pd.DataFrame(index=range(1))] * times)
        for name, levels in factors.items():
            if name not in own:
                frame[name] = [levels[i] for i in rng.integers(len(levels), size=len(frame))]
        for name in numbers:
            frame[name] = _draws(rng, recipe, name, len(frame))
        frames.append(frame)
    rows = pd.concat(frames, ignore_index=True)
    # An expression need not be defined everywhere between the smallest and the largest value. Where
    # what it is defined on is convex, the means are in it.
    for i in range(_REDRAWS):
        bad = np.flatnonzero(~_is_defined(recipe, part, rows))
        if not len(bad) or not numbers:
            break
        nearer = _NEARER**i
        for name, (mean, *_) in numbers.items():
            values, drawn = rows[name].to_numpy(copy=True), _draws(rng, recipe, name, len(bad))
            made = recipe.columns[name].values is not None
            values[bad] = drawn if made else mean * (1.0 - nearer) + nearer * drawn
            rows[name] = values
    finite = _is_defined(recipe, part, rows)
    return rows.iloc[np.flatnonzero(finite)].reset_index(drop=True)


def _is_defined(recipe: MatrixRecipe, part: str, rows: pd.DataFrame) -> BoolArray:
    """In which rows all columns are numbers, and all levels those of the fit."""
    X, _ = recipe.matrix(part, rows, may_be_unseen=True)
    return np.asarray(np.isfinite(X).all(axis=1))


def _draws(rng: np.random.Generator, recipe: MatrixRecipe, name: str, n: int) -> FloatArray:
    """Values that a numeric column may have."""
    info = recipe.columns[name]
    assert info.span is not None
    if info.values:
        return rng.choice(np.array(info.values), n)
    return _between(rng, *info.span[1:], n)


def _between(rng: np.random.Generator, low: float, high: float, n: int) -> FloatArray:
    """Uniform draws between two numbers whose difference may be larger than the largest one."""
    share = rng.uniform(size=n)
    return low * (1.0 - share) + high * share


def indicator_matrix(
    recipe: MatrixRecipe, part: str, frame: pd.DataFrame
) -> tuple[FloatArray, tuple[int, ...], tuple[str, ...]]:
    """Columns with an indicator for every level, the term each belongs to, and their names."""
    spec: ModelSpec = recipe.overparametrized(part)
    owner = [i for i, entry in enumerate(spec.structure or ()) for _ in entry.columns]
    names = tuple(str(name) for name in spec.column_names)
    return recipe.values(spec, part, frame), tuple(owner), names


def _plain_terms(design: Design) -> list[FormulaTerm]:
    """One term per column for a model made from arrays; constant columns are the intercept."""
    X = design.X
    return [
        FormulaTerm(
            label=INTERCEPT if np.ptp(X[:, j]) == 0 else name,
            factors=frozenset(),
            numbers=frozenset({name}),
            variables=frozenset({name}),
            columns=(j,),
        )
        for j, name in enumerate(design.x_names)
    ]


def fixed_terms(design: Design) -> tuple[tuple[FormulaTerm, ...], list[IntArray]]:
    """The terms of a design's fixed effects, and the columns of X that belong to each."""
    recipe = design.recipe
    if recipe is None:
        terms, kept = tuple(_plain_terms(design)), np.ones(design.p, dtype=bool)
    else:
        terms, kept = formula_terms(recipe.matrices, "fixed"), recipe.kept
    position = np.cumsum(kept) - 1
    columns = [
        np.array([position[c] for c in term.columns if kept[c]], dtype=np.int64) for term in terms
    ]
    return terms, columns


def coefficients_of(design: Design, name: str) -> list[str]:
    """The coefficients of a fixed-effects term, by its label or the columns it is made of.

    Empty if there is no such term, or if all its columns were left out.
    """
    terms, columns = fixed_terms(design)
    wanted = frozenset(part.strip() for part in name.split(":"))
    for match in (
        lambda term: term.label == name,
        lambda term: frozenset(term.label.split(":")) == wanted,
        lambda term: term.variables == wanted,
    ):
        found = [i for i, term in enumerate(terms) if match(term)]
        if len(found) == 1:
            return [design.x_names[j] for j in columns[found[0]]]
    return []
