"""X → which of its columns do not depend on the columns before them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.linalg as sla
import scipy.sparse as sp

from lmmsparse._types import BoolArray, FloatArray, IntArray

FixedColumns: TypeAlias = FloatArray | sp.csr_array

# Squares of larger numbers, or of those smaller than its inverse, cannot be summed.
LARGEST = 1e100
_TOLERANCE = 1e-7


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


def independent_columns(X: FixedColumns) -> BoolArray:
    """Columns to keep so that the rest depend on them linearly; earlier columns are preferred.

    A column is dropped if what is left of it after projection on the kept columns before it is
    shorter than 1e-7 of its length (R's rule in `lm` and `lmer`).

    Parameters
    ----------
    X : (n, p) array or csr_array

    Returns
    -------
    (p,) bool array
    """
    return own_share(X, _TOLERANCE) > _TOLERANCE


def column_relations(X: FixedColumns, kept: BoolArray) -> FloatArray | None:
    """The columns that are not kept as combinations of those that are.

    Parameters
    ----------
    X : (n, P) array or csr_array
    kept : (P,) bool array
        As `independent_columns` gives it.

    Returns
    -------
    (p, P − p) array or None
        None if all columns are kept.
    """
    if kept.all():
        return None
    X = X if isinstance(X, np.ndarray) else X.toarray()
    length = np.sqrt(np.einsum("ij,ij->j", X, X))
    length = np.where(length > 0, length, 1.0)
    R = sla.qr(X / length, mode="r", check_finite=False)[0][: X.shape[1]]
    solution = np.linalg.lstsq(R[:, kept], R[:, ~kept], rcond=None)[0]
    solution[np.abs(solution) < 1e-9] = 0.0
    return np.asarray(solution * length[~kept] / length[kept][:, None])


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
    n, p = X.shape
    share = np.ones(p)
    if p == 0:
        return share
    product = X.T @ X
    gram = product if isinstance(product, np.ndarray) else product.toarray()
    length = np.sqrt(np.diag(gram))
    try:  # clearly of full rank: one small Cholesky decides
        if (
            length.all()
            and np.diag(np.linalg.cholesky(gram / np.outer(length, length))).min() > 1e-3
        ):
            return share
    except np.linalg.LinAlgError:
        pass
    X = X if isinstance(X, np.ndarray) else X.toarray()
    length = np.sqrt(np.einsum("ij,ij->j", X, X))
    unit = X / np.where(length > 0, length, 1.0)
    # The triangular factor has the same linear relations between columns in p dimensions.
    R = sla.qr(unit, mode="r", check_finite=False)[0][: min(n, p)]
    basis = np.zeros((R.shape[0], 0))
    for j in range(p):
        rest = R[:, j].copy()
        for _ in range(2):
            rest -= basis @ (basis.T @ rest)
        full = length[j] == 0 or basis.shape[1] == R.shape[0]
        share[j] = 0.0 if full else float(np.linalg.norm(rest))
        if share[j] > tolerance:
            basis = np.column_stack([basis, rest / share[j]])
    return share
