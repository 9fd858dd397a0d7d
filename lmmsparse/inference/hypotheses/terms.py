"""`Design` → the terms of its fixed effects and the hypotheses of type I, II and III about them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.linalg

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import is_whole
from lmmsparse.common.words import brief
from lmmsparse.design import Design
from lmmsparse.design.matrices import MatrixRecipe
from lmmsparse.design.rank import combination, factors_of, independent_columns, relative_spread
from lmmsparse.design.terms import (
    INTERCEPT,
    fixed_terms,
    indicator_matrix,
    typical_rows,
)
from lmmsparse.engine.origins import origins

_ZERO = 1e-8


@dataclass(frozen=True, eq=False)
class _Overparametrized:
    """The model with an indicator for every level, seen from the coding of the fit.

    Attributes
    ----------
    to_fitted : (p, p) array
        β of the fit from the coefficients under treatment coding.
    treatment : (p, P) array
        Coefficients under treatment coding from the P overparametrized ones.
    owner : (p,) int array
        Term of each coefficient under treatment coding.
    matrix : (p, P) array
        Coefficients of the fit from the overparametrized ones.
    names : tuple of str
        The P overparametrized columns.
    all_owners : tuple of int
        Their terms.
    aliased : (p, P) bool array
        Where `treatment` holds what it would not if all combinations of levels had been observed.
    """

    to_fitted: FloatArray
    treatment: FloatArray
    owner: IntArray
    matrix: FloatArray
    names: tuple[str, ...]
    all_owners: tuple[int, ...]
    aliased: BoolArray

    @property
    def missing(self) -> tuple[str, ...]:
        """Overparametrized columns for which there are no data."""
        present = np.flatnonzero(np.abs(self.matrix).sum(axis=0))
        return tuple(name for j, name in enumerate(self.names) if j not in present)


class FixedTerms:
    """The fixed-effects terms of a design and what can be asked about them.

    Notes
    -----
    The hypotheses are those of SAS, as lmerTest states them. Type III: in the overparametrized
    model, the part of a term's contrasts that is orthogonal to those of the terms that contain it.

    References
    ----------
    SAS Institute, The four types of estimable functions; Goodnight (1978), SAS Technical Report
    R-101; Kuznetsova, Brockhoff & Christensen (2017), Journal of Statistical Software 82(13).
    """

    def __init__(self, design: Design) -> None:
        self._design = design
        recipe = design.recipe
        self._kept = np.ones(design.p, dtype=bool) if recipe is None else recipe.kept
        self.terms, self._columns = fixed_terms(design)

    @property
    def tested(self) -> list[int]:
        """Positions in `terms` of all terms but the intercept."""
        return [i for i, term in enumerate(self.terms) if term.label != INTERCEPT]

    def label(self, i: int) -> str:
        return self.terms[i].label

    def columns(self, i: int) -> IntArray:
        """Columns of X that belong to a term."""
        return self._columns[i]

    def containing(self, i: int) -> list[int]:
        """The terms that contain a term: same numbers, more factors."""
        return [j for j, other in enumerate(self.terms) if self.terms[i].is_contained_in(other)]

    def droppable(self) -> list[int]:
        """Terms that no other term builds on."""
        return [
            i
            for i in self.tested
            if not any(self.terms[i].is_marginal_to(other) for other in self.terms)
        ]

    def hypothesis(self, i: int, kind: int) -> FloatArray:
        """The rows of L for which a test of type `kind` of a term is Lβ = 0.

        Parameters
        ----------
        i : int
            Position in `terms`.
        kind : {1, 2, 3}

        Returns
        -------
        (rows, p) array
            Not scaled, linearly independent; none if no column of the term could be kept.
        """
        if kind == 3 and self._design.recipe is not None:
            return self._type3(i)
        if kind == 1 or len(self.tested) == 1:
            return _doolittle(self._R)[self.columns(i)]
        later = self.containing(i) if kind == 2 else []
        return self._before(i, later) if later else self.deletion(i)

    def _before(self, i: int, later: list[int]) -> FloatArray:
        """Rows that test a term after all others but some."""
        last = [c for j in [i, *later] for c in self.terms[j].columns]
        order = np.append(np.setdiff1d(np.arange(len(self._kept)), last), last).astype(np.int64)
        X = self._R @ self._all_columns[:, order]
        if not self._kept.all():
            spread = relative_spread(self._design.some.X @ self._all_columns[:, order])
            stays = independent_columns(X, spread=spread)
            order, X = order[stays], X[:, stays]
        own = np.flatnonzero(np.isin(order, self.terms[i].columns))
        rows = _doolittle(_triangle(X))[own]
        return np.asarray(np.linalg.solve(self._all_columns[:, order].T, rows.T).T)

    def marginal(self, i: int) -> FloatArray:
        """Rows that test the coefficients of a term as they are."""
        return np.eye(self._design.p)[self.columns(i)]

    def deletion(self, i: int) -> FloatArray:
        """Rows for which Lβ = 0 is the model without a term, (rows, p)."""
        recipe = self._design.recipe
        if recipe is None or recipe.relations is None:
            return self.marginal(i)
        back = np.ones(recipe.relations.shape[1], dtype=bool)
        dropped = np.flatnonzero(~self._kept)
        back[np.isin(dropped, self.terms[i].columns)] = False
        own = recipe.relations[np.ix_(self.columns(i), np.flatnonzero(back))]
        if not own.any():
            return self.marginal(i)
        return combinations_without(own, _lengths(self._R)[self.columns(i)]) @ self.marginal(i)

    @property
    def missing_cells(self) -> tuple[str, ...]:
        """Combinations of levels that occur in a term but not in the data."""
        recipe = self._design.recipe
        return () if recipe is None or recipe.kept.all() else self._full.missing

    @cached_property
    def _R(self) -> FloatArray:
        """Triangular factor of X'X: the same sums of squares in p dimensions."""
        if self._design.facts is not None:
            return self._design.facts.R
        X, A = origins(self._design.X, factors_of(self._design.x_names))
        R = _triangle(X)
        return R if A is None else scipy.linalg.solve_triangular(A, R.T, trans="T").T

    @cached_property
    def _all_columns(self) -> FloatArray:
        """All columns of the formula, dropped ones too, from those of X, (p, P)."""
        out = np.zeros((self._design.p, len(self._kept)))
        out[:, self._kept] = np.eye(self._design.p)
        recipe = self._design.recipe
        if recipe is not None and recipe.relations is not None:
            out[:, ~self._kept] = recipe.relations
        return out

    def _type3(self, i: int) -> FloatArray:
        full = self._full
        own = np.flatnonzero(full.owner == i)
        if len(self.tested) == 1:
            rows = _doolittle(_triangle(self._R @ full.to_fitted))[own]
        else:
            above = self.containing(i)
            outside = ~np.isin(full.all_owners, [i, *above])
            M = full.treatment
            among = np.flatnonzero(np.isin(full.owner, [i, *above]))
            if full.aliased[np.ix_(among, np.flatnonzero(outside))].any():
                rows = self._of_own_columns(i, outside)
            else:
                rows = np.eye(len(full.owner))[own]
                upper = np.flatnonzero(np.isin(full.owner, above))
                if len(upper):
                    rows[:, upper] = -np.linalg.lstsq(M[upper].T, M[own].T, rcond=None)[0].T
        L = np.linalg.solve(full.to_fitted.T, rows.T).T
        L[np.abs(L) < _ZERO * np.abs(L).max(initial=0.0)] = 0.0
        return np.asarray(L[np.abs(L).sum(axis=1) > _ZERO])

    def _of_own_columns(self, i: int, outside: BoolArray) -> FloatArray:
        """Type III where columns of the term are combinations of those of other terms.

        All functions that can be estimated and are of the columns of the term and of those that
        contain it alone, orthogonal to those that are of the latter alone.
        """
        full = self._full
        length = _lengths(self._R @ full.to_fitted)
        alone = combinations_without(full.treatment[:, outside], length)
        functions = alone @ full.treatment
        own = np.array(full.all_owners) == i
        inner = combinations_without(functions[:, own], np.ones(len(functions))) @ functions
        if not len(inner):
            return alone
        return combinations_without(functions @ inner.T, np.ones(len(functions))) @ alone

    @cached_property
    def _full(self) -> _Overparametrized:
        recipe = self._design.recipe
        assert recipe is not None
        found = indicators(self._design)
        M, owner, names = found.M, found.owner, found.names
        candidates, complete = _treatment_columns(recipe.matrices)
        spread = relative_spread(self._design.some.X @ M[:, candidates])
        stays = independent_columns(self._R @ M[:, candidates], spread=spread)
        kept = candidates[stays]
        B = M[:, kept]
        if B.shape[0] != B.shape[1]:
            raise OptionError(
                "Type III hypotheses need to know which levels go with which columns, and the "
                "formula computes levels that hardly occur. Compute such factors in the data "
                "before fitting, or use type=1 or type=2."
            )
        treatment: FloatArray = np.linalg.solve(B, M).astype(np.float64)
        treatment[np.abs(treatment) < _ZERO] = 0.0
        aliased = (treatment != 0) & (complete[stays] == 0)
        return _Overparametrized(B, treatment, np.array(owner)[kept], M, names, owner, aliased)


