"""Joint tests of the differences between marginal means, term by term."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import scipy.linalg

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import OptionError
from lmmsparse.common.options import mapping
from lmmsparse.common.table import Table
from lmmsparse.common.words import listed
from lmmsparse.design.terms import covariates, formula_terms
from lmmsparse.inference.df.methods import joint_notes
from lmmsparse.inference.hypotheses.anova import f_test
from lmmsparse.inference.hypotheses.terms import combinations_without
from lmmsparse.inference.means.averages import Averages
from lmmsparse.inference.means.basis import Basis
from lmmsparse.inference.means.grid import ReferenceGrid

_ZERO = 1e-8


def joint_tests_table(basis: Basis, by: Any, at: Mapping[str, Any] | None) -> Table:
    """F tests that all means of a term are alike, within every combination of `by`."""
    reference = ReferenceGrid(basis.fit, _with_slopes(basis, at), "Joint tests")
    within = [] if by is None else reference.names("by", by)
    rows: list[tuple[str, list[Any], tuple[float, ...]]] = []
    reduced: list[str] = []
    shown_by: tuple[str, ...] = ()
    for term in _terms(reference, within):
        averages = reference.average(term, within)
        shown_by = averages.by
        outer = {o for name in term for o in reference.nesting.get(name, ())}
        nesters = [name for name in averages.names if name in outer]
        for group in averages.groups():
            L, full = _hypothesis(basis, averages, group, nesters)
            test = f_test(basis.fit.beta, L, basis.method)
            name = ":".join(term)
            rows.append((name, [averages.labels[n][group[0]] for n in averages.by], test))
            reduced += [name] if len(L) < full and name not in reduced else []
    if not rows:
        raise OptionError(
            "There are no factors or covariates to test"
            + (" besides by. Leave one of them out of by." if within else " in the fixed effects.")
        )
    kept = [row for row in rows if row[2][1] > 0]
    notes = []
    if reduced:
        notes.append(
            f"Of {listed(reduced)} only what the data determine is tested, as combinations of "
            "levels do not occur."
        )
    notes += joint_notes(basis.method, [row[2][1] for row in kept], [row[2][0] for row in kept])
    columns = {
        name: [row[2][j] for row in kept]
        for name, j in (("df1", 1), ("df2", 2), ("F.ratio", 0), ("p.value", 3))
    }
    labels = {"model term": [row[0] for row in kept]}
    labels.update({n: [row[1][j] for row in kept] for j, n in enumerate(shown_by)})
    index = [", ".join(map(str, [row[0], *row[1]])) for row in kept]
    title = f"Joint tests of marginal means{basis.title}"
    return Table(columns, index, title=title, notes=notes, labels=labels)


def _with_slopes(basis: Basis, at: Mapping[str, Any] | None) -> dict[str, Any]:
    """Two values for every covariate that is not given any: the difference tests its slope.

    Of one that only makes levels, as in C(year % 4), those it has.
    """
    given = dict(mapping("at", at, "Write at={'column': [1, 2]}."))
    recipe = basis.fit.design.recipe
    if recipe is None:
        return given
    matrices = recipe.matrices
    sloping = set().union(
        *(matrices.columns_in(n) for t in formula_terms(matrices, "fixed") for n in t.numbers)
    )
    for name, (mean, low, high) in covariates(matrices, "fixed").items():
        values = matrices.columns[name].values
        if values and name not in sloping:
            given.setdefault(name, list(values))
        step = min(1.0, (high - low) / 2.0)
        given.setdefault(name, [mean - step, mean + step])
    return given


def _terms(reference: ReferenceGrid, within: list[str]) -> Iterator[list[str]]:
    """Sets of predictors that stand in a term of the formula together, the smaller ones first."""
    order = reference.recipe.matrices.variables["fixed"]
    nesting = reference.nesting
    names = sorted(
        (n for n in reference.values if len(reference.values[n]) > 1 and n not in within),
        key=list(order).index,
    )
    terms = [term.variables for term in formula_terms(reference.recipe.matrices, "fixed")]
    terms += [frozenset([name, *outer]) for name, outer in nesting.items()]
    longest = max((len(t) for t in terms), default=0)
    for size in range(1, longest + 1):
        for chosen in combinations(names, size):
            outer = {o for n in chosen for o in nesting.get(n, ())}
            if any(t.issuperset(chosen) for t in terms) and outer <= {*chosen, *within}:
                yield list(chosen)


def _hypothesis(
    basis: Basis, averages: Averages, group: list[int], nesters: list[str]
) -> tuple[FloatArray, int]:
    """Independent rows of L for differences within a group, and how many it takes in all."""
    recipe = basis.fit.design.recipe
    assert recipe is not None
    names = [n for n in averages.names if n not in nesters]
    parts: dict[Any, list[int]] = {}
    for i in group:
        parts.setdefault(tuple(averages.labels[n][i] for n in nesters), []).append(i)
    rows = [np.zeros((0, len(averages.F)))]
    for part in parts.values():
        differences = _differences([[averages.labels[n][i] for n in names] for i in part])
        wide = np.zeros((len(differences), len(averages.F)))
        wide[:, part] = differences
        rows.append(wide)
    W = np.concatenate(rows)
    W = W[~((W != 0) & ~(averages.occurs & averages.defined)).any(axis=1)]
    full = int(np.linalg.matrix_rank(W)) if len(W) else 0
    F = W @ averages.F
    if recipe.relations is not None and len(F):
        gap = F[:, ~recipe.kept] - F[:, recipe.kept] @ recipe.relations
        gap[np.abs(gap) < _ZERO * np.abs(averages.F).max(initial=1.0)] = 0.0
        F = combinations_without(gap, np.ones(len(gap))) @ F if gap.any() else F
    return _independent(F[:, recipe.kept]), full


def _differences(levels: list[list[Any]]) -> FloatArray:
    """Differences of consecutive levels, of several factors differences of these, (rows, cells)."""
    D: FloatArray = np.ones((1, 1))
    for j in range(len(levels[0])):
        k = len(dict.fromkeys(row[j] for row in levels))
        D = np.asarray(
            np.kron(np.eye(k)[1:] - np.eye(k)[:-1], D), dtype=np.float64
        )  # the first factor varies fastest
    if D.shape[1] == len(levels):
        return D
    k = len(levels)  # not all combinations occur: every mean against the one before
    return np.eye(k)[1:] - np.eye(k)[:-1]


def _independent(L: FloatArray) -> FloatArray:
    """Independent rows that span those of L, whatever the units of its columns."""
    size = np.abs(L).max(axis=0, initial=0.0)
    if not size.any():
        return np.zeros((0, L.shape[1]))
    U, s, _ = scipy.linalg.svd(L / np.where(size > 0, size, 1.0), full_matrices=False)
    return np.asarray(U[:, s > _ZERO * s[0]].T @ L)
