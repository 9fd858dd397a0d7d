"""X → which of its columns do not depend on the columns before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp
from scipy.linalg import lapack

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, is_ones
from lmmsparse.common.errors import Finding
from lmmsparse.common.words import listed
from lmmsparse.engine.origins import origins
from lmmsparse.formula.tokens import effect_key

FixedColumns: TypeAlias = FloatArray | sp.csr_array

# Squares of larger numbers, or of those smaller than its inverse, cannot be summed.
LARGEST = 1e100
_TOLERANCE = 1e-7
# A column whose own share is below this cannot be told from rounding errors.
_ROUNDING = 1e-13
# Spread by length of a column so far from zero that the rule above is about rounding errors too.
_FAR = 1e-6
_ZERO = 1e-9
_WELL = 1e-6
_SPANNED = 1e-8


def chosen_columns(X: FixedColumns, chosen: BoolArray) -> FixedColumns:
    """Some columns of X, laid out column by column."""
    if chosen.all():
        return np.asfortranarray(X) if isinstance(X, np.ndarray) and not is_ones(X) else X
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
        Of the columns, see `factors_of`.
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
    moved, _ = origins(X, factors_of(names)) if spread is None else (X, None)
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
    moved = _length(origins(X, factors_of(names))[0]) / np.where(length > 0, length, 1.0)
    return np.minimum(relative_spread(X), np.where(length > 0, moved, 1.0)) < _FAR


def factors_of(names: Sequence[str] | None) -> Callable[[int], frozenset[str]] | None:
    """What each of the columns is a product of, by their names; None where they have none."""
    return None if names is None else lambda j: effect_key(names[j])


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
        Of their columns, see `factors_of`.

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
    columns, A = origins(np.hstack([X, wanted]), factors_of(both), among=p)
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


def spans(X: FloatArray, columns: FloatArray) -> bool:
    """Whether columns are combinations of those of X."""
    if not columns.shape[1] or not X.shape[1]:
        return not columns.shape[1]
    left = X @ np.linalg.lstsq(X, columns, rcond=None)[0] - columns
    return bool(np.all(np.abs(left).max(axis=0) < _SPANNED * np.abs(columns).max(axis=0)))


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
        Of all columns, see `factors_of`.

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
    length = np.sqrt(gram.diagonal())
    if not length.all():
        return False
    root, info = lapack.dpotrf(gram / (length[:, None] * length))
    return bool(not info and root.diagonal().min() > 1e-3)


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


def rank_findings(X: FixedColumns, names: tuple[str, ...], lost: tuple[str, ...]) -> list[Finding]:
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
