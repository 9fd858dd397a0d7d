"""Structures and numbers of levels of all terms → θ as one vector, and Λ(θ) as an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np
import scipy.sparse as sp

from lmmsparse.common.arrays import BoolArray, FloatArray, IntArray, frozen
from lmmsparse.engine.covariance.structures import CovarianceStructure

_ONE_PRODUCT_UP_TO = 16


@dataclass(frozen=True, eq=False)
class LambdaTemplate:
    """The pattern of Λ(θ): structures and numbers of levels of all terms, in the design's order.

    Parameters
    ----------
    structures : sequence of CovarianceStructure
        One per term.
    n_levels : sequence of int
        Levels of each term's grouping factor.
    held : sequence of (int, float)
        Positions in θ that are not varied, and their values; start and both bounds are there.
    shifts : sequence of (k, k) array or None, optional
        Per term S with Z = Z̃S, where cross-products are taken of shifted columns Z̃; Zb = Z̃(Sb).
    """

    structures: tuple[CovarianceStructure, ...]
    n_levels: tuple[int, ...]
    held: tuple[tuple[int, float], ...] = ()
    shifts: tuple[FloatArray | None, ...] = ()

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each term's parameters stand in θ."""
        ends = accumulate((s.n_par for s in self.structures), initial=0)
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First element of b of each term, and q at the end; (terms + 1,)."""
        sizes = [s.k * n for s, n in zip(self.structures, self.n_levels, strict=True)]
        return tuple(accumulate(sizes, initial=0))

    @property
    def n_theta(self) -> int:
        return self.slices[-1].stop if self.slices else 0

    @property
    def q(self) -> int:
        return self.offsets[-1]

    @cached_property
    def free(self) -> BoolArray:
        """Which elements of θ are estimated, (n_theta,)."""
        out = np.ones(self.n_theta, dtype=bool)
        out[[i for i, _ in self.held]] = False
        return frozen(out)

    @cached_property
    def places(self) -> tuple[tuple[IntArray, IntArray], ...]:
        """Per term, row and column in T of every parameter, (n_par,) each."""
        own = (np.array(s.entries, dtype=np.intp).reshape(-1, 2) for s in self.structures)
        return tuple((frozen(entries[:, 0]), frozen(entries[:, 1])) for entries in own)

    @cached_property
    def has_limits(self) -> bool:
        """Whether any parameter has a bound that no change of sign makes unnecessary."""
        return any(np.isfinite(s.upper()).any() for s in self.structures)

    def with_held(self, theta: FloatArray) -> FloatArray:
        """θ with what is held at its values."""
        out = np.array(theta, dtype=np.float64)
        for i, value in self.held:
            out[i] = value
        return out

    @cached_property
    def start(self) -> FloatArray:
        return frozen(self.with_held(_joined([s.start() for s in self.structures])))

    @cached_property
    def lower(self) -> FloatArray:
        return frozen(self.with_held(_joined([s.lower() for s in self.structures])))

    @cached_property
    def upper(self) -> FloatArray:
        return frozen(self.with_held(_joined([s.upper() for s in self.structures])))

    @cached_property
    def mirrors(self) -> tuple[tuple[int, ...], ...]:
        """Sets of positions in θ whose signs can be flipped together without changing ΛΛ'."""
        groups = (
            tuple(sl.start + i for i in group)
            for s, sl in zip(self.structures, self.slices, strict=True)
            for group in s.mirrors
        )
        if not self.held:
            return tuple(groups)
        held = dict(self.held)
        # An element held at another value than zero cannot flip, nor then can those with it.
        return tuple(
            tuple(i for i in group if i not in held)
            for group in groups
            if group[0] not in held and not any(held.get(i, 0.0) for i in group)
        )

    def factors(self, theta: FloatArray) -> list[FloatArray]:
        """T of every term at θ, each (k, k)."""
        return [s.factor(theta[sl]) for s, sl in zip(self.structures, self.slices, strict=True)]

    def shifted_factors(self, theta: FloatArray) -> list[FloatArray]:
        """ST of every term at θ, each (k, k): what goes with cross-products of shifted columns."""
        factors = self.factors(theta)
        if not self._moved:
            return factors
        return [self.shifted(t, T) for t, T in enumerate(factors)]

    @cached_property
    def _moved(self) -> bool:
        return any(S is not None for S in self.shifts)

    def shifted(self, t: int, T: FloatArray) -> FloatArray:
        """S times T, or a stack of such, for term t."""
        S = self.shifts[t] if self.shifts else None
        return T if S is None else np.matmul(S, T)

    def unshifted(self, t: int, F: FloatArray) -> FloatArray:
        """S'FS of term t: a derivative by STT'S' as one by TT'."""
        S = self.shifts[t] if self.shifts else None
        return F if S is None else S.T @ F @ S

    def Lambda(self, theta: FloatArray) -> sp.csc_array:
        """Λ(θ) as a sparse (q, q) matrix, one diagonal block per level."""
        return self.block_diagonal(self.factors(theta))

    def block_diagonal(self, factors: Sequence[FloatArray]) -> sp.csc_array:
        """One (k, k) block per level and term, sparse (q, q)."""
        blocks = [
            sp.kron(sp.eye_array(n), sp.csc_array(T), format="csc")
            for T, n in zip(factors, self.n_levels, strict=True)
        ]
        if not blocks:
            return sp.csc_array((0, 0))
        return sp.csc_array(sp.block_diag(blocks, format="csc"))

    def by_term(self, b: FloatArray) -> list[FloatArray]:
        """An array (q, …) as one (levels, k, …) array per term."""
        ends = pairwise(self.offsets)
        return [
            b[a:z].reshape(n, s.k, *b.shape[1:])
            for s, n, (a, z) in zip(self.structures, self.n_levels, ends, strict=True)
        ]

    def multiply(self, factors: Sequence[FloatArray], b: FloatArray) -> FloatArray:
        """Λ b for b of shape (q, m) or (q,), with the T of each term given."""
        return self._blockwise(factors, b)

    def multiply_transposed(self, factors: Sequence[FloatArray], b: FloatArray) -> FloatArray:
        """Λ' b for b of shape (q, m) or (q,), with the T of each term given."""
        return self._blockwise([T.T for T in factors], b)

    def _blockwise(self, factors: Sequence[FloatArray], b: FloatArray) -> FloatArray:
        out = np.empty_like(b)
        columns = b.shape[1] if b.ndim > 1 else 1
        for T, n, (a, z) in zip(factors, self.n_levels, pairwise(self.offsets), strict=True):
            k = T.shape[0]
            if k == 1:
                np.multiply(b[a:z], T[0, 0], out=out[a:z])
            elif k * columns <= _ONE_PRODUCT_UP_TO:
                # One product of long and small matrices instead of one small product per level.
                wide = T.T[:, None, :, None] * np.eye(columns)[:, None, :]
                flat = b[a:z].reshape(n, k * columns)
                out[a:z] = (flat @ wide.reshape(k * columns, k * columns)).reshape(out[a:z].shape)
            else:
                out[a:z] = np.matmul(T, b[a:z].reshape(n, k, columns)).reshape(out[a:z].shape)
        return out


def _joined(parts: Sequence[FloatArray]) -> FloatArray:
    return np.concatenate(parts) if parts else np.zeros(0)
