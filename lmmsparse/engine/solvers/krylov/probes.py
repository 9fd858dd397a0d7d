"""Random signs → log|A| and the traces that derivatives need, each with its Monte Carlo error.

A matrix R of deflation vectors W and of signs off their space has E[RR'] = I, with weight one for
each column of W and 1/s for each of s probes: any trace is estimated without bias. The same signs
are used at every θ.

References
----------
Ubaru, Chen & Saad (2017), SIAM Journal on Matrix Analysis and Applications 38(4), 1075-1099.
Meyer, Musco, Musco & Woodruff (2021), Hutch++, SIAM Symposium on Simplicity in Algorithms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.linalg import small_product
from lmmsparse.engine.solvers.krylov import conjugate
from lmmsparse.engine.solvers.krylov.cells import mix
from lmmsparse.engine.solvers.krylov.elimination import Elimination, left, right, turned

_TOL = 1e-4
_TIGHT = 1e-5
_ILL = 1e3
_BLOCK = 20
_FEW = 8  # probes for which a coefficient of a control variate cannot be estimated


def signs(seed: int, number: int, size: int) -> FloatArray:
    """Probe `number`, (size,), which depends on nothing else."""
    drawn = np.random.default_rng((seed, number)).integers(0, 2, size, dtype=np.int8)
    return np.asarray(2.0 * drawn - 1.0, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimates with the errors of their probes.

    Attributes
    ----------
    value : (…) array
    errors : (s, …) array
        Of the single probes: the estimate's own is that of their mean.
    """

    value: FloatArray
    errors: FloatArray


def estimated(of_vectors: FloatArray, of_probes: FloatArray, control: FloatArray) -> Estimate:
    """The sum over deflation vectors and the mean over probes.

    Parameters
    ----------
    of_vectors, of_probes : (k, …) and (s, …) arrays
    control : (s,) array
        A variable of mean zero that goes with the probes.
    """
    mean, s = of_probes.mean(axis=0), len(of_probes)
    errors = of_probes - mean
    off = control - control.mean()
    spread = float(off @ off)
    if s >= _FEW and spread > 0:
        slope = np.tensordot(off, errors, axes=1) / spread
        mean = mean - slope * control.mean()
        errors = (errors - np.multiply.outer(off, slope)) * np.sqrt((s - 1) / (s - 2))
    return Estimate(np.asarray(of_vectors.sum(axis=0) + mean), errors)


@dataclass(frozen=True, eq=False)
class Columns:
    """Solutions for some columns R.

    Attributes
    ----------
    t, d : (core, c) arrays
        C⁻ᵀR and S⁻¹CR − C⁻ᵀR: S⁻¹ − D⁻¹ is the expectation of dt'.
    log, square, size : (c,) arrays
        R'log(A)R, R'AR and R'R, column by column.
    steps : int
        Of conjugate gradients, at most.
    """

    t: FloatArray
    d: FloatArray
    log: FloatArray
    square: FloatArray
    size: FloatArray
    steps: int


@dataclass(frozen=True, eq=False)
class Probed:
    """What probes have said at one θ.

    Attributes
    ----------
    logdet : Estimate
        log|A|.
    steps : int
        Of conjugate gradients, at most.
    """

    logdet: Estimate
    steps: int
    _M: Elimination
    _blocks: tuple[Columns, ...]
    _control: FloatArray

    def logdet_sd(self, probes: int) -> float:
        """The standard deviation of log|A| as a mean over so many probes."""
        errors = self.logdet.errors
        return float(np.sqrt(errors @ errors / ((len(errors) - 1) * probes)))

    @cached_property
    def core(self) -> list[Estimate]:
        """By term of the core, T⁻ᵀΣ(D⁻¹ − [S⁻¹])T'… of its levels: what FT lacks, (k, k)."""
        parts = [_core_sums(self._M, block) for block in self._blocks]
        return [self._estimated(list(of_term)) for of_term in zip(*parts, strict=True)]

    @cached_property
    def lead(self) -> Estimate:
        """The same of the eliminated levels, (width, width)."""
        return self._estimated([_lead_sums(self._M, block) for block in self._blocks])

    def _estimated(self, parts: list[FloatArray]) -> Estimate:
        values = np.concatenate(parts)
        k = len(values) - len(self._control)
        return estimated(values[:k], values[k:], self._control)


