"""What the first pass has found → a design of the sample, and what the second pass computes.

The sample goes through `build_design` with all levels known. That gives names, codings, structures
and the recipe; its triangular factor and coefficients are the coordinates in which rows are summed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import solve_triangular

from lmmsparse.chunks.learn import Learnt
from lmmsparse.chunks.question import Question
from lmmsparse.chunks.unchanged import of_labels
from lmmsparse.common.arrays import FloatArray, is_ones
from lmmsparse.common.errors import DataError, FormulaError
from lmmsparse.design import Design, MatrixRecipe, Recipe
from lmmsparse.design.build import design_with_levels
from lmmsparse.design.expressions import columns_of
from lmmsparse.design.grouping import Grouping, make_grouping
from lmmsparse.design.rank import factors_of
from lmmsparse.design.terms import factor_levels
from lmmsparse.engine.columns import orthonormal
from lmmsparse.engine.origins import origins

_MOST_CELLS = 1_000_000
_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Columns in which rows are summed: (X A) R⁻¹, and the response less Q γ and the offset.

    Attributes
    ----------
    A : (p, p) array or None
        Unit upper triangular; takes large multiples of other columns off. None for the identity.
    R : (p, p) array
        Upper triangular.
    gamma : (p,) array
    """

    A: FloatArray | None
    R: FloatArray
    gamma: FloatArray

    @property
    def inverse(self) -> FloatArray:
        """R⁻¹."""
        return np.asarray(solve_triangular(self.R, np.eye(len(self.R))))

    @property
    def root(self) -> FloatArray:
        """R with X = Q R, (p, p)."""
        return self.R if self.A is None else np.asarray(np.linalg.solve(self.A.T, self.R.T).T)


@dataclass(frozen=True, eq=False)
class Plan:
    """All that a process needs to sum rows.

    Attributes
    ----------
    sample : Design
        Of the sample's rows, with all levels of the grouping factors.
    recipe : Recipe
        Of the sample; among its parts is the response.
    cells : tuple of str
        Factors of the fixed effects whose combinations are counted.
    center : float
        About the mean of the response.
    ones : tuple of bool
        Per term, whether its column is one in all rows.
    marks : mapping
        Grouping factor → the numbers that stand for its levels, and the first of its terms.
    """

    question: Question
    sample: Design
    recipe: Recipe
    coordinates: Coordinates
    sizes: tuple[int, ...]
    shifts: tuple[FloatArray | None, ...]
    cells: Mapping[str, tuple[Any, ...]]
    center: float
    ones: tuple[bool, ...]
    marks: Mapping[str, tuple[int, FloatArray]]

    def numbers_of(self, s: int, t: int) -> int:
        """Numbers that are summed where levels of two terms meet; 0 where rows are counted."""
        counted = self.question.weights is None and self.ones[s] and self.ones[t]
        return 0 if counted else self.sizes[s] * self.sizes[t]

    @property
    def sent(self) -> Plan:
        """The same without the rows of the sample, which nobody needs for the sums."""
        return replace(self, sample=None)  # type: ignore[arg-type]


