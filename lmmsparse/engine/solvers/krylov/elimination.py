"""θ → the largest factor eliminated, and what is left of M as an operator A of about unit size.

With T the relative covariance factors, H = T₁(T₁'G₁₁T₁ + I)⁻¹T₁' for every eliminated level and
Q = G₂₂ − G₂₁HG₁₂, the core is S = I + T₂'QT₂. Its diagonal blocks D = CC' are known exactly, and
A = C⁻¹SC⁻ᵀ, whose diagonal blocks are I, is what conjugate gradients and probes see.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.linalg as sla

from lmmsparse.common.arrays import FloatArray
from lmmsparse.common.errors import NumericalError
from lmmsparse.engine.linalg import inverse_factors, small_product
from lmmsparse.engine.solvers.base import FAILED
from lmmsparse.engine.solvers.krylov import conjugate
from lmmsparse.engine.solvers.krylov.cells import Cells, mix

_TINY = 1e-6
_WELL = 1e4


def turned(blocks: FloatArray) -> FloatArray:
    """Every block transposed, (k, l, levels) → (l, k, levels)."""
    return blocks.swapaxes(0, 1)


class Elimination:
    """M at one θ.

    Parameters
    ----------
    T : list of (k, k) arrays
        Of every term.
    tol : float
        Of solutions.
    """

    def __init__(self, cells: Cells, T: list[FloatArray], tol: float) -> None:
        self.cells, self.tol = cells, tol
        self.T1 = np.asarray(sla.block_diag(*(T[t] for t in cells.lead)))
        self.T2 = [T[term.number] for term in cells.terms]
        root, logdets = _inverse(_plus_one(right(left(self.T1.T, cells.own), self.T1)))
        self.logdet = float(logdets.sum())
        self.inverse = small_product(turned(root), root)
        self.to_effects = right(self.inverse, self.T1.T)
        self._H = left(self.T1, self.to_effects)
        self.Q = cells.complement_own(self._H)
        self._E, self._F, self.root, self.D = [], [], [], []
        for Q, T2 in zip(self.Q, self.T2, strict=True):
            D = _plus_one(right(left(T2.T, Q), T2))
            self.D.append(D)
            root, logdets = _inverse(D.copy())
            self.logdet += float(logdets.sum())
            self.root.append(root)
            self._E.append(small_product(root, turned(root)))
            self._F.append(left(T2, turned(root)))
        self.steps = 0

    def A(self, y: FloatArray) -> FloatArray:
        """C⁻¹SC⁻ᵀ y, (core, m)."""
        B, terms = np.empty_like(y), self.cells.terms
        for term, F in zip(terms, self._F, strict=True):
            term.of(B)[:] = mix(F, term.of(y))
        B = self.cells.complement(self._H, B)
        out = np.empty_like(y)
        for term, E, F in zip(terms, self._E, self._F, strict=True):
            term.of(out)[:] = mix(E, term.of(y)) + mix(turned(F), term.of(B))
        return out

    def whitened(self, b: FloatArray) -> FloatArray:
        """C⁻¹ b, (core, m)."""
        out = np.empty_like(b)
        for term, root in zip(self.cells.terms, self.root, strict=True):
            term.of(out)[:] = mix(root, term.of(b))
        return out

    def coloured(self, y: FloatArray) -> FloatArray:
        """C⁻ᵀ y, (core, m)."""
        out = np.empty_like(y)
        for term, root in zip(self.cells.terms, self.root, strict=True):
            term.of(out)[:] = mix(turned(root), term.of(y))
        return out

    def times_D(self, x: FloatArray) -> FloatArray:
        """D x, (core, m)."""
        out = np.empty_like(x)
        for term, D in zip(self.cells.terms, self.D, strict=True):
            term.of(out)[:] = mix(D, term.of(x))
        return out

    def times_T(self, x: FloatArray, transposed: bool = False) -> FloatArray:
        """T₂ x, or T₂'x, (core, m)."""
        out = np.empty_like(x)
        for term, T in zip(self.cells.terms, self.T2, strict=True):
            term.of(out)[:] = mix(T.T if transposed else T, term.of(x))
        return out

    def times_Q(self, x: FloatArray) -> FloatArray:
        """Q x, (core, m)."""
        return self.cells.complement(self._H, x)

    def solve(self, b: FloatArray, tol: float | None = None) -> FloatArray:
        """M⁻¹ b, (q, m)."""
        return self.solve_with_squares(b, tol)[0]

    def solve_with_squares(
        self, b: FloatArray, tol: float | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """M⁻¹ b, (q, m), and b'M⁻¹b, (m, m).

        The diagonal of the second has the square of the first's error.
        """
        c1, c2 = self.cells.split(b)
        h = mix(self.inverse, c1)
        g = self.whitened(c2 + self.times_T(self.cells.up(mix(self.T1, h)), transposed=True))
        found = conjugate.solve(self.A, g, self.tol if tol is None else tol)
        self.steps = int(found.steps.max(initial=0))
        u2 = self.coloured(found.y)
        border = mix(self.T1.T, self.cells.down(self.times_T(u2)))
        m = b.shape[1]
        squares = c1.reshape(-1, m).T @ h.reshape(-1, m) + g.T @ found.y
        return self.cells.join(h - mix(self.inverse, border), u2), 0.5 * (squares + squares.T)

    @cached_property
    def is_tiny(self) -> list[bool]:
        """Per term of the core, whether some combination of its effects hardly varies."""
        return [_hardly_varies(D, T) for D, T in zip(self.D, self.T2, strict=True)]

    @cached_property
    def lead_is_tiny(self) -> bool:
        """Whether some combination of the eliminated effects hardly varies."""
        M = right(left(self.T1.T, self.cells.own.mean(axis=2, keepdims=True)), self.T1)
        return _hardly_varies(_plus_one(M), self.T1)

    @cached_property
    def pulled(self) -> FloatArray:
        """T₁⁻ᵀ(T₁'G₁₁T₁ + I)⁻¹T₁' = (I + G₁₁T₁T₁')⁻¹, (width, width, levels)."""
        K = self.T1 @ self.T1.T
        P = _plus_one(right(self.cells.own, K))
        if len(K) == 1:
            return 1.0 / P
        return np.ascontiguousarray(np.linalg.inv(P.transpose(2, 0, 1)).transpose(1, 2, 0))


def left(T: FloatArray, blocks: FloatArray) -> FloatArray:
    """T times every block, (l, k) and (k, m, levels) → (l, m, levels)."""
    k, m, levels = blocks.shape
    return np.asarray((T @ blocks.reshape(k, m * levels)).reshape(len(T), m, levels))


def right(blocks: FloatArray, T: FloatArray) -> FloatArray:
    """Every block times T, (k, l, levels) and (l, m) → (k, m, levels)."""
    return np.ascontiguousarray(turned(left(T.T, np.ascontiguousarray(turned(blocks)))))


def _plus_one(blocks: FloatArray) -> FloatArray:
    """The identity added to every block, in place."""
    k, _, levels = blocks.shape
    blocks.reshape(k * k, levels)[:: k + 1] += 1.0
    return blocks


def _hardly_varies(D: FloatArray, T: FloatArray) -> bool:
    share = float(np.linalg.eigvalsh(D.mean(axis=2))[0]) - 1.0
    return share < _TINY or bool(np.linalg.cond(T) > _WELL)


def _inverse(M: FloatArray) -> tuple[FloatArray, FloatArray]:
    with np.errstate(all="ignore"):
        root, logdets = inverse_factors(M)
    if not np.isfinite(logdets.sum()):
        raise NumericalError(FAILED)
    return root, logdets
