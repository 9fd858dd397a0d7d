"""X → its columns with large multiples of others taken off, so that their products keep digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmmsparse.common.arrays import FloatArray

_ALIKE = 0.9995


_PASSES = 3


def origins(
    X: FloatArray,
    factors: Callable[[int], frozenset[str]] | None = None,
    weights: FloatArray | None = None,
    among: int | None = None,
) -> tuple[FloatArray, FloatArray | None]:
    """X with large multiples of other columns taken off, where the span stays the same.

    A predictor far from zero is nearly a multiple of the constant column, and its products with
    others are nearly multiples of these.

    Parameters
    ----------
    X : (n, p) array
    factors : callable, optional
        Column number → what it is a product of; without it only constant columns are taken off.
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
        keys = keys or _keys(X, factors)
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


def _keys(
    X: FloatArray, factors: Callable[[int], frozenset[str]] | None
) -> list[frozenset[str] | None]:
    """What each column is a product of; nothing for constant ones."""
    constant = (np.ptp(X, axis=0) == 0) & (X[0] != 0) if len(X) else np.zeros(X.shape[1], bool)
    return [
        frozenset() if same else None if factors is None else factors(j)
        for j, same in enumerate(constant)
    ]