@dataclass(frozen=True, eq=False)
class Indicators:
    """Columns with an indicator for every level of every factor in every term.

    Attributes
    ----------
    M : (p, P) array
        The columns are X M on the rows of the fit.
    owner : tuple of int
        The term of each column.
    names : tuple of str
    rows : DataFrame
        Typical rows, see `typical_rows`.
    columns : (rows, P) array
        The columns in these.
    """

    M: FloatArray
    owner: tuple[int, ...]
    names: tuple[str, ...]
    rows: pd.DataFrame
    columns: FloatArray


def indicators(design: Design) -> Indicators:
    """The overparametrized columns of a design's fixed effects from those of its coding."""
    recipe = design.recipe
    assert recipe is not None
    matrices = recipe.matrices
    rows = typical_rows(matrices, "fixed")
    X, _ = matrices.matrix("fixed", rows)
    full, owner, names = indicator_matrix(matrices, "fixed", rows)
    finite = np.isfinite(X).all(axis=1)  # lag() is undefined in the first rows of any data
    X, full, rows = X[finite], full[finite], rows.iloc[np.flatnonzero(finite)]
    own = [str(name) for name in matrices.specification("fixed").column_names]
    M = combination(X, full, own, names)
    kept = M[recipe.kept]
    if recipe.relations is not None:
        kept = kept + recipe.relations @ M[~recipe.kept]
    size = np.sqrt(np.einsum("ij,ij->j", full, full))
    length = np.sqrt(np.einsum("ij,ij->j", X, X))[recipe.kept]
    kept[np.abs(kept) * length[:, None] < 1e-9 * size] = 0.0
    return Indicators(np.asarray(kept), owner, names, rows, full)