def columns(M: Elimination, W: FloatArray, probes: int, seed: int) -> Iterator[Columns]:
    """Solve for all deflation vectors and probes, block by block."""
    k, total = W.shape[1], W.shape[1] + probes
    blocks = -(-total // _BLOCK)
    ends = [total * i // blocks for i in range(blocks + 1)]
    for a, z in pairwise(ends):
        R = np.empty((len(W), z - a))
        for j in range(a, z):
            R[:, j - a] = W[:, j] if j < k else signs(seed, j - k, len(W))
        first = min(max(k - a, 0), z - a)
        R[:, first:] -= W @ (W.T @ R[:, first:])
        yield _solution(M, R)


def _solution(M: Elimination, R: FloatArray) -> Columns:
    """Solve for some columns, more exactly for those that see an ill-conditioned A."""
    solved = conjugate.solve(M.A, R, _TOL)
    log, ratios = solved.logarithms()
    y, square, steps = solved.y, solved.squares(), int(solved.steps.max(initial=0))
    ill = np.flatnonzero(ratios > _ILL)
    if len(ill):
        again = conjugate.solve(M.A, np.ascontiguousarray(R[:, ill]), _TIGHT)
        y[:, ill], log[ill] = again.y, again.logarithms()[0]
        steps = int(again.steps.max())
    return Columns(M.coloured(R), M.coloured(y - R), log, square, solved.size, steps)


def probe(M: Elimination, W: FloatArray, probes: int, seed: int) -> Probed:
    """Estimate all that A's entries outside its blocks are needed for.

    Parameters
    ----------
    W : (core, k) array
        Orthonormal deflation vectors.
    """
    blocks = tuple(columns(M, W, probes, seed))
    k = W.shape[1]
    beyond = np.concatenate([each.square - each.size for each in blocks])
    control = beyond[k:] + beyond[:k].sum()
    log = np.concatenate([each.log for each in blocks])
    left = log[k:] - control
    mean = float(left.mean())
    total = Estimate(np.asarray(log[:k].sum() + mean), left - mean)
    return Probed(total, max(each.steps for each in blocks), M, blocks, control)


def _core_sums(M: Elimination, block: Columns) -> list[FloatArray]:
    """Per term −T⁻ᵀ Σ dt' over its levels, (c, k, k)."""
    out = []
    pulled: FloatArray | None = None
    for i, (term, T) in enumerate(zip(M.cells.terms, M.T2, strict=True)):
        t = term.of(block.t)
        if M.is_tiny[i]:
            # T⁻ᵀd without T⁻¹, which may not be there.
            if pulled is None:
                pulled = M.times_Q(M.times_T(block.t + block.d))
            d = mix(M.Q[i], mix(T, t)) - term.of(pulled)
            out.append(-np.einsum("ilc,jlc->cij", d, t))
        else:
            sums = np.einsum("ilc,jlc->cij", term.of(block.d), t)
            out.append(-np.linalg.solve(T.T, 0.5 * (sums + sums.swapaxes(1, 2))))
    return out


def _lead_sums(M: Elimination, block: Columns) -> FloatArray:
    """−T₁⁻ᵀ Σ Kd(Kt)' over the eliminated levels, (c, width, width), with K = M₁₁⁻¹M₁₂."""
    width, c = M.cells.width, block.t.shape[1]
    out = np.zeros((c, width, width))
    d, t = M.times_T(block.d), M.times_T(block.t)
    pulled = M.pulled if M.lead_is_tiny else M.to_effects
    for piece in M.cells.pieces:
        Kd = mix(pulled[:, :, piece.rows], piece.down(d))
        Kt = mix(M.to_effects[:, :, piece.rows], piece.down(t))
        out -= np.einsum("ilc,jlc->cij", Kd, Kt)
    if M.lead_is_tiny:
        return out
    return np.linalg.solve(M.T1.T, 0.5 * (out + out.swapaxes(1, 2)))


def exact_sums(M: Elimination) -> tuple[list[FloatArray], FloatArray]:
    """What FT is where S is D: per term of the core, and of the eliminated levels."""
    core, J = [], []
    for Q, T, root in zip(M.Q, M.T2, M.root, strict=True):
        inverse = small_product(turned(root), root)
        core.append(np.einsum("ijl,jnl->in", right(Q, T), inverse))
        J.append(left(T, right(inverse, T.T)))
    lead = np.einsum("ijl,jnl->in", right(M.cells.own, M.T1), M.inverse)
    inner = small_product(M.pulled, M.cells.inner(J))
    return core, lead - np.einsum("iml,nml->in", inner, M.to_effects)
