"""Cross-products alone → which covariance parameters the data cannot tell apart."""

from __future__ import annotations

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import CrossProducts
from lmmsparse.fit.identification import (
    Unidentified,
    gram_matrix,
    ruled_out,
    standardized_changes,
    traces,
)
from lmmsparse.fit.undetermined import Undetermined

_NOTHING = 1e-11  # an eigenvalue of the Gram matrix below this is rounding errors
_SOMETHING = 1e-6


def unidentified_by_products(
    template: LambdaTemplate, products: CrossProducts, reml: bool, sigma_known: bool = False
) -> Unidentified | None:
    """What `unidentified` finds, without rows: to half of the digits."""
    if ruled_out(template, products, reml):
        return None
    G, whole = (gram_matrix(template, products, by_reml) for by_reml in (reml, False))
    d = len(G) - sigma_known
    null = _nothing(G[:d, :d])
    if not len(null):
        return None
    parts, at, total = [], 0, [float(products.n)]
    for pair in (pair for pair in products.pairs if pair.s == pair.t):
        root, E = standardized_changes(template, products, pair)
        A = np.matmul(np.matmul(root.T, pair.values), root)
        size = np.sqrt(np.maximum(np.diag(traces(A, A, E, E)), 1e-300))
        S = template.shifts[pair.s] if template.shifts else None
        back = root if S is None else np.linalg.solve(S, root)
        parts.append((slice(at, at + len(E)), E / size[:, None, None], back))
        at += len(E)

    def directions(of: FloatArray) -> Undetermined:
        changes = tuple(
            back @ np.tensordot(of[:, own], E, axes=1) @ back.T for own, E, back in parts
        )
        residual = np.zeros(len(of)) if sigma_known else of[:, -1] / np.sqrt(total[0])
        return Undetermined(changes, residual)

    away = None
    if reml and products.p:
        H = null @ whole[:d, :d] @ null.T
        values, vectors = np.linalg.eigh(H)
        others = vectors[:, values > _SOMETHING].T
        away = directions(others @ null) if len(others) else None
    return Unidentified(directions(null), away)


def _nothing(G: FloatArray) -> FloatArray:
    """Orthonormal combinations that a Gram matrix says are nothing, (m, d)."""
    values, vectors = np.linalg.eigh(G)
    return np.asarray(vectors[:, values < _NOTHING].T)
