"""Z'PZ as an operator → the traces tr(P V_i P V_j) from random vectors, for many effects.

Exactly they need all of Z'V⁻¹Z; a random vector needs a solution for every effect of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lmmsparse.common.arrays import FloatArray
from lmmsparse.engine.covariance.template import LambdaTemplate
from lmmsparse.engine.products import CrossProducts

PROBES = 32
_NUMBERS = 8_000_000  # of random vectors in memory at a time


def estimated_traces(
    products: CrossProducts,
    template: LambdaTemplate,
    factors: Sequence[FloatArray],
    changes: Sequence[FloatArray],
    solve: Callable[[FloatArray], FloatArray],
    border: FloatArray | None,
) -> FloatArray:
    """One estimate for each random vector, the same vectors at every call, (probes, d, d).

    Parameters
    ----------
    factors : sequence of (k, k) arrays
        T of every term.
    changes : sequence of (parameters, k, k) arrays
        ∂(TT') of every term.
    solve : callable
        `PLSFactor.solve`.
    border : (q, p) array or None
        Z'V⁻¹X R_X⁻¹ for REML; None for ML.

    References
    ----------
    Hutchinson (1990), Communications in Statistics - Simulation and Computation 19, 433-450.
    """
    generator = np.random.default_rng(0)
    at_once = int(np.clip(_NUMBERS // max(1, products.q), 1, PROBES))
    out = []

    def times_H(B: FloatArray) -> FloatArray:
        GB = products.times(B)
        inner = solve(template.multiply_transposed(factors, GB))
        HB = GB - products.times(template.multiply(factors, inner))
        return HB if border is None else HB - border @ (border.T @ B)

    for start in range(0, PROBES, at_once):
        m = min(at_once, PROBES - start)
        signs = [generator.choice([-1.0, 1.0], (n, m)) for n in template.n_levels]
        out.append(_of_vectors(template, changes, signs, times_H))
    return np.concatenate(out)


def _of_vectors(
    template: LambdaTemplate,
    changes: Sequence[FloatArray],
    signs: Sequence[FloatArray],
    times_H: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """The estimates by the signs of every term's levels, (levels, m).

    Between the effects of a level nothing is left to chance: there is a vector z_a for each effect
    of a term t, and tr(H E_i H E_j) is the mean of Σ_ab E_j[b, a] (Hz_a)'E_i(Hz_b) for E_j of t.
    """
    d, m = template.n_theta, signs[0].shape[1]
    offsets, slices = template.offsets, template.slices
    out = np.empty((m, d, d))
    for t, of_t in enumerate(changes):
        k, n = of_t.shape[1], template.n_levels[t]
        solved = []
        for a in range(k):
            z = np.zeros((template.q, m))
            z[offsets[t] : offsets[t + 1]].reshape(n, k, m)[:, a] = signs[t]
            solved.append(times_H(z))
        for s, of_s in enumerate(changes):
            own = [
                y[offsets[s] : offsets[s + 1]].reshape(-1, of_s.shape[1], m).transpose(2, 1, 0)
                for y in solved
            ]
            Q = np.array([[np.matmul(x, y.swapaxes(1, 2)) for y in own] for x in own])
            found = np.einsum("jba,icd,abmcd->mij", of_t, of_s, Q, optimize=True)
            out[:, slices[s], slices[t]] = found
    return 0.5 * (out + out.swapaxes(1, 2))
