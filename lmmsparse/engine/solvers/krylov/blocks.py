"""The blocks of M⁻¹ that belong to one level: estimates by probes, or what S ≈ D says of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.linalg import small_product
from lmmsparse.engine.solvers.krylov.cells import mix
from lmmsparse.engine.solvers.krylov.elimination import Elimination, left, right, turned
from lmmsparse.engine.solvers.krylov.probes import columns


def rough_blocks(M: Elimination) -> dict[int, FloatArray]:
    """Term → its levels' own blocks of M⁻¹ with D in place of S, (levels, k, k)."""
    out, J = {}, []
    for term, T, root in zip(M.cells.terms, M.T2, M.root, strict=True):
        inverse = small_product(turned(root), root)
        out[term.number] = inverse.transpose(2, 0, 1)
        J.append(left(T, right(inverse, T.T)))
    lead = _lead_blocks(M, J)
    for t, part in M.cells.parts.items():
        out[t] = lead[part, part].transpose(2, 0, 1)
    return out


def _lead_blocks(M: Elimination, J: Sequence[FloatArray]) -> FloatArray:
    """M₁₁⁻¹ + K D⁻¹ K' of the eliminated levels, (width, width, levels)."""
    half = small_product(M.to_effects, M.cells.inner(J))
    return M.inverse + small_product(half, turned(M.to_effects))


def own_blocks(
    M: Elimination, W: FloatArray, probes: int, seed: int, terms: Sequence[int]
) -> FloatArray:
    """Estimates of M⁻¹'s blocks of every level of terms that share a factor, (levels, K, K).

    Parameters
    ----------
    W : (core, k) array
        Orthonormal deflation vectors.
    terms : sequence of int
        The whole of the eliminated factor, or terms of the core that share one.
    """
    lead = terms[0] in M.cells.parts
    own = [term for term in M.cells.terms if term.number in terms]
    width = M.cells.width if lead else sum(term.k for term in own)
    levels = M.cells.n_levels if lead else own[0].n_levels
    out = np.zeros((width, width, levels))
    at = 0
    for block in columns(M, W, probes, seed):
        weights = np.full(block.t.shape[1], 1.0 / probes)
        weights[: max(0, W.shape[1] - at)] = 1.0
        at += len(weights)
        d, t = block.d * weights, block.t
        if lead:
            d, t = (mix(M.to_effects, M.cells.down(M.times_T(each))) for each in (d, t))
        else:
            d, t = (np.concatenate([term.of(each) for term in own]) for each in (d, t))
        out += np.einsum("ilc,jlc->ijl", d, t)
    out = 0.5 * (out + turned(out))
    if lead:
        inverses = [small_product(turned(root), root) for root in M.root]
        J = [left(T, right(inverse, T.T)) for T, inverse in zip(M.T2, inverses, strict=True)]
        out += _lead_blocks(M, J)
    else:
        ends = 0
        for term, root in zip(M.cells.terms, M.root, strict=True):
            if term.number in terms:
                part = slice(ends, ends + term.k)
                out[part, part] += small_product(turned(root), root)
                ends += term.k
    return np.ascontiguousarray(out.transpose(2, 0, 1))