def sample_frame(question: Question, learnt: Learnt, more: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of the sample, categories in the order of all parts."""
    pieces = [*learnt.pieces.frames, *learnt.pieces.others, *more]
    columns: dict[str, Any] = {}
    for name in question.columns:
        parts = [piece[name] for piece in pieces if len(piece)]
        if any(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
            columns[name] = _joined_categories(parts)
        else:
            columns[name] = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(columns)


def _joined_categories(parts: list[pd.Series]) -> pd.Series:
    labels: Any = parts[0].cat.categories
    for part in parts[1:]:
        own = part.cat.categories
        if not own.equals(labels):
            labels = labels.append(own[~own.isin(labels)])
    ordered = all(part.cat.ordered for part in parts)
    codes = [labels.get_indexer(part.cat.categories)[part.cat.codes] for part in parts]
    missing = [part.isna().to_numpy() for part in parts]
    flat = np.where(np.concatenate(missing), -1, np.concatenate(codes))
    return pd.Series(pd.Categorical.from_codes(flat, labels, ordered=ordered, validate=False))


def design_of_sample(
    question: Question, learnt: Learnt, frame: pd.DataFrame, state: Mapping[str, Any]
) -> Design:
    """The design of the sample, and a refusal of what depends on other rows."""
    levels: dict[tuple[str, ...], Grouping] = {
        factors: make_grouping(question.groupings[factors], found.columns)
        for factors, found in learnt.levels.items()
    }
    design = design_with_levels(
        question.asked.parsed,
        frame,
        question.weights,
        question.offset,
        "omit",
        question.contrasts,
        question.context,
        levels=levels,
        state=state,
    )
    for finding in design.findings:
        if finding.code == "missing-rows":
            raise DataError(undefined(finding.message))
    assert design.recipe is not None
    _check_by_rows(design, frame)
    return design


def undefined(what: str) -> str:
    """The message for rows in which an expression has no value."""
    return (
        f"{what} Rows that are left out for that reason are only known when all are read, so that "
        "data in chunks must not have them. Filter them before, or make the column missing there."
    )


def _check_by_rows(design: Design, frame: pd.DataFrame) -> None:
    """Refuse expressions whose values depend on other rows, such as np.mean(x) or lag(x)."""
    recipe = design.recipe
    assert recipe is not None
    parts = [("fixed", design.fixed, design.x_names, recipe.kept)]
    for i, block in enumerate(design.blocks):
        parts.append((f"random{i}", block.columns, block.names, np.ones(block.k, dtype=bool)))
    halves = [slice(0, len(frame) // 3), slice(len(frame) // 3, None)]
    for part, columns, names, kept in parts:
        whole = columns if isinstance(columns, np.ndarray) else columns.toarray()
        for half in halves:
            values = recipe.matrices.matrix(part, frame.iloc[half])[0][:, kept]
            gap = np.abs(values - whole[half])
            off = ~(gap <= _SAME * (np.abs(whole[half]) + np.abs(whole).max(initial=0.0)))
            if off.any():
                name = names[int(np.flatnonzero(off.any(axis=0))[0])]
                raise FormulaError(
                    f"{name!r} has a value that depends on other rows, which are not in memory "
                    "together when data are read in chunks. Compute the column before, or use "
                    "center(), scale(), poly() or a spline, which learn from all rows."
                )


def response_recipe(recipe: Recipe, response: str) -> Recipe:
    """A recipe with the response among its parts."""
    m = recipe.matrices
    text = f"0 + {response}"
    matrices = replace(
        m,
        parts={**m.parts, "response": text},
        variables={**m.variables, "response": columns_of(text, m.columns, m.context)},
        categories={**m.categories, "response": {}},
    )
    return replace(recipe, matrices=matrices)


def plan_of(question: Question, learnt: Learnt, design: Design) -> Plan:
    """The plan of the second pass for the design of a sample."""
    recipe = design.recipe
    assert recipe is not None
    y = design.y - design.offset_or_zero
    factors = {
        name: levels
        for name, levels in factor_levels(recipe.matrices, "fixed").items()
        if recipe.matrices.columns[name].categories == levels
    }
    count = float(np.prod([len(levels) for levels in factors.values()]))
    return Plan(
        question=question,
        sample=design,
        recipe=response_recipe(recipe, design.response),
        coordinates=coordinates_of(design),
        sizes=tuple(block.k for block in design.blocks),
        shifts=tuple(block.shift for block in design.blocks),
        cells=factors if count <= _MOST_CELLS else {},
        center=float(y.mean()),
        ones=tuple(is_ones(block.columns) for block in design.blocks),
        marks=_marks(recipe),
    )


def _marks(recipe: Recipe) -> dict[str, tuple[int, FloatArray]]:
    out: dict[str, tuple[int, FloatArray]] = {}
    for t, group in enumerate(recipe.groups):
        if group.name not in out:
            key = group.key
            out[group.name] = t, of_labels(list(key.combinations.T), key.components)
    return out


def coordinates_of(design: Design) -> Coordinates:
    """Coordinates in which the columns of X are orthonormal on the rows of a sample."""
    X = design.X
    p = X.shape[1]
    if not p:
        return Coordinates(None, np.zeros((0, 0)), np.zeros(0))
    moved, A = origins(np.asfortranarray(X), factors_of(design.x_names), design.weights)
    Q, basis = orthonormal(moved, design.weights)
    sign = np.sign(np.diag(basis.R))
    y = design.y - design.offset_or_zero
    Wy = y if design.weights is None else y * design.weights
    gamma = sign * Q.transposed_times(Wy)
    return Coordinates(A, sign[:, None] * basis.R, gamma)


def with_spans(matrices: MatrixRecipe, learnt: Learnt) -> MatrixRecipe:
    """Means and ranges of numeric columns from all rows."""
    columns = dict(matrices.columns)
    for name, info in columns.items():
        found = learnt.numbers.get(name)
        if info.span is not None and found is not None and np.isfinite(found.mean):
            columns[name] = replace(info, span=(found.mean, found.low, found.high))
    return replace(matrices, columns=columns)
