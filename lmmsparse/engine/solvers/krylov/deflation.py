"""Vectors that are treated exactly where probes would be at their worst.

The levels of two factors trade a constant, and so do groups of levels that hardly meet others: few
directions in which A is far from I hold most of what probes would have to find. The constants are
always among them; others are Ritz vectors at one θ. For any such vectors estimates are unbiased.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.solvers.krylov.cells import Cells
from lmmsparse.engine.solvers.krylov.elimination import Elimination

_STEPS_PER_VECTOR = 2
_MORE_STEPS = 10


def constants(cells: Cells) -> FloatArray:
    """One vector per effect of every term of the core, the same in all levels, (core, k)."""
    out = np.zeros((cells.n_core, sum(term.k for term in cells.terms)))
    at = 0
    for term in cells.terms:
        for j in range(term.k):
            term.of(out)[j, :, at] = 1.0
            at += 1
    return out


def orthonormal(M: Elimination, vectors: FloatArray) -> FloatArray:
    """C'Y, orthonormalized: what goes with vectors Y of the core at this θ."""
    return np.asarray(np.linalg.qr(M.whitened(M.times_D(vectors)))[0])


def ritz_vectors(M: Elimination, known: FloatArray, count: int, seed: int) -> FloatArray:
    """Vectors of the core, (core, count), that carry most of log|A| beside known ones.

    Parameters
    ----------
    known : (core, k) array
        Vectors that are treated exactly already.
    """
    W = orthonormal(M, known)
    room = len(W) - W.shape[1]
    steps = min(_STEPS_PER_VECTOR * count + _MORE_STEPS, room)
    count = min(count, steps)
    if count <= 0:
        return np.zeros((len(W), 0))
    basis = np.empty((len(W), W.shape[1] + steps), order="F")
    basis[:, : W.shape[1]] = W
    first = W.shape[1]

    def off(v: FloatArray, so_far: int) -> FloatArray:
        for _ in range(2):
            v = v - basis[:, :so_far] @ (basis[:, :so_far].T @ v)
        return v

    v = off(np.random.default_rng((seed, 2**31)).standard_normal(len(W)), first)
    diagonal, below = [], []
    for j in range(steps):
        size = float(np.linalg.norm(v))
        if size < 1e-10:  # all of the space has been seen
            break
        if j:
            below.append(size)
        v = v / size
        basis[:, first + j] = v
        w = M.A(np.ascontiguousarray(v[:, None]))[:, 0]
        diagonal.append(float(v @ w))
        v = off(w, first + j + 1)
    values, vectors = sla.eigh_tridiagonal(diagonal, below)
    left = np.abs(np.log(np.maximum(values, 1e-300)) - values + 1.0)
    chosen = np.argsort(-left, kind="stable")[:count]
    own = basis[:, first : first + len(diagonal)] @ vectors[:, chosen]
    return M.coloured(own)
