"""X → which of its columns do not depend on the columns before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp

from lmmsparse._tokens import effect_key
from lmmsparse._types import BoolArray, FloatArray, IntArray

FixedColumns: TypeAlias = FloatArray | sp.csr_array

# Squares of larger numbers, or of those smaller than its inverse, cannot be summed.
LARGEST = 1e100
_TOLERANCE = 1e-7
# A column whose own share is below this cannot be told from rounding errors.
_ROUNDING = 1e-13
# Spread by length of a column so far from zero that the rule above is about rounding errors too.
_FAR = 1e-6
_ALIKE = 0.9995
_PASSES = 3
_ZERO = 1e-9
_WELL = 1e-6


def chosen_columns(X: FixedColumns, chosen: BoolArray) -> FixedColumns:
    """Some columns of X, laid out column by column."""
    if chosen.all():
        return np.asfortranarray(X) if isinstance(X, np.ndarray) else X
    if isinstance(X, np.ndarray):
        return np.asfortranarray(X[:, chosen])
    return sp.csr_array(X[:, np.flatnonzero(chosen)])


def columns_not_finite(X: FixedColumns) -> IntArray:
    """Positions of the columns that hold infinite, undefined or huge values, or tiny ones only."""
    if isinstance(X, np.ndarray):
        largest = np.abs(X).max(axis=0, initial=0.0)
        usable = (largest == 0.0) | ((largest >= 1.0 / LARGEST) & (largest <= LARGEST))
        return np.flatnonzero(~usable)
    return np.unique(X.indices[~(np.abs(X.data) <= LARGEST)]).astype(np.intp)


def independent_columns(
    X: FixedColumns, names: Sequence[str] | None = None, spread: FloatArray | None = None
) -> BoolArray:
    """Columns to keep so that the rest depend on them linearly; earlier columns are preferred.

    A column is dropped if what is left of it after projection on the kept columns before it is
    shorter than 1e-7 of its length, or is lost in rounding. This is R's rule in `lm` and `lmer`,
    except that lengths do not count how far from zero a column is.

    Parameters
    ----------
    X : (n, p) array or csr_array
    names : sequence of str, optional
        Of the columns, see `origins`.
    spread : (p,) array, optional
        `relative_spread` of the columns, where rows of X are not observations.

    Returns
    -------
    (p,) bool array
    """
    if clearly_independent(X):
        return np.ones(X.shape[1], dtype=bool)
    X = X if isinstance(X, np.ndarray) else X.toarray()
    length = _length(X)
    near = relative_spread(X) if spread is None else spread
    moved, _ = origins(X, names) if spread is None else (X, None)
    near = np.minimum(near, _length(moved) / np.where(length > 0, length, 1.0))
    tolerance = np.maximum(_TOLERANCE * near, _ROUNDING)
    return _shares(moved, length, tolerance) > tolerance


def relative_spread(X: FixedColumns) -> FloatArray:
    """Length of each column around its mean where it is not zero, as a share of its length.

    1 for columns with a single value beside zero.
    """
    X = X if isinstance(X, np.ndarray) else X.toarray()
    there = X != 0
    count = np.maximum(there.sum(axis=0), 1)
    rest = np.where(there, X - X.sum(axis=0) / count, 0.0)
    highest = np.where(there, X, -np.inf).max(axis=0, initial=-np.inf)
    lowest = np.where(there, X, np.inf).min(axis=0, initial=np.inf)
    length = _length(X)
    varies = (lowest < highest) & (length > 0)
    return np.where(varies, _length(rest) / np.where(varies, length, 1.0), 1.0)


def far_from_zero(X: FixedColumns, names: Sequence[str]) -> BoolArray:
    """Columns so far from zero, against their spread, that sums of them lose digits."""
    X = X if isinstance(X, np.ndarray) else X.toarray()
    length = _length(X)
    moved = _length(origins(X, names)[0]) / np.where(length > 0, length, 1.0)
    return np.minimum(relative_spread(X), np.where(length > 0, moved, 1.0)) < _FAR


def origins(
    X: FloatArray,
    names: Sequence[str] | None = None,
    weights: FloatArray | None = None,
    among: int | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """X with large multiples of other columns taken off, where the span stays the same.

    A predictor far from zero is nearly a multiple of the constant column, and its products with
    others are nearly multiples of these.

    Parameters
    ----------
    X : (n, p) array
    names : sequence of str, optional
        By which products are known; without names only constant columns are taken off.
    weights : (n,) array, optional
    among : int, optional
        How many of the columns may be taken off; all if not given.

    Returns
    -------
    moved : (n, p) array
    A : (p, p) array or None
        Unit upper triangular with moved = X A; None where they are the same.
    """
    p = X.shape[1]
    keys, total = None, None
    for _ in range(_PASSES):
        gram = X.T @ (X if weights is None else X * weights[:, None])
        length = np.sqrt(np.diag(gram))
        alike = np.abs(gram) > _ALIKE * np.outer(length, length)
        if not np.triu(alike, 1).any():
            break
        keys = keys or _keys(X, names)
        A = np.eye(p)
        for j in range(1, p):
            lower = [
                c
                for c in np.flatnonzero(alike[: min(j, among or p), j]).tolist()
                if _is_part(keys[c], keys[j]) and not A[:c, c].any()
            ]
            if lower:
                c = max(lower, key=lambda c: abs(gram[c, j]) / length[c])
                A[c, j] = -gram[c, j] / gram[c, c]
        if np.array_equal(A, np.eye(p)):
            break
        moved = np.flatnonzero(np.triu(A, 1).any(axis=0))
        X = X.copy(order="K")
        X[:, moved] = X[:, moved] + X @ (A - np.eye(p))[:, moved]
        total = A if total is None else total @ A
    return X, total


def _is_part(key: frozenset[str] | None, whole: frozenset[str] | None) -> bool:
    """Whether one column is a factor of another; the constant one is of all that are not."""
    if key is None or whole is None:
        return key == frozenset() and whole is None
    return key < whole


def _keys(X: FloatArray, names: Sequence[str] | None) -> list[frozenset[str] | None]:
    """What each column is a product of; nothing for constant ones."""
    constant = (np.ptp(X, axis=0) == 0) & (X[0] != 0) if len(X) else np.zeros(X.shape[1], bool)
    return [
        frozenset() if same else None if names is None else effect_key(names[j])
        for j, same in enumerate(constant)
    ]


def combination(
    X: FixedColumns,
    wanted: FixedColumns,
    names: Sequence[str] | None = None,
    wanted_names: Sequence[str] | None = None,
) -> FloatArray:
    """M with wanted = X M, where there is one; what is lost in rounding is zero.

    Rows with a value that is not finite say nothing.

    Parameters
    ----------
    X : (n, p) array or csr_array
    wanted : (n, m) array or csr_array
    names, wanted_names : sequence of str, optional
        Of their columns, see `origins`.

    Returns
    -------
    (p, m) array
    """
    X, wanted = (A if isinstance(A, np.ndarray) else A.toarray() for A in (X, wanted))
    finite = np.isfinite(X).all(axis=1) & np.isfinite(wanted).all(axis=1)
    if not finite.all():
        X, wanted = X[finite], wanted[finite]
    p, scale, size = X.shape[1], _length(X), _length(wanted)
    both = None if names is None or wanted_names is None else [*names, *wanted_names]
    columns, A = origins(np.hstack([X, wanted]), both, among=p)
    length = _length(columns)
    length = np.where(length > 0, length, 1.0)
    R = sla.qr(columns / length, mode="r", check_finite=False)[0][: len(length)]
    own, others = R[:, :p], R[:, p:]
    if len(R) >= p and np.abs(np.diag(own)).min(initial=1.0) > _WELL:
        M = sla.solve_triangular(own[:p], others[:p], check_finite=False)
    else:
        M = np.linalg.lstsq(own, others, rcond=None)[0]
    M = M / length[:p, None] * length[p:]
    if A is not None:
        M = A[:p, :p] @ M - A[:p, p:]
    M[np.abs(M) * scale[:, None] < _ZERO * np.where(size > 0, size, 1.0)] = 0.0
    return np.asarray(M)


def column_relations(
    X: FixedColumns, kept: BoolArray, names: Sequence[str] | None = None
) -> FloatArray | None:
    """The columns that are not kept as combinations of those that are.

    Parameters
    ----------
    X : (n, P) array or csr_array
    kept : (P,) bool array
        As `independent_columns` gives it.
    names : sequence of str, optional
        Of all columns, see `origins`.

    Returns
    -------
    (p, P − p) array or None
        None if all columns are kept.
    """
    if kept.all():
        return None
    stay, go = np.flatnonzero(kept), np.flatnonzero(~kept)
    own, others = (None if names is None else [names[j] for j in at.tolist()] for at in (stay, go))
    return combination(X[:, stay], X[:, go], own, others)


def own_share(X: FixedColumns, tolerance: float) -> FloatArray:
    """What each column adds to those before it, as a share of its length.

    Parameters
    ----------
    X : (n, p) array or csr_array
    tolerance : float
        Columns with a smaller share do not count among "those before".

    Returns
    -------
    (p,) array
        1 for all columns if every share is clearly large; 0 for a column of zeros.
    """
    if clearly_independent(X):
        return np.ones(X.shape[1])
    X = X if isinstance(X, np.ndarray) else X.toarray()
    return _shares(X, _length(X), np.full(X.shape[1], tolerance))


def clearly_independent(X: FixedColumns) -> bool:
    """Whether one small Cholesky factorization shows that every column adds a lot."""
    if X.shape[1] == 0:
        return True
    product = X.T @ X
    gram = product if isinstance(product, np.ndarray) else product.toarray()
    length = np.sqrt(np.diag(gram))
    try:
        return bool(
            length.all()
            and np.diag(np.linalg.cholesky(gram / np.outer(length, length))).min() > 1e-3
        )
    except np.linalg.LinAlgError:
        return False


def _length(X: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", X, X)))


def _shares(X: FloatArray, length: FloatArray, tolerance: FloatArray) -> FloatArray:
    """See `own_share`; shares of the given lengths, with one tolerance per column."""
    n, p = X.shape
    share = np.ones(p)
    unit = X / np.where(length > 0, length, 1.0)
    # The triangular factor has the same linear relations between columns in p dimensions.
    R = sla.qr(unit, mode="r", check_finite=False)[0][: min(n, p)]
    basis, m = np.zeros((R.shape[0], min(n, p)), order="F"), 0
    for j in range(p):
        rest = R[: j + 1, j].copy()  # below it there is nothing, in the basis neither
        before = basis[: len(rest), :m]
        for _ in range(2):
            rest -= before @ (before.T @ rest)
        full = length[j] == 0 or m == R.shape[0]
        share[j] = 0.0 if full else float(np.linalg.norm(rest))
        if share[j] > tolerance[j]:
            basis[: len(rest), m] = rest / share[j]
            m += 1
    return share