def _treatment_columns(matrices: MatrixRecipe) -> tuple[IntArray, FloatArray]:
    """Overparametrized columns that make a treatment coding, and all columns from these.

    The coding is without the first levels; both are for data with all combinations of levels.
    """
    full, owner, names = indicator_matrix(matrices, "fixed", typical_rows(matrices, "fixed"))
    full = full[np.isfinite(full).all(axis=1)]
    order = np.lexsort((-np.arange(len(owner)), np.array(owner)))
    independent = independent_columns(full[:, order], [names[j] for j in order])
    chosen = np.sort(order[independent])
    return chosen, combination(full[:, chosen], full, [names[j] for j in chosen], names)


def _triangle(X: FloatArray) -> FloatArray:
    """R of X = QR."""
    return np.asarray(scipy.linalg.qr(X, mode="r", check_finite=False)[0][: X.shape[1]])


def _lengths(X: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", X, X)))


def combinations_without(A: FloatArray, length: FloatArray) -> FloatArray:
    """Rows c that span the solutions of cA = 0, (rows, m).

    Parameters
    ----------
    A : (m, columns) array
    length : (m,) array
        Sizes in which the rows of A are measured.
    """
    A = A * length[:, None]
    size = _lengths(A)
    A = A[:, size > 0] / size[size > 0]
    if A.shape[1] == 0:
        return np.eye(len(length))
    return np.asarray(scipy.linalg.null_space(A.T, rcond=_ZERO).T * length)


def _doolittle(R: FloatArray) -> FloatArray:
    """Unit upper triangular factor of X'X = R'R."""
    return np.asarray(np.triu(R) / np.diag(R)[:, None])


def check_type(kind: int) -> int:
    """The type of hypotheses as 1, 2 or 3."""
    names = {"1": 1, "2": 2, "3": 3, "I": 1, "II": 2, "III": 3}
    written = str(kind) if isinstance(kind, str) or is_whole(kind) else ""
    if written not in names:
        raise OptionError(
            "type must be 1 (sequential), 2 (adjusted for all terms that do not contain the term) "
            f"or 3 (averaged over the cells), not {brief(kind)}. Models are compared by "
            "lmm.anova(m1, m2)."
        )
    return names[written]
