"""X → which of its columns do not depend on the columns before them."""

from __future__ import annotations

import numpy as np
import scipy.linalg as sla

from lmmsparse._types import BoolArray, FloatArray

_TOLERANCE = 1e-7


def independent_columns(X: FloatArray) -> BoolArray:
    """Columns to keep so that the rest depend on them linearly; earlier columns are preferred.

    A column is dropped if what is left of it after projection on the kept columns before it is
    shorter than 1e-7 of its length (R's rule in `lm` and `lmer`).

    Parameters
    ----------
    X : (n, p) array

    Returns
    -------
    (p,) bool array
    """
    n, p = X.shape
    keep = np.ones(p, dtype=bool)
    if p == 0:
        return keep
    length = np.sqrt(np.einsum("ij,ij->j", X, X))
    unit = X / np.where(length > 0, length, 1.0)
    try:  # clearly of full rank: one small Cholesky decides
        if length.all() and np.diag(np.linalg.cholesky(unit.T @ unit)).min() > 1e-3:
            return keep
    except np.linalg.LinAlgError:
        pass
    # The triangular factor has the same linear relations between columns in p dimensions.
    R = sla.qr(unit, mode="r", check_finite=False)[0][: min(n, p)]
    basis = np.zeros((R.shape[0], 0))
    for j in range(p):
        rest = R[:, j].copy()
        for _ in range(2):
            rest -= basis @ (basis.T @ rest)
        size = float(np.linalg.norm(rest))
        keep[j] = bool(length[j] > 0) and size > _TOLERANCE and basis.shape[1] < R.shape[0]
        if keep[j]:
            basis = np.column_stack([basis, rest / size])
    return keep
